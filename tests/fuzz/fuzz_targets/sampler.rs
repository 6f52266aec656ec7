//! F13: any logits with any options give a token that may come, or an error.
#![no_main]

use fornax_infer::sampler::{Chain, SamplingOptions};
use libfuzzer_sys::fuzz_target;

// Options as JSON, a zero byte, then four bytes a logit.
fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let Ok(options) = serde_json::from_slice::<SamplingOptions>(&bytes[..end]) else { return };
    let (words, _) = bytes[end..].get(1..).unwrap_or_default().as_chunks::<4>();
    let logits: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let Ok(mut chain) = Chain::new(&options, &[1, 2, 1], logits.len(), &[0]) else { return };
    for _ in 0..4 {
        let Ok(found) = chain.sample(&logits, None) else { return };
        assert!(logits[found.id as usize] > f32::NEG_INFINITY && found.log_prob <= 0.0);
        let sum: f64 = chain.distribution(&logits, None).unwrap().tokens.iter().map(|(_, p)| p).sum();
        assert!((sum - 1.0).abs() < 1e-9);
        chain.accept(found.id);
    }
});
