//! Two hosts on a wire: the test's own thread is *us* (`v0`), a second namespace is the *peer* (`v1`).
//!
//! ```text
//! us  v0  10.99.0.1/24  fd99::1/64  ------  v1  10.99.0.2/24 (peer)  10.99.0.3/24 (a client)  fd99::2, ::3
//! ```

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::{self, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use baton_netops::{Gate, GateSpec, VipSpec, gate};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

pub const US: &str = "10.99.0.1";
pub const PEER: &str = "10.99.0.2";
pub const CLIENT: &str = "10.99.0.3";
pub const VIP: &str = "10.99.0.100";
pub const US6: &str = "fd99::1";
pub const CLIENT6: &str = "fd99::3";
pub const VIP6: &str = "fd99::100";
/// Guarded.
pub const DATABASE: u16 = 3306;
/// Not guarded.
pub const OTHER: u16 = 9000;
/// Longer than any test.
pub const LONG: Duration = Duration::from_secs(60);
/// How long a condition may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// What is dropped silently is known only after waiting for it.
pub const SILENCE: Duration = Duration::from_millis(300);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace that lives as long as this descriptor.
pub struct Netns(File);

impl Netns {
    pub fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// Runs a command in it and gives its output.
    pub fn sh(&self, command: &str) -> String {
        sh(&format!("nsenter --net={} {command}", self.path()))
    }

    pub fn succeeds(&self, command: &str) -> bool {
        run(&format!("nsenter --net={} {command}", self.path())).status.success()
    }

    /// Runs a closure on a thread in it.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            entered.join().unwrap()
        })
    }
}

pub struct Lab {
    pub peer: Netns,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("the tests of the kernel need root");
        let peer = Netns::new();
        sh("ip link set lo up");
        peer.sh("ip link set lo up");
        wire(&peer);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { peer, runtime }
    }

    /// Lays the wire anew, under the same names, after it was deleted.
    pub fn rewire(&self) {
        wire(&self.peer);
    }

    /// Waits until the peer answers us: a device that has just come up drops frames until the kernel has noticed its carrier.
    pub fn wait_for_wire(&self) {
        let answers = || run(&format!("arping -c 1 -w 1 -I v0 {PEER}")).status.success();
        until("the wire carries frames", answers);
        until("the peer can be asked by IPv6", || self.peer_hears("fd99::2"));
    }

    /// Whether the peer listens where others ask for this address of its: for IPv6 the kernel joins that group a moment after
    /// the address was added.
    pub fn peer_hears(&self, address: &str) -> bool {
        let IpAddr::V6(address) = ip(address) else { return true };
        let [.., high, low] = address.segments();
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low).to_string();
        self.peer.sh("ip -6 maddr show dev v1").split_whitespace().any(|word| word == group)
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Installs both gates, closed, and adds the VIPs.
    pub fn gated(&self) -> Gate {
        self.block_on(gate::install_or_keep(&spec())).unwrap();
        sh(&format!("ip addr add {VIP}/32 dev v0"));
        sh(&format!("ip -6 addr add {VIP6}/128 dev v0 nodad"));
        Gate::open(spec().slots).unwrap()
    }

    /// Whether the client's host gets an ARP answer for the VIP.
    pub fn answers_arp(&self) -> bool {
        self.peer.succeeds(&format!("arping -c 1 -w 1 -I v1 {VIP}"))
    }

    /// Connects from the client's address.
    pub fn connect(&self, to: &str, port: u16) -> io::Result<TcpStream> {
        let from = if ip(to).is_ipv4() { CLIENT } else { CLIENT6 };
        self.connect_from(from, to, port)
    }

    /// Whether a connection comes about soon; for where packets are dropped silently.
    pub fn reaches(&self, to: &str, port: u16) -> bool {
        let from = if ip(to).is_ipv4() { CLIENT } else { CLIENT6 };
        self.peer.within(|| connect_within(SILENCE, from, to, port).is_ok())
    }

    pub fn connect_from(&self, from: &str, to: &str, port: u16) -> io::Result<TcpStream> {
        self.peer.within(|| connect(from, to, port))
    }

    /// The peer's neighbour entry for an address, as (hardware address, state).
    pub fn neighbour(&self, of: &str) -> Option<String> {
        let entries = json(&self.peer.sh("ip -j neigh show dev v1"));
        let entry = entries.as_array()?.iter().find(|e| e["dst"] == of)?.clone();
        Some(entry["lladdr"].as_str()?.to_owned())
    }
}

/// Lays the wire between us and the peer.
fn wire(peer: &Netns) {
    sh("ip link add v0 type veth peer name v1");
    sh(&format!("ip link set v1 netns {}", peer.path()));
    sh("ip link set v0 up");
    sh(&format!("ip addr add {US}/24 dev v0"));
    sh(&format!("ip -6 addr add {US6}/64 dev v0 nodad"));
    peer.sh("ip link set v1 up");
    peer.sh(&format!("ip addr add {PEER}/24 dev v1"));
    peer.sh(&format!("ip addr add {CLIENT}/24 dev v1"));
    peer.sh("ip -6 addr add fd99::2/64 dev v1 nodad");
    peer.sh(&format!("ip -6 addr add {CLIENT6}/64 dev v1 nodad"));
}

pub fn spec() -> GateSpec {
    GateSpec {
        vips: [VIP, VIP6].map(|vip| VipSpec { ip: ip(vip), interface: "v0".into() }).to_vec(),
        ports: vec![DATABASE, 80],
        peers: vec![ip(PEER), ip("fd99::2")],
        slots: 4,
    }
}

pub fn connect(from: &str, to: &str, port: u16) -> io::Result<TcpStream> {
    connect_within(PATIENCE, from, to, port)
}

pub fn connect_within(limit: Duration, from: &str, to: &str, port: u16) -> io::Result<TcpStream> {
    let to = SocketAddr::new(ip(to), port);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(ip(from), 0).into())?;
    socket.connect_timeout(&to.into(), limit)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Sends a byte and waits for its echo.
pub fn echoes(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

pub fn is_reset(result: &io::Result<()>) -> bool {
    let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionAborted];
    result.as_ref().is_err_and(|error| kinds.contains(&error.kind()))
}

pub fn is_refused(result: &io::Result<TcpStream>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// An echo server on one port of the calling thread's namespace, until dropped.
pub struct Echo(Arc<AtomicBool>);

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const SERVER_TICK: Duration = Duration::from_millis(50);

impl Echo {
    pub fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let any = SocketAddr::new(ip("::"), port);
        let listener = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(16).unwrap();
        listener.set_read_timeout(Some(SERVER_TICK)).unwrap();
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    let stopped = Arc::clone(&stopped);
                    thread::spawn(move || serve(stream.into(), &stopped));
                }
            }
        });
        Self(stop)
    }

    /// The same over UDP at one address, so that answers come from it.
    pub fn datagrams(at: &str, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = UdpSocket::bind((at, port)).unwrap();
        socket.set_read_timeout(Some(SERVER_TICK)).unwrap();
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Self(stop)
    }
}

fn serve(mut stream: TcpStream, stop: &AtomicBool) {
    stream.set_read_timeout(Some(SERVER_TICK)).unwrap();
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if stream.write_all(&buffer[..length]).is_err() => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

pub fn run(command: &str) -> process::Output {
    let mut words = command.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap()
}

pub fn sh(command: &str) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn nft(text: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
}

pub fn json(text: &str) -> Value {
    if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(text).unwrap() }
}

/// Waits for a condition, checked every few milliseconds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
    start.elapsed()
}
