//! Duplicates: exact ones by a hash of the text, near ones by MinHash and locality-sensitive hashing.
//!
//! Documents are read twice: to find duplicates, and to write those that are kept. Held in between are about 50 bytes a
//! document, and for near duplicates 4 bytes for each permutation and about 40 for each band besides: 1.3 KB a document
//! with the defaults.

mod bands;
mod minhash;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use fornax_base::files::{FileSystem, write_atomic};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::bands::Bands;
use self::bands::Buckets;
use self::minhash::{MinHasher, similarity};
use crate::error::DataError;
use crate::intake::{Filters, Intake};
use crate::sources::{Row, Source};

/// How near duplicates are found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NearOptions {
    /// Least Jaccard similarity of the shingles of two documents that count as duplicates, estimated.
    pub threshold: f64,
    /// Places of a signature.
    pub permutations: usize,
    /// Words in a shingle.
    pub ngram: usize,
}

impl Default for NearOptions {
    fn default() -> NearOptions {
        NearOptions { threshold: 0.8, permutations: 128, ngram: 5 }
    }
}

impl NearOptions {
    fn check(&self) -> Result<(), DataError> {
        let wrong = |sentence: String| Err(DataError::Option(sentence));
        let NearOptions { threshold, permutations, ngram } = *self;
        if !(threshold > 0.0 && threshold <= 1.0) {
            return wrong(format!("threshold is {threshold}, a number above 0 and at most 1 is expected"));
        }
        if !(16..=4096).contains(&permutations) {
            return wrong(format!("permutations is {permutations}, a number from 16 to 4096 is expected"));
        }
        if !(1..=1000).contains(&ngram) {
            return wrong(format!("ngram is {ngram}, a number of words from 1 to 1000 is expected"));
        }
        Ok(())
    }

    /// How signatures are cut into bands.
    pub fn bands(&self) -> Bands {
        Bands::for_threshold(self.threshold, self.permutations)
    }
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its file, or `corpus`.
    pub file: PathBuf,
    /// Its line or row.
    pub number: u64,
}

/// Documents that are duplicates of one another, directly or through others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// The earliest, which is kept.
    pub kept: Place,
    /// The others.
    pub dropped: Vec<DroppedDocument>,
}

/// A duplicate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DroppedDocument {
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// Its highest estimated similarity to a member of its cluster; 1 for an exact duplicate.
    pub similarity: f64,
}

/// What [`find_duplicates`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Duplicates {
    /// Documents looked at: those that passed the filters.
    pub documents: u64,
    /// Dropped because another has the same text.
    pub exact: u64,
    /// Dropped because another is similar.
    pub near: u64,
    /// Pairs whose signatures were compared.
    pub compared: u64,
    /// For each document whether it is dropped.
    is_dropped: Vec<bool>,
    /// Clusters of two or more, by their earliest document.
    pub clusters: Vec<Cluster>,
}

impl Duplicates {
    /// Documents that are kept.
    pub fn kept(&self) -> u64 {
        self.documents - self.exact - self.near
    }
}

/// Finds duplicates among the documents of `sources` that pass `filters`: documents of equal text (white space apart),
/// and with `near` those whose shingles are similar. Of each cluster the earliest document is kept. The result depends
/// on the documents and their order alone.
///
/// # Errors
/// Bad options, what cannot be read, [`DataError::NoText`] without a document.
pub fn find_duplicates(
    intake: &mut Intake<'_>,
    near: Option<NearOptions>,
    progress: &mut dyn FnMut(u64),
) -> Result<Duplicates, DataError> {
    let hasher = match near {
        Some(near) => {
            near.check()?;
            Some(MinHasher::new(near.permutations, near.ngram))
        }
        None => None,
    };
    let mut finder = Finder::new(near);
    loop {
        let chunk = intake.next_chunk()?;
        if chunk.is_empty() {
            return if finder.documents.is_empty() { Err(intake.no_text()) } else { Ok(finder.finish()) };
        }
        let hashed: Vec<Hashed> = chunk
            .par_iter()
            .map(|row| (exact_hash(&row.text), hasher.as_ref().and_then(|hasher| hasher.signature(&row.text))))
            .collect();
        for (row, hashed) in chunk.iter().zip(hashed) {
            finder.add(row, hashed);
        }
        progress(finder.documents.len() as u64);
    }
}

