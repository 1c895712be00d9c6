//! A socket that nobody waits for when it is closed.
//!
//! Whoever closes a packet socket waits until every processor has passed a point of rest, and whoever closes a netfilter socket
//! until what transactions have removed is freed: some 10 ms on a quiet machine, 36 ms seen in the middle of a planned move. So they
//! are closed by a thread that has nothing else to do.

use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};

use socket2::Socket;
use tokio::runtime::Handle;

/// Closed by a thread of the runtime's when it is dropped; outside of one by whoever drops it.
#[derive(Debug)]
pub(crate) struct Beside(Option<Socket>);

impl Beside {
    pub(crate) const fn new(socket: Socket) -> Self {
        Self(Some(socket))
    }
}

impl Deref for Beside {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl AsRawFd for Beside {
    fn as_raw_fd(&self) -> RawFd {
        (**self).as_raw_fd()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let (Some(socket), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(socket)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::time::Duration;

    use socket2::{Domain, Type};
    use tokio::runtime::Builder;

    use super::*;

    /// Waits until the other end is closed.
    fn other_end_is_closed(mut socket: &Socket) -> bool {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket.read(&mut [0; 1]).unwrap() == 0
    }

    fn pair() -> (Beside, Socket) {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        (Beside::new(ours), theirs)
    }

    #[test]
    fn it_is_closed_without_a_runtime() {
        let (ours, theirs) = pair();
        assert_eq!(ours.as_raw_fd(), Socket::as_raw_fd(&ours));
        drop(ours);
        assert!(other_end_is_closed(&theirs));
    }

    #[test]
    fn whoever_drops_it_does_not_close_it() {
        let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let _inside = runtime.enter();
        // The only thread that may close it is held up.
        let (go_on, held_up) = std::sync::mpsc::channel::<()>();
        drop(runtime.spawn_blocking(move || held_up.recv()));
        let (ours, mut theirs) = pair();
        drop(ours);
        theirs.set_nonblocking(true).unwrap();
        assert_eq!(theirs.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        theirs.set_nonblocking(false).unwrap();
        go_on.send(()).unwrap();
        assert!(other_end_is_closed(&theirs));
    }
}
