//! Token shards: one memory-mapped file of token ids with its document boundaries and its checksum.
//!
//! Layout, all numbers little-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `FNXSHARD` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | width of a token in bytes, 2 or 4 |
//! | 16 | 8 | vocabulary size: every token id is below it |
//! | 24 | 8 | number of tokens `n`, at least 1 |
//! | 32 | 8 | number of documents `d`, at least 1 |
//! | 40 | 32 | fingerprint of the tokenizer (sha-256 of its `tokenizer.json`) |
//! | 72 | 32 | sha-256 of everything else in the file |
//! | 104 | 24 | zeros |
//! | 128 | 8 d | positions at which documents start, strictly ascending, the first is 0 |
//! | 128 + 8 d | width n | tokens |
//!
//! The checksum covers the header too, so that no flipped byte goes unseen. Opening checks every length by checked
//! arithmetic against the length of the file; [`Shard::verify`] reads all of it.

mod error;

use std::ops::Range;
use std::path::Path;

use fornax_base::files::{FileSystem, write_atomic};
use fornax_base::mmap::Mapped;
use sha2::{Digest, Sha256};

pub use self::error::ShardError;
use crate::digest;

const MAGIC: &[u8; 8] = b"FNXSHARD";
const VERSION: u32 = 1;
const HEADER: usize = 128;
const CHECKSUM: Range<usize> = 72..104;
/// Tokens looked at in one go while verifying.
const VERIFY_TOKENS: u64 = 1 << 16;

/// An open token shard. Reading it never leaves the mapped file.
#[derive(Debug)]
pub struct Shard {
    map: Mapped,
    header: Header,
}

/// The header after all its claims were checked against the length of the file.
#[derive(Debug, Clone, Copy)]
struct Header {
    width: usize,
    vocab_size: u64,
    n_tokens: u64,
    n_documents: u64,
    /// Where tokens begin, in bytes.
    tokens_at: usize,
}

impl Shard {
    /// Maps the file and checks its header, its length and its document starts. Does not look at token ids.
    ///
    /// # Errors
    /// [`ShardError`] naming the file, what was found and what was expected.
    pub fn open(path: &Path) -> Result<Shard, ShardError> {
        let map = Mapped::open(path).map_err(|source| ShardError::File { path: path.to_owned(), source })?;
        let header = Header::read(path, map.as_bytes())?;
        let shard = Shard { map, header };
        shard.check_document_starts()?;
        Ok(shard)
    }

    /// The path as given to [`Shard::open`].
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// Number of tokens, at least 1.
    pub fn n_tokens(&self) -> u64 {
        self.header.n_tokens
    }

    /// Number of documents, at least 1.
    pub fn n_documents(&self) -> u64 {
        self.header.n_documents
    }

    /// Every token id of a verified shard is below this.
    pub fn vocab_size(&self) -> u64 {
        self.header.vocab_size
    }

    /// Fingerprint of the tokenizer that made the tokens.
    pub fn tokenizer_fingerprint(&self) -> String {
        digest::hex(&self.map.as_bytes()[40..72])
    }

    /// The checksum stored in the header, in hexadecimal.
    pub fn checksum(&self) -> String {
        digest::hex(&self.map.as_bytes()[CHECKSUM])
    }

    /// Position of the token that opens document `index`.
    ///
    /// # Panics
    /// When `index` is not below [`Shard::n_documents`].
    pub fn document_start(&self, index: u64) -> u64 {
        assert!(index < self.n_documents(), "document {index} of {}", self.n_documents());
        read_u64(self.map.as_bytes(), HEADER + index as usize * 8)
    }

