//! `[optimizer]`: which rule updates the parameters, and its numbers

use serde::{Deserialize, Serialize};

use super::check::{no_effect, number, within};
use super::{Precision, RecipeCheckError};

/// `[optimizer]`: the rule of the updates. Weight decay is decoupled and on matrices alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// The rule.
    #[serde(default)]
    pub kind: OptimizerKind,
    /// Peak learning rate; of every group but Muon's.
    pub lr: f64,
    /// Decay of the mean of gradients; for Lion, its share in the direction of an update.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the mean of squared gradients; for Lion, of the mean of gradients. Default 0.95, for Lion 0.99.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// Added to the root of the squared-gradient mean; default 1e-8, not for Lion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Decoupled weight decay, times the learning rate of the group, each step.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Greatest global gradient norm; 0 turns clipping off.
    #[serde(default = "default_clip_norm")]
    pub clip_norm: f64,
    /// Peak learning rate of Muon's matrices; default 0.02, or `lr` where `adjust_lr_fn` makes the two alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon_lr: Option<f64>,
    /// Decay of Muon's momentum; default 0.95.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Whether Muon looks ahead along its momentum; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Rounds of Muon's Newton-Schulz iteration; default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_steps: Option<u32>,
    /// Dtype of the products of that iteration; default f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns_precision: Option<NewtonSchulzPrecision>,
    /// How Muon's rate depends on the shape of a matrix; default `original`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adjust_lr_fn: Option<AdjustLr>,
}

/// Rule of the updates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW (Loshchilov and Hutter, arXiv:1711.05101).
    #[default]
    AdamW,
    /// Muon (Jordan et al. 2024) for hidden matrices, AdamW for everything else.
    Muon,
    /// Lion (Chen et al., arXiv:2302.06675).
    Lion,
}

/// How the rate of Muon depends on the shape of a matrix of A outputs and B inputs; torch's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustLr {
    /// Times `sqrt(max(1, A / B))` (Jordan).
    #[default]
    Original,
    /// Times `0.2 sqrt(max(A, B))`, which gives the size of AdamW's updates (Moonshot, arXiv:2502.16982).
    MatchRmsAdamw,
}

/// Dtype of the products of the Newton-Schulz iteration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NewtonSchulzPrecision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16, as torch has it.
    Bf16,
}

impl OptimizerRecipe {
    /// A rule with every other key at its default.
    pub fn new(kind: OptimizerKind, lr: f64) -> Self {
        Self {
            kind,
            lr,
            beta1: default_beta1(),
            beta2: None,
            eps: None,
            weight_decay: default_weight_decay(),
            clip_norm: default_clip_norm(),
            muon_lr: None,
            momentum: None,
            nesterov: None,
            ns_steps: None,
            ns_precision: None,
            adjust_lr_fn: None,
        }
    }

    /// `beta2` or its default for this rule.
    pub fn beta2(&self) -> f64 {
        self.beta2.unwrap_or(if self.kind == OptimizerKind::Lion { 0.99 } else { 0.95 })
    }

    /// `eps` or its default.
    pub fn eps(&self) -> f64 {
        self.eps.unwrap_or(1e-8)
    }

    /// `muon_lr` or its default.
    pub fn muon_lr(&self) -> f64 {
        self.muon_lr.unwrap_or(match self.adjust_lr_fn() {
            AdjustLr::Original => 0.02,
            AdjustLr::MatchRmsAdamw => self.lr,
        })
    }

    /// `momentum` or its default.
    pub fn momentum(&self) -> f64 {
        self.momentum.unwrap_or(0.95)
    }

    /// `nesterov` or its default.
    pub fn nesterov(&self) -> bool {
        self.nesterov.unwrap_or(true)
    }

    /// `ns_steps` or its default.
    pub fn ns_steps(&self) -> u32 {
        self.ns_steps.unwrap_or(5)
    }

    /// `ns_precision` or its default.
    pub fn ns_precision(&self) -> NewtonSchulzPrecision {
        self.ns_precision.unwrap_or_default()
    }

    /// `adjust_lr_fn` or its default.
    pub fn adjust_lr_fn(&self) -> AdjustLr {
        self.adjust_lr_fn.unwrap_or_default()
    }

    /// The same with the defaults of its rule written out.
    pub(super) fn resolved(&self) -> Self {
        let mut full = self.clone();
        full.beta2 = Some(self.beta2());
        full.eps = (self.kind != OptimizerKind::Lion).then(|| self.eps());
        if self.kind == OptimizerKind::Muon {
            full.muon_lr = Some(self.muon_lr());
            full.momentum = Some(self.momentum());
            full.nesterov = Some(self.nesterov());
            full.ns_steps = Some(self.ns_steps());
            full.ns_precision = Some(self.ns_precision());
            full.adjust_lr_fn = Some(self.adjust_lr_fn());
        }
        full
    }

    pub(super) fn check(&self) -> Result<(), RecipeCheckError> {
        let (share, rate) = ("a number from 0 to below 1", "a number above 0 and at most 1");
        let is_share = |x: f64| (0.0..1.0).contains(&x);
        let is_rate = |x: f64| x > 0.0 && x <= 1.0;
        number("optimizer.lr", self.lr, rate, is_rate)?;
        number("optimizer.beta1", self.beta1, share, is_share)?;
        number("optimizer.beta2", self.beta2(), share, is_share)?;
        number("optimizer.eps", self.eps(), rate, is_rate)?;
        let decay = self.weight_decay;
        number("optimizer.weight_decay", decay, "a number from 0 to 10", |x| (0.0..=10.0).contains(&x))?;
        number("optimizer.clip_norm", self.clip_norm, "a number of at least 0", |x| x >= 0.0)?;
        self.refuse_without_effect()?;
        number("optimizer.muon_lr", self.muon_lr(), rate, is_rate)?;
        number("optimizer.momentum", self.momentum(), share, is_share)?;
        within("optimizer.ns_steps", self.ns_steps(), 1..=GREATEST_NS_STEPS)
    }

    fn refuse_without_effect(&self) -> Result<(), RecipeCheckError> {
        if self.kind == OptimizerKind::Lion {
            no_effect("optimizer.eps", self.eps.is_some(), "`optimizer.kind` is `lion`")?;
        }
        if self.kind == OptimizerKind::Muon {
            return Ok(());
        }
        let given = [
            ("optimizer.muon_lr", self.muon_lr.is_some()),
            ("optimizer.momentum", self.momentum.is_some()),
            ("optimizer.nesterov", self.nesterov.is_some()),
            ("optimizer.ns_steps", self.ns_steps.is_some()),
            ("optimizer.ns_precision", self.ns_precision.is_some()),
            ("optimizer.adjust_lr_fn", self.adjust_lr_fn.is_some()),
        ];
        given
            .into_iter()
            .try_for_each(|(key, is_given)| no_effect(key, is_given, "`optimizer.kind` is not `muon`"))
    }
}

impl NewtonSchulzPrecision {
    /// The same among the precisions of a run.
    pub(crate) fn precision(self) -> Precision {
        match self {
            NewtonSchulzPrecision::F32 => Precision::F32,
            NewtonSchulzPrecision::Bf16 => Precision::Bf16,
        }
    }
}

/// torch allows fewer than 100; the iteration has long stopped moving by then.
const GREATEST_NS_STEPS: u32 = 99;

fn default_beta1() -> f64 {
    0.9
}

fn default_weight_decay() -> f64 {
    0.1
}

fn default_clip_norm() -> f64 {
    1.0
}
