//! Generated texts on their way to stdout: one as it comes, several when they are complete, or all as JSON.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fornax_base::exit::Exit;
use fornax_data::tokenizer::Tokenizer;
use fornax_infer::engine::Usage;
use fornax_infer::generate::Finish;
use fornax_infer::sampler::Sampled;
use fornax_infer::speculative::SpeculationStats;
use fornax_infer::text::{TextOptions, TextPiece, TextStream};
use serde::Serialize;

use crate::cli::model_folder::LoadedModel;
use crate::cli::report::{Failure, print, stdout_failure};

/// What stands between several texts.
const BETWEEN: &str = "---\n";

/// All texts of a request.
pub(super) struct Output {
    tokenizer: Arc<Tokenizer>,
    samples: Vec<Sample>,
    prompt_tokens: usize,
    begun: Instant,
    json: bool,
    log_probs: bool,
}

/// One text.
struct Sample {
    stream: Option<TextStream>,
    text: String,
    ids: Vec<u32>,
    tokens: Vec<TokenReport>,
    finish: Option<Finish>,
    usage: Usage,
    began: Option<Duration>,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    text: &'a str,
    prompt_ids: &'a [u32],
    ids: &'a [u32],
    finish: &'static str,
    prefill_tokens: usize,
    prefill_seconds: f64,
    decode_tokens: usize,
    decode_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [TokenReport]>,
    /// All texts where there are several, the one above included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples: Vec<JsonSample<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speculation: Option<&'a SpeculationStats>,
}

#[derive(Serialize)]
struct JsonSample<'a> {
    text: &'a str,
    ids: &'a [u32],
    finish: &'static str,
    decode_tokens: usize,
    decode_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [TokenReport]>,
}

/// A token and how likely it was.
#[derive(Serialize)]
struct TokenReport {
    id: u32,
    token: String,
    logprob: f32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<Alternative>,
}

#[derive(Serialize)]
struct Alternative {
    id: u32,
    token: String,
    logprob: f32,
}

impl Output {
    pub(super) fn new(
        model: &LoadedModel,
        prompt: &[u32],
        n: usize,
        json: bool,
        log_probs: bool,
        options: &dyn Fn() -> Result<TextOptions, Failure>,
    ) -> Result<Self, Failure> {
        let sample = || {
            // Behind the prompt, so that a space between it and the text is kept.
            let stream = TextStream::new(Arc::clone(&model.tokenizer), prompt, options()?);
            let stream = stream.map_err(|error| Failure::new(Exit::Failed, error))?;
            Ok(Sample {
                stream: Some(stream),
                text: String::new(),
                ids: Vec::new(),
                tokens: Vec::new(),
                finish: None,
                usage: Usage::default(),
                began: None,
            })
        };
        let samples = (0..n).map(|_| sample()).collect::<Result<_, Failure>>()?;
        let tokenizer = Arc::clone(&model.tokenizer);
        Ok(Self { tokenizer, samples, prompt_tokens: prompt.len(), begun: Instant::now(), json, log_probs })
    }

    /// Takes a token of a text.
    pub(super) fn push(&mut self, sample: usize, sampled: Sampled) -> Result<(), Failure> {
        let report = self.log_probs.then(|| self.report(&sampled));
        let elapsed = self.begun.elapsed();
        let one = &mut self.samples[sample];
        one.began.get_or_insert(elapsed);
        // A text that a stop string has ended takes nothing more.
        let Some(stream) = one.stream.as_mut().filter(|_| one.finish.is_none()) else { return Ok(()) };
        one.ids.push(sampled.id);
        one.tokens.extend(report);
        let piece = stream.push(sampled).map_err(|error| Failure::new(Exit::Failed, error))?;
        match piece {
            Some(piece) => self.take(sample, piece),
            None => Ok(()),
        }
    }

    /// A text is complete.
    pub(super) fn finished(&mut self, sample: usize, finish: Finish, usage: Usage) -> Result<(), Failure> {
        let one = &mut self.samples[sample];
        if one.finish.is_none() {
            one.finish = Some(finish);
            one.usage = usage;
        }
        self.flush(sample)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.samples.iter().all(|one| one.finish.is_some())
    }

    fn take(&mut self, sample: usize, piece: TextPiece) -> Result<(), Failure> {
        self.write(sample, &piece.text)?;
        let elapsed = self.begun.elapsed();
        let one = &mut self.samples[sample];
        if piece.stopped.is_some() && one.finish.is_none() {
            one.finish = Some(Finish::Stop);
            let prefill = one.began.unwrap_or(elapsed);
            let (prompt_tokens, generated_tokens) = (self.prompt_tokens, one.ids.len());
            one.usage =
                Usage { prompt_tokens, generated_tokens, prefill, decode: elapsed - prefill, ..Usage::default() };
        }
        Ok(())
    }

