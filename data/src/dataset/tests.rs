#![allow(clippy::print_stdout, reason = "a test that measures or is passed over says so")]

use std::fs;
use std::path::PathBuf;

use fornax_base::files::{FileSystem, RealFs};
use fornax_base::testing::{FailKind, FailingFs};

use super::prepare::{Progress, completed};
use super::*;
use crate::intake::Filters;
use crate::sources::Source;
use crate::tokenizer::Tokenizer;

struct Work {
    folder: tempfile::TempDir,
    tokenizer: Tokenizer,
    documents: Vec<String>,
}

impl Work {
    /// Forty short documents in two files, and a tokenizer trained on them.
    fn new() -> Work {
        let documents: Vec<String> =
            (0..40).map(|i| format!("Document {i} says hello {} times.\nEnd of {i}.", i * i)).collect();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("text")).unwrap();
        for (name, part) in [("a.txt", &documents[..25]), ("b.txt", &documents[25..])] {
            fs::write(folder.path().join("text").join(name), part.join("\n<|endoftext|>\n")).unwrap();
        }
        let mut texts = documents.iter().cloned().map(Ok);
        let tokenizer = Tokenizer::train_bpe(&mut texts, 300, &mut |_| {}).unwrap();
        Work { folder, tokenizer, documents }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn prepare(&self, options: &PrepareOptions) -> Result<Prepared, DataError> {
        self.prepare_on(&RealFs, options)
    }

    fn prepare_on(&self, fs: &dyn FileSystem, options: &PrepareOptions) -> Result<Prepared, DataError> {
        let sources = [Source::from_path(&self.path("text"), None).unwrap()];
        prepare(fs, &sources, &self.tokenizer, &self.path("data"), options, &mut |_| {})
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.path("data")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    }
}

fn options(max_shard_tokens: u64) -> PrepareOptions {
    PrepareOptions { seed: 3, validation_fraction: 0.2, max_shard_tokens, filters: Filters::default() }
}

/// The documents of a stream, without the end-of-text token that closes each.
fn texts(stream: &TokenStream, tokenizer: &Tokenizer) -> Vec<String> {
    let mut tokens = Vec::new();
    stream.read(0..stream.len(), &mut tokens);
    let mut starts = Vec::new();
    stream.document_starts(0..stream.len(), &mut starts);
    starts.push(stream.len());
    let ranges = starts.windows(2).map(|two| two[0] as usize..two[1] as usize);
    ranges
        .map(|range| {
            assert_eq!(tokens[range.end - 1], tokenizer.eos_id().unwrap());
            tokenizer.decode(&tokens[range.start..range.end - 1], false).unwrap()
        })
        .collect()
}

#[test]
fn every_document_lands_on_one_side_in_order() {
    let work = Work::new();
    let prepared = work.prepare(&options(1000)).unwrap();
    assert!(!prepared.reused);
    let dataset = prepared.dataset;
    let train = texts(&dataset.train(), &work.tokenizer);
    let validation = texts(&dataset.validation(), &work.tokenizer);
    assert!(!train.is_empty() && !validation.is_empty() && validation.len() < 20);
    let (held_out, kept): (Vec<_>, Vec<_>) =
        work.documents.iter().cloned().partition(|document| validation.contains(document));
    assert_eq!((kept, held_out), (train, validation));
    let manifest = dataset.manifest();
    assert_eq!(manifest.train.documents + manifest.validation.documents, 40);
    let bytes: usize = work.documents.iter().map(String::len).sum();
    assert_eq!(manifest.train.bytes + manifest.validation.bytes, bytes as u64);
    assert_eq!(manifest.train.tokens, dataset.train().len());
    assert_eq!(manifest.vocab_size as usize, work.tokenizer.vocab_size());
    assert_eq!(manifest.sources.len(), 2);
}

#[test]
fn shards_stay_below_their_size_and_hold_whole_documents() {
    let work = Work::new();
    let whole = work.prepare(&options(1 << 20)).unwrap().dataset;
    assert_eq!(whole.manifest().train.shards.len(), 1);
    let texts_of_whole = texts(&whole.train(), &work.tokenizer);
    for most in [100, 1] {
        let cut = work.prepare(&options(most)).unwrap().dataset;
        let shards = &cut.manifest().train.shards;
        assert!(shards.len() > 3);
        assert_eq!(shards[1].name, "train-00001.shard");
        assert!(shards.iter().all(|shard| shard.tokens <= most.max(60)));
        assert_eq!(texts(&cut.train(), &work.tokenizer), texts_of_whole);
    }
    // One shard for each document, and those of the finer cut are gone after a coarser one.
    work.prepare(&options(1 << 20)).unwrap();
    let names: Vec<String> = work.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["dataset.json", "train-00000.shard", "validation-00000.shard"]);
}

