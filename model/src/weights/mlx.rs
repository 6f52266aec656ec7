//! Adapter folders of mlx-lm: `adapter_config.json` and `adapters.safetensors`.
//!
//! They say the same as PEFT's with other names: `lora_a` is `[in, r]` and `lora_b` `[r, out]`, the product is
//! multiplied by `scale` itself, DoRA's magnitude is `m`, and there is one rank and one scale for all modules.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor};
use fornax_base::files::{FileSystem, create_folder, read_text_limited, write_atomic, write_atomic_bytes};
use serde::Deserialize;
use serde_json::json;

use super::peft::{self, AdapterFolder, CONFIG_FILE};
use super::read::{difference, to_data};
use super::{StoredTensor, TensorFile, write_tensors};
use crate::adapter::{AdapterConfig, AdapterError, Targets};
use crate::config::{clipped, shown};

/// The file of tensors.
pub const WEIGHTS_FILE: &str = "adapters.safetensors";

const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// mlx-lm's word for every layer.
const ALL_LAYERS: i64 = -1;

type Named = (String, Vec<usize>, Tensor<1>);

/// `adapter_config.json` as mlx-lm reads it back; it writes every argument of its training beside these.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct File {
    fine_tune_type: Option<String>,
    lora_parameters: Option<Parameters>,
    model: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object with rank and scale")]
struct Parameters {
    rank: usize,
    scale: f64,
    dropout: Option<f64>,
}

