//! Hugging Face's `config.json`, both ways. The wire names live here and nowhere else.

use burn::tensor::DType;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ConfigError, Family, MAX_LAYERS, ModelConfig, clipped, keys, shown};
use crate::rope::RopeScaling;

/// The fields that are read. Everything optional: what is required depends on the family.
#[derive(Debug, Deserialize)]
struct HfConfig {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    id2label: Option<Map<String, Value>>,
    vocab_size: Option<u64>,
    hidden_size: Option<u64>,
    intermediate_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    max_position_embeddings: Option<u64>,
    original_max_position_embeddings: Option<f64>,
    rms_norm_eps: Option<f64>,
    initializer_range: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    final_logit_softcapping: Option<f64>,
    sliding_window: Option<u64>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<u64>,
    layer_types: Option<Vec<String>>,
    bos_token_id: Option<Value>,
    eos_token_id: Option<Value>,
    pad_token_id: Option<Value>,
    torch_dtype: Option<String>,
    dtype: Option<String>,
}

/// Fields that change the numbers wherever they hold something else than the value given here.
const MUST_BE: &[(&str, &[&str])] = &[
    ("hidden_act", &["silu", "swish"]),
    ("partial_rotary_factor", &["1", "1.0"]),
    ("attn_logit_softcapping", &[]),
    ("logit_scale", &["1", "1.0"]),
    ("logits_scaling", &["1", "1.0"]),
    ("residual_multiplier", &["1", "1.0"]),
    ("embedding_multiplier", &["1", "1.0"]),
    ("attention_multiplier", &[]),
    ("clip_qkv", &[]),
    ("num_local_experts", &["0"]),
    ("num_experts", &["0"]),
    ("quantization_config", &[]),
    ("auto_map", &[]),
    ("no_rope_layers", &["[]"]),
    ("use_bidirectional_attention", &["false"]),
];

pub(super) fn read(text: &str) -> Result<ModelConfig, ConfigError> {
    let raw: Value = serde_json::from_str(text).map_err(|e| json_error("(whole file)", &e))?;
    let object = raw.as_object().ok_or_else(|| ConfigError::Json {
        key: "(whole file)".into(),
        message: shown(&format!("expected a JSON object, found {raw}")),
    })?;
    keys::refuse_duplicates(text).map_err(|e| json_error("(whole file)", &e))?;
    let hf: HfConfig =
        serde_path_to_error::deserialize(&raw).map_err(|e| json_error(&e.path().to_string(), e.inner()))?;
    let (family, reward) = family(&hf)?;
    refuse_unsupported(object)?;
    let mut config = convert(&hf, object, family)?;
    if reward {
        config.tied = false;
        config.reward = true;
    }
    config.check()?;
    Ok(config)
}

fn json_error(key: &str, error: &serde_json::Error) -> ConfigError {
    ConfigError::Json { key: shown(key), message: clipped(&error.to_string(), 300) }
}

/// The family, and whether the model is a reward model.
fn family(hf: &HfConfig) -> Result<(Family, bool), ConfigError> {
    let name = hf.model_type.as_deref().ok_or(ConfigError::Missing { key: "model_type" })?;
    let family = Family::ALL
        .into_iter()
        .find(|f| f.model_type() == name)
        .ok_or_else(|| unsupported("model_type", name, &Family::ALL.map(Family::model_type).join(", ")))?;
    match hf.architectures.as_deref().unwrap_or_default() {
        [] => Ok((family, false)),
        [one] if one == family.architecture() => Ok((family, false)),
        [one] if one == family.reward_architecture() => match hf.id2label.as_ref().map_or(2, Map::len) {
            1 => Ok((family, true)),
            labels => Err(unsupported("num_labels", &labels.to_string(), "1, a reward model")),
        },
        other => Err(unsupported("architectures", &other.join(", "), family.architecture())),
    }
}

fn refuse_unsupported(object: &Map<String, Value>) -> Result<(), ConfigError> {
    for (key, allowed) in MUST_BE {
        let Some(value) = object.get(*key).filter(|v| !v.is_null()) else { continue };
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        if !allowed.contains(&shown.as_str()) {
            let supported = allowed.first().map_or("absent or null".to_string(), |v| v.to_string());
            return Err(unsupported(key, &shown, &supported));
        }
    }
    Ok(())
}

fn unsupported(key: &str, value: &str, supported: &str) -> ConfigError {
    ConfigError::Unsupported { key: key.to_string(), value: shown(value), supported: supported.to_string() }
}

