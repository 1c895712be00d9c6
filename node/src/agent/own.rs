//! What this node tells the others of itself beside its obstacles: what is to be mended here and nobody else sees.
//!
//! Each is a code with its evidence after a colon, a few words: it goes with every report. What is in the ledger everybody knows, and
//! what keeps this node from holding the baton is in the obstacles. Nothing is looked at for it that is not known already.

use baton_runbooks::agent::Agent;
use baton_runbooks::decide::local::Wish;
use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{Mono, NodeId};
use baton_runbooks::why::Why;

use super::{Context, clock};
use crate::api::alarm::AlarmCode;
use crate::api::ending;

/// A holder that is closed for longer without a run or a pause does not open by itself in a moment, milliseconds.
const CLOSED_MAX_MS: u64 = 5_000;

/// Since when this node, the holder, is closed although nothing is under way that explains it.
#[derive(Debug, Default)]
pub(super) struct Closed(Option<Mono>);

impl Closed {
    /// For how many milliseconds, once that is worth a word. To be asked with each report.
    fn look(&mut self, is_closed: bool, now: Mono) -> Option<u64> {
        self.0 = is_closed.then(|| self.0.unwrap_or(now));
        self.0.map(|since| now.since_ms(since)).filter(|ms| *ms > CLOSED_MAX_MS)
    }
}

/// Whether this node's ports are ordered open; `None` where no lease opens any.
pub(super) fn open(context: &Context) -> Option<bool> {
    let config = &context.config;
    // The task that makes a database what it is to be opens them.
    let opens = config.is_data_node() && (config.mysql.is_some() || config.redis.is_some());
    let view = context.lease.view();
    let is_open = view.borrow().ports_open;
    opens.then_some(is_open)
}

/// Everything of this node, for its report. `open`: see [`open`].
pub(super) fn alarms(
    core: &Agent,
    context: &Context,
    closed: &mut Closed,
    open: Option<bool>,
) -> Vec<String> {
    let mut told = Vec::new();
    {
        let standing = context.consensus.standing();
        let standing = standing.borrow();
        // The other two are obstacles.
        let problem = standing.problem.as_ref().filter(|_| !standing.outranked && !standing.newer_log);
        told.extend(problem.map(|problem| format!("{}: {problem}", AlarmCode::NotVoting.as_str())));
    }
    let is_closed = open == Some(false) && should_be_open(core.ledger(), &context.config.node);
    match closed.look(is_closed, context.clock.now()) {
        Some(ms) => told.push(closed_words(ms, core.wish())),
        None => told.extend(core.wish().into_iter().flat_map(only_here).map(ToString::to_string)),
    }
    if let Some(services) = &context.hands.services {
        let names: Vec<String> = services.restarting().into_iter().map(|one| one.container).collect();
        let code = AlarmCode::ContainerRestartsByItself.as_str();
        told.extend((!names.is_empty()).then(|| format!("{code}: {}", names.join(", "))));
    }
    // That of the authority is every node's, and each says so by itself.
    let own = context.tls.ends().and_then(|ends| ending::Ending::of(ends.own, clock::wall()));
    told.extend(own.map(|own| format!("{}: its certificate {own}", AlarmCode::CertificateEnds.as_str())));
    told
}

/// It holds the baton, and there is neither a run nor a pause.
fn should_be_open(ledger: &Ledger, me: &NodeId) -> bool {
    ledger.holder.as_ref() == Some(me) && ledger.run.is_none() && ledger.pause.is_none()
}

fn closed_words(ms: u64, wish: Option<&Wish>) -> String {
    let why = wish.into_iter().flat_map(|wish| &wish.why);
    let reasons: Vec<String> =
        why.filter(|why| !matches!(why, Why::Serving { .. })).map(ToString::to_string).collect();
    let why = if reasons.is_empty() {
        "it is to be open and could not be opened yet".to_owned()
    } else {
        reasons.join(", ")
    };
    format!("{}: for {} s, {why}", AlarmCode::HolderClosed.as_str(), ms / 1_000)
}

/// What keeps a node from what it should be.
pub(super) fn unusual(wish: &Wish) -> impl Iterator<Item = &Why> {
    wish.why.iter().filter(|why| !is_normal(why))
}

/// The same, but for what every node reads in the ledger.
fn only_here(wish: &Wish) -> impl Iterator<Item = &Why> {
    unusual(wish).filter(|why| !is_in_ledger(why))
}

/// The last one is told of every node, from its report.
const fn is_normal(why: &Why) -> bool {
    matches!(why, Why::Serving { .. } | Why::NotHolder | Why::NotOpenedYet { .. } | Why::RedisBootsOpen)
}

const fn is_in_ledger(why: &Why) -> bool {
    matches!(
        why,
        Why::HandingOver { .. }
            | Why::ReceivingBaton { .. }
            | Why::RunNeedsOperator { .. }
            | Why::Paused { .. }
    )
}

#[cfg(test)]
mod tests {
    use baton_runbooks::decide::local::Role;
    use baton_runbooks::model::{Epoch, RunId};

    use super::*;

    fn wish(why: Vec<Why>) -> Wish {
        Wish { role: Role::Closed { follow: None }, renew: None, release: None, why }
    }

    #[test]
    fn a_holder_that_stays_closed_is_told_after_some_seconds_and_until_it_opens() {
        let mut closed = Closed::default();
        let looks =
            [(true, 1_000), (true, 6_000), (true, 6_001), (true, 9_000), (false, 9_200), (true, 9_400)];
        let told = looks.map(|(is_closed, at)| closed.look(is_closed, Mono(at)));
        assert_eq!(told, [None, None, Some(5_001), Some(8_000), None, None]);
    }

    #[test]
    fn it_is_told_with_its_reason_or_that_there_is_none() {
        let closed =
            wish(vec![Why::MysqlDead, Why::OtherNotBetter { because: "db2 is not in sync".to_owned() }]);
        assert_eq!(
            closed_words(7_300, Some(&closed)),
            "holder-closed: for 7 s, mysql-dead, other-not-better: db2 is not in sync"
        );
        let boots_open = wish(vec![Why::RedisBootsOpen]);
        assert_eq!(closed_words(6_000, Some(&boots_open)), "holder-closed: for 6 s, redis-boots-open");
        // After a switchover that was taken back: the wish is to serve, and the server is not opened.
        let serves = wish(vec![Why::Serving { epoch: Epoch(2) }]);
        assert_eq!(
            closed_words(7_300, Some(&serves)),
            "holder-closed: for 7 s, it is to be open and could not be opened yet"
        );
    }

    #[test]
    fn neither_a_run_nor_a_pause_nor_another_holder_is_a_reason_to_complain() {
        let ledger = Ledger { holder: Some("db1".into()), ..Ledger::default() };
        assert!(should_be_open(&ledger, &"db1".into()));
        assert!(!should_be_open(&ledger, &"db2".into()));
        let run = Some(crate::api::sample::takeover());
        assert!(!should_be_open(&Ledger { run, ..ledger }, &"db1".into()));
    }

    #[test]
    fn what_everybody_reads_in_the_ledger_does_not_travel() {
        let run = RunId(3);
        let why = vec![Why::HandingOver { run }, Why::NotHolder, Why::LeaseLapsed { epoch: Epoch(2) }];
        let wish = wish(why);
        assert_eq!(only_here(&wish).collect::<Vec<_>>(), [&Why::LeaseLapsed { epoch: Epoch(2) }]);
        assert_eq!(unusual(&wish).count(), 2, "the node's own status has both");
    }
}
