//! Seeds, draws, log-probabilities, options, errors.

use super::*;

fn seeded(seed: u64) -> SamplingOptions {
    SamplingOptions { seed, ..SamplingOptions::default() }
}

fn draws(mut chain: Chain, logits: &[f32], n: usize) -> Vec<u32> {
    let mut next = || {
        let id = chain.sample(logits, None).unwrap().id;
        chain.accept(id);
        id
    };
    (0..n).map(|_| next()).collect()
}

#[test]
fn draws_follow_the_seed() {
    let drawn = |seed| draws(chain(&seeded(seed), 50), &[0.0; 50], 32);
    assert_eq!(drawn(5), drawn(5));
    assert_ne!(drawn(5), drawn(6));
    // Of equal logits token i of 50 has the numbers of [i / 50, (i + 1) / 50).
    let expected: Vec<u32> = (0..32).map(|i| (rng(5, i, "sample").uniform_f64() * 50.0) as u32).collect();
    assert_eq!(drawn(5), expected);
    let samples: Vec<Vec<u32>> = (0..4).map(|i| drawn(seeded(5).for_sample(i).seed)).collect();
    assert_eq!(samples[0], drawn(5));
    assert!((0..4).all(|i| (0..i).all(|j| samples[i] != samples[j])));
}

#[test]
fn a_draw_depends_on_the_place_and_not_on_the_way_there() {
    let options = SamplingOptions { top_p: 0.9, ..seeded(11) };
    let (mut one, mut other) = (chain(&options, 300), chain(&options, 300));
    let flat = [0.0; 300];
    let ramp: Vec<f32> = (0..300).map(|i| i as f32 * 0.01).collect();
    one.accept(7);
    for _ in 0..3 {
        // Looking does not move anything.
        other.sample(&ramp, None).unwrap();
        other.distribution(&flat, None).unwrap();
    }
    other.accept(3);
    for id in 0..20 {
        assert_eq!(one.sample(&flat, None), other.sample(&flat, None));
        one.accept(id);
        other.accept(id);
        other.accept(id);
        other.rollback(1);
        assert_eq!((other.position(), other.output().len()), (id as usize + 2, id as usize + 2));
    }
    assert_ne!(one.uniform("sample"), one.uniform("accept"));
}

#[test]
#[should_panic(expected = "3 tokens to take back, 2 were accepted")]
fn a_prompt_is_not_taken_back() {
    let mut chain = Chain::new(&SamplingOptions::default(), &[1, 2, 3], 5, &[]).unwrap();
    chain.accept(1);
    chain.accept(1);
    chain.rollback(3);
}

/// Chi-square of draws against probabilities, and how many tokens have one.
fn chi_square(counts: &[usize], probabilities: &[f64]) -> (f64, usize) {
    let draws: usize = counts.iter().sum();
    let (mut sum, mut kept) = (0.0, 0);
    for (&count, &probability) in counts.iter().zip(probabilities) {
        if probability == 0.0 {
            assert_eq!(count, 0);
            continue;
        }
        kept += 1;
        let expected = probability * draws as f64;
        sum += (count as f64 - expected).powi(2) / expected;
    }
    (sum, kept)
}

#[test]
fn draws_follow_the_probabilities() {
    let logits: Vec<f32> = (0..12).map(|i| (i as f32 * 1.7).sin() * 1.5).collect();
    let all = SamplingOptions { temperature: 0.9, ..seeded(11) };
    let filtered = SamplingOptions { top_k: 10, top_p: 0.97, min_p: 0.05, ..all.clone() };
    // 0.999 quantiles of chi-square with 11 and 10 degrees of freedom; fewer have a lower one.
    for (options, least, most) in [(all, 12, 31.26), (filtered, 5, 29.59)] {
        let mut chain = chain(&options, 12);
        let probabilities = dense(&chain.distribution(&logits, None).unwrap(), 12);
        let mut counts = [0usize; 12];
        for _ in 0..20_000 {
            let id = chain.sample(&logits, None).unwrap().id;
            chain.accept(id);
            counts[id as usize] += 1;
        }
        let (chi_square, kept) = chi_square(&counts, &probabilities);
        assert!((least..=12).contains(&kept), "{kept} tokens were kept");
        assert!(chi_square < most, "chi-square {chi_square}");
    }
}

/// The draw over blocks of a large vocabulary is the draw over the list.
#[test]
fn a_large_vocabulary_is_drawn_from_as_its_list_is() {
    let mut logits: Vec<f32> = (0..5003).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    logits[..700].fill(f32::NEG_INFINITY);
    logits[4000..4300].fill(f32::NEG_INFINITY);
    let mut chain = chain(&SamplingOptions { temperature: 0.8, ..seeded(3) }, 5003);
    let mut other = 0;
    for _ in 0..500 {
        let uniform = chain.uniform("sample");
        let sampled = chain.sample(&logits, None).unwrap().id;
        let listed = chain.distribution(&logits, None).unwrap().draw(uniform);
        other += usize::from(sampled != listed);
        chain.accept(sampled);
    }
    // Sums are rounded differently, by one part in a million.
    assert!(other < 2, "{other} of 500 draws differ");
}

