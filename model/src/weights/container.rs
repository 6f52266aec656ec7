//! One safetensors file, mapped and checked.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::mmap::Mapped;
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo};
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::WeightsError;
use crate::config::{MAX_DIMENSION, clipped, shown};

/// Largest accepted header, the format's own limit.
const MAX_HEADER: u64 = 100_000_000;
/// More dimensions than this no tensor of a language model has.
const MAX_RANK: usize = 8;

/// A mapped safetensors file whose header has been checked: every offset lies inside, none overlap, no
/// name stands twice.
#[derive(Debug)]
pub struct TensorFile {
    map: Mapped,
    tensors: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    range: std::ops::Range<usize>,
}

/// One tensor as it stands in the file.
#[derive(Debug, Clone, Copy)]
pub struct StoredTensor<'a> {
    /// Its dtype.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Little-endian values, row-major.
    pub bytes: &'a [u8],
}

impl TensorFile {
    /// Maps and checks `path`.
    ///
    /// # Errors
    /// [`WeightsError::File`] when it cannot be mapped, [`WeightsError::Format`] when it breaks the format.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let map = Mapped::open(path)?;
        let tensors = parse(map.as_bytes()).map_err(|message| WeightsError::Format {
            path: path.to_path_buf(),
            message: clipped(&message, 600),
        })?;
        Ok(Self { map, tensors })
    }

    /// Path as it was given.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// Names in the order of the file's data.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|entry| entry.name.as_str())
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.tensors.iter().find(|entry| entry.name == name).map(|entry| self.stored(entry))
    }

    /// All tensors with their names, in the order of the file's data.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, StoredTensor<'_>)> {
        self.tensors.iter().map(|entry| (entry.name.as_str(), self.stored(entry)))
    }

    fn stored<'a>(&'a self, entry: &'a Entry) -> StoredTensor<'a> {
        let bytes = &self.map.as_bytes()[entry.range.clone()];
        StoredTensor { dtype: entry.dtype, shape: &entry.shape, bytes }
    }

    /// The f32 tensor of that name as one vector on `device`; `None` where it is absent or of another dtype.
    pub fn vector(&self, name: &str, device: &Device) -> Option<Tensor<1>> {
        let tensor = self.get(name).filter(|tensor| tensor.dtype == Dtype::F32)?;
        let values: Vec<f32> = tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let n = values.len();
        Some(Tensor::from_data(TensorData::new(values, [n]), (device, DType::F32)))
    }
}

/// Checks the bytes of a safetensors file and lists its tensors.
fn parse(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let Some(length) = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) else {
        return Err(format!("{} bytes long, the header alone takes at least 8", bytes.len()));
    };
    if length > MAX_HEADER {
        return Err(format!("the header claims {length} bytes, the format allows {MAX_HEADER}"));
    }
    let available = bytes.len() as u64 - 8;
    if length > available {
        return Err(format!("the header claims {length} bytes, the file has {available} after its length"));
    }
    let data = data_length(&bytes[8..8 + length as usize])?;
    let (found, expected) = (bytes.len() as u64, (8 + length).saturating_add(data));
    if found != expected {
        return Err(format!("the file is {found} bytes long, its header asks for {expected}"));
    }
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|e| format!("{e} (the file is {} bytes long, its header {length})", bytes.len()))?;
    let data_start = 8 + length as usize;
    let mut entries: Vec<Entry> = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| Entry {
            name,
            dtype: info.dtype,
            shape: info.shape.clone(),
            range: data_start + info.data_offsets.0..data_start + info.data_offsets.1,
        })
        .collect();
    entries.sort_by(|a, b| (a.range.start, &a.name).cmp(&(b.range.start, &b.name)));
    for entry in &entries {
        if entry.shape.len() > MAX_RANK {
            return Err(format!("`{}` has {} dimensions, at most {MAX_RANK}", entry.name, entry.shape.len()));
        }
        if let Some(d) = entry.shape.iter().find(|&&d| d as u64 > MAX_DIMENSION) {
            return Err(format!("`{}` has a dimension of {d}, at most {MAX_DIMENSION}", entry.name));
        }
    }
    Ok(entries)
}

