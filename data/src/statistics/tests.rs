use std::fs;

use super::*;
use crate::intake::Filters;
use crate::sources::Source;

fn measured(texts: &[&str]) -> Statistics {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines: Vec<String> = texts.iter().map(|text| format!("{{\"text\": {text:?}}}")).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let filters = Filters::default();
    let mut intake = Intake::new(&[Source::from_path(&path, None).unwrap()], &filters).unwrap();
    measure(&mut intake, None, &mut |_| {}).unwrap()
}

#[test]
fn counts_are_those_of_the_text() {
    let stats = measured(&["The cat. The dog!", "ümlaut\nThe end\n", "the  cat. The dog!", "The cat.  The dog!"]);
    assert_eq!((stats.documents, stats.words, stats.distinct_words), (4, 15, 5));
    assert_eq!((stats.bytes, stats.characters, stats.lines), (17 + 16 + 18 + 18, 68, 5));
    assert_eq!(stats.duplicates, 1, "white space apart, and case not");
    assert_eq!(stats.tokens, None);
    let lengths = stats.document_characters;
    assert_eq!((lengths.min, lengths.p50, lengths.max), (15, 17, 18));
    assert_eq!(stats.longest[0].number, 3);
    assert_eq!(stats.shortest[0].text, "ümlaut\nThe end\n");
    assert_eq!(stats.top_lines, [TopLine { count: 2, text: "The cat.  The dog!".to_owned() }]);
}

#[test]
fn percentiles_are_of_nearest_rank_and_bins_double() {
    let mut all: Vec<u64> = (1..=100).collect();
    let found = lengths(&mut all);
    assert_eq!([found.p5, found.p25, found.p50, found.p75, found.p95, found.p99], [5, 25, 50, 75, 95, 99]);
    assert_eq!(found.mean, 50.5);
    assert_eq!(lengths(&mut [7]).p50, 7);
    let bins = histogram(&[0, 1, 31, 32, 63, 64, 1000]);
    let counts: Vec<(u64, u64, u64)> = bins.iter().map(|bin| (bin.from, bin.to, bin.documents)).collect();
    assert_eq!(counts, [(0, 32, 3), (32, 64, 2), (64, 128, 1), (128, 256, 0), (256, 512, 0), (512, 1024, 1)]);
}
