//! Linear, normalization, rotation, gated activation and embedding against their composed forms.

use burn::tensor::activation::silu;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use fornax_model::ops;

use crate::check::{Op, check, check_bf16, devices, normals, tensor};

#[test]
fn linear() {
    for device in devices() {
        for (n, i, o) in [(1, 1, 1), (1, 3, 5), (3, 1, 7), (5, 7, 1), (17, 33, 5), (33, 17, 65)] {
            let run = |x: &[Tensor<1>]| {
                let (input, weight) = (x[0].clone().reshape([n, i]), x[1].clone().reshape([o, i]));
                ops::linear(input, weight, x.get(2).cloned()).reshape([n * o])
            };
            let composed = |x: &[Tensor<1>]| {
                let (input, weight) = (x[0].clone().reshape([n, i]), x[1].clone().reshape([o, i]));
                let y = input.matmul(weight.transpose());
                match x.get(2) {
                    Some(bias) => (y + bias.clone().unsqueeze::<2>()).reshape([n * o]),
                    None => y.reshape([n * o]),
                }
            };
            for lengths in [vec![n * i, o * i], vec![n * i, o * i, o]] {
                let bias = if lengths.len() == 3 { "bias" } else { "no bias" };
                let name = format!("linear n {n} i {i} o {o}, {bias}");
                let op = Op { name, lengths, run: &run, composed: &composed };
                check(&op, &device);
                check_bf16(&op, DType::BF16, &device);
            }
        }
    }
}

#[test]
fn linear_low_rank() {
    for device in devices() {
        for (n, i, o, r) in
            [(1, 1, 1, 1), (1, 3, 5, 2), (3, 1, 7, 1), (5, 7, 1, 3), (17, 33, 5, 4), (33, 17, 65, 9)]
        {
            let weight = tensor(&normals("frozen", o * i), DType::F32, &device).reshape([o, i]);
            let shaped = |x: &[Tensor<1>]| {
                let pair = [x[1].clone().reshape([r, i]), x[2].clone().reshape([o, r])];
                (x[0].clone().reshape([n, i]), weight.clone().cast(x[0].dtype()), pair)
            };
            let run = |x: &[Tensor<1>]| {
                let (input, weight, pair) = shaped(x);
                ops::linear_low_rank(input, weight, pair, 0.7, x.get(3).cloned()).reshape([n * o])
            };
            let composed = |x: &[Tensor<1>]| {
                let (input, weight, [a, b]) = shaped(x);
                let sum = input.clone().matmul(weight.transpose())
                    + input.matmul(a.transpose()).matmul(b.transpose()) * 0.7;
                match x.get(3) {
                    Some(bias) => (sum + bias.clone().unsqueeze::<2>()).reshape([n * o]),
                    None => sum.reshape([n * o]),
                }
            };
            for lengths in [vec![n * i, r * i, o * r], vec![n * i, r * i, o * r, o]] {
                let name = format!("linear_low_rank n {n} i {i} o {o} r {r}, {} operands", lengths.len());
                let op = Op { name, lengths, run: &run, composed: &composed };
                check(&op, &device);
                check_bf16(&op, DType::BF16, &device);
            }
        }
    }
}

#[test]
fn rms_norm() {
    for device in devices() {
        for (n, c) in [(1, 1), (1, 7), (3, 5), (5, 33), (17, 48), (33, 3)] {
            for eps in [1e-5, 0.5] {
                let run = |x: &[Tensor<1>]| {
                    ops::rms_norm(x[0].clone().reshape([n, c]), x[1].clone(), eps).reshape([n * c])
                };
                let composed = |x: &[Tensor<1>]| {
                    let input = x[0].clone().reshape([n, c]);
                    let mean = (input.clone() * input.clone()).mean_dim(1);
                    (input / (mean + eps).sqrt() * x[1].clone().unsqueeze::<2>()).reshape([n * c])
                };
                let name = format!("rms_norm n {n} c {c} eps {eps}");
                let op = Op { name, lengths: vec![n * c, c], run: &run, composed: &composed };
                check(&op, &device);
                check_bf16(&op, DType::BF16, &device);
            }
        }
    }
}

