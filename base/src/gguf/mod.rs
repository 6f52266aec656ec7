//! The GGUF container (versions 2 and 3, little-endian): header, key-values, tensor infos, offsets.
//!
//! It is read where it lies, usually in a [`crate::mmap::Mapped`]: nothing of the file is copied, and what is allocated
//! is a list of the keys and one of the tensors, each checked against what the bytes can hold before it is made, so
//! that both together stay below 8 times the length of the file. What the keys mean and what a tensor's bytes mean is
//! known elsewhere. Layout: llama.cpp `docs/gguf.md`; what is refused follows its `gguf.cpp` and `tests/test-gguf.cpp`.

mod read;
mod tensor_type;
mod value;

use std::ops::Range;

pub use tensor_type::TensorType;
pub use value::{Array, Value, ValueType};

use read::Reader;

/// The first four bytes of the file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Tensor data is aligned to this many bytes where `general.alignment` does not say.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Key of the alignment of tensor data.
const ALIGNMENT_KEY: &str = "general.alignment";
/// Longest key in bytes, the format's limit.
const MAX_KEY: u64 = 65_535;
/// Longest tensor name in bytes: ggml keeps 64 with the ending zero.
const MAX_NAME: u64 = 63;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 4;
/// A dimension stays below this: 2^31 no kernel counts.
const MAX_DIM: u64 = 1 << 31;
/// The fewest bytes a key-value takes: an empty key, a type, a byte.
const MIN_KEY_VALUE: u64 = 8 + 4 + 1;
/// The fewest bytes a tensor info takes: an empty name, no dimensions, type, offset.
const MIN_TENSOR_INFO: u64 = 8 + 4 + 4 + 8;

/// Why bytes are not a GGUF file that can be read. Offsets count from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The first bytes are not `GGUF`.
    #[error("it opens with the bytes {found:02x?}, a GGUF file opens with [47, 47, 55, 46]")]
    Magic {
        /// The first bytes, fewer than 4 in a shorter file.
        found: Vec<u8>,
    },
    /// A version whose layout is another.
    #[error("its GGUF version is {found}, versions 2 and 3 can be read")]
    Version {
        /// The version.
        found: u32,
    },
    /// Written on a big-endian machine.
    #[error("it is a big-endian GGUF file of version {version}, little-endian ones can be read")]
    BigEndian {
        /// The version, bytes swapped.
        version: u32,
    },
    /// The file ends inside something.
    #[error("{what} at byte {offset} needs {needed} bytes, {left} are left")]
    Cut {
        /// What was being read.
        what: &'static str,
        /// Where it begins.
        offset: u64,
        /// Bytes it needs.
        needed: u64,
        /// Bytes up to the end of the file.
        left: u64,
    },
    /// A count that the rest of the file cannot hold.
    #[error("it claims {found} {what}, its {left} bytes can hold at most {most}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// The count.
        found: u64,
        /// What fits.
        most: u64,
        /// Bytes left.
        left: u64,
    },
    /// A key or a tensor name that is too long.
    #[error("{what} at byte {offset} is {found} bytes long, at most {most} are accepted")]
    TooLong {
        /// `a key` or `a tensor name`.
        what: &'static str,
        /// Where its length stands.
        offset: u64,
        /// Its length in bytes.
        found: u64,
        /// The limit in bytes.
        most: u64,
    },
    /// A key or a tensor name that is not UTF-8.
    #[error("{what} at byte {offset} is not UTF-8")]
    NotText {
        /// `a key` or `a tensor name`.
        what: &'static str,
        /// Where its length stands.
        offset: u64,
    },
    /// A value type beyond those of the format.
    #[error("the value of `{key}` has type {found}, types are 0 to 12")]
    ValueType {
        /// The key, shortened.
        key: String,
        /// The type.
        found: u32,
    },
    /// Arrays in arrays in arrays.
    #[error("the value of `{key}` nests more than {most} arrays")]
    Nesting {
        /// The key, shortened.
        key: String,
        /// The limit.
        most: u32,
    },
    /// A key or tensor name that stands twice.
    #[error("{what} `{name}` stands twice")]
    Twice {
        /// `the key` or `the tensor`.
        what: &'static str,
        /// Its name, shortened.
        name: String,
    },
    /// An alignment that is none.
    #[error("general.alignment is {found}, a power of two stored as u32 is expected")]
    Alignment {
        /// What stands there.
        found: String,
    },
    /// Too many dimensions.
    #[error("tensor `{name}` has {found} dimensions, at most {MAX_DIMS} are possible")]
    Rank {
        /// The tensor.
        name: String,
        /// Its number of dimensions.
        found: u32,
    },
    /// Dimensions that are too large, or no whole number of blocks.
    #[error("tensor `{name}` has the shape {shape:?} in {kind}: {reason}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its dimensions, innermost first.
        shape: Vec<u64>,
        /// Its type.
        kind: TensorType,
        /// What is wrong.
        reason: &'static str,
    },
    /// A tensor type this build does not know.
    #[error("tensor `{name}` has type {found}, which is not a ggml type that can be read")]
    TensorType {
        /// The tensor.
        name: String,
        /// Its type.
        found: u32,
    },
    /// An offset that does not follow from the tensors before.
    #[error("tensor `{name}` begins at offset {found}, the tensors before it end at {expected}")]
    Offset {
        /// The tensor.
        name: String,
        /// Its offset.
        found: u64,
        /// Where it must begin.
        expected: u64,
    },
    /// The file ends before its tensor data does.
    #[error("its tensor data needs {needed} bytes from byte {start} on, {left} are left")]
    Data {
        /// Where the data begins.
        start: u64,
        /// Bytes the tensors need.
        needed: u64,
        /// Bytes there are.
        left: u64,
    },
}

