//! Reading a model folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::files::read_text_limited;
use fornax_base::paths::join_inside;
use half::{bf16, f16};
use safetensors::tensor::Dtype;
use serde::Deserialize;

use super::{LoadOptions, Loaded, StoredTensor, TensorFile, WeightsError};
use crate::config::{ModelConfig, clipped, shown};
use crate::decoder::{Decoder, EMBEDDING, HEAD, parameter_shapes};
use crate::packed::Packing;

const MAX_CONFIG_BYTES: u64 = 4 << 20;
const MAX_INDEX_BYTES: u64 = 64 << 20;
const MAX_SHARDS: usize = 10_000;

pub(super) fn config(folder: &Path) -> Result<ModelConfig, WeightsError> {
    let path = folder.join("config.json");
    let text = read_text_limited(&path, MAX_CONFIG_BYTES).map_err(|error| match error.is_not_found() {
        true => WeightsError::NotAModelFolder { folder: folder.to_path_buf() },
        false => error.into(),
    })?;
    ModelConfig::from_hf_json(&text).map_err(|source| WeightsError::Config { path, source })
}

pub(super) fn load(
    folder: &Path,
    options: LoadOptions,
    packing: Option<Packing>,
    device: &Device,
) -> Result<Loaded, WeightsError> {
    let config = config(folder)?;
    match config.reward {
        true => Err(WeightsError::RewardModel { folder: folder.to_path_buf() }),
        false => load_shaped(folder, config, options, packing, device),
    }
}

pub(super) fn load_reward_model(
    folder: &Path,
    options: LoadOptions,
    device: &Device,
) -> Result<Loaded, WeightsError> {
    let config = config(folder)?;
    if !config.reward {
        let (found, expected) = (config.family.architecture(), config.family.reward_architecture());
        return Err(WeightsError::NoRewardModel { folder: folder.to_path_buf(), found, expected });
    }
    load_shaped(folder, config, options, None, device)
}

fn load_shaped(
    folder: &Path,
    config: ModelConfig,
    options: LoadOptions,
    packing: Option<Packing>,
    device: &Device,
) -> Result<Loaded, WeightsError> {
    let files = open_files(folder)?;
    let tensors = Tensors::collect(folder, &files)?;
    let tensors = tensors.checked(folder, &config)?;
    let warnings = not_finite(&config, &tensors);
    if options.strict && !warnings.is_empty() {
        return Err(WeightsError::NotFinite { folder: folder.to_path_buf(), problems: warnings });
    }
    let dtype = options.dtype.unwrap_or(match tensors.get(EMBEDDING).map(|t| t.dtype) {
        Some(Dtype::F16) => DType::F16,
        Some(Dtype::BF16) => DType::BF16,
        _ => DType::F32,
    });
    let decoder = build(&config, &tensors, (dtype, packing), device);
    Ok(Loaded { decoder, warnings })
}

pub(super) fn from_file(
    config: &ModelConfig,
    file: &TensorFile,
    device: &Device,
) -> Result<Decoder, WeightsError> {
    if config.reward {
        return Err(WeightsError::RewardModel { folder: file.path().to_path_buf() });
    }
    let files = std::slice::from_ref(file);
    let tensors = Tensors::collect(file.path(), files)?.checked(file.path(), config)?;
    Ok(build(config, &tensors, (DType::F32, None), device))
}

pub(super) fn restore_trainable(decoder: &mut Decoder, file: &TensorFile) -> Result<(), WeightsError> {
    let folder = file.path().to_path_buf();
    let shapes: Vec<_> =
        decoder.trainable_parameters().into_iter().map(|(name, shape, _)| (name, shape)).collect();
    let files = std::slice::from_ref(file);
    let tensors = Tensors::collect(&folder, files)?;
    let mut problems = Vec::new();
    tensors.compare(&shapes, &mut problems);
    if !problems.is_empty() {
        return Err(WeightsError::Mismatch { folder, problems });
    }
    let device = decoder.device().without_autodiff();
    decoder.visit_mut(&mut |name, mut parameter| {
        // A parameter that is not trained has no tensor: `compare` found every stored name among those that are.
        let Some(stored) = tensors.0.get(name) else { return };
        let data = to_data(*stored, &[parameter.shape().iter().product()], DType::F32);
        parameter.set_flat(Tensor::from_data(data, (&device, DType::F32)));
    });
    Ok(())
}

