//! One optimizer step: accumulation, clipping, masks, numbers that are not finite, the gradient gate.

#![allow(clippy::print_stdout, reason = "the figures belong to the result of a test")]

use std::cell::Cell;
use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use fornax_base::files::sha256_hex;
use fornax_base::rng::rng;
use fornax_data::batches::Batch;
use fornax_model::parameters::ParameterMut;
use fornax_model::{Decoder, Layout, ModelConfig, token_tensor};
use fornax_train::TrainError;
use fornax_train::gate::{GateError, GradientGate};
use fornax_train::optimizer::Optimizer;
use fornax_train::recipe::{OptimizerKind, OptimizerRecipe};
use fornax_train::step::{BatchLoss, LossTerm, StepReport, next_token, train_step};

const BETA1: f64 = 0.9;
/// Sums in another order differ by this much of the largest gradient of a tensor.
const GRADIENT: f64 = 1e-5;
/// The first AdamW update is nearly the sign of the gradient, so elements whose gradient is rounding error
/// move by as much as the others: relative L2 of a tensor's change.
const CHANGE: f64 = 1e-3;

fn tiny() -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        width: 16,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 4,
        ffn_width: 24,
        context: 16,
        tied: false,
        ..ModelConfig::llama(2)
    }
}

/// `rows` of random tokens; row r trains its leading (5 r mod 13) targets, so row 0 trains none.
fn batch(rows: usize, columns: usize, vocabulary: u64) -> Batch {
    let mut random = rng(7, 0, "batch");
    let mut ids = || (0..rows * columns).map(|_| random.below(vocabulary) as u32).collect();
    Batch {
        rows,
        columns,
        inputs: ids(),
        targets: ids(),
        mask: (0..rows * columns).map(|i| i % columns < i / columns * 5 % 13).collect(),
        positions: (0..rows).flat_map(|_| 0..columns as u32).collect(),
        documents: None,
    }
}

/// The same rows in micro-batches of `rows`.
fn split(batch: &Batch, rows: usize) -> Vec<Batch> {
    let n = rows * batch.columns;
    let part = |i: usize| Batch {
        rows,
        columns: batch.columns,
        inputs: batch.inputs[i * n..][..n].to_vec(),
        targets: batch.targets[i * n..][..n].to_vec(),
        mask: batch.mask[i * n..][..n].to_vec(),
        positions: batch.positions[i * n..][..n].to_vec(),
        documents: None,
    };
    (0..batch.rows / rows).map(part).collect()
}

fn masked(batch: &Batch) -> Batch {
    Batch { mask: vec![false; batch.mask.len()], ..batch.clone() }
}

/// A model with its optimizer, as a run holds them.
struct Trainee {
    decoder: Decoder,
    optimizer: Optimizer,
    gate: GradientGate,
    clip_norm: f64,
}

impl Trainee {
    fn new(config: &ModelConfig, clip_norm: f64) -> Self {
        let defaults = OptimizerRecipe::new(OptimizerKind::AdamW, 1e-2);
        let recipe = OptimizerRecipe { beta1: BETA1, clip_norm, ..defaults };
        Self {
            decoder: Decoder::init(config, 3, &Device::flex()).trainable(true),
            optimizer: Optimizer::new(&recipe),
            gate: GradientGate::default(),
            clip_norm,
        }
    }

    fn step(&mut self, objective: BatchLoss<'_>, batches: &[Batch]) -> Result<StepReport, TrainError> {
        let Self { decoder, optimizer, gate, clip_norm } = self;
        train_step(decoder, optimizer, gate, objective, batches, 1e-2, *clip_norm)
    }

    fn parameters(&self) -> BTreeMap<String, Vec<f32>> {
        let read = |(name, _, tensor): (String, _, Tensor<1>)| (name, values(tensor));
        self.decoder.parameters().into_iter().map(read).collect()
    }

