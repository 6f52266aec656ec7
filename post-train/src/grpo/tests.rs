//! Advantages, losses, gradients and metrics against TRL (`tests/fixtures/make/grpo.py` recorded them); and a model of a
//! few thousand parameters that learns what is rewarded.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use fornax_data::batches::Cursor;
use fornax_data::chat::Json;
use fornax_data::examples::Prompt;
use fornax_data::tokenizer::Tokenizer;
use fornax_model::adapter::{AdapterConfig, Targets};
use fornax_model::weights::TensorFile;
use fornax_model::{Decoder, ModelConfig};
use fornax_train::gate::GradientGate;
use fornax_train::objective::{Metrics, Objective};
use fornax_train::optimizer::Optimizer;
use fornax_train::recipe::{OptimizerKind, OptimizerRecipe};
use fornax_train::step::{StepReport, step_over};
use serde_json::{Value, json};

use super::*;
use crate::reference::Reference;
use crate::rewards::{RewardRecipe, Rewards};

const VALUE: f64 = 1e-5;
const GRADIENT: f64 = 1e-6;

fn recorded(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/fixtures/grpo/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64, what: &str) {
    assert!((found - expected).abs() < tolerance, "{what}: {found} against {expected}");
}

/// A reward that a function left out counts as 0 in TRL's sum, as it does here.
#[test]
fn advantages_are_those_of_trl() {
    let file = recorded("advantages");
    let group = file["group_size"].as_u64().unwrap() as usize;
    let cases: BTreeMap<String, Value> = serde_json::from_value(file["cases"].clone()).unwrap();
    assert_eq!(cases.len(), 8);
    for (name, case) in cases {
        let weights: Vec<f64> = serde_json::from_value(case["reward_weights"].clone()).unwrap();
        let rows: Vec<Vec<Option<f64>>> = serde_json::from_value(case["rewards"].clone()).unwrap();
        let total = |row: &Vec<Option<f64>>| -> f64 {
            row.iter().zip(&weights).map(|(reward, weight)| reward.unwrap_or(0.0) * weight).sum()
        };
        let totals: Vec<f64> = rows.iter().map(total).collect();
        let scale = serde_json::from_value(case["scale_rewards"].clone()).unwrap();
        let found = advantages(&totals, group, scale);
        let expected: Vec<f64> = serde_json::from_value(case["advantages"].clone()).unwrap();
        for (found, expected) in found.values.iter().zip(&expected) {
            close(*found, *expected, VALUE, &name);
        }
        let metric = |name: &str| case["metrics"][name].as_f64().unwrap();
        close(found.zero_std, metric("frac_reward_zero_std"), VALUE, &name);
        close(super::advantages::mean(&totals), metric("reward"), VALUE, &name);
        close(super::advantages::deviation(&totals), metric("reward_std"), VALUE, &name);
    }
}

struct Completions {
    file: TensorFile,
    lengths: Vec<usize>,
    width: usize,
}

impl Completions {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/grpo/loss.safetensors");
        let file = TensorFile::open(&path).unwrap();
        let mask = file.get("completion_mask").unwrap();
        let width = mask.shape[1];
        let ones: Vec<i64> = mask.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        let lengths = ones.chunks(width).map(|row| row.iter().sum::<i64>() as usize).collect();
        Self { file, lengths, width }
    }

    fn all(&self, name: &str) -> Vec<f32> {
        let tensor = self.file.get(name).unwrap_or_else(|| panic!("{name}"));
        tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    /// The tokens of completions, one completion after the other.
    fn tokens(&self, name: &str) -> Vec<f32> {
        let all = self.all(name);
        let rows = all.chunks(self.width).zip(&self.lengths);
        rows.flat_map(|(row, &length)| row[..length].to_vec()).collect()
    }

    fn per_token(&self, value: impl Fn(usize) -> f32) -> Vec<f32> {
        let rows = self.lengths.iter().enumerate();
        rows.flat_map(|(row, &length)| vec![value(row); length]).collect()
    }
}

fn tensor(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(values, &Device::flex())
}

fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.try_into_scalar::<f32>().unwrap())
}

