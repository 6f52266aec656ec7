//! Batches of token windows: which tokens a micro-batch holds, which of them are trained, and where the next starts.
//!
//! A split of `n` tokens is cut into windows of `columns + 1` tokens with stride `columns`, so within an epoch every
//! token is predicted at most once. The cut starts at an offset below `columns` that depends on (seed, epoch), and the
//! windows are visited in an order that depends on (seed, epoch). A batch is therefore a pure function of
//! (seed, [`Cursor`]). A mixture deals its rows to several splits by [`Shares`], each cut and visited in its own order.
//! Knows nothing of tensors, and nothing of where tokens come from.

use std::sync::Arc;

use fornax_base::rng::{Permutation, rng};
use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::mixture::Shares;
use crate::stream::TokenStream;

/// Randomness of the order in which an epoch visits its windows.
const ORDER: &str = "batches/order";
/// Randomness of the place at which an epoch starts to cut windows.
const OFFSET: &str = "batches/offset";
/// Seeds of the sources of a mixture.
const SOURCE: &str = "batches/source";

/// Token windows for one forward pass. Every vector is row-major, `rows * columns` long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Number of windows.
    pub rows: usize,
    /// Tokens in each window.
    pub columns: usize,
    /// Token ids the model reads.
    pub inputs: Vec<u32>,
    /// Token ids to predict: the input shifted by one.
    pub targets: Vec<u32>,
    /// Whether a target is trained and counted; `false` for padding and for a target in another document.
    pub mask: Vec<bool>,
    /// Position of each input within its document (or within the row with [`Packing::Wrap`]), from 0.
    pub positions: Vec<u32>,
    /// Number of the document within its row, from 0; `None` when the row is read as one text.
    pub documents: Option<Vec<u32>>,
}

impl Batch {
    /// Number of targets that are trained and counted.
    pub fn n_targets(&self) -> usize {
        self.mask.iter().filter(|trained| **trained).count()
    }

    fn empty(rows: usize, columns: usize, packing: Packing) -> Batch {
        let n = rows * columns;
        Batch {
            rows,
            columns,
            inputs: Vec::with_capacity(n),
            targets: Vec::with_capacity(n),
            mask: Vec::with_capacity(n),
            positions: Vec::with_capacity(n),
            documents: (packing == Packing::Documents).then(|| Vec::with_capacity(n)),
        }
    }
}

/// How a window treats the documents in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// The window is one text: attention and positions run across documents, every target is trained.
    Wrap,
    #[default]
    /// Documents do not see one another: ids and positions restart, a target in the next document is masked.
    Documents,
}

/// Where training stands in its data. Stored in a checkpoint, it gives exactly the batches that were to come. For a
/// mixture `epoch` stays 0 and `window` counts the rows taken in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Number of passes over the split that are complete.
    pub epoch: u64,
    /// Number of windows taken in this epoch.
    pub window: u64,
}

/// The endless sequence of training batches of a split, or of a mixture of several.
#[derive(Debug, Clone)]
pub struct Batches {
    /// Never empty.
    sources: Vec<Cut>,
    shares: Shares,
    rows: usize,
    columns: usize,
    packing: Packing,
}

/// A split that is cut into windows.
#[derive(Debug, Clone)]
struct Cut {
    stream: Arc<TokenStream>,
    columns: u64,
    seed: u64,
}

impl Batches {
    /// Batches of `rows` windows of `columns` tokens from `stream`.
    ///
    /// # Errors
    /// When `rows` or `columns` is 0, `rows * columns` is beyond 2^31 - 1, or the stream has fewer than
    /// `columns + 1` tokens.
    pub fn new(
        stream: Arc<TokenStream>,
        rows: usize,
        columns: usize,
        packing: Packing,
        seed: u64,
    ) -> Result<Batches, DataError> {
        Batches::mixed(vec![(stream, 1.0)], rows, columns, packing, seed)
    }

    /// Batches whose rows come from several streams in proportion to their weights.
    ///
    /// # Errors
    /// As [`Batches::new`], for any of the streams, and as [`Shares::new`].
    pub fn mixed(
        streams: Vec<(Arc<TokenStream>, f64)>,
        rows: usize,
        columns: usize,
        packing: Packing,
        seed: u64,
    ) -> Result<Batches, DataError> {
        let shares = Shares::new(&streams.iter().map(|(_, weight)| *weight).collect::<Vec<_>>())?;
        let mut sources = Vec::new();
        for (index, (stream, _)) in (0u64..).zip(streams) {
            check_shape(&stream, rows, columns)?;
            // Two equal streams are to come in different orders.
            let seed = if index == 0 { seed } else { rng(seed, index, SOURCE).next_u64() };
            sources.push(Cut { stream, columns: columns as u64, seed });
        }
        Ok(Batches { sources, shares, rows, columns, packing })
    }

