//! G2 **No acknowledged MySQL write is lost** by a takeover. Whoever acknowledges a write has every write that was acknowledged
//! before, by anybody; and a promotion throws nothing away that its server had received, since each of it may have been
//! acknowledged to a client.

use crate::sim::mysql::{Mysql, Tx, TxSet};

/// Its name.
pub const NAME: &str = "no_lost_write";

/// What clients were told.
#[derive(Debug, Default)]
pub struct Acknowledged {
    acked: TxSet,
    /// Node and start of the database that acknowledged last.
    by: Option<(usize, u64)>,
}

impl Acknowledged {
    /// A client was told that `tx` is safe, by the server `db` of `node`.
    pub fn acknowledged(&mut self, node: usize, db: &Mysql, tx: Tx) -> Result<(), String> {
        let by = Some((node, db.starts));
        let lost = if self.by == by { 0 } else { db.executed.missing(&self.acked) };
        self.by = by;
        self.acked.add(tx);
        if lost == 0 { Ok(()) } else { Err(format!("node {node} serves without {lost} acknowledged writes")) }
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
