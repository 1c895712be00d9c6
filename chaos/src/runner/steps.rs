//! One method of a drill: resolved, armed, injected, seen, left standing, healed, seen to be healed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use baton_node::api::client::ClientError;
use baton_node::api::drill::{DrillId, DrillOrder, DrillView, FaultPhase, FaultSpec, FaultState};
use baton_node::api::types::{RunResult, Status, SwitchoverRequest};
use baton_node::config::NodeId;

use super::agents::{Agents, role_of};
use super::cast::{Aim, aim};
use super::comeback::{Comeback, is_back};
use super::gate::{forbids_switchover, may_cost_the_baton};
use super::place::is_unclear;
use super::pulse::Bearing;
use super::screen::Screen;
use super::watch::Shared;
use crate::evidence::{Ending, Event, FaultRecord};
use crate::experiment::{Experiment, Fault, Heal, Method, Start};
use crate::history::Origin;

/// Time between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// How long a heal may take to be seen, beyond the fault's own time.
const HEALED_WITHIN: Duration = Duration::from_secs(20);
/// The outcome of what does not stand is over when the service was steady for so long.
const STEADY_FOR: Duration = Duration::from_secs(5);
/// How long clients' transactions under way may go on at a switchover, milliseconds.
pub(super) const DRAIN_MS: u64 = 1_000;
/// Who ends a drill whose baton is not passed.
const SWITCHOVER: &str = "switchover";

/// What a drill has to hand while it acts, and what it has noted.
#[derive(Debug)]
pub struct Stage {
    /// The agents.
    pub agents: Agents,
    /// What is to be done.
    pub experiment: Experiment,
    /// The drill's number in the ledger.
    pub number: DrillId,
    /// Zero of the runner's clock.
    pub origin: Origin,
    /// The operator's screen.
    pub screen: Screen,
    /// What the eye sees.
    pub shared: Shared,
    /// Who bears a fault.
    pub bearing: Bearing,
    /// What was done.
    pub faults: Vec<FaultRecord>,
    /// What else happened.
    pub events: Vec<Event>,
    /// How long redundancy took from the heals before each wait for it; `None`: it was not back in time.
    pub waits: Vec<Option<u64>>,
    /// The program of the fence hook in the configuration of the node at which the runner stands.
    pub fence_hook: Option<PathBuf>,
    /// When redundancy was back at the last wait, by the runner's clock; if it was not, when the last heal was seen.
    pub whole_ms: u64,
}

