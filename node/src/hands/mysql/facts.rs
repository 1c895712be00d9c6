//! The probe of the local server: everything that the detector wants to know, in one round trip.
//!
//! It runs several times a second on a session that stays open. It asks nothing that waits for a commit: with the
//! file system frozen, the disk full or commits waiting for a semi-sync acknowledgement it is answered at once,
//! which is why it says nothing about whether the server can *write*. That is [`super::Mysql::write_probe`]'s part.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use baton_runbooks::model::Instance;
use baton_runbooks::observe::{Flavour, MysqlFacts, ProbeFailure, ReplicationFacts, SemiSyncFacts};
use mysql_async::Row;
use tokio::time::Instant;

use super::flavour::{self, SEMI_SYNC_TIMEOUT_MS_MIN};
use super::session::{Answer, Session, cell};
use super::{Mysql, MysqlError, Purpose, gtid};

/// Probes without the canary, after the canary's table was found missing, before it is looked for again.
/// The table comes by replication or by `ensure_schema`; a failing statement for each probe would fill the counters.
const WITHOUT_CANARY: u32 = 5;

impl Mysql {
    /// Looks at the server. Answers within `deadline`, whatever state the server is in.
    ///
    /// # Errors
    /// The [`ProbeFailure`] that the detector tells verdicts by: nobody listens, no answer, no connection left,
    /// wrong credentials, or the server's other words.
    pub async fn probe(&self, deadline: Duration) -> Result<MysqlFacts, ProbeFailure> {
        let started = Instant::now();
        match self.probe_until(started + deadline).await {
            Ok(facts) => Ok(facts),
            // Whatever part of the probe ran out of time: what the operator wants to read is the probe's own deadline.
            Err(MysqlError::Timeout { .. }) => Err(ProbeFailure::Timeout {
                after_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            }),
            Err(error) => Err(error.as_probe_failure()),
        }
    }

