//! From sources to the documents that are worked on: read, repaired, filtered, counted. Several commands share this way
//! in, so that a document that one of them drops is dropped by all.

use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::clean::{CleanOptions, Dropped, Reason, Repairs, clean};
use crate::contamination::{Benchmarks, Overlap, OverlapCounter, OverlapExample};
use crate::error::DataError;
use crate::sources::{Row, Rows, Source, rows};

/// Text held at once, in bytes; a single longer document is held alone.
const CHUNK_BYTES: usize = 8 << 20;
/// Examples kept for each reason.
const EXAMPLES: usize = 3;
/// Characters shown of an example.
const EXAMPLE_CHARS: usize = 120;

/// What is asked of documents on their way in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filters {
    /// Repairs and rules.
    pub clean: CleanOptions,
    /// Benchmarks to look for.
    pub against: Option<Arc<Benchmarks>>,
    /// Drop documents that overlap with a benchmark.
    pub drop_contaminated: bool,
}

impl Filters {
    /// Whether documents pass as they are.
    pub fn is_empty(&self) -> bool {
        self.clean.is_empty() && self.against.is_none()
    }

    /// Refuses limits that cannot be met.
    ///
    /// # Errors
    /// [`DataError::Option`].
    pub fn check(&self) -> Result<(), DataError> {
        self.clean.wrong().map_or(Ok(()), |wrong| Err(DataError::Option(wrong)))
    }

    /// Says what is asked, for a fingerprint.
    pub(crate) fn describe(&self) -> String {
        let clean = serde_json::to_string(&self.clean).unwrap_or_default();
        let against = self.against.as_ref().map_or("none".to_owned(), |against| against.describe());
        format!("clean {clean}\nagainst {against}, drop {}\n", self.drop_contaminated)
    }
}

/// What came in and what was kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntakeReport {
    /// Documents read, bad rows included.
    pub documents: u64,
    /// Bytes of text read.
    pub bytes: u64,
    /// Documents kept.
    pub kept: u64,
    /// Bytes of text kept.
    pub kept_bytes: u64,
    /// How many were dropped for which reason.
    pub dropped: Dropped,
    /// What was repaired in documents that were kept.
    pub repairs: Repairs,
    /// Overlap with benchmarks, in the order they were given; of documents that no rule before dropped.
    pub overlap: Vec<Overlap>,
}

/// A dropped document, for a person to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DropExample {
    /// Why it was dropped.
    pub reason: Reason,
    /// Its file.
    pub file: PathBuf,
    /// Its line or row.
    pub number: u64,
    /// Its beginning, or what is wrong with the row.
    pub text: String,
}

/// The documents of sources that pass filters, in order, chunk by chunk.
pub struct Intake<'a> {
    rows: Rows,
    filters: &'a Filters,
    report: IntakeReport,
    overlap: OverlapCounter,
    examples: Vec<DropExample>,
    overlap_examples: Vec<OverlapExample>,
    /// The file that is read before all others, and how many there are.
    files: (Option<PathBuf>, usize),
    ended: bool,
}

