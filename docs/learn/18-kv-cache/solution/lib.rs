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
        let memory = vec![0.0; g * capacity * d];
        Cache { g, d, capacity, len: 0, keys: memory.clone(), values: memory }
    }

    /// Puts t tokens behind those held: k_gtd and v_gtd. False where they do not fit; then nothing has changed.
    pub fn append(&mut self, k_gtd: &[f32], v_gtd: &[f32]) -> bool {
        let t = k_gtd.len() / (self.g * self.d);
        if self.len + t > self.capacity {
            return false;
        }
        let n = t * self.d;
        for head in 0..self.g {
            let at = (head * self.capacity + self.len) * self.d;
            self.keys[at..at + n].copy_from_slice(&k_gtd[head * n..(head + 1) * n]);
            self.values[at..at + n].copy_from_slice(&v_gtd[head * n..(head + 1) * n]);
        }
        self.len += t;
        true
    }

    /// Keeps the oldest `len` tokens, which is no more than are held.
    pub fn truncate(&mut self, len: usize) {
        self.len = len;
    }

    /// What is held: (k_gsd, v_gsd).
    pub fn held(&self) -> (Vec<f32>, Vec<f32>) {
        let of = |memory: &[f32]| {
            let heads = memory.chunks(self.capacity * self.d);
            heads.flat_map(|head| head[..self.len * self.d].to_vec()).collect()
        };
        (of(&self.keys), of(&self.values))
    }

    /// Positions of the t tokens that come next.
    pub fn positions(&self, t: usize) -> Vec<u32> {
        (self.len..self.len + t).map(|position| position as u32).collect()
    }
}

/// How many tokens of the cache can stay, which holds `held`, when `asked` is to be continued. At least one token of
/// `asked` is left to compute: its logits are what the next token is drawn from.
pub fn reusable(held: &[u32], asked: &[u32]) -> usize {
    let common = held.iter().zip(asked).take_while(|(a, b)| a == b).count();
    common.min(asked.len().saturating_sub(1))
}

/// Bytes of the caches of all layers for so many tokens, with `element` bytes a number.
pub fn bytes(layers: u64, g: u64, d: u64, tokens: u64, element: u64) -> u64 {
    2 * layers * g * d * tokens * element
}