/// Writes the adapter of a PEFT folder into `folder` (created when absent) as mlx-lm reads it.
///
/// # Errors
/// [`AdapterError::Setting`] for what mlx-lm has no place for: ranks or factors that differ between modules, modules
/// saved whole, and embeddings, whose adapter mlx-lm applies to a tied head too.
pub fn from_peft(fs: &dyn FileSystem, adapter: &AdapterFolder, folder: &Path) -> Result<(), AdapterError> {
    let refused = |key, message: String| AdapterError::Setting { key, message };
    let (config, mut tensors, mut factors, mut keys) =
        (adapter.config(), Vec::new(), Vec::<(usize, f64)>::new(), BTreeSet::new());
    let mut problems = Vec::new();
    for (name, stored) in adapter.tensors() {
        if let Some(module) = name.strip_suffix(".lora_A.weight") {
            let rank = config.rank_of(module)?;
            factors.push((rank, config.scale_of(module, rank)?));
            keys.insert(key_of(module).to_string());
            let matrix = transposed(&format!("{module}.lora_a"), &stored, (0, rank));
            matrix.map_or_else(|problem| problems.push(problem), |matrix| tensors.push(matrix));
        } else if let Some(module) = name.strip_suffix(".lora_B.weight") {
            let matrix = transposed(&format!("{module}.lora_b"), &stored, (1, config.rank_of(module)?));
            matrix.map_or_else(|problem| problems.push(problem), |matrix| tensors.push(matrix));
        } else if let Some(module) = name.strip_suffix(".lora_magnitude_vector") {
            let vector = vector(&format!("{module}.m"), &stored);
            vector.map_or_else(|problem| problems.push(problem), |vector| tensors.push(vector));
        } else {
            let (key, why) = match name.contains("lora_embedding") {
                true => ("target_modules", "mlx-lm applies an adapter of the embedding to a tied head too"),
                false => ("modules_to_save", "an adapter of mlx-lm holds no whole modules"),
            };
            return Err(refused(key, format!("`{}` cannot be converted: {why}", shown(name))));
        }
    }
    if !problems.is_empty() {
        return Err(AdapterError::Mismatch { folder: adapter.folder().to_path_buf(), problems });
    }
    let Some(&(rank, scale)) = factors.first() else {
        return Err(refused("target_modules", "the adapter holds no low-rank matrices".into()));
    };
    if let Some(other) = factors.iter().find(|other| **other != (rank, scale)) {
        let message = format!(
            "mlx-lm has one rank and one factor for all modules, not {rank} with {scale} and {} with {}",
            other.0, other.1
        );
        return Err(refused("rank_pattern", message));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let settings = json!({
        "fine_tune_type": if config.dora { "dora" } else { "lora" },
        "lora_parameters": { "dropout": config.dropout, "keys": keys, "rank": rank, "scale": scale },
        "model": config.base_model,
        "num_layers": ALL_LAYERS,
    });
    let text = serde_json::to_string_pretty(&settings).unwrap_or_default();
    create_folder(fs, folder)?;
    write_atomic(fs, &folder.join(WEIGHTS_FILE), &mut |out| write_tensors(&tensors, DType::F32, out))?;
    write_atomic_bytes(fs, &folder.join(CONFIG_FILE), text.as_bytes())?;
    Ok(())
}

/// Writes the adapter of an mlx-lm folder into `folder` (created when absent) as PEFT reads it: its targets are the paths
/// of the modules that have tensors.
///
/// # Errors
/// [`AdapterError::Config`] and [`AdapterError::Unsupported`] for its settings, [`AdapterError::Mismatch`] for tensors
/// that are no low-rank matrices of their rank.
pub fn to_peft(fs: &dyn FileSystem, from: &Path, folder: &Path) -> Result<(), AdapterError> {
    let path = from.join(CONFIG_FILE);
    let text = read_text_limited(&path, MAX_CONFIG_BYTES)?;
    let invalid = |message: String| AdapterError::Config { path: path.clone(), message };
    let settings: File = serde_json::from_str(&text).map_err(|e| invalid(clipped(&e.to_string(), 300)))?;
    let kind = settings.fine_tune_type.as_deref().unwrap_or("lora");
    if !["lora", "dora"].contains(&kind) {
        let (key, value) = ("fine_tune_type".into(), json!(kind).to_string());
        return Err(AdapterError::Unsupported { path: path.clone(), key, value });
    }
    let parameters = settings.lora_parameters.ok_or_else(|| invalid("it has no lora_parameters".into()))?;
    let file = TensorFile::open(&from.join(WEIGHTS_FILE))?;
    let (mut tensors, mut modules, mut problems) = (Vec::<Named>::new(), BTreeSet::new(), Vec::new());
    for (name, stored) in file.all() {
        let (module, part) = name.rsplit_once('.').unwrap_or(("", name));
        let linear = module.ends_with("_proj") || module == "lm_head";
        let converted = match part {
            _ if !linear => Err(format!("`{}` belongs to no linear layer", shown(name))),
            "lora_a" => transposed(&format!("{module}.lora_A.weight"), &stored, (1, parameters.rank)),
            "lora_b" => transposed(&format!("{module}.lora_B.weight"), &stored, (0, parameters.rank)),
            "m" if kind == "dora" => vector(&format!("{module}.lora_magnitude_vector"), &stored),
            _ => Err(format!("`{}` is no part of a low-rank adapter", shown(name))),
        };
        match converted {
            Ok(tensor) => tensors.push(tensor),
            Err(problem) => problems.push(problem),
        }
        modules.insert(module.to_string());
    }
    if !problems.is_empty() {
        return Err(AdapterError::Mismatch { folder: from.to_path_buf(), problems });
    }
    let targets = Targets::Names(modules.into_iter().collect());
    let config = AdapterConfig {
        dropout: parameters.dropout.unwrap_or(0.0),
        dora: kind == "dora",
        base_model: settings.model,
        ..AdapterConfig::lora(parameters.rank, parameters.scale * parameters.rank as f64, targets)
    };
    config.check()?;
    peft::write(fs, &config, tensors, DType::F32, folder)
}

/// `model.layers.3.self_attn.q_proj` -> `self_attn.q_proj`, the name within its layer.
fn key_of(module: &str) -> &str {
    module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')).map_or(module, |(_, key)| key)
}

/// A vector under another name, in f32; or what is wrong with it.
fn vector(name: &str, stored: &StoredTensor<'_>) -> Result<Named, String> {
    let &[n] = stored.shape else { return Err(format!("`{name}` is {:?}, expected one dimension", stored.shape)) };
    // The shape is its own: what is left to be asked is the dtype.
    match difference(name, stored.shape, Some(stored)) {
        Some(problem) => Err(problem),
        None => {
            let values = Tensor::from_data(to_data(*stored, &[n], DType::F32), (&Device::flex(), DType::F32));
            Ok((name.to_string(), vec![n], values))
        }
    }
}

/// A matrix with its dimensions exchanged, under another name; or what is wrong with it. Its dimension `at` is the
/// rank.
fn transposed(name: &str, stored: &StoredTensor<'_>, (at, rank): (usize, usize)) -> Result<Named, String> {
    let &[rows, columns] = stored.shape else {
        return Err(format!("`{name}` is {:?}, expected two dimensions", stored.shape));
    };
    let mut expected = [rows, columns];
    expected[at] = rank;
    if let Some(problem) = difference(name, &expected, Some(stored)) {
        return Err(problem);
    }
    let data = to_data(*stored, &[rows, columns], DType::F32);
    let exchanged = Tensor::<2>::from_data(data, (&Device::flex(), DType::F32)).transpose();
    Ok((name.to_string(), vec![columns, rows], exchanged.reshape([rows * columns])))
}
