//! Numbers worked out by hand.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fornax_model::ops::{self, AttentionMask};

use crate::check::{assert_close, devices, tensor, values};

fn matrix(values: &[f32], shape: [usize; 2], device: &Device) -> Tensor<2> {
    tensor(values, DType::F32, device).reshape(shape)
}

fn ints(ids: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(ids.to_vec(), [ids.len()]), device)
}

#[test]
fn linear() {
    for device in devices() {
        // (1, 2) and (3, 4) on (1, 0), (0, 1), (1, 1): (1, 2, 3) and (3, 4, 7); then + (10, 20, 30).
        let x = matrix(&[1.0, 2.0, 3.0, 4.0], [2, 2], &device);
        let w = matrix(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], [3, 2], &device);
        let bias = tensor(&[10.0, 20.0, 30.0], DType::F32, &device);
        let y = ops::linear(x.clone(), w.clone(), None);
        assert_close(&values(y), &[1.0, 2.0, 3.0, 3.0, 4.0, 7.0]);
        assert_close(&values(ops::linear(x, w, Some(bias))), &[11.0, 22.0, 33.0, 13.0, 24.0, 37.0]);
    }
}

#[test]
fn rms_norm() {
    for device in devices() {
        // mean(9, 16) + 3.5 = 16, so the root is 4 and x / 4 = (0.75, 1).
        let x = matrix(&[3.0, 4.0], [1, 2], &device).autodiff().require_grad();
        let gain = tensor(&[2.0, 10.0], DType::F32, &device).autodiff().require_grad();
        let y = ops::rms_norm(x.clone(), gain.clone(), 3.5);
        assert_close(&values(y.clone()), &[1.5, 10.0]);
        // dy = (1, 0): g dy = (2, 0), mean(g dy x_hat) = 0.75, dx = ((2, 0) - 0.75 (0.75, 1)) / 4.
        let grads = y.slice_dim(1, 0..1).sum().backward();
        assert_close(&values(x.grad(&grads).unwrap()), &[0.359375, -0.1875]);
        assert_close(&values(gain.grad(&grads).unwrap()), &[0.75, 0.0]);
    }
}

#[test]
fn rope() {
    for device in devices() {
        // Pairs are (1, 3) and (2, 4). A quarter turn: (x, y) -> (-y, x). Cosine 0.6, sine 0.8:
        // 0.6 - 2.4, 1.2 - 3.2, 1.8 + 0.8, 2.4 + 1.6.
        let x = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
        let x = tensor(&x, DType::F32, &device).reshape([1, 1, 2, 4]);
        let cos = tensor(&[0.0, 0.0, 0.6, 0.6], DType::F32, &device).reshape([1, 2, 2]);
        let sin = tensor(&[1.0, 1.0, 0.8, 0.8], DType::F32, &device).reshape([1, 2, 2]);
        let y = ops::rope(x, cos, sin);
        assert_close(&values(y), &[-3.0, -4.0, 1.0, 2.0, -1.8, -2.0, 2.6, 4.0]);
    }
}

#[test]
fn swiglu() {
    for device in devices() {
        // sigmoid(0, ln 3, -ln 3) = (1/2, 3/4, 1/4).
        let ln3 = 3.0f32.ln();
        let gate = matrix(&[0.0, ln3, -ln3], [1, 3], &device).autodiff().require_grad();
        let up = matrix(&[5.0, 2.0, 4.0], [1, 3], &device).autodiff().require_grad();
        let y = ops::swiglu(gate.clone(), up.clone());
        assert_close(&values(y.clone()), &[0.0, 1.5 * ln3, -ln3]);
        // dup = silu; dgate = up s (1 + gate (1 - s)).
        let grads = y.sum().backward();
        assert_close(&values(up.grad(&grads).unwrap()), &[0.0, 0.75 * ln3, -0.25 * ln3]);
        let dgate = [2.5, 1.5 * (1.0 + 0.25 * ln3), 1.0 - 0.75 * ln3];
        assert_close(&values(gate.grad(&grads).unwrap()), &dgate);
    }
}

