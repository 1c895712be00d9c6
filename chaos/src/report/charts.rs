//! Drawings: phases beside their budgets, and writes over time with the gap in them. Whole numbers throughout, so that
//! one record has one drawing.

use std::fmt::Write as _;

use super::{Block, escape, seconds};
use crate::evidence::{Bucket, ClientRecord, Gap, Record};

const WIDTH: u64 = 900;
const LEFT: u64 = 120;
const RIGHT: u64 = 190;
const ROW: u64 = 26;
/// Width of a bar of words, for Markdown.
const WORD_BAR: u64 = 30;
/// Columns of a plot: more buckets than that are put together.
const COLUMNS: usize = 360;
const PLOT_TOP: u64 = 34;
const PLOT_HEIGHT: u64 = 96;
/// A gap shorter than this part of the plot is drawn a second time, larger.
const ZOOM_BELOW: u64 = 8;

/// Each phase as a bar inside its budget: both are measured by the budget, so that 0.1 s of 3 s and 4 s of 20 s are read alike.
pub(super) fn budgets(record: &Record) -> Block {
    let rows = &record.timeline;
    let height = ROW * rows.len() as u64 + 8;
    let bar = WIDTH - LEFT - RIGHT;
    let mut svg = open(WIDTH, height, "Phases beside their budgets");
    let mut text = String::new();
    for (index, phase) in rows.iter().enumerate() {
        let (took, budget) = (phase.took_ms(), phase.budget_ms.max(1));
        let y = 4 + ROW * index as u64;
        let share = took.min(budget);
        let filled = (bar * share / budget).max(2);
        let class = if phase.is_over() { "over" } else { "took" };
        let says = format!("{} of {}", seconds(took), seconds(phase.budget_ms));
        let over = if phase.is_over() { " OVER" } else { "" };
        let name = format!("run {} {}", phase.run, phase.phase.name());
        let _ = writeln!(
            svg,
            "<g><title>{name}: {says}{over}, from {} ({})</title><text x=\"0\" y=\"{}\">{name}</text>\
             <rect class=\"budget\" x=\"{LEFT}\" y=\"{y}\" width=\"{bar}\" height=\"18\" rx=\"3\"/>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{filled}\" height=\"18\" rx=\"3\"/>\
             <text x=\"{}\" y=\"{}\">{says}{over}</text></g>",
            seconds(phase.from_ms),
            escape(&phase.source),
            y + 13,
            LEFT + bar + 10,
            y + 13
        );
        let words = usize::try_from((WORD_BAR * share).div_ceil(budget)).unwrap_or(0);
        let rest = usize::try_from(WORD_BAR).unwrap_or(0) - words;
        let _ = writeln!(text, "{name:<18}[{}{}] {says}{over}", "#".repeat(words), ".".repeat(rest));
    }
    svg.push_str("</svg>\n");
    Block::Figure { svg, text }
}

/// Writes over time; where the longest gap is short beside the whole, it is drawn again by itself.
pub(super) fn writes(record: &Record, client: &ClientRecord) -> Block {
    let whole = Gap { from_ms: 0, to_ms: client.buckets.len() as u64 * ClientRecord::BUCKET_MS };
    let mut svg = plot(record, client, whole, &format!("Writes to {} over the whole drill", client.kind));
    let longest = client.gaps.iter().max_by_key(|gap| gap.to_ms.saturating_sub(gap.from_ms));
    let mut text =
        format!("{}: {} of {} writes acknowledged\n", client.kind, client.acknowledged, client.attempted);
    if let Some(gap) = longest {
        let length = gap.to_ms.saturating_sub(gap.from_ms);
        let _ = writeln!(
            text,
            "longest gap {}, from {} to {}",
            seconds(length),
            seconds(gap.from_ms),
            seconds(gap.to_ms)
        );
        if length * ZOOM_BELOW < whole.to_ms {
            let margin = length.max(500);
            let step = ClientRecord::BUCKET_MS;
            let from_ms = gap.from_ms.saturating_sub(margin) / step * step;
            let to_ms = ((gap.to_ms + margin).div_ceil(step) * step).min(whole.to_ms);
            let title = format!("Writes to {} around the longest gap, {}", client.kind, seconds(length));
            svg.push_str(&plot(record, client, Gap { from_ms, to_ms }, &title));
        }
    }
    Block::Figure { svg, text }
}

fn open(width: u64, height: u64, title: &str) -> String {
    let title = escape(title);
    format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n"
    )
}

/// Where an instant stands.
fn x_of(ms: u64, window: Gap) -> u64 {
    let length = (window.to_ms - window.from_ms).max(1);
    (WIDTH * ms.clamp(window.from_ms, window.to_ms).saturating_sub(window.from_ms)) / length
}

