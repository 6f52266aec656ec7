//! F6: text survives encoding and decoding, and any ids decode.
#![no_main]

use std::sync::OnceLock;

use fornax_data::Tokenizer;
use libfuzzer_sys::fuzz_target;

const TEXT: &str = "Once upon a time there was a cat named Tom. Tom liked the hat, didn't he?\n\nYes! 1234 hats.";

fuzz_target!(|bytes: &[u8]| {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let tokenizer = TOKENIZER.get_or_init(|| {
        let mut documents = std::iter::repeat_n(TEXT.to_owned(), 2).map(Ok);
        Tokenizer::train_bpe(&mut documents, 320, &mut |_| {}).unwrap()
    });
    if let Ok(text) = std::str::from_utf8(bytes) {
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        let spelled: Vec<u8> = ids.iter().flat_map(|id| tokenizer.spelled(*id)).collect();
        assert_eq!(spelled, bytes);
    }
    let ids: Vec<u32> =
        bytes.chunks(2).map(|two| two.iter().fold(0, |id, byte| id << 8 | u32::from(*byte))).collect();
    tokenizer.decode(&ids, true).unwrap();
    tokenizer.decode(&ids, false).unwrap();
});