/// Bytes of data after the header, by the greatest end among its tensors. JSON lets a key stand twice and
/// parsers disagree about which wins; such a header is refused.
fn data_length(header: &[u8]) -> Result<u64, String> {
    struct Tensors;
    impl<'de> Visitor<'de> for Tensors {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object of tensors")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
            let (mut seen, mut greatest) = (HashSet::new(), 0);
            while let Some(key) = map.next_key::<String>()? {
                if key == "__metadata__" {
                    map.next_value::<IgnoredAny>()?;
                } else {
                    let wrong = |e: String| A::Error::custom(format!("`{}`: {e}", shown(&key)));
                    let info = map.next_value::<TensorInfo>().map_err(|e| wrong(e.to_string()))?;
                    fits(&info).map_err(wrong)?;
                    greatest = greatest.max(info.data_offsets.1 as u64);
                }
                if seen.contains(&key) {
                    return Err(A::Error::custom(format!("`{}` stands twice", shown(&key))));
                }
                seen.insert(key);
            }
            Ok(greatest)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_slice(header);
    deserializer.deserialize_map(Tensors).map_err(|e| format!("header: {e}"))
}

/// Whether a tensor's shape takes the bytes that its offsets give it.
fn fits(info: &TensorInfo) -> Result<(), String> {
    let (dtype, shape, (start, end)) = (info.dtype, &info.shape, info.data_offsets);
    let Some(stored) = end.checked_sub(start) else {
        return Err(format!("its data end at {end}, before their start at {start}"));
    };
    let bits = shape.iter().try_fold(dtype.bitsize(), |bits, &d| bits.checked_mul(d));
    let expected = match bits {
        Some(bits) if bits.is_multiple_of(8) && bits / 8 == stored => return Ok(()),
        Some(bits) if bits.is_multiple_of(8) => format!("{} bytes", bits / 8),
        Some(bits) => format!("{bits} bits"),
        None => "more bytes than can be counted".to_string(),
    };
    Err(format!("{dtype:?} {} is stored in {stored} bytes, expected {expected}", shown(&format!("{shape:?}"))))
}

/// Writes a safetensors file: the named tensors (off the autodiff graph) as `dtype`, with the one metadata
/// key `format: pt` that transformers asks for. Tensors leave the device one at a time. Equal tensors give
/// equal bytes.
///
/// # Errors
/// Those of `out`, and of reading a tensor back from its device.
pub fn write_tensors(
    tensors: &[(String, Vec<usize>, Tensor<1>)],
    dtype: DType,
    out: &mut dyn Write,
) -> io::Result<()> {
    let element = dtype.size();
    let mut header = String::from("{\"__metadata__\":{\"format\":\"pt\"}");
    let mut offset = 0;
    for (name, shape, _) in tensors {
        let end = offset + shape.iter().product::<usize>() * element;
        let (name, wire) = (serde_json::Value::from(name.as_str()), dtype_name(dtype));
        header +=
            &format!(",{name}:{{\"dtype\":\"{wire}\",\"shape\":{shape:?},\"data_offsets\":[{offset},{end}]}}");
        offset = end;
    }
    header.push('}');
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for (_, _, tensor) in tensors {
        let data = tensor.clone().cast(dtype).try_into_data().map_err(io::Error::other)?;
        out.write_all(data.as_bytes())?;
    }
    Ok(())
}

fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        _ => "F32",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn refused(bytes: &[u8], part: &str) {
        let message = parse(bytes).expect_err(part);
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }

    #[test]
    fn lengths_and_names_are_checked() {
        refused(&[], "0 bytes long");
        refused(&[0; 7], "7 bytes long");
        refused(&file("", 0), "header");
        refused(&u64::MAX.to_le_bytes(), "claims 18446744073709551615");
        refused(&(1u64 << 31).to_le_bytes(), "claims 2147483648");
        refused(&[200, 0, 0, 0, 0, 0, 0, 0, b'{'], "the file has 1");
        let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        assert_eq!(parse(&file(good, 8)).unwrap().len(), 1);
        refused(&file(good, 9), "the file is 71 bytes long, its header asks for 70");
        refused(&file(good, 7), "the file is 69 bytes long, its header asks for 70");
        let twice = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        refused(&file(twice, 8), "stands twice");
    }

    #[test]
    fn offsets_and_shapes_are_checked() {
        for (shape, offsets, data) in [
            ("[2]", "[8,0]", 8),                        // reversed
            ("[2]", "[4,12]", 12),                      // hole
            ("[3]", "[0,8]", 8),                        // shape and size differ
            ("[4294967296,4294967296,16]", "[0,8]", 8), // product overflows
            ("[18446744073709551615]", "[0,8]", 8),     // dimension overflows
            ("[-1]", "[0,8]", 8),                       // negative
        ] {
            let header = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
            assert!(parse(&file(&header, data)).is_err(), "{header}");
        }
        // Sizes near 2^64: nothing may be added to them unchecked.
        let far = r#"{"a":{"dtype":"U8","shape":[18446744073709551600],"data_offsets":[0,18446744073709551600]}}"#;
        assert!(parse(&file(far, 8)).is_err());
        let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        assert!(parse(&file(overlap, 12)).is_err());
        assert!(parse(&file(r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, 8)).is_err());
        let deep = r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#;
        refused(&file(deep, 4), "33 dimensions");
    }

    #[test]
    fn empty_and_scalar_tensors_are_part_of_the_format() {
        let header = r#"{"e":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
        let entries = parse(&file(header, 4)).unwrap();
        assert_eq!(entries.len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// F1: any bytes give an error or a list of tensors that lie inside the file.
        #[test]
        fn any_bytes_are_refused_or_lie_inside(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            header in "\\{\"[ab]\":\\{\"dtype\":\"(F32|BF16|I4)\",\"shape\":\\[[0-9]{1,12}(,[0-9]{1,3})?\\],\"data_offsets\":\\[[0-9]{1,3},[0-9]{1,20}\\]\\}\\}",
            data in 0usize..64,
            flip in any::<(prop::sample::Index, u8)>(),
        ) {
            let mut built = file(&header, data);
            let at = flip.0.index(built.len());
            for bytes in [noise, built.clone(), { built[at] = flip.1; built }] {
                if let Ok(entries) = parse(&bytes) {
                    for entry in entries {
                        prop_assert!(entry.range.end <= bytes.len());
                    }
                }
            }
        }
    }
}