impl Stage {
    /// Milliseconds of the runner's clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.origin.now_us() / 1_000
    }

    /// Notes and shows something.
    pub fn note(&mut self, source: &str, what: impl Into<String>) {
        let what = what.into();
        self.screen.say(&format!("{source}: {what}"));
        self.events.push(Event { at_ms: self.now_ms(), source: source.to_owned(), what });
    }

    /// Does every method, in their order, and waits at the end for redundancy, and then for the services that are to be healthy.
    /// A fault must never meet a group that could not bear one: where redundancy is not back before a method, that one and all
    /// after it are left out, and the drill is over. That redundancy was missing is in `waits`, and fails it.
    ///
    /// # Errors
    /// The drill ends early, and why.
    pub async fn act(&mut self) -> Result<(), Ending> {
        let methods = self.experiment.method.clone();
        for (index, method) in methods.iter().enumerate() {
            let waits = method.start == Start::Healed && index > 0;
            if waits && !self.is_ready_for(&methods[index..]).await? {
                return Ok(());
            }
            self.pass(method.delay.duration()).await;
            let stays = methods.get(index + 1).is_some_and(|next| next.start == Start::Standing);
            if !self.method(index, method, stays).await? {
                break;
            }
        }
        self.heal_standing().await?;
        let until = Instant::now() + self.experiment.after.wait_redundancy.duration();
        if self.whole().await {
            self.services_well(until).await;
        }
        Ok(())
    }

    pub(super) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// False: it had no effect, and nothing that would come after it means anything.
    async fn method(&mut self, index: usize, method: &Method, stays: bool) -> Result<bool, Ending> {
        let status = self.status().await?;
        let refuse = |why: String| Ending::Aborted { by: "runner".into(), why };
        let aimed = aim(&status, &self.experiment, method).map_err(refuse)?;
        if method.start == Start::Standing
            && index > 0
            && let Err(why) = self.still_bites().await
        {
            let node = match &aimed {
                Aim::Switchover { node } | Aim::Fault { node, .. } => node,
                Aim::Rehearsal | Aim::Certificates => &status.node,
            };
            let place = self.begin(index, method, &status, node);
            self.note("runner", format!("{} is left out: {why}", method.fault));
            self.faults[place].effect = why;
            return Ok(false);
        }
        match aimed {
            Aim::Rehearsal => Ok(self.rehearse(index, method, &status).await),
            Aim::Certificates => Ok(self.read_certificates(index, method, &status).await),
            Aim::Switchover { node } => self.switch(index, method, &status, node).await,
            Aim::Fault { node, spec } => self.strike(index, method, &status, node, spec, stays).await,
        }
    }

    pub(super) fn begin(&mut self, index: usize, method: &Method, status: &Status, node: &NodeId) -> usize {
        self.faults.push(FaultRecord {
            method: u32::try_from(index).unwrap_or(u32::MAX),
            fault: method.fault,
            node: node.to_string(),
            role: role_of(status, node),
            heal: method.fault.heal(),
            duration_ms: method.duration.ms(),
            armed_ms: None,
            armed_verified_ms: None,
            injected_ms: None,
            verified_ms: None,
            effect: String::new(),
            healed_ms: None,
            heal_verified_ms: None,
            stood_ms: None,
        });
        self.faults.len() - 1
    }

    /// What only asks has no heal: it is over when it was done.
    pub(super) fn was_asked(&mut self, place: usize, answered: bool, effect: String) {
        let seen = Some(self.now_ms());
        let fault = &mut self.faults[place];
        fault.effect = effect;
        (fault.armed_ms, fault.armed_verified_ms, fault.injected_ms) = (seen, seen, seen);
        fault.verified_ms = seen.filter(|_| answered);
        (fault.healed_ms, fault.heal_verified_ms) = (seen, seen);
    }

    /// The baton is passed by the command that operators use.
    async fn switch(
        &mut self,
        index: usize,
        method: &Method,
        status: &Status,
        node: NodeId,
    ) -> Result<bool, Ending> {
        let place = self.begin(index, method, status, &node);
        self.shared.lock().may_switch = true;
        let mut request = SwitchoverRequest {
            to: Some(node.clone()),
            by: self.agents.by.clone(),
            drain_patience_ms: DRAIN_MS,
            plan: None,
            drill: Some(self.number),
        };
        let looked = self.agents.client.switchover(&request).await;
        let looked = looked.map_err(|error| not_moved(&self.faults, &error))?;
        let Some(plan) = looked.preflight.plan else {
            let checks = looked.preflight.checks.iter().filter(|check| !check.ok);
            let why = checks.map(|check| format!("{}: {}", check.code, check.evidence)).collect::<Vec<_>>();
            return Err(refused(&self.faults, SWITCHOVER, why.join("; ")));
        };
        request.plan = Some(plan);
        self.permitted(status, &node).await?;
        let now = Some(self.now_ms());
        (self.faults[place].armed_ms, self.faults[place].armed_verified_ms) = (now, now);
        let begun = self.agents.client.switchover(&request).await;
        let begun = begun.map_err(|error| not_moved(&self.faults, &error))?.run;
        let Some(run) = begun else {
            return Err(Ending::Aborted { by: SWITCHOVER.into(), why: "no run was begun".into() });
        };
        self.faults[place].injected_ms = Some(self.now_ms());
        self.shared.doing(format!("passing the baton to {node}"));
        self.note("ledger", format!("run {run} passes the baton to {node}"));
        let until = Instant::now() + method.duration.duration();
        let ended = loop {
            let record = self.agents.client.run(run.0).await.ok();
            let ended = record.filter(|record| record.result != RunResult::Running);
            if ended.is_some() || Instant::now() >= until {
                break ended;
            }
            self.pass(LOOK).await;
        };
        let now = self.now_ms();
        let fault = &mut self.faults[place];
        (fault.healed_ms, fault.heal_verified_ms) = (Some(now), Some(now));
        let moved = self.agents.status().await.is_ok_and(|status| status.holder.as_ref() == Some(&node));
        fault.verified_ms = moved.then_some(now);
        let words =
            ended.map_or("has not ended in time".into(), |ended| format!("ended: {:?}", ended.result));
        fault.effect =
            format!("run {run} {words}; {node} {} the baton", if moved { "has" } else { "has not" });
        let effect = fault.effect.clone();
        self.note("ledger", effect);
        Ok(moved)
    }

    /// Holder and target are asked right before: their configuration may be another one than at the gate.
    async fn permitted(&self, status: &Status, target: &NodeId) -> Result<(), Ending> {
        for node in status.holder.iter().chain([target]) {
            let why = match self.agents.look(node).await {
                Ok(view) => forbids_switchover(&view),
                Err(error) => Some(format!("{node} does not say whether the baton may be passed: {error}")),
            };
            if let Some(why) = why {
                return Err(refused(&self.faults, node.as_str(), why));
            }
        }
        Ok(())
    }

    async fn strike(
        &mut self,
        index: usize,
        method: &Method,
        status: &Status,
        node: NodeId,
        spec: FaultSpec,
        stays: bool,
    ) -> Result<bool, Ending> {
        let place = self.begin(index, method, status, &node);
        let (number, kind, peers) = (self.number, spec.kind, spec.peers.clone());
        self.shared.doing(format!("arming {} on {node}", method.fault));
        let armed = self.agents.order(Some(&node), DrillOrder::Arm { number, fault: spec }).await;
        let armed =
            armed.map_err(|error| refused(&self.faults, node.as_str(), format!("{node}: {error}")))?;
        let now = self.now_ms();
        (self.faults[place].armed_ms, self.faults[place].armed_verified_ms) = (Some(now), Some(now));
        self.bearing.add(&node);
        let heal = armed.fault.map(|fault| fault.heal).unwrap_or_default();
        self.note(node.as_str(), format!("{} is armed: {heal}", method.fault));
        self.expect(method.fault, status, &node, &peers);
        let injected_ms = self.now_ms();
        let order = self.agents.order(Some(&node), DrillOrder::Inject { number }).await;
        self.faults[place].injected_ms = Some(injected_ms);
        let began = Instant::now();
        let seen = self.effect(&node, kind, method, order, injected_ms, status).await;
        let bites = seen.is_ok();
        self.faults[place].verified_ms = bites.then(|| self.now_ms());
        self.faults[place].effect = seen.unwrap_or_else(|why| why);
        let effect = self.faults[place].effect.clone();
        self.note(
            node.as_str(),
            format!("{} {}: {effect}", method.fault, if bites { "bites" } else { "was not seen" }),
        );
        if stays && bites {
            return Ok(true);
        }
        if bites {
            self.stand(method, began).await;
        }
        let stood =
            self.heal(place, self.patience(method.fault), Comeback::Healthy).await.map_err(unhealed)?;
        self.faults[place].stood_ms = stood.filter(|_| bites && method.fault.stands());
        Ok(bites)
    }

    /// What the fault explains, so that it is not taken for something real.
    fn expect(&self, fault: Fault, status: &Status, node: &NodeId, peers: &[NodeId]) {
        let mut watched = self.shared.lock();
        watched.hit.insert(node.clone());
        watched.explained.extend(explained(fault, node, peers, status.holder.as_ref()));
    }

    /// Lets it stand for its time; for what does not stand, until its outcome is seen.
    async fn stand(&self, method: &Method, began: Instant) {
        let ends = began + method.duration.duration();
        self.shared.doing(format!("{} stands on {}", method.fault, method.target));
        if method.fault.stands() {
            tokio::time::sleep_until(ends.into()).await;
            return;
        }
        let mut steady: Option<Instant> = None;
        while Instant::now() < ends {
            let status = self.shared.status();
            let serves = status.is_some_and(|status| {
                status.run.is_none()
                    && is_back(method, &status)
                    && status.nodes.iter().any(|row| row.serving && Some(&row.name) == status.holder.as_ref())
            });
            let is_steady = serves && self.shared.quiet() < STEADY_FOR / 10;
            steady = if is_steady { steady.or(Some(Instant::now())) } else { None };
            if steady.is_some_and(|since| since.elapsed() >= STEADY_FOR) {
                return;
            }
            self.pass(LOOK).await;
        }
    }

    /// Heals one fault, and sees that nothing of it is left; a service that was killed must be back. Returns for how long it
    /// stood, by the node's clock.
    ///
    /// # Errors
    /// It is not seen to be healed, and why.
    pub(super) async fn heal(
        &mut self,
        place: usize,
        within: Duration,
        comeback: Comeback,
    ) -> Result<Option<u64>, String> {
        let fault = self.faults[place].clone();
        let node = NodeId::new(fault.node.as_str());
        self.shared.doing(format!("healing {} on {node}", fault.fault));
        if fault.fault.heal() == Heal::Site {
            self.note(node.as_str(), "somebody has to switch it on again; it is waited for");
        }
        let healed = match self.healed(&node, fault.duration_ms, within).await {
            Ok((words, stood_ms)) => {
                self.service_back(place, within, comeback).await.map(|back| (words, back, stood_ms))
            }
            Err(why) => Err(why),
        };
        match healed {
            Ok((words, back, stood_ms)) => {
                let back = back.map_or_else(String::new, |back| format!("; {back}"));
                let now = self.now_ms();
                (self.faults[place].healed_ms, self.faults[place].heal_verified_ms) = (Some(now), Some(now));
                self.bearing.remove(&node);
                self.note(node.as_str(), format!("{} is healed: {words}{back}", fault.fault));
                Ok(stood_ms)
            }
            Err(why) => {
                self.note(node.as_str(), format!("{} is not seen to be healed: {why}", fault.fault));
                Err(why)
            }
        }
    }

    /// How long a heal may take to be seen, beyond the fault's own time. Who has to walk to a switch has as long as
    /// redundancy has.
    pub(super) fn patience(&self, fault: Fault) -> Duration {
        match fault.heal() {
            Heal::Site => HEALED_WITHIN.max(self.experiment.after.wait_redundancy.duration()),
            Heal::Nothing | Heal::Kernel | Heal::Watchdog | Heal::Supervisor => HEALED_WITHIN,
        }
    }

    /// Heals whatever is left, however the drill ended. Says what could not be seen to be healed. Who has ended it early does
    /// not wait for a health check.
    pub async fn heal_all(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        for place in 0..self.faults.len() {
            let fault = &self.faults[place];
            if fault.armed_ms.is_some()
                && fault.heal_verified_ms.is_none()
                && fault.fault.heal() != Heal::Nothing
                && let Err(why) = self.heal(place, HEALED_WITHIN, Comeback::Started).await
            {
                left.push(format!("{} on {}: {why}", self.faults[place].fault, self.faults[place].node));
            }
        }
        left
    }

    /// Orders the heal, and waits until the node says that nothing is left.
    async fn healed(
        &self,
        node: &NodeId,
        duration_ms: u64,
        within: Duration,
    ) -> Result<(String, Option<u64>), String> {
        let until = Instant::now() + within + Duration::from_millis(duration_ms);
        loop {
            let order = DrillOrder::Heal { reason: "its time is over".into() };
            let last = match self.agents.order(Some(node), order).await {
                Ok(view) => match left(&view, self.number) {
                    None => {
                        let fault = view.fault.filter(|fault| fault.drill == self.number);
                        let stood = fault.as_ref().and_then(stood_ms);
                        return Ok((fault.map(|fault| fault.healed).unwrap_or_default(), stood));
                    }
                    Some(left) => left,
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                return Err(last);
            }
            self.pass(LOOK).await;
        }
    }

    async fn status(&self) -> Result<Status, Ending> {
        let asked = self.agents.status().await;
        asked.map_err(|error| Ending::Interrupted { why: error.to_string() })
    }
}

