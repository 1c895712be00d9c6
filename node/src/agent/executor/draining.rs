//! The holder's last step before it closes: what its clients have begun ends, and the target has what came of it.
//!
//! ```text
//!  services stop ─ events off ─┬─▶ clients' transactions end, or their patience does ─▶ the target applies what is there now ─┬─▶ close
//!                              └────────────── it took long, or others have begun: clients have written meanwhile ◀──────────┘
//! ```
//!
//! Clients are served all the while. What is still to be applied when the ports close is applied while nobody is served. That the
//! target applies quickly enough was seen by itself, in `prepare_target`: with the start of this step the reconciler stops services, too.

use std::time::Duration;

use anyhow::{Context as _, bail};
use baton_runbooks::model::{NodeId, NodeKind};
use baton_runbooks::observe::Flavour;
use tokio::time::{Instant, sleep};

use super::super::local_state::Events;
use super::act::{STATEMENT, fact};
use super::handover::LOOK;
use super::near::{Near, SAY_WHY};
use super::{Executor, Facts};
use crate::config::RunsOn;
use crate::hands::mysql::Mysql;
use crate::hands::mysql::gtid::{self, BadSet};
use crate::hands::mysql::semisync::Switch;

impl Executor {
    /// The holder's services end while their database is still there; transactions under way have their time. Then the target
    /// must have applied what was written: a statement that ran for long here runs as long there, and begins when it is
    /// committed here.
    pub(super) async fn drain_holder(&self) -> anyhow::Result<Facts> {
        let give_up = Instant::now() + self.limit.saturating_sub(SAY_WHY);
        let mut facts = Facts::new();
        if let Some(services) = &self.context.hands.services {
            services.stop(RunsOn::Holder).await.context("stop the holder's services")?;
        }
        let Some(mysql) = &self.context.hands.mysql else { return Ok(facts) };
        facts.push(fact("events", self.stop_events(mysql).await?));
        let patience = Duration::from_millis(self.current_run()?.plan.drain_patience_ms);
        let until = Instant::now() + patience;
        let near = Near::of(&self.context.config.timing);
        let clients = |until| self.clients_ended(mysql, until);
        let applied = || self.target_has_applied(mysql, give_up);
        let (left, took) = drained(until, give_up, near, clients, applied).await?;
        facts.push(fact("transactions_left", left));
        facts.push(fact("applied_after_ms", took.as_millis()));
        Ok(facts)
    }

    /// Waits for clients' transactions until `until`; how many are left.
    async fn clients_ended(&self, mysql: &Mysql, until: Instant) -> anyhow::Result<u64> {
        let mut left = mysql.long_transactions(STATEMENT).await?;
        while left > 0 && Instant::now() < until {
            self.check_going_on()?;
            sleep(LOOK).await;
            left = mysql.long_transactions(STATEMENT).await?;
        }
        Ok(left)
    }

    /// Waits until the target says that it has applied what is written here now; how long that took.
    async fn target_has_applied(&self, mysql: &Mysql, give_up: Instant) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let here = mysql.standing(STATEMENT).await?;
        let target = self.target()?;
        let report_max = self.context.config.timing.lease.duration();
        applied(give_up, || {
            self.check_going_on()?;
            let report = self.context.hands.peer_lately(target, report_max);
            let theirs = report.and_then(|report| report.mysql);
            let theirs = theirs.as_ref().map(|facts| (facts.position.as_str(), facts.apply_backlog));
            let lacking = lacks(here.flavour, &here.position, theirs)?;
            Ok(lacking.map(|what| behind(target, &what, self.context.hands.services.is_some())))
        })
        .await?;
        Ok(began.elapsed())
    }

    /// The other data node: a switchover has no other target.
    fn target(&self) -> anyhow::Result<&NodeId> {
        let config = &self.context.config;
        let other = config.nodes.iter().find(|node| node.kind == NodeKind::Data && node.name != config.node);
        other.map(|node| &node.name).context("no other data node")
    }

    /// Stops the event scheduler if it runs and the agent may; says what became of it. Noted on disk before: the reconciler
    /// starts it again, whatever becomes of the run and of this agent.
    async fn stop_events(&self, mysql: &Mysql) -> anyhow::Result<&'static str> {
        if !mysql.events_run(STATEMENT).await? {
            return Ok("off");
        }
        self.context.local.note_events(Events::Stopped).await.context("note that events are stopped")?;
        match mysql.event_scheduler(Switch::Off, STATEMENT).await {
            Ok(()) => Ok("stopped"),
            Err(error) => {
                tracing::warn!(error = crate::chain::chain(&error), "the event scheduler is not stopped");
                Ok("not stopped: the agent lacks the privilege")
            }
        }
    }
}

