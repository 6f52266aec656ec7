//! Muon and Lion against recordings of torch.optim.Muon and lion-pytorch, and what every rule owes a run: groups,
//! exact resume, clipping, numbers that are not finite, moments and masters in f32.

#![allow(clippy::print_stdout, reason = "the figures belong to the result of a test")]

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::rng::rng;
use fornax_data::batches::Batch;
use fornax_model::parameters::ParameterMut;
use fornax_model::weights::TensorFile;
use fornax_model::{Decoder, ModelConfig};
use fornax_train::TrainError;
use fornax_train::gate::GradientGate;
use fornax_train::optimizer::Optimizer;
use fornax_train::recipe::{AdjustLr, NewtonSchulzPrecision, OptimizerKind, OptimizerRecipe};
use fornax_train::step::{BatchLoss, LossTerm, StepReport, next_token, next_token_with_z, train_step};

const KINDS: [OptimizerKind; 3] = [OptimizerKind::AdamW, OptimizerKind::Muon, OptimizerKind::Lion];

/// The recorded runs: torch's and lion-pytorch's parameters after ten steps on matrices of five shapes.
struct Recorded {
    file: TensorFile,
    shapes: BTreeMap<String, [usize; 2]>,
    rates: Vec<f32>,
}

impl Recorded {
    fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/optimizers/expected.safetensors");
        let file = TensorFile::open(&path).unwrap();
        let start = |name: &str| Some((name.strip_prefix("start.")?.to_string(), shape(&file, name)));
        let shapes: BTreeMap<_, _> = file.names().filter_map(start).collect();
        assert_eq!(shapes.len(), 5);
        let rates = floats(&file, "rates");
        Self { file, shapes, rates }
    }

    /// The matrices and the state that `recipe` ends at after the recorded gradients.
    fn run(&self, recipe: &OptimizerRecipe) -> BTreeMap<String, Vec<f32>> {
        let device = Device::flex();
        let mut optimizer = Optimizer::new(recipe);
        let mut matrices: BTreeMap<&String, Tensor<2>> = BTreeMap::new();
        for (name, shape) in &self.shapes {
            let data = TensorData::new(floats(&self.file, &format!("start.{name}")), *shape);
            matrices.insert(name, Tensor::from_data(data, &device));
        }
        for (step, rate) in self.rates.iter().enumerate() {
            optimizer.begin();
            for (name, [r, c]) in &self.shapes {
                let n = r * c;
                let gradient = floats(&self.file, &format!("gradient.{name}"))[step * n..][..n].to_vec();
                let gradient_n = Tensor::from_data(TensorData::new(gradient, [n]), &device);
                let mut parameter = ParameterMut::Matrix(matrices.get_mut(name).unwrap());
                optimizer.update(name, &mut parameter, gradient_n, 1.0, recipe.lr * f64::from(*rate));
            }
        }
        let mut ended: BTreeMap<String, Vec<f32>> =
            matrices.into_iter().map(|(name, tensor)| (format!("after.{name}"), values(tensor))).collect();
        for (name, _, tensor) in optimizer.tensors() {
            let (matrix, part) = name.rsplit_once('.').unwrap();
            ended.insert(format!("{part}.{matrix}"), values(tensor));
        }
        ended
    }

    /// Requires what `recipe` ends at to be the recorded `run`, each matrix to within `tolerance` of its change.
    fn holds(&self, run: &str, recipe: &OptimizerRecipe, tolerance: f64) {
        let ended = self.run(recipe);
        let recorded = self.file.names().filter(|name| name.starts_with(&format!("{run}."))).count();
        assert_eq!(ended.len(), recorded, "{run}: the same tensors, state included");
        for (name, found) in ended {
            let expected = floats(&self.file, &format!("{run}.{name}"));
            let scale = match name.strip_prefix("after.") {
                Some(matrix) => distance(&expected, &floats(&self.file, &format!("start.{matrix}"))),
                None => distance(&expected, &vec![0.0; expected.len()]),
            };
            let error = distance(&found, &expected) / scale;
            println!("{run:15} {name:26} off by {error:.1e}");
            assert!(error < tolerance, "{run} {name}: off by {error} of its change, at most {tolerance}");
        }
    }
}

