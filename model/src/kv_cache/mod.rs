//! Keys and values of the tokens seen so far: contiguous, or in pages; in f32, bf16, f16 or int8.
//!
//! Both kinds are the same storage, slots of one token each. A row of a contiguous cache is one long page that the cache
//! itself fills; which sequence owns which page of a paged one, and how much of it is in use, is the caller's business.
//!
//! Shapes: b batch rows, t new tokens of each, n new tokens (b * t), g key-value heads, d head channels.

mod element;
mod store;

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

pub use element::{KvElement, UnknownElement};

use crate::config::ModelConfig;
use crate::layout::Layout;
use crate::ops::{Segment, Segments, cached_attention};
use store::{Held, Store};

/// A cache, allocated once for its whole capacity.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    pages: usize,
    page_len: usize,
    /// Tokens in each row of a contiguous cache; `None` of a paged one.
    len: Option<usize>,
    element: KvElement,
}

/// One layer's keys and values.
#[derive(Debug)]
struct LayerCache {
    keys: Held,
    values: Held,
}

/// Where the tokens of one forward pass stand in the cache, for all layers.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    segments: Arc<Segments>,
    slots_n: Tensor<1, Int>,
}

impl KvCache {
    /// A contiguous cache: room for `capacity` tokens in each of `rows` rows, all of one length.
    pub fn new(config: &ModelConfig, rows: usize, capacity: usize, element: KvElement, device: &Device) -> Self {
        Self { len: Some(0), ..Self::paged(config, rows, capacity, element, device) }
    }

    /// A paged cache: `pages` pages of `page_len` tokens, numbered from 0. [`Layout::ragged`] says which of them a
    /// forward pass uses.
    pub fn paged(
        config: &ModelConfig,
        pages: usize,
        page_len: usize,
        element: KvElement,
        device: &Device,
    ) -> Self {
        let shape = [pages * page_len, config.n_kv_heads, config.head_dim];
        let store = || Held::new(Store::zeros(element, shape, device));
        let layers = (0..config.n_layers).map(|_| LayerCache { keys: store(), values: store() }).collect();
        Self { layers, pages, page_len, len: None, element }
    }

    /// Bytes that a contiguous cache of this size takes.
    pub fn bytes(config: &ModelConfig, rows: usize, capacity: usize, element: KvElement) -> u64 {
        let token = 2 * element.head_bytes(config.head_dim) * config.n_layers * config.n_kv_heads;
        rows as u64 * capacity as u64 * token as u64
    }

    /// Bytes that each page of a paged cache takes.
    pub fn page_bytes(config: &ModelConfig, page_len: usize, element: KvElement) -> u64 {
        Self::bytes(config, 1, page_len, element)
    }

