//! Which rows are held out of training.

use std::collections::BTreeSet;

use fornax_base::rng::rng;

use crate::error::DataError;

/// Randomness of the split.
const PURPOSE: &str = "held-out";

/// How much is held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeldOut {
    /// Nothing.
    Nothing,
    /// This share of the rows, more than 0 and less than 1: each row by a number that depends on it alone, so that rows
    /// which are added move no other one.
    Fraction(f64),
    /// This many rows, and their doubles.
    Rows(u64),
}

/// For each row, by what it is known, whether it is held out: a function of the seed and the row. Rows that are known
/// by the same number stay on one side, and no side is empty.
///
/// # Errors
/// When the fraction is no share, or one side would be empty.
pub fn held_out(keys: &[u64], seed: u64, part: HeldOut) -> Result<Vec<bool>, DataError> {
    let draw = |key: u64| rng(seed, key, PURPOSE).uniform_f64();
    let mut groups: Vec<(f64, u64)> =
        keys.iter().collect::<BTreeSet<_>>().into_iter().map(|key| (draw(*key), *key)).collect();
    groups.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let n = match part {
        HeldOut::Nothing => return Ok(vec![false; keys.len()]),
        HeldOut::Fraction(fraction) if fraction > 0.0 && fraction < 1.0 => {
            groups.iter().take_while(|(drawn, _)| *drawn < fraction).count().max(1)
        }
        HeldOut::Fraction(fraction) => return Err(DataError::ValidationFraction(fraction)),
        HeldOut::Rows(rows) => {
            let mut sizes = std::collections::BTreeMap::<u64, u64>::new();
            for key in keys {
                *sizes.entry(*key).or_default() += 1;
            }
            let mut taken = 0;
            let enough = groups.iter().take_while(|(_, key)| {
                let more = taken < rows;
                taken += sizes.get(key).copied().unwrap_or_default();
                more
            });
            enough.count()
        }
    };
    // A fraction leaves at least one row on each side; a count that takes all is a mistake.
    let n = if matches!(part, HeldOut::Fraction(_)) { n.min(groups.len().saturating_sub(1)) } else { n };
    if n == 0 || n >= groups.len() {
        let wanted = match part {
            HeldOut::Rows(rows) => format!("{rows} rows"),
            _ => "a part of the rows".to_owned(),
        };
        return Err(DataError::Option(format!(
            "{wanted} cannot be held out of {} rows, of which {} are different",
            keys.len(),
            groups.len()
        )));
    }
    let chosen: BTreeSet<u64> = groups[..n].iter().map(|(_, key)| *key).collect();
    Ok(keys.iter().map(|key| chosen.contains(key)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_stay_together_and_the_share_is_right() {
        let keys: Vec<u64> = (0..5000).map(|row| row % 4000).collect();
        let sides = held_out(&keys, 7, HeldOut::Fraction(0.1)).unwrap();
        assert_eq!(sides[..1000], sides[4000..]);
        let n = sides.iter().filter(|side| **side).count();
        // 500 expected; the deviation is 27, since doubles move together.
        assert!(n.abs_diff(500) < 140, "{n}");
        assert_ne!(sides, held_out(&keys, 8, HeldOut::Fraction(0.1)).unwrap());
        // Rows that are added move no other one.
        let more: Vec<u64> = (0..6000).map(|row| if row < 5000 { row % 4000 } else { row }).collect();
        assert_eq!(held_out(&more, 7, HeldOut::Fraction(0.1)).unwrap()[..5000], sides);
    }

    #[test]
    fn a_count_is_met_and_no_side_is_empty() {
        let keys: Vec<u64> = (0..100).collect();
        let count =
            |keys: &[u64], part| held_out(keys, 1, part).map(|sides| sides.iter().filter(|side| **side).count());
        assert_eq!(count(&keys, HeldOut::Rows(37)).unwrap(), 37);
        assert_eq!(count(&keys, HeldOut::Nothing).unwrap(), 0);
        for seed in 0..50 {
            for fraction in [1e-9, 1.0 - 1e-9] {
                let sides = held_out(&[1, 2], seed, HeldOut::Fraction(fraction)).unwrap();
                assert_eq!(sides.iter().filter(|side| **side).count(), 1);
            }
        }
        let error = count(&keys, HeldOut::Rows(100)).unwrap_err().to_string();
        assert_eq!(error, "100 rows cannot be held out of 100 rows, of which 100 are different");
        assert!(count(&[3, 3, 3], HeldOut::Fraction(0.5)).is_err());
        assert!(count(&keys, HeldOut::Fraction(1.0)).is_err());
        assert!(count(&keys, HeldOut::Rows(0)).is_err());
    }
}
