//! The severing of this node from others for a drill: what comes from a peer, or goes to it, is dropped, for a bounded
//! time that the kernel keeps.
//!
//! One inet table, `baton_drill`, with empty sets until something is severed. Each element carries its own timeout, and
//! none can be added without one: a severing ends although the agent, and whoever asked it, are dead. What heals early
//! removes the whole table; nothing else is in it.
//!
//! Orders for a node (one TCP port) always pass: the way on which a drill is ended is not one that a drill cuts.
//! Hooked like the cut of a stream, so that containers of this host are severed as well. Established connections are
//! not reset; what they send is lost, as on a cable that was pulled.

use std::net::IpAddr;
use std::time::Duration;

use crate::{
    netfilter::{FAMILY_INET, NetfilterError, NetfilterSocket, SetName},
    nft::{self, NftError},
};

/// Name of the inet table.
pub const DRILL_TABLE: &str = "baton_drill";
/// Longest time for which anything can be severed.
pub const SEVER_MAX: Duration = Duration::from_secs(600);
/// The kernel counts in ticks and rounds up.
const ROUNDING_MS: u64 = 100;
/// Rules in the text of [`rules`]; fewer means that somebody flushed a chain.
const RULE_COUNT: usize = 10;

/// Which packets are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What comes from the peer.
    From,
    /// What goes to the peer.
    To,
    /// What comes from this TCP port of the peer, beyond the rate that [`prepare`] was told.
    Trickle(u16),
}