#[test]
fn losses_gradients_and_metrics_are_those_of_trl() {
    let (file, data) = (recorded("loss"), Completions::read());
    let greatest = file["max_completion_length"].as_u64().unwrap() as usize;
    let cases: BTreeMap<String, Value> = serde_json::from_value(file["cases"].clone()).unwrap();
    // Its mean is over one micro-batch, which this loop does not have.
    let cases: Vec<_> = cases.into_iter().filter(|(_, case)| case["loss_type"] != "bnpo").collect();
    assert_eq!(cases.len(), 10);
    let (n, rows) = (data.lengths.iter().sum::<usize>(), data.lengths.len());
    for (name, case) in cases {
        let number = |key: &str| case[key].as_f64().unwrap();
        let recipe = GrpoRecipe {
            beta: number("beta"),
            epsilon: number("epsilon"),
            epsilon_high: Some(number("epsilon_high")),
            loss_type: serde_json::from_value(case["loss_type"].clone()).unwrap(),
            use_bias_correction_kl: false,
            ..GrpoRecipe::new(Vec::new())
        };
        let (weight, of_row): (usize, fn(usize) -> f32) = match recipe.loss_type {
            LossType::Dapo => (n, |_| 1.0),
            LossType::Grpo => (rows, |length| 1.0 / length as f32),
            LossType::DrGrpo => (rows * greatest, |_| 1.0),
        };
        let advantages = data.all("advantages");
        let tokens = PolicyTokens {
            advantages_n: tensor(&data.per_token(|row| advantages[row])),
            weights_n: tensor(&data.per_token(|row| of_row(data.lengths[row]))),
            old_n: (case["old_logps_are_the_policys"] == false).then(|| tensor(&data.tokens("old_logps"))),
            reference_n: (recipe.beta != 0.0).then(|| tensor(&data.tokens("reference_logps"))),
        };
        let logps = tensor(&data.tokens("policy_logps")).autodiff().require_grad();
        let policy = recipe.policy_loss(logps.clone(), &tokens);
        let gradient = logps.grad(&policy.loss_sum.backward()).unwrap().try_into_vec_as::<f32>().unwrap();
        close(scalar(policy.loss_sum) / weight as f64, number("loss"), VALUE, &name);
        let expected = data.tokens(&format!("{name}.grad_logps"));
        for (found, expected) in gradient.iter().zip(expected) {
            close(f64::from(*found) / weight as f64, f64::from(expected), GRADIENT, &name);
        }
        let metric = |name: &str| case["metrics"][name].as_f64().unwrap();
        let (low, high) = (scalar(policy.low) / n as f64, scalar(policy.high) / n as f64);
        close(low, metric("clip_ratio/low_mean"), VALUE, &name);
        close(high, metric("clip_ratio/high_mean"), VALUE, &name);
        close(low + high, metric("clip_ratio/region_mean"), VALUE, &name);
        if let Some(kl) = policy.kl_sum {
            close(scalar(kl) / n as f64, metric("kl"), VALUE, &name);
        }
    }
}

/// With the ratio as a factor, and an advantage of 0, the gradient of the KL term by a log-probability is its distance
/// from the reference's; without, it is `1 - exp(distance)`.
#[test]
fn the_ratio_makes_the_gradient_of_the_estimate_that_of_the_divergence() {
    let (own, other) = ([-1.0f32, -2.0, -0.5], [-1.5f32, -1.0, -0.5]);
    for corrected in [true, false] {
        let recipe = GrpoRecipe { beta: 2.0, use_bias_correction_kl: corrected, ..GrpoRecipe::new(Vec::new()) };
        let tokens = PolicyTokens {
            advantages_n: tensor(&[0.0; 3]),
            weights_n: tensor(&[1.0; 3]),
            old_n: None,
            reference_n: Some(tensor(&other)),
        };
        let logps = tensor(&own).autodiff().require_grad();
        let loss = recipe.policy_loss(logps.clone(), &tokens).loss_sum;
        let gradient = logps.grad(&loss.backward()).unwrap().try_into_vec_as::<f32>().unwrap();
        for ((found, own), other) in gradient.into_iter().zip(own).zip(other) {
            let apart = f64::from(other - own);
            let expected = if corrected { -apart } else { 1.0 - apart.exp() };
            close(f64::from(found), 2.0 * expected, VALUE, "gradient");
        }
    }
}

const LETTERS: &str = "0123456789+=.";

fn tokenizer() -> Tokenizer {
    Tokenizer::characters(&mut std::iter::once(Ok(LETTERS.to_owned()))).unwrap()
}

fn model(seed: u64) -> Decoder {
    sharper(seed, 0.02)
}

fn sharper(seed: u64, init_std: f64) -> Decoder {
    let config = ModelConfig {
        vocab_size: LETTERS.len(),
        width: 16,
        n_heads: 2,
        n_kv_heads: 2,
        head_dim: 8,
        ffn_width: 32,
        context: 16,
        init_std,
        ..ModelConfig::llama(1)
    };
    Decoder::init(&config, seed, &Device::flex())
}

