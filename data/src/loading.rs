//! Files of rows to tokenized rows in memory: read, recognised, rendered, cut, counted.
//!
//! Post-training sets are small: tokens are held in memory, 5 bytes each (4 for the id, 1 for the mask), and the report
//! says how many bytes that is.

use std::collections::BTreeMap;

use minijinja::Value;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::chat::Json;
use crate::conversations::Lesson;
use crate::error::DataError;
use crate::example_batches::Countable;
use crate::examples::{Example, Labelled, Pair, Prompt};
use crate::formats::{Detected, Format, OPENING_ROWS};
use crate::held_out::{HeldOut, held_out};
use crate::preferences::{Judged, Preference, Question};
use crate::records::{Problem, Record, Records, RowError};
use crate::rendering::{Mask, Renderer, Tokens};
use crate::truncation::{Cutter, Truncate, Truncated};

/// Rows that were passed over and are told one by one.
const TOLD: usize = 5;

/// How rows are read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// The format, where it is named instead of recognised.
    pub format: Option<Format>,
    /// Names of fields in the files, by the names that formats give them: `prompt = "question"`.
    pub fields: BTreeMap<String, String>,
    /// Pass over rows that cannot be used, and count them.
    pub skip_bad_rows: bool,
    /// Rows to read at most.
    pub limit: Option<u64>,
}

/// How rows become tokens.
#[derive(Debug, Clone, Copy)]
pub struct FitOptions {
    /// Which tokens are trained; that of the format where none is named.
    pub mask: Option<Mask>,
    /// Most inputs of a row.
    pub context: usize,
    /// What becomes of longer rows; [`Truncate::End`] for lessons and [`Truncate::PromptLeft`] for preferences, verdicts
    /// and prompts where none is named.
    pub truncate: Option<Truncate>,
}

/// What was read.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// What the rows are, and how that is known.
    pub format: Format,
    /// The same as a sentence.
    pub detected: String,
    /// Rows of the files.
    pub read: u64,
    /// Rows that were passed over because they cannot be used.
    pub skipped: u64,
    /// What was wrong with the foremost of them.
    pub skipped_because: Vec<String>,
    /// Rows that were too long.
    pub truncated: Truncated,
    /// Rows that are kept.
    pub rows: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their targets that count.
    pub trained: u64,
    /// Tokens of the longest sequence.
    pub longest: usize,
    /// What the tokens take in memory.
    pub bytes: u64,
}

/// Tokenized rows, and by what each is known to the split.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The rows in the order of the files.
    pub rows: Vec<T>,
    keys: Vec<u64>,
    /// What was read.
    pub report: LoadReport,
}

impl<T> Loaded<T> {
    /// Rows to train on, and rows that are held out; see [`held_out`].
    ///
    /// # Errors
    /// As [`held_out`].
    pub fn split(self, seed: u64, part: HeldOut) -> Result<(Vec<T>, Vec<T>), DataError> {
        let sides = held_out(&self.keys, seed, part)?;
        let (mut train, mut held) = (Vec::new(), Vec::new());
        for (row, side) in self.rows.into_iter().zip(sides) {
            if side { held.push(row) } else { train.push(row) }
        }
        Ok((train, held))
    }
}

/// Lessons, for supervised tuning. Rows are known to the split by all their tokens.
///
/// # Errors
/// What is wrong with a file or a row of it; [`DataError::NoText`] where no row is left.
pub fn examples(
    records: &Records,
    read: &ReadOptions,
    renderer: &Renderer<'_>,
    fit: FitOptions,
) -> Result<Loaded<Example>, DataError> {
    let cutter = cutter(renderer, fit, Truncate::End);
    load(records, read, |format, record, counts| {
        let mask = fit.mask.unwrap_or_else(|| Mask::of_format(format));
        let tokens = renderer.lesson(&Lesson::of(format, &record.json)?, mask)?;
        let key = key(&tokens.ids);
        let fitted = cutter.fit([tokens], counts);
        Ok(fitted.map(|[tokens]| (example(tokens, record.row), key)).into_iter().collect())
    })
}