/// Why nothing could be severed, healed or seen.
#[derive(Debug, thiserror::Error)]
pub enum SeverError {
    /// No netfilter socket.
    #[error("cannot open the netlink socket of drills")]
    Open(#[source] NetfilterError),
    /// The table could not be loaded, removed or listed.
    #[error("the rules of drills could not be loaded or listed")]
    Rules(#[source] NftError),
    /// The elements could not be added.
    #[error("the peers could not be severed")]
    Change(#[source] NetfilterError),
    /// The table could not be read.
    #[error("what is severed could not be read back")]
    Read(#[source] NetfilterError),
    /// The kernel does not list the rules that were just loaded.
    #[error("the rules of drills were loaded but are not there")]
    NotThere,
    /// Nothing may be severed without an end, or for so long.
    #[error("peers are severed for 1 ms to {} s, not for {} ms", SEVER_MAX.as_secs(), asked.as_millis())]
    Span {
        /// What was asked for.
        asked: Duration,
    },
}

fn rules(order_port: u16, trickle_kib: u32) -> String {
    format!(
        "add table inet {DRILL_TABLE}\n\
         delete table inet {DRILL_TABLE}\n\
         table inet {DRILL_TABLE} {{\n\
         \tset from4 {{ type ipv4_addr; flags timeout; }}\n\
         \tset from6 {{ type ipv6_addr; flags timeout; }}\n\
         \tset to4 {{ type ipv4_addr; flags timeout; }}\n\
         \tset to6 {{ type ipv6_addr; flags timeout; }}\n\
         \tset trickle4 {{ type ipv4_addr . inet_service; flags timeout; }}\n\
         \tset trickle6 {{ type ipv6_addr . inet_service; flags timeout; }}\n\
         \tchain inbound {{\n\
         \t\ttype filter hook prerouting priority -308; policy accept;\n\
         \t\ttcp dport {order_port} accept\n\
         \t\ttcp sport {order_port} accept\n\
         \t\tip saddr @from4 counter drop\n\
         \t\tip6 saddr @from6 counter drop\n\
         \t\tip saddr . tcp sport @trickle4 limit rate over {trickle_kib} kbytes/second burst {trickle_kib} kbytes counter drop\n\
         \t\tip6 saddr . tcp sport @trickle6 limit rate over {trickle_kib} kbytes/second burst {trickle_kib} kbytes counter drop\n\
         \t}}\n\
         \tchain outbound {{\n\
         \t\ttype filter hook postrouting priority -308; policy accept;\n\
         \t\ttcp dport {order_port} accept\n\
         \t\ttcp sport {order_port} accept\n\
         \t\tip daddr @to4 counter drop\n\
         \t\tip6 daddr @to6 counter drop\n\
         \t}}\n\
         }}\n"
    )
}

/// Loads the table with nothing severed, anew, and reads it back. `order_port`: TCP traffic that always passes.
/// `trickle_kib`: KiB per second that pass of what is to come as a trickle, 1 at least.
///
/// # Errors
/// [`SeverError`].
pub async fn prepare(order_port: u16, trickle_kib: u32) -> Result<(), SeverError> {
    nft::load(&rules(order_port, trickle_kib.max(1))).await.map_err(SeverError::Rules)?;
    let mut socket = NetfilterSocket::open().map_err(SeverError::Open)?;
    let count = socket.rule_count(FAMILY_INET, DRILL_TABLE).map_err(SeverError::Read)?;
    if count == RULE_COUNT { Ok(()) } else { Err(SeverError::NotThere) }
}

/// Severs each of `peers` for `span`, all in one transaction, and reads back that each of them will end.
///
/// # Errors
/// [`SeverError`]; after [`SeverError::Read`] something may be severed, for `span` at most.
pub fn sever(peers: &[(IpAddr, Way)], span: Duration) -> Result<(), SeverError> {
    if span.is_zero() || span > SEVER_MAX {
        return Err(SeverError::Span { asked: span });
    }
    let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut socket = NetfilterSocket::open().map_err(SeverError::Open)?;
    let added = socket.commit(|batch| {
        for (peer, way) in peers {
            let (set, key) = place(*peer, *way);
            batch.add(set, &key, Some(span_ms));
        }
    });
    added.map_err(SeverError::Change)?;
    for (peer, way) in peers {
        let (set, key) = place(*peer, *way);
        let listed = socket.elements(set).map_err(SeverError::Read)?;
        let ends = listed
            .iter()
            .any(|e| e.key == key && e.left_ms.is_some_and(|left| left <= span_ms + ROUNDING_MS));
        if !ends {
            return Err(SeverError::NotThere);
        }
    }
    Ok(())
}

/// How long the longest severing still lasts; `None`: nothing is severed.
///
/// # Errors
/// [`SeverError::Open`], [`SeverError::Read`].
pub fn severed_for() -> Result<Option<Duration>, SeverError> {
    let mut socket = NetfilterSocket::open().map_err(SeverError::Open)?;
    let mut longest = None;
    for set in ["from4", "from6", "to4", "to6", "trickle4", "trickle6"] {
        match socket.elements(SetName { family: FAMILY_INET, table: DRILL_TABLE, set }) {
            // Without a timeout it is none of ours, and does not end.
            Ok(elements) => {
                longest = longest.max(elements.iter().map(|e| e.left_ms.unwrap_or(u64::MAX)).max())
            }
            Err(NetfilterError::Gone) => {}
            Err(error) => return Err(SeverError::Read(error)),
        }
    }
    Ok(longest.map(Duration::from_millis))
}

/// How many packets the table has dropped since it was loaded; a severing that drops nothing has not bitten.
///
/// # Errors
/// [`SeverError::Rules`].
pub async fn dropped() -> Result<u64, SeverError> {
    let listing = nft::list_counted("inet", DRILL_TABLE).await.map_err(SeverError::Rules)?;
    Ok(listing.as_deref().map_or(0, packets))
}

/// The sum of all counters of a listing.
fn packets(listing: &str) -> u64 {
    let counts = listing.split("counter packets ").skip(1);
    counts.filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).sum()
}

/// Removes the table, and with it everything that is severed. Idempotent.
///
/// # Errors
/// [`SeverError::Rules`].
pub async fn mend() -> Result<(), SeverError> {
    let text = format!("add table inet {DRILL_TABLE}\ndelete table inet {DRILL_TABLE}\n");
    nft::load(&text).await.map_err(SeverError::Rules)
}

fn place(peer: IpAddr, way: Way) -> (SetName<'static>, Vec<u8>) {
    let of_port = |mut key: Vec<u8>, port: u16| {
        key.extend_from_slice(&port.to_be_bytes());
        // Parts of a concatenated key are padded to four bytes each.
        key.extend_from_slice(&[0, 0]);
        key
    };
    let (set, key) = match (peer, way) {
        (IpAddr::V4(ip), Way::Trickle(port)) => ("trickle4", of_port(ip.octets().to_vec(), port)),
        (IpAddr::V6(ip), Way::Trickle(port)) => ("trickle6", of_port(ip.octets().to_vec(), port)),
        (IpAddr::V4(ip), Way::From) => ("from4", ip.octets().to_vec()),
        (IpAddr::V4(ip), Way::To) => ("to4", ip.octets().to_vec()),
        (IpAddr::V6(ip), Way::From) => ("from6", ip.octets().to_vec()),
        (IpAddr::V6(ip), Way::To) => ("to6", ip.octets().to_vec()),
    };
    (SetName { family: FAMILY_INET, table: DRILL_TABLE, set }, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_packets_are_summed() {
        let listing = "table inet baton_drill {\n\t\tip saddr @from4 counter packets 12 bytes 720 drop\n\
                       \t\tip daddr @to4 counter packets 3 bytes 180 drop\n}\n";
        assert_eq!(packets(listing), 15);
        assert_eq!(packets(""), 0);
    }

    #[test]
    fn nothing_is_severed_without_an_end() {
        for span in [Duration::ZERO, SEVER_MAX + Duration::from_millis(1)] {
            assert!(matches!(sever(&[], span), Err(SeverError::Span { .. })));
        }
    }
}
