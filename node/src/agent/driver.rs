//! The driver: the one task that owns the pure core.
//!
//! Its contract is that of [`baton_runbooks::agent`]: take one input, record it, feed it, carry out every output. Effects
//! start only from outputs, and outputs that touch the world come only from a committed ledger. Nothing here blocks:
//! proposals, steps and SQL run in tasks of their own and come back as inputs.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use baton_consensus::timer::Timer;
use baton_consensus::{Inbound, Inbox};
use baton_runbooks::agent::{Agent, Input, LeaseFacts, Output, Setup, Stamped, TICK_MAX_MS};
use baton_runbooks::decide::local::Wish;
use baton_runbooks::lease::granter::Office;
use baton_runbooks::observe::{NodeReport, Observation};
use baton_runbooks::why::Obstacle;
use tokio::sync::{mpsc, watch};

use super::executor::{self, Job};
use super::operator::{self, Look};
use super::propose::propose;
use super::views::Publisher;
use super::{Context, clock, exposure, keeper, own, reconcile, reports, senses, steering};
use crate::recorder::Recorder;

/// Inputs that may wait for the core. It takes each within microseconds; more than this waiting means that the process
/// had no processor for seconds, and then senders wait.
pub(super) const INPUTS_MAX: usize = 1024;
/// No lease is known that could end: the driver looks again after this, or at the next input.
const FAR: Duration = Duration::from_secs(60);

/// A wish and its number. Orders to the lease thread carry it, so that what belongs to an older wish opens nothing.
#[derive(Debug, Clone)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) wish: Wish,
}

/// The newest wish.
pub(super) type Wishes = watch::Receiver<Option<Numbered>>;

/// Sends inputs to the core.
pub(super) type Inputs = mpsc::Sender<Input>;

