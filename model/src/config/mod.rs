//! What a model is: its shape and the few switches in which the supported families differ.

mod hf;
mod keys;

use burn::tensor::DType;

use crate::rope::RopeScaling;

/// Largest accepted size of any dimension; kernels index with 32 bits.
pub const MAX_DIMENSION: u64 = i32::MAX as u64;
/// Largest accepted number of layers.
pub const MAX_LAYERS: u64 = 4096;

/// Key of the logit softcap in `config.json`, as transformers' Gemma 2 names it.
pub(crate) const SOFTCAP: &str = "final_logit_softcapping";

/// The `model_type` a configuration is read from and written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, TinyLlama, SmolLM2, and every model trained here from a recipe.
    Llama,
    /// Mistral, with an optional sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on query, key and value.
    Qwen2,
    /// Qwen3: query and key normalized per head, explicit head width.
    Qwen3,
}

impl Family {
    /// All families, in the order messages list them.
    pub const ALL: [Family; 4] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3];

    /// transformers' `model_type`.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
        }
    }

    /// transformers' class for `architectures`.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Mistral => "MistralForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The same for a reward model.
    pub fn reward_architecture(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForSequenceClassification",
            Family::Mistral => "MistralForSequenceClassification",
            Family::Qwen2 => "Qwen2ForSequenceClassification",
            Family::Qwen3 => "Qwen3ForSequenceClassification",
        }
    }
}

/// The complete description of a decoder; everything the numbers depend on besides the weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which family's names and switches apply.
    pub family: Family,
    /// Rows of the embedding table and of the head.
    pub vocab_size: usize,
    /// Channels of the residual stream (`hidden_size`).
    pub width: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key-value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Channels of one head; even.
    pub head_dim: usize,
    /// Channels inside the feed-forward block (`intermediate_size`).
    pub ffn_width: usize,
    /// Longest sequence in tokens (`max_position_embeddings`).
    pub context: usize,
    /// Added to the mean square in every normalization.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched for long contexts.
    pub rope_scaling: RopeScaling,
    /// Whether the head is the embedding table.
    pub tied: bool,
    /// The model ends in one number for a text (`...ForSequenceClassification` of one label) and has no language
    /// model's head; `tied` is false then.
    pub reward: bool,
    /// Bias on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention output projection.
    pub output_bias: bool,
    /// Biases in the feed-forward block.
    pub mlp_bias: bool,
    /// Per-head normalization of queries and keys (Qwen3).
    pub qk_norm: bool,
    /// Logits become `cap * tanh(logits / cap)` (`final_logit_softcapping`, as in Gemma 2); `None` leaves
    /// them as they are. transformers reads this key in no family of [`Family`].
    pub logit_softcap: Option<f64>,
    /// Sliding window of each layer in tokens; `None` sees everything.
    pub windows: Vec<Option<usize>>,
    /// Standard deviation of initial weights (`initializer_range`).
    pub init_std: f64,
    /// Begin-of-sequence token.
    pub bos_id: Option<u32>,
    /// Tokens that end a sequence.
    pub eos_ids: Vec<u32>,
    /// Padding token.
    pub pad_id: Option<u32>,
    /// Dtype the weights are stored in.
    pub dtype: DType,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a field of the wrong type.
    #[error("the model configuration is not valid at `{key}`: {message}")]
    Json {
        /// Dotted path of the field.
        key: String,
        /// What was expected and found.
        message: String,
    },
    /// A required field is absent.
    #[error("the model configuration has no `{key}`")]
    Missing {
        /// Name of the field.
        key: &'static str,
    },
    /// A value that would change the numbers in a way this program does not implement.
    #[error("the model configuration asks for {key} = {value}, which is not supported (supported: {supported})")]
    Unsupported {
        /// Name of the field.
        key: String,
        /// Its value.
        value: String,
        /// What could stand there.
        supported: String,
    },
    /// A number outside its range.
    #[error("the model configuration has {key} = {value}, expected {expected}")]
    OutOfRange {
        /// Name of the field.
        key: String,
        /// Its value.
        value: String,
        /// The range.
        expected: String,
    },
}

impl ModelConfig {
    /// A Llama of `n_layers` layers with every switch at its plainest: tied, no biases, no scaling, no
    /// window, theta 10,000. The sizes are 0, to be filled in.
    pub fn llama(n_layers: usize) -> Self {
        Self {
            family: Family::Llama,
            vocab_size: 0,
            width: 0,
            n_layers,
            n_heads: 0,
            n_kv_heads: 0,
            head_dim: 0,
            ffn_width: 0,
            context: 0,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            tied: true,
            reward: false,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            logit_softcap: None,
            windows: vec![None; n_layers],
            init_std: 0.02,
            bos_id: None,
            eos_ids: Vec::new(),
            pad_id: None,
            dtype: DType::F32,
        }
    }

    /// Reads a Hugging Face `config.json`. Unknown fields are ignored, as transformers does; a field known
    /// to change the numbers in a way not implemented here is an error that lists what is supported.
    pub fn from_hf_json(text: &str) -> Result<Self, ConfigError> {
        hf::read(text)
    }

    /// Writes the fields of a Hugging Face `config.json`, readable by transformers 4 and 5: rotary settings
    /// stand both as `rope_theta`/`rope_scaling` and as `rope_parameters`, the dtype under both its names.
    pub fn to_hf_json(&self) -> String {
        hf::write(self)
    }

    /// Writes the fields of a Hugging Face `generation_config.json`: the special tokens.
    pub fn to_generation_json(&self) -> String {
        hf::write_generation(self)
    }

