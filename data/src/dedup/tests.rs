#![allow(clippy::print_stdout, reason = "a test that measures or is passed over says so")]

use std::collections::HashSet;
use std::fs;
use std::io::Read;

use fornax_base::files::RealFs;
use fornax_base::testing::{FailKind, FailingFs};
use serde_json::Value;

use super::minhash::{jaccard, shingles};
use super::*;

fn find(texts: &[&str], near: Option<NearOptions>) -> Duplicates {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines: Vec<String> = texts.iter().map(|text| format!("{{\"text\": {text:?}}}")).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let filters = Filters::default();
    let mut intake = Intake::new(&[Source::from_path(&path, None).unwrap()], &filters).unwrap();
    find_duplicates(&mut intake, near, &mut |_| {}).unwrap()
}

fn numbers(cluster: &Cluster) -> Vec<u64> {
    let dropped = cluster.dropped.iter().map(|dropped| dropped.place.number);
    std::iter::once(cluster.kept.number).chain(dropped).collect()
}

#[test]
fn equal_texts_keep_the_earliest() {
    let found = find(&["a b", "c", "a  b\n", "A b", " c", "a b"], None);
    assert_eq!((found.documents, found.exact, found.near, found.kept()), (6, 3, 0, 3));
    assert_eq!(found.clusters.iter().map(numbers).collect::<Vec<_>>(), [vec![1, 3, 6], vec![2, 5]]);
    assert_eq!(found.is_dropped, [false, false, true, false, true, true]);
}

#[test]
fn similar_texts_are_joined_through_others() {
    let words: Vec<String> = (0..120).map(|i| format!("w{}", i * i)).collect();
    let base = words.join(" ");
    // Each a few words on from the one before: neighbours are similar, the ends are not.
    let moved =
        |by: usize| words[by..].iter().cloned().chain((0..by).map(|i| format!("n{i}"))).collect::<Vec<_>>();
    let chain: Vec<String> = (0..6).map(|step| moved(step * 10).join(" ")).collect();
    let other: String = (0..120).map(|i| format!("o{i} ")).collect();
    let near = NearOptions { threshold: 0.7, ..NearOptions::default() };
    let ends = jaccard(&shingles(&chain[0], 5), &shingles(&chain[5], 5));
    assert!(ends < 0.5, "{ends}");
    let texts: Vec<&str> = [other.as_str()].into_iter().chain(chain.iter().map(String::as_str)).collect();
    let found = find(&texts, Some(near));
    assert_eq!(found.clusters.iter().map(numbers).collect::<Vec<_>>(), [vec![2, 3, 4, 5, 6, 7]]);
    assert_eq!((found.near, found.exact), (5, 0));
    // The order decides which is kept, and nothing else.
    let reversed: Vec<&str> = texts.iter().rev().copied().collect();
    assert_eq!(
        find(&reversed, Some(near)).clusters.iter().map(numbers).collect::<Vec<_>>(),
        [vec![1, 2, 3, 4, 5, 6]]
    );
    assert_eq!(find(&[base.as_str(), "", "!!", "..."], Some(near)).near, 0);
}

#[test]
fn bands_follow_the_s_curve() {
    for (threshold, permutations) in [(0.5, 128), (0.7, 128), (0.8, 128), (0.8, 256), (0.9, 64), (0.95, 128)] {
        let cut = Bands::for_threshold(threshold, permutations);
        assert!(cut.bands * cut.rows <= permutations && cut.bands > 0);
        assert!(cut.chance(threshold) >= 0.95, "{cut:?}");
        // A row more would find fewer than that.
        let finer = Bands { rows: cut.rows + 1, bands: permutations / (cut.rows + 1) };
        assert!(finer.bands == 0 || finer.chance(threshold) < 0.95, "{cut:?}");
    }
    assert_eq!(Bands::for_threshold(0.8, 128), Bands { bands: 18, rows: 7 });
    // By hand: 1 - (1 - 0.5^2)^3.
    assert!((Bands { bands: 3, rows: 2 }.chance(0.5) - 0.578_125).abs() < 1e-12);
}

