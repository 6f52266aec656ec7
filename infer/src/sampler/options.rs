//! What a request may say about sampling, each value with its range, and the order in which the stages apply.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use fornax_base::rng::rng;
use serde::{Deserialize, Serialize};

use super::SamplerError;

/// One step from logits to a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// `logit_bias` is added.
    LogitBias,
    /// `repetition_penalty`, then `frequency_penalty`, then `presence_penalty`.
    Penalties,
    /// Tokens that would go on with a repetition lose `dry_multiplier * dry_base^(length - dry_allowed_length)`.
    Dry,
    /// Logits are divided by `temperature`; at 0 the largest alone stays.
    Temperature,
    /// Logits more than `top_n_sigma` standard deviations below the largest go.
    TopNSigma,
    /// All but the `top_k` largest go.
    TopK,
    /// The most probable tokens that reach `top_p` stay.
    TopP,
    /// Tokens below `min_p` times the largest probability go.
    MinP,
    /// Tokens whose surprise is nearest to the expected one stay, until they reach `typical_p`.
    TypicalP,
    /// Of the tokens of at least `xtc_threshold` all but the least probable go, with probability `xtc_probability`.
    Xtc,
    /// Tokens of more surprise than a bound go; the bound follows `mirostat_tau`.
    Mirostat,
}

impl Stage {
    /// All stages in their usual order: what changes logits, temperature, filters, as transformers and vLLM do.
    pub const ALL: [Stage; 11] = [
        Stage::LogitBias,
        Stage::Penalties,
        Stage::Dry,
        Stage::Temperature,
        Stage::TopNSigma,
        Stage::TopK,
        Stage::TopP,
        Stage::MinP,
        Stage::TypicalP,
        Stage::Xtc,
        Stage::Mirostat,
    ];

    /// The name in files, requests and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::LogitBias => "logit_bias",
            Stage::Penalties => "penalties",
            Stage::Dry => "dry",
            Stage::Temperature => "temperature",
            Stage::TopNSigma => "top_n_sigma",
            Stage::TopK => "top_k",
            Stage::TopP => "top_p",
            Stage::MinP => "min_p",
            Stage::TypicalP => "typical_p",
            Stage::Xtc => "xtc",
            Stage::Mirostat => "mirostat",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = SamplerError;

    fn from_str(name: &str) -> Result<Stage, SamplerError> {
        Stage::ALL.into_iter().find(|stage| stage.name() == name).ok_or_else(|| SamplerError::UnknownStage {
            name: name.to_owned(),
            known: Stage::ALL.map(Stage::name).join(", "),
        })
    }
}

/// How the next token is chosen, and which token ends the text. The default of every field changes nothing: it draws
/// from the model's own distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingOptions {
    /// The stages in the order in which they apply; a stage that is left out does nothing, and its options must then
    /// have their defaults.
    pub chain: Vec<Stage>,
    /// Equal seeds draw equal tokens from equal logits.
    pub seed: u64,
    /// Logits are divided by this, 0 to 2; 0 takes the most probable token always, the lowest id among equals.
    pub temperature: f32,
    /// Tokens below the k-th most probable are dropped; ties with it stay. 0 is off.
    pub top_k: usize,
    /// The most probable tokens that together reach this probability stay (Holtzman et al. 2020), above 0 to 1; 1 is
    /// off. Among equal tokens the lower ids stay.
    pub top_p: f32,
    /// Tokens below this share of the largest probability are dropped (Nguyen et al. 2024), 0 to 1; 0 is off.
    pub min_p: f32,
    /// Locally typical sampling (Meister et al. 2023): the tokens whose `-ln p` is nearest to the entropy and that
    /// together reach this probability stay, above 0 to 1; 1 is off. Ties with the last one stay.
    pub typical_p: f32,
    /// Logits below the largest less this many standard deviations of all logits are dropped (Tang et al. 2024); 0 is
    /// off.
    pub top_n_sigma: f32,
    /// How often the most probable tokens are left out ("exclude top choices"), 0 to 1; 0 is off.
    pub xtc_probability: f32,
    /// Tokens of at least this probability are left out but for the least probable of them, 0 to 1; above 0.5 there
    /// are never two of them.
    pub xtc_threshold: f32,
    /// Strength of DRY ("don't repeat yourself"), in logits; 0 is off. Prompt and output are searched.
    pub dry_multiplier: f32,
    /// How much a repetition's penalty grows with each token, at least 1.
    pub dry_base: f32,
    /// Tokens a repetition may have before its next token is penalized, at least 1.
    pub dry_allowed_length: usize,
    /// How many of the latest tokens are searched; 0 is all.
    pub dry_range: usize,
    /// Tokens that no repetition reaches across.
    pub dry_breakers: Vec<u32>,
    /// Mirostat 2 (Basu et al. 2021) holds the surprise of the text near `mirostat_tau`.
    pub mirostat: bool,
    /// The surprise of a token that mirostat aims at, in bits, above 0.
    pub mirostat_tau: f32,
    /// How fast mirostat follows, above 0 to 1.
    pub mirostat_eta: f32,
    /// Positive logits of tokens in prompt or output are divided by this, negative ones multiplied (Keskar et al.
    /// 2019), above 0 to 100; 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time it stands in the output, -2 to 2; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of each token that stands in the output, -2 to 2; 0 is off.
    pub presence_penalty: f32,
    /// Added to the logits of these ids, each -100 to 100.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Only these ids may come; `None` is all.
    pub allowed_ids: Option<Vec<u32>>,
    /// These ids never come.
    pub banned_ids: Vec<u32>,
    /// No token that ends the text comes before so many others, unless a grammar leaves nothing else.
    pub min_tokens: usize,
    /// The model's end-of-text tokens do not end the text.
    pub ignore_eos: bool,
    /// Tokens that end the text beside the model's own.
    pub stop_ids: Vec<u32>,
    /// How many of the most probable tokens are reported with each chosen one.
    pub top_log_probs: usize,
}

