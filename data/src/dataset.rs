//! A dataset folder: the token shards of both splits and `dataset.json`, which lists them.

mod prepare;
mod split;

use std::path::Path;
use std::sync::Arc;

use fornax_base::files::read_limited;
use fornax_base::paths::{PathError, join_inside};
use serde::{Deserialize, Serialize};

pub(crate) use self::prepare::Plan;
pub use self::prepare::{PrepareOptions, PrepareProgress, Prepared, prepare};
use crate::error::DataError;
use crate::intake::IntakeReport;
use crate::shards::{Shard, ShardError};
use crate::stream::TokenStream;

/// Name of the file that lists the shards.
pub const DATASET_FILE: &str = "dataset.json";
const MAX_MANIFEST_BYTES: u64 = 64 << 20;
const FORMAT_VERSION: u32 = 1;

/// `dataset.json`. Fields are written in this order, which is the order of their names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// SHA-256 over sources, tokenizer and options: equal means that preparing again would change nothing.
    pub fingerprint: String,
    /// Version of this format, 1.
    pub format_version: u32,
    /// What filters dropped and repaired; absent when there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake: Option<IntakeReport>,
    /// Seed of the split by document.
    pub seed: u64,
    /// What was read, in order.
    pub sources: Vec<SourceEntry>,
    /// Fingerprint of the tokenizer.
    pub tokenizer: String,
    /// The split that is trained on.
    pub train: SplitEntry,
    /// The split that is held out.
    pub validation: SplitEntry,
    /// Share of documents that was asked for in `validation`.
    pub validation_fraction: f64,
    /// Every token id is below this.
    pub vocab_size: u32,
}

impl Manifest {
    /// Reads the `dataset.json` of a folder; its shards are not looked at.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn read(folder: &Path) -> Result<Manifest, DataError> {
        let path = folder.join(DATASET_FILE);
        let bytes = read_limited(&path, MAX_MANIFEST_BYTES)?;
        let damaged = |reason: String| DataError::Dataset { path: path.clone(), reason };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if manifest.format_version != FORMAT_VERSION {
            let found = manifest.format_version;
            return Err(damaged(format!("format_version is {found}, expected {FORMAT_VERSION}")));
        }
        Ok(manifest)
    }
}

/// A file that was read, or the embedded corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// Its length.
    pub bytes: u64,
    /// The path as given, or the parameters of the corpus.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// One split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitEntry {
    /// UTF-8 bytes of its text.
    pub bytes: u64,
    /// Its documents.
    pub documents: u64,
    /// Its shards in order.
    pub shards: Vec<ShardEntry>,
    /// Its tokens, with the end-of-document tokens.
    pub tokens: u64,
}

/// One shard of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name inside the dataset folder.
    pub name: String,
    /// The checksum in its header.
    pub sha256: String,
    /// Its tokens.
    pub tokens: u64,
}

/// An open dataset whose shards have all been verified.
#[derive(Debug, Clone)]
pub struct Dataset {
    manifest: Manifest,
    train: Arc<TokenStream>,
    validation: Arc<TokenStream>,
}

impl Dataset {
    /// Opens a dataset folder and verifies every shard: checksum, token ids, and that it is the one listed.
    ///
    /// # Errors
    /// What is damaged, naming the shard and, for a token id, its offset; [`DataError::is_damage`] is then true. An
    /// absent `dataset.json` is [`DataError::File`].
    pub fn open(folder: &Path) -> Result<Dataset, DataError> {
        let manifest = Manifest::read(folder)?;
        let path = folder.join(DATASET_FILE);
        let damaged = |reason: String| DataError::Dataset { path: path.clone(), reason };
        let train = Arc::new(open_split(folder, &manifest, &manifest.train, &damaged)?);
        let validation = Arc::new(open_split(folder, &manifest, &manifest.validation, &damaged)?);
        Ok(Dataset { manifest, train, validation })
    }

    /// What `dataset.json` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Tokens to train on.
    pub fn train(&self) -> Arc<TokenStream> {
        Arc::clone(&self.train)
    }

    /// Held-out tokens.
    pub fn validation(&self) -> Arc<TokenStream> {
        Arc::clone(&self.validation)
    }
}

fn open_split(
    folder: &Path,
    manifest: &Manifest,
    split: &SplitEntry,
    damaged: &dyn Fn(String) -> DataError,
) -> Result<TokenStream, DataError> {
    let shards = open_shards(folder, split, &manifest.tokenizer, manifest.vocab_size)?;
    let stream = TokenStream::from_shards(shards);
    for (what, found, expected) in
        [("tokens", stream.len(), split.tokens), ("documents", stream.n_documents(), split.documents)]
    {
        if found != expected {
            return Err(damaged(format!("its shards hold {found} {what}, it lists {expected}")));
        }
    }
    Ok(stream)
}

/// Opens and verifies the shards of a split.
fn open_shards(
    folder: &Path,
    split: &SplitEntry,
    tokenizer: &str,
    vocab_size: u32,
) -> Result<Vec<Shard>, DataError> {
    let open = |entry: &ShardEntry| -> Result<Shard, DataError> {
        let damaged =
            |error: PathError| DataError::Dataset { path: folder.join(DATASET_FILE), reason: error.to_string() };
        let shard = Shard::open(&join_inside(folder, &entry.name).map_err(damaged)?)?;
        check_listed(&shard, entry, tokenizer, vocab_size)?;
        shard.verify()?;
        Ok(shard)
    };
    split.shards.iter().map(open).collect()
}

fn check_listed(shard: &Shard, entry: &ShardEntry, tokenizer: &str, vocab_size: u32) -> Result<(), ShardError> {
    let pairs = [
        ("sha-256", shard.checksum(), entry.sha256.clone()),
        ("tokenizer", shard.tokenizer_fingerprint(), tokenizer.to_owned()),
        ("vocabulary size", shard.vocab_size().to_string(), vocab_size.to_string()),
        ("number of tokens", shard.n_tokens().to_string(), entry.tokens.to_string()),
    ];
    for (what, found, expected) in pairs {
        if found != expected {
            return Err(ShardError::NotListed { path: shard.path().to_owned(), what, found, expected });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