fn prompts(texts: &[&str]) -> Vec<Prompt> {
    let tokenizer = tokenizer();
    let prompt = |(row, text): (u64, &&str)| Prompt {
        ids: tokenizer.encode(text, false).unwrap(),
        columns: serde_json::from_value::<Json>(json!({"answer": "7"})).unwrap(),
        row,
    };
    (1..).zip(texts).map(prompt).collect()
}

fn rewards(kind: Value) -> (Vec<RewardRecipe>, Rewards) {
    let recipes = vec![serde_json::from_value(kind).unwrap()];
    let compiled = Rewards::new(&recipes).unwrap();
    (recipes, compiled)
}

/// Four letters, eight samples of each of two prompts a step; the model is rewarded for a 7 among them.
fn parts(change: impl FnOnce(&mut GrpoParts)) -> GrpoParts {
    let (recipes, compiled) = rewards(json!({"kind": "regex", "pattern": "7"}));
    let recipe =
        GrpoRecipe { num_generations: 8, max_completion_length: 4, eval_samples: 2, ..GrpoRecipe::new(recipes) };
    let tokenizer = tokenizer();
    let stop_ids = vec![tokenizer.id_of(".").unwrap()];
    let mut parts = GrpoParts {
        recipe,
        rewards: compiled,
        tokenizer: Arc::new(tokenizer),
        train: prompts(&["1+6=", "2+5=", "3+4="]),
        held_out: prompts(&["4+3=", "0+7="]),
        reference: None,
        context: 16,
        stop_ids,
        rows: 8,
        micro_batches: 2,
        seed: 9,
    };
    change(&mut parts);
    parts
}

struct Trainee {
    decoder: Decoder,
    optimizer: Optimizer,
    gate: GradientGate,
    cursor: Cursor,
    step: u64,
}

impl Trainee {
    fn new(lr: f64) -> Self {
        Self {
            decoder: model(4).trainable(true),
            optimizer: Optimizer::new(&OptimizerRecipe {
                weight_decay: 0.0,
                ..OptimizerRecipe::new(OptimizerKind::AdamW, lr)
            }),
            gate: GradientGate::default(),
            cursor: Cursor::default(),
            step: 0,
        }
    }

    fn step(&mut self, objective: &mut Grpo) -> (StepReport, Metrics) {
        let ready = objective.prepare(&self.decoder, self.step, self.cursor).unwrap();
        let term = |decoder: &Decoder, i: usize| objective.term(decoder, i);
        let Self { decoder, optimizer, gate, .. } = self;
        let report = step_over(decoder, optimizer, gate, &term, ready.micro_batches, 2e-2, 1.0).unwrap();
        self.cursor = ready.cursor;
        self.step += 1;
        (report, ready.metrics)
    }

    fn bits(&self) -> Vec<u32> {
        values(&self.decoder).into_iter().map(f32::to_bits).collect()
    }
}

fn grpo(change: impl FnOnce(&mut GrpoParts)) -> Grpo {
    Grpo::new(parts(change), &model(4)).unwrap()
}

