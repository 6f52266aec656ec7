//! The operations with their shapes, and the same formulas in Burn's own differentiable tensors.
//!
//! Shapes: n = b * t rows, b batch, t time, h query heads, g key-value heads, d head width, c channels,
//! f feed-forward width, v vocabulary.

use std::str::FromStr;
use std::sync::Arc;

use burn::tensor::activation::{log_softmax, silu, softmax};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use fornax_base::rng::rng;
use fornax_model::ops::{self, AttentionMask, CacheOperand, Segment, Segments};
use fornax_model::packed::{Codes, Packed, Packing};

use super::{BenchError, Workload};

/// Of `rms_norm`, as in the workloads' models.
const EPS: f32 = 1e-5;
/// Rank of the adapter, and what its product is multiplied by.
const RANK: usize = 16;
const SCALE: f32 = 2.0;
/// Slots of a page.
const PAGE: usize = 16;

/// A function of flat operands; it gives them their shapes itself.
pub(super) type Function = Box<dyn Fn(&[Tensor<1>]) -> Tensor<1>>;

/// The operation, and the same formula in Burn's own differentiable tensors.
pub(super) struct Functions {
    pub(super) run: Function,
    pub(super) plain: Function,
}

/// The operations of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpName {
    /// Matrix product with a weight `[out, in]`.
    Linear,
    /// The same with a weight packed to int4 by blocks of 32, beside the product with what it stands for.
    Qlinear,
    /// A product with a frozen weight and the low-rank product of an adapter beside it, on the way that the model goes:
    /// by activations. Burn's column is its own `apply_lora`, which adds the adapter to the weight.
    Lora,
    /// Root-mean-square normalization.
    RmsNorm,
    /// Rotary position embedding.
    Rope,
    /// Gated activation.
    Swiglu,
    /// Causal attention.
    Attention,
    /// One token of each sequence against what a paged cache holds of it. An operation of inference: no training.
    CachedAttention,
    /// Output head and cross-entropy.
    CrossEntropy,
    /// Output head and the log-likelihood of each target, with a gradient each.
    TokenScores,
    /// Rows of the embedding table.
    Embedding,
}

/// All of them, in the order of a report.
pub const OPS: [OpName; 11] = [
    OpName::Linear,
    OpName::Qlinear,
    OpName::Lora,
    OpName::RmsNorm,
    OpName::Rope,
    OpName::Swiglu,
    OpName::Attention,
    OpName::CachedAttention,
    OpName::CrossEntropy,
    OpName::TokenScores,
    OpName::Embedding,
];

impl OpName {
    /// The function's name in the model crate.
    pub fn word(self) -> &'static str {
        match self {
            OpName::Linear => "linear",
            OpName::Qlinear => "qlinear",
            OpName::Lora => "lora",
            OpName::RmsNorm => "rms_norm",
            OpName::Rope => "rope",
            OpName::Swiglu => "swiglu",
            OpName::Attention => "attention",
            OpName::CachedAttention => "cached_attention",
            OpName::CrossEntropy => "cross_entropy",
            OpName::TokenScores => "token_scores",
            OpName::Embedding => "embedding",
        }
    }
}

impl FromStr for OpName {
    type Err = BenchError;

    fn from_str(name: &str) -> Result<Self, BenchError> {
        OPS.into_iter().find(|op| op.word() == name).ok_or_else(|| BenchError::UnknownOp {
            name: name.chars().take(64).collect(),
            known: OPS.map(OpName::word).join(", "),
        })
    }
}

/// How much an operation computes and moves; one of the two says what it is bound by.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) forward_flops: Option<f64>,
    pub(super) training_flops: Option<f64>,
    pub(super) forward_bytes: Option<f64>,
    pub(super) training_bytes: Option<f64>,
}

/// An operation at a shape.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) op: OpName,
    sizes: Workload,
    /// Of a linear layer, packed or not: channels in and out.
    io: [usize; 2],
}

