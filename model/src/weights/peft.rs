//! Adapter folders in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Settings that would change the numbers and are not computed are refused by name; every other setting that PEFT
//! 0.21 knows is accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor};
use fornax_base::files::{FileSystem, create_folder, read_text_limited, write_atomic, write_atomic_bytes};
use safetensors::tensor::Dtype;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::read::{difference, not_finite_tensor, to_data};
use super::{StoredTensor, TensorFile, WeightsError, write_tensors};
use crate::adapter::{AdapterConfig, AdapterError, AdapterId, Change, Init, ModuleKind, Planned, Targets, plan};
use crate::config::{clipped, shown};
use crate::decoder::Decoder;

/// The file of settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The file of tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before the name of every module.
const PREFIX: &str = "base_model.model.";
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

/// An adapter folder, read and checked but for the model it is to be put on.
#[derive(Debug)]
pub struct AdapterFolder {
    folder: PathBuf,
    config: AdapterConfig,
    file: TensorFile,
}

/// A tensor of an adapter: name without PEFT's prefix, and what is stored.
pub type NamedTensor<'a> = (&'a str, StoredTensor<'a>);

impl AdapterFolder {
    /// Reads the settings and maps the tensors of `folder`.
    ///
    /// # Errors
    /// See [`AdapterError`].
    pub fn open(folder: &Path) -> Result<Self, AdapterError> {
        let config = read_config(folder)?;
        let path = folder.join(WEIGHTS_FILE);
        let pickle = folder.join("adapter_model.bin");
        if !path.exists() && pickle.exists() {
            return Err(WeightsError::Pickle { path: pickle }.into());
        }
        Ok(Self { folder: folder.to_path_buf(), config, file: TensorFile::open(&path)? })
    }

    /// The folder as it was given.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The settings.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = NamedTensor<'_>> {
        self.file.all().map(|(name, tensor)| (name.strip_prefix(PREFIX).unwrap_or(name), tensor))
    }

    /// Puts the adapter on `decoder` under `name` and makes it the active one.
    ///
    /// # Errors
    /// [`AdapterError::Mismatch`] names every tensor that is missing, too many, of another shape or not finite; also
    /// the errors of [`Decoder::attach`].
    pub fn attach(&self, decoder: &mut Decoder, name: &str) -> Result<AdapterId, AdapterError> {
        let planned = plan(&self.config, decoder.config())?;
        let problems = self.differences(&planned, decoder);
        if !problems.is_empty() {
            return Err(AdapterError::Mismatch { folder: self.folder.clone(), problems });
        }
        let device = decoder.device().without_autodiff();
        decoder.attach_from(name, self.config.clone(), &mut |name, shape| {
            let stored = self.file.get(&format!("{PREFIX}{name}"));
            let n = shape.iter().product();
            Ok(stored.map(|stored| Tensor::from_data(to_data(stored, &[n], DType::F32), (&device, DType::F32))))
        })
    }

    fn differences(&self, planned: &[Planned], decoder: &Decoder) -> Vec<String> {
        let mut problems = Vec::new();
        let expected: Vec<_> = planned.iter().flat_map(|p| tensors_of(p, self.config.dora)).collect();
        for (name, shape) in &expected {
            let found = self.file.get(&format!("{PREFIX}{name}"));
            let problem = difference(name, shape, found.as_ref());
            problems.extend(problem.or_else(|| not_finite_tensor(name, &found?)));
        }
        let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        for (name, tensor) in self.tensors().filter(|(name, _)| !known.contains(name)) {
            // PEFT stores the table under an adapter of the embedding or the head beside it.
            let base = name.strip_suffix(".base_layer.weight");
            let base = base.filter(|base| planned.iter().any(|p| p.module.name == *base));
            match base.map(|_| is_table(&tensor, decoder, name)) {
                Some(true) => {}
                Some(false) => problems.push(format!("`{}` differs from the model's own", shown(name))),
                None => problems.push(format!("`{}` is stored but not part of this adapter", shown(name))),
            }
        }
        problems
    }
}