#[test]
fn what_is_rewarded_becomes_usual() {
    let (mut trainee, mut objective) = (Trainee::new(2e-2), grpo(|_| ()));
    let before = objective.evaluate(&trainee.decoder.clone().trainable(false)).unwrap().unwrap();
    let mut rewards = Vec::new();
    for _ in 0..30 {
        let (report, metrics) = trainee.step(&mut objective);
        // On policy every ratio is 1 and nothing is clipped.
        assert_eq!(report.metrics["clip_ratio/region_mean"], 0.0);
        assert!(
            report.metrics["entropy"] > 0.0 && report.metrics["entropy"] <= (LETTERS.len() as f64).ln() + 1e-4
        );
        assert_eq!(metrics["reward"], metrics["rewards/regex/mean"]);
        let mean = metrics["completions/mean_length"];
        assert!(metrics["completions/min_length"] <= mean && mean <= 4.0);
        rewards.push(metrics["reward"]);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!(mean(&rewards[..3]) < 0.55, "{rewards:?}");
    assert!(mean(&rewards[25..]) > 0.9, "{rewards:?}");
    let after = objective.evaluate(&trainee.decoder.clone().trainable(false)).unwrap().unwrap();
    assert!(after.loss < before.loss && after.loss == -after.metrics["reward"], "{before:?} {after:?}");
    assert_eq!((after.metrics["pass@1"], after.weight), (1.0, 2));
    assert!(after.metrics["pass@2/sampled"] >= before.metrics["pass@2/sampled"]);
}

/// Equal seeds give equal runs, whatever the objective did before: what a resumed run needs. Other seeds do not.
#[test]
fn a_step_is_a_function_of_seed_and_step() {
    let change = |parts: &mut GrpoParts| parts.recipe.temperature = 1.5;
    let (mut straight, mut objective) = (Trainee::new(1e-2), grpo(change));
    (0..6).for_each(|_| drop(straight.step(&mut objective)));
    let (mut resumed, mut early) = (Trainee::new(1e-2), grpo(change));
    (0..3).for_each(|_| drop(resumed.step(&mut early)));
    let mut late = grpo(change);
    (3..6).for_each(|_| drop(resumed.step(&mut late)));
    assert_eq!(straight.bits(), resumed.bits());
    assert_eq!(straight.cursor, resumed.cursor);
    let mut other = Trainee::new(1e-2);
    let mut objective = grpo(|parts| {
        parts.recipe.temperature = 1.5;
        parts.seed = 10;
    });
    (0..6).for_each(|_| drop(other.step(&mut objective)));
    assert_ne!(straight.bits(), other.bits());
}

/// One micro-batch of 16 completions and eight of 2 give the same step, whatever the losses are divided by.
#[test]
fn micro_batches_change_nothing_but_rounding() {
    for loss_type in [LossType::Dapo, LossType::Grpo, LossType::DrGrpo] {
        let run = |rows: usize| {
            let mut trainee = Trainee::new(1e-2);
            let mut objective = grpo(|parts| {
                (parts.rows, parts.micro_batches) = (rows, 16 / rows);
                parts.recipe.loss_type = loss_type;
                parts.recipe.mask_truncated_completions = true;
            });
            let (report, _) = trainee.step(&mut objective);
            (report, trainee)
        };
        let ((one, a), (many, b)) = (run(16), run(2));
        close(one.loss, many.loss, 1e-6, "loss");
        close(one.grad_norm, many.grad_norm, 1e-6, "gradient");
        close(one.weight, many.weight, 1e-6, "weight");
        let apart = |(a, b): (u32, u32)| (f32::from_bits(a) - f32::from_bits(b)).abs();
        let furthest = a.bits().into_iter().zip(b.bits()).map(apart).fold(0.0, f32::max);
        assert!(one.grad_norm > 0.0 && furthest < 2e-2, "{furthest}");
    }
}

/// A reward that is the same for all: the gradient is exactly zero, the gate counts the step, and says so in the end.
#[test]
fn equal_rewards_teach_nothing() {
    let (mut trainee, mut objective) = (
        Trainee::new(1e-2),
        grpo(|parts| {
            (_, parts.rewards) = rewards(json!({"kind": "regex", "pattern": "", "weight": 0.1}));
        }),
    );
    let before = trainee.bits();
    let (report, metrics) = trainee.step(&mut objective);
    assert_eq!((report.grad_norm, metrics["frac_reward_zero_std"]), (0.0, 1.0));
    assert!((metrics["reward"] - 0.1).abs() < 1e-12 && report.weight > 0.0);
    assert_eq!(trainee.gate.zero_steps(), 1);
    assert_eq!(trainee.bits(), before);
}

/// Several steps over the same completions: they are drawn once, the ratio moves away from 1, and the divergence from
/// the model before training is reported.
#[test]
fn completions_are_learned_from_several_times() {
    let mut trainee = Trainee::new(1e-2);
    let mut objective = grpo(|parts| {
        parts.recipe.num_iterations = 3;
        parts.recipe.beta = 0.1;
        parts.reference = Some(Reference::Copy(Box::new(model(4))));
        parts.recipe.epsilon = 0.05;
    });
    let steps: Vec<_> = (0..6).map(|_| trainee.step(&mut objective)).collect();
    for window in steps.chunks(3) {
        assert!(window.iter().all(|(_, metrics)| metrics == &window[0].1));
        // The ratio is 1 to the bit: both sides come from the same batch of the same model.
        assert_eq!(window[0].0.metrics["clip_ratio/region_mean"], 0.0);
        assert!(window[2].0.metrics["clip_ratio/region_mean"] > 0.0, "{:?}", window[2].0);
    }
    assert_ne!(steps[0].1, steps[3].1);
    assert!(steps[0].0.metrics["kl"].abs() < 1e-9 && steps[5].0.metrics["kl"] > 1e-6);
    assert_eq!(trainee.cursor, Cursor { epoch: 1, window: 1 });
}

/// An adapter alone learns, samples are drawn with it on, and the reference is the same model with it off.
#[test]
fn an_adapter_learns_and_the_base_is_its_reference() {
    let mut trainee = Trainee::new(2e-2);
    // The frozen embedding is the head, too: it must be large enough for a sure choice.
    let base = || sharper(4, 0.25);
    let mut decoder = base();
    decoder.attach("default", AdapterConfig::lora(8, 16.0, Targets::AllLinear), 7).unwrap();
    trainee.decoder = decoder.trainable(true);
    let mut objective = Grpo::new(
        parts(|parts| {
            parts.recipe.beta = 1e-3;
            parts.reference = Some(Reference::WithoutAdapters);
        }),
        &trainee.decoder,
    )
    .unwrap();
    let steps: Vec<_> = (0..40).map(|_| trainee.step(&mut objective)).collect();
    let reward = |(_, metrics): &(StepReport, Metrics)| metrics["reward"];
    let mean = |steps: &[(StepReport, Metrics)]| steps.iter().map(reward).sum::<f64>() / steps.len() as f64;
    assert!(mean(&steps[35..]) > mean(&steps[..5]) + 0.3, "{} {}", mean(&steps[..5]), mean(&steps[35..]));
    assert!(steps[0].0.metrics["kl"].abs() < 1e-9 && steps[39].0.metrics["kl"] > 1e-3);
    assert_eq!(values(&trainee.decoder.without_adapters()), values(&base()));
    let plain = trainee.decoder.clone().trainable(false);
    let rewarded = |model: &Decoder, objective: &mut Grpo| objective.evaluate(model).unwrap().unwrap().metrics["pass@2/sampled"];
    assert!(rewarded(&plain, &mut objective) > rewarded(&plain.without_adapters(), &mut objective));
}

fn values(decoder: &Decoder) -> Vec<f32> {
    decoder.parameters().into_iter().flat_map(|(_, _, x)| x.try_into_vec_as::<f32>().unwrap()).collect()
}

/// A completion that its length cut off teaches nothing where the recipe says so.
#[test]
fn truncated_completions_can_be_left_out() {
    let (mut trainee, mut objective) = (
        Trainee::new(1e-2),
        grpo(|parts| {
            parts.recipe.mask_truncated_completions = true;
            parts.stop_ids.clear();
        }),
    );
    let ready = objective.prepare(&trainee.decoder, 0, Cursor::default()).unwrap();
    assert_eq!((ready.micro_batches, ready.metrics["completions/clipped_ratio"]), (0, 1.0));
    assert_eq!(trainee.step(&mut objective).0.weight, 0.0);
}

#[test]
fn rows_that_cannot_be_answered_are_refused() {
    let refused = |change: &dyn Fn(&mut GrpoParts)| match Grpo::new(parts(change), &model(4)) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    };
    assert!(refused(&|parts| parts.train.clear()).contains("0 prompts"));
    let message = refused(&|parts| parts.train[1].ids = vec![0; 16]);
    assert!(message.contains("row 2") && message.contains("16 tokens"), "{message}");
    let message = refused(&|parts| parts.context = 4);
    assert!(message.contains("row 1") && message.contains("holds 4"), "{message}");
    let message = refused(&|parts| {
        let (_, compiled) = rewards(json!({"kind": "exact", "column": "solution"}));
        parts.rewards = compiled;
    });
    assert!(message.contains("row 1") && message.contains("`solution`"), "{message}");
}

