//! A stream counts only whole; who may have one is decided by the ledger and the lease.

use std::path::Path;

use baton_consensus::pki;

use super::fetch::{Fetch, FetchError, Progress};
use super::*;

fn tls(dir: &Path, node: &str) -> Tls {
    let path = |name: String| dir.join(name);
    Tls::load(
        &path("ca.pem".into()),
        &path(format!("{node}.pem")),
        &path(format!("{node}.key")),
        "shop",
        node.into(),
    )
    .unwrap()
}

/// What db1 does with the link of a copy, after it was asked.
enum Does {
    Refuse,
    /// Sends data, and closes without an end.
    BreakOff,
    /// Sends data, and says that its program failed.
    Fail,
}

/// db2 fetches from a db1 that does this.
async fn fetched(does: Does) -> FetchError {
    // With two providers in the process rustls would refuse to choose.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    pki::init(dir.path()).unwrap();
    for node in ["db1", "db2"] {
        pki::issue(dir.path(), &NodeId::from(node)).unwrap();
    }
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let members = ["db1", "db2"].map(NodeId::from);
    let mut listener = Listener::bind(any, tls(dir.path(), "db1"), members, &[Channel::Copy]).unwrap();
    let address = listener.local_addr();
    tokio::spawn(async move {
        let (_, _, mut link) = listener.accept().await;
        let asked = link.recv().await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Wanted>(&asked).unwrap(), Wanted { epoch: Epoch(7) });
        let verdict = match does {
            Does::Refuse => Verdict::Refused { reason: "no lease".to_owned() },
            Does::BreakOff | Does::Fail => Verdict::Coming,
        };
        link.send(serde_json::to_vec(&verdict).unwrap().into()).await.unwrap();
        link.send(vec![DATA; 1000].into()).await.unwrap();
        if matches!(does, Does::Fail) {
            let mut end = vec![END];
            end.extend(serde_json::to_vec(&Ended { failure: Some("disk".to_owned()) }).unwrap());
            link.send(end.into()).await.unwrap();
        }
        // What is on the way arrives before the end of the link.
        let _ = tokio::time::timeout(Duration::from_secs(5), link.recv()).await;
    });
    let into = dir.path().join("into");
    std::fs::create_dir(&into).unwrap();
    let (from, epoch) = ("db1".into(), Epoch(7));
    let fetch =
        Fetch { tls: tls(dir.path(), "db2"), from, address, epoch, into, progress: Progress::default() };
    fetch.run().await.unwrap_err()
}

#[tokio::test]
async fn a_refusal_comes_with_its_reason() {
    let error = fetched(Does::Refuse).await;
    assert!(matches!(&error, FetchError::Refused { reason, .. } if reason == "no lease"), "{error}");
}

#[tokio::test]
async fn a_stream_that_fails_or_breaks_off_is_no_copy() {
    let error = fetched(Does::Fail).await;
    assert!(matches!(&error, FetchError::Giver { failure, .. } if failure == "disk"), "{error}");
    let error = fetched(Does::BreakOff).await;
    // Zeros are no stream of a backup: whichever of the two sees it first.
    assert!(matches!(&error, FetchError::Link { .. } | FetchError::Unpack { .. }), "{error}");
}
