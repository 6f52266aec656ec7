//! Compares the reader's adapter with one of Fornax on the head of a decoder, a linear layer whose input and output can be
//! seen from outside: logits, gradients, merged.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::{Adapter, Sizes};
use fornax_learn::burn::tensor::DType;
use fornax_learn::fornax_model::adapter::{AdapterConfig, Targets};
use fornax_learn::fornax_model::{Decoder, ModelConfig, ops};
use fornax_learn::{Checks, Mistake, Outcome, compare, device, normals, tensor, values};

/// Rows and sizes; no two equal, so that a swap shows.
const N: usize = 4;
const SIZES: Sizes = Sizes { inputs: 7, outputs: 5, rank: 3 };
const ALPHA: f32 = 6.0;
const TOLERANCE: f32 = 1e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("scale: by the rank, and by its root", scale);
    checks.run("forward: a fresh adapter, B = 0", fresh);
    checks.run("forward: 4 rows", || forward(false));
    checks.run("forward: rank-stabilized", || forward(true));
    checks.run("backward: the gradient of B", || backward(false));
    checks.run("backward: the gradient of A", || backward(true));
    checks.run("merge: one weight for both", merge);
    checks.finish()
}

/// Everything that a case needs.
struct Given {
    x_ni: Vec<f32>,
    dy_no: Vec<f32>,
    w_oi: Vec<f32>,
    a_ri: Vec<f32>,
    b_or: Vec<f32>,
    rank_stabilized: bool,
}

impl Given {
    fn new(rank_stabilized: bool) -> Self {
        let Sizes { inputs, outputs, rank } = SIZES;
        Given {
            x_ni: normals("x", N * inputs),
            dy_no: normals("dy", N * outputs),
            w_oi: normals("w", outputs * inputs),
            a_ri: normals("a", rank * inputs),
            b_or: normals("b", outputs * rank),
            rank_stabilized,
        }
    }

    fn adapter(&self) -> Adapter<'_> {
        Adapter { a_ri: &self.a_ri, b_or: &self.b_or, alpha: ALPHA, rank_stabilized: self.rank_stabilized }
    }

    fn scale(&self) -> f32 {
        let rank = SIZES.rank as f32;
        ALPHA / if self.rank_stabilized { rank.sqrt() } else { rank }
    }

    /// base x W^T + adapter (x A^T) B^T.
    fn composed(&self, base: f32, adapter: f32) -> Vec<f32> {
        let Sizes { inputs, outputs, rank } = SIZES;
        let x = || tensor(&self.x_ni, [N, inputs]);
        let narrow = ops::linear(x(), tensor(&self.a_ri, [rank, inputs]), None);
        let wide = ops::linear(narrow, tensor(&self.b_or, [outputs, rank]), None);
        values(ops::linear(x(), tensor(&self.w_oi, [outputs, inputs]), None) * base + wide * adapter)
    }
}

fn scale() -> Outcome {
    let given = |rank_stabilized| Given::new(rank_stabilized);
    let found: Vec<f32> = [false, true].map(|stable| answer::scale(given(stable).adapter(), SIZES)).to_vec();
    let rank = SIZES.rank as f32;
    let mistakes: [Mistake<'_>; 5] = [
        ("alpha is not divided by anything", vec![ALPHA; 2]),
        ("rank-stabilized or not, alpha is divided by the rank", vec![ALPHA / rank; 2]),
        ("rank-stabilized or not, alpha is divided by the root of the rank", vec![ALPHA / rank.sqrt(); 2]),
        ("the two are swapped: rank-stabilized means the root", vec![ALPHA / rank.sqrt(), ALPHA / rank]),
        ("the rank is divided by alpha", vec![rank / ALPHA, rank.sqrt() / ALPHA]),
    ];
    compare(&found, &[given(false).scale(), given(true).scale()], 1e-6, &mistakes)
}

fn fresh() -> Outcome {
    let mut given = Given::new(false);
    given.b_or.fill(0.0);
    let found = answer::forward(&given.x_ni, &given.w_oi, given.adapter(), SIZES);
    let mistakes: [Mistake<'_>; 2] = [
        ("the base is missing: the adapter is added to x W^T, it does not replace it", vec![0.0; found.len()]),
        ("the base is multiplied by the scale too", given.composed(given.scale(), 0.0)),
    ];
    compare(&found, &given.composed(1.0, 0.0), TOLERANCE, &mistakes)
}

fn forward(rank_stabilized: bool) -> Outcome {
    let given = Given::new(rank_stabilized);
    let scale = given.scale();
    let expected = fornax(&given).0;
    let other = Given::new(!rank_stabilized).scale();
    let mistakes: [Mistake<'_>; 6] = [
        ("the scale is missing", given.composed(1.0, 1.0)),
        ("the adapter is multiplied by alpha; it is alpha by the rank or its root", given.composed(1.0, ALPHA)),
        ("rank-stabilized is taken the wrong way round", given.composed(1.0, other)),
        ("the adapter is missing", given.composed(1.0, 0.0)),
        ("the base is missing: the adapter is added to x W^T, it does not replace it", given.composed(0.0, scale)),
        ("the base is multiplied by the scale too", given.composed(scale, scale)),
    ];
    compare(&answer::forward(&given.x_ni, &given.w_oi, given.adapter(), SIZES), &expected, TOLERANCE, &mistakes)
}

