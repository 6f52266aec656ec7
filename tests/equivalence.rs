//! The same weights give the same numbers on every path: training forward, prefill in chunks, token by
//! token, a truncated, a reset and a batched cache, a paged one with sequences of different lengths, packed documents, packed weights, the autodiff device, and
//! adapters.
//!
//! Shapes: b rows, t tokens, v vocabulary; logits are row-major [b, t, v].

#![allow(clippy::print_stdout, reason = "measured differences, shown with --nocapture")]

#[path = "equivalence/adapters.rs"]
mod adapters;
#[path = "equivalence/packed.rs"]
mod packed;
#[path = "equivalence/paged.rs"]
mod paged;
#[path = "equivalence/subjects.rs"]
mod subjects;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_model::{Decoder, KvCache, KvElement, Layout, ModelConfig};

use subjects::{Rows, Subject, decoder, devices, largest_two, subjects, supported, tokens};

/// Dtypes of a decoder and its cache, and how far the logits of two paths may lie apart, relative to the
/// largest logit.
struct Precision {
    name: &'static str,
    weights: DType,
    compute: DType,
    cache: KvElement,
    tolerance: f32,
}

const PRECISIONS: [Precision; 6] = [
    // Sums of the same f32 products in another order: some ulps of 6e-8; up to 1.6e-6 was measured.
    precision("f32", DType::F32, DType::F32, KvElement::F32, 4e-6),
    // Keys and values keep 11 bits (an error of 2^-12 each), on the cached paths alone; measured 1.2e-3.
    precision("f32, f16 cache", DType::F32, DType::F32, KvElement::F16, 2.5e-3),
    // As above with 8 bits, an error of 2^-9; measured 8.7e-3.
    precision("f32, bf16 cache", DType::F32, DType::F32, KvElement::BF16, 2e-2),
    // The activations of a block are rounded to 8 bits. Another order of f32 sums may flip a rounding;
    // measured 0 on the processor: there a bf16 row comes out the same among any number of rows.
    precision("f32 weights, bf16 compute", DType::F32, DType::BF16, KvElement::BF16, 2e-2),
    // The residual stream too.
    precision("bf16", DType::BF16, DType::BF16, KvElement::BF16, 2e-2),
    // Keys and values in steps of 1/127 of the largest of their head, an error of 2^-8 of it each.
    precision("f32, int8 cache", DType::F32, DType::F32, KvElement::Int8, 5e-2),
];

const fn precision(
    name: &'static str,
    weights: DType,
    compute: DType,
    cache: KvElement,
    tolerance: f32,
) -> Precision {
    Precision { name, weights, compute, cache, tolerance }
}

/// A greedy token may differ in f32 only where the two largest logits are this close.
const TIE: f32 = 1e-4;
/// At most one such place in this many.
const PLACES_PER_TIE: usize = 10_000;

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_to_vec::<f32>().unwrap()
}

/// Logits [b, t, v] of `rows`, after what the cache holds.
fn forward(decoder: &Decoder, rows: &Rows, cache: Option<&mut KvCache>) -> Vec<f32> {
    let device = decoder.device();
    let past = cache.as_ref().map_or(0, |cache| cache.len());
    let layout = Layout::contiguous(past, rows.t(), &device);
    values(decoder.logits(decoder.forward(rows.tensor(&device), &layout, cache)))
}

/// Feeds `rows` to the cache in chunks; logits [b, t, v] of all of them.
fn in_chunks(decoder: &Decoder, rows: &Rows, chunk: usize, cache: &mut KvCache) -> Vec<f32> {
    let starts = (0..rows.t()).step_by(chunk);
    let parts = starts.map(|from| {
        let part = rows.columns(from, rows.t().min(from + chunk));
        (part.t(), forward(decoder, &part, Some(cache)))
    });
    join_time(parts.collect(), rows.0.len())
}

/// Parts [b, t_i, v] -> [b, sum t_i, v].
fn join_time(parts: Vec<(usize, Vec<f32>)>, b: usize) -> Vec<f32> {
    let part_of_row = |row: usize| {
        parts.iter().flat_map(move |(_, part)| {
            let size = part.len() / b;
            part[row * size..(row + 1) * size].iter().copied()
        })
    };
    (0..b).flat_map(part_of_row).collect()
}

