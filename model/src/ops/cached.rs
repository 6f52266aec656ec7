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

/// Segments that follow each other, have as many tokens and see about as many slots go together: their slots are copied
/// out and given to [`LlmOps::attention`].
pub(super) fn attend<B: LlmOps>(
    q: FloatTensor<B>,
    keys: CacheOperand<B>,
    values: CacheOperand<B>,
    segments: &Segments,
    window: Option<usize>,
    scale: f32,
) -> FloatTensor<B> {
    let ([n, h, d], dtype, device) = (q.shape().dims(), q.dtype(), q.device());
    let (mut parts, mut from, mut rest) = (Vec::new(), 0, segments.list.as_slice());
    while let Some(group) = Group::of(rest, window) {
        let Group { list, t, s } = group;
        let b = list.len();
        rest = &rest[b..];
        let slots = index::<B>(TensorData::new(group.slots(segments, window), [b * s]), &device);
        let read = |cache: &CacheOperand<B>| {
            let rows = cast::<B>(gathered::<B>(cache, slots.clone(), Some(d)), dtype);
            let g = rows.shape()[1];
            B::float_swap_dims(B::float_reshape(rows, Shape::new([b, s, g, d])), 1, 2)
        };
        let of_part: [Slice; 3] = [(from..from + b * t).into(), (0..h).into(), (0..d).into()];
        let q = if b * t == n { q.clone() } else { B::float_slice(q.clone(), &of_part) };
        let q = B::float_swap_dims(B::float_reshape(q, Shape::new([b, t, h, d])), 1, 2);
        let (hidden, visible) = group.mask::<B>(window, &device);
        let (out, _) = <B as LlmOps>::attention(q, read(&keys), read(&values), hidden, visible, scale);
        parts.push(B::float_reshape(B::float_swap_dims(out, 1, 2), Shape::new([b * t, h, d])));
        from += b * t;
    }
    match parts.len() {
        1 => parts.remove(0),
        _ => B::float_cat(parts, 0),
    }
}

/// Segments that are computed together: each has `t` tokens, and `s` slots of which its own are the last.
struct Group<'a> {
    list: &'a [Segment],
    t: usize,
    s: usize,
}

/// Slots that a group may copy out in vain, beside as many as are of use.
const PADDING: usize = 1024;

/// Slots that some token of the segment sees.
fn seen(segment: &Segment, window: Option<usize>) -> usize {
    segment.past + segment.tokens - segment.first_visible(window)
}

impl<'a> Group<'a> {
    /// The group at the beginning of `list`, which is none where that is empty.
    fn of(list: &'a [Segment], window: Option<usize>) -> Option<Self> {
        let t = list.first()?.tokens;
        let (mut count, mut s, mut sum) = (0, 0, 0);
        for segment in list.iter().take_while(|segment| segment.tokens == t) {
            let own = seen(segment, window);
            if count > 0 && (count + 1) * s.max(own) > 2 * (sum + own) + PADDING {
                break;
            }
            (count, s, sum) = (count + 1, s.max(own), sum + own);
        }
        Some(Self { list: &list[..count], t, s })
    }

    /// The slots [b, s]; in front of those of a shorter segment, one of its own stands in for what is not there.
    fn slots(&self, segments: &Segments, window: Option<usize>) -> Vec<i32> {
        let of = |segment: &Segment| {
            let (first, end) = (segment.first_visible(window), segment.past + segment.tokens);
            let own: Vec<i32> = segments.slots(segment, first..end).map(|slot| slot as i32).collect();
            let padding = std::iter::repeat_n(own[0], self.s - own.len());
            padding.chain(own.clone()).collect::<Vec<_>>()
        };
        self.list.iter().flat_map(of).collect()
    }

    /// hidden_xts in words of the device (x is 1 where the segments see alike), and the same in words.
    fn mask<B: Backend>(&self, window: Option<usize>, device: &B::Device) -> (BoolTensor<B>, Visible) {
        let (t, s) = (self.t, self.s);
        let padded = self.list.iter().any(|segment| seen(segment, window) != s);
        let x = if padded { self.list.len() } else { 1 };
        let mut hidden = Vec::with_capacity(x * t * s);
        for segment in &self.list[..x] {
            let padding = s - seen(segment, window);
            for last in s - t..s {
                let sees = |j: usize| j >= padding && j <= last && window.is_none_or(|w| last - j < w);
                hidden.extend((0..s).map(|j| !sees(j)));
            }
        }
        let masked = hidden.iter().any(|&hidden| hidden);
        let visible = Visible { past: s - t, window, documents: padded, masked };
        let store = get_device_settings::<B>(device).bool_dtype;
        let data = TensorData::new(hidden, [x, t, s]).convert_dtype(store.into());
        (B::bool_from_data(data, device), visible)
    }
}

/// Indices in the device's integers.
fn index<B: Backend>(data: TensorData, device: &B::Device) -> IntTensor<B> {
    let dtype: DType = get_device_settings::<B>(device).int_dtype.into();
    B::int_from_data(data.convert_dtype(dtype), device)
}
