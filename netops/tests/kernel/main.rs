//! The kernel does what the crate says, checked by other tools (`ip -j`, `nft -j`, `arping`) and by plain sockets.
//!
//! Each test has network namespaces of its own and nothing with a name, so that everything vanishes with the
//! test's threads and descriptors, however it ends. Needs root.
#![allow(clippy::unwrap_used)]

mod address;
mod asker;
mod cut;
mod gate_ports;
mod gate_rules;
mod gate_vip;
mod lab;
mod segment;
mod sever;
mod several;
mod sockets;
mod watch;