/// Of a text: the hash that finds equal ones, and the signature that finds similar ones.
type Hashed = (u128, Option<Vec<u32>>);

/// Half of the SHA-256 of the text, runs of white space made one space and those at its ends dropped.
pub(crate) fn exact_hash(text: &str) -> u128 {
    let mut hash = Sha256::new();
    for (index, word) in text.split_whitespace().enumerate() {
        if index > 0 {
            hash.update(b" ");
        }
        hash.update(word.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    u128::from_le_bytes(std::array::from_fn(|i| digest[i]))
}

/// What is remembered of a document.
struct Known {
    file: u32,
    number: u64,
    /// The document it is joined with; itself for the earliest of its cluster.
    parent: u32,
    /// Its place among the signatures.
    signature: Option<u32>,
    is_exact: bool,
    similarity: f32,
}

struct Finder {
    near: Option<NearOptions>,
    files: Vec<Arc<Path>>,
    documents: Vec<Known>,
    exact: HashMap<u128, u32>,
    /// Signatures end to end.
    signatures: Vec<u32>,
    buckets: Option<Buckets>,
    compared: u64,
}

impl Finder {
    fn new(near: Option<NearOptions>) -> Finder {
        Finder {
            near,
            files: Vec::new(),
            documents: Vec::new(),
            exact: HashMap::new(),
            signatures: Vec::new(),
            buckets: near.map(|near| Buckets::new(near.bands())),
            compared: 0,
        }
    }

    fn add(&mut self, row: &Row, (hash, signature): Hashed) {
        let index = self.documents.len() as u32;
        let file = self.file(&row.file);
        let known =
            Known { file, number: row.number, parent: index, signature: None, is_exact: false, similarity: 0.0 };
        self.documents.push(known);
        if let Some(first) = self.exact.get(&hash).copied() {
            self.documents[index as usize].is_exact = true;
            self.join(first, index, 1.0);
            return;
        }
        self.exact.insert(hash, index);
        if let Some(signature) = signature {
            self.compare(index, &signature);
        }
    }

    fn file(&mut self, file: &Arc<Path>) -> u32 {
        if self.files.last() != Some(file) {
            self.files.push(Arc::clone(file));
        }
        self.files.len() as u32 - 1
    }

    fn compare(&mut self, index: u32, signature: &[u32]) {
        let (Some(near), Some(buckets)) = (self.near, &mut self.buckets) else { return };
        let candidates = buckets.candidates(signature);
        buckets.add(index, signature);
        let n = near.permutations;
        self.documents[index as usize].signature = Some((self.signatures.len() / n) as u32);
        self.signatures.extend_from_slice(signature);
        for candidate in candidates {
            if self.root(candidate) == self.root(index) {
                continue;
            }
            let Some(at) = self.documents[candidate as usize].signature else { continue };
            let at = at as usize * n;
            let similarity = similarity(&self.signatures[at..at + n], signature);
            self.compared += 1;
            if similarity >= near.threshold {
                self.join(candidate, index, similarity as f32);
            }
        }
    }

    /// Joins two clusters; the earliest document of both is the root.
    fn join(&mut self, a: u32, b: u32, similarity: f32) {
        for member in [a, b] {
            let known = &mut self.documents[member as usize];
            known.similarity = known.similarity.max(similarity);
        }
        let (a, b) = (self.root(a), self.root(b));
        self.documents[a.max(b) as usize].parent = a.min(b);
    }

    fn root(&mut self, mut index: u32) -> u32 {
        loop {
            let parent = self.documents[index as usize].parent;
            if parent == index {
                return index;
            }
            // Halves the way for those who come later.
            let next = self.documents[parent as usize].parent;
            self.documents[index as usize].parent = next;
            index = next;
        }
    }

    fn finish(mut self) -> Duplicates {
        let n = self.documents.len();
        let mut members: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut is_dropped = vec![false; n];
        let (mut exact, mut near) = (0, 0);
        for index in 0..n as u32 {
            let root = self.root(index);
            if root != index {
                is_dropped[index as usize] = true;
                *if self.documents[index as usize].is_exact { &mut exact } else { &mut near } += 1;
                members.entry(root).or_default().push(index);
            }
        }
        let mut roots: Vec<u32> = members.keys().copied().collect();
        roots.sort_unstable();
        let clusters = roots
            .into_iter()
            .map(|root| Cluster {
                kept: self.place(root),
                dropped: members[&root].iter().map(|index| self.dropped(*index)).collect(),
            })
            .collect();
        Duplicates { documents: n as u64, exact, near, compared: self.compared, is_dropped, clusters }
    }

    fn place(&self, index: u32) -> Place {
        let known = &self.documents[index as usize];
        Place { file: self.files[known.file as usize].to_path_buf(), number: known.number }
    }

    fn dropped(&self, index: u32) -> DroppedDocument {
        let similarity = f64::from(self.documents[index as usize].similarity);
        DroppedDocument { place: self.place(index), similarity: (similarity * 1e4).round() / 1e4 }
    }
}

/// Writes the documents that are kept to `out` as JSON Lines with the field `text`, compressed when its name ends in
/// `.gz`; the file is there complete or not at all. Gives the bytes of text written.
///
/// # Errors
/// What cannot be read or written, or documents that are not those `duplicates` was made from.
pub fn write_kept(
    fs: &dyn FileSystem,
    sources: &[Source],
    filters: &Filters,
    duplicates: &Duplicates,
    out: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, DataError> {
    let mut failure = None;
    let mut bytes = 0;
    let written = write_atomic(fs, out, &mut |file| {
        let mut write_all = |to: &mut dyn Write| {
            let written = write_rows(sources, filters, duplicates, to, progress);
            written.map(|n| bytes = n).map_err(|error| match error {
                WriteError::Io(error) => error,
                WriteError::Data(error) => {
                    failure = Some(error);
                    std::io::Error::other("the documents could not be read")
                }
            })
        };
        match out.extension().is_some_and(|extension| extension == "gz") {
            true => {
                let mut gzip = GzEncoder::new(file, Compression::default());
                write_all(&mut gzip)?;
                gzip.finish().map(|_| ())
            }
            false => write_all(file),
        }
    });
    match (failure, written) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => Ok(bytes),
    }
}

enum WriteError {
    Io(std::io::Error),
    Data(DataError),
}

fn write_rows(
    sources: &[Source],
    filters: &Filters,
    duplicates: &Duplicates,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, WriteError> {
    #[derive(Serialize)]
    struct Line<'a> {
        text: &'a str,
    }
    let mut intake = Intake::new(sources, filters).map_err(WriteError::Data)?;
    let (mut index, mut bytes) = (0, 0);
    let changed = || WriteError::Data(DataError::Changed);
    loop {
        let chunk = intake.next_chunk().map_err(WriteError::Data)?;
        if chunk.is_empty() {
            return if index == duplicates.is_dropped.len() { Ok(bytes) } else { Err(changed()) };
        }
        for row in &chunk {
            let is_dropped = *duplicates.is_dropped.get(index).ok_or_else(changed)?;
            index += 1;
            if !is_dropped {
                let line =
                    serde_json::to_string(&Line { text: &row.text }).map_err(|e| WriteError::Io(e.into()))?;
                writeln!(out, "{line}").map_err(WriteError::Io)?;
                bytes += row.text.len() as u64;
            }
        }
        progress(index as u64);
    }
}

#[cfg(test)]
mod tests;
