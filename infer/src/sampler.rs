//! From logits to the next token id: an ordered chain of stages, and a draw from what they leave.
//!
//! Knows numbers and ids; nothing of models. Temperature, filters and their ties are those of transformers, penalties
//! those of vLLM, DRY, XTC, top-n-sigma and mirostat those of llama.cpp; `docs/concepts/sampling.md` has the whole.
//!
//! Randomness is a function of the seed, the place in the output and the purpose, so neither batch mates nor
//! preemption nor speculation change a draw.

mod candidates;
mod distribution;
mod dry;
mod error;
mod exp;
mod filters;
mod history;
mod log_probs;
mod options;

use fornax_base::rng::rng;

pub use distribution::Distribution;
pub use dry::{DEFAULT_BREAKERS, breaker_ids};
pub use error::SamplerError;
pub use log_probs::{Sampled, check_logits, log_prob_of};
pub use options::{SamplingOptions, Stage};

use candidates::Candidates;
use history::History;

/// The sampler of one sequence: its options, what was said so far, and work space.
#[derive(Debug, Clone)]
pub struct Chain {
    options: SamplingOptions,
    /// The stages that do something.
    stages: Vec<Stage>,
    vocab_size: usize,
    /// Ids that end the text, ascending.
    ends: Vec<u32>,
    /// `allowed_ids` as bits, 32 to a word.
    allowed: Option<Vec<u32>>,
    /// Ascending.
    breakers: Vec<u32>,
    history: History,
    /// The surprise that mirostat allows, in bits, now and before each token of the output.
    bound: f32,
    bounds: Vec<f32>,
    candidates: Candidates,
    /// Whether `candidates` are those for the next token.
    prepared: bool,
}

impl Chain {
    /// The sampler of a sequence that begins with `prompt`, for a model with logits for `vocab_size` tokens and the
    /// end-of-text tokens `eos`.
    ///
    /// # Errors
    /// What [`SamplingOptions::check`] and [`SamplingOptions::check_ids`] find.
    pub fn new(
        options: &SamplingOptions,
        prompt: &[u32],
        vocab_size: usize,
        eos: &[u32],
    ) -> Result<Chain, SamplerError> {
        options.check()?;
        options.check_ids(vocab_size)?;
        Ok(Chain::of(options, prompt, vocab_size, eos))
    }

    /// Takes the most probable token always.
    pub fn greedy(vocab_size: usize) -> Chain {
        Chain::of(&SamplingOptions::greedy(), &[], vocab_size, &[])
    }

    /// The options are good.
    fn of(options: &SamplingOptions, prompt: &[u32], vocab_size: usize, eos: &[u32]) -> Chain {
        let stages: Vec<Stage> = options.chain.iter().copied().filter(|stage| options.is_active(*stage)).collect();
        let mut ends = options.stop_ids.clone();
        if !options.ignore_eos {
            ends.extend(eos.iter().filter(|&&id| (id as usize) < vocab_size));
        }
        ends.sort_unstable();
        ends.dedup();
        let mut breakers = options.dry_breakers.clone();
        breakers.sort_unstable();
        let allowed = options.allowed_ids.as_ref().map(|ids| {
            let mut words = vec![0u32; vocab_size.div_ceil(32)];
            ids.iter().for_each(|id| words[*id as usize / 32] |= 1 << (id % 32));
            words
        });
        let history = History::new(prompt, stages.contains(&Stage::Penalties));
        Chain {
            options: options.clone(),
            stages,
            vocab_size,
            ends,
            allowed,
            breakers,
            history,
            bound: 2.0 * options.mirostat_tau,
            bounds: Vec::new(),
            candidates: Candidates::default(),
            prepared: false,
        }
    }

    /// The options it was made with.
    pub fn options(&self) -> &SamplingOptions {
        &self.options
    }

    /// Whether this token ends the text.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// Tokens accepted so far: the place of the next one in the output.
    pub fn position(&self) -> usize {
        self.history.output().len()
    }

    /// The tokens accepted so far.
    pub fn output(&self) -> &[u32] {
        self.history.output()
    }

    /// A number in `[0, 1)`: a function of the seed, the place of the next token and `purpose`. A token is drawn with
    /// that for `"sample"`.
    pub fn uniform(&self, purpose: &str) -> f64 {
        rng(self.options.seed, self.position() as u64, purpose).uniform_f64()
    }

