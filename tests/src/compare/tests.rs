//! Which fault means something to whom, and how runs are counted in.

use super::*;
use crate::run::Outcome;

const BOTH: &[Kind] = &Kind::ALL;

fn report(fault: &str, mysql: u64, redis: u64) -> Report {
    Report {
        fault: fault.into(),
        system: "pacemaker".into(),
        outage_ms: [(Kind::Mysql, mysql), (Kind::Redis, redis)].into(),
        lost_acknowledged: [(Kind::Mysql, 2), (Kind::Redis, 3)].into(),
        two_holders_ms: 10,
        ..Report::blank(Outcome::Fail)
    }
}

#[test]
fn a_fault_of_mysql_means_nothing_to_a_system_that_looks_after_redis_only() {
    let agents = Driver::Agents { profile: "standard".into() };
    let keepalived = Driver::Keepalived { advert_ms: 1000 };
    for fault in FAULTS {
        for driver in [&agents, &keepalived, &Driver::Pacemaker] {
            assert!(applies(driver, fault), "{} {}", system(driver), fault.name());
        }
    }
    let left_out = FAULTS.into_iter().filter(|fault| !applies(&Driver::Sentinel, *fault));
    assert_eq!(left_out.collect::<Vec<_>>(), [Fault::MysqldKill, Fault::MysqldFreeze]);
}

#[test]
fn runs_of_a_pair_are_counted_together() {
    let mut all = Comparison::default();
    all.add(&report("power-loss", 100, 10), BOTH);
    all.add(&Report { served: false, ..report("power-loss", 300, 30) }, BOTH);
    all.add(&report("link-down", 7, 7), BOTH);
    let cell = &all.systems["pacemaker"]["power-loss"];
    assert_eq!(cell.outage_ms, [(Kind::Mysql, vec![100, 300]), (Kind::Redis, vec![10, 30])].into());
    assert_eq!(cell.lost_acknowledged, [(Kind::Mysql, 4), (Kind::Redis, 6)].into());
    assert_eq!((cell.two_holders_ms.clone(), cell.not_served_again), (vec![10, 10], 1));
    assert_eq!(all.runs, 2);
}

#[test]
fn what_nobody_can_vouch_for_is_counted_and_not_measured() {
    let mut all = Comparison::default();
    let doubted = Report { doubts: vec!["the fault did not bite".into()], ..report("power-loss", 1, 1) };
    all.add(&doubted, BOTH);
    let mut mute = report("power-loss", 1, 1);
    mute.outage_ms.remove(&Kind::Redis);
    all.add(&mute, BOTH);
    let cell = &all.systems["pacemaker"]["power-loss"];
    assert_eq!((cell.not_measured, cell.two_holders_ms.len(), cell.outage_ms.len()), (2, 0, 0));
    assert_eq!(all.runs, 0);
}

#[test]
fn unread_contents_are_not_no_losses() {
    let mut all = Comparison::default();
    let mut unread = report("power-loss", 1, 1);
    unread.lost_acknowledged.remove(&Kind::Mysql);
    all.add(&unread, BOTH);
    let cell = &all.systems["pacemaker"]["power-loss"];
    assert_eq!(cell.lost_acknowledged, [(Kind::Redis, 3)].into());
    assert_eq!(cell.unread, [(Kind::Mysql, 1)].into());
}

#[test]
fn data_that_is_not_looked_after_has_no_figures() {
    let mut all = Comparison::default();
    let mut redis_only = report("power-loss", 1, 20);
    redis_only.outage_ms.remove(&Kind::Mysql);
    redis_only.lost_acknowledged.remove(&Kind::Mysql);
    all.add(&redis_only, &[Kind::Redis]);
    let cell = &all.systems["pacemaker"]["power-loss"];
    assert_eq!(cell.outage_ms, [(Kind::Redis, vec![20])].into());
    assert!(cell.unread.is_empty());
    all.leave_out("redis-sentinel", "mysqld-kill");
    all.leave_out("redis-sentinel", "mysqld-kill");
    let written = serde_json::to_value(&all).unwrap();
    assert_eq!(written["unit"], "ms");
    assert_eq!(written["systems"]["pacemaker"]["power-loss"]["outage_ms"]["redis"][0], 20);
    assert!(written["systems"]["pacemaker"]["power-loss"]["outage_ms"]["mysql"].is_null());
    assert_eq!(written["not_applicable"]["redis-sentinel"], serde_json::json!(["mysqld-kill"]));
    assert_eq!(serde_json::from_value::<Comparison>(written).unwrap(), all);
}
