//! What came in and what was kept, for people; and JSON for programs.

use fornax_base::exit::Exit;
use fornax_data::contamination::OverlapExample;
use fornax_data::intake::{DropExample, IntakeReport};
use serde::Serialize;

use crate::cli::report::{Failure, print};
use fornax_train::plain::grouped;

/// Prints one JSON object on a line.
pub(crate) fn print_json(report: &impl Serialize) -> Result<(), Failure> {
    print(&(serde_json::to_string(report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n"))
}

/// Lines about what was dropped, repaired and found.
pub(super) fn intake_lines(
    report: &IntakeReport,
    examples: &[DropExample],
    overlap_examples: &[OverlapExample],
) -> String {
    let mut text = format!(
        "documents: {} read, {} kept ({:.2} %), {} of {} bytes kept\n",
        grouped(report.documents),
        grouped(report.kept),
        percent(report.kept, report.documents),
        grouped(report.kept_bytes),
        grouped(report.bytes)
    );
    for (reason, count) in &report.dropped {
        text += &format!("  dropped {:<20} {}\n", reason.word(), grouped(*count));
        for example in examples.iter().filter(|example| example.reason == *reason) {
            let shown: String = example.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text += &format!("    {}:{} {shown}\n", example.file.display(), example.number);
        }
    }
    let repairs = &report.repairs;
    for (what, count) in [
        ("documents with invalid UTF-8 replaced", repairs.invalid_utf8),
        ("documents changed by NFC", repairs.nfc),
        ("control characters removed", repairs.control_chars),
        ("lines removed", repairs.lines),
    ] {
        if count > 0 {
            text += &format!("  {what}: {}\n", grouped(count));
        }
    }
    for overlap in &report.overlap {
        text += &format!(
            "benchmark {}: {} of {} items overlap with {} documents; {} items are too short to be found\n",
            overlap.benchmark.display(),
            grouped(overlap.overlapping),
            grouped(overlap.items),
            grouped(overlap.documents),
            grouped(overlap.too_short)
        );
        for example in overlap_examples.iter().filter(|example| example.benchmark == overlap.benchmark) {
            text += &format!("  item {} in {}:{}\n", example.item, example.file.display(), example.number);
        }
    }
    text
}

pub(super) fn percent(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64 * 100.0
}
