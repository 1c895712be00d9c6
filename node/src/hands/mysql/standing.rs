//! A short look at the server: what an effect on the path of a takeover or a switchover is judged by.
//!
//! The probe tells more, and has its price: for semi-sync's status, and once more for its variables, MySQL goes through all
//! that it has, and the threads are counted. On the path a look comes between any two effects, while nobody is served.

use std::time::Duration;

use baton_runbooks::observe::{Flavour, ReplicationFacts};
use tokio::time::Instant;

use super::facts::replication;
use super::flavour;
use super::session::{Answer, Session, cell};
use super::{Mysql, MysqlError, Purpose, gtid};

/// Where a server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its family.
    pub flavour: Flavour,
    /// It refuses writes of clients, and says so.
    pub read_only: bool,
    /// What is applied, in the family's notation, as the probe tells it.
    pub position: String,
    /// How it follows, if it follows.
    pub replication: Option<ReplicationFacts>,
    /// Transactions that are received and not applied; `None`: not known.
    pub backlog: Option<u64>,
}

impl Standing {
    /// Clients may write here and nothing is applied from elsewhere.
    #[must_use]
    pub fn is_promoted(&self) -> bool {
        !self.read_only && !self.replication.as_ref().is_some_and(|replica| replica.sql_running)
    }
}

impl Mysql {
    /// Where the server stands, in one round trip. What is received was looked at after what is applied.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn standing(&self, deadline: Duration) -> Result<Standing, MysqlError> {
        let (session, seen) = self.stands_on(Instant::now() + deadline).await?;
        self.park(Purpose::Control, session);
        Ok(seen)
    }

    /// The same with the session that told it: whoever acts on that one acts on the very server that was judged, or fails.
    pub(super) async fn stands_on(&self, end: Instant) -> Result<(Session, Standing), MysqlError> {
        match self.standing_until(end).await {
            // The session broke or had been closed meanwhile: a new one tells what is the matter.
            Err(MysqlError::Broken { .. }) => self.standing_until(end).await,
            out => out,
        }
    }

    async fn standing_until(&self, end: Instant) -> Result<(Session, Standing), MysqlError> {
        let left = || end.saturating_duration_since(Instant::now());
        let mut session = self.session(Purpose::Control, left()).await?;
        let flavour = session.flavour;
        let answers = session.query(LOOK, flavour::standing(flavour).to_owned(), left()).await;
        match answers.and_then(|answers| read(flavour, &answers)) {
            Ok(seen) => Ok((session, seen)),
            Err(error) => {
                self.park(Purpose::Control, session);
                Err(error)
            }
        }
    }

    /// True if semi-sync's source side is switched on.
    ///
    /// # Errors
    /// [`MysqlError`].
    pub async fn is_semi_sync_source(&self, deadline: Duration) -> Result<bool, MysqlError> {
        let end = Instant::now() + deadline;
        let mut session = self.session(Purpose::Control, deadline).await?;
        let out = self.is_source_on(&mut session, end).await;
        self.park(Purpose::Control, session);
        out
    }

    /// The same, told by `session`.
    pub(super) async fn is_source_on(&self, session: &mut Session, end: Instant) -> Result<bool, MysqlError> {
        let what = "read semi-sync source";
        let left = || end.saturating_duration_since(Instant::now());
        let ask = flavour::source_enabled(session.flavour).to_owned();
        let answers = match session.query(what, ask, left()).await {
            Ok(answers) => answers,
            // ER_UNKNOWN_SYSTEM_VARIABLE: the plugin is not there, or one that calls it otherwise.
            Err(error) if error.is_code(1193) => {
                return Ok(self.facts(left()).await?.semi_sync.source_enabled);
            }
            Err(error) => return Err(error),
        };
        let answer = answers.first().filter(|answer| !answer.rows.is_empty());
        let answer = answer.ok_or_else(|| MysqlError::answer(what, "no row"))?;
        Ok(flavour::is_on(&answer.text("source_enabled")))
    }
}

/// What the look is called in errors.
const LOOK: &str = "look";

fn read(flavour: Flavour, answers: &[Answer]) -> Result<Standing, MysqlError> {
    let [own, status] = answers else {
        return Err(MysqlError::answer(LOOK, "an answer is missing"));
    };
    let row = own.rows.first().ok_or_else(|| MysqlError::answer(LOOK, "no row"))?;
    let position = cell::<String>(row, "position").unwrap_or_default();
    // On MySQL what is executed was received, too, and is what is applied.
    let replication = status.rows.first().map(|row| replication(flavour, row, &position)).transpose()?;
    let backlog = match &replication {
        Some(replica) => gtid::backlog(flavour, &replica.received, &position).ok(),
        None => Some(0),
    };
    Ok(Standing {
        flavour,
        read_only: flavour::is_on(&cell::<String>(row, "read_only").unwrap_or_default()),
        position: position.replace('\n', ""),
        replication,
        backlog,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promoted_is_who_lets_clients_write_and_applies_nothing() {
        let replica = |sql_running| ReplicationFacts {
            source_host: "10.77.0.2".into(),
            source_port: 3306,
            io_running: true,
            receiver_alive: true,
            sql_running,
            io_errno: 0,
            sql_errno: 0,
            error: String::new(),
            received: String::new(),
        };
        let standing = |read_only, replication| Standing {
            flavour: Flavour::Mysql,
            read_only,
            position: String::new(),
            replication,
            backlog: Some(0),
        };
        assert!(standing(false, None).is_promoted());
        assert!(standing(false, Some(replica(false))).is_promoted());
        assert!(!standing(false, Some(replica(true))).is_promoted(), "it still applies");
        assert!(!standing(true, Some(replica(false))).is_promoted(), "clients may not write");
        assert!(!standing(true, None).is_promoted());
    }
}
