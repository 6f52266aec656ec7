//! How many pages there will be, computed before any is taken.

use std::fmt;

use fornax_model::kv_cache::KvElement;
use fornax_model::{Decoder, KvCache, ModelConfig};

/// Bytes of a cache where the device does not say what is free.
const UNKNOWN: u64 = 1 << 30;

/// How the keys and values of a sequence lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvLayout {
    /// In pages of so many tokens, taken as a sequence grows and shared where prompts begin alike.
    Paged {
        /// Tokens of a page.
        page_len: usize,
    },
    /// In one piece for each sequence, as long as a sequence may become.
    Contiguous,
}

impl Default for KvLayout {
    fn default() -> Self {
        KvLayout::Paged { page_len: 16 }
    }
}

/// How much memory keys and values may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Half of `free` bytes (see `fornax_model::device::free_memory`), 1 GiB where they are not known; never more than
    /// all running sequences can fill.
    Auto {
        /// Bytes of the device that nobody uses.
        free: Option<u64>,
    },
    /// So many bytes.
    Bytes(u64),
    /// Room for so many tokens.
    Tokens(usize),
}

/// The cache that an engine takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Pages, or rows of a contiguous layout.
    pub pages: usize,
    /// Tokens of each.
    pub page_len: usize,
    /// Bytes of each, over all layers, a draft model's among them.
    pub page_bytes: u64,
    /// What is stored of each number.
    pub element: KvElement,
}

/// Why no cache can be planned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MemoryError {
    /// Too little.
    #[error("{bytes} bytes for keys and values hold no page of {page_len} tokens, which takes {page_bytes} bytes")]
    TooLittle {
        /// What there is.
        bytes: u64,
        /// Tokens of a page.
        page_len: usize,
        /// Bytes of a page.
        page_bytes: u64,
    },
    /// A page holds at least one token and at most a sequence.
    #[error("pages of {page_len} tokens were asked for, expected from 1 to {most}")]
    PageLength {
        /// What was asked for.
        page_len: usize,
        /// The model's context.
        most: usize,
    },
}

impl MemoryPlan {
    /// For `running` sequences of `config`'s model at once. The pages of `draft`, a smaller model that proposes tokens,
    /// stand beside the model's.
    ///
    /// # Errors
    /// [`MemoryError::TooLittle`] where not one page fits, [`MemoryError::PageLength`].
    pub fn new(
        config: &ModelConfig,
        draft: Option<&ModelConfig>,
        (layout, element): (KvLayout, KvElement),
        memory: Memory,
        running: usize,
    ) -> Result<Self, MemoryError> {
        let page_len = match (layout, memory) {
            (KvLayout::Paged { page_len }, _) => page_len,
            // One sequence may use all of it.
            (KvLayout::Contiguous, Memory::Tokens(tokens)) => config.context.min((tokens / running).max(1)),
            (KvLayout::Contiguous, _) => config.context,
        };
        if page_len == 0 || page_len > config.context {
            return Err(MemoryError::PageLength { page_len, most: config.context });
        }
        let models = [Some(config), draft].into_iter().flatten();
        let page_bytes = models.map(|config| KvCache::page_bytes(config, page_len, element)).sum();
        let useful = running.saturating_mul(config.context.div_ceil(page_len));
        let (pages, bytes) = match memory {
            Memory::Auto { free } => {
                let bytes = free.map_or(UNKNOWN, |free| free / 2);
                (usize::try_from(bytes / page_bytes).unwrap_or(usize::MAX).min(useful), bytes)
            }
            Memory::Bytes(bytes) => (usize::try_from(bytes / page_bytes).unwrap_or(usize::MAX), bytes),
            Memory::Tokens(tokens) => (tokens.div_ceil(page_len), tokens as u64 * page_bytes / page_len as u64),
        };
        // Pages have numbers of 32 bits, the greatest of which is none.
        let pages = pages.min(u32::MAX as usize - 1);
        match pages {
            0 => Err(MemoryError::TooLittle { bytes, page_len, page_bytes }),
            pages => Ok(Self { pages, page_len, page_bytes, element }),
        }
    }

