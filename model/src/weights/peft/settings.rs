//! `adapter_config.json` of PEFT, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use fornax_base::files::read_text_limited;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::adapter::{AdapterConfig, AdapterError, Init, Targets};
use crate::config::{clipped, shown};

/// The file of settings.
pub const CONFIG_FILE: &str = "adapter_config.json";

const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Settings that say nothing about the numbers of an adapter that is loaded: bookkeeping, and how its values were
/// found at the start of its training.
const WITHOUT_EFFECT: [&str; 13] = [
    "auto_mapping",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "task_type",
];

/// Openings that leave the base's weights as they were; the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA, ...) replace
/// them when the adapter is loaded.
const OPENINGS: [&str; 3] = ["gaussian", "orthogonal", "eva"];

/// The settings as PEFT writes them: keys sorted, two spaces, no line break at the end. Keys that early versions do not
/// know stand there only where they say something.
pub fn to_json(config: &AdapterConfig) -> String {
    let number = |x: f64| if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) };
    let targets = |targets: &Targets| match targets {
        Targets::AllLinear => json!("all-linear"),
        Targets::Names(names) => json!(names.iter().collect::<BTreeSet<_>>()),
        Targets::Regex(regex) => json!(regex),
    };
    let unless_empty = |names: &[String]| if names.is_empty() { Value::Null } else { json!(names) };
    let pattern = match config.layers_pattern.as_slice() {
        [one] => json!(one),
        more => unless_empty(more),
    };
    let mut all = BTreeMap::from([
        ("alpha_pattern", config.alpha_pattern.iter().map(|(k, v)| (k.clone(), number(*v))).collect()),
        ("auto_mapping", Value::Null),
        ("base_model_name_or_path", json!(config.base_model)),
        ("bias", json!("none")),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
        ("init_lora_weights", if config.init == Init::Gaussian { json!("gaussian") } else { json!(true) }),
        ("layers_pattern", pattern),
        ("layers_to_transform", json!(config.layers_to_transform)),
        ("lora_alpha", number(config.alpha)),
        ("lora_dropout", json!(config.dropout)),
        ("modules_to_save", unless_empty(&config.modules_to_save)),
        ("peft_type", json!("LORA")),
        ("r", json!(config.rank)),
        ("rank_pattern", config.rank_pattern.iter().map(|(k, v)| (k.clone(), json!(v))).collect()),
        ("revision", json!(config.revision)),
        ("target_modules", targets(&config.targets)),
        ("task_type", json!("CAUSAL_LM")),
        ("use_dora", json!(config.dora)),
        ("use_rslora", json!(config.rslora)),
    ]);
    if let Some(exclude) = &config.exclude {
        all.insert("exclude_modules", targets(exclude));
    }
    serde_json::to_string_pretty(&all).unwrap_or_default()
}

/// Reads `adapter_config.json` of `folder`.
///
/// # Errors
/// [`AdapterError::NotAnAdapterFolder`], [`AdapterError::Config`], [`AdapterError::Unsupported`],
/// [`AdapterError::Setting`].
pub fn read_config(folder: &Path) -> Result<AdapterConfig, AdapterError> {
    let path = folder.join(CONFIG_FILE);
    let text = read_text_limited(&path, MAX_CONFIG_BYTES).map_err(|error| match error.is_not_found() {
        true => AdapterError::NotAnAdapterFolder { folder: folder.to_path_buf() },
        false => error.into(),
    })?;
    of_json(&path, &text)
}

