//! The cut of a replication stream: both directions of the connections between us and one port of a peer are
//! dropped, so that what was received stays fixed while it is captured and applied.
//!
//! One inet table, `baton_cut`, with an empty set per address family until something is cut. Hooked in
//! prerouting and postrouting, so that a database in a container of this host is cut as well. Cutting is one
//! netlink transaction (tens of microseconds) once the table stands.
//!
//! The cut has no life time: only the target of a takeover makes it, against a peer that no longer holds
//! anything, and it lifts it itself: by the undo, or before it follows somebody again. A cut that a
//! crash left behind stands until then; it keeps replication off, never a write on.

use std::net::IpAddr;

use crate::{
    netfilter::{FAMILY_INET, NetfilterError, NetfilterSocket, SetName},
    nft::{self, NftError},
};

/// Name of the inet table.
pub const CUT_TABLE: &str = "baton_cut";

const RULES: &str = "\
add table inet baton_cut
delete table inet baton_cut
table inet baton_cut {
\tset streams4 { type ipv4_addr . inet_service; }
\tset streams6 { type ipv6_addr . inet_service; }
\tchain inbound {
\t\ttype filter hook prerouting priority -310; policy accept;
\t\tip saddr . tcp sport @streams4 counter drop
\t\tip6 saddr . tcp sport @streams6 counter drop
\t}
\tchain outbound {
\t\ttype filter hook postrouting priority -310; policy accept;
\t\tip daddr . tcp dport @streams4 counter drop
\t\tip6 daddr . tcp dport @streams6 counter drop
\t}
}
";
/// Rules in the text above; fewer means that somebody flushed a chain.
const RULE_COUNT: usize = 4;

/// Why a stream could not be cut, lifted or checked.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// No netfilter socket.
    #[error("cannot open the netlink socket of the cut")]
    Open(#[source] NetfilterError),
    /// The table could not be loaded.
    #[error("the rules of the cut could not be loaded")]
    Rules(#[source] NftError),
    /// The stream could not be added or removed.
    #[error("the cut of {peer} port {port} could not be changed")]
    Change {
        /// The peer.
        peer: IpAddr,
        /// Its port.
        port: u16,
        /// What failed.
        #[source]
        source: NetfilterError,
    },
    /// The table could not be read.
    #[error("the cut could not be read back")]
    Read(#[source] NetfilterError),
    /// The kernel does not list what was just added.
    #[error("the cut of {peer} port {port} was made but is not there")]
    NotThere {
        /// The peer.
        peer: IpAddr,
        /// Its port.
        port: u16,
    },
}

/// Cuts and lifts; owns a netlink socket.
#[derive(Debug)]
pub struct Cut {
    socket: NetfilterSocket,
}

impl Cut {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`CutError::Open`].
    pub fn open() -> Result<Self, CutError> {
        Ok(Self { socket: NetfilterSocket::open().map_err(CutError::Open)? })
    }

    /// Loads the table, with nothing cut, unless its rules stand already. Called at start it keeps `nft` off the
    /// path of a takeover.
    ///
    /// # Errors
    /// [`CutError::Rules`], [`CutError::Read`].
    pub async fn install(&mut self) -> Result<(), CutError> {
        if self.is_installed()? {
            return Ok(());
        }
        nft::load(RULES).await.map_err(CutError::Rules)
    }

    /// Drops both directions between us and `peer:port` and reads the rule back. Idempotent; loads the table if
    /// it is missing.
    ///
    /// # Errors
    /// Any [`CutError`]; only `Ok` says that nothing more arrives.
    pub async fn cut(&mut self, peer: IpAddr, port: u16) -> Result<(), CutError> {
        self.install().await?;
        let (set, key) = stream(peer, port);
        self.socket.commit(|batch| batch.add(set, &key, None)).map_err(|source| CutError::Change {
            peer,
            port,
            source,
        })?;
        if self.is_cut(peer, port)? { Ok(()) } else { Err(CutError::NotThere { peer, port }) }
    }

    /// Whether the kernel drops this stream: the rules stand and the set lists it.
    ///
    /// # Errors
    /// [`CutError::Read`]. A missing table is `Ok(false)`.
    pub fn is_cut(&mut self, peer: IpAddr, port: u16) -> Result<bool, CutError> {
        let (set, key) = stream(peer, port);
        match self.socket.elements(set) {
            Ok(elements) => Ok(elements.iter().any(|e| e.key == key) && self.is_installed()?),
            Err(NetfilterError::Gone) => Ok(false),
            Err(error) => Err(CutError::Read(error)),
        }
    }

    /// Lets the stream pass again. Idempotent; a missing table cuts nothing.
    ///
    /// # Errors
    /// [`CutError::Change`].
    pub fn lift(&mut self, peer: IpAddr, port: u16) -> Result<(), CutError> {
        let (set, key) = stream(peer, port);
        // Deleting what is not there fails, adding what is there does not.
        let lifted = self.socket.commit(|batch| {
            batch.add(set, &key, None);
            batch.delete(set, &key);
        });
        match lifted {
            Ok(()) | Err(NetfilterError::Gone) => Ok(()),
            Err(source) => Err(CutError::Change { peer, port, source }),
        }
    }

    /// Removes the table, and with it every cut.
    ///
    /// # Errors
    /// [`CutError::Rules`].
    pub async fn lift_all(&mut self) -> Result<(), CutError> {
        let text = format!("add table inet {CUT_TABLE}\ndelete table inet {CUT_TABLE}\n");
        nft::load(&text).await.map_err(CutError::Rules)
    }

    fn is_installed(&mut self) -> Result<bool, CutError> {
        let count = self.socket.rule_count(FAMILY_INET, CUT_TABLE).map_err(CutError::Read)?;
        Ok(count == RULE_COUNT)
    }
}

/// The set and key of a stream. Parts of a concatenated key are padded to four bytes each.
fn stream(peer: IpAddr, port: u16) -> (SetName<'static>, Vec<u8>) {
    let (set, mut key) = match peer {
        IpAddr::V4(ip) => ("streams4", ip.octets().to_vec()),
        IpAddr::V6(ip) => ("streams6", ip.octets().to_vec()),
    };
    key.extend_from_slice(&port.to_be_bytes());
    key.extend_from_slice(&[0, 0]);
    (SetName { family: FAMILY_INET, table: CUT_TABLE, set }, key)
}
