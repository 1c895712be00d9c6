//! One-shot probes: each looks once, within its deadline, and gives an observation for the detector.
//!
//! When a probe runs, how often, and what its result means are not decided here: the driver schedules, the
//! detector judges. Each kind of probe has at most one look in flight; the driver sees to that.

use std::time::Duration;

use baton_runbooks::observe::Observation;

use crate::hands::containers::{Containers, Target};
use crate::hands::mysql::Mysql;
use crate::hands::redis::Redis;

pub mod disk;

/// Looks at the local MySQL or MariaDB.
pub async fn mysql(hands: &Mysql, deadline: Duration) -> Observation {
    match hands.probe(deadline).await {
        Ok(facts) => Observation::Mysql { facts: facts.into() },
        Err(failure) => Observation::MysqlFailed { failure },
    }
}

/// Whether the local MySQL or MariaDB can commit. On the primary only.
pub async fn mysql_write(hands: &Mysql, deadline: Duration) -> Observation {
    match hands.write_probe(deadline).await {
        Ok(took_ms) => Observation::MysqlWrote { took_ms },
        Err(error) => Observation::MysqlWriteFailed { failure: error.as_probe_failure() },
    }
}

/// Looks at the local Redis.
pub async fn redis(hands: &Redis, deadline: Duration) -> Observation {
    match hands.probe(deadline).await {
        Ok(facts) => Observation::Redis { facts },
        Err(failure) => Observation::RedisFailed { failure },
    }
}

/// Looks at the disk of the data directory.
pub async fn disk(probe: &disk::DiskProbe, deadline: Duration) -> Observation {
    Observation::Disk { facts: probe.look(deadline).await }
}

/// Looks at a role-bound service.
pub async fn service(hands: &Containers, name: &str, target: &Target, deadline: Duration) -> Observation {
    Observation::Service { name: name.to_owned(), state: hands.state(target, deadline).await }
}
