//! Ten AdamW steps on tiny random models of every family, against transformers with torch.optim.AdamW.

#![allow(clippy::print_stdout, reason = "the figures belong to the result of a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use fornax_data::batches::Batch;
use fornax_model::Decoder;
use fornax_model::weights::{LoadOptions, TensorFile, load};
use fornax_train::gate::GradientGate;
use fornax_train::optimizer::Optimizer;
use fornax_train::recipe::{OptimizerKind, OptimizerRecipe};
use fornax_train::step::{next_token, train_step};

/// Largest difference of a loss, in nats.
const LOSS: f64 = 1e-5;
/// Largest difference of a parameter, relative to how far ten steps moved it (L2).
const CHANGE: f64 = 1e-3;
const ROWS: usize = 2;
const COLUMNS: usize = 24;

/// The fixtures that record an optimizer run: (name, folder, what transformers computed).
fn fixtures() -> Vec<(String, PathBuf, TensorFile)> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut found = Vec::new();
    for folder in folders {
        let expected = TensorFile::open(&folder.join("expected.safetensors")).unwrap();
        if expected.get("adamw.losses").is_some() {
            found.push((folder.file_name().unwrap().display().to_string(), folder, expected));
        }
    }
    assert!(found.len() >= 13, "only {} fixtures record AdamW steps", found.len());
    found
}

fn floats(file: &TensorFile, name: &str) -> Vec<f32> {
    let tensor = file.get(name).unwrap_or_else(|| panic!("{name} in {}", file.path().display()));
    tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn ids(file: &TensorFile, name: &str) -> Vec<u32> {
    let tensor = file.get(name).unwrap();
    tensor.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
}

fn batch(expected: &TensorFile) -> Batch {
    Batch {
        rows: ROWS,
        columns: COLUMNS,
        inputs: ids(expected, "tokens"),
        targets: ids(expected, "targets"),
        mask: ids(expected, "mask").iter().map(|&trained| trained == 1).collect(),
        positions: (0..ROWS).flat_map(|_| 0..COLUMNS as u32).collect(),
        documents: None,
    }
}

fn parameters(decoder: &Decoder) -> BTreeMap<String, Vec<f32>> {
    let values = |tensor: burn::tensor::Tensor<1>| tensor.try_into_vec_as::<f32>().unwrap();
    decoder.parameters().into_iter().map(|(name, _, tensor)| (name, values(tensor))).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn ten_adamw_steps_equal_transformers() {
    let recipe = OptimizerRecipe { clip_norm: 0.0, ..OptimizerRecipe::new(OptimizerKind::AdamW, 1e-4) };
    for (name, folder, expected) in fixtures() {
        let options = LoadOptions { dtype: Some(DType::F32), strict: true };
        let mut decoder = load(&folder, options, &Device::flex()).unwrap().decoder.trainable(true);
        let (mut optimizer, mut gate) = (Optimizer::new(&recipe), GradientGate::default());
        let (before, batch) = (parameters(&decoder), [batch(&expected)]);
        let mut worst_loss: f64 = 0.0;
        for (step, &recorded) in floats(&expected, "adamw.losses").iter().enumerate() {
            let report = train_step(
                &mut decoder,
                &mut optimizer,
                &mut gate,
                &next_token,
                &batch,
                recipe.lr,
                recipe.clip_norm,
            )
            .unwrap();
            let difference = (report.loss - f64::from(recorded)).abs();
            assert!(difference < LOSS, "{name} step {step}: loss {} against {recorded}", report.loss);
            worst_loss = worst_loss.max(difference);
        }
        assert_eq!(optimizer.updates(), 10);
        let mut worst = (0.0, String::new());
        for (parameter, after) in parameters(&decoder) {
            let recorded = floats(&expected, &format!("adamw.after.{parameter}"));
            let change = distance(&recorded, &before[&parameter]);
            let error = distance(&after, &recorded) / change;
            assert!(change > 0.0 && error < CHANGE, "{name}: {parameter} is off by {error} of its change");
            if error >= worst.0 {
                worst = (error, parameter);
            }
        }
        let recorded = expected.names().filter(|name| name.starts_with("adamw.after.")).count();
        assert_eq!(before.len(), recorded, "{name}");
        println!("{name:16} loss {worst_loss:.1e}, change {:.1e} at {}", worst.0, worst.1);
    }
}