#[test]
fn swiglu() {
    for device in devices() {
        for (n, f) in [(1, 1), (1, 5), (3, 7), (17, 33), (33, 17)] {
            let shaped = |x: &[Tensor<1>]| (x[0].clone().reshape([n, f]), x[1].clone().reshape([n, f]));
            let run = |x: &[Tensor<1>]| {
                let (gate, up) = shaped(x);
                ops::swiglu(gate, up).reshape([n * f])
            };
            let composed = |x: &[Tensor<1>]| {
                let (gate, up) = shaped(x);
                (silu(gate) * up).reshape([n * f])
            };
            let name = format!("swiglu n {n} f {f}");
            let op = Op { name, lengths: vec![n * f, n * f], run: &run, composed: &composed };
            check(&op, &device);
            check_bf16(&op, DType::BF16, &device);
        }
    }
}

#[test]
fn rope() {
    for device in devices() {
        for (b, h, t, d, shared) in [
            (1, 1, 1, 2, true),
            (1, 3, 5, 6, true),
            (3, 2, 7, 10, false),
            (2, 1, 17, 66, true),
            (2, 5, 3, 14, false),
        ] {
            let n = b * h * t * d;
            let run = |x: &[Tensor<1>]| {
                let (cos, sin) = angles(if shared { 1 } else { b }, t, d / 2, x[0].dtype(), &device);
                ops::rope(x[0].clone().reshape([b, h, t, d]), cos, sin).reshape([n])
            };
            // transformers' form: x * [cos, cos] + [-right, left] * [sin, sin].
            let composed = |x: &[Tensor<1>]| {
                let (cos, sin) = angles(if shared { 1 } else { b }, t, d / 2, x[0].dtype(), &device);
                let twice = |a: Tensor<3>| Tensor::cat(vec![a.clone(), a], 2).unsqueeze_dim::<4>(1);
                let x = x[0].clone().reshape([b, h, t, d]);
                let (left, right) = (x.clone().slice_dim(3, 0..d / 2), x.clone().slice_dim(3, d / 2..d));
                let turned = Tensor::cat(vec![-right, left], 3);
                (x * twice(cos) + turned * twice(sin)).reshape([n])
            };
            let angles = if shared { "angles shared" } else { "angles per row" };
            let name = format!("rope b {b} h {h} t {t} d {d}, {angles}");
            let op = Op { name, lengths: vec![n], run: &run, composed: &composed };
            check(&op, &device);
            check_bf16(&op, DType::BF16, &device);
        }
    }
}

fn angles(b: usize, t: usize, k: usize, dtype: DType, device: &Device) -> (Tensor<3>, Tensor<3>) {
    let angle: Vec<f32> = (0..b * t * k).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
    let angle = tensor(&angle, DType::F32, device).reshape([b, t, k]);
    (angle.clone().cos().cast(dtype), angle.sin().cast(dtype))
}

#[test]
fn embedding() {
    for device in devices() {
        for (v, c, ids) in [
            (1, 1, vec![0]),
            (3, 5, vec![2, 0, 2, 2]),
            (33, 7, (0..17).map(|i| i * 5 % 33).collect::<Vec<i32>>()),
            (5, 3, vec![4; 65]),
        ] {
            let n = ids.len();
            let ids: Tensor<1, Int> = Tensor::from_data(TensorData::new(ids, [n]), &device);
            let run = |x: &[Tensor<1>]| ops::embedding(x[0].clone().reshape([v, c]), ids.clone()).reshape([n * c]);
            // A product with the one-hot matrix of the ids.
            let composed = |x: &[Tensor<1>]| {
                let columns = Tensor::<1, Int>::arange(0..v as i64, &device).unsqueeze::<2>();
                let rows = ids.clone().unsqueeze_dim::<2>(1);
                let hits = rows.expand([n, v]).equal(columns.expand([n, v]));
                let one_hot = hits.float().cast(x[0].dtype());
                one_hot.matmul(x[0].clone().reshape([v, c])).reshape([n * c])
            };
            let op = Op {
                name: format!("embedding v {v} c {c} n {n}"),
                lengths: vec![v * c],
                run: &run,
                composed: &composed,
            };
            check(&op, &device);
            check_bf16(&op, DType::BF16, &device);
        }
    }
}
