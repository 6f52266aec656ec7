//! All tokens of one split in order, over its shards. Knows nothing of windows or batches.

use std::ops::Range;

use crate::shards::Shard;

/// One run of tokens: a memory-mapped shard, or tokens already in memory.
#[derive(Debug)]
enum Part {
    Shard(Shard),
    Memory { tokens: Vec<u32>, starts: Vec<u64> },
}

impl Part {
    fn n_tokens(&self) -> u64 {
        match self {
            Part::Shard(shard) => shard.n_tokens(),
            Part::Memory { tokens, .. } => tokens.len() as u64,
        }
    }

    fn n_documents(&self) -> u64 {
        match self {
            Part::Shard(shard) => shard.n_documents(),
            Part::Memory { starts, .. } => starts.len() as u64,
        }
    }

    fn document_start(&self, index: u64) -> u64 {
        match self {
            Part::Shard(shard) => shard.document_start(index),
            Part::Memory { starts, .. } => starts[index as usize],
        }
    }

    fn read(&self, range: Range<u64>, out: &mut Vec<u32>) {
        match self {
            Part::Shard(shard) => shard.tokens(range, out),
            Part::Memory { tokens, .. } => {
                out.extend_from_slice(&tokens[range.start as usize..range.end as usize]);
            }
        }
    }
}

/// The tokens of a split: its shards end to end, with the places where documents start.
#[derive(Debug)]
pub struct TokenStream {
    parts: Vec<Part>,
    /// `offsets[i]` is the position in the stream of the token that opens `parts[i]`; one more entry holds the length.
    offsets: Vec<u64>,
}

impl TokenStream {
    /// A stream over `shards` in the given order.
    pub fn from_shards(shards: Vec<Shard>) -> TokenStream {
        TokenStream::from_parts(shards.into_iter().map(Part::Shard).collect())
    }

    /// A stream over tokens in memory. `starts` are the ascending positions at which documents start;
    /// positions at or beyond `tokens.len()` are dropped.
    pub fn from_tokens(tokens: Vec<u32>, mut starts: Vec<u64>) -> TokenStream {
        starts.sort_unstable();
        starts.dedup();
        starts.retain(|start| *start < tokens.len() as u64);
        TokenStream::from_parts(vec![Part::Memory { tokens, starts }])
    }

    fn from_parts(parts: Vec<Part>) -> TokenStream {
        let mut offsets = vec![0u64];
        for part in &parts {
            offsets.push(offsets[offsets.len() - 1] + part.n_tokens());
        }
        TokenStream { parts, offsets }
    }

    /// Number of tokens.
    pub fn len(&self) -> u64 {
        self.offsets[self.offsets.len() - 1]
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of documents.
    pub fn n_documents(&self) -> u64 {
        self.parts.iter().map(Part::n_documents).sum()
    }

    /// Appends the tokens of `range` to `out`.
    ///
    /// # Panics
    /// When `range` ends beyond [`TokenStream::len`]: an error of the caller, never of the data.
    pub fn read(&self, range: Range<u64>, out: &mut Vec<u32>) {
        assert!(range.end <= self.len(), "tokens {range:?} of a stream of {}", self.len());
        self.for_each_part(range, |part, local, _| part.read(local, out));
    }

    /// Appends to `out` the positions within `range` at which a document starts, ascending and counted from
    /// `range.start`.
    pub fn document_starts(&self, range: Range<u64>, out: &mut Vec<u64>) {
        let from = range.start;
        self.for_each_part(range, |part, local, offset| {
            let mut index = lower_bound(part.n_documents(), |i| part.document_start(i) < local.start);
            while index < part.n_documents() && part.document_start(index) < local.end {
                out.push(part.document_start(index) + offset - from);
                index += 1;
            }
        });
    }

    /// The tokens of document number `document`.
    ///
    /// # Panics
    /// When there is no such document: an error of the caller, never of the data.
    pub fn document(&self, document: u64) -> Range<u64> {
        let mut left = document;
        for (part, offset) in self.parts.iter().zip(&self.offsets) {
            if left < part.n_documents() {
                let start = part.document_start(left);
                let is_last = left + 1 == part.n_documents();
                let end = if is_last { part.n_tokens() } else { part.document_start(left + 1) };
                return offset + start..offset + end;
            }
            left -= part.n_documents();
        }
        panic!("document {document} of a stream of {}", self.n_documents())
    }

    /// Calls `visit(part, range within the part, position of the part in the stream)` for each part under `range`.
    fn for_each_part(&self, range: Range<u64>, mut visit: impl FnMut(&Part, Range<u64>, u64)) {
        if range.start >= range.end {
            return;
        }
        let mut index = self.offsets.partition_point(|offset| *offset <= range.start) - 1;
        let mut at = range.start;
        while at < range.end && index < self.parts.len() {
            let offset = self.offsets[index];
            let end = range.end.min(self.offsets[index + 1]);
            if at < end {
                visit(&self.parts[index], at - offset..end - offset, offset);
                at = end;
            }
            index += 1;
        }
    }
}

/// Smallest `i` in `0..=n` for which `below(i)` is false, where `below` is true on a prefix.
fn lower_bound(n: u64, below: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        if below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(tokens: Range<u32>, starts: &[u64]) -> Part {
        Part::Memory { tokens: tokens.collect(), starts: starts.to_vec() }
    }

    #[test]
    fn reads_across_parts_and_finds_document_starts() {
        let stream =
            TokenStream::from_parts(vec![memory(0..5, &[0, 3]), memory(5..5, &[]), memory(5..12, &[0, 1, 6])]);
        assert_eq!(stream.len(), 12);
        assert_eq!(stream.n_documents(), 5);
        for start in 0..12u64 {
            for end in start..=12 {
                let mut tokens = Vec::new();
                stream.read(start..end, &mut tokens);
                assert_eq!(tokens, (start as u32..end as u32).collect::<Vec<_>>());
                let mut starts = Vec::new();
                stream.document_starts(start..end, &mut starts);
                let expected: Vec<u64> =
                    [0, 3, 5, 6, 11].into_iter().filter(|s| (start..end).contains(s)).map(|s| s - start).collect();
                assert_eq!(starts, expected, "{start}..{end}");
            }
        }
    }

    #[test]
    fn documents_are_found_across_parts() {
        let stream = TokenStream::from_parts(vec![memory(0..5, &[0, 3]), memory(5..12, &[0, 1, 6])]);
        let ranges: Vec<Range<u64>> = (0..5).map(|document| stream.document(document)).collect();
        assert_eq!(ranges, [0..3, 3..5, 5..6, 6..11, 11..12]);
    }

    #[test]
    #[should_panic(expected = "of a stream of 3")]
    fn reading_beyond_the_end_is_a_bug_of_the_caller() {
        TokenStream::from_tokens(vec![1, 2, 3], vec![0]).read(0..4, &mut Vec::new());
    }
}
