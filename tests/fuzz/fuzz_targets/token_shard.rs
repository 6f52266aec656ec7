//! F18: any bytes are an error, or a token shard that is never read outside its file.
#![no_main]

use fornax_data::Shard;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = fornax_fuzz::folder().join("train-00000.shard");
    std::fs::write(&path, bytes).unwrap();
    let Ok(shard) = Shard::open(&path) else { return };
    assert!(shard.n_documents() <= shard.n_tokens());
    assert!(shard.n_tokens() * 2 <= bytes.len() as u64);
    let mut tokens = Vec::new();
    shard.tokens(0..shard.n_tokens(), &mut tokens);
    assert_eq!(tokens.len() as u64, shard.n_tokens());
    assert_eq!(shard.document_starts().count() as u64, shard.n_documents());
    assert!(shard.document_starts().all(|start| start < shard.n_tokens()));
    assert_eq!(shard.document_start(0), 0);
    if shard.verify().is_ok() {
        assert!(tokens.iter().all(|id| u64::from(*id) < shard.vocab_size()));
    }
});
