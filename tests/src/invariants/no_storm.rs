//! No protocol proposes without end: a node makes no more proposals within a second than any of them needs.

/// Its name.
pub const NAME: &str = "no_storm";

/// More proposals of one node within a second than any protocol needs.
const PROPOSALS_MAX: u32 = 60;

/// Proposals of each node within the present second.
#[derive(Debug, Default)]
pub struct Proposals {
    second: u64,
    counts: [u32; 3],
}

impl Proposals {
    /// A node proposes something.
    pub fn proposed(&mut self, at: u64, node: usize) -> Result<(), String> {
        if at / 1_000 != self.second {
            self.second = at / 1_000;
            self.counts = [0; 3];
        }
        self.counts[node] += 1;
        if self.counts[node] <= PROPOSALS_MAX {
            return Ok(());
        }
        Err(format!("node {node} makes more than {PROPOSALS_MAX} proposals in a second"))
    }
}
