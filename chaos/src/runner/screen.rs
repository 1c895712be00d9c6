//! What the operator sees: one line per event, and on a terminal a few lines below them that are drawn again and again.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::experiment::{Budgets, Phase};
use crate::history::Origin;

/// Cells of a budget bar.
const BAR: u64 = 24;

/// The operator's screen; everything goes to standard error, so that standard output is for results.
#[derive(Debug, Clone)]
pub struct Screen {
    origin: Origin,
    live: bool,
    drawn: Arc<Mutex<usize>>,
}

/// What the live lines show.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    /// The drill's name and number.
    pub title: String,
    /// What is being done.
    pub doing: String,
    /// Milliseconds of each phase so far, and whether it is over.
    pub phases: Vec<(Phase, u64, bool)>,
    /// Milliseconds since the last acknowledged write, of the database that has been quiet for longest.
    pub quiet_ms: u64,
    /// Acknowledged writes, of the database that has fewest.
    pub acknowledged: u64,
    /// Who holds the baton.
    pub holder: String,
}

impl Screen {
    /// A screen that counts from `origin`.
    #[must_use]
    pub fn new(origin: Origin) -> Self {
        Self { origin, live: std::io::stderr().is_terminal(), drawn: Arc::default() }
    }

    /// It is a terminal.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// One line that stays.
    pub fn say(&self, text: &str) {
        let mut drawn = self.drawn();
        let seconds = self.origin.now_us() / 100_000;
        let wiped = wipe(*drawn);
        *drawn = 0;
        // Nobody is left to tell if that fails.
        let _ = writeln!(std::io::stderr(), "{wiped}[{:>4}.{} s] {text}", seconds / 10, seconds % 10);
    }

    /// Lines of a list, without the time.
    pub fn show(&self, text: &str) {
        let mut drawn = self.drawn();
        let wiped = wipe(*drawn);
        *drawn = 0;
        let _ = writeln!(std::io::stderr(), "{wiped}{}", text.trim_end());
    }

    /// Draws the live lines anew; nothing where there is no terminal.
    pub fn draw(&self, panel: &Panel, budgets: &Budgets) {
        if !self.live {
            return;
        }
        let mut drawn = self.drawn();
        let lines = lines(panel, budgets);
        let _ = writeln!(std::io::stderr(), "{}{}", wipe(*drawn), lines.join("\n"));
        *drawn = lines.len();
    }

    fn drawn(&self) -> std::sync::MutexGuard<'_, usize> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves up over the live lines and removes them.
fn wipe(lines: usize) -> String {
    "\x1b[1A\x1b[2K".repeat(lines)
}

fn lines(panel: &Panel, budgets: &Budgets) -> Vec<String> {
    let mut lines = vec![
        format!("── {} ── Ctrl-C aborts and heals", panel.title),
        format!("  {:<10}{}", "now", panel.doing),
        format!(
            "  {:<10}{} holds; {} writes acknowledged, the last {} ms ago",
            "client", panel.holder, panel.acknowledged, panel.quiet_ms
        ),
    ];
    for (phase, took_ms, is_over) in &panel.phases {
        let budget_ms = budgets.of(*phase).ms();
        lines.push(format!("  {:<10}{}", phase.name(), bar(*took_ms, budget_ms, *is_over)));
    }
    lines
}

/// `█████·····  1.20 s of 3 s`
fn bar(took_ms: u64, budget_ms: u64, is_over: bool) -> String {
    let full = (took_ms * BAR).div_ceil(budget_ms.max(1)).min(BAR);
    let cells: String = (0..BAR).map(|cell| if cell < full { '█' } else { '·' }).collect();
    let word = match (took_ms > budget_ms, is_over) {
        (true, _) => " OVER",
        (false, true) => " ok",
        (false, false) => "",
    };
    format!("{cells} {}.{:02} s of {} s{word}", took_ms / 1_000, took_ms % 1_000 / 10, budget_ms / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_up_to_the_budget_and_say_when_it_is_over() {
        assert!(bar(0, 3_000, false).starts_with('·'));
        let half = bar(1_500, 3_000, true);
        assert_eq!(half.matches('█').count(), 12);
        assert!(half.ends_with("1.50 s of 3 s ok"));
        let over = bar(9_000, 3_000, true);
        assert_eq!((over.matches('█').count(), over.ends_with("OVER")), (24, true));
    }

    #[test]
    fn what_was_drawn_is_wiped_line_by_line() {
        assert_eq!(wipe(0), "");
        assert_eq!(wipe(2), "\x1b[1A\x1b[2K\x1b[1A\x1b[2K");
    }
}
