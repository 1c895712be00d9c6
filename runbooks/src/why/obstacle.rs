//! Obstacles of a node that are no reason of any decision, and so have no code: they begin with words that stay.
//!
//! They travel as text in a report ([`crate::observe::NodeReport::obstacles`]), beside those that are the words of a
//! [`super::Why`]. `docs/why.md` is made from this list.

use std::fmt;

/// Why a node could not hold the baton now, where that is no [`super::Why`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The local MySQL has not been seen yet, or answers with errors that say nothing certain.
    MysqlNotAnswering,
    /// The replica's applier has ended with an error.
    ApplierStopped,
    /// The node was given up by a force.
    Outranked,
    /// Two survivors were forced to one generation.
    Forked,
    /// The log has what the node's agent does not know.
    NewerLog,
    /// A resync is under way, or was interrupted.
    BeingReplaced,
}

impl Obstacle {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 6] = [
        Self::MysqlNotAnswering,
        Self::ApplierStopped,
        Self::Outranked,
        Self::Forked,
        Self::NewerLog,
        Self::BeingReplaced,
    ];

    /// The words with which it begins. Agents of other versions look at them: they stay.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MysqlNotAnswering => "mysql-not-answering",
            Self::ApplierStopped => "applier stopped with error",
            Self::Outranked => "its log is of a lower generation",
            Self::Forked => "another node was forced to the same generation",
            Self::NewerLog => "its agent does not know what the log has",
            Self::BeingReplaced => {
                "its database is being replaced by a copy (resync), or that was interrupted"
            }
        }
    }

    /// What it means and what the operator does, for the page.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::MysqlNotAnswering => {
                "the agent has just started and has not seen the local MySQL yet; or MySQL answers the agent with errors that do not \
                 say that it is dead. If it stays so: MySQL's own log, and `journalctl -u baton` on that node"
            }
            Self::ApplierStopped => {
                "the replica does not apply what it received; number and text are MySQL's own. Make room if it lacks space, and it goes \
                 on when replication is started again; if it has diverged: `baton resync NODE`"
            }
            Self::Outranked => {
                "an operator has forced a cluster of a higher generation, and this node was given up. `baton rejoin NODE`, on any node \
                 (operating/lost-quorum.md)"
            }
            Self::Forked => {
                "two survivors were forced, each without the other, and nobody can tell which of them counts. `baton force` on the one \
                 that goes on, then `baton rejoin` for the other (operating/lost-quorum.md)"
            }
            Self::NewerLog => {
                "an agent of a newer version has written what this one cannot carry out. Upgrade the agent of that node \
                 (operating/upgrade.md); do not move its log away"
            }
            Self::BeingReplaced => {
                "the node has no whole database. While a resync is under way, wait for it: `baton status` shows how far it is. If it was \
                 interrupted: `baton resync NODE` once more (operating/resync.md)"
            }
        }
    }

    /// It, with what is known about it: `about` follows its words as it is.
    #[must_use]
    pub fn with(self, about: impl fmt::Display) -> String {
        format!("{}{about}", self.as_str())
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_begins_as_another_one_does() {
        for one in Obstacle::ALL {
            let alike = Obstacle::ALL.into_iter().filter(|other| other.as_str().starts_with(one.as_str()));
            assert_eq!(alike.collect::<Vec<_>>(), [one]);
        }
    }
}