/// The cases of a workload: linear layers in the three forms that a block has, everything else once.
pub(super) fn of(workload: &Workload) -> Vec<Case> {
    let (c, f) = (workload.width, workload.ffn_width);
    let linear = [[c, c], [c, f], [f, c]].map(|io| Case { op: OpName::Linear, sizes: *workload, io });
    let others = OPS.into_iter().filter(|&op| op != OpName::Linear);
    let io = |op| if matches!(op, OpName::Qlinear | OpName::Lora) { [c, f] } else { [0, 0] };
    let others = others.map(|op| Case { op, sizes: *workload, io: io(op) });
    linear.into_iter().chain(others).collect()
}

impl Case {
    /// The same with at most so many tokens: fewer rows, then shorter ones.
    pub(super) fn cut(&self, tokens: usize) -> Self {
        let mut cut = self.clone();
        let tokens = tokens.max(1);
        cut.sizes.context = self.sizes.context.min(tokens);
        cut.sizes.batch = self.sizes.batch.min(tokens / cut.sizes.context);
        cut
    }

    /// Rows of the matrices.
    pub(super) fn tokens(&self) -> usize {
        self.sizes.tokens_per_step()
    }

    fn head_dim(&self) -> usize {
        self.sizes.width / self.sizes.n_heads
    }

    /// Whether the operation has a backward.
    pub(super) fn trains(&self) -> bool {
        self.op != OpName::CachedAttention
    }

    /// The sizes in words.
    pub(super) fn shape(&self) -> String {
        let Workload { width: c, ffn_width: f, vocab_size: v, batch: b, context: t, .. } = self.sizes;
        let (h, g, n) = (self.sizes.n_heads, self.sizes.n_kv_heads, self.tokens());
        match self.op {
            OpName::Linear | OpName::Qlinear => format!("{n} x {} -> {}", self.io[0], self.io[1]),
            OpName::Lora => format!("{n} x {} -> {} r {RANK}", self.io[0], self.io[1]),
            OpName::RmsNorm => format!("{n} x {c}"),
            OpName::Swiglu => format!("{n} x {f}"),
            OpName::Rope => format!("{b} x {h} x {t} x {}", self.head_dim()),
            OpName::Attention => format!("{b} x {h}/{g} x {t} x {}", self.head_dim()),
            OpName::CachedAttention => format!("{b} x {h}/{g} x 1 of {t} x {}", self.head_dim()),
            OpName::CrossEntropy | OpName::TokenScores => format!("{n} x {c} -> {v}"),
            OpName::Embedding => format!("{n} of {v} x {c}"),
        }
    }

    /// Elements of each operand that has a gradient.
    pub(super) fn lengths(&self) -> Vec<usize> {
        let Workload { width: c, ffn_width: f, vocab_size: v, .. } = self.sizes;
        let n = self.tokens();
        match self.op {
            OpName::Linear => vec![n * self.io[0], self.io[1] * self.io[0]],
            OpName::Qlinear => vec![n * self.io[0]],
            OpName::Lora => vec![n * self.io[0], RANK * self.io[0], self.io[1] * RANK],
            OpName::RmsNorm => vec![n * c, c],
            OpName::Rope => vec![n * c],
            OpName::Swiglu => vec![n * f, n * f],
            OpName::Attention => {
                let keys = n * self.sizes.n_kv_heads * self.head_dim();
                vec![n * c, keys, keys]
            }
            OpName::CachedAttention => vec![self.sizes.batch * c],
            OpName::CrossEntropy | OpName::TokenScores => vec![n * c, v * c],
            OpName::Embedding => vec![v * c],
        }
    }

    /// Deviation of the i-th operand: weights of a product are small, so that results have a deviation of 1.
    pub(super) fn deviation(&self, i: usize) -> f32 {
        let fan_in = match self.op {
            OpName::Linear | OpName::Lora => self.io[0],
            OpName::CrossEntropy | OpName::TokenScores => self.sizes.width,
            _ => 1,
        };
        if i == 1 { 1.0 / (fan_in as f32).sqrt() } else { 1.0 }
    }

