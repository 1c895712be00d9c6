//! What can be wrong with the methods of a drill.

use super::{DURATION_MAX, Notes};
use crate::experiment::{Experiment, Fault, Heal, Method, Role, Span, Start};

/// The least that a full disk leaves, MiB: the agent's own log must have space.
const LEAVE_MIN_MIB: u64 = 64;

pub(super) fn methods(experiment: &Experiment, notes: &mut Notes<'_>) {
    if experiment.method.is_empty() {
        notes.error(
            "no-method",
            "method",
            "nothing is done",
            "add [[method]]; the fault rehearsal changes nothing",
        );
    }
    for (index, method) in experiment.method.iter().enumerate() {
        let path = |key: &str| format!("method[{index}].{key}");
        level(experiment, method, &path, notes);
        target(experiment, method, &path, notes);
        times(method, &path, notes);
        parameters(experiment, method, &path, notes);
        if method.verify.expect != method.fault.effect() {
            let says = format!("{} is not seen by what verify expects", method.fault);
            let hint = format!("write expect = \"{}\"", method.fault.effect().name());
            notes.error("verify", &path("verify.expect"), says, hint);
        }
        if !method.fault.is_safe_outside_lab() {
            let says = format!("{} is for a lab", method.fault);
            notes.warn(
                "lab-only",
                &path("fault"),
                says,
                "a node refuses it unless its own configuration allows level L5",
            );
        }
        if method.fault.heal() == Heal::Site {
            let says = format!("nothing heals {} by itself", method.fault);
            notes.warn(
                "no-heal",
                &path("fault"),
                says,
                "somebody who can switch the host on again must be there",
            );
        }
    }
    together(experiment, notes);
}

fn level(experiment: &Experiment, method: &Method, path: &dyn Fn(&str) -> String, notes: &mut Notes<'_>) {
    let needed = method.fault.level();
    if needed > experiment.level {
        let says = format!("{} is of level {needed}, the drill of {}", method.fault, experiment.level);
        notes.error("level", &path("fault"), says, format!("write level = \"{needed}\""));
    }
}

fn target(experiment: &Experiment, method: &Method, path: &dyn Fn(&str) -> String, notes: &mut Notes<'_>) {
    let known = || experiment.targets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let Some(target) = experiment.targets.get(&method.target) else {
        let says = format!("there is no target {:?}", method.target);
        notes.error(
            "target",
            &path("target"),
            says,
            format!("add [targets.{}], or name one of: {}", method.target, known()),
        );
        return;
    };
    if !method.fault.roles().contains(&target.role) {
        let says = format!("{} may not hit a {}", method.fault, target.role);
        let roles: Vec<&str> = method.fault.roles().iter().map(|role| role.name()).collect();
        notes.error("role", &path("target"), says, format!("it may hit: {}", roles.join(", ")));
    }
    let takes_peer = matches!(method.fault, Fault::PartitionPair | Fault::OneWay);
    match (&method.peer, takes_peer) {
        (None, true) => {
            let says = format!("{} has no peer", method.fault);
            notes.error("peer", &path("fault"), says, "write peer = and the name of another target");
        }
        (Some(_), false) => {
            let says = format!("{} has no peer that could be named", method.fault);
            notes.error("peer", &path("peer"), says, "remove it");
        }
        (Some(peer), true) => match experiment.targets.get(peer) {
            None => {
                let says = format!("there is no target {peer:?}");
                notes.error("target", &path("peer"), says, format!("name one of: {}", known()));
            }
            Some(other) if other.role == target.role || !method.fault.roles().contains(&other.role) => {
                let says = format!("a {} cannot be cut off from a {}", target.role, other.role);
                notes.error("peer", &path("peer"), says, "the two sides are two of holder, backup, witness");
            }
            Some(_) => {}
        },
        (None, false) => {}
    }
}

