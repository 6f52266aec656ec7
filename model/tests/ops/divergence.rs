//! The divergence of two distributions with their heads: chunks, masked rows, frozen heads, hand numbers.

use burn::backend::Dispatch;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Tensor};
use fornax_model::ops::{self, DivergenceOptions, Headed, LlmOps};

use crate::check::{Op, assert_close, assert_same, check, check_bf16, devices, normals, tensor, values};

/// Channels of the teacher.
const E: usize = 4;

fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|i| if i % 5 == 2 { 0.0 } else { 0.25 + i as f32 * 0.125 }).collect()
}

fn teacher(n: usize, v: usize, device: &Device) -> Headed {
    let matrix = |name: &str, rows: usize| tensor(&normals(name, rows * E), DType::F32, device).reshape([rows, E]);
    Headed { hidden_nc: matrix("teacher hidden", n), head_vc: matrix("teacher head", v) }
}

/// As the trait computes it, with a chosen number of rows in a chunk.
fn chunked(student: Headed, teacher: Headed, weights: Tensor<1>, options: DivergenceOptions) -> Tensor<1> {
    let tracked = student.head_vc.is_tracked();
    Tensor::from_dispatch(<Dispatch as LlmOps>::divergence(
        student.hidden_nc.into_dispatch(),
        student.head_vc.into_dispatch(),
        teacher.hidden_nc.into_dispatch(),
        teacher.head_vc.into_dispatch(),
        weights.into_dispatch(),
        tracked,
        options,
    ))
}

/// The definition, all logits at once.
fn composed(student: Headed, teacher: Headed, weights: Tensor<1>, options: DivergenceOptions) -> Tensor<1> {
    let log_p = |model: Headed, cap: f32| {
        let mut logits = model.hidden_nc.matmul(model.head_vc.transpose()).cast(DType::F32);
        if cap != 0.0 {
            logits = (logits / cap).tanh() * cap;
        }
        log_softmax(logits / options.temperature, 1)
    };
    let (s, t) = (log_p(student, options.softcap), log_p(teacher, options.teacher_softcap));
    let kl = |p: &Tensor<2>, q: &Tensor<2>| p.clone().exp() * (p.clone() - q.clone());
    let beta = options.beta;
    let rows = if beta == 0.0 {
        kl(&t, &s)
    } else if beta == 1.0 {
        kl(&s, &t)
    } else {
        let mix = (s.clone().exp() * (1.0 - beta) + t.clone().exp() * beta).log();
        kl(&t, &mix) * beta + kl(&s, &mix) * (1.0 - beta)
    };
    let n = rows.dims()[0];
    (rows.sum_dim(1).reshape([n]) * weights).sum()
}

fn check_case(n: usize, c: usize, v: usize, options: DivergenceOptions, device: &Device) {
    let scale = tensor(&weights(n), DType::F32, device);
    let student = |x: &[Tensor<1>]| Headed {
        hidden_nc: x[0].clone().reshape([n, c]),
        head_vc: x[1].clone().reshape([v, c]),
    };
    let run = |x: &[Tensor<1>]| chunked(student(x), teacher(n, v, device), scale.clone(), options);
    let composed = |x: &[Tensor<1>]| composed(student(x), teacher(n, v, device), scale.clone(), options);
    let name = format!("divergence n {n} c {c} v {v} {options:?}");
    let op = Op { name, lengths: vec![n * c, v * c], run: &run, composed: &composed };
    check(&op, device);
    check_bf16(&op, DType::F32, device);
}

#[test]
fn divergence_is_its_definition_whatever_the_chunk() {
    for device in devices() {
        for (n, c, v) in [(1, 1, 2), (7, 3, 33), (17, 9, 5)] {
            for beta in [0.0, 0.1, 0.5, 1.0] {
                for chunk in [1, 5, 100] {
                    let options = DivergenceOptions { chunk, ..DivergenceOptions::new(beta, 1.0, v) };
                    check_case(n, c, v, options, &device);
                }
                let options = DivergenceOptions {
                    softcap: 2.0,
                    teacher_softcap: 3.0,
                    chunk: 3,
                    ..DivergenceOptions::new(beta, 2.0, v)
                };
                check_case(n, c, v, options, &device);
            }
        }
    }
}

