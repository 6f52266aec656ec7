//! Keys and values of the tokens seen so far.
//!
//! Shapes: b batch rows, g key-value heads, t new slots, s slots in use, d head channels.

use burn::tensor::{DType, Device, Tensor, s};

use crate::config::ModelConfig;

/// A contiguous cache, allocated once for its whole capacity. All rows have the same length.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    rows: usize,
    capacity: usize,
    len: usize,
    dtype: DType,
}

/// One layer's keys and values, `[b, g, capacity, d]` each.
#[derive(Debug)]
struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl KvCache {
    /// Allocates room for `capacity` tokens in each of `rows` rows, stored as `dtype` (f32, bf16 or f16).
    pub fn new(config: &ModelConfig, rows: usize, capacity: usize, dtype: DType, device: &Device) -> Self {
        let shape = [rows, config.n_kv_heads, capacity, config.head_dim];
        let layer = || LayerCache {
            keys: Tensor::zeros(shape, (device, dtype)),
            values: Tensor::zeros(shape, (device, dtype)),
        };
        let layers = (0..config.n_layers).map(|_| layer()).collect();
        Self { layers, rows, capacity, len: 0, dtype }
    }

    /// Bytes that a cache of this size takes.
    pub fn bytes(config: &ModelConfig, rows: usize, capacity: usize, dtype: DType) -> u64 {
        let element = dtype.size() as u64;
        2 * element * (config.n_layers * rows * config.n_kv_heads * config.head_dim) as u64 * capacity as u64
    }

    /// Tokens in each row.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens that fit in each row.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Keeps the oldest `len` tokens of each row and forgets the rest.
    ///
    /// # Panics
    /// Panics when fewer than `len` tokens are held.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len, "truncating a KV cache of {} tokens to {len}", self.len);
        self.len = len;
    }

    /// Forgets everything; the memory stays.
    pub fn reset(&mut self) {
        self.len = 0;
    }

    /// Writes t new slots of one layer and returns all slots in use: (keys_bgsd, values_bgsd) in the dtype
    /// of the new ones. The length moves on with [`KvCache::advance`], after the last layer.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        keys_bgtd: Tensor<4>,
        values_bgtd: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let dtype = keys_bgtd.dtype();
        let (from, to) = (self.len, self.len + keys_bgtd.dims()[2]);
        let stored = self.dtype;
        let write = |cache: &mut Tensor<4>, new: Tensor<4>| {
            // In place: nothing else holds the buffer while it is written.
            cache.inplace(|cache| cache.slice_assign(s![.., .., from..to, ..], new.cast(stored)));
            cache.clone().slice(s![.., .., 0..to, ..]).cast(dtype)
        };
        let layer = &mut self.layers[layer];
        (write(&mut layer.keys, keys_bgtd), write(&mut layer.values, values_bgtd))
    }

    /// Counts `t` slots, written in every layer, as held.
    pub(crate) fn advance(&mut self, t: usize) {
        self.len += t;
    }

    /// # Panics
    /// Panics when `rows` rows of `t` tokens do not fit: callers plan their capacity.
    pub(crate) fn check_room(&self, rows: usize, t: usize) {
        assert!(rows == self.rows, "a KV cache of {} rows got {rows}", self.rows);
        let (len, capacity) = (self.len, self.capacity);
        assert!(len + t <= capacity, "a KV cache of {capacity} tokens holds {len} and got {t} more");
    }
}
