//! Reports between agents, and who should lead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_consensus::{Inbox, Told};
use baton_runbooks::agent::Input;
use baton_runbooks::ledger::Ledger;
use baton_runbooks::model::{NodeId, NodeKind};
use baton_runbooks::observe::NodeReport;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Context;
use super::driver::Inputs;
use crate::config::Config;

/// A report that is not taken within this time is worthless: the next one is on its way.
const SEND_DEADLINE: Duration = Duration::from_millis(500);
/// Reports under way to one peer. A peer that takes none gets no more until one has ended.
const UNDER_WAY_MAX: usize = 2;

/// What agents say to each other beside Raft.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "message")]
enum Message {
    /// The sender's own report.
    Report { report: Box<NodeReport> },
}

/// Sends this node's reports.
#[derive(Debug, Default)]
pub(super) struct Sender {
    under_way: BTreeMap<NodeId, Vec<Told>>,
}

impl Sender {
    /// Sends a report to every peer, each on its own. Nobody waits for it: what became of it is looked at before the next.
    pub(super) fn send(&mut self, context: &Context, report: &NodeReport) {
        let message = Message::Report { report: Box::new(report.clone()) };
        let body = Bytes::from(serde_json::to_vec(&message).expect("a report is plain data"));
        for node in context.config.nodes.iter().filter(|node| node.name != context.config.node) {
            let under_way = self.under_way.entry(node.name.clone()).or_default();
            under_way.retain_mut(|told| match told.ended() {
                None => true,
                Some(ended) => {
                    if let Err(error) = ended {
                        tracing::debug!(to = %node.name, %error, "report not delivered");
                    }
                    false
                }
            });
            if under_way.len() < UNDER_WAY_MAX {
                under_way.push(context.consensus.tell(&node.name, body.clone(), SEND_DEADLINE));
            }
        }
    }
}

/// Takes the peers' messages. A report counts only if it speaks of its verified sender.
pub(super) fn receive(mut inbox: Inbox, context: &Context, inputs: Inputs) {
    let me = context.config.node.clone();
    let hands = Arc::clone(&context.hands);
    tokio::spawn(async move {
        while let Some(inbound) = inbox.recv().await {
            match serde_json::from_slice(&inbound.body) {
                Ok(Message::Report { report }) if report.node == inbound.from && report.node != me => {
                    hands.note_peer((*report).clone());
                    let _ = inputs.send(Input::Report { report: report.into() }).await;
                }
                Ok(Message::Report { .. }) => {
                    tracing::warn!(from = %inbound.from, "a report in another's name")
                }
                Err(error) => {
                    tracing::warn!(from = %inbound.from, %error, "a message that this version does not know")
                }
            }
        }
    });
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
