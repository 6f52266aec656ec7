//! How many tokens to propose: as many as pay, by what was accepted and what was measured, and none where none do.

use std::collections::BTreeMap;

/// Rounds that weigh as much as all before them: an average over about this many.
const MEMORY: f64 = 12.0;
/// What is believed of a drafter before it was tried, and as how many judged tokens that counts.
const PRIOR: (f64, f64) = (0.7, 3.0);
/// Plain steps that are timed before anything is proposed, so that there is something to compare with.
const CALIBRATION: u64 = 3;
/// A plain step among so many rounds keeps that time up to date.
const RECALIBRATE: u64 = 64;
/// Tokens without a draft after it did not pay, doubled each time up to the second number.
const PAUSE: (u64, u64) = (32, 1024);
/// A length is taken only when it is better than plain decoding by this factor: measured times are noisy.
const MARGIN: f64 = 1.03;

/// What steps cost on this machine with this model, in seconds. Times are given, never taken, so that tests can say them.
#[derive(Debug, Clone, Default)]
pub struct Costs {
    /// Seconds of a step by the tokens it computes, as running means.
    steps: BTreeMap<usize, f64>,
    /// Seconds to propose one token for each sequence of a batch.
    draft: Option<f64>,
}

impl Costs {
    /// A step over `tokens` tokens took `seconds`.
    pub fn step_took(&mut self, tokens: usize, seconds: f64) {
        let mean = self.steps.entry(tokens).or_insert(seconds);
        *mean += (seconds - *mean) / MEMORY;
    }

    /// Proposing `k` tokens for each sequence took `seconds`.
    pub fn draft_took(&mut self, k: usize, seconds: f64) {
        let one = seconds / k.max(1) as f64;
        let mean = self.draft.get_or_insert(one);
        *mean += (one - *mean) / MEMORY;
    }

    /// Whether steps over `tokens` tokens were timed.
    pub fn knows(&self, tokens: usize) -> bool {
        self.steps.contains_key(&tokens)
    }

    /// Seconds of a step over `tokens` tokens: measured, on the line between two measured ones, or beyond the last one
    /// a guess that is cheap enough to be tried.
    fn step(&self, tokens: usize) -> Option<f64> {
        let below = self.steps.range(..=tokens).next_back();
        let above = self.steps.range(tokens..).next();
        match (below, above) {
            (Some((&n, &seconds)), _) if n == tokens => Some(seconds),
            (Some((&n, &low)), Some((&m, &high))) => {
                Some(low + (high - low) * (tokens - n) as f64 / (m - n) as f64)
            }
            (Some((&n, &seconds)), None) => Some(seconds * (1.0 + 0.05 * (tokens - n) as f64)),
            (None, Some((_, &seconds))) => Some(seconds),
            (None, None) => None,
        }
    }

    /// Tokens per second of one of `sequences` when each proposes `k` tokens of which each is accepted with probability
    /// `acceptance`: `(1 - a^(k + 1)) / (1 - a)` tokens for each step (Leviathan et al. 2023, section 3.1).
    fn rate(&self, k: usize, acceptance: f64, sequences: usize) -> Option<f64> {
        let tokens: f64 = (0..=k as i32).map(|i| acceptance.powi(i)).sum();
        // A draft that was not timed yet is believed to be free, so that it is tried.
        let seconds = self.step(sequences * (k + 1))? + k as f64 * self.draft.unwrap_or(0.0);
        Some(tokens / seconds)
    }
}

/// The draft length of one sequence.
#[derive(Debug, Clone)]
pub struct Adaptive {
    most: usize,
    fixed: bool,
    accepted: f64,
    judged: f64,
    rounds: u64,
    /// Plain tokens left until drafting is tried again.
    pause: u64,
    /// Length of the last pause, 0 when the last try paid.
    paused: u64,
    switched_off: u64,
}

impl Adaptive {
    /// At most `most` tokens a round; `fixed` proposes that many always and is never switched off.
    pub fn new(most: usize, fixed: bool) -> Self {
        let (acceptance, weight) = PRIOR;
        Self {
            most,
            fixed,
            accepted: acceptance * weight,
            judged: weight,
            rounds: 0,
            pause: 0,
            paused: 0,
            switched_off: 0,
        }
    }

    /// How many tokens to propose in the next round, one of `sequences` that go through the target together. 0: none.
    pub fn length(&mut self, costs: &Costs, sequences: usize) -> usize {
        self.rounds += 1;
        if self.fixed {
            return self.most;
        }
        if self.rounds <= CALIBRATION || self.rounds.is_multiple_of(RECALIBRATE) {
            return 0;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return match self.pause {
                // One try: what was believed before the pause may be old.
                0 => self.most.min(2),
                _ => 0,
            };
        }
        let best = self.best(costs, sequences);
        if best == 0 {
            self.paused = (2 * self.paused).clamp(PAUSE.0, PAUSE.1);
            self.pause = self.paused;
            self.switched_off += 1;
        }
        best
    }

