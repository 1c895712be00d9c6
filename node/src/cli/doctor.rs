//! `baton doctor`: what can be checked of this machine before, or beside, an agent that runs.
//!
//! Each check has a stable code, what was seen, and what to do. It changes nothing. Kernel checks run in a network
//! namespace of their own.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use serde::Serialize;

use super::status::wrap;
use super::{Exit, Failure, Global, Output, block_on, chain, screen};
use crate::api::client::Client;
use crate::config::{Config, Mysql};

/// A certificate that ends sooner than this is a warning.
const CERT_DAYS_MIN: i64 = 30;

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

pub(super) fn run(global: &Global) -> Result<Exit, Failure> {
    let config = Config::load(&global.config, &global.node()?)?;
    let mut findings = vec![good(
        "config",
        format!("{} is valid for {}, hash {}", global.config.display(), config.node, config.hash),
    )];
    findings.extend(certificates(&config));
    findings.push(directory("state-dir", &config.state_dir));
    findings.push(directory("run-dir", &config.run_dir));
    findings.push(own_address(&config));
    if config.is_data_node() {
        findings.extend(data_node(&config));
    }
    let power_off = config.drill.power_off.as_ref();
    findings.extend(
        power_off.map(|hook| executable("drill-power-off", &hook.program, "correct drill.power_off")),
    );
    findings.extend(kernel());
    findings.push(agent(global, &config)?);
    let failed = findings.iter().any(|finding| finding.grade == Grade::Fail);
    let text = match global.output {
        Output::Json => screen::json(&serde_json::json!({ "ok": !failed, "checks": findings }))?,
        Output::Table => wrap(&findings.iter().map(line).collect::<Vec<_>>().join("\n")),
    };
    screen::say(&text)?;
    Ok(if failed { Exit::Usage } else { Exit::Done })
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

fn certificates(config: &Config) -> Vec<Finding> {
    let files = [("pki-ca", &config.pki.ca), ("pki-cert", &config.pki.cert)];
    let mut findings: Vec<Finding> = files
        .iter()
        .map(|(code, path)| match fs::read(path) {
            Err(e) => bad(
                code,
                Grade::Fail,
                format!("cannot read {}: {e}", path.display()),
                "make it with `baton pki init` and `baton pki issue`, and copy it here",
            ),
            Ok(pem) => certificate(code, path, &pem),
        })
        .collect();
    let key = &config.pki.key;
    findings.push(match fs::metadata(key) {
        Err(e) => bad(
            "pki-key",
            Grade::Fail,
            format!("cannot read {}: {e}", key.display()),
            "make it with `baton pki issue`, and copy it here",
        ),
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            bad("pki-key", Grade::Warn, format!("{} is readable for others", key.display()), "chmod 600")
        }
        Ok(_) => good("pki-key", key.display().to_string()),
    });
    findings
}

fn certificate(code: &'static str, path: &Path, pem: &[u8]) -> Finding {
    match baton_consensus::pki::days_left(pem) {
        Ok(days) if days < 0 => bad(
            code,
            Grade::Fail,
            format!("{} has ended", path.display()),
            "issue a new one with `baton pki issue`",
        ),
        Ok(days) if days < CERT_DAYS_MIN => bad(
            code,
            Grade::Warn,
            format!("{} ends in {days} days", path.display()),
            "issue a new one with `baton pki issue`",
        ),
        Ok(days) => good(code, format!("{}, {days} days left", path.display())),
        Err(e) => bad(code, Grade::Fail, format!("{}: {}", path.display(), chain(&e)), "issue it anew"),
    }
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

fn data_node(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for vip in &config.vips {
        let path = Path::new("/sys/class/net").join(&vip.interface);
        findings.push(if path.exists() {
            good("vip-interface", format!("{} will bear {}", vip.interface, vip.address))
        } else {
            bad(
                "vip-interface",
                Grade::Fail,
                format!("there is no interface {}", vip.interface),
                "correct vip.interface; `ip link` shows the names",
            )
        });
    }
    if let Some(mysql) = &config.mysql {
        findings.push(socket("mysql-socket", &mysql.socket, Grade::Warn));
        findings.extend(mysql_files(mysql));
    }
    findings.extend(config.redis.as_ref().map(|redis| socket("redis-socket", &redis.socket, Grade::Warn)));
    findings
        .extend(config.docker.as_ref().map(|docker| socket("docker-socket", &docker.socket, Grade::Warn)));
    findings.extend(
        config.fence_hook.as_ref().map(|hook| executable("fence-hook", &hook.program, "correct hooks.fence")),
    );
    findings
}

fn mysql_files(mysql: &Mysql) -> Vec<Finding> {
    let mut findings = vec![match fs::metadata(&mysql.data_dir) {
        Ok(meta) if meta.is_dir() => good("mysql-data-dir", mysql.data_dir.display().to_string()),
        Ok(_) | Err(_) => bad(
            "mysql-data-dir",
            Grade::Fail,
            format!("{} is not a directory that can be read", mysql.data_dir.display()),
            "correct mysql.data_dir",
        ),
    }];
    for password in [mysql.read_password(), mysql.read_replication_password()] {
        findings.extend(password.err().map(|e| {
            bad("mysql-password", Grade::Fail, chain(&e), "write the file, mode 600, owned by the agent")
        }));
    }
    findings
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

    #[test]
    fn world_readable_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        baton_consensus::pki::init(dir.path()).unwrap();
        baton_consensus::pki::issue(dir.path(), &"db1".into()).unwrap();
        let text = crate::config::example().replace("/etc/baton/pki", &dir.path().display().to_string());
        let config = Config::parse(&text, "test", &"db1".into()).unwrap();
        assert!(certificates(&config).iter().all(|finding| finding.grade == Grade::Ok));
        fs::set_permissions(&config.pki.key, fs::Permissions::from_mode(0o644)).unwrap();
        let findings = certificates(&config);
        assert_eq!(findings[2].grade, Grade::Warn);
        assert_eq!(
            line(&findings[2]),
            format!("WARN  pki-key: {} is readable for others -> chmod 600", config.pki.key.display())
        );
    }

    #[test]
    fn foreign_address_is_named() {
        // The example's addresses belong to no machine that runs tests.
        let config = Config::parse(&crate::config::example(), "test", &"db1".into()).unwrap();
        assert_eq!(own_address(&config).grade, Grade::Fail);
    }
}
