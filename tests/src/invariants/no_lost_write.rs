//! G2 **No acknowledged MySQL write is lost** by a takeover. Whoever acknowledges a write has every write that was acknowledged
//! before, by anybody; and a promotion throws nothing away that its server had received, since each of it may have been
//! acknowledged to a client. What an operator has accepted is forgiven once: see [`super::accepted_loss`].

use crate::sim::mysql::{Mysql, Tx, TxSet};

/// Its name.
pub const NAME: &str = "no_lost_write";

/// What clients were told.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged {
    acked: TxSet,
    /// Node and start of the database that acknowledged last.
    by: Option<(usize, u64)>,
    /// When each was acknowledged.
    times: Vec<(Tx, u64)>,
}

impl Acknowledged {
    /// A client was told that `tx` is safe, by the server `db` of `node`.
    pub fn acknowledged(&mut self, at: u64, node: usize, db: &Mysql, tx: Tx) -> Result<(), String> {
        let by = Some((node, db.starts));
        let lost = if self.by == by { 0 } else { db.executed.missing(&self.acked) };
        self.by = by;
        self.acked.add(tx);
        self.times.push((tx, at));
        if lost == 0 { Ok(()) } else { Err(format!("node {node} serves without {lost} acknowledged writes")) }
    }

    /// An operator has accepted what `db` lacks: it counts no more. Over how many milliseconds it was acknowledged.
    pub fn forgive(&mut self, db: &Mysql) -> u64 {
        let lost = |tx: &Tx| self.acked.has(*tx) && !db.executed.has(*tx);
        let mut times = self.times.iter().filter(|(tx, _)| lost(tx)).map(|(_, at)| *at);
        let first = times.next();
        let span = first.map_or(0, |first| times.next_back().unwrap_or(first) - first);
        self.acked = self.acked.meet(&db.executed);
        span
    }

    /// Writes that were acknowledged and are not in `db`.
    pub fn lost_at(&self, db: &Mysql) -> u32 {
        db.executed.missing(&self.acked)
    }
}

/// A server was promoted.
pub fn promoted(node: usize, thrown_away: u32) -> Result<(), String> {
    if thrown_away == 0 {
        return Ok(());
    }
    Err(format!("node {node} is promoted without {thrown_away} transactions that it had received"))
}
