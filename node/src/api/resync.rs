//! What is asked and answered about a resync: data only. Field names and words are stable; fields may be added.

use baton_runbooks::decide::switchover::Check;
use baton_runbooks::model::{Epoch, NodeId};
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/resync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncRequest {
    /// The node whose database is to be replaced by a copy of the holder's. Its own agent carries it out, whichever agent is
    /// asked.
    pub node: NodeId,
    /// Name of the operator, for the log. The agent adds the user id that the kernel reports.
    pub by: String,
    /// The plan that the operator saw: it is carried out if nothing has changed since. `None`: only look.
    pub plan: Option<ResyncPlan>,
}

/// What a resync will do, and what it was decided from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncPlan {
    /// The node whose database is replaced.
    pub node: NodeId,
    /// The holder, which is copied.
    pub from: NodeId,
    /// The holder's epoch.
    pub epoch: Epoch,
    /// The transactions that are overwritten; `None`: there are none, or nobody knows.
    pub extra: Option<String>,
    /// About so many bytes are copied.
    pub bytes: u64,
    /// What is done, in order, in words.
    pub steps: Vec<String>,
}

impl ResyncPlan {
    /// True if `other` was decided from the same. How much there is to copy moves all the time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.node == other.node
            && self.from == other.from
            && self.epoch == other.epoch
            && self.extra == other.extra
    }
}

/// Everything that was looked at, and the plan, if nothing stands in its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncPreflight {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// `None`: something stands in its way.
    pub plan: Option<ResyncPlan>,
}

/// Answer of `POST /v1/resync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncAnswer {
    /// Everything that was looked at, and the plan.
    pub preflight: ResyncPreflight,
    /// The resync that was begun, as the status counts it; `None`: none was asked for.
    pub number: Option<u64>,
}