fn shape(file: &TensorFile, name: &str) -> [usize; 2] {
    file.get(name).unwrap().shape.try_into().unwrap()
}

fn floats(file: &TensorFile, name: &str) -> Vec<f32> {
    let tensor = file.get(name).unwrap_or_else(|| panic!("{name} in {}", file.path().display()));
    tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    assert_eq!(tensor.dtype(), DType::F32);
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// Muon as it was recorded, with products in f32.
fn recorded_muon() -> OptimizerRecipe {
    OptimizerRecipe { muon_lr: Some(0.02), weight_decay: 0.1, ..OptimizerRecipe::new(OptimizerKind::Muon, 1e-3) }
}

/// Ten steps of torch.optim.Muon whose products are in f32: the same arithmetic, other sums. torch's own distance
/// from f64 is 7e-7.
#[test]
fn muon_in_f32_equals_torch() {
    let recorded = Recorded::open();
    let default = recorded_muon();
    recorded.holds("muon-f32", &default, 3e-6);
    let plain =
        OptimizerRecipe { nesterov: Some(false), momentum: Some(0.9), ns_steps: Some(3), ..default.clone() };
    recorded.holds("muon-f32-plain", &plain, 3e-6);
    let rms = OptimizerRecipe { adjust_lr_fn: Some(AdjustLr::MatchRmsAdamw), ..default };
    recorded.holds("muon-f32-rms", &rms, 3e-6);
}

/// torch.optim.Muon as it is, with products in bfloat16: by itself 6e-3 of the change from f64. So far are f32 from
/// it, and our bfloat16, whose roundings fall elsewhere: a product is rounded before it is added.
#[test]
fn muon_in_bf16_is_as_near_as_bf16_allows() {
    let recorded = Recorded::open();
    recorded.holds("muon-bf16", &recorded_muon(), 1e-2);
    let half = OptimizerRecipe { ns_precision: Some(NewtonSchulzPrecision::Bf16), ..recorded_muon() };
    recorded.holds("muon-bf16", &half, 1.5e-2);
    // It is in use: in f32 the same run ends far nearer to the f32 recording.
    let ended = recorded.run(&half);
    let expected = floats(&recorded.file, "muon-f32.after.square");
    let change = distance(&expected, &floats(&recorded.file, "start.square"));
    assert!(distance(&ended["after.square"], &expected) / change > 1e-4);
}

#[test]
fn lion_equals_lion_pytorch() {
    let recipe = OptimizerRecipe { weight_decay: 0.1, ..OptimizerRecipe::new(OptimizerKind::Lion, 1e-3) };
    Recorded::open().holds("lion", &recipe, 1e-6);
}

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
        qkv_bias: true,
        ..ModelConfig::llama(2)
    }
}

fn batch(rows: usize, seed: u64) -> Batch {
    let (columns, mut random) = (12, rng(seed, 0, "batch"));
    // Each token is followed by its double most of the time: something to learn.
    let mut inputs = Vec::new();
    let mut targets = Vec::new();
    for _ in 0..rows * columns {
        let id = random.below(61) as u32;
        inputs.push(id);
        targets.push(if random.below(8) == 0 { random.below(61) as u32 } else { id * 2 % 61 });
    }
    Batch {
        rows,
        columns,
        inputs,
        targets,
        mask: vec![true; rows * columns],
        positions: (0..rows).flat_map(|_| 0..columns as u32).collect(),
        documents: None,
    }
}

/// A model with its optimizer, as a run holds them.
struct Trainee {
    decoder: Decoder,
    optimizer: Optimizer,
    gate: GradientGate,
    recipe: OptimizerRecipe,
}

