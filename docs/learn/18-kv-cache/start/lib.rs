//! Keys and values of the tokens seen so far, in memory that is taken once.
//!
//! Shapes: g key-value heads, t new tokens, s tokens held, d channels of one head. A tensor is a slice, the last index
//! running fastest: element (i, j, k) of k_gtd is `k_gtd[(i * t + j) * d + k]`.

/// The cache of one layer and one sequence.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Key-value heads.
    pub g: usize,
    /// Channels of a head.
    pub d: usize,
    /// Tokens that fit.
    pub capacity: usize,
    /// Tokens held.
    pub len: usize,
    /// g x capacity x d; what stands behind the held tokens means nothing.
    pub keys: Vec<f32>,
    /// As the keys.
    pub values: Vec<f32>,
}

impl Cache {
    /// An empty cache with all of its memory.
    pub fn new(g: usize, d: usize, capacity: usize) -> Cache {
        todo!("memory for keys and values")
    }

    /// Puts t tokens behind those held: k_gtd and v_gtd. False where they do not fit; then nothing has changed.
    pub fn append(&mut self, k_gtd: &[f32], v_gtd: &[f32]) -> bool {
        todo!("for each head, behind what it holds")
    }

    /// Keeps the oldest `len` tokens, which is no more than are held.
    pub fn truncate(&mut self, len: usize) {
        todo!("a length")
    }

    /// What is held: (k_gsd, v_gsd).
    pub fn held(&self) -> (Vec<f32>, Vec<f32>) {
        todo!("of each head what is held")
    }

    /// Positions of the t tokens that come next.
    pub fn positions(&self, t: usize) -> Vec<u32> {
        todo!("behind what is held")
    }
}

/// How many tokens of the cache can stay, which holds `held`, when `asked` is to be continued. At least one token of
/// `asked` is left to compute: its logits are what the next token is drawn from.
pub fn reusable(held: &[u32], asked: &[u32]) -> usize {
    todo!("where the two begin to differ")
}

/// Bytes of the caches of all layers for so many tokens, with `element` bytes a number.
pub fn bytes(layers: u64, g: u64, d: u64, tokens: u64, element: u64) -> u64 {
    todo!("keys and values")
}