/// Whether a stored base table is the one that the decoder has.
fn is_table(stored: &StoredTensor<'_>, decoder: &Decoder, name: &str) -> bool {
    let own = match (name.starts_with("lm_head"), &decoder.head) {
        (true, Some(head)) => head.weight(),
        _ => decoder.embedding.table_vc.clone(),
    };
    let (own, dims) = (own.without_autodiff(), stored.shape);
    if dims != own.dims().as_slice() || !matches!(stored.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        return false;
    }
    let stored = Tensor::<2>::from_data(to_data(*stored, dims, DType::F32), (&own.device(), DType::F32));
    // Compared as the model holds it: a base in bf16 under a file in f32 is the same table.
    (stored.cast(own.dtype()).cast(DType::F32) - own.cast(DType::F32)).abs().max().into_scalar::<f32>() == 0.0
}

/// Names and shapes of the tensors of one module, without the prefix.
pub(crate) fn tensors_of(planned: &Planned, dora: bool) -> Vec<(String, Vec<usize>)> {
    let (module, mut all) = (&planned.module, Vec::new());
    let mut add = |part: &str, shape: &[usize]| all.push((format!("{}.{part}", module.name), shape.to_vec()));
    match (planned.change, module.kind) {
        (Change::LowRank { rank, .. }, ModuleKind::Linear { out, input, .. }) => {
            add("lora_A.weight", &[rank, input]);
            add("lora_B.weight", &[out, rank]);
            if dora {
                add("lora_magnitude_vector", &[out]);
            }
        }
        (Change::LowRank { rank, .. }, ModuleKind::Embedding { vocab, width }) => {
            add("lora_embedding_A", &[rank, vocab]);
            add("lora_embedding_B", &[width, rank]);
        }
        (Change::Whole, ModuleKind::Linear { out, input, bias }) => {
            add("weight", &[out, input]);
            if bias {
                add("bias", &[out]);
            }
        }
        (Change::Whole, ModuleKind::Embedding { vocab, width }) => add("weight", &[vocab, width]),
        (Change::Whole, ModuleKind::Norm { width }) => add("weight", &[width]),
        // `plan` gives norms no low-rank adapter.
        (Change::LowRank { .. }, ModuleKind::Norm { .. }) => {}
    }
    all
}

/// Writes an adapter of `decoder` into `folder` (created when absent) with its tensors as `dtype` (PEFT keeps f32 whatever
/// the base is). Each file appears complete or not at all; the settings come last.
///
/// # Errors
/// [`AdapterError::NoneActive`] when the adapter is not on the decoder, [`AdapterError::File`].
pub fn save(
    fs: &dyn FileSystem,
    decoder: &Decoder,
    adapter: AdapterId,
    dtype: DType,
    folder: &Path,
) -> Result<(), AdapterError> {
    let config = decoder.adapters().find(|(id, _, _)| *id == adapter).map(|(_, _, config)| config.clone());
    let config = config.ok_or(AdapterError::NoneActive)?;
    write(fs, &config, decoder.adapter_tensors(adapter), dtype, folder)
}

/// Writes settings and tensors (names without the prefix).
pub(super) fn write(
    fs: &dyn FileSystem,
    config: &AdapterConfig,
    tensors: Vec<(String, Vec<usize>, Tensor<1>)>,
    dtype: DType,
    folder: &Path,
) -> Result<(), AdapterError> {
    let named = |(name, shape, tensor)| (format!("{PREFIX}{name}"), shape, tensor);
    let mut tensors: Vec<_> = tensors.into_iter().map(named).collect();
    create_folder(fs, folder)?;
    // The order that the safetensors library of Python writes.
    tensors.sort_by(|a: &(String, Vec<usize>, Tensor<1>), b| a.0.cmp(&b.0));
    write_atomic(fs, &folder.join(WEIGHTS_FILE), &mut |out| write_tensors(&tensors, dtype, out))?;
    write_atomic_bytes(fs, &folder.join(CONFIG_FILE), to_json(config).as_bytes())?;
    Ok(())
}

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