/// One tensor as the header describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    name: &'a str,
    dims: [u64; MAX_DIMS],
    rank: u8,
    kind: TensorType,
    offset: u64,
    bytes: u64,
}

impl<'a> TensorInfo<'a> {
    /// Its name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Its dimensions, **innermost first** as GGUF stores them: the reverse of a row-major shape.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..usize::from(self.rank)]
    }

    /// How its values are stored.
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// Length of its data in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.bytes
    }
}

/// A GGUF file whose header has been read and checked.
#[derive(Debug)]
pub struct Gguf<'a> {
    file: &'a [u8],
    version: u32,
    entries: Vec<(&'a str, Value<'a>)>,
    tensors: Vec<TensorInfo<'a>>,
    /// Where tensor data begins, and how long the tensors together are; the file may end before.
    data: Range<u64>,
}

impl<'a> Gguf<'a> {
    /// Reads and checks the header of `file`. Tensor data need not be there: [`Gguf::check_data`] asks for it.
    ///
    /// # Errors
    /// What the bytes break, with the offset or the name.
    pub fn parse(file: &'a [u8]) -> Result<Gguf<'a>, GgufError> {
        let mut reader = Reader::new(file);
        let version = header_version(&mut reader)?;
        let n_tensors = reader.u64("the number of tensors")?;
        let n_entries = reader.u64("the number of keys")?;
        reader.check_count("tensors", n_tensors, MIN_TENSOR_INFO)?;
        let entries = read_entries(&mut reader, n_entries)?;
        let alignment = alignment(&entries)?;
        let tensors = read_tensors(&mut reader, n_tensors, alignment)?;
        // Sums of what was checked before: below 2^64.
        let needed = tensors.last().map_or(0, |last| last.offset + last.bytes.next_multiple_of(alignment));
        let start = reader.at().next_multiple_of(alignment);
        Ok(Gguf { file, version, entries, tensors, data: start..start.saturating_add(needed) })
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Keys and values in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.entries.iter().copied()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.tensors
    }

    /// That the file holds the data of every tensor.
    ///
    /// # Errors
    /// [`GgufError::Data`] when it ends before.
    pub fn check_data(&self) -> Result<(), GgufError> {
        let Range { start, end } = self.data;
        let left = (self.file.len() as u64).saturating_sub(start);
        // llama.cpp asks for the padding after the last tensor too.
        match end - start <= left {
            true => Ok(()),
            false => Err(GgufError::Data { start, needed: end - start, left }),
        }
    }

    /// The bytes of `tensor`, which must come from this file.
    ///
    /// # Errors
    /// [`GgufError::Data`] when the file ends before them.
    pub fn tensor_bytes(&self, tensor: &TensorInfo) -> Result<&'a [u8], GgufError> {
        let start = self.data.start.saturating_add(tensor.offset);
        let found = usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(tensor.bytes)).ok());
        let found = found.and_then(|(from, to)| self.file.get(from..to));
        let left = (self.file.len() as u64).saturating_sub(start);
        found.ok_or(GgufError::Data { start, needed: tensor.bytes, left })
    }
}