impl Default for SamplingOptions {
    fn default() -> SamplingOptions {
        SamplingOptions {
            chain: Stage::ALL.to_vec(),
            seed: 0,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_range: 0,
            dry_breakers: Vec::new(),
            mirostat: false,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            allowed_ids: None,
            banned_ids: Vec::new(),
            min_tokens: 0,
            ignore_eos: false,
            stop_ids: Vec::new(),
            top_log_probs: 0,
        }
    }
}

impl SamplingOptions {
    /// The most probable token, always.
    pub fn greedy() -> SamplingOptions {
        SamplingOptions { temperature: 0.0, ..SamplingOptions::default() }
    }

    /// The options of one of several samples of a request: the seed of sample 0 is the request's.
    pub fn for_sample(&self, sample: usize) -> SamplingOptions {
        let seed = match sample {
            0 => self.seed,
            _ => rng(self.seed, sample as u64, "sample of a request").next_u64(),
        };
        SamplingOptions { seed, ..self.clone() }
    }

    /// Whether every value is in its range, and read by a stage of the chain.
    ///
    /// # Errors
    /// [`SamplerError::Option`], [`SamplerError::Repeated`] or [`SamplerError::NotInChain`] for the leading value that
    /// is wrong.
    pub fn check(&self) -> Result<(), SamplerError> {
        self.check_filters()?;
        self.check_penalties()?;
        self.check_chain()
    }

    fn check_filters(&self) -> Result<(), SamplerError> {
        within("temperature", self.temperature, 0.0..=2.0, "a number from 0 to 2")?;
        share("top_p", self.top_p)?;
        within("min_p", self.min_p, 0.0..=1.0, "a number from 0 to 1")?;
        share("typical_p", self.typical_p)?;
        within("top_n_sigma", self.top_n_sigma, 0.0..=1000.0, "a number from 0 to 1000")?;
        within("xtc_probability", self.xtc_probability, 0.0..=1.0, "a number from 0 to 1")?;
        within("xtc_threshold", self.xtc_threshold, 0.0..=1.0, "a number from 0 to 1")?;
        if !(self.mirostat_tau > 0.0 && self.mirostat_tau <= 100.0) {
            return outside("mirostat_tau", self.mirostat_tau, "a number above 0 and at most 100");
        }
        share("mirostat_eta", self.mirostat_eta)
    }

