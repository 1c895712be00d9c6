//! Reports between agents, and who should lead.
//!
//! A report wakes no thread that sleeps: it leaves with a heartbeat of Raft, and the driver looks for those of the peers when it
//! is awake. Only during a run it is woken by them.

use baton_consensus::Inbound;
use baton_runbooks::agent::Input;
use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{NodeId, NodeKind};
use baton_runbooks::observe::NodeReport;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Context;
use crate::config::Config;

/// What agents say to each other beside Raft.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "message")]
enum Message {
    /// The sender's own report.
    Report { report: Box<NodeReport> },
}

/// Sends a report to every peer. Nobody waits for it: the next one is on its way.
pub(super) fn send(context: &Context, report: &NodeReport) {
    let message = Message::Report { report: Box::new(report.clone()) };
    let body = Bytes::from(serde_json::to_vec(&message).expect("a report is plain data"));
    for node in context.config.nodes.iter().filter(|node| node.name != context.config.node) {
        context.consensus.post(&node.name, body.clone());
    }
}

/// What a peer's message is for the core. A report counts only if it speaks of its verified sender.
pub(super) fn read(inbound: &Inbound, context: &Context) -> Option<Input> {
    match serde_json::from_slice(&inbound.body) {
        Ok(Message::Report { report })
            if report.node == inbound.from && report.node != context.config.node =>
        {
            context.hands.note_peer((*report).clone(), inbound.at);
            Some(Input::Report { report: report.into() })
        }
        Ok(Message::Report { .. }) => {
            tracing::warn!(from = %inbound.from, "a report in another's name");
            None
        }
        Err(error) => {
            tracing::warn!(from = %inbound.from, %error, "a message that this version does not know");
            None
        }
    }
}

/// Who should lead: the witness, then the data nodes that do not hold the baton, the holder last (design, 4.10).
pub(super) fn preferred(config: &Config, ledger: Option<&Ledger>) -> Vec<NodeId> {
    let holder = ledger.and_then(|ledger| ledger.holder.as_ref()).unwrap_or(&config.initial_holder);
    let mut order: Vec<_> = config
        .nodes
        .iter()
        .map(|node| (node.kind != NodeKind::Witness, node.name == *holder, node.name.clone()))
        .collect();
    order.sort();
    order.into_iter().map(|(_, _, name)| name).collect()
}
