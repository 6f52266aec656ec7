//! A frozen base under a few trainable parameters, as adapters have it: the gradients of those few must be what they
//! are when everything is trainable, on every device this build finds. Burn's issue 5162 is a backward that is wrong
//! on GPU backends when only some parameters are tracked.

#![allow(clippy::print_stdout, reason = "measured differences, shown with --nocapture")]

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::rng::rng;
use fornax_model::device::{inventory, open};
use fornax_model::{Decoder, Layout, ModelConfig, ops, token_tensor};

const ROWS: usize = 2;
const COLUMNS: usize = 11;
const VOCABULARY: usize = 61;

/// Gradients against the processor's: another order of the same f32 operations.
const TOLERANCE: f32 = 2e-5;

/// Every device that passes the small trial of `doctor`, with its name.
fn devices() -> Vec<(String, Device)> {
    let usable = inventory().into_iter().filter(|found| found.fault.is_none());
    let all: Vec<_> = usable.map(|found| (found.name.to_string(), open(found.name).unwrap().0)).collect();
    assert!(!all.is_empty());
    all
}

fn decoder(device: &Device) -> Decoder {
    let config = ModelConfig {
        vocab_size: VOCABULARY,
        width: 36,
        n_heads: 6,
        n_kv_heads: 2,
        head_dim: 6,
        ffn_width: 52,
        context: 16,
        tied: false,
        init_std: 0.2,
        ..ModelConfig::llama(3)
    };
    config.check().unwrap();
    Decoder::init(&config, 5, device)
}

fn ids(purpose: &str) -> Vec<u32> {
    let mut random = rng(1, 0, purpose);
    (0..ROWS * COLUMNS).map(|_| random.below(VOCABULARY as u64) as u32).collect()
}

/// Gradients by name, with only the parameters that `chosen` names trainable; every other must get none.
fn gradients(device: &Device, chosen: &dyn Fn(&str) -> bool) -> BTreeMap<String, Vec<f32>> {
    let mut decoder = decoder(device);
    decoder.visit_mut(&mut |name, mut parameter| parameter.set_trainable(chosen(name)));
    let layout = Layout::contiguous(0, COLUMNS, device);
    let hidden = decoder.forward(token_tensor(&ids("inputs"), ROWS, device), &layout, None);
    let weights = Tensor::<2>::from_data(TensorData::new(vec![1.0f32; ROWS * COLUMNS], [ROWS, COLUMNS]), device);
    let loss = decoder.loss(hidden, token_tensor(&ids("targets"), ROWS, device), weights);
    let mut gradients = loss.backward();
    let mut found = BTreeMap::new();
    decoder.visit_mut(&mut |name, parameter| {
        let gradient = parameter.take_gradient(&mut gradients);
        assert_eq!(gradient.is_some(), chosen(name), "{name}");
        if let Some(gradient) = gradient {
            found.insert(name.to_string(), gradient.try_into_vec_as::<f32>().unwrap());
        }
    });
    found
}

/// Greatest difference by the greatest value.
fn relative(ours: &[f32], reference: &[f32]) -> f32 {
    assert_eq!(ours.len(), reference.len());
    let largest = reference.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.0, "a gradient of zeros shows nothing");
    ours.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[track_caller]
fn equal_those_of_full_training(what: &str, expected: usize, chosen: &dyn Fn(&str) -> bool) {
    let full = gradients(&Device::flex(), &|_| true);
    for (name, device) in devices() {
        let few = gradients(&device, chosen);
        assert_eq!(few.len(), expected, "{what} on {name}");
        let errors = few.iter().map(|(parameter, gradient)| (relative(gradient, &full[parameter]), parameter));
        let (worst, parameter) = errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        println!("{what} on {name}: {expected} gradients differ by at most {worst:.1e} ({parameter})");
        assert!(worst < TOLERANCE, "{what} on {name}: {parameter} is off by {worst}");
    }
}

#[test]
fn only_norms() {
    equal_those_of_full_training("only norms", 7, &|name| name.contains("norm"));
}

#[test]
fn only_queries_and_values_as_adapters_choose_them() {
    equal_those_of_full_training("only queries and values", 6, &|name| {
        name.contains("q_proj") || name.contains("v_proj")
    });
}

#[test]
fn one_small_matrix_at_the_bottom() {
    equal_those_of_full_training("one matrix", 1, &|name| name == "model.layers.0.self_attn.k_proj.weight");
}

#[test]
fn only_the_head_and_only_the_embedding() {
    equal_those_of_full_training("the head", 1, &|name| name == "lm_head.weight");
    equal_those_of_full_training("the embedding", 1, &|name| name == "model.embed_tokens.weight");
}

/// `y = x W^T + 2 (x A^T) B^T` three times over, with a norm and a gate between, W frozen: the gradients of A and B,
/// of rank 3, against those where W is trainable too.
#[test]
fn low_rank_pairs_over_frozen_products() {
    let reference = low_rank(&Device::flex(), true);
    for (name, device) in devices() {
        for (i, (ours, full)) in low_rank(&device, false).iter().zip(&reference).enumerate() {
            let error = relative(ours, full);
            println!("low rank on {name}: gradient {i} differs by {error:.1e}");
            assert!(error < TOLERANCE, "gradient {i} on {name} is off by {error}");
        }
    }
}

fn low_rank(device: &Device, base_too: bool) -> Vec<Vec<f32>> {
    let (n, c, r) = (13, 20, 3);
    let matrix = |purpose: &str, rows: usize, columns: usize, tracked: bool| {
        let mut random = rng(2, 0, purpose);
        let values: Vec<f32> = (0..rows * columns).map(|_| random.normal_f32() * 0.3).collect();
        let plain = Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), (device, DType::F32));
        if tracked { plain.autodiff().require_grad() } else { plain }
    };
    let layer = |i: usize| {
        [("w", c, c, base_too), ("a", r, c, true), ("b", c, r, true)]
            .map(|(what, rows, columns, tracked)| matrix(&format!("{what}{i}"), rows, columns, tracked))
    };
    let layers: Vec<[Tensor<2>; 3]> = (0..3).map(layer).collect();
    let gain = Tensor::<1>::ones([c], (device, DType::F32));
    let mut x = matrix("x", n, c, false);
    for [w, a, b] in &layers {
        let low = ops::linear(ops::linear(x.clone(), a.clone(), None), b.clone(), None);
        let y = ops::linear(x.clone(), w.clone(), None) + low * 2.0;
        x = x + ops::swiglu(ops::rms_norm(y.clone(), gain.clone(), 1e-5), y);
    }
    let mut gradients = (x * matrix("cotangent", n, c, false)).sum().backward();
    let small = layers.iter().flat_map(|[_, a, b]| [a, b]);
    let mut taken = |x: &Tensor<2>| x.grad_remove(&mut gradients).unwrap().reshape([-1]);
    small.map(|x| taken(x).try_into_vec_as::<f32>().unwrap()).collect()
}