/// A fault that is not seen to be healed ends the drill.
pub(super) fn unhealed(why: String) -> Ending {
    Ending::Aborted { by: "runner".into(), why }
}

/// Whose loss of the baton a fault explains: that of the node which bears it, and the holder's if it is the other end of a cut.
/// A cut between two others costs the holder nothing: who loses the baton then has lost it to something real.
fn explained(fault: Fault, node: &NodeId, peers: &[NodeId], holder: Option<&NodeId>) -> Vec<NodeId> {
    if !may_cost_the_baton(fault) {
        return Vec::new();
    }
    let other_end = holder.filter(|holder| peers.contains(holder));
    [Some(node), other_end].into_iter().flatten().cloned().collect()
}

/// Who refuses before anything was done refuses the drill.
fn refused(faults: &[FaultRecord], by: &str, why: String) -> Ending {
    let untouched = faults.iter().all(|fault| fault.injected_ms.is_none());
    if untouched { Ending::Refused { why } } else { Ending::Aborted { by: by.to_owned(), why } }
}

/// The baton is not passed. An answer that was lost is no refusal: the run may have begun.
fn not_moved(faults: &[FaultRecord], error: &ClientError) -> Ending {
    let why = error.to_string();
    if is_unclear(error) {
        Ending::Aborted { by: SWITCHOVER.to_owned(), why }
    } else {
        refused(faults, SWITCHOVER, why)
    }
}

/// From when it bit until it was healed, by the node's own clock.
fn stood_ms(fault: &FaultState) -> Option<u64> {
    let (from, to) = (fault.bit_at?, fault.healed_at?);
    u64::try_from(to.as_millisecond() - from.as_millisecond()).ok()
}

/// What a node still bears of the drill.
fn left(view: &DrillView, number: DrillId) -> Option<String> {
    let fault = view.fault.as_ref().filter(|fault| fault.drill == number);
    let bears = fault.filter(|fault| fault.phase != FaultPhase::Healed);
    let words = bears.map(|fault| format!("{:?}: {}", fault.phase, fault.healed));
    words.or_else(|| (!view.leftovers.is_empty()).then(|| view.leftovers.join("; ")))
}

#[cfg(test)]
mod tests;
