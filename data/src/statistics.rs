//! What a text is like: sizes, words, tokens, lengths, duplicates, repeated lines.
//!
//! Held in memory are 28 bytes a document (its length and hash, and its tokens where they are counted), and tables of
//! different words and lines of at most [`MAX_ENTRIES`] entries each; where a table is full the count says so.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::Dataset;
use crate::dedup::exact_hash;
use crate::error::DataError;
use crate::intake::Intake;
use crate::sources::Row;
use crate::stream::TokenStream;
use crate::tokenizer::Tokenizer;
use crate::words::word_hashes;

/// Most entries of a table of words or lines.
pub const MAX_ENTRIES: usize = 4 << 20;
/// Documents and lines listed at the ends of orders.
const LISTED: usize = 5;
/// Characters shown of a document or a line.
const SHOWN_CHARS: usize = 80;
/// Tokens decoded at once when a prepared dataset is measured.
const CHUNK_DOCUMENTS: u64 = 4096;

/// What a text is like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// Documents.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Characters.
    pub characters: u64,
    /// Lines that are not blank.
    pub lines: u64,
    /// Words: what is left of text between white space without its punctuation.
    pub words: u64,
    /// Different words, ignoring case.
    pub distinct_words: u64,
    /// Whether there are more, because the table was full.
    pub distinct_words_is_least: bool,
    /// Tokens, where there is a tokenizer; without those that end documents.
    pub tokens: Option<u64>,
    /// Tokens a word.
    pub tokens_per_word: Option<f64>,
    /// Bytes a token.
    pub bytes_per_token: Option<f64>,
    /// Lengths of documents in characters.
    pub document_characters: Lengths,
    /// Lengths of documents in tokens.
    pub document_tokens: Option<Lengths>,
    /// Documents by length in characters, in bins whose ends double.
    pub histogram: Vec<Bin>,
    /// Documents whose text stands there before, white space apart.
    pub duplicates: u64,
    /// Size of the gzipped text as a share of its size.
    pub gzip_ratio: f64,
    /// The longest documents, longest first.
    pub longest: Vec<Extreme>,
    /// The shortest documents, shortest first.
    pub shortest: Vec<Extreme>,
    /// Lines that stand there most often, at least twice.
    pub top_lines: Vec<TopLine>,
}

/// A distribution of lengths. Percentiles are lengths that occur: the smallest that so many percent do not exceed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Lengths {
    pub min: u64,
    pub p5: u64,
    pub p25: u64,
    pub p50: u64,
    pub p75: u64,
    pub p95: u64,
    pub p99: u64,
    pub max: u64,
    pub mean: f64,
}

/// Documents of a range of lengths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// Least length.
    pub from: u64,
    /// The length at which the next bin begins.
    pub to: u64,
    /// Its documents.
    pub documents: u64,
}

/// A document at an end of the order of lengths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extreme {
    /// Its file, or the dataset's folder.
    pub file: PathBuf,
    /// Its line or row, or its number in the dataset.
    pub number: u64,
    /// Its length.
    pub characters: u64,
    /// Its beginning.
    pub text: String,
}

/// A line that stands there several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopLine {
    /// How often.
    pub count: u64,
    /// Its beginning.
    pub text: String,
}

/// Measures the documents of an intake, with their tokens where a tokenizer is given.
///
/// # Errors
/// What cannot be read or encoded; [`DataError::NoText`] when there is nothing to measure.
pub fn measure(
    intake: &mut Intake<'_>,
    tokenizer: Option<&Tokenizer>,
    progress: &mut dyn FnMut(u64),
) -> Result<Statistics, DataError> {
    let mut collector = Collector::new();
    loop {
        let chunk = intake.next_chunk()?;
        if chunk.is_empty() {
            return match collector.lengths.is_empty() {
                true => Err(intake.no_text()),
                false => collector.finish(tokenizer.is_some()),
            };
        }
        let tokens = |row: &Row| -> Result<u64, DataError> {
            tokenizer.map_or(Ok(0), |tokenizer| Ok(tokenizer.encode(&row.text, false)?.len() as u64))
        };
        let counted: Vec<(Measured, u64)> = chunk
            .par_iter()
            .map(|row| Ok((Measured::of(&row.text), tokens(row)?)))
            .collect::<Result<_, DataError>>()?;
        collector.add(&chunk, counted)?;
        progress(collector.lengths.len() as u64);
    }
}