#[test]
fn log_probs_are_before_everything_the_options_do() {
    let options = SamplingOptions {
        temperature: 0.3,
        top_k: 1,
        logit_bias: [(0, 9.0)].into(),
        top_log_probs: 3,
        ..SamplingOptions::default()
    };
    let mut chain = chain(&options, 4);
    let found = chain.sample(&logits(&FOUR), None).unwrap();
    assert_eq!(found.id, 0);
    assert!((found.log_prob - 0.1f32.ln()).abs() < 1e-6);
    let ids: Vec<u32> = found.top.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 2, 3]);
    for ((_, log_prob), p) in found.top.iter().zip([0.4f32, 0.3, 0.2]) {
        assert!((log_prob - p.ln()).abs() < 1e-6);
    }
    assert_eq!(chain.sampled(&logits(&FOUR), 0).unwrap(), found);
    // Of a prompt: the same function. What the model rules out is not listed, ties go by id.
    let minus = f32::NEG_INFINITY;
    let found = log_prob_of(&[0.0, minus, 0.0, minus, 0.0], 1, 5).unwrap();
    assert_eq!((found.log_prob, found.top.len()), (minus, 3));
    assert_eq!(log_prob_of(&[1.0, 3.0, 3.0], 0, 2).unwrap().top.map_ids(), [1, 2]);
    let wide: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5000) as f32 * 0.001).collect();
    let top = log_prob_of(&wide, 0, 20).unwrap().top.map_ids();
    assert!(top.iter().zip((4980..5000).rev()).all(|(id, rank)| (id * 7919) % 5000 == rank));
    assert!(matches!(log_prob_of(&[0.0], 1, 0), Err(SamplerError::Token { id: 1, vocab_size: 1, .. })));
    assert!(matches!(log_prob_of(&[f32::NAN], 0, 0), Err(SamplerError::NotFinite { .. })));
}

trait Ids {
    fn map_ids(self) -> Vec<u32>;
}

impl Ids for Vec<(u32, f32)> {
    fn map_ids(self) -> Vec<u32> {
        self.into_iter().map(|(id, _)| id).collect()
    }
}

#[test]
fn work_space_is_reused() {
    let options = SamplingOptions { temperature: 0.8, top_k: 200, top_p: 0.95, min_p: 0.01, ..seeded(1) };
    let mut chain = chain(&options, 1000);
    let logits: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
    let spaces = |chain: &Chain| {
        let space = &chain.candidates;
        (space.logits.as_ptr(), space.kept.as_ptr(), space.ranked.as_ptr(), space.scratch.as_ptr())
    };
    chain.sample(&logits, None).unwrap();
    let before = spaces(&chain);
    for _ in 0..50 {
        chain.sample(&logits, None).unwrap();
        chain.accept(1);
    }
    assert_eq!(before, spaces(&chain));
}

#[test]
fn unusable_logits_are_refused_and_change_nothing() {
    let mut chain = chain(&seeded(2), 3);
    let mut twin = chain.clone();
    let (nan, infinite) = (f32::NAN, f32::INFINITY);
    let mut refused = |logits: &[f32]| chain.sample(logits, None).unwrap_err();
    assert_eq!(refused(&[]), SamplerError::Logits { found: 0, vocab_size: 3 });
    assert_eq!(refused(&[0.0; 4]), SamplerError::Logits { found: 4, vocab_size: 3 });
    assert!(matches!(refused(&[0.0, nan, infinite]), SamplerError::NotFinite { id: 1, .. }));
    assert_eq!(refused(&[infinite, 0.0, nan]), SamplerError::NotFinite { id: 0, value: infinite });
    assert_eq!(refused(&[-infinite; 3]), SamplerError::AllMasked { vocab_size: 3 });
    assert_eq!(chain.sample(&[0.0; 3], None), twin.sample(&[0.0; 3], None));
}

#[track_caller]
fn refused(options: SamplingOptions, message: &str) {
    assert_eq!(Chain::new(&options, &[], 9, &[]).unwrap_err().to_string(), message);
}

