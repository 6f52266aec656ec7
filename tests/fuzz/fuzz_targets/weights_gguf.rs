//! F2: any bytes are an error, or a GGUF file whose every part lies inside them; its vocabulary loads or errs.
#![no_main]

use fornax_base::gguf::Gguf;
use fornax_data::Tokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fornax_fuzz::allow_caught_panics();
    let Ok(file) = Gguf::parse(bytes) else {
        return;
    };
    for (key, value) in file.entries() {
        assert!(key.len() <= bytes.len());
        if let Some(array) = value.as_array() {
            assert!(array.len() <= bytes.len());
            let strings = array.strings().map_or(0, |strings| strings.map(<[u8]>::len).sum());
            assert!(strings <= bytes.len());
        }
    }
    let whole = file.check_data().is_ok();
    for tensor in file.tensors() {
        let data = file.tensor_bytes(tensor);
        assert!(data.is_ok() || !whole);
        assert!(data.map_or(true, |data| data.len() as u64 == tensor.n_bytes()));
    }
    let path = fornax_fuzz::folder().join("vocabulary.gguf");
    std::fs::write(&path, bytes).unwrap();
    if let Ok(tokenizer) = Tokenizer::load(&path) {
        let ids = tokenizer.encode("hello", true);
        assert!(ids.is_err() || tokenizer.decode(&ids.unwrap(), false).is_ok());
    }
});
