//! Sequences read and continued: tokens per second of the prompts and of what follows, the time to the opening token,
//! and the memory that a token reads.

use std::time::Instant;

use burn::tensor::{DType, Device};
use fornax_base::rng::rng;
use fornax_infer::engine::{EngineOptions, Memory, ModelFacts, Request, ValidRequest, run_closed};
use fornax_infer::sampler::SamplingOptions;
use fornax_infer::speculative::{SpeculationOptions, SpeculationStats};
use fornax_model::Decoder;
use fornax_model::device::DeviceName;
use fornax_train::rate;
use serde::Serialize;

use super::bandwidth::weight_bytes;
use super::rows::CacheKind;
use super::{BenchError, PEER, Spread, Workload, dtype_word, mebibytes, threads};

/// What to measure.
#[derive(Debug, Clone)]
pub struct GenerateBench {
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens after it, the likeliest each time; none ends the text.
    pub new_tokens: usize,
    /// Sequences at once.
    pub batch: usize,
    /// Runs that count; one before them does not.
    pub runs: usize,
    /// Where keys and values lie.
    pub cache: CacheKind,
    /// What the prompts are cut from, over and over; random tokens where it is empty.
    pub text: Vec<u32>,
    /// Proposals, and their word in the report.
    pub speculation: Option<(SpeculationOptions, String)>,
    /// Bytes per second of the memory, where they were measured.
    pub memory_rate: Option<f64>,
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
    /// Sequences at once.
    pub batch: usize,
    /// `contiguous` or `paged`.
    pub kv: &'static str,
    /// What is stored of keys and values.
    pub kv_dtype: &'static str,
    /// Bytes of the cache.
    pub kv_bytes: u64,
    /// Runs that count.
    pub runs: usize,
    /// Seconds of the run that does not count, in which kernels are compiled.
    pub warmup_seconds: f64,
    /// Tokens of all prompts by the time to their last logits.
    pub prefill_tokens_per_second: Spread,
    /// Tokens of all sequences after their opening ones by their time.
    pub decode_tokens_per_second: Spread,
    /// Seconds from the start to the opening tokens.
    pub first_token_seconds: Spread,
    /// Bytes of weights and of keys and values that decoding a token reads, the weights shared by the batch.
    pub bytes_per_token: u64,
    /// Measured bytes per second of the memory, in 10^9; `None` where they were not measured.
    pub memory_gbps: Option<f64>,
    /// The part of it that decoding reaches; `None` with proposals, of which each pass reads the weights once.
    pub memory_share: Option<f64>,
    /// What made proposals; `off` for plain decoding.
    pub speculation: String,
    /// Share of the proposed tokens that were accepted.
    pub acceptance: Option<f64>,
    /// The same by position, each with those before it accepted too.
    pub acceptance_at: Vec<f64>,
    /// Tokens of a round with proposals.
    pub mean_length: Option<f64>,
    /// Rate of rounds with proposals by that of plain ones within the same runs, below 1 where they cost time.
    pub speed_up: Option<f64>,
    /// How often drafting was switched off because it did not pay.
    pub switched_off: Option<u64>,
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
    let &GenerateBench { prompt_tokens, new_tokens, batch, runs, cache, .. } = bench;
    bench.check(decoder)?;
    let config = decoder.config();
    let prompts = bench.prompts(config.vocab_size);
    let mut stats = SpeculationStats::default();
    let started = Instant::now();
    bench.run(decoder, &prompts, &mut stats)?;
    let warmup_seconds = started.elapsed().as_secs_f64();
    progress(&format!("{model}: one run to warm up took {warmup_seconds:.2} s"));
    stats = SpeculationStats::default();
    let sample: Vec<Run> =
        (0..runs.max(1)).map(|_| bench.run(decoder, &prompts, &mut stats)).collect::<Result<_, _>>()?;
    let spread = |of: fn(&Run) -> f64| Spread::of(&sample.iter().map(of).collect::<Vec<f64>>());
    let decode = spread(|run| run.decode).rate((batch * (new_tokens - 1)) as f64);
    // In the middle of the answer.
    let tokens = prompt_tokens + new_tokens / 2;
    let bytes_per_token = weight_bytes(decoder) / batch as u64 + cache.bytes(config, 1, tokens);
    let drafts = bench.speculation.is_some();
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
        batch,
        kv: cache.word(),
        kv_dtype: cache.element.word(),
        kv_bytes: cache.bytes(config, batch, prompt_tokens + new_tokens),
        runs: sample.len(),
        warmup_seconds,
        prefill_tokens_per_second: spread(|run| run.prefill).rate((batch * prompt_tokens) as f64),
        decode_tokens_per_second: decode,
        first_token_seconds: spread(|run| run.opening),
        bytes_per_token,
        memory_gbps: bench.memory_rate.map(|rate| rate / 1e9),
        memory_share: bench
            .memory_rate
            .filter(|_| !drafts)
            .map(|rate| bytes_per_token as f64 * decode.median / rate),
        speculation: bench.speculation.as_ref().map_or("off".to_string(), |(_, word)| word.clone()),
        acceptance: stats.acceptance(),
        acceptance_at: (0..).map_while(|i| stats.acceptance_at(i)).collect(),
        mean_length: stats.mean_length(),
        speed_up: stats.speed_up(),
        switched_off: drafts.then_some(stats.switched_off),
        peak_rss_mb: rate::peak_resident_bytes().map(mebibytes),
        device_pool_mb: device.memory_pool_usage().map(|usage| mebibytes(usage.bytes_reserved)),
    })
}

