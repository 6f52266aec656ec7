//! Packing: several examples in a row of fixed length, so that little of it is padding.
//!
//! Best fit, longest examples ahead ("best-fit decreasing"; Johnson 1974 shows at most 11/9 of the least number of rows,
//! and a few): each example goes into the fullest row that still has room for it. Rows with equal room are kept by
//! room, so that one is found in O(log n).

use std::collections::BTreeMap;

use fornax_base::rng::{Permutation, rng};

/// Randomness of the order in which examples of equal length are packed.
const TIES: &str = "packing/ties";
/// Randomness of the order of the rows.
const ROWS: &str = "packing/rows";

/// The rows of one epoch: which examples each holds, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    rows: Vec<Vec<u32>>,
    /// Inputs that are no padding.
    filled: u64,
    columns: usize,
}

impl Plan {
    /// Packs examples of these lengths (in inputs: their tokens but one) into rows of `columns` inputs. The same for
    /// equal (lengths, columns, seed, epoch); the number of rows does not depend on seed and epoch. Longer examples
    /// have a row of their own, which loses their end.
    pub fn new(lengths: &[usize], columns: usize, seed: u64, epoch: u64) -> Plan {
        let n = lengths.len() as u64;
        let shuffled = Permutation::new(seed, epoch, TIES, n);
        let mut order: Vec<u32> = (0..n).map(|at| shuffled.at(at) as u32).collect();
        let length = |example: u32| lengths[example as usize].min(columns);
        // Stable: equal lengths stay in shuffled order.
        order.sort_by_key(|example| std::cmp::Reverse(length(*example)));
        let mut rows: Vec<Vec<u32>> = Vec::new();
        // Rows by the room that they have, without those that have none.
        let mut with_room: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut filled = 0;
        for example in order {
            let needed = length(example);
            filled += needed as u64;
            let best = with_room.range(needed..).next().map(|(room, _)| *room);
            let (row, room) = match best {
                Some(room) => (take_row(&mut with_room, room), room),
                None => {
                    rows.push(Vec::new());
                    (rows.len() - 1, columns)
                }
            };
            rows[row].push(example);
            if room > needed {
                with_room.entry(room - needed).or_default().push(row);
            }
        }
        let mut order = rng(seed, epoch, ROWS);
        order.shuffle(&mut rows);
        // The longest would always stand in front.
        rows.iter_mut().for_each(|row| order.shuffle(row));
        Plan { rows, filled, columns }
    }

    /// The rows.
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }

    /// Part of all inputs that is padding.
    pub fn padding(&self) -> f64 {
        1.0 - self.filled as f64 / (self.rows.len() * self.columns).max(1) as f64
    }
}

/// Takes a row with this room out of those that have some.
fn take_row(with_room: &mut BTreeMap<usize, Vec<usize>>, room: usize) -> usize {
    let rows = with_room.entry(room).or_default();
    let row = rows.pop().unwrap_or_default();
    if rows.is_empty() {
        with_room.remove(&room);
    }
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn examples_go_where_they_fit_best() {
        // 7 + 3, 6 + 4, 5: best fit leaves 5 alone.
        let plan = Plan::new(&[3, 5, 7, 4, 6], 10, 0, 0);
        let mut rows: Vec<Vec<u32>> = plan.rows().to_vec();
        rows.iter_mut().for_each(|row| row.sort_unstable());
        rows.sort();
        assert_eq!(rows, [vec![0, 2], vec![1], vec![3, 4]]);
        assert!((plan.padding() - 5.0 / 30.0).abs() < 1e-12);
    }

    #[test]
    fn seeds_and_epochs_change_the_rows_and_not_their_number() {
        let lengths: Vec<usize> = (0..400).map(|at| 1 + at * 7 % 60).collect();
        let plans: Vec<Plan> = [(1, 0), (1, 1), (2, 0)].map(|(s, e)| Plan::new(&lengths, 64, s, e)).into();
        assert_eq!(plans[0], Plan::new(&lengths, 64, 1, 0));
        assert!(plans[0] != plans[1] && plans[0] != plans[2]);
        assert!(plans.iter().all(|plan| plan.rows().len() == plans[0].rows().len()));
        assert!(plans[0].padding() < 0.02, "{}", plans[0].padding());
    }

    #[test]
    fn as_many_rows_as_trl_packs() {
        for case in crate::testing::fixture("rows/expected.json")["packing"].as_array().unwrap() {
            let lengths: Vec<usize> = serde_json::from_value(case["lengths"].clone()).unwrap();
            let columns = case["columns"].as_u64().unwrap() as usize;
            for seed in 0..3 {
                let plan = Plan::new(&lengths, columns, seed, seed);
                assert_eq!(plan.rows().len() as u64, case["rows"].as_u64().unwrap(), "{columns} columns");
            }
        }
    }

    proptest! {
        #[test]
        fn every_example_is_in_one_row_and_no_row_is_too_full(
            lengths in proptest::collection::vec(1usize..40, 0..200), columns in 1usize..50, seed: u64,
        ) {
            let plan = Plan::new(&lengths, columns, seed, 3);
            let mut seen: Vec<u32> = plan.rows().iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len() as u32).collect::<Vec<_>>());
            let mut half_empty = 0;
            for row in plan.rows() {
                let filled: usize = row.iter().map(|at| lengths[*at as usize].min(columns)).sum();
                prop_assert!(filled <= columns);
                half_empty += usize::from(2 * filled <= columns);
            }
            // Two half-empty rows would have been one.
            prop_assert!(half_empty <= 1);
        }
    }
}
