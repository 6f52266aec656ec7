//! `[model]`, `[train]`, `[optimizer]` and `[eval]` of post-training

use serde::{Deserialize, Serialize};

use fornax_model::packed::{Codes, PackedError, Packing};
use fornax_train::recipe::{EvalRecipe, OptimizerKind, OptimizerRecipe, Precision, StepsRecipe};

/// The steps of a run whose length is not known yet.
pub(crate) const UNKNOWN_STEPS: u64 = 1_000_000_000_000;
/// torch's, which TRL keeps.
pub(super) const BETA2: f64 = 0.999;

/// `[model]`: what is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRecipe {
    /// A model folder, a run folder, or a model of the hub (`hf:owner/name`).
    pub base: String,
    /// Pack the frozen base to `int8`, `int4` or `nf4` (QLoRA); only with `[adapter]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<String>,
    /// Weights that share a scale in a packed base; default 32, 64 for `nf4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
}

impl BaseRecipe {
    /// How the base is packed, where it is.
    ///
    /// # Errors
    /// For an unknown word and for a block that cannot be.
    pub fn packing(&self) -> Result<Option<Packing>, PackedError> {
        packing_of(self.packed.as_deref(), self.block)
    }
}

/// How a model is packed by the words of a recipe: `packed`, and `block` or the usual one of the codes.
pub(crate) fn packing_of(packed: Option<&str>, block: Option<usize>) -> Result<Option<Packing>, PackedError> {
    let Some(word) = packed else { return Ok(None) };
    let codes: Codes = word.parse()?;
    Packing::new(codes, block.unwrap_or(codes.default_block())).map(Some)
}

/// `[train]`: length and size of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneSteps {
    /// Optimizer steps of the whole run; either this or `epochs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Passes over the rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Tokens in one row at most.
    pub context: usize,
    /// Rows in one optimizer step: sequences, packed or not, or pairs.
    pub batch: usize,
    /// Rows in one forward pass; divides `batch`; default `batch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Compute precision of the projections; what learns stays f32.
    #[serde(default)]
    pub precision: Precision,
    /// Keep the input of each block alone and run the blocks again in backward.
    #[serde(default)]
    pub activation_checkpointing: bool,
}

impl TuneSteps {
    /// Rows in one forward pass.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch.unwrap_or(self.batch)
    }

    pub(super) fn steps_recipe(&self) -> StepsRecipe {
        StepsRecipe {
            steps: self.steps.unwrap_or(UNKNOWN_STEPS),
            context: self.context,
            batch: self.batch,
            micro_batch: self.micro_batch,
            precision: self.precision,
            z_loss: 0.0,
            activation_checkpointing: self.activation_checkpointing,
        }
    }
}

/// `[optimizer]`: the rule of the updates, with TRL's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TuneOptimizer {
    /// The rule.
    pub kind: OptimizerKind,
    /// Peak learning rate; default by objective, ten times as high for an adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients; default 0.999.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// Decoupled weight decay; default 0.
    pub weight_decay: f64,
    /// Greatest global gradient norm; 0 turns clipping off.
    pub clip_norm: f64,
}

impl Default for TuneOptimizer {
    fn default() -> Self {
        Self { kind: OptimizerKind::AdamW, lr: None, beta1: 0.9, beta2: None, weight_decay: 0.0, clip_norm: 1.0 }
    }
}

impl TuneOptimizer {
    pub(super) fn recipe(&self, default_lr: f64) -> OptimizerRecipe {
        OptimizerRecipe {
            beta1: self.beta1,
            beta2: Some(self.beta2.unwrap_or(BETA2)),
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm,
            ..OptimizerRecipe::new(self.kind, self.lr.unwrap_or(default_lr))
        }
    }
}

/// `[eval]`: validation and samples while training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TuneEval {
    /// Steps between validations; 0 turns them off.
    pub every: u64,
    /// Held-out rows measured at most.
    pub rows: usize,
    /// Steps between samples; 0 turns them off.
    pub sample_every: u64,
    /// Tokens generated for each prompt.
    pub sample_tokens: usize,
    /// Fixed prompts answered; each is the user's message where the model has a chat template.
    pub prompts: Vec<String>,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
}

impl Default for TuneEval {
    fn default() -> Self {
        Self { every: 100, rows: 200, sample_every: 0, sample_tokens: 64, prompts: Vec::new(), temperature: 0.0 }
    }
}

impl TuneEval {
    pub(super) fn recipe(&self) -> EvalRecipe {
        EvalRecipe {
            every: self.every,
            // Of text that is cut anywhere; rows are measured whole.
            tokens: 0,
            sample_every: self.sample_every,
            sample_tokens: self.sample_tokens,
            prompts: self.prompts.clone(),
            temperature: self.temperature,
        }
    }
}
