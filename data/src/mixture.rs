//! Several datasets in fixed proportions: which of them a row comes from, and the folder that lists them.
//!
//! Rows are dealt to sources by a rule without memory: of `n` rows the source with share `p` of what is left gets
//! `round(n * p)`, the rest go to the sources after it. After any number of rows each source therefore has its share to
//! within half a row for each other source ([`Shares::tolerance`]), and every row has as many tokens as another, so shares of rows are
//! shares of tokens. Where a source stands is a function of the number of rows, so a cursor needs no more than that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fornax_base::files::{FileSystem, create_folder, read_limited, write_atomic_bytes};
use fornax_base::paths::join_inside;
use serde::{Deserialize, Serialize};

use crate::dataset::{DATASET_FILE, Dataset, Plan, PrepareOptions, PrepareProgress, Prepared};
use crate::error::DataError;
use crate::sources::Source;
use crate::stream::TokenStream;
use crate::tokenizer::{TOKENIZER_FILE, Tokenizer};

/// Name of the file that lists the datasets of a mixture.
pub const MIXTURE_FILE: &str = "mixture.json";
const MAX_BYTES: u64 = 16 << 20;
const FORMAT_VERSION: u32 = 1;
/// Most sources of a mixture.
pub const MAX_SOURCES: usize = 1000;
/// Weights become whole numbers of this part of their sum.
const PARTS: f64 = (1u64 << 40) as f64;

/// A dataset of a mixture.
#[derive(Debug, Clone)]
pub struct Part {
    /// How the user knows it.
    pub name: String,
    /// Its share of the tokens, relative to the other weights.
    pub weight: f64,
    /// Its tokens.
    pub dataset: Dataset,
}

/// Datasets of one tokenizer and their weights; often a single one.
#[derive(Debug, Clone)]
pub struct Mixture {
    parts: Vec<Part>,
}

/// `mixture.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MixtureList {
    format_version: u32,
    parts: Vec<PartEntry>,
}

/// A dataset in `mixture.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartEntry {
    /// The fingerprint of its `dataset.json`.
    pub fingerprint: String,
    /// Its folder: a name inside that of the mixture, or an absolute path.
    pub folder: PathBuf,
    /// How the user knows it.
    pub name: String,
    /// Its weight.
    pub weight: f64,
}

impl Mixture {
    /// A mixture of these datasets.
    ///
    /// # Errors
    /// [`DataError::Option`] for weights that are no shares, [`DataError::Dataset`] for datasets of different
    /// tokenizers.
    pub fn new(parts: Vec<Part>) -> Result<Mixture, DataError> {
        Shares::new(&parts.iter().map(|part| part.weight).collect::<Vec<_>>())?;
        let mixture = Mixture { parts };
        let tokenizer = mixture.tokenizer();
        match mixture.parts.iter().find(|part| part.dataset.manifest().tokenizer != tokenizer) {
            None => Ok(mixture),
            Some(other) => Err(DataError::Option(format!(
                "`{}` was prepared with the tokenizer {}, `{}` with {tokenizer}",
                other.name,
                other.dataset.manifest().tokenizer,
                mixture.parts[0].name
            ))),
        }
    }

    /// A single dataset.
    pub fn single(name: String, dataset: Dataset) -> Mixture {
        Mixture { parts: vec![Part { name, weight: 1.0, dataset }] }
    }

    /// Opens a folder that holds a dataset or lists several, and verifies every shard.
    ///
    /// # Errors
    /// As [`Dataset::open`]; a dataset that is not the one listed is damage.
    pub fn open(folder: &Path) -> Result<Mixture, DataError> {
        let entries = match read_list(folder)? {
            Some(entries) => entries,
            None => return Ok(Mixture::single(folder.display().to_string(), Dataset::open(folder)?)),
        };
        let mut parts = Vec::new();
        for entry in entries {
            let dataset = Dataset::open(&entry.folder)?;
            let found = &dataset.manifest().fingerprint;
            if *found != entry.fingerprint {
                let path = entry.folder.join(DATASET_FILE);
                let reason = format!("its fingerprint is {found}, the mixture lists {}", entry.fingerprint);
                return Err(DataError::Dataset { path, reason });
            }
            parts.push(Part { name: entry.name, weight: entry.weight, dataset });
        }
        Mixture::new(parts)
    }

