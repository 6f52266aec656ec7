//! Drafts by looking back: what followed the last tokens the last time they were written.
//!
//! Prompt lookup (Saxena 2023, <https://github.com/apoorvumang/prompt-lookup-decoding>). Costs no model, and pays where
//! a text repeats itself: summaries, code that is edited, answers that quote the question.

use serde::{Deserialize, Serialize};

/// How long a match must be to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lookup {
    /// Last tokens that must have occurred before; 1 or more.
    pub least: usize,
    /// Last tokens that are compared at most; longer matches are no better than this.
    pub most: usize,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { least: 2, most: 8 }
    }
}

impl Lookup {
    /// Up to `k` tokens that may follow `history`: those behind the longest earlier occurrence of its end, the latest
    /// of them among equals. Where the occurrence overlaps the end, the proposal goes round. Empty without an occurrence.
    ///
    /// One pass over the history, which costs some microseconds for tens of thousands of tokens.
    pub fn propose(&self, history: &[u32], k: usize) -> Vec<u32> {
        let Some((&last, before)) = history.split_last() else { return Vec::new() };
        let (mut longest, mut behind) = (0, 0);
        for end in (0..before.len()).rev() {
            if before[end] != last {
                continue;
            }
            let pairs = history[..=end].iter().rev().zip(history.iter().rev());
            let length = pairs.take(self.most).take_while(|(a, b)| a == b).count();
            if length > longest {
                (longest, behind) = (length, end + 1);
                if length >= self.most {
                    break;
                }
            }
        }
        if longest < self.least.max(1) {
            return Vec::new();
        }
        let period = history.len() - behind;
        (0..k).map(|i| history[behind + i % period]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(history: &[u32], k: usize, expected: &[u32]) {
        assert_eq!(Lookup::default().propose(history, k), expected, "{history:?}");
    }

    #[test]
    fn what_followed_the_same_tokens_is_proposed() {
        check(&[1, 2, 3, 4, 5, 9, 1, 2], 3, &[3, 4, 5]);
        check(&[1, 2, 3, 4, 5, 9, 1, 2], 0, &[]);
        // The longer match wins over the later one.
        check(&[7, 1, 2, 3, 8, 1, 2, 4, 7, 1, 2], 1, &[3]);
        // The later one among equals.
        check(&[1, 2, 3, 8, 1, 2, 4, 9, 1, 2], 1, &[4]);
    }

    #[test]
    fn a_loop_goes_round() {
        check(&[5, 1, 2, 1, 2], 5, &[1, 2, 1, 2, 1]);
        check(&[4, 4, 4], 4, &[4, 4, 4, 4]);
    }

    #[test]
    fn too_little_to_go_by_proposes_nothing() {
        for history in [&[][..], &[1], &[1, 1], &[1, 2, 3], &[2, 1, 3, 1]] {
            check(history, 4, &[]);
        }
        assert_eq!(Lookup { least: 1, most: 1 }.propose(&[2, 1, 3, 1], 2), [3, 1]);
    }
}