fn build(
    config: &ModelConfig,
    tensors: &Checked<'_>,
    (dtype, packing): (DType, Option<Packing>),
    device: &Device,
) -> Decoder {
    let parameter = |name: &str, shape: &[usize]| -> Result<TensorData, std::convert::Infallible> {
        // `checked` has seen every name of this configuration with this shape.
        Ok(to_data(tensors[name], shape, dtype))
    };
    match Decoder::build(config, (dtype, packing), device, parameter) {
        Ok(decoder) => decoder,
        Err(never) => match never {},
    }
}

/// The weight files of a folder: one, or those an index names.
fn open_files(folder: &Path) -> Result<Vec<TensorFile>, WeightsError> {
    let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    if single.exists() {
        return Ok(vec![TensorFile::open(&single)?]);
    }
    if !index.exists() {
        let pickle = ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth"];
        return Err(match pickle.iter().map(|name| folder.join(name)).find(|path| path.exists()) {
            Some(path) => WeightsError::Pickle { path },
            None => WeightsError::NoWeights { folder: folder.to_path_buf() },
        });
    }
    let text = read_text_limited(&index, MAX_INDEX_BYTES)?;
    shard_paths(folder, &index, &text)?.iter().map(|path| TensorFile::open(path)).collect()
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object with a weight_map")]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Paths of the shards an index names, each inside `folder`.
fn shard_paths(folder: &Path, index: &Path, text: &str) -> Result<Vec<PathBuf>, WeightsError> {
    let invalid = |message: String| WeightsError::Index { path: index.to_path_buf(), message };
    let parsed: Index = serde_json::from_str(text).map_err(|e| invalid(clipped(&e.to_string(), 300)))?;
    let names: BTreeSet<&String> = parsed.weight_map.values().collect();
    if names.len() > MAX_SHARDS {
        return Err(invalid(format!("it names {} shards, at most {MAX_SHARDS}", names.len())));
    }
    if names.is_empty() {
        return Err(invalid("its weight_map is empty".into()));
    }
    if let Some(name) = names.iter().find(|name| !name.ends_with(".safetensors")) {
        return Err(invalid(format!("`{}` is not a safetensors file", shown(name))));
    }
    let path = |name: &String| {
        join_inside(folder, name).map_err(|source| WeightsError::Shard { path: index.to_path_buf(), source })
    };
    names.into_iter().map(path).collect()
}

/// All stored tensors by name.
struct Tensors<'a>(BTreeMap<&'a str, StoredTensor<'a>>);

/// Tensors by the decoder's names, known to fit its configuration.
type Checked<'a> = BTreeMap<&'a str, StoredTensor<'a>>;

impl<'a> Tensors<'a> {
    fn collect(folder: &Path, files: &'a [TensorFile]) -> Result<Self, WeightsError> {
        let (mut all, mut problems) = (BTreeMap::new(), Vec::new());
        for file in files {
            for (name, tensor) in file.all() {
                if all.insert(name, tensor).is_some() {
                    problems.push(format!("`{}` is stored in two shards", shown(name)));
                }
            }
        }
        match problems.is_empty() {
            true => Ok(Self(all)),
            false => Err(WeightsError::Mismatch { folder: folder.to_path_buf(), problems }),
        }
    }

    /// Compares with what the configuration asks for; everything that differs is one error.
    fn checked(mut self, folder: &Path, config: &ModelConfig) -> Result<Checked<'a>, WeightsError> {
        let mut problems = self.settle_tied_head(config);
        // Buffers that old checkpoints carry; they are computed, never read.
        self.0.retain(|name, _| !name.ends_with("rotary_emb.inv_freq"));
        let expected = parameter_shapes(config, config.n_layers);
        self.compare(&expected, &mut problems);
        match problems.is_empty() {
            true => Ok(self.0),
            false => Err(WeightsError::Mismatch { folder: folder.to_path_buf(), problems }),
        }
    }

    /// Adds a sentence for each tensor that is missing, of another shape or dtype, or not expected.
    fn compare(&self, expected: &[(String, Vec<usize>)], problems: &mut Vec<String>) {
        let difference = |(name, shape): &(String, Vec<usize>)| difference(name, shape, self.0.get(name.as_str()));
        problems.extend(expected.iter().filter_map(difference));
        let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let extra = self.0.keys().filter(|name| !known.contains(*name));
        problems.extend(extra.map(|name| format!("`{}` is stored but not part of this model", shown(name))));
    }

    /// A tied model may store its one matrix as the embedding, as the head, or twice the same.
    fn settle_tied_head(&mut self, config: &ModelConfig) -> Vec<String> {
        if !config.tied {
            return Vec::new();
        }
        let Some(head) = self.0.remove(HEAD) else { return Vec::new() };
        let embedding = *self.0.entry(EMBEDDING).or_insert(head);
        let (one, other) = ((embedding.dtype, embedding.shape), (head.dtype, head.shape));
        if one == other && embedding.bytes == head.bytes {
            return Vec::new();
        }
        vec![format!("`{HEAD}` and `{EMBEDDING}` differ although tie_word_embeddings is true")]
    }
}

