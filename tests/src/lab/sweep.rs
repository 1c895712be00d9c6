//! Taking labs down, the own one and those whose process is gone.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::process;
use super::shell;
use super::wire::{Port, Wire};

/// Where every lab has its directory. Short: the path of a Unix socket may have 107 bytes.
#[must_use]
pub fn labs_dir() -> PathBuf {
    PathBuf::from("/tmp/baton-lab")
}

/// Name of the control group that a lab's containers stand in.
#[must_use]
pub fn cgroup(id: &str) -> String {
    format!("baton-lab-{id}")
}

/// Writes down to whom a lab belongs.
///
/// # Errors
/// The file cannot be written.
pub fn claim(dir: &Path) -> Result<()> {
    Ok(std::fs::write(dir.join("owner"), owner(std::process::id()).unwrap_or_default())?)
}

/// A process by pid and start time, so that a reused pid is not taken for it.
fn owner(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let started = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.to_owned();
    Some(format!("{pid} {started}"))
}

/// The labs that stand, with the pid of their owner; none if it is gone.
#[must_use]
pub fn standing() -> Vec<(String, Option<i32>)> {
    let Ok(entries) = std::fs::read_dir(labs_dir()) else { return Vec::new() };
    let claimed = entries.flatten().filter_map(|entry| {
        let claim = std::fs::read_to_string(entry.path().join("owner")).ok()?;
        let pid: u32 = claim.split(' ').next()?.parse().ok()?;
        let alive = owner(pid).as_deref() == Some(&claim);
        Some((entry.file_name().into_string().ok()?, alive.then(|| i32::try_from(pid).ok()).flatten()))
    });
    claimed.collect()
}

/// Takes down every lab whose process is gone.
pub fn sweep() {
    for (id, pid) in standing() {
        if pid.is_none() {
            take_down(&id, &labs_dir().join(&id), false);
        }
    }
}

/// Ends every lab: asks the process of each to take it down, waits for that, and sweeps what is left.
///
/// # Errors
/// A lab still stands after 30 s.
pub fn end_all() -> Result<()> {
    for pid in standing().into_iter().filter_map(|(_, pid)| pid) {
        // It may have ended by itself meanwhile.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
    super::wait::until_true("the labs to be taken down", std::time::Duration::from_secs(30), || {
        sweep();
        Ok(standing().is_empty())
    })
}

/// Kills what stands in a lab's namespaces and removes namespaces, mounts, control groups and, unless `keep`, its
/// directory. Goes on over whatever fails: what is left is found by the next sweep.
pub fn take_down(id: &str, dir: &Path, keep: bool) {
    let wire = Wire::named(id);
    for port in Port::ALL {
        if let Err(error) = process::kill_all(&wire.path(port)) {
            eprintln!("lab {id}: {error:#}");
        }
    }
    wire.remove();
    unmount(dir);
    remove_cgroups(&cgroup(id));
    if keep {
        // Without an owner it is nobody's to sweep.
        let _ = std::fs::remove_file(dir.join("owner"));
    } else if let Err(error) = std::fs::remove_dir_all(dir) {
        eprintln!("lab {id}: remove {}: {error}", dir.display());
    }
}

fn unmount(dir: &Path) {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else { return };
    let below = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
    for mount in below.filter(|mount| Path::new(mount).starts_with(dir)) {
        if let Err(error) = shell::run("umount", &["--lazy", mount]) {
            eprintln!("{error:#}");
        }
    }
}

fn remove_cgroups(name: &str) {
    let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else { return };
    for hierarchy in hierarchies.flatten() {
        remove_cgroup(&hierarchy.path().join(name));
    }
    remove_cgroup(&Path::new("/sys/fs/cgroup").join(name));
}

/// A control group is removed from the leaves up, by removing its directory; its files cannot be removed.
fn remove_cgroup(path: &Path) {
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    let _ = std::fs::remove_dir(path);
}
