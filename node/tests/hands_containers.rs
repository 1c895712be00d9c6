//! The hands on containers against a real Docker engine of the test's own: private directories, no bridge, no
//! packet filter, containers without a network.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use baton_node::hands::containers::{ContainerError, Containers, Service, Target};
use baton_runbooks::observe::ServiceState;
use support::{Process, eventually, skip};
use tempfile::TempDir;

const D: Duration = Duration::from_secs(60);

struct Engine {
    process: Process,
    dir: TempDir,
}

impl Engine {
    /// An engine with an image `box` that has busybox; `None`, loudly, where none can be had.
    async fn start() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let found = Command::new("dockerd").arg("--version").stdout(Stdio::null()).status().is_ok();
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
        let (true, Some(busybox), true) = (found, busybox, nix::unistd::geteuid().is_root()) else {
            skip("Docker engine", "docker.io and busybox-static");
            return None;
        };
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let process = Process::spawn(
            Command::new("dockerd")
                .args(["--data-root", &at("data"), "--exec-root", &at("exec"), "-p", &at("pid")])
                .args(["-H", &format!("unix://{}", at("sock")), "--bridge=none", "--iptables=false"])
                .args(["--storage-driver", "vfs"])
                .stdout(Stdio::null())
                .stderr(log),
        );
        let engine = Self { process, dir };
        eventually("the engine answers", || async { engine.try_docker(&["version"]).then_some(()) }).await;
        let root = engine.dir.path().join("root");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
        let import = "tar -C \"$1\" -c . | docker -H \"unix://$2\" import - box";
        let sock = at_sock(&engine.dir);
        let root = root.display().to_string();
        let done = Command::new("sh")
            .args(["-c", import, "sh", &root, &sock])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success());
        Some(engine)
    }

    fn hands(&self) -> Containers {
        Containers::new(at_sock(&self.dir))
    }

    fn try_docker(&self, args: &[&str]) -> bool {
        let mut command = Command::new("docker");
        command.args(["-H", &format!("unix://{}", at_sock(&self.dir))]).args(args);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    fn docker(&self, args: &[&str]) {
        assert!(self.try_docker(args), "docker {args:?}");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.process.thaw();
        let list =
            format!("docker -H unix://{0} ps -aq | xargs -r docker -H unix://{0} rm -f", at_sock(&self.dir));
        let _ = Command::new("sh").args(["-c", &list]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        // Its containerd is its child, and ends with it on a signal that both can act on.
        self.process.signal(nix::sys::signal::Signal::SIGTERM);
        self.process.wait();
    }
}

fn at_sock(dir: &TempDir) -> String {
    dir.path().join("sock").display().to_string()
}

#[tokio::test]
async fn containers_of_a_real_engine() {
    let Some(engine) = Engine::start().await else { return };
    let hands = engine.hands();
    let web = Target::Container("web".into());
    assert_eq!(hands.state(&web, D).await, ServiceState::Missing);
    assert!(matches!(hands.start(&web, D).await, Err(ContainerError::Missing { .. })));

    let wait = "trap 'exit 0' TERM; while :; do busybox sleep 1 & wait; done";
    engine.docker(&[
        "create",
        "--name",
        "web",
        "--network",
        "none",
        "--restart",
        "always",
        "box",
        "/bin/sh",
        "-c",
        wait,
    ]);
    assert_eq!(hands.state(&web, D).await, ServiceState::Stopped);
    let obstacles = hands.restart_obstacles(&web, D).await.unwrap();
    assert_eq!((obstacles[0].container.as_str(), obstacles[0].policy.as_str()), ("web", "always"));
    hands.ensure_restart_no(&web, D).await.unwrap();
    assert!(hands.restart_obstacles(&web, D).await.unwrap().is_empty());
    // As `docker compose up` does it with what its file says.
    engine.docker(&["update", "--restart", "unless-stopped", "web"]);
    let obstacles = hands.restart_obstacles(&web, D).await.unwrap();
    assert_eq!((obstacles[0].container.as_str(), obstacles[0].policy.as_str()), ("web", "unless-stopped"));
    hands.ensure_restart_no(&web, D).await.unwrap();
    for _ in 0..2 {
        hands.start(&web, D).await.unwrap();
        hands.wait_healthy(&web, D).await.unwrap();
    }
    for _ in 0..2 {
        hands.stop(&web, Duration::from_secs(5), D).await.unwrap();
    }
    assert_eq!(hands.state(&web, D).await, ServiceState::Stopped);

    // A container that ends by itself is not waited for.
    engine.docker(&["create", "--name", "ends", "--network", "none", "box", "/bin/sh", "-c", "exit 1"]);
    let ends = Target::Container("ends".into());
    hands.start(&ends, D).await.unwrap();
    eventually("it has ended", || async {
        (hands.state(&ends, D).await == ServiceState::Stopped).then_some(())
    })
    .await;
    assert!(matches!(hands.wait_healthy(&ends, D).await, Err(ContainerError::NotReached { .. })));

    project(&engine, &hands, wait).await;

    engine.process.freeze();
    let state = hands.state(&web, Duration::from_millis(300)).await;
    assert!(matches!(state, ServiceState::Unknown { .. }), "{state:?}");
    engine.process.thaw();
    eventually("the engine is back", || async {
        (hands.state(&web, D).await == ServiceState::Stopped).then_some(())
    })
    .await;
}

/// A Compose project as its labels show it, its health check, and services that come after each other.
async fn project(engine: &Engine, hands: &Containers, wait: &str) {
    let create = |service: &str, depends_on: &str, more: &[&str], text: &str| {
        let name = format!("shop-{service}-1");
        let labels = [("project", "shop"), ("service", service), ("depends_on", depends_on)];
        let labels = labels.map(|(key, value)| format!("--label=com.docker.compose.{key}={value}"));
        let mut args = vec!["create", "--name", &name, "--network", "none"];
        args.extend(labels.iter().map(String::as_str));
        args.extend(more);
        args.extend(["box", "/bin/sh", "-c", text]);
        engine.docker(&args);
    };
    let health = ["--health-cmd", "busybox test -e /ready", "--health-interval", "1s"];
    let ready = format!("busybox touch /ready; {wait}");
    create("web", "init:service_completed_successfully:false", &health, &ready);
    create("init", "", &[], "exit 0");
    let shop = Target::ComposeProject("shop".into());
    assert_eq!(hands.state(&shop, D).await, ServiceState::Stopped);
    let service = |name: &str, target: &Target, after: &[&str]| Service {
        name: name.into(),
        target: target.clone(),
        after: after.iter().map(|&name| name.to_owned()).collect(),
    };
    let web = Target::Container("web".into());
    let missing = Target::Container("missing".into());
    let services = [
        service("web", &web, &["shop"]),
        service("shop", &shop, &[]),
        service("missing", &missing, &[]),
        service("last", &web, &["missing"]),
    ];
    let ends = hands.start_services(&services, D).await;
    assert!(ends["web"].is_ok() && ends["shop"].is_ok(), "{ends:?}");
    assert!(matches!(ends["missing"], Err(ContainerError::Missing { .. })), "{ends:?}");
    assert!(matches!(ends["last"], Err(ContainerError::ComesAfter { .. })), "{ends:?}");
    assert_eq!(
        hands.state(&shop, D).await,
        ServiceState::Healthy,
        "the one-off that succeeded does not count"
    );
    hands.stop(&shop, Duration::from_secs(5), D).await.unwrap();
    hands.stop(&web, Duration::from_secs(5), D).await.unwrap();
}
