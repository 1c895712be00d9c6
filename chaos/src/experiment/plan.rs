//! What a drill would do, as text: nothing is done, and what is shown is what the runner goes by.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Experiment, Fault, Figure, Heal, Method, Phase, Probe, Role, Span, Start, Stop};
use crate::history::Kind;

/// Which node has which role at the moment.
pub type Roles = BTreeMap<Role, Vec<String>>;

/// Wide enough for every label that stands at the left.
const LABEL: usize = 11;

/// The plan of a drill. Without `roles`, targets stay roles.
#[must_use]
pub fn plan(experiment: &Experiment, roles: Option<&Roles>) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}: {}", experiment.id, experiment.title);
    let level = experiment.level;
    line(&mut text, "level", &format!("{level} ({})", level.word()));
    for (name, target) in &experiment.targets {
        let mut says = format!("{name} = {} x {}", target.count, target.role);
        if let Some(roles) = roles {
            let nodes = roles.get(&target.role).filter(|nodes| !nodes.is_empty());
            let nodes = nodes.map_or("nobody".to_owned(), |nodes| nodes.join(", "));
            let _ = write!(says, ", now {nodes}");
        }
        line(&mut text, "target", &says);
    }
    for phase in Phase::ALL {
        let budget = experiment.slo.budgets.of(phase);
        line(&mut text, "budget", &format!("{} {budget}", phase.name()));
    }
    slo(experiment, &mut text);
    for state in &experiment.steady_state {
        let modes: Vec<&str> = state.mode.iter().map(|mode| mode.name()).collect();
        let says =
            format!("{} ({} {}), {}", state.name, state.tolerance, state.probe.unit(), modes.join(", "));
        line(&mut text, "must hold", &says);
    }
    for stop in &experiment.stop_when {
        line(&mut text, "stop when", &stopping(stop.condition, stop.longer_than));
    }
    for (index, method) in experiment.method.iter().enumerate() {
        let _ = writeln!(text, "\n{}. {} on {}", index + 1, method.fault, whom(method));
        steps(experiment, method, roles, &mut text);
    }
    let _ = writeln!(text);
    line(
        &mut text,
        "always",
        "every fault is healed, however the drill ends; a switchover or takeover is not taken back",
    );
    let wait = experiment.after.wait_redundancy;
    let has_services = !experiment.wanted_after(Probe::UnhealthyServices).is_empty();
    let services = if has_services { ", and the services are as they must be" } else { "" };
    let says = format!("waits up to {wait} until the backup is in sync and every agent is heard{services}");
    line(&mut text, "then", &says);
    line(&mut text, "at most", &format!("{} altogether", longest(experiment)));
    text
}

fn line(text: &mut String, label: &str, says: &str) {
    let _ = writeln!(text, "  {label:<LABEL$}{says}");
}

fn slo(experiment: &Experiment, text: &mut String) {
    let slo = &experiment.slo;
    let redis = slo.outage.redis.map(|outage| format!(", redis {outage}")).unwrap_or_default();
    line(text, "outage", &format!("at most mysql {}{redis}", slo.outage.mysql));
    for figure in Figure::ALL {
        let limit = |kind: Kind| slo.limit(figure, kind).map(|limit| format!("{kind} {limit}"));
        let limits: Vec<String> = Kind::ALL.into_iter().filter_map(limit).collect();
        if !limits.is_empty() {
            line(text, "limit", &format!("{} at most {}", figure.name(), limits.join(", ")));
        }
    }
    let redis = slo.lost_acknowledged.redis.map_or("counted".to_owned(), |lost| lost.to_string());
    let says = format!("acknowledged writes of mysql {}, of redis {redis}", slo.lost_acknowledged.mysql);
    line(text, "lost", &says);
}

fn stopping(condition: Stop, longer_than: Option<Span>) -> String {
    let length = longer_than.unwrap_or_default();
    match condition {
        Stop::Outage => format!("one of the databases acknowledges no write for {length}"),
        Stop::TwoHolders => {
            "two machines answer ARP for the virtual IP, or two nodes say for longer than 1s that they serve"
                .into()
        }
        Stop::AgentSilent => format!("an agent that is not hit is not heard for {length}"),
        Stop::NeedsOperator => "a run needs an operator".into(),
        Stop::UnplannedRun => "a run begins that no method explains".into(),
    }
}

