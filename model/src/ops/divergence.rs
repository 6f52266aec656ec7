//! Output heads of a student and a teacher and the divergence of their distributions together, by chunks of rows: the
//! logits of neither exist for a whole batch (as in TRL's chunked divergence).
//!
//! Shapes: n rows, c channels of the student, e channels of the teacher, v vocabulary.

use burn::backend::{
    Autodiff, Backend, Dispatch, TensorMetadata,
    autodiff::{
        checkpoint::strategy::CheckpointStrategy,
        ops::{Backward, OpsKind},
    },
    tensor::FloatTensor,
};
use burn::tensor::{Shape, Tensor};

use super::loss::{CHUNK_ELEMENTS, KeptGradients, joined, logits, row_chunks, rows, vector, weighted_sum};
use super::{LlmOps, assert_same_dtype, cast, to_f32};

/// Which divergence, and of what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DivergenceOptions {
    /// The generalized Jensen-Shannon divergence of Agarwal et al. (arXiv:2306.13649, equation 1), as TRL has it:
    /// 0 is KL(teacher, student), 1 is KL(student, teacher), and between them
    /// `beta KL(teacher, mix) + (1 - beta) KL(student, mix)` with `mix = beta teacher + (1 - beta) student`.
    pub beta: f32,
    /// Both logits are divided by it; above 0. The divergence is not multiplied by its square.
    pub temperature: f32,
    /// Cap of the student's logits, 0 for none.
    pub softcap: f32,
    /// Cap of the teacher's logits, 0 for none.
    pub teacher_softcap: f32,
    /// Rows of logits that exist at a time.
    pub chunk: usize,
}

impl DivergenceOptions {
    /// Chunks as large as those of the cross-entropy, for the two vocabularies together.
    pub fn new(beta: f32, temperature: f32, vocabulary: usize) -> Self {
        let chunk = (CHUNK_ELEMENTS / 2 / vocabulary.max(1)).clamp(16, 4096);
        Self { beta, temperature, softcap: 0.0, teacher_softcap: 0.0, chunk }
    }
}

/// A final hidden state and the weight of the head that reads it.
#[derive(Debug, Clone)]
pub struct Headed {
    /// hidden_nc.
    pub hidden_nc: Tensor<2>,
    /// head_vc.
    pub head_vc: Tensor<2>,
}

/// Sum over rows of `weights_n * divergence(teacher row, student row)`, (1) in f32. Gradients go to the student alone.
///
/// # Panics
/// Panics when the two vocabularies differ in size.
pub fn divergence(
    student: Headed,
    teacher: Headed,
    weights_n: Tensor<1>,
    options: DivergenceOptions,
) -> Tensor<1> {
    assert_same_dtype("divergence", student.hidden_nc.dtype(), student.head_vc.dtype());
    assert_same_dtype("divergence", teacher.hidden_nc.dtype(), teacher.head_vc.dtype());
    let (v, w) = (student.head_vc.dims()[0], teacher.head_vc.dims()[0]);
    assert!(v == w, "divergence: vocabularies of {v} and {w}");
    let tracked = student.head_vc.is_tracked();
    Tensor::from_dispatch(<Dispatch as LlmOps>::divergence(
        student.hidden_nc.into_dispatch(),
        student.head_vc.into_dispatch(),
        teacher.hidden_nc.into_dispatch(),
        teacher.head_vc.into_dispatch(),
        weights_n.into_dispatch(),
        tracked,
        options,
    ))
}

/// Logarithms of the probabilities of a chunk, student's and teacher's, nv each.
struct Chunk<B: Backend> {
    student: FloatTensor<B>,
    teacher: FloatTensor<B>,
}

/// The divergence of each row of a chunk, n1, and the student's log-ratio behind its gradient, nv: that gradient is
/// `slope p (ratio - sum p ratio)`, p being the student's probabilities.
struct Ratio<B: Backend> {
    divergence: FloatTensor<B>,
    ratio: FloatTensor<B>,
    /// `ratio` summed under p, n1.
    mean: FloatTensor<B>,
    slope: f32,
}

