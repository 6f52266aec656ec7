//! The processor's kernels against the composed bodies, and against themselves on other numbers of threads.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fornax_model::ops::{self, AdamWStep, AttentionMask, with_composed};

use crate::check::{normals, relative, tensor, values};

/// Another order of the same f32 operations, and an exponential of its own.
const TOLERANCE: f32 = 2e-5;

/// What one op gives, and the gradients of its operands: flat, one after another.
pub(crate) type Results = Vec<Vec<f32>>;

/// Runs `op` on kernels and on the composed body, and on kernels with one, two and three threads.
pub(crate) fn compare(name: &str, op: &(dyn Fn() -> Results + Sync)) {
    let kernels = op();
    let composed = with_composed(op);
    assert_eq!(kernels.len(), composed.len());
    for (i, (kernels, composed)) in kernels.iter().zip(&composed).enumerate() {
        let difference = relative(kernels, composed);
        assert!(
            difference < TOLERANCE,
            "{name}, result {i}: kernels differ from the composed body by {difference}"
        );
    }
    for threads in 1..=3 {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(op);
        assert!(bits(&again) == bits(&kernels), "{name}: other bits on {threads} threads");
    }
}

fn bits(results: &Results) -> Vec<Vec<u32>> {
    results.iter().map(|values| values.iter().map(|x| x.to_bits()).collect()).collect()
}

/// A tracked operand with values that belong to `name`.
pub(crate) fn leaf<const D: usize>(name: &str, shape: [usize; D]) -> Tensor<D> {
    let x = tensor(&normals(name, shape.iter().product()), DType::F32, &Device::flex());
    x.reshape(shape).autodiff().require_grad()
}

/// The values of `y`, then the gradients of `sum(y * random)` in the leaves.
pub(crate) fn outcome<const D: usize, const E: usize>(y: Tensor<D>, leaves: &[&Tensor<E>]) -> Results {
    let cotangent = tensor(&normals("cotangent", y.shape().num_elements()), DType::F32, &Device::flex());
    let gradients = (y.clone() * cotangent.reshape(y.shape()).autodiff()).sum().backward();
    let mut all = vec![values(y)];
    all.extend(leaves.iter().map(|leaf| values(leaf.grad(&gradients).unwrap())));
    all
}

#[test]
fn linear_low_rank() {
    for [n, i, o, r] in [[1, 5, 3, 2], [3, 129, 70, 4], [33, 31, 34, 8], [200, 97, 129, 16], [130, 300, 520, 64]] {
        compare(&format!("linear_low_rank {n} {i} {o} {r}"), &|| {
            let (x, a, b) = (leaf("x", [n, i]), leaf("a", [r, i]), leaf("b", [o, r]));
            let w = tensor(&normals("w", o * i), DType::F32, &Device::flex()).reshape([o, i]);
            let y = ops::linear_low_rank(x.clone(), w, [a.clone(), b.clone()], 2.0, None);
            outcome(y, &[&x, &a, &b])
        });
    }
}

#[test]
fn linear() {
    // Shapes on both sides of every block: rows of a tile, columns of a panel, steps of a block, one task.
    for [n, i, o] in [
        [1, 5, 3],
        [3, 129, 70],
        [33, 31, 34],
        [37, 600, 65],
        [200, 97, 129],
        [770, 128, 344],
        [97, 1100, 33],
        [40, 9, 4200],
    ] {
        compare(&format!("linear {n} x {i} -> {o}"), &|| {
            let (x, w) = (leaf("x", [n, i]), leaf("w", [o, i]));
            outcome(ops::linear(x.clone(), w.clone(), None), &[&x, &w]).into_iter().map(|y| scaled(y, i)).collect()
        });
    }
}

/// Sums of n products grow with the root of n; so does their rounding.
fn scaled(values: Vec<f32>, n: usize) -> Vec<f32> {
    values.into_iter().map(|x| x / (n as f32).sqrt()).collect()
}

#[test]
fn linear_of_operands_in_another_order() {
    compare("linear of transposed operands", &|| {
        let (x, w) = (leaf("x", [130, 66]), leaf("w", [130, 50]));
        outcome(ops::linear(x.clone().transpose(), w.clone().transpose(), None), &[&x, &w])
    });
    compare("linear of a part", &|| {
        let (x, w) = (leaf("x", [90, 140]), leaf("w", [70, 200]));
        let (part, weight) = (x.clone().slice([3..80, 5..133]), w.clone().slice([1..60, 7..135]));
        outcome(ops::linear(part, weight, None), &[&x, &w])
    });
}

