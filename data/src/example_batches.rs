//! Micro-batches of post-training rows: which rows a micro-batch holds, and where the next starts.
//!
//! An epoch visits every row once, in an order that depends on (seed, epoch). A micro-batch is therefore a function of
//! (seed, [`Cursor`]). Near the end of an epoch it takes its remaining rows from the next one.

use std::sync::{Arc, Mutex, PoisonError};

use fornax_base::rng::Permutation;
use serde::{Deserialize, Serialize};

use crate::batches::{Batch, Cursor};
use crate::error::DataError;
use crate::examples::{Example, Labelled, Pair, Prompt};
use crate::packing::Plan;

/// Randomness of the order in which an epoch visits its rows.
const ORDER: &str = "examples/order";

/// Rows of any kind, in micro-batches: [`Pair`]s, [`Labelled`] ones, [`Prompt`]s.
#[derive(Debug, Clone)]
pub struct RowBatches<T> {
    items: Arc<Vec<T>>,
    rows: usize,
    seed: u64,
}

impl<T> RowBatches<T> {
    /// Micro-batches of `rows` items.
    ///
    /// # Errors
    /// When there are no items, or `rows` is 0.
    pub fn new(items: Arc<Vec<T>>, rows: usize, seed: u64) -> Result<RowBatches<T>, DataError> {
        match items.is_empty() || rows == 0 {
            true => Err(DataError::NoRows { found: items.len(), rows }),
            false => Ok(RowBatches { items, rows, seed }),
        }
    }

    /// Rows in an epoch.
    pub fn windows(&self) -> u64 {
        self.items.len() as u64
    }

    /// All rows.
    pub fn items(&self) -> &Arc<Vec<T>> {
        &self.items
    }

    /// The rows at `cursor`, which is moved behind them.
    pub fn next_from(&self, cursor: &mut Cursor) -> Vec<&T> {
        next_rows(self.items.len(), self.rows, self.seed, cursor).into_iter().map(|row| &self.items[row]).collect()
    }
}

/// Numbers of the `rows` rows at `cursor`, which is moved behind them, of `n` in all.
///
/// # Panics
/// When `n` is 0.
pub fn next_rows(n: usize, rows: usize, seed: u64, cursor: &mut Cursor) -> Vec<usize> {
    let order = |epoch| Permutation::new(seed, epoch, ORDER, n as u64);
    let places = next_places(cursor, rows, n as u64, order);
    places.into_iter().map(|(order, at)| order.at(at) as usize).collect()
}

/// The places of the next `rows` rows, each with what `of_epoch` makes of its epoch.
fn next_places<O>(
    cursor: &mut Cursor,
    rows: usize,
    windows: u64,
    of_epoch: impl Fn(u64) -> O,
) -> Vec<(Arc<O>, u64)> {
    let mut epoch = Arc::new(of_epoch(cursor.epoch));
    let mut places = Vec::with_capacity(rows);
    for _ in 0..rows {
        if cursor.window >= windows {
            *cursor = Cursor { epoch: cursor.epoch + 1, window: 0 };
            epoch = Arc::new(of_epoch(cursor.epoch));
        }
        places.push((Arc::clone(&epoch), cursor.window));
        cursor.window += 1;
    }
    places
}

/// How examples lie in the rows of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrangement {
    /// Several in a row of full length, blind to one another.
    #[default]
    Packed,
    /// One in a row, which is as long as the longest of its batch (a multiple of [`STEP`], at most the context).
    Padded,
}

/// Lengths of padded rows are multiples of this, so that kernels meet few shapes.
pub const STEP: usize = 8;

/// The endless sequence of training batches of a set of examples.
#[derive(Debug)]
pub struct ExampleBatches {
    rows: RowBatches<Example>,
    columns: usize,
    arrangement: Arrangement,
    /// The plan of the epoch that was asked for last.
    plan: Mutex<Option<(u64, Arc<Plan>)>>,
}

impl ExampleBatches {
    /// Batches of `rows` rows of at most `columns` inputs.
    ///
    /// # Errors
    /// As [`RowBatches::new`]; when a batch would hold no or more than 2^31 - 1 tokens.
    pub fn new(
        examples: Arc<Vec<Example>>,
        rows: usize,
        columns: usize,
        arrangement: Arrangement,
        seed: u64,
    ) -> Result<ExampleBatches, DataError> {
        let tokens = rows.saturating_mul(columns);
        if tokens == 0 || tokens > i32::MAX as usize {
            return Err(DataError::BatchShape { rows, columns });
        }
        Ok(ExampleBatches {
            rows: RowBatches::new(examples, rows, seed)?,
            columns,
            arrangement,
            plan: Mutex::new(None),
        })
    }

    /// Rows in an epoch: packed ones, or examples.
    pub fn windows(&self) -> u64 {
        match self.arrangement {
            Arrangement::Packed => self.plan(0).rows().len() as u64,
            Arrangement::Padded => self.rows.windows(),
        }
    }

