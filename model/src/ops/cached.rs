//! Attention over keys and values that stand in the slots of a cache, and the writing of slots: what decoding does
//! instead of [`super::attention`].
//!
//! Pages as in vLLM (Kwon et al. 2023, arXiv:2309.06180): a sequence's tokens stand in pages of a fixed number of
//! slots, anywhere in the cache. A row of a contiguous cache is one long page.
//!
//! These are operations of inference: they have no backward, and a query that wants a gradient is refused.
//!
//! Shapes: n query tokens of all segments, h query heads, g key-value heads, d head channels, u slots, w words of d
//! codes, s visible slots of a segment.

use std::sync::Arc;

use burn::backend::{
    Backend, Dispatch, ExtensionType, TensorMetadata, get_device_settings,
    tensor::{BoolTensor, FloatTensor, IndexingUpdateOp, IntTensor},
};
use burn::tensor::{DType, Int, IntDType, Shape, Slice, Tensor, TensorData};

use super::attention::Visible;
use super::{LlmOps, cast, to_f32};

/// Tokens of one sequence in a forward pass, and where its keys and values stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Tokens of the sequence in the cache before this pass.
    pub past: usize,
    /// Tokens of this pass.
    pub tokens: usize,
    /// The pages of slots `0..past + tokens`. One that lies wholly behind every layer's window is never read and may be
    /// any number.
    pub pages: Vec<u32>,
}

/// The segments of a forward pass, in the order of their tokens, and the slots of a page.
#[derive(Debug, Clone)]
pub struct Segments {
    /// Slots of a page.
    pub page_len: usize,
    /// The segments.
    pub list: Arc<Vec<Segment>>,
}

impl Segments {
    /// The slot of each of a segment's positions.
    pub(crate) fn slots(
        &self,
        segment: &Segment,
        positions: std::ops::Range<usize>,
    ) -> impl Iterator<Item = usize> {
        let page_len = self.page_len;
        positions.map(move |position| segment.pages[position / page_len] as usize * page_len + position % page_len)
    }

    /// The slots that the tokens of the pass are written to.
    pub(crate) fn new_slots(&self) -> Vec<i32> {
        let of = |segment: &Segment| segment.past..segment.past + segment.tokens;
        let slots = self.list.iter().flat_map(|segment| self.slots(segment, of(segment)));
        slots.map(|slot| slot as i32).collect()
    }
}

impl Segment {
    /// The oldest position that its first new token sees.
    pub(crate) fn first_visible(&self, window: Option<usize>) -> usize {
        window.map_or(0, |window| (self.past + 1).saturating_sub(window))
    }
}

/// One layer's keys, or values, in a cache.
#[derive(Debug, Clone, ExtensionType)]
pub enum CacheOperand<B: Backend> {
    /// [u, g, d] in f32, bf16 or f16.
    Float(FloatTensor<B>),
    /// Codes of 8 bits and their scales.
    Int8 {
        /// [u, g, w] u32: two's complement, four codes in a word, the earliest in the lowest bits.
        codes: IntTensor<B>,
        /// [u, g, 1] f32.
        scales: FloatTensor<B>,
    },
}

/// The cache with new_ngd in its slots slots_n, rounded to what it stores. A cache that no one else holds is written in
/// place.
pub fn write_slots(
    cache: CacheOperand<Dispatch>,
    new_ngd: Tensor<3>,
    slots_n: Tensor<1, Int>,
) -> CacheOperand<Dispatch> {
    <Dispatch as LlmOps>::write_slots(cache, new_ngd.into_dispatch(), slots_n.into_dispatch())
}

/// What stands in slots slots_n, [n, g, d] in f32; d is that of the store, which for int8 is a multiple of four.
#[cfg(test)]
pub(crate) fn read_slots(cache: CacheOperand<Dispatch>, slots_n: Tensor<1, Int>) -> Tensor<3> {
    Tensor::from_dispatch(gathered::<Dispatch>(&cache, slots_n.into_dispatch(), None))
}