fn header_version(reader: &mut Reader) -> Result<u32, GgufError> {
    let magic = reader.rest();
    if !magic.starts_with(&MAGIC) {
        return Err(GgufError::Magic { found: magic[..magic.len().min(4)].to_vec() });
    }
    reader.skip("the magic", 4)?;
    match reader.u32("the version")? {
        version @ (2 | 3) => Ok(version),
        version if version & 0xFFFF == 0 && version != 0 => {
            Err(GgufError::BigEndian { version: version.swap_bytes() })
        }
        found => Err(GgufError::Version { found }),
    }
}

fn read_entries<'a>(reader: &mut Reader<'a>, count: u64) -> Result<Vec<(&'a str, Value<'a>)>, GgufError> {
    let mut entries = Vec::with_capacity(reader.check_count("keys", count, MIN_KEY_VALUE)?);
    for _ in 0..count {
        let key = reader.name("a key", MAX_KEY)?;
        let kind = reader.u32("the type of a value")?;
        entries.push((key, Value::read(reader, key, kind)?));
    }
    match twice(entries.iter().map(|(key, _)| *key)) {
        Some(key) => Err(GgufError::Twice { what: "the key", name: shown(key) }),
        None => Ok(entries),
    }
}

fn alignment(entries: &[(&str, Value)]) -> Result<u64, GgufError> {
    match entries.iter().find(|(key, _)| *key == ALIGNMENT_KEY).map(|(_, value)| value) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(alignment)) if alignment.is_power_of_two() => Ok(u64::from(*alignment)),
        Some(other) => Err(GgufError::Alignment { found: other.to_string() }),
    }
}

fn read_tensors<'a>(
    reader: &mut Reader<'a>,
    count: u64,
    alignment: u64,
) -> Result<Vec<TensorInfo<'a>>, GgufError> {
    let mut tensors = Vec::with_capacity(reader.check_count("tensors", count, MIN_TENSOR_INFO)?);
    let mut expected = 0u64;
    for _ in 0..count {
        let tensor = read_tensor(reader)?;
        if tensor.offset != expected {
            let (name, found) = (shown(tensor.name), tensor.offset);
            return Err(GgufError::Offset { name, found, expected });
        }
        let padded = tensor.bytes.checked_next_multiple_of(alignment);
        expected = padded.and_then(|bytes| expected.checked_add(bytes)).ok_or_else(|| GgufError::Shape {
            name: shown(tensor.name),
            shape: tensor.dims().to_vec(),
            kind: tensor.kind,
            reason: "with the tensors before it, it passes 2^64 bytes",
        })?;
        tensors.push(tensor);
    }
    match twice(tensors.iter().map(|tensor| tensor.name)) {
        Some(name) => Err(GgufError::Twice { what: "the tensor", name: shown(name) }),
        None => Ok(tensors),
    }
}

fn read_tensor<'a>(reader: &mut Reader<'a>) -> Result<TensorInfo<'a>, GgufError> {
    let name = reader.name("a tensor name", MAX_NAME)?;
    let rank = reader.u32("the number of dimensions")?;
    if rank as usize > MAX_DIMS {
        return Err(GgufError::Rank { name: shown(name), found: rank });
    }
    let mut dims = [1; MAX_DIMS];
    for dim in &mut dims[..rank as usize] {
        *dim = reader.u64("a dimension")?;
    }
    let found = reader.u32("the type of a tensor")?;
    let kind = TensorType::from_id(found).ok_or_else(|| GgufError::TensorType { name: shown(name), found })?;
    let bytes = kind.bytes_of(dims).map_err(|reason| GgufError::Shape {
        name: shown(name),
        shape: dims[..rank as usize].to_vec(),
        kind,
        reason,
    })?;
    Ok(TensorInfo { name, dims, rank: rank as u8, kind, offset: reader.u64("the offset of a tensor")?, bytes })
}

/// A name that occurs twice, whatever their number.
fn twice<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Option<&'a str> {
    // Their order decides nothing but which of several is named.
    let mut sorted: Vec<&str> = Vec::with_capacity(names.len());
    sorted.extend(names);
    sorted.sort_unstable();
    sorted.windows(2).find(|two| two[0] == two[1]).map(|two| two[0])
}

/// The start of a name, for messages.
fn shown(name: &str) -> String {
    name.chars().take(80).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests;
