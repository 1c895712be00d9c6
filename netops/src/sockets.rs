//! Resets the TCP connections of clients: `SOCK_DESTROY` over the kernel's socket diagnosis.
//!
//! For the closing step of a switchover, just before the gate closes, and for the end of a lease, after it: the client learns at
//! once instead of at its next packet, and the server's end goes too. Before is better: a closed gate resets the server's own
//! end of each connection that it answers on, and a client who waits for that answer has no next packet. Only connections whose *local* port is
//! guarded, so never a connection that this host opened to somebody else's port. Listening sockets stay.
//! A connection that is forwarded to a container has no socket here; the gate's reset ends it.
//!
//! Synchronous; a dump and one request per connection, some 10 µs each.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::{self, Writer};

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// All states but the closed, waiting and listening: established (1) to close-wait (8), and closing (11).
const CONNECTED_STATES: u32 =
    (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 9) | (1 << 11);
/// Length of `struct inet_diag_sockid`, which follows four bytes in the kernel's message.
const IDENTITY_BYTES: usize = 48;
const IDENTITY_AT: usize = 4;
/// The kernel answers within `send`; this much later it never will.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// Bound on one call; a server with more connections needs another call, which the count tells.
const RESETS_MAX: usize = 65_536;

/// Which connections to reset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResetSpec {
    /// Local ports.
    pub ports: Vec<u16>,
    /// Only connections to this local address; `None` for any.
    pub local_ip: Option<IpAddr>,
    /// Leave connections of these remote addresses alone (replication of the peer data node), unless they came
    /// by way of one of `vips`.
    pub except_peers: Vec<IpAddr>,
    /// The VIPs: a connection to one of them is a client's, whoever the remote end is.
    pub vips: Vec<IpAddr>,
}

/// Why connections could not be reset.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// No socket-diagnosis netlink socket, or it does not answer.
    #[error("cannot list the connections")]
    List(#[source] io::Error),
    /// The kernel cannot reset sockets (`CONFIG_INET_DIAG_DESTROY`): rely on the gate's resets.
    #[error("this kernel cannot reset connections")]
    Unsupported,
    /// Some connections could not be reset.
    #[error("reset {reset} connections, {failed} could not be reset")]
    Some {
        /// How many were reset.
        reset: usize,
        /// How many were not.
        failed: usize,
        /// Why the last of them was not.
        #[source]
        source: io::Error,
    },
}

/// Resets the connections and returns how many it has reset. One that ends by itself meanwhile counts as neither
/// reset nor failed.
///
/// # Errors
/// [`ResetError`]. After `Some` the others have been reset.
pub fn reset_clients(spec: &ResetSpec) -> Result<usize, ResetError> {
    let mut diagnosis = Diagnosis::open().map_err(ResetError::List)?;
    let (mut reset, mut failed) = (0, None);
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        for connection in diagnosis.list(family).map_err(ResetError::List)? {
            if !connection.is_meant(spec) {
                continue;
            }
            match diagnosis.destroy(&connection) {
                Ok(()) => reset += 1,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    return Err(ResetError::Unsupported);
                }
                Err(error) => failed = Some((failed.map_or(0, |(count, _)| count) + 1, error)),
            }
        }
    }
    match failed {
        None => Ok(reset),
        Some((failed, source)) => Err(ResetError::Some { reset, failed, source }),
    }
}

