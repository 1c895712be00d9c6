//! Resets the TCP connections of clients: `SOCK_DESTROY` over the kernel's socket diagnosis.
//!
//! For the closing step of a switchover, just before the gate closes, and for the end of a lease, after it: the client learns at
//! once instead of at its next packet, and the server's end goes too. Before is better: a closed gate resets the server's own
//! end of each connection that it answers on, and a client who waits for that answer has no next packet. Only connections whose *local* port is
//! guarded, so never a connection that this host opened to somebody else's port. Listening sockets stay.
//! A connection that is forwarded to a container has no socket here; the gate's reset ends it.
//!
//! Synchronous; a dump, and one request of some 10 µs for each connection. For a dump the kernel walks its whole table, whose size
//! is that of the memory and not that of what is connected: some milliseconds, in the middle of a planned move. So one walk finds
//! both families, which only the older request can ask for; where the kernel refuses it there are two.

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::{self, Writer};

/// `TCPDIAG_GETSOCK`, from before there was a request by family: its dump is of every family (`inet_diag_dump_compat`).
const BOTH_FAMILIES: u16 = 18;
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// All states but the closed (7), waiting (6) and listening (10): established (1) to last-ack (9), and closing (11).
const CONNECTED_STATES: u32 =
    (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 9) | (1 << 11);
