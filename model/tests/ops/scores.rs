//! Scores of single targets: chunks, frozen heads, a weight for each token that is known only afterwards.

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fornax_model::ops;

use crate::check::{Op, check, check_bf16, devices, normals, relative, tensor, values};

fn targets(n: usize, v: usize, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = (0..n).map(|i| ((i * 7919 + 3) % v) as i32).collect();
    Tensor::from_data(TensorData::new(ids, [n]), device)
}

#[test]
fn log_likelihoods_have_a_gradient_each() {
    for device in devices() {
        // The last vocabulary cuts the rows into chunks of 31.
        for (n, c, v, softcap) in [(1, 1, 2, 0.0), (7, 3, 33, 0.0), (17, 9, 5, 2.0), (33, 3, 262_145, 0.0)] {
            let targets = targets(n, v, &device);
            let shaped = |x: &[Tensor<1>]| (x[0].clone().reshape([n, c]), x[1].clone().reshape([v, c]));
            let run = |x: &[Tensor<1>]| {
                let (hidden, head) = shaped(x);
                ops::token_scores(hidden, head, targets.clone(), softcap).nll_n
            };
            let composed = |x: &[Tensor<1>]| {
                let (hidden, head) = shaped(x);
                let logits = ops::softcap(hidden.matmul(head.transpose()).cast(DType::F32), softcap);
                -log_softmax(logits, 1).gather(1, targets.clone().reshape([n, 1])).reshape([n])
            };
            let name = format!("token_scores n {n} c {c} v {v} cap {softcap}");
            let op = Op { name, lengths: vec![n * c, v * c], run: &run, composed: &composed };
            check(&op, &device);
            check_bf16(&op, DType::F32, &device);
        }
    }
}

/// A weight that depends on all likelihoods reaches the gradient of each, as no summed loss could know it.
#[test]
fn a_loss_may_square_the_sum_of_a_row() {
    let (n, c, v) = (6, 4, 9);
    for device in devices() {
        let leaf = |name: &str, n: usize, c: usize| {
            tensor(&normals(name, n * c), DType::F32, &device).reshape([n, c]).autodiff().require_grad()
        };
        let gradients = |scores: &dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>| {
            let (hidden, head) = (leaf("hidden", n, c), leaf("head", v, c));
            let sums = scores(hidden.clone(), head.clone()).reshape([2, 3]).sum_dim(1);
            let grads = (sums.clone() * sums).sum().backward();
            [values(hidden.grad(&grads).unwrap()), values(head.grad(&grads).unwrap())]
        };
        let ours = gradients(&|hidden, head| ops::token_scores(hidden, head, targets(n, v, &device), 0.0).nll_n);
        let plain = gradients(&|hidden, head| {
            let log_p = log_softmax(hidden.matmul(head.transpose()), 1);
            -log_p.gather(1, targets(n, v, &device).reshape([n, 1])).reshape([n])
        });
        for (ours, plain) in ours.iter().zip(&plain) {
            assert!(relative(ours, plain) < 1e-5);
        }
    }
}

#[test]
fn entropy_mean_logit_and_greedy() {
    for device in devices() {
        // Row 0: logits (0, ln 3, ln 4), p = (1, 3, 4) / 8. Row 1: all logits 0. Row 2: logits (0, 5 ln 3, 5 ln 4).
        let (ln3, ln4) = (3.0f32.ln(), 4.0f32.ln());
        let hidden = tensor(&[1.0, 0.0, 0.0, 0.0, 5.0, 7.0], DType::F32, &device).reshape([3, 2]);
        let head = tensor(&[0.0, 0.0, ln3, 0.0, ln4, 0.0], DType::F32, &device).reshape([3, 2]);
        let ids = Tensor::from_data(TensorData::new(vec![1i32, 0, 2], [3]), &device);
        let scores = ops::token_scores(hidden, head, ids, 0.0);
        let close = |found: Tensor<1>, expected: [f32; 3]| {
            let found = values(found);
            assert!(relative(&found, &expected) < 1e-6, "{found:?}, expected {expected:?}");
        };
        let z = 1.0 + 3.0f32.powi(5) + 4.0f32.powi(5);
        close(scores.nll_n, [(8.0f32 / 3.0).ln(), ln3, z.ln() - 5.0 * ln4]);
        let entropy = |p: [f32; 3]| -> f32 { p.iter().map(|p| -p * p.ln()).sum() };
        let last = [1.0 / z, 3.0f32.powi(5) / z, 4.0f32.powi(5) / z];
        close(scores.entropy_n, [entropy([0.125, 0.375, 0.5]), ln3, entropy(last)]);
        close(scores.mean_logit_n, [(ln3 + ln4) / 3.0, 0.0, 5.0 * (ln3 + ln4) / 3.0]);
        // Equal logits: no other one is greater.
        assert_eq!(values(scores.greedy_n), [0.0, 1.0, 1.0]);
    }
}
