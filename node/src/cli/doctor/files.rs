//! Certificates, their key, and files with passwords.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use baton_consensus::Tls;
use baton_consensus::pki::RENEW_DAYS;

use super::{Finding, Grade, bad, chain, good};
use crate::config::{Config, Secret};

/// Authority, certificate and key, each by itself, and whether they fit together.
pub(super) fn certificates(config: &Config) -> Vec<Finding> {
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
    // What is missing or has ended is said above, once.
    if findings.iter().all(|finding| finding.grade != Grade::Fail) {
        findings.push(together(config));
    }
    findings
}

fn together(config: &Config) -> Finding {
    let pki = &config.pki;
    match Tls::check(&pki.ca, &pki.cert, &pki.key, config.node.clone()) {
        Ok(()) => good("pki-fit", format!("authority, certificate and key fit, and are for {}", config.node)),
        Err(e) => bad(
            "pki-fit",
            Grade::Fail,
            chain(&e),
            "copy ca.pem, NAME.pem and NAME.key here that were made together; else issue this node's anew",
        ),
    }
}

fn certificate(code: &'static str, path: &Path, pem: &[u8]) -> Finding {
    match baton_consensus::pki::days_left(pem) {
        Ok(days) if days < 0 => bad(
            code,
            Grade::Fail,
            format!("{} has ended", path.display()),
            "issue a new one with `baton pki issue`",
        ),
        Ok(days) if days < RENEW_DAYS => bad(
            code,
            Grade::Warn,
            format!("{} ends in {days} days", path.display()),
            "issue a new one with `baton pki issue`",
        ),
        Ok(days) => good(code, format!("{}, {days} days left", path.display())),
        Err(e) => bad(code, Grade::Fail, format!("{}: {}", path.display(), chain(&e)), "issue it anew"),
    }
}

/// Every file with a password that this node reads.
pub(super) fn passwords(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(mysql) = &config.mysql {
        if config.is_data_node() {
            let (own, replication) = (mysql.read_password(), mysql.read_replication_password());
            findings.extend(password("mysql-password", mysql.password_file.as_deref(), own));
            findings.extend(password(
                "mysql-password",
                mysql.replication_password_file.as_deref(),
                replication,
            ));
        }
        findings.extend(password(
            "mysql-password",
            mysql.check_password_file.as_deref(),
            mysql.read_check_password(),
        ));
    }
    if let Some(redis) = &config.redis {
        findings.extend(password("redis-password", redis.password_file.as_deref(), redis.read_password()));
    }
    let drill = &config.drill;
    let found = password("drill-password", drill.password_file.as_deref(), drill.read_password());
    findings.extend(found.map(|finding| match finding.grade {
        // Only drills that are run on this node need it.
        Grade::Fail => Finding {
            grade: Grade::Warn,
            way_out: "write the file, mode 600, or remove the key where no drill is run",
            ..finding
        },
        Grade::Ok | Grade::Warn => finding,
    }));
    findings
}

/// `None`: no file is named.
fn password<E: std::error::Error>(
    code: &'static str,
    path: Option<&Path>,
    read: Result<Secret, E>,
) -> Option<Finding> {
    let path = path?;
    let is_open = |path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    Some(match read {
        Err(e) => bad(code, Grade::Fail, chain(&e), "write the file, mode 600, owned by the agent"),
        Ok(_) if is_open(path) => {
            bad(code, Grade::Warn, format!("{} is readable for others", path.display()), "chmod 600")
        }
        Ok(_) => good(code, path.display().to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::line;
    use super::*;

    fn grades(findings: &[Finding]) -> Vec<Grade> {
        findings.iter().map(|finding| finding.grade).collect()
    }

    /// A directory with an authority and certificates of two nodes, and db1's configuration.
    fn pki() -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        baton_consensus::pki::init(dir.path()).unwrap();
        for node in ["db1", "db2"] {
            baton_consensus::pki::issue(dir.path(), &node.into()).unwrap();
        }
        let text = crate::config::example().replace("/etc/baton/pki", &dir.path().display().to_string());
        let config = Config::parse(&text, "test", &"db1".into()).unwrap();
        (dir, config)
    }

    #[test]
    fn world_readable_key_is_named() {
        let (_dir, config) = pki();
        assert_eq!(grades(&certificates(&config)), [Grade::Ok; 4]);
        fs::set_permissions(&config.pki.key, fs::Permissions::from_mode(0o644)).unwrap();
        let findings = certificates(&config);
        assert_eq!(
            line(&findings[2]),
            format!("WARN  pki-key: {} is readable for others -> chmod 600", config.pki.key.display())
        );
    }

    #[test]
    fn files_that_do_not_fit_together_are_named() {
        let (dir, config) = pki();
        let (other, _) = pki();
        let wrong = |change: &dyn Fn(&mut Config)| {
            let mut config = config.clone();
            change(&mut config);
            let findings = certificates(&config);
            assert_eq!(grades(&findings), [Grade::Ok, Grade::Ok, Grade::Ok, Grade::Fail]);
            findings[3].seen.clone()
        };
        let seen = wrong(&|config| config.pki.cert = dir.path().join("db2.pem"));
        assert!(seen.contains("is for db2, but this node is db1"), "{seen}");
        let seen = wrong(&|config| config.pki.key = dir.path().join("db2.key"));
        assert!(seen.contains("do not fit together"), "{seen}");
        let seen = wrong(&|config| config.pki.ca = other.path().join("ca.pem"));
        assert!(seen.contains("is not signed by"), "{seen}");
    }

    #[test]
    fn every_password_file_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| Some(dir.path().join(name));
        let mut config = Config::parse(&crate::config::example(), "test", &"db1".into()).unwrap();
        assert_eq!(passwords(&config), [], "the example names none");
        let mysql = config.mysql.as_mut().unwrap();
        mysql.password_file = file("mysql.pw");
        mysql.replication_password_file = file("repl.pw");
        mysql.check_password_file = file("check.pw");
        config.redis.as_mut().unwrap().password_file = file("redis.pw");
        config.drill.password_file = file("drill.pw");
        let missing = grades(&passwords(&config));
        assert_eq!(missing, [Grade::Fail, Grade::Fail, Grade::Fail, Grade::Fail, Grade::Warn]);
        for name in ["mysql.pw", "repl.pw", "check.pw", "redis.pw", "drill.pw"] {
            fs::write(dir.path().join(name), "s3cret").unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
        assert_eq!(grades(&passwords(&config)), [Grade::Warn; 5]);
        for name in ["mysql.pw", "repl.pw", "check.pw", "redis.pw", "drill.pw"] {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        assert_eq!(grades(&passwords(&config)), [Grade::Ok; 5]);
        config.node = "mon".into();
        assert_eq!(passwords(&config).len(), 3, "the witness has no agent's account");
    }
}
