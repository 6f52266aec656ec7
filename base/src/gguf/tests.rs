use proptest::prelude::*;

use super::*;
use crate::testing::gguf::GgufBytes;

/// Keys of every type, and arrays of each.
fn keys(mut file: GgufBytes) -> GgufBytes {
    for (kind, width) in
        [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)]
    {
        let value: Vec<u8> = (0..width).map(|i| 0xF3 - i).collect();
        file = file.key(&format!("my_key_{kind}"), kind, &value);
        file = file.string(format!("my_key_array_{kind}")).u32(9).u32(kind).u64(3).raw(&value.repeat(3));
    }
    // A string need not be UTF-8.
    file.key("my_key_8", 8, &[2, 0, 0, 0, 0, 0, 0, 0, 0xFF, 1]).key_strings("my_key_array_8", &["a", "", "bcd"])
}
const N_KEYS: u64 = 24;

/// (name, dimensions, type, bytes)
const TENSORS: [(&str, &[u64], u32, u64); 4] = [
    ("my_tensor_0", &[3, 5], 0, 60),
    ("my_tensor_1", &[64, 2], 8, 136),
    ("my_tensor_2", &[256, 1, 3], 12, 432),
    ("my_tensor_3", &[7], 30, 14),
];

/// Infos of [`TENSORS`] as they lie with this alignment, and the length of their data.
fn infos(mut file: GgufBytes, alignment: u64) -> (GgufBytes, u64) {
    let mut offset = 0;
    for (name, dims, kind, bytes) in TENSORS {
        file = file.tensor(name, dims, kind, offset);
        offset += bytes.next_multiple_of(alignment);
    }
    (file, offset)
}

/// A whole file whose data is cut by `missing` bytes.
fn whole(alignment: Option<u32>, written: u64, missing: u64) -> Vec<u8> {
    let mut file = keys(GgufBytes::header(4, N_KEYS + u64::from(alignment.is_some())));
    if let Some(alignment) = alignment {
        file = file.key_u32("general.alignment", alignment);
    }
    let (file, data) = infos(file, written);
    let mut bytes = file.pad(written as usize).0;
    bytes.extend((0..data - missing).map(|i| i as u8));
    bytes
}

/// Like llama.cpp's reader when it loads the data too.
fn read(bytes: &[u8]) -> Result<Gguf<'_>, GgufError> {
    let file = Gguf::parse(bytes)?;
    file.check_data().map(|()| file)
}

/// One tensor info, alone, of a header without keys.
fn one(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    GgufBytes::header(1, 0).tensor(name, dims, kind, offset).pad(32).0
}