impl Trainee {
    fn new(recipe: &OptimizerRecipe) -> Self {
        Self {
            decoder: Decoder::init(&tiny(), 3, &Device::flex()).trainable(true),
            optimizer: Optimizer::new(recipe),
            gate: GradientGate::default(),
            recipe: recipe.clone(),
        }
    }

    fn of(kind: OptimizerKind) -> Self {
        Self::new(&OptimizerRecipe::new(kind, 2e-3))
    }

    fn step(&mut self, objective: BatchLoss<'_>, batches: &[Batch]) -> Result<StepReport, TrainError> {
        let Self { decoder, optimizer, gate, recipe } = self;
        train_step(decoder, optimizer, gate, objective, batches, recipe.lr, recipe.clip_norm)
    }

    fn learn(&mut self, steps: u64) -> Vec<f64> {
        (0..steps)
            .map(|step| self.step(&next_token, &[batch(4, step), batch(4, step + 100)]).unwrap().loss)
            .collect()
    }

    /// Every bit that a step may change.
    fn bits(&self) -> Vec<(String, Vec<u32>)> {
        let tensors = self.decoder.parameters().into_iter().chain(self.optimizer.tensors());
        tensors.map(|(name, _, tensor)| (name, values(tensor).iter().map(|v| v.to_bits()).collect())).collect()
    }

    fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        self.decoder.parameters().into_iter().map(|(name, shape, _)| (name, shape)).collect()
    }
}

/// Muon takes the matrices inside the blocks and no others; each tensor of state has PyTorch's name.
#[test]
fn groups_are_by_what_a_parameter_is() {
    let mut trainee = Trainee::of(OptimizerKind::Muon);
    trainee.learn(1);
    let names: Vec<String> = trainee.optimizer.tensors().into_iter().map(|(name, _, _)| name).collect();
    let mut expected = Vec::new();
    for (name, shape) in trainee.shapes() {
        let hidden = shape.len() == 2 && name.starts_with("model.layers.");
        let parts: &[&str] = if hidden { &["momentum_buffer"] } else { &["exp_avg", "exp_avg_sq"] };
        expected.extend(parts.iter().map(|part| format!("{name}.{part}")));
    }
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(names.iter().filter(|name| name.ends_with("momentum_buffer")).count(), 14);
    assert_eq!(
        trainee.optimizer.describe(&trainee.shapes()),
        "muon (lr 0.02): 3840 parameters in 14 tensors; adamw (lr 0.002): 2096 parameters in 13 tensors"
    );
    let mut lion = Trainee::of(OptimizerKind::Lion);
    lion.learn(1);
    assert!(lion.optimizer.tensors().iter().all(|(name, _, _)| name.ends_with(".exp_avg")));
}

/// Four steps are two, state taken out and put into a new optimizer, and two: to the bit.
#[test]
fn every_rule_resumes_exactly() {
    for kind in KINDS {
        let mut straight = Trainee::of(kind);
        straight.learn(2);
        let saved: BTreeMap<String, Tensor<1>> =
            straight.optimizer.tensors().into_iter().map(|(name, _, tensor)| (name, tensor)).collect();
        let mut resumed = Trainee { decoder: straight.decoder.clone(), ..Trainee::of(kind) };
        let shapes = resumed.shapes();
        resumed.optimizer.restore(2, &shapes, |name| saved.get(name).cloned()).unwrap();
        assert_eq!(resumed.bits(), straight.bits());
        for trainee in [&mut straight, &mut resumed] {
            for step in 2..4 {
                trainee.step(&next_token, &[batch(4, step)]).unwrap();
            }
        }
        assert_eq!(resumed.optimizer.updates(), 4);
        assert_eq!(resumed.bits(), straight.bits(), "{kind:?}");
        // Another rule's state, or a tensor of another size, is named.
        let other = if kind == OptimizerKind::Lion { OptimizerKind::AdamW } else { OptimizerKind::Lion };
        let mut stranger = Optimizer::new(&OptimizerRecipe::new(other, 1e-3));
        let without = |name: &str| saved.get(name).filter(|_| !name.ends_with("exp_avg")).cloned();
        let missing = stranger.restore(2, &shapes, without).unwrap_err();
        assert!(missing.contains("exp_avg` is missing"), "{missing}");
        let mut same = Optimizer::new(&OptimizerRecipe::new(kind, 1e-3));
        let short = same.restore(2, &shapes, |name| saved.get(name).map(|t| t.clone().slice(0..1))).unwrap_err();
        assert!(short.contains("has 1 elements, expected"), "{short}");
    }
}

