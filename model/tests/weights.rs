//! Strangers' weight files on real folders: what is read, what is refused, how the refusal reads, and that
//! what is written reads back to the bit.

#![allow(clippy::print_stdout, reason = "a test that is passed over says so")]

#[path = "weights/folder.rs"]
mod folder;
#[path = "weights/malformed.rs"]
mod malformed;
#[path = "weights/mismatched.rs"]
mod mismatched;
#[path = "weights/saved.rs"]
mod saved;
#[path = "weights/sharded.rs"]
mod sharded;

use std::path::Path;

use burn::tensor::{DType, Device};
use folder::{Folder, names_and_bytes, parity};
use fornax_model::weights::{LoadOptions, load};

/// A real checkpoint that stores its one matrix as `lm_head.weight` alone.
#[test]
fn a_real_tied_checkpoint_loads() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/tinystories-656k-hf");
    if !data.exists() {
        assert!(
            std::env::var_os("FORNAX_REQUIRE_DATA").is_none_or(|v| v != "1"),
            "{} is required",
            data.display()
        );
        println!("{} is absent: nothing to check", data.display());
        return;
    }
    let options = LoadOptions { dtype: None, strict: true };
    let loaded = load(&data, options, &Device::flex()).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let parameters = loaded.decoder.parameters();
    let n: usize = parameters.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
    assert_eq!(n as u64, loaded.decoder.config().n_parameters());
    assert_eq!(n, 656_000);
    let stored = names_and_bytes(&data);
    assert!(!stored.contains_key("model.embed_tokens.weight"));
    assert_eq!(parameters[0].0, "model.embed_tokens.weight");
    let embedding = parameters[0].2.clone().into_data();
    assert_eq!(embedding.as_bytes(), stored["lm_head.weight"]);
}

#[test]
fn a_folder_that_is_no_model_says_so() {
    let folder = Folder::new();
    let message = folder.refused();
    assert!(message.contains("is not a model folder: it has no config.json"), "{message}");
    folder.copy(&parity("llama2"), "config.json");
    let message = folder.refused();
    assert!(message.contains("has no model.safetensors and no model.safetensors.index.json"), "{message}");
    let absent = folder.path().join("absent");
    let options = LoadOptions { dtype: Some(DType::F32), strict: false };
    let error = load(&absent, options, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("absent` is not a model folder"), "{error}");
}