/// Every path that must give the logits of `forward` without a cache.
fn paths(decoder: &Decoder, rows: &Rows, cache: KvElement) -> Vec<(String, Vec<f32>)> {
    let (b, t, v) = (rows.0.len(), rows.t(), decoder.config().vocab_size);
    let new =
        |rows: usize, spare: usize| KvCache::new(decoder.config(), rows, t + spare, cache, &decoder.device());
    let mut all = Vec::new();
    for chunk in [t, 7, 3, 1] {
        let name = if chunk == t { "prefill".to_string() } else { format!("chunks of {chunk}") };
        all.push((name, in_chunks(decoder, rows, chunk, &mut new(b, 0))));
    }
    all.push(("truncated".into(), truncated(decoder, rows, &mut new(b, 9))));
    let mut reset = new(b, 5);
    in_chunks(decoder, &Rows::random("other", b, t + 5, v), 8, &mut reset);
    reset.reset();
    all.push(("reset".into(), in_chunks(decoder, rows, 5, &mut reset)));
    let alone =
        |f: &dyn Fn(&Rows) -> Vec<f32>| rows.0.iter().flat_map(|row| f(&Rows(vec![row.clone()]))).collect();
    all.push(("rows alone".into(), alone(&|row| forward(decoder, row, None))));
    all.push(("paged".into(), paged::ragged(decoder, rows, cache, None)));
    all.push(("rows alone, cached".into(), alone(&|row| in_chunks(decoder, row, 7, &mut new(1, 1)))));
    all
}

/// Half of the rows, a wrong continuation, back to the half, a longer wrong one, back again, the rest.
fn truncated(decoder: &Decoder, rows: &Rows, cache: &mut KvCache) -> Vec<f32> {
    let (b, t, v) = (rows.0.len(), rows.t(), decoder.config().vocab_size);
    let half = t / 2;
    let mut parts = vec![(half, in_chunks(decoder, &rows.columns(0, half), 4, cache))];
    for wrong in [3, t - half] {
        in_chunks(decoder, &Rows::random("wrong", b, wrong, v), 2, cache);
        cache.truncate(half);
    }
    parts.push((t - half, in_chunks(decoder, &rows.columns(half, t), 6, cache)));
    join_time(parts, b)
}

/// What comparing the logits of two paths gave.
#[derive(Default)]
struct Comparison {
    places: usize,
    /// Places with another greedy token, and the widest gap of the two largest logits among them.
    ties: usize,
    widest: f32,
    /// Largest difference of two logits, relative to the largest logit.
    difference: f32,
}

fn compare(base: &[f32], other: &[f32], v: usize) -> Comparison {
    assert_eq!(base.len(), other.len());
    let mut found = Comparison { places: base.len() / v, ..Default::default() };
    assert!(base.iter().chain(other).all(|x| x.is_finite()), "a logit is not finite");
    let largest = base.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    found.difference = base.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest;
    for (base, other) in base.chunks(v).zip(other.chunks(v)) {
        let (greedy, gap) = largest_two(base);
        if largest_two(other).0 != greedy {
            found.ties += 1;
            found.widest = found.widest.max(gap);
        }
    }
    found
}

#[test]
fn every_path_gives_the_logits_of_the_training_forward() {
    for device in devices() {
        for precision in PRECISIONS.iter().filter(|p| supported(p, &device)) {
            let (mut places, mut ties) = (0, 0);
            for subject in subjects() {
                let decoder = decoder(&subject, precision, &device);
                let rows = tokens(&subject, &decoder, precision.cache);
                let v = decoder.config().vocab_size;
                let base = forward(&decoder, &rows, None);
                for (path, logits) in paths(&decoder, &rows, precision.cache) {
                    let found = compare(&base, &logits, v);
                    report(precision, &subject, &path, &found);
                    places += found.places;
                    ties += found.ties;
                }
            }
            println!("{}: {ties} greedy tokens differ in {places} places", precision.name);
            if precision.cache == KvElement::F32 {
                assert!(ties <= places / PLACES_PER_TIE, "{ties} ties in {places} places");
            }
        }
    }
}

fn report(precision: &Precision, subject: &Subject, path: &str, found: &Comparison) {
    let line = format!("{:26} {:18} {path:20}", precision.name, subject.name);
    println!("{line} logits {:.1e}, ties {} (widest gap {:.1e})", found.difference, found.ties, found.widest);
    assert!(found.difference <= precision.tolerance, "{line} differs by {}", found.difference);
    if precision.cache == KvElement::F32 {
        assert!(found.ties == 0 || found.widest <= TIE, "{line} differs at a gap of {}", found.widest);
    }
}