pub(super) fn forward<B: Backend>(
    [student, head, teacher, teacher_head, weights]: [FloatTensor<B>; 5],
    options: DivergenceOptions,
) -> FloatTensor<B> {
    let mut all = Vec::new();
    for (from, to) in row_chunks(student.shape()[0], options.chunk) {
        let part = |hidden: &FloatTensor<B>| rows::<B>(hidden.clone(), from, to);
        let chunk = log_probabilities::<B>(
            logits::<B>(part(&student), head.clone(), options.softcap),
            logits::<B>(part(&teacher), teacher_head.clone(), options.teacher_softcap),
            options,
        );
        all.push(match options.beta == 0.0 {
            true => forward_kl::<B>(&chunk),
            false => ratio::<B>(&chunk, options.beta).divergence,
        });
    }
    weighted_sum::<B>(joined::<B>(all), weights)
}

/// -> (loss (1), dhidden_nc, dhead_vc; one unused zero where the head is not tracked).
pub(super) fn with_gradients<B: Backend>(
    [student, head, teacher, teacher_head, weights]: [FloatTensor<B>; 5],
    head_tracked: bool,
    options: DivergenceOptions,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (n, dtype, device) = (student.shape()[0], student.dtype(), student.device());
    let (mut all, mut dhiddens) = (Vec::new(), Vec::new());
    let mut dhead: Option<FloatTensor<B>> = None;
    for (from, to) in row_chunks(n, options.chunk) {
        let hidden = rows::<B>(student.clone(), from, to);
        let weight = B::float_reshape(vector::<B>(weights.clone(), from, to), Shape::new([to - from, 1]));
        let capped = logits::<B>(hidden.clone(), head.clone(), options.softcap);
        let other = rows::<B>(teacher.clone(), from, to);
        let other = logits::<B>(other, teacher_head.clone(), options.teacher_softcap);
        let chunk = log_probabilities::<B>(capped.clone(), other, options);
        let (divergence, dlogits) = row_gradients::<B>(&chunk, options.beta);
        all.push(divergence);
        let dlogits = B::float_mul(dlogits, B::float_div_scalar(weight, options.temperature.into()));
        let dlogits = cast::<B>(through_cap::<B>(dlogits, capped, options.softcap), dtype);
        dhiddens.push(B::float_matmul(dlogits.clone(), head.clone()));
        if head_tracked {
            // Summed in f32: in bf16, hundreds of chunks lose percents of the sum.
            let part = to_f32::<B>(B::float_matmul(B::float_transpose(dlogits), hidden));
            dhead = Some(match dhead {
                Some(sum) => B::float_add(sum, part),
                None => part,
            });
        }
    }
    let unused = || B::float_zeros(Shape::new([1]), &device, dtype.into());
    let dhead = dhead.map_or_else(unused, |sum| cast::<B>(sum, dtype));
    (weighted_sum::<B>(joined::<B>(all), weights), B::float_cat(dhiddens, 0), dhead)
}

/// -> (divergence_n1, its gradient by the student's scaled logits, nv).
fn row_gradients<B: Backend>(chunk: &Chunk<B>, beta: f32) -> (FloatTensor<B>, FloatTensor<B>) {
    let p = B::float_exp(chunk.student.clone());
    if beta == 0.0 {
        let gradient = B::float_sub(p, B::float_exp(chunk.teacher.clone()));
        return (forward_kl::<B>(chunk), gradient);
    }
    let Ratio { divergence, ratio, mean, slope } = ratio::<B>(chunk, beta);
    let gradient = B::float_mul(p, B::float_sub(ratio, mean));
    (divergence, B::float_mul_scalar(gradient, slope.into()))
}

/// KL(teacher, student), n1.
fn forward_kl<B: Backend>(chunk: &Chunk<B>) -> FloatTensor<B> {
    expectation::<B>(&chunk.teacher, B::float_sub(chunk.teacher.clone(), chunk.student.clone()))
}

