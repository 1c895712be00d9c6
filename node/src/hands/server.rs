//! Which process is the server, since when, and the notice of its end.
//!
//! The process is the one that listens on the Unix socket, as the kernel says (`SO_PEERCRED`); with its start
//! time it is an identity that no later process can have. Asking needs no answer from the server, so it works
//! while the server is frozen. The exit notice is a pidfd: it comes in the millisecond of the exit.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::str::FromStr;

use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

/// A server process: process id and start time, written `pid@ticks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId {
    /// Process id in the agent's pid namespace.
    pub pid: i32,
    /// Start time in clock ticks since the host's boot.
    pub started: u64,
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.started)
    }
}

impl FromStr for ServerId {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let parts = text
            .split_once('@')
            .and_then(|(pid, started)| Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? }));
        parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("not pid@ticks: {text:?}")))
    }
}

/// The process that listens on the Unix socket `socket`.
///
/// A socket that another process opened for the server (systemd socket activation) names that process: do not
/// use it for a managed database.
///
/// # Errors
/// The system's error of connecting (`ConnectionRefused` or `NotFound`: nobody listens; `WouldBlock`: the
/// queue is full, the server accepts nothing), or `NotFound` if the process ended meanwhile.
pub async fn listener(socket: &Path) -> io::Result<ServerId> {
    let stream = UnixStream::connect(socket).await?;
    let pid = stream.peer_cred()?.pid().filter(|pid| *pid > 0);
    let pid =
        pid.ok_or_else(|| io::Error::other("the server runs in a pid namespace that the agent cannot see"))?;
    Ok(ServerId { pid, started: start_ticks(pid)? })
}

/// True while exactly this process exists (a zombie no longer serves and counts as ended).
#[must_use]
pub fn is_alive(server: ServerId) -> bool {
    read_stat(server.pid)
        .is_ok_and(|(state, started)| started == server.started && state != 'Z' && state != 'X')
}

/// The kernel's state letter of exactly this process: `T` stopped, `S` sleeping, `R` running; `None` if it has ended.
#[must_use]
pub fn state(server: ServerId) -> Option<char> {
    read_stat(server.pid).ok().filter(|(_, started)| *started == server.started).map(|(state, _)| state)
}

/// The process that has this id now.
///
/// # Errors
/// `NotFound`: there is none.
pub fn of_pid(pid: i32) -> io::Result<ServerId> {
    Ok(ServerId { pid, started: start_ticks(pid)? })
}

/// Waits until the process ends; returns at once if it has ended already. Dropping the future leaves nothing behind.
///
/// # Errors
/// The system's error if no pidfd can be had (a kernel before 5.3, or no descriptors left).
pub async fn exited(server: ServerId) -> io::Result<()> {
    match Watch::open(server)? {
        Some(watch) => watch.exited().await,
        None => Ok(()),
    }
}

/// A pidfd on a server process.
#[derive(Debug)]
pub struct Watch {
    server: ServerId,
    fd: OwnedFd,
}

impl Watch {
    /// Opens a pidfd; `None` if the process has ended already.
    ///
    /// # Errors
    /// The system's error of `pidfd_open`.
    pub fn open(server: ServerId) -> io::Result<Option<Self>> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, server.pid, 0) };
        if raw < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
        }
        let raw = i32::try_from(raw).map_err(io::Error::other)?;
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // The id may have been given to another process before the descriptor was opened; from here on it cannot be.
        Ok(is_alive(server).then_some(Self { server, fd }))
    }

    /// The process that is watched.
    #[must_use]
    pub const fn server(&self) -> ServerId {
        self.server
    }

    /// Waits until the process ends.
    ///
    /// # Errors
    /// The system's error of registering the descriptor.
    pub async fn exited(self) -> io::Result<()> {
        // SAFETY: the descriptor is owned by the AsyncFd and stays the same for as long as it lives.
        let fd = unsafe { AsyncFd::register_with_interest(self.fd, tokio::io::Interest::READABLE) }
            .map_err(|error| error.into_parts().1)?;
        fd.readable().await?.retain_ready();
        Ok(())
    }

    /// Ends exactly this process with SIGKILL: the last fence against a frozen server. A process inside an
    /// uninterruptible system call ends only when the call does.
    ///
    /// # Errors
    /// The system's error; `ESRCH`: it has ended already.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Sends a signal to exactly this process.
    ///
    /// # Errors
    /// The system's error; `ESRCH`: it has ended already.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        let fd = self.fd.as_raw_fd();
        // SAFETY: the descriptor is open for as long as self lives, and a null siginfo is allowed.
        let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The kernel's boot id of this host.
///
/// # Errors
/// The system's error if /proc cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn start_ticks(pid: i32) -> io::Result<u64> {
    read_stat(pid).map(|(_, started)| started)
}

/// Longer than the line can be: 52 numbers of at most 21 bytes, and a name of 64.
const STAT_MAX: usize = 2_048;

/// Read at one go, as the kernel gives it: this is done several times a second.
fn read_stat(pid: i32) -> io::Result<(char, u64)> {
    let path = format!("/proc/{pid}/stat");
    let mut line = [0; STAT_MAX];
    let length = File::open(&path)?.read(&mut line)?;
    let stat = String::from_utf8_lossy(&line[..length]);
    parse_stat(&stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} has another format")))
}

/// State and start time: fields 3 and 22. The command name before them may hold blanks and parentheses itself.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_process_with_a_nasty_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 1";
        assert_eq!(parse_stat(stat), Some(('S', 4711)));
    }

    #[test]
    fn id_is_written_and_read() {
        let id = ServerId { pid: 12, started: 34 };
        assert_eq!(id.to_string(), "12@34");
        assert_eq!("12@34".parse::<ServerId>().unwrap(), id);
        assert!("12".parse::<ServerId>().is_err());
    }

    #[tokio::test]
    async fn exit_of_a_child_is_noticed() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let id = ServerId { pid, started: start_ticks(pid).unwrap() };
        let watch = Watch::open(id).unwrap().expect("it runs");
        assert!(is_alive(id));
        watch.kill().unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(10), watch.exited()).await.unwrap().unwrap();
        assert!(!is_alive(id), "a zombie counts as ended");
        child.wait().unwrap();
        exited(id).await.unwrap();
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_the_server() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let earlier = ServerId { pid, started: start_ticks(pid).unwrap() - 1 };
        assert!(Watch::open(earlier).unwrap().is_none());
    }

    #[tokio::test]
    async fn listener_of_a_socket_is_found_without_its_help() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let server = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(listener(&path).await.unwrap().pid, i32::try_from(std::process::id()).unwrap());
        drop(server);
        assert_eq!(listener(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
