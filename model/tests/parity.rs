//! Logits, loss and gradients of tiny random models of every family, against transformers.

#![allow(clippy::print_stdout, reason = "measured differences, shown with --nocapture")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fornax_model::weights::{LoadOptions, TensorFile, load};
use fornax_model::{Decoder, KvCache, KvElement, Layout, token_tensor};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity")
}

fn families() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.join("expected.safetensors").exists());
    all.sort();
    assert!(all.len() >= 10, "only {} parity fixtures", all.len());
    all
}

fn floats(file: &TensorFile, name: &str) -> Vec<f32> {
    let tensor = file.get(name).unwrap_or_else(|| panic!("{name} in {}", file.path().display()));
    tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn ids(file: &TensorFile, name: &str) -> Vec<u32> {
    let tensor = file.get(name).unwrap();
    tensor.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
}

fn load_f32(folder: &Path, device: &Device) -> Decoder {
    let options = LoadOptions { dtype: Some(DType::F32), strict: true };
    load(folder, options, device).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).decoder
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_equal_transformers() {
    let device = Device::flex();
    for folder in families() {
        let expected = TensorFile::open(&folder.join("expected.safetensors")).unwrap();
        let tokens = ids(&expected, "tokens");
        let decoder = load_f32(&folder, &device);
        let hidden = decoder.forward(token_tensor(&tokens, 2, &device), &Layout::contiguous(0, 24, &device), None);
        let difference = max_difference(&values(decoder.logits(hidden)), &floats(&expected, "logits"));
        println!("{:24} logits differ by at most {difference:.2e}", folder.file_name().unwrap().display());
        assert!(difference < 1e-4, "{}: {difference}", folder.display());
    }
}

#[test]
fn loss_and_gradients_equal_transformers() {
    let device = Device::flex();
    for folder in families() {
        let expected = TensorFile::open(&folder.join("expected.safetensors")).unwrap();
        if expected.get("loss").is_none() {
            continue; // half-precision copies record logits alone
        }
        let name = folder.file_name().unwrap().display().to_string();
        let (loss, gradients) = loss_and_gradients(&folder, &expected, &device);
        let recorded = floats(&expected, "loss")[0];
        assert!((loss - recorded).abs() < 1e-5, "{name}: loss {loss} against {recorded}");
        let mut worst: f32 = 0.0;
        for (parameter, gradient) in &gradients {
            let recorded = floats(&expected, &format!("grad.{parameter}"));
            let largest = recorded.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            let error = max_difference(gradient, &recorded) / largest;
            assert!(error < 1e-4, "{name}: gradient of {parameter} is off by {error}");
            worst = worst.max(error);
        }
        let recorded = expected.names().filter(|n| n.starts_with("grad.")).count();
        assert_eq!(gradients.len(), recorded, "{name}");
        println!("{name:24} {recorded} gradients differ by at most {worst:.2e}");
    }
}

fn loss_and_gradients(folder: &Path, expected: &TensorFile, device: &Device) -> (f32, BTreeMap<String, Vec<f32>>) {
    let mut decoder = load_f32(folder, device).trainable(true);
    let auto = decoder.device();
    let tokens = token_tensor(&ids(expected, "tokens"), 2, &auto);
    let targets = token_tensor(&ids(expected, "targets"), 2, &auto);
    let mask: Vec<f32> = ids(expected, "mask").iter().map(|&m| m as f32).collect();
    let n: f32 = mask.iter().sum();
    let weights = Tensor::<2>::from_data(TensorData::new(mask, [2, 24]), &auto);
    let hidden = decoder.forward(tokens, &Layout::contiguous(0, 24, &auto), None);
    let loss = decoder.loss(hidden, targets, weights / n);
    let value = loss.clone().into_scalar::<f32>();
    let mut grads = loss.backward();
    let mut all = BTreeMap::new();
    decoder.visit_mut(&mut |name, parameter| {
        let gradient = parameter.take_gradient(&mut grads).unwrap_or_else(|| panic!("no gradient: {name}"));
        all.insert(name.to_string(), values(gradient));
    });
    (value, all)
}

#[test]
fn greedy_continuation_equals_transformers() {
    let device = Device::flex();
    for folder in families() {
        let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let Some(greedy) = json["greedy"]["ids"].as_array() else { continue };
        let greedy: Vec<u32> = greedy.iter().map(|v| v.as_u64().unwrap() as u32).collect();
        let expected = TensorFile::open(&folder.join("expected.safetensors")).unwrap();
        let decoder = load_f32(&folder, &device);
        let mut cache = KvCache::new(decoder.config(), 1, 64, KvElement::F32, &device);
        let mut input = ids(&expected, "tokens")[..8].to_vec();
        for (i, &next) in greedy.iter().enumerate() {
            let layout = Layout::contiguous(cache.len(), input.len(), &device);
            let hidden = decoder.forward(token_tensor(&input, 1, &device), &layout, Some(&mut cache));
            let t = hidden.dims()[1];
            let logits = decoder.logits(hidden.slice_dim(1, t - 1..t));
            let id: Tensor<3, Int> = logits.argmax(2);
            let id = id.into_data().iter::<i64>().next().unwrap() as u32;
            assert_eq!(id, next, "{}: token {i}", folder.display());
            input = vec![id];
        }
    }
}
