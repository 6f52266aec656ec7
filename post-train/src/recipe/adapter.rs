//! `[adapter]`: a low-rank adapter, in PEFT's words

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[adapter]`: what learns instead of the whole model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdapterRecipe {
    /// Rank.
    pub r: usize,
    /// The product of the two matrices is scaled by `alpha / r`; default twice the rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Share of the adapter's inputs that is zeroed while training.
    pub dropout: f64,
    /// Scale by `alpha / sqrt(r)` (rsLoRA, arXiv:2312.03732).
    pub rslora: bool,
    /// Learn the magnitude of each output apart (DoRA, arXiv:2402.09353).
    pub dora: bool,
    /// `"all-linear"`, a list of names of modules, or a regular expression.
    pub targets: TargetsRecipe,
    /// Modules left out, as a list of names or a regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<TargetsRecipe>,
    /// Numbers of the layers to adapt; default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Modules that are trained whole and saved with the adapter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules_to_save: Vec<String>,
    /// How the opening matrix begins.
    pub init: InitRecipe,
    /// An adapter folder to go on from; it brings all the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// Other ranks by the end of a module's name.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub rank_pattern: std::collections::BTreeMap<String, usize>,
    /// Other alphas by the end of a module's name.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub alpha_pattern: std::collections::BTreeMap<String, f64>,
}

/// Which modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetsRecipe {
    /// `"all-linear"` or a regular expression that a module's whole name must match.
    Word(String),
    /// Names of modules, whole or their last parts.
    Names(Vec<String>),
}

/// How the opening matrix of a new adapter begins; the other one is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitRecipe {
    /// Uniform in 1 / sqrt(in), PEFT's default.
    #[default]
    Kaiming,
    /// Normal with deviation 1 / r.
    Gaussian,
}

impl AdapterRecipe {
    /// `alpha` or its default.
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(2.0 * self.r as f64)
    }
}

impl Default for AdapterRecipe {
    fn default() -> Self {
        Self {
            r: 16,
            alpha: None,
            dropout: 0.0,
            rslora: false,
            dora: false,
            targets: TargetsRecipe::Word("all-linear".to_owned()),
            exclude: None,
            layers_to_transform: None,
            modules_to_save: Vec::new(),
            init: InitRecipe::Kaiming,
            from: None,
            rank_pattern: Default::default(),
            alpha_pattern: Default::default(),
        }
    }
}
