//! One DPO step with an adapter whose reference is the model without it, against TRL with PEFT;
//! `tests/fixtures/make/preference_step.py` recorded it.

#![allow(clippy::print_stdout, reason = "measured differences, shown with --nocapture")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use fornax_data::batches::Cursor;
use fornax_data::examples::{Example, Pair};
use fornax_model::Decoder;
use fornax_model::weights::peft::AdapterFolder;
use fornax_model::weights::{LoadOptions, TensorFile, load};
use fornax_post_train::dpo::DpoRecipe;
use fornax_post_train::order::Cut;
use fornax_post_train::preference::{PairLoss, PairObjective, PairReference};
use fornax_post_train::reference::Reference;
use fornax_train::gate::GradientGate;
use fornax_train::objective::Objective;
use fornax_train::optimizer::Optimizer;
use fornax_train::recipe::{OptimizerKind, OptimizerRecipe};
use fornax_train::step::{StepReport, step_over};
use serde_json::Value;

const LR: f64 = 1e-2;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn floats(file: &TensorFile, name: &str) -> Vec<f32> {
    let tensor = file.get(name).unwrap_or_else(|| panic!("{name}"));
    tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn ints(file: &TensorFile, name: &str) -> Vec<i64> {
    file.get(name).unwrap().bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// The recorded pairs.
fn pairs(recorded: &TensorFile) -> Vec<Pair> {
    let [ids, attention, completion] =
        ["ids", "attention_mask", "completion_mask"].map(|name| ints(recorded, name));
    let (rows, columns) = (8, ids.len() / 8);
    let row = |at: usize| {
        let n = attention[at * columns..(at + 1) * columns].iter().sum::<i64>() as usize;
        let of = |x: &[i64]| x[at * columns..at * columns + n].to_vec();
        Example {
            ids: of(&ids).into_iter().map(|id| id as u32).collect(),
            trained: of(&completion).into_iter().map(|trained| trained == 1).collect(),
            row: 1,
        }
    };
    (0..rows / 2).map(|at| Pair { chosen: row(at), rejected: row(at + rows / 2) }).collect()
}

fn policy(checkpointing: bool) -> Decoder {
    let options = LoadOptions { dtype: Some(DType::F32), strict: true };
    let mut decoder = load(&fixtures().join("parity/tinyllama"), options, &Device::flex()).unwrap().decoder;
    AdapterFolder::open(&fixtures().join("peft/lora")).unwrap().attach(&mut decoder, "default").unwrap();
    decoder.set_activation_checkpointing(checkpointing);
    decoder.trainable(true)
}

/// Values of parameters by name.
type Named = BTreeMap<String, Vec<f32>>;

/// A step over all pairs in micro-batches of `rows`: what it reports, the gradients, and the adapter afterwards.
fn step(loss: &PairLoss, pairs: &[Pair], rows: usize, checkpointing: bool) -> (StepReport, Named, Named) {
    let mut decoder = policy(checkpointing);
    let reference = Some(PairReference::Model(Reference::WithoutAdapters));
    let cut = Cut { rows, micro_batches: pairs.len() / rows, seed: 1 };
    let mut objective = PairObjective::new(loss.clone(), pairs.to_vec(), Vec::new(), reference, cut);
    let recipe = OptimizerRecipe {
        beta1: 0.9,
        beta2: Some(0.95),
        weight_decay: 0.0,
        ..OptimizerRecipe::new(OptimizerKind::AdamW, LR)
    };
    let (mut optimizer, mut gate) = (Optimizer::new(&recipe), GradientGate::default());
    let ready = objective.prepare(&decoder, 0, Cursor::default()).unwrap();
    let term = |decoder: &Decoder, i: usize| objective.term(decoder, i);
    let report = step_over(&mut decoder, &mut optimizer, &mut gate, &term, ready.micro_batches, LR, 0.0).unwrap();
    let gradients = optimizer
        .tensors()
        .into_iter()
        .filter_map(|(name, _, tensor)| {
            let name = name.strip_suffix(".exp_avg")?.to_owned();
            Some((name, values(tensor).into_iter().map(|m| m / 0.1).collect()))
        })
        .collect();
    let after =
        decoder.trainable_parameters().into_iter().map(|(name, _, tensor)| (name, values(tensor))).collect();
    (report, gradients, after)
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_dpo_step_with_an_adapter_equals_trl() {
    let folder = fixtures().join("preference");
    let recorded = TensorFile::open(&folder.join("step.safetensors")).unwrap();
    let json: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("step.json")).unwrap()).unwrap();
    let pairs = pairs(&recorded);
    for (name, case) in json["cases"].as_object().unwrap() {
        let recipe = DpoRecipe {
            beta: json["beta"].as_f64().unwrap(),
            loss: serde_json::from_value(case["loss_types"].clone()).unwrap(),
            loss_weights: Some(serde_json::from_value(case["loss_weights"].clone()).unwrap()),
            ..DpoRecipe::default()
        };
        let loss = PairLoss::Dpo(recipe);
        for (rows, checkpointing) in [(4, false), (1, false), (2, true)] {
            let (report, gradients, after) = step(&loss, &pairs, rows, checkpointing);
            let line = format!("{name}, {} x {rows}, checkpointing {checkpointing}", 4 / rows);
            let expected = case["loss"].as_f64().unwrap();
            assert!((report.loss - expected).abs() < 1e-5 * expected.max(1.0), "{line}: loss {}", report.loss);
            for (key, expected) in case["metrics"].as_object().unwrap() {
                if key == "num_tokens" {
                    continue; // the loop counts them
                }
                let (found, expected) = (report.metrics[key], expected.as_f64().unwrap());
                let bound = 1e-4 * expected.abs().max(0.1);
                assert!((found - expected).abs() < bound, "{line}: {key} {found}, TRL has {expected}");
            }
            let (mut worst, mut moved) = (0.0f32, 0.0f32);
            assert_eq!(gradients.len(), 8, "{line}");
            for (parameter, gradient) in &gradients {
                let at = |what: &str| floats(&recorded, &format!("{name}.{what}.base_model.model.{parameter}"));
                let expected = at("grad");
                let scale = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                worst = worst.max(largest_difference(gradient, &expected) / scale);
                moved = moved.max(largest_difference(&after[parameter], &at("after")));
            }
            println!("{line}: gradients off by {worst:.1e} of the largest, parameters by {moved:.1e}");
            assert!(worst < 1e-4, "{line}: gradients off by {worst}");
            assert!(moved < 1e-4, "{line}: parameters off by {moved} after a step of {LR}");
        }
    }
}
