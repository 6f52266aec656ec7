//! Writing a model folder.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Tensor};
use fornax_base::files::{FileError, FileSystem, write_atomic, write_atomic_bytes};

use super::{WeightsError, write_tensors};
use crate::decoder::Decoder;

/// Writes `config.json`, `generation_config.json` and the weights of `decoder` as `dtype` into `folder`, which must exist: one
/// `model.safetensors`, or shards of at most `shard_bytes` with an index. Each file appears complete or
/// not at all; the configuration comes last, so that a folder with one is whole. The other form of an earlier
/// save (one file, or an index) is removed.
///
/// # Errors
/// [`WeightsError::File`]; [`WeightsError::Adapted`] and [`WeightsError::Packed`] before anything is written.
pub fn save(
    fs: &dyn FileSystem,
    decoder: &Decoder,
    dtype: DType,
    shard_bytes: u64,
    folder: &Path,
) -> Result<(), WeightsError> {
    let adapters = decoder.adapters().count();
    if adapters > 0 {
        return Err(WeightsError::Adapted { folder: folder.to_path_buf(), adapters });
    }
    let packed = decoder.packed().len();
    if packed > 0 {
        return Err(WeightsError::Packed { folder: folder.to_path_buf(), packed });
    }
    let shards = split(decoder.parameters(), dtype.size() as u64, shard_bytes);
    let write =
        |path: &Path, tensors: &[Named]| write_atomic(fs, path, &mut |out| write_tensors(tensors, dtype, out));
    let (single, index_path) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
    if let [only] = shards.as_slice() {
        write(&single, only)?;
        remove(fs, &index_path)?;
    } else {
        let (mut map, n) = (BTreeMap::new(), shards.len());
        for (i, shard) in shards.iter().enumerate() {
            let file = format!("model-{:05}-of-{n:05}.safetensors", i + 1);
            write(&folder.join(&file), shard)?;
            map.extend(shard.iter().map(|(name, _, _)| (name.clone(), file.clone())));
        }
        let total: u64 = shards.iter().flatten().map(|t| bytes(t, dtype.size() as u64)).sum();
        let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
        let text = serde_json::to_string_pretty(&index).unwrap_or_default() + "\n";
        write_atomic_bytes(fs, &index_path, text.as_bytes())?;
        remove(fs, &single)?;
    }
    let mut config = decoder.config().clone();
    config.dtype = dtype;
    let generation = folder.join("generation_config.json");
    if !generation.exists() {
        // What stands there already may hold the sampling settings of the model's maker.
        write_atomic_bytes(fs, &generation, config.to_generation_json().as_bytes())?;
    }
    write_atomic_bytes(fs, &folder.join("config.json"), config.to_hf_json().as_bytes())?;
    Ok(())
}

/// A single file wins over an index when loading, so the form that is not written now must not stay.
fn remove(fs: &dyn FileSystem, path: &Path) -> Result<(), WeightsError> {
    match fs.remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::Io { op: "remove", path: path.to_path_buf(), source }.into())
        }
        _ => Ok(()),
    }
}

type Named = (String, Vec<usize>, Tensor<1>);

fn bytes((_, shape, _): &Named, element: u64) -> u64 {
    shape.iter().map(|&d| d as u64).product::<u64>() * element
}

/// Fills shards in order; a tensor larger than the limit gets one of its own.
fn split(tensors: Vec<Named>, element: u64, limit: u64) -> Vec<Vec<Named>> {
    let mut shards: Vec<Vec<Named>> = vec![Vec::new()];
    let mut used = 0;
    for tensor in tensors {
        let size = bytes(&tensor, element);
        if used > 0 && used + size > limit {
            shards.push(Vec::new());
            used = 0;
        }
        used += size;
        if let Some(last) = shards.last_mut() {
            last.push(tensor);
        }
    }
    shards
}
