//! Pacemaker and Corosync in the lab: three members, of which two may run the databases, and fencing.
//!
//! Both programs believe that they have a machine for themselves, so each host gets a mount namespace in which the folders
//! that they insist on are its own, and `/usr` has two programs more: the resource agent and the fence agent. They talk to
//! each other through sockets that are private to a network namespace already.
//!
//! The databases are one promotable resource with a small agent that does what keepalived's notify script does; the address
//! is `ocf:heartbeat:IPaddr2`. Fencing is a switch that takes a host from power at once, as no real one does: a power
//! controller needs a second or more.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::wire::{INTERFACE, VIP};
use super::{DATA, Lab, Port, agents, database, shell, wait};

/// How long the members may take to elect, probe and promote.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// Folders of a host that stand in for the machine's.
const FOLDERS: [&str; 10] = [
    "etc-corosync",
    "lib-corosync",
    "lib-pacemaker/cib",
    "lib-pacemaker/pengine",
    "lib-pacemaker/cores",
    "lib-pacemaker/blackbox",
    "run/netns",
    "log",
    "usr/sbin",
    "usr/lib/ocf/resource.d/lab",
];

/// Starts the part of a node. With the last one it is waited for: no earlier can anybody be promoted.
///
/// # Errors
/// A program does not start, or nobody serves within a minute.
pub(super) fn start(lab: &Lab, port: Port) -> Result<()> {
    let host = lab.host(port);
    let prefix = lab.wire.netns(port);
    let prefix = prefix.trim_end_matches(port.name()).trim_end_matches('-');
    prepare(&host.dir, port, prefix)?;
    if port == Port::Db1 {
        // As with keepalived: the first holder has a replica whose word it waits for.
        database::query(&host.mysql(), "SET GLOBAL rpl_semi_sync_master_enabled=1")?;
    }
    let boot = host.dir.join("boot.sh").display().to_string();
    let args = ["--mount", "--uts", "sh", &boot].map(String::from).into();
    lab.start(port, "pacemaker", "unshare", args, false)?;
    if port != Port::Mon {
        return Ok(());
    }
    let primary = wait::until("Pacemaker to promote", SERVES_WITHIN, || lab.serving())?;
    DATA.into_iter().filter(|other| *other != primary).try_for_each(|other| lab.wait_replicating(other))
}

fn prepare(dir: &Path, node: Port, prefix: &str) -> Result<()> {
    for folder in FOLDERS {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    let fill = |text: &str| fill(text, dir, node, prefix);
    std::fs::write(dir.join("boot.sh"), fill(include_str!("pacemaker/boot.sh")))?;
    std::fs::write(dir.join("etc-corosync/corosync.conf"), fill(include_str!("pacemaker/corosync.conf")))?;
    std::fs::write(dir.join("lib-pacemaker/cib/cib.xml"), fill(include_str!("pacemaker/cib.xml")))?;
    for (program, text) in [
        ("usr/sbin/fence_lab", include_str!("pacemaker/fence_lab.sh")),
        ("usr/lib/ocf/resource.d/lab/databases", include_str!("pacemaker/databases.sh")),
    ] {
        std::fs::write(dir.join(program), fill(text))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.join(program), mode)?;
    }
    // Most of its daemons run as this user, and refuse a configuration that is not theirs.
    let own = dir.join("lib-pacemaker").display().to_string();
    shell::run("chown", &["--recursive", "hacluster:haclient", &own])?;
    shell::run("chmod", &["0600", &format!("{own}/cib/cib.xml")]).map(drop)
}

fn fill(text: &str, dir: &Path, node: Port, prefix: &str) -> String {
    let replaced = [
        ("@dir@", dir.display().to_string()),
        ("@node@", node.name().into()),
        ("@prefix@", prefix.into()),
        ("@interface@", INTERFACE.into()),
        ("@vip@", VIP.to_string()),
        ("@db1@", Port::Db1.address().to_string()),
        ("@db2@", Port::Db2.address().to_string()),
        ("@password@", database::PASSWORD.into()),
        ("@nodes@", members()),
    ];
    replaced.into_iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, &value))
}

/// The list of members, of which the numbers are those in the configuration.
fn members() -> String {
    let member = |(port, id): (Port, u8)| {
        format!(
            "  node {{\n    name: {}\n    nodeid: {id}\n    ring0_addr: {}\n  }}\n",
            port.name(),
            port.address()
        )
    };
    agents::NODES.into_iter().zip(1..).map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_fill_in() {
        for text in [
            include_str!("pacemaker/boot.sh"),
            include_str!("pacemaker/corosync.conf"),
            include_str!("pacemaker/cib.xml"),
            include_str!("pacemaker/fence_lab.sh"),
            include_str!("pacemaker/databases.sh"),
        ] {
            let filled = fill(text, Path::new("/lab/db1"), Port::Db1, "bl0");
            let words: Vec<&str> = filled.split('@').collect();
            let left = words.windows(3).find(|around| {
                !around[1].is_empty() && around[1].chars().all(|letter| letter.is_ascii_lowercase())
            });
            assert_eq!(left, None, "{filled}");
        }
    }

    #[test]
    fn the_comparison_shows_the_timing_and_names_the_files() {
        let shown = include_str!("../../../docs/comparison.md");
        let totem = include_str!("pacemaker/corosync.conf").split_inclusive("}\n").next().unwrap();
        assert!(shown.contains(totem), "{totem}");
        for name in ["cib.xml", "fence_lab.sh", "databases.sh"] {
            assert!(shown.contains(&format!("tests/src/lab/pacemaker/{name}")), "{name}");
        }
    }

    #[test]
    fn every_member_is_listed_under_the_number_that_the_configuration_has() {
        let listed = members();
        for (port, id) in agents::NODES.into_iter().zip(1..=3) {
            assert!(listed.contains(&format!("name: {}\n    nodeid: {id}\n", port.name())), "{listed}");
            let in_configuration = format!("<node id=\"{id}\" uname=\"{}\"/>", port.name());
            assert!(include_str!("pacemaker/cib.xml").contains(&in_configuration), "{in_configuration}");
        }
    }
}