    /// [`Mysql::probe`] with the hands' own error.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn facts(&self, deadline: Duration) -> Result<MysqlFacts, MysqlError> {
        self.probe_until(Instant::now() + deadline).await
    }

    async fn probe_until(&self, end: Instant) -> Result<MysqlFacts, MysqlError> {
        if let Some((mut idle, _)) = self.shared.lot.take(Purpose::Probe) {
            match self.probe_on(&mut idle, end).await {
                // The connection broke or had been closed meanwhile: a new one tells what is the matter.
                Err(MysqlError::Broken { .. }) => {}
                out => {
                    self.park(Purpose::Probe, idle);
                    return out;
                }
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        let mut session = Session::dial(self.access(), Purpose::Probe, left).await?;
        let out = self.probe_on(&mut session, end).await;
        self.park(Purpose::Probe, session);
        out
    }

    async fn probe_on(&self, session: &mut Session, end: Instant) -> Result<MysqlFacts, MysqlError> {
        let what = "probe";
        let access = self.access();
        let own = [access.user.as_str(), access.replication_user.as_str()];
        let skip = &self.shared.probes_without_canary;
        let with_canary = skip.load(Ordering::Relaxed) == 0;
        let schema = with_canary.then_some(access.schema.as_str());
        let left = || end.saturating_duration_since(Instant::now());
        let first = session.query(what, flavour::probe(session.flavour, schema, own), left()).await;
        let answers = match first {
            // ER_BAD_DB_ERROR, ER_NO_SUCH_TABLE: the agent's tables are not there yet.
            Err(MysqlError::Server { code: 1049 | 1146, .. }) if with_canary => {
                skip.store(WITHOUT_CANARY, Ordering::Relaxed);
                session.query(what, flavour::probe(session.flavour, None, own), left()).await?
            }
            out => {
                if !with_canary {
                    // Several probes may run at once; the count must not go below 0.
                    let _ =
                        skip.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
                }
                out?
            }
        };
        read(&self.shared.boot, session, &answers)
    }
}

fn read(boot: &str, session: &Session, answers: &[Answer]) -> Result<MysqlFacts, MysqlError> {
    let short = || MysqlError::answer("probe", "an answer of the probe is missing");
    let [main, status, replica, rest @ ..] = answers else { return Err(short()) };
    let row = main.rows.first().ok_or_else(short)?;
    let flavour = session.flavour;
    let executed: String = cell(row, "executed").unwrap_or_default();
    let position: String = cell(row, "position").unwrap_or_default();
    let replication = replica.rows.first().map(|row| replication(flavour, row, &executed)).transpose()?;
    let thread = |column: &str| cell::<u64>(row, column).map_or_else(String::new, |id| id.to_string());
    let (io, sql) = (thread("io_thread"), thread("sql_thread"));
    let threads = if io.is_empty() && sql.is_empty() { String::new() } else { format!("{io}/{sql}") };
    let backlog =
        replication.as_ref().map_or(Ok(0), |facts| gtid::backlog(flavour, &facts.received, &position));
    Ok(MysqlFacts {
        flavour,
        version: session.version.clone(),
        instance: Instance { boot: boot.to_owned(), server: session.server.to_string(), threads },
        read_only: flavour::is_on(&cell::<String>(row, "read_only").unwrap_or_default()),
        semi_sync: semi_sync(main, status, rest),
        canary_applied: cell(row, "canary").unwrap_or(0),
        apply_backlog: backlog.ok(),
        sessions: cell(row, "sessions").unwrap_or(0),
        executed: one_line(&executed),
        position: one_line(&position),
        replication,
    })
}

/// MySQL breaks long sets into lines.
fn one_line(set: &str) -> String {
    set.replace('\n', "")
}

/// Replication status of the default channel.
pub(super) fn replication(
    flavour: Flavour,
    row: &Row,
    executed: &str,
) -> Result<ReplicationFacts, MysqlError> {
    let columns = flavour::replica_columns(flavour);
    let text = |column: &str| cell::<String>(row, column).unwrap_or_default();
    let number = |column: &str| cell::<u32>(row, column).unwrap_or(0);
    let received = text(columns.received);
    // What MySQL retrieved counts from the last change of source; what was executed before was received as well.
    let received = match flavour {
        Flavour::Mariadb => received,
        Flavour::Mysql => gtid::union(flavour, &received, executed)
            .map_err(|bad| MysqlError::answer("replication status", bad.to_string()))?,
    };
    let (io_error, sql_error) = (text("Last_IO_Error"), text("Last_SQL_Error"));
    Ok(ReplicationFacts {
        source_host: text(columns.host),
        source_port: cell(row, columns.port).unwrap_or(0),
        io_running: text(columns.io) == "Yes",
        receiver_alive: !matches!(text(columns.io).as_str(), "" | "No"),
        sql_running: text(columns.sql) == "Yes",
        io_errno: number("Last_IO_Errno"),
        sql_errno: number("Last_SQL_Errno"),
        // An applier that stopped matters more than a source that cannot be reached.
        error: if sql_error.is_empty() { io_error } else { sql_error },
        received,
    })
}

fn semi_sync(main: &Answer, status: &Answer, variables: &[Answer]) -> SemiSyncFacts {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for row in status.rows.iter().chain(variables.iter().flat_map(|answer| &answer.rows)) {
        let (name, value): (Option<String>, Option<String>) =
            (cell(row, "Variable_name"), cell(row, "Value"));
        values.insert(flavour::semi_sync_name(&name.unwrap_or_default()), value.unwrap_or_default());
    }
    for name in ["source_enabled", "replica_enabled", "wait_point", "wait_no_replica", "timeout"] {
        if let Some(value) = main.get::<String>(name) {
            values.insert(name.to_owned(), value);
        }
    }
    let text = |name: &str| values.get(name).map_or("", String::as_str);
    let on = |name: &str| flavour::is_on(text(name));
    let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
    SemiSyncFacts {
        source_enabled: on("source_enabled"),
        replica_enabled: on("replica_enabled"),
        source_on: on("source_status"),
        replica_on: on("replica_status"),
        clients: number("source_clients"),
        waiting: number("source_wait_sessions"),
        yes_tx: number("source_yes_tx"),
        no_tx: number("source_no_tx"),
        variables_as_wanted: text("wait_point").eq_ignore_ascii_case("AFTER_SYNC")
            && on("wait_no_replica")
            && number("timeout") >= SEMI_SYNC_TIMEOUT_MS_MIN,
    }
}
