//! Keys and values of the tokens seen so far.
//!
//! Shapes: b batch rows, g key-value heads, t new slots, s slots in use, d head channels.

use burn::tensor::{DType, Device, Int, Tensor, s};

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

    /// A cache of `capacity` tokens a row whose row i holds what row `rows[i]` of this one holds.
    ///
    /// # Panics
    /// Panics when more than `capacity` tokens are held, or a row is not there.
    #[must_use]
    pub fn select(&self, rows: &[usize], capacity: usize) -> Self {
        assert!(self.len <= capacity, "{} tokens of a KV cache for one of {capacity}", self.len);
        let last = rows.iter().max().copied().unwrap_or(0);
        assert!(last < self.rows, "row {last} of a KV cache of {} rows", self.rows);
        let ids: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let copy = |cache: &Tensor<4>| {
            let (device, [_, g, _, d]) = (cache.device(), cache.dims());
            let new = Tensor::zeros([rows.len(), g, capacity, d], (&device, self.dtype));
            if self.is_empty() {
                return new;
            }
            let ids = Tensor::<1, Int>::from_data(ids.as_slice(), &device);
            let held = cache.clone().slice(s![.., .., 0..self.len, ..]).select(0, ids);
            new.slice_assign(s![.., .., 0..self.len, ..], held)
        };
        let layer = |layer: &LayerCache| LayerCache { keys: copy(&layer.keys), values: copy(&layer.values) };
        Self { layers: self.layers.iter().map(layer).collect(), rows: rows.len(), capacity, ..*self }
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

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::config::ModelConfig;

    fn config() -> ModelConfig {
        let json = serde_json::json!({
            "model_type": "llama", "vocab_size": 16, "hidden_size": 12, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 8,
            "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"
        });
        ModelConfig::from_hf_json(&json.to_string()).unwrap()
    }

    /// Slots of one layer whose values are `from`, `from + 1`, ... in every channel.
    fn slots(from: usize, t: usize, device: &Device) -> Tensor<4> {
        let values: Vec<f32> = (from..from + t).map(|x| x as f32).collect();
        let column = Tensor::<1>::from_data(values.as_slice(), device);
        column.reshape([1, 1, t, 1]).expand([2, 2, t, 6])
    }

    fn held(x: Tensor<4>) -> Vec<f32> {
        held_in_row(x, 1)
    }

    fn held_in_row(x: Tensor<4>, row: usize) -> Vec<f32> {
        let t = x.dims()[2];
        x.slice(s![row..row + 1, 1..2, .., 5..6]).reshape([t]).into_data().try_to_vec::<f32>().unwrap()
    }

    #[test]
    fn bytes_are_counted_by_hand() {
        // keys and values, 3 layers, 5 rows, 2 heads, 7 tokens, 6 channels, 4 or 2 bytes
        assert_eq!(KvCache::bytes(&config(), 5, 7, DType::F32), 2 * 3 * 5 * 2 * 7 * 6 * 4);
        assert_eq!(KvCache::bytes(&config(), 5, 7, DType::BF16), 2 * 3 * 5 * 2 * 7 * 6 * 2);
    }

    #[test]
    fn what_was_appended_comes_back_and_truncation_forgets_the_rest() {
        let device = Device::flex();
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let mut cache = KvCache::new(&config(), 2, 6, dtype, &device);
            let append = |cache: &mut KvCache, from: usize, t: usize| {
                let mut last = Vec::new();
                for layer in 0..3 {
                    let (keys, values) =
                        cache.append(layer, slots(from, t, &device), slots(from + 100, t, &device));
                    assert_eq!((keys.dtype(), values.dims()[0]), (DType::F32, 2));
                    assert!(held(keys.clone()).iter().zip(held(values)).all(|(k, v)| k + 100.0 == v));
                    last = held(keys);
                }
                cache.advance(t);
                last
            };
            assert!(cache.is_empty() && cache.rows() == 2 && cache.capacity() == 6);
            assert_eq!(append(&mut cache, 1, 4), [1.0, 2.0, 3.0, 4.0]);
            cache.truncate(1);
            assert_eq!(append(&mut cache, 20, 2), [1.0, 20.0, 21.0]);
            assert_eq!(cache.len(), 3);
            cache.reset();
            assert_eq!(append(&mut cache, 30, 6), [30.0, 31.0, 32.0, 33.0, 34.0, 35.0]);
            assert_eq!(cache.len(), 6);
        }
    }

    #[test]
    fn selected_rows_are_copies_in_the_order_asked_for() {
        let device = Device::flex();
        for dtype in [DType::F32, DType::BF16] {
            let mut cache = KvCache::new(&config(), 2, 3, dtype, &device);
            assert_eq!(cache.select(&[1, 0, 0], 5).rows(), 3);
            let rows = Tensor::cat(vec![slots(1, 3, &device), slots(5, 3, &device)], 0);
            let rows = rows.slice(s![1..3, .., .., ..]);
            for layer in 0..3 {
                cache.append(layer, rows.clone(), rows.clone() + 100.0);
            }
            cache.advance(3);
            let mut selected = cache.select(&[1, 0, 1], 5);
            assert_eq!((selected.rows(), selected.len(), selected.capacity()), (3, 3, 5));
            let more = Tensor::<4>::zeros([3, 2, 1, 6], &device);
            let (keys, values) = selected.append(2, more.clone(), more);
            let row = |x: &Tensor<4>, row: usize| held_in_row(x.clone(), row);
            assert_eq!(row(&keys, 0), [5.0, 6.0, 7.0, 0.0]);
            assert_eq!(row(&keys, 1), [1.0, 2.0, 3.0, 0.0]);
            assert_eq!(row(&values, 2), [105.0, 106.0, 107.0, 0.0]);
        }
    }

    /// A view handed out earlier keeps its values when the cache is written again.
    #[test]
    fn slots_handed_out_do_not_change_later() {
        let device = Device::flex();
        let mut cache = KvCache::new(&config(), 2, 4, DType::F32, &device);
        let (keys, _) = cache.append(0, slots(1, 2, &device), slots(1, 2, &device));
        let (_, _) = cache.append(0, slots(7, 2, &device), slots(7, 2, &device));
        assert_eq!(held(keys), [1.0, 2.0]);
    }

    #[test]
    fn misuse_panics_with_both_numbers() {
        let cache = KvCache::new(&config(), 2, 6, DType::F32, &Device::flex());
        let text = |call: &mut dyn FnMut()| {
            let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
            panic.downcast_ref::<String>().unwrap().clone()
        };
        assert_eq!(text(&mut || cache.check_room(3, 1)), "a KV cache of 2 rows got 3");
        assert_eq!(text(&mut || cache.check_room(2, 7)), "a KV cache of 6 tokens holds 0 and got 7 more");
        cache.check_room(2, 6);
        let mut short = KvCache::new(&config(), 2, 6, DType::F32, &Device::flex());
        assert_eq!(text(&mut || short.truncate(1)), "truncating a KV cache of 0 tokens to 1");
    }
}
