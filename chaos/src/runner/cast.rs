//! From a method of the file to an order for a node. Roles are resolved anew each time.

use baton_node::api::drill::{FaultKind, FaultSpec};
use baton_node::api::types::Status;
use baton_node::config::NodeId;

use super::agents::cast;
use crate::experiment::{Experiment, Fault, Method, Role};

/// What a method comes to, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aim {
    /// Agents are asked.
    Rehearsal,
    /// Agents are asked for their certificates.
    Certificates,
    /// The baton is passed.
    Switchover {
        /// To whom.
        node: NodeId,
    },
    /// A node breaks something of its own.
    Fault {
        /// Which node.
        node: NodeId,
        /// What.
        spec: FaultSpec,
    },
}

/// Resolves a method.
///
/// # Errors
/// Nobody, or more than one, has the role; or the method names no peer.
pub fn aim(status: &Status, experiment: &Experiment, method: &Method) -> Result<Aim, String> {
    let kind = match method.fault {
        Fault::Rehearsal => return Ok(Aim::Rehearsal),
        Fault::Switchover => return Ok(Aim::Switchover { node: one(status, experiment, &method.target)? }),
        Fault::CertificateExpiring => return Ok(Aim::Certificates),
        Fault::MysqldKill => FaultKind::MysqldKill,
        Fault::MysqldFreeze => FaultKind::MysqldFreeze,
        Fault::RedisKill => FaultKind::RedisKill,
        Fault::AgentKill => FaultKind::AgentKill,
        Fault::AgentFreeze | Fault::WitnessLoss => FaultKind::AgentFreeze,
        Fault::ContainerKill => FaultKind::ContainerKill,
        Fault::ContainerUnhealthy => FaultKind::ContainerUnhealthy,
        Fault::Partition | Fault::PartitionPair => FaultKind::Partition,
        Fault::OneWay => FaultKind::OneWay,
        Fault::ReplicationLag => FaultKind::ReplicationLag,
        Fault::ReplicaDiskFull => FaultKind::ReplicaDiskFull,
        Fault::PowerOff => FaultKind::PowerOff,
    };
    let node = one(status, experiment, &method.target)?;
    let peers = match method.fault {
        Fault::Partition => {
            status.nodes.iter().map(|row| row.name.clone()).filter(|name| *name != node).collect()
        }
        Fault::PartitionPair | Fault::OneWay => {
            let peer = method.peer.as_deref().ok_or("it names no peer")?;
            vec![one(status, experiment, peer)?]
        }
        Fault::ReplicationLag => cast(status, Role::Holder),
        Fault::Rehearsal
        | Fault::CertificateExpiring
        | Fault::Switchover
        | Fault::MysqldKill
        | Fault::MysqldFreeze
        | Fault::RedisKill
        | Fault::AgentKill
        | Fault::AgentFreeze
        | Fault::WitnessLoss
        | Fault::ContainerKill
        | Fault::ContainerUnhealthy
        | Fault::ReplicaDiskFull
        | Fault::PowerOff => Vec::new(),
    };
    let spec = FaultSpec {
        kind,
        duration_ms: method.duration.ms(),
        peers,
        service: method.service.clone(),
        leave_mib: method.leave_mib,
        kib_per_second: method.kib_per_second.map(|kib| u32::try_from(kib).unwrap_or(u32::MAX)),
    };
    Ok(Aim::Fault { node, spec })
}

fn one(status: &Status, experiment: &Experiment, target: &str) -> Result<NodeId, String> {
    let role = experiment.targets.get(target).ok_or_else(|| format!("there is no target {target}"))?.role;
    let mut nodes = cast(status, role);
    match (nodes.pop(), nodes.is_empty()) {
        (Some(node), true) => Ok(node),
        (Some(_), false) => Err(format!("{target} is more than one node")),
        (None, _) => Err(format!("nobody is the {role} now")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::shipped;
    use crate::runner::sample::status;

    #[test]
    fn every_method_of_every_shipped_drill_has_an_aim() {
        for id in shipped::ids() {
            let experiment = shipped::named(id).unwrap().experiment;
            for method in &experiment.method {
                let aim = aim(&status(), &experiment, method).unwrap_or_else(|why| panic!("{id}: {why}"));
                let Aim::Fault { spec, .. } = aim else { continue };
                assert_eq!(spec.kind.level(), super::super::gate::node_level(method.fault.level()), "{id}");
                assert_eq!(spec.duration_ms, method.duration.ms(), "{id}");
            }
        }
    }

    #[test]
    fn a_service_that_is_named_is_passed_on() {
        let mut experiment = shipped::named("container-never-healthy").unwrap().experiment;
        experiment.method[0].service = Some("web".into());
        let Ok(Aim::Fault { node, spec }) = aim(&status(), &experiment, &experiment.method[0]) else {
            panic!("no fault");
        };
        assert_eq!((node.as_str(), spec.kind), ("db1", FaultKind::ContainerUnhealthy));
        assert_eq!(spec.service.as_deref(), Some("web"));
    }
}
