//! GGUF files put together piece by piece, right or wrong.

/// Bytes of a GGUF file as they grow. Nothing is checked: counts may lie.
#[derive(Clone, Debug, Default)]
pub struct GgufBytes(
    /// What was put so far.
    pub Vec<u8>,
);

impl GgufBytes {
    /// A header of version 3 that claims so many tensors and keys.
    pub fn header(tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(keys)
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// A little-endian u32.
    pub fn u32(self, n: u32) -> Self {
        self.raw(&n.to_le_bytes())
    }

    /// A little-endian u64.
    pub fn u64(self, n: u64) -> Self {
        self.raw(&n.to_le_bytes())
    }

    /// A length and so many bytes.
    pub fn string(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.u64(bytes.len() as u64).raw(bytes)
    }

    /// A key with a value of this type.
    pub fn key(self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.string(key).u32(kind).raw(value)
    }

    /// A key with a string.
    pub fn key_string(self, key: &str, value: &str) -> Self {
        self.string(key).u32(8).string(value)
    }

    /// A key with a u32.
    pub fn key_u32(self, key: &str, value: u32) -> Self {
        self.key(key, 4, &value.to_le_bytes())
    }

    /// A key with an array of strings.
    pub fn key_strings<T: AsRef<[u8]>>(self, key: &str, values: &[T]) -> Self {
        let head = self.string(key).u32(9).u32(8).u64(values.len() as u64);
        values.iter().fold(head, |file, value| file.string(value))
    }

    /// A key with an array of i32.
    pub fn key_i32s(self, key: &str, values: &[i32]) -> Self {
        let head = self.string(key).u32(9).u32(5).u64(values.len() as u64);
        values.iter().fold(head, |file, value| file.raw(&value.to_le_bytes()))
    }

    /// A key with an array of f32.
    pub fn key_f32s(self, key: &str, values: &[f32]) -> Self {
        let head = self.string(key).u32(9).u32(6).u64(values.len() as u64);
        values.iter().fold(head, |file, value| file.raw(&value.to_le_bytes()))
    }

    /// A tensor info; dimensions are innermost first.
    pub fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let head = self.string(name).u32(dims.len() as u32);
        dims.iter().fold(head, |file, dim| file.u64(*dim)).u32(kind).u64(offset)
    }

    /// Zeros up to a multiple of `alignment`.
    pub fn pad(mut self, alignment: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(alignment), 0);
        self
    }
}