#[test]
fn attention() {
    for device in devices() {
        // Keys 0 and ln 3, values 1 and 5. Query 1 weighs both keys 1 : 3, query -1 weighs them 3 : 1.
        let ln3 = 3.0f32.ln();
        let at = |x: &[f32], heads: usize| tensor(x, DType::F32, &device).reshape([1, heads, 2, 1]);
        let (q, k, v) = (at(&[1.0, 1.0, -1.0, -1.0], 2), at(&[0.0, ln3], 1), at(&[1.0, 5.0], 1));
        let out = |window: Option<usize>| {
            let mask = AttentionMask::new(0, 2, window, None, &device);
            values(ops::attention(q.clone(), k.clone(), v.clone(), &mask, 1.0))
        };
        assert_close(&out(None), &[1.0, 4.0, 1.0, 2.0]);
        assert_close(&out(Some(1)), &[1.0, 5.0, 1.0, 5.0]);
        // Two documents of one token see themselves alone.
        let documents = Tensor::<2, Int>::from_data(TensorData::new(vec![0, 1], [1, 2]), &device);
        let mask = AttentionMask::new(0, 2, None, Some(&documents), &device);
        let apart = values(ops::attention(q.clone(), k.clone(), v.clone(), &mask, 1.0));
        assert_close(&apart, &[1.0, 5.0, 1.0, 5.0]);
        // One new query behind a past of one sees both.
        let mask = AttentionMask::new(1, 1, None, None, &device);
        let last = values(ops::attention(q.slice_dim(2, 1..2), k, v, &mask, 1.0));
        assert_close(&last, &[4.0, 2.0]);
    }
}

#[test]
fn cross_entropy_and_token_nll() {
    for device in devices() {
        // Row 0: logits (0, ln 3, ln 4), so p = (1, 3, 4) / 8 and -log p(1) = ln(8/3).
        // Row 1: logits (0, 0, 0), -log p = ln 3. Row 2 has weight 0.
        let (ln3, ln4) = (3.0f32.ln(), 4.0f32.ln());
        let hidden = matrix(&[1.0, 0.0, 0.0, 0.0, 5.0, 7.0], [3, 2], &device).autodiff().require_grad();
        let head = matrix(&[0.0, 0.0, ln3, 0.0, ln4, 0.0], [3, 2], &device).autodiff().require_grad();
        let targets = ints(&[1, 0, 2], &device);
        let weights = tensor(&[2.0, 0.5, 0.0], DType::F32, &device);
        let nll = values(ops::token_nll(hidden.clone(), head.clone(), targets.clone(), 0.0));
        assert_close(&nll[..2], &[(8.0f32 / 3.0).ln(), ln3]);
        let (loss, z) = ops::cross_entropy(hidden.clone(), head.clone(), targets, weights, 0.0, 0.0);
        assert_eq!(values(z), [0.0]);
        assert_close(&values(loss.clone()), &[2.0 * (8.0f32 / 3.0).ln() + 0.5 * ln3]);
        // dlogits: row 0 is 2 (1/8, 3/8 - 1, 4/8) = (1/4, -5/4, 1), row 1 is (-1/3, 1/6, 1/6).
        let grads = loss.backward();
        let dhidden = [-1.25 * ln3 + ln4, 0.0, (ln3 + ln4) / 6.0, 0.0, 0.0, 0.0];
        assert_close(&values(hidden.grad(&grads).unwrap()), &dhidden);
        assert_close(&values(head.grad(&grads).unwrap()), &[0.25, 0.0, -1.25, 0.0, 1.0, 0.0]);
    }
}