/// The hand-made bad files of llama.cpp's `tests/test-gguf.cpp` by their names there (`HANDCRAFTED_...`), and the one
/// it left out because its own reader took more than a terabyte of memory.
fn bad_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with_header = |magic: &[u8], version: u32, tensors: u64, keys: u64| {
        GgufBytes::default().raw(magic).u32(version).u64(tensors).u64(keys).pad(32).0
    };
    let key = |file: GgufBytes| file.pad(32).0;
    let long = format!("my_tensor_{}", "x".repeat(54));
    vec![
        ("HEADER_BAD_MAGIC", with_header(b"FUGG", 3, 0, 0), "it opens with the bytes [46, 55, 47, 47]"),
        ("HEADER_BAD_VERSION_0", with_header(b"GGUF", 0, 0, 0), "version is 0"),
        ("HEADER_BAD_VERSION_1", with_header(b"GGUF", 1, 0, 0), "version is 1, versions 2 and 3 can be read"),
        ("HEADER_BAD_VERSION_FUTURE", with_header(b"GGUF", 4, 0, 0), "version is 4"),
        ("HEADER_BAD_N_TENSORS", with_header(b"GGUF", 3, u64::MAX, 0), "claims 18446744073709551615 tensors"),
        ("HEADER_BAD_N_KV", with_header(b"GGUF", 3, 0, u64::MAX), "claims 18446744073709551615 keys"),
        (
            "KV_BAD_KEY_SIZE",
            key(GgufBytes::header(0, 1).u64(u64::MAX).raw(b"my_key").u32(4).u32(1)),
            "a key at byte 24",
        ),
        ("KV_BAD_TYPE", key(GgufBytes::header(0, 1).key("my_key", 13, &[0])), "`my_key` has type 13"),
        (
            "KV_BAD_VALUE_SIZE",
            key(GgufBytes::header(0, 1).string("my_key").u32(8).u64(1 << 63)),
            "needs 9223372036854775808 bytes",
        ),
        (
            "KV_DUPLICATE_KEY",
            key(GgufBytes::header(0, 2).key_u32("my_key", 1).key_u32("my_key", 2)),
            "the key `my_key` stands twice",
        ),
        ("KV_BAD_ALIGN", key(GgufBytes::header(0, 1).key_u32("general.alignment", 13)), "general.alignment is 13"),
        ("TENSORS_BAD_NAME_SIZE", one(&long, &[1], 0, 0), "is 64 bytes long, at most 63"),
        ("TENSORS_BAD_N_DIMS", one("my_tensor", &[1; 5], 0, 0), "`my_tensor` has 5 dimensions, at most 4"),
        ("TENSORS_BAD_SHAPE", one("my_tensor", &[u64::MAX, u64::MAX], 0, 0), "must be below 2^31"),
        ("TENSORS_NE_TOO_BIG", one("my_tensor", &[0x1_FFFF_FFFC, 0x1_FFFF_FFFC], 0, 0), "must be below 2^31"),
        ("TENSORS_BAD_TYPE", one("my_tensor", &[1], 99, 0), "`my_tensor` has type 99"),
        ("TENSORS_BAD_OFFSET", one("my_tensor", &[1], 0, u64::MAX), "begins at offset 18446744073709551615"),
        (
            "TENSORS_DUPLICATE_NAME",
            GgufBytes::header(2, 0).tensor("a", &[8], 0, 0).tensor("a", &[8], 0, 32).pad(32).0,
            "the tensor `a` stands twice",
        ),
        (
            "TENSORS_BAD_ALIGN",
            infos(keys(GgufBytes::header(4, N_KEYS + 1)).key_u32("general.alignment", 13), 13).0.pad(13).0,
            "general.alignment is 13",
        ),
        (
            "TENSORS_INCONSISTENT_ALIGN",
            infos(GgufBytes::header(4, 0), 1).0.0,
            "`my_tensor_1` begins at offset 60, the tensors before it end at 64",
        ),
        ("DATA_NOT_ENOUGH_DATA", whole(None, 32, 1), "are left"),
        ("DATA_BAD_ALIGN", whole(Some(13), 13, 0), "general.alignment is 13"),
        ("DATA_INCONSISTENT_ALIGN", whole(None, 1, 0), "begins at offset 60"),
    ]
}

