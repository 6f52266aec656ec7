//! What an adapter is: the settings of PEFT's `LoraConfig` that Fornax computes with.

use fancy_regex::Regex;

use super::AdapterError;
use super::targets::{compiled, matches_fully};

/// Largest rank that is accepted: beyond it an adapter is larger than the matrices it adapts.
pub const MAX_RANK: usize = 65_536;

/// A low-rank adapter: LoRA (Hu et al. 2021, arXiv:2106.09685), rsLoRA (Kalajdzievski 2023, arXiv:2312.03732) or DoRA
/// (Liu et al. 2024, arXiv:2402.09353). Names and rules are those of PEFT.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Rows of A and columns of B (`r`).
    pub rank: usize,
    /// Numerator of the factor of the product (`lora_alpha`).
    pub alpha: f64,
    /// Share of the adapter's inputs that is zeroed in training (`lora_dropout`).
    pub dropout: f64,
    /// The factor is `alpha / sqrt(rank)` instead of `alpha / rank` (`use_rslora`).
    pub rslora: bool,
    /// Weights have a magnitude for each output that is learned apart (`use_dora`).
    pub dora: bool,
    /// Modules with a low-rank adapter (`target_modules`).
    pub targets: Targets,
    /// Modules without one, asked before `targets` (`exclude_modules`).
    pub exclude: Option<Targets>,
    /// Numbers of the layers to adapt; `None` for all. Only with [`Targets::Names`].
    pub layers_to_transform: Option<Vec<usize>>,
    /// Names before the layer's number, `["layers"]` for our models; empty for any.
    pub layers_pattern: Vec<String>,
    /// Other ranks for modules whose name ends in a match; the earliest match counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Other alphas, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Modules trained whole, as copies of their own: names end in one of these.
    pub modules_to_save: Vec<String>,
    /// How a new adapter begins.
    pub init: Init,
    /// The model it was made for; kept, never read.
    pub base_model: Option<String>,
    /// The revision of that model; kept, never read.
    pub revision: Option<String>,
}

/// Which modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every linear layer but the output head.
    AllLinear,
    /// Whole names of modules, or the ends of names behind a dot.
    Names(Vec<String>),
    /// Names that this regular expression matches in full.
    Regex(String),
}

/// How A of a new adapter is drawn; B is zero, so that the adapter changes nothing at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Uniform in ±1/sqrt(in): PEFT's default (`init_lora_weights = true`, `kaiming_uniform_(a = sqrt(5))`).
    Kaiming,
    /// Normal with deviation 1/rank (`"gaussian"`).
    Gaussian,
}

impl AdapterConfig {
    /// LoRA of `rank` on `targets` with the factor `alpha / rank` and PEFT's defaults for the rest.
    pub fn lora(rank: usize, alpha: f64, targets: Targets) -> Self {
        Self {
            rank,
            alpha,
            dropout: 0.0,
            rslora: false,
            dora: false,
            targets,
            exclude: None,
            layers_to_transform: None,
            layers_pattern: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            init: Init::Kaiming,
            base_model: None,
            revision: None,
        }
    }

    /// Checks the settings by themselves.
    ///
    /// # Errors
    /// [`AdapterError::Setting`].
    pub fn check(&self) -> Result<(), AdapterError> {
        let refused = |key, message: String| Err(AdapterError::Setting { key, message });
        let ranks = self.rank_pattern.iter().map(|(_, rank)| ("rank_pattern", *rank));
        for (key, rank) in [("r", self.rank)].into_iter().chain(ranks) {
            if rank == 0 || rank > MAX_RANK {
                return refused(key, format!("a rank is between 1 and {MAX_RANK}, not {rank}"));
            }
        }
        let alphas = self.alpha_pattern.iter().map(|(_, alpha)| ("alpha_pattern", *alpha));
        for (key, alpha) in [("lora_alpha", self.alpha)].into_iter().chain(alphas) {
            if !(alpha.is_finite() && alpha > 0.0) {
                return refused(key, format!("alpha is a number above 0, not {alpha}"));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refused("lora_dropout", format!("a share from 0 and below 1, not {}", self.dropout));
        }
        let names = matches!(self.targets, Targets::Names(_));
        if self.layers_to_transform.is_some() && !names {
            return refused("layers_to_transform", "can stand only beside a list of target_modules".into());
        }
        if !self.layers_pattern.is_empty() && self.layers_to_transform.is_none() {
            return refused("layers_pattern", "needs layers_to_transform beside it".into());
        }
        Ok(())
    }

    /// The rank of a module's adapter, by its name.
    pub(crate) fn rank_of(&self, module: &str) -> Result<usize, AdapterError> {
        Ok(of_pattern("rank_pattern", &self.rank_pattern, module)?.unwrap_or(self.rank))
    }

    /// What the product of A and B is multiplied by in a module whose adapter has this rank.
    pub(crate) fn scale_of(&self, module: &str, rank: usize) -> Result<f64, AdapterError> {
        let alpha = of_pattern("alpha_pattern", &self.alpha_pattern, module)?.unwrap_or(self.alpha);
        Ok(if self.rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 })
    }
}

/// PEFT's `get_pattern_key`: `(.*\.)?(key)$`, matched from the name's start.
fn of_pattern<T: Copy>(key: &'static str, all: &[(String, T)], module: &str) -> Result<Option<T>, AdapterError> {
    for (pattern, value) in all {
        let regex: Regex = compiled(key, &format!("(.*\\.)?({pattern})"))?;
        if matches_fully(key, &regex, module)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}
