//! A packet socket for one interface and one ethertype. Never promiscuous, never all protocols: a socket that
//! sees everything copies the database's traffic to us.
#![allow(unsafe_code)]

use std::{
    io::{self, Read},
    mem,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout, timeout_at},
};

use crate::{beside::Beside, link::Mac};

/// Queuing a frame of some 80 bytes takes microseconds; later than this the device is stuck.
const SEND_LIMIT: Duration = Duration::from_millis(200);

/// More frames than the queue of a socket holds by default: a neighbour that sends faster than we read cannot hold us up.
const DRAIN_MAX: usize = 1_024;

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// No packet socket on this interface.
    #[error("cannot open a packet socket on interface {ifindex}")]
    Open {
        /// Index of the interface.
        ifindex: u32,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The frame was not sent. `ENOBUFS` is also what a closed gate answers.
    #[error("cannot send a frame")]
    Send(#[source] io::Error),
    /// The device did not take the frame within 200 ms.
    #[error("the device did not take a frame within 200 ms")]
    SendLate,
    /// Receiving failed.
    #[error("cannot receive frames")]
    Receive(#[source] io::Error),
}

#[derive(Debug)]
pub(crate) struct PacketSocket(AsyncFd<Beside>);

impl PacketSocket {
    /// Binds to one interface and one ethertype; `filter` is a classic BPF program over the whole frame.
    pub(crate) fn open(ifindex: u32, ethertype: u16, filter: &[SockFilter]) -> Result<Self, PacketError> {
        bind(ifindex, ethertype, filter).map_err(|source| PacketError::Open { ifindex, source })
    }

    pub(crate) async fn send(&self, frame: &[u8]) -> Result<(), PacketError> {
        let sent = self.0.async_io(Interest::WRITABLE, |socket| socket.send(frame));
        let sent = timeout(SEND_LIMIT, sent).await.map_err(|_| PacketError::SendLate)?;
        sent.map(drop).map_err(PacketError::Send)
    }

    /// One frame, or `None` when the deadline has passed.
    pub(crate) async fn receive_until(
        &self,
        deadline: Instant,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, PacketError> {
        let received = self.0.async_io(Interest::READABLE, |socket| (&**socket).read(buffer));
        match timeout_at(deadline, received).await {
            Ok(length) => length.map(Some).map_err(PacketError::Receive),
            Err(_) => Ok(None),
        }
    }

    /// Throws away what has arrived so far, and tells what has gone wrong meanwhile, such as that the interface was down.
    pub(crate) fn drain(&self) -> Result<(), PacketError> {
        let mut first_byte = [0];
        for _ in 0..DRAIN_MAX {
            // Not by way of the runtime, which may not know yet of what has just arrived.
            match (&**self.0.get_ref()).read(&mut first_byte) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(PacketError::Receive(error)),
            }
        }
        Ok(())
    }

    /// The hardware address that the interface has at this moment; `None` when it is gone, also if another one has its name.
    pub(crate) fn hardware(&self) -> Option<Mac> {
        let address = self.0.get_ref().local_addr().ok()?;
        // SAFETY: the storage is zeroed before the kernel writes to it, and large enough and aligned for any socket address.
        let address = unsafe { address.as_ptr().cast::<libc::sockaddr_ll>().read() };
        let [a, b, c, d, e, f, ..] = address.sll_addr;
        (address.sll_halen == 6).then_some(Mac([a, b, c, d, e, f]))
    }
}

fn bind(ifindex: u32, ethertype: u16, filter: &[SockFilter]) -> io::Result<PacketSocket> {
    // Protocol 0: nothing is queued before `bind` names interface and ethertype.
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None::<Protocol>)?;
    if !filter.is_empty() {
        socket.attach_filter(filter)?;
    }
    let index = i32::try_from(ifindex).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the storage is zeroed and large enough for any socket address; we fill a `sockaddr_ll` in it and
    // give its exact length.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as libc::sa_family_t;
            (*address).sll_protocol = ethertype.to_be();
            (*address).sll_ifindex = index;
            *length = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    // SAFETY: the `AsyncFd` owns the socket, which owns its descriptor and is never replaced while registered.
    let registered = unsafe {
        AsyncFd::register_with_interest(Beside::new(socket), Interest::READABLE | Interest::WRITABLE)
    };
    Ok(PacketSocket(registered?))
}
