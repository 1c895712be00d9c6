//! What each step does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use baton_netops::{Cut, Probe};
use baton_runbooks::agent::Input;
use baton_runbooks::lease::holder::Door;
use baton_runbooks::model::NodeKind;
use baton_runbooks::observe::{Observation, ProbeFailure, RedisFacts};
use baton_runbooks::plan::Step;
use baton_runbooks::run::Run;
use tokio::time::sleep;

use super::super::reconcile::redis::is_empty_beside_data;
use super::handover::reached;
use super::{Executor, Facts};
use crate::api::alarm::VIP_ANSWERED;
use crate::chain::chain;
use crate::hands::hooks::{self, Hook};
use crate::hands::mysql::Mysql;
use crate::hands::mysql::semisync::Switch;
use crate::hands::redis::Redis;
use crate::hands::server::{ServerId, boot_id};

/// Deadline of one statement on the path: they take milliseconds, and the step has a limit of its own.
pub(super) const STATEMENT: Duration = Duration::from_secs(2);
/// ARP probes of the VIP before it is taken, and the wait for answers to each. The old holder is fenced already; this
/// looks for a third party, and an answer on the segment takes well under a millisecond.
const VIP_PROBES: u32 = 2;
const VIP_PROBE_GAP: Duration = Duration::from_millis(40);
/// Without progress for this long a drain has failed (design, section 7).
pub(super) const DRAIN_STILL_MAX: Duration = Duration::from_secs(3);
/// Time for a lease to be granted. A renewal goes out at once, and the leader has applied the epoch.
const LEASE_DEADLINE: Duration = Duration::from_millis(900);
/// How soon the pivot is tried again within an attempt.
const OPEN_AGAIN: Duration = Duration::from_millis(50);

/// Under this key the cut notes the boot of the host in which it was made.
const BOOT: &str = "boot";

pub(super) fn fact(key: &str, value: impl ToString) -> (String, String) {
    (key.to_owned(), value.to_string())
}

impl Executor {
    pub(super) fn mysql(&self) -> anyhow::Result<&Mysql> {
        self.context.hands.mysql.as_ref().ok_or_else(|| anyhow!("no MySQL is configured on this node"))
    }

    /// Address and port of the other data node's MySQL.
    pub(super) fn peer_mysql(&self) -> anyhow::Result<(IpAddr, u16)> {
        let config = &self.context.config;
        let peer = config.nodes.iter().find(|node| node.kind == NodeKind::Data && node.name != config.node);
        let mysql = config.mysql.as_ref();
        peer.zip(mysql)
            .map(|(peer, mysql)| (peer.address, mysql.port))
            .ok_or_else(|| anyhow!("no other data node"))
    }

    /// The lease of the old epoch has ended by the leader's evidence; the power fence, if there is one, makes sure.
    pub(super) async fn fence_old(&self) -> anyhow::Result<Facts> {
        let Some(hook) = &self.context.config.fence_hook else {
            return Ok(vec![fact("fence", "lease ended")]);
        };
        let run = self.current_run()?;
        let committed = self.context.consensus.committed();
        let from = committed.borrow().ledger.to_fence(&run.plan).map(ToString::to_string).unwrap_or_default();
        let environment = BTreeMap::from([
            ("BATON_EPOCH".to_owned(), self.epoch.to_string()),
            ("BATON_RUN".to_owned(), self.run.to_string()),
            ("BATON_FROM".to_owned(), from),
            ("BATON_TO".to_owned(), run.plan.to.to_string()),
        ]);
        let hook = Hook { program: hook.program.clone(), args: hook.args.clone() };
        let ended = hooks::run(&hook, &environment, self.limit.mul_f64(0.9)).await;
        ensure!(ended.is_success(), "the fence hook failed, {:?}: {}", ended.end, ended.output);
        Ok(vec![fact("fence", "hook done"), fact("hook_output", ended.output)])
    }

    /// Cuts first, captures then: what was received cannot grow any more (design, section 6).
    pub(super) async fn cut_stream(&self) -> anyhow::Result<Facts> {
        let mysql = self.mysql()?;
        let (peer, port) = self.peer_mysql()?;
        self.context.hands.cut_stream(peer, port).await.context("cut the replication stream")?;
        let facts = mysql.facts(STATEMENT).await?;
        // Only this instance was seen to have every acknowledged write: a restart may have thrown some away.
        if let Some(vouched) = &self.current_run()?.plan.basis.target_instance {
            let now = &facts.instance;
            ensure!(now == vouched, "this server is {now}, the ledger vouches for {vouched}");
        }
        if facts.replication.is_none() {
            return Ok(vec![fact("received", &facts.position), fact("backlog", 0), fact("stream", "none")]);
        }
        let captured = mysql.capture_received(STATEMENT).await?;
        Ok(vec![
            fact("received", &captured.received),
            fact("applied", &captured.applied),
            fact("backlog", captured.backlog),
            fact(BOOT, facts.instance.boot),
        ])
    }