    /// Arithmetic of a product is 2 operations for each of its multiplications, and three such products in training.
    /// Attention is counted causal: half of the square. Traffic is each operand read and each result written once,
    /// and in training once more with gradients written beside.
    pub(super) fn work(&self, dtype: DType) -> Work {
        let Workload { width: c, ffn_width: f, vocab_size: v, context: t, .. } = self.sizes;
        let n = self.tokens() as f64;
        let flops = |forward: f64, training: f64| Work {
            forward_flops: Some(forward),
            training_flops: Some(training * forward),
            ..Work::default()
        };
        let bytes = |operands: f64, results: f64| {
            let size = dtype.size() as f64;
            Work {
                forward_bytes: Some((operands + results) * size),
                training_bytes: Some((3.0 * operands + 2.0 * results) * size),
                ..Work::default()
            }
        };
        match self.op {
            OpName::Linear => flops(2.0 * n * (self.io[0] * self.io[1]) as f64, 3.0),
            // The weight has no gradient.
            OpName::Qlinear => flops(2.0 * n * (self.io[0] * self.io[1]) as f64, 2.0),
            // Neither has its weight; A and B have theirs.
            OpName::Lora => {
                let (dense, low) = ((self.io[0] * self.io[1]) as f64, (RANK * (self.io[0] + self.io[1])) as f64);
                flops(2.0 * n * (dense + low), (2.0 * dense + 3.0 * low) / (dense + low))
            }
            // Forward is two products over half of t x t; backward five, with the scores computed again.
            OpName::Attention => flops(2.0 * n * (t * c) as f64, 3.5),
            OpName::CrossEntropy => flops(2.0 * n * (c * v) as f64, 3.0),
            // Backward computes the logits once more.
            OpName::TokenScores => flops(2.0 * n * (c * v) as f64, 4.0),
            // Keys and values are read once; queries and results are nothing beside them.
            OpName::CachedAttention => {
                let cache = 2.0 * n * (self.sizes.n_kv_heads * self.head_dim()) as f64;
                Work { training_bytes: None, ..bytes(cache, 0.0) }
            }
            OpName::RmsNorm | OpName::Rope | OpName::Embedding => bytes(n * c as f64, n * c as f64),
            OpName::Swiglu => bytes(2.0 * n * f as f64, n * f as f64),
        }
    }

    /// The functions, with what is constant in them made on `device`.
    pub(super) fn functions(&self, dtype: DType, device: &Device) -> Functions {
        match self.op {
            OpName::Linear => self.linear(),
            OpName::Qlinear => self.qlinear(dtype, device),
            OpName::Lora => self.lora(dtype, device),
            OpName::RmsNorm => self.rms_norm(),
            OpName::Rope => self.rope(dtype, device),
            OpName::Swiglu => self.swiglu(),
            OpName::Attention => self.attention(device),
            OpName::CachedAttention => self.cached_attention(dtype, device),
            OpName::CrossEntropy => self.cross_entropy(device),
            OpName::TokenScores => self.token_scores(device),
            OpName::Embedding => self.embedding(device),
        }
    }

    fn linear(&self) -> Functions {
        let (n, [i, o]) = (self.tokens(), self.io);
        let shaped = move |x: &[Tensor<1>]| (x[0].clone().reshape([n, i]), x[1].clone().reshape([o, i]));
        Functions {
            run: Box::new(move |x| {
                let (x, w) = shaped(x);
                ops::linear(x, w, None).reshape([n * o])
            }),
            plain: Box::new(move |x| {
                let (x, w) = shaped(x);
                x.matmul(w.transpose()).reshape([n * o])
            }),
        }
    }

