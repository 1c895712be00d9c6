//! What is looked at before an operator lets one survivor go on alone.
//!
//! Only the survivor answers, and only it carries the order out. That the others are off is the operator's word; what can be seen
//! of them here must not contradict it.

use serde::{Deserialize, Serialize};

use super::switchover::{Check, View};
use crate::lease::granter::Office;
use crate::lease::on_any_clock_ms;
use crate::ledger::{Forced, Ledger, LossAccepted};
use crate::model::{Generation, NodeId, NodeKind, WallMs};

/// For so long nothing may have been heard of the others, in milliseconds. Many times the longest pause between reports.
pub const OFF_MS: u64 = 10_000;

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForceWanted {
    /// The nodes that are powered off or wiped: all others.
    pub others_are_off: Vec<NodeId>,
    /// Acknowledged writes that the survivor lacks may be lost.
    pub accept_loss: bool,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who.
    pub by: String,
}

/// Everything that was looked at, and what would be noted, if nothing stands in its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForcePreflight {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// What would be noted.
    pub forced: Option<Forced>,
}

/// What the survivor knows of itself.
#[derive(Debug)]
pub struct Survivor<'a> {
    /// This node.
    pub me: &'a NodeId,
    /// Its standing in Raft.
    pub office: &'a Office,
    /// Milliseconds since its agent started.
    pub up_ms: u64,
    /// The newest entry that it has applied.
    pub applied: u64,
    /// Wall clock, for people.
    pub wall: WallMs,
}

/// Looks at everything that has to be so before the survivor goes on alone.
#[must_use]
pub fn preflight(view: &View<'_>, survivor: &Survivor<'_>, wanted: &ForceWanted) -> ForcePreflight {
    let (ledger, me) = (view.ledger, survivor.me);
    let mut checks = Vec::new();
    let mut note = |code: &str, ok: bool, evidence: String| {
        checks.push(Check { code: code.to_owned(), ok, evidence });
    };
    match ledger.members.get(me) {
        Some(NodeKind::Data) => {
            note("data-node", true, format!("{me} goes on alone, generation {}", ledger.generation.next()))
        }
        Some(NodeKind::Witness) => {
            note("data-node", false, format!("{me} is the witness, it has no data; force a data node"))
        }
        None => note("data-node", false, format!("{me} knows of no cluster; install it anew instead")),
    }
    // Who led last stays known, so that says nothing; a leader elsewhere is one of those that must be silent.
    let office = survivor.office;
    let acked = office.quorum_acked_at.filter(|_| office.is_leader).map(|at| view.now.since_ms(at));
    match acked.filter(|ms| *ms < OFF_MS) {
        Some(ms) => note(
            "no-majority",
            false,
            format!("a majority answered {me} {ms} ms ago: nothing has to be forced"),
        ),
        None => note("no-majority", true, format!("no majority answers {me}")),
    }
    let others: Vec<&NodeId> = ledger.members.keys().filter(|node| *node != me).collect();
    let mut named: Vec<&NodeId> = wanted.others_are_off.iter().collect();
    named.sort();
    named.dedup();
    let list = |nodes: &[&NodeId]| nodes.iter().map(|node| node.as_str()).collect::<Vec<_>>().join(",");
    if named == others && !others.is_empty() {
        note("others-named", true, format!("you say that {} are powered off or wiped", list(&others)));
    } else {
        note("others-named", false, format!("name all others: --others-are-off {}", list(&others)));
    }
    for node in &others {
        let heard = view.reports.get(*node).map(|heard| view.now.since_ms(heard.at));
        let silent_ms = heard.unwrap_or(survivor.up_ms);
        let said = heard.map_or_else(
            || format!("{node} was never heard by this agent, which runs for {} s", survivor.up_ms / 1000),
            |ms| format!("{node} was heard last {}.{} s ago", ms / 1000, ms % 1000 / 100),
        );
        note("off", silent_ms >= OFF_MS, format!("{said}; {} s of silence are wanted", OFF_MS / 1000));
    }
    note(
        "reason",
        !wanted.reason.trim().is_empty(),
        if wanted.reason.trim().is_empty() { "say why".to_owned() } else { wanted.reason.clone() },
    );
    paused(ledger, me, &mut note);
    let loss = data(view, me, wanted, &mut note);
    let all_well = checks.iter().all(|check| check.ok);
    let forced = all_well.then(|| Forced {
        generation: ledger.generation.next(),
        founder: String::new(),
        survivor: me.clone(),
        gave_up: others.into_iter().cloned().collect(),
        last_index: survivor.applied,
        loss: loss.flatten(),
        by: wanted.by.clone(),
        reason: wanted.reason.clone(),
        at: survivor.wall,
    });
    ForcePreflight { checks, forced }
}

type Loss = Option<(crate::model::Instance, LossAccepted)>;