    /// Positions at which documents start, ascending from 0.
    pub fn document_starts(&self) -> impl Iterator<Item = u64> + '_ {
        self.map.as_bytes()[HEADER..self.header.tokens_at]
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| u64::from_le_bytes(*b))
    }

    /// Appends the tokens of `range` to `out`.
    ///
    /// # Panics
    /// When `range` ends beyond [`Shard::n_tokens`]: an error of the caller, never of the data.
    pub fn tokens(&self, range: Range<u64>, out: &mut Vec<u32>) {
        assert!(
            range.start <= range.end && range.end <= self.n_tokens(),
            "tokens {range:?} of a shard of {}",
            self.n_tokens()
        );
        let Header { width, tokens_at, .. } = self.header;
        let from = tokens_at + range.start as usize * width;
        let to = tokens_at + range.end as usize * width;
        let bytes = &self.map.as_bytes()[from..to];
        if width == 2 {
            out.extend(bytes.as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))));
        } else {
            out.extend(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)));
        }
    }

    /// Reads the whole shard: its checksum must match and every token id be below the vocabulary size.
    ///
    /// # Errors
    /// [`ShardError::TokenId`] or [`ShardError::Checksum`]. An id outside the vocabulary is looked for before the
    /// checksum, because it says more.
    pub fn verify(&self) -> Result<(), ShardError> {
        let mut tokens = Vec::with_capacity(VERIFY_TOKENS as usize);
        for from in (0..self.n_tokens()).step_by(VERIFY_TOKENS as usize) {
            tokens.clear();
            self.tokens(from..self.n_tokens().min(from + VERIFY_TOKENS), &mut tokens);
            if let Some(index) = tokens.iter().position(|id| u64::from(*id) >= self.vocab_size()) {
                return Err(ShardError::TokenId {
                    path: self.path().to_owned(),
                    offset: from + index as u64,
                    id: tokens[index],
                    vocab_size: self.vocab_size(),
                });
            }
        }
        let bytes = self.map.as_bytes();
        let found = digest::hex(&checksum(&bytes[..HEADER], &[&bytes[HEADER..]]));
        if found != self.checksum() {
            return Err(ShardError::Checksum { path: self.path().to_owned(), found, expected: self.checksum() });
        }
        Ok(())
    }

    fn check_document_starts(&self) -> Result<(), ShardError> {
        let mut least = 0;
        for (document, start) in self.document_starts().enumerate() {
            // The document that opens a shard starts with it: tokens before it would belong to none.
            let expected = match document {
                0 if start != 0 => "0".to_owned(),
                _ if start < least || start >= self.n_tokens() => {
                    format!("{least}..{}", self.n_tokens())
                }
                _ => {
                    least = start + 1;
                    continue;
                }
            };
            let path = self.path().to_owned();
            return Err(ShardError::DocumentStart { path, document: document as u64, found: start, expected });
        }
        Ok(())
    }
}

impl Header {
    fn read(path: &Path, bytes: &[u8]) -> Result<Header, ShardError> {
        let length = |expected| ShardError::Length { path: path.to_owned(), found: bytes.len() as u64, expected };
        if bytes.len() < HEADER {
            return Err(length(HEADER as u64));
        }
        check_fields(path, bytes)?;
        let width = read_u32(bytes, 12);
        let [vocab_size, n_tokens, n_documents] = [16, 24, 32].map(|at| read_u64(bytes, at));
        let Some((tokens_at, end)) = lengths(n_documents, n_tokens, u64::from(width)) else {
            return Err(length(u64::MAX));
        };
        if end != bytes.len() as u64 {
            return Err(length(end));
        }
        // Both casts fit: the file of `end` bytes is in memory.
        Ok(Header { width: width as usize, vocab_size, n_tokens, n_documents, tokens_at: tokens_at as usize })
    }
}

/// Checks each field of a header of at least [`HEADER`] bytes by itself; the leading wrong one is reported.
fn check_fields(path: &Path, bytes: &[u8]) -> Result<(), ShardError> {
    let [version, width] = [8, 12].map(|at| read_u32(bytes, at));
    let [vocab_size, n_tokens, n_documents] = [16, 24, 32].map(|at| read_u64(bytes, at));
    let magic = &bytes[..MAGIC.len()];
    let reserved = &bytes[CHECKSUM.end..HEADER];
    let most_ids = if width == 2 { 1u64 << 16 } else { 1 << 32 };
    let between = |number: u64, most: u64| (1..=most).contains(&number);
    let text = |number: u64| number.to_string();
    #[rustfmt::skip]
    let fields = [
        ("magic", magic == MAGIC, magic.escape_ascii().to_string(), "FNXSHARD".to_owned()),
        ("version", version == VERSION, version.to_string(), VERSION.to_string()),
        ("token width", matches!(width, 2 | 4), width.to_string(), "2 or 4".to_owned()),
        ("vocabulary size", between(vocab_size, most_ids), text(vocab_size), format!("1..={most_ids}")),
        ("number of tokens", n_tokens > 0, text(n_tokens), "at least 1".to_owned()),
        ("number of documents", between(n_documents, n_tokens), text(n_documents), format!("1..={n_tokens}")),
        ("reserved bytes", reserved.iter().all(|byte| *byte == 0), digest::hex(reserved), "zeros".to_owned()),
    ];
    match fields.into_iter().find(|(_, is_right, ..)| !is_right) {
        Some((field, _, found, expected)) => {
            let path = path.to_owned();
            Err(ShardError::Header { path, field, found, expected })
        }
        None => Ok(()),
    }
}