#[test]
fn options_out_of_range_are_named() {
    let all = SamplingOptions::default;
    let above = "a number above 0 and at most 1";
    let nan = f32::NAN;
    refused(SamplingOptions { temperature: 2.5, ..all() }, "temperature is 2.5, expected a number from 0 to 2");
    refused(SamplingOptions { temperature: nan, ..all() }, "temperature is NaN, expected a number from 0 to 2");
    refused(SamplingOptions { top_p: 0.0, ..all() }, &format!("top_p is 0, expected {above}"));
    refused(SamplingOptions { top_p: nan, ..all() }, &format!("top_p is NaN, expected {above}"));
    refused(SamplingOptions { typical_p: 1.5, ..all() }, &format!("typical_p is 1.5, expected {above}"));
    refused(SamplingOptions { min_p: -0.1, ..all() }, "min_p is -0.1, expected a number from 0 to 1");
    refused(SamplingOptions { min_p: 1.0 / 0.0, ..all() }, "min_p is inf, expected a number from 0 to 1");
    refused(SamplingOptions { top_n_sigma: -1.0, ..all() }, "top_n_sigma is -1, expected a number from 0 to 1000");
    refused(
        SamplingOptions { xtc_probability: 2.0, ..all() },
        "xtc_probability is 2, expected a number from 0 to 1",
    );
    refused(
        SamplingOptions { xtc_threshold: -1.0, ..all() },
        "xtc_threshold is -1, expected a number from 0 to 1",
    );
    refused(
        SamplingOptions { dry_multiplier: nan, ..all() },
        "dry_multiplier is NaN, expected a number from 0 to 1000",
    );
    refused(SamplingOptions { dry_base: 0.5, ..all() }, "dry_base is 0.5, expected a number from 1 to 1000");
    refused(SamplingOptions { dry_allowed_length: 0, ..all() }, "dry_allowed_length is 0, expected at least 1");
    refused(
        SamplingOptions { mirostat_tau: 0.0, ..all() },
        "mirostat_tau is 0, expected a number above 0 and at most 100",
    );
    refused(SamplingOptions { mirostat_eta: 0.0, ..all() }, &format!("mirostat_eta is 0, expected {above}"));
    refused(
        SamplingOptions { repetition_penalty: 0.0, ..all() },
        "repetition_penalty is 0, expected a number above 0 and at most 100",
    );
    refused(
        SamplingOptions { frequency_penalty: -2.1, ..all() },
        "frequency_penalty is -2.1, expected a number from -2 to 2",
    );
    refused(
        SamplingOptions { presence_penalty: 3.0, ..all() },
        "presence_penalty is 3, expected a number from -2 to 2",
    );
    refused(
        SamplingOptions { logit_bias: [(3, 101.0)].into(), ..all() },
        "logit_bias is 101, expected numbers from -100 to 100",
    );
    refused(
        SamplingOptions { allowed_ids: Some(vec![]), ..all() },
        "allowed_ids is empty, expected at least 1 id",
    );
    refused(
        SamplingOptions { top_log_probs: 10, ..all() },
        "top_log_probs is 10, expected at most the size of the vocabulary",
    );
}

#[test]
fn ids_beyond_the_vocabulary_are_named() {
    let all = SamplingOptions::default;
    for (field, options) in [
        ("logit_bias", SamplingOptions { logit_bias: [(9, 1.0)].into(), ..all() }),
        ("allowed_ids", SamplingOptions { allowed_ids: Some(vec![1, 9]), ..all() }),
        ("banned_ids", SamplingOptions { banned_ids: vec![9], ..all() }),
        ("stop_ids", SamplingOptions { stop_ids: vec![9], ..all() }),
        ("dry_breakers", SamplingOptions { dry_breakers: vec![9], ..all() }),
    ] {
        refused(options, &format!("{field} names token 9, the vocabulary has 9 tokens, counted from 0"));
    }
}

#[test]
fn a_chain_holds_each_stage_once_and_what_the_options_need() {
    let with = |stages: &[Stage]| SamplingOptions { chain: stages.to_vec(), ..SamplingOptions::default() };
    refused(
        with(&[Stage::TopK, Stage::MinP, Stage::TopK]),
        "the chain holds top_k twice, expected each stage at most once",
    );
    refused(SamplingOptions { top_k: 3, ..with(&[Stage::MinP]) }, "top_k is 3, but the chain leaves out top_k");
    refused(
        SamplingOptions { presence_penalty: 1.0, ..with(&[]) },
        "presence_penalty is 1, but the chain leaves out penalties",
    );
    refused(
        SamplingOptions { mirostat: true, ..with(&[]) },
        "mirostat is true, but the chain leaves out mirostat",
    );
    // Without any stage what the model says is drawn from.
    check(chain(&with(&[]), 4), &FOUR, &[0.1, 0.4, 0.3, 0.2]);
    assert!(Stage::ALL.into_iter().all(|stage| stage.name().parse() == Ok(stage)));
    let error = "topk".parse::<Stage>().unwrap_err().to_string();
    assert!(
        error.starts_with("\"topk\" is no stage of the chain, expected some of logit_bias, penalties"),
        "{error}"
    );
}

#[test]
fn options_are_read_strictly_and_written_whole() {
    let read = |text| serde_json::from_str::<SamplingOptions>(text);
    assert_eq!(read("{}").unwrap(), SamplingOptions::default());
    let found = read(
        r#"{"temperature": 0.0, "chain": ["top_k", "temperature"], "top_k": 4, "logit_bias": {"17": -2.5},
            "allowed_ids": [1, 2]}"#,
    )
    .unwrap();
    assert_eq!(found.chain, [Stage::TopK, Stage::Temperature]);
    assert_eq!(found.logit_bias, [(17, -2.5)].into());
    let written = serde_json::to_string(&found).unwrap();
    assert_eq!(read(&written).unwrap(), found);
    for wrong in [r#"{"topk": 3}"#, r#"{"chain": ["topk"]}"#, r#"{"top_k": -1}"#] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}