    /// Its datasets.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Fingerprint of the tokenizer of all its datasets.
    pub fn tokenizer(&self) -> &str {
        &self.parts[0].dataset.manifest().tokenizer
    }

    /// The training tokens of each dataset, with its weight.
    pub fn train(&self) -> Vec<(Arc<TokenStream>, f64)> {
        self.parts.iter().map(|part| (part.dataset.train(), part.weight)).collect()
    }

    /// The held-out tokens of each dataset, with its weight.
    pub fn validation(&self) -> Vec<(Arc<TokenStream>, f64)> {
        self.parts.iter().map(|part| (part.dataset.validation(), part.weight)).collect()
    }
}

/// Whether a folder holds something [`Mixture::open`] opens.
pub fn is_prepared(folder: &Path) -> bool {
    [DATASET_FILE, MIXTURE_FILE].iter().any(|name| folder.join(name).is_file())
}

/// The folder in which the tokenizer of a prepared folder lies: that folder, or above the dataset of a mixture.
pub fn tokenizer_folder(folder: &Path) -> Option<&Path> {
    let has = |folder: &Path| folder.join(TOKENIZER_FILE).is_file();
    let above = || folder.parent().filter(|above| above.join(MIXTURE_FILE).is_file());
    Some(folder).filter(|folder| has(folder)).or_else(|| above().filter(|above| has(above)))
}