fn convert(hf: &HfConfig, raw: &Map<String, Value>, family: Family) -> Result<ModelConfig, ConfigError> {
    let key = "num_hidden_layers";
    let n_layers = hf.num_hidden_layers.ok_or(ConfigError::Missing { key })?;
    super::in_range(key, n_layers, 1, MAX_LAYERS)?;
    let n_layers = n_layers as usize;
    let width = size("hidden_size", hf.hidden_size)?;
    let n_heads = size("num_attention_heads", hf.num_attention_heads)?;
    let head_dim = match (hf.head_dim, family) {
        (Some(d), _) => size("head_dim", Some(d))?,
        (None, Family::Qwen3) => 128, // transformers' default for Qwen3
        (None, _) => divided(width, n_heads)?,
    };
    let bias = hf.attention_bias.unwrap_or(false);
    let context = size("max_position_embeddings", hf.max_position_embeddings)?;
    let (rope_theta, rope_scaling) = rope(hf, context)?;
    Ok(ModelConfig {
        family,
        vocab_size: size("vocab_size", hf.vocab_size)?,
        width,
        n_layers,
        n_heads,
        n_kv_heads: kv_heads(hf, raw, family, n_heads)?,
        head_dim,
        ffn_width: size("intermediate_size", hf.intermediate_size)?,
        context,
        norm_eps: hf.rms_norm_eps.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        tied: hf.tie_word_embeddings.unwrap_or(false),
        reward: false,
        qkv_bias: match family {
            Family::Qwen2 => true,
            Family::Mistral => false,
            Family::Llama | Family::Qwen3 => bias,
        },
        output_bias: bias && matches!(family, Family::Llama | Family::Qwen3),
        mlp_bias: hf.mlp_bias.unwrap_or(false) && family == Family::Llama,
        qk_norm: family == Family::Qwen3,
        logit_softcap: hf.final_logit_softcapping,
        windows: windows(hf, raw, family, n_layers)?,
        init_std: hf.initializer_range.unwrap_or(0.02),
        bos_id: one_id("bos_token_id", &hf.bos_token_id)?,
        eos_ids: ids("eos_token_id", &hf.eos_token_id)?,
        pad_id: one_id("pad_token_id", &hf.pad_token_id)?,
        dtype: dtype(hf)?,
    })
}

fn size(key: &'static str, value: Option<u64>) -> Result<usize, ConfigError> {
    let value = value.ok_or(ConfigError::Missing { key })?;
    super::in_range(key, value, 1, super::MAX_DIMENSION)?;
    Ok(value as usize)
}

fn divided(width: usize, n_heads: usize) -> Result<usize, ConfigError> {
    if width.is_multiple_of(n_heads) {
        return Ok(width / n_heads);
    }
    Err(ConfigError::OutOfRange {
        key: "hidden_size".into(),
        value: width.to_string(),
        expected: format!("a multiple of num_attention_heads ({n_heads}) where head_dim is not given"),
    })
}

/// An explicit null means as many as query heads; an absent key means each family's own default in
/// transformers.
fn kv_heads(
    hf: &HfConfig,
    raw: &Map<String, Value>,
    family: Family,
    n_heads: usize,
) -> Result<usize, ConfigError> {
    match (hf.num_key_value_heads, raw.contains_key("num_key_value_heads"), family) {
        (Some(n), _, _) => size("num_key_value_heads", Some(n)),
        (None, true, _) | (None, false, Family::Llama) => Ok(n_heads),
        (None, false, Family::Mistral) => Ok(8),
        (None, false, Family::Qwen2 | Family::Qwen3) => Ok(32),
    }
}

/// One id or a list of them; -1 (some files' word for "none") means absent.
fn ids(key: &str, value: &Option<Value>) -> Result<Vec<u32>, ConfigError> {
    let all = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(ids)) => ids.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| ConfigError::OutOfRange {
            key: key.to_string(),
            value: shown(&value.to_string()),
            expected: "a token id below vocab_size, -1 for none, or a list of ids".into(),
        })
    };
    all.iter().filter(|id| id.as_i64() != Some(-1)).map(id).collect()
}

fn one_id(key: &str, value: &Option<Value>) -> Result<Option<u32>, ConfigError> {
    Ok(ids(key, value)?.first().copied())
}

fn dtype(hf: &HfConfig) -> Result<DType, ConfigError> {
    let name = hf.dtype.as_deref().or(hf.torch_dtype.as_deref()).unwrap_or("float32");
    match name.trim_start_matches("torch.") {
        "float32" | "auto" => Ok(DType::F32),
        "float16" => Ok(DType::F16),
        "bfloat16" => Ok(DType::BF16),
        other => Err(unsupported("dtype", other, "float32, float16, bfloat16")),
    }
}