#[test]
fn norm() {
    for [n, c] in [[1, 1], [3, 7], [65, 33], [129, 288], [1000, 17]] {
        compare(&format!("rms_norm {n} x {c}"), &|| {
            let (x, gain) = (leaf("x", [n, c]), leaf("gain", [1, c]));
            outcome(ops::rms_norm(x.clone(), gain.clone().reshape([c]), 1e-5), &[&x, &gain])
        });
    }
    compare("rms_norm of columns", &|| {
        let (x, gain) = (leaf("x", [40, 30]), leaf("gain", [1, 40]));
        outcome(ops::rms_norm(x.clone().transpose(), gain.clone().reshape([40]), 1e-5), &[&x, &gain])
    });
}

#[test]
fn swiglu() {
    for [n, f] in [[1, 1], [3, 5], [70, 344], [33, 1025]] {
        compare(&format!("swiglu {n} x {f}"), &|| {
            let (gate, up) = (leaf("gate", [n, f]) * 9.0, leaf("up", [n, f]));
            let (gate, up) = (gate.without_autodiff(), up.without_autodiff());
            let (gate, up) = (gate.autodiff().require_grad(), up.autodiff().require_grad());
            outcome(ops::swiglu(gate.clone(), up.clone()), &[&gate, &up])
        });
    }
}

#[test]
fn rope() {
    for [b, h, t, d] in [[1, 1, 1, 2], [2, 3, 5, 6], [3, 2, 70, 34], [2, 6, 129, 64]] {
        for rows in [1, b] {
            compare(&format!("rope {b} {h} {t} {d}, angles of {rows}"), &|| {
                // As the projections leave them, as the cache holds them, and a view of something shared.
                let x = leaf("x", [b, t, h * d]);
                let angles = tensor(&normals("angles", rows * t * d / 2), DType::F32, &Device::flex());
                let angles = angles.reshape([rows, t, d / 2]).autodiff();
                let strided = (x.clone() * 1.0).reshape([b, t, h, d]).swap_dims(1, 2);
                let shared = x.clone().reshape([b, t, h, d]).swap_dims(1, 2);
                let whole = (x.clone() * 1.0).reshape([b, h, t, d]);
                let rotate = |x: Tensor<4>| ops::rope(x, angles.clone().cos(), angles.clone().sin());
                outcome(rotate(strided) + rotate(shared) * 2.0 + rotate(whole), &[&x])
            });
        }
    }
}

/// b, query heads, key-value heads, past, new, width, window, documents.
type AttentionCase = (usize, [usize; 2], usize, usize, usize, Option<usize>, bool);

#[test]
fn attention() {
    let cases: [AttentionCase; 10] = [
        (1, [1, 1], 0, 1, 2, None, false),
        (2, [3, 1], 0, 65, 33, None, false),
        (2, [4, 2], 0, 130, 16, Some(7), false),
        (1, [2, 2], 0, 600, 8, None, false),
        (1, [2, 1], 0, 600, 8, Some(70), false),
        (3, [4, 2], 0, 90, 12, None, true),
        (2, [2, 2], 0, 129, 5, Some(40), true),
        (2, [6, 3], 700, 1, 32, None, false),
        (2, [6, 3], 700, 1, 32, Some(9), false),
        (1, [4, 1], 530, 70, 24, None, false),
    ];
    for (b, [h, g], past, t, d, window, packed) in cases {
        compare(&format!("attention b {b} h {h}/{g} past {past} t {t} d {d} {window:?} {packed}"), &|| {
            let s = past + t;
            let (q, k, v) = (leaf("q", [b, t, h * d]), leaf("k", [b, s, g * d]), leaf("v", [b, s, g * d]));
            let heads = |x: &Tensor<3>, n: usize, t: usize| x.clone().reshape([b, t, n, d]).swap_dims(1, 2);
            let documents: Vec<i32> = (0..b * t).map(|i| ((i % t) / (11 + i / t)) as i32).collect();
            let documents = Tensor::<2, Int>::from_data(TensorData::new(documents, [b, t]), &Device::flex());
            let mask = AttentionMask::new(past, t, window, packed.then_some(&documents), &Device::flex());
            let out = ops::attention(heads(&q, h, t), heads(&k, g, s), heads(&v, g, s), &mask, 0.3);
            outcome(out, &[&q, &k, &v])
        });
    }
}

#[test]
fn cross_entropy() {
    for (n, c, v) in [(1, 3, 2), (50, 33, 65), (70, 20, 1001)] {
        for (z_loss, softcap) in [(0.0, 0.0), (0.01, 0.0), (0.0, 5.0), (0.02, 3.0)] {
            compare(&format!("cross_entropy {n} {c} {v} z {z_loss} cap {softcap}"), &|| {
                let (hidden, head) = (leaf("hidden", [n, c]), leaf("head", [v, c]));
                let targets: Vec<i32> = (0..n).map(|i| (i * 7 % v) as i32).collect();
                let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [n]), &Device::flex());
                let weights: Vec<f32> = (0..n).map(|i| (i % 3) as f32).collect();
                let weights = tensor(&weights, DType::F32, &Device::flex()).autodiff();
                let ((h, w), t) = ((hidden.clone(), head.clone()), targets.clone());
                let (loss, z) = ops::cross_entropy(h, w, t, weights, z_loss, softcap);
                let mut all = outcome(loss * (1.0 / n as f32), &[&hidden, &head]);
                let nll = ops::token_nll(hidden.without_autodiff(), head.without_autodiff(), targets, softcap);
                all.extend([values(nll), values(z * (1.0 / n as f32))]);
                all
            });
        }
    }
}

