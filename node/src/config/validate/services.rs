//! `[[service]]`: what each consists of, in the order in which they start.

use std::collections::BTreeSet;

use super::super::raw::{RawConfig, RawService};
use super::super::{Check, RunsOn, Service, Workload};
use super::{NAME_RULE, Problems, is_plain_name};

pub(super) fn services(raw: &RawConfig, problems: &mut Problems) -> Vec<Service> {
    let mut services = Vec::new();
    for service in &raw.services {
        if !is_plain_name(&service.name) {
            problems.add("service.name", &service.name, "is not a plain name", NAME_RULE);
        }
        if raw.services.iter().filter(|other| other.name == service.name).count() > 1 {
            problems.add(
                "service.name",
                &service.name,
                "is used twice",
                "give each service a name of its own",
            );
        }
        check_after(raw, service, problems);
        check_ports(service, problems);
        let workload = match (&service.container, &service.compose_project) {
            (Some(container), None) => Workload::Container(container.clone()),
            (None, Some(project)) => Workload::ComposeProject(project.clone()),
            (None, None) | (Some(_), Some(_)) => {
                problems.add(
                    "service.container",
                    &service.name,
                    "has not exactly one of container and compose_project",
                    "name either the container or the Compose project",
                );
                continue;
            }
        };
        services.push(Service {
            name: service.name.clone(),
            workload,
            runs_on: service.runs_on.unwrap_or(RunsOn::Holder),
            after: service.after.clone().unwrap_or_default(),
            needs_database: service.needs_database.unwrap_or(true),
            ports: service.ports.clone().unwrap_or_default(),
            check: check(service, problems),
        });
    }
    if !raw.services.is_empty() && raw.docker.is_none() {
        problems.add("docker", "", "there is a [[service]] but no [docker]", "add the section [docker]");
    }
    in_order(services, problems)
}

fn check(service: &RawService, problems: &mut Problems) -> Option<Check> {
    let text = service.check.as_deref()?;
    let key = format!("service.check ({})", service.name);
    if service.runs_on == Some(RunsOn::Replica) {
        problems.add(
            key,
            text,
            "would be tried at the holder, and this service runs on the replica",
            "remove the key",
        );
        return None;
    }
    let check = text.parse();
    if check.is_err() {
        problems.add(
            key,
            text,
            "is not a check",
            "write \"tcp:PORT\" or \"http://:PORT/PATH\", for instance \"http://:8080/health\"",
        );
    }
    check.ok()
}

/// A guarded port is open under a lease only, and the replica has none.
fn check_ports(service: &RawService, problems: &mut Problems) {
    let ports: Vec<String> = service.ports.iter().flatten().map(ToString::to_string).collect();
    if service.runs_on == Some(RunsOn::Replica) && !ports.is_empty() {
        problems.add(
            format!("service.ports ({})", service.name),
            ports.join(", "),
            "would be closed at all times: this service runs on the replica, and ports are open under a lease only",
            "remove the key",
        );
    }
}

fn check_after(raw: &RawConfig, service: &RawService, problems: &mut Problems) {
    for name in service.after.iter().flatten() {
        let key = format!("service.after ({})", service.name);
        match raw.services.iter().find(|other| other.name == *name) {
            None => problems.add(key, name, "is not the name of a [[service]]", "name a declared service"),
            Some(other) if other.runs_on != service.runs_on => problems.add(
                key,
                name,
                "runs on the other role, so it would be waited for in vain",
                "give both the same runs_on, or remove it from the list",
            ),
            Some(other) if other.needs_database == Some(false) || service.needs_database != Some(false) => {}
            Some(_) => problems.add(
                key,
                name,
                "needs the database, and this service says that it does not",
                "set needs_database = true here too",
            ),
        }
    }
}

/// Sorts so that each service comes after those that it waits for; the file's order otherwise.
fn in_order(mut left: Vec<Service>, problems: &mut Problems) -> Vec<Service> {
    let declared: BTreeSet<String> = left.iter().map(|service| service.name.clone()).collect();
    let mut sorted: Vec<Service> = Vec::new();
    while !left.is_empty() {
        let is_done =
            |name: &String| !declared.contains(name) || sorted.iter().any(|done| done.name == *name);
        let Some(free) = left.iter().position(|service| service.after.iter().all(is_done)) else {
            let names: Vec<&str> = left.iter().map(|service| service.name.as_str()).collect();
            problems.add(
                "service.after",
                names.join(", "),
                "wait for each other in a circle",
                "break the circle",
            );
            return sorted;
        };
        sorted.push(left.remove(free));
    }
    sorted
}
