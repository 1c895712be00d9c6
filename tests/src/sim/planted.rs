//! Planted bugs: ways in which a driver, its hands, a kernel, a database or a ledger could deviate from the design.
//!
//! Each one is switched on for a whole world and must be caught by the named invariant within a bounded number of seeds;
//! a simulation that does not catch them proves nothing. The code under test stays as it is.

use clap::ValueEnum;

/// One deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Planted {
    /// The kernel's ticket and permit are written together when the grant arrives, for a whole lease.
    LeaseCountedFromReceipt,
    /// Nothing is added to a lease's end for clocks that run at different rates.
    NoMargin,
    /// The VIP has no timeout in the kernel; only the agent takes it away.
    VipRemovedByAgentOnly,
    /// A permit opens although its ticket is gone.
    PermitWithoutTicket,
    /// The leader grants whatever the age of its last quorum acknowledgement.
    GrantWithoutQuorum,
    /// The leader goes on granting after it proposed the epoch's end.
    GrantAfterEndProposed,
    /// A new leader grants before an entry of its own term is applied.
    GrantBeforeOwnTerm,
    /// A new leader does not wait for what its predecessor may have granted.
    NewLeaderDoesNotWait,
    /// The end of an epoch is proposed without another look at what was granted meanwhile.
    EndWithoutAnotherLook,
    /// A takeover that a deposed leader proposed is appended by whoever leads.
    TakeoverIsForwarded,
    /// A release is proposed, and accepted, while the doors are still open.
    ReleaseBeforeClosing,
    /// Semi-sync gives up waiting after half a second, as it does by default.
    SemiSyncFallsBack,
    /// Semi-sync is switched off as soon as *out of sync* is proposed.
    SourceOffBeforeApplied,
    /// The database is opened first, and semi-sync is set a moment later.
    OpenedBeforeSemiSync,
    /// Every data node counts as complete.
    InSyncIgnored,
    /// The replica's restart does not show in its identity.
    FlagSurvivesRestart,
    /// Commands on the in-sync flag are applied whatever generation they were made from.
    FlagWithoutGeneration,
    /// The stream from the old primary goes on while the relay log is drained.
    StreamNotCut,
    /// The relay log is not drained before the promotion.
    RelayLogNotDrained,
    /// Undos are carried out in the order of the steps.
    UndoInForwardOrder,
    /// The undo of a promotion, or of catching up, leaves the database writable.
    UndoForgetsDatabase,
    /// A switchover's target opens with what it has, whatever the closed holder has noted.
    CatchUpNotAwaited,
    /// Who passes the baton says that it is closed while its kernel still lets packets through.
    SurrenderBeforeClosing,
    /// The leader grants to who gets the baton although the one who passes it has not said that it is closed.
    GrantBeforeSurrender,
    /// A Redis that came back empty is made the primary although the other one has data.
    EmptyRedisPromoted,
    /// A switchover's target does not wait for what Redis has at the closed holder.
    OffsetNotAwaited,
    /// What an operator accepted for one takeover stands for the next one too.
    WordUsedTwice,
    /// A bound that the operator put on the loss is not looked at.
    WordWithoutBound,
    /// A step acts when its start is proposed, not when it is committed.
    ActsBeforeJournal,
    /// A step is carried out a second time, after its outcome was committed.
    StepExecutedTwice,
    /// A hand does not look whether its run is still the newest.
    OldActorNotChecked,
    /// Journals and releases are applied to whatever run and holder there is.
    StaleEpochAccepted,
    /// A run that needs an operator is put away by the ledger itself.
    RunForgotten,
    /// A leader takes a pause for over after some seconds, whatever the holder may still have in its kernel.
    PauseNotWaitedOut,
    /// Force leaves generation and founder as they were.
    ForceKeepsGeneration,
    /// Whoever comes back with a log of a lower generation, and is told so, goes on with it.
    LowerGenerationGoesOn,
    /// Whoever is told so votes no more, and does not close.
    OutrankedKeepsItsDoors,
    /// The holder says that it lives on short leases again, and leaves the long ones in its kernel.
    PauseEndedButNotVoid,
    /// The pivot that is tried again is taken back first.
    UndoneAfterPivot,
    /// A switchover begins although nobody has ordered one.
    FailsBack,
    /// A holder takes its lease for longer than it was granted.
    BelievesItsLeaseTooLong,
    /// Semi-sync takes what was sent for received.
    AcknowledgedWhenSent,
    /// A takeover raises the epoch by two.
    EpochSkipped,
    /// What was refused is proposed again at once.
    ProposedWithoutEnd,
    /// Whoever holds the baton in a repaired world does not open its ports.
    PortsStayClosed,
    /// Nobody is made a replica in a repaired world.
    ReplicaStaysAway,
}
