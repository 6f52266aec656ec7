#![allow(clippy::print_stdout, reason = "a test that measures or is passed over says so")]

use std::fs;
use std::sync::Arc;

use super::*;
use crate::clean::Reason;
use crate::intake::{Filters, Intake};

#[test]
fn items_are_found_by_thirteen_words_in_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let words = |from: u32, n: u32| (from..from + n).map(|i| format!("Word{i}")).collect::<Vec<_>>().join(" ");
    let path = folder.path().join("bench.jsonl");
    let rows = [
        format!("{{\"question\": {:?}, \"nested\": {{\"a\": [{:?}]}}}}", words(0, 20), words(100, 13)),
        format!("{{\"question\": {:?}, \"answer\": {:?}}}", words(200, 12), words(212, 12)),
        "{\"question\": \"too short\", \"id\": 5}".to_owned(),
    ];
    fs::write(&path, rows.join("\n")).unwrap();
    let benchmarks = Benchmarks::load(std::slice::from_ref(&path), NGRAM).unwrap();
    let found = |text: &str| benchmarks.found_in(text);
    assert_eq!(found(&words(7, 13).to_lowercase()), [(0, 0)]);
    assert_eq!(found(&format!("before, {}; after", words(100, 13))), [(0, 0)]);
    assert!(found(&words(8, 12)).is_empty(), "twelve words are not enough");
    // Question and answer stand apart: a run across them is none of the item's.
    assert!(found(&words(205, 13)).is_empty());
    let documents = folder.path().join("text.jsonl");
    let texts = [words(0, 30), "clean".to_owned(), words(3, 15), words(90, 40)];
    let lines: Vec<String> = texts.iter().map(|text| format!("{{\"text\": {text:?}}}")).collect();
    fs::write(&documents, lines.join("\n")).unwrap();
    for drop_contaminated in [false, true] {
        let filters =
            Filters { against: Some(Arc::new(benchmarks.clone())), drop_contaminated, ..Filters::default() };
        let source = Source::from_path(&documents, None).unwrap();
        let mut intake = Intake::new(&[source], &filters).unwrap();
        let kept = intake.next_chunk().unwrap();
        let report = intake.report();
        assert_eq!(kept.len(), if drop_contaminated { 1 } else { 4 });
        assert_eq!(report.dropped.get(&Reason::Contaminated).copied(), drop_contaminated.then_some(3));
        let overlap = &report.overlap[0];
        let counts = (overlap.items, overlap.too_short, overlap.overlapping, overlap.documents);
        assert_eq!(counts, (3, 2, 1, 3));
        let first = &intake.overlap_examples()[0];
        assert_eq!((first.item, first.number), (1, 1));
    }
}

/// A benchmark in its own training text is found whole, and TinyStories holds none of it.
#[test]
fn real_benchmarks_are_found_where_they_are_and_not_elsewhere() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let gsm8k = data.join("eval-gsm8k/test.jsonl");
    if !gsm8k.exists() {
        assert_ne!(std::env::var("FORNAX_REQUIRE_DATA").as_deref(), Ok("1"), "gsm8k is absent");
        println!("gsm8k is absent: passed over");
        return;
    }
    let hellaswag = data.join("eval-hellaswag/hellaswag_val_1000.jsonl");
    let benchmarks = Benchmarks::load(&[gsm8k.clone(), hellaswag], NGRAM).unwrap();
    let filters = Filters { against: Some(Arc::new(benchmarks)), ..Filters::default() };
    let look = |path: &Path, field: Option<&str>| {
        let source = Source::from_path(path, field).unwrap();
        let mut intake = Intake::new(&[source], &filters).unwrap();
        while !intake.next_chunk().unwrap().is_empty() {}
        intake.report()
    };
    let itself = look(&gsm8k, Some("question"));
    let long = itself.overlap[0].items - itself.overlap[0].too_short;
    println!("gsm8k in itself: {:?}", itself.overlap);
    assert!(itself.overlap[0].overlapping as f64 > 0.97 * long as f64);
    assert_eq!(itself.overlap[1].overlapping, 0);
    let stories = look(&data.join("tinystories/tinystories_10k.txt"), None);
    println!("in tinystories: {:?}", stories.overlap);
    assert!(stories.overlap.iter().all(|overlap| overlap.overlapping == 0));
}
