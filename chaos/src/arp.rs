//! Who answers for the virtual IP: an ARP request every 10 ms, every answer recorded.
//!
//! The requests carry a number: the sender's protocol address is one of 32 addresses, taken in turn, and an answer
//! names the address that it answers. So an answer belongs to exactly one request, however late it is read.
//!
//! The watch wants a network namespace of its own on the same wire as the client, not the client's: Linux updates its
//! neighbour table from any answer that arrives, so a watch beside the client would repair the client's stale entry
//! and hide a missing announcement.

use std::io::{ErrorKind, Read};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, LinkAddr, SockaddrLike, SockaddrStorage};
use socket2::{Domain, Protocol, Socket, Type};

use crate::check::holders::Holders;
use crate::history::{Answer, History, Lateness, Origin};
use crate::netns::{self, EnterError};

const ETH_P_ARP: u16 = 0x0806;
const FRAME_LEN: usize = 42;
/// How many sender addresses are used in turn: 32 requests at 10 ms are 320 ms, far longer than an answer takes.
const TAGS: u64 = 32;

type Mac = [u8; 6];

/// What to ask, from where.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Namespace to stand in; none: the caller's.
    pub netns: Option<PathBuf>,
    /// Interface to ask on.
    pub interface: String,
    /// The address that is asked for.
    pub vip: Ipv4Addr,
    /// First of 32 unused addresses of the same network, the senders of the requests.
    pub senders: Ipv4Addr,
    /// Time between two requests.
    pub period: Duration,
    /// Where the history's time starts.
    pub origin: Origin,
}

/// Why the watch could not be started.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The thread could not enter its namespace.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The interface is not there or has no hardware address.
    #[error("no interface {interface} with a hardware address")]
    Interface {
        /// Its name.
        interface: String,
    },
    /// The packet socket could not be made or bound.
    #[error("packet socket for ARP")]
    Socket(#[from] std::io::Error),
    /// The thread ended before it was told to.
    #[error("the ARP watch ended by itself")]
    Lost,
}

/// A running watch; it stops when it is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    two: Arc<OnceLock<[String; 2]>>,
    thread: Option<JoinHandle<Option<Result<History, WatchError>>>>,
}

impl Watch {
    /// Starts to ask.
    ///
    /// # Errors
    /// The thread cannot enter its namespace. What fails later is told by [`Watch::stop`].
    pub fn start(options: WatchOptions) -> Result<Self, WatchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let two = Arc::new(OnceLock::new());
        let (stopping, telling) = (Arc::clone(&stop), Arc::clone(&two));
        let netns = options.netns.clone();
        let thread = netns::spawn("arp-watch", netns, move || watch(&options, &stopping, &telling))?;
        Ok(Self { stop, two, thread: Some(thread) })
    }

    /// The first two machines that held the virtual IP at the same time, if any did so far.
    #[must_use]
    pub fn two_holders(&self) -> Option<&[String; 2]> {
        self.two.get()
    }

    /// Stops, and tells what was heard.
    ///
    /// # Errors
    /// The socket could not be made, or failed on the way.
    pub fn stop(mut self) -> Result<History, WatchError> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stop and drop take it");
        thread.join().ok().flatten().ok_or(WatchError::Lost)?
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What was heard so far.
struct Heard<'a> {
    history: History,
    holders: Holders,
    two: &'a OnceLock<[String; 2]>,
}

impl Heard<'_> {
    fn hear(&mut self, answer: Answer) {
        if let Some(other) = self.holders.hear(&answer) {
            // Those that were told first stay.
            let _ = self.two.set([other, answer.mac.clone()]);
        }
        self.history.answers.push(answer);
    }
}

fn watch(
    options: &WatchOptions,
    stop: &AtomicBool,
    two: &OnceLock<[String; 2]>,
) -> Result<History, WatchError> {
    let (socket, ours) = open(&options.interface)?;
    let period_us = u64::try_from(options.period.as_micros()).expect("a short period");
    let history = History { probe_period_us: period_us, ..History::default() };
    let mut heard = Heard { history, holders: Holders::default(), two };
    let mut lateness = Vec::new();
    let first_us = options.origin.now_us() + period_us;
    let mut probe = 0;
    while !stop.load(Ordering::Relaxed) {
        let due_us = first_us + probe * period_us;
        listen_until(options, &socket, due_us, probe, &mut heard)?;
        lateness.push(options.origin.now_us().saturating_sub(due_us));
        match socket.send(&request(ours, tagged(options.senders, probe), options.vip)) {
            // A port without carrier drops what is sent; that is part of what is watched.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NetworkDown | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error.into()),
        }
        probe += 1;
    }
    heard.history.lateness = Lateness::of(lateness);
    Ok(heard.history)
}

