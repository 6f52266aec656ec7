//! Every way of decoding held to the forward without a cache, on the recorded models: each cache, tokens that come at
//! once, in pieces and one by one, and each kind of draft.

use std::path::Path;

use burn::tensor::{DType, Device, Int, Tensor};
use fornax_infer::engine::{EngineOptions, KvLayout, Memory, ModelFacts, Request, ValidRequest, run_closed};
use fornax_infer::sampler::SamplingOptions;
use fornax_infer::speculative::{Draft, Lookup, SpeculationOptions};
use fornax_model::weights::{LoadOptions, load};
use fornax_model::{Decoder, KvCache, KvElement, Layout, Segment, token_tensor};
use serde::Serialize;

use super::{ParityError, Recorded, Tolerance, logits, relative};
use crate::bench::dtype_word;

/// Tokens of a page: no multiple of the pieces, so that tokens cross pages.
const PAGE_LEN: usize = 4;
/// Tokens that are drafted and compared for each row.
const NEW: usize = 16;
/// What rounding keys and values to 8 bits may change, by the greatest logit.
const INT8: f64 = 0.06;

/// One model, decoded one way.
#[derive(Debug, Clone, Serialize)]
pub struct EngineReport {
    /// Name of the folder.
    pub fixture: String,
    /// `contiguous`, `paged`, or `speculative`.
    pub path: String,
    /// What is stored of keys and values, or the draft.
    pub kind: String,
    /// The device by its name on the command line.
    pub device: String,
    /// Dtype of the matrix products.
    pub dtype: &'static str,
    /// Tokens compared.
    pub tokens: usize,
    /// Greatest difference of a logit by the greatest logit of the forward without a cache; `None` where tokens are
    /// compared.
    pub logits_error: Option<f64>,
    /// What was allowed of it.
    pub tolerance: Option<f64>,
    /// Greedy texts that became others without a tie; `None` where logits are compared.
    pub other_texts: Option<usize>,
    /// Whether it is within what is allowed.
    pub passed: bool,
}

/// Compares one recorded model.
///
/// # Errors
/// [`ParityError`] when the fixture cannot be read or the device fails.
pub fn compare(
    folder: &Path,
    device: &Device,
    device_name: &str,
    dtype: DType,
) -> Result<Vec<EngineReport>, ParityError> {
    let recorded = Recorded::open(folder)?;
    let decoder = load(folder, LoadOptions { dtype: Some(dtype), strict: true }, device)?.decoder;
    let base = logits(&decoder, &recorded, device)?;
    let name = folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.display().to_string());
    let report = |path: &str, kind: String| EngineReport {
        fixture: name.clone(),
        path: path.to_string(),
        kind,
        device: device_name.to_string(),
        dtype: dtype_word(dtype),
        tokens: recorded.tokens.len(),
        logits_error: None,
        tolerance: None,
        other_texts: None,
        passed: false,
    };
    let mut reports = Vec::new();
    for paged in [false, true] {
        for element in [KvElement::of(dtype), KvElement::Int8] {
            let found = cached(&decoder, &recorded, paged, element, device)?;
            let error = relative(&found, &base);
            let rounding = if element == KvElement::Int8 { INT8 } else { 0.0 };
            let tolerance = Tolerance::of(dtype).logits + rounding;
            reports.push(EngineReport {
                logits_error: Some(error),
                tolerance: Some(tolerance),
                passed: error <= tolerance,
                ..report(if paged { "paged" } else { "contiguous" }, element.to_string())
            });
        }
    }
    for (word, draft) in drafts(&decoder) {
        let (tokens, other) = drafted(&decoder, &recorded, draft, Tolerance::of(dtype).logits)?;
        reports.push(EngineReport {
            tokens,
            other_texts: Some(other),
            passed: other == 0,
            ..report("speculative", word.to_string())
        });
    }
    Ok(reports)
}

