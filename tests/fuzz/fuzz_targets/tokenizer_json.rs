//! F5: any bytes are an error or a tokenizer, which then encodes "hello" or says why not.
#![no_main]

use fornax_data::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fornax_fuzz::allow_caught_panics();
    if let Ok(tokenizer) = Tokenizer::from_json(bytes.to_vec()) {
        let ids = tokenizer.encode("hello", true);
        assert!(ids.is_err() || tokenizer.decode(&ids.unwrap(), false).is_ok());
    }
});
