//! Products with a packed weight: rows of it are unpacked into a buffer of a few MiB, multiplied, and forgotten.

use std::ops::Range;
use std::sync::LazyLock;

use burn::backend::{Flex, flex::FlexTensor};
use burn::tensor::{DType, Shape};

use super::buffer::{dense, tensor, unset, values};
use super::parallel;
use super::product::{Matrix, multiply};
use super::simd::kernel;
use crate::ops::{PackedOperand, Zeros};
use crate::packed::{Codes, NF4, PackedShape};

/// Floats of the buffer at most, where a row is not longer: 4 MiB.
const BUFFER: usize = 1 << 20;
/// Floats that one thread unpacks in one go.
const TASK: usize = 1 << 14;

/// A packed weight, each part in one run.
struct Weight {
    codes: FlexTensor,
    scales: FlexTensor,
    zeros: Option<FlexTensor>,
    shape: PackedShape,
}

/// The parts of some rows of it.
#[derive(Clone, Copy)]
struct Rows<'a> {
    words: &'a [u32],
    scales: &'a [f32],
    zeros: Option<&'a [f32]>,
    shape: PackedShape,
}

/// Whether the kernels read these parts.
pub(super) fn reads(w: &PackedOperand<Flex>) -> bool {
    let zeros = match &w.zeros {
        Zeros::Symmetric => DType::F32,
        Zeros::ByBlock(zeros) => zeros.dtype(),
    };
    w.codes.dtype() == DType::U32 && [w.scales.dtype(), zeros] == [DType::F32; 2]
}

/// x_ni and a packed w_oi -> x w^T.
pub(super) fn forward(x: FlexTensor, w: PackedOperand<Flex>) -> FlexTensor {
    let (shape, weight) = (w.shape, Weight::new(w));
    let ([n, _], PackedShape { out, input, .. }) = (x.layout().shape().dims(), shape);
    let mut y = unset(n * out);
    let x = Matrix::of(&x);
    weight.each_part(|rows, part| {
        // SAFETY: y has `out` columns, of which these rows of w are some; the part holds as many rows of `input`.
        unsafe {
            multiply([n, rows.len(), input], y.as_mut_ptr().add(rows.start), out, (x, part.transposed()), false)
        };
    });
    tensor(y, Shape::new([n, out]))
}

/// dy_no and a packed w_oi -> dy w.
pub(super) fn input_gradient(dy: FlexTensor, w: PackedOperand<Flex>) -> FlexTensor {
    let (shape, weight) = (w.shape, Weight::new(w));
    let ([n, _], PackedShape { input, .. }) = (dy.layout().shape().dims(), shape);
    let mut dx = unset(n * input);
    let dy = Matrix::of(&dy);
    weight.each_part(|rows, part| {
        let add = rows.start > 0;
        // SAFETY: dx has n rows of `input`; dy as many columns as w rows, of which the part holds these.
        unsafe { multiply([n, input, rows.len()], dx.as_mut_ptr(), input, (dy.at(0, rows.start), part), add) };
    });
    tensor(dx, Shape::new([n, input]))
}

/// A packed w_oi -> w_oi.
pub(super) fn dequantize(w: PackedOperand<Flex>) -> FlexTensor {
    let shape = w.shape;
    let mut out = unset(shape.out * shape.input);
    Weight::new(w).unpack(0..shape.out, &mut out, shape.input);
    tensor(out, Shape::new([shape.out, shape.input]))
}

impl Weight {
    fn new(w: PackedOperand<Flex>) -> Self {
        let zeros = match w.zeros {
            Zeros::Symmetric => None,
            Zeros::ByBlock(zeros) => Some(dense(zeros)),
        };
        Self { codes: dense(w.codes), scales: dense(w.scales), zeros, shape: w.shape }
    }