    /// Bytes that this cache took.
    pub fn taken_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.keys.get().bytes() + layer.values.get().bytes()).sum()
    }

    /// Tokens in each row; 0 of a paged cache, whose caller counts.
    pub fn len(&self) -> usize {
        self.len.unwrap_or(0)
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the cache is paged.
    pub fn is_paged(&self) -> bool {
        self.len.is_none()
    }

    /// Rows of the batch, or pages.
    pub fn rows(&self) -> usize {
        self.pages
    }

    /// Tokens that fit in each row, or page.
    pub fn capacity(&self) -> usize {
        self.page_len
    }

    /// What is stored of each number.
    pub fn element(&self) -> KvElement {
        self.element
    }

    /// Keeps the oldest `len` tokens of each row and forgets the rest.
    ///
    /// # Panics
    /// Panics when fewer than `len` tokens are held, as in a paged cache, whose caller counts.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len(), "truncating a KV cache of {} tokens to {len}", self.len());
        self.len = self.len.map(|_| len);
    }

    /// Forgets everything; the memory stays.
    pub fn reset(&mut self) {
        self.len = self.len.map(|_| 0);
    }

    /// A cache of `capacity` tokens a row whose row i holds what row `rows[i]` of this one holds.
    ///
    /// # Panics
    /// Panics when more than `capacity` tokens are held, a row is not there, or the cache is paged.
    #[must_use]
    pub fn select(&self, rows: &[usize], capacity: usize) -> Self {
        assert!(!self.is_paged(), "rows of a paged KV cache");
        assert!(self.len() <= capacity, "{} tokens of a KV cache for one of {capacity}", self.len());
        let last = rows.iter().max().copied().unwrap_or(0);
        assert!(last < self.pages, "row {last} of a KV cache of {} rows", self.pages);
        let copy = |held: &Held| Held::new(held.get().select(rows, self.len(), [self.page_len, capacity]));
        let layer = |layer: &LayerCache| LayerCache { keys: copy(&layer.keys), values: copy(&layer.values) };
        Self { layers: self.layers.iter().map(layer).collect(), pages: rows.len(), page_len: capacity, ..*self }
    }

    /// Makes page `to` hold what page `from` holds: before a sequence writes into a page that others read.
    ///
    /// # Panics
    /// Panics when a page is not there.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        let pages = self.pages;
        for page in [from, to] {
            assert!((page as usize) < pages, "page {page} of a KV cache of {pages} pages");
        }
        if from == to {
            return;
        }
        let page_len = self.page_len;
        self.each_store(|store| store.with_page(from as usize, to as usize, page_len));
    }

    /// Replaces every store by what `f` makes of it; no one else holds it meanwhile.
    fn each_store(&mut self, mut f: impl FnMut(Store) -> Store) {
        for layer in &mut self.layers {
            layer.keys.replace(&mut f);
            layer.values.replace(&mut f);
        }
    }

    /// Where b rows of t tokens in `layout` stand.
    ///
    /// # Panics
    /// Panics where the cache has no room for them, or the layout is of another kind than the cache: callers plan.
    pub(crate) fn place(&self, [b, t]: [usize; 2], layout: &Layout, device: &Device) -> Placed {
        assert!(layout.documents_bt.is_none(), "documents with a KV cache");
        let list = match (&layout.segments, self.len) {
            (Some(segments), None) => {
                self.check_pages(segments, [b, t]);
                segments.clone()
            }
            (None, Some(past)) => {
                self.check_room(b, t);
                Arc::new((0..b as u32).map(|row| Segment { past, tokens: t, pages: vec![row] }).collect())
            }
            (Some(_), Some(_)) => panic!("a layout of segments for a contiguous KV cache"),
            (None, None) => panic!("a paged KV cache needs a layout of segments"),
        };
        let segments = Segments { page_len: self.page_len, list };
        let slots = segments.new_slots();
        let slots_n = Tensor::from_data(TensorData::new(slots, [b * t]), device);
        Placed { segments: Arc::new(segments), slots_n }
    }

    /// Writes the new keys and values of one layer, k_ngd and v_ngd. The length moves on with [`KvCache::advance`], after
    /// the last layer.
    pub(crate) fn write(&mut self, layer: usize, k_ngd: Tensor<3>, v_ngd: Tensor<3>, placed: &Placed) {
        let layer = &mut self.layers[layer];
        layer.keys.replace(|store| store.written(k_ngd, placed.slots_n.clone()));
        layer.values.replace(|store| store.written(v_ngd, placed.slots_n.clone()));
    }

    /// q_nhd -> out_nhd over what the cache holds of each token's sequence, up to the token itself.
    pub(crate) fn attend(
        &self,
        layer: usize,
        q_nhd: Tensor<3>,
        placed: &Placed,
        window: Option<usize>,
        scale: f32,
    ) -> Tensor<3> {
        let LayerCache { keys, values } = &self.layers[layer];
        cached_attention(q_nhd, keys.get().operand(), values.get().operand(), &placed.segments, window, scale)
    }

    /// Counts `t` slots, written in every layer, as held.
    pub(crate) fn advance(&mut self, t: usize) {
        self.len = self.len.map(|len| len + t);
    }

    fn check_room(&self, rows: usize, t: usize) {
        assert!(rows == self.pages, "a KV cache of {} rows got {rows}", self.pages);
        let (len, capacity) = (self.len(), self.page_len);
        assert!(len + t <= capacity, "a KV cache of {capacity} tokens holds {len} and got {t} more");
    }

    /// The pages that are written must be there; those that a window leaves behind are never read.
    fn check_pages(&self, segments: &[Segment], [b, t]: [usize; 2]) {
        let tokens: usize = segments.iter().map(|segment| segment.tokens).sum();
        assert!(tokens == b * t, "segments of {tokens} tokens for a pass of {}", b * t);
        for Segment { past, tokens, pages } in segments {
            let (end, room) = (past + tokens, pages.len() * self.page_len);
            assert!(*tokens > 0, "a segment without tokens");
            assert!(end <= room, "{} pages of {} slots for {end} tokens", pages.len(), self.page_len);
            let written = &pages[past / self.page_len..end.div_ceil(self.page_len)];
            if let Some(page) = written.iter().find(|page| **page as usize >= self.pages) {
                panic!("page {page} of a KV cache of {} pages", self.pages);
            }
        }
    }
}

#[cfg(test)]
mod tests;