    fn write(&mut self, sample: usize, piece: &str) -> Result<(), Failure> {
        self.samples[sample].text.push_str(piece);
        if self.json || self.samples.len() > 1 || piece.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(piece.as_bytes()).and_then(|()| out.flush()).map_err(stdout_failure)
    }

    /// What the text of a sample holds back.
    fn flush(&mut self, sample: usize) -> Result<(), Failure> {
        let Some(stream) = self.samples[sample].stream.take() else { return Ok(()) };
        let rest = stream.finish().map_err(|error| Failure::new(Exit::Failed, error))?;
        self.write(sample, &rest.text)
    }

    /// Ends the output: one line break for the shell's prompt, or everything where it was not written as it came.
    pub(super) fn finish(mut self, prompt: &[u32], speculation: Option<&SpeculationStats>) -> Result<(), Failure> {
        for sample in 0..self.samples.len() {
            self.flush(sample)?;
        }
        let text = match (self.json, &self.samples[..]) {
            (true, _) => self.json_object(prompt, speculation)?,
            (false, [_]) => "\n".to_owned(),
            (false, all) => all.iter().map(|one| one.text.clone() + "\n").collect::<Vec<_>>().join(BETWEEN),
        };
        print(&text)
    }

    /// Prefill and decoding apart: they are limited by different parts of the machine.
    pub(super) fn timing(&self) -> String {
        let rate = |n: usize, seconds: f64| n as f64 / seconds.max(1e-9);
        // The engine's clock, where every text has its times: what arrives here may be behind it.
        let known = self.samples.iter().all(|one| one.usage.prefill > Duration::ZERO);
        let most = |part: fn(&Usage) -> Duration| self.samples.iter().map(|one| part(&one.usage)).max();
        let (prefill, decode) = match (most(|usage| usage.prefill), most(|usage| usage.decode)) {
            (Some(prefill), Some(decode)) if known => (prefill, decode),
            _ => {
                let elapsed = self.begun.elapsed();
                let prefill = self.samples.iter().filter_map(|one| one.began).min().unwrap_or(elapsed);
                (prefill, elapsed.saturating_sub(prefill))
            }
        };
        let (prefill, decode) = (prefill.as_secs_f64(), decode.as_secs_f64());
        let generated = self.samples.iter().map(|one| one.ids.len()).sum();
        let end = match &self.samples[..] {
            [one] => match one.finish.unwrap_or(Finish::Cancelled) {
                Finish::Stop => "ended by the model",
                Finish::Length => "--max-tokens reached",
                Finish::Context => "the model's context is full",
                Finish::Cancelled => "stopped",
            }
            .to_owned(),
            all => format!("{} texts", all.len()),
        };
        format!(
            "prefill: {} tokens in {prefill:.3} s ({:.1} tok/s); decode: {generated} tokens in {decode:.3} s ({:.1} tok/s); {end}\n",
            self.prompt_tokens,
            rate(self.prompt_tokens, prefill),
            rate(generated, decode),
        )
    }

    fn report(&self, sampled: &Sampled) -> TokenReport {
        let token = |id| self.tokenizer.decode(&[id], false).unwrap_or_default();
        let top = sampled.top.iter().map(|&(id, logprob)| Alternative { id, token: token(id), logprob });
        let Sampled { id, log_prob, .. } = *sampled;
        TokenReport { id, token: token(id), logprob: log_prob, top: top.collect() }
    }

    fn json_object(&self, prompt: &[u32], speculation: Option<&SpeculationStats>) -> Result<String, Failure> {
        let sample = |one| json_sample(one, self.log_probs);
        let one = &self.samples[0];
        let JsonSample { text, ids, finish, decode_tokens, decode_seconds, logprobs } = sample(one);
        let several = self.samples.len() > 1;
        let object = JsonReport {
            text,
            prompt_ids: prompt,
            ids,
            finish,
            prefill_tokens: self.prompt_tokens,
            prefill_seconds: one.usage.prefill.as_secs_f64(),
            decode_tokens,
            decode_seconds,
            logprobs,
            samples: if several { self.samples.iter().map(sample).collect() } else { Vec::new() },
            speculation,
        };
        let json = serde_json::to_string(&object).map_err(|error| Failure::new(Exit::Failed, error))?;
        Ok(json + "\n")
    }
}

fn json_sample(one: &Sample, log_probs: bool) -> JsonSample<'_> {
    JsonSample {
        text: &one.text,
        ids: &one.ids,
        finish: match one.finish.unwrap_or(Finish::Cancelled) {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Context => "context",
            Finish::Cancelled => "cancelled",
        },
        decode_tokens: one.ids.len(),
        decode_seconds: one.usage.decode.as_secs_f64(),
        logprobs: log_probs.then_some(&one.tokens[..]),
    }
}
