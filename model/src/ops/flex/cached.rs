//! Attention over a cache where it lies, and the writing of its slots.
//!
//! A task is one key-value head of one segment and some of its tokens: the queries of all heads that read it, against
//! blocks of keys and values (FlashAttention's order, Dao 2023, arXiv:2307.08691). Slots of f32 are read in place; others
//! become f32 a block at a time, in a buffer that stays in a core's cache. What a task computes depends on its segment
//! alone: not on the others of the pass, nor on the number of threads.

use std::ops::Range;

use burn::backend::{Flex, flex::FlexTensor};
use burn::tensor::{DType, Shape, bf16, f16};
use half::slice::HalfFloatSliceExt;

use super::attention::{scale_row, softmax_row};
use super::buffer::{dense, tensor, unset, values, values_mut};
use super::parallel::{self, Shared};
use super::product::{Matrix, multiply_alone};
use super::rows;
use super::simd::kernel;
use crate::ops::CacheOperand;
use crate::ops::cached::{LEAST, Segment, Segments};

/// Keys of one block.
const KEYS: usize = 256;
/// Queries of one task at most, over all heads of a group, unless one token has more.
const QUERIES: usize = 64;
/// Multiplications of the whole op below which the calling thread does it alone.
const SMALL: usize = 1 << 20;

/// Whether the kernels read this cache: as it is allocated.
pub(super) fn reads(cache: &CacheOperand<Flex>) -> bool {
    let whole = |x: &FlexTensor| x.is_contiguous() && x.layout().start_offset() == 0;
    match cache {
        CacheOperand::Float(x) => matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16) && whole(x),
        CacheOperand::Int8 { codes, scales } => {
            [codes.dtype(), scales.dtype()] == [DType::U32, DType::F32] && whole(codes) && whole(scales)
        }
    }
}

/// A cache, new_ngd and the slots of its tokens -> the cache with the new ones in these slots.
pub(super) fn write(cache: CacheOperand<Flex>, new: &FlexTensor, slots: &[usize]) -> CacheOperand<Flex> {
    let [_, g, d] = new.layout().shape().dims();
    let new = dense(new.clone());
    let rows = slots.iter().zip(values(&new).chunks_exact(g * d));
    match cache {
        CacheOperand::Float(mut x) => {
            let place = |slot: usize| slot * g * d..(slot + 1) * g * d;
            match x.dtype() {
                DType::F32 => {
                    let to = values_mut(&mut x);
                    rows.for_each(|(slot, row)| to[place(*slot)].copy_from_slice(row));
                }
                DType::BF16 => {
                    let to = x.storage_mut::<bf16>();
                    rows.for_each(|(slot, row)| to[place(*slot)].convert_from_f32_slice(row));
                }
                _ => {
                    let to = x.storage_mut::<f16>();
                    rows.for_each(|(slot, row)| to[place(*slot)].convert_from_f32_slice(row));
                }
            }
            CacheOperand::Float(x)
        }
        CacheOperand::Int8 { mut codes, mut scales } => {
            let bytes = codes.layout().shape()[2] * 4;
            {
                let (codes, scales) = (as_bytes_mut(codes.storage_mut::<u32>()), values_mut(&mut scales));
                for (slot, row) in rows {
                    let codes = &mut codes[slot * g * bytes..(slot + 1) * g * bytes];
                    let heads = codes.chunks_exact_mut(bytes).zip(row.chunks_exact(d));
                    for ((codes, x), scale) in heads.zip(&mut scales[slot * g..(slot + 1) * g]) {
                        *scale = quantize(x, codes);
                    }
                }
            }
            CacheOperand::Int8 { codes, scales }
        }
    }
}

/// Rounds x to codes; -> the scale. A number that is none makes the scale one that is none, so that it is not lost.
fn quantize(x: &[f32], codes: &mut [u8]) -> f32 {
    let largest = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let scale = largest * (1.0 / 127.0) + LEAST;
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
    }
    if x.iter().any(|x| x.is_nan()) { f32::NAN } else { scale }
}

/// Words of codes as bytes, the earliest code of a word in its lowest bits.
fn as_bytes(words: &[u32]) -> &[i8] {
    const { assert!(cfg!(target_endian = "little"), "the codes of a word are read as its bytes") };
    // SAFETY: any four bytes are a word, and any byte an i8; the length counts bytes.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * 4) }
}

fn as_bytes_mut(words: &mut [u32]) -> &mut [u8] {
    const { assert!(cfg!(target_endian = "little"), "the codes of a word are read as its bytes") };
    // SAFETY: any four bytes are a word, and any byte a u8; the length counts bytes.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 4) }
}

