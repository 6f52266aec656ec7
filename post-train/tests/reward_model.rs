//! A reward model against transformers' `LlamaForSequenceClassification`, there and back, and one that learns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use fornax_base::files::RealFs;
use fornax_base::rng::rng;
use fornax_data::batches::Cursor;
use fornax_data::examples::{Example, Pair};
use fornax_model::weights::{LoadOptions, TensorFile, WeightsError, load, load_reward_model, save};
use fornax_model::{Decoder, ModelConfig};
use fornax_post_train::order::Cut;
use fornax_post_train::reward::{RewardObjective, RewardRecipe};
use fornax_train::gate::GradientGate;
use fornax_train::objective::Objective;
use fornax_train::optimizer::Optimizer;
use fornax_train::recipe::{OptimizerKind, OptimizerRecipe};
use fornax_train::step::{StepReport, step_over};

/// transformers stores the last norm, blocks and embedding under these names, as a language model does.
const OPTIONS: LoadOptions = LoadOptions { dtype: Some(DType::F32), strict: true };

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/reward-model")
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

#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance * scale, "{what}: {found}, transformers has {expected}");
    }
}

/// The recorded rows as three pairs.
fn recorded_pairs(expected: &TensorFile) -> Vec<Pair> {
    let (ids, attention) = (ints(expected, "ids"), ints(expected, "attention_mask"));
    let columns = ids.len() / 6;
    let row = |at: usize| {
        let n = attention[at * columns..(at + 1) * columns].iter().sum::<i64>() as usize;
        let ids: Vec<u32> = ids[at * columns..][..n].iter().map(|&id| id as u32).collect();
        Example { trained: vec![false; n], ids, row: 1 }
    };
    (0..3).map(|at| Pair { chosen: row(at), rejected: row(at + 3) }).collect()
}

#[test]
fn rewards_and_gradients_equal_transformers() {
    let expected = TensorFile::open(&folder().join("expected.safetensors")).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder().join("expected.json")).unwrap()).unwrap();
    let decoder = load_reward_model(&folder(), OPTIONS, &Device::flex()).unwrap().decoder.trainable(true);
    let cut = Cut { rows: 3, micro_batches: 1, seed: 1 };
    let pairs = recorded_pairs(&expected);
    let mut objective = RewardObjective::new(RewardRecipe::default(), pairs, Vec::new(), cut);
    objective.prepare(&decoder, 0, Cursor::default()).unwrap();
    let term = objective.term(&decoder, 0).unwrap();
    assert_eq!(term.weight, 3.0);
    let mean = term.loss_sum / 3.0;
    close("loss", &values(mean.clone()), &[json["loss"].as_f64().unwrap() as f32], 1e-5);
    let gradients = decoder.backward(&mean);
    let mut compared = 0;
    for (name, gradient) in gradients {
        if expected.get(&format!("grad.{name}")).is_some() {
            close(&name, &values(gradient), &floats(&expected, &format!("grad.{name}")), 1e-4);
            compared += 1;
        }
    }
    assert_eq!(compared, 5);
    let metric = |name: &str| {
        let metric = term.metrics.iter().find(|metric| metric.name == name).unwrap();
        values(metric.sum.clone())[0] / metric.weight as f32
    };
    let rewards = floats(&expected, "rewards");
    close("mean", &[metric("mean_reward")], &[rewards.iter().sum::<f32>() / 6.0], 1e-4);
    close("least", &[metric("min_reward")], &[rewards[1]], 1e-4);
    close("most", &[metric("max_reward")], &[rewards[0]], 1e-4);
    assert_eq!(metric("accuracy"), 1.0 / 3.0);
}

