//! Row W8: a `tokenizer.json` made to harm is refused or loads within bounds of time and memory.
//!
//! A test program of its own, because it reads the peak memory of its process.

#![allow(clippy::print_stdout, reason = "a test that measures says so")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use fornax_data::Tokenizer;

const TIME: Duration = Duration::from_secs(5);
const MEMORY: u64 = 512 << 20;

/// Processor time of this process: what a busy machine does beside it does not count. Ticks of 10 ms.
fn spent() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // Behind the name in brackets, fields 14 and 15 of proc(5): user and system.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Duration::from_millis(10 * fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>())
}

/// Peak resident memory of this process in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// Loads within [`TIME`] of the processor; what must be said when it is refused.
#[track_caller]
fn load(name: &str, path: &Path) -> Result<Tokenizer, String> {
    let began = spent();
    let loaded = Tokenizer::load(path).map_err(|error| error.to_string());
    let (took, peak) = (spent() - began, peak());
    println!(
        "{name}: {took:.2?}, peak {} MiB, {}",
        peak >> 20,
        loaded.as_ref().map_or_else(String::as_str, |_| "loaded")
    );
    assert!(took < TIME, "{name}: {took:?}");
    assert!(peak < MEMORY, "{name}: {} MiB", peak >> 20);
    loaded
}

fn bpe(vocab: &str, merges: &str, pre_tokenizer: &str) -> String {
    format!(
        r#"{{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {pre_tokenizer},
        "post_processor": null, "decoder": {{"type": "Fuse"}},
        "model": {{"type": "BPE", "vocab": {{{vocab}}}, "merges": [{merges}]}}}}"#
    )
}

fn split(pattern: &str) -> String {
    let pattern = pattern.replace('\\', "\\\\");
    format!(r#"{{"type": "Split", "pattern": {{"Regex": "{pattern}"}}, "behavior": "Isolated", "invert": false}}"#)
}

#[test]
fn w8_hostile_files_are_refused_or_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let refused = |name: &str, says: &str| {
        let error = load(name, &path).unwrap_err();
        assert!(error.contains(says), "{name}: {error}");
    };
    let written = |name: &str, json: &str| {
        fs::write(&path, json).unwrap();
        load(name, &path)
    };

    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    refused("a file of 1 GiB", "at most 67108864 bytes are accepted");
    // The most that is read, of the two things a vocabulary has many of.
    let mut vocab = String::new();
    for id in 0..(1 << 19) {
        write!(vocab, r#""token number {id:08} of a great many, made long, so that the file is as long as a file may be; it goes on until here": {id},"#).unwrap();
    }
    fs::write(&path, bpe(&vocab[..vocab.len() - 1], "", "null")).unwrap();
    println!("524,288 tokens: {} MiB", fs::metadata(&path).unwrap().len() >> 20);
    drop(vocab);
    let many = load("524,288 tokens", &path);
    assert!(many.is_ok_and(|tokenizer| tokenizer.vocab_size() == 1 << 19));
    let (mut vocab, mut merges) = (String::new(), String::new());
    for id in 0..(1 << 16) {
        write!(vocab, r#""{id:04x}": {id},"#).unwrap();
    }
    for id in 0..(7 << 16) {
        let (left, right) = (id >> 16, id & 0xFFFF);
        write!(vocab, r#""{left:04x}{right:04x}": {},"#, id + (1 << 16)).unwrap();
        write!(merges, r#"["{left:04x}", "{right:04x}"],"#).unwrap();
    }
    fs::write(&path, bpe(&vocab[..vocab.len() - 1], &merges[..merges.len() - 1], "null")).unwrap();
    drop((vocab, merges));
    assert!(load("458,752 merges of 524,288 tokens", &path).is_ok());
    fs::write(&path, bpe(&format!("{}\"a\": 1", r#""a": 0,"#.repeat(1 << 19)), "", "null")).unwrap();
    refused("524,289 tokens", "524289 tokens, at most 524288 are read");
    let merges = r#"["a", "b"],"#.repeat(4 << 20);
    fs::write(&path, bpe(r#""a": 0, "b": 1, "ab": 2"#, &merges[..merges.len() - 1], "null")).unwrap();
    drop(merges);
    refused("4,194,304 merges", "4194304 merges, at most 524288 are read");
    let added = r#"{"id": 0, "content": "a"},"#.repeat(1 << 20);
    fs::write(
        &path,
        format!("{{\"added_tokens\": [{}], {}", &added[..added.len() - 1], &bpe(r#""a": 0"#, "", "null")[1..]),
    )
    .unwrap();
    drop(added);
    refused("1,048,576 added tokens", "added tokens");
    fs::write(&path, "[".repeat(1 << 20)).unwrap();
    refused("nested brackets", "not usable");

    let vocab = r#""a": 0, "b": 1, "ab": 2, "ba": 3, "aba": 4, "bab": 5"#;
    // Merges that make each other's parts: each makes a longer token, so encoding ends.
    let cycle = r#"["a", "b"], ["b", "a"], ["ab", "a"], ["a", "ba"], ["b", "ab"], ["ba", "b"], ["a", "b"]"#;
    let tokenizer = written("merges in a circle", &bpe(vocab, cycle, "null")).unwrap();
    let text = "ab".repeat(20_000);
    let ids = tokenizer.encode(&text, false).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    for (name, json, says) in [
        ("a merge without its token", bpe(vocab, r#"["aba", "b"]"#, "null"), "out of vocabulary"),
        ("an id twice", bpe(r#""a": 0, "b": 0"#, "", "null"), r#"the tokens "a" and "b" share the id 0"#),
        ("an id beyond the vocabulary", bpe(r#""a": 0, "b": 4000000000"#, "", "null"), "reach id 4000000000"),
        ("a negative id", bpe(r#""a": -1"#, "", "null"), "not usable"),
        ("an id above 2^32", bpe(r#""a": 4294967296"#, "", "null"), "not usable"),
        ("a pattern that grows", bpe(vocab, "", &split("((a{1000}){1000}){1000}")), "not usable"),
        (
            "a pattern that nests",
            bpe(vocab, "", &split(&format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000)))),
            "not usable",
        ),
    ] {
        let error = written(name, &json).unwrap_err();
        assert!(error.contains(says), "{name}: {error}");
    }
    let gap = written("a gap between ids", &bpe(r#""a": 0, "b": 50000"#, "", "null")).unwrap();
    assert_eq!((gap.vocab_size(), gap.token(7), gap.token_bytes(7)), (50_001, None, 0));
    assert_eq!(gap.decode(&[0, 7, 50_000], false).unwrap(), "ab");
    // Patterns that go back and forth: time is spent when text comes, and bounded by the regex library's counter.
    for pattern in ["(a+)+$", r"(?=(a+)+b)a", r"(a|aa)+(?!a)b", r"(?:(x+x+)+y|a)(?=a)"] {
        let tokenizer = written(pattern, &bpe(vocab, cycle, &split(pattern))).unwrap();
        let began = spent();
        let _ = tokenizer.encode(&"a".repeat(60), false);
        println!("{pattern}: 60 letters in {:.2?}", (spent() - began));
        assert!((spent() - began) < TIME, "{pattern}: {:?}", (spent() - began));
    }
}