    /// What reached the optimizer in its opening step, after averaging and clipping.
    fn gradients(&self) -> BTreeMap<String, Vec<f32>> {
        let mut all = BTreeMap::new();
        for (name, _, tensor) in self.optimizer.tensors() {
            if let Some(name) = name.strip_suffix(".exp_avg") {
                let unscaled = |m: f32| (f64::from(m) / (1.0 - BETA1)) as f32;
                all.insert(name.to_string(), values(tensor).into_iter().map(unscaled).collect());
            }
        }
        all
    }

    /// Every bit that a step may change.
    fn bits(&self) -> (u64, Vec<(String, Vec<u32>)>) {
        let tensors = self.decoder.parameters().into_iter().chain(self.optimizer.tensors());
        let bits = |tensor| values(tensor).iter().map(|v| v.to_bits()).collect();
        (self.optimizer.updates(), tensors.map(|(name, _, tensor)| (name, bits(tensor))).collect())
    }

    /// The same as checksums, for models too large to hold several times.
    fn checksums(&self) -> Vec<(String, String)> {
        let tensors = self.decoder.parameters().into_iter().chain(self.optimizer.tensors());
        let checksum = |tensor: Tensor<1>| sha256_hex(tensor.into_data().as_bytes());
        tensors.map(|(name, _, tensor)| (name, checksum(tensor))).collect()
    }
}

fn values(tensor: Tensor<1>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

/// max |a - b| / max |b|, the worst over all tensors.
fn worst_gradient(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> f64 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let mut worst: f64 = 0.0;
    for (a, b) in a.values().zip(b.values()) {
        let largest = b.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        let apart = a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        worst = worst.max(f64::from(apart / largest));
    }
    worst
}

#[test]
fn micro_batches_of_unequal_masks_equal_the_whole_batch() {
    let whole = batch(8, 12, 61);
    let mut expected = Trainee::new(&tiny(), 0.05);
    let before = expected.parameters();
    let report = expected.step(&next_token, std::slice::from_ref(&whole)).unwrap();
    assert_eq!(report.weight, whole.n_targets() as f64);
    assert!(report.grad_norm > 0.05, "the clipping is part of what is compared");
    for rows in [1, 2, 4] {
        let parts = split(&whole, rows);
        assert!(rows > 1 || parts[0].n_targets() == 0, "one micro-batch is masked as a whole");
        let mut trainee = Trainee::new(&tiny(), 0.05);
        let found = trainee.step(&next_token, &parts).unwrap();
        assert_eq!(found.weight, report.weight);
        let loss = (found.loss / report.loss - 1.0).abs();
        let norm_apart = (found.grad_norm / report.grad_norm - 1.0).abs();
        let gradient = worst_gradient(&trainee.gradients(), &expected.gradients());
        let mut change: f64 = 0.0;
        for ((name, after), other) in expected.parameters().iter().zip(trainee.parameters().values()) {
            let moved = norm(after.iter().zip(&before[name]).map(|(a, b)| f64::from(a - b)));
            change = change.max(norm(after.iter().zip(other).map(|(a, b)| f64::from(a - b))) / moved);
        }
        println!(
            "{rows} rows: loss {loss:.1e}, norm {norm_apart:.1e}, gradients {gradient:.1e}, change {change:.1e}"
        );
        assert!(loss < 1e-6 && norm_apart < 1e-5 && gradient < GRADIENT && change < CHANGE);
    }
}

#[test]
fn the_gradient_is_that_of_the_mean_over_all_targets() {
    let whole = batch(8, 12, 61);
    let mut trainee = Trainee::new(&tiny(), 0.0);
    let mut decoder = trainee.decoder.clone();
    let device = decoder.device();
    let mean = 1.0 / whole.n_targets() as f32;
    let weights: Vec<f32> = whole.mask.iter().map(|&m| if m { mean } else { 0.0 }).collect();
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [8, 12]), &device);
    let hidden =
        decoder.forward(token_tensor(&whole.inputs, 8, &device), &Layout::contiguous(0, 12, &device), None);
    let loss = decoder.loss(hidden, token_tensor(&whole.targets, 8, &device), weights);
    let value = loss.clone().into_scalar::<f32>();
    let mut gradients = loss.backward();
    let mut expected = BTreeMap::new();
    decoder.visit_mut(&mut |name, parameter| {
        expected.insert(name.to_string(), values(parameter.take_gradient(&mut gradients).unwrap()));
    });
    let report = trainee.step(&next_token, &split(&whole, 2)).unwrap();
    let apart = worst_gradient(&trainee.gradients(), &expected);
    println!("loss {} and {value}, gradients {apart:.1e} apart", report.loss);
    assert!((report.loss - f64::from(value)).abs() < 1e-6 && apart < GRADIENT);
    let direct = norm(expected.values().flatten().map(|g| f64::from(*g)));
    assert!((report.grad_norm / direct - 1.0).abs() < 1e-5, "{} and {direct}", report.grad_norm);
}