/// q_nhd of the tokens of all segments against the keys and values of each segment's slots -> out_nhd. A token sees its
/// segment's slots up to its own, and `window` of them where there is one. Softmax in f32.
///
/// # Panics
/// Panics when the query wants a gradient: there is no backward.
pub fn cached_attention(
    q_nhd: Tensor<3>,
    keys: CacheOperand<Dispatch>,
    values: CacheOperand<Dispatch>,
    segments: &Arc<Segments>,
    window: Option<usize>,
    scale: f32,
) -> Tensor<3> {
    assert!(!q_nhd.is_tracked(), "attention over a KV cache has no backward, and the query wants a gradient");
    let autodiff = q_nhd.device().is_autodiff();
    let q = q_nhd.without_autodiff().into_dispatch();
    let out = <Dispatch as LlmOps>::cached_attention(q, keys, values, segments.clone(), window, scale);
    let out_nhd = Tensor::from_dispatch(out);
    if autodiff { out_nhd.autodiff() } else { out_nhd }
}

pub(super) fn write<B: Backend>(
    cache: CacheOperand<B>,
    new: FloatTensor<B>,
    slots: IntTensor<B>,
) -> CacheOperand<B> {
    let [n, g, d] = new.shape().dims();
    match cache {
        CacheOperand::Float(x) => {
            let new = cast::<B>(new, x.dtype());
            let shape = x.shape();
            let rows = |x: FloatTensor<B>, n: usize| B::float_reshape(x, Shape::new([n, g * d]));
            let x = rows(x, shape[0]);
            let x = B::float_select_assign(x, 0, slots, rows(new, n), IndexingUpdateOp::Assign);
            CacheOperand::Float(B::float_reshape(x, shape))
        }
        CacheOperand::Int8 { codes, scales } => {
            let (new_codes, new_scales) = quantized::<B>(new);
            let (u, words) = (codes.shape()[0], codes.shape()[2]);
            let codes = B::int_reshape(codes, Shape::new([u, g * words]));
            let codes = B::int_select_assign(codes, 0, slots.clone(), new_codes, IndexingUpdateOp::Assign);
            let scales = B::float_reshape(scales, Shape::new([u, g]));
            let scales = B::float_select_assign(scales, 0, slots, new_scales, IndexingUpdateOp::Assign);
            CacheOperand::Int8 {
                codes: B::int_reshape(codes, Shape::new([u, g, words])),
                scales: B::float_reshape(scales, Shape::new([u, g, 1])),
            }
        }
    }
}

/// The least scale: that of a head whose numbers are all 0.
pub(super) const LEAST: f32 = 1e-30;

/// x_ngd -> codes [n, g * w] and scales [n, g]: scale = max |x| / 127, code = round(x / scale).
fn quantized<B: Backend>(x: FloatTensor<B>) -> (IntTensor<B>, FloatTensor<B>) {
    let ([n, g, d], device) = (x.shape().dims(), x.device());
    let x = to_f32::<B>(x);
    let scales = B::float_mul_scalar(B::float_max_dim(B::float_abs(x.clone()), 2), (1.0 / 127.0).into());
    let scales = B::float_add_scalar(scales, LEAST.into());
    let whole = B::float_round(B::float_div(x, scales.clone()));
    let whole = B::float_clamp(whole, (-127.0).into(), 127.0.into());
    let words = d.div_ceil(4);
    let whole = if words * 4 == d {
        whole
    } else {
        let rest = B::float_zeros(Shape::new([n, g, words * 4 - d]), &device, burn::tensor::FloatDType::F32);
        B::float_cat(vec![whole, rest], 2)
    };
    // Raised by 128 the codes are unsigned; turning the highest bit makes that two's complement.
    let raised = B::float_into_int(B::float_add_scalar(whole, 128.0.into()), IntDType::U32);
    let raised = B::int_reshape(B::bitwise_xor_scalar(raised, 128u32.into()), Shape::new([n * g * words, 4]));
    let byte = |j: usize| {
        let byte = B::int_slice(raised.clone(), &[(0..n * g * words).into(), (j..j + 1).into()]);
        B::bitwise_left_shift_scalar(byte, (8 * j as u32).into())
    };
    let codes = (1..4).fold(byte(0), |word, j| B::bitwise_or(word, byte(j)));
    (B::int_reshape(codes, Shape::new([n, g * words])), B::float_reshape(scales, Shape::new([n, g])))
}

