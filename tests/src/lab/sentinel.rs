//! Redis Sentinel in the lab: three sentinels, and a script of theirs that moves the virtual IP.
//!
//! Sentinel looks after Redis only. A client that cannot ask sentinels reaches the master by an address, and the usual way
//! to move one is `client-reconfig-script`: every sentinel calls it when the master has changed, the leader of the
//! failover first, the others when they hear of it. Each host adds the address if it is the new master's, and removes it if
//! not. Two data nodes cannot have `min-replicas-to-write 1`: after a takeover there is no replica, and no write would be taken.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::wire::{INTERFACE, VIP};
use super::{DATA, Lab, Port, agents, redis, wait};

/// How long a master may be silent before a sentinel takes it for down, milliseconds. Sentinel's default is 30 s, its documents'
/// examples have 5 to 60 s. One second is as low as is sensible, since that is how often it asks.
pub const DOWN_AFTER_MS: u32 = 1_000;
/// Sentinels that must agree.
const QUORUM: u8 = 2;
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Starts the part of a node. The sentinels are started with the last node, when there is a master with a replica to be found.
///
/// # Errors
/// A program does not start, or the sentinels do not find each other within 30 s.
pub(super) fn start(lab: &Lab, port: Port) -> Result<()> {
    if DATA.contains(&port) {
        // Whoever promotes it later sets nothing but its role.
        redis::ask::<String>(&lab.host(port).redis(), &["CONFIG", "SET", "min-replicas-to-write", "0"])?;
    }
    match port {
        Port::Db1 => lab.serve_by_hand(port, true),
        Port::Db2 => lab.replicate_by_hand(port),
        Port::Mon => start_all(lab),
        Port::Client | Port::Observer => Ok(()),
    }
}

fn start_all(lab: &Lab) -> Result<()> {
    for port in agents::NODES {
        let dir = &lab.host(port).dir;
        let script = dir.join("reconfig.sh");
        std::fs::write(&script, reconfig(dir, port))?;
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let file = dir.join("sentinel.conf");
        std::fs::write(&file, configuration(dir, &script))?;
        lab.start(port, "sentinel", "redis-sentinel", vec![file.display().to_string()], false)?;
    }
    for port in agents::NODES {
        let socket = lab.host(port).dir.join("sentinel.sock");
        wait::until_true("the sentinels to know each other", READY_WITHIN, || {
            Ok(is_ready(&redis::ask::<String>(&socket, &["INFO", "sentinel"])?))
        })?;
    }
    Ok(())
}

/// Whether a sentinel knows the replica and both others.
fn is_ready(info: &str) -> bool {
    info.lines().any(|line| line.contains("status=ok") && line.trim_end().ends_with("slaves=1,sentinels=3"))
}

fn configuration(host_dir: &Path, script: &Path) -> String {
    let (dir, master) = (host_dir.display(), Port::Db1.address());
    format!(
        "port 26379\nprotected-mode no\ndir {dir}\nunixsocket {dir}/sentinel.sock\nlogfile {dir}/sentinel.log\n\
         sentinel monitor lab {master} {} {QUORUM}\n\
         sentinel down-after-milliseconds lab {DOWN_AFTER_MS}\n\
         sentinel failover-timeout lab 10000\n\
         sentinel parallel-syncs lab 1\n\
         sentinel client-reconfig-script lab {}\n",
        redis::PORT,
        script.display()
    )
}

fn reconfig(host_dir: &Path, node: Port) -> String {
    let (dir, own) = (host_dir.display(), node.address());
    format!(
        r#"#!/bin/sh
# A sentinel calls: reconfig.sh MASTER ROLE STATE FROM-ADDRESS FROM-PORT TO-ADDRESS TO-PORT
exec >>{dir}/reconfig.log 2>&1
echo "$(date +%s.%N) $*"
if [ "$6" = {own} ]; then
    ip address replace {VIP}/24 dev {INTERFACE}
    arping -q -c 3 -w 2 -U -I {INTERFACE} {VIP}
elif ip -4 address show dev {INTERFACE} | grep -q '{VIP}/'; then
    ip address del {VIP}/24 dev {INTERFACE}
fi
exit 0
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comparison_shows_the_configuration() {
        let shown = include_str!("../../../docs/comparison.md");
        for line in configuration(Path::new("DIR"), Path::new("DIR/reconfig.sh")).lines() {
            assert!(shown.lines().any(|there| there == line), "{line}");
        }
    }

    #[test]
    fn a_sentinel_is_ready_when_it_knows_the_replica_and_both_others() {
        let said =
            |tail: &str| format!("# Sentinel\r\nsentinel_masters:1\r\nmaster0:name=lab,status={tail}\r\n");
        assert!(is_ready(&said("ok,address=10.77.0.11:6379,slaves=1,sentinels=3")));
        for not_yet in ["ok,address=a:1,slaves=0,sentinels=3", "ok,address=a:1,slaves=1,sentinels=2"] {
            assert!(!is_ready(&said(not_yet)), "{not_yet}");
        }
        assert!(!is_ready(&said("odown,address=a:1,slaves=1,sentinels=3")));
    }
}