/// Every rule lowers the loss, all parameters move, and a step that is not finite changes no bit.
#[test]
fn every_rule_learns_and_refuses_what_is_not_finite() {
    for kind in KINDS {
        let mut trainee = Trainee::of(kind);
        let before = trainee.bits();
        let losses = trainee.learn(60);
        let (start, end) = (losses[0], losses[losses.len() - 5..].iter().sum::<f64>() / 5.0);
        println!("{kind:?}: loss {start:.3} -> {end:.3} in 60 steps");
        assert!(end < start - 0.5, "{kind:?}: {losses:?}");
        let after = trainee.bits();
        for (name, bits) in &before {
            let (_, moved) = after.iter().find(|(found, _)| found == name).unwrap();
            assert_ne!(moved, bits, "{kind:?}: {name} did not move");
        }
        for factor in [f32::NAN, f32::INFINITY, 1e30] {
            let spoilt = |decoder: &Decoder, batch: &Batch| {
                let term = next_token(decoder, batch);
                LossTerm { loss_sum: term.loss_sum * factor, ..term }
            };
            let error = trainee.step(&spoilt, &[batch(4, 1)]).unwrap_err();
            assert!(matches!(error, TrainError::NotFinite { .. }), "{kind:?}: {error}");
            assert_eq!(trainee.bits(), after, "{kind:?}");
        }
    }
}

/// Clipping scales what reaches the state; it does not change the direction of Muon or Lion, which look at
/// directions alone.
#[test]
fn clipping_reaches_every_rule() {
    for kind in KINDS {
        let state = |clip_norm: f64| {
            let mut trainee = Trainee::new(&OptimizerRecipe { clip_norm, ..OptimizerRecipe::new(kind, 2e-3) });
            let report = trainee.step(&next_token, &[batch(4, 1)]).unwrap();
            assert!(report.grad_norm > 0.1, "{}", report.grad_norm);
            let tensors = trainee.optimizer.tensors().into_iter();
            let means = tensors.filter(|(name, _, _)| !name.ends_with("exp_avg_sq"));
            let all: Vec<f32> = means.flat_map(|(_, _, tensor)| values(tensor)).collect();
            (all, report.grad_norm)
        };
        let (free, norm) = state(0.0);
        let (clipped, _) = state(0.01);
        let factor = (0.01 / (norm + 1e-6)) as f32;
        let scaled: Vec<f32> = free.iter().map(|x| x * factor).collect();
        assert!(distance(&clipped, &scaled) / distance(&scaled, &vec![0.0; scaled.len()]) < 1e-5, "{kind:?}");
    }
}