fn of_json(path: &Path, text: &str) -> Result<AdapterConfig, AdapterError> {
    let invalid = |message: String| AdapterError::Config { path: path.to_path_buf(), message };
    let unsupported = |key: &str, value: &Value| AdapterError::Unsupported {
        path: path.to_path_buf(),
        key: shown(key),
        value: clipped(&value.to_string(), 100),
    };
    let file: File = serde_json::from_str(text).map_err(|e| invalid(clipped(&e.to_string(), 300)))?;
    match file.other.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        Some(other) => return Err(unsupported("peft_type", &json!(other))),
        None => return Err(invalid("it has no peft_type, expected \"LORA\"".into())),
    }
    if let Some(bias) = file.bias.as_ref().filter(|bias| *bias != "none") {
        return Err(unsupported("bias", &json!(bias)));
    }
    let init = match &file.init_lora_weights {
        None | Some(Value::Bool(_)) => Init::Kaiming,
        Some(Value::String(name)) if OPENINGS.contains(&name.as_str()) => {
            if name == "gaussian" {
                Init::Gaussian
            } else {
                Init::Kaiming
            }
        }
        Some(other) => return Err(unsupported("init_lora_weights", other)),
    };
    let says_nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    let mut others = file.other.iter().filter(|(key, _)| !WITHOUT_EFFECT.contains(&key.as_str()));
    if let Some((key, value)) = others.find(|(_, value)| !says_nothing(value)) {
        return Err(unsupported(key, value));
    }
    let config = AdapterConfig {
        rank: file.r.unwrap_or(8),
        alpha: file.lora_alpha.unwrap_or(8.0),
        dropout: file.lora_dropout.unwrap_or(0.0),
        rslora: file.use_rslora.unwrap_or(false),
        dora: file.use_dora.unwrap_or(false),
        targets: file
            .target_modules
            .map(Names::targets)
            .ok_or_else(|| invalid("it has no target_modules".into()))?,
        exclude: file.exclude_modules.filter(|names| !names.is_empty()).map(Names::targets),
        layers_to_transform: file.layers_to_transform.map(|layers| match layers {
            Layers::One(layer) => vec![layer],
            Layers::Many(layers) => layers,
        }),
        layers_pattern: file.layers_pattern.map(Names::list).unwrap_or_default(),
        rank_pattern: file.rank_pattern.map(|Ordered(all)| all).unwrap_or_default(),
        alpha_pattern: file.alpha_pattern.map(|Ordered(all)| all).unwrap_or_default(),
        modules_to_save: file.modules_to_save.map(Names::list).unwrap_or_default(),
        init,
        base_model: file.base_model_name_or_path,
        revision: file.revision,
    };
    config.check()?;
    Ok(config)
}

/// `adapter_config.json` as it stands.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct File {
    r: Option<usize>,
    lora_alpha: Option<f64>,
    lora_dropout: Option<f64>,
    use_rslora: Option<bool>,
    use_dora: Option<bool>,
    bias: Option<String>,
    init_lora_weights: Option<Value>,
    target_modules: Option<Names>,
    exclude_modules: Option<Names>,
    layers_to_transform: Option<Layers>,
    layers_pattern: Option<Names>,
    rank_pattern: Option<Ordered<usize>>,
    alpha_pattern: Option<Ordered<f64>>,
    modules_to_save: Option<Names>,
    base_model_name_or_path: Option<String>,
    revision: Option<String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
enum Names {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a layer's number or a list of them")]
enum Layers {
    One(usize),
    Many(Vec<usize>),
}

impl Names {
    fn is_empty(&self) -> bool {
        match self {
            Names::One(name) => name.is_empty(),
            Names::Many(names) => names.is_empty(),
        }
    }

    fn targets(self) -> Targets {
        match self {
            Names::One(word) if word.eq_ignore_ascii_case("all-linear") => Targets::AllLinear,
            Names::One(regex) => Targets::Regex(regex),
            Names::Many(names) => Targets::Names(names),
        }
    }