    /// Checks ranges and that the numbers fit each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.width),
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("intermediate_size", self.ffn_width),
            ("max_position_embeddings", self.context),
        ];
        for (key, value) in sizes {
            in_range(key, value as u64, 1, MAX_DIMENSION)?;
        }
        in_range("num_hidden_layers", self.n_layers as u64, 1, MAX_LAYERS)?;
        in_range("num_attention_heads * head_dim", self.attention_width() as u64, 1, MAX_DIMENSION)?;
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(ConfigError::OutOfRange {
                key: "num_key_value_heads".into(),
                value: self.n_kv_heads.to_string(),
                expected: format!("a divisor of num_attention_heads ({})", self.n_heads),
            });
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::OutOfRange {
                key: "head_dim".into(),
                value: self.head_dim.to_string(),
                expected: "an even number, since rotary embedding turns pairs".into(),
            });
        }
        if self.windows.len() != self.n_layers {
            return Err(ConfigError::OutOfRange {
                key: "layer_types".into(),
                value: format!("{} entries", self.windows.len()),
                expected: format!("one for each of num_hidden_layers ({})", self.n_layers),
            });
        }
        positive("rms_norm_eps", self.norm_eps)?;
        positive("rope_theta", self.rope_theta)?;
        positive("initializer_range", self.init_std)?;
        if let Some(cap) = self.logit_softcap {
            positive(SOFTCAP, cap)?;
        }
        self.rope_scaling.check(self.rope_theta)?;
        for (key, id) in self.special_ids() {
            in_range(key, id as u64, 0, self.vocab_size as u64 - 1)?;
        }
        self.checked_parameters().map(|_| ())
    }

    /// What transformers will compute differently from this program, where there is something.
    pub fn transformers_differs(&self) -> Option<String> {
        let cap = self.logit_softcap?;
        Some(format!(
            "{SOFTCAP} = {cap} is ignored by transformers for the model type `{}`: greedy tokens are the same \
             there, probabilities and losses are not",
            self.family.model_type()
        ))
    }

    fn special_ids(&self) -> impl Iterator<Item = (&'static str, u32)> + '_ {
        let bos = self.bos_id.map(|id| ("bos_token_id", id));
        let pad = self.pad_id.map(|id| ("pad_token_id", id));
        bos.into_iter().chain(pad).chain(self.eos_ids.iter().map(|&id| ("eos_token_id", id)))
    }

    /// Channels of all query heads together.
    pub fn attention_width(&self) -> usize {
        self.n_heads.saturating_mul(self.head_dim)
    }

    /// Channels of all key heads together.
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads.saturating_mul(self.head_dim)
    }

    /// Number of parameters. Call on a checked configuration.
    pub fn n_parameters(&self) -> u64 {
        self.checked_parameters().unwrap_or(u64::MAX)
    }

    /// Floating-point operations per token of one training step: 6 per weight of a matrix product and
    /// 12 per attended channel (Chowdhery et al. 2022, appendix B), at sequences of `context` tokens.
    pub fn training_flops_per_token(&self, context: usize) -> f64 {
        let (c, a, k, f) =
            (self.width as f64, self.attention_width() as f64, self.kv_width() as f64, self.ffn_width as f64);
        let outputs = if self.reward { 1 } else { self.vocab_size };
        let matrices = self.n_layers as f64 * (2.0 * c * a + 2.0 * c * k + 3.0 * c * f) + c * outputs as f64;
        let attended: f64 = self.windows.iter().map(|w| w.map_or(context, |w| w.min(context)) as f64 * a).sum();
        6.0 * matrices + 12.0 * attended
    }

    fn checked_parameters(&self) -> Result<u64, ConfigError> {
        let shapes = crate::decoder::parameter_shapes(self, self.n_layers.min(1));
        let per_model = |blocks: bool| {
            shapes.iter().filter(|(name, _)| name.starts_with("model.layers.") == blocks).try_fold(
                0u64,
                |sum, (_, shape)| {
                    let n = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
                    sum.checked_add(n)
                },
            )
        };
        per_model(true)
            .and_then(|block| block.checked_mul(self.n_layers as u64))
            .and_then(|blocks| blocks.checked_add(per_model(false)?))
            .filter(|&n| n < 1 << 50)
            .ok_or_else(|| ConfigError::OutOfRange {
                key: "the number of parameters".into(),
                value: "more than 2^50".into(),
                expected: "at most 2^50".into(),
            })
    }
}

fn in_range(key: &str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let (key, value) = (key.to_string(), value.to_string());
    Err(ConfigError::OutOfRange { key, value, expected: format!("{low} to {high}") })
}

/// Single precision is what the number is used in, so it must be positive and finite there.
pub(crate) fn positive(key: &str, value: f64) -> Result<(), ConfigError> {
    if (value as f32).is_finite() && (value as f32) > 0.0 {
        return Ok(());
    }
    let (key, value) = (key.to_string(), value.to_string());
    Err(ConfigError::OutOfRange { key, value, expected: "a positive finite number".into() })
}

/// A stranger's name or value for an error message: one short line without control characters.
pub(crate) fn shown(text: &str) -> String {
    clipped(text, 200)
}

/// A text that may hold a stranger's, in one line of at most so many characters, none of them control.
pub(crate) fn clipped(text: &str, longest: usize) -> String {
    let mut visible = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = visible.by_ref().take(longest).collect();
    if visible.next().is_some() {
        short += " ...";
    }
    short
}