/// Length of `struct inet_diag_sockid`, which follows four bytes in the kernel's message.
const IDENTITY_BYTES: usize = 48;
const IDENTITY_AT: usize = 4;
/// Which timer of the connection runs.
const TIMER_AT: usize = 2;
/// The timer of what is no socket any more: the server has ended the connection, and only the kernel still knows of it.
const TIMER_OF_THE_ENDED: u8 = 3;
/// The kernel answers within `send`; this much later it never will.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);
/// Bound on one call, in connections that are meant; a server with more of them needs another call, which the count tells.
const RESETS_MAX: usize = 131_072;

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
    for connection in diagnosis.list(BOTH_FAMILIES, spec).map_err(ResetError::List)? {
        match diagnosis.destroy(&connection) {
            Ok(()) => reset += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return Err(ResetError::Unsupported);
            }
            Err(error) => failed = Some((failed.map_or(0, |(count, _)| count) + 1, error)),
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
    /// From a `struct inet_diag_msg`. `None` for a connection that the server has ended and its client has not (`FIN_WAIT2`
    /// without a socket): the client has been told, a reset would send nothing, and older kernels refuse it with the very error
    /// of those that can reset nothing.
    fn read(message: &[u8]) -> Option<Self> {
        let family = *message.first()?;
        let timer = *message.get(TIMER_AT)?;
        let identity = message.get(IDENTITY_AT..IDENTITY_AT + IDENTITY_BYTES)?.try_into().ok()?;
        (timer != TIMER_OF_THE_ENDED).then_some(Self { family, identity })
    }

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

    /// The connections that are meant, of both families: what `both` finds in one walk, and where the kernel does not know that
    /// request one walk for each family. A v4-mapped connection is of IPv6, and found once.
    fn list(&mut self, both: u16, spec: &ResetSpec) -> io::Result<Vec<Connection>> {
        self.request_both(both)?;
        let found = self.collect(both, spec);
        if !found.as_ref().is_err_and(is_not_known) {
            return found;
        }
        let mut found = Vec::new();
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            self.request(BY_FAMILY, wire::DUMP, family, &[0; IDENTITY_BYTES])?;
            found.extend(self.collect(BY_FAMILY, spec)?);
        }
        Ok(found)
    }

    /// Reads one dump to its end; the kernel's answers are of the kind of the request.
    fn collect(&mut self, kind: u16, spec: &ResetSpec) -> io::Result<Vec<Connection>> {
        let mut connections = Vec::new();
        loop {
            let length = self.receive()?;
            for message in wire::messages(&self.received[..length]).filter(|m| m.seq == self.seq) {
                match message.kind {
                    wire::DONE => {
                        return match message.errno() {
                            Some(0) | None => Ok(connections),
                            code => Err(as_error(code)),
                        };
                    }
                    wire::ERROR => return Err(as_error(message.errno())),
                    answer if answer == kind => {
                        let found = Connection::read(message.payload).filter(|found| found.is_meant(spec));
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
        self.begin(kind, flags);
        self.writer.raw(&[family, libc::IPPROTO_TCP as u8, 0, 0]);
        self.writer.raw(&CONNECTED_STATES.to_ne_bytes());
        self.writer.raw(identity);
        self.send()
    }

    /// The older `struct inet_diag_req`. Its kind says that it is about TCP; its family counts for nothing in a dump.
    fn request_both(&mut self, kind: u16) -> io::Result<()> {
        self.begin(kind, wire::DUMP);
        self.writer.raw(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
        self.writer.raw(&[0; IDENTITY_BYTES]);
        self.writer.raw(&CONNECTED_STATES.to_ne_bytes());
        // Which tables, which no kernel asks.
        self.writer.raw(&[0; 4]);
        self.send()
    }

    fn begin(&mut self, kind: u16, flags: u16) {
        self.seq = self.seq.wrapping_add(1);
        self.writer.clear();
        self.writer.begin(kind, wire::REQUEST | flags, self.seq);
    }

    fn send(&mut self) -> io::Result<()> {
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

/// Whether the kernel does not know a request, or lacks what would answer it.
fn is_not_known(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT))
}

fn as_error(code: Option<i32>) -> io::Error {
    code.map_or_else(|| io::Error::from(io::ErrorKind::InvalidData), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    /// No kernel has ever had a request of this kind.
    const UNKNOWN: u16 = 17;
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

    #[test]
    fn what_the_server_has_ended_is_no_connection() {
        let mut message = [0; IDENTITY_AT + IDENTITY_BYTES];
        message[0] = libc::AF_INET as u8;
        message[IDENTITY_AT..IDENTITY_AT + 2].copy_from_slice(&3306u16.to_be_bytes());
        assert_eq!(Connection::read(&message).map(|found| found.local_port()), Some(3306));
        assert!(Connection::read(&message[1..]).is_none(), "cut short");
        message[TIMER_AT] = TIMER_OF_THE_ENDED;
        assert!(Connection::read(&message).is_none());
    }

    /// Listens at `at`, if that is of IPv6 for IPv4 too, and has one client, who connects to `to`.
    fn connected(at: IpAddr, to: IpAddr) -> (TcpListener, TcpStream, TcpStream) {
        let at = SocketAddr::new(at, 0);
        let listener = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
        if at.is_ipv6() {
            listener.set_only_v6(false).unwrap();
        }
        listener.bind(&at.into()).unwrap();
        listener.listen(1).unwrap();
        let listener = TcpListener::from(listener);
        let client = TcpStream::connect((to, listener.local_addr().unwrap().port())).unwrap();
        let (server, _) = listener.accept().unwrap();
        (listener, client, server)
    }

    /// Needs no root: nothing is reset.
    #[test]
    fn one_walk_finds_both_families_and_mapped_addresses_and_so_do_two() {
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let servers = [(v4, v4), (v6, v6), (any, v4)].map(|(at, to)| connected(at, to));
        let ports = servers.each_ref().map(|(listener, ..)| listener.local_addr().unwrap().port());
        let spec = ResetSpec { ports: ports.to_vec(), ..ResetSpec::default() };
        let families = [libc::AF_INET, libc::AF_INET6, libc::AF_INET6].map(|family| family as u8);
        let mut expected = [(0, v4), (1, v6), (2, v4)].map(|(at, ip)| (ports[at], families[at], ip));
        expected.sort_unstable();
        let seen = |found: Vec<Connection>| {
            let told = |found: &Connection| (found.local_port(), found.family, found.address(4));
            let mut seen: Vec<_> = found.iter().map(told).collect();
            seen.sort_unstable();
            seen
        };
        let mut diagnosis = Diagnosis::open().unwrap();
        diagnosis.request_both(BOTH_FAMILIES).unwrap();
        assert_eq!(seen(diagnosis.collect(BOTH_FAMILIES, &spec).unwrap()), expected, "in one walk");
        assert_eq!(seen(diagnosis.list(BOTH_FAMILIES, &spec).unwrap()), expected);
        diagnosis.request_both(UNKNOWN).unwrap();
        assert!(diagnosis.collect(UNKNOWN, &spec).is_err_and(|error| is_not_known(&error)), "it is refused");
        assert_eq!(seen(diagnosis.list(UNKNOWN, &spec).unwrap()), expected, "a walk for each family");
    }
}
