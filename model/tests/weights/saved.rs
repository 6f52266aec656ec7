//! C9 and round trips: what is saved reads back to the bit.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device};
use fornax_base::files::RealFs;
use fornax_model::packed::{Codes, Packing};
use fornax_model::weights::{LoadOptions, TensorFile, load, load_packed, read_config, save};
use fornax_model::{Decoder, ModelConfig};
use half::{bf16, f16};
use serde_json::{Value, json};

use super::folder::{Folder, INDEX, SINGLE, fixtures, names_and_bytes, parameters, parity, tensors_of};

const ONE_FILE: u64 = 1 << 30;

fn load_as(folder: &Path, dtype: Option<DType>) -> Decoder {
    let options = LoadOptions { dtype, strict: true };
    load(folder, options, &Device::flex()).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).decoder
}

fn save_to(folder: &Path, decoder: &Decoder, dtype: DType, shard_bytes: u64) {
    save(&RealFs, decoder, dtype, shard_bytes, folder).unwrap();
}

/// The header of a safetensors file as text.
fn header(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    String::from_utf8(bytes[8..8 + length].to_vec()).unwrap()
}

fn all_bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    files.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(p).unwrap())).collect()
}

/// The dtype a fixture is stored in.
fn stored_dtype(fixture: &Path) -> DType {
    match fixture.file_name().unwrap().to_str().unwrap() {
        "llama3-f16" => DType::F16,
        "llama3-bf16" => DType::BF16,
        _ => DType::F32,
    }
}

#[test]
fn every_fixture_keeps_its_bits_in_its_own_dtype() {
    for fixture in fixtures() {
        let folder = Folder::new();
        let dtype = stored_dtype(&fixture);
        let decoder = load_as(&fixture, None);
        save_to(folder.path(), &decoder, dtype, ONE_FILE);
        assert_eq!(names_and_bytes(folder.path()), names_and_bytes(&fixture), "{}", fixture.display());
        let config = read_config(folder.path()).unwrap();
        assert_eq!(config, read_config(&fixture).unwrap());
        assert_eq!(config.dtype, dtype);
        assert_eq!(parameters(&load_as(folder.path(), None)), parameters(&decoder));
    }
}

#[test]
fn every_fixture_keeps_its_values_in_f32() {
    for fixture in fixtures() {
        let folder = Folder::new();
        save_to(folder.path(), &load_as(&fixture, Some(DType::F32)), DType::F32, ONE_FILE);
        let widened = |bytes: Vec<u8>| -> Vec<u8> {
            let halves = bytes.as_chunks::<2>().0.iter();
            match stored_dtype(&fixture) {
                DType::F16 => halves.flat_map(|b| f16::from_le_bytes(*b).to_f32().to_le_bytes()).collect(),
                DType::BF16 => halves.flat_map(|b| bf16::from_le_bytes(*b).to_f32().to_le_bytes()).collect(),
                _ => bytes,
            }
        };
        let stored = names_and_bytes(&fixture).into_iter();
        let expected: BTreeMap<_, _> = stored.map(|(name, bytes)| (name, widened(bytes))).collect();
        assert_eq!(names_and_bytes(folder.path()), expected, "{}", fixture.display());
    }
}

#[test]
fn a_saved_header_is_what_transformers_asks_for() {
    let folder = Folder::new();
    save_to(folder.path(), &load_as(&parity("llama3-bf16"), None), DType::BF16, ONE_FILE);
    let text = header(&folder.path().join(SINGLE));
    assert_eq!(text.matches("__metadata__").count(), 1);
    assert!(text.len().is_multiple_of(8), "the data stand unaligned after {} bytes", text.len());
    let parsed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["__metadata__"], json!({"format": "pt"}));
    for tensor in tensors_of(&parity("llama3-bf16").join(SINGLE)) {
        assert_eq!(parsed[&tensor.name]["dtype"], "BF16");
        assert_eq!(parsed[&tensor.name]["shape"], json!(tensor.shape));
    }
    let names: Vec<String> = all_bytes(folder.path()).into_keys().collect();
    assert_eq!(names, ["config.json", "generation_config.json", SINGLE]);
}

#[test]
fn saving_twice_gives_equal_bytes() {
    for shard_bytes in [ONE_FILE, 40_000] {
        let (one, two) = (Folder::new(), Folder::new());
        let decoder = load_as(&parity("qwen3"), None);
        save_to(one.path(), &decoder, DType::F32, shard_bytes);
        save_to(two.path(), &decoder, DType::F32, shard_bytes);
        save_to(two.path(), &load_as(two.path(), None), DType::F32, shard_bytes);
        assert_eq!(all_bytes(one.path()), all_bytes(two.path()));
    }
}