/// The documents and datasketch's answers, recorded by tests/fixtures/make/dedup.py.
fn fixture() -> (Vec<String>, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/dedup");
    let mut lines = String::new();
    let file = fs::File::open(folder.join("documents.jsonl.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut lines).unwrap();
    let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
    let answers = fs::read_to_string(folder.join("datasketch.json")).unwrap();
    (lines.lines().map(text).collect(), serde_json::from_str(&answers).unwrap())
}

fn pairs(value: &Value) -> HashSet<(usize, usize)> {
    let pair = |pair: &Value| (pair[0].as_u64().unwrap() as usize, pair[1].as_u64().unwrap() as usize);
    value.as_array().unwrap().iter().map(pair).collect()
}

/// Against exact similarities of planted near duplicates, beside datasketch with as many permutations.
#[test]
fn planted_near_duplicates_are_found_as_well_as_by_datasketch() {
    let (documents, answers) = fixture();
    let sets: Vec<Vec<u64>> = documents.iter().map(|text| shingles(text, 5)).collect();
    let hasher = MinHasher::new(128, 5);
    let signatures: Vec<Vec<u32>> = documents.iter().map(|text| hasher.signature(text).unwrap()).collect();
    let (mut true_pairs, mut errors) = (HashSet::new(), Vec::new());
    for b in 0..documents.len() {
        for a in 0..b {
            let exact = jaccard(&sets[a], &sets[b]);
            if exact >= 0.8 {
                true_pairs.insert((a, b));
            }
            if exact >= 0.2 {
                errors.push(similarity(&signatures[a], &signatures[b]) - exact);
            }
        }
    }
    // Python computed the same sets from the same words.
    assert_eq!(true_pairs, pairs(&answers["exact_pairs"]), "the definition of a shingle differs");
    let n = errors.len() as f64;
    let (mean, rms) = (errors.iter().sum::<f64>() / n, (errors.iter().map(|e| e * e).sum::<f64>() / n).sqrt());
    let theirs = answers["rms_error"].as_f64().unwrap();
    println!("{n} pairs: mean error {mean:.4}, root mean square {rms:.4}; datasketch {theirs:.4}");
    // At most 0.5 / sqrt(128) = 0.044 for one pair.
    assert!(rms < 0.044 && mean.abs() < 0.01, "{mean} {rms}");
    let mut buckets = Buckets::new(Bands::for_threshold(0.8, 128));
    let mut found = HashSet::new();
    for (b, signature) in signatures.iter().enumerate() {
        for a in buckets.candidates(signature) {
            if similarity(&signatures[a as usize], signature) >= 0.8 {
                found.insert((a as usize, b));
            }
        }
        buckets.add(b as u32, signature);
    }
    let measure = |found: &HashSet<(usize, usize)>| {
        let right = found.intersection(&true_pairs).count() as f64;
        (right / true_pairs.len() as f64, right / found.len() as f64)
    };
    let (ours, theirs) = (measure(&found), measure(&pairs(&answers["lsh_pairs"])));
    println!("{} true pairs; recall and precision: {ours:?}; datasketch: {theirs:?}", true_pairs.len());
    assert!(ours.0 >= theirs.0 && ours.1 >= 0.9, "{ours:?} {theirs:?}");
    assert!(ours.0 >= 0.85, "{ours:?}");
}

#[test]
fn what_is_kept_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, "{\"text\": \"a\\nb\"}\n{\"text\": \"ü\"}\n{\"text\": \"a b\"}\n").unwrap();
    let sources = [Source::from_path(&path, None).unwrap()];
    let filters = Filters::default();
    let mut intake = Intake::new(&sources, &filters).unwrap();
    let found = find_duplicates(&mut intake, None, &mut |_| {}).unwrap();
    for name in ["out.jsonl", "out.jsonl.gz"] {
        let out = folder.path().join(name);
        let write = |fs: &dyn FileSystem| write_kept(fs, &sources, &filters, &found, &out, &mut |_| {});
        assert_eq!(write(&RealFs).unwrap(), 5);
        let kept: Vec<String> =
            Source::from_path(&out, None).unwrap().documents().unwrap().map(Result::unwrap).collect();
        assert_eq!(kept, ["a\nb", "ü"]);
        let before = fs::read(&out).unwrap();
        let counting = FailingFs::counting();
        write(&counting).unwrap();
        for k in 1..=counting.ops_used() {
            write(&FailingFs::new(k, FailKind::DiskFull)).unwrap_err();
            assert_eq!(fs::read(&out).unwrap(), before);
        }
    }
    fs::write(&path, "{\"text\": \"a\"}\n").unwrap();
    let out = folder.path().join("late.jsonl");
    let error = write_kept(&RealFs, &sources, &filters, &found, &out, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("changed while they were being read") && !out.exists(), "{error}");
}
