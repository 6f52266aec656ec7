//! One sequence read and continued: tokens per second of the prompt and of what follows, and the time to the opening
//! token.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::tensor::{DType, Device};
use fornax_base::rng::rng;
use fornax_infer::generate::{Limits, generate};
use fornax_infer::sampler::Chain;
use fornax_model::Decoder;
use fornax_model::device::DeviceName;
use fornax_train::rate;
use serde::Serialize;

use super::{BenchError, PEER, Spread, Workload, dtype_word, mebibytes, threads};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct GenerateBench {
    /// Tokens of the prompt; they are random.
    pub prompt_tokens: usize,
    /// Tokens after it, the likeliest each time; none ends the text.
    pub new_tokens: usize,
    /// Runs that count; one before them does not.
    pub runs: usize,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct GenerateReport {
    /// The program and its version.
    pub peer: &'static str,
    /// The workload, or the model folder as it was given.
    pub model: String,
    /// The device by its name on the command line.
    pub device: String,
    /// The device as its driver calls it.
    pub device_description: String,
    /// Threads of the processor that operations share.
    pub threads: usize,
    /// Dtype of the matrix products.
    pub dtype: &'static str,
    /// Parameters of the model.
    pub params: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens after it.
    pub new_tokens: usize,
    /// Runs that count.
    pub runs: usize,
    /// Seconds of the run that does not count, in which kernels are compiled.
    pub warmup_seconds: f64,
    /// Tokens of the prompt by the time to its last logits.
    pub prefill_tokens_per_second: Spread,
    /// Tokens after the opening one by their time.
    pub decode_tokens_per_second: Spread,
    /// Seconds from the start to the opening token.
    pub first_token_seconds: Spread,
    /// Most memory the process ever held, in MiB; `None` where the system does not tell.
    pub peak_rss_mb: Option<u64>,
    /// Memory the device's pool has reserved, in MiB; `None` on the processor.
    pub device_pool_mb: Option<u64>,
}

/// The workload's model with random weights, stored and computed in `dtype`, for sequences of its context.
pub fn random_model(workload: &Workload, dtype: DType, device: &Device) -> Decoder {
    let mut decoder = Decoder::init(&workload.config(workload.context), 0, device);
    decoder.visit_mut(&mut |_, mut parameter| parameter.set_flat(parameter.flat().cast(dtype)));
    decoder.set_compute(dtype);
    decoder
}

/// One run's seconds.
struct Run {
    prefill: f64,
    opening: f64,
    decode: f64,
}

/// Measures `decoder`, called `model` in the report.
///
/// # Errors
/// [`BenchError`] when the tokens do not fit the model's context, or the device fails.
pub fn measure(
    bench: &GenerateBench,
    decoder: &Decoder,
    model: String,
    (device, name): (&Device, DeviceName),
    progress: &mut dyn FnMut(&str),
) -> Result<GenerateReport, BenchError> {
    let GenerateBench { prompt_tokens, new_tokens, runs } = *bench;
    let config = decoder.config();
    let context = config.context;
    for (what, value, lowest) in
        [("the number of prompt tokens", prompt_tokens, 1), ("the number of new tokens", new_tokens, 2)]
    {
        if value < lowest || prompt_tokens.saturating_add(new_tokens) > context {
            let expected = format!("at least {lowest}, and at most {context} together, the model's context");
            return Err(BenchError::Size { what, value, expected });
        }
    }
    let mut random = rng(0, 0, "bench/prompt");
    let prompt: Vec<u32> = (0..prompt_tokens).map(|_| random.below(config.vocab_size as u64) as u32).collect();
    let started = Instant::now();
    run(decoder, &prompt, new_tokens)?;
    let warmup_seconds = started.elapsed().as_secs_f64();
    progress(&format!("{model}: one run to warm up took {warmup_seconds:.2} s"));
    let sample: Vec<Run> =
        (0..runs.max(1)).map(|_| run(decoder, &prompt, new_tokens)).collect::<Result<_, _>>()?;
    let spread = |of: fn(&Run) -> f64| Spread::of(&sample.iter().map(of).collect::<Vec<f64>>());
    Ok(GenerateReport {
        peer: PEER,
        model,
        device: name.to_string(),
        device_description: fornax_model::device::describe(name, device),
        threads: threads(),
        dtype: dtype_word(decoder.compute()),
        params: config.n_parameters(),
        prompt_tokens,
        new_tokens,
        runs: sample.len(),
        warmup_seconds,
        prefill_tokens_per_second: spread(|run| run.prefill).rate(prompt_tokens as f64),
        decode_tokens_per_second: spread(|run| run.decode).rate((new_tokens - 1) as f64),
        first_token_seconds: spread(|run| run.opening),
        peak_rss_mb: rate::peak_resident_bytes().map(mebibytes),
        device_pool_mb: device.memory_pool_usage().map(|usage| mebibytes(usage.bytes_reserved)),
    })
}

fn run(decoder: &Decoder, prompt: &[u32], max_tokens: usize) -> Result<Run, BenchError> {
    let chain = Chain::greedy(decoder.config().vocab_size);
    let limits = Limits { max_tokens, stop_ids: Vec::new() };
    let (start, mut opening, mut last) = (Instant::now(), None, 0.0);
    let report = generate(decoder, prompt, &chain, &limits, &mut |_| {
        last = start.elapsed().as_secs_f64();
        opening.get_or_insert(last);
        ControlFlow::Continue(())
    })?;
    let opening = opening.unwrap_or(last);
    Ok(Run { prefill: report.prefill.as_secs_f64(), opening, decode: last - opening })
}

#[cfg(test)]
mod tests {
    use fornax_model::device::Kind;

    use super::*;
    use crate::bench::workload::WORKLOADS;

    #[test]
    fn a_run_gives_times_that_belong_together() {
        let (device, name) = (Device::flex(), DeviceName::Named(Kind::Cpu, 0));
        let workload = WORKLOADS[0].with_batch(Some(1), Some(12)).unwrap();
        let decoder = random_model(&workload, DType::F32, &device);
        let bench = GenerateBench { prompt_tokens: 8, new_tokens: 4, runs: 3 };
        let report = measure(&bench, &decoder, "nano".into(), (&device, name), &mut |_| {}).unwrap();
        // The opening token comes after the prompt was read.
        assert!(report.first_token_seconds.median >= 8.0 / report.prefill_tokens_per_second.p90);
        assert!(report.decode_tokens_per_second.p10 > 0.0 && report.runs == 3);
        let long = GenerateBench { new_tokens: 5, ..bench };
        let error = measure(&long, &decoder, "nano".into(), (&device, name), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("at most 12 together"), "{error}");
    }
}
