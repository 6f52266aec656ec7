//! Sources to a dataset folder.

use std::path::{Path, PathBuf};

use fornax_base::files::{
    FileSystem, create_folder, read_limited, remove_stale_temps, sha256_hex, write_atomic_bytes,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::split::{Rule, Side};
use super::{
    DATASET_FILE, Dataset, FORMAT_VERSION, MAX_MANIFEST_BYTES, Manifest, ShardEntry, SourceEntry, SplitEntry,
    open_shards,
};
use crate::contamination::OverlapExample;
use crate::error::DataError;
use crate::intake::{DropExample, Filters, Intake, IntakeReport};
use crate::shards::ShardWriter;
use crate::sources::Source;
use crate::tokenizer::Tokenizer;

/// Which shards are complete, while a dataset is being prepared.
const PROGRESS_FILE: &str = "prepare.json";

/// How sources become a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct PrepareOptions {
    /// Decides which documents are held out.
    pub seed: u64,
    /// Share of the documents held out, between 0 and 1. A single document (such as tinyshakespeare) is cut instead:
    /// its last characters are held out, as nanoGPT does.
    pub validation_fraction: f64,
    /// A shard is closed before it passes this number of tokens; a longer document makes a longer shard. What is held
    /// in memory is 2 or 4 bytes a token.
    pub max_shard_tokens: u64,
    /// What is asked of documents before they are encoded.
    pub filters: Filters,
}

impl PrepareOptions {
    /// Options with `seed`, a tenth held out, and shards of at most 64 Mi tokens.
    pub fn new(seed: u64) -> PrepareOptions {
        PrepareOptions { seed, validation_fraction: 0.1, max_shard_tokens: 64 << 20, filters: Filters::default() }
    }

    /// Refuses options that cannot be met.
    ///
    /// # Errors
    /// The option, with what was found and what is expected.
    pub fn check(&self) -> Result<(), DataError> {
        if !(self.validation_fraction > 0.0 && self.validation_fraction < 1.0) {
            return Err(DataError::ValidationFraction(self.validation_fraction));
        }
        if self.max_shard_tokens == 0 {
            return Err(DataError::ShardSize);
        }
        self.filters.check()
    }
}

/// How far [`prepare`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrepareProgress {
    /// Documents are being counted.
    Counting {
        /// Documents so far.
        documents: u64,
    },
    /// Documents are being encoded.
    Encoding {
        /// Bytes of text done.
        bytes: u64,
        /// Bytes of text in all.
        total_bytes: u64,
        /// Tokens so far.
        tokens: u64,
    },
}

/// What [`prepare`] made or found.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The dataset, verified.
    pub dataset: Dataset,
    /// Whether it was there already and nothing was written.
    pub reused: bool,
    /// Up to three dropped documents for each reason; none when it was there already.
    pub examples: Vec<DropExample>,
    /// Up to three overlaps for each benchmark; none when it was there already.
    pub overlap_examples: Vec<OverlapExample>,
}

/// Encodes `sources` with `tokenizer` into `folder`: `train-00000.shard`, `validation-00000.shard`, ..., and
/// `dataset.json`, which is written when all shards are complete. The end-of-document token follows each document if
/// the tokenizer has one. What was interrupted goes on behind its last complete shards. A folder that already holds the dataset of equal inputs is verified and used as it is;
/// anything else in it that `prepare` wrote is replaced, damaged or not. Two calls on one folder at a time are for the
/// caller to prevent.
///
/// # Errors
/// Bad options, unreadable sources, text that cannot be encoded, or failed file operations. A source without text is
/// [`DataError::NoText`].
pub fn prepare(
    fs: &dyn FileSystem,
    sources: &[Source],
    tokenizer: &Tokenizer,
    folder: &Path,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<Prepared, DataError> {
    Plan::new(sources, tokenizer, folder, options, progress)?.carry_out(fs, progress)
}

/// A preparation of which everything is known that can be known without writing.
pub(crate) struct Plan<'a> {
    sources: &'a [Source],
    tokenizer: &'a Tokenizer,
    folder: &'a Path,
    options: &'a PrepareOptions,
    entries: Vec<SourceEntry>,
    fingerprint: String,
    found: Found,
}

enum Found {
    /// The dataset is there already, whole.
    Dataset(Dataset),
    Text(Counted),
}

