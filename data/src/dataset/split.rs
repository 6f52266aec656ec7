//! Which documents are held out.

use fornax_base::rng::rng;

use crate::error::DataError;

/// Randomness of the split.
const PURPOSE: &str = "dataset/split";

/// The two sides of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Train,
    Validation,
}

/// The rule that sends each document to its side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// A single document: its characters are cut, the last `fraction` of them held out, as nanoGPT does.
    Cut { fraction: f64 },
    /// By a random number for each document, except for one that goes where nobody else did.
    Documents { seed: u64, fraction: f64, moved: Option<(u64, Side)> },
}

impl Rule {
    /// The rule for `n` documents, `n` at least 1.
    pub(super) fn new(seed: u64, fraction: f64, n: u64) -> Rule {
        if n == 1 {
            return Rule::Cut { fraction };
        }
        let draws = (0..n).map(|document| (draw(seed, document), document));
        let mut n_validation = 0;
        let (mut lowest, mut highest) = ((f64::INFINITY, 0), (f64::NEG_INFINITY, 0));
        for (drawn, document) in draws {
            n_validation += u64::from(drawn < fraction);
            lowest = if drawn < lowest.0 { (drawn, document) } else { lowest };
            highest = if drawn > highest.0 { (drawn, document) } else { highest };
        }
        let moved = match n_validation {
            0 => Some((lowest.1, Side::Validation)),
            all if all == n => Some((highest.1, Side::Train)),
            _ => None,
        };
        Rule::Documents { seed, fraction, moved }
    }

    /// The parts of document number `document`, in order.
    pub(super) fn parts(&self, document: u64, text: String) -> Result<Vec<(Side, String)>, DataError> {
        match *self {
            Rule::Cut { fraction } => cut(text, fraction),
            Rule::Documents { moved: Some((index, side)), .. } if index == document => Ok(vec![(side, text)]),
            Rule::Documents { seed, fraction, .. } => {
                let side = if draw(seed, document) < fraction { Side::Validation } else { Side::Train };
                Ok(vec![(side, text)])
            }
        }
    }
}

fn draw(seed: u64, document: u64) -> f64 {
    rng(seed, document, PURPOSE).uniform_f64()
}

fn cut(mut text: String, fraction: f64) -> Result<Vec<(Side, String)>, DataError> {
    let n = text.chars().count();
    let kept = (n as f64 * (1.0 - fraction)) as usize;
    match text.char_indices().nth(kept) {
        Some((at, _)) if at > 0 => {
            let validation = text.split_off(at);
            Ok(vec![(Side::Train, text), (Side::Validation, validation)])
        }
        _ => Err(DataError::CannotSplit(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(rule: &Rule, n: u64) -> Vec<Side> {
        (0..n).map(|i| rule.parts(i, "x".into()).unwrap()[0].0).collect()
    }

    #[test]
    fn both_sides_are_never_empty_and_the_share_is_right() {
        for seed in 0..200 {
            for n in 2..6 {
                for fraction in [1e-9, 0.5, 1.0 - 1e-9] {
                    let sides = sides(&Rule::new(seed, fraction, n), n);
                    assert!(
                        sides.contains(&Side::Train) && sides.contains(&Side::Validation),
                        "{seed} {n} {fraction}"
                    );
                }
            }
        }
        let rule = Rule::new(1, 0.1, 20_000);
        let held_out = sides(&rule, 20_000).iter().filter(|side| **side == Side::Validation).count();
        // 2,000 expected with a deviation of 42; five of them.
        assert!(held_out.abs_diff(2000) < 210, "{held_out}");
        assert_ne!(sides(&rule, 100), sides(&Rule::new(2, 0.1, 100), 100));
    }

    #[test]
    fn a_single_document_is_cut_by_characters() {
        let rule = Rule::new(0, 0.1, 1);
        let text: String = "äöüß€abcde".repeat(10);
        let parts = rule.parts(0, text.clone()).unwrap();
        assert_eq!(parts[0], (Side::Train, text.chars().take(90).collect()));
        assert_eq!(parts[1], (Side::Validation, text.chars().skip(90).collect()));
        let error = rule.parts(0, "x".into()).unwrap_err().to_string();
        assert!(error.contains("single document of 1 characters"), "{error}");
    }
}
