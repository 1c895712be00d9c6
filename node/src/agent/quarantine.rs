//! Quarantine: this node has transactions that the holder lacks, is not attached because of them, and saves them.
//!
//! The reconciler says what came of each attempt to attach. A refusal counts once it has stood for a while with the same
//! transactions: the holder's report may be older than what this node received last. Then the export runs beside
//! everything else, once per set of transactions; what failed is tried again. What is known here goes into this node's
//! reports, so that `baton status` says it on every node.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_runbooks::observe::{Flavour, Quarantine};

use crate::chain::chain;
use crate::hands::mysql::export::{self, Export};
use crate::hands::mysql::{Mysql, gtid};

/// For how long the same transactions must be refused. Longer than any report is taken for fresh.
const STANDS_AFTER: Duration = Duration::from_secs(3);
/// What failed is tried again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// Time for one export. Binary logs are read at tens of megabytes a second.
const EXPORT_DEADLINE: Duration = Duration::from_secs(1800);

/// What is known of this node's quarantine. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Ward {
    dir: PathBuf,
    case: Arc<Mutex<Option<Case>>>,
}

/// One set of transactions that is refused.
#[derive(Debug)]
struct Case {
    extra: String,
    since: Instant,
    transactions_max: u64,
    export: Option<Export>,
    problem: Option<String>,
    is_busy: bool,
    tried_at: Option<Instant>,
}

impl Case {
    fn stands(&self) -> bool {
        self.since.elapsed() >= STANDS_AFTER
    }

    fn is_to_be_exported(&self) -> bool {
        let rested = self.tried_at.is_none_or(|at| at.elapsed() >= AGAIN);
        self.stands() && self.export.is_none() && !self.is_busy && rested
    }
}

impl Ward {
    /// Nothing is known yet. Exports go to `quarantine` in the state directory.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("quarantine"), case: Arc::default() }
    }

    /// The attachment was refused because of `extra`. Begins the export when it is time for it.
    pub(crate) fn refused(&self, mysql: &Mysql, flavour: Flavour, extra: &str) {
        let now = Instant::now();
        let mut case = self.case.lock().unwrap_or_else(PoisonError::into_inner);
        if case.as_ref().is_none_or(|case| case.extra != extra) {
            *case = Some(self.open(flavour, extra, now));
        }
        let Some(case) = case.as_mut().filter(|case| case.is_to_be_exported()) else { return };
        case.is_busy = true;
        case.tried_at = Some(now);
        tracing::warn!(
            extra,
            "in quarantine: this server has transactions that the holder lacks; saving them"
        );
        tokio::spawn(self.clone().save(mysql.clone(), flavour, extra.to_owned()));
    }

    /// This node follows, or serves itself: there is nothing that the holder lacks.
    pub(crate) fn discharged(&self) {
        *self.case.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the others are to be told.
    pub(crate) fn facts(&self) -> Option<Quarantine> {
        let case = self.case.lock().unwrap_or_else(PoisonError::into_inner);
        case.as_ref().filter(|case| case.stands()).map(|case| Quarantine {
            extra: case.extra.clone(),
            transactions: case.export.as_ref().map_or(case.transactions_max, |export| export.transactions),
            export: case.export.as_ref().map(Export::facts),
            problem: case.problem.clone(),
        })
    }

    /// The transactions that are refused, whether that stands or not, and where they are saved.
    pub(crate) fn case(&self) -> Option<(String, Option<Export>)> {
        let case = self.case.lock().unwrap_or_else(PoisonError::into_inner);
        case.as_ref().map(|case| (case.extra.clone(), case.export.clone()))
    }

    fn open(&self, flavour: Flavour, extra: &str, now: Instant) -> Case {
        let errant = gtid::errant(flavour, export::parts(extra).0);
        Case {
            extra: extra.to_owned(),
            since: now,
            transactions_max: errant.map_or(0, |errant| errant.count_max()),
            // An earlier agent may have saved them.
            export: Export::find(&self.dir, extra),
            problem: None,
            is_busy: false,
            tried_at: None,
        }
    }

    async fn save(self, mysql: Mysql, flavour: Flavour, extra: String) {
        let program = Path::new(export::reader(flavour));
        let saved = mysql.export_extra(&extra, &self.dir, program, EXPORT_DEADLINE).await;
        match &saved {
            Ok(export) => tracing::warn!(
                transactions = export.transactions,
                rows = export.rows(),
                file = %export.file.display(),
                "the extra transactions are saved"
            ),
            Err(error) => tracing::error!(error = chain(error), "the extra transactions are not saved"),
        }
        let mut case = self.case.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(case) = case.as_mut().filter(|case| case.extra == extra) else { return };
        case.is_busy = false;
        match saved {
            Ok(export) => (case.export, case.problem) = (Some(export), None),
            Err(error) => case.problem = Some(chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(ago: Duration) -> Case {
        let ward = Ward::new(Path::new("/nowhere"));
        let then = Instant::now().checked_sub(ago).unwrap();
        ward.open(Flavour::Mariadb, "0-1-12..13; received 0-1-15", then)
    }

    #[test]
    fn a_refusal_counts_once_it_has_stood_for_a_while() {
        assert!(!case(Duration::ZERO).stands());
        let mut standing = case(STANDS_AFTER);
        assert!(standing.stands() && standing.is_to_be_exported());
        assert_eq!(standing.transactions_max, 2);
        standing.is_busy = true;
        assert!(!standing.is_to_be_exported(), "one export at a time");
        standing.is_busy = false;
        standing.tried_at = Some(Instant::now());
        assert!(!standing.is_to_be_exported(), "what failed rests");
    }

    #[test]
    fn nothing_is_told_of_what_does_not_stand() {
        let ward = Ward::new(Path::new("/nowhere"));
        assert_eq!(ward.facts(), None);
        *ward.case.lock().unwrap() = Some(case(STANDS_AFTER));
        let told = ward.facts().unwrap();
        assert_eq!((told.transactions, told.export), (2, None));
        ward.discharged();
        assert_eq!(ward.facts(), None);
    }
}