    /// Gives `work` the rows part by part, unpacked.
    fn each_part(&self, mut work: impl FnMut(Range<usize>, Matrix)) {
        let PackedShape { out, input, .. } = self.shape;
        let most = (BUFFER / input.max(1)).clamp(1, out.max(1));
        let mut buffer = unset(most * input);
        for first in (0..out).step_by(most) {
            let rows = first..(first + most).min(out);
            self.unpack(rows.clone(), &mut buffer[..rows.len() * input], input);
            work(rows, Matrix::rows(&buffer, input));
        }
    }

    /// Writes rows of `input` floats into `target`.
    fn unpack(&self, rows: Range<usize>, target: &mut [f32], input: usize) {
        let words = self.codes.as_slice::<u32>().expect("the tensor was made dense, in u32");
        let (scales, zeros) = (values(&self.scales), self.zeros.as_ref().map(values));
        let (n_words, n_blocks) = (self.shape.words(), self.shape.blocks());
        let rows_of_task = (TASK / input.max(1)).max(1);
        parallel::chunks([target], rows_of_task * input, |task, [target]| {
            let first = rows.start + task * rows_of_task;
            let rows = first..first + target.len() / input.max(1);
            let by_block = rows.start * n_blocks..rows.end * n_blocks;
            let part = Rows {
                words: &words[rows.start * n_words..rows.end * n_words],
                scales: &scales[by_block.clone()],
                zeros: zeros.map(|zeros| &zeros[by_block]),
                shape: self.shape,
            };
            unpack(part, target);
        });
    }
}

/// What the two codes of a byte stand for in nf4.
static NF4_PAIRS: LazyLock<Vec<[f32; 2]>> =
    LazyLock::new(|| (0..256).map(|byte| [NF4[byte & 15], NF4[byte >> 4]]).collect());

kernel! {
    /// Writes rows of floats, as many as there are words for.
    fn unpack(_s, rows: Rows<'_>, target: &mut [f32]) {
        let PackedShape { input, packing, .. } = rows.shape;
        let words = packing.block() / packing.codes().per_word();
        let pairs: &[[f32; 2]] = if packing.codes() == Codes::Nf4 { &NF4_PAIRS } else { &[] };
        for (row, target) in target.chunks_exact_mut(input).enumerate() {
            let n = rows.shape.blocks();
            for (block, target) in target.chunks_mut(packing.block()).enumerate() {
                let at = row * n + block;
                let (scale, zero) = (rows.scales[at], rows.zeros.map_or(0.0, |zeros| zeros[at]));
                let words = &rows.words[at * words..(at + 1) * words];
                match packing.codes() {
                    Codes::Int8 => each_word(words, target, |word, fields: &mut [f32; 4]| {
                        for (j, field) in fields.iter_mut().enumerate() {
                            *field = (((word << (24 - 8 * j)) as i32 >> 24) as f32 - zero) * scale;
                        }
                    }),
                    Codes::Int4 => each_word(words, target, |word, fields: &mut [f32; 8]| {
                        for (j, field) in fields.iter_mut().enumerate() {
                            *field = (((word << (28 - 4 * j)) as i32 >> 28) as f32 - zero) * scale;
                        }
                    }),
                    Codes::Nf4 => each_word(words, target, |word, fields: &mut [f32; 8]| {
                        for (byte, two) in word.to_le_bytes().into_iter().zip(fields.as_chunks_mut::<2>().0) {
                            let [low, high] = pairs[usize::from(byte)];
                            *two = [low * scale, high * scale];
                        }
                    }),
                }
            }
        }
    }
}

/// Unpacks words into a block that may be shorter than they are.
#[inline(always)]
fn each_word<const N: usize>(words: &[u32], target: &mut [f32], unpack: impl Fn(u32, &mut [f32; N])) {
    let (whole, rest) = target.as_chunks_mut::<N>();
    for (word, fields) in words.iter().zip(whole.iter_mut()) {
        unpack(*word, fields);
    }
    if !rest.is_empty() {
        let mut fields = [0.0; N];
        unpack(words[whole.len()], &mut fields);
        rest.copy_from_slice(&fields[..rest.len()]);
    }
}