    fn best(&self, costs: &Costs, sequences: usize) -> usize {
        let acceptance = self.acceptance();
        let Some(plain) = costs.rate(0, acceptance, sequences) else { return self.most };
        let rates = (1..=self.most).filter_map(|k| Some((k, costs.rate(k, acceptance, sequences)?)));
        let best = rates.fold((0, plain * MARGIN), |best, (k, rate)| if rate > best.1 { (k, rate) } else { best });
        best.0
    }

    /// Of `drafted` proposed tokens `accepted` were accepted; what came behind a refused one was not judged.
    pub fn judged(&mut self, drafted: usize, accepted: usize) {
        if drafted == 0 {
            return;
        }
        let judged = (accepted + 1).min(drafted) as f64;
        let keep = 1.0 - 1.0 / MEMORY;
        self.accepted = self.accepted * keep + accepted as f64;
        self.judged = self.judged * keep + judged;
        if accepted == drafted {
            self.paused = 0;
        }
    }

    /// The probability that a proposed token is accepted, as believed now.
    pub fn acceptance(&self) -> f64 {
        (self.accepted / self.judged).min(0.999)
    }

    /// How many times it was switched off.
    pub fn switched_off(&self) -> u64 {
        self.switched_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of a drafter that is right with every `period`-th token only, or always where it is 0; steps of
    /// `step(tokens)` seconds, drafts of `draft` seconds a token. The share of rounds with a draft among the last 100,
    /// and their lengths.
    fn run(period: usize, draft: f64, step: &dyn Fn(usize) -> f64) -> (f64, f64, Adaptive) {
        let (mut costs, mut adaptive) = (Costs::default(), Adaptive::new(8, false));
        let (mut drafts, mut length) = (0, 0);
        for round in 0..400 {
            let k = adaptive.length(&costs, 1);
            if k > 0 {
                costs.draft_took(k, draft * k as f64);
            }
            costs.step_took(k + 1, step(k + 1));
            let accepted = if period == 0 { k } else { k.min(usize::from(round % period == 0)) };
            adaptive.judged(k, accepted);
            if round >= 300 {
                (drafts, length) = (drafts + usize::from(k > 0), length + k);
            }
        }
        (drafts as f64 / 100.0, length as f64 / f64::from(drafts.max(1) as u32), adaptive)
    }

    #[test]
    fn a_good_and_cheap_draft_is_long_and_stays_on() {
        let (share, length, adaptive) = run(0, 0.01, &|n| 1.0 + 0.01 * n as f64);
        assert!(share > 0.9 && length > 7.0, "{share} {length}");
        assert_eq!(adaptive.switched_off(), 0);
        assert!(adaptive.acceptance() > 0.95);
    }

    #[test]
    fn a_draft_that_costs_more_than_it_brings_is_switched_off() {
        // Never right.
        let (share, _, adaptive) = run(1000, 0.05, &|n| 1.0 + 0.01 * n as f64);
        assert!(share < 0.1, "{share}");
        assert!(adaptive.switched_off() > 0 && adaptive.acceptance() < 0.4);
        // Always right, and as slow as the target itself.
        let (share, _, _) = run(0, 1.0, &|n| 1.0 + 0.1 * n as f64);
        assert!(share < 0.1, "{share}");
        // Always right and free, with a target that gains nothing from computing tokens together.
        let (share, _, _) = run(0, 0.0, &|n| n as f64);
        assert!(share < 0.1, "{share}");
    }

    #[test]
    fn a_draft_that_is_right_now_and_then_is_short() {
        let (share, length, _) = run(2, 0.01, &|n| 1.0 + 0.05 * n as f64);
        assert!(share > 0.5 && length < 4.0, "{share} {length}");
    }

    #[test]
    fn a_fixed_length_knows_no_costs() {
        let mut adaptive = Adaptive::new(5, true);
        for _ in 0..100 {
            assert_eq!(adaptive.length(&Costs::default(), 3), 5);
            adaptive.judged(5, 0);
        }
    }

    #[test]
    fn steps_between_measured_ones_lie_on_the_line() {
        let mut costs = Costs::default();
        assert_eq!(costs.step(3), None);
        costs.step_took(2, 1.0);
        costs.step_took(6, 3.0);
        assert_eq!((costs.step(1), costs.step(2), costs.step(4)), (Some(1.0), Some(1.0), Some(2.0)));
        assert!((costs.step(8).unwrap() - 3.3).abs() < 1e-12);
        // Tokens of a step: 1 + 0.5 + 0.25, over 1 s and two drafted tokens.
        costs.step_took(3, 1.0);
        costs.draft_took(4, 1.0);
        assert!((costs.rate(2, 0.5, 1).unwrap() - 1.75 / 1.5).abs() < 1e-12);
    }
}
