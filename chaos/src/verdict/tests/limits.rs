//! Figures that a drill's file limits, on trial.

use super::Case;
use crate::evidence::{Bucket, Ending, Gap, Record};
use crate::experiment::{Limits, Span};
use crate::verdict::{LATE_MAX_US, Verdict};

/// Limits the sustained recovery of MySQL.
fn limit_recovery(record: &mut Record, seconds: u32) {
    record.experiment.slo.sustained_recovery = Limits { mysql: Some(Span::from_secs(seconds)), redis: None };
}

/// Nothing was measured of MySQL's sustained recovery, which has a limit. Its load lasts a minute longer.
fn unmeasured(record: &mut Record, seconds: u32) {
    limit_recovery(record, seconds);
    let mysql = &mut record.clients[0];
    mysql.sustained_ms = None;
    mysql.buckets.resize(660, Bucket { acknowledged: 10, failed: 0, slowest_ms: 3 });
}

/// From its fault on every other write of MySQL fails, until its load ends.
fn never_steady(record: &mut Record, seconds: u32) {
    unmeasured(record, seconds);
    let mysql = &mut record.clients[0];
    mysql.buckets.truncate(60);
    mysql.buckets[10..].fill(Bucket { acknowledged: 5, failed: 5, slowest_ms: 3 });
}

/// MySQL is quiet from then until its load ends.
fn quiet_until_the_end(record: &mut Record, from_ms: u64) {
    let mysql = &mut record.clients[0];
    let to_ms = mysql.buckets.len() as u64 * 100;
    mysql.gaps.push(Gap { from_ms, to_ms });
}

/// The passed drill has limits of 20 s for both gaps. Its load lasts 6 s, and its fault is injected after one of them.
pub(super) const LIMITS: &[Case] = &[
    (
        "connect gap",
        |r| r.clients[0].reconnecting.as_mut().unwrap().connect_gap_ms = 20_001,
        Verdict::Fail,
        "mysql: a connect gap of 20001 ms, at most 20s",
    ),
    (
        "connect gap at its bound",
        |r| r.clients[0].reconnecting.as_mut().unwrap().connect_gap_ms = 20_000,
        Verdict::Pass,
        "",
    ),
    (
        "read gap of redis",
        |r| r.clients[1].reconnecting.as_mut().unwrap().read_gap_ms = 20_001,
        Verdict::Fail,
        "redis: a read gap of 20001 ms, at most 20s",
    ),
    (
        "a gap of a database that has no limit for it",
        |r| {
            r.experiment.slo.read_gap.redis = None;
            r.clients[1].reconnecting.as_mut().unwrap().read_gap_ms = 20_001;
        },
        Verdict::Pass,
        "",
    ),
    (
        "sustained recovery",
        |r| {
            limit_recovery(r, 5);
            r.clients[0].sustained_ms = Some(5_001);
        },
        Verdict::Fail,
        "mysql: a sustained recovery of 5001 ms, at most 5s",
    ),
    (
        "sustained recovery at its bound",
        |r| {
            limit_recovery(r, 5);
            r.clients[0].sustained_ms = Some(5_000);
        },
        Verdict::Pass,
        "",
    ),
    (
        "never steady again",
        |r| never_steady(r, 4),
        Verdict::Fail,
        "mysql: a sustained recovery of more than 4000 ms, at most 4s",
    ),
    (
        "not steady in a time that proves nothing",
        |r| never_steady(r, 5),
        Verdict::Inconclusive,
        "mysql: a sustained recovery could not be measured",
    ),
    (
        "steady for a minute, and quiet at the very end",
        |r| {
            unmeasured(r, 4);
            quiet_until_the_end(r, 65_500);
        },
        Verdict::Inconclusive,
        "mysql: a sustained recovery could not be measured",
    ),
    (
        "steady for a minute, and away at the end",
        |r| {
            unmeasured(r, 4);
            quiet_until_the_end(r, 60_000);
        },
        Verdict::Inconclusive,
        "mysql: a sustained recovery could not be measured",
    ),
    (
        "steady for a while that is shorter than five seconds, and quiet at the very end",
        |r| {
            unmeasured(r, 4);
            r.clients[0].buckets.truncate(60);
            quiet_until_the_end(r, 5_500);
        },
        Verdict::Inconclusive,
        "mysql: a sustained recovery could not be measured",
    ),
    (
        "back for a while that is shorter than five seconds, and away at the end",
        |r| {
            unmeasured(r, 4);
            r.clients[0].buckets.truncate(60);
            quiet_until_the_end(r, 4_500);
        },
        Verdict::Fail,
        "mysql: a sustained recovery of more than 4000 ms, at most 4s",
    ),
    (
        "steady only after the limit, and quiet at the very end",
        |r| {
            unmeasured(r, 4);
            r.clients[0].buckets[10..100].fill(Bucket { acknowledged: 0, failed: 10, slowest_ms: 0 });
            r.clients[0].gaps = vec![Gap { from_ms: 994, to_ms: 10_003 }];
            quiet_until_the_end(r, 65_500);
        },
        Verdict::Fail,
        "mysql: a sustained recovery of more than 9000 ms, at most 4s",
    ),
    (
        "nobody visited",
        |r| r.clients[0].reconnecting = None,
        Verdict::Inconclusive,
        "mysql: a connect gap could not be measured",
    ),
    (
        "redis has a limit for a gap only, and was not measured",
        |r| {
            r.experiment.slo.outage.redis = None;
            r.clients.truncate(1);
        },
        Verdict::Inconclusive,
        "redis was not measured",
    ),
    (
        "a late clock hides a gap",
        |r| {
            r.clients[0].reconnecting.as_mut().unwrap().read_gap_ms = 99_000;
            r.harness.lateness.p99_us = LATE_MAX_US + 1;
        },
        Verdict::Inconclusive,
        "timers were 200 ms late",
    ),
    (
        "aborted when a gap was too long",
        |r| {
            r.ending = Ending::Aborted { by: "ANNA".into(), why: "a call".into() };
            r.clients[0].reconnecting.as_mut().unwrap().connect_gap_ms = 45_000;
        },
        Verdict::Fail,
        "mysql: a connect gap of 45000 ms",
    ),
];
