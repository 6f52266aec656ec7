//! Compiled grammars that are kept, those used longest ago leaving when there are too many bytes.

use std::collections::HashMap;

use super::automaton::Grammar;

/// Bytes of a compiled grammar beside those its library counts: the parser's tables and buffers, measured.
const FIXED_BYTES: usize = 24 << 10;

/// Compiled grammars by what they were compiled from.
pub(super) struct Cache {
    entries: HashMap<String, Entry>,
    bytes: usize,
    most: usize,
    /// Counts uses, to know the oldest.
    clock: u64,
}

struct Entry {
    grammar: Grammar,
    bytes: usize,
    used: u64,
}

impl Cache {
    pub(super) fn new(most: usize) -> Cache {
        Cache { entries: HashMap::new(), bytes: 0, most, clock: 0 }
    }

    /// A fresh automaton of what is kept under `key`.
    pub(super) fn get(&mut self, key: &str) -> Option<Grammar> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.grammar.clone())
    }

    /// Keeps `grammar`; one that alone is larger than all may be is not kept.
    pub(super) fn insert(&mut self, key: String, grammar: Grammar) {
        let bytes = key.len() + grammar.bytes() + FIXED_BYTES;
        if bytes > self.most {
            return;
        }
        self.clock += 1;
        let entry = Entry { grammar, bytes, used: self.clock };
        self.bytes += bytes;
        if let Some(before) = self.entries.insert(key, entry) {
            self.bytes -= before.bytes;
        }
        while self.bytes > self.most {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            let Some(entry) = oldest.and_then(|key| self.entries.remove(&key)) else {
                break;
            };
            self.bytes -= entry.bytes;
        }
    }

    /// Grammars kept, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }
}