    /// Looks whether somebody answers for the VIP, opens its door under the new lease, announces it.
    pub(super) async fn hold_vip(&self) -> anyhow::Result<Facts> {
        let held = self.context.lease.view().borrow().vip_open;
        if !held {
            self.probe_vips().await?;
        }
        self.check_current()?;
        self.context.lease.renew(Some(self.epoch), self.wish).await?;
        let deadline = self.limit.mul_f64(0.9);
        self.context.lease.open(Door::Vip, self.wish, None, deadline).await?;
        self.context.hands.announce();
        Ok(vec![fact("vip", self.vip_names())])
    }

    async fn probe_vips(&self) -> anyhow::Result<()> {
        let probes = self.context.hands.vips().iter().map(|(ip, interface)| async move {
            let probe =
                self.context.hands.network.probe_address(*ip, interface, VIP_PROBES, VIP_PROBE_GAP).await?;
            match probe {
                Probe::Free => Ok(()),
                Probe::TakenBy(macs) => {
                    let macs: Vec<String> = macs.iter().map(ToString::to_string).collect();
                    bail!("{VIP_ANSWERED} {ip}: {}; nobody may, the old holder is fenced", macs.join(" and "))
                }
            }
        });
        futures_util::future::try_join_all(probes).await.map(|_| ())
    }

    fn vip_names(&self) -> String {
        let names: Vec<String> = self.context.hands.vips().iter().map(|(ip, _)| ip.to_string()).collect();
        names.join(" ")
    }

    pub(super) async fn undo_vip(&self) -> anyhow::Result<()> {
        self.context.hands.stop_announcing();
        self.context.lease.close(&[Door::Vip, Door::Ports], self.wish).await.context("close the VIP")
    }

    /// What a promotion must have applied, by the journal.
    fn received(&self) -> anyhow::Result<String> {
        let run = self.current_run()?;
        let received =
            run.fact(Step::CutStream, "received").or_else(|| run.fact(Step::CloseHolder, "position"));
        received.map(ToOwned::to_owned).ok_or_else(|| anyhow!("the journal does not say what was received"))
    }

    pub(super) async fn drain(&self) -> anyhow::Result<Facts> {
        let mysql = self.mysql()?;
        let run = self.current_run()?;
        if run.fact(Step::CutStream, "stream") == Some("none") {
            return Ok(vec![fact("drained", "nothing to drain")]);
        }
        let received = self.received()?;
        let mut looks = 0_u64;
        reached(mysql.drain(&received, DRAIN_STILL_MAX, |_| looks += 1).await?)?;
        self.still_cut(&run)?;
        Ok(vec![fact("drained", received), fact("looks", looks)])
    }

    /// Without the cut more may have been received than was captured, and acknowledged with it. A boot of the host takes it
    /// away too, and an attempt that was begun again may have made another one since.
    fn still_cut(&self, run: &Run) -> anyhow::Result<()> {
        let boot = boot_id().context("read the host's boot id")?;
        let made_in = run.fact(Step::CutStream, BOOT);
        ensure!(
            made_in.is_none_or(|made_in| made_in == boot),
            "the host was booted since the stream was cut"
        );
        let (peer, port) = self.peer_mysql()?;
        // The kernel's word, on a socket of its own: it changes nothing.
        let is_cut = Cut::open()?.is_cut(peer, port).context("read the cut back")?;
        ensure!(is_cut, "the cut of the replication stream is gone: what was captured may not be all");
        Ok(())
    }

    pub(super) async fn promote(&self) -> anyhow::Result<Facts> {
        let run = self.current_run()?;
        if run.fact(Step::CutStream, "stream") != Some("none") {
            self.still_cut(&run)?;
        }
        self.make_writable().await?;
        Ok(vec![fact("mysql", "writable behind closed ports")])
    }

    /// Opens MySQL for writing: noted on disk first, so that an agent that dies here recognises its own work.
    pub(super) async fn make_writable(&self) -> anyhow::Result<()> {
        let mysql = self.mysql()?;
        let received = self.received()?;
        {
            // Whoever closes this server for an older wish is done with it first.
            let _alone = self.context.sync.exclusive().await;
            if mysql.is_promoted(STATEMENT).await? {
                return Ok(());
            }
        }
        let server = mysql.server_identity().await?.to_string();
        self.context.local.note_opening(&server).await.context("note which server is opened")?;
        self.inputs.send(Input::Opening { server }).await.context("the driver has ended")?;
        let seen = mysql.standing(STATEMENT).await?;
        if seen.replication.is_some() {
            self.check_current()?;
            let is_new = self.cut_again().await?;
            if is_new || seen.backlog != Some(0) {
                self.apply_the_rest(mysql).await?;
            }
        }
        let _alone = self.context.sync.exclusive().await;
        self.check_current()?;
        if seen.replication.is_some() {
            mysql.promote(&received, STATEMENT).await?;
        } else {
            mysql.open_writes(Switch::Off, STATEMENT).await?;
        }
        Ok(())
    }