#[test]
fn shards_load_back_equal() {
    for (fixture, limit) in [("llama2", 30_000), ("smollm2", 1), ("llama3-bf16", 20_000), ("qwen2", 100_000)] {
        let (folder, fixture) = (Folder::new(), parity(fixture));
        let decoder = load_as(&fixture, None);
        save_to(folder.path(), &decoder, stored_dtype(&fixture), limit);
        let files = all_bytes(folder.path());
        let index: Value = serde_json::from_slice(&files[INDEX]).unwrap();
        let n = files.keys().filter(|name| name.ends_with(".safetensors")).count();
        assert!(n > 1, "one shard");
        let (mut total, mut names) = (0, 0);
        for i in 1..=n {
            let shard = format!("model-{i:05}-of-{n:05}.safetensors");
            let tensors = tensors_of(&folder.path().join(&shard));
            let bytes: usize = tensors.iter().map(|tensor| tensor.bytes.len()).sum();
            assert!(tensors.len() == 1 || bytes <= limit as usize, "{shard} holds {bytes} bytes");
            assert!(tensors.iter().all(|tensor| index["weight_map"][&tensor.name] == json!(shard)));
            (total, names) = (total + bytes, names + tensors.len());
        }
        assert_eq!(index["metadata"]["total_size"], json!(total));
        assert_eq!(index["weight_map"].as_object().unwrap().len(), names);
        assert_eq!(names_and_bytes(folder.path()), names_and_bytes(&fixture));
        assert_eq!(parameters(&load_as(folder.path(), None)), parameters(&decoder));
    }
}

/// C9 (safetensors issue 764): a file saved over the map it was loaded from is whole, and the map stays.
#[test]
fn c9_saving_over_what_is_mapped() {
    let folder = Folder::of("llama2");
    let path = folder.path().join(SINGLE);
    let before = names_and_bytes(folder.path());
    let mapped = TensorFile::open(&path).unwrap();
    let decoder = load_as(folder.path(), None);
    save_to(folder.path(), &decoder, DType::F32, ONE_FILE);
    assert_eq!(names_and_bytes(folder.path()), before);
    assert!(mapped.names().all(|name| mapped.get(name).unwrap().bytes == before[name]));
    save_to(folder.path(), &decoder, DType::BF16, ONE_FILE);
    assert!(mapped.names().all(|name| mapped.get(name).unwrap().bytes == before[name]));
    let folder = Folder::of("llama3-sharded");
    let before = names_and_bytes(folder.path());
    save_to(folder.path(), &load_as(folder.path(), None), DType::F32, 48_000);
    assert_eq!(parameters(&load_as(folder.path(), None)).len(), before.len());
    assert!(parameters(&load_as(folder.path(), None)) == before);
}

/// What is saved is what is loaded, whichever form an earlier save left behind.
#[test]
fn an_earlier_save_of_the_other_form_does_not_win() {
    let (older, newer) = (load_as(&parity("llama2"), None), load_as(&parity("tinyllama"), None));
    for (before, after) in [(ONE_FILE, 30_000), (30_000, ONE_FILE), (30_000, 50_000), (50_000, 30_000)] {
        let folder = Folder::new();
        save_to(folder.path(), &older, DType::F32, before);
        save_to(folder.path(), &newer, DType::F32, after);
        assert!(parameters(&folder.loads()) == parameters(&newer), "{before} then {after}");
    }
}

/// A decoder that was never a file: random weights.
#[test]
fn random_weights_load_back_equal() {
    let mut config = ModelConfig::llama(3);
    (config.vocab_size, config.width, config.ffn_width, config.context) = (50, 24, 40, 32);
    (config.n_heads, config.n_kv_heads, config.head_dim) = (4, 2, 6);
    let folder = Folder::new();
    let decoder = Decoder::init(&config, 7, &Device::flex());
    save_to(folder.path(), &decoder, DType::F32, ONE_FILE);
    let loaded = folder.loads();
    assert_eq!(loaded.config(), &config);
    assert!(parameters(&loaded) == parameters(&decoder));
}

#[test]
fn a_packed_model_is_what_packing_the_loaded_one_gives_and_is_not_written() {
    for (fixture, dtype) in [("llama-odd", None), ("llama3-bf16", None), ("qwen2", Some(DType::F32))] {
        let (fixture, packing) = (parity(fixture), Packing::new(Codes::Nf4, 16).unwrap());
        let options = LoadOptions { dtype, strict: true };
        let packed = load_packed(&fixture, options, packing, &Device::flex()).unwrap().decoder;
        let after = load_as(&fixture, dtype).quantized(packing);
        let parts = |decoder: &Decoder| -> Vec<_> {
            decoder.packed().into_iter().map(|(name, weight)| (name, weight.shape(), weight.parts())).collect()
        };
        assert_eq!(parts(&packed), parts(&after));
        assert_eq!(parts(&packed).len(), 7 * packed.config().n_layers);
        assert_eq!(parameters(&packed), parameters(&after));
        assert_eq!(packed.bytes(), after.bytes());
        let names = |decoder: &Decoder| -> Vec<String> { decoder.parameters().into_iter().map(|p| p.0).collect() };
        assert!(names(&packed).iter().all(|name| !name.ends_with("_proj.weight")));
        let dense = packed.clone().in_dtype(DType::F32);
        assert_eq!(names(&dense), names(&load_as(&fixture, dtype)));
        let folder = Folder::new();
        let error = save(&RealFs, &packed, DType::F32, ONE_FILE, folder.path()).unwrap_err().to_string();
        let n = parts(&packed).len();
        assert!(error.starts_with(&format!("a model with {n} packed weights is not written to")), "{error}");
        assert!(all_bytes(folder.path()).is_empty(), "a refused save leaves nothing");
        save_to(folder.path(), &dense, DType::F32, ONE_FILE);
    }
}