    fn check_penalties(&self) -> Result<(), SamplerError> {
        within("dry_multiplier", self.dry_multiplier, 0.0..=1000.0, "a number from 0 to 1000")?;
        within("dry_base", self.dry_base, 1.0..=1000.0, "a number from 1 to 1000")?;
        if self.dry_allowed_length == 0 {
            return outside("dry_allowed_length", 0, "at least 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0) {
            return outside("repetition_penalty", self.repetition_penalty, "a number above 0 and at most 100");
        }
        within("frequency_penalty", self.frequency_penalty, -2.0..=2.0, "a number from -2 to 2")?;
        within("presence_penalty", self.presence_penalty, -2.0..=2.0, "a number from -2 to 2")?;
        for bias in self.logit_bias.values() {
            within("logit_bias", *bias, -100.0..=100.0, "numbers from -100 to 100")?;
        }
        match &self.allowed_ids {
            Some(ids) if ids.is_empty() => outside("allowed_ids", "empty", "at least 1 id"),
            _ => Ok(()),
        }
    }

    fn check_chain(&self) -> Result<(), SamplerError> {
        for (place, stage) in self.chain.iter().enumerate() {
            if self.chain[..place].contains(stage) {
                return Err(SamplerError::Repeated { stage: stage.name() });
            }
        }
        for stage in Stage::ALL.into_iter().filter(|stage| !self.chain.contains(stage)) {
            if let Some((field, value)) = self.reads(stage) {
                return Err(SamplerError::NotInChain { field, value, stage: stage.name() });
            }
        }
        Ok(())
    }

    /// Whether this stage does something under these options.
    pub fn is_active(&self, stage: Stage) -> bool {
        self.reads(stage).is_some()
    }

    /// The leading option of a stage that is not off.
    fn reads(&self, stage: Stage) -> Option<(&'static str, String)> {
        let set = |field, value: f32, off: f32| (value != off).then(|| (field, value.to_string()));
        match stage {
            Stage::LogitBias => {
                (!self.logit_bias.is_empty()).then(|| ("logit_bias", format!("{:?}", self.logit_bias)))
            }
            Stage::Penalties => set("repetition_penalty", self.repetition_penalty, 1.0)
                .or_else(|| set("frequency_penalty", self.frequency_penalty, 0.0))
                .or_else(|| set("presence_penalty", self.presence_penalty, 0.0)),
            Stage::Dry => set("dry_multiplier", self.dry_multiplier, 0.0),
            Stage::Temperature => set("temperature", self.temperature, 1.0),
            Stage::TopNSigma => set("top_n_sigma", self.top_n_sigma, 0.0),
            Stage::TopK => (self.top_k > 0).then(|| ("top_k", self.top_k.to_string())),
            Stage::TopP => set("top_p", self.top_p, 1.0),
            Stage::MinP => set("min_p", self.min_p, 0.0),
            Stage::TypicalP => set("typical_p", self.typical_p, 1.0),
            Stage::Xtc => set("xtc_probability", self.xtc_probability, 0.0),
            Stage::Mirostat => self.mirostat.then(|| ("mirostat", "true".to_owned())),
        }
    }

    /// Whether every id that is named stands in a vocabulary of `vocab_size` tokens.
    ///
    /// # Errors
    /// [`SamplerError::Token`], or [`SamplerError::Option`] for more log-probabilities than there are tokens.
    pub fn check_ids(&self, vocab_size: usize) -> Result<(), SamplerError> {
        let biased: Vec<u32> = self.logit_bias.keys().copied().collect();
        let lists: [(&'static str, &[u32]); 5] = [
            ("logit_bias", &biased),
            ("allowed_ids", self.allowed_ids.as_deref().unwrap_or_default()),
            ("banned_ids", &self.banned_ids),
            ("stop_ids", &self.stop_ids),
            ("dry_breakers", &self.dry_breakers),
        ];
        for (field, ids) in lists {
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
                return Err(SamplerError::Token { field, id, vocab_size });
            }
        }
        match self.top_log_probs > vocab_size {
            true => outside("top_log_probs", self.top_log_probs, "at most the size of the vocabulary"),
            false => Ok(()),
        }
    }
}

fn outside(field: &'static str, value: impl fmt::Display, range: &'static str) -> Result<(), SamplerError> {
    Err(SamplerError::Option { field, value: value.to_string(), range })
}

fn within(
    field: &'static str,
    value: f32,
    range: std::ops::RangeInclusive<f32>,
    words: &'static str,
) -> Result<(), SamplerError> {
    match range.contains(&value) {
        true => Ok(()),
        false => outside(field, value, words),
    }
}

fn share(field: &'static str, value: f32) -> Result<(), SamplerError> {
    match value > 0.0 && value <= 1.0 {
        true => Ok(()),
        false => outside(field, value, "a number above 0 and at most 1"),
    }
}
