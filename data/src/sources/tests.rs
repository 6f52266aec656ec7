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
    check(folder.0.path(), "is not a .txt file, a .jsonl file, or a folder with .txt files");
    check(&folder.file("a.md", "x"), "is not a .txt file");
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
