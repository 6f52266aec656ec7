//! Compares the reader's trace with Fornax's decoder: logits with `Decoder::logits`, probabilities with
//! `Decoder::token_nll`.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::collections::BTreeMap;
use std::process::ExitCode;

use answer::Trace;
use fornax_learn::burn::tensor::{DType, Tensor};
use fornax_learn::fornax_model::ops::{self, AttentionMask};
use fornax_learn::fornax_model::rope::Rope;
use fornax_learn::fornax_model::{Decoder, Layout, ModelConfig, token_tensor};
use fornax_learn::{Checks, Mistake, Outcome, compare, device, tensor, values};

const IDS: [u32; 7] = [3, 17, 0, 22, 9, 17, 5];
const TOLERANCE: f32 = 2e-5;

fn main() -> ExitCode {
    let given = Given::new();
    let trace = || given.trace();
    let mut checks = Checks::new();
    checks.run("softmax: large logits", large_logits);
    checks.run("trace: the embedding row", || embedding(&given, &trace()));
    checks.run("trace: lengths of the residual vector", || norms(&given, &trace()));
    checks.run("trace: logits", || logits(&given, &trace()));
    checks.run("trace: probabilities", || probabilities(&given, &trace()));
    checks.run("trace: the five likeliest", || top(&given, &trace()));
    checks.finish()
}

