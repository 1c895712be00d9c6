//! What each action of the in-sync model does, the design's way and each weakened way.

use super::{
    Action, Complete, EPOCHS, GENERATIONS, InSync, Keeper, Proposal, Run, STARTS, State, Variant, WRITES, at,
};

/// The oldest transaction that `there` has and `here` lacks.
fn oldest(there: u8, here: u8) -> Option<u8> {
    let missing = there & !here;
    (missing != 0).then(|| 1 << missing.trailing_zeros())
}

impl State {
    fn has_replica_in_sync(&self) -> bool {
        self.complete.iter().any(|c| matches!(c, Complete::Replica(_)))
    }

    fn is_open_for(&self, node: u8) -> bool {
        self.holder == Some(node) && self.run.is_none()
    }

    fn proposal(&self, node: u8, start: u8) -> Proposal {
        Proposal { epoch: self.epoch, generation: self.generation, start, node }
    }
}

impl InSync {
    pub(super) fn databases(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Write(n) if s.database[at(n)].writable && s.written < WRITES => {
                let bit = 1 << s.written;
                s.written += 1;
                let database = &mut s.database[at(n)];
                database.log |= bit;
                database.applied |= bit;
                if !database.semi {
                    s.acknowledged |= bit;
                }
            }
            Action::Receive(n) if s.database[at(n)].attached && !s.database[at(n)].cut => {
                let bit = oldest(s.database[at(1 - n)].log, s.database[at(n)].log)?;
                s.database[at(n)].log |= bit;
                s.database[at(1 - n)].confirmed |= bit;
            }
            Action::Answer(n) if s.database[at(n)].writable => {
                s.acknowledged |= s.database[at(n)].log & s.database[at(n)].confirmed;
            }
            Action::Apply(n) if !s.database[at(n)].writable => {
                s.database[at(n)].applied |= oldest(s.database[at(n)].log, s.database[at(n)].applied)?;
            }
            Action::Restart(n) if !s.database[at(n)].writable && s.database[at(n)].start < STARTS => {
                let database = &mut s.database[at(n)];
                (database.start, database.log) = (database.start + 1, database.applied);
            }
            // A closed node follows a holder that is open, unless it has transactions that the holder lacks.
            Action::Attach(n) if s.is_open_for(1 - n) && !s.database[at(n)].writable => {
                let there = s.database[at(1 - n)].log;
                let database = &mut s.database[at(n)];
                if database.attached && !database.cut || database.log & !there != 0 {
                    return None;
                }
                (database.attached, database.cut) = (true, false);
            }
            Action::Demote(n) if s.holder != Some(n) && s.database[at(n)].writable => {
                let database = &mut s.database[at(n)];
                (database.writable, database.semi, database.confirmed) = (false, false, 0);
                s.keeper[at(n)] = Keeper::default();
            }
            Action::FallBack(n)
                if self.0 == Variant::FallsBackByTimeOut
                    && s.database[at(n)].writable
                    && s.database[at(n)].semi =>
            {
                Self::off(s, n);
            }
            _ => return None,
        }
        Some(())
    }

    /// A canary proves something in its own generation only.
    fn change(s: &mut State, complete: [Complete; 2]) {
        (s.generation, s.complete) = (s.generation + 1, complete);
        s.keeper.iter_mut().for_each(|keeper| (keeper.canary, keeper.start) = (0, 0));
    }

    fn off(s: &mut State, n: u8) {
        s.database[at(n)].semi = false;
        s.acknowledged |= s.database[at(n)].log;
        (s.keeper[at(n)].canary, s.keeper[at(n)].start) = (0, 0);
    }

    pub(super) fn keeper(&self, s: &mut State, action: Action) -> Option<()> {
        match action {
            Action::AgentRestarts(n) => {
                s.keeper[at(n)] = Keeper::default();
            }
            Action::ProposeOut(n) if s.is_open_for(n) && s.generation < GENERATIONS => {
                s.out = Some(s.proposal(n, 0));
            }
            // Whether the ledger, as this node knows it, is up to date plays no part: an old one is settled for less.
            Action::SourceOff(n) if s.database[at(n)].writable && s.database[at(n)].semi => {
                let may = match self.0 {
                    Variant::OffBeforeOutIsApplied => {
                        s.keeper[at(n)].settled || s.out.is_some_and(|o| o.node == n)
                    }
                    Variant::OffWhileInIsOpen => !s.has_replica_in_sync() && s.is_open_for(n),
                    _ => s.keeper[at(n)].settled,
                };
                if !may {
                    return None;
                }
                Self::off(s, n);
            }
            Action::SourceOn(n) if s.database[at(n)].writable && !s.database[at(n)].semi => {
                s.database[at(n)].semi = true;
            }
            Action::Canary(n)
                if s.database[at(n)].writable && s.database[at(n)].semi && s.written < WRITES =>
            {
                let bit = 1 << s.written;
                (s.keeper[at(n)].canary, s.keeper[at(n)].start) = (bit, s.database[at(1 - n)].start);
                self.databases(s, Action::Write(n))?;
            }
            Action::ProposeIn(n)
                if s.is_open_for(n) && s.database[at(n)].semi && !s.has_replica_in_sync() =>
            {
                let replica = s.database[at(1 - n)];
                let proved = s.keeper[at(n)].canary != 0 && replica.applied & s.keeper[at(n)].canary != 0;
                let is_it = self.0 == Variant::CanaryOfAnotherStart || s.keeper[at(n)].start == replica.start;
                if !(proved && is_it || self.0 == Variant::InWithoutCanary)
                    || s.generation >= GENERATIONS
                    || !replica.attached
                {
                    return None;
                }
                s.enter = Some(s.proposal(n, replica.start));
                s.keeper[at(n)] = Keeper::default();
            }
            _ => return None,
        }
        Some(())
    }

    pub(super) fn ledger(&self, s: &mut State, action: Action) -> Option<()> {
        let fits = |s: &State, p: &Proposal| {
            s.is_open_for(p.node)
                && p.epoch == s.epoch
                && (p.generation == s.generation || self.0 == Variant::NoGeneration)
        };
        match action {
            Action::ApplyOut { heard } => {
                let out = s.out.take()?;
                if fits(s, &out) {
                    Self::change(s, [Complete::No; 2]);
                    if heard {
                        s.keeper[at(out.node)].settled = true;
                    }
                }
            }
            Action::ApplyIn => {
                let enter = s.enter.take()?;
                if fits(s, &enter) {
                    let mut complete = [Complete::No; 2];
                    complete[at(1 - enter.node)] = Complete::Replica(enter.start);
                    Self::change(s, complete);
                }
            }
            Action::Plan(n) if s.run.is_none() && s.holder != Some(n) && s.epoch < EPOCHS => {
                let start = s.database[at(n)].start;
                let fit = match s.complete[at(n)] {
                    Complete::No => self.0 == Variant::PromotionIgnoresFlag,
                    Complete::Holder => true,
                    Complete::Replica(vouched) => vouched == start || self.0 == Variant::FlagSurvivesRestart,
                };
                if !fit {
                    return None;
                }
                s.plan = Some(s.proposal(n, start));
            }
            Action::StartRun => {
                let plan = s.plan.take()?;
                let current = plan.generation == s.generation || self.0 == Variant::PlanWithoutGeneration;
                if plan.epoch != s.epoch || !current || s.run.is_some() {
                    return Some(());
                }
                let vouched = match s.complete[at(plan.node)] {
                    Complete::Replica(start) => Some(start),
                    Complete::Holder | Complete::No => None,
                };
                if let Some(old) = s.holder {
                    s.complete[at(old)] = Complete::Holder;
                }
                (s.epoch, s.generation, s.holder) = (s.epoch + 1, s.generation + 1, Some(plan.node));
                s.run = Some(Run::Started { vouched });
            }
            _ => return None,
        }
        Some(())
    }

    pub(super) fn takeover(&self, s: &mut State, action: Action) -> Option<()> {
        let (run, target) = (s.run?, s.holder?);
        match (action, run) {
            (Action::Cut, Run::Started { .. })
                if !s.database[at(target)].cut && self.0 != Variant::StreamNotCut =>
            {
                s.database[at(target)].cut = true;
            }
            (Action::Capture, Run::Started { vouched }) => {
                let database = s.database[at(target)];
                let is_cut = database.cut || self.0 == Variant::StreamNotCut;
                let is_it = vouched.is_none_or(|start| start == database.start)
                    || self.0 == Variant::FlagSurvivesRestart;
                if !is_cut || !is_it {
                    return None;
                }
                s.run = Some(Run::Captured { log: database.log });
            }
            // Promotion and pivot: what is between them, nobody sees.
            (Action::Promote, Run::Captured { log }) => {
                let database = &mut s.database[at(target)];
                if log & !database.applied != 0 && self.0 != Variant::NotDrained {
                    return None;
                }
                (database.log, database.confirmed) = (database.applied, 0);
                (database.writable, database.semi, database.attached) = (true, false, false);
                s.keeper[at(target)] = Keeper::default();
                s.run = None;
                let kept = self.0 == Variant::FlagKeptOnEpochChange;
                let complete = if kept { s.complete } else { [Complete::No; 2] };
                Self::change(s, complete);
            }
            (Action::Undo, _) => {
                if let Run::Captured { log } = run
                    && log & !s.database[at(target)].applied == 0
                {
                    s.complete[at(target)] = Complete::Holder;
                }
                // A node that follows somebody again lifts the cut; nothing before that may.
                if self.0 == Variant::UndoLiftsTheCut {
                    s.database[at(target)].cut = false;
                }
                (s.run, s.holder) = (None, None);
                s.generation += 1;
            }
            _ => return None,
        }
        Some(())
    }
}