fn times(method: &Method, path: &dyn Fn(&str) -> String, notes: &mut Notes<'_>) {
    if method.duration == Span::ZERO || method.duration > DURATION_MAX {
        let says = format!("a duration of {} is not between 1ms and {DURATION_MAX}", method.duration);
        notes.error(
            "duration",
            &path("duration"),
            says,
            "it becomes the fault's own expiry; split longer ones",
        );
    }
    if method.delay > DURATION_MAX {
        notes.error(
            "delay",
            &path("delay"),
            format!("a delay of {}", method.delay),
            format!("at most {DURATION_MAX}"),
        );
    }
    let within = method.verify.within;
    if within == Span::ZERO || within > method.duration {
        let says =
            format!("its effect is looked for within {within}, the fault's duration is {}", method.duration);
        notes.error("verify", &path("verify.within"), says, "more than 0s, and no more than duration");
    }
}

fn parameters(
    experiment: &Experiment,
    method: &Method,
    path: &dyn Fn(&str) -> String,
    notes: &mut Notes<'_>,
) {
    let fault = method.fault;
    let wants = [
        ("service", method.service.is_some(), None),
        ("leave_mib", method.leave_mib.is_some(), Some(Fault::ReplicaDiskFull)),
        ("kib_per_second", method.kib_per_second.is_some(), Some(Fault::ReplicationLag)),
        ("days", method.days.is_some(), Some(Fault::CertificateExpiring)),
    ];
    for (key, is_there, needed_by) in wants {
        let fits = match needed_by {
            Some(needed) => fault == needed,
            None => matches!(fault, Fault::ContainerKill | Fault::ContainerUnhealthy),
        };
        if is_there && !fits {
            notes.error("parameter", &path(key), format!("{fault} has no {key}"), "remove it");
        }
        if !is_there && needed_by == Some(fault) {
            notes.error(
                "parameter",
                &path("fault"),
                format!("{fault} needs {key}"),
                format!("write {key} = "),
            );
        }
    }
    if method.leave_mib.is_some_and(|mib| mib < LEAVE_MIN_MIB) {
        let says = "too little is left for what shares the file system";
        notes.error("parameter", &path("leave_mib"), says, format!("leave at least {LEAVE_MIN_MIB}"));
    }
    if method.kib_per_second == Some(0) {
        notes.error(
            "parameter",
            &path("kib_per_second"),
            "nothing would pass",
            "for a cut there is partition-pair",
        );
    }
    let is_first = experiment.method.first().is_some_and(|first| std::ptr::eq(first, method));
    if is_first && method.start == Start::Standing {
        notes.error("start", &path("start"), "nothing stands before the first method", "remove it");
    }
}

/// Whether a fault takes a vote away while it stands.
const fn takes_vote(fault: Fault) -> bool {
    match fault {
        Fault::AgentKill
        | Fault::AgentFreeze
        | Fault::WitnessLoss
        | Fault::Partition
        | Fault::PartitionPair
        | Fault::OneWay
        | Fault::PowerOff => true,
        Fault::Rehearsal
        | Fault::CertificateExpiring
        | Fault::Switchover
        | Fault::MysqldKill
        | Fault::MysqldFreeze
        | Fault::RedisKill
        | Fault::ContainerKill
        | Fault::ContainerUnhealthy
        | Fault::ReplicationLag
        | Fault::ReplicaDiskFull => false,
    }
}

/// What two methods do that stand at the same time.
fn together(experiment: &Experiment, notes: &mut Notes<'_>) {
    let mut group: Vec<&Method> = Vec::new();
    for (index, method) in experiment.method.iter().enumerate() {
        if method.start == Start::Healed {
            group.clear();
        }
        let path = format!("method[{index}].fault");
        if takes_vote(method.fault) && group.iter().any(|before| takes_vote(before.fault)) {
            let says = "two of the three agents are away at the same time: nothing can be decided";
            notes.error("no-majority", &path, says, "let the first one heal: start = \"healed\"");
        }
        let role = |method: &Method| experiment.targets.get(&method.target).map(|target| target.role);
        let both = |roles: [Option<Role>; 2]| {
            roles.contains(&Some(Role::Holder)) && roles.contains(&Some(Role::Backup))
        };
        if group.iter().any(|before| both([role(before), role(method)])) {
            let says = "holder and backup are hit at the same time";
            let hint = "no takeover can start while both are: the outage lasts as long as the holder's fault";
            notes.warn("both-data-nodes", &path, says, hint);
        }
        group.push(method);
    }
}