fn whom(method: &Method) -> String {
    match &method.peer {
        Some(peer) => format!("{} against {peer}", method.target),
        None => method.target.clone(),
    }
}

fn steps(experiment: &Experiment, method: &Method, roles: Option<&Roles>, text: &mut String) {
    let fault = method.fault;
    let start = match method.start {
        Start::Healed => "when everything before is healed and redundancy is back",
        Start::Standing => "while what is before it stands",
    };
    if method.start == Start::Standing || method.delay > Span::ZERO {
        line(text, "starts", &format!("{start}, after a pause of {}", method.delay));
    }
    line(text, "resolve", &resolved(experiment, method, roles));
    match fault.heal() {
        Heal::Nothing => {}
        Heal::Kernel => {
            line(text, "arm", "rules in the kernel that drop nothing yet");
            line(text, "verify", "the node says so only when the kernel lists them");
            let span = method.duration;
            let lapses =
                format!("what they drop lapses after {span}, as the node reads back when it injects");
            line(text, "", &lapses);
        }
        Heal::Watchdog => {
            line(text, "arm", &format!("a watchdog of its own process that heals after {}", method.duration));
            line(text, "verify", "the node says so only when the watchdog has said that it is ready");
        }
        Heal::Supervisor => {
            line(text, "arm", "nothing: what is killed is started again by its supervisor");
        }
        Heal::Site => line(text, "arm", "nothing heals it by itself: somebody has to be there"),
    }
    line(text, "inject", fault.what());
    for says in parameters(method) {
        line(text, "", &says);
    }
    let verify = method.verify;
    let says = format!("within {}: {}; otherwise INCONCLUSIVE", verify.within, verify.expect.what());
    line(text, "effect", &says);
    let heal = match (fault.stands(), fault) {
        (true, _) => format!("after {}, and it is seen that nothing is left", method.duration),
        (false, Fault::Rehearsal | Fault::CertificateExpiring) => "nothing to heal".into(),
        (false, Fault::ContainerKill) => {
            format!(
                "nothing stands; the service must be healthy again, which is waited for, up to {}",
                method.duration
            )
        }
        (false, _) => format!("nothing stands; its outcome is waited for, up to {}", method.duration),
    };
    line(text, "heal", &heal);
}

fn resolved(experiment: &Experiment, method: &Method, roles: Option<&Roles>) -> String {
    let of = |name: &str| {
        let Some(target) = experiment.targets.get(name) else { return format!("no target {name}") };
        let nodes = roles.and_then(|roles| roles.get(&target.role)).filter(|nodes| !nodes.is_empty());
        match nodes {
            Some(nodes) => format!("{} ({} now)", target.role, nodes.join(", ")),
            None => target.role.to_string(),
        }
    };
    let peer = method.peer.as_deref().map(|peer| format!(" and {}", of(peer))).unwrap_or_default();
    format!("{}{peer}; asked anew at that moment", of(&method.target))
}

fn parameters(method: &Method) -> Vec<String> {
    let mut says = Vec::new();
    if let Some(service) = &method.service {
        says.push(format!("service {service}"));
    }
    if let Some(mib) = method.leave_mib {
        says.push(format!("{mib} MiB are left"));
    }
    if let Some(kib) = method.kib_per_second {
        says.push(format!("{kib} KiB per second pass"));
    }
    if let Some(days) = method.days {
        says.push(format!("fewer than {days} days left fail it"));
    }
    says
}

/// The longest that a drill can take: every fault for its duration, every wait to its end.
#[must_use]
pub fn longest(experiment: &Experiment) -> Span {
    let methods = experiment.method.iter();
    let standing = methods.fold(Span::ZERO, |sum, method| sum.plus(method.delay).plus(method.duration));
    // Redundancy is waited for after the last method, and before every one that starts when all is healed.
    let waits = 1 + experiment.method.iter().skip(1).filter(|method| method.start == Start::Healed).count();
    (0..waits).fold(standing, |sum, _| sum.plus(experiment.after.wait_redundancy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::shipped;

    #[test]
    fn services_are_waited_for_where_the_file_wants_something_of_them() {
        let says = |id: &str| plan(&shipped::named(id).unwrap().experiment, None);
        let waits = "every agent is heard, and the services are as they must be\n";
        assert!(says("switchover-and-back").contains(waits));
        assert!(says("rehearsal").contains("every agent is heard\n"));
    }
}
