//! `baton doctor`: what can be checked of this machine before, or beside, an agent that runs.
//!
//! Each check has a stable code, what was seen, and what to do. It changes nothing. Kernel checks run in a network
//! namespace of their own.

mod files;

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use serde::Serialize;

use super::status::wrap;
use super::{Exit, Failure, Global, Output, block_on, chain, screen};
use crate::api::client::Client;
use crate::config::{Config, Vip};
use crate::hands::mysql::datadir::DataDir;

/// Arguments of `baton doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Exit code 1 also for a WARN, as for a FAIL: for cron
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Grade {
    Ok,
    Warn,
    Fail,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// Stable code.
    code: &'static str,
    grade: Grade,
    /// What was seen.
    seen: String,
    /// What to do; empty when nothing is to be done.
    way_out: &'static str,
}

fn good(code: &'static str, seen: impl Into<String>) -> Finding {
    Finding { code, grade: Grade::Ok, seen: seen.into(), way_out: "" }
}

fn bad(code: &'static str, grade: Grade, seen: impl Into<String>, way_out: &'static str) -> Finding {
    Finding { code, grade, seen: seen.into(), way_out }
}

pub(super) fn run(global: &Global, args: &DoctorArgs) -> Result<Exit, Failure> {
    let config = Config::load(&global.config, &global.node()?)?;
    let mut findings = vec![good(
        "config",
        format!("{} is valid for {}, hash {}", global.config.display(), config.node, config.hash),
    )];
    findings.extend(files::certificates(&config));
    findings.extend(files::passwords(&config));
    findings.push(directory("state-dir", &config.state_dir));
    findings.push(directory("run-dir", &config.run_dir));
    findings.push(own_address(&config));
    findings.extend(interfaces(&config));
    if config.is_data_node() {
        findings.extend(data_node(&config));
    }
    let power_off = config.drill.power_off.as_ref();
    findings.extend(
        power_off.map(|hook| executable("drill-power-off", &hook.program, "correct drill.power_off")),
    );
    findings.extend(kernel());
    findings.push(agent(global, &config)?);
    let failed = is_failure(&findings, args.strict);
    let text = match global.output {
        Output::Json => screen::json(&serde_json::json!({ "ok": !failed, "checks": findings }))?,
        Output::Table => wrap(&findings.iter().map(line).collect::<Vec<_>>().join("\n")),
    };
    screen::say(&text)?;
    Ok(if failed { Exit::Usage } else { Exit::Done })
}

fn is_failure(findings: &[Finding], strict: bool) -> bool {
    findings.iter().any(|finding| match finding.grade {
        Grade::Ok => false,
        Grade::Warn => strict,
        Grade::Fail => true,
    })
}

fn line(finding: &Finding) -> String {
    let grade = match finding.grade {
        Grade::Ok => "ok  ",
        Grade::Warn => "WARN",
        Grade::Fail => "FAIL",
    };
    let way_out = if finding.way_out.is_empty() { String::new() } else { format!(" -> {}", finding.way_out) };
    format!("{grade}  {}: {}{way_out}", finding.code, finding.seen)
}

fn directory(code: &'static str, path: &Path) -> Finding {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => good(code, path.display().to_string()),
        Ok(_) => bad(code, Grade::Fail, format!("{} is not a directory", path.display()), "move it away"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            good(code, format!("{} is made at the agent's start", path.display()))
        }
        Err(e) => bad(code, Grade::Fail, format!("{}: {e}", path.display()), "run this as root"),
    }
}

/// Only an address of this host can be bound.
fn own_address(config: &Config) -> Finding {
    let address = config.this().address;
    match UdpSocket::bind((address, 0)) {
        Ok(_) => good("own-address", format!("{address} is an address of this host")),
        Err(e) => bad(
            "own-address",
            Grade::Fail,
            format!("cannot bind {address}: {e}"),
            "correct node.address, or say which node this is with --node",
        ),
    }
}

/// The witness does not bear the address: without the interface it only cannot see who does.
fn interfaces(config: &Config) -> Vec<Finding> {
    let (grade, does) =
        if config.is_data_node() { (Grade::Fail, "bear") } else { (Grade::Warn, "see who answers for") };
    let look = |vip: &Vip| {
        if Path::new("/sys/class/net").join(&vip.interface).exists() {
            good("vip-interface", format!("{} will {does} {}", vip.interface, vip.address))
        } else {
            bad(
                "vip-interface",
                grade,
                format!("there is no interface {}, which would {does} {}", vip.interface, vip.address),
                "correct vip.interface, or name this node's own in vip.interfaces; `ip link` shows the names",
            )
        }
    };
    config.vips.iter().map(look).collect()
}

