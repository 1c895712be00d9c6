//! Real-time priority and locked memory for the calling thread, where the system permits it.
#![allow(unsafe_code)]

use std::io;

/// Priority among real-time threads. Above ordinary work, below what the kernel itself uses.
const PRIORITY: libc::c_int = 10;

/// Asks for real-time priority of this thread and for locked memory of the process. Neither is required: without them
/// a loaded machine can close a healthy holder, which the margins of the slower profiles allow for.
pub(super) fn prepare() {
    if let Err(error) = realtime() {
        tracing::warn!(%error, "no real-time priority for the lease thread; allow LimitRTPRIO");
    }
    if let Err(error) = lock_memory() {
        tracing::warn!(%error, "memory is not locked; allow LimitMEMLOCK");
    }
}

fn realtime() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: `parameter` lives through the call; 0 names the calling thread.
    let done = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameter)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn lock_memory() -> io::Result<()> {
    // On fault: what is touched stays, what is only reserved costs nothing.
    // SAFETY: takes no pointer.
    let done = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