/// Where tokens begin and where the file ends, in bytes; `None` when that passes 2^64.
fn lengths(n_documents: u64, n_tokens: u64, width: u64) -> Option<(u64, u64)> {
    let tokens_at = n_documents.checked_mul(8)?.checked_add(HEADER as u64)?;
    let end = n_tokens.checked_mul(width)?.checked_add(tokens_at)?;
    Some((tokens_at, end))
}

/// SHA-256 of a shard without the 32 bytes that hold it.
fn checksum(header: &[u8], payload: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&header[..CHECKSUM.start]);
    hash.update(&header[CHECKSUM.end..]);
    for part in payload {
        hash.update(part);
    }
    hash.finalize().into()
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// Collects documents in memory and writes them as one shard.
///
/// The header holds counts and a checksum of what follows, so a shard is written in one go when it is complete; what
/// is held meanwhile is 2 or 4 bytes a token.
#[derive(Debug)]
pub struct ShardWriter {
    width: usize,
    vocab_size: u64,
    fingerprint: [u8; 32],
    starts: Vec<u8>,
    tokens: Vec<u8>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenShard {
    /// Number of tokens.
    pub n_tokens: u64,
    /// Number of documents.
    pub n_documents: u64,
    /// The checksum in its header, in hexadecimal.
    pub checksum: String,
}

impl ShardWriter {
    /// An empty shard for ids below `vocab_size` made by the tokenizer with this fingerprint. Ids take 2 bytes up to
    /// a vocabulary of 65,536 and 4 above.
    pub fn new(vocab_size: u32, tokenizer_fingerprint: [u8; 32]) -> ShardWriter {
        ShardWriter {
            width: if vocab_size <= 1 << 16 { 2 } else { 4 },
            vocab_size: u64::from(vocab_size),
            fingerprint: tokenizer_fingerprint,
            starts: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Number of tokens so far.
    pub fn n_tokens(&self) -> u64 {
        (self.tokens.len() / self.width) as u64
    }

    /// Appends a document; one without tokens leaves no trace.
    ///
    /// # Panics
    /// When an id is not below the vocabulary size: the tokenizer that made it has another vocabulary.
    pub fn push_document(&mut self, tokens: &[u32]) {
        if tokens.is_empty() {
            return;
        }
        let highest = tokens.iter().copied().max().unwrap_or(0);
        assert!(u64::from(highest) < self.vocab_size, "token {highest} in a vocabulary of {}", self.vocab_size);
        self.starts.extend_from_slice(&self.n_tokens().to_le_bytes());
        if self.width == 2 {
            self.tokens.extend(tokens.iter().flat_map(|id| (*id as u16).to_le_bytes()));
        } else {
            self.tokens.extend(tokens.iter().flat_map(|id| id.to_le_bytes()));
        }
    }

    /// Writes the shard to `path`, complete or not at all.
    ///
    /// # Errors
    /// [`ShardError::Empty`] without tokens, or the failed file operation.
    pub fn finish(self, fs: &dyn FileSystem, path: &Path) -> Result<WrittenShard, ShardError> {
        if self.tokens.is_empty() {
            return Err(ShardError::Empty(path.to_owned()));
        }
        let mut header = self.header();
        let checksum = checksum(&header, &[&self.starts, &self.tokens]);
        header[CHECKSUM].copy_from_slice(&checksum);
        write_atomic(fs, path, &mut |out| {
            out.write_all(&header)?;
            out.write_all(&self.starts)?;
            out.write_all(&self.tokens)
        })
        .map_err(|source| ShardError::File { path: path.to_owned(), source })?;
        Ok(WrittenShard {
            n_tokens: self.n_tokens(),
            n_documents: (self.starts.len() / 8) as u64,
            checksum: digest::hex(&checksum),
        })
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0u8; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(self.width as u32).to_le_bytes());
        header[16..24].copy_from_slice(&self.vocab_size.to_le_bytes());
        header[24..32].copy_from_slice(&self.n_tokens().to_le_bytes());
        header[32..40].copy_from_slice(&((self.starts.len() / 8) as u64).to_le_bytes());
        header[40..72].copy_from_slice(&self.fingerprint);
        header
    }
}

#[cfg(test)]
mod tests;