#[test]
fn a_saved_reward_model_is_one_and_nothing_else() {
    let decoder = load_reward_model(&folder(), OPTIONS, &Device::flex()).unwrap().decoder;
    let copy = tempfile::tempdir().unwrap();
    save(&RealFs, &decoder, DType::F32, 1 << 30, copy.path()).unwrap();
    let again = load_reward_model(copy.path(), OPTIONS, &Device::flex()).unwrap().decoder;
    let all = |decoder: &Decoder| -> Vec<(String, Vec<f32>)> {
        decoder.parameters().into_iter().map(|(name, _, tensor)| (name, values(tensor))).collect()
    };
    assert_eq!(all(&again), all(&decoder));
    assert_eq!(again.config(), decoder.config());
    let json = std::fs::read_to_string(copy.path().join("config.json")).unwrap();
    assert!(json.contains("\"LlamaForSequenceClassification\"") && json.contains("\"id2label\""), "{json}");
    let error = load(copy.path(), OPTIONS, &Device::flex()).unwrap_err();
    assert!(matches!(error, WeightsError::RewardModel { .. }), "{error}");
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity/tinyllama");
    let error = load_reward_model(&plain, OPTIONS, &Device::flex()).unwrap_err();
    assert!(
        error.to_string().ends_with("is LlamaForCausalLM, expected LlamaForSequenceClassification"),
        "{error}"
    );
    let two = json.replace("\"0\": \"LABEL_0\"", "\"0\": \"LABEL_0\", \"1\": \"LABEL_1\"");
    let error = ModelConfig::from_hf_json(&two).unwrap_err().to_string();
    assert!(error.contains("num_labels = 2") && error.contains("1, a reward model"), "{error}");
}

/// Texts that end in a low or a high token.
fn pairs(n: usize, purpose: &str) -> Vec<Pair> {
    let mut random = rng(5, 0, purpose);
    let mut text = |from: u32| {
        let mut ids: Vec<u32> = (0..1 + random.below(8)).map(|_| random.below(40) as u32).collect();
        ids.push(from + random.below(20) as u32);
        Example { trained: vec![true; ids.len()], ids, row: 1 }
    };
    (0..n).map(|_| Pair { chosen: text(0), rejected: text(20) }).collect()
}

fn learned(cut: Cut, tied: bool) -> (RewardObjective, Decoder, Vec<StepReport>) {
    let config = ModelConfig {
        vocab_size: 40,
        width: 16,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 4,
        ffn_width: 24,
        context: 16,
        tied,
        ..ModelConfig::llama(2)
    };
    let model = Decoder::init(&config, 3, &Device::flex()).into_reward_model(7);
    let mut decoder = model.trainable(true);
    let recipe = RewardRecipe { center_rewards_coefficient: 0.01 };
    let mut objective = RewardObjective::new(recipe, pairs(40, "train"), pairs(20, "held out"), cut);
    let mut optimizer = Optimizer::new(&OptimizerRecipe::new(OptimizerKind::AdamW, 3e-3));
    let (mut gate, mut cursor) = (GradientGate::default(), Cursor::default());
    let reports = (0..20)
        .map(|step| {
            let ready = objective.prepare(&decoder, step, cursor).unwrap();
            cursor = ready.cursor;
            let term = |decoder: &Decoder, i: usize| objective.term(decoder, i);
            step_over(&mut decoder, &mut optimizer, &mut gate, &term, ready.micro_batches, 3e-3, 1.0).unwrap()
        })
        .collect();
    (objective, decoder.trainable(false), reports)
}

#[test]
fn a_reward_model_learns_and_does_not_see_the_cut() {
    for tied in [true, false] {
        let (mut objective, decoder, one) = learned(Cut { rows: 8, micro_batches: 1, seed: 2 }, tied);
        let after = objective.evaluate(&decoder).unwrap().unwrap();
        assert_eq!(after.weight, 20);
        assert!(after.metrics["accuracy"] > 0.9 && after.metrics["margin"] > 0.1, "{after:?}");
        let names: BTreeMap<_, _> =
            decoder.parameters().into_iter().map(|(name, shape, _)| (name, shape)).collect();
        assert_eq!(names.get("score.weight"), Some(&vec![1, 16]));
        assert!(!names.contains_key("lm_head.weight"));
        let (_, _, eight) = learned(Cut { rows: 1, micro_batches: 8, seed: 2 }, tied);
        for (one, eight) in one.iter().zip(&eight) {
            assert_eq!((one.weight, eight.weight), (8.0, 8.0));
            assert!((one.loss - eight.loss).abs() < 1e-4, "{} in one, {} in eight", one.loss, eight.loss);
        }
    }
}