/// Logits [b, t, v] of the recorded tokens through a cache: a piece of five tokens, then one by one, then the rest.
fn cached(
    decoder: &Decoder,
    recorded: &Recorded,
    paged: bool,
    element: KvElement,
    device: &Device,
) -> Result<Vec<f32>, ParityError> {
    let (b, t, v) = (recorded.rows, recorded.columns, decoder.config().vocab_size);
    let pages = t.div_ceil(PAGE_LEN);
    let mut cache = match paged {
        false => KvCache::new(decoder.config(), b, t, element, device),
        true => KvCache::paged(decoder.config(), b * pages, PAGE_LEN, element, device),
    };
    let mut all = vec![0.0; b * t * v];
    let ends: Vec<usize> = [5.min(t)].into_iter().chain(6..=(t / 2).max(5)).chain([t]).collect();
    let mut from = 0;
    for to in ends {
        if to <= from || to > t {
            continue;
        }
        let n = to - from;
        let ids: Vec<u32> =
            (0..b).flat_map(|row| &recorded.tokens[row * t + from..row * t + to]).copied().collect();
        let (tokens, layout) = match paged {
            false => (token_tensor(&ids, b, device), Layout::contiguous(from, n, device)),
            true => {
                // Pages in an order of their own.
                let of = |row: usize| (0..pages).map(|i| ((pages - 1 - i) * b + row) as u32).collect();
                let segments = (0..b).map(|row| Segment { past: from, tokens: n, pages: of(row) }).collect();
                (token_tensor(&ids, ids.len(), device), Layout::ragged(segments, device))
            }
        };
        let hidden = decoder.forward(tokens, &layout, Some(&mut cache));
        let values = decoder.logits(hidden).try_into_vec_as::<f32>().map_err(ParityError::device)?;
        for row in 0..b {
            let target = (row * t + from) * v;
            all[target..target + n * v].copy_from_slice(&values[row * n * v..(row + 1) * n * v]);
        }
        from = to;
    }
    Ok(all)
}

fn drafts(decoder: &Decoder) -> Vec<(&'static str, Draft)> {
    let mut all = vec![
        ("lookup", Draft::Lookup(Lookup { least: 1, most: 4 })),
        ("the model itself", Draft::Model(Box::new(decoder.clone()))),
    ];
    if decoder.config().n_layers > 1 {
        all.push(("early exit", Draft::EarlyExit { layers: 1 }));
    }
    all
}

/// Greedy texts with and without proposals: the tokens that were compared, and how many texts became others where the
/// two likeliest logits lie apart by more than `tie` of the greatest.
fn drafted(decoder: &Decoder, recorded: &Recorded, draft: Draft, tie: f64) -> Result<(usize, usize), ParityError> {
    let speculation = SpeculationOptions { most: 3, fixed: true, ..SpeculationOptions::new(draft) };
    let length = recorded.columns.min(decoder.config().context.saturating_sub(NEW)).max(1);
    let prompts: Vec<&[u32]> = recorded.tokens.chunks(recorded.columns).map(|row| &row[..length]).collect();
    let plain = texts(decoder, &prompts, None)?;
    let fast = texts(decoder, &prompts, Some(speculation))?;
    let mut other = 0;
    for ((prompt, plain), fast) in prompts.iter().zip(&plain).zip(&fast) {
        if let Some(place) = plain.iter().zip(fast).position(|(a, b)| a != b) {
            other += usize::from(gap(decoder, &[prompt, &plain[..place]].concat())? > tie);
        } else {
            other += usize::from(plain.len() != fast.len());
        }
    }
    Ok((plain.iter().map(Vec::len).sum(), other))
}

/// What the engine makes of all prompts together.
fn texts(
    decoder: &Decoder,
    prompts: &[&[u32]],
    speculation: Option<SpeculationOptions>,
) -> Result<Vec<Vec<u32>>, ParityError> {
    let options = EngineOptions {
        layout: KvLayout::Paged { page_len: PAGE_LEN },
        memory: Memory::Tokens(prompts.len() * (prompts[0].len() + NEW + PAGE_LEN)),
        max_running: prompts.len(),
        speculation,
        ..EngineOptions::default()
    };
    let facts = ModelFacts::of(decoder, usize::MAX, 1);
    let sampling = SamplingOptions { ignore_eos: true, ..SamplingOptions::greedy() };
    let valid = |prompt: &&[u32]| {
        let request = Request::new(prompt.to_vec(), sampling.clone());
        ValidRequest::new(Request { max_tokens: Some(NEW), ..request }, &facts)
    };
    let valid = prompts.iter().map(valid).collect::<Result<_, _>>().map_err(ParityError::device)?;
    let closed = run_closed(decoder, &options, valid).map_err(ParityError::device)?;
    Ok(closed.outcomes.iter().map(|outcome| outcome.answers[0].ids()).collect())
}

/// How far the two largest logits behind `ids` lie apart, by the greatest.
fn gap(decoder: &Decoder, ids: &[u32]) -> Result<f64, ParityError> {
    let device = decoder.device();
    let hidden = decoder.forward(token_tensor(ids, 1, &device), &Layout::contiguous(0, ids.len(), &device), None);
    let last = Tensor::<1, Int>::from_data([ids.len() as i32 - 1], &device);
    let mut values =
        decoder.logits(hidden.select(1, last)).try_into_vec_as::<f32>().map_err(ParityError::device)?;
    values.sort_by(|a, b| b.total_cmp(a));
    let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    Ok(f64::from((values[0] - values[1]) / largest))
}