#[test]
fn token_scores() {
    for (n, c, v, softcap) in [(1, 3, 2, 0.0), (50, 33, 65, 5.0), (70, 20, 1001, 0.0)] {
        compare(&format!("token_scores {n} {c} {v} cap {softcap}"), &|| {
            let (hidden, head) = (leaf("hidden", [n, c]), leaf("head", [v, c]));
            let targets: Vec<i32> = (0..n).map(|i| (i * 7 % v) as i32).collect();
            let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [n]), &Device::flex());
            let scores = ops::token_scores(hidden.clone(), head.clone(), targets, softcap);
            let mut all = outcome(scores.nll_n, &[&hidden, &head]);
            all.extend([scores.entropy_n, scores.mean_logit_n, scores.greedy_n].map(values));
            all
        });
    }
}

#[test]
fn embedding_adds_the_rows_of_one_token_in_order() {
    for (v, c, n) in [(3, 5, 9), (2500, 7, 300)] {
        compare(&format!("embedding {v} {c} {n}"), &|| {
            let table = leaf("table", [v, c]);
            let ids: Vec<i32> = (0..n).map(|i| (i * i % v) as i32).collect();
            let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [n]), &Device::flex());
            outcome(ops::embedding(table.clone(), ids), &[&table])
        });
    }
}

#[test]
fn adamw_and_the_sum_of_squares() {
    for n in [1, 17, 50_001] {
        compare(&format!("adamw {n}"), &|| {
            let at = |name: &str| tensor(&normals(name, n), DType::F32, &Device::flex());
            let step = AdamWStep {
                gradient_scale: 0.25,
                lr: 0.01,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                decay: 0.999,
                correction1: 0.19,
                correction2: 0.0975,
            };
            let all = ops::adamw_step(at("p"), at("g"), at("m"), at("v").abs(), step);
            let sum = ops::square_sum(at("g")) / n as f64;
            all.into_iter().chain([sum]).map(values).collect()
        });
    }
}

/// What an op was given is not written where someone else still holds it.
#[test]
fn shared_operands_keep_their_values() {
    let at = |name: &str, n: usize| tensor(&normals(name, n), DType::F32, &Device::flex());
    let (p, m, v) = (at("p", 100), at("m", 100), at("v", 100).abs());
    let held = [p.clone(), m.clone(), v.clone()];
    let before: Vec<_> = held.iter().cloned().map(values).collect();
    let step = AdamWStep {
        gradient_scale: 1.0,
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.9,
        eps: 1e-8,
        decay: 0.9,
        correction1: 0.1,
        correction2: 0.1,
    };
    let [after, ..] = ops::adamw_step(p, at("g", 100), m, v, step);
    assert_ne!(values(after), before[0]);
    assert_eq!(held.map(values).to_vec(), before);
    let x = at("x", 2 * 3 * 4).reshape([1, 2, 3, 4]);
    let angles = at("angles", 6).reshape([1, 3, 2]);
    let kept = x.clone();
    let before = values(x.clone());
    let turned = ops::rope(x, angles.clone().cos(), angles.sin());
    assert_ne!(values(turned), before);
    assert_eq!(values(kept), before);
}

/// Not-a-number goes through every kernel: the trainer stops on it.
#[test]
fn not_a_number_is_kept() {
    let bad = |n: usize| tensor(&[vec![f32::NAN], normals("x", n - 1)].concat(), DType::F32, &Device::flex());
    let any_nan = |x: Vec<f32>| x.iter().any(|x| x.is_nan());
    let ones = |n: usize| tensor(&vec![1.0; n], DType::F32, &Device::flex());
    assert!(any_nan(values(ops::rms_norm(bad(40).reshape([2, 20]), ones(20), 1e-5))));
    assert!(any_nan(values(ops::swiglu(bad(40).reshape([2, 20]), ones(40).reshape([2, 20])))));
    assert!(any_nan(values(ops::square_sum(bad(40)))));
    let mask = AttentionMask::new(0, 10, None, None, &Device::flex());
    let heads = |x: Tensor<1>| x.reshape([1, 1, 10, 4]);
    assert!(any_nan(values(ops::attention(heads(bad(40)), heads(ones(40)), heads(ones(40)), &mask, 1.0))));
    let targets = Tensor::<1, Int>::from_data(TensorData::new(vec![0i32; 4], [4]), &Device::flex());
    let nll = ops::token_nll(bad(40).reshape([4, 10]), ones(200).reshape([20, 10]), targets, 0.0);
    assert!(any_nan(values(nll)));
}
