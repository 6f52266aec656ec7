//! Short examples side by side in long rows.
//!
//! Shapes: a batch has rows of t columns; element (row, i) of a field is `field[row * t + i]`.

/// A tokenized example.
#[derive(Clone)]
pub struct Example {
    /// Its ids.
    pub ids: Vec<u32>,
    /// For each id whether it is trained, that is, predicted with a loss.
    pub trained: Vec<bool>,
}

/// What a forward pass and its loss read.
#[derive(Clone, Default)]
pub struct Batch {
    /// Ids the model reads.
    pub inputs: Vec<u32>,
    /// Ids it has to predict.
    pub targets: Vec<u32>,
    /// Whether a target counts.
    pub mask: Vec<bool>,
    /// Where an input stands in its own example, from 0.
    pub positions: Vec<u32>,
    /// The number of the example within its row, from 0.
    pub documents: Vec<u32>,
}

/// Which examples share a row: indices into `lengths`, row by row. No row is longer than `capacity`, and no length is.
///
/// Best fit, decreasing: the longest example goes before the others. Each goes to the fullest row that still has room for
/// it, and opens a new row where none has. Which of equally long examples goes before, and which of equally full rows is
/// taken, makes no difference to how full the rows become.
pub fn best_fit(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    todo!("sort, then the fullest row that still has room")
}

/// One row of t columns: the examples one behind the other, then padding.
///
/// - An example of n ids has n - 1 inputs, all but its last id, and n - 1 targets, all but its first.
/// - Positions begin at 0 in each example.
/// - In padding, inputs and targets are 0 and count for nothing. It belongs to the last document and its positions go on,
///   so that it sees something and is seen by nothing.
pub fn pack(examples: &[&Example], t: usize) -> Batch {
    todo!("inputs, targets, mask, positions and documents, then padding")
}

/// Whether the token in column `query` of a row may look at the one in column `key`.
pub fn sees(documents: &[u32], query: usize, key: usize) -> bool {
    todo!("nothing that comes later, nothing of another example")
}
