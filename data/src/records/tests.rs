use std::fs;

use super::*;
use crate::conversations::Lesson;
use crate::formats::Format;
use crate::testing::{fixture, fixtures};

/// Rows as compact JSON with their numbers.
fn rows(path: &Path) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let records = Records::from_path(path).unwrap();
    records
        .read(&mut |row| {
            let record = row?;
            found.push((record.row, serde_json::to_string(&record.json).unwrap()));
            Ok(true)
        })
        .unwrap();
    found
}

#[test]
fn lists_lines_and_folders_give_rows_with_their_numbers_and_keys_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.json"), "\u{FEFF} [ {\"z\": 1, \"a\": [true, null]},\n {\"b\": 1.5} ] \n").unwrap();
    fs::write(at("b.jsonl"), "\u{FEFF}{\"z\": \"ä\"}\r\n\n{\"a\": -7}").unwrap();
    // Lines under the name of a list.
    fs::write(at("c.json"), "{\"x\": 1}\n{\"x\": 2}\n").unwrap();
    fs::write(at("notes.txt"), "no rows").unwrap();
    let row = |number, text: &str| (number, text.to_owned());
    let list = [row(1, r#"{"z":1,"a":[true,null]}"#), row(2, r#"{"b":1.5}"#)];
    let lines = [row(1, r#"{"z":"ä"}"#), row(3, r#"{"a":-7}"#)];
    let mixed = [row(1, r#"{"x":1}"#), row(2, r#"{"x":2}"#)];
    assert_eq!(rows(&at("a.json")), list);
    assert_eq!(rows(&at("b.jsonl")), lines);
    assert_eq!(rows(&at("c.json")), mixed);
    assert_eq!(rows(folder.path()), [&list[..], &lines, &mixed].concat());
    let error = Records::from_path(&at("notes.txt")).unwrap_err().to_string();
    assert!(error.contains("is not a .jsonl, .json or .parquet file"), "{error}");
    assert!(matches!(Records::from_path(&at("absent.json")), Err(DataError::Read { .. })));
}

#[test]
fn reading_ends_where_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in
        [("a.json", "[{\"x\":1},{\"x\":2},{\"x\":3}"), ("b.jsonl", "{\"x\":1}\n{\"x\":2}\nnonsense")]
    {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let mut seen = 0;
        let read = Records::from_path(&path).unwrap().read(&mut |row| {
            row?;
            seen += 1;
            Ok(seen < 2)
        });
        assert!(read.is_ok(), "{name}: what is wrong behind it is not met");
        assert_eq!(seen, 2);
    }
}

/// Nested columns as `datasets` writes them; fields that are null in a row are not there.
#[test]
fn parquet_rows_are_what_was_written() {
    let path = fixtures().join("rows/conversations.parquet");
    let found = rows(&path);
    let expected = fixture("rows/expected.json");
    let expected = expected["parquet"].as_array().unwrap();
    assert_eq!(found.len(), expected.len());
    for ((number, text), expected) in found.iter().zip(expected) {
        let mut wanted = expected.clone();
        if wanted["tools"].is_null() {
            wanted.as_object_mut().unwrap().remove("tools");
        }
        let row: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(row, wanted, "row {number}");
        let json: Json = serde_json::from_str(text).unwrap();
        assert_eq!(Format::of(&json).unwrap().0, Format::Messages);
        let Lesson::Dialogue(dialogue) = Lesson::of(Format::Messages, &json).unwrap() else { panic!("{text}") };
        let calls = (number - 1) % 3 == 0;
        assert_eq!((dialogue.turns.len(), dialogue.tools.is_some()), if calls { (4, true) } else { (2, false) });
    }
}

#[test]
fn a_damaged_parquet_file_is_an_error_at_every_byte() {
    let whole = fs::read(fixtures().join("rows/conversations.parquet")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let mut refused = 0;
    for at in (0..whole.len()).step_by(29) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, bytes).unwrap();
        let read = Records::from_path(&path).unwrap().read(&mut |row| row.map(|_| true).map_err(DataError::from));
        if let Err(error) = read {
            assert_eq!(error.exit(), fornax_base::exit::Exit::BadInput, "byte {at}: {error}");
            refused += 1;
        }
    }
    assert!(refused > 30, "{refused}");
}
