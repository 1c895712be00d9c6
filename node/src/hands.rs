//! The hands: what the agent does to the databases, the containers and the outside on its own node.
//!
//! Each function carries out one operation of one step and says honestly what came of it: done, not done, or
//! not known. Every call has a deadline. Nothing here decides, journals or knows an epoch: the driver calls
//! these functions when a step of a run, or the loss of a lease, says so.
//!
//! - [`mysql`]: MySQL and MariaDB, over the Unix socket
//! - [`redis`]: Redis and Valkey, over the Unix socket
//! - [`containers`]: role-bound containers and Compose projects, over the Docker Engine API
//! - [`hooks`]: the operator's own programs
//! - [`server`]: the start identity of a server process, and the notice of its exit

pub mod containers;
pub mod deadline;
pub mod hooks;
pub mod mysql;
pub mod redis;
pub mod server;
