//! Links: who is let in, what is refused, and what one peer can do to another.
#![allow(clippy::unwrap_used)]

mod harness;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use baton_consensus::pki::{self, PkiError};
use baton_consensus::transport::{
    Channel, DialError, LINKS_PER_PEER_MAX, Link, LinkError, Listener, Tls, TlsError, dial,
};
use baton_runbooks::model::NodeId;
use bytes::Bytes;
use harness::{SOON, make_pki, tls};

const ALL: [Channel; 6] =
    [Channel::Raft, Channel::Snapshot, Channel::Peer, Channel::Lease, Channel::Order, Channel::Copy];

/// db1 listens for db2 and mon, and echoes.
fn listen(dir: &Path) -> SocketAddr {
    let members = ["db1", "db2", "mon"].map(NodeId::from);
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listener = Listener::bind(addr, tls(dir, "shop", "db1"), members, &ALL).unwrap();
    let addr = listener.local_addr();
    tokio::spawn(async move {
        loop {
            let (from, _, mut link) = listener.accept().await;
            tokio::spawn(async move {
                while let Ok(Some(frame)) = link.recv().await {
                    let text = format!("{from}: {}", frame.len());
                    if link.send(text.into()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

async fn ask(link: &mut Link, frame: Bytes) -> Result<Option<Bytes>, LinkError> {
    link.send(frame).await?;
    tokio::time::timeout(SOON, link.recv()).await.expect("an answer or an end")
}

async fn try_dial(tls: &Tls, to: &str, addr: SocketAddr) -> Result<Link, DialError> {
    dial(tls, &to.into(), addr, Channel::Peer, SOON).await
}

#[tokio::test]
async fn a_member_is_let_in_under_its_certified_name() {
    let dir = tempfile::tempdir().unwrap();
    make_pki(dir.path(), &["db1", "db2"]);
    let addr = listen(dir.path());
    let db2 = tls(dir.path(), "shop", "db2");
    for channel in ALL {
        let mut link = dial(&db2, &"db1".into(), addr, channel, SOON).await.unwrap();
        assert_eq!(link.peer(), &NodeId::from("db1"));
        let answer = ask(&mut link, Bytes::from_static(b"hello")).await.unwrap().unwrap();
        assert_eq!(answer, "db2: 5");
    }
    let oneself = try_dial(&db2, "db2", addr).await.unwrap_err();
    assert!(matches!(oneself, DialError::Myself { .. }), "{oneself}");
}

#[tokio::test]
async fn wrong_names_and_foreign_authorities_are_refused() {
    let (dir, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_pki(dir.path(), &["db1", "db2", "stranger"]);
    make_pki(foreign.path(), &["db2"]);
    let addr = listen(dir.path());
    // The listener is not who the dialer wants.
    let wrong = try_dial(&tls(dir.path(), "shop", "db2"), "mon", addr).await.unwrap_err();
    assert!(matches!(wrong, DialError::Handshake { .. }), "{wrong}");
    // The same authority, but no member.
    let stranger = try_dial(&tls(dir.path(), "shop", "stranger"), "db1", addr).await.unwrap_err();
    assert!(
        matches!(&stranger, DialError::Refused { reason, .. } if reason.contains("not a member")),
        "{stranger}"
    );
    // Another cluster under the same authority.
    let other = try_dial(&tls(dir.path(), "other", "db2"), "db1", addr).await.unwrap_err();
    assert!(matches!(&other, DialError::Refused { reason, .. } if reason.contains("cluster")), "{other}");
    // The dialer does not trust the listener.
    let distrust = try_dial(&tls(foreign.path(), "shop", "db2"), "db1", addr).await.unwrap_err();
    assert!(matches!(distrust, DialError::Handshake { .. }), "{distrust}");
    // The listener does not trust the dialer: our authority's file, another authority's certificate.
    let file = |name: &str| foreign.path().join(name);
    let forged =
        Tls::load(&dir.path().join("ca.pem"), &file("db2.pem"), &file("db2.key"), "shop", "db2".into())
            .unwrap();
    let forged = try_dial(&forged, "db1", addr).await.unwrap_err();
    assert!(matches!(forged, DialError::Handshake { .. }), "{forged}");
    // A certificate of another node is noticed before any link.
    let file = |name: &str| dir.path().join(name);
    let mixed =
        Tls::load(&file("ca.pem"), &file("db2.pem"), &file("db2.key"), "shop", "db1".into()).unwrap_err();
    assert!(matches!(mixed, TlsError::Name { .. }), "{mixed}");
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_link() {
    let dir = tempfile::tempdir().unwrap();
    make_pki(dir.path(), &["db1", "db2"]);
    let addr = listen(dir.path());
    let db2 = tls(dir.path(), "shop", "db2");
    for (channel, max) in [(Channel::Lease, 64 << 10), (Channel::Peer, 16 << 20)] {
        let mut link = dial(&db2, &"db1".into(), addr, channel, SOON).await.unwrap();
        let answer = ask(&mut link, Bytes::from(vec![0; max])).await.unwrap().unwrap();
        assert_eq!(answer, format!("db2: {max}"));
        let refused = ask(&mut link, Bytes::from(vec![0; max + 1])).await.unwrap_err();
        assert!(matches!(refused, LinkError::Oversize { .. }), "the sender notices: {refused}");
    }
    // A sender that does not care: its channel allows more than the one that it named.
    let raw = raw_lease_frame(dir.path(), addr, (64 << 10) + 1).await;
    assert!(raw.is_empty(), "the receiver ends the link without an answer");
}

/// Sends one frame of that size on a lease link by hand, and returns what comes back until the link ends.
async fn raw_lease_frame(dir: &Path, addr: SocketAddr, size: usize) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(dir.join("db2.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(dir.join("db2.key")).unwrap(),
        )
        .unwrap();
    let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect("db1".try_into().unwrap(), tcp).await.unwrap();
    let preamble = br#"{"cluster":"shop","to":"db1","channel":"lease"}"#;
    stream.write_u32(u32::try_from(preamble.len()).unwrap()).await.unwrap();
    stream.write_all(preamble).await.unwrap();
    let answer = stream.read_u32().await.unwrap();
    let mut verdict = vec![0; answer as usize];
    stream.read_exact(&mut verdict).await.unwrap();
    assert_eq!(verdict, b"\"accepted\"");
    stream.write_u32(u32::try_from(size).unwrap()).await.unwrap();
    // The link may break while we write.
    let _ = stream.write_all(&vec![0; size]).await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the link ends");
    rest
}

#[tokio::test]
async fn a_silent_connection_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    make_pki(dir.path(), &["db1", "db2"]);
    let addr = listen(dir.path());
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(addr).await.unwrap());
    }
    let started = Instant::now();
    try_dial(&tls(dir.path(), "shop", "db2"), "db1", addr).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(1500), "it did not wait for their deadline");
}

#[tokio::test]
async fn a_peer_has_a_bounded_number_of_links() {
    let dir = tempfile::tempdir().unwrap();
    make_pki(dir.path(), &["db1", "db2", "mon"]);
    let addr = listen(dir.path());
    let db2 = tls(dir.path(), "shop", "db2");
    let mut links = Vec::new();
    for _ in 0..LINKS_PER_PEER_MAX {
        links.push(try_dial(&db2, "db1", addr).await.unwrap());
    }
    let refused = try_dial(&db2, "db1", addr).await.unwrap_err();
    assert!(matches!(refused, DialError::Refused { .. }), "{refused}");
    try_dial(&tls(dir.path(), "shop", "mon"), "db1", addr).await.expect("others have their own");
    links.clear();
    let until = Instant::now() + SOON;
    while try_dial(&db2, "db1", addr).await.is_err() {
        assert!(Instant::now() < until, "closed links give their places back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn nobody_there_is_noticed_within_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    make_pki(dir.path(), &["db2"]);
    // Takes connections into its backlog and never answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let late = dial(
        &tls(dir.path(), "shop", "db2"),
        &"db1".into(),
        deaf.local_addr().unwrap(),
        Channel::Raft,
        Duration::from_millis(300),
    )
    .await
    .unwrap_err();
    assert!(matches!(late, DialError::TimedOut { .. }), "{late}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn certificates_are_private_bounded_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    make_pki(dir.path(), &["db1"]);
    for key in ["ca.key", "db1.key"] {
        let mode = std::fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let before = std::fs::read(dir.path().join("ca.key")).unwrap();
    assert!(matches!(pki::init(dir.path()), Err(PkiError::Exists { .. })));
    assert!(matches!(pki::issue(dir.path(), &"db1".into()), Err(PkiError::Exists { .. })));
    assert_eq!(std::fs::read(dir.path().join("ca.key")).unwrap(), before);
    let days = |file: &str| pki::days_left(&std::fs::read(dir.path().join(file)).unwrap()).unwrap();
    assert!((3650..=3653).contains(&days("ca.pem")), "{}", days("ca.pem"));
    assert!((729..=731).contains(&days("db1.pem")), "{}", days("db1.pem"));
    pki::issue_for(dir.path(), &"db2".into(), 10).unwrap();
    assert!((9..=10).contains(&days("db2.pem")), "{}", days("db2.pem"));
    for name in ["", "../db1", "10.0.0.1", "ca", "a b"] {
        assert!(matches!(pki::issue(dir.path(), &name.into()), Err(PkiError::Name { .. })), "{name:?}");
    }
    assert!(pki::days_left(b"nonsense").is_err());
}

#[test]
fn what_was_read_counts_and_not_what_the_files_hold_by_now() {
    let dir = tempfile::tempdir().unwrap();
    make_pki(dir.path(), &[]);
    let file = |name: &str| dir.path().join(name);
    pki::issue_for(dir.path(), &"db1".into(), 10).unwrap();
    let short = tls(dir.path(), "shop", "db1");
    std::fs::remove_file(file("db1.pem")).unwrap();
    std::fs::remove_file(file("db1.key")).unwrap();
    pki::issue(dir.path(), &"db1".into()).unwrap();
    let left = short.days_left().unwrap();
    assert!((9..=10).contains(&left.own) && (3650..=3653).contains(&left.authority), "{left:?}");
    let renewed = tls(dir.path(), "shop", "db1").days_left().unwrap();
    assert!((729..=731).contains(&renewed.own), "{renewed:?}");
}