/// Runs the agent's tasks until `stopped`.
pub(super) async fn run(
    context: Context,
    setup: Setup,
    observed: mpsc::Sender<Observation>,
    observations: mpsc::Receiver<Observation>,
    inbox: Inbox,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (inputs, input) = mpsc::channel(INPUTS_MAX);
    let (wishes, wish) = watch::channel(None);
    let recorder = Recorder::start(&context.config.state_dir.join("flight"), &setup)?;
    crate::telemetry::keep_recording(recorder.clone());
    let (publisher, commands) = Publisher::start(&context).await?;
    let looks = operator::serve(&context, commands);
    forward(observations, inputs.clone());
    let seen = senses::start(&context, &observed, wish.clone());
    reconcile::start(&context, &inputs, &wish, &seen);
    steering::start(&context);
    let exposed = exposure::start(&context, wish.clone())?;
    let canaries = keeper::start(&context, inputs.clone(), wish.clone(), seen);
    let mut driver = Driver {
        core: Agent::new(setup),
        context,
        inputs,
        wishes,
        wish_number: 0,
        canaries,
        exposed,
        closed: own::Closed::default(),
        office: Office::default(),
        lease: LeaseFacts::default(),
        recorder,
        publisher,
        // Half of the supervisor's patience, as sd_watchdog_enabled(3) advises.
        supervised: sd_notify::watchdog_enabled().map(|patience| patience / 2),
        told_at: Instant::now(),
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let ended = driver.drive(input, inbox, looks, stopped).await;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    ended
}

/// Observations are inputs.
fn forward(mut observations: mpsc::Receiver<Observation>, inputs: Inputs) {
    tokio::spawn(async move {
        while let Some(observation) = observations.recv().await {
            if inputs.send(Input::Observed { observation }).await.is_err() {
                return;
            }
        }
    });
}

struct Driver {
    core: Agent,
    context: Context,
    inputs: Inputs,
    wishes: watch::Sender<Option<Numbered>>,
    wish_number: u64,
    canaries: keeper::Orders,
    exposed: exposure::Exposed,
    closed: own::Closed,
    office: Office,
    /// What the core knows of the lease.
    lease: LeaseFacts,
    recorder: Recorder,
    publisher: Publisher,
    /// How often the supervisor wants to hear of this process, if it watches.
    supervised: Option<Duration>,
    told_at: Instant,
}

impl Driver {
    async fn drive(
        &mut self,
        mut input: mpsc::Receiver<Input>,
        mut inbox: Inbox,
        mut looks: mpsc::Receiver<Look>,
        stopped: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let mut stopped = pin!(stopped);
        let mut committed = self.context.consensus.committed();
        let mut standing = self.context.consensus.standing();
        let mut lease = self.context.lease.view();
        let mut tick = self.context.clock.every(Duration::from_millis(TICK_MAX_MS), Duration::ZERO);
        // A point of the grid after the probes, so that a report has what they have just seen.
        let every = self.context.config.timing.report.duration();
        let mut report = self.context.clock.every(every, clock::GRID.min(every / 4));
        // What was applied before this agent started is its first input, or a restarted holder would wait for news.
        committed.mark_changed();
        standing.mark_changed();
        let mut lease_end = Timer::until(Instant::now() + FAR);
        loop {
            match self.lease_ends_at() {
                Some(at) => lease_end.reset(at),
                // Nothing is set anew with every input while there is nothing to wait for.
                None if lease_end.at() <= Instant::now() => lease_end.reset(Instant::now() + FAR),
                None => {}
            }
            let input = tokio::select! {
                () = &mut stopped => return Ok(()),
                changed = committed.changed() => {
                    changed.context("the consensus thread has ended")?;
                    let newest = committed.borrow_and_update().clone();
                    if newest.index == 0 {
                        continue;
                    }
                    Input::Committed { index: newest.index, ledger: newest.ledger }
                }
                changed = standing.changed() => {
                    changed.context("the consensus thread has ended")?;
                    standing.mark_unchanged();
                    match self.new_office() {
                        Some(input) => input,
                        None => continue,
                    }
                }
                changed = lease.changed() => {
                    changed.context("the lease thread has ended")?;
                    lease.mark_unchanged();
                    match self.newer_lease() {
                        Some(input) => input,
                        None => continue,
                    }
                }
                Some(input) = input.recv() => input,
                Some(look) = looks.recv() => {
                    self.hear(&mut inbox);
                    self.look(look);
                    continue;
                }
                Some(inbound) = inbox.recv(), if self.is_in_a_run() => {
                    self.take(&inbound);
                    continue;
                }
                _ = report.tick() => {
                    self.hear(&mut inbox);
                    self.report()
                }
                () = lease_end.wait() => self.newer_lease().unwrap_or(Input::Tick),
                _ = tick.tick() => {
                    self.beat();
                    if let Some(input) = self.newer_lease() {
                        self.feed(input);
                    }
                    // The times of acknowledgements move without a notice, and on a leader at every tick; one input does for
                    // both, since time passes with each.
                    self.new_office().unwrap_or(Input::Tick)
                }
            };
            // Nothing is decided beside news that are here.
            self.hear(&mut inbox);
            self.feed(input);
        }
    }

    fn is_in_a_run(&self) -> bool {
        self.core.ledger().run.is_some()
    }

    /// Takes the messages that are here.
    fn hear(&mut self, inbox: &mut Inbox) {
        while let Some(inbound) = inbox.try_recv() {
            self.take(&inbound);
        }
    }

    fn take(&mut self, inbound: &Inbound) {
        if let Some(input) = reports::read(inbound, &self.context) {
            self.feed(input);
        }
    }

    /// When a lease ends next, as far as the core knows.
    fn lease_ends_at(&self) -> Option<Instant> {
        let clock = self.context.clock;
        self.core.lease_ends_at(clock.now()).map(|at| clock.instant(at))
    }

    /// What the lease thread shows, if it is not what the core knows. A mere renewal is shown without a notice, and waits for
    /// the next tick, long before what it prolongs would have ended.
    fn newer_lease(&mut self) -> Option<Input> {
        let lease = self.context.lease.view().borrow().facts.clone();
        if lease == self.lease {
            return None;
        }
        self.lease = lease.clone();
        Some(Input::Lease { lease: lease.into() })
    }

    /// Whoever asked may have gone.
    fn look(&self, look: Look) {
        let now = self.context.clock.now();
        match look {
            Look::Switchover { wanted, reply } => {
                let _ = reply.send(self.core.preflight(now, &wanted));
            }
            Look::Force { wanted, reply } => {
                let _ = reply.send(self.core.force_preflight(now, clock::wall(), &wanted));
            }
            Look::Pause { wanted, reply } => {
                let _ = reply.send(self.core.pause_preflight(now, &wanted));
            }
            Look::Loss { wanted, reply } => {
                let _ = reply.send(self.core.loss_preflight(now, &wanted));
            }
        }
    }

    /// Tells the lease thread, and whoever supervises this process, that the driver lives.
    fn beat(&mut self) {
        super::executor::hang_if_told();
        self.context.lease.beat(self.context.clock.now());
        if self.supervised.is_some_and(|every| self.told_at.elapsed() >= every) {
            self.told_at = Instant::now();
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }

    fn feed(&mut self, input: Input) {
        let stamped = Stamped { now: self.context.clock.now(), wall: clock::wall(), input };
        self.recorder.record(&stamped);
        let outputs = self.core.handle(stamped);
        if !outputs.is_empty() {
            self.recorder.hasten();
        }
        for output in outputs {
            self.carry_out(output);
        }
        self.publisher.publish(&self.core, &self.context);
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Propose { ticket, command, as_leader, ends } => {
                let (context, inputs, wish) = (self.context.clone(), self.inputs.clone(), self.wish_number);
                tokio::spawn(async move {
                    let accepted = propose(&context, command, as_leader, ends, wish).await;
                    let _ = inputs.send(Input::Proposed { ticket, accepted }).await;
                });
            }
            Output::RunStep { run, epoch, attempt, planned } => {
                self.execute(Job { run, epoch, attempt, planned, undo: false });
            }
            Output::UndoStep { run, epoch, attempt, planned } => {
                self.execute(Job { run, epoch, attempt, planned, undo: true });
            }
            Output::Wish { wish } => {
                let why: Vec<String> = wish.why.iter().map(ToString::to_string).collect();
                tracing::info!(role = ?wish.role, why = why.join(", "), "what this node is to be");
                self.context
                    .consensus
                    .prefer(reports::preferred(&self.context.config, Some(self.core.ledger())));
                self.wish_number += 1;
                self.wishes.send_replace(Some(Numbered { number: self.wish_number, wish }));
            }
            Output::Keep { keep } => self.canaries.order(keep),
            Output::Decided { decision } => {
                let why: Vec<String> = decision.why.iter().map(ToString::to_string).collect();
                tracing::info!(action = decision.action.as_str(), why = why.join(", "), "decided");
                self.publisher.note(&decision);
            }
        }
    }

    /// The executor goes under the number of the present wish: a newer one that closes stops what it still opens.
    fn execute(&self, job: Job) {
        executor::spawn(self.context.clone(), self.inputs.clone(), self.wish_number, job);
    }

    /// What keeps this node from being attached, if its log does not count.
    fn outranked(&self) -> Option<String> {
        let standing = self.context.consensus.standing();
        let standing = standing.borrow();
        let me = &self.context.config.node;
        match (standing.outranked, standing.forked) {
            (_, true) => Some(Obstacle::Forked.with(": `baton force` on one of them")),
            (true, false) => Some(Obstacle::Outranked.with(format_args!(": `baton rejoin {me}`"))),
            (false, false) => None,
        }
    }

    /// The same, if its log has what this agent does not know: it would not see the run.
    fn behind_newer_log(&self) -> Option<String> {
        let standing = self.context.consensus.standing();
        let standing = standing.borrow();
        // The leader says it of another node, which reports it itself.
        (standing.newer_log && !standing.is_leader).then(|| Obstacle::NewerLog.with(": upgrade it"))
    }

    /// This node's own report: to the peers, and to the core.
    fn report(&mut self) -> Input {
        let report = self.core.report(self.context.clock.now());
        let (quarantine, resync) = (self.context.ward.facts(), self.context.resync.facts());
        let open = own::open(&self.context);
        let alarms = own::alarms(&self.core, &self.context, &mut self.closed, open);
        let redis_exposure = self.exposed.newest();
        let mut report = NodeReport { quarantine, resync, redis_exposure, open, alarms, ..report };
        report.obstacles.extend(self.outranked());
        report.obstacles.extend(self.behind_newer_log());
        // Whoever decides must not count on it: it has no whole database.
        report.obstacles.extend(self.context.resync.obstacle());
        reports::send(&self.context, &report);
        Input::Report { report: report.into() }
    }

    /// This node's standing in Raft, if it is another one than the core knows.
    fn new_office(&mut self) -> Option<Input> {
        let office = crate::lease::office(&self.context.consensus.standing().borrow(), self.context.clock);
        if self.office == office {
            return None;
        }
        self.office = office.clone();
        Some(Input::Office { office })
    }
}