    fn qlinear(&self, dtype: DType, device: &Device) -> Functions {
        let (n, [i, o]) = (self.tokens(), self.io);
        let mut random = rng(0, 0, "bench/packed");
        let deviation = 1.0 / (i as f32).sqrt();
        let weight: Vec<f32> = (0..o * i).map(|_| random.normal_f32() * deviation).collect();
        let weight = Tensor::<2>::from_data(TensorData::new(weight, [o, i]), (device, DType::F32));
        let packed = Packed::round(weight, Packing::usual(Codes::Int4));
        let dense = packed.dequantized().cast(dtype);
        Functions {
            run: Box::new(move |x| ops::qlinear(x[0].clone().reshape([n, i]), &packed, None).reshape([n * o])),
            plain: Box::new(move |x| {
                x[0].clone().reshape([n, i]).matmul(dense.clone().transpose()).reshape([n * o])
            }),
        }
    }

    fn lora(&self, dtype: DType, device: &Device) -> Functions {
        let (n, [i, o]) = (self.tokens(), self.io);
        let mut random = rng(0, 0, "bench/frozen");
        let deviation = 1.0 / (i as f32).sqrt();
        let weight: Vec<f32> = (0..o * i).map(|_| random.normal_f32() * deviation).collect();
        let w_oi = Tensor::<2>::from_data(TensorData::new(weight, [o, i]), (device, DType::F32)).cast(dtype);
        // Burn's linear layers hold their weight, and their adapters A and B, the other way round.
        let w_io = w_oi.clone().transpose().reshape([i * o]).reshape([i, o]);
        let shaped = move |x: &[Tensor<1>]| {
            (x[0].clone().reshape([n, i]), x[1].clone().reshape([RANK, i]), x[2].clone().reshape([o, RANK]))
        };
        Functions {
            run: Box::new(move |x| {
                let (x, a, b) = shaped(x);
                ops::linear_low_rank(x, w_oi.clone(), [a, b], SCALE, None).reshape([n * o])
            }),
            plain: Box::new(move |x| {
                let (x, a, b) = shaped(x);
                let composed = w_io.clone() + a.transpose().matmul(b.transpose()).mul_scalar(SCALE);
                x.matmul(composed).reshape([n * o])
            }),
        }
    }

    fn rms_norm(&self) -> Functions {
        let (n, c) = (self.tokens(), self.sizes.width);
        Functions {
            run: Box::new(move |x| {
                ops::rms_norm(x[0].clone().reshape([n, c]), x[1].clone(), EPS).reshape([n * c])
            }),
            plain: Box::new(move |x| {
                let wide = wide(x[0].clone().reshape([n, c]));
                let mean = (wide.clone() * wide.clone()).mean_dim(1);
                let normed = (wide / (mean + EPS).sqrt()).cast(x[0].dtype());
                (normed * x[1].clone().unsqueeze::<2>()).reshape([n * c])
            }),
        }
    }

    fn swiglu(&self) -> Functions {
        let (n, f) = (self.tokens(), self.sizes.ffn_width);
        let shaped = move |x: &[Tensor<1>]| (x[0].clone().reshape([n, f]), x[1].clone().reshape([n, f]));
        Functions {
            run: Box::new(move |x| {
                let (gate, up) = shaped(x);
                ops::swiglu(gate, up).reshape([n * f])
            }),
            plain: Box::new(move |x| {
                let (gate, up) = shaped(x);
                (silu(gate) * up).reshape([n * f])
            }),
        }
    }