impl<'a> Intake<'a> {
    /// The documents of `sources` that pass `filters`.
    ///
    /// # Errors
    /// Limits that cannot be met, sources that cannot be opened.
    pub fn new(sources: &[Source], filters: &'a Filters) -> Result<Intake<'a>, DataError> {
        filters.check()?;
        let replace = filters.clean.replace_invalid;
        let sources: Vec<Source> =
            sources.iter().map(|source| source.clone().replacing_invalid(replace)).collect();
        let mut files = sources.iter().flat_map(Source::files);
        let files = (files.next().map(|file| file.shown.clone()), 1 + files.count());
        Ok(Intake {
            rows: rows(&sources)?,
            files,
            filters,
            report: IntakeReport::default(),
            overlap: filters.against.as_deref().map(OverlapCounter::new).unwrap_or_default(),
            examples: Vec::new(),
            overlap_examples: Vec::new(),
            ended: false,
        })
    }

    /// The texts of the documents of `sources` that pass `filters`, one after another.
    ///
    /// # Errors
    /// As [`Intake::new`].
    pub fn documents(sources: &[Source], filters: &'a Filters) -> Result<Texts<'a>, DataError> {
        Ok(Texts { intake: Intake::new(sources, filters)?, chunk: Vec::new().into_iter(), ended: false })
    }

    /// The next documents, about 8 MiB of text of them; none at the end. They are looked at in parallel and given in
    /// order.
    ///
    /// # Errors
    /// What cannot be read; a bad row only where bad rows are not passed over.
    pub fn next_chunk(&mut self) -> Result<Vec<Row>, DataError> {
        loop {
            let read = self.read()?;
            if read.is_empty() && self.ended {
                return Ok(Vec::new());
            }
            let kept = self.judge(read);
            if !kept.is_empty() {
                return Ok(kept);
            }
        }
    }

    fn read(&mut self) -> Result<Vec<Row>, DataError> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK_BYTES {
            match self.rows.next() {
                None => {
                    self.ended = true;
                    break;
                }
                Some(Ok(row)) => {
                    bytes += row.text.len();
                    chunk.push(row);
                }
                Some(Err(error)) if error.is_row() && self.filters.clean.skip_bad_rows => self.bad_row(&error),
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(chunk)
    }

    fn bad_row(&mut self, error: &DataError) {
        self.report.documents += 1;
        let (file, number) = error.place().unwrap_or_default();
        self.drop(Reason::BadRow, file, number, &error.to_string());
    }

    fn judge(&mut self, read: Vec<Row>) -> Vec<Row> {
        self.report.documents += read.len() as u64;
        self.report.bytes += read.iter().map(|row| row.text.len() as u64).sum::<u64>();
        if self.filters.is_empty() {
            self.report.kept = self.report.documents;
            self.report.kept_bytes = self.report.bytes;
            return read;
        }
        let judged: Vec<_> = read.into_par_iter().map(|row| judge_row(self.filters, row)).collect();
        let mut kept = Vec::with_capacity(judged.len());
        for judged in judged {
            self.count_overlap(&judged);
            match judged.verdict {
                Ok(repairs) => {
                    let total = &mut self.report.repairs;
                    total.invalid_utf8 += u64::from(judged.row.repaired);
                    total.nfc += repairs.nfc;
                    total.control_chars += repairs.control_chars;
                    total.lines += repairs.lines;
                    self.report.kept += 1;
                    self.report.kept_bytes += judged.row.text.len() as u64;
                    kept.push(judged.row);
                }
                Err(reason) => {
                    self.drop(reason, judged.row.file.to_path_buf(), judged.row.number, &judged.row.text)
                }
            }
        }
        kept
    }

    fn count_overlap(&mut self, judged: &Judged) {
        let Some(benchmarks) = &self.filters.against else { return };
        self.overlap.add(&judged.found);
        let places = judged.found.iter().map(|(file, item)| OverlapExample {
            benchmark: benchmarks.path(*file).to_owned(),
            item: u64::from(*item) + 1,
            file: judged.row.file.to_path_buf(),
            number: judged.row.number,
        });
        for place in places {
            if self.overlap_examples.iter().filter(|known| known.benchmark == place.benchmark).count() < EXAMPLES {
                self.overlap_examples.push(place);
            }
        }
    }

    fn drop(&mut self, reason: Reason, file: PathBuf, number: u64, text: &str) {
        let count = self.report.dropped.entry(reason).or_default();
        *count += 1;
        if *count <= EXAMPLES as u64 {
            let text = text.chars().take(EXAMPLE_CHARS).collect();
            self.examples.push(DropExample { reason, file, number, text });
        }
    }

    /// What came in and what was kept so far.
    pub fn report(&self) -> IntakeReport {
        let mut report = self.report.clone();
        if let Some(benchmarks) = &self.filters.against {
            report.overlap = self.overlap.finish(benchmarks);
        }
        report
    }

    /// Where nothing came in or nothing was kept.
    pub(crate) fn no_text(&self) -> DataError {
        DataError::NoText(match (self.report.documents, &self.files) {
            (0, (Some(file), 1)) => format!("`{}`", file.display()),
            (0, (Some(file), n)) => format!("the list of {n} files that begins with `{}`", file.display()),
            (0, (None, _)) => "the list of sources".to_owned(),
            (n, _) => format!("what the filters leave of {n} documents"),
        })
    }

    /// Up to three dropped documents for each reason, in the order of reasons.
    pub fn examples(&self) -> Vec<DropExample> {
        let mut examples = self.examples.clone();
        examples.sort_by_key(|example| example.reason);
        examples
    }

    /// Up to three overlaps for each benchmark.
    pub fn overlap_examples(&self) -> &[OverlapExample] {
        &self.overlap_examples
    }
}

/// Texts one after another; after an error there is no more.
pub struct Texts<'a> {
    intake: Intake<'a>,
    chunk: std::vec::IntoIter<Row>,
    ended: bool,
}

impl Iterator for Texts<'_> {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.chunk.next() {
                return Some(Ok(row.text));
            }
            if self.ended {
                return None;
            }
            match self.intake.next_chunk() {
                Ok(chunk) => {
                    self.ended = chunk.is_empty();
                    self.chunk = chunk.into_iter();
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

struct Judged {
    row: Row,
    verdict: Result<Repairs, Reason>,
    found: Vec<(u32, u32)>,
}

fn judge_row(filters: &Filters, mut row: Row) -> Judged {
    // The text of a dropped document is shown as an example, so it is kept beside its verdict.
    let before: String = row.text.chars().take(EXAMPLE_CHARS).collect();
    let verdict = match filters.clean.is_empty() {
        true => Ok(Repairs::default()),
        false => match clean(&filters.clean, std::mem::take(&mut row.text)) {
            Ok((text, repairs)) => {
                row.text = text;
                Ok(repairs)
            }
            Err(reason) => Err(reason),
        },
    };
    if verdict.is_err() {
        row.text = before;
        return Judged { row, verdict, found: Vec::new() };
    }
    let found = filters.against.as_ref().map(|against| against.found_in(&row.text)).unwrap_or_default();
    let verdict = match filters.drop_contaminated && !found.is_empty() {
        true => Err(Reason::Contaminated),
        false => verdict,
    };
    Judged { row, verdict, found }
}