#[test]
fn equal_inputs_are_reused_and_any_change_is_not() {
    let work = Work::new();
    assert!(!work.prepare(&options(200)).unwrap().reused);
    let files = work.files();
    assert!(work.prepare(&options(200)).unwrap().reused);
    for other in [
        PrepareOptions { seed: 4, ..options(200) },
        PrepareOptions { validation_fraction: 0.3, ..options(200) },
        options(201),
    ] {
        assert!(!work.prepare(&other).unwrap().reused, "{other:?}");
    }
    assert!(!work.prepare(&options(200)).unwrap().reused);
    assert_eq!(work.files(), files, "the same bytes again");
    let text = work.path("text/a.txt");
    fs::write(&text, fs::read_to_string(&text).unwrap().replace("hello", "HELLO")).unwrap();
    assert!(!work.prepare(&options(200)).unwrap().reused);
    assert_ne!(work.files(), files);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let work = Work::new();
    work.prepare(&options(300)).unwrap();
    let files = work.files();
    fs::remove_dir_all(work.path("data")).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| work.prepare(&options(300))).unwrap();
    assert_eq!(work.files(), files);
}

#[test]
fn row_c15_damage_is_named_and_prepare_repairs_it() {
    let work = Work::new();
    let folder = work.path("data");
    let open_error = |what: &str| {
        let error = Dataset::open(&folder).unwrap_err();
        assert!(error.is_damage(), "{error}");
        assert!(error.to_string().contains(what), "{error} | {what}");
        let repaired = work.prepare(&options(200)).unwrap();
        assert!(!repaired.reused);
        assert_eq!(
            texts(&repaired.dataset.train(), &work.tokenizer).len() as u64,
            repaired.dataset.train().n_documents()
        );
    };
    work.prepare(&options(200)).unwrap();
    let shard = folder.join("train-00001.shard");
    let good = fs::read(&shard).unwrap();

    fs::remove_file(&shard).unwrap();
    open_error("train-00001.shard");
    fs::write(&shard, &good[..good.len() - 1]).unwrap();
    open_error(&format!("train-00001.shard` has {} bytes, its header needs {}", good.len() - 1, good.len()));
    let mut flipped = good.clone();
    flipped[good.len() - 2] ^= 1;
    fs::write(&shard, &flipped).unwrap();
    open_error("train-00001.shard");
    // A whole shard in the place of another.
    fs::copy(folder.join("train-00000.shard"), &shard).unwrap();
    open_error("train-00001.shard` has sha-256");
    for (from, to, says) in [
        ("\"train-00001.shard\"", "\"../train-00001.shard\"", "leads out of"),
        ("\"format_version\": 1", "\"format_version\": 2", "format_version is 2, expected 1"),
        ("\"documents\": ", "\"documents\": 9", "it lists 9"),
        ("\"seed\"", "\"sead\"", "unknown field `sead`"),
    ] {
        let path = folder.join(DATASET_FILE);
        fs::write(&path, fs::read_to_string(&path).unwrap().replacen(from, to, 1)).unwrap();
        open_error(says);
    }
    fs::remove_file(folder.join(DATASET_FILE)).unwrap();
    assert!(!Dataset::open(&folder).unwrap_err().is_damage());
}

#[test]
fn a_single_document_is_cut_at_the_fraction() {
    let work = Work::new();
    let text: String = (0..500).map(|i| format!("line {i}\n")).collect();
    fs::write(work.path("one.txt"), &text).unwrap();
    let characters = Tokenizer::characters(&mut std::iter::once(Ok(text.clone()))).unwrap();
    let options = PrepareOptions::new(0);
    let sources = [Source::from_path(&work.path("one.txt"), None).unwrap()];
    let prepared = prepare(&RealFs, &sources, &characters, &work.path("data"), &options, &mut |_| {}).unwrap();
    let read = |stream: &TokenStream| {
        let mut tokens = Vec::new();
        stream.read(0..stream.len(), &mut tokens);
        characters.decode(&tokens, false).unwrap()
    };
    let kept = (text.len() as f64 * 0.9) as usize;
    assert_eq!(read(&prepared.dataset.train()), text[..kept]);
    assert_eq!(read(&prepared.dataset.validation()), text[kept..]);
}

