//! Classic BPF: the words of which programs are made that tell the kernel what to queue on a socket. What is kept out wakes
//! nobody. A load beyond the end of what came keeps it out.

use socket2::SockFilter;

pub(crate) const LOAD_BYTE: u16 = 0x30;
pub(crate) const LOAD_HALF: u16 = 0x28;
/// Reads in network byte order, as all loads do.
pub(crate) const LOAD_WORD: u16 = 0x20;
pub(crate) const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// The end of a program: queue it, whole.
pub(crate) const LET_IN: SockFilter = SockFilter::new(RETURN, 0, 0, u32::MAX);
/// The end of a program: as if it had never come.
pub(crate) const KEEP_OUT: SockFilter = SockFilter::new(RETURN, 0, 0, 0);

/// The kernel judges datagrams of any kind of socket, so programs are tried without an interface and without a privilege.
#[cfg(test)]
pub(crate) mod tests {
    use std::io::{ErrorKind, Read};

    use socket2::{Domain, Socket, Type};

    use super::*;

    pub(crate) fn lets_in(filter: &[SockFilter], frame: &[u8]) -> bool {
        let (ours, mut theirs) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        theirs.attach_filter(filter).unwrap();
        theirs.set_nonblocking(true).unwrap();
        ours.send(frame).unwrap();
        let mut buffer = [0; 2_048];
        match theirs.read(&mut buffer) {
            Ok(length) => {
                assert_eq!(&buffer[..length], frame, "whole, as it came");
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    }

    #[test]
    fn both_ends_do_what_they_say() {
        assert!(lets_in(&[LET_IN], b"anything"));
        assert!(!lets_in(&[KEEP_OUT], b"anything"));
    }
}
