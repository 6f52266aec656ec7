use std::fs;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn read(path: &Path) -> Result<Vec<String>, DataError> {
    Source::from_path(path, None)?.documents()?.collect()
}

fn text(bytes: impl AsRef<[u8]>) -> Vec<String> {
    read(&Folder::new().file("a.txt", bytes)).unwrap()
}

fn json(bytes: impl AsRef<[u8]>) -> Result<Vec<String>, String> {
    read(&Folder::new().file("a.jsonl", bytes)).map_err(|error| error.to_string())
}

#[test]
fn a_text_file_is_one_document_byte_for_byte() {
    for whole in ["one\r\ntwo\n\n", "no line break", "\n", " ", "<|endoftext|> in a line\n", "x<|endoftext|>\n"] {
        assert_eq!(text(whole), [whole]);
    }
    assert_eq!(text(""), Vec::<String>::new());
}

#[test]
fn a_line_of_end_of_text_divides_documents() {
    let expected = ["one\ntwo", "three\r\nfour", "\nfive\n"];
    let stories = "one\ntwo\n<|endoftext|>\nthree\r\nfour\r\n<|endoftext|>\r\n\nfive\n";
    assert_eq!(text(stories), expected);
    // Empty documents are none.
    assert_eq!(text("<|endoftext|>\n\n<|endoftext|>\n<|endoftext|>\na\n<|endoftext|>\n<|endoftext|>"), ["a"]);
}

#[test]
fn a_byte_order_mark_is_dropped_at_the_start_alone() {
    assert_eq!(text("\u{FEFF}a\u{FEFF}b"), ["a\u{FEFF}b"]);
    assert_eq!(text("\u{FEFF}"), Vec::<String>::new());
    assert_eq!(text("\u{FEFF}<|endoftext|>\na"), ["a"]);
    assert_eq!(text("a\n<|endoftext|>\n\u{FEFF}b"), ["a", "\u{FEFF}b"]);
    assert_eq!(json("\u{FEFF}{\"text\": \"a\"}\n").unwrap(), ["a"]);
}

#[test]
fn bad_utf8_names_file_byte_and_line() {
    let folder = Folder::new();
    let path = folder.file("bad.txt", b"fine\n<|endoftext|>\nsecond\nline \xFF bad");
    let mut documents = Source::from_path(&path, None).unwrap().documents().unwrap();
    assert_eq!(documents.next().unwrap().unwrap(), "fine");
    let error = documents.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("bad.txt` is not UTF-8 at byte 31 (line 4)"), "{error}");
    assert!(documents.next().is_none());
    let error = read(&folder.file("bad.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xC3\x28\"}\n")).unwrap_err();
    assert!(error.to_string().contains("bad.jsonl` is not UTF-8 at byte 24 (line 2)"), "{error}");
}

#[test]
fn json_lines_give_one_document_a_line() {
    let lines = "{\"text\": \"a\\nb\", \"id\": [1, {}]}\r\n\n{\"id\": 2, \"text\": \"ü\"}\n{\"text\": \"\"}\n{\"text\":\"end\"}";
    assert_eq!(json(lines).unwrap(), ["a\nb", "ü", "end"]);
    let folder = Folder::new();
    let path = folder.file("a.jsonl", "{\"body\": \"x\"}");
    let source = Source::from_path(&path, Some("body")).unwrap();
    assert_eq!(source.documents().unwrap().collect::<Result<Vec<_>, _>>().unwrap(), ["x"]);
}