/// Measures both splits of a prepared dataset: its tokens, and the text they decode to.
///
/// # Errors
/// As [`measure`].
pub fn measure_dataset(
    datasets: &[(PathBuf, &Dataset)],
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(u64),
) -> Result<Statistics, DataError> {
    let mut collector = Collector::new();
    for (folder, dataset) in datasets {
        let file: std::sync::Arc<std::path::Path> = folder.as_path().into();
        let mut number = 0;
        for stream in [dataset.train(), dataset.validation()] {
            let mut from = 0;
            while from < stream.n_documents() {
                let to = stream.n_documents().min(from + CHUNK_DOCUMENTS);
                let ids: Vec<Vec<u32>> =
                    (from..to).map(|document| document_ids(&stream, document, tokenizer)).collect();
                let texts: Vec<String> =
                    ids.par_iter().map(|ids| tokenizer.decode(ids, false)).collect::<Result<_, _>>()?;
                let mut rows = Vec::new();
                for text in texts {
                    number += 1;
                    rows.push(Row { text, file: file.clone(), number, repaired: false });
                }
                let counted = rows.par_iter().map(|row| Measured::of(&row.text)).collect::<Vec<_>>();
                let counted = counted.into_iter().zip(ids.iter().map(|ids| ids.len() as u64)).collect();
                collector.add(&rows, counted)?;
                progress(collector.lengths.len() as u64);
                from = to;
            }
        }
    }
    collector.finish(true)
}

/// The tokens of a document without the one that ends it.
fn document_ids(stream: &TokenStream, document: u64, tokenizer: &Tokenizer) -> Vec<u32> {
    let range = stream.document(document);
    let mut ids = Vec::new();
    stream.read(range, &mut ids);
    if ids.last().copied() == tokenizer.eos_id() {
        ids.pop();
    }
    ids
}

/// What is counted in one document.
struct Measured {
    characters: u64,
    words: Vec<u64>,
    hash: u128,
}

impl Measured {
    fn of(text: &str) -> Measured {
        Measured { characters: text.chars().count() as u64, words: word_hashes(text), hash: exact_hash(text) }
    }
}

struct Collector {
    bytes: u64,
    lines: u64,
    words: u64,
    distinct: HashSet<u64>,
    lengths: Vec<u64>,
    tokens: Vec<u64>,
    hashes: HashSet<u128>,
    duplicates: u64,
    gzip: GzEncoder<Counter>,
    longest: Vec<Extreme>,
    shortest: Vec<Extreme>,
    line_counts: HashMap<u64, u64>,
    line_texts: HashMap<u64, String>,
}