#[test]
fn tinyshakespeare_is_split_as_nanogpt_splits_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/tinyshakespeare/input.txt");
    if !root.exists() {
        assert_ne!(std::env::var("FORNAX_REQUIRE_DATA").as_deref(), Ok("1"), "tinyshakespeare is absent");
        println!("tinyshakespeare is absent: passed over");
        return;
    }
    let sources = [Source::from_path(&root, None).unwrap()];
    let characters = Tokenizer::characters(&mut sources[0].documents().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let prepared =
        prepare(&RealFs, &sources, &characters, folder.path(), &PrepareOptions::new(1337), &mut |_| {}).unwrap();
    // The counts nanoGPT's data/shakespeare_char/prepare.py prints.
    assert_eq!((prepared.dataset.train().len(), prepared.dataset.validation().len()), (1_003_854, 111_540));
}

#[test]
fn progress_ends_at_the_whole() {
    let work = Work::new();
    let sources = [Source::from_path(&work.path("text"), None).unwrap()];
    let mut last = None;
    let mut progress = |p| last = Some(p);
    prepare(&RealFs, &sources, &work.tokenizer, &work.path("data"), &options(200), &mut progress).unwrap();
    let Some(PrepareProgress::Encoding { bytes, total_bytes, tokens }) = last else { panic!("{last:?}") };
    assert_eq!(bytes, total_bytes);
    assert!(tokens > 40);
}

#[test]
fn bad_options_and_empty_sources_are_errors() {
    let work = Work::new();
    let error = |options: PrepareOptions| work.prepare(&options).unwrap_err().to_string();
    for validation_fraction in [0.0, 1.0, -0.1, f64::NAN] {
        let says = error(PrepareOptions { validation_fraction, ..options(200) });
        assert!(says.contains("is not between 0 and 1"), "{says}");
    }
    assert!(error(options(0)).contains("max_shard_tokens is 0"));
    for name in ["a.txt", "b.txt"] {
        fs::write(work.path("text").join(name), "").unwrap();
    }
    assert!(error(options(200)).contains("has no text"));
    assert!(!work.path("data").exists(), "nothing was started");
}

#[test]
fn a_crash_at_any_operation_leaves_a_whole_dataset_or_none() {
    let work = Work::new();
    let (old, new) = (options(1 << 20), options(400));
    let clean = work.prepare(&new).unwrap().dataset.manifest().clone();
    let files = work.files();
    work.prepare(&old).unwrap();
    let counting = FailingFs::counting();
    work.prepare_on(&counting, &new).unwrap();
    assert!(counting.ops_used() > 20);
    for k in 1..=counting.ops_used() {
        for kind in FailKind::ALL {
            let before = work.prepare(&old).unwrap().dataset.manifest().clone();
            work.prepare_on(&FailingFs::new(k, kind), &new).unwrap_err();
            match Dataset::open(&work.path("data")) {
                Ok(found) => assert!([&before, &clean].contains(&found.manifest()), "{k} {kind:?}"),
                Err(error) => assert!(!error.is_damage(), "{k} {kind:?}: {error}"),
            }
            assert_eq!(work.prepare(&new).unwrap().dataset.manifest(), &clean);
            assert_eq!(work.files(), files, "nothing is left over after {k} {kind:?}");
        }
    }
}

/// The proof that an interrupted preparation does not begin anew: complete shards are kept as they are.
#[test]
fn an_interrupted_preparation_goes_on_behind_its_last_complete_shards() {
    use std::os::unix::fs::MetadataExt;
    let work = Work::new();
    let options = options(100);
    let whole = work.prepare(&options).unwrap().dataset.manifest().clone();
    assert!(whole.train.shards.len() > 3, "{:?}", whole.train.shards);
    let files = work.files();
    let counting = FailingFs::counting();
    fs::remove_dir_all(work.path("data")).unwrap();
    work.prepare_on(&counting, &options).unwrap();
    let mut went_on = 0;
    for k in 1..=counting.ops_used() {
        fs::remove_dir_all(work.path("data")).unwrap();
        work.prepare_on(&FailingFs::new(k, FailKind::Abort), &options).unwrap_err();
        let noted = completed(&work.path("data"), &whole.fingerprint, &work.tokenizer);
        let inodes = |progress: &Progress| -> Vec<u64> {
            let shards = progress.train.entry.shards.iter().chain(&progress.validation.entry.shards);
            shards.map(|shard| fs::metadata(work.path("data").join(&shard.name)).unwrap().ino()).collect()
        };
        let before = noted.as_ref().map(inodes);
        assert_eq!(work.prepare(&options).unwrap().dataset.manifest(), &whole, "{k}");
        assert_eq!(work.files(), files, "{k}");
        if let (Some(noted), Some(before)) = (noted, before) {
            assert_eq!(inodes(&noted), before, "{k}: a complete shard was written again");
            went_on += usize::from(!before.is_empty());
        }
    }
    assert!(went_on > 10, "{went_on}");
}
