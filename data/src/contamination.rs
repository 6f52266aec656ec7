//! Benchmark contamination by n-gram overlap: which items of a benchmark stand in the training text, and where.
//!
//! The rule is GPT-3's (Brown et al. 2020, appendix C): texts in lower case without punctuation, split at white space; an
//! item is contaminated when one of its 13-grams occurs in a document. Fields of an item are looked at apart, so that no
//! n-gram runs from one into the next.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::DataError;
use crate::sources::{Format, Source, json_values, rows};
use crate::words::{ngrams, word_hashes};

/// Words in an n-gram unless another number is given.
pub const NGRAM: usize = 13;

/// Items of benchmarks, by their n-grams.
#[derive(Debug, Clone, PartialEq)]
pub struct Benchmarks {
    ngram: usize,
    files: Vec<Benchmark>,
    /// Items in which an n-gram stands: (file, item).
    index: HashMap<u64, Vec<(u32, u32)>>,
}

/// One benchmark file.
#[derive(Debug, Clone, PartialEq)]
struct Benchmark {
    path: PathBuf,
    sha256: String,
    items: u32,
    /// Items with at least one n-gram.
    checked: u32,
}

/// What was found of one benchmark in the documents that were looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlap {
    /// The benchmark's file as given.
    pub benchmark: PathBuf,
    /// Its items.
    pub items: u64,
    /// Items too short to hold an n-gram, which cannot be found.
    pub too_short: u64,
    /// Items that share an n-gram with a document.
    pub overlapping: u64,
    /// Documents that share an n-gram with an item.
    pub documents: u64,
}

/// A document that overlaps, for a list of examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OverlapExample {
    /// The benchmark's file as given.
    pub benchmark: PathBuf,
    /// Its item, from 1.
    pub item: u64,
    /// The document's file.
    pub file: PathBuf,
    /// The document's line or row.
    pub number: u64,
}

impl Benchmarks {
    /// Reads benchmark files: of JSON Lines every string of an object, nested ones too, belongs to its item; in other
    /// files a document is an item.
    ///
    /// # Errors
    /// Files that cannot be read, or an n-gram of no words.
    pub fn load(paths: &[PathBuf], ngram: usize) -> Result<Benchmarks, DataError> {
        if ngram == 0 {
            return Err(DataError::Option("ngram is 0, at least 1 word is needed".to_owned()));
        }
        let mut all = Benchmarks { ngram, files: Vec::new(), index: HashMap::new() };
        for path in paths {
            all.add(path)?;
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path) -> Result<(), DataError> {
        let source = Source::from_path(path, None)?;
        let sha256 = source.content()?.into_iter().map(|content| content.sha256).collect::<Vec<_>>().join(" ");
        let file = self.files.len() as u32;
        let mut benchmark = Benchmark { path: path.to_owned(), sha256, items: 0, checked: 0 };
        for part in source.files() {
            match part.format {
                Format::JsonLines => {
                    for object in json_values(part)? {
                        let mut texts = Vec::new();
                        strings(&object?, &mut texts);
                        self.add_item(file, &mut benchmark, &texts);
                    }
                }
                _ => {
                    for row in rows(&[Source::from_files(vec![part.clone()], None)])? {
                        self.add_item(file, &mut benchmark, &[row?.text]);
                    }
                }
            }
        }
        self.files.push(benchmark);
        Ok(())
    }

    fn add_item(&mut self, file: u32, benchmark: &mut Benchmark, texts: &[String]) {
        let item = (file, benchmark.items);
        let mut has_ngram = false;
        for text in texts {
            for ngram in ngrams(&word_hashes(text), self.ngram) {
                has_ngram = true;
                let items = self.index.entry(ngram).or_default();
                if items.last() != Some(&item) {
                    items.push(item);
                }
            }
        }
        benchmark.items += 1;
        benchmark.checked += u32::from(has_ngram);
    }

    /// Items that share an n-gram with `text`: (file, item), sorted.
    pub(crate) fn found_in(&self, text: &str) -> Vec<(u32, u32)> {
        let mut found: Vec<(u32, u32)> = Vec::new();
        for ngram in ngrams(&word_hashes(text), self.ngram) {
            if let Some(items) = self.index.get(&ngram) {
                found.extend(items);
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Says which benchmarks these are, for a fingerprint.
    pub(crate) fn describe(&self) -> String {
        let files: Vec<&str> = self.files.iter().map(|file| file.sha256.as_str()).collect();
        format!("{} words of {}", self.ngram, files.join(", "))
    }

    /// The path of a benchmark file.
    pub(crate) fn path(&self, file: u32) -> &Path {
        &self.files[file as usize].path
    }
}

/// Collects which items and documents overlap.
#[derive(Debug, Clone, Default)]
pub(crate) struct OverlapCounter {
    /// For each file, which items were found.
    items: Vec<std::collections::HashSet<u32>>,
    documents: Vec<u64>,
}

impl OverlapCounter {
    pub(crate) fn new(benchmarks: &Benchmarks) -> OverlapCounter {
        let n = benchmarks.files.len();
        OverlapCounter { items: vec![Default::default(); n], documents: vec![0; n] }
    }

    /// Counts a document with what was found in it.
    pub(crate) fn add(&mut self, found: &[(u32, u32)]) {
        let mut last = None;
        for (file, item) in found {
            self.items[*file as usize].insert(*item);
            if last != Some(*file) {
                self.documents[*file as usize] += 1;
                last = Some(*file);
            }
        }
    }

    pub(crate) fn finish(&self, benchmarks: &Benchmarks) -> Vec<Overlap> {
        let counted = benchmarks.files.iter().zip(&self.items).zip(&self.documents);
        counted
            .map(|((file, items), documents)| Overlap {
                benchmark: file.path.clone(),
                items: u64::from(file.items),
                too_short: u64::from(file.items - file.checked),
                overlapping: items.len() as u64,
                documents: *documents,
            })
            .collect()
    }
}

/// Every string of a JSON value, in its order.
fn strings(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| strings(item, out)),
        Value::Object(fields) => fields.values().for_each(|item| strings(item, out)),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