    /// Number of windows in `epoch` of the first stream; it varies by at most one between epochs, and is at least 1.
    pub fn windows(&self, epoch: u64) -> u64 {
        self.sources[0].windows(epoch)
    }

    /// Tokens predicted by one batch without masks: `rows * columns`.
    pub fn tokens_per_batch(&self) -> usize {
        self.rows * self.columns
    }

    /// Passes over each stream that `rows` rows in all make.
    pub fn passes(&self, rows: u64) -> Vec<f64> {
        let counts = self.shares.counts(rows);
        let passes = |(source, count): (&Cut, u64)| count as f64 / source.least_windows() as f64;
        self.sources.iter().zip(counts).map(passes).collect()
    }

    /// The batch at `cursor`, which is moved behind it. A batch that begins near the end of an epoch takes its
    /// remaining rows from the next one.
    pub fn next_from(&self, cursor: &mut Cursor) -> Batch {
        let mut batch = Batch::empty(self.rows, self.columns, self.packing);
        let mut window = Window::new(self.columns);
        match self.sources.as_slice() {
            [source] => self.fill_from(source, cursor, &mut window, &mut batch),
            _ => self.fill_mixed(cursor, &mut window, &mut batch),
        }
        batch
    }

    fn fill_from(&self, source: &Cut, cursor: &mut Cursor, window: &mut Window, batch: &mut Batch) {
        let mut epoch = Epoch::new(source, cursor.epoch);
        for _ in 0..self.rows {
            if cursor.window >= epoch.windows {
                *cursor = Cursor { epoch: cursor.epoch + 1, window: 0 };
                epoch = Epoch::new(source, cursor.epoch);
            }
            epoch.read(source, cursor.window, window);
            window.append_to(batch, self.columns);
            cursor.window += 1;
        }
    }

    /// A source's epochs all have its least number of windows here, so that where it stands follows from the number of
    /// rows it gave; an epoch with one window more leaves a random one out.
    fn fill_mixed(&self, cursor: &mut Cursor, window: &mut Window, batch: &mut Batch) {
        let mut epochs: Vec<Option<Epoch>> = self.sources.iter().map(|_| None).collect();
        for _ in 0..self.rows {
            let (index, before) = self.shares.of_row(cursor.window);
            let source = &self.sources[index];
            let windows = source.least_windows();
            let number = before / windows;
            let epoch = match epochs[index].take() {
                Some(epoch) if epoch.number == number => epoch,
                _ => Epoch::new(source, number),
            };
            epoch.read(source, before % windows, window);
            window.append_to(batch, self.columns);
            epochs[index] = Some(epoch);
            cursor.window += 1;
        }
    }
}

impl Cut {
    fn windows(&self, epoch: u64) -> u64 {
        (self.stream.len() - 1 - self.offset(epoch)) / self.columns
    }

    /// Windows of the epoch that has fewest.
    fn least_windows(&self) -> u64 {
        (self.stream.len() - self.places()) / self.columns
    }

    /// Position of the token that opens the cut of `epoch`.
    fn offset(&self, epoch: u64) -> u64 {
        rng(self.seed, epoch, OFFSET).below(self.places())
    }

    /// A short stream has fewer places to start, so that every epoch keeps at least one window.
    fn places(&self) -> u64 {
        self.columns.min(self.stream.len() - self.columns)
    }
}

/// What stays the same during one epoch.
struct Epoch {
    number: u64,
    offset: u64,
    windows: u64,
    order: Permutation,
}

impl Epoch {
    fn new(source: &Cut, number: u64) -> Epoch {
        let windows = source.windows(number);
        Epoch {
            number,
            offset: source.offset(number),
            windows,
            order: Permutation::new(source.seed, number, ORDER, windows),
        }
    }

    /// Reads the window at place `at` of the order.
    fn read(&self, source: &Cut, at: u64, window: &mut Window) {
        let start = self.offset + self.order.at(at) * source.columns;
        window.read(&source.stream, start, source.columns as usize);
    }
}