/// Half precision is in use, and stays near f32: a wrong dtype somewhere would be exact or far off.
#[test]
fn half_precision_is_near_f32() {
    for device in devices() {
        for subject in subjects() {
            let exact = decoder(&subject, &PRECISIONS[0], &device);
            let rows = tokens(&subject, &exact, KvElement::F32);
            let base = forward(&exact, &rows, None);
            for precision in PRECISIONS.iter().filter(|p| p.compute != DType::F32 && supported(p, &device)) {
                let logits = forward(&decoder(&subject, precision, &device), &rows, None);
                let found = compare(&base, &logits, exact.config().vocab_size);
                let line = format!("{:26} {:18} against f32", precision.name, subject.name);
                println!(
                    "{line}: logits {:.1e}, {} greedy tokens of {} differ",
                    found.difference, found.ties, found.places
                );
                assert!((1e-4..HALF_BUDGET).contains(&found.difference), "{line} differs by {}", found.difference);
            }
        }
    }
}

/// bfloat16 against f32 through a whole model, relative to the largest logit: measured up to 5.2e-2 on random
/// weights, whose logits swing widely, and 1.2e-2 on the trained checkpoint.
const HALF_BUDGET: f32 = 1e-1;

/// Lengths of the documents of each packed row: one token, one document a row, and several.
const DOCUMENTS: [&[usize]; 3] = [&[5, 1, 13], &[19], &[9, 10]];

/// Targets are the tokens moved on by one; every third token carries no loss.
fn targets_and_weights(row: &[u32]) -> (Vec<u32>, Vec<f32>) {
    let mut targets = row[1..].to_vec();
    targets.push(row[0]);
    (targets, (0..row.len()).map(|i| if i % 3 == 2 { 0.0 } else { 1.0 }).collect())
}

/// Hidden states of rows in `layout`, the loss, and the gradients of all parameters.
fn train(decoder: &Decoder, rows: &Rows, weights: Vec<f32>, targets: &Rows, layout: &Layout) -> [Vec<f32>; 3] {
    let device = decoder.device();
    let (b, t) = (rows.0.len(), rows.t());
    let hidden = decoder.forward(rows.tensor(&device), layout, None);
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [b, t]), (&device, DType::F32));
    let loss = decoder.loss(hidden.clone(), targets.tensor(&device), weights);
    let mut grads = loss.backward();
    let mut gradients = Vec::new();
    decoder.clone().visit_mut(&mut |_, parameter| {
        gradients.extend(values(parameter.take_gradient(&mut grads).unwrap()));
    });
    [values(hidden), values(loss), gradients]
}

#[test]
fn packed_documents_equal_each_document_alone() {
    for device in devices() {
        for precision in [&PRECISIONS[0], &PRECISIONS[4]].into_iter().filter(|p| supported(p, &device)) {
            for subject in subjects() {
                let decoder = decoder(&subject, precision, &device).trainable(true);
                let found = packed_against_alone(&decoder, &subject);
                let line = format!("{:26} {:18} packed", precision.name, subject.name);
                println!("{line}: hidden {:.1e}, loss {:.1e}, gradients {:.1e}", found[0], found[1], found[2]);
                // Gradients of several documents are summed in the dtype of the weights, apart or at once.
                let tolerances = [precision.tolerance, precision.tolerance, 4.0 * precision.tolerance];
                for (found, tolerance) in found.into_iter().zip(tolerances) {
                    assert!(found <= tolerance, "{line} differs by {found}");
                }
            }
        }
    }
}

