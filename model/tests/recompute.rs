//! Activation checkpointing gives the gradients of the plain path, to the bit.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::rng::rng;
use fornax_model::{Decoder, Layout, ModelConfig, token_tensor};

const ROWS: usize = 2;
const COLUMNS: usize = 12;
const VOCABULARY: usize = 61;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: VOCABULARY,
        width: 16,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 4,
        ffn_width: 24,
        context: 16,
        ..ModelConfig::llama(3)
    }
}

fn decoder(config: &ModelConfig) -> Decoder {
    Decoder::init(config, 3, &Device::flex()).trainable(true)
}

/// Two documents in each row, or one.
fn layout(packed: bool, device: &Device) -> Layout {
    if !packed {
        return Layout::contiguous(0, COLUMNS, device);
    }
    let column = |i: usize| (i % COLUMNS) as u32;
    let cut = |i: usize| 4 + 3 * (i / COLUMNS) as u32;
    let position = |i| if column(i) < cut(i) { column(i) } else { column(i) - cut(i) };
    let positions: Vec<u32> = (0..ROWS * COLUMNS).map(position).collect();
    let documents: Vec<u32> = (0..ROWS * COLUMNS).map(|i| u32::from(column(i) >= cut(i))).collect();
    Layout::packed(&positions, &documents, ROWS, device)
}

/// The weighted loss of one forward pass over tokens that depend on `purpose`.
fn loss(decoder: &Decoder, purpose: &str, packed: bool) -> Tensor<1> {
    let device = decoder.device();
    let mut random = rng(7, 0, purpose);
    let mut ids = || -> Vec<u32> { (0..ROWS * COLUMNS).map(|_| random.below(VOCABULARY as u64) as u32).collect() };
    let (inputs, targets) = (token_tensor(&ids(), ROWS, &device), token_tensor(&ids(), ROWS, &device));
    let weights: Vec<f32> = (0..ROWS * COLUMNS).map(|i| f32::from(u8::from(i % 5 != 0))).collect();
    let weights = Tensor::from_data(TensorData::new(weights, [ROWS, COLUMNS]), &device);
    decoder.loss(decoder.forward(inputs, &layout(packed, &device), None), targets, weights)
}

type Bits = BTreeMap<String, Vec<u32>>;

/// Loss and gradients as bits; `objective` builds the loss.
fn bits(decoder: &Decoder, objective: impl Fn(&Decoder) -> Tensor<1>) -> (u32, Bits) {
    let loss = objective(decoder);
    let value = loss.clone().into_scalar::<f32>().to_bits();
    let read = |gradient: Tensor<1>| -> Vec<u32> {
        gradient.try_into_vec_as::<f32>().unwrap().iter().map(|v| v.to_bits()).collect()
    };
    (value, decoder.backward(&loss).into_iter().map(|(name, gradient)| (name, read(gradient))).collect())
}

/// The same loss and the same gradients with and without checkpointing, and again in a second pass.
#[track_caller]
fn check(what: &str, decoder: &Decoder, objective: impl Fn(&Decoder) -> Tensor<1>) -> Bits {
    let (value, expected) = bits(decoder, &objective);
    assert!(expected.values().flatten().any(|&bits| f32::from_bits(bits) != 0.0), "{what}");
    let mut saving = decoder.clone();
    saving.set_activation_checkpointing(true);
    for _ in 0..2 {
        let found = bits(&saving.for_one_pass(), &objective);
        assert_eq!(found.0, value, "{what}: the loss");
        assert_eq!(found.1.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
        for (name, gradient) in &expected {
            assert_eq!(&found.1[name], gradient, "{what}: the gradient of {name}");
        }
    }
    expected
}

#[test]
fn gradients_equal_those_of_the_plain_path_to_the_bit() {
    for (what, config) in [
        ("tied", config()),
        ("untied", ModelConfig { tied: false, ..config() }),
        ("biases and head norms", ModelConfig { qkv_bias: true, mlp_bias: true, qk_norm: true, ..config() }),
        ("windows", ModelConfig { windows: vec![Some(3), None, Some(5)], ..config() }),
    ] {
        let decoder = decoder(&config);
        for packed in [false, true] {
            let all = check(what, &decoder, |d| loss(d, "one", packed));
            assert_eq!(all.len(), decoder.parameters().len(), "{what}");
        }
    }
}

#[test]
fn half_precision_gives_the_same_bits_too() {
    let mut decoder = decoder(&config());
    decoder.set_compute(DType::BF16);
    check("bf16", &decoder, |d| loss(d, "one", false));
}

/// A preference loss stands on two forward passes of one model.
#[test]
fn a_loss_over_two_forward_passes_reaches_both() {
    let decoder = decoder(&ModelConfig { tied: false, ..config() });
    check("difference", &decoder, |d| loss(d, "chosen", false) - loss(d, "rejected", true) * 0.5);
}

#[test]
fn frozen_parameters_get_no_gradient_and_change_nothing_for_the_others() {
    type Chosen = fn(&str) -> bool;
    let frozen: [(&str, Chosen); 4] = [
        ("the embedding", |name| name.contains("embed")),
        ("the lower blocks", |name| ["embed", "layers.0", "layers.1"].iter().any(|part| name.contains(part))),
        ("a matrix of each block", |name| name.contains("q_proj")),
        ("all but norms and head", |name| !name.contains("norm") && !name.starts_with("lm_head")),
    ];
    for (what, is_frozen) in frozen {
        let mut decoder = decoder(&ModelConfig { tied: false, ..config() });
        decoder.visit_mut(&mut |name, mut parameter| {
            if is_frozen(name) {
                parameter.set_trainable(false);
            }
        });
        let gradients = check(what, &decoder, |d| loss(d, "one", false));
        assert!(gradients.keys().all(|name| !is_frozen(name)), "{what}");
    }
}

#[test]
fn a_pass_without_backward_leaves_nothing_behind() {
    let mut decoder = decoder(&config());
    let expected = bits(&decoder, |d| loss(d, "one", false));
    decoder.set_activation_checkpointing(true);
    drop(loss(&decoder.for_one_pass(), "masked", false));
    assert_eq!(bits(&decoder.for_one_pass(), |d| loss(d, "one", false)), expected);
}

#[test]
fn evaluation_is_the_same_with_it() {
    let mut plain = decoder(&config()).trainable(false);
    let logits = |decoder: &Decoder| {
        let device = decoder.device();
        let tokens = token_tensor(&[1, 2, 3, 4], 1, &device);
        let hidden = decoder.forward(tokens, &Layout::contiguous(0, 4, &device), None);
        decoder.logits(hidden).into_data().try_to_vec::<f32>().unwrap()
    };
    let expected = logits(&plain);
    plain.set_activation_checkpointing(true);
    assert_eq!(logits(&plain), expected);
}
