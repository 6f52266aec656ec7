//! Compares the reader's cache with attention without one, and how much of it stays with a decoder of Fornax.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::Cache;
use fornax_learn::fornax_model::ops::{self, AttentionMask};
use fornax_learn::fornax_model::{Decoder, KvCache, KvElement, Layout, ModelConfig, token_tensor};
use fornax_learn::{Checks, Mistake, Outcome, compare, device, normals, tensor, values};

const G: usize = 2;
const D: usize = 3;
const CAPACITY: usize = 9;
const TOLERANCE: f32 = 2e-5;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("append: 4 tokens, then 1, then 2", append);
    checks.run("truncate: 5 tokens to 2, then 4 others", truncate);
    checks.run("positions: behind what is held", positions);
    checks.run("append: what does not fit", full);
    checks.run("attention with the cache is that without", attention);
    checks.run("reusable: what stays for the next question", reusable);
    checks.run("bytes: of a model and a context", bytes);
    checks.finish()
}

/// Keys or values of t tokens: t times G x D numbers.
#[derive(Clone)]
struct Tokens(Vec<[f32; G * D]>);

impl Tokens {
    fn new(purpose: &str, t: usize) -> Tokens {
        let one = |chunk: &[f32]| std::array::from_fn(|i| chunk[i]);
        Tokens(normals(purpose, t * G * D).chunks(G * D).map(one).collect())
    }

    /// Tokens `from` to `to` as gtd.
    fn gtd(&self, from: usize, to: usize) -> Vec<f32> {
        let head = |head: usize| self.0[from..to].iter().flat_map(move |token| token[head * D..][..D].to_vec());
        (0..G).flat_map(head).collect()
    }

    fn keep(&self, order: &[usize]) -> Vec<f32> {
        Tokens(order.iter().map(|&i| self.0[i]).collect()).gtd(0, order.len())
    }
}

/// Appends tokens `from` to `to`, values being the keys of another purpose.
fn put(cache: &mut Cache, keys: &Tokens, values: &Tokens, from: usize, to: usize) -> Result<(), String> {
    match cache.append(&keys.gtd(from, to), &values.gtd(from, to)) {
        true => Ok(()),
        false => {
            Err(format!("{} more tokens fit behind {} of {CAPACITY}, and were refused", to - from, cache.len))
        }
    }
}

fn both((keys, values): (Vec<f32>, Vec<f32>)) -> Vec<f32> {
    [keys, values].concat()
}

fn append() -> Outcome {
    let (k, v) = (Tokens::new("k", 7), Tokens::new("v", 7));
    let mut cache = Cache::new(G, D, CAPACITY);
    for (from, to) in [(0, 4), (4, 5), (5, 7)] {
        put(&mut cache, &k, &v, from, to)?;
    }
    let expected = both((k.gtd(0, 7), v.gtd(0, 7)));
    let ordered = |order: &[usize]| both((k.keep(order), v.keep(order)));
    let parts = [(0, 4), (4, 5), (5, 7)];
    let flat = |of: &Tokens| parts.map(|(from, to)| of.gtd(from, to)).concat();
    let mistakes: [Mistake<'_>; 5] = [
        ("the values are the keys", both((k.gtd(0, 7), k.gtd(0, 7)))),
        ("keys and values are swapped", both((v.gtd(0, 7), k.gtd(0, 7)))),
        ("the new tokens stand before those held", ordered(&[5, 6, 4, 0, 1, 2, 3])),
        (
            "what is appended stands behind all heads, not in each: a head's tokens are not next to each other",
            both((flat(&k), flat(&v))),
        ),
        ("the whole capacity is given, not what is held", {
            let padded = |of: &Tokens| {
                let head = |h: usize| of.gtd(0, 7)[h * 7 * D..(h + 1) * 7 * D].to_vec();
                (0..G).flat_map(|h| [head(h), vec![0.0; (CAPACITY - 7) * D]].concat()).collect::<Vec<_>>()
            };
            both((padded(&k), padded(&v)))
        }),
    ];
    compare(&both(cache.held()), &expected, 0.0, &mistakes)
}

