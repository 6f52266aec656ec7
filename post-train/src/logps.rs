//! Log-probabilities of the completions in a batch, row by row, and the numbers reported beside them.
//!
//! Shapes: r rows of a batch, t its columns, n = r t, l scored targets of the row that has most of them, c channels.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fornax_data::batches::Batch;
use fornax_model::ops::TokenScores;
use fornax_model::{Decoder, token_tensor};
use fornax_train::step::layout;

/// What a model says of chosen targets of a batch. Prompts and padding, often most of it, never reach the head.
pub struct TargetScores {
    grid: Grid,
    /// Negative log-likelihoods, on the graph where the model is trainable.
    nll_rl: Tensor<2>,
    entropy_rl: Tensor<2>,
    mean_logit_rl: Tensor<2>,
    greedy_rl: Tensor<2>,
}

/// Sums over some of the scored targets of each row.
#[derive(Debug, Clone)]
pub struct RowSums {
    /// Log-probabilities, on the graph where the model is trainable.
    pub logps_r: Tensor<1>,
    /// Entropies in nats.
    pub entropy_r: Tensor<1>,
    /// Means over the vocabulary of the logits.
    pub mean_logit_r: Tensor<1>,
    /// Targets that are the likeliest token.
    pub greedy_r: Tensor<1>,
    /// Targets summed over.
    pub tokens: Vec<usize>,
}

impl TargetScores {
    /// Scores the targets of `batch` for which `scored` (row by row, like the batch) is true, from the last hidden
    /// states of a model.
    pub fn new(hidden_rtc: Tensor<3>, batch: &Batch, scored: &[bool], score: Score<'_>) -> TargetScores {
        let device = hidden_rtc.device();
        let grid = Grid::new(batch.rows, batch.columns, scored);
        let [r, t, c] = hidden_rtc.dims();
        let hidden_nc = hidden_rtc.reshape([r * t, c]).select(0, grid.places(&device));
        let targets: Vec<i32> = grid.at.iter().map(|&at| batch.targets[at] as i32).collect();
        let scores = score(hidden_nc, Tensor::from_data(TensorData::new(targets, [grid.at.len()]), &device));
        let square = |x: Tensor<1>| x.reshape([grid.rows, grid.width]);
        TargetScores {
            nll_rl: square(scores.nll_n),
            entropy_rl: square(scores.entropy_n),
            mean_logit_rl: square(scores.mean_logit_n),
            greedy_rl: square(scores.greedy_n),
            grid,
        }
    }

    /// Sums over the scored targets for which `counted` (row by row, like the batch) is true.
    pub fn row_sums(&self, counted: &[bool]) -> RowSums {
        let (weights, tokens) = self.grid.weights(counted);
        let shape = [self.grid.rows, self.grid.width];
        let weights_rl: Tensor<2> =
            Tensor::from_data(TensorData::new(weights, shape), (&self.nll_rl.device(), DType::F32));
        let sum = |x_rl: &Tensor<2>| (x_rl.clone() * weights_rl.clone()).sum_dim(1).reshape([self.grid.rows]);
        RowSums {
            logps_r: -sum(&self.nll_rl),
            entropy_r: sum(&self.entropy_rl),
            mean_logit_r: sum(&self.mean_logit_rl),
            greedy_r: sum(&self.greedy_rl),
            tokens,
        }
    }
}

/// A head and what it says: hidden_nc, targets_n -> scores of n targets.
pub type Score<'a> = &'a dyn Fn(Tensor<2>, Tensor<1, Int>) -> TokenScores;

/// Scores of the trained targets of each row.
pub fn row_scores(decoder: &Decoder, batch: &Batch) -> RowSums {
    let score = |hidden_nc, targets_n| decoder.token_scores(hidden_nc, targets_n);
    TargetScores::new(last_hidden(decoder, batch), batch, &batch.mask, &score).row_sums(&batch.mask)
}

/// The batch through the model: hidden_rtc.
pub(crate) fn last_hidden(decoder: &Decoder, batch: &Batch) -> Tensor<3> {
    let device = decoder.device();
    decoder.forward(token_tensor(&batch.inputs, batch.rows, &device), &layout(batch, &device), None)
}

/// Places of a batch (row by row) whose targets are trained.
pub(crate) fn trained_places(batch: &Batch) -> Vec<usize> {
    (0..batch.mask.len()).filter(|&place| batch.mask[place]).collect()
}

/// The hidden states at some places of a batch (row by row): hidden_rtc -> hidden_nc.
pub(crate) fn hidden_at(hidden_rtc: Tensor<3>, places: &[usize]) -> Tensor<2> {
    let (device, [r, t, c]) = (hidden_rtc.device(), hidden_rtc.dims());
    let places: Vec<i32> = places.iter().map(|&place| place as i32).collect();
    hidden_rtc.reshape([r * t, c]).select(0, Tensor::from_data(places.as_slice(), &device))
}

/// The targets at some places of a batch.
pub(crate) fn targets_at(batch: &Batch, places: &[usize], device: &Device) -> Tensor<1, Int> {
    let targets: Vec<i32> = places.iter().map(|&place| batch.targets[place] as i32).collect();
    Tensor::from_data(targets.as_slice(), device)
}

/// Places of a batch, gathered to the left of a narrower one.
struct Grid {
    rows: usize,
    width: usize,
    /// Place in the batch of each cell, row by row; what fills up a row repeats its first column.
    at: Vec<usize>,
    /// Cells of each row that are not filling.
    filled: Vec<usize>,
}

impl Grid {
    fn new(rows: usize, columns: usize, scored: &[bool]) -> Grid {
        let places: Vec<Vec<usize>> =
            (0..rows).map(|row| (row * columns..(row + 1) * columns).filter(|&at| scored[at]).collect()).collect();
        let filled: Vec<usize> = places.iter().map(Vec::len).collect();
        let width = filled.iter().copied().max().unwrap_or(0).max(1);
        let mut at = Vec::with_capacity(rows * width);
        for (row, places) in places.into_iter().enumerate() {
            at.extend(places);
            at.resize((row + 1) * width, row * columns);
        }
        Grid { rows, width, at, filled }
    }

    fn places(&self, device: &Device) -> Tensor<1, Int> {
        let at: Vec<i32> = self.at.iter().map(|&at| at as i32).collect();
        Tensor::from_data(TensorData::new(at, [self.at.len()]), device)
    }

    /// 1 for each cell that is counted, and how many there are in each row.
    fn weights(&self, counted: &[bool]) -> (Vec<f32>, Vec<usize>) {
        let mut weights = vec![0.0; self.at.len()];
        let mut tokens = vec![0; self.rows];
        for (row, &filled) in self.filled.iter().enumerate() {
            for cell in row * self.width..row * self.width + filled {
                if counted[self.at[cell]] {
                    weights[cell] = 1.0;
                    tokens[row] += 1;
                }
            }
        }
        (weights, tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_gathers_and_fills_up() {
        let scored = [false, true, true, false, false, true, false, false, false];
        let grid = Grid::new(3, 3, &scored);
        assert_eq!((grid.width, grid.at.as_slice()), (2, [1, 2, 5, 3, 6, 6].as_slice()));
        let (weights, tokens) = grid.weights(&scored);
        assert_eq!((weights, tokens), (vec![1.0, 1.0, 1.0, 0.0, 0.0, 0.0], vec![2, 1, 0]));
        let only_last = [false, false, true, false, false, false, false, false, false];
        assert_eq!(grid.weights(&only_last).1, [1, 0, 0]);
    }
}
