//! Sequences of one length that go through a decoder together, over any cache.

use burn::tensor::{DType, Device, Int, Tensor};
use fornax_infer::engine::KvLayout;
use fornax_model::{Decoder, KvCache, KvElement, Layout, ModelConfig, Segment, token_tensor};

use super::BenchError;

/// Prompt tokens of a sequence computed at a time.
const PREFILL_CHUNK: usize = 512;

/// Where keys and values lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheKind {
    /// Tokens of a page; `None` is contiguous.
    pub page_len: Option<usize>,
    /// What is stored of each number.
    pub element: KvElement,
}

impl CacheKind {
    /// Its word in reports.
    pub fn word(&self) -> &'static str {
        if self.page_len.is_some() { "paged" } else { "contiguous" }
    }

    /// The same for an engine; a page holds at most a sequence.
    pub fn layout(&self, config: &ModelConfig) -> KvLayout {
        let paged = |page_len: usize| KvLayout::Paged { page_len: page_len.min(config.context) };
        self.page_len.map_or(KvLayout::Contiguous, paged)
    }

    /// Pages of a sequence of `tokens` tokens.
    fn pages(page_len: usize, tokens: usize) -> usize {
        tokens.div_ceil(page_len)
    }

    /// Bytes for `rows` sequences of `tokens` tokens.
    pub fn bytes(&self, config: &ModelConfig, rows: usize, tokens: usize) -> u64 {
        match self.page_len {
            None => KvCache::bytes(config, rows, tokens, self.element),
            Some(page_len) => {
                (rows * Self::pages(page_len, tokens)) as u64 * KvCache::page_bytes(config, page_len, self.element)
            }
        }
    }
}

/// Sequences under way.
pub(super) struct Rows<'a> {
    decoder: &'a Decoder,
    device: Device,
    cache: KvCache,
    kind: CacheKind,
    rows: usize,
    capacity: usize,
    len: usize,
}

impl<'a> Rows<'a> {
    /// Empty ones with room for `capacity` tokens each.
    pub(super) fn new(decoder: &'a Decoder, kind: CacheKind, rows: usize, capacity: usize) -> Self {
        let (device, config) = (decoder.device().without_autodiff(), decoder.config());
        let cache = match kind.page_len {
            None => KvCache::new(config, rows, capacity, kind.element, &device),
            Some(page_len) => {
                let pages = rows * CacheKind::pages(page_len, capacity);
                KvCache::paged(config, pages, page_len, kind.element, &device)
            }
        };
        Self { decoder, device, cache, kind, rows, capacity, len: 0 }
    }

    /// Reads the prompt of each row and gives the likeliest token after each.
    pub(super) fn read(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<u32>, BenchError> {
        let length = prompts[0].len();
        let mut last = Vec::new();
        for from in (0..length).step_by(PREFILL_CHUNK) {
            let to = length.min(from + PREFILL_CHUNK);
            let ids: Vec<u32> = prompts.iter().flat_map(|prompt| &prompt[from..to]).copied().collect();
            let hidden = self.forward(&ids);
            if to == length {
                last = self.likeliest(hidden)?;
            }
        }
        Ok(last)
    }

    /// One token for each row, and the likeliest after it.
    pub(super) fn next(&mut self, ids: &[u32]) -> Result<Vec<u32>, BenchError> {
        let hidden = self.forward(ids);
        self.likeliest(hidden)
    }

    /// Row by row; -> the last hidden state of each row, [rows, 1, c].
    fn forward(&mut self, ids: &[u32]) -> Tensor<3> {
        let (b, t) = (self.rows, ids.len() / self.rows);
        let past = self.len;
        self.len += t;
        let Some(page_len) = self.kind.page_len else {
            let layout = Layout::contiguous(past, t, &self.device);
            let tokens = token_tensor(ids, b, &self.device);
            return self.decoder.forward(tokens, &layout, Some(&mut self.cache)).slice_dim(1, t - 1..t);
        };
        let each = CacheKind::pages(page_len, self.capacity) as u32;
        let segment = |row: u32| Segment { past, tokens: t, pages: (row * each..(row + 1) * each).collect() };
        let layout = Layout::ragged((0..b as u32).map(segment).collect(), &self.device);
        let tokens = token_tensor(ids, ids.len(), &self.device);
        let hidden = self.decoder.forward(tokens, &layout, Some(&mut self.cache));
        let last: Vec<i32> = (1..=b).map(|row| (row * t - 1) as i32).collect();
        hidden.select(0, Tensor::<1, Int>::from_data(last.as_slice(), &self.device))
    }

    fn likeliest(&self, hidden: Tensor<3>) -> Result<Vec<u32>, BenchError> {
        let logits = self.decoder.logits(hidden).cast(DType::F32);
        let values = logits.try_into_vec_as::<f32>().map_err(BenchError::device)?;
        let rows = values.chunks_exact(self.decoder.config().vocab_size);
        let likeliest = |row: &[f32]| {
            let best =
                row.iter().enumerate().fold((0, f32::MIN), |best, (i, &x)| if x > best.1 { (i, x) } else { best });
            best.0 as u32
        };
        Ok(rows.map(likeliest).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::generate::random_model;
    use crate::bench::workload::WORKLOADS;

    /// Every cache continues every row alike, whether the prompt came in one piece or token by token.
    #[test]
    fn caches_agree_on_greedy_tokens() {
        let decoder =
            random_model(&WORKLOADS[0].with_batch(Some(1), Some(64)).unwrap(), DType::F32, &Device::flex());
        let prompts: Vec<Vec<u32>> = (0..3).map(|row| (0..13).map(|i| (7 * row + 5 * i) % 65).collect()).collect();
        let texts = [None, Some(4), Some(16)].map(|page_len| {
            let kind = CacheKind { page_len, element: KvElement::F32 };
            let mut rows = Rows::new(&decoder, kind, 3, 20);
            let mut last = rows.read(&prompts).unwrap();
            let mut all = vec![last.clone()];
            for _ in 0..7 {
                last = rows.next(&last).unwrap();
                all.push(last.clone());
            }
            all
        });
        assert_eq!(texts[0], texts[1]);
        assert_eq!(texts[0], texts[2]);
        let kind = CacheKind { page_len: Some(4), element: KvElement::F32 };
        // 4 layers, 3 rows of 5 pages of 4 tokens, 128 channels, keys and values, 4 bytes.
        assert_eq!(kind.bytes(decoder.config(), 3, 18), 4 * 3 * 20 * 128 * 2 * 4);
    }
}