/// Reads answers until `due_us`; `next` is the number of the request that is sent then.
fn listen_until(
    options: &WatchOptions,
    mut socket: &Socket,
    due_us: u64,
    next: u64,
    heard: &mut Heard<'_>,
) -> Result<(), WatchError> {
    let mut frame = [0; 128];
    loop {
        let left = options.origin.at(due_us).saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left.max(Duration::from_micros(50))))?;
        match socket.read(&mut frame) {
            Ok(len) => {
                if let Some((mac, to)) = answer(&frame[..len], options.vip)
                    && let Some(probe) = untagged(options.senders, to, next)
                {
                    heard.hear(Answer { probe, at_us: options.origin.now_us(), mac: show(mac) });
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(()),
                ErrorKind::Interrupted | ErrorKind::NetworkDown => {}
                _ => return Err(error.into()),
            },
        }
    }
}

/// A packet socket for ARP on one interface, and the interface's own hardware address.
fn open(interface: &str) -> Result<(Socket, Mac), WatchError> {
    let missing = || WatchError::Interface { interface: interface.to_owned() };
    let link = link_address(interface).ok_or_else(missing)?;
    let ours = link.as_link_addr().and_then(LinkAddr::addr).ok_or_else(missing)?;
    let protocol = Protocol::from(i32::from(ETH_P_ARP.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
    // The link address names the interface and no protocol; the kernel keeps the socket's own, ARP.
    nix::sys::socket::bind(socket.as_raw_fd(), &link).map_err(std::io::Error::from)?;
    Ok((socket, ours))
}

fn link_address(interface: &str) -> Option<SockaddrStorage> {
    nix::ifaddrs::getifaddrs()
        .ok()?
        .filter(|found| found.interface_name == interface)
        .find_map(|found| found.address.filter(|address| address.family() == Some(AddressFamily::Packet)))
}

fn tagged(senders: Ipv4Addr, probe: u64) -> Ipv4Addr {
    let tag = u32::try_from(probe % TAGS).expect("a remainder of 32");
    Ipv4Addr::from_bits(senders.to_bits() + tag)
}

/// The newest request before `next` that was sent from `sender`.
fn untagged(senders: Ipv4Addr, sender: Ipv4Addr, next: u64) -> Option<u64> {
    let tag = u64::from(sender.to_bits().checked_sub(senders.to_bits())?);
    let newest = next.checked_sub(1)?;
    let back = (newest % TAGS + TAGS - tag % TAGS) % TAGS;
    if tag < TAGS { newest.checked_sub(back) } else { None }
}

fn request(ours: Mac, sender: Ipv4Addr, vip: Ipv4Addr) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[0..6].copy_from_slice(&[0xff; 6]);
    frame[6..12].copy_from_slice(&ours);
    frame[12..14].copy_from_slice(&ETH_P_ARP.to_be_bytes());
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&ours);
    frame[28..32].copy_from_slice(&sender.octets());
    frame[38..42].copy_from_slice(&vip.octets());
    frame
}

/// Who says that he has `vip`, and to whom he says it.
fn answer(frame: &[u8], vip: Ipv4Addr) -> Option<(Mac, Ipv4Addr)> {
    let is_answer =
        frame.len() >= FRAME_LEN && frame[12..14] == [8, 6] && frame[14..22] == [0, 1, 8, 0, 6, 4, 0, 2];
    if !is_answer || frame[28..32] != vip.octets() {
        return None;
    }
    let to: [u8; 4] = frame[38..42].try_into().ok()?;
    Some((frame[22..28].try_into().ok()?, Ipv4Addr::from(to)))
}

fn show(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const SENDERS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);

    #[test]
    fn an_answer_is_given_to_the_newest_request_with_its_tag() {
        for (probe, next) in [(0, 1), (31, 32), (32, 33), (40, 41), (10, 41), (9, 41)] {
            assert_eq!(
                untagged(SENDERS, tagged(SENDERS, probe), next),
                Some(probe),
                "probe {probe} before {next}"
            );
        }
        assert_eq!(untagged(SENDERS, tagged(SENDERS, 5), 3), None, "not sent yet");
        assert_eq!(untagged(SENDERS, Ipv4Addr::new(10, 0, 0, 240), 99), None, "not one of ours");
    }

    #[test]
    fn the_first_two_machines_are_told_and_every_answer_is_kept() {
        let two = OnceLock::new();
        let mut heard = Heard { history: History::default(), holders: Holders::default(), two: &two };
        for (probe, mac) in [(1, "a"), (2, "b"), (2, "a"), (3, "c"), (3, "a")] {
            assert_eq!(two.get().is_some(), heard.history.answers.len() > 2);
            heard.hear(Answer { probe, at_us: 0, mac: mac.into() });
        }
        assert_eq!(two.get(), Some(&["b".to_owned(), "a".to_owned()]));
        assert_eq!(heard.history.answers.len(), 5);
    }

    #[test]
    fn only_an_answer_for_the_address_counts() {
        let mut frame = request([2; 6], SENDERS, VIP);
        assert_eq!(answer(&frame, VIP), None, "a request");
        frame[21] = 2;
        frame[28..32].copy_from_slice(&VIP.octets());
        frame[38..42].copy_from_slice(&SENDERS.octets());
        assert_eq!(answer(&frame, VIP), Some(([2; 6], SENDERS)));
        assert_eq!(answer(&frame, SENDERS), None, "another address");
        assert_eq!(answer(&frame[..41], VIP), None, "cut off");
    }
}