    fn list(self) -> Vec<String> {
        match self {
            Names::One(name) => vec![name],
            Names::Many(names) => names,
        }
    }
}

/// A JSON object whose order counts: of several patterns that match, PEFT takes the earliest.
struct Ordered<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    all.push(pair);
                }
                Ok(Ordered(all))
            }
        }
        deserializer.deserialize_map(Pairs(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AdapterConfig, AdapterError> {
        of_json(Path::new("a/adapter_config.json"), text)
    }

    fn with(more: &str) -> String {
        format!("{{\"peft_type\":\"LORA\",\"target_modules\":[\"q_proj\"]{more}}}")
    }

    #[test]
    fn the_least_configuration_has_pefts_defaults() {
        let config = read(&with("")).unwrap();
        assert_eq!(config, AdapterConfig::lora(8, 8.0, Targets::Names(vec!["q_proj".into()])));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let config = AdapterConfig {
            dropout: 0.1,
            dora: true,
            rslora: true,
            exclude: Some(Targets::Regex(".*0.*".into())),
            rank_pattern: vec![("a".into(), 2), ("b".into(), 3)],
            alpha_pattern: vec![("c".into(), 2.5)],
            modules_to_save: vec!["lm_head".into()],
            init: Init::Gaussian,
            base_model: Some("x/y".into()),
            revision: Some("main".into()),
            ..AdapterConfig::lora(4, 8.5, Targets::AllLinear)
        };
        assert_eq!(read(&to_json(&config)).unwrap(), config);
        let layers = AdapterConfig {
            layers_to_transform: Some(vec![0, 2]),
            layers_pattern: vec!["layers".into(), "blocks".into()],
            ..AdapterConfig::lora(4, 8.0, Targets::Names(vec!["q_proj".into()]))
        };
        assert_eq!(read(&to_json(&layers)).unwrap(), layers);
    }

    #[test]
    fn patterns_keep_the_order_of_the_file() {
        let config = read(&with(",\"rank_pattern\":{\"z\":1,\"a\":2,\"m\":3}")).unwrap();
        assert_eq!(config.rank_pattern, [("z".to_string(), 1), ("a".into(), 2), ("m".into(), 3)]);
    }

    #[test]
    fn settings_that_change_the_numbers_are_refused_by_name() {
        for (setting, key) in [
            ("\"bias\":\"all\"", "bias"),
            ("\"lora_bias\":true", "lora_bias"),
            ("\"fan_in_fan_out\":true", "fan_in_fan_out"),
            ("\"alora_invocation_tokens\":[1,2]", "alora_invocation_tokens"),
            ("\"target_parameters\":[\"w\"]", "target_parameters"),
            ("\"trainable_token_indices\":[3]", "trainable_token_indices"),
            ("\"layer_replication\":[[0,2]]", "layer_replication"),
            ("\"use_qalora\":true", "use_qalora"),
            ("\"use_bdlora\":{\"a\":1}", "use_bdlora"),
            ("\"arrow_config\":{\"top_k\":1}", "arrow_config"),
            ("\"ensure_weight_tying\":true", "ensure_weight_tying"),
            ("\"init_lora_weights\":\"pissa\"", "init_lora_weights"),
            ("\"init_lora_weights\":\"loftq\"", "init_lora_weights"),
            ("\"something_new\":7", "something_new"),
        ] {
            let error = read(&with(&format!(",{setting}"))).unwrap_err();
            assert!(matches!(&error, AdapterError::Unsupported { key: found, .. } if found == key), "{error}");
            assert!(error.to_string().contains(key), "{error}");
        }
        let error = read("{\"peft_type\":\"IA3\",\"target_modules\":[\"q_proj\"]}").unwrap_err();
        assert!(error.to_string().contains("IA3"), "{error}");
    }

    #[test]
    fn settings_without_effect_are_accepted() {
        for setting in [
            "\"megatron_core\":\"megatron.core\"",
            "\"qalora_group_size\":16",
            "\"peft_version\":\"0.21.2\"",
            "\"task_type\":\"CAUSAL_LM\"",
            "\"loftq_config\":{}",
            "\"eva_config\":{\"rho\":2}",
            "\"init_lora_weights\":\"orthogonal\"",
            "\"inference_mode\":true",
            "\"something_new\":null",
            "\"runtime_config\":{\"ephemeral_gpu_offload\":false}",
        ] {
            read(&with(&format!(",{setting}"))).unwrap();
        }
    }

    #[test]
    fn wrong_configurations_say_what_is_wrong() {
        for (text, part) in [
            ("", "EOF"),
            ("[]", "JSON object"),
            ("{\"target_modules\":[\"a\"]}", "peft_type"),
            ("{\"peft_type\":\"LORA\"}", "target_modules"),
            (&with(",\"r\":0"), "not 0"),
            (&with(",\"r\":-1"), "invalid value"),
            (&with(",\"lora_alpha\":0"), "not 0"),
            (&with(",\"lora_dropout\":1.0"), "not 1"),
            (&with(",\"r\":\"8\""), "invalid type"),
            (&with(",\"r\":8,\"r\":9"), "duplicate"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
