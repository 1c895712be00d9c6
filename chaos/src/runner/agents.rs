//! The agents as the runner asks them: everything goes through the one at this machine.

use baton_node::api::client::{Client, ClientError};
use baton_node::api::drill::{DrillOrder, DrillRequest, DrillView};
use baton_node::api::types::{NodeRow, Role as NodeRole, ServiceRow, Status, Sync};
use baton_node::config::{NodeId, NodeKind};

use crate::experiment::Role;

/// The way to the agents.
#[derive(Debug, Clone)]
pub struct Agents {
    /// A client of the agent at this machine.
    pub client: Client,
    /// Who drills.
    pub by: String,
}

impl Agents {
    /// The cluster as the agent at this machine sees it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.client.status().await
    }

    /// An order for a node; `None`: the one at this machine.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn order(&self, node: Option<&NodeId>, order: DrillOrder) -> Result<DrillView, ClientError> {
        self.client.drill(&DrillRequest { node: node.cloned(), by: self.by.clone(), order }).await
    }

    /// What a node knows of drills.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn look(&self, node: &NodeId) -> Result<DrillView, ClientError> {
        self.order(Some(node), DrillOrder::Look).await
    }
}

/// The nodes that have a role now.
#[must_use]
pub fn cast(status: &Status, role: Role) -> Vec<NodeId> {
    let named = |is_it: &dyn Fn(&NodeRow) -> bool| {
        status.nodes.iter().filter(|row| is_it(row)).map(|row| row.name.clone()).collect::<Vec<_>>()
    };
    match role {
        Role::Holder => status.holder.iter().cloned().collect(),
        Role::Backup => named(&|row| row.kind == NodeKind::Data && status.holder.as_ref() != Some(&row.name)),
        Role::Witness => named(&|row| row.kind == NodeKind::Witness),
        Role::Leader => status.leader.iter().cloned().collect(),
        Role::Everyone => named(&|_| true),
    }
}

/// The role of a node for the record: what it has data or votes for.
#[must_use]
pub fn role_of(status: &Status, node: &NodeId) -> Role {
    let row = status.nodes.iter().find(|row| row.name == *node);
    match row.map(|row| (row.kind, row.role)) {
        Some((NodeKind::Witness, _)) => Role::Witness,
        _ if status.holder.as_ref() == Some(node) => Role::Holder,
        Some((NodeKind::Data, NodeRole::Holder)) => Role::Holder,
        Some((NodeKind::Data, _)) | None => Role::Backup,
    }
}

/// Agents that are heard.
#[must_use]
pub fn heard(status: &Status) -> usize {
    status.nodes.iter().filter(|row| !row.silent).count()
}

/// The role-bound services that are to run on the holder; `None`: nobody holds the baton, or the holder is not heard.
#[must_use]
pub fn services(status: &Status) -> Option<&[ServiceRow]> {
    let holder = status.holder.as_ref()?;
    status.nodes.iter().find(|row| row.name == *holder)?.services.as_deref()
}

/// How many of them are known not to be healthy; one that starts is not. `None`: that is known of none, and of one at least it
/// is not known how it is, since the engine did not answer or nobody has looked yet.
#[must_use]
pub fn unhealthy_services(status: &Status) -> Option<usize> {
    let services = services(status)?;
    let unhealthy = services.iter().filter(|service| service.is_seen() && !service.is_healthy()).count();
    (unhealthy > 0 || services.iter().all(ServiceRow::is_seen)).then_some(unhealthy)
}

/// The replica has every acknowledged write, or there is nothing to have.
#[must_use]
pub fn is_in_sync(status: &Status) -> bool {
    match status.sync {
        Sync::InSync { .. } | Sync::NotApplicable => true,
        Sync::OutOfSync { .. } => false,
    }
}

/// Whole again: everybody is heard, the backup is in sync, a takeover would work.
#[must_use]
pub fn is_redundant(status: &Status) -> bool {
    status.ok && status.run.is_none() && is_in_sync(status) && heard(status) == status.nodes.len()
}