const THREE: &str = "model.layers.0.mlp.up_proj.weight";
const FOUR: &str = "model.norm.weight";

/// A loss whose gradient has norm 3 in one tensor, 4 in another and 0 in all others, times `factor`.
fn three_four_five(decoder: &Decoder, factor: f64) -> Tensor<1> {
    let mut terms = Vec::new();
    decoder.clone().visit_mut(&mut |name, parameter| {
        let length = match name {
            THREE => 3.0,
            FOUR => 4.0,
            _ => 0.0,
        };
        let (sum, n) = match parameter {
            ParameterMut::Vector(tensor) => (tensor.clone().sum(), tensor.dims()[0]),
            ParameterMut::Matrix(tensor) => (tensor.clone().sum(), tensor.dims().iter().product()),
        };
        terms.push(sum * (factor * length / (n as f64).sqrt()));
    });
    terms.into_iter().reduce(|a, b| a + b).unwrap()
}

#[test]
fn clipping_is_by_the_norm_over_all_tensors() {
    // Two micro-batches of weight 2 sum to norm 2 * 5 over weight 4: 2.5 before clipping, tensors 1.5 and 2.
    let objective = |decoder: &Decoder, _: &Batch| LossTerm::new(three_four_five(decoder, 1.0), 2.0);
    let one = batch(1, 12, 61);
    for (clip_norm, factor) in [(0.0, 1.0), (2.6, 1.0), (1.75, 0.7), (0.25, 0.1)] {
        let mut trainee = Trainee::new(&tiny(), clip_norm);
        let report = trainee.step(&objective, &[one.clone(), one.clone()]).unwrap();
        assert!((report.grad_norm - 2.5).abs() < 1e-5, "{}", report.grad_norm);
        let gradients = trainee.gradients();
        for (name, expected) in [(THREE, 1.5 * factor), (FOUR, 2.0 * factor)] {
            let found = norm(gradients[name].iter().map(|g| f64::from(*g)));
            assert!((found - expected).abs() < 1e-5, "clip {clip_norm}, {name}: {found}, not {expected}");
        }
    }
}

#[test]
fn a_masked_micro_batch_changes_nothing_among_others() {
    let parts = split(&batch(8, 12, 61), 2);
    let mut plain = Trainee::new(&tiny(), 1.0);
    let expected = plain.step(&next_token, &parts).unwrap();
    let mut with_masked = parts.clone();
    with_masked.insert(1, masked(&parts[1]));
    let mut trainee = Trainee::new(&tiny(), 1.0);
    let found = trainee.step(&next_token, &with_masked).unwrap();
    assert_eq!((found.loss, found.grad_norm), (expected.loss, expected.grad_norm));
    assert_eq!(trainee.bits(), plain.bits());
}

#[test]
fn a_step_with_activation_checkpointing_leaves_the_same_bits() {
    for tied in [false, true] {
        let config = ModelConfig { tied, ..tiny() };
        let parts = split(&batch(8, 12, 61), 2);
        let (mut plain, mut saving) = (Trainee::new(&config, 0.05), Trainee::new(&config, 0.05));
        saving.decoder.set_activation_checkpointing(true);
        // The opening micro-batch is masked as a whole: its blocks must not wait for ever.
        for batches in [&[masked(&parts[0])][..], &parts, &parts[1..]] {
            let (expected, found) = (plain.step(&next_token, batches), saving.step(&next_token, batches));
            let (expected, found) = (expected.unwrap(), found.unwrap());
            assert_eq!((found.loss, found.grad_norm), (expected.loss, expected.grad_norm));
            assert_eq!(saving.bits(), plain.bits(), "tied: {tied}");
        }
        assert_eq!(plain.bits().0, 2, "two of the steps have targets");
    }
}