    /// Part of the inputs that is padding over a whole epoch; of padded rows, when each batch is as long as its longest.
    pub fn padding(&self) -> f64 {
        match self.arrangement {
            Arrangement::Packed => self.plan(0).padding(),
            Arrangement::Padded => {
                let mut cursor = Cursor::default();
                let (mut inputs, mut filled) = (0, 0);
                while cursor.epoch == 0 && cursor.window < self.windows() {
                    let rows = self.rows.next_from(&mut cursor);
                    inputs += rows.len() * self.width(&rows);
                    filled += rows.iter().map(|row| inputs_of(row).min(self.columns)).sum::<usize>();
                }
                1.0 - filled as f64 / inputs.max(1) as f64
            }
        }
    }

    /// The batch at `cursor`, which is moved behind it.
    pub fn next_from(&self, cursor: &mut Cursor) -> Batch {
        match self.arrangement {
            Arrangement::Padded => {
                let rows = self.rows.next_from(cursor);
                Batch::padded(&rows, self.width(&rows))
            }
            Arrangement::Packed => {
                let places = next_places(cursor, self.rows.rows, self.windows(), |epoch| self.plan(epoch));
                let rows: Vec<Vec<&Example>> = places
                    .iter()
                    .map(|(plan, at)| plan.rows()[*at as usize].iter().map(|at| self.example(*at)).collect())
                    .collect();
                Batch::packed(&rows, self.columns)
            }
        }
    }

    /// Every example once, in batches that never change, for measuring a loss: examples in their order, packed where
    /// training is, the last batch padded to the full number of rows.
    pub fn in_order(&self) -> Vec<Batch> {
        let all: Vec<Vec<&Example>> = match self.arrangement {
            Arrangement::Packed => {
                self.plan(0).rows().iter().map(|row| row.iter().map(|at| self.example(*at)).collect()).collect()
            }
            Arrangement::Padded => self.rows.items.iter().map(|example| vec![example]).collect(),
        };
        let batch = |rows: &[Vec<&Example>]| {
            let mut rows = rows.to_vec();
            rows.resize(self.rows.rows, Vec::new());
            match self.arrangement {
                Arrangement::Packed => Batch::packed(&rows, self.columns),
                Arrangement::Padded => {
                    let longest: Vec<&Example> = rows.iter().flatten().copied().collect();
                    let width = self.width(&longest);
                    // One example a row needs no walls between documents.
                    Batch { documents: None, ..Batch::packed(&rows, width) }
                }
            }
        };
        all.chunks(self.rows.rows).map(batch).collect()
    }

    fn example(&self, at: u32) -> &Example {
        &self.rows.items[at as usize]
    }

    fn width(&self, rows: &[&Example]) -> usize {
        let longest = rows.iter().map(|row| inputs_of(row)).max().unwrap_or(0).max(1);
        longest.next_multiple_of(STEP).min(self.columns)
    }

    fn plan(&self, epoch: u64) -> Arc<Plan> {
        // A plan is whole or not there: a panic elsewhere cannot have left half of one.
        let mut kept = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, plan)) = kept.as_ref().filter(|(of, _)| *of == epoch) {
            debug_assert_eq!(*of, epoch);
            return Arc::clone(plan);
        }
        let lengths: Vec<usize> = self.rows.items.iter().map(inputs_of).collect();
        let plan = Arc::new(Plan::new(&lengths, self.columns, self.rows.seed, epoch));
        *kept = Some((epoch, Arc::clone(&plan)));
        plan
    }
}

/// Tokens that an example has as inputs: its last is a target alone.
fn inputs_of(example: &Example) -> usize {
    example.ids.len().saturating_sub(1)
}

/// A row of post-training data, for counts over any kind of it.
pub trait Countable {
    /// Token sequences of the row.
    fn sequences(&self) -> Vec<&[u32]>;
    /// Targets that count.
    fn n_trained(&self) -> usize;
}

impl Countable for Example {
    fn sequences(&self) -> Vec<&[u32]> {
        vec![&self.ids]
    }

    fn n_trained(&self) -> usize {
        Example::n_trained(self)
    }
}

impl Countable for Pair {
    fn sequences(&self) -> Vec<&[u32]> {
        vec![&self.chosen.ids, &self.rejected.ids]
    }

    fn n_trained(&self) -> usize {
        self.chosen.n_trained() + self.rejected.n_trained()
    }
}

impl Countable for Labelled {
    fn sequences(&self) -> Vec<&[u32]> {
        vec![&self.example.ids]
    }

    fn n_trained(&self) -> usize {
        self.example.n_trained()
    }
}

impl Countable for Prompt {
    fn sequences(&self) -> Vec<&[u32]> {
        vec![&self.ids]
    }

    fn n_trained(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests;