/// Pairs of answers, for preference objectives. Rows are known to the split by their prompt.
///
/// # Errors
/// As [`examples`].
pub fn pairs(
    records: &Records,
    read: &ReadOptions,
    renderer: &Renderer<'_>,
    fit: FitOptions,
) -> Result<Loaded<Pair>, DataError> {
    let cutter = cutter(renderer, fit, Truncate::PromptLeft);
    let mask = fit.mask.unwrap_or(Mask::Completion);
    load(records, read, |format, record, counts| {
        let Preference { chosen, rejected } = Preference::of(format, &record.json)?;
        let chosen = renderer.lesson(&chosen, mask)?;
        let rejected = renderer.lesson(&rejected, mask)?;
        let key = prompt_key(&chosen);
        let fitted = cutter.fit([chosen, rejected], counts);
        let pair = fitted.map(|[chosen, rejected]| Pair {
            chosen: example(chosen, record.row),
            rejected: example(rejected, record.row),
        });
        Ok(pair.map(|pair| (pair, key)).into_iter().collect())
    })
}

/// Answers with verdicts; a preference row gives two. Rows are known to the split by their prompt.
///
/// # Errors
/// As [`examples`].
pub fn labelled(
    records: &Records,
    read: &ReadOptions,
    renderer: &Renderer<'_>,
    fit: FitOptions,
) -> Result<Loaded<Labelled>, DataError> {
    let cutter = cutter(renderer, fit, Truncate::PromptLeft);
    let mask = fit.mask.unwrap_or(Mask::Completion);
    load(records, read, |format, record, counts| {
        let mut rows = Vec::new();
        for Judged { answer, desirable } in Judged::of(format, &record.json)? {
            let tokens = renderer.lesson(&answer, mask)?;
            let key = prompt_key(&tokens);
            if let Some([tokens]) = cutter.fit([tokens], counts) {
                rows.push((Labelled { example: example(tokens, record.row), desirable }, key));
            }
        }
        Ok(rows)
    })
}

/// Prompts with the columns that rewards read. Rows are known to the split by all their tokens.
///
/// # Errors
/// As [`examples`].
pub fn prompts(
    records: &Records,
    read: &ReadOptions,
    renderer: &Renderer<'_>,
    fit: FitOptions,
) -> Result<Loaded<Prompt>, DataError> {
    let cutter = cutter(renderer, fit, Truncate::PromptLeft);
    load(records, read, |format, record, counts| {
        let ids = renderer.question(&Question::of(format, &record.json)?)?;
        let key = key(&ids);
        let prompt = cutter.fit_prompt(ids, counts);
        let prompt = prompt.map(|ids| (Prompt { ids, columns: record.json.clone(), row: record.row }, key));
        Ok(prompt.into_iter().collect())
    })
}

fn cutter(renderer: &Renderer<'_>, fit: FitOptions, policy: Truncate) -> Cutter {
    Cutter::new(fit.context, fit.truncate.unwrap_or(policy), renderer.tokenizer().bos_id())
}

fn example(tokens: Tokens, row: u64) -> Example {
    Example { ids: tokens.ids, trained: tokens.trained, row }
}

/// By what a row is known: before it is cut, so that equal rows that are cut differently stay together.
fn key(ids: &[u32]) -> u64 {
    let mut hash = Sha256::new();
    ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes(std::array::from_fn(|at| digest[at]))
}

fn prompt_key(tokens: &Tokens) -> u64 {
    key(&tokens.ids[..tokens.prompt()])
}

/// What `convert` makes of a row, each with its key.
type Converted<T> = Result<Vec<(T, u64)>, Problem>;

