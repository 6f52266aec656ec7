//! Requests of different lengths through the engine, batched continuously, statically, and not at all.

use burn::tensor::Device;
use fornax_base::rng::rng;
use fornax_infer::engine::{
    Batching, Closed, EngineError, EngineOptions, Memory, ModelFacts, Request, ValidRequest, run_closed,
};
use fornax_infer::sampler::SamplingOptions;
use fornax_model::Decoder;
use fornax_model::device::DeviceName;
use fornax_train::rate;
use serde::Serialize;

use super::rows::CacheKind;
use super::{BenchError, PEER, Spread, dtype_word, mebibytes, threads};

/// Tokens of the prompts: every length alike.
const PROMPT: (u64, u64) = (16, 128);
/// Tokens of the answers: every order of magnitude alike, so that most are short and some long.
const NEW: (f64, f64) = (8.0, 256.0);

/// Tokens that the longest request takes.
pub const LONGEST: usize = PROMPT.1 as usize + NEW.1 as usize;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct MixedBench {
    /// Requests, submitted at once.
    pub requests: usize,
    /// Sequences that run at once where requests are batched.
    pub max_running: usize,
    /// Tokens of one pass of the model at most.
    pub token_budget: usize,
    /// Rounds; in each every way of batching has a turn.
    pub runs: usize,
    /// Where keys and values lie.
    pub cache: CacheKind,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct MixedReport {
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
    /// Requests.
    pub requests: usize,
    /// Tokens of their prompts together.
    pub prompt_tokens: usize,
    /// Tokens of their answers together.
    pub new_tokens: usize,
    /// Sequences that run at once where requests are batched.
    pub max_running: usize,
    /// `contiguous` or `paged`.
    pub kv: &'static str,
    /// What is stored of keys and values.
    pub kv_dtype: &'static str,
    /// Rounds.
    pub runs: usize,
    /// Tokens of answers by the time of all requests, batched continuously.
    pub continuous_tokens_per_second: Spread,
    /// The same with a batch that is over when its last request is.
    pub static_tokens_per_second: Spread,
    /// The same with one request after the other.
    pub sequential_tokens_per_second: Spread,
    /// Continuous by static, the middle of the rounds.
    pub ratio_static: f64,
    /// Continuous by sequential, the middle of the rounds.
    pub ratio_sequential: f64,
    /// Passes of the model: continuous, static, sequential.
    pub passes: [u64; 3],
    /// Most memory the process ever held, in MiB; `None` where the system does not tell.
    pub peak_rss_mb: Option<u64>,
}

/// Measures `decoder`, called `model` in the report.
///
/// # Errors
/// [`BenchError`] when a request does not fit the model, or the device fails.
pub fn measure(
    bench: &MixedBench,
    decoder: &Decoder,
    model: String,
    (_, name): (&Device, DeviceName),
    progress: &mut dyn FnMut(&str),
) -> Result<MixedReport, BenchError> {
    let &MixedBench { requests, max_running, runs, cache, .. } = bench;
    let config = decoder.config();
    for (what, value, expected) in [
        ("the number of requests", requests, "at least 1"),
        ("the number that run at once", max_running, "at least 1"),
    ] {
        if value == 0 {
            return Err(BenchError::Size { what, value, expected: expected.to_string() });
        }
    }
    if config.context < LONGEST {
        let expected = format!("at least {LONGEST}, what the longest request takes");
        return Err(BenchError::Size { what: "the model's context", value: config.context, expected });
    }
    let all = requests_of(requests, config.vocab_size);
    let new_tokens = all.iter().map(|(_, new)| new).sum::<usize>();
    let prompt_tokens = all.iter().map(|(prompt, _)| prompt.len()).sum();
    let ways = [(Batching::Continuous, max_running), (Batching::Static, max_running), (Batching::Continuous, 1)];
    let mut rates: [Vec<f64>; 3] = Default::default();
    let mut passes = [0; 3];
    for round in 0..=runs.max(1) {
        for (place, way) in ways.into_iter().enumerate() {
            let closed = bench.run(decoder, way, &all)?;
            let rate = new_tokens as f64 / closed.took.as_secs_f64();
            passes[place] = closed.stats.steps;
            // The opening round warms up.
            if round > 0 {
                rates[place].push(rate);
            }
        }
        progress(&format!("{model}: round {round} of {}", runs.max(1)));
    }
    let [continuous, fixed, sequential] = &rates;
    let ratio = |other: &[f64]| {
        let ratios: Vec<f64> = continuous.iter().zip(other).map(|(ours, theirs)| ours / theirs).collect();
        Spread::of(&ratios).median
    };
    Ok(MixedReport {
        peer: PEER,
        model,
        device: name.to_string(),
        threads: threads(),
        dtype: dtype_word(decoder.compute()),
        requests,
        prompt_tokens,
        new_tokens,
        max_running,
        kv: cache.word(),
        kv_dtype: cache.element.word(),
        runs: continuous.len(),
        continuous_tokens_per_second: Spread::of(continuous),
        static_tokens_per_second: Spread::of(fixed),
        sequential_tokens_per_second: Spread::of(sequential),
        ratio_static: ratio(fixed),
        ratio_sequential: ratio(sequential),
        passes,
        peak_rss_mb: rate::peak_resident_bytes().map(mebibytes),
    })
}

/// Prompts with the lengths of their answers, the same each time.
fn requests_of(n: usize, vocab_size: usize) -> Vec<(Vec<u32>, usize)> {
    let mut random = rng(0, 0, "bench/mixed");
    let mut request = || {
        let length = PROMPT.0 + random.below(PROMPT.1 - PROMPT.0 + 1);
        let prompt = (0..length).map(|_| random.below(vocab_size as u64) as u32).collect();
        let new = NEW.0 * (NEW.1 / NEW.0).powf(random.uniform_f64());
        (prompt, new.round() as usize)
    };
    (0..n).map(|_| request()).collect()
}

impl MixedBench {
    fn run(
        &self,
        decoder: &Decoder,
        (batching, max_running): (Batching, usize),
        requests: &[(Vec<u32>, usize)],
    ) -> Result<Closed, BenchError> {
        // Room for all that run, and the pages at their ends that are not full.
        let room = LONGEST + self.cache.page_len.unwrap_or(0);
        let options = EngineOptions {
            layout: self.cache.layout(decoder.config()),
            element: Some(self.cache.element),
            memory: Memory::Tokens(max_running * room),
            max_running,
            token_budget: self.token_budget.max(max_running),
            batching,
            prefix_reuse: false,
            ..EngineOptions::default()
        };
        let facts = ModelFacts::of(decoder, LONGEST, 1);
        let sampling = SamplingOptions { ignore_eos: true, ..SamplingOptions::greedy() };
        let valid = |(prompt, new): &(Vec<u32>, usize)| {
            let request = Request { max_tokens: Some(*new), ..Request::new(prompt.clone(), sampling.clone()) };
            ValidRequest::new(request, &facts)
        };
        let valid: Vec<ValidRequest> =
            requests.iter().map(valid).collect::<Result<_, _>>().map_err(BenchError::device)?;
        let closed =
            run_closed(decoder, &options, valid).map_err(|error: EngineError| BenchError::device(error))?;
        // A rate of requests that failed would be no rate.
        let made: usize =
            closed.outcomes.iter().flat_map(|outcome| &outcome.answers).map(|a| a.tokens.len()).sum();
        let wanted: usize = requests.iter().map(|(_, new)| new).sum();
        match made == wanted {
            true => Ok(closed),
            false => Err(BenchError::device(format_args!("{made} of {wanted} tokens were made"))),
        }
    }
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
    fn batching_takes_fewer_passes_for_the_same_tokens() {
        let (device, name) = (Device::flex(), DeviceName::Named(Kind::Cpu, 0));
        let workload = WORKLOADS[0].with_batch(Some(1), Some(LONGEST)).unwrap();
        let decoder = random_model(&workload, DType::F32, &device);
        let cache = CacheKind { page_len: Some(16), element: KvElement::F32 };
        let bench = MixedBench { requests: 6, max_running: 3, token_budget: 256, runs: 1, cache };
        let go = |bench: &MixedBench| measure(bench, &decoder, "nano".into(), (&device, name), &mut |_| {});
        let report = go(&bench).unwrap();
        let [continuous, fixed, sequential] = report.passes;
        assert!(continuous < fixed && fixed < sequential, "{:?}", report.passes);
        // A pass for each token, of which the prompts' own passes give the opening ones.
        assert_eq!(sequential, report.new_tokens as u64);
        assert!(report.ratio_static > 0.0 && report.ratio_sequential > 0.0);
        assert!(go(&MixedBench { requests: 0, ..bench }).is_err());
        assert!(go(&MixedBench { max_running: 0, ..bench }).is_err());
    }
}