    /// A server that was started again after it had been promoted is promoted once more, maybe on a host that was booted too:
    /// whatever it is sent from now on must not be acknowledged by it.
    /// True if it was cut only now.
    async fn cut_again(&self) -> anyhow::Result<bool> {
        let (peer, port) = self.peer_mysql()?;
        let is_cut = Cut::open()?.is_cut(peer, port).context("read the cut back")?;
        if !is_cut {
            self.context.hands.cut_stream(peer, port).await.context("cut the replication stream")?;
        }
        Ok(!is_cut)
    }

    /// What the kernel still had for the receiver when the stream was cut is received after that, and acknowledged to nobody.
    /// It is applied like the rest: a promotion throws nothing away.
    async fn apply_the_rest(&self, mysql: &Mysql) -> anyhow::Result<()> {
        let rest = mysql.capture_received(STATEMENT).await?;
        reached(mysql.drain(&rest.received, DRAIN_STILL_MAX, |_| {}).await?)
    }

    /// Read-only again. A server that is gone boots closed, so it needs no operator; one that hangs may be writable when it
    /// answers again, and does.
    pub(super) async fn undo_promotion(&self) -> anyhow::Result<()> {
        let mysql = self.mysql()?;
        match mysql.undo_promotion(STATEMENT).await {
            Ok(()) => Ok(()),
            Err(error) => match mysql.is_read_only(STATEMENT).await {
                Err(now) if now.as_probe_failure() == ProbeFailure::Refused => {
                    tracing::warn!(error = chain(&error), "the server is gone: nothing is left to undo");
                    Ok(())
                }
                Ok(_) | Err(_) => Err(error.into()),
            },
        }
    }

    /// The pivot, tried again for as long as the attempt may last: a database or a Redis that is being started again has
    /// until then, and a takeover that stops here needs an operator.
    pub(super) async fn open_ports(&self) -> anyhow::Result<Facts> {
        let until = Instant::now() + self.limit.mul_f64(0.9);
        loop {
            match self.open_all().await {
                Err(error) if Instant::now() < until && self.check_current().is_ok() => {
                    tracing::debug!("not open yet: {error:#}");
                    sleep(OPEN_AGAIN).await;
                }
                end => return end,
            }
        }
    }

    /// Redis, then the ports, under a lease that is valid now.
    async fn open_all(&self) -> anyhow::Result<Facts> {
        let context = &self.context;
        let mut server = None;
        if let Some(mysql) = &context.hands.mysql {
            self.make_writable().await?;
            server = Some(mysql.server_identity().await?);
        }
        self.check_current()?;
        let mut facts = Facts::new();
        if let Some(redis) = &context.hands.redis {
            let seen = redis.facts(LEASE_DEADLINE).await?;
            if seen.loading && server.is_some() {
                // Nothing for which MySQL's clients have to wait: the reconciler makes it the primary.
                facts.push(fact("redis", "loads its data: made the primary as soon as it has"));
            } else if !seen.primary && is_empty_beside_data(context, &seen) {
                // The other one may still follow this server. It has the data: the core gives the baton back for that.
                facts.push(fact("redis", "empty here and not there: not made the primary"));
            } else {
                let promoted = self.promote_redis(redis, &seen).await?;
                facts.push(fact("redis_offset", promoted.offset));
            }
            if server.is_none() {
                server = Some(redis.server_identity().await?);
            }
        }
        // After a takeover the old lease is over. After a switchover the old holder says that it is closed, within
        // milliseconds; if it cannot, its lease has to end first.
        let deadline = LEASE_DEADLINE.max(self.limit.mul_f64(0.45));
        context.lease.renew(Some(self.epoch), self.wish).await?;
        // Announced as soon as it answers: until then clients' packets go to the old holder's hardware, which drops them.
        let vip = async {
            context.lease.open(Door::Vip, self.wish, None, deadline).await?;
            context.hands.announce();
            Ok(())
        };
        tokio::try_join!(vip, context.lease.open(Door::Ports, self.wish, server, deadline))?;
        Ok(facts)
    }

    /// The process that was looked at, and no other. That it was closed is known to the core, and to the agent that starts next,
    /// before it is opened: seen for the first time afterwards, it would count as one that boots open.
    async fn promote_redis(&self, redis: &Redis, seen: &RedisFacts) -> anyhow::Result<RedisFacts> {
        let only = seen.server.parse::<ServerId>().context("the process of Redis")?;
        let local = &self.context.local;
        local.judge_redis(seen);
        local.note_redis_boot().await.context("note how Redis was found")?;
        let observation = Observation::Redis { facts: seen.clone() };
        self.inputs.send(Input::Observed { observation }).await.context("the driver has ended")?;
        self.check_current()?;
        Ok(redis.promote(Some(only), LEASE_DEADLINE).await?)
    }

    /// Starts the holder's services of one kind, in dependency order, and waits until they are healthy.
    pub(super) async fn start_services(&self, needs_database: bool) -> anyhow::Result<Facts> {
        let Some(services) = &self.context.hands.services else { return Ok(Facts::new()) };
        let started = services.start_holder(needs_database, self.limit).await?;
        Ok(vec![fact("healthy", started.join(" "))])
    }
}
