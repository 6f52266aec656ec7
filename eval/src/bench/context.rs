//! Long contexts: what the length of the prompt does to the opening token, to those after it, and to memory.

use std::time::Instant;

use burn::tensor::Device;
use fornax_base::rng::rng;
use fornax_model::Decoder;
use fornax_model::device::DeviceName;
use fornax_train::rate;
use serde::Serialize;

use super::rows::{CacheKind, Rows};
use super::{BenchError, PEER, Spread, dtype_word, mebibytes, threads};

/// What to measure.
#[derive(Debug, Clone)]
pub struct ContextBench {
    /// Tokens of the prompt; they are random.
    pub length: usize,
    /// Tokens after it, at least 2.
    pub new_tokens: usize,
    /// Where keys and values lie.
    pub cache: CacheKind,
}

/// What was measured for one length.
#[derive(Debug, Clone, Serialize)]
pub struct ContextReport {
    /// The program and its version.
    pub peer: &'static str,
    /// The workload, or the model folder as it was given.
    pub model: String,
    /// The device by its name on the command line.
    pub device: String,
    /// Threads of the processor that operations share.
    pub threads: usize,
    /// Dtype of the matrix products.
    pub dtype: &'static str,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens after it.
    pub new_tokens: usize,
    /// `contiguous` or `paged`.
    pub kv: &'static str,
    /// What is stored of keys and values.
    pub kv_dtype: &'static str,
    /// Seconds to the opening token (TTFT).
    pub first_token_seconds: f64,
    /// Seconds of each token after it (TPOT).
    pub token_seconds: Spread,
    /// Tokens of the prompt by the time to the opening token.
    pub prefill_tokens_per_second: f64,
    /// Bytes of the cache.
    pub kv_bytes: u64,
    /// Memory that the process holds at the end of the measurement, in MiB; `None` where the system does not tell.
    pub rss_mb: Option<u64>,
    /// Memory the device's pool has reserved, in MiB; `None` on the processor.
    pub device_pool_mb: Option<u64>,
}

/// Measures `decoder`, called `model` in the report, at one length. A short prompt before it warms up.
///
/// # Errors
/// [`BenchError`] when the tokens do not fit the model's context, or the device fails.
pub fn measure(
    bench: &ContextBench,
    decoder: &Decoder,
    model: String,
    (device, name): (&Device, DeviceName),
) -> Result<ContextReport, BenchError> {
    let &ContextBench { length, new_tokens, cache } = bench;
    let config = decoder.config();
    let context = config.context;
    for (what, value, lowest) in [("the length", length, 1), ("the number of new tokens", new_tokens, 2)] {
        if value < lowest || length.saturating_add(new_tokens) > context {
            let expected = format!("at least {lowest}, and at most {context} together, the model's context");
            return Err(BenchError::Size { what, value, expected });
        }
    }
    let mut random = rng(0, 0, "bench/prompt");
    let prompt: Vec<u32> = (0..length).map(|_| random.below(config.vocab_size as u64) as u32).collect();
    let mut warm = Rows::new(decoder, cache, 1, length.min(64) + 2);
    let last = warm.read(&[prompt[..length.min(64)].to_vec()])?;
    warm.next(&last)?;
    drop(warm);
    let start = Instant::now();
    let mut rows = Rows::new(decoder, cache, 1, length + new_tokens);
    let mut last = rows.read(&[prompt])?;
    let first_token_seconds = start.elapsed().as_secs_f64();
    let mut seconds = Vec::new();
    for _ in 1..new_tokens {
        let start = Instant::now();
        last = rows.next(&last)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(ContextReport {
        peer: PEER,
        model,
        device: name.to_string(),
        threads: threads(),
        dtype: dtype_word(decoder.compute()),
        prompt_tokens: length,
        new_tokens,
        kv: cache.word(),
        kv_dtype: cache.element.word(),
        first_token_seconds,
        token_seconds: Spread::of(&seconds),
        prefill_tokens_per_second: length as f64 / first_token_seconds,
        kv_bytes: cache.bytes(config, 1, length + new_tokens),
        rss_mb: rate::resident_bytes().map(mebibytes),
        device_pool_mb: device.memory_pool_usage().map(|usage| mebibytes(usage.bytes_reserved)),
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;
    use fornax_model::KvElement;
    use fornax_model::device::Kind;

    use super::*;
    use crate::bench::generate::random_model;
    use crate::bench::workload::WORKLOADS;

    #[test]
    fn lengths_are_measured_within_the_context() {
        let (device, name) = (Device::flex(), DeviceName::Named(Kind::Cpu, 0));
        let workload = WORKLOADS[0].with_batch(Some(1), Some(40)).unwrap();
        let decoder = random_model(&workload, DType::F32, &device);
        let cache = CacheKind { page_len: Some(16), element: KvElement::F32 };
        let go = |length: usize| {
            let bench = ContextBench { length, new_tokens: 4, cache };
            measure(&bench, &decoder, "nano".into(), (&device, name))
        };
        let report = go(36).unwrap();
        // Three pages of 16 tokens, keys and values of 128 channels in 4 layers.
        assert_eq!(report.kv_bytes, 48 * 2 * 4 * 128 * 4);
        assert_eq!(report.prefill_tokens_per_second, 36.0 / report.first_token_seconds);
        for length in [0, 37] {
            let error = go(length).unwrap_err().to_string();
            assert!(error.contains(&format!("the length is {length}")) || error.contains("at most 40"), "{error}");
        }
    }
}