impl GenerateBench {
    fn check(&self, decoder: &Decoder) -> Result<(), BenchError> {
        let &GenerateBench { prompt_tokens, new_tokens, batch, .. } = self;
        let context = decoder.config().context;
        for (what, value, lowest) in
            [("the number of prompt tokens", prompt_tokens, 1), ("the number of new tokens", new_tokens, 2)]
        {
            if value < lowest || prompt_tokens.saturating_add(new_tokens) > context {
                let expected = format!("at least {lowest}, and at most {context} together, the model's context");
                return Err(BenchError::Size { what, value, expected });
            }
        }
        if batch == 0 || batch.saturating_mul(context) > 1 << 24 {
            let expected = "at least 1, and at most 16,777,216 tokens in a batch".to_string();
            return Err(BenchError::Size { what: "the batch", value: batch, expected });
        }
        if let Some((options, _)) = &self.speculation {
            options.check(decoder)?;
        }
        Ok(())
    }

    /// Each of its own, so that rows do not share what they read.
    fn prompts(&self, vocab_size: usize) -> Vec<Vec<u32>> {
        let mut random = rng(0, 0, "bench/prompt");
        let mut prompt = |row: usize| -> Vec<u32> {
            let place = |i: usize| self.text[(row * self.prompt_tokens + i) % self.text.len()];
            match self.text.is_empty() {
                true => (0..self.prompt_tokens).map(|_| random.below(vocab_size as u64) as u32).collect(),
                false => (0..self.prompt_tokens).map(place).collect(),
            }
        };
        (0..self.batch).map(&mut prompt).collect()
    }

    /// Through the engine: what it takes with all prompts read at once, and then all of them continued.
    fn run(
        &self,
        decoder: &Decoder,
        prompts: &[Vec<u32>],
        stats: &mut SpeculationStats,
    ) -> Result<Run, BenchError> {
        let room = self.prompt_tokens + self.new_tokens;
        let longest = self.speculation.as_ref().map_or(0, |(options, _)| options.most);
        let engine = EngineOptions {
            layout: self.cache.layout(decoder.config()),
            element: Some(self.cache.element),
            // Each with a last page that is not full.
            memory: Memory::Tokens(self.batch * (room + self.cache.page_len.unwrap_or(0))),
            max_running: self.batch,
            // All prompts in as few passes as there can be, so that none is continued meanwhile.
            token_budget: (self.batch * (longest + 1)).max((self.batch * self.prompt_tokens).clamp(512, 1 << 14)),
            prefix_reuse: false,
            speculation: self.speculation.as_ref().map(|(options, _)| options.clone()),
            ..EngineOptions::default()
        };
        let sampling = SamplingOptions { ignore_eos: true, ..SamplingOptions::greedy() };
        let facts = ModelFacts::of(decoder, room, 1);
        let valid = |prompt: &Vec<u32>| {
            let request = Request::new(prompt.clone(), sampling.clone());
            ValidRequest::new(Request { max_tokens: Some(self.new_tokens), ..request }, &facts)
        };
        let valid: Vec<ValidRequest> =
            prompts.iter().map(valid).collect::<Result<_, _>>().map_err(BenchError::device)?;
        let closed = run_closed(decoder, &engine, valid).map_err(BenchError::device)?;
        if let Some(found) = &closed.speculation {
            stats.add(found);
        }
        let read = closed.outcomes.iter().flat_map(|outcome| &outcome.answers);
        let read = read.map(|answer| (answer.usage.queued + answer.usage.prefill).as_secs_f64());
        let prefill = read.fold(0.0, f64::max);
        Ok(Run { prefill, opening: prefill, decode: closed.took.as_secs_f64() - prefill })
    }
}

