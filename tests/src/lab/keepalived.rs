//! The other system, in the same lab: keepalived with a careful notify script.
//!
//! Careful means: what the replica has received is applied before it is opened (the usual script throws it away); a node
//! that becomes backup is closed; a node whose databases do not answer twice in a row gives the address up; one that comes back
//! does not take it back (`nopreempt`). What it cannot do is make sure that the other node has stopped.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::wire::{INTERFACE, Port, VIP};
use super::{database, redis};

/// Writes the configuration and the notify script of a node and returns the arguments of keepalived.
///
/// # Errors
/// A file cannot be written.
pub fn prepare(host_dir: &Path, node: Port, peer: Port, advert_ms: u32) -> Result<Vec<String>> {
    for (name, text) in [("notify.sh", notify(host_dir, peer)), ("check.sh", check(host_dir))] {
        let script = host_dir.join(name);
        std::fs::write(&script, text)?;
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let file = host_dir.join("keepalived.conf");
    std::fs::write(&file, configuration(host_dir, node, advert_ms))?;
    let path = |name: &str| host_dir.join(name).display().to_string();
    Ok(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"]
        .map(String::from)
        .into_iter()
        .chain([file.display().to_string()])
        .chain(["--pid".into(), path("keepalived.pid"), "--vrrp_pid".into(), path("vrrp.pid")])
        .collect())
}

fn configuration(host_dir: &Path, node: Port, advert_ms: u32) -> String {
    let priority = if node == Port::Db1 { 150 } else { 100 };
    let advert = f64::from(advert_ms) / 1000.0;
    let dir = host_dir.display();
    format!(
        "global_defs {{\n  vrrp_version 3\n  script_user root\n  enable_script_security\n}}\n\
         vrrp_script databases {{\n  script \"{dir}/check.sh\"\n  interval 1\n  timeout 2\n  fall 2\n  rise 2\n}}\n\
         vrrp_instance lab {{\n  state BACKUP\n  nopreempt\n  interface {INTERFACE}\n  virtual_router_id 77\n\
         \x20 priority {priority}\n  advert_int {advert}\n  virtual_ipaddress {{\n    {VIP}/24 dev {INTERFACE}\n  }}\n\
         \x20 track_script {{\n    databases\n  }}\n  notify {dir}/notify.sh\n}}\n"
    )
}

/// Both databases answer, each within a second.
fn check(host_dir: &Path) -> String {
    let dir = host_dir.display();
    format!(
        r#"#!/bin/sh
timeout 1 mariadb --no-defaults --socket={dir}/mysql.sock --user=root -e 'SELECT 1' >/dev/null 2>&1 || exit 1
[ "$(timeout 1 redis-cli -s {dir}/redis.sock ping 2>/dev/null)" = PONG ]
"#
    )
}

fn notify(host_dir: &Path, peer: Port) -> String {
    let dir: PathBuf = host_dir.to_owned();
    let (dir, peer, port) = (dir.display(), peer.address(), redis::PORT);
    let password = database::PASSWORD;
    format!(
        r#"#!/bin/sh
# keepalived calls: notify TYPE NAME STATE PRIORITY
exec >>{dir}/notify.log 2>&1
echo "$(date +%s.%N) $3"
sql() {{ mariadb --no-defaults --batch --skip-column-names --socket={dir}/mysql.sock --user=root "$@"; }}
kv() {{ redis-cli -s {dir}/redis.sock "$@"; }}
case "$3" in
MASTER)
    kv replicaof no one
    kv config set min-replicas-to-write 0
    received=$(sql -E -e 'SHOW SLAVE STATUS' | sed -n 's/^ *Gtid_IO_Pos: //p')
    [ -z "$received" ] || sql -e "SELECT MASTER_GTID_WAIT('$received', 10)"
    # Semi-synchronous for as long as there is a replica; alone it acknowledges alone.
    sql -e 'SET GLOBAL rpl_semi_sync_master_wait_no_slave=0; SET GLOBAL rpl_semi_sync_master_enabled=1'
    sql -e 'SET GLOBAL read_only=0'
    sql -e 'STOP SLAVE' &
    ;;
BACKUP | FAULT)
    # A frozen server must not keep the other one from being closed, nor commits that wait for the replica this one.
    kv replicaof {peer} {port}
    timeout 2 mariadb --no-defaults --socket={dir}/mysql.sock --user=root -e 'SET GLOBAL rpl_semi_sync_master_enabled=0'
    timeout 2 mariadb --no-defaults --socket={dir}/mysql.sock --user=root -e 'SET GLOBAL read_only=1'
    sql -e "SET GLOBAL read_only=1; CHANGE MASTER TO MASTER_HOST='{peer}', MASTER_USER='repl', MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos; START SLAVE"
    ;;
esac
echo "$(date +%s.%N) $3 done"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comparison_shows_the_configuration() {
        let shown = include_str!("../../../docs/comparison.md");
        for line in configuration(Path::new("DIR"), Port::Db1, 1000).lines() {
            assert!(shown.lines().any(|there| there == line), "{line}");
        }
    }
}
