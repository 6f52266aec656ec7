//! A cursor over the bytes of a file that never reads beyond them.

use super::GgufError;

/// Where reading stands.
pub(super) struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { file, at: 0 }
    }

    pub(super) fn at(&self) -> u64 {
        self.at as u64
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.file[self.at..]
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, what: &'static str, count: u64) -> Result<&'a [u8], GgufError> {
        let rest = self.rest();
        let found = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let left = rest.len() as u64;
        let found = found.ok_or(GgufError::Cut { what, offset: self.at(), needed: count, left })?;
        self.at += found.len();
        Ok(found)
    }

    pub(super) fn skip(&mut self, what: &'static str, count: u64) -> Result<(), GgufError> {
        self.bytes(what, count).map(drop)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GgufError> {
        let bytes = self.bytes(what, N as u64)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A key or tensor name of at most `most` bytes.
    pub(super) fn name(&mut self, what: &'static str, most: u64) -> Result<&'a str, GgufError> {
        let offset = self.at();
        let found = self.u64(what)?;
        if found > most {
            return Err(GgufError::TooLong { what, offset, found, most });
        }
        let bytes = self.bytes(what, found)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::NotText { what, offset })
    }

    /// A count as a length, where the rest of the file can hold that many things of at least `least` bytes.
    pub(super) fn check_count(&self, what: &'static str, found: u64, least: u64) -> Result<usize, GgufError> {
        let left = self.rest().len() as u64;
        let most = left / least;
        // Not more than the bytes of the file, so it fits.
        if found <= most { Ok(found as usize) } else { Err(GgufError::Count { what, found, most, left }) }
    }
}