/// One layer's keys, or values, as they lie.
#[derive(Clone, Copy)]
enum Slots<'a> {
    F32(&'a [f32]),
    BF16(&'a [bf16]),
    F16(&'a [f16]),
    /// Codes with `bytes` of each slot and head, and a scale of each.
    Int8 {
        codes: &'a [i8],
        bytes: usize,
        scales: &'a [f32],
    },
}

impl<'a> Slots<'a> {
    fn of(cache: &'a CacheOperand<Flex>) -> Self {
        match cache {
            CacheOperand::Float(x) => match x.dtype() {
                DType::F32 => Slots::F32(x.storage()),
                DType::BF16 => Slots::BF16(x.storage()),
                _ => Slots::F16(x.storage()),
            },
            CacheOperand::Int8 { codes, scales } => Slots::Int8 {
                codes: as_bytes(codes.storage()),
                bytes: codes.layout().shape()[2] * 4,
                scales: scales.storage(),
            },
        }
    }

    /// Writes one head of the slots from `slot` on, as f32, row by row.
    fn unpack(self, slot: usize, head: usize, [g, d]: [usize; 2], target: &mut [f32]) {
        for (i, target) in target.chunks_exact_mut(d).enumerate() {
            let row = (slot + i) * g + head;
            let place = row * d..(row + 1) * d;
            match self {
                Slots::F32(x) => target.copy_from_slice(&x[place]),
                Slots::BF16(x) => widen(&x[place], target),
                Slots::F16(x) => x[place].convert_to_f32_slice(target),
                Slots::Int8 { codes, bytes, scales } => {
                    unpack_codes(&codes[row * bytes..row * bytes + d], scales[row], target);
                }
            }
        }
    }
}

kernel! {
    fn widen(_s, x: &[bf16], target: &mut [f32]) {
        for (x, target) in x.iter().zip(target) {
            *target = f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    }
}

kernel! {
    fn unpack_codes(_s, codes: &[i8], scale: f32, target: &mut [f32]) {
        for (code, x) in codes.iter().zip(target) {
            *x = f32::from(*code) * scale;
        }
    }
}

/// What all tasks share.
struct Pass<'a> {
    segments: &'a Segments,
    q: &'a [f32],
    keys: Slots<'a>,
    values: Slots<'a>,
    /// Query heads, key-value heads, channels.
    sizes: [usize; 3],
    window: Option<usize>,
    scale: f32,
}

/// Some tokens of a segment and a key-value head.
struct Task<'a> {
    segment: &'a Segment,
    /// Row of the pass in which the segment's tokens begin.
    row: usize,
    /// Which of its tokens.
    tokens: Range<usize>,
    head: usize,
}

/// q_nhd against the slots of each segment -> out_nhd.
pub(super) fn attend(
    q: FlexTensor,
    keys: &CacheOperand<Flex>,
    vals: &CacheOperand<Flex>,
    segments: &Segments,
    window: Option<usize>,
    scale: f32,
) -> FlexTensor {
    let q = dense(q);
    let [n, h, d] = q.layout().shape().dims();
    let g = match keys {
        CacheOperand::Float(x) => x.layout().shape()[1],
        CacheOperand::Int8 { codes, .. } => codes.layout().shape()[1],
    };
    let pass = Pass {
        segments,
        q: values(&q),
        keys: Slots::of(keys),
        values: Slots::of(vals),
        sizes: [h, g, d],
        window,
        scale,
    };
    let mut out = unset(n * h * d);
    let shared = Shared::new(&mut out);
    let tokens_of_task = (QUERIES / (h / g)).max(1);
    let (mut tasks, mut row, mut work) = (Vec::new(), 0, 0);
    for segment in segments.list.iter() {
        let seen = segment.past + segment.tokens - segment.first_visible(window);
        work += 2 * segment.tokens * h * d * seen;
        for first in (0..segment.tokens).step_by(tokens_of_task) {
            let tokens = first..(first + tokens_of_task).min(segment.tokens);
            tasks.extend((0..g).map(|head| Task { segment, row, tokens: tokens.clone(), head }));
        }
        row += segment.tokens;
    }
    let task = |i: usize| pass.run(&tasks[i], &shared);
    if work <= SMALL {
        (0..tasks.len()).for_each(task)
    } else {
        parallel::each(tasks.len(), task)
    }
    tensor(out, Shape::new([n, h, d]))
}

impl Pass<'_> {
    fn run(&self, task: &Task<'_>, out: &Shared) {
        let ([h, g, d], Task { segment, row, tokens, head }) = (self.sizes, task);
        let group = h / g;
        let m = tokens.len() * group;
        // Where the d floats of query i lie in q and out: the heads of a token follow each other.
        let place = |i: usize| ((row + tokens.start + i / group) * h + head * group + i % group) * d;
        let mut queries = unset(m * d);
        for (i, query) in queries.chunks_exact_mut(d).enumerate() {
            query.copy_from_slice(&self.q[place(i)..place(i) + d]);
        }
        let mut block = Block::new(self, segment, *head, &queries);
        let first = |token: usize| self.window.map_or(0, |w| (segment.past + token + 1).saturating_sub(w));
        let end = segment.past + tokens.end;
        let mut from = first(tokens.start);
        while from < end {
            let to = (from / KEYS + 1) * KEYS;
            let to = to.min(end);
            block.scores(from..to);
            for (i, scores) in block.scores.chunks_exact_mut(to - from).take(m).enumerate() {
                let token = tokens.start + i / group;
                let hidden = first(token).clamp(from, to) - from;
                let seen = (segment.past + token + 1).clamp(from, to) - from;
                scores[..hidden].fill(f32::NEG_INFINITY);
                scores[seen..].fill(f32::NEG_INFINITY);
                let (max, sum, factor) = softmax_row(scores, block.maxima[i], block.sums[i]);
                (block.maxima[i], block.sums[i]) = (max, sum);
                if factor != 1.0 {
                    scale_row(&mut block.mixed[i * d..(i + 1) * d], factor);
                }
            }
            block.mix(from..to);
            from = to;
        }
        for (i, mixed) in block.mixed.chunks_exact_mut(d).enumerate() {
            scale_row(mixed, 1.0 / block.sums[i]);
            // SAFETY: each query belongs to one task.
            unsafe { out.part(place(i), place(i) + d) }.copy_from_slice(mixed);
        }
    }
}