    /// Chooses the next token among `logits` (`[vocab]`; -inf rules a token out) and those whose bits are set in
    /// `mask`, 32 to a word. Nothing is remembered of it before [`Chain::accept`].
    ///
    /// # Errors
    /// For NaN, +inf, as many logits as the vocabulary has not, or where no token is left.
    pub fn sample(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Result<Sampled, SamplerError> {
        let largest = self.prepare(logits, mask)?;
        let id = self.candidates.draw(self.uniform("sample"));
        Ok(log_probs::report(logits, largest, id, self.options.top_log_probs))
    }

    /// What [`Chain::sample`] draws from.
    ///
    /// # Errors
    /// As [`Chain::sample`].
    pub fn distribution(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Result<Distribution, SamplerError> {
        self.prepare(logits, mask)?;
        Ok(self.candidates.distribution())
    }

    /// The report of a token that something else chose, with as many others as the options ask for.
    ///
    /// # Errors
    /// As [`log_prob_of`].
    pub fn sampled(&self, logits: &[f32], id: u32) -> Result<Sampled, SamplerError> {
        log_prob_of(logits, id, self.options.top_log_probs)
    }

    /// The next token of the output is `id`. Penalties count it, and mirostat follows its probability in the
    /// distribution computed last.
    pub fn accept(&mut self, id: u32) {
        self.bounds.push(self.bound);
        if self.options.mirostat && self.prepared {
            let probability = self.candidates.probability(id).filter(|probability| *probability > 0.0);
            if let Some(probability) = probability {
                let surprise = -probability.log2() as f32;
                self.bound -= self.options.mirostat_eta * (surprise - self.options.mirostat_tau);
            }
        }
        self.history.push(id);
        self.prepared = false;
    }

    /// Takes the last `n` accepted tokens back.
    ///
    /// # Panics
    /// Panics when fewer were accepted.
    pub fn rollback(&mut self, n: usize) {
        assert!(n <= self.position(), "{n} tokens to take back, {} were accepted", self.position());
        for _ in 0..n {
            self.history.pop();
            self.bound = self.bounds.pop().unwrap_or(self.bound);
        }
        self.prepared = false;
    }

    /// Runs the stages; returns the largest logit as given.
    fn prepare(&mut self, logits: &[f32], mask: Option<&[u32]>) -> Result<f32, SamplerError> {
        self.prepared = false;
        let (found, vocab_size) = (logits.len(), self.vocab_size);
        if found != vocab_size {
            return Err(SamplerError::Logits { found, vocab_size });
        }
        let largest = check_logits(logits)?;
        let limited = self.limits(mask);
        if !limited && self.stages.first() == Some(&Stage::Temperature) && self.options.temperature == 0.0 {
            // Nothing comes before greedy choice, and nothing changes it.
            self.candidates.only(candidates::best(logits, largest), largest);
        } else {
            self.candidates.enter(logits);
            if limited {
                self.rule_out(mask)?;
            }
            for stage in 0..self.stages.len() {
                self.apply(self.stages[stage]);
            }
        }
        self.prepared = true;
        Ok(largest)
    }

    /// Whether some tokens may not come at all.
    fn limits(&self, mask: Option<&[u32]>) -> bool {
        let early = self.position() < self.options.min_tokens && !self.ends.is_empty();
        mask.is_some() || self.allowed.is_some() || !self.options.banned_ids.is_empty() || early
    }

    fn rule_out(&mut self, mask: Option<&[u32]>) -> Result<(), SamplerError> {
        for mask in [mask, self.allowed.as_deref()].into_iter().flatten() {
            self.candidates.mask(mask);
        }
        if !self.options.banned_ids.is_empty() {
            self.candidates.ban(&self.options.banned_ids);
        }
        if self.candidates.largest == f32::NEG_INFINITY {
            return Err(SamplerError::NothingAllowed { vocab_size: self.vocab_size });
        }
        if self.position() < self.options.min_tokens {
            let before: Vec<f32> = self.ends.iter().map(|id| self.candidates.logits[*id as usize]).collect();
            self.candidates.ban(&self.ends);
            if self.candidates.largest == f32::NEG_INFINITY {
                for (id, logit) in self.ends.iter().zip(before) {
                    self.candidates.logits[*id as usize] = logit;
                }
                self.candidates.weigh();
            }
        }
        Ok(())
    }

    fn apply(&mut self, stage: Stage) {
        let Chain { options, candidates, history, .. } = self;
        match stage {
            Stage::LogitBias => {
                let bias = &options.logit_bias;
                candidates.change(bias.keys().copied(), |id, logit| logit + bias.get(&id).unwrap_or(&0.0));
            }
            Stage::Penalties => history.penalize(options, candidates),
            Stage::Dry => {
                let penalties = dry::penalties(options, &self.breakers, history.ids());
                candidates
                    .change(penalties.keys().copied(), |id, logit| logit - penalties.get(&id).unwrap_or(&0.0));
            }
            Stage::Temperature if options.temperature == 0.0 => {
                let (best, largest) = (candidates.best(), candidates.largest);
                candidates.only(best, largest);
            }
            Stage::Temperature => {
                candidates.temperature = options.temperature;
                if candidates.few {
                    candidates.weigh();
                }
            }
            Stage::TopNSigma => candidates.top_n_sigma(f64::from(options.top_n_sigma)),
            Stage::TopK => candidates.top_k(options.top_k),
            Stage::TopP => candidates.top_p(f64::from(options.top_p)),
            Stage::MinP => candidates.min_p(f64::from(options.min_p)),
            Stage::TypicalP => candidates.typical_p(f64::from(options.typical_p)),
            Stage::Xtc => {
                let chance = rng(options.seed, history.output().len() as u64, "xtc").uniform_f64();
                if chance < f64::from(options.xtc_probability) {
                    candidates.exclude_top_choices(f64::from(options.xtc_threshold));
                }
            }
            Stage::Mirostat => candidates.surprise_at_most(f64::from(self.bound)),
        }
    }
}

#[cfg(test)]
mod tests;