    /// So many pages, in the dtype that `decoder` computes in.
    pub(crate) fn of(decoder: &Decoder, pages: usize, page_len: usize) -> Self {
        let element = KvElement::of(decoder.compute());
        let page_bytes = KvCache::page_bytes(decoder.config(), page_len, element);
        Self { pages, page_len, page_bytes, element }
    }

    /// Bytes of all pages.
    pub fn bytes(&self) -> u64 {
        self.pages as u64 * self.page_bytes
    }

    /// Tokens that fit.
    pub fn tokens(&self) -> usize {
        self.pages * self.page_len
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pages, page_len, element, .. } = self;
        let mebibytes = self.bytes() as f64 / f64::from(1 << 20);
        write!(f, "keys and values: {pages} pages of {page_len} tokens in {element:?}, {mebibytes:.1} MiB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        let heads = ModelConfig { n_heads: 4, n_kv_heads: 2, head_dim: 8, context: 100, ..ModelConfig::llama(3) };
        ModelConfig { width: 32, ..heads }
    }

    fn plan(layout: KvLayout, memory: Memory) -> Result<MemoryPlan, MemoryError> {
        MemoryPlan::new(&config(), None, (layout, KvElement::F32), memory, 4)
    }

    #[test]
    fn pages_are_what_fits_and_never_more_than_can_be_used() {
        // Keys and values, 3 layers, 2 heads, 8 channels, 4 bytes, 16 tokens.
        let page = 2 * 3 * 2 * 8 * 4 * 16;
        let paged = KvLayout::Paged { page_len: 16 };
        let pages = |memory| plan(paged, memory).map(|plan| (plan.pages, plan.page_bytes, plan.tokens()));
        assert_eq!(pages(Memory::Bytes(10 * page + 1)), Ok((10, page, 160)));
        assert_eq!(pages(Memory::Tokens(33)), Ok((3, page, 48)));
        // Half of what is free.
        assert_eq!(pages(Memory::Auto { free: Some(10 * page) }), Ok((5, page, 80)));
        // Four sequences of 100 tokens take 7 pages each.
        assert_eq!(pages(Memory::Auto { free: Some(1 << 40) }), Ok((28, page, 448)));
        assert_eq!(pages(Memory::Auto { free: None }), Ok((28, page, 448)));
        // A draft of a third of the layers takes a third as much beside it.
        let small = ModelConfig { n_layers: 1, ..ModelConfig::llama(1) };
        let small = ModelConfig { n_heads: 4, n_kv_heads: 2, head_dim: 8, width: 32, ..small };
        let both = MemoryPlan::new(&config(), Some(&small), (paged, KvElement::F32), Memory::Bytes(8 * page), 4);
        assert_eq!(both.map(|plan| (plan.pages, plan.page_bytes)), Ok((6, page / 3 * 4)));
        let row = plan(KvLayout::Contiguous, Memory::Auto { free: Some(1 << 40) }).unwrap();
        assert_eq!((row.pages, row.page_len, row.bytes()), (4, 100, 4 * 100 * page / 16));
        let rows = plan(KvLayout::Contiguous, Memory::Tokens(200)).unwrap();
        assert_eq!((rows.pages, rows.page_len), (4, 50));
    }

    #[test]
    fn what_holds_nothing_is_refused() {
        let paged = KvLayout::Paged { page_len: 16 };
        let error = plan(paged, Memory::Bytes(6143)).unwrap_err().to_string();
        assert_eq!(error, "6143 bytes for keys and values hold no page of 16 tokens, which takes 6144 bytes");
        assert!(plan(paged, Memory::Tokens(0)).is_err());
        for page_len in [0, 101] {
            let error = plan(KvLayout::Paged { page_len }, Memory::Tokens(100)).unwrap_err();
            assert_eq!(error, MemoryError::PageLength { page_len, most: 100 });
        }
    }
}