fn data_node(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(mysql) = &config.mysql {
        findings.push(socket("mysql-socket", &mysql.socket, Grade::Warn));
        findings.push(data_dir(&mysql.data_dir));
    }
    findings.extend(config.redis.as_ref().map(|redis| socket("redis-socket", &redis.socket, Grade::Warn)));
    findings
        .extend(config.docker.as_ref().map(|docker| socket("docker-socket", &docker.socket, Grade::Warn)));
    findings.extend(
        config.fence_hook.as_ref().map(|hook| executable("fence-hook", &hook.program, "correct hooks.fence")),
    );
    findings
}

fn data_dir(path: &Path) -> Finding {
    let code = "mysql-data-dir";
    if !path.is_dir() {
        let seen = format!("{} is not a directory that can be read", path.display());
        return bad(code, Grade::Fail, seen, "correct mysql.data_dir");
    }
    match DataDir::new(path).check() {
        Ok(()) => good(code, path.display().to_string()),
        Err(e) => bad(
            code,
            Grade::Warn,
            format!("`baton resync` could not replace the database: {}", chain(&e)),
            "mend it before a resync is needed",
        ),
    }
}

fn socket(code: &'static str, path: &Path, grade: Grade) -> Finding {
    match fs::metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => good(code, path.display().to_string()),
        Ok(_) => bad(code, Grade::Fail, format!("{} is not a socket", path.display()), "correct the path"),
        Err(e) => {
            bad(code, grade, format!("{}: {e}", path.display()), "start the server, or correct the path")
        }
    }
}

fn executable(code: &'static str, path: &Path, way_out: &'static str) -> Finding {
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {
            good(code, path.display().to_string())
        }
        Ok(_) => bad(code, Grade::Fail, format!("{} cannot be executed", path.display()), "chmod +x"),
        Err(e) => bad(code, Grade::Fail, format!("{}: {e}", path.display()), way_out),
    }
}

fn kernel() -> Vec<Finding> {
    baton_netops::preflight()
        .into_iter()
        .map(|check| {
            let seen = format!("{}: {}", check.name, check.evidence);
            if check.passed {
                good("kernel", seen)
            } else {
                bad(
                    "kernel",
                    Grade::Fail,
                    seen,
                    "run this as root, on a kernel with nftables (netdev family, timeouts)",
                )
            }
        })
        .collect()
}

fn agent(global: &Global, config: &Config) -> Result<Finding, Failure> {
    let client = Client::new(global.socket.clone().unwrap_or_else(|| config.socket()));
    Ok(match block_on(client.status())? {
        Ok(status) if status.node == config.node => good("agent", format!("answers: {}", status.sentence)),
        Ok(status) => bad(
            "agent",
            Grade::Fail,
            format!("the agent at this socket is {}, not {}", status.node, config.node),
            "give each agent its own paths.run",
        ),
        Err(e) => bad("agent", Grade::Warn, chain(&e), "start it when everything else is mended"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(node: &str) -> Config {
        Config::parse(&crate::config::example(), "test", &node.into()).unwrap()
    }

    #[test]
    fn a_warning_counts_only_if_it_is_asked_for() {
        let warning = [good("config", ""), bad("agent", Grade::Warn, "", "")];
        assert!(!is_failure(&warning, false) && is_failure(&warning, true));
        assert!(!is_failure(&warning[..1], true));
        assert!(is_failure(&[bad("pki-key", Grade::Fail, "", "")], false));
    }

    #[test]
    fn a_missing_interface_is_named_on_every_node() {
        for (node, grade) in [("db2", Grade::Fail), ("mon", Grade::Warn)] {
            let mut config = example(node);
            config.vips[0].interface = "none0".to_owned();
            let findings = interfaces(&config);
            assert_eq!(findings[0].grade, grade, "{node}");
            assert!(findings[0].seen.starts_with("there is no interface none0"), "{findings:?}");
            config.vips[0].interface = "lo".to_owned();
            assert_eq!(interfaces(&config)[0].grade, Grade::Ok);
        }
    }

    #[test]
    fn a_data_directory_that_is_a_mount_point_is_named() {
        let found = data_dir(Path::new("/proc"));
        assert_eq!(found.grade, Grade::Warn);
        assert!(found.seen.contains("/proc is a mount point"), "{}", found.seen);
        assert_eq!(data_dir(Path::new("/nonexistent")).grade, Grade::Fail);
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("mysql");
        fs::create_dir(&below).unwrap();
        assert_eq!(data_dir(&below).grade, Grade::Ok);
    }

    #[test]
    fn foreign_address_is_named() {
        // The example's addresses belong to no machine that runs tests.
        let config = example("db1");
        assert_eq!(own_address(&config).grade, Grade::Fail);
    }
}