/// Relative differences of hidden states, loss and gradients.
fn packed_against_alone(decoder: &Decoder, subject: &Subject) -> [f32; 3] {
    let device = decoder.device();
    let t = DOCUMENTS[0].iter().sum();
    let rows = Rows::random(subject.name, DOCUMENTS.len(), t, decoder.config().vocab_size);
    let (mut positions, mut documents, mut weights, mut targets) = (vec![], vec![], vec![], vec![]);
    let mut alone: [Vec<f32>; 3] = Default::default();
    for (row, lengths) in rows.0.iter().zip(DOCUMENTS) {
        let mut from = 0;
        targets.push(Vec::new());
        for (number, &length) in lengths.iter().enumerate() {
            let document = row[from..from + length].to_vec();
            let (next, scale) = targets_and_weights(&document);
            let layout = Layout::contiguous(0, length, &device);
            let part = train(decoder, &Rows(vec![document]), scale.clone(), &Rows(vec![next.clone()]), &layout);
            alone[0].extend(&part[0]);
            (1..3).for_each(|i| add(&mut alone[i], &part[i]));
            positions.extend(0..length as u32);
            documents.extend(std::iter::repeat_n(number as u32, length));
            weights.extend(scale);
            targets.last_mut().unwrap().extend(next);
            from += length;
        }
    }
    let layout = Layout::packed(&positions, &documents, DOCUMENTS.len(), &device);
    let packed = train(decoder, &rows, weights, &Rows(targets), &layout);
    std::array::from_fn(|i| relative(&packed[i], &alone[i]))
}

fn add(sum: &mut Vec<f32>, part: &[f32]) {
    sum.resize(part.len(), 0.0);
    sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
}

fn relative(a: &[f32], b: &[f32]) -> f32 {
    compare(b, a, b.len()).difference
}

#[test]
fn the_autodiff_device_gives_the_same_forward_and_loss() {
    for device in devices() {
        for precision in PRECISIONS.iter().filter(|p| supported(p, &device)) {
            for subject in subjects() {
                let plain = decoder(&subject, precision, &device);
                let tracked = plain.clone().trainable(true);
                assert!(tracked.device().is_autodiff() && !plain.device().is_autodiff());
                let rows = Rows::random(subject.name, 2, subject.t, plain.config().vocab_size);
                let [a, b] = [&plain, &tracked].map(|decoder| forward_and_losses(decoder, &rows));
                if device == Device::flex() {
                    assert_eq!(a, b, "{} {}: not the same bits", precision.name, subject.name);
                }
                let differences: Vec<f32> = a.iter().zip(&b).map(|(a, b)| relative(a, b)).collect();
                println!("{:26} {:18} autodiff: {differences:.1?}", precision.name, subject.name);
                assert!(differences.iter().all(|d| *d <= precision.tolerance), "{differences:?}");
            }
        }
    }
}

fn targets_of(rows: &Rows) -> Vec<u32> {
    rows.0.iter().flat_map(|row| targets_and_weights(row).0).collect()
}

/// Requires the loss of each token to be that of the logits which decoding samples from, capped or not.
fn assert_nll_of_logits(nll: &[f32], logits: &[f32], targets: &[u32], config: &ModelConfig) {
    let cap = config.logit_softcap.unwrap_or(f64::MAX) as f32;
    assert!(logits.iter().all(|x| x.abs() <= cap), "a logit is beyond the cap of {cap}");
    for ((nll, logits), &target) in nll.iter().zip(logits.chunks(config.vocab_size)).zip(targets) {
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let expected = sum.ln() - f64::from(logits[target as usize]);
        assert!((f64::from(*nll) - expected).abs() < 1e-4, "{nll} against {expected} from the logits");
    }
}

/// Hidden states, the weighted loss, and each token's; the loss is the sum of them.
fn forward_and_losses(decoder: &Decoder, rows: &Rows) -> [Vec<f32>; 3] {
    let device = decoder.device();
    let (targets, weights): (Vec<_>, Vec<_>) = rows.0.iter().map(|row| targets_and_weights(row)).unzip();
    let (targets, weights) = (Rows(targets).tensor(&device), weights.concat());
    let hidden = decoder.forward(rows.tensor(&device), &Layout::contiguous(0, rows.t(), &device), None);
    let nll = values(decoder.token_nll(hidden.clone(), targets.clone()));
    let logits = values(decoder.logits(hidden.clone()));
    assert_nll_of_logits(&nll, &logits, &targets_of(rows), decoder.config());
    let sum: f64 = nll.iter().zip(&weights).map(|(x, w)| f64::from(x * w)).sum();
    let shape = [rows.0.len(), rows.t()];
    let weights = Tensor::<2>::from_data(TensorData::new(weights, shape), (&device, DType::F32));
    let loss = values(decoder.loss(hidden.clone(), targets, weights));
    assert!((f64::from(loss[0]) / sum - 1.0).abs() < 1e-5, "loss {} against {sum}", loss[0]);
    [values(hidden), loss, nll]
}
