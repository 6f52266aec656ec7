//! `[data]`: the rows trained on

use std::collections::BTreeMap;

use fornax_data::formats::Format;
use fornax_data::rendering::Mask;
use fornax_data::truncation::Truncate;
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
    pub format: Option<Format>,
    /// Names of fields in the source, by the names that formats give them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// Pass over rows that cannot be used, and count them, instead of stopping at the foremost.
    #[serde(default)]
    pub skip_bad_rows: bool,
    /// Which tokens are trained; default by format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
    /// A chat template file, or a built-in one (`chatml`, `alpaca`, `plain`), instead of the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Put several short rows into one, blind to each other; for `sft`; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing: Option<bool>,
    /// What becomes of rows longer than the context; default `end`, for prompts and preferences `prompt-left`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<Truncate>,
    /// Share of the rows held out for validation, in [0, 1).
    #[serde(default = "default_validation_fraction")]
    pub validation_fraction: f64,
    /// Held-out rows from a source of their own, instead of a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<String>,
    /// Rows read at most; of the embedded corpus rows made, 4,000 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// The name of the embedded corpus among sources.
pub const CORPUS: &str = "corpus";
/// Rows of the embedded corpus where the recipe does not say.
pub const CORPUS_ROWS: u64 = 4_000;

fn default_validation_fraction() -> f64 {
    0.1
}