#[test]
fn recipes_are_checked_with_both_numbers() {
    let check = |change: &dyn Fn(&mut GrpoRecipe)| {
        let mut recipe = GrpoRecipe::new(Vec::new());
        change(&mut recipe);
        recipe.check(16, 100).map_err(|error| error.to_string())
    };
    assert_eq!(check(&|_| ()), Ok(()));
    type Change<'a> = &'a dyn Fn(&mut GrpoRecipe);
    let cases: [(Change<'_>, &[&str]); 6] = [
        (&|recipe| recipe.num_generations = 1, &["`grpo.num_generations` is 1"]),
        (&|recipe| recipe.num_generations = 5, &["`train.batch` (16)", "`grpo.num_generations` (5)"]),
        (&|recipe| recipe.temperature = 0.0, &["`grpo.temperature` is 0"]),
        (&|recipe| recipe.epsilon = 1.5, &["`grpo.epsilon` is 1.5"]),
        (&|recipe| recipe.num_iterations = 3, &["`checkpoint.every` (100)", "(3)"]),
        (&|recipe| recipe.beta = -1.0, &["`grpo.beta` is -1"]),
    ];
    for (change, words) in cases {
        let message = check(change).unwrap_err();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    let text = "rewards = []\nepsilon_low = 0.1";
    let error = fornax_base::recipe::load::<GrpoRecipe>(text, "g.toml", &[]).unwrap_err();
    assert!(error.to_string().contains("unknown key `epsilon_low`"), "{error}");
}