/// The datasets a folder lists, with their folders found from here; `None` when it lists none.
///
/// # Errors
/// A list that is not what [`write_list`] writes.
pub fn read_list(folder: &Path) -> Result<Option<Vec<PartEntry>>, DataError> {
    let path = folder.join(MIXTURE_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let damaged = |reason: String| DataError::Dataset { path: path.clone(), reason };
    let list: MixtureList =
        serde_json::from_slice(&read_limited(&path, MAX_BYTES)?).map_err(|error| damaged(error.to_string()))?;
    if list.format_version != FORMAT_VERSION {
        let found = list.format_version;
        return Err(damaged(format!("format_version is {found}, expected {FORMAT_VERSION}")));
    }
    let mut entries = list.parts;
    for entry in &mut entries {
        if !entry.folder.is_absolute() {
            let name = entry.folder.to_string_lossy().into_owned();
            entry.folder = join_inside(folder, &name).map_err(|error| damaged(error.to_string()))?;
        }
    }
    Ok(Some(entries))
}

/// Writes the list of a mixture into `folder`.
///
/// # Errors
/// The file operation that failed.
pub fn write_list(fs: &dyn FileSystem, folder: &Path, parts: Vec<PartEntry>) -> Result<(), DataError> {
    let path = folder.join(MIXTURE_FILE);
    let list = MixtureList { format_version: FORMAT_VERSION, parts };
    let mut json = serde_json::to_vec_pretty(&list)
        .map_err(|error| DataError::Dataset { path: path.clone(), reason: error.to_string() })?;
    json.push(b'\n');
    create_folder(fs, folder)?;
    Ok(write_atomic_bytes(fs, &path, &json)?)
}

/// Text that becomes a dataset, or one of those of a mixture.
#[derive(Debug, Clone)]
pub struct Text {
    /// How the user knows it.
    pub name: String,
    /// Its weight; absent for a text that is a dataset by itself.
    pub weight: Option<f64>,
    /// Where its documents come from.
    pub sources: Vec<Source>,
}

/// A dataset made by [`prepare_texts`].
#[derive(Debug, Clone)]
pub struct PreparedPart {
    /// How the user knows it.
    pub name: String,
    /// Its weight; 1 for a text that is a dataset by itself.
    pub weight: f64,
    /// What was made or found.
    pub prepared: Prepared,
}

/// Makes a folder that can be trained on: the tokenizer, and either the dataset of a single text without a weight, or
/// a dataset for each text in `part-000`, `part-001`, ... and the list of them.
///
/// # Errors
/// As [`crate::dataset::prepare()`]; a folder that holds the other kind is refused.
pub fn prepare_texts(
    fs: &dyn FileSystem,
    texts: &[Text],
    tokenizer: &Tokenizer,
    folder: &Path,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<Vec<PreparedPart>, DataError> {
    let is_single = matches!(texts, [Text { weight: None, .. }]);
    let other = folder.join(if is_single { MIXTURE_FILE } else { DATASET_FILE });
    if other.exists() {
        let path = folder.display();
        let (wanted, found) = if is_single { ("one dataset", "a mixture") } else { ("a mixture", "one dataset") };
        return Err(DataError::Option(format!("`{path}` holds {found}, and {wanted} is to be written there")));
    }
    Shares::new(&texts.iter().map(|text| text.weight.unwrap_or(1.0)).collect::<Vec<_>>())?;
    let names: Vec<PathBuf> = (0..texts.len()).map(|index| PathBuf::from(format!("part-{index:03}"))).collect();
    let folders: Vec<PathBuf> =
        names.iter().map(|name| if is_single { folder.to_owned() } else { folder.join(name) }).collect();
    // All texts are read before anything is written: what is there stays when one of them cannot be.
    let mut plans = Vec::new();
    for (text, to) in texts.iter().zip(&folders) {
        plans.push(Plan::new(&text.sources, tokenizer, to, options, progress)?);
    }
    // From here until the new list is written there is no mixture, so that none lists a dataset that was replaced.
    let list = folder.join(MIXTURE_FILE);
    if list.exists() {
        fs.remove_file(&list).map_err(|source| DataError::Remove { path: list, source })?;
    }
    tokenizer.save(fs, folder)?;
    let mut parts = Vec::new();
    let mut entries = Vec::new();
    for ((text, plan), name) in texts.iter().zip(plans).zip(names) {
        let prepared = plan.carry_out(fs, progress)?;
        let fingerprint = prepared.dataset.manifest().fingerprint.clone();
        let weight = text.weight.unwrap_or(1.0);
        entries.push(PartEntry { fingerprint, folder: name, name: text.name.clone(), weight });
        parts.push(PreparedPart { name: text.name.clone(), weight, prepared });
    }
    if !is_single {
        write_list(fs, folder, entries)?;
    }
    Ok(parts)
}

/// Which source each row comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// Weights as whole numbers.
    weights: Vec<u64>,
}

impl Shares {
    /// Shares in proportion to `weights`.
    ///
    /// # Errors
    /// [`DataError::Option`] for no weight, too many, or one that is no number above 0.
    pub fn new(weights: &[f64]) -> Result<Shares, DataError> {
        if weights.is_empty() || weights.len() > MAX_SOURCES {
            let found = weights.len();
            return Err(DataError::Option(format!(
                "a mixture of {found} sources, 1 to {MAX_SOURCES} are expected"
            )));
        }
        if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
            return Err(DataError::Option(format!("a weight is {weight}, a number above 0 is expected")));
        }
        let greatest = weights.iter().fold(0.0, |a: f64, b| a.max(*b));
        let whole = |weight: &f64| ((weight / greatest * PARTS).round() as u64).max(1);
        Ok(Shares { weights: weights.iter().map(whole).collect() })
    }

    /// The source of row number `row`, and how many rows it gave before.
    pub fn of_row(&self, row: u64) -> (usize, u64) {
        let mut n = row;
        let mut left: u64 = self.weights.iter().sum();
        let mut source = 0;
        loop {
            let before = taken(n, self.weights[source], left);
            if source + 1 == self.weights.len() || taken(n + 1, self.weights[source], left) > before {
                return (source, before);
            }
            n -= before;
            left -= self.weights[source];
            source += 1;
        }
    }

    /// How many of the first `rows` rows each source gave.
    pub fn counts(&self, rows: u64) -> Vec<u64> {
        let mut n = rows;
        let mut left: u64 = self.weights.iter().sum();
        let of_source = |weight: &u64| {
            let count = taken(n, *weight, left);
            n -= count;
            left -= weight;
            count
        };
        self.weights.iter().map(of_source).collect()
    }

    /// The share of each source.
    pub fn shares(&self) -> Vec<f64> {
        let all: u64 = self.weights.iter().sum();
        self.weights.iter().map(|weight| *weight as f64 / all as f64).collect()
    }

    /// Rows by which a source may be off its share: half a row for each other source. Each rounding is off by at most a
    /// half, and what a source is off is passed on to those behind it.
    pub fn tolerance(&self) -> f64 {
        (self.weights.len() - 1) as f64 / 2.0
    }
}

/// `round(n * weight / left)`, halves up.
fn taken(n: u64, weight: u64, left: u64) -> u64 {
    let (n, weight, left) = (u128::from(n), u128::from(weight), u128::from(left));
    ((n * weight + left / 2) / left) as u64
}

#[cfg(test)]
mod tests;