/// Consecutive windows from the start of `stream`, for measuring loss on a slice that never changes.
///
/// At most `max_tokens` targets are counted, each token at most once. All batches have the full shape; what lies
/// beyond the slice is token 0 with a false mask.
///
/// # Errors
/// As [`Batches::new`], and when `max_tokens` is 0.
pub fn validation_batches(
    stream: &TokenStream,
    rows: usize,
    columns: usize,
    max_tokens: u64,
    packing: Packing,
) -> Result<Vec<Batch>, DataError> {
    check_shape(stream, rows, columns)?;
    if max_tokens == 0 {
        return Err(DataError::EmptyValidation);
    }
    let n_targets = max_tokens.min(stream.len() - 1);
    let n_windows = n_targets.div_ceil(columns as u64);
    let mut batches = Vec::new();
    let mut window = Window::new(columns);
    for index in 0..n_windows.next_multiple_of(rows as u64) {
        if index % rows as u64 == 0 {
            batches.push(Batch::empty(rows, columns, packing));
        }
        let start = index * columns as u64;
        let filled = n_targets.saturating_sub(start).min(columns as u64) as usize;
        window.read(stream, start.min(stream.len()), filled);
        let last = batches.len() - 1;
        window.append_to(&mut batches[last], columns);
    }
    Ok(batches)
}

/// [`validation_batches`] of several streams, each with its share of `max_tokens`, but at least one window.
///
/// # Errors
/// As [`validation_batches`] and [`Shares::new`].
pub fn mixed_validation_batches(
    streams: &[(Arc<TokenStream>, f64)],
    rows: usize,
    columns: usize,
    max_tokens: u64,
    packing: Packing,
) -> Result<Vec<Batch>, DataError> {
    if let [(stream, _)] = streams {
        return validation_batches(stream, rows, columns, max_tokens, packing);
    }
    let shares = Shares::new(&streams.iter().map(|(_, weight)| *weight).collect::<Vec<_>>())?.shares();
    let mut batches = Vec::new();
    for ((stream, _), share) in streams.iter().zip(shares) {
        let tokens = ((max_tokens as f64 * share).round() as u64).max(columns as u64);
        batches.extend(validation_batches(stream, rows, columns, tokens, packing)?);
    }
    Ok(batches)
}

fn check_shape(stream: &TokenStream, rows: usize, columns: usize) -> Result<(), DataError> {
    let tokens = rows.saturating_mul(columns);
    if tokens == 0 || tokens > i32::MAX as usize {
        return Err(DataError::BatchShape { rows, columns });
    }
    let needed = columns as u64 + 1;
    if stream.len() < needed {
        return Err(DataError::TooFewTokens { found: stream.len(), needed });
    }
    Ok(())
}

/// Scratch space for one window: its tokens, and where documents start in it.
struct Window {
    tokens: Vec<u32>,
    starts: Vec<u64>,
    filled: usize,
}

impl Window {
    fn new(columns: usize) -> Window {
        Window { tokens: Vec::with_capacity(columns + 1), starts: Vec::new(), filled: 0 }
    }

    /// Reads `filled` inputs from `start`, and the target that follows the last of them.
    fn read(&mut self, stream: &TokenStream, start: u64, filled: usize) {
        self.filled = filled;
        self.tokens.clear();
        self.starts.clear();
        if filled > 0 {
            let range = start..start + filled as u64 + 1;
            stream.read(range.clone(), &mut self.tokens);
            stream.document_starts(range, &mut self.starts);
        }
    }

    /// Appends the window to `batch` as one row, padded to `columns`.
    fn append_to(&self, batch: &mut Batch, columns: usize) {
        let end = batch.inputs.len() + columns;
        if self.filled > 0 {
            batch.inputs.extend_from_slice(&self.tokens[..self.filled]);
            batch.targets.extend_from_slice(&self.tokens[1..]);
            batch.mask.resize(batch.mask.len() + self.filled, true);
        }
        let row = end - columns;
        if let Some(documents) = &mut batch.documents {
            self.append_documents(documents, &mut batch.positions, &mut batch.mask[row..], columns);
        } else {
            batch.positions.extend(0..columns as u32);
        }
        batch.inputs.resize(end, 0);
        batch.targets.resize(end, 0);
        batch.mask.resize(end, false);
    }

    /// Numbers documents and positions, and masks each target that opens another document. Padding counts on as
    /// part of the last document: its targets are masked anyway, and no real token attends to what comes after it.
    fn append_documents(
        &self,
        documents: &mut Vec<u32>,
        positions: &mut Vec<u32>,
        mask: &mut [bool],
        columns: usize,
    ) {
        let mut from = 0;
        let mut document = 0;
        for start in self.starts.iter().map(|start| *start as usize) {
            if start == 0 {
                continue;
            }
            mask[start - 1] = false;
            // The start may be the last target itself, which is no input of this row.
            if start < columns {
                documents.resize(documents.len() + start - from, document);
                positions.extend(0..(start - from) as u32);
                from = start;
                document += 1;
            }
        }
        documents.resize(documents.len() + columns - from, document);
        positions.extend(0..(columns - from) as u32);
    }
}

#[cfg(test)]
mod tests;