/// The queries of a task, and what they have gathered so far.
struct Block<'a> {
    pass: &'a Pass<'a>,
    segment: &'a Segment,
    head: usize,
    queries: &'a [f32],
    m: usize,
    /// [m, keys of the block].
    scores: Vec<f32>,
    /// [m, d], not yet divided by the sums.
    mixed: Vec<f32>,
    maxima: Vec<f32>,
    sums: Vec<f32>,
    /// Keys or values of a block, where they cannot be read in place.
    unpacked: Vec<f32>,
}

impl<'a> Block<'a> {
    fn new(pass: &'a Pass<'a>, segment: &'a Segment, head: usize, queries: &'a [f32]) -> Self {
        let m = queries.len() / pass.sizes[2];
        Self {
            pass,
            segment,
            head,
            queries,
            m,
            scores: unset(m * KEYS),
            mixed: vec![0.0; queries.len()],
            maxima: vec![f32::NEG_INFINITY; m],
            sums: vec![0.0; m],
            unpacked: Vec::new(),
        }
    }

    /// Scores of the keys at some positions, [m, keys].
    fn scores(&mut self, positions: Range<usize>) {
        let (m, d, n, scale) = (self.m, self.pass.sizes[2], positions.len(), self.pass.scale);
        let queries = Matrix::rows(self.queries, d);
        let scores = self.scores.as_mut_ptr();
        self.each_run(self.pass.keys, positions, |from, length, keys| {
            // SAFETY: m queries and `length` keys of d floats; `scores` holds m n, of which these are columns.
            unsafe {
                let scores = scores.add(from);
                if m < rows::MANY {
                    rows::products_alone([m, length, d], scores, n, (queries, keys), false);
                } else {
                    multiply_alone([m, length, d], scores, n, (queries, keys.transposed()), scale, false);
                }
            }
        });
        if m < rows::MANY {
            scale_row(&mut self.scores[..m * n], scale);
        }
    }

    /// Adds the values at some positions, weighted by the scores.
    fn mix(&mut self, positions: Range<usize>) {
        let (m, d, n) = (self.m, self.pass.sizes[2], positions.len());
        let (mixed, weights) = (std::mem::take(&mut self.mixed), std::mem::take(&mut self.scores));
        let mut mixed = mixed;
        self.each_run(self.pass.values, positions, |from, length, vals| {
            // SAFETY: `length` values of d floats, and m rows of as many weights in columns of n.
            unsafe {
                if m < rows::MANY {
                    rows::mix([m, length, d], &mut mixed, &weights[from..], n, vals);
                } else {
                    let weights = Matrix::rows(&weights[from..], n);
                    multiply_alone([m, d, length], mixed.as_mut_ptr(), d, (weights, vals), 1.0, true);
                }
            }
        });
        (self.mixed, self.scores) = (mixed, weights);
    }

    /// Calls `work` for runs of positions whose slots follow each other, with the offset of the run, its length and its
    /// rows. Many queries take all positions in one run, copied together where they are not.
    fn each_run(&mut self, slots: Slots<'_>, positions: Range<usize>, mut work: impl FnMut(usize, usize, Matrix)) {
        let ([_, g, d], page_len, head) = (self.pass.sizes, self.pass.segments.page_len, self.head);
        let one_page = positions.start / page_len == (positions.end - 1) / page_len;
        let in_place = match slots {
            Slots::F32(x) if one_page || self.m < rows::MANY => Some(x),
            _ => None,
        };
        let mut at = positions.start;
        while at < positions.end {
            let page = self.segment.pages[at / page_len] as usize;
            let slot = page * page_len + at % page_len;
            let length = (page_len - at % page_len).min(positions.end - at);
            let offset = at - positions.start;
            match in_place {
                Some(x) => work(offset, length, Matrix::rows(&x[(slot * g + head) * d..], g * d)),
                None => {
                    if self.unpacked.is_empty() {
                        self.unpacked = unset(KEYS * d);
                    }
                    slots.unpack(slot, head, [g, d], &mut self.unpacked[offset * d..(offset + length) * d]);
                }
            }
            at += length;
        }
        if in_place.is_none() {
            work(0, positions.len(), Matrix::rows(&self.unpacked, d));
        }
    }
}