fn load<T: Countable>(
    records: &Records,
    options: &ReadOptions,
    mut convert: impl FnMut(Format, &Record, &mut Truncated) -> Converted<T>,
) -> Result<Loaded<T>, DataError> {
    let (mut rows, mut keys) = (Vec::new(), Vec::new());
    let mut truncated = Truncated::default();
    let read = read_rows(records, options, &mut |format, record| {
        for (row, key) in convert(format, record, &mut truncated)? {
            rows.push(row);
            keys.push(key);
        }
        Ok(())
    })?;
    if rows.is_empty() {
        return Err(DataError::NothingLeft {
            files: shown(records),
            read: read.read,
            skipped: read.skipped,
            dropped: truncated.dropped,
            why: read.skipped_because.first().cloned(),
        });
    }
    let sequences = || rows.iter().flat_map(|row: &T| row.sequences());
    let tokens = sequences().map(|ids| ids.len() as u64).sum();
    let report = LoadReport {
        format: read.detected.format,
        detected: read.detected.sentence,
        read: read.read,
        skipped: read.skipped,
        skipped_because: read.skipped_because,
        truncated,
        rows: rows.len() as u64,
        tokens,
        trained: rows.iter().map(|row| row.n_trained() as u64).sum(),
        longest: sequences().map(<[u32]>::len).max().unwrap_or(0),
        bytes: tokens * 5,
    };
    Ok(Loaded { rows, keys, report })
}

/// The files as messages name them.
fn shown(records: &Records) -> String {
    let names: Vec<String> = records.files().iter().map(|file| format!("`{}`", file.shown.display())).collect();
    names.join(", ")
}

/// What the rows are, by the opening ones.
///
/// # Errors
/// As [`examples`], for the opening rows.
pub fn detect(records: &Records, options: &ReadOptions) -> Result<Detected, DataError> {
    let options = ReadOptions { limit: Some(OPENING_ROWS as u64), ..options.clone() };
    Ok(read_rows(records, &options, &mut |_, _| Ok(()))?.detected)
}

/// What came of reading.
pub(crate) struct Read {
    pub(crate) detected: Detected,
    pub(crate) read: u64,
    pub(crate) skipped: u64,
    pub(crate) skipped_because: Vec<String>,
}

/// Hands every row to `each`, once the opening rows have told the format.
pub(crate) fn read_rows(
    records: &Records,
    options: &ReadOptions,
    each: &mut dyn FnMut(Format, &Record) -> Result<(), Problem>,
) -> Result<Read, DataError> {
    let mut reading = Reading {
        options,
        each,
        detected: options.format.map(Detected::named),
        opening: Vec::new(),
        read: 0,
        skipped: 0,
        skipped_because: Vec::new(),
    };
    let limit = options.limit.unwrap_or(u64::MAX);
    let mut seen = 0;
    let read = records.read(&mut |row| {
        seen += 1;
        reading.take(row)?;
        Ok(seen < limit)
    });
    // What is wrong with a row that waits is told before what is wrong behind it.
    reading.open()?;
    read?;
    let Reading { detected, read, skipped, skipped_because, .. } = reading;
    match detected {
        Some(detected) => Ok(Read { detected, read, skipped, skipped_because }),
        None => {
            let why = skipped_because.first().cloned();
            Err(DataError::NothingLeft { files: shown(records), read, skipped, dropped: 0, why })
        }
    }
}

struct Reading<'a> {
    options: &'a ReadOptions,
    each: &'a mut dyn FnMut(Format, &Record) -> Result<(), Problem>,
    detected: Option<Detected>,
    /// Rows that wait until the format is known.
    opening: Vec<Result<Record, RowError>>,
    read: u64,
    skipped: u64,
    skipped_because: Vec<String>,
}