impl<'a> Plan<'a> {
    /// Reads the sources once; changes nothing.
    pub(crate) fn new(
        sources: &'a [Source],
        tokenizer: &'a Tokenizer,
        folder: &'a Path,
        options: &'a PrepareOptions,
        progress: &mut dyn FnMut(PrepareProgress),
    ) -> Result<Plan<'a>, DataError> {
        options.check()?;
        let entries = source_entries(sources)?;
        let fingerprint = fingerprint(&entries, tokenizer, options);
        let found = match Dataset::open(folder) {
            Ok(dataset) if dataset.manifest().fingerprint == fingerprint => Found::Dataset(dataset),
            _ => Found::Text(count(sources, options, progress)?),
        };
        Ok(Plan { sources, tokenizer, folder, options, entries, fingerprint, found })
    }

    /// Writes what is not there.
    pub(crate) fn carry_out(
        self,
        fs: &dyn FileSystem,
        progress: &mut dyn FnMut(PrepareProgress),
    ) -> Result<Prepared, DataError> {
        let counted = match self.found {
            Found::Dataset(dataset) => {
                return Ok(Prepared { dataset, reused: true, examples: Vec::new(), overlap_examples: Vec::new() });
            }
            Found::Text(counted) => counted,
        };
        let Plan { sources, tokenizer, folder, options, entries, fingerprint, .. } = self;
        let rule = Rule::new(options.seed, options.validation_fraction, counted.report.kept);
        create_folder(fs, folder)?;
        remove_stale_temps(fs, folder)?;
        // From here until the list is written there is no dataset, so that a crash leaves none of old and new shards mixed.
        remove_if_there(fs, &folder.join(DATASET_FILE))?;
        let mut writers = Writers::new(fs, folder, tokenizer, options, &fingerprint)?;
        writers.encode_all(sources, &rule, counted.report.kept_bytes, progress)?;
        let Writers { train, validation, .. } = writers;
        let (train, validation) = (train.finish()?, validation.finish()?);
        let manifest = Manifest {
            fingerprint,
            format_version: FORMAT_VERSION,
            intake: (!options.filters.is_empty()).then_some(counted.report),
            seed: options.seed,
            sources: entries,
            tokenizer: tokenizer.fingerprint(),
            train,
            validation,
            validation_fraction: options.validation_fraction,
            vocab_size: tokenizer.vocab_size() as u32,
        };
        remove_unlisted(fs, folder, &manifest)?;
        remove_if_there(fs, &folder.join(PROGRESS_FILE))?;
        let path = folder.join(DATASET_FILE);
        write_atomic_bytes(fs, &path, &to_json(&manifest, &path)?)?;
        let dataset = Dataset::open(folder)?;
        Ok(Prepared {
            dataset,
            reused: false,
            examples: counted.examples,
            overlap_examples: counted.overlap_examples,
        })
    }
}

fn to_json(manifest: &impl Serialize, path: &Path) -> Result<Vec<u8>, DataError> {
    let mut json = serde_json::to_vec_pretty(manifest)
        .map_err(|error| DataError::Dataset { path: path.to_owned(), reason: error.to_string() })?;
    json.push(b'\n');
    Ok(json)
}

fn source_entries(sources: &[Source]) -> Result<Vec<SourceEntry>, DataError> {
    let mut entries = Vec::new();
    for source in sources {
        for content in source.content()? {
            entries.push(SourceEntry { bytes: content.bytes, name: content.name, sha256: content.sha256 });
        }
    }
    Ok(entries)
}

fn fingerprint(entries: &[SourceEntry], tokenizer: &Tokenizer, options: &PrepareOptions) -> String {
    let eos = tokenizer.eos_id().map_or("none".to_owned(), |id| id.to_string());
    let mut text = format!(
        "format {FORMAT_VERSION}\ntokenizer {}\neos {eos}\nseed {}\nvalidation_fraction {}\nmax_shard_tokens {}\n",
        tokenizer.fingerprint(),
        options.seed,
        options.validation_fraction,
        options.max_shard_tokens
    );
    if !options.filters.is_empty() {
        text.push_str(&options.filters.describe());
    }
    for entry in entries {
        text.push_str(&format!("source {} {} {:?}\n", entry.sha256, entry.bytes, entry.name));
    }
    sha256_hex(text.as_bytes())
}