/// A student of (1/2, 1/2) and a teacher of (3/4, 1/4), at one hidden channel of 1, so that the gradient of the
/// head is that of the logits.
#[test]
fn hand_numbers() {
    let device = Device::flex();
    let ln = f32::ln;
    let forward = 0.75 * ln(1.5) + 0.25 * ln(0.5);
    let reverse = 0.5 * ln(2.0 / 3.0) + 0.5 * ln(2.0);
    let (of_teacher, of_student) = (0.75 * ln(1.2) + 0.25 * ln(2.0 / 3.0), 0.5 * ln(0.8) + 0.5 * ln(4.0 / 3.0));
    let cases = [
        (0.0, forward, 0.5 - 0.75),
        (1.0, reverse, 0.5 * (ln(2.0 / 3.0) - reverse)),
        (0.5, 0.5 * of_teacher + 0.5 * of_student, 0.5 * 0.5 * (ln(0.8) - of_student)),
    ];
    for (beta, value, slope) in cases {
        for temperature in [1.0, 2.0] {
            let column = |values: &[f32]| tensor(values, DType::F32, &device).reshape([2, 1]);
            let one = tensor(&[1.0], DType::F32, &device);
            let head = column(&[0.0, 0.0]).autodiff().require_grad();
            let student = Headed { hidden_nc: one.clone().reshape([1, 1]), head_vc: head.clone() };
            let teacher =
                Headed { hidden_nc: one.clone().reshape([1, 1]), head_vc: column(&[temperature * ln(3.0), 0.0]) };
            let options = DivergenceOptions::new(beta, temperature, 2);
            let loss = ops::divergence(student, teacher, one * 3.0, options);
            let gradient = head.grad(&loss.backward()).unwrap();
            assert_close(&values(loss), &[3.0 * value]);
            assert_close(&values(gradient), &[3.0 * slope / temperature, -3.0 * slope / temperature]);
        }
    }
}

/// Of equal models it is zero with a gradient of zero, and logits of +-1e4 neither overflow nor vanish.
#[test]
fn equal_models_do_not_diverge_and_far_ones_stay_finite() {
    let (n, v) = (5, 7);
    for device in devices() {
        for beta in [0.0, 0.3, 1.0] {
            let options = DivergenceOptions::new(beta, 1.0, v);
            let scale = tensor(&[1.0; 5], DType::F32, &device);
            let other = teacher(n, v, &device);
            let mut same = other.clone();
            same.head_vc = same.head_vc.autodiff().require_grad();
            let leaf = same.head_vc.clone();
            let loss = ops::divergence(same, other.clone(), scale.clone(), options);
            let gradient = leaf.grad(&loss.backward()).unwrap();
            assert!(values(loss)[0].abs() < 1e-5);
            assert!(values(gradient).iter().all(|g| g.abs() < 1e-5));
            let far = Headed { hidden_nc: other.hidden_nc.clone() * -1e4, head_vc: other.head_vc.clone() };
            let loss = values(ops::divergence(far, other, scale, options))[0];
            assert!(loss.is_finite() && loss > 0.0, "{loss}");
        }
    }
}

/// Rows of weight 0 have gradients of exactly zero, and the frozen teacher gets none.
#[test]
fn masked_rows_and_the_teacher_get_no_gradient() {
    let (n, c, v) = (8, 3, 9);
    for device in devices() {
        let hidden = tensor(&normals("masked", n * c), DType::F32, &device).reshape([n, c]);
        let hidden = hidden.autodiff().require_grad();
        let head_vc = tensor(&normals("masked head", v * c), DType::F32, &device).reshape([v, c]);
        let mut other = teacher(n, v, &device);
        other.head_vc = other.head_vc.autodiff().require_grad();
        let of_teacher = other.head_vc.clone();
        let student = Headed { hidden_nc: hidden.clone(), head_vc };
        let scale = tensor(&weights(n), DType::F32, &device);
        let options = DivergenceOptions { chunk: 3, ..DivergenceOptions::new(0.5, 1.0, v) };
        let plain = Headed { hidden_nc: hidden.clone().without_autodiff(), ..student.clone() };
        let untracked = chunked(plain, other.clone(), scale.clone(), options);
        let loss = chunked(student, other, scale, options);
        assert_same(&values(loss.clone()), &values(untracked), "tracked forward", &device);
        let grads = loss.backward();
        assert!(of_teacher.grad(&grads).is_none());
        let rows = values(hidden.grad(&grads).unwrap());
        for (i, row) in rows.chunks(c).enumerate() {
            assert_eq!(row.iter().all(|&g| g == 0.0), i % 5 == 2, "row {i}: {row:?}");
        }
    }
}

#[test]
#[should_panic(expected = "divergence: vocabularies of 3 and 5")]
fn vocabularies_must_agree() {
    let device = Device::flex();
    let one = tensor(&[1.0], DType::F32, &device);
    let student = Headed { hidden_nc: Tensor::ones([1, E], &device), head_vc: Tensor::ones([3, E], &device) };
    ops::divergence(student, teacher(1, 5, &device), one, DivergenceOptions::new(0.5, 1.0, 3));
}
