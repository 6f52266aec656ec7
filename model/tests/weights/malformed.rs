//! W1 to W4, W10 and C5: files that are not safetensors, or not whole.

use std::fs::File;
use std::io::Write;

use fornax_model::weights::{TensorFile, WeightsError};

use super::folder::{Folder, SINGLE, file, parity};

/// A model folder whose weights are these bytes.
fn weights(bytes: impl AsRef<[u8]>) -> Folder {
    let folder = Folder::of("llama2");
    folder.write(SINGLE, bytes);
    folder
}

/// ... refused as breaking the format, saying so.
fn format_error(bytes: &[u8], parts: &[&str]) {
    let folder = weights(bytes);
    let error = folder.error();
    assert!(matches!(error, WeightsError::Format { .. }), "{error:?}");
    folder.says(&["FOLDER/model.safetensors", "is not a valid safetensors file"]);
    folder.says(parts);
}

/// Bytes without a pattern.
fn noise(n: usize) -> Vec<u8> {
    let step = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((*state >> 56) as u8)
    };
    std::iter::successors(Some(7u64), |_| None).chain(std::iter::empty()).take(0).for_each(drop);
    let mut state = 7;
    std::iter::from_fn(|| step(&mut state)).take(n).collect()
}

#[test]
fn w1_files_that_are_no_weights() {
    weights([]).says(&["model.safetensors", "0 bytes long", "at least 1 byte"]);
    format_error(&[0; 7], &["7 bytes long", "at least 8"]);
    format_error(&noise(4096), &["the header claims", "100000000"]);
    let mut right_length = 100u64.to_le_bytes().to_vec();
    right_length.extend(noise(4096));
    format_error(&right_length, &["header: ", "line 1 column"]);
    format_error(
        b"PK\x03\x04\x00\x00\x00\x00archive/data.pkl",
        &["the header claims 67324752 bytes", "the file has 16"],
    );
    format_error(&[0; 4096], &["header: ", "EOF"]);
}

#[test]
fn w1_things_that_are_no_files() {
    for name in [SINGLE, "config.json"] {
        let folder = Folder::of("llama2");
        folder.remove(name);
        folder.pipe(name);
        folder.says(&[name, "is a pipe, but a regular file is expected"]);
        folder.remove(name);
        std::fs::create_dir(folder.path().join(name)).unwrap();
        folder.says(&[name, "is a folder, but a regular file is expected"]);
    }
}

#[test]
fn w1_a_terabyte_of_nothing() {
    const TERABYTE: u64 = 1 << 40;
    let claims = [
        (Vec::new(), "header: EOF"),
        (file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8), "asks for 70"),
        (99_000_000u64.to_le_bytes().to_vec(), "header: expected value"),
    ];
    for (head, part) in claims {
        let folder = weights(head);
        let weights = File::options().write(true).open(folder.path().join(SINGLE)).unwrap();
        weights.set_len(TERABYTE).unwrap();
        folder.says(&[part]);
    }
    let folder = Folder::of("llama2");
    let config = File::options().write(true).open(folder.path().join("config.json")).unwrap();
    config.set_len(TERABYTE).unwrap();
    folder.says(&["config.json", "1099511627776 bytes long", "at most 4194304"]);
}