/// C7.
#[test]
fn a_step_without_targets_has_weight_0_and_changes_nothing() {
    let parts = split(&masked(&batch(8, 12, 61)), 4);
    let mut trainee = Trainee::new(&tiny(), 1.0);
    let fresh = trainee.bits();
    let report = trainee.step(&next_token, &parts).unwrap();
    assert_eq!((report.loss, report.grad_norm, report.weight), (0.0, 0.0, 0.0));
    assert_eq!(trainee.bits(), fresh);
    // The same in the middle of a run: moments and bias corrections stay as they were.
    trainee.step(&next_token, &[batch(8, 12, 61)]).unwrap();
    let later = trainee.bits();
    assert_eq!(trainee.step(&next_token, &parts).unwrap().weight, 0.0);
    assert_eq!(trainee.bits(), later);
    assert_eq!(later.0, 1);
}

/// C6: the ways in which numbers stop being finite, each of the third of four micro-batches alone.
#[test]
fn numbers_that_are_not_finite_stop_the_step_before_the_update() {
    type Spoil = fn(&Decoder, LossTerm) -> LossTerm;
    let spoils: [(&str, Spoil); 7] = [
        ("loss NaN", |_, term| LossTerm { loss_sum: term.loss_sum * f32::NAN, ..term }),
        ("loss +Inf", |_, term| LossTerm { loss_sum: term.loss_sum * f32::INFINITY, ..term }),
        ("loss -Inf", |_, term| LossTerm { loss_sum: term.loss_sum * f32::NEG_INFINITY, ..term }),
        ("the norm overflows", |_, term| LossTerm { loss_sum: term.loss_sum * 1e25, ..term }),
        ("the largest float", |_, term| LossTerm { loss_sum: term.loss_sum * f32::MAX, ..term }),
        ("gradient NaN, loss finite", |decoder, term| {
            let zero = three_four_five(decoder, 0.0);
            LossTerm { loss_sum: term.loss_sum + (zero.clone() - zero).sqrt(), ..term }
        }),
        ("weight NaN", |_, term| LossTerm { weight: f64::NAN, ..term }),
    ];
    let parts = split(&batch(8, 12, 61), 2);
    let mut straight = Trainee::new(&tiny(), 1.0);
    for _ in 0..3 {
        straight.step(&next_token, &parts).unwrap();
    }
    for (what, spoil) in spoils {
        let mut trainee = Trainee::new(&tiny(), 1.0);
        for _ in 0..2 {
            trainee.step(&next_token, &parts).unwrap();
        }
        let before = trainee.bits();
        let calls = Cell::new(0);
        let objective = |decoder: &Decoder, batch: &Batch| {
            calls.set(calls.get() + 1);
            let term = next_token(decoder, batch);
            if calls.get() == 3 { spoil(decoder, term) } else { term }
        };
        let error = trainee.step(&objective, &parts).unwrap_err();
        let TrainError::NotFinite { loss, grad_norm, lr, .. } = &error else {
            panic!("{what}: {error}");
        };
        assert!(!loss.is_finite() || !grad_norm.is_finite(), "{what}: {loss} {grad_norm}");
        assert_eq!(*lr, 1e-2);
        println!("{what}: {error}");
        assert_eq!(error.exit(), fornax_base::exit::Exit::NotFinite);
        assert_eq!(trainee.bits(), before, "{what}");
        // Nothing is left behind that a sound step would meet.
        trainee.step(&next_token, &parts).unwrap();
        assert_eq!(trainee.bits(), straight.bits(), "{what}");
    }
}