fn plot(record: &Record, client: &ClientRecord, window: Gap, title: &str) -> String {
    let height = PLOT_TOP + PLOT_HEIGHT + 22;
    let mut svg = open(WIDTH, height, title);
    let base = PLOT_TOP + PLOT_HEIGHT;
    let _ = writeln!(
        svg,
        "<text x=\"0\" y=\"14\">{}</text>\
         <rect class=\"ok\" x=\"560\" y=\"5\" width=\"10\" height=\"10\"/><text x=\"576\" y=\"14\">acknowledged</text>\
         <rect class=\"failed\" x=\"672\" y=\"5\" width=\"10\" height=\"10\"/><text x=\"688\" y=\"14\">failed</text>\
         <rect class=\"gap\" x=\"742\" y=\"5\" width=\"10\" height=\"10\"/><text x=\"758\" y=\"14\">no acknowledgement</text>",
        escape(title)
    );
    for gap in client.gaps.iter().filter(|gap| gap.to_ms > window.from_ms && gap.from_ms < window.to_ms) {
        let (from, to) = (x_of(gap.from_ms, window), x_of(gap.to_ms, window));
        let width = (to - from).max(1);
        let says = seconds(gap.to_ms.saturating_sub(gap.from_ms));
        let _ = writeln!(
            svg,
            "<rect class=\"gap\" x=\"{from}\" y=\"{PLOT_TOP}\" width=\"{width}\" height=\"{PLOT_HEIGHT}\">\
             <title>{says} without an acknowledged write</title></rect>"
        );
    }
    bars(client, window, base, &mut svg);
    marks(record, window, base, &mut svg);
    let _ = writeln!(svg, "<line class=\"axis\" x1=\"0\" y1=\"{base}\" x2=\"{WIDTH}\" y2=\"{base}\"/>");
    for part in 0..=4 {
        let ms = window.from_ms + (window.to_ms - window.from_ms) * part / 4;
        let anchor = ["start", "middle", "middle", "middle", "end"][usize::try_from(part).unwrap_or(0)];
        let _ = writeln!(
            svg,
            "<text class=\"faint\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            WIDTH * part / 4,
            base + 16,
            seconds(ms)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Acknowledged writes from below, failed ones on top of them.
fn bars(client: &ClientRecord, window: Gap, base: u64, svg: &mut String) {
    let index = |ms: u64| usize::try_from(ms / ClientRecord::BUCKET_MS).unwrap_or(usize::MAX);
    let shown: &[Bucket] = client.buckets.get(index(window.from_ms)..index(window.to_ms)).unwrap_or(&[]);
    let together = shown.len().div_ceil(COLUMNS).max(1);
    let columns = shown.chunks(together).map(|chunk| {
        let sum = |of: fn(&Bucket) -> u32| chunk.iter().map(|bucket| u64::from(of(bucket))).sum::<u64>();
        (sum(|bucket| bucket.acknowledged), sum(|bucket| bucket.failed))
    });
    let columns: Vec<(u64, u64)> = columns.collect();
    let most = columns.iter().map(|(acknowledged, failed)| acknowledged + failed).max().unwrap_or(0).max(1);
    let count = columns.len() as u64;
    for (at, (acknowledged, failed)) in (0..).zip(columns) {
        let (x, next) = (WIDTH * at / count, WIDTH * (at + 1) / count);
        let width = (next - x).saturating_sub(u64::from(next - x > 2)).max(1);
        let (ok, bad) = (PLOT_HEIGHT * acknowledged / most, PLOT_HEIGHT * failed / most);
        for (class, y, height) in [("ok", base - ok, ok), ("failed", base - ok - bad, bad)] {
            if height > 0 {
                let _ = writeln!(
                    svg,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"
                );
            }
        }
    }
}

/// When faults were injected and healed.
fn marks(record: &Record, window: Gap, base: u64, svg: &mut String) {
    for fault in &record.faults {
        for (at_ms, what) in [(fault.injected_ms, "injected"), (fault.healed_ms, "healed")] {
            let Some(at_ms) = at_ms.filter(|ms| (window.from_ms..=window.to_ms).contains(ms)) else {
                continue;
            };
            let x = x_of(at_ms, window);
            let anchor = if x * 2 > WIDTH { "end" } else { "start" };
            let _ = writeln!(
                svg,
                "<line class=\"mark\" x1=\"{x}\" y1=\"20\" x2=\"{x}\" y2=\"{base}\"/>\
                 <text class=\"faint\" x=\"{x}\" y=\"30\" text-anchor=\"{anchor}\">{} {what}</text>",
                escape(fault.fault.name())
            );
        }
    }
}
