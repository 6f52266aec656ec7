//! Named tensors as bytes, in and out of the safetensors format
//!
//! The same tensors give the same bytes: order by falling alignment, then by name, and one metadata key.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use super::CheckpointError;

/// Bytes of the header's length in front of the file.
const LENGTH_BYTES: usize = 8;

/// A tensor as its file holds it: little-endian elements, last dimension contiguous.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor<'a> {
    /// Unique name in its file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost dimension at the front.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> NamedTensor<'a> {
    /// An f32 tensor of these little-endian bytes.
    pub fn f32(name: impl Into<String>, shape: Vec<usize>, bytes: impl Into<Cow<'a, [u8]>>) -> Self {
        NamedTensor { name: name.into(), dtype: Dtype::F32, shape, bytes: bytes.into() }
    }
}

/// Checks what is about to be written.
///
/// # Errors
/// A name twice, bytes that do not fill the shape, a number that is not finite.
pub(super) fn check(tensors: &[NamedTensor<'_>]) -> Result<(), CheckpointError> {
    let mut names = BTreeSet::from(["__metadata__"]);
    for tensor in tensors {
        if !names.insert(&tensor.name) {
            return Err(CheckpointError::BadName { tensor: tensor.name.clone() });
        }
        let expected = bytes_of(tensor).unwrap_or(usize::MAX);
        if expected != tensor.bytes.len() {
            return Err(CheckpointError::BytesDiffer {
                tensor: tensor.name.clone(),
                shape: tensor.shape.clone(),
                found: tensor.bytes.len(),
                expected,
            });
        }
        if let Some((at, len)) = first_not_finite(tensor.dtype, &tensor.bytes) {
            let tensor = tensor.name.clone();
            return Err(CheckpointError::NotFinite { tensor, at, len });
        }
    }
    Ok(())
}

/// Writes checked tensors as one safetensors file.
pub(super) fn write(out: &mut dyn Write, tensors: &[NamedTensor<'_>]) -> io::Result<()> {
    let mut order: Vec<&NamedTensor<'_>> = tensors.iter().collect();
    order.sort_by(|one, other| (other.dtype, &one.name).cmp(&(one.dtype, &other.name)));
    let mut end = 0;
    let infos = order.iter().map(|tensor| {
        let start = end;
        end += tensor.bytes.len();
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (start, end) };
        (tensor.name.clone(), info)
    });
    // The crate writes this map in hash order, so it may hold one key at most.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(about), infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    order.iter().try_for_each(|tensor| out.write_all(&tensor.bytes))
}

/// Where each tensor of a file lies.
#[derive(Debug)]
pub(super) struct TensorIndex {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    place: Range<usize>,
}

impl TensorIndex {
    pub(super) fn tensors<'a>(&self, file: &'a [u8]) -> Vec<NamedTensor<'a>> {
        let entries = self.entries.iter();
        let named = entries.map(|entry| NamedTensor {
            name: entry.name.clone(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            bytes: Cow::Borrowed(&file[entry.place.clone()]),
        });
        named.collect()
    }
}

/// Reads the header of a safetensors file; every place of the result lies inside `file`.
pub(super) fn parse(path: &Path, file: &[u8]) -> Result<TensorIndex, CheckpointError> {
    let bad = |what| CheckpointError::BadTensors { path: path.to_path_buf(), what };
    refuse_far_offsets(file).map_err(bad)?;
    let read = SafeTensors::read_metadata(file);
    let (header, metadata) = read.map_err(|error| bad(error.to_string()))?;
    let base = LENGTH_BYTES + header;
    let entries = metadata.offset_keys().into_iter().filter_map(|name| {
        let info = metadata.info(&name)?;
        let (start, end) = info.data_offsets;
        let (dtype, shape) = (info.dtype, info.shape.clone());
        let place = base + start..base + end;
        Some(Entry { name, dtype, shape, place })
    });
    Ok(TensorIndex { entries: entries.collect() })
}

/// The crate adds the last offset to the header's length without a check, which overflows on a forged file.
fn refuse_far_offsets(file: &[u8]) -> Result<(), String> {
    let len = file.len();
    let head = file.first_chunk::<LENGTH_BYTES>();
    let header = head.map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
    let end = usize::try_from(header).ok().and_then(|header| header.checked_add(LENGTH_BYTES));
    let Some(bytes) = end.and_then(|end| file.get(LENGTH_BYTES..end)) else {
        return Err(format!("its header claims {header} bytes of a file of {len}"));
    };
    let metadata: Metadata = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if metadata.data_len() > len {
        let claimed = metadata.data_len();
        return Err(format!("its tensors claim {claimed} bytes of a file of {len}"));
    }
    Ok(())
}

fn bytes_of(tensor: &NamedTensor<'_>) -> Option<usize> {
    let mut elements = tensor.shape.iter().copied();
    let elements = elements.try_fold(1, usize::checked_mul)?;
    Some(elements.checked_mul(tensor.dtype.bitsize())?.div_ceil(8))
}

/// Index of an element that is not finite, and the number of elements; `None` for integer types.
fn first_not_finite(dtype: Dtype, bytes: &[u8]) -> Option<(usize, usize)> {
    // A float is infinite or NaN exactly when all bits of its exponent are set.
    let at_ones = |bits, mask| bits & mask == mask;
    match dtype {
        Dtype::F64 => scan(bytes, |b| at_ones(u64::from_le_bytes(b), 0x7ff << 52)),
        Dtype::F32 => scan(bytes, |b| at_ones(u64::from(u32::from_le_bytes(b)), 0xff << 23)),
        Dtype::F16 => scan(bytes, |b| at_ones(u64::from(u16::from_le_bytes(b)), 0x1f << 10)),
        Dtype::BF16 => scan(bytes, |b| at_ones(u64::from(u16::from_le_bytes(b)), 0xff << 7)),
        _ => None,
    }
}

fn scan<const N: usize>(bytes: &[u8], is_bad: impl Fn([u8; N]) -> bool) -> Option<(usize, usize)> {
    /// A block without a branch inside is vectorized by the compiler.
    const BLOCK: usize = 4096;
    let (elements, _) = bytes.as_chunks::<N>();
    for (index, block) in elements.chunks(BLOCK).enumerate() {
        if block.iter().fold(false, |bad, &element| bad | is_bad(element)) {
            let at = block.iter().position(|&element| is_bad(element))?;
            return Some((index * BLOCK + at, elements.len()));
        }
    }
    None
}