fn ratio<B: Backend>(chunk: &Chunk<B>, beta: f32) -> Ratio<B> {
    let to = |x: &FloatTensor<B>, y: &FloatTensor<B>| B::float_sub(x.clone(), y.clone());
    if beta == 1.0 {
        let ratio = to(&chunk.student, &chunk.teacher);
        let mean = expectation::<B>(&chunk.student, ratio.clone());
        return Ratio { divergence: mean.clone(), ratio, mean, slope: 1.0 };
    }
    let mix = mixture::<B>(chunk, beta);
    let ratio = to(&chunk.student, &mix);
    let mean = expectation::<B>(&chunk.student, ratio.clone());
    let of_teacher = expectation::<B>(&chunk.teacher, to(&chunk.teacher, &mix));
    let divergence = B::float_add(
        B::float_mul_scalar(of_teacher, beta.into()),
        B::float_mul_scalar(mean.clone(), (1.0 - beta).into()),
    );
    // The mixture depends on the student too, but it sums to 1, so that its share of the gradient is 0.
    Ratio { divergence, ratio, mean, slope: 1.0 - beta }
}

/// log((1 - beta) student + beta teacher), nv: the larger of two terms and what the other adds to it.
fn mixture<B: Backend>(chunk: &Chunk<B>, beta: f32) -> FloatTensor<B> {
    let student = B::float_add_scalar(chunk.student.clone(), (-beta).ln_1p().into());
    let teacher = B::float_add_scalar(chunk.teacher.clone(), beta.ln().into());
    let apart = B::float_abs(B::float_sub(student.clone(), teacher.clone()));
    let larger = B::float_add(B::float_add(student, teacher), apart.clone());
    let rest = B::float_log1p(B::float_exp(B::float_neg(apart)));
    B::float_add(B::float_mul_scalar(larger, 0.5f32.into()), rest)
}

/// The sum of `values` under the probabilities of which `logs` are the logarithms, n1.
fn expectation<B: Backend>(logs: &FloatTensor<B>, values: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum_dim(B::float_mul(B::float_exp(logs.clone()), values), 1)
}

fn log_probabilities<B: Backend>(
    student: FloatTensor<B>,
    teacher: FloatTensor<B>,
    options: DivergenceOptions,
) -> Chunk<B> {
    let normal = |logits: FloatTensor<B>| {
        let logits = match options.temperature == 1.0 {
            true => logits,
            false => B::float_div_scalar(logits, options.temperature.into()),
        };
        let shifted = B::float_sub(logits.clone(), B::float_max_dim(logits, 1));
        let sum = B::float_sum_dim(B::float_exp(shifted.clone()), 1);
        B::float_sub(shifted, B::float_log(sum))
    };
    Chunk { student: normal(student), teacher: normal(teacher) }
}

/// The gradient by the logits before the cap; `capped` are those after it.
fn through_cap<B: Backend>(dlogits: FloatTensor<B>, capped: FloatTensor<B>, cap: f32) -> FloatTensor<B> {
    if cap == 0.0 {
        return dlogits;
    }
    let tanh = B::float_div_scalar(capped, cap.into());
    let square = B::float_mul(tanh.clone(), tanh);
    B::float_mul(dlogits, B::float_add_scalar(B::float_neg(square), 1.0f32.into()))
}

pub(super) fn tracked<B: LlmOps, C: CheckpointStrategy>(
    [student, head, teacher, teacher_head, weights]: [FloatTensor<Autodiff<B, C>>; 5],
    head_tracked: bool,
    options: DivergenceOptions,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = [student.node(), head.node()];
    let [student, head, teacher, teacher_head, weights] =
        [student, head, teacher, teacher_head, weights].map(|x| x.into_primitive());
    match KeptGradients.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (loss, dhidden, dhead) =
                B::divergence_with_gradients(student, head, teacher, teacher_head, weights, head_tracked, options);
            prep.finish((dhidden, dhead), loss)
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::divergence(student, head, teacher, teacher_head, weights, false, options))
        }
    }
}