/// Mistral slides in every layer; Qwen only where asked, from layer `max_window_layers` on; Qwen's explicit
/// `layer_types` list decides over both. An absent window is 4096, transformers' default.
fn windows(
    hf: &HfConfig,
    raw: &Map<String, Value>,
    family: Family,
    n_layers: usize,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let absent = !raw.contains_key("sliding_window") && family != Family::Llama;
    let window = if absent { Some(4096) } else { hf.sliding_window };
    let window = window.map(|w| size("sliding_window", Some(w))).transpose()?;
    let qwen = matches!(family, Family::Qwen2 | Family::Qwen3);
    let window = if qwen && !hf.use_sliding_window.unwrap_or(false) { None } else { window };
    if family == Family::Llama {
        return match hf.layer_types.iter().flatten().find(|t| *t != "full_attention") {
            Some(other) => Err(unsupported("layer_types", other, "full_attention")),
            None => Ok(vec![None; n_layers]),
        };
    }
    if let (Some(types), true) = (&hf.layer_types, qwen) {
        if types.len() != n_layers {
            return Err(ConfigError::OutOfRange {
                key: "layer_types".into(),
                value: format!("{} entries", types.len()),
                expected: format!("one for each of num_hidden_layers ({n_layers})"),
            });
        }
        let of_type = |t: &String| match t.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" if window.is_some() => Ok(window),
            "sliding_attention" => {
                Err(unsupported("layer_types", t, "full_attention alone, since no sliding window is in use"))
            }
            other => Err(unsupported("layer_types", other, "full_attention, sliding_attention")),
        };
        return types.iter().map(of_type).collect();
    }
    let first = if qwen { hf.max_window_layers.unwrap_or(28) as usize } else { 0 };
    Ok((0..n_layers).map(|layer| if layer >= first { window } else { None }).collect())
}

/// transformers 5 writes `rope_parameters` (theta included); 4 writes `rope_theta` and `rope_scaling`,
/// which wins where both stand.
fn rope(hf: &HfConfig, context: usize) -> Result<(f64, RopeScaling), ConfigError> {
    let empty = Map::new();
    let older = hf.rope_scaling.as_ref().filter(|map| !map.is_empty());
    let newer = hf.rope_parameters.as_ref().filter(|map| !map.is_empty());
    let map = match (older, newer) {
        (Some(map), _) => RopeMap { section: "rope_scaling", map },
        (None, map) => RopeMap { section: "rope_parameters", map: map.unwrap_or(&empty) },
    };
    let in_parameters = newer.map(|map| RopeMap { section: "rope_parameters", map });
    let theta = match (map.number("rope_theta")?, in_parameters) {
        (Some(theta), _) => Some(theta),
        (None, Some(parameters)) => parameters.number("rope_theta")?,
        (None, None) => None,
    };
    let theta = theta.or(hf.rope_theta).unwrap_or(10_000.0);
    if let Some(factor) = map.number("partial_rotary_factor")?.filter(|&f| f != 1.0) {
        return Err(unsupported("partial_rotary_factor", &factor.to_string(), "1"));
    }
    let original = match hf.original_max_position_embeddings {
        Some(top_level) => Some(top_level),
        None => map.number("original_max_position_embeddings")?,
    };
    Ok((theta, map.scaling(original, context)?))
}

/// The JSON object of rotary settings and the name it stands under.
struct RopeMap<'a> {
    section: &'static str,
    map: &'a Map<String, Value>,
}

impl RopeMap<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> ConfigError {
        let message = format!("expected {expected}, found {}", shown(&found.to_string()));
        ConfigError::Json { key: format!("{}.{}", self.section, shown(key)), message }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let number = |value: &Value| value.as_f64().ok_or_else(|| self.wrong(key, "a number", value));
        self.get(key).map(number).transpose()
    }

    fn required(&self, key: &'static str) -> Result<f64, ConfigError> {
        self.number(key)?.ok_or(ConfigError::Missing { key })
    }

    fn truncate(&self) -> Result<bool, ConfigError> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| self.wrong("truncate", "a bool", value));
        Ok(self.get("truncate").map(flag).transpose()?.unwrap_or(true))
    }

    /// A factor without a type is not guessed at.
    fn kind(&self) -> Result<&str, ConfigError> {
        match self.get("rope_type").or_else(|| self.get("type")) {
            Some(kind) => kind.as_str().ok_or_else(|| self.wrong("rope_type", "a string", kind)),
            None if self.get("factor").is_some() => Err(ConfigError::Missing { key: "rope_type" }),
            None => Ok("default"),
        }
    }

    fn scaling(&self, original: Option<f64>, context: usize) -> Result<RopeScaling, ConfigError> {
        let missing = |key: &'static str| ConfigError::Missing { key };
        if let Some((key, value)) = self.map.iter().find(|(_, value)| value.is_object()) {
            return Err(self.wrong(key, "one set of rotary settings for all layers", value));
        }
        Ok(match self.kind()? {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: self.required("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: self.required("factor")?,
                low_freq_factor: self.required("low_freq_factor")?,
                high_freq_factor: self.required("high_freq_factor")?,
                original_context: original.ok_or(missing("original_max_position_embeddings"))?,
            },
            "yarn" => RopeScaling::Yarn {
                factor: match self.number("factor")? {
                    Some(factor) => factor,
                    None => context as f64 / original.ok_or(missing("factor"))?,
                },
                original_context: original.unwrap_or(context as f64),
                attention_factor: self.number("attention_factor")?,
                beta_fast: self.number("beta_fast")?.filter(|&b| b != 0.0).unwrap_or(32.0),
                beta_slow: self.number("beta_slow")?.filter(|&b| b != 0.0).unwrap_or(1.0),
                mscale: self.number("mscale")?,
                mscale_all_dim: self.number("mscale_all_dim")?,
                truncate: self.truncate()?,
            },
            other => {
                let key = format!("{}.rope_type", self.section);
                return Err(unsupported(&key, other, "default, linear, llama3, yarn"));
            }
        })
    }
}

