//! An agent for the tests of this module.

use super::Setup;
use crate::decide::Policy;
use crate::detect::Patience;
use crate::ledger::EndedRun;
use crate::model::{Epoch, NodeId, RunId, SyncGeneration, WallMs};
use crate::plan::{Basis, Plan, Runbook};
use crate::run::table::Scope;
use crate::run::{Run, RunState};
use crate::why::Why;

/// Of a data node with a database and nothing else.
pub(super) fn setup(me: &str) -> Setup {
    Setup {
        me: NodeId::from(me),
        own_address: "10.0.0.1".to_owned(),
        policy: Policy {
            scope: Scope { mysql: true, independent_services: false, services: false },
            report_max_ms: 700,
            quorum_max_ms: 600,
            anti_flap_ms: 60_000,
            anti_flap_max: 3,
            cold_start_ms: 30_000,
        },
        patience: Patience {
            refused_count: 2,
            hung_ms: 1_000,
            stalled_ms: 1_500,
            disk_free_min: 1,
            settle_ms: 1_200,
            service_lost_ms: 25_000,
            link_lost_ms: 300,
        },
        sync_patience_ms: 1_400,
        redis: false,
        holder_services: Vec::new(),
        version: "test".to_owned(),
        config_hash: "test".to_owned(),
        new_leader_ms: 0,
        opened: None,
        writable_boot: None,
        redis_boot: None,
        boot: 1,
    }
}

/// The takeover that began epoch 2, for `why`.
pub(super) fn completed_takeover(to: &str, why: Why) -> EndedRun {
    let plan = Plan {
        runbook: Runbook::Takeover,
        version: 1,
        epoch: Epoch(2),
        from: None,
        to: NodeId::from(to),
        basis: Basis { epoch: Epoch(1), sync: SyncGeneration(1), target_instance: None },
        why: vec![why],
        detected_ms_ago: None,
        holder_heard_ms: Default::default(),
        asked_by: None,
        drain_patience_ms: 0,
        steps: Vec::new(),
    };
    EndedRun { run: Run::new(RunId(2), plan, WallMs(0)).into(), state: RunState::Completed }
}