/// Under `precision = "bf16"` parameters, gradients that reach the optimizer and its state are f32, as they are in
/// f32, for every rule; the loss over 50 steps stays near that of f32.
#[test]
fn bf16_keeps_masters_and_moments_in_f32() {
    for kind in KINDS {
        let curve = |dtype: DType| {
            let mut trainee = Trainee::of(kind);
            trainee.decoder.set_compute(dtype);
            let losses = trainee.learn(50);
            // `values` refuses any other dtype than f32.
            let bits = trainee.bits();
            // Bits below bfloat16's 8 are in use in every tensor: a state that had passed through it would lack them.
            let fine = |bits: &[u32]| bits.iter().any(|b| b & 0xffff != 0);
            let coarse: Vec<&String> = bits.iter().filter(|(_, b)| !fine(b)).map(|(name, _)| name).collect();
            assert!(coarse.is_empty(), "{kind:?} {dtype:?}: {coarse:?}");
            losses
        };
        let (full, half) = (curve(DType::F32), curve(DType::BF16));
        assert_ne!(full, half, "bf16 is in use");
        let apart: Vec<f64> = full.iter().zip(&half).map(|(a, b)| (a - b).abs()).collect();
        let (mean, worst) = (apart.iter().sum::<f64>() / 50.0, apart.iter().fold(0.0f64, |m, x| m.max(*x)));
        println!("{kind:?}: bf16 loss is off f32's by {mean:.1e} on average, {worst:.1e} at most over 50 steps");
        assert!(worst < BF16_LOSS, "{kind:?}: {worst}");
    }
}

/// Nats, of losses that fall from 4.1; measured 2.6e-4 (AdamW), 1.4e-3 (Muon), 2.6e-3 (Lion).
const BF16_LOSS: f64 = 0.01;

/// The gradients of many micro-batches are added in f32: in bf16, 64 equal parts would stop growing the sum.
#[test]
fn accumulation_is_in_f32_under_bf16() {
    let gradient = |parts: usize| {
        let recipe = OptimizerRecipe { clip_norm: 0.0, ..OptimizerRecipe::new(OptimizerKind::Lion, 1e-3) };
        let mut trainee = Trainee::new(&recipe);
        trainee.decoder.set_compute(DType::BF16);
        trainee.step(&next_token, &vec![batch(1, 5); parts]).unwrap();
        let tensors = trainee.optimizer.tensors().into_iter();
        tensors.flat_map(|(_, _, tensor)| values(tensor)).collect::<Vec<f32>>()
    };
    let (one, many) = (gradient(1), gradient(64));
    let error = distance(&many, &one) / distance(&one, &vec![0.0; one.len()]);
    println!("64 equal micro-batches against one: {error:.1e}");
    assert!(error < 1e-6, "{error}");
}

/// z-loss lowers log Z, and the loss that is reported is the cross-entropy alone.
#[test]
fn z_loss_is_trained_on_and_not_reported() {
    let mut plain = Trainee::of(OptimizerKind::AdamW);
    let mut with_z = Trainee::of(OptimizerKind::AdamW);
    let objective = |decoder: &Decoder, batch: &Batch| next_token_with_z(decoder, batch, 0.01);
    let batches = [batch(4, 1), batch(4, 2)];
    let term = objective(&with_z.decoder, &batches[0]);
    let z = values(term.unreported.clone().unwrap())[0];
    // Logits are near 0 at the start: log Z is near ln 61.
    assert!((z / 48.0 - 0.01 * 61f32.ln().powi(2)).abs() < 0.01, "{z}");
    assert!(next_token(&plain.decoder, &batches[0]).unreported.is_none());
    let (a, b) = (plain.step(&next_token, &batches).unwrap(), with_z.step(&objective, &batches).unwrap());
    assert!((a.loss - b.loss).abs() < 1e-5, "{} and {}", a.loss, b.loss);
    assert_ne!(plain.bits(), with_z.bits(), "the gradient has it");
    let log_z = |trainee: &Trainee| {
        let term = next_token_with_z(&trainee.decoder, &batches[0], 1.0);
        values(term.unreported.unwrap())[0]
    };
    for _ in 0..30 {
        plain.step(&next_token, &batches).unwrap();
        with_z.step(&objective, &batches).unwrap();
    }
    assert!(log_z(&with_z) < log_z(&plain), "{} and {}", log_z(&with_z), log_z(&plain));
}