impl Reading<'_> {
    fn take(&mut self, row: Result<Record, RowError>) -> Result<(), DataError> {
        let row = row.map(|record| Record { json: renamed(record.json, &self.options.fields), ..record });
        if self.detected.is_some() && self.opening.is_empty() {
            return self.row(row);
        }
        self.opening.push(row);
        if self.opening.len() == OPENING_ROWS { self.open() } else { Ok(()) }
    }

    /// Recognises the format by the opening rows, and takes them.
    fn open(&mut self) -> Result<(), DataError> {
        let opening = std::mem::take(&mut self.opening);
        if self.detected.is_none() {
            let mut objects =
                opening.iter().flatten().filter(|record| Format::of(&record.json).is_some()).peekable();
            if let Some(opens) = objects.peek().map(|record| record.json.clone()) {
                let format = Format::of(&opens);
                let alike = objects.take_while(|record| Format::of(&record.json) == format).count();
                self.detected = Detected::of(&opens, alike).ok();
            }
        }
        opening.into_iter().try_for_each(|row| self.row(row))
    }

    fn row(&mut self, row: Result<Record, RowError>) -> Result<(), DataError> {
        self.read += 1;
        let used = row.and_then(|record| self.used(&record).map_err(|problem| record.error(problem)));
        match used {
            Ok(()) => Ok(()),
            Err(error) if self.options.skip_bad_rows => {
                self.skipped += 1;
                if self.skipped_because.len() < TOLD {
                    self.skipped_because.push(error.to_string());
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn used(&mut self, record: &Record) -> Result<(), Problem> {
        // Says what a row is that is no object, before its fields are asked for.
        crate::conversations::Fields::new(&record.json)?;
        let Some(detected) = &self.detected else {
            return Err(Problem::UnknownFormat { keys: crate::formats::keys(&record.json) });
        };
        let expected = detected.format;
        if self.options.format.is_none() {
            let found = Format::of(&record.json).map(|(format, _)| format);
            if found != Some(expected)
                && let Some(problem) = unlike(found, expected, &record.json)
            {
                return Err(problem);
            }
        }
        (self.each)(expected, record)
    }
}

/// Why a row is none of the expected format: it lacks a field of it, or has those of another. Nothing where the format
/// itself will say what is wrong with the field.
fn unlike(found: Option<Format>, expected: Format, json: &Json) -> Option<Problem> {
    let has = |name: &str| json.get_attr(name).is_ok_and(|value| !value.is_undefined() && !value.is_none());
    let needed: &[&str] = match expected {
        Format::Text => &["text"],
        Format::Messages => &["messages"],
        Format::Sharegpt => &["conversations"],
        Format::Alpaca => &["instruction", "output"],
        Format::PromptCompletion => &["prompt", "completion"],
        Format::Preference => &["chosen", "rejected"],
        Format::Unpaired if has("label") || has("kto_tag") => return None,
        Format::Unpaired => &["label"],
        Format::Prompt => &["prompt"],
    };
    let lacking = needed.iter().find(|name| !has(name));
    match lacking {
        Some(field)
            if found.is_none_or(|found| found == Format::Prompt) || needed.iter().any(|name| has(name)) =>
        {
            Some(Problem::Missing { field: (*field).to_owned(), keys: crate::formats::keys(json) })
        }
        Some(field) if expected == Format::Unpaired => {
            Some(Problem::Missing { field: (*field).to_owned(), keys: crate::formats::keys(json) })
        }
        _ => Some(Problem::Mixed { found, expected }),
    }
}

/// The row with its fields under the names that formats give them.
fn renamed(json: Json, fields: &BTreeMap<String, String>) -> Json {
    if fields.is_empty() || json.kind() != minijinja::value::ValueKind::Map {
        return json;
    }
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    for key in json.try_iter().into_iter().flatten() {
        let value = json.get_item(&key).unwrap_or_default();
        let given = fields.iter().find(|(_, theirs)| key.as_str() == Some(theirs.as_str()));
        match (given, key.as_str()) {
            (Some((ours, _)), _) => pairs.push((Value::from(ours.as_str()), value)),
            // Another field of the file has the name.
            (None, Some(name)) if fields.contains_key(name) => {}
            _ => pairs.push((key, value)),
        }
    }
    Value::from_pairs(pairs)
}

#[cfg(test)]
mod tests;
