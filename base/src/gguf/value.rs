//! Values of keys, borrowed from the file.

use std::fmt;

use super::read::Reader;
use super::{GgufError, shown};

/// Arrays in arrays are read up to this depth.
const MAX_NESTING: u32 = 4;

/// The type of a value or of the items of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// u8
    U8,
    /// i8
    I8,
    /// u16
    U16,
    /// i16
    I16,
    /// u32
    U32,
    /// i32
    I32,
    /// f32
    F32,
    /// One byte; 0 is false.
    Bool,
    /// A u64 length and so many bytes.
    String,
    /// An item type, a u64 count and the items.
    Array,
    /// u64
    U64,
    /// i64
    I64,
    /// f64
    F64,
}

impl ValueType {
    /// In the order of their ids.
    const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
    };

    fn from_id(id: u32) -> Option<ValueType> {
        Self::ALL.get(id as usize).copied()
    }

    /// Bytes of one value; of strings and arrays, the fewest.
    fn least_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

/// The value of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// u8
    U8(u8),
    /// i8
    I8(i8),
    /// u16
    U16(u16),
    /// i16
    I16(i16),
    /// u32
    U32(u32),
    /// i32
    I32(i32),
    /// f32
    F32(f32),
    /// bool
    Bool(bool),
    /// Bytes that should be UTF-8; [`Value::as_str`] asks.
    String(&'a [u8]),
    /// An array.
    Array(Array<'a>),
    /// u64
    U64(u64),
    /// i64
    I64(i64),
    /// f64
    F64(f64),
}

impl<'a> Value<'a> {
    pub(super) fn read(reader: &mut Reader<'a>, key: &str, kind: u32) -> Result<Value<'a>, GgufError> {
        let what = "a value";
        Ok(match value_type(key, kind)? {
            ValueType::U8 => Value::U8(u8::from_le_bytes(reader.array(what)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(reader.array(what)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(reader.array(what)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(reader.array(what)?)),
            ValueType::U32 => Value::U32(reader.u32(what)?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(reader.array(what)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(reader.array(what)?)),
            ValueType::Bool => Value::Bool(reader.array::<1>(what)? != [0]),
            ValueType::String => {
                let length = reader.u64("a string")?;
                Value::String(reader.bytes("a string", length)?)
            }
            ValueType::Array => Value::Array(Array::read(reader, key, 1)?),
            ValueType::U64 => Value::U64(reader.u64(what)?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(reader.array(what)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(reader.array(what)?)),
        })
    }

    /// A string that is UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        match self {
            Value::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An integer of any width that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::U64(n) => Some(n),
            Value::I8(n) => n.try_into().ok(),
            Value::I16(n) => n.try_into().ok(),
            Value::I32(n) => n.try_into().ok(),
            Value::I64(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// A bool.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        match self {
            Value::Array(array) => Some(*array),
            _ => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    /// Short, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::String(bytes) => write!(f, "\"{}\"", shown(&String::from_utf8_lossy(bytes))),
            Value::Array(array) => write!(f, "an array of {} {:?}", array.len(), array.kind),
            Value::U8(n) => write!(f, "{n} (u8)"),
            Value::I8(n) => write!(f, "{n} (i8)"),
            Value::U16(n) => write!(f, "{n} (u16)"),
            Value::I16(n) => write!(f, "{n} (i16)"),
            Value::U32(n) => write!(f, "{n}"),
            Value::I32(n) => write!(f, "{n} (i32)"),
            Value::F32(n) => write!(f, "{n}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::U64(n) => write!(f, "{n} (u64)"),
            Value::I64(n) => write!(f, "{n} (i64)"),
            Value::F64(n) => write!(f, "{n} (f64)"),
        }
    }
}

/// Items of one type, walked through once when the file was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    /// At most the number of bytes of the file.
    count: usize,
    /// The items alone.
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    fn read(reader: &mut Reader<'a>, key: &str, depth: u32) -> Result<Array<'a>, GgufError> {
        let kind = reader.u32("the type of an array's items")?;
        let kind = value_type(key, kind)?;
        let count = reader.u64("the length of an array")?;
        let count = reader.check_count("items of an array", count, kind.least_bytes())?;
        let start = reader.rest();
        match kind {
            ValueType::String => {
                for _ in 0..count {
                    let length = reader.u64("a string")?;
                    reader.skip("a string", length)?;
                }
            }
            ValueType::Array if depth >= MAX_NESTING => {
                return Err(GgufError::Nesting { key: shown(key), most: MAX_NESTING });
            }
            ValueType::Array => {
                for _ in 0..count {
                    Array::read(reader, key, depth + 1)?;
                }
            }
            // The product is at most the rest of the file.
            _ => reader.skip("the items of an array", count as u64 * kind.least_bytes())?,
        }
        let bytes = &start[..start.len() - reader.rest().len()];
        Ok(Array { kind, count, bytes })
    }

    /// Type of the items.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The items of an array of strings, as bytes that should be UTF-8.
    pub fn strings(&self) -> Option<impl Iterator<Item = &'a [u8]> + use<'a>> {
        let mut reader = Reader::new(self.bytes);
        // They were walked through before, so neither read fails.
        let next = move |_| reader.u64("a string").and_then(|n| reader.bytes("a string", n)).unwrap_or_default();
        (self.kind == ValueType::String).then(|| (0..self.count).map(next))
    }

    /// The items of an array of i32.
    pub fn i32s(&self) -> Option<impl Iterator<Item = i32> + use<'a>> {
        (self.kind == ValueType::I32).then(|| self.words().map(i32::from_le_bytes))
    }

    /// The items of an array of f32.
    pub fn f32s(&self) -> Option<impl Iterator<Item = f32> + use<'a>> {
        (self.kind == ValueType::F32).then(|| self.words().map(f32::from_le_bytes))
    }

    fn words(&self) -> impl Iterator<Item = [u8; 4]> + use<'a> {
        self.bytes.as_chunks::<4>().0.iter().copied()
    }
}

fn value_type(key: &str, found: u32) -> Result<ValueType, GgufError> {
    ValueType::from_id(found).ok_or_else(|| GgufError::ValueType { key: shown(key), found })
}