fn truncate() -> Outcome {
    let (k, v) = (Tokens::new("k", 9), Tokens::new("v", 9));
    let mut cache = Cache::new(G, D, CAPACITY);
    put(&mut cache, &k, &v, 0, 5)?;
    cache.truncate(2);
    let memory = cache.keys.len();
    put(&mut cache, &k, &v, 5, 9)?;
    if memory != G * CAPACITY * D {
        return Err(format!("{memory} numbers of memory are left, {} were taken: it stays", G * CAPACITY * D));
    }
    let ordered = |order: &[usize]| both((k.keep(order), v.keep(order)));
    let mistakes: [Mistake<'_>; 4] = [
        ("nothing was forgotten", ordered(&[0, 1, 2, 3, 4, 5, 6, 7, 8])),
        ("the oldest tokens were forgotten; they are what stays", ordered(&[3, 4, 5, 6, 7, 8])),
        ("so many tokens were forgotten; so many stay", ordered(&[0, 1, 2, 5, 6, 7, 8])),
        ("everything was forgotten", ordered(&[5, 6, 7, 8])),
    ];
    compare(&both(cache.held()), &ordered(&[0, 1, 5, 6, 7, 8]), 0.0, &mistakes)
}

fn positions() -> Outcome {
    let (k, v) = (Tokens::new("k", 9), Tokens::new("v", 9));
    let mut cache = Cache::new(G, D, CAPACITY);
    put(&mut cache, &k, &v, 0, 6)?;
    let before = cache.positions(2);
    cache.truncate(4);
    let found: Vec<f32> = before.iter().chain(&cache.positions(3)).map(|p| *p as f32).collect();
    let mistakes: [Mistake<'_>; 3] = [
        ("the positions begin at 0: the cache is forgotten", vec![0.0, 1.0, 0.0, 1.0, 2.0]),
        ("they count from 1", vec![7.0, 8.0, 5.0, 6.0, 7.0]),
        ("what was truncated is still counted", vec![6.0, 7.0, 6.0, 7.0, 8.0]),
    ];
    compare(&found, &[6.0, 7.0, 4.0, 5.0, 6.0], 0.0, &mistakes)
}

fn full() -> Outcome {
    let (k, v) = (Tokens::new("k", 12), Tokens::new("v", 12));
    let mut cache = Cache::new(G, D, CAPACITY);
    put(&mut cache, &k, &v, 0, 7)?;
    let held = both(cache.held());
    if cache.append(&k.gtd(7, 10), &v.gtd(7, 10)) {
        return Err(format!("3 tokens behind 7 do not fit into {CAPACITY}, and were taken"));
    }
    if both(cache.held()) != held {
        return Err("what does not fit changed what is held".into());
    }
    put(&mut cache, &k, &v, 7, 9)?;
    match cache.len {
        CAPACITY => Ok("3 tokens refused, 2 taken".into()),
        len => Err(format!("{len} tokens are held, {CAPACITY} were taken")),
    }
}

/// A conversation whose end is thrown away once: each new token reads the cache, and reads what it would without one.
fn attention() -> Outcome {
    let (k, v) = (Tokens::new("k", 8), Tokens::new("v", 8));
    let q = normals("q", 2 * G * 8 * D);
    let scale = 1.0 / (D as f32).sqrt();
    let attend = |q: &[f32], t: usize, (k, v): (Vec<f32>, Vec<f32>)| {
        let s = k.len() / (G * D);
        let mask = AttentionMask::new(s - t, t, None, None, &device());
        let q = tensor(q, [1, 2 * G, t, D]);
        values(ops::attention(q, tensor(&k, [1, G, s, D]), tensor(&v, [1, G, s, D]), &mask, scale))
    };
    let whole = attend(&q, 8, (k.gtd(0, 8), v.gtd(0, 8)));
    // Element (head, time) of what has t times.
    let of = |x: &[f32], t: usize, from: usize, to: usize| -> Vec<f32> {
        (0..2 * G).flat_map(|head| x[(head * t + from) * D..(head * t + to) * D].to_vec()).collect()
    };
    let wrong = Tokens::new("another answer", 3);
    let mut cache = Cache::new(G, D, CAPACITY);
    put(&mut cache, &k, &v, 0, 4)?;
    put(&mut cache, &wrong, &wrong, 0, 3)?;
    cache.truncate(4);
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for (from, to) in [(4, 7), (7, 8)] {
        put(&mut cache, &k, &v, from, to)?;
        found.extend(attend(&of(&q, 8, from, to), to - from, cache.held()));
        expected.extend(of(&whole, 8, from, to));
    }
    compare(&found, &expected, TOLERANCE, &[])
}

