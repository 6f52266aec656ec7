//! Tokenized rows of post-training data: what the objectives make batches of.

use crate::batches::Batch;

/// A token sequence and which of its tokens are trained (predicted with a loss).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// Token ids.
    pub ids: Vec<u32>,
    /// One for each id: whether the token is a target that counts. That of the opening token never counts.
    pub trained: Vec<bool>,
    /// Row of the source it came from, from 1, for messages.
    pub row: u64,
}

impl Example {
    /// Targets that count.
    pub fn n_trained(&self) -> usize {
        self.trained.iter().skip(1).filter(|trained| **trained).count()
    }
}

/// A chosen and a rejected completion of one prompt; in both, the completion's tokens are the trained ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The preferred one.
    pub chosen: Example,
    /// The other one.
    pub rejected: Example,
}

/// A completion with a verdict (KTO).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// Prompt and completion.
    pub example: Example,
    /// Whether the completion is a desirable one.
    pub desirable: bool,
}

/// A prompt to be answered by the model, with the columns that rewards read.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Token ids, the header of the assistant's turn included.
    pub ids: Vec<u32>,
    /// The whole source row.
    pub columns: crate::chat::Json,
    /// Row of the source it came from, from 1.
    pub row: u64,
}

impl Batch {
    /// One example a row, padded on the right to `columns` inputs with token 0 under a false mask. Longer
    /// examples lose their end.
    pub fn padded(examples: &[&Example], columns: usize) -> Batch {
        Batch::rows_of(&examples.iter().map(|example| vec![*example]).collect::<Vec<_>>(), columns, false)
    }

    /// Several examples a row, one behind the other and blind to each other; each row padded to `columns` inputs.
    pub fn packed(rows: &[Vec<&Example>], columns: usize) -> Batch {
        Batch::rows_of(rows, columns, true)
    }

    fn rows_of(rows: &[Vec<&Example>], columns: usize, packed: bool) -> Batch {
        let n = rows.len() * columns;
        let mut batch = Batch {
            rows: rows.len(),
            columns,
            inputs: Vec::with_capacity(n),
            targets: Vec::with_capacity(n),
            mask: Vec::with_capacity(n),
            positions: Vec::with_capacity(n),
            documents: packed.then(|| Vec::with_capacity(n)),
        };
        for row in rows {
            let end = batch.inputs.len() + columns;
            for (number, example) in (0u32..).zip(row) {
                let room = end - batch.inputs.len();
                let n = example.ids.len().saturating_sub(1).min(room);
                batch.inputs.extend_from_slice(&example.ids[..n]);
                batch.targets.extend_from_slice(&example.ids[1..n + 1]);
                batch.mask.extend_from_slice(&example.trained[1..n + 1]);
                batch.positions.extend(0..n as u32);
                if let Some(documents) = &mut batch.documents {
                    documents.resize(documents.len() + n, number);
                }
            }
            // Padding counts on as part of the last document: no real token comes after it.
            let from = batch.positions.len();
            let next = batch.positions.last().filter(|_| from + columns > end).map_or(0, |last| last + 1);
            batch.positions.extend((next..).take(end - from));
            if let Some(documents) = &mut batch.documents {
                documents.resize(end, row.len().saturating_sub(1) as u32);
            }
            batch.inputs.resize(end, 0);
            batch.targets.resize(end, 0);
            batch.mask.resize(end, false);
        }
        batch
    }
}