/// What clients have begun ends (`clients`: until then, how many are left), and the target has applied what came of it (`applied`: how
/// long that took). How many transactions are left, and how long the target took.
///
/// A target that was slow once, after one long statement, has another round: closed now, it would have as much again to apply
/// while nobody is served. One that is slow each time is closed on when clients' patience is over, or when there is no time left
/// for another round before `give_up`.
async fn drained<C, A>(
    until: Instant,
    give_up: Instant,
    near: Near,
    mut clients: impl FnMut(Instant) -> C,
    mut applied: impl FnMut() -> A,
) -> anyhow::Result<(u64, Duration)>
where
    C: Future<Output = anyhow::Result<u64>>,
    A: Future<Output = anyhow::Result<Duration>>,
{
    let mut was_slow = false;
    loop {
        clients(until).await?;
        let took = applied().await?;
        let now = Instant::now();
        let brings_nothing = now >= until && (was_slow || now + took >= give_up);
        was_slow = !near.is_enough(took, false);
        if !near.is_enough(took, brings_nothing) {
            continue;
        }
        // Others may have begun meanwhile, and have the same patience.
        let left = clients(Instant::now()).await?;
        if left == 0 || Instant::now() >= until {
            return Ok((left, took));
        }
    }
}

/// What an operator is told of a target that is not waited for any longer.
fn behind(target: &NodeId, what: &str, has_services: bool) -> String {
    let again = if has_services { "; services start again" } else { "" };
    format!("{target} is too far behind: {what}. The ports were not closed{again}")
}

