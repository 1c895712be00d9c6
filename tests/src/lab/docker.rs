//! A container engine per data node, with two small services that were created before and are not started: one that answers HTTP
//! and needs no database, and one that starts when the database is writable.
//!
//! No image is pulled: both are a static busybox, imported from an archive.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::shell;
use super::wait;

/// Name of the service's container.
pub const CONTAINER: &str = "web";
/// Name of the container that starts when the database is writable. It does nothing, and answers nobody.
pub const LATE: &str = "jobs";
/// Port that the service answers on.
pub const PORT: u16 = 8080;

const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// The socket of a node's engine.
#[must_use]
pub fn socket(host_dir: &Path) -> PathBuf {
    host_dir.join("docker.sock")
}

/// Arguments of a node's engine. Containers stand in a control group of the lab, to be removed with it.
#[must_use]
pub fn arguments(host_dir: &Path, cgroup: &str) -> Vec<String> {
    let dir = host_dir.display();
    [
        format!("--data-root={dir}/docker/data"),
        format!("--exec-root={dir}/docker/exec"),
        format!("--pidfile={dir}/docker/pid"),
        format!("--host=unix://{}", socket(host_dir).display()),
        format!("--cgroup-parent=/{cgroup}"),
        "--storage-driver=vfs".into(),
        "--bridge=none".into(),
        "--iptables=false".into(),
        "--ip-forward=false".into(),
        "--ip-masq=false".into(),
        "--log-level=error".into(),
    ]
    .into()
}

/// The archive that becomes the image; made once per lab.
///
/// # Errors
/// busybox is missing or not static.
pub fn archive(lab_dir: &Path) -> Result<PathBuf> {
    let root = lab_dir.join("image");
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::create_dir_all(root.join("www"))?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox-static is needed")?;
    for name in ["sh", "httpd", "wget"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
    }
    std::fs::write(root.join("www/index.html"), "served\n")?;
    let archive = lab_dir.join("image.tar");
    let (to, from) = (archive.display().to_string(), root.display().to_string());
    shell::run("tar", &["-cf", &to, "-C", &from, "."])?;
    Ok(archive)
}

/// Asks a node's engine by its command line.
///
/// # Errors
/// The engine refuses or does not answer.
pub fn ask(host_dir: &Path, words: &[&str]) -> Result<String> {
    let host = format!("unix://{}", socket(host_dir).display());
    let mut all = vec!["20", "docker", "-H", &host];
    all.extend(words);
    shell::run("timeout", &all)
}

/// Waits for the engine and creates the services.
///
/// # Errors
/// The engine does not come up or refuses.
pub fn prepare(host_dir: &Path, archive: &Path) -> Result<()> {
    wait::until("the container engine to answer", BOOT_LIMIT, || ask(host_dir, &["version"]).map(Some))?;
    ask(host_dir, &["import", &archive.display().to_string(), CONTAINER])?;
    let port = PORT.to_string();
    let check = format!("wget -q -O /dev/null http://127.0.0.1:{PORT}/");
    let options = ["create", "--name", CONTAINER, "--restart", "no", "--network", "host"];
    let health = ["--health-cmd", &check, "--health-interval", "1s", "--health-timeout", "1s"];
    let command = [CONTAINER, "/bin/httpd", "-f", "-p", &port, "-h", "/www"];
    ask(host_dir, &[&options[..], &health[..], &command[..]].concat())?;
    let idle =
        [CONTAINER, "/bin/sh", "-c", "trap 'exit 0' TERM; while :; do /bin/busybox sleep 60 & wait; done"];
    let create = ["create", "--name", LATE, "--restart", "no", "--network", "host"];
    ask(host_dir, &[&create[..], &idle[..]].concat()).map(drop)
}

/// State of the service's container: `created`, `running`, `exited`.
///
/// # Errors
/// The engine does not answer.
pub fn state(host_dir: &Path) -> Result<String> {
    Ok(ask(host_dir, &["inspect", "-f", "{{.State.Status}}", CONTAINER])?.trim().to_owned())
}

/// Health of the service's container, as its engine says: `starting`, `healthy`, `unhealthy`.
///
/// # Errors
/// The engine does not answer.
pub fn health(host_dir: &Path) -> Result<String> {
    Ok(ask(host_dir, &["inspect", "-f", "{{.State.Health.Status}}", CONTAINER])?.trim().to_owned())
}
