//! The core's side of leading: what is decided, and the proposals that follow from it.

use std::collections::BTreeMap;
use std::mem::discriminant;

use super::proposals::Purpose;
use super::{Agent, Output};
use crate::decide::{Action, Decision, Facts, decide};
use crate::ledger::command::Command;
use crate::model::{Mono, WallMs};
use crate::plan::Step;
use crate::run::{Entry, Event};
use crate::why::Why;

impl Agent {
    /// decide, and the proposals that follow from it.
    pub(super) fn lead(&mut self, now: Mono, wall: WallMs, out: &mut Vec<Output>) {
        if self.is_led_as_before() {
            return;
        }
        let decision = decide(&self.facts(now));
        let term = Some(self.office.term);
        let suspects_since = self.suspicions.weigh(&decision, self.ledger.holder.as_ref(), now, wall);
        match &decision.action {
            Action::Hold => {}
            Action::StartRun { plan } => {
                if self.may_propose(&Purpose::StartRun) {
                    let ends = Some(self.ledger.epoch);
                    let mut plan = plan.clone();
                    plan.detected_ms_ago = suspects_since.map(|since| now.since_ms(since));
                    plan.holder_heard_ms =
                        plan.from.as_ref().map_or_else(BTreeMap::new, |from| self.sight(from, now).last_ms);
                    let command = Command::StartRun { plan, at: wall };
                    self.propose(Purpose::StartRun, command, term, ends, out);
                }
            }
            Action::AbandonRun { reason } => {
                if let Some(run) = self.ledger.run.as_ref().filter(|_| self.may_propose(&Purpose::AbandonRun))
                {
                    // The holder of a switchover keeps its epoch: nothing ends.
                    let ends = (!run.is_before_passing()).then_some(run.plan.epoch);
                    let (run, epoch, reason) = (run.id, run.plan.epoch, reason.clone());
                    let command = Command::AbandonRun { run, epoch, reason, at: wall };
                    self.propose(Purpose::AbandonRun, command, term, ends, out);
                }
            }
            Action::Skip { step, reason } => self.skip(*step, reason.clone(), wall, out),
            Action::ExpirePause { pause } => self.expire_pause(*pause, wall, out),
        }
        self.forget_old_word(now, wall, out);
        if self.decision.as_ref().is_none_or(|old| differs(old, &decision)) {
            out.push(Output::Decided { decision: decision.clone() });
        }
        self.decision = Some(decision);
    }

    /// Somebody else leads, and this node has said so: most of the time, on two nodes of three.
    fn is_led_as_before(&self) -> bool {
        let said = self.decision.as_ref().map(|decision| decision.why.as_slice());
        let same = matches!(said, Some([Why::NotLeader { leader }]) if *leader == self.office.leader);
        same && !self.office.is_leader && !self.suspicions.is_open() && self.word.is_none()
    }

    fn facts(&self, now: Mono) -> Facts<'_> {
        Facts {
            now,
            me: &self.setup.me,
            ledger: &self.ledger,
            office: &self.office,
            takeover_at: self.lease.takeover_at,
            released_at: self.lease.released_at,
            granted_at: self.lease.granted_at,
            pause_over: self.lease.pause_over,
            reports: &self.reports,
            canaries: &self.canaries,
            following: &self.following,
            ready_since: self.steps.ready_since(),
            failures: &self.failures,
            settling: self.detector.settling(now),
            policy: &self.setup.policy,
        }
    }

    fn skip(&mut self, step: Step, reason: String, wall: WallMs, out: &mut Vec<Output>) {
        let Some(run) = self.ledger.run.as_ref().filter(|_| self.may_propose(&Purpose::Skip(step))) else {
            return;
        };
        let by = self.setup.me.clone();
        let entry = Entry { step, attempt: 1, event: Event::Skipped { reason }, by, at: wall };
        let command = Command::Journal { run: run.id, epoch: run.plan.epoch, entries: vec![entry] };
        self.propose(Purpose::Skip(step), command, None, None, out);
    }
}

/// Two decisions differ for a reader when the action or the codes differ, of which each variant has one of its own; figures in the evidence move all the time.
fn differs(old: &Decision, new: &Decision) -> bool {
    discriminant(&old.action) != discriminant(&new.action)
        || old.why.len() != new.why.len()
        || old.why.iter().zip(&new.why).any(|(a, b)| discriminant(a) != discriminant(b))
}