/// Counts what is written into it.
#[derive(Default)]
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Collector {
    fn new() -> Collector {
        Collector {
            bytes: 0,
            lines: 0,
            words: 0,
            distinct: HashSet::new(),
            lengths: Vec::new(),
            tokens: Vec::new(),
            hashes: HashSet::new(),
            duplicates: 0,
            gzip: GzEncoder::new(Counter::default(), Compression::default()),
            longest: Vec::new(),
            shortest: Vec::new(),
            line_counts: HashMap::new(),
            line_texts: HashMap::new(),
        }
    }

    fn add(&mut self, rows: &[Row], counted: Vec<(Measured, u64)>) -> Result<(), DataError> {
        for (row, (measured, tokens)) in rows.iter().zip(counted) {
            self.bytes += row.text.len() as u64;
            self.words += measured.words.len() as u64;
            for word in measured.words {
                if self.distinct.len() < MAX_ENTRIES {
                    self.distinct.insert(word);
                }
            }
            self.duplicates += u64::from(!self.hashes.insert(measured.hash));
            self.lengths.push(measured.characters);
            self.tokens.push(tokens);
            let written = self.gzip.write_all(row.text.as_bytes());
            written.map_err(|source| DataError::Read { path: row.file.to_path_buf(), source })?;
            self.add_lines(&row.text);
            self.add_extreme(row, measured.characters);
        }
        Ok(())
    }

    fn add_lines(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.lines += 1;
            let hash = exact_hash(line) as u64;
            if self.line_counts.len() >= MAX_ENTRIES && !self.line_counts.contains_key(&hash) {
                continue;
            }
            let count = self.line_counts.entry(hash).or_default();
            *count += 1;
            if *count == 2 {
                self.line_texts.insert(hash, line.chars().take(SHOWN_CHARS).collect());
            }
        }
    }

    fn add_extreme(&mut self, row: &Row, characters: u64) {
        let extreme = || Extreme {
            file: row.file.to_path_buf(),
            number: row.number,
            characters,
            text: row.text.chars().take(SHOWN_CHARS).collect(),
        };
        let is_full = self.longest.len() == LISTED;
        if !is_full || self.longest[LISTED - 1].characters < characters {
            self.longest.push(extreme());
            // Stable: of equal lengths the earlier stays in front.
            self.longest.sort_by_key(|extreme| std::cmp::Reverse(extreme.characters));
            self.longest.truncate(LISTED);
        }
        if !is_full || self.shortest[LISTED - 1].characters > characters {
            self.shortest.push(extreme());
            self.shortest.sort_by_key(|extreme| extreme.characters);
            self.shortest.truncate(LISTED);
        }
    }

    fn finish(mut self, has_tokens: bool) -> Result<Statistics, DataError> {
        let documents = self.lengths.len() as u64;
        let zipped = self.gzip.finish().map_err(|source| DataError::Read { path: PathBuf::new(), source })?;
        let tokens: u64 = self.tokens.iter().sum();
        let per = |a: u64, b: u64| a as f64 / b.max(1) as f64;
        let texts = &self.line_texts;
        let mut top_lines: Vec<TopLine> = self
            .line_counts
            .iter()
            .filter_map(|(hash, count)| Some(TopLine { count: *count, text: texts.get(hash)?.clone() }))
            .collect();
        top_lines.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.text.cmp(&b.text)));
        top_lines.truncate(LISTED);
        Ok(Statistics {
            documents,
            bytes: self.bytes,
            characters: self.lengths.iter().sum(),
            lines: self.lines,
            words: self.words,
            distinct_words: self.distinct.len() as u64,
            distinct_words_is_least: self.distinct.len() == MAX_ENTRIES,
            tokens: has_tokens.then_some(tokens),
            tokens_per_word: has_tokens.then(|| per(tokens, self.words)),
            bytes_per_token: has_tokens.then(|| per(self.bytes, tokens)),
            histogram: histogram(&self.lengths),
            document_characters: lengths(&mut self.lengths),
            document_tokens: has_tokens.then(|| lengths(&mut self.tokens)),
            duplicates: self.duplicates,
            gzip_ratio: per(zipped.0, self.bytes),
            longest: self.longest,
            shortest: self.shortest,
            top_lines,
        })
    }
}

fn lengths(all: &mut [u64]) -> Lengths {
    all.sort_unstable();
    // Nearest rank: the smallest length that at least so many percent do not exceed.
    let at = |percent: usize| all[(all.len() * percent).div_ceil(100).clamp(1, all.len()) - 1];
    Lengths {
        min: all[0],
        p5: at(5),
        p25: at(25),
        p50: at(50),
        p75: at(75),
        p95: at(95),
        p99: at(99),
        max: all[all.len() - 1],
        mean: all.iter().sum::<u64>() as f64 / all.len() as f64,
    }
}

fn histogram(all: &[u64]) -> Vec<Bin> {
    let bin_of = |length: u64| (length.max(1).ilog2() as usize).saturating_sub(4);
    let mut counts = vec![0u64; all.iter().map(|length| bin_of(*length) + 1).max().unwrap_or(0)];
    for length in all {
        counts[bin_of(*length)] += 1;
    }
    let bin = |(index, documents): (usize, &u64)| Bin {
        from: if index == 0 { 0 } else { 16 << index },
        to: 32 << index,
        documents: *documents,
    };
    counts.iter().enumerate().map(bin).collect()
}

#[cfg(test)]
mod tests;