/// Whether the kernel can reset connections: asks it to reset one that cannot exist.
///
/// # Errors
/// [`ResetError::List`] without a socket, [`ResetError::Unsupported`].
pub(crate) fn check_reset() -> Result<(), ResetError> {
    let mut diagnosis = Diagnosis::open().map_err(ResetError::List)?;
    let nowhere = Connection { family: libc::AF_INET as u8, identity: [0; IDENTITY_BYTES] };
    match diagnosis.destroy(&nowhere) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(ResetError::Unsupported),
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(ResetError::List(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A connection as the kernel identifies it.
#[derive(Debug, Clone, Copy)]
struct Connection {
    family: u8,
    identity: [u8; IDENTITY_BYTES],
}

impl Connection {
    fn is_meant(&self, spec: &ResetSpec) -> bool {
        let local = self.address(4);
        let is_exempt = spec.except_peers.contains(&self.address(20)) && !spec.vips.contains(&local);
        spec.ports.contains(&self.local_port()) && spec.local_ip.is_none_or(|ip| ip == local) && !is_exempt
    }

    fn local_port(&self) -> u16 {
        u16::from_be_bytes([self.identity[0], self.identity[1]])
    }

    /// An address in its plainest form: a v4-mapped one is the IPv4 address.
    fn address(&self, at: usize) -> IpAddr {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.identity[at..at + 16]);
        if self.family == libc::AF_INET as u8 {
            let [a, b, c, d, ..] = bytes;
            return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        }
        IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
    }
}

struct Diagnosis {
    socket: Socket,
    writer: Writer,
    received: Vec<u8>,
    seq: u32,
}

impl Diagnosis {
    fn open() -> io::Result<Self> {
        let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { socket, writer: Writer::default(), received: vec![0; 64 * 1024], seq: 0 })
    }

    fn list(&mut self, family: u8) -> io::Result<Vec<Connection>> {
        self.request(BY_FAMILY, wire::DUMP, family, &[0; IDENTITY_BYTES])?;
        let mut connections = Vec::new();
        loop {
            let length = self.receive()?;
            for message in wire::messages(&self.received[..length]).filter(|m| m.seq == self.seq) {
                match message.kind {
                    wire::DONE => return Ok(connections),
                    wire::ERROR => return Err(as_error(message.errno())),
                    BY_FAMILY => {
                        let identity = message.payload.get(IDENTITY_AT..IDENTITY_AT + IDENTITY_BYTES);
                        let identity = identity.and_then(|bytes| bytes.try_into().ok());
                        let found = identity.map(|identity| Connection { family, identity });
                        connections.extend(found.filter(|_| connections.len() < RESETS_MAX));
                    }
                    _ => {}
                }
            }
        }
    }

    fn destroy(&mut self, connection: &Connection) -> io::Result<()> {
        self.request(DESTROY, wire::ACK, connection.family, &connection.identity)?;
        loop {
            let length = self.receive()?;
            let answer = wire::messages(&self.received[..length])
                .find(|message| message.seq == self.seq && message.kind == wire::ERROR);
            match answer.map(|message| message.errno()) {
                Some(Some(0)) => return Ok(()),
                Some(code) => return Err(as_error(code)),
                None => {}
            }
        }
    }

    /// A `struct inet_diag_req_v2`.
    fn request(&mut self, kind: u16, flags: u16, family: u8, identity: &[u8]) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        self.writer.clear();
        self.writer.begin(kind, wire::REQUEST | flags, self.seq);
        self.writer.raw(&[family, libc::IPPROTO_TCP as u8, 0, 0]);
        self.writer.raw(&CONNECTED_STATES.to_ne_bytes());
        self.writer.raw(identity);
        self.writer.finish();
        self.socket.send(self.writer.as_bytes()).map(drop)
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match (&self.socket).read(&mut self.received) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

fn as_error(code: Option<i32>) -> io::Error {
    code.map_or_else(|| io::Error::from(io::ErrorKind::InvalidData), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 12);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
    const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

    fn connection(local: Ipv4Addr, port: u16, remote: Ipv4Addr, is_mapped: bool) -> Connection {
        let mut identity = [0; IDENTITY_BYTES];
        identity[..2].copy_from_slice(&port.to_be_bytes());
        for (at, ip) in [(4, local), (20, remote)] {
            if is_mapped {
                identity[at..at + 16].copy_from_slice(&ip.to_ipv6_mapped().octets());
            } else {
                identity[at..at + 4].copy_from_slice(&ip.octets());
            }
        }
        let family = if is_mapped { libc::AF_INET6 } else { libc::AF_INET };
        Connection { family: family as u8, identity }
    }

    #[test]
    fn only_clients_of_guarded_ports_are_meant() {
        let spec = ResetSpec {
            ports: vec![3306],
            local_ip: None,
            except_peers: vec![PEER.into()],
            vips: vec![VIP.into()],
        };
        let client = Ipv4Addr::new(10, 77, 0, 50);
        for is_mapped in [false, true] {
            assert!(connection(VIP, 3306, client, is_mapped).is_meant(&spec));
            assert!(!connection(VIP, 3307, client, is_mapped).is_meant(&spec));
            assert!(!connection(OWN, 3306, PEER, is_mapped).is_meant(&spec), "replication");
            assert!(connection(VIP, 3306, PEER, is_mapped).is_meant(&spec), "a client that runs on the peer");
            let by_vip = ResetSpec { local_ip: Some(VIP.into()), ..spec.clone() };
            assert!(connection(VIP, 3306, client, is_mapped).is_meant(&by_vip));
            assert!(!connection(OWN, 3306, client, is_mapped).is_meant(&by_vip));
        }
    }
}
