//! What speculation did, and whether it paid.

use serde::Serialize;

/// Counts and times over any number of sequences. Names are those of vLLM's metrics where it has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SpeculationStats {
    /// Rounds in which at least one token was proposed.
    pub drafts: u64,
    /// Tokens proposed and judged.
    pub drafted: u64,
    /// Tokens accepted.
    pub accepted: u64,
    /// How many rounds proposed a token at each position.
    pub drafted_at: Vec<u64>,
    /// How many rounds accepted the token at each position.
    pub accepted_at: Vec<u64>,
    /// Tokens that rounds with proposals gave: the accepted ones, and one more each.
    pub tokens: u64,
    /// Seconds in which proposals were made.
    pub draft_seconds: f64,
    /// Seconds in which the target judged proposals.
    pub verify_seconds: f64,
    /// Tokens made one by one, without a proposal.
    pub plain_tokens: u64,
    /// Their seconds.
    pub plain_seconds: f64,
    /// How many times drafting was switched off because it did not pay.
    pub switched_off: u64,
}

impl SpeculationStats {
    /// Counts the judgement of one sequence's proposals: `accepted` of `drafted` were accepted, and `tokens` came of it.
    pub fn judged(&mut self, drafted: usize, accepted: usize, tokens: usize) {
        self.drafts += 1;
        self.drafted += drafted as u64;
        self.accepted += accepted as u64;
        self.tokens += tokens as u64;
        for (counts, n) in [(&mut self.drafted_at, drafted), (&mut self.accepted_at, accepted)] {
            if counts.len() < n {
                counts.resize(n, 0);
            }
            counts[..n].iter_mut().for_each(|count| *count += 1);
        }
        self.accepted_at.resize(self.drafted_at.len(), 0);
    }

    /// Adds what happened elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.drafts += other.drafts;
        self.drafted += other.drafted;
        self.accepted += other.accepted;
        self.tokens += other.tokens;
        self.draft_seconds += other.draft_seconds;
        self.verify_seconds += other.verify_seconds;
        self.plain_tokens += other.plain_tokens;
        self.plain_seconds += other.plain_seconds;
        self.switched_off += other.switched_off;
        for (mine, theirs) in
            [(&mut self.drafted_at, &other.drafted_at), (&mut self.accepted_at, &other.accepted_at)]
        {
            mine.resize(mine.len().max(theirs.len()), 0);
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
    }

    /// Share of the judged tokens that were accepted; `None` before one was judged.
    pub fn acceptance(&self) -> Option<f64> {
        share(self.accepted, self.drafted)
    }

    /// Share of the rounds with a token at position `i` (from 0) in which it was accepted, those before it included.
    pub fn acceptance_at(&self, i: usize) -> Option<f64> {
        share(*self.accepted_at.get(i)?, *self.drafted_at.get(i)?)
    }

    /// Tokens of a round: 1 + accepted / rounds.
    pub fn mean_length(&self) -> Option<f64> {
        share(self.accepted, self.drafts).map(|accepted| 1.0 + accepted)
    }

    /// Tokens per second of rounds with proposals over those of plain decoding, as measured in the same run; below 1
    /// where speculation costs time. `None` before both were measured.
    pub fn speed_up(&self) -> Option<f64> {
        let seconds = self.draft_seconds + self.verify_seconds;
        let measured = self.tokens > 0 && self.plain_tokens > 0 && seconds > 0.0 && self.plain_seconds > 0.0;
        measured.then(|| self.tokens as f64 / seconds / (self.plain_tokens as f64 / self.plain_seconds))
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_hand() {
        let mut stats = SpeculationStats::default();
        assert_eq!((stats.acceptance(), stats.mean_length(), stats.speed_up()), (None, None, None));
        stats.judged(3, 3, 4);
        stats.judged(2, 0, 1);
        stats.judged(4, 1, 2);
        assert_eq!((stats.drafts, stats.drafted, stats.accepted, stats.tokens), (3, 9, 4, 7));
        assert_eq!(stats.drafted_at, [3, 3, 2, 1]);
        assert_eq!(stats.accepted_at, [2, 1, 1, 0]);
        assert_eq!(stats.acceptance(), Some(4.0 / 9.0));
        assert_eq!(stats.acceptance_at(0), Some(2.0 / 3.0));
        assert_eq!(stats.acceptance_at(4), None);
        assert_eq!(stats.mean_length(), Some(1.0 + 4.0 / 3.0));
        // 7 tokens in 3.5 s are 2 a second; 4 in 1 s are 4: half as fast.
        (stats.draft_seconds, stats.verify_seconds) = (1.5, 2.0);
        (stats.plain_tokens, stats.plain_seconds) = (4, 1.0);
        assert_eq!(stats.speed_up(), Some(0.5));
        let mut twice = stats.clone();
        twice.add(&stats);
        assert_eq!((twice.drafts, twice.accepted_at.as_slice()), (6, &[4, 2, 2, 0][..]));
        assert_eq!(twice.speed_up(), Some(0.5));
    }
}