fn decoder() -> Decoder {
    let config = ModelConfig {
        vocab_size: 23,
        width: 12,
        n_heads: 3,
        n_kv_heads: 1,
        head_dim: 4,
        ffn_width: 20,
        context: 16,
        init_std: 0.5,
        ..ModelConfig::llama(2)
    };
    Decoder::init(&config, 7, &device())
}

/// Logits behind `ids`, of which `kept` are in the cache already.
fn last_logits(decoder: &Decoder, cache: &mut KvCache, ids: &[u32], kept: usize) -> Vec<f32> {
    let rest = &ids[kept..];
    let layout = Layout::contiguous(kept, rest.len(), &device());
    let hidden = decoder.forward(token_tensor(rest, 1, &device()), &layout, Some(cache));
    let last = hidden.narrow(1, rest.len() - 1, 1);
    values(decoder.logits(last))
}

fn reusable() -> Outcome {
    let decoder = decoder();
    let held = [3, 1, 4, 1, 5, 9, 2, 6];
    let asked: [&[u32]; 5] =
        [&[3, 1, 4, 1, 5, 8, 8], &held, &[3, 1, 4], &[7, 1, 4, 1], &[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]];
    let expected = [5.0, 7.0, 2.0, 0.0, 8.0];
    let found: Vec<f32> = asked.iter().map(|asked| answer::reusable(&held, asked) as f32).collect();
    let same = |asked: &[u32]| held.iter().zip(asked).filter(|(a, b)| a == b).count() as f32;
    let mistakes: [Mistake<'_>; 4] = [
        ("all of what is asked is taken from the cache, and no token is left whose logits could be computed", {
            vec![5.0, 8.0, 3.0, 0.0, 8.0]
        }),
        ("tokens behind the one that differs are counted: they were computed with another past", {
            asked.iter().map(|asked| same(asked).min(asked.len() as f32 - 1.0)).collect()
        }),
        ("nothing is used again", vec![0.0; 5]),
        ("one token less than could is used again", vec![4.0, 7.0, 2.0, 0.0, 7.0]),
    ];
    compare(&found, &expected, 0.0, &mistakes)?;
    for asked in asked {
        let new = || KvCache::new(decoder.config(), 1, 16, KvElement::F32, &device());
        let mut cache = new();
        last_logits(&decoder, &mut cache, &held, 0);
        let kept = answer::reusable(&held, asked);
        cache.truncate(kept);
        let again = last_logits(&decoder, &mut cache, asked, kept);
        compare(&again, &last_logits(&decoder, &mut new(), asked, 0), 1e-4, &[])
            .map_err(|difference| format!("logits behind {asked:?} with {kept} tokens kept: {difference}"))?;
    }
    Ok("5 questions; a decoder that keeps so much gives the logits of one that keeps nothing".into())
}

fn bytes() -> Outcome {
    let config = ModelConfig { n_heads: 9, n_kv_heads: 3, head_dim: 64, ..ModelConfig::llama(30) };
    let cases = [(8192, KvElement::F32, 4), (1, KvElement::BF16, 2), (2048, KvElement::F16, 2)];
    let of = |of: &dyn Fn(f64, f64) -> f64| -> Vec<f32> {
        cases.iter().map(|(tokens, _, size)| of(*tokens as f64, *size as f64) as f32).collect()
    };
    let fornax = |(tokens, element, _)| KvCache::bytes(&config, 1, tokens, element) as f32;
    let found = cases.map(|(tokens, _, size)| answer::bytes(30, 3, 64, tokens as u64, size) as f32);
    let mistakes: [Mistake<'_>; 4] = [
        ("keys are counted, values are not", of(&|t, e| 30.0 * 3.0 * 64.0 * t * e)),
        ("one layer is counted", of(&|t, e| 2.0 * 3.0 * 64.0 * t * e)),
        ("numbers are counted, not bytes", of(&|t, _| 2.0 * 30.0 * 3.0 * 64.0 * t)),
        ("one head is counted", of(&|t, e| 2.0 * 30.0 * 64.0 * t * e)),
    ];
    compare(&found, &cases.map(fornax), 0.0, &mistakes)
}
