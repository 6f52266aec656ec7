use std::fs;

use fornax_base::files::{FileError, RealFs};
use proptest::prelude::*;

use super::*;

const DOCUMENTS: [&[u32]; 4] = [&[1, 2, 3], &[4], &[0, 0, 0, 0, 9], &[7, 8]];

fn written(vocab_size: u32, documents: &[&[u32]]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.shard");
    let mut writer = ShardWriter::new(vocab_size, [0xAB; 32]);
    for document in documents {
        writer.push_document(document);
    }
    writer.finish(&RealFs, &path).unwrap();
    fs::read(&path).unwrap()
}

/// Puts bytes into a file and opens it; the folder must outlive the shard.
fn open(bytes: &[u8]) -> (tempfile::TempDir, Result<Shard, ShardError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.shard");
    fs::write(&path, bytes).unwrap();
    let shard = Shard::open(&path);
    (folder, shard)
}

fn all_tokens(shard: &Shard) -> Vec<u32> {
    let mut tokens = Vec::new();
    shard.tokens(0..shard.n_tokens(), &mut tokens);
    tokens
}

/// Replaces bytes and writes the checksum that fits them.
fn forged(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    let sum = checksum(&bytes[..HEADER], &[&bytes[HEADER..]]);
    bytes[CHECKSUM].copy_from_slice(&sum);
    bytes
}

#[test]
fn reads_back_what_was_written_in_both_widths() {
    for (vocab_size, width) in [(10, 2), (65_536, 2), (65_537, 4), (u32::MAX, 4)] {
        let top = vocab_size - 1;
        let documents: Vec<&[u32]> =
            DOCUMENTS.iter().copied().chain([&[][..], std::slice::from_ref(&top)]).collect();
        let bytes = written(vocab_size, &documents);
        assert_eq!(bytes.len(), HEADER + 5 * 8 + 12 * width);
        let (_folder, shard) = open(&bytes);
        let shard = shard.unwrap();
        shard.verify().unwrap();
        assert_eq!((shard.n_tokens(), shard.n_documents(), shard.vocab_size()), (12, 5, u64::from(vocab_size)));
        assert_eq!(shard.document_starts().collect::<Vec<_>>(), [0, 3, 4, 9, 11]);
        assert_eq!((0..5).map(|i| shard.document_start(i)).collect::<Vec<_>>(), [0, 3, 4, 9, 11]);
        assert_eq!(shard.tokenizer_fingerprint(), "ab".repeat(32));
        let tokens = documents.concat();
        assert_eq!(all_tokens(&shard), tokens);
        let mut part = vec![99];
        shard.tokens(3..8, &mut part);
        assert_eq!(part[1..], tokens[3..8]);
    }
}

#[test]
fn an_empty_shard_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.shard");
    let error = ShardWriter::new(10, [0; 32]).finish(&RealFs, &path).unwrap_err();
    assert!(error.to_string().contains("would hold 0 tokens"), "{error}");
    assert!(!error.is_damage());
    assert!(!path.exists());
}

#[test]
fn row_c5_every_cut_is_a_typed_error_with_both_lengths() {
    let bytes = written(10, &DOCUMENTS);
    let n = bytes.len();
    for cut in [0, 1, 7, 8, 9, HEADER - 1, HEADER, HEADER + 8, n / 2, n - 1] {
        let (_folder, shard) = open(&bytes[..cut]);
        let error = shard.unwrap_err();
        assert!(error.is_damage(), "{cut}: {error}");
        match &error {
            ShardError::File { source: FileError::Empty { .. }, .. } => assert_eq!(cut, 0),
            ShardError::Length { found, expected, .. } => {
                assert_eq!(*found, cut as u64);
                assert_eq!(*expected, if cut < HEADER { HEADER } else { n } as u64);
            }
            other => panic!("{cut}: {other}"),
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(open(&longer).1, Err(ShardError::Length { .. })));
}

#[test]
fn row_c15_missing_checksum_and_token_id_name_shard_offset_and_id() {
    let error = Shard::open(Path::new("absent/train-00000.shard")).unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("absent/train-00000.shard"), "{error}");

    let bytes = written(10, &DOCUMENTS);
    let tokens_at = HEADER + 4 * 8;
    let mut flipped = bytes.clone();
    flipped[tokens_at + 2 * 5] ^= 1;
    let (_folder, shard) = open(&flipped);
    let error = shard.unwrap().verify().unwrap_err();
    assert!(matches!(&error, ShardError::Checksum { .. }), "{error}");
    assert!(error.is_damage() && error.to_string().contains("b.shard"), "{error}");

    // The checksum fits, the id does not: a shard made for another tokenizer, or by a broken tool.
    let (_folder, shard) = open(&forged(&bytes, tokens_at + 2 * 6, &10u16.to_le_bytes()));
    let error = shard.unwrap().verify().unwrap_err();
    assert!(matches!(&error, ShardError::TokenId { offset: 6, id: 10, vocab_size: 10, .. }), "{error}");
    assert!(error.to_string().contains("token 6 has id 10, the vocabulary ends at 10"), "{error}");
}

