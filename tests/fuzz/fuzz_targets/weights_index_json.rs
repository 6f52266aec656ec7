//! F3: a shard index never leads outside its folder.
//!
//! Two valid shards lie ready: `inside.safetensors` in the model folder and `outside.safetensors` above it. Loading
//! must never reach the second, and no path it speaks of may lie elsewhere.
#![no_main]

use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use fornax_base::files::FileError;
use fornax_model::device::{DeviceName, Kind, open};
use fornax_model::weights::{LoadOptions, WeightsError, load};
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 32}"#;

fuzz_target!(|bytes: &[u8]| {
    let model = model_folder();
    std::fs::write(model.join("model.safetensors.index.json"), bytes).unwrap();
    let options = LoadOptions { dtype: None, strict: false };
    let (device, _) = open(DeviceName::Named(Kind::Cpu, 0)).unwrap();
    match load(model, options, &device) {
        // One tensor is not a model, whatever the index says.
        Ok(_) => panic!("an index made a model of two tensors"),
        Err(WeightsError::Mismatch { problems, .. }) => {
            assert!(problems.iter().all(|problem| !problem.contains("outside")), "{problems:?}");
        }
        Err(WeightsError::File(
            FileError::Io { path, .. }
            | FileError::NotAFile { path, .. }
            | FileError::TooLarge { path, .. }
            | FileError::Empty { path }
            | FileError::NotText { path, .. },
        )) => check(model, &path),
        Err(WeightsError::Format { path, .. } | WeightsError::Index { path, .. }) => check(model, &path),
        Err(_) => {}
    }
});

fn check(model: &Path, path: &Path) {
    assert!(path.starts_with(model), "{path:?}");
    assert!(!path.components().any(|part| part == Component::ParentDir), "{path:?}");
}

fn model_folder() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let model = fornax_fuzz::folder().join("model");
        std::fs::create_dir(&model).unwrap();
        std::os::unix::fs::symlink("..", model.join("link")).unwrap();
        std::fs::write(model.join("config.json"), CONFIG).unwrap();
        std::fs::write(model.join("inside.safetensors"), shard("inside")).unwrap();
        std::fs::write(fornax_fuzz::folder().join("outside.safetensors"), shard("outside")).unwrap();
        model
    })
}

/// A file of one tensor.
fn shard(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 4]);
    bytes
}
