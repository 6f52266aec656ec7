//! `[data]`: the rows trained on

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[data]`: where rows come from and what becomes of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecipe {
    /// `corpus` (questions about the embedded stories), a `.jsonl`, `.json`, `.jsonl.gz` or Parquet file, a folder of
    /// them, or a dataset of the hub (`hf:owner/name`).
    pub source: String,
    /// What the rows are, instead of what their opening rows look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Which tokens are trained: `assistant`, `completion`, `last-turn` or `all`; default by format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// A chat template file, or a built-in one (`chatml`, `alpaca`, `plain`), instead of the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Put several short rows into one, blind to each other; for `sft`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing: Option<bool>,
    /// What becomes of rows longer than the context: `end`, `drop` or `prompt-left`; default by objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<String>,
    /// Share of the rows held out for validation, in [0, 1).
    #[serde(default = "default_validation_fraction")]
    pub validation_fraction: f64,
    /// Held-out rows from a source of their own, instead of a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// Rows made of the embedded corpus; default 4,000, for source `corpus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corpus_rows: Option<u64>,
}

/// The name of the embedded corpus among sources.
pub const CORPUS: &str = "corpus";
/// Rows of the embedded corpus where the recipe does not say.
pub const CORPUS_ROWS: u64 = 4_000;

fn default_validation_fraction() -> f64 {
    0.1
}
