//! The hands on Redis against real servers.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use baton_node::hands::redis::{Clients, EmptySource, Redis, RedisError, Remote};
use baton_runbooks::observe::ProbeFailure;
use support::database::D;
use support::eventually;
use support::redis::{RedisServer, is_installed};

#[tokio::test]
async fn boots_closed_is_promoted_and_closed_again() {
    if !is_installed() {
        return;
    }
    let server = RedisServer::start().await;
    let hands = server.hands();
    let facts = hands.probe(D).await.unwrap();
    assert!(!facts.primary && !facts.link_up);
    assert_eq!(facts.follows.as_deref(), Some("127.0.0.1:1"));
    assert_eq!(facts.min_replicas_to_write, 99);
    assert!(facts.server.starts_with(&format!("{}@", server.process().pid())));
    server.client(&["SET", "a", "1"]).await.unwrap_err();

    let facts = hands.promote(None, D).await.unwrap();
    assert!(facts.primary && facts.min_replicas_to_write == 0);
    hands.promote(None, D).await.unwrap();
    server.client(&["SET", "a", "1"]).await.unwrap();
    assert_eq!(hands.probe(D).await.unwrap().keys, 1);

    for clients in [Clients::Keep, Clients::Kill] {
        hands.close(clients, D).await.unwrap();
        let refused = server.client(&["SET", "a", "2"]).await.unwrap_err();
        assert_eq!(refused.code(), Some("NOREPLICAS"), "{refused}");
    }
    hands.reopen(D).await.unwrap();
    hands.pause_writes(Duration::from_secs(60), D).await.unwrap();
    let paused = tokio::time::timeout(Duration::from_millis(200), server.client(&["SET", "a", "3"])).await;
    assert!(!matches!(paused, Ok(Ok(_))), "{paused:?}");
    hands.reopen(D).await.unwrap();
    server.client(&["SET", "a", "4"]).await.unwrap();
}

#[tokio::test]
async fn follows_and_never_an_empty_source() {
    if !is_installed() {
        return;
    }
    let mut old = RedisServer::start().await;
    let new = RedisServer::start().await;
    let (on_old, on_new) = (old.hands(), new.hands());
    let source = on_old.promote(None, D).await.unwrap();
    for i in 0..100 {
        old.client(&["SET", &format!("k{i}"), "v"]).await.unwrap();
    }
    on_new.follow("127.0.0.1", old.port, &source, EmptySource::Refuse, D).await.unwrap();
    let facts = eventually("the replica has everything", || async {
        let (mine, theirs) = (on_new.facts(D).await.ok()?, on_old.facts(D).await.ok()?);
        (mine.link_up && mine.keys == 100 && mine.offset == theirs.offset).then_some(mine)
    })
    .await;
    assert_eq!(facts.follows, Some(format!("127.0.0.1:{}", old.port)));
    assert_eq!(facts.min_replicas_to_write, 99);

    // The primary dies, comes back empty, and is somehow made a primary: nobody may follow it.
    old.kill();
    on_new.promote(None, D).await.unwrap();
    old.restart().await;
    let empty = on_old.promote(None, D).await.unwrap();
    let refused = on_new.follow("127.0.0.1", old.port, &empty, EmptySource::Refuse, D).await.unwrap_err();
    assert!(refused.to_string().contains("100 keys"), "{refused}");
    let facts = on_new.facts(D).await.unwrap();
    assert!(facts.primary && facts.keys == 100);
    // The right way round works.
    on_old.follow("127.0.0.1", new.port, &facts, EmptySource::Refuse, D).await.unwrap();
    eventually("the old one has everything", || async {
        (on_old.facts(D).await.ok()?.keys == 100).then_some(())
    })
    .await;
}

#[tokio::test]
async fn offsets_are_compared_over_the_network() {
    if !is_installed() {
        return;
    }
    let old = RedisServer::start().await;
    let mut new = RedisServer::start().await;
    let remote = |port| {
        let access = old.access();
        Remote::new(([127, 0, 0, 1], port).into(), access.user, access.password)
    };
    let mut to_new = remote(new.port);
    let source = old.hands().promote(None, D).await.unwrap();
    new.hands().follow("127.0.0.1", old.port, &source, EmptySource::Refuse, D).await.unwrap();
    // A primary that never had a replica counts nothing.
    eventually("the replica to be attached", || async {
        new.hands().facts(D).await.ok()?.link_up.then_some(())
    })
    .await;
    old.client(&["SET", "a", "1"]).await.unwrap();
    let written = old.hands().stream(D).await.unwrap().unwrap();
    assert!(written.is_primary && written.offset > 0);
    eventually("the replica has it", || {
        let (mut remote, written) = (remote(new.port), written.clone());
        async move {
            let has = remote.stream(D).await.unwrap().unwrap();
            assert!(!has.is_primary);
            (has.history == written.history && has.offset >= written.offset).then_some(())
        }
    })
    .await;
    to_new.stream(D).await.unwrap();

    new.process().freeze();
    let late = to_new.stream(Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(late, RedisError::Timeout { after_ms: 100, .. }), "{late:?}");
    new.process().thaw();
    to_new.stream(D).await.expect("after an error it dials anew");
    new.restart().await;
    to_new.stream(D).await.unwrap_err();
    // It starts with the stream that it had, as the replica of nobody.
    to_new.stream(D).await.unwrap();

    // Who was promoted writes another stream, although the offset goes on.
    let promoted = new.hands().promote(None, D).await.unwrap();
    let of_new = new.hands().stream(D).await.unwrap().unwrap();
    assert!(promoted.primary && of_new.is_primary && of_new.history != written.history, "{of_new:?}");
}

#[tokio::test]
async fn failures_are_told_apart() {
    if !is_installed() {
        return;
    }
    let mut server = RedisServer::start().await;
    let hands = server.hands();
    hands.probe(D).await.unwrap();
    for password in ["wrong", ""] {
        let mut access = server.access();
        access.password = password.into();
        let failure = Redis::new(access).probe(D).await.unwrap_err();
        assert!(matches!(failure, ProbeFailure::WrongCredentials { .. }), "{failure:?}");
    }
    server.client(&["CONFIG", "SET", "maxclients", "1"]).await.unwrap();
    assert_eq!(server.hands().probe(D).await.unwrap_err(), ProbeFailure::TooManyConnections);
    hands.probe(D).await.unwrap();

    server.process().freeze();
    for _ in 0..3 {
        let failure = hands.probe(Duration::from_millis(200)).await.unwrap_err();
        assert_eq!(failure, ProbeFailure::Timeout { after_ms: 200 });
    }
    server.process().thaw();
    server.kill();
    assert_eq!(hands.probe(D).await.unwrap_err(), ProbeFailure::Refused);
}
