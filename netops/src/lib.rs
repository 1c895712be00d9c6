//! The kernel as Baton needs it: addresses that lapse by themselves, nftables gates that close by
//! themselves, ARP and neighbour discovery, the cut of a replication stream, and what changed behind our back.
//!
//! The crate knows no epoch and no policy. It does what it is told for as long as it is told, and every
//! lasting effect carries a kernel-held life time, so that an agent that is killed, frozen or cut off loses it
//! without running another instruction.
//!
//! ```text
//!                       Gate (netlink, synchronous)      Network (rtnetlink, async)
//!  renewal, 50-200 ms   ticket -> permit                 ensure_address        about once a second
//!  taking the VIP                                        probe_address, announce_once, Announcer
//!  a gateway, 500 ms                                     Asker
//!  closing              void, read back                  remove_address
//!  takeover             Cut::cut, read back              reset_clients (synchronous)
//!  repair               install_or_keep  <- RulesGone    ensure_address <- AddressGone      (Watcher)
//! ```
//!
//! Everything acts in the network namespace of the calling thread; the agent runs wholly inside its own.
//! Needs `CAP_NET_ADMIN` and `CAP_NET_RAW`. Only the tables named in [`gate`], [`cut`] and [`sever`], and addresses that
//! carry our tag or are named by the caller, are ever changed.
#![warn(missing_docs)]

mod address;
mod announce;
pub mod arp;
mod asker;
mod beside;
mod carrier;
pub mod cut;
mod filter;
pub mod gate;
mod link;
pub mod ndp;
mod netfilter;
mod network;
mod nft;
mod packet;
pub mod preflight;
mod probe;
mod question;
pub mod sever;
mod sockets;
pub mod watch;
mod wire;

pub use address::{ADDRESS_TAG, AddressError, OwnAddress};
pub use announce::{ANNOUNCE_REPEAT, ANNOUNCE_SCHEDULE_MS, Announcer};
pub use asker::Asker;
pub use cut::{Cut, CutError};
pub use gate::{Gate, GateError, GateSpec, Installed, LATELY, SlotState, TableOutcome, VipSpec, Which};
pub use link::{Link, LinkError, Mac};
pub use network::{Network, NetworkError};
pub use nft::NftError;
pub use packet::PacketError;
pub use preflight::{Check, preflight};
pub use probe::{Probe, ProbeError};
pub use sockets::{ResetError, ResetSpec, reset_clients};
pub use watch::{Event, WatchError, Watcher};