/// What a first reading of the sources gives.
struct Counted {
    report: IntakeReport,
    examples: Vec<DropExample>,
    overlap_examples: Vec<OverlapExample>,
}

fn count(
    sources: &[Source],
    options: &PrepareOptions,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<Counted, DataError> {
    let mut intake = Intake::new(sources, &options.filters)?;
    while !intake.next_chunk()?.is_empty() {
        progress(PrepareProgress::Counting { documents: intake.report().documents });
    }
    let report = intake.report();
    if report.kept == 0 {
        return Err(intake.no_text());
    }
    Ok(Counted { report, examples: intake.examples(), overlap_examples: intake.overlap_examples().to_vec() })
}

struct Writers<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a PrepareOptions,
    fs: &'a dyn FileSystem,
    folder: PathBuf,
    fingerprint: String,
    train: SplitWriter<'a>,
    validation: SplitWriter<'a>,
}

/// `prepare.json`: what an interrupted preparation has completed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    pub(super) fingerprint: String,
    pub(super) train: Closed,
    pub(super) validation: Closed,
}

/// The complete shards of a split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Closed {
    pub(super) entry: SplitEntry,
    /// Documents (or parts of one) that went into them, those without tokens included.
    parts: u64,
}

impl<'a> Writers<'a> {
    fn new(
        fs: &'a dyn FileSystem,
        folder: &Path,
        tokenizer: &'a Tokenizer,
        options: &'a PrepareOptions,
        fingerprint: &str,
    ) -> Result<Writers<'a>, DataError> {
        let done = completed(folder, fingerprint, tokenizer);
        if done.is_none() {
            remove_if_there(fs, &folder.join(PROGRESS_FILE))?;
        }
        let (train, validation) = done.map_or_else(Default::default, |done| (done.train, done.validation));
        let split = |name, closed: Closed| SplitWriter {
            fs,
            folder: folder.to_owned(),
            name,
            vocab_size: tokenizer.vocab_size() as u32,
            fingerprint: tokenizer.fingerprint_bytes(),
            max_tokens: options.max_shard_tokens,
            writer: ShardWriter::new(tokenizer.vocab_size() as u32, tokenizer.fingerprint_bytes()),
            entry: closed.entry.clone(),
            parts: 0,
            closed,
        };
        Ok(Writers {
            tokenizer,
            options,
            fs,
            folder: folder.to_owned(),
            fingerprint: fingerprint.to_owned(),
            train: split("train", train),
            validation: split("validation", validation),
        })
    }

    /// Encodes chunk by chunk: in parallel within a chunk, written in the order of the documents.
    fn encode_all(
        &mut self,
        sources: &[Source],
        rule: &Rule,
        total_bytes: u64,
        progress: &mut dyn FnMut(PrepareProgress),
    ) -> Result<(), DataError> {
        let mut intake = Intake::new(sources, &self.options.filters)?;
        let mut index = 0;
        loop {
            let chunk = intake.next_chunk()?;
            if chunk.is_empty() {
                return Ok(());
            }
            let mut parts = Vec::with_capacity(chunk.len());
            for row in chunk {
                for (side, text) in rule.parts(index, row.text)? {
                    if !self.side(side).is_done() {
                        parts.push((side, text));
                    }
                }
                index += 1;
            }
            let encoded: Vec<_> = parts.par_iter().map(|(_, text)| encode(self.tokenizer, text)).collect();
            for ((side, text), tokens) in parts.iter().zip(encoded) {
                if self.side(*side).push(&tokens?, text.len() as u64)? {
                    self.note()?;
                }
            }
            progress(PrepareProgress::Encoding {
                bytes: self.train.entry.bytes + self.validation.entry.bytes,
                total_bytes,
                tokens: self.train.entry.tokens + self.validation.entry.tokens,
            });
        }
    }

    fn side(&mut self, side: Side) -> &mut SplitWriter<'a> {
        match side {
            Side::Train => &mut self.train,
            Side::Validation => &mut self.validation,
        }
    }

    /// Notes which shards are complete.
    fn note(&self) -> Result<(), DataError> {
        let (train, validation) = (self.train.closed.clone(), self.validation.closed.clone());
        let progress = Progress { fingerprint: self.fingerprint.clone(), train, validation };
        let path = self.folder.join(PROGRESS_FILE);
        Ok(write_atomic_bytes(self.fs, &path, &to_json(&progress, &path)?)?)
    }
}

