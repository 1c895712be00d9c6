//! Telling the segment who has a VIP: gratuitous ARP request *and* reply, or an unsolicited neighbour
//! advertisement.
//!
//! Neighbours lose or ignore single announcements, so the holder repeats them: densely at first, then every
//! half minute, and from the start again after each change of carrier.

use std::{future::pending, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    arp,
    carrier::Carriers,
    ndp,
    network::Network,
    packet::{PacketError, PacketSocket},
    probe::ProbeError,
};

/// When to announce, milliseconds after the address was taken.
pub const ANNOUNCE_SCHEDULE_MS: [u64; 7] = [0, 50, 150, 500, 1_000, 2_000, 5_000];
/// How often to repeat after the schedule. A neighbour that missed all of it is wrong for at most this long.
pub const ANNOUNCE_REPEAT: Duration = Duration::from_secs(30);

impl Network {
    /// Announces `ip` once as being at `interface`.
    ///
    /// # Errors
    /// [`ProbeError`]. While the VIP gate is closed the kernel drops the frames, and sending may say `ENOBUFS`.
    pub async fn announce_once(&self, ip: IpAddr, interface: &str) -> Result<(), ProbeError> {
        let (ifindex, mac) = self.hardware(ip, interface).await?;
        let sent = async {
            match ip {
                IpAddr::V4(ip) => {
                    let socket = PacketSocket::open(ifindex, libc::ETH_P_ARP as u16, &NOTHING)?;
                    socket.send(&arp::announcement(mac, ip)).await?;
                    socket.send(&arp::unasked_reply(mac, ip)).await
                }
                IpAddr::V6(ip) => {
                    let socket = PacketSocket::open(ifindex, libc::ETH_P_IPV6 as u16, &NOTHING)?;
                    socket.send(&ndp::announcement(mac, ip)).await
                }
            }
        };
        sent.await.map_err(|source: PacketError| ProbeError::Packet { ip, source })
    }
}

/// Classic BPF that receives nothing: these sockets only send.
const NOTHING: [socket2::SockFilter; 1] = [socket2::SockFilter::new(0x06, 0, 0, 0)];

/// A task that keeps announcing until it is dropped. It knows nothing of leases: the gate drops its frames when
/// the lease has ended, however late it runs.
#[derive(Debug)]
pub struct Announcer {
    poke: Arc<Notify>,
    task: AbortHandle,
}

impl Announcer {
    /// Starts the schedule for these addresses, each on its interface, on the current tokio runtime. It begins anew by
    /// itself when the carrier of one of the interfaces has returned.
    #[must_use]
    pub fn start(network: Network, addresses: Vec<(IpAddr, String)>) -> Self {
        let poke = Arc::new(Notify::new());
        let interfaces = addresses.iter().map(|(_, interface)| interface.clone()).collect();
        let carriers = Carriers::open(network.clone(), interfaces)
            .inspect_err(|error| tracing::warn!(%error, "no announcements when a carrier returns"))
            .ok();
        let task = tokio::spawn(announce(network, addresses, Arc::clone(&poke), carriers)).abort_handle();
        Self { poke, task }
    }

    /// Starts the schedule anew: when the ports open.
    pub fn poke(&self) {
        self.poke.notify_one();
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Dropping it at any await leaves nothing behind.
async fn announce(
    network: Network,
    addresses: Vec<(IpAddr, String)>,
    poke: Arc<Notify>,
    mut carriers: Option<Carriers>,
) {
    let mut is_first = true;
    loop {
        let start = Instant::now();
        let mut repeats = 0;
        let mut poked = false;
        for offset_ms in ANNOUNCE_SCHEDULE_MS {
            let due = start + Duration::from_millis(offset_ms);
            poked = timeout_at(due, begin_anew(&poke, &mut carriers)).await.is_ok();
            if poked {
                break;
            }
            announce_all(&network, &addresses).await;
            // Not before the first announcement, for which clients wait in a takeover.
            if std::mem::take(&mut is_first)
                && let Some(carriers) = &mut carriers
            {
                carriers.look().await;
            }
        }
        while !poked {
            repeats += 1;
            let last_ms = ANNOUNCE_SCHEDULE_MS[ANNOUNCE_SCHEDULE_MS.len() - 1];
            let due = start + Duration::from_millis(last_ms) + ANNOUNCE_REPEAT * repeats;
            tokio::select! {
                () = begin_anew(&poke, &mut carriers) => poked = true,
                () = sleep_until(due) => announce_all(&network, &addresses).await,
            }
        }
    }
}

/// Waits until somebody says so, or a carrier has returned.
async fn begin_anew(poke: &Notify, carriers: &mut Option<Carriers>) {
    let came_up = async {
        match carriers {
            Some(carriers) => carriers.came_up().await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = poke.notified() => {}
        () = came_up => {}
    }
}

async fn announce_all(network: &Network, addresses: &[(IpAddr, String)]) {
    for (ip, interface) in addresses {
        if let Err(error) = network.announce_once(*ip, interface).await {
            tracing::debug!(%ip, interface, error = &error as &dyn std::error::Error, "announcement not sent");
        }
    }
}