pub(super) fn write(config: &ModelConfig) -> String {
    let dtype = match config.dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    };
    let scaling = scaling_map(&config.rope_scaling);
    let mut parameters = scaling.clone().unwrap_or_default();
    parameters.entry("rope_type").or_insert(json!("default"));
    parameters.insert("rope_theta".into(), json!(config.rope_theta));
    let mut map = json!({
        "architectures": [config.family.architecture()],
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_id,
        "eos_token_id": eos(config),
        "pad_token_id": config.pad_id,
        "dtype": dtype,
        "torch_dtype": dtype,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.width,
        "initializer_range": config.init_std,
        "intermediate_size": config.ffn_width,
        "max_position_embeddings": config.context,
        "model_type": config.family.model_type(),
        "num_attention_heads": config.n_heads,
        "num_hidden_layers": config.n_layers,
        "num_key_value_heads": config.n_kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": parameters,
        "rope_scaling": scaling,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "use_cache": true,
        "vocab_size": config.vocab_size,
    });
    let object = map.as_object_mut().expect("the literal above is an object");
    if config.reward {
        object.insert("architectures".into(), json!([config.family.reward_architecture()]));
        object.insert("id2label".into(), json!({ "0": "LABEL_0" }));
        object.insert("label2id".into(), json!({ "LABEL_0": 0 }));
    }
    add_family_fields(config, object);
    // serde_json keeps keys sorted, so equal configurations are equal files.
    serde_json::to_string_pretty(&map).expect("strings, numbers and lists always serialize") + "\n"
}

pub(super) fn write_generation(config: &ModelConfig) -> String {
    let map = json!({
        "bos_token_id": config.bos_id,
        "eos_token_id": eos(config),
        "pad_token_id": config.pad_id,
    });
    serde_json::to_string_pretty(&map).expect("numbers and lists always serialize") + "\n"
}

/// One id alone, several as a list, none as null.
fn eos(config: &ModelConfig) -> Value {
    match config.eos_ids.as_slice() {
        [] => Value::Null,
        [one] => json!(one),
        many => json!(many),
    }
}

fn add_family_fields(config: &ModelConfig, map: &mut Map<String, Value>) {
    let window = config.windows.iter().flatten().next();
    if let Some(cap) = config.logit_softcap {
        map.insert(super::SOFTCAP.into(), json!(cap));
    }
    match config.family {
        Family::Llama => {
            map.insert("attention_bias".into(), json!(config.qkv_bias));
            map.insert("mlp_bias".into(), json!(config.mlp_bias));
        }
        Family::Mistral => {
            map.insert("sliding_window".into(), json!(window));
        }
        Family::Qwen2 | Family::Qwen3 => {
            if config.family == Family::Qwen3 {
                map.insert("attention_bias".into(), json!(config.qkv_bias));
            }
            let full = config.windows.iter().take_while(|w| w.is_none()).count();
            let kind = |w: &Option<usize>| {
                if w.is_some() { "sliding_attention" } else { "full_attention" }
            };
            map.insert("use_sliding_window".into(), json!(window.is_some()));
            map.insert("sliding_window".into(), json!(window));
            map.insert("max_window_layers".into(), json!(full));
            map.insert("layer_types".into(), json!(config.windows.iter().map(kind).collect::<Vec<_>>()));
        }
    }
}

fn scaling_map(scaling: &RopeScaling) -> Option<Map<String, Value>> {
    let value = match *scaling {
        RopeScaling::None => return None,
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_context as u64,
        }),
        RopeScaling::Yarn {
            factor,
            original_context,
            attention_factor,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            truncate,
        } => json!({
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original_context as u64,
            "attention_factor": attention_factor,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "mscale": mscale,
            "mscale_all_dim": mscale_all_dim,
            "truncate": truncate,
        }),
    };
    let Value::Object(map) = value else { return None };
    Some(map.into_iter().filter(|(_, v)| !v.is_null()).collect())
}