/// The holder of a pause serves without its agent and without a majority. So its silence says nothing, and it is waited for.
fn paused(ledger: &Ledger, me: &NodeId, note: &mut impl FnMut(&str, bool, String)) {
    let Some(pause) = &ledger.pause else { return };
    if ledger.goes_on_with(me) {
        note("pause", true, format!("pause {} ends with it", pause.id));
        return;
    }
    let holder = ledger.holder.as_ref().filter(|holder| *holder != me);
    let Some(holder) = holder.or(ledger.last_holder.as_ref()) else { return };
    let (id, lasts_s) = (pause.id, pause.order.for_ms / 1000);
    let waits_s = on_any_clock_ms(pause.order.for_ms).div_ceil(1000);
    let text = format!(
        "pause {id}: {holder} may serve without its agent until {lasts_s} s have passed since it took that up. {me} leads alone, \
         and takes over {waits_s} s after its election"
    );
    note("pause", true, text);
}

/// A survivor that holds the baton may be a stale one.
fn held(ledger: &Ledger, wanted: &ForceWanted, note: &mut impl FnMut(&str, bool, String)) -> Option<Loss> {
    let text = "it holds the baton as far as it knows; if the others have passed it on since, what was acknowledged there is \
                lost";
    let is_said = wanted.accept_loss || !ledger.mysql;
    let ask = if is_said { "" } else { ". Say --accept-data-loss if that is what you want" };
    note("data", is_said, format!("{text}{ask}"));
    is_said.then_some(None)
}

/// A survivor that does not hold the baton cannot prove that it has everything: the others may have decided that it has not.
fn data(
    view: &View<'_>,
    me: &NodeId,
    wanted: &ForceWanted,
    note: &mut impl FnMut(&str, bool, String),
) -> Option<Loss> {
    let ledger = view.ledger;
    if ledger.goes_on_with(me) {
        return held(ledger, wanted, note);
    }
    if !ledger.mysql {
        note("data", true, "no MySQL is configured".to_owned());
        return Some(None);
    }
    let begins = ledger.holder.as_ref() == Some(me);
    let known = match ledger.in_sync.get(me) {
        _ if begins => {
            "it has begun a takeover and serves nobody yet; it begins anew, and if the others have passed the baton on since, \
             what was acknowledged there is lost"
        }
        Some(_) => {
            "the ledger that it knows calls it complete; if the others have decided otherwise since, what was \
                    acknowledged after that is lost"
        }
        None => "it may lack acknowledged writes, and they are lost",
    };
    let mysql = view.reports.get(me).and_then(|heard| heard.report.mysql.as_ref());
    let Some(mysql) = mysql else {
        note("data", false, "its database does not answer".to_owned());
        return None;
    };
    let evidence = format!("position {}; {known}", mysql.position);
    if !wanted.accept_loss {
        note("data", false, format!("{evidence}. Say --accept-data-loss if that is what you want"));
        return None;
    }
    note("data", true, evidence);
    let loss = LossAccepted { by: wanted.by.clone(), at_most_ms: None };
    Some(Some((mysql.instance.clone(), loss)))
}

impl ForcePreflight {
    /// The generation that would be begun.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.forced.as_ref().map(|forced| forced.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Pause, PauseOrder};
    use crate::model::{Epoch, PauseId};

    fn lines(holder: &str, pause: bool, mysql: bool, accept_loss: bool) -> Vec<(String, bool, String)> {
        let order =
            PauseOrder { for_ms: 1_800_000, alone: false, reason: "switch".to_owned(), by: "ann".to_owned() };
        let pause = pause.then_some(Pause {
            id: PauseId(4),
            epoch: Epoch(1),
            order,
            at: WallMs(0),
            claimed_by: None,
            resumed_by: None,
        });
        let ledger = Ledger { holder: Some(holder.into()), pause, mysql, ..Ledger::default() };
        let wanted = ForceWanted {
            others_are_off: Vec::new(),
            accept_loss,
            reason: "fire".to_owned(),
            by: "ann".to_owned(),
        };
        let mut lines = Vec::new();
        let mut note = |code: &str, ok: bool, text: String| lines.push((code.to_owned(), ok, text));
        let me = NodeId::from("db2");
        paused(&ledger, &me, &mut note);
        if ledger.goes_on_with(&me) {
            held(&ledger, &wanted, &mut note);
        }
        lines
    }

    #[test]
    fn a_pause_of_another_holder_is_named() {
        let said = lines("db1", true, true, true);
        assert!(said[0].2.starts_with("pause 4: db1 may serve without its agent until 1800 s"), "{said:?}");
        assert!(said[0].2.contains("takes over 1990 s after"), "{said:?}");
        assert_eq!(lines("db1", false, true, true), []);
        assert_eq!(lines("db2", true, false, false)[0].2, "pause 4 ends with it");
    }

    #[test]
    fn a_holder_too_may_lack_what_was_acknowledged_elsewhere() {
        let said = lines("db2", false, true, false);
        assert!(!said[0].1 && said[0].2.contains("--accept-data-loss"), "{said:?}");
        assert!(lines("db2", false, true, true)[0].1);
        assert!(lines("db2", false, false, false)[0].1, "without MySQL there is nothing to accept");
    }
}