#[test]
fn every_flipped_byte_is_found() {
    let bytes = written(10, &DOCUMENTS);
    for at in 0..bytes.len() {
        for mask in [1u8, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= mask;
            let (_folder, shard) = open(&flipped);
            assert!(shard.and_then(|shard| shard.verify()).is_err(), "byte {at}");
        }
    }
}

#[test]
fn lying_headers_are_refused_before_anything_is_read() {
    let bytes = written(10, &DOCUMENTS);
    let check = |at: usize, with: &[u8], says: &str| {
        let (_folder, shard) = open(&forged(&bytes, at, with));
        let error = shard.unwrap_err().to_string();
        assert!(error.contains(says), "{error} | {says}");
    };
    check(0, b"GGUF", "magic");
    check(8, &2u32.to_le_bytes(), "version 2, expected 1");
    check(12, &3u32.to_le_bytes(), "token width 3, expected 2 or 4");
    check(12, &4u32.to_le_bytes(), "bytes, its header needs");
    check(16, &0u64.to_le_bytes(), "vocabulary size 0");
    check(16, &65_537u64.to_le_bytes(), "vocabulary size 65537, expected 1..=65536");
    check(24, &0u64.to_le_bytes(), "number of tokens 0");
    check(24, &u64::MAX.to_le_bytes(), "bytes, its header needs 18446744073709551615");
    check(24, &(1u64 << 63).to_le_bytes(), "bytes, its header needs 18446744073709551615");
    check(32, &0u64.to_le_bytes(), "number of documents 0, expected 1..=11");
    check(32, &12u64.to_le_bytes(), "number of documents 12, expected 1..=11");
    check(104, &[1], "reserved bytes");
    check(HEADER, &1u64.to_le_bytes(), "document 0 starts at token 1, expected 0");
    check(HEADER + 8, &0u64.to_le_bytes(), "document 1 starts at token 0, expected 1..11");
    check(HEADER + 24, &11u64.to_le_bytes(), "document 3 starts at token 11, expected 5..11");
    check(HEADER + 16, &u64::MAX.to_le_bytes(), "document 2 starts at token 18446744073709551615");
}

/// Fuzz property F18: whatever the bytes, opening ends in an error or in a shard whose every reading stays inside the
/// file (the crate forbids `unsafe`, so leaving it would be a panic here).
fn check_any_bytes(bytes: &[u8]) {
    let (_folder, shard) = open(bytes);
    let Ok(shard) = shard else { return };
    assert!(shard.n_documents() <= shard.n_tokens());
    assert!(shard.n_tokens() * 2 <= bytes.len() as u64);
    assert_eq!(all_tokens(&shard).len() as u64, shard.n_tokens());
    assert_eq!(shard.document_starts().count() as u64, shard.n_documents());
    assert!(shard.document_starts().all(|start| start < shard.n_tokens()));
    shard.document_start(shard.n_documents() - 1);
    if shard.verify().is_ok() {
        assert!(all_tokens(&shard).iter().all(|id| u64::from(*id) < shard.vocab_size()));
    }
}

/// A byte string placed somewhere, preferably where the header keeps its numbers.
fn edit() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let field = prop::sample::select(vec![8usize, 12, 16, 24, 32, 104, 128, 136, 144, 152, 160]);
    let place = prop_oneof![3 => field, 1 => 0usize..200];
    let number = prop_oneof![
        0u64..200,
        prop::sample::select(vec![1u64 << 16, 1 << 31, 1 << 32, 1 << 61, 1 << 63, u64::MAX, u64::MAX - 7]),
        any::<u64>(),
    ];
    let bytes = prop_oneof![
        number.clone().prop_map(|n| n.to_le_bytes().to_vec()),
        number.prop_map(|n| (n as u32).to_le_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..9),
    ];
    (place, bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn f18_never_reads_outside_the_file(
        wide in any::<bool>(),
        edits in prop::collection::vec(edit(), 0..4),
        cut in prop::option::of(0usize..200),
        fix_checksum in any::<bool>(),
    ) {
        let mut bytes = written(if wide { 70_000 } else { 10 }, &DOCUMENTS);
        for (at, with) in edits {
            let end = (at + with.len()).min(bytes.len());
            if at < end {
                bytes[at..end].copy_from_slice(&with[..end - at]);
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        if fix_checksum && bytes.len() >= HEADER {
            bytes = forged(&bytes, 0, &[]);
        }
        check_any_bytes(&bytes);
    }
}