/// Slots of a cache, [n, g, d] in f32 or as they are stored; `d` is needed where int8 fills its words.
fn gathered<B: Backend>(cache: &CacheOperand<B>, slots: IntTensor<B>, d: Option<usize>) -> FloatTensor<B> {
    match cache {
        CacheOperand::Float(x) => B::float_select(x.clone(), 0, slots),
        CacheOperand::Int8 { codes, scales } => {
            let codes = B::int_select(codes.clone(), 0, slots.clone());
            let scales = B::float_select(scales.clone(), 0, slots);
            let [n, g, words] = codes.shape().dims();
            let (total, device) = (n * g * words, codes.device());
            let shifts = B::int_from_data(TensorData::new(vec![0u32, 8, 16, 24], [1, 4]), &device);
            let spread =
                |x, shape: [usize; 2]| B::int_expand(B::int_reshape(x, Shape::new(shape)), Shape::new([total, 4]));
            let shifted = B::bitwise_right_shift(spread(codes, [total, 1]), spread(shifts, [1, 4]));
            let bytes = B::bitwise_and_scalar(shifted, 255u32.into());
            let raised =
                B::int_into_float(B::bitwise_xor_scalar(bytes, 128u32.into()), burn::tensor::FloatDType::F32);
            let values =
                B::float_reshape(B::float_sub_scalar(raised, 128.0.into()), Shape::new([n, g, words * 4]));
            let values = B::float_mul(values, scales);
            let d = d.unwrap_or(words * 4);
            if d == words * 4 {
                return values;
            }
            let all: [Slice; 3] = [(0..n).into(), (0..g).into(), (0..d).into()];
            B::float_slice(values, &all)
        }
    }
}

/// Segment by segment, those that follow each other and agree in their numbers of tokens together: their slots are
/// copied out and given to [`LlmOps::attention`].
pub(super) fn attend<B: LlmOps>(
    q: FloatTensor<B>,
    keys: CacheOperand<B>,
    values: CacheOperand<B>,
    segments: &Segments,
    window: Option<usize>,
    scale: f32,
) -> FloatTensor<B> {
    let ([n, h, d], dtype, device) = (q.shape().dims(), q.dtype(), q.device());
    let (mut parts, mut from) = (Vec::new(), 0);
    for alike in segments.list.chunk_by(|a, b| (a.past, a.tokens) == (b.past, b.tokens)) {
        let Segment { past, tokens: t, .. } = alike[0];
        let (b, first) = (alike.len(), alike[0].first_visible(window));
        let s = past + t - first;
        let slots = alike.iter().flat_map(|segment| segments.slots(segment, first..past + t));
        let slots: Vec<i32> = slots.map(|slot| slot as i32).collect();
        let slots = index::<B>(TensorData::new(slots, [b * s]), &device);
        let read = |cache: &CacheOperand<B>| {
            let rows = cast::<B>(gathered::<B>(cache, slots.clone(), Some(d)), dtype);
            let g = rows.shape()[1];
            B::float_swap_dims(B::float_reshape(rows, Shape::new([b, s, g, d])), 1, 2)
        };
        let of_part: [Slice; 3] = [(from..from + b * t).into(), (0..h).into(), (0..d).into()];
        let q = if b * t == n { q.clone() } else { B::float_slice(q.clone(), &of_part) };
        let q = B::float_swap_dims(B::float_reshape(q, Shape::new([b, t, h, d])), 1, 2);
        let visible = Visible { past: past - first, window, documents: false, masked: t > 1 };
        let hidden = hidden::<B>(visible, t, s, &device);
        let (out, _) = <B as LlmOps>::attention(q, read(&keys), read(&values), hidden, visible, scale);
        parts.push(B::float_reshape(B::float_swap_dims(out, 1, 2), Shape::new([b * t, h, d])));
        from += b * t;
    }
    match parts.len() {
        1 => parts.remove(0),
        _ => B::float_cat(parts, 0),
    }
}

/// hidden_1ts in words of the device.
fn hidden<B: Backend>(visible: Visible, t: usize, s: usize, device: &B::Device) -> BoolTensor<B> {
    let Visible { past, window, .. } = visible;
    let sees = |i: usize, j: usize| j <= past + i && window.is_none_or(|w| past + i - j < w);
    let hidden: Vec<bool> = (0..t).flat_map(|i| (0..s).map(move |j| !sees(i, j))).collect();
    let store = get_device_settings::<B>(device).bool_dtype;
    B::bool_from_data(TensorData::new(hidden, [1, t, s]).convert_dtype(store.into()), device)
}

/// Indices in the device's integers.
fn index<B: Backend>(data: TensorData, device: &B::Device) -> IntTensor<B> {
    let dtype: DType = get_device_settings::<B>(device).int_dtype.into();
    B::int_from_data(data.convert_dtype(dtype), device)
}
