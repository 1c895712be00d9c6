//! The cluster's own certificates: one authority, one certificate per node whose only name is the node's.
//!
//! Validity is always explicit, and nothing is ever overwritten: losing the authority's key by a second `init` would
//! cut every node off at its next certificate.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_runbooks::model::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Validity of the authority. Ten years: longer than a pair of servers lives.
const CA_DAYS: u32 = 3653;
/// Validity of a node's certificate, days, unless another is asked for. Two years: `doctor` and the drill `certificates` warn
/// long before.
pub const NODE_DAYS: u32 = 731;
/// Days before its end from which a certificate is to be renewed: a warning says so.
pub const RENEW_DAYS: i64 = 30;
/// Certificates are valid from a little before they are made, since the clocks of a new cluster may differ.
const BACKDATE: Duration = Duration::from_secs(3600);

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The file is there already.
    #[error(
        "{} exists; nothing was overwritten. If it is to be made anew, move it and what belongs to it (.pem and .key) away first",
        file.display()
    )]
    Exists {
        /// Which.
        file: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot access {}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The directory has no authority.
    #[error("cannot access {}: make the authority with `baton pki init`, or name its directory with --dir", file.display())]
    NoAuthority {
        /// The file that is missing.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The name cannot stand in a certificate.
    #[error("{node:?} cannot be the name in a certificate: use letters, digits and hyphens")]
    Name {
        /// The name.
        node: String,
    },
    /// The certificate cannot be made.
    #[error("cannot make the certificate")]
    Make {
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The text is no certificate.
    #[error("this is not a certificate in PEM form")]
    NotACertificate,
}

/// Makes the cluster's authority: `ca.pem` and `ca.key` (readable by its owner only) in `dir`.
///
/// # Errors
/// See [`PkiError`].
pub fn init(dir: &Path) -> Result<(), PkiError> {
    refuse_existing(&[dir.join("ca.pem"), dir.join("ca.key")])?;
    std::fs::create_dir_all(dir).map_err(|source| PkiError::File { file: dir.to_owned(), source })?;
    let make = |source| PkiError::Make { source };
    let key = KeyPair::generate().map_err(make)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Baton cluster authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, CA_DAYS);
    let cert = params.self_signed(&key).map_err(make)?;
    write_new(&dir.join("ca.key"), &key.serialize_pem(), 0o600)?;
    write_new(&dir.join("ca.pem"), &cert.pem(), 0o644)
}

/// Makes the certificate of `node`: `NODE.pem` and `NODE.key` in `dir`, signed by the authority there.
///
/// # Errors
/// See [`PkiError`].
pub fn issue(dir: &Path, node: &NodeId) -> Result<(), PkiError> {
    issue_for(dir, node, NODE_DAYS)
}

/// The same, with a certificate that ends after `days`.
///
/// # Errors
/// See [`PkiError`].
pub fn issue_for(dir: &Path, node: &NodeId, days: u32) -> Result<(), PkiError> {
    let name = node.as_str();
    // A name that looks like an address would become an address entry, and an empty or odd one could leave `dir`.
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_');
    let bad = || PkiError::Name { node: name.to_owned() };
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    if name.is_empty() || name == "ca" || !plain || is_address || name.starts_with('.') {
        return Err(bad());
    }
    let (cert_file, key_file) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    refuse_existing(&[cert_file.clone(), key_file.clone()])?;
    let make = |source| PkiError::Make { source };
    let ca_key = KeyPair::from_pem(&read_authority(&dir.join("ca.key"))?).map_err(make)?;
    let issuer = Issuer::from_ca_cert_pem(&read_authority(&dir.join("ca.pem"))?, ca_key).map_err(make)?;
    let key = KeyPair::generate().map_err(make)?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|_| bad())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    set_validity(&mut params, days);
    let cert = params.signed_by(&key, &issuer).map_err(make)?;
    write_new(&key_file, &key.serialize_pem(), 0o600)?;
    write_new(&cert_file, &cert.pem(), 0o644)
}

/// Whole days until the certificate ends, negative once it has.
///
/// # Errors
/// [`PkiError::NotACertificate`].
pub fn days_left(pem: &[u8]) -> Result<i64, PkiError> {
    let der = CertificateDer::from_pem_slice(pem).map_err(|_| PkiError::NotACertificate)?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).map_err(|_| PkiError::NotACertificate)?;
    Ok(days_until(cert.validity().not_after.timestamp()))
}

/// Whole days from now until `end`, seconds since 1970; negative once it is over.
pub(crate) fn days_until(end: i64) -> i64 {
    (end - i64::try_from(now().as_secs()).unwrap_or(i64::MAX)).div_euclid(24 * 3600)
}

fn now() -> Duration {
    // A clock before 1970 gives certificates that nobody accepts, which the first connection shows.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn set_validity(params: &mut CertificateParams, days: u32) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now().saturating_sub(BACKDATE);
    params.not_after = epoch + now() + DAY * days;
}

fn refuse_existing(files: &[PathBuf]) -> Result<(), PkiError> {
    match files.iter().find(|file| file.exists()) {
        Some(file) => Err(PkiError::Exists { file: file.clone() }),
        None => Ok(()),
    }
}

fn read_authority(file: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(file).map_err(|source| PkiError::NoAuthority { file: file.to_owned(), source })
}

fn write_new(file: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => PkiError::Exists { file: file.to_owned() },
        _ => PkiError::File { file: file.to_owned(), source },
    };
    let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(file).map_err(failed)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_names_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let failed = issue(dir.path(), &"db1".into()).unwrap_err().to_string();
        assert!(failed.contains("ca.key") && failed.contains("`baton pki init`"), "{failed}");
        init(dir.path()).unwrap();
        issue(dir.path(), &"db1".into()).unwrap();
        for failed in [init(dir.path()), issue(dir.path(), &"db1".into())] {
            let failed = failed.unwrap_err().to_string();
            assert!(failed.contains("nothing was overwritten") && failed.contains("move it"), "{failed}");
        }
    }
}
