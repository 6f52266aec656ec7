//! Adapter folders in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Settings that would change the numbers and are not computed are refused by name; every other setting that PEFT
//! 0.21 knows is accepted.

mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor};
use fornax_base::files::{FileSystem, create_folder, write_atomic, write_atomic_bytes};
use safetensors::tensor::Dtype;

use super::read::{difference, not_finite_tensor, to_data};
use super::{StoredTensor, TensorFile, WeightsError, write_tensors};
use crate::adapter::{AdapterConfig, AdapterError, AdapterId, Change, ModuleKind, Planned, plan};
use crate::config::shown;
use crate::decoder::Decoder;

pub use settings::{CONFIG_FILE, read_config, to_json};

/// The file of tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts before the name of every module.
const PREFIX: &str = "base_model.model.";

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
