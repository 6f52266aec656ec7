//! How many rows a step takes, and which: every epoch in an order of its own, a function of (seed, epoch).

use fornax_data::batches::Cursor;
use fornax_data::example_batches::next_rows;

/// How a step is cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Pairs or rows of one micro-batch.
    pub rows: usize,
    /// Micro-batches of one step.
    pub micro_batches: usize,
    /// Seed of the run.
    pub seed: u64,
}

/// The next `count` of `n` rows from `cursor` on, and where the data stands behind them. Epochs follow one another
/// without a gap.
///
/// # Panics
/// Panics when there is no row.
pub(crate) fn draw(n: usize, count: usize, cursor: Cursor, seed: u64) -> (Vec<usize>, Cursor) {
    let mut after = cursor;
    (next_rows(n, count, seed, &mut after), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_takes_every_row_once() {
        let (rows, after) = draw(5, 12, Cursor::default(), 3);
        for epoch in rows.chunks(5).take(2) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert_eq!(after, Cursor { epoch: 2, window: 2 });
        // In any cut the same.
        let (mut again, mut cursor) = (Vec::new(), Cursor::default());
        for count in [1, 4, 2, 5] {
            let (part, next) = draw(5, count, cursor, 3);
            again.extend(part);
            cursor = next;
        }
        assert_eq!((again, cursor), (rows, after));
    }
}