/// Next-token loss of a copy of the model in which `change` has altered the parameter `name`.
fn altered(name: &str, change: fn(Tensor<2>) -> Tensor<2>) -> impl Fn(&Decoder, &Batch) -> LossTerm {
    move |decoder: &Decoder, batch: &Batch| {
        let mut copy = decoder.clone();
        copy.visit_mut(&mut |found, parameter| {
            if let (true, ParameterMut::Matrix(tensor)) = (found == name, parameter) {
                *tensor = change(tensor.clone());
            }
        });
        next_token(&copy, batch)
    }
}

#[test]
fn a_parameter_cut_off_from_the_loss_is_named() {
    let name = "model.layers.1.self_attn.k_proj.weight";
    let mut trainee = Trainee::new(&tiny(), 1.0);
    let before = trainee.bits();
    let error = trainee.step(&altered(name, Tensor::detach), &[batch(8, 12, 61)]).unwrap_err();
    let TrainError::Gate(GateError::Missing { names }) = &error else { panic!("{error}") };
    assert_eq!(names, &[name]);
    assert_eq!(error.exit(), fornax_base::exit::Exit::Failed);
    assert_eq!(trainee.bits(), before);
}

#[test]
fn a_gradient_of_zero_in_three_steps_is_named() {
    let name = "model.layers.1.mlp.down_proj.weight";
    let mut trainee = Trainee::new(&tiny(), 1.0);
    let objective = altered(name, |tensor| tensor * 0.0);
    // Without its output the rest of the feed-forward block gets nothing either.
    let silent = ["down_proj", "gate_proj", "up_proj"].map(|part| format!("model.layers.1.mlp.{part}.weight"));
    let batches = [batch(8, 12, 61)];
    trainee.step(&objective, &batches).unwrap();
    trainee.step(&objective, &batches).unwrap();
    let before = trainee.bits();
    let error = trainee.step(&objective, &batches).unwrap_err();
    let TrainError::Gate(GateError::Zero { names }) = &error else { panic!("{error}") };
    for part in &silent {
        assert!(names.contains(part), "{part} is missing in {names:?}");
    }
    assert!(names.iter().all(|found| found.starts_with("model.layers.1.")), "{names:?}");
    assert_eq!(trainee.bits(), before);
}

#[test]
fn a_frozen_parameter_stays_and_has_no_moments() {
    let name = "model.layers.0.self_attn.q_proj.weight";
    let mut trainee = Trainee::new(&tiny(), 1.0);
    trainee.decoder.visit_mut(&mut |found, mut parameter| {
        if found == name {
            parameter.set_trainable(false);
        }
    });
    let before = trainee.parameters();
    for _ in 0..3 {
        trainee.step(&next_token, &[batch(8, 12, 61)]).unwrap();
    }
    for (found, after) in trainee.parameters() {
        assert_eq!(after == before[&found], found == name, "{found}");
    }
    assert!(trainee.optimizer.tensors().iter().all(|(found, _, _)| !found.starts_with(name)));
}

/// Sums over tensors above 4 M elements are where Burn's own reductions depend on the threads.
#[test]
fn large_steps_give_the_same_bits_twice() {
    let large = |width, n_layers, ffn_width, tied| ModelConfig {
        vocab_size: 32_000,
        width,
        n_heads: 4,
        n_kv_heads: 4,
        head_dim: width / 4,
        ffn_width,
        context: 16,
        tied,
        ..ModelConfig::llama(n_layers)
    };
    for (what, config) in
        [("one tensor of 10 M elements", large(320, 1, 64, true)), ("24 M parameters", large(288, 6, 768, false))]
    {
        let fresh = Trainee::new(&config, 1.0);
        let take = || {
            let decoder = fresh.decoder.clone();
            let mut trainee = Trainee { decoder, ..Trainee::new(&tiny(), 1.0) };
            let report = trainee.step(&next_token, &split(&batch(4, 12, 32_000), 2)).unwrap();
            (report.loss.to_bits(), report.grad_norm.to_bits(), trainee.checksums())
        };
        let (one, two) = (take(), take());
        println!("{what}: {} parameters, {} tensors with their moments", config.n_parameters(), one.2.len());
        assert_eq!(one, two, "{what}: two equal steps differ");
        assert_ne!(one.2[..fresh.checksums().len()], fresh.checksums(), "the step moved the parameters");
    }
}