fn backward(of_a: bool) -> Outcome {
    let given = Given::new(false);
    let (_, da, db) = fornax(&given);
    let (found_a, found_b) = answer::backward(&given.x_ni, &given.dy_no, given.adapter(), SIZES);
    let (found, expected) = if of_a { (found_a, da) } else { (found_b, db) };
    let times = |factor: f32| expected.iter().map(|g| g * factor).collect::<Vec<f32>>();
    let last = gradients(&given, N - 1);
    let shape = if of_a { [SIZES.rank, SIZES.inputs] } else { [SIZES.outputs, SIZES.rank] };
    let transposed = values(tensor(&expected, shape).swap_dims(0, 1).reshape([shape[0], shape[1]]));
    let mistakes: [Mistake<'_>; 5] = [
        ("the scale is missing", times(1.0 / given.scale())),
        ("the gradient is averaged over the rows; they are summed", times(1.0 / N as f32)),
        ("the sign is wrong: this is the direction downhill", times(-1.0)),
        ("only the last row counts; the rows are summed", if of_a { last.0 } else { last.1 }),
        ("the gradient is transposed", transposed),
    ];
    compare(&found, &expected, TOLERANCE, &mistakes)
}

/// The gradients from the rows from `from` on, written out.
fn gradients(given: &Given, from: usize) -> (Vec<f32>, Vec<f32>) {
    let Sizes { inputs, outputs, rank } = SIZES;
    let x = tensor(&given.x_ni[from * inputs..], [N - from, inputs]);
    let dy = tensor(&given.dy_no[from * outputs..], [N - from, outputs]) * given.scale();
    let narrow = ops::linear(x.clone(), tensor(&given.a_ri, [rank, inputs]), None);
    let back = dy.clone().matmul(tensor(&given.b_or, [outputs, rank]));
    (values(back.transpose().matmul(x)), values(dy.transpose().matmul(narrow)))
}

fn merge() -> Outcome {
    let given = Given::new(false);
    let Sizes { inputs, outputs, rank } = SIZES;
    let found = answer::merge(&given.w_oi, given.adapter(), SIZES);
    let product = tensor(&given.b_or, [outputs, rank]).matmul(tensor(&given.a_ri, [rank, inputs]));
    let with =
        |base: f32, scale: f32| values(tensor(&given.w_oi, [outputs, inputs]) * base + product.clone() * scale);
    let expected = fornax_merged(&given);
    let mistakes: [Mistake<'_>; 5] = [
        ("the scale is missing", with(1.0, 1.0)),
        ("the product is added twice, or the scale stands in it twice", with(1.0, given.scale().powi(2))),
        ("this is the product alone; it is added to W", with(0.0, given.scale())),
        ("the product is subtracted: that takes an adapter out again", with(1.0, -given.scale())),
        ("alpha is not divided by the rank", with(1.0, ALPHA)),
    ];
    compare(&found, &expected, TOLERANCE, &mistakes)?;
    // What is merged does the same as what is not.
    let y_no = values(ops::linear(tensor(&given.x_ni, [N, inputs]), tensor(&found, [outputs, inputs]), None));
    compare(&y_no, &fornax(&given).0, TOLERANCE, &[])
}

/// A decoder whose head is W, with the adapter on it.
fn decoder(given: &Given) -> Decoder {
    let config = ModelConfig {
        vocab_size: SIZES.outputs,
        width: SIZES.inputs,
        n_heads: 1,
        n_kv_heads: 1,
        head_dim: 4,
        ffn_width: 8,
        context: 8,
        tied: false,
        ..ModelConfig::llama(1)
    };
    let mut decoder = Decoder::init(&config, 7, &device());
    let mut adapter =
        AdapterConfig::lora(SIZES.rank, f64::from(ALPHA), Targets::Names(vec!["lm_head".to_owned()]));
    adapter.rslora = given.rank_stabilized;
    decoder.attach("default", adapter, 7).expect("an adapter on the head");
    decoder.visit_mut(&mut |name, mut parameter| {
        let values = match name {
            "lm_head.weight" => &given.w_oi,
            "lm_head.lora_A.weight" => &given.a_ri,
            "lm_head.lora_B.weight" => &given.b_or,
            _ => return,
        };
        parameter.set_flat(tensor(values, [values.len()]));
    });
    decoder
}

/// (y_no, da_ri, db_or) of Fornax.
fn fornax(given: &Given) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let decoder = decoder(given).trainable(true);
    let logits = decoder.logits(tensor(&given.x_ni, [1, N, SIZES.inputs]).autodiff());
    let dy = tensor(&given.dy_no, [1, N, SIZES.outputs]).autodiff();
    let gradients = decoder.backward(&(logits.clone() * dy).sum());
    let of = |part: &str| values(gradients[&format!("lm_head.lora_{part}.weight")].clone());
    (values(logits.without_autodiff()), of("A"), of("B"))
}

fn fornax_merged(given: &Given) -> Vec<f32> {
    let merged = decoder(given).merged(DType::F32).expect("an active adapter");
    let head = merged.parameters().into_iter().find(|(name, ..)| name == "lm_head.weight");
    head.map(|(_, _, weight)| values(weight)).unwrap_or_default()
}