/// A file that says truthfully that it holds a terabyte is refused by its shape, without reading it.
#[test]
fn w1_a_terabyte_that_is_whole() {
    let header =
        format!(r#"{{"a":{{"dtype":"U8","shape":[1024,1073741824],"data_offsets":[0,{}]}}}}"#, 1u64 << 40);
    let folder = weights(file(&header, 0));
    let weights = File::options().write(true).open(folder.path().join(SINGLE)).unwrap();
    weights.set_len((1 << 40) + 8 + header.len() as u64).unwrap();
    folder.says(&["`a` is stored but not part of this model"]);
}

#[test]
fn w2_header_lengths() {
    let rest = std::fs::read(parity("llama2").join(SINGLE)).unwrap()[8..].to_vec();
    let claimed = |length: u64| [length.to_le_bytes().as_slice(), &rest].concat();
    format_error(&claimed(0), &["header", "EOF"]);
    format_error(&claimed(1), &["header", "EOF"]);
    for length in [1 << 31, 1 << 63, u64::MAX, 100_000_001] {
        let claim = format!("the header claims {length} bytes");
        format_error(&claimed(length), &[&claim, "the format allows 100000000"]);
    }
    let n = rest.len() as u64;
    let claim = format!("the header claims {} bytes, the file has {n} after", n + 1);
    format_error(&claimed(n + 1), &[&claim]);
    format_error(&claimed(n), &["header"]);
}

/// A header with one tensor `a`.
fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

#[test]
fn w3_offsets() {
    let f32s = |offsets: &str| one("F32", "[2]", offsets);
    let two = |a: &str, b: &str| {
        let b = one("F32", "[2]", b).replace("\"a\"", "\"b\"");
        format!("{},{}", f32s(a).trim_end_matches('}').to_owned() + "}", &b[1..])
    };
    let beyond = one("F32", "[20]", "[0,80]");
    format_error(&file(&beyond, 8), &["72 bytes long, its header asks for 144"]);
    format_error(&file(&f32s("[0,80]"), 80), &["`a`: F32 [2] is stored in 80 bytes, expected 8 bytes"]);
    format_error(&file(&f32s("[8,0]"), 8), &["`a`: its data end at 0, before their start at 8"]);
    format_error(&file(&f32s("[4,12]"), 12), &["invalid offset for tensor `a`"]);
    format_error(&file(&two("[0,8]", "[4,12]"), 12), &["invalid offset for tensor `b`"]);
    format_error(&file(&two("[0,8]", "[12,20]"), 20), &["invalid offset for tensor `b`"]);
    format_error(&file(&two("[0,8]", "[0,8]"), 8), &["invalid offset for tensor `"]);
    format_error(&file(&f32s("[0,8]"), 9), &["71 bytes long, its header asks for 70"]);
    let huge = [one("U8", "[18446744073709551615]", "[0,18446744073709551615]"), f32s("[0,18446744073709551615]")];
    format_error(&file(&huge[0], 8), &["more bytes than can be counted"]);
    format_error(&file(&huge[1], 8), &["stored in 18446744073709551615 bytes, expected 8"]);
    format_error(&file(&f32s("[-8,0]"), 8), &["`a`", "-8"]);
    format_error(&file(&f32s("[0,8,16]"), 8), &["`a`"]);
    format_error(&file(&f32s("[0,8.5]"), 8), &["`a`", "8.5"]);
    let twice = two("[0,8]", "[8,16]").replace("\"b\"", "\"a\"");
    format_error(&file(&twice, 16), &["`a` stands twice"]);
    let metadata = r#"{"__metadata__":{"format":"pt"},"__metadata__":{"format":"tf"}}"#;
    format_error(&file(metadata, 0), &["`__metadata__` stands twice"]);
}

#[test]
fn w4_shapes_and_dtypes() {
    for (dtype, shape, offsets, data, part) in [
        ("F32", "[4294967296,4294967296,16]", "[0,8]", 8, "in 8 bytes, expected more bytes than"),
        ("F32", "[18446744073709551615]", "[0,8]", 8, "in 8 bytes, expected more bytes than"),
        ("F32", "[18446744073709551616]", "[0,8]", 8, "`a`: invalid type: floating point"),
        ("F32", "[-1]", "[0,8]", 8, "`a`: invalid value: integer `-1`"),
        ("F32", "[2.0]", "[0,8]", 8, "`a`: invalid type: floating point `2.0`"),
        ("F32", "\"2\"", "[0,8]", 8, "`a`: invalid type: string \"2\""),
        ("F32", "[3]", "[0,8]", 8, "`a`: F32 [3] is stored in 8 bytes, expected 12 bytes"),
        ("F32", "[0]", "[0,8]", 8, "`a`: F32 [0] is stored in 8 bytes, expected 0 bytes"),
        ("F99", "[2]", "[0,8]", 8, "`a`: unknown variant `F99`"),
        ("F4", "[3]", "[0,2]", 2, "`a`: F4 [3] is stored in 2 bytes, expected 12 bits"),
        ("U8", "[2147483648,0]", "[0,0]", 0, "a dimension of 2147483648, at most 2147483647"),
    ] {
        format_error(&file(&one(dtype, shape, offsets), data), &[part]);
    }
    let rank_33 = format!("[{}1]", "1,".repeat(32));
    format_error(&file(&one("F32", &rank_33, "[0,4]"), 4), &["`a` has 33 dimensions, at most 8"]);
}

/// What the format allows is read as it stands; no model has such a tensor, so loading one refuses it.
#[test]
fn w4_what_the_format_allows() {
    for (dtype, shape, offsets, data) in [
        ("F32", "[0]", "[0,0]", 0),
        ("F32", "[]", "[0,4]", 4),
        ("F32", "[3,0,5]", "[0,0]", 0),
        ("F4", "[4]", "[0,2]", 2),
    ] {
        let folder = weights(file(&one(dtype, shape, offsets), data));
        let file = TensorFile::open(&folder.path().join(SINGLE)).unwrap();
        assert_eq!(file.get("a").unwrap().bytes.len(), data);
        folder.says(&["`a` is stored but not part of this model", "`model.norm.weight` [32] is missing"]);
    }
    let empty = weights(file("{}", 0));
    empty.says(&["`model.embed_tokens.weight` [101, 32] is missing"]);
}

/// F1 in time: a header of very many tensors costs no more than reading it.
#[test]
fn many_tensors_are_refused_quickly() {
    const MANY: usize = 60_000;
    let folder = Folder::of("llama2");
    let mut header = String::from("{");
    for i in 0..MANY {
        header += &format!(r#""t{i}":{{"dtype":"U8","shape":[],"data_offsets":[{i},{}]}},"#, i + 1);
    }
    header.pop();
    folder.write(SINGLE, file(&(header + "}"), MANY));
    folder.says(&["`t9999` is stored but not part", "and 60001 more"]);
}

/// What a stranger wrote reaches the terminal short and without control characters.
#[test]
fn messages_stay_short_and_plain() {
    let name = "x".repeat(1 << 20);
    let header = one("F32", "[1]", "[0,4]").replace("\"a\"", &format!("\"{name}\""));
    weights(file(&header, 4)).says(&["is stored but not part of this model"]);
    format_error(&file(&header, 5), &["asks for"]);
    format_error(&file(&header.replace("[1]", "[2]"), 4), &["xxx"]);
    format_error(&file(&header.replace("F32", &name), 4), &["unknown variant"]);
    let escape = weights(file(&header.replace(&name, "\\u001b[31mred"), 4)).refused();
    assert!(escape.contains("[31mred"), "{escape:?}");
    assert!(!escape.contains('\u{1b}'), "{escape:?}");
}

/// C5: a file cut anywhere names what is there and what should be.
#[test]
fn c5_cut_files() {
    for fixture in ["llama2", "smollm2", "llama3-bf16"] {
        let whole = std::fs::read(parity(fixture).join(SINGLE)).unwrap();
        let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
        for cut in [0, 1, 7, 8, 9, header - 1, header, whole.len() / 2, whole.len() - 1] {
            let folder = Folder::of(fixture);
            folder.write(SINGLE, &whole[..cut]);
            match cut {
                0 => folder.says(&["0 bytes long", "at least 1 byte"]),
                1 | 7 => folder.says(&[&format!("{cut} bytes long"), "at least 8"]),
                _ if cut < header => folder.says(&[
                    &format!("the header claims {} bytes", header - 8),
                    &format!("the file has {} after", cut - 8),
                ]),
                _ => folder.says(&[&format!("the file is {cut} bytes long, its header asks for {}", whole.len())]),
            }
        }
    }
}

#[test]
fn c5_a_cut_configuration() {
    let whole = std::fs::read(parity("llama2").join("config.json")).unwrap();
    for cut in [0, 1, 7, whole.len() / 2, whole.len() - 2] {
        let folder = Folder::of("llama2");
        folder.write("config.json", &whole[..cut]);
        folder.says(&["FOLDER/config.json", "EOF while parsing"]);
    }
    let folder = Folder::of("llama2");
    folder.write("config.json", [b'{', 0xff, b'}']);
    folder.says(&["config.json", "is not UTF-8 text: 1 of its 3 bytes"]);
}

#[test]
fn w10_pickles_are_refused() {
    for name in ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth"] {
        let folder = Folder::of("llama2");
        folder.remove(SINGLE);
        let mut pickle = File::create(folder.path().join(name)).unwrap();
        pickle.write_all(b"\x80\x02cposix\nsystem\n").unwrap();
        let error = folder.error();
        assert!(matches!(&error, WeightsError::Pickle { path } if path.ends_with(name)), "{error:?}");
        folder.says(&[name, "pickle", "can run code", "safetensors"]);
        folder.copy(&parity("llama2"), SINGLE);
        folder.loads();
    }
}