/// What an interrupted preparation of the same dataset left, when all of it is whole.
pub(super) fn completed(folder: &Path, fingerprint: &str, tokenizer: &Tokenizer) -> Option<Progress> {
    let bytes = read_limited(&folder.join(PROGRESS_FILE), MAX_MANIFEST_BYTES).ok()?;
    let progress: Progress = serde_json::from_slice(&bytes).ok()?;
    let tokenizer = (tokenizer.fingerprint(), tokenizer.vocab_size() as u32);
    let whole = |closed: &Closed| open_shards(folder, &closed.entry, &tokenizer.0, tokenizer.1).is_ok();
    let is_ours = progress.fingerprint == fingerprint && whole(&progress.train) && whole(&progress.validation);
    is_ours.then_some(progress)
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, DataError> {
    let mut tokens = tokenizer.encode(text, false)?;
    tokens.extend(tokenizer.eos_id());
    Ok(tokens)
}

/// The shards of one split, one of them open.
struct SplitWriter<'a> {
    fs: &'a dyn FileSystem,
    folder: PathBuf,
    name: &'static str,
    vocab_size: u32,
    fingerprint: [u8; 32],
    max_tokens: u64,
    writer: ShardWriter,
    entry: SplitEntry,
    /// Documents seen; those up to `closed.parts` lie in complete shards.
    parts: u64,
    closed: Closed,
}

impl SplitWriter<'_> {
    /// Whether the next document lies in a complete shard already; it is passed over then.
    fn is_done(&mut self) -> bool {
        let done = self.parts < self.closed.parts;
        self.parts += u64::from(done);
        done
    }

    /// Adds a document. True when a shard was completed before it.
    fn push(&mut self, tokens: &[u32], bytes: u64) -> Result<bool, DataError> {
        let n = tokens.len() as u64;
        let closes = self.writer.n_tokens() > 0 && self.writer.n_tokens() + n > self.max_tokens;
        if closes {
            self.close()?;
        }
        self.writer.push_document(tokens);
        self.parts += 1;
        self.entry.bytes += bytes;
        self.entry.tokens += n;
        Ok(closes)
    }

    fn close(&mut self) -> Result<(), DataError> {
        let empty = ShardWriter::new(self.vocab_size, self.fingerprint);
        let writer = std::mem::replace(&mut self.writer, empty);
        let name = format!("{}-{:05}.shard", self.name, self.entry.shards.len());
        let written = writer.finish(self.fs, &self.folder.join(&name))?;
        self.entry.documents += written.n_documents;
        self.entry.shards.push(ShardEntry { name, sha256: written.checksum, tokens: written.n_tokens });
        self.closed = Closed { entry: self.entry.clone(), parts: self.parts };
        Ok(())
    }

    fn finish(mut self) -> Result<SplitEntry, DataError> {
        if self.writer.n_tokens() > 0 {
            self.close()?;
        }
        if self.entry.shards.is_empty() {
            return Err(DataError::NoText(format!("the {} split", self.name)));
        }
        Ok(self.entry)
    }
}

/// Removes shards of an earlier dataset that the new one did not replace.
fn remove_unlisted(fs: &dyn FileSystem, folder: &Path, manifest: &Manifest) -> Result<(), DataError> {
    let listed = |name: &str| {
        [&manifest.train, &manifest.validation].iter().any(|split| split.shards.iter().any(|s| s.name == name))
    };
    let read = |source| DataError::Read { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        if let Some(name) = entry.file_name().to_str()
            && is_shard_name(name)
            && !listed(name)
        {
            remove_if_there(fs, &entry.path())?;
        }
    }
    Ok(())
}

/// Whether this is a name that [`SplitWriter`] gives.
fn is_shard_name(name: &str) -> bool {
    let number =
        ["train-", "validation-"].iter().find_map(|split| name.strip_prefix(split)?.strip_suffix(".shard"));
    number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn remove_if_there(fs: &dyn FileSystem, path: &Path) -> Result<(), DataError> {
    match fs.remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(DataError::Remove { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