#[test]
fn bad_json_lines_are_errors_with_their_line() {
    let check = |bytes: &str, says: &str| {
        let error = json(bytes).unwrap_err();
        assert!(error.contains("a.jsonl` line 2: ") && error.contains(says), "{error}");
    };
    let good = "{\"text\": \"a\"}\n";
    check(&format!("{good}{{\"text\": \"a\""), "not a JSON object");
    check(&format!("{good}[1]"), "not a JSON object");
    check(&format!("{good}{{\"text\": 1}}"), "field `text` is not a string");
    check(&format!("{good}{{\"body\": \"x\", \"id\": 1}}"), "field `text` is missing, found: body, id");
    let deep = format!("{good}{{\"text\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    check(&deep, "recursion limit");
}

#[test]
fn a_folder_gives_its_text_files_sorted() {
    let folder = Folder::new();
    for (name, content) in [("b.txt", "2"), ("a.txt", "1\n<|endoftext|>\n1b"), ("c.md", "no"), ("a10.txt", "x")] {
        folder.file(name, content);
    }
    fs::create_dir(folder.0.path().join("d.txt")).unwrap();
    assert_eq!(read(folder.0.path()).unwrap(), ["1", "1b", "x", "2"]);
    folder.file("b.txt", b"\xFF");
    let error = read(folder.0.path()).unwrap_err().to_string();
    assert!(error.contains("b.txt` is not UTF-8 at byte 0 (line 1)"), "{error}");
}

#[test]
fn what_is_no_source_is_said_so() {
    let folder = Folder::new();
    let check = |path: &Path, says: &str| {
        let error = read(path).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    check(folder.0.path(), "is not a .txt, .jsonl or .parquet file");
    check(&folder.file("a.md", "x"), "nor a folder with such files");
    check(&folder.0.path().join("absent.txt"), "cannot read");
}

#[test]
fn content_changes_with_every_byte() {
    let folder = Folder::new();
    let path = folder.file("a.txt", "abc");
    let before = Source::from_path(&path.clone(), None).unwrap().content().unwrap();
    assert_eq!(before, Source::from_path(&path.clone(), None).unwrap().content().unwrap());
    assert_eq!(before[0].bytes, 3);
    folder.file("a.txt", "abd");
    assert_ne!(before, Source::from_path(&path, None).unwrap().content().unwrap());
}

#[test]
fn the_embedded_corpus_is_a_source() {
    let source = |seed| Source::Corpus { seed, split: corpus::Split::Train, bytes: 20_000 };
    let read = |seed| source(seed).documents().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert!(read(1).len() > 10);
    assert_eq!(read(1), read(1));
    assert_ne!(read(1), read(2));
    assert_eq!(source(1).content().unwrap(), source(1).content().unwrap());
    assert_ne!(source(1).content().unwrap()[0].sha256, source(2).content().unwrap()[0].sha256);
    let bytes: usize = read(1).iter().map(String::len).sum();
    assert_eq!(source(1).content().unwrap()[0].bytes, bytes as u64);
}

fn gzip(parts: &[&[u8]]) -> Vec<u8> {
    use std::io::Write;
    let mut bytes = Vec::new();
    for part in parts {
        let mut encoder = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::default());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    bytes
}

#[test]
fn gzip_of_one_member_or_several_is_read() {
    let folder = Folder::new();
    let path = folder.file("a.jsonl.gz", gzip(&[b"{\"text\": \"a\"}\n{\"te", b"xt\": \"b\"}\n"]));
    assert_eq!(read(&path).unwrap(), ["a", "b"]);
    let path = folder.file("b.txt.gz", gzip(&[b"one\n<|endoftext|>\n", b"two"]));
    assert_eq!(read(&path).unwrap(), ["one", "two"]);
    assert_eq!(read(folder.0.path()).unwrap(), ["a", "b", "one", "two"]);
}

#[test]
fn a_cut_gzip_is_damaged_with_path_and_line() {
    let folder = Folder::new();
    let text: String = (0..2000).map(|i| format!("{{\"text\": \"number {i} {}\"}}\n", i * i)).collect();
    let whole = gzip(&[text.as_bytes()]);
    for cut in [whole.len() - 1, whole.len() / 2, 12] {
        let error = read(&folder.file("cut.jsonl.gz", &whole[..cut])).unwrap_err();
        assert!(error.is_damage(), "{error}");
        assert!(error.to_string().contains("cut.jsonl.gz` is cut off or damaged after line "), "{error}");
    }
    let mut flipped = whole.clone();
    flipped[whole.len() - 6] ^= 0x10;
    assert!(read(&folder.file("flipped.jsonl.gz", &flipped)).unwrap_err().is_damage());
    assert!(read(&folder.file("plain.jsonl.gz", text.as_bytes())).unwrap_err().is_damage());
}

#[test]
fn f19_a_bad_row_is_an_error_with_its_line_and_the_next_row_follows() {
    let folder = Folder::new();
    let deep = format!("{{\"text\": {}1{}}}", "[".repeat(300), "]".repeat(300));
    let lines: Vec<Vec<u8>> = vec![
        b"{\"text\": \"one\"}".to_vec(),
        b"{\"text\": \"\xFF\"}".to_vec(),
        deep.into_bytes(),
        b"{\"body\": 1}".to_vec(),
        b"".to_vec(),
        b"[]".to_vec(),
        b"{\"text\": \"seven\"}".to_vec(),
    ];
    let path = folder.file("a.jsonl", lines.join(&b'\n'));
    let rows: Vec<_> = Source::from_path(&path, None).unwrap().rows().unwrap().collect();
    let said: Vec<String> = rows
        .iter()
        .map(|row| match row {
            Ok(row) => format!("{}: {}", row.number, row.text),
            Err(error) => {
                assert!(error.is_row() && !error.is_damage());
                format!("{}", error.place().unwrap().1)
            }
        })
        .collect();
    assert_eq!(said, ["1: one", "2", "3", "4", "6", "7: seven"]);
    let repaired = Source::from_path(&path, None).unwrap().replacing_invalid(true);
    let row = repaired.rows().unwrap().nth(1).unwrap().unwrap();
    assert_eq!((row.text.as_str(), row.repaired), ("\u{FFFD}", true));
}

#[test]
fn f19_a_line_beyond_the_limit_is_passed_over() {
    let folder = Folder::new();
    let long = format!("{{\"text\": \"{}\"}}", "x".repeat(1000));
    for (bytes, expected) in [
        (format!("{{\"text\": \"a\"}}\n{long}\n{{\"text\": \"b\"}}\n"), vec!["a", "line 2", "b"]),
        (format!("{{\"text\": \"a\"}}\n{long}"), vec!["a", "line 2"]),
    ] {
        let path = folder.file("a.jsonl", bytes);
        let file = TextFile::new(path.clone(), path, &ENDINGS).unwrap();
        let rows = JsonLineRows::new(Lines::open(&file).unwrap(), "text".to_owned(), false).with_limit(100);
        let said: Vec<String> = rows
            .map(|row| row.map_or_else(|error| format!("line {}", error.place().unwrap().1), |row| row.text))
            .collect();
        assert_eq!(said, expected);
    }
}

/// The proof of F19: whatever the bytes, every error of a row has a line of the file, and reading ends.
fn check_any_rows(bytes: &[u8], folder: &Path) {
    let path = folder.join("rows.jsonl");
    fs::write(&path, bytes).unwrap();
    let n_lines = bytes.split(|byte| *byte == b'\n').count() as u64;
    let mut last = 0;
    for row in Source::from_path(&path, None).unwrap().rows().unwrap() {
        let number = match row {
            Ok(row) => row.number,
            Err(error) => error.place().unwrap_or_else(|| panic!("no row: {error}")).1,
        };
        assert!(number > last && number <= n_lines, "line {number} after {last} of {n_lines}");
        last = number;
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1000))]

    #[test]
    fn f19_any_bytes_are_rows_or_errors_with_their_line(pieces in proptest::collection::vec(
        proptest::prop_oneof![
            proptest::prelude::Just(b"{\"text\": \"a\"}\n".to_vec()),
            proptest::prelude::Just(b"\n".to_vec()),
            proptest::prelude::Just(b"{\"text\": ".to_vec()),
            proptest::prelude::Just(b"\"\\ud800\"}".to_vec()),
            proptest::prelude::Just(b"[[[[{\"a\":".to_vec()),
            proptest::prelude::Just(b"\xEF\xBB\xBF".to_vec()),
            proptest::collection::vec(proptest::prelude::any::<u8>(), 0..12),
        ], 0..24)
    ) {
        thread_local!(static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap());
        FOLDER.with(|folder| check_any_rows(&pieces.concat(), folder.path()));
    }
}