#[cfg(test)]
mod tests {
    use fornax_infer::speculative::Draft;
    use fornax_model::KvElement;
    use fornax_model::device::Kind;

    use super::*;
    use crate::bench::workload::WORKLOADS;

    fn bench(prompt_tokens: usize, new_tokens: usize) -> GenerateBench {
        GenerateBench {
            prompt_tokens,
            new_tokens,
            batch: 1,
            runs: 3,
            cache: CacheKind { page_len: None, element: KvElement::F32 },
            text: Vec::new(),
            speculation: None,
            memory_rate: Some(1e10),
        }
    }

    #[test]
    fn a_run_gives_times_that_belong_together() {
        let (device, name) = (Device::flex(), DeviceName::Named(Kind::Cpu, 0));
        let workload = WORKLOADS[0].with_batch(Some(1), Some(12)).unwrap();
        let decoder = random_model(&workload, DType::F32, &device);
        let go = |bench: &GenerateBench| measure(bench, &decoder, "nano".into(), (&device, name), &mut |_| {});
        let report = go(&bench(8, 4)).unwrap();
        // The opening token comes after the prompt was read.
        assert!(report.first_token_seconds.median >= 8.0 / report.prefill_tokens_per_second.p90);
        assert!(report.decode_tokens_per_second.p10 > 0.0 && report.runs == 3);
        // Weights without the embedding table, and 10 tokens of keys and values in 4 layers of 128 channels.
        assert_eq!(report.bytes_per_token, 4 * (808_320 - 65 * 128) + 2 * 4 * 10 * 4 * 128);
        let share = report.bytes_per_token as f64 * report.decode_tokens_per_second.median / 1e10;
        assert_eq!(report.memory_share, Some(share));
        let error = go(&bench(8, 5)).unwrap_err();
        assert!(error.to_string().contains("at most 12 together"), "{error}");
        assert!(go(&GenerateBench { batch: 0, ..bench(8, 4) }).is_err());
    }

    #[test]
    fn proposals_are_counted_and_four_rows_share_the_weights() {
        let (device, name) = (Device::flex(), DeviceName::Named(Kind::Cpu, 0));
        let workload = WORKLOADS[0].with_batch(Some(1), Some(40)).unwrap();
        let decoder = random_model(&workload, DType::F32, &device);
        let go = |bench: &GenerateBench| measure(bench, &decoder, "nano".into(), (&device, name), &mut |_| {});
        let itself = Draft::Model(Box::new(decoder.clone()));
        let options = SpeculationOptions { most: 3, fixed: true, ..SpeculationOptions::new(itself) };
        let speculation = Some((options, "itself".to_string()));
        let report = go(&GenerateBench { speculation: speculation.clone(), text: vec![1, 2, 3], ..bench(8, 21) });
        let report = report.unwrap();
        assert_eq!((report.acceptance, report.mean_length), (Some(1.0), Some(4.0)), "{report:?}");
        assert_eq!((report.acceptance_at.as_slice(), report.memory_share), (&[1.0; 3][..], None));
        let two = go(&GenerateBench { speculation, batch: 2, ..bench(8, 21) }).unwrap();
        assert_eq!((two.acceptance, two.mean_length), (Some(1.0), Some(4.0)), "{two:?}");
        let paged = CacheKind { page_len: Some(16), element: KvElement::F16 };
        let four = go(&GenerateBench { batch: 4, cache: paged, ..bench(8, 4) }).unwrap();
        assert_eq!((four.kv, four.kv_dtype, four.kv_bytes), ("paged", "f16", 4 * 16 * 2 * 2 * 4 * 128));
        assert_eq!(four.bytes_per_token, 808_320 - 65 * 128 + 16 * 2 * 2 * 4 * 128);
    }
}