#[test]
fn the_bad_files_of_llama_cpp_are_refused_by_name() {
    for (name, bytes, says) in bad_files() {
        let error = read(&bytes).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    assert_eq!(bad_files().len(), 23);
}

#[test]
fn the_good_files_of_llama_cpp_are_read() {
    let empty = GgufBytes::header(0, 0).pad(32).0;
    let kv = keys(GgufBytes::header(0, N_KEYS)).pad(32).0;
    let tensors = infos(keys(GgufBytes::header(4, N_KEYS)), 32).0.pad(32).0;
    let custom = keys(GgufBytes::header(4, N_KEYS + 1)).key_u32("general.alignment", 1);
    let custom = infos(custom, 1).0.0;
    // Without the data that its infos speak of, a header is readable but not whole.
    for (name, bytes, n_keys, n_tensors, is_whole) in [
        ("HEADER_EMPTY", &empty, 0, 0, true),
        ("KV_SUCCESS", &kv, 24, 0, true),
        ("TENSORS_SUCCESS", &tensors, 24, 4, false),
        ("TENSORS_CUSTOM_ALIGN", &custom, 25, 4, false),
        ("DATA_SUCCESS", &whole(None, 32, 0), 24, 4, true),
        ("DATA_CUSTOM_ALIGN", &whole(Some(1), 1, 0), 25, 4, true),
    ] {
        let file = Gguf::parse(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((file.entries().count(), file.tensors().len()), (n_keys, n_tensors), "{name}");
        assert_eq!(file.check_data().is_ok(), is_whole, "{name}");
        // Padding and anything behind the data may follow.
        assert_eq!(Gguf::parse(&[bytes.as_slice(), &[0; 77]].concat()).unwrap().tensors(), file.tensors());
    }
}

#[test]
fn values_and_tensors_are_those_of_the_bytes() {
    let bytes = whole(None, 32, 0);
    let file = read(&bytes).unwrap();
    assert_eq!(file.version(), 3);
    assert_eq!(file.get("my_key_2"), Some(Value::U16(0xF2F3)));
    assert_eq!(file.get("my_key_1"), Some(Value::I8(-13)));
    assert_eq!(file.get("my_key_1").unwrap().as_u64(), None);
    assert_eq!(file.get("my_key_10").unwrap().as_u64(), Some(0xECED_EEEF_F0F1_F2F3));
    assert_eq!(file.get("my_key_7").unwrap().as_bool(), Some(true));
    assert_eq!(file.get("my_key_8"), Some(Value::String(&[0xFF, 1])));
    assert_eq!(file.get("my_key_8").unwrap().as_str(), None);
    let strings = file.get("my_key_array_8").unwrap().as_array().unwrap();
    assert_eq!((strings.len(), strings.is_empty(), strings.kind()), (3, false, ValueType::String));
    assert_eq!(strings.strings().unwrap().collect::<Vec<_>>(), [&b"a"[..], b"", b"bcd"]);
    assert!(strings.i32s().is_none() && strings.f32s().is_none());
    let numbers = file.get("my_key_array_5").unwrap().as_array().unwrap();
    assert_eq!(numbers.i32s().unwrap().collect::<Vec<_>>(), [i32::from_le_bytes([0xF3, 0xF2, 0xF1, 0xF0]); 3]);
    assert!(numbers.strings().is_none() && file.get("absent").is_none());
    let mut at = 0usize;
    for (info, (name, dims, kind, n_bytes)) in file.tensors().iter().zip(TENSORS) {
        assert_eq!((info.name(), info.dims(), info.kind() as u32, info.n_bytes()), (name, dims, kind, n_bytes));
        let expected: Vec<u8> = (at..at + n_bytes as usize).map(|i| i as u8).collect();
        assert_eq!(file.tensor_bytes(info).unwrap(), expected);
        at += (n_bytes as usize).next_multiple_of(32);
    }
    // Version 2 has the same layout.
    let mut second = bytes.clone();
    second[4] = 2;
    assert_eq!(read(&second).unwrap().version(), 2);
    let mut big = bytes.clone();
    big[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert_eq!(Gguf::parse(&big).unwrap_err(), GgufError::BigEndian { version: 3 });
}

#[test]
fn every_cut_of_the_header_is_an_error() {
    let bytes = whole(None, 32, 0);
    let end = infos(keys(GgufBytes::header(4, N_KEYS)), 32).0.0.len();
    for cut in 0..end {
        assert!(Gguf::parse(&bytes[..cut]).is_err(), "{cut} of {end}");
    }
    let file = Gguf::parse(&bytes[..end]).unwrap();
    let last = file.tensors().last().unwrap();
    assert!(matches!(file.tensor_bytes(last), Err(GgufError::Data { needed: 14, left: 0, .. })));
}

#[test]
fn arrays_nest_four_deep_and_no_deeper() {
    let nested = |depth: usize| {
        let head = (1..depth).fold(GgufBytes::header(0, 1).string("k").u32(9), |file, _| file.u32(9).u64(1));
        head.u32(0).u64(2).raw(&[1, 2]).0
    };
    for depth in 1..=4 {
        let bytes = nested(depth);
        let file = Gguf::parse(&bytes).unwrap();
        assert!(!file.get("k").unwrap().as_array().unwrap().is_empty());
    }
    assert_eq!(Gguf::parse(&nested(5)).unwrap_err(), GgufError::Nesting { key: "k".to_owned(), most: 4 });
    assert!(Gguf::parse(&nested(50_000)).is_err());
    // Arrays of nothing in arrays of nothing cost their bytes, and no more of them can be claimed.
    let many = GgufBytes::header(0, 1).string("k").u32(9).u32(9).u64(1 << 40).raw(&[0; 1200]).0;
    assert!(matches!(Gguf::parse(&many), Err(GgufError::Count { .. })));
}

#[test]
fn block_sizes_are_those_of_ggml() {
    // tests/fixtures/make/gguf_vocabularies.py: PyPI `gguf`. Blocks of Q8_1 are never stored; Python's number is that
    // of an older struct.
    let recorded = include_str!("../../../tests/fixtures/gguf/types.txt");
    let ours = TensorType::ALL.iter().map(|kind| {
        let (values, bytes) = if *kind == TensorType::Q8_1 { (32, 40) } else { kind.block() };
        format!("{} {kind} {values} {bytes}\n", *kind as u32)
    });
    assert_eq!(ours.collect::<String>(), recorded);
    let ids: Vec<u32> = TensorType::ALL.iter().map(|kind| *kind as u32).collect();
    assert!(ids.is_sorted() && ids.iter().all(|id| TensorType::from_id(*id).map(|kind| kind as u32) == Some(*id)));
    let error = Gguf::parse(&one("t", &[33], 8, 0)).unwrap_err().to_string();
    assert_eq!(
        error,
        "tensor `t` has the shape [33] in Q8_0: its innermost dimension is not a whole number of blocks"
    );
    assert!(Gguf::parse(&one("t", &[(1 << 31) - 1; 4], 0, 0)).unwrap_err().to_string().contains("2^63 values"));
}

/// Bytes that parsing keeps, which is all it allocates but for the sorted names and a message.
fn kept(file: &Gguf) -> usize {
    let names = size_of::<&str>() * (file.entries.capacity() + file.tensors.capacity());
    names + size_of_val(file.entries.as_slice()) + size_of_val(file.tensors.as_slice())
}

/// Property F2: an error, or a file whose every part lies inside the bytes, for at most 8 times their memory.
fn check(bytes: &[u8]) {
    let Ok(file) = Gguf::parse(bytes) else {
        return;
    };
    assert!(kept(&file) <= 8 * bytes.len(), "{} for {}", kept(&file), bytes.len());
    for (key, value) in file.entries() {
        assert!(key.len() <= bytes.len());
        if let Some(array) = value.as_array() {
            assert!(array.len() <= bytes.len());
            let strings = array.strings().map_or(0, |strings| strings.map(<[u8]>::len).sum());
            assert!(strings <= bytes.len());
        }
    }
    for tensor in file.tensors() {
        assert_eq!(file.tensor_bytes(tensor).map_or(tensor.n_bytes(), |data| data.len() as u64), tensor.n_bytes());
    }
    if file.check_data().is_ok() {
        assert!(file.tensors().iter().all(|tensor| file.tensor_bytes(tensor).is_ok()));
    }
}

#[test]
fn the_smallest_entries_stay_below_eight_times_the_file() {
    let keys: Vec<String> = (0..2000).map(|n: u32| char::from_u32(0x100 + n).unwrap().to_string()).collect();
    let file = keys.iter().fold(GgufBytes::header(0, 2000), |file, key| file.key(key, 0, &[1]));
    check(&file.0);
    let file = keys.iter().fold(GgufBytes::header(2000, 0), |file, key| file.tensor(key, &[], 24, 0));
    assert!(Gguf::parse(&file.0).is_err());
    let infos =
        (0..).zip(&keys).fold(GgufBytes::header(2000, 0), |file, (n, key)| file.tensor(key, &[], 24, 32 * n));
    assert_eq!(Gguf::parse(&infos.0).unwrap().tensors().len(), 2000);
    check(&infos.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn f2_any_bytes_are_an_error_or_lie_inside(
        start in 0usize..7,
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            Just(vec![0xFF; 8]), Just(vec![0; 8]), Just(vec![0, 0, 0, 0x80]), Just(vec![1]), Just(vec![9]),
            prop::collection::vec(any::<u8>(), 1..12),
        ]), 0..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = match start {
            0 => Vec::new(),
            1 => GgufBytes::header(0, 1).0,
            2 => GgufBytes::header(0, 3).key_u32("a", 1).key_strings("b", &["x", "yy"]).key_string("c", "z").0,
            3 => whole(Some(1), 1, 0),
            _ => whole(None, 32, 0),
        };
        for (at, with) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + with.len()).min(bytes.len());
            bytes.splice(at..end, with);
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1)));
        check(&bytes);
    }
}