/// What is wrong with the tensor that was found where one of this shape is expected.
pub(super) fn difference(name: &str, shape: &[usize], found: Option<&StoredTensor<'_>>) -> Option<String> {
    match found {
        None => Some(format!("`{name}` {shape:?} is missing")),
        Some(tensor) if tensor.shape != shape => {
            Some(format!("`{name}` is {:?}, expected {shape:?}", tensor.shape))
        }
        Some(tensor) if !matches!(tensor.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) => {
            Some(format!("`{name}` is {:?}, expected F32, F16 or BF16", tensor.dtype))
        }
        Some(_) => None,
    }
}

/// One sentence for each tensor with NaN or infinite values.
fn not_finite(config: &ModelConfig, tensors: &Checked<'_>) -> Vec<String> {
    let names = parameter_shapes(config, config.n_layers);
    names.iter().filter_map(|(name, _)| not_finite_tensor(name, tensors.get(name.as_str())?)).collect()
}

/// A sentence where the tensor holds NaN or infinite values.
pub(super) fn not_finite_tensor(name: &str, tensor: &StoredTensor<'_>) -> Option<String> {
    let n = count_not_finite(tensor);
    (n > 0).then(|| format!("`{name}` holds {n} values that are NaN or infinite"))
}

fn count_not_finite(tensor: &StoredTensor<'_>) -> usize {
    // All ones in the exponent, whatever the width.
    let count_16 = |mask: u16| {
        let halves = tensor.bytes.as_chunks::<2>().0.iter();
        halves.filter(|b| u16::from_le_bytes(**b) & mask == mask).count()
    };
    match tensor.dtype {
        Dtype::F16 => count_16(0x7c00),
        Dtype::BF16 => count_16(0x7f80),
        _ => {
            let words = tensor.bytes.as_chunks::<4>().0.iter();
            words.filter(|b| u32::from_le_bytes(**b) & 0x7f80_0000 == 0x7f80_0000).count()
        }
    }
}

/// The values as `dtype`.
pub(super) fn to_data(tensor: StoredTensor<'_>, shape: &[usize], dtype: DType) -> TensorData {
    let (two, four) = (tensor.bytes.as_chunks::<2>().0, tensor.bytes.as_chunks::<4>().0);
    let values: Vec<f32> = match (tensor.dtype, dtype) {
        (Dtype::BF16, DType::BF16) => {
            let values = two.iter().map(|b| bf16::from_le_bytes(*b)).collect();
            return TensorData::new::<bf16, _>(values, shape.to_vec());
        }
        (Dtype::F16, DType::F16) => {
            let values = two.iter().map(|b| f16::from_le_bytes(*b)).collect();
            return TensorData::new::<f16, _>(values, shape.to_vec());
        }
        (Dtype::F16, _) => two.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        (Dtype::BF16, _) => two.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        _ => four.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    };
    match dtype {
        DType::F16 => {
            let values = values.into_iter().map(f16::from_f32).collect();
            TensorData::new::<f16, _>(values, shape.to_vec())
        }
        DType::BF16 => {
            let values = values.into_iter().map(bf16::from_f32).collect();
            TensorData::new::<bf16, _>(values, shape.to_vec())
        }
        _ => TensorData::new(values, shape.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// F3: an index never leads outside its folder.
        #[test]
        fn an_index_stays_inside(name in "(\\.\\./|/|C:\\\\|a/|\\./|\\\\){0,3}[a-z.%]{0,8}(\\.safetensors)?") {
            let folder = Path::new("/nowhere/model");
            let text = serde_json::json!({ "weight_map": { "a": name } }).to_string();
            if let Ok(paths) = shard_paths(folder, Path::new("index.json"), &text) {
                for path in paths {
                    prop_assert!(path.starts_with(folder), "{path:?}");
                    prop_assert!(!path.components().any(|c| c == std::path::Component::ParentDir));
                }
            }
        }
    }

    #[test]
    fn too_many_shards_are_refused() {
        let map: BTreeMap<String, String> =
            (0..100_000).map(|i| (format!("t{i}"), format!("s{i}.safetensors"))).collect();
        let text = serde_json::json!({ "weight_map": map }).to_string();
        let error = shard_paths(Path::new("x"), Path::new("index.json"), &text).unwrap_err();
        assert!(error.to_string().contains("100000 shards"), "{error}");
    }
}
