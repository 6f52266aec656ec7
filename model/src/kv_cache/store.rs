//! The keys, or the values, of one layer.
//!
//! Shapes: u slots (pages * slots of a page), p pages, l slots of a page, n new slots, g key-value heads, d head
//! channels, w words of d codes.

use burn::tensor::{DType, Device, Int, Shape, Tensor, kind::Basic, s};

use super::element::{CODES_OF_WORD, KvElement};
use crate::ops::{CacheOperand, write_slots};

/// A slot is one token of all heads; slots of a page follow each other, and pages do.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "two for each layer, and handles alone")]
pub(crate) enum Store {
    Float(Tensor<3>),
    /// Two's complement codes, four in a word, and their scales.
    Int8 {
        codes_ugw: Tensor<3, Int>,
        scales_ug1: Tensor<3>,
    },
}

/// A store, and no store only while it is being replaced.
#[derive(Debug)]
pub(super) struct Held(Option<Store>);

impl Held {
    pub(super) fn new(store: Store) -> Self {
        Self(Some(store))
    }

    pub(super) fn get(&self) -> &Store {
        self.0.as_ref().expect("`replace` puts a store back, unless it panicked")
    }

    /// Replaces the store by what `f` makes of it, which is the only holder meanwhile and may write in place.
    pub(super) fn replace(&mut self, f: impl FnOnce(Store) -> Store) {
        self.0 = self.0.take().map(f);
    }
}

impl Store {
    pub(super) fn zeros(element: KvElement, [u, g, d]: [usize; 3], device: &Device) -> Self {
        match element.dtype() {
            Some(dtype) => Store::Float(Tensor::zeros([u, g, d], (device, dtype))),
            None => Store::Int8 {
                codes_ugw: Tensor::zeros([u, g, d.div_ceil(CODES_OF_WORD)], (device, DType::U32)),
                scales_ug1: Tensor::zeros([u, g, 1], (device, DType::F32)),
            },
        }
    }

    pub(crate) fn operand(&self) -> CacheOperand<burn::backend::Dispatch> {
        self.clone().into_operand()
    }

    fn into_operand(self) -> CacheOperand<burn::backend::Dispatch> {
        match self {
            Store::Float(x) => CacheOperand::Float(x.into_dispatch()),
            Store::Int8 { codes_ugw, scales_ug1 } => {
                CacheOperand::Int8 { codes: codes_ugw.into_dispatch(), scales: scales_ug1.into_dispatch() }
            }
        }
    }

    /// The store with new_ngd in the slots `slots_n`. Taken by value, so that it is written in place.
    pub(super) fn written(self, new_ngd: Tensor<3>, slots_n: Tensor<1, Int>) -> Self {
        match write_slots(self.into_operand(), new_ngd, slots_n) {
            CacheOperand::Float(x) => Store::Float(Tensor::from_dispatch(x)),
            CacheOperand::Int8 { codes, scales } => {
                Store::Int8 { codes_ugw: Tensor::from_dispatch(codes), scales_ug1: Tensor::from_dispatch(scales) }
            }
        }
    }

    /// A store of pages of `to` slots, of which page i begins with the first `held` slots of page `pages[i]`.
    pub(super) fn select(&self, pages: &[usize], held: usize, [from, to]: [usize; 2]) -> Self {
        match self {
            Store::Float(x) => Store::Float(select(x, pages, held, [from, to])),
            Store::Int8 { codes_ugw, scales_ug1 } => Store::Int8 {
                codes_ugw: select(codes_ugw, pages, held, [from, to]),
                scales_ug1: select(scales_ug1, pages, held, [from, to]),
            },
        }
    }

    /// The store with page `to` like page `from`.
    pub(super) fn with_page(self, from: usize, to: usize, page_len: usize) -> Self {
        match self {
            Store::Float(x) => Store::Float(with_page(x, from, to, page_len)),
            Store::Int8 { codes_ugw, scales_ug1 } => Store::Int8 {
                codes_ugw: with_page(codes_ugw, from, to, page_len),
                scales_ug1: with_page(scales_ug1, from, to, page_len),
            },
        }
    }

    /// Bytes of the tensors.
    pub(super) fn bytes(&self) -> u64 {
        let of = |dims: [usize; 3], dtype: DType| (dims.iter().product::<usize>() * dtype.size()) as u64;
        match self {
            Store::Float(x) => of(x.dims(), x.dtype()),
            Store::Int8 { codes_ugw, scales_ug1 } => {
                of(codes_ugw.dims(), codes_ugw.dtype()) + of(scales_ug1.dims(), scales_ug1.dtype())
            }
        }
    }

    /// What is in the slots of one page, [l, g, d] in f32.
    #[cfg(test)]
    pub(super) fn page(&self, page: usize, page_len: usize) -> Tensor<3> {
        let slots: Vec<i32> = (page * page_len..(page + 1) * page_len).map(|slot| slot as i32).collect();
        let device = match self {
            Store::Float(x) => x.device(),
            Store::Int8 { scales_ug1, .. } => scales_ug1.device(),
        };
        crate::ops::read_slots(self.operand(), Tensor::from_data(slots.as_slice(), &device)).cast(DType::F32)
    }
}

fn select<K: Basic>(x: &Tensor<3, K>, pages: &[usize], held: usize, [from, to]: [usize; 2]) -> Tensor<3, K> {
    let (device, [u, g, w]) = (x.device(), x.dims());
    let new = Tensor::<4, K>::zeros([pages.len(), to, g, w], (&device, x.dtype()));
    let flat = Shape::new([pages.len() * to, g, w]);
    if held == 0 {
        return new.reshape(flat);
    }
    let ids: Vec<i32> = pages.iter().map(|&page| page as i32).collect();
    let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &device);
    let pages_plgw = x.clone().reshape([u / from, from, g, w]);
    let held_plgw = pages_plgw.slice(s![.., 0..held, .., ..]).select(0, ids);
    new.slice_assign(s![.., 0..held, .., ..], held_plgw).reshape(flat)
}

fn with_page<K: Basic>(x: Tensor<3, K>, from: usize, to: usize, page_len: usize) -> Tensor<3, K> {
    // A slice would be a view on the processor, and the store no longer the only holder of what it writes.
    let slots: Vec<i32> = (from * page_len..(from + 1) * page_len).map(|slot| slot as i32).collect();
    let page = x.clone().select(0, Tensor::<1, Int>::from_data(slots.as_slice(), &x.device()));
    x.slice_assign(s![to * page_len..(to + 1) * page_len, .., ..], page)
}