    /// The operand comes as projections give it: time before heads in memory.
    fn rope(&self, dtype: DType, device: &Device) -> Functions {
        let (b, h, t, d) = (self.sizes.batch, self.sizes.n_heads, self.sizes.context, self.head_dim());
        let (k, n) = (d / 2, self.tokens() * self.sizes.width);
        let angle = |i: usize| (i / k) as f64 * 10_000f64.powf(-2.0 * (i % k) as f64 / d as f64);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..t * k).map(|i| f(angle(i)) as f32).collect();
            Tensor::<1>::from_data(values.as_slice(), (device, DType::F32)).cast(dtype).reshape([1, t, k])
        };
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let heads = move |x: &[Tensor<1>]| x[0].clone().reshape([b, t, h, d]).swap_dims(1, 2);
        let (cos2, sin2) = (cos.clone(), sin.clone());
        Functions {
            run: Box::new(move |x| ops::rope(heads(x), cos.clone(), sin.clone()).reshape([n])),
            // transformers' form: x * [cos, cos] + [-right, left] * [sin, sin].
            plain: Box::new(move |x| {
                let twice = |a: &Tensor<3>| Tensor::cat(vec![a.clone(), a.clone()], 2).unsqueeze_dim::<4>(1);
                let x = heads(x);
                let (left, right) = (x.clone().slice_dim(3, 0..k), x.clone().slice_dim(3, k..d));
                let turned = Tensor::cat(vec![-right, left], 3);
                (x * twice(&cos2) + turned * twice(&sin2)).reshape([n])
            }),
        }
    }

    fn attention(&self, device: &Device) -> Functions {
        let (b, h, g) = (self.sizes.batch, self.sizes.n_heads, self.sizes.n_kv_heads);
        let (t, d, n) = (self.sizes.context, self.head_dim(), self.tokens() * self.sizes.width);
        let scale = 1.0 / (d as f32).sqrt();
        let shaped = move |x: &[Tensor<1>]| {
            let heads = |x: &Tensor<1>, h: usize| x.clone().reshape([b, t, h, d]).swap_dims(1, 2);
            [heads(&x[0], h), heads(&x[1], g), heads(&x[2], g)]
        };
        let mask = AttentionMask::new(0, t, None, None, device);
        let hidden: Vec<bool> = (0..t * t).map(|i| i % t > i / t).collect();
        let hidden = Tensor::<2, Bool>::from_data(TensorData::new(hidden, [t, t]), device);
        Functions {
            run: Box::new(move |x| {
                let [q, k, v] = shaped(x);
                ops::attention(q, k, v, &mask, scale).reshape([n])
            }),
            plain: Box::new(move |x| {
                let [q, k, v] = shaped(x);
                let repeat = |x: Tensor<4>| match h / g {
                    1 => x,
                    times => x.unsqueeze_dim::<5>(2).repeat_dim(2, times).reshape([b, h, t, d]),
                };
                let dtype = q.dtype();
                let scores = wide(q.matmul(repeat(k).swap_dims(2, 3))) * scale;
                let hidden = hidden.clone().unsqueeze::<4>().expand([b, h, t, t]);
                let weights = softmax(scores.mask_fill(hidden, f32::MIN), 3).cast(dtype);
                weights.matmul(repeat(v)).reshape([n])
            }),
        }
    }

    /// The cache is made once, in pages of 16 slots of which neighbors belong to different sequences.
    fn cached_attention(&self, dtype: DType, device: &Device) -> Functions {
        let (b, t) = (self.sizes.batch, self.sizes.context);
        let (h, g, d, c) = (self.sizes.n_heads, self.sizes.n_kv_heads, self.head_dim(), self.sizes.width);
        let scale = 1.0 / (d as f32).sqrt();
        let of_row = t.div_ceil(PAGE);
        let pages = |row: usize| (0..of_row).map(|page| (page * b + row) as u32).collect();
        let list: Vec<Segment> = (0..b).map(|row| Segment { past: t - 1, tokens: 1, pages: pages(row) }).collect();
        let slot = |row: usize, at: usize| ((at / PAGE * b + row) * PAGE + at % PAGE) as i32;
        let slots: Vec<i32> = (0..b).flat_map(|row| (0..t).map(move |at| slot(row, at))).collect();
        let slots = Tensor::<1, Int>::from_data(slots.as_slice(), device);
        let random = |purpose: &str| {
            let mut random = rng(0, 0, purpose);
            let values: Vec<f32> = (0..b * t * g * d).map(|_| random.normal_f32()).collect();
            Tensor::<3>::from_data(TensorData::new(values, [b * t, g, d]), (device, DType::F32)).cast(dtype)
        };
        let (k, v) = (random("bench/keys"), random("bench/values"));
        let store = |x: &Tensor<3>| {
            let empty = Tensor::<3>::zeros([b * of_row * PAGE, g, d], (device, dtype)).into_dispatch();
            ops::write_slots(CacheOperand::Float(empty), x.clone(), slots.clone())
        };
        let (keys, values) = (store(&k), store(&v));
        let segments = Arc::new(Segments { page_len: PAGE, list: Arc::new(list) });
        let heads = move |x: Tensor<3>| {
            let x = x.reshape([b, t, g, d]).swap_dims(1, 2);
            let x = x.unsqueeze_dim::<5>(2).repeat_dim(2, h / g);
            x.reshape([b, h, t, d])
        };
        Functions {
            run: Box::new(move |x| {
                let q_nhd = x[0].clone().reshape([b, h, d]);
                ops::cached_attention(q_nhd, keys.clone(), values.clone(), &segments, None, scale).reshape([b * c])
            }),
            plain: Box::new(move |x| {
                let q_bh1d = x[0].clone().reshape([b, h, 1, d]);
                let scores = wide(q_bh1d.matmul(heads(k.clone()).swap_dims(2, 3))) * scale;
                softmax(scores, 3).cast(x[0].dtype()).matmul(heads(v.clone())).reshape([b * c])
            }),
        }
    }

    fn token_scores(&self, device: &Device) -> Functions {
        let (n, c, v) = (self.tokens(), self.sizes.width, self.sizes.vocab_size);
        let targets = random_ids(n, v, device);
        let shaped = move |x: &[Tensor<1>]| (x[0].clone().reshape([n, c]), x[1].clone().reshape([v, c]));
        let targets2 = targets.clone();
        Functions {
            run: Box::new(move |x| {
                let (hidden, head) = shaped(x);
                ops::token_scores(hidden, head, targets.clone(), 0.0).nll_n
            }),
            plain: Box::new(move |x| {
                let (hidden, head) = shaped(x);
                let logits = wide(hidden.matmul(head.transpose()));
                let targets = targets2.clone().reshape([n, 1]);
                -log_softmax(logits, 1).gather(1, targets).reshape([n])
            }),
        }
    }

    fn cross_entropy(&self, device: &Device) -> Functions {
        let (n, c, v) = (self.tokens(), self.sizes.width, self.sizes.vocab_size);
        let targets = random_ids(n, v, device);
        let weights = Tensor::<1>::ones([n], (device, DType::F32));
        let shaped = move |x: &[Tensor<1>]| (x[0].clone().reshape([n, c]), x[1].clone().reshape([v, c]));
        let targets2 = targets.clone();
        Functions {
            run: Box::new(move |x| {
                let (hidden, head) = shaped(x);
                ops::cross_entropy(hidden, head, targets.clone(), weights.clone(), 0.0, 0.0).0
            }),
            plain: Box::new(move |x| {
                let (hidden, head) = shaped(x);
                let logits = wide(hidden.matmul(head.transpose()));
                let targets = targets2.clone().reshape([n, 1]);
                -log_softmax(logits, 1).gather(1, targets).reshape([n]).sum()
            }),
        }
    }

    fn embedding(&self, device: &Device) -> Functions {
        let (n, c, v) = (self.tokens(), self.sizes.width, self.sizes.vocab_size);
        let ids = random_ids(n, v, device);
        let ids2 = ids.clone();
        Functions {
            run: Box::new(move |x| ops::embedding(x[0].clone().reshape([v, c]), ids.clone()).reshape([n * c])),
            plain: Box::new(move |x| x[0].clone().reshape([v, c]).select(0, ids2.clone()).reshape([n * c])),
        }
    }
}

fn random_ids(n: usize, below: usize, device: &Device) -> Tensor<1, Int> {
    let mut random = rng(0, 0, "bench/ids");
    let ids: Vec<i32> = (0..n).map(|_| random.below(below as u64) as i32).collect();
    Tensor::from_data(ids.as_slice(), device)
}

/// In f32, where it was in fewer bits.
fn wide<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::BF16 | DType::F16 => x.cast(DType::F32),
        _ => x,
    }
}
