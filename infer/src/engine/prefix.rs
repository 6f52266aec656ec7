//! What makes two blocks of keys and values the same: the tokens in them, all tokens before them, the adapter, and the
//! salt that keeps clients apart who must not learn from timings what others asked.

use sha2::{Digest, Sha256};

/// Name of a whole block: a hash of its ids, its parent's hash, and at the root the adapter and the salt.
///
/// A cryptographic hash, because equal hashes are taken for equal prompts: a client that could make two prompts collide
/// would read from another's cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    /// What stands before the opening block of a sequence: the place of its adapter among the decoder's, and its salt.
    pub fn root(adapter: Option<usize>, salt: Option<&str>) -> Self {
        let mut hasher = Sha256::new();
        // Lengths and tags in front: no two pairs give the same bytes.
        hasher.update(adapter.map_or(0, |place| place as u64 + 1).to_le_bytes());
        if let Some(salt) = salt {
            hasher.update((salt.len() as u64).to_le_bytes());
            hasher.update(salt.as_bytes());
        }
        Self(hasher.finalize().into())
    }

    /// The block of `ids` behind this one.
    pub fn child(&self, ids: &[u32]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        for id in ids {
            hasher.update(id.to_le_bytes());
        }
        Self(hasher.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_equal_only_when_everything_before_them_is() {
        let roots = [(None, None), (Some(0), None), (Some(1), None), (None, Some("")), (None, Some("a"))];
        let mut all = Vec::new();
        for (adapter, salt) in roots {
            let root = BlockHash::root(adapter, salt);
            assert_eq!(root, BlockHash::root(adapter, salt));
            let (a, b) = (root.child(&[1, 2]), root.child(&[2, 1]));
            all.extend([root, a, b, a.child(&[3]), b.child(&[3]), root.child(&[1, 2, 3])]);
        }
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