#[test]
fn z_loss() {
    for device in devices() {
        // As above: Z is 8 in row 0 and 3 in row 1, so with c = 1/2 the loss gains (2 ln(8)^2 + ln(3)^2 / 2) / 2.
        let (ln3, ln4, ln8) = (3.0f32.ln(), 4.0f32.ln(), 8.0f32.ln());
        let hidden = matrix(&[1.0, 0.0, 0.0, 0.0, 5.0, 7.0], [3, 2], &device).autodiff().require_grad();
        let head = matrix(&[0.0, 0.0, ln3, 0.0, ln4, 0.0], [3, 2], &device).autodiff().require_grad();
        let weights = tensor(&[2.0, 0.5, 0.0], DType::F32, &device);
        let targets = ints(&[1, 0, 2], &device);
        let (loss, z) = ops::cross_entropy(hidden.clone(), head.clone(), targets, weights, 0.5, 0.0);
        let expected = ln8 * ln8 + ln3 * ln3 / 4.0;
        assert_close(&values(z), &[expected]);
        assert_close(&values(loss.clone()), &[2.0 * (8.0f32 / 3.0).ln() + 0.5 * ln3 + expected]);
        // dlogits of the z-loss: weight * 2 c log(Z) * p, here 2 ln8 (1, 3, 4) / 8 and ln3 / 2 (1, 1, 1) / 3.
        let grads = loss.backward();
        let [a, b, c] = [0.25 + ln8 / 4.0, -1.25 + ln8 * 0.75, 1.0 + ln8];
        let row1 = (ln3 + ln4) / 6.0 + ln3 * (ln3 + ln4) / 6.0;
        assert_close(&values(hidden.grad(&grads).unwrap()), &[b * ln3 + c * ln4, 0.0, row1, 0.0, 0.0, 0.0]);
        assert_close(&values(head.grad(&grads).unwrap()), &[a, 0.0, b, 0.0, c, 0.0]);
    }
}

#[test]
fn softcap() {
    for device in devices() {
        // tanh(ln(2) / 2 * 2) = (4 - 1) / (4 + 1) = 3/5 and tanh(0) = 0, so with a cap of 2 the logits
        // (0, 2 ln 2) become (0, 6/5); far out they stay at the cap.
        let ln2 = 2.0f32.ln();
        let logits = tensor(&[0.0, 2.0 * ln2, 1e4, -1e4], DType::F32, &device);
        assert_close(&values(ops::softcap(logits.clone(), 2.0)), &[0.0, 1.2, 2.0, -2.0]);
        assert_eq!(values(ops::softcap(logits.clone(), 0.0)), values(logits));
        let hidden = matrix(&[1.0], [1, 1], &device).autodiff().require_grad();
        let head = matrix(&[0.0, 2.0 * ln2], [2, 1], &device).autodiff().require_grad();
        let (targets, weights) = (ints(&[1], &device), tensor(&[1.0], DType::F32, &device));
        let nll = ops::token_nll(hidden.clone(), head.clone(), targets.clone(), 2.0);
        let (loss, _) = ops::cross_entropy(hidden.clone(), head.clone(), targets, weights, 0.0, 2.0);
        let expected = (1.0 + (-1.2f32).exp()).ln();
        assert_close(&values(nll), &[expected]);
        assert_close(&values(loss.clone()), &[expected]);
        // dlogits: p(0) (1, -1) times 1 - tanh^2 = (1, 16/25).
        let grads = loss.backward();
        let p = 1.0 / (1.0 + 1.2f32.exp());
        assert_close(&values(head.grad(&grads).unwrap()), &[p, -0.64 * p]);
        assert_close(&values(hidden.grad(&grads).unwrap()), &[-0.64 * p * 2.0 * ln2]);
    }
}

#[test]
fn embedding() {
    for device in devices() {
        let table = matrix(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [3, 2], &device).autodiff().require_grad();
        let rows = ops::embedding(table.clone(), ints(&[2, 0, 2], &device));
        assert_close(&values(rows.clone()), &[5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        // Row 2 was taken twice, with weights 1 and 100; row 1 never.
        let weights = matrix(&[1.0, 1.0, 10.0, 10.0, 100.0, 100.0], [3, 2], &device);
        let grads = (rows * weights).sum().backward();
        assert_close(&values(table.grad(&grads).unwrap()), &[10.0, 10.0, 0.0, 0.0, 101.0, 101.0]);
    }
}

#[test]
fn sums() {
    for device in devices() {
        let at = |x: &[f32]| tensor(x, DType::F32, &device);
        assert_close(&values(ops::ordered_sum(at(&[1.0, -2.5, 4.0]))), &[2.5]);
        assert_close(&values(ops::square_sum(at(&[3.0, 4.0]))), &[25.0]);
        // 1 + 2 + ... + n = n (n + 1) / 2, exact in f32 below 2^24: n = 4,097 crosses one chunk by one element.
        let n = 4097;
        let counting: Vec<f32> = (1..=n).map(|i| i as f32).collect();
        assert_close(&values(ops::ordered_sum(at(&counting))), &[(n * (n + 1) / 2) as f32]);
    }
}