mod parquet_files {
    use std::sync::Arc;

    use ::parquet::basic::{Compression, ZstdLevel};
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    use super::*;

    /// Two row groups of an optional `text`, a required `id` and a list of strings `tags.list.element`.
    fn parquet(texts: &[Option<&str>], compression: Compression) -> Vec<u8> {
        let message = "message m { OPTIONAL BYTE_ARRAY text (UTF8); REQUIRED INT64 id; REQUIRED BYTE_ARRAY raw; }";
        let schema = Arc::new(parse_message_type(message).unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
        for group in texts.chunks(texts.len().div_ceil(2)) {
            let mut rows = writer.next_row_group().unwrap();
            let levels: Vec<i16> = group.iter().map(|text| i16::from(text.is_some())).collect();
            let values: Vec<ByteArray> = group.iter().flatten().map(|text| ByteArray::from(*text)).collect();
            let mut column = rows.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
            let mut column = rows.next_column().unwrap().unwrap();
            let ids: Vec<i64> = (0..group.len() as i64).collect();
            column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let mut column = rows.next_column().unwrap().unwrap();
            let raw: Vec<ByteArray> = group.iter().map(|_| ByteArray::from(vec![b'r', 0xFF])).collect();
            column.typed::<ByteArrayType>().write_batch(&raw, None, None).unwrap();
            column.close().unwrap();
            rows.close().unwrap();
        }
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn a_column_of_text_is_read_with_its_rows() {
        let folder = Folder::new();
        let many: Vec<String> = (0..1500).map(|i| format!("row {i}")).collect();
        let mut texts: Vec<Option<&str>> = many.iter().map(|text| Some(text.as_str())).collect();
        texts[3] = None;
        texts[900] = Some("");
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(Default::default()),
            Compression::ZSTD(ZstdLevel::default()),
        ] {
            let path = folder.file("a.parquet", parquet(&texts, compression));
            let rows: Vec<Row> =
                Source::from_path(&path, None).unwrap().rows().unwrap().map(Result::unwrap).collect();
            assert_eq!(rows.len(), 1498);
            // Numbers count from 1 and count nulls and empty texts too.
            assert!(rows.iter().all(|row| row.text == format!("row {}", row.number - 1)));
        }
    }

    /// Recorded by tests/fixtures/make/parquet_files.py.
    #[test]
    fn files_of_pyarrow_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parquet");
        let expected = fs::read_to_string(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
        let expected: Vec<String> = expected["texts"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|text| Some(text.as_str()?.to_owned()).filter(|text| !text.is_empty()))
            .collect();
        assert!(expected.len() > 280);
        for name in ["snappy-string", "zstd-large-string", "gzip-dictionary", "plain-delta"] {
            assert_eq!(read(&folder.join(format!("{name}.parquet"))).unwrap(), expected, "{name}");
        }
        let tags = Source::from_path(&folder.join("snappy-string.parquet"), Some("tags")).unwrap();
        let error = tags.documents().unwrap().next().unwrap().unwrap_err().to_string();
        assert!(
            error.contains("has no column `tags`; its columns are id, text, tags.list.element, meta.url"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_column_names_those_there_are() {
        let folder = Folder::new();
        let path = folder.file("a.parquet", parquet(&[Some("a")], Compression::SNAPPY));
        let error = |field: &str| {
            let source = Source::from_path(&path, Some(field)).unwrap();
            source.documents().unwrap().next().unwrap().unwrap_err()
        };
        let says = error("body").to_string();
        assert!(says.contains("a.parquet` has no column `body`; its columns are text, id, raw"), "{says}");
        assert!(error("body").hint().unwrap().contains("--text-field"));
        let says = error("id").to_string();
        assert!(says.contains("column `id` holds INT64, strings are expected"), "{says}");
        let bad = error("raw");
        assert!(bad.is_row() && bad.to_string().contains("is not UTF-8"), "{bad}");
    }

    #[test]
    fn any_cut_or_flip_of_a_parquet_file_is_an_error_or_other_text() {
        let folder = Folder::new();
        let texts: Vec<String> = (0..300).map(|i| format!("some text {}", i * i)).collect();
        let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
        let whole = parquet(&texts, Compression::SNAPPY);
        for cut in [0, 3, 4, 12, whole.len() / 3, whole.len() - 20, whole.len() - 1] {
            let error = read(&folder.file("cut.parquet", &whole[..cut])).unwrap_err();
            assert!(error.is_damage(), "{cut}: {error}");
            assert!(error.to_string().contains("cut.parquet` is cut off or damaged after row 0"), "{error}");
        }
        let mut rng = fornax_base::rng::rng(1, 0, "flips");
        for _ in 0..400 {
            let mut bytes = whole.clone();
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
            // What is promised: no panic, and an end.
            let path = folder.file("flip.parquet", &bytes);
            let rows = Source::from_path(&path, None).unwrap().rows().unwrap().count();
            assert!(rows <= 100_000);
        }
    }
}