/// A random decoder of two layers, and its parameters by name.
struct Given {
    model: Decoder,
    parameters: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Given {
    fn new() -> Self {
        let config = ModelConfig {
            vocab_size: 23,
            width: 12,
            n_heads: 3,
            n_kv_heads: 1,
            head_dim: 4,
            ffn_width: 20,
            context: 16,
            init_std: 0.5,
            ..ModelConfig::llama(2)
        };
        let model = Decoder::init(&config, 7, &device());
        let named = model.parameters().into_iter();
        let parameters = named.map(|(name, shape, flat)| (name, (shape, values(flat)))).collect();
        Self { model, parameters }
    }

    fn values(&self, name: &str) -> &[f32] {
        &self.parameters[name].1
    }

    fn matrix(&self, name: &str) -> Tensor<2> {
        let (shape, values) = &self.parameters[name];
        tensor(values, [shape[0], shape[1]])
    }

    fn normed(&self, name: &str, x_tc: &[f32]) -> Tensor<2> {
        let (c, gain) = (self.model.config().width, self.values(name));
        let x_tc = tensor(x_tc, [x_tc.len() / c, c]);
        ops::rms_norm(x_tc, tensor(gain, [c]), self.model.config().norm_eps as f32)
    }

    /// The attention branch of a block in Fornax's operations.
    fn attention(&self, layer: usize, x_tc: &[f32]) -> Vec<f32> {
        let config = self.model.config();
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let normed = self.normed(&name("input_layernorm"), x_tc);
        let (t, d) = (normed.dims()[0], config.head_dim);
        let heads = |part: &str, n: usize| {
            let y = ops::linear(normed.clone(), self.matrix(&name(part)), None);
            y.reshape([1, t, n, d]).swap_dims(1, 2)
        };
        let positions = Layout::contiguous(0, t, &device()).positions_bt;
        let (cos, sin) = Rope::new(config, &device()).angles(positions, DType::F32);
        let q = ops::rope(heads("self_attn.q_proj", config.n_heads), cos.clone(), sin.clone());
        let k = ops::rope(heads("self_attn.k_proj", config.n_kv_heads), cos, sin);
        let v = heads("self_attn.v_proj", config.n_kv_heads);
        let mask = AttentionMask::new(0, t, None, None, &device());
        let out = ops::attention(q, k, v, &mask, 1.0 / (d as f32).sqrt());
        let out_ta = out.swap_dims(1, 2).reshape([t, config.n_heads * d]);
        values(ops::linear(out_ta, self.matrix(&name("self_attn.o_proj")), None))
    }

    /// The feed-forward branch.
    fn mlp(&self, layer: usize, x_tc: &[f32]) -> Vec<f32> {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let normed = self.normed(&name("post_attention_layernorm"), x_tc);
        let part = |part: &str| ops::linear(normed.clone(), self.matrix(&name(part)), None);
        let inner = ops::swiglu(part("mlp.gate_proj"), part("mlp.up_proj"));
        values(ops::linear(inner, self.matrix(&name("mlp.down_proj")), None))
    }

    /// The reader's trace of this decoder.
    fn trace(&self) -> Trace {
        let config = self.model.config();
        let decoder = answer::Decoder {
            width: config.width,
            n_layers: config.n_layers,
            embedding_vc: self.values("model.embed_tokens.weight"),
            attention: &|layer, x_tc| self.attention(layer, x_tc),
            mlp: &|layer, x_tc| self.mlp(layer, x_tc),
            norm: &|x_tc| values(self.normed("model.norm.weight", x_tc)),
        };
        answer::trace(&decoder, &IDS)
    }

    /// Fornax's logits of the last token.
    fn logits(&self) -> Vec<f32> {
        let tokens = token_tensor(&IDS, 1, &device());
        let layout = Layout::contiguous(0, IDS.len(), &device());
        let hidden = self.model.forward(tokens, &layout, None);
        let all = values(self.model.logits(hidden));
        all[(IDS.len() - 1) * self.model.config().vocab_size..].to_vec()
    }

    /// Fornax's probability of each next token, from its loss on that token.
    fn probabilities(&self) -> Vec<f32> {
        let next = 0..self.model.config().vocab_size as u32;
        let probability = |target: u32| {
            let (inputs, mut targets) = (token_tensor(&IDS, 1, &device()), [0; IDS.len()]);
            targets[IDS.len() - 1] = target;
            let hidden = self.model.forward(inputs, &Layout::contiguous(0, IDS.len(), &device()), None);
            let nll = values(self.model.token_nll(hidden, token_tensor(&targets, 1, &device())));
            (-nll[IDS.len() - 1]).exp()
        };
        next.map(probability).collect()
    }

    /// x_tc after each branch. `add` false forgets the residual connection.
    fn stream(&self, ids: &[u32], add: bool) -> Vec<Vec<f32>> {
        let c = self.model.config().width;
        let table = self.values("model.embed_tokens.weight");
        let mut x_tc: Vec<f32> = ids.iter().flat_map(|&id| &table[id as usize * c..][..c]).copied().collect();
        let mut all = vec![x_tc.clone()];
        for layer in 0..self.model.config().n_layers {
            for attends in [true, false] {
                let y = if attends { self.attention(layer, &x_tc) } else { self.mlp(layer, &x_tc) };
                x_tc = y.iter().zip(&x_tc).map(|(y, x)| if add { x + y } else { *y }).collect();
                all.push(x_tc.clone());
            }
        }
        all
    }

    /// Logits of the token at `position` of a residual stream.
    fn head(&self, x_tc: &[f32], position: usize, with_norm: bool) -> Vec<f32> {
        let c = self.model.config().width;
        let normed = values(self.normed("model.norm.weight", x_tc));
        let hidden_c = &(if with_norm { &normed } else { x_tc })[position * c..][..c];
        let rows = self.values("model.embed_tokens.weight").chunks(c);
        rows.map(|row| row.iter().zip(hidden_c).map(|(a, b)| a * b).sum()).collect()
    }
}

fn large_logits() -> Outcome {
    let expected = [0.090_030_57, 0.244_728_48, 0.665_240_94];
    let small = answer::softmax(&[0.0, 1.0, 2.0]);
    compare(&small, &expected, 1e-6, &[("these are powers of two", vec![1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0])])?;
    let large = answer::softmax(&[1000.0, 1001.0, 1002.0]);
    match large.iter().any(|p| p.is_nan()) {
        true => {
            Err("softmax([1000, 1001, 1002]) has NaN: exp(1000) overflows; subtract the greatest logit before"
                .into())
        }
        false => compare(&large, &expected, 1e-6, &[]),
    }
}

fn embedding(given: &Given, trace: &Trace) -> Outcome {
    let c = given.model.config().width;
    let row = |id: u32| given.values("model.embed_tokens.weight")[id as usize * c..][..c].to_vec();
    let first = ("this is the row of the first token; the trace is of the last", row(IDS[0]));
    compare(&trace.embedding_c, &row(IDS[IDS.len() - 1]), 0.0, &[first])
}

fn norms(given: &Given, trace: &Trace) -> Outcome {
    let c = given.model.config().width;
    let length = |x_c: &[f32]| x_c.iter().map(|x| x * x).sum::<f32>().sqrt();
    let lengths = |stream: Vec<Vec<f32>>, at: usize| -> Vec<f32> {
        stream.iter().map(|x_tc| length(&x_tc[at * c..][..c])).collect()
    };
    let last = IDS.len() - 1;
    let expected = lengths(given.stream(&IDS, true), last);
    // The stream is Fornax's only if its end gives Fornax's logits.
    let end = given.stream(&IDS, true).pop().unwrap_or_default();
    compare(&given.head(&end, last, true), &given.logits(), TOLERANCE, &[])?;
    let rms = expected.iter().map(|norm| norm / (c as f32).sqrt()).collect();
    let ends = [expected[0], expected[2], expected[4]].to_vec();
    let mistakes: [Mistake<'_>; 5] = [
        (
            "the branches replace the residual stream; they are to be added to it",
            lengths(given.stream(&IDS, false), last),
        ),
        ("these are root mean squares; the length has no division by c", rms),
        ("these are lengths of the first token; the trace is of the last", lengths(given.stream(&IDS, true), 0)),
        ("there is one number a layer; attention and feed-forward part each have one", ends),
        ("the last token went alone; attention needs all tokens", lengths(given.stream(&IDS[last..], true), 0)),
    ];
    compare(&trace.residual_norms, &expected, TOLERANCE, &mistakes)
}

fn logits(given: &Given, trace: &Trace) -> Outcome {
    let last = IDS.len() - 1;
    let end = given.stream(&IDS, true).pop().unwrap_or_default();
    let mistakes: [Mistake<'_>; 2] = [
        ("the last normalization is missing", given.head(&end, last, false)),
        ("these are the logits of the first token", given.head(&end, 0, true)),
    ];
    compare(&trace.logits_v, &given.logits(), TOLERANCE, &mistakes)
}

fn probabilities(given: &Given, trace: &Trace) -> Outcome {
    let logits = given.logits();
    let total: f32 = logits.iter().sum();
    let logarithms = given.probabilities().iter().map(|p| p.ln()).collect();
    let mistakes: [Mistake<'_>; 3] = [
        ("these are the logits themselves", logits.clone()),
        (
            "these are logits divided by their sum, without exponentials",
            logits.iter().map(|x| x / total).collect(),
        ),
        ("these are logarithms of probabilities", logarithms),
    ];
    compare(&trace.probabilities_v, &given.probabilities(), TOLERANCE, &mistakes)
}

fn top(given: &Given, trace: &Trace) -> Outcome {
    let mut all: Vec<(u32, f32)> = (0..).zip(given.probabilities()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let ids = |top: &[(u32, f32)]| -> Vec<f32> { top.iter().take(5).map(|(id, _)| *id as f32).collect() };
    let reversed: Vec<(u32, f32)> = all.iter().rev().copied().collect();
    compare(&ids(&trace.top), &ids(&all), 0.0, &[("these are the five least likely", ids(&reversed))])?;
    let found: Vec<f32> = trace.top.iter().map(|(_, p)| *p).collect();
    compare(&found, &all[..5].iter().map(|(_, p)| *p).collect::<Vec<_>>(), TOLERANCE, &[])
}