/// Looks until nothing is lacking; at `give_up`, an error with what is.
async fn applied(
    give_up: Instant,
    mut look: impl FnMut() -> anyhow::Result<Option<String>>,
) -> anyhow::Result<()> {
    while let Some(lacking) = look()? {
        if Instant::now() >= give_up {
            bail!("{lacking}");
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// What a target lacks of `position`, which tells its own position and what it has received and not applied; `None`: nothing.
fn lacks(
    flavour: Flavour,
    position: &str,
    theirs: Option<(&str, Option<u64>)>,
) -> Result<Option<String>, BadSet> {
    let Some((applied, backlog)) = theirs else {
        return Ok(Some("it does not say what it has applied".to_owned()));
    };
    if gtid::contains(flavour, applied, position)? {
        return Ok(None);
    }
    let left = gtid::backlog(flavour, position, applied)?;
    let received = backlog.map_or_else(String::new, |backlog| format!("; {backlog} are received"));
    Ok(Some(format!("it has {left} transactions yet to apply{received}")))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;
    use crate::config::Profile;

    const HOUR: Duration = Duration::from_secs(3600);

    /// The end of a patience that is over.
    fn over() -> Instant {
        Instant::now() - Duration::from_millis(1)
    }

    /// What comes of a drain whose target takes so many milliseconds, round by round; `left` are transactions of clients after each
    /// round. And how many rounds there were.
    async fn drain(until: Instant, took: &[u64], left: &[u64]) -> (u64, u128, usize) {
        drain_before(Instant::now() + HOUR, until, took, left).await
    }

    async fn drain_before(
        give_up: Instant,
        until: Instant,
        took: &[u64],
        left: &[u64],
    ) -> (u64, u128, usize) {
        let rounds = Cell::new(0_usize);
        let clients = |given: Instant| {
            // Waited for before a round; only counted after it.
            ready(Ok(if given == until { 0 } else { left[rounds.get() - 1] }))
        };
        let applied = || {
            rounds.set(rounds.get() + 1);
            ready(Ok(Duration::from_millis(took[rounds.get() - 1])))
        };
        let near = Near::of(&Profile::Standard.timing());
        let (left, took) = drained(until, give_up, near, clients, applied).await.unwrap();
        (left, took.as_millis(), rounds.get())
    }

    #[tokio::test]
    async fn whoever_began_while_the_target_applied_has_the_same_patience() {
        let patient = Instant::now() + HOUR;
        assert_eq!(drain(patient, &[300, 300, 300], &[2, 1, 0]).await, (0, 300, 3));
        // Theirs is over: they are counted, and not waited for.
        assert_eq!(drain(over(), &[300], &[2]).await, (2, 300, 1));
    }

    #[tokio::test]
    async fn a_steady_lag_is_waited_for_as_long_as_clients_are_and_then_closed_on() {
        assert_eq!(drain(Instant::now() + HOUR, &[2_500, 2_500, 700], &[0, 0, 0]).await, (0, 700, 3));
        assert_eq!(drain(over(), &[2_500, 2_500], &[0, 0]).await, (0, 2_500, 2));
        assert_eq!(drain(over(), &[9_000, 100], &[0, 0]).await, (0, 100, 2), "it would be late");
    }

    #[tokio::test]
    async fn one_long_statement_has_another_round_if_there_is_time() {
        assert_eq!(drain(over(), &[2_500, 300], &[0, 0]).await, (0, 300, 2));
        let soon = Instant::now() + Duration::from_millis(2_000);
        assert_eq!(drain_before(soon, over(), &[2_500, 300], &[0, 0]).await, (0, 2_500, 1));
    }

    #[test]
    fn of_services_that_were_stopped_it_is_said_that_they_start_again() {
        let what = "it has 2 transactions yet to apply";
        let told = "db2 is too far behind: it has 2 transactions yet to apply. The ports were not closed";
        assert_eq!(behind(&NodeId::from("db2"), what, false), told);
        assert_eq!(behind(&NodeId::from("db2"), what, true), format!("{told}; services start again"));
    }

    #[test]
    fn a_target_lacks_what_it_has_not_applied_and_all_while_it_says_nothing() {
        let of = |theirs| lacks(Flavour::Mariadb, "0-1-9", theirs).unwrap();
        assert_eq!(of(Some(("0-1-9", Some(0)))), None);
        assert_eq!(of(Some(("0-1-12", Some(3)))), None, "what came later is another matter");
        let behind = "it has 2 transactions yet to apply; 1 are received";
        assert_eq!(of(Some(("0-1-7", Some(1)))).as_deref(), Some(behind));
        assert_eq!(of(Some(("0-1-7", None))).as_deref(), Some("it has 2 transactions yet to apply"));
        assert!(of(None).is_some());
        assert!(lacks(Flavour::Mariadb, "0-1-9", Some(("nonsense", None))).is_err());
    }

    #[tokio::test]
    async fn a_target_is_waited_for_until_it_has_all_and_no_longer_than_the_step_may_last() {
        let mut looks = 0;
        let later = Instant::now() + HOUR;
        let end = applied(later, || {
            looks += 1;
            Ok((looks < 3).then(|| "it has 1 transactions yet to apply".to_owned()))
        });
        end.await.unwrap();
        assert_eq!(looks, 3);
        let end = applied(Instant::now(), || Ok(Some("it has 5 transactions yet to apply".to_owned()))).await;
        assert_eq!(end.unwrap_err().to_string(), "it has 5 transactions yet to apply");
        let end = applied(later, || bail!("given up: an operator")).await;
        assert_eq!(end.unwrap_err().to_string(), "given up: an operator");
    }
}
