//! The recorded adapters.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor};
use fornax_model::packed::Packing;
use fornax_model::weights::TensorFile;
use serde_json::Value;

/// One recorded adapter.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) base: PathBuf,
    /// The form that the base is loaded in, for one that this form keeps exactly.
    pub(crate) packing: Option<Packing>,
    pub(crate) expected: TensorFile,
    pub(crate) json: Value,
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/peft")
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The adapters, over dense bases and over those that packing keeps as they are.
pub(crate) fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("adapter_config.json").exists())
        .map(|folder| {
            let json = json(&folder.join("expected.json"));
            let base = fixtures().join("..").join(json["base"].as_str().unwrap());
            let expected = TensorFile::open(&folder.join("expected.safetensors")).unwrap();
            let name = folder.file_name().unwrap().display().to_string();
            let packing = name.strip_prefix("qlora-").map(|form| {
                let block = json["block"].as_u64().unwrap() as usize;
                Packing::new(form.parse().unwrap(), block).unwrap()
            });
            Case { name, folder, base, packing, expected, json }
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(all.len() >= 20, "{} recorded adapters", all.len());
    all
}

pub(crate) fn floats(file: &TensorFile, name: &str) -> Vec<f32> {
    let tensor = file.get(name).unwrap_or_else(|| panic!("{name} is not recorded"));
    tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

pub(crate) fn ids(file: &TensorFile, name: &str) -> Vec<u32> {
    let tensor = file.get(name).unwrap_or_else(|| panic!("{name} is not recorded"));
    tensor.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_to_vec::<f32>().unwrap()
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
