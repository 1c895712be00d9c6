//! The lab on trial: servers come up, the client measures, the judge finds what is wrong, faults bite.
//!
//! Nothing of the product takes part: nodes are opened by hand or by keepalived. These tests guard the guard. They need
//! root, and run one after the other, since two labs on one machine disturb each other's timing.

use std::time::Duration;

use anyhow::Result;
use baton_chaos::arp::Watch;
use baton_chaos::check::{Bounds, Verdict, check};
use baton_chaos::history::{History, Kind, Origin};
use baton_chaos::load::Load;
use baton_tests::fault::{Fault, Scene};
use baton_tests::lab::{
    DATA, Driver, Lab, Options, Port, database, docker, process, redis, shell, turn, wait,
};
use baton_tests::run::{self, Outcome, Plan};

const LIMIT: Duration = Duration::from_secs(30);

fn by_hand(docker: bool, small_disk: bool) -> Result<Lab> {
    let lab = Lab::up(Options { docker, small_disk, ..Options::plain(Driver::Nobody) })?;
    lab.serve_by_hand(Port::Db1, true)?;
    lab.replicate_by_hand(Port::Db2)?;
    Ok(lab)
}

/// Client and observer at work until `done` has returned and some more writes were acknowledged.
fn observed(lab: &Lab, done: impl FnOnce() -> Result<()>) -> Result<(History, Bounds)> {
    let origin = Origin::new();
    let watch = Watch::start(lab.watch(origin))?;
    let load = Load::start(lab.load(origin))?;
    let more = |count: u64| {
        let before = Kind::ALL.map(|kind| load.acknowledged(kind));
        wait::until_true("more acknowledgements", LIMIT, || {
            Ok(Kind::ALL
                .into_iter()
                .zip(before)
                .all(|(kind, before)| load.acknowledged(kind) >= before + count))
        })
    };
    more(50)?;
    let fault_us = origin.now_us();
    done()?;
    more(50)?;
    let end_us = origin.now_us();
    let mut history = load.stop()?;
    history.absorb(watch.stop()?);
    Ok((history, Bounds { fault_us, end_us, holder_changes: 0 }))
}

fn safe(verdict: &Verdict) -> bool {
    Kind::ALL.into_iter().all(|kind| verdict.is_safe(kind))
}

#[test]
fn servers_come_up_replicate_and_pass_the_check() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = by_hand(true, false)?;
    let (history, bounds) = observed(&lab, || Ok(()))?;

    let verdict = check(&history, &lab.contents(Port::Db1), bounds);
    assert!(safe(&verdict), "{:?}", verdict.kinds);
    assert_eq!((verdict.two_holders_ms, verdict.reigns.len()), (0, 1), "{:?}", verdict.reigns);
    assert_eq!(verdict.kinds[&Kind::Mysql].servers.keys().collect::<Vec<_>>(), ["11"]);
    assert_eq!(verdict.kinds[&Kind::Redis].servers.keys().collect::<Vec<_>>(), ["10.77.0.11"]);

    let status = |name: &str| {
        let rows = database::query(&lab.host(Port::Db1).mysql(), &format!("SHOW STATUS LIKE '{name}'"))?;
        Ok::<_, anyhow::Error>(rows[0]["Value"].clone())
    };
    assert_eq!(status("Rpl_semi_sync_master_status")?, "ON");
    assert_eq!(status("Rpl_semi_sync_master_clients")?, "1");
    wait::until_true("the replica to hold the same", LIMIT, || {
        Ok(lab.contents(Port::Db2) == lab.contents(Port::Db1))
    })?;

    for port in DATA {
        let dir = &lab.host(port).dir;
        assert_eq!(docker::state(dir)?, "created");
        docker::ask(dir, &["start", docker::CONTAINER])?;
        wait::until_true("the service to be healthy", LIMIT, || {
            let health = ["inspect", "-f", "{{.State.Health.Status}}", docker::CONTAINER];
            Ok(docker::ask(dir, &health)?.trim() == "healthy")
        })?;
    }
    let (id, dir) = (lab.id.clone(), lab.dir.clone());
    drop(lab);
    assert!(!dir.exists(), "the directory stays");
    let names = shell::run("ip", &["netns", "list"])?;
    assert!(!names.contains(&format!("bl{id}")), "a namespace stays: {names}");
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    assert!(!mounts.contains(&dir.display().to_string()), "a mount stays");
    Ok(())
}

#[test]
fn servers_boot_closed() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = Lab::up(Options::plain(Driver::Nobody))?;
    for port in DATA {
        let host = lab.host(port);
        assert_eq!(database::value(&host.mysql(), "SELECT @@global.read_only")?, "1");
        let replica = redis::replication(&host.redis(), "role")?;
        assert_eq!(replica, "slave");
        assert!(redis::ask::<String>(&host.redis(), &["SET", "key", "value"]).is_err());
    }
    let rows = database::query(&lab.host(Port::Db2).mysql(), "SHOW SLAVE STATUS")?;
    assert_eq!((rows[0]["Master_Host"].as_str(), rows[0]["Slave_IO_Running"].as_str()), ("10.77.0.11", "No"));
    Ok(())
}

#[test]
fn a_split_brain_is_found() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = by_hand(false, false)?;
    let (history, bounds) = observed(&lab, || {
        // The other node is opened and takes the address, as a manager does that does not know better.
        lab.serve_by_hand(Port::Db2, true)?;
        let netns = lab.wire.netns(Port::Client);
        let other = lab.wire.hardware_address(Port::Db2)?;
        let moved = ["-n", &netns, "neigh", "replace", "10.77.0.100", "lladdr", &other, "dev", "eth0"];
        shell::run("ip", &moved)?;
        Ok(())
    })?;
    let verdict = check(&history, &lab.contents(Port::Db1), bounds);
    assert!(verdict.two_holders_ms >= 100, "{:?}", verdict.reigns);
    for kind in Kind::ALL {
        let judged = &verdict.kinds[&kind];
        assert_eq!(judged.servers.len(), 2, "{:?}", judged.servers);
        assert!(!judged.lost.is_empty() && !judged.interleaved.is_empty(), "{judged:?}");
    }
    Ok(())
}

#[test]
fn keepalived_takes_over_after_a_power_loss_and_is_measured() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let driver = Driver::Keepalived { advert_ms: 100 };
    let report = run::run(&Plan { docker: false, ..Plan::usual(driver, Fault::PowerLoss) })?;
    println!("{}", report.text());
    assert_eq!(report.result, Outcome::Pass, "{:?}", report.reasons);
    assert_eq!(report.holder_changes, 1);
    for kind in Kind::ALL {
        // Three missed adverts are 0.3 s at least.
        assert!((250..10_000).contains(&report.outage_ms[&kind]), "{kind}: {} ms", report.outage_ms[&kind]);
    }
    Ok(())
}

#[test]
fn faults_of_links_bite_and_heal() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = by_hand(false, false)?;
    let scene = Scene::new(&lab, Port::Db1);
    let linked = || {
        let ping = |port: Port| {
            let netns = lab.wire.netns(Port::Db1);
            let args = ["ping", "-q", "-c", "1", "-W", "1", &port.address().to_string()];
            shell::finish(shell::inside(&netns, "busybox").args(args)).is_ok()
        };
        (ping(Port::Db2), ping(Port::Mon), ping(Port::Client))
    };
    wait::until_true("all links", LIMIT, || Ok(linked() == (true, true, true)))?;
    for (fault, expected) in [
        (Fault::LinkDown, (false, false, false)),
        (Fault::PartitionPrimary, (false, false, true)),
        (Fault::PartitionPair, (false, true, true)),
        (Fault::OneWayIn, (false, false, true)),
        (Fault::OneWayOut, (false, false, true)),
        (Fault::PrimaryWitnessCut, (true, false, true)),
    ] {
        fault.inject(scene)?;
        assert_eq!(linked(), expected, "{}", fault.name());
        fault.verify(scene)?;
        fault.heal(scene)?;
        wait::until_true("all links again", LIMIT, || Ok(linked() == (true, true, true)))?;
    }
    Ok(())
}

#[test]
fn faults_of_processes_and_disks_bite_and_heal() -> Result<()> {
    let _turn = turn::alone().expect("a place for a lab");
    let lab = by_hand(false, true)?;
    let scene = Scene::new(&lab, Port::Db1);
    let writes =
        || database::query(&lab.host(Port::Db1).mysql(), "INSERT INTO app.writes (id, server) VALUES (1, 1)");
    for fault in [Fault::MysqldFreeze, Fault::HostFreeze, Fault::DiskFull] {
        writes()?;
        fault.inject(scene)?;
        fault.verify(scene)?;
        // A little fits into pages that the binary log has already.
        wait::until_true("writes to fail", LIMIT, || Ok(writes().is_err()))?;
        fault.heal(scene)?;
        // A server that found its disk full looks again once a minute.
        wait::until_true("writes again", Duration::from_secs(120), || Ok(writes().is_ok()))?;
    }
    for fault in [Fault::VipRemoved, Fault::RedisKill, Fault::MysqldKill, Fault::PowerLoss, Fault::BackupLoss]
    {
        fault.inject(scene)?;
        fault.verify(scene)?;
    }
    lab.power_on(Port::Db2)?;
    assert!(!process::in_netns(&lab.wire.path(Port::Db2)).is_empty());
    assert_eq!(database::value(&lab.host(Port::Db2).mysql(), "SELECT @@global.read_only")?, "1");
    Ok(())
}
