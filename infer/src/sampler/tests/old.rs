use proptest::prelude::*;
use serde::Deserialize;

use super::*;

fn options(temperature: f32, top_k: usize, top_p: f32, min_p: f32) -> SamplerOptions {
    SamplerOptions { temperature, top_k, top_p, min_p, seed: 11 }
}

fn sampler(temperature: f32, top_k: usize, top_p: f32, min_p: f32) -> Sampler {
    Sampler::new(options(temperature, top_k, top_p, min_p)).unwrap()
}

/// Logits of given probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

#[track_caller]
fn check(options: SamplerOptions, given: &[f32], expected: &[f32]) {
    let found = Sampler::new(options).unwrap().probabilities(&logits(given));
    let found = found.unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
    }
}

const FOUR: [f32; 4] = [0.1, 0.4, 0.3, 0.2];

#[test]
fn no_filter_is_softmax() {
    check(options(1.0, 0, 1.0, 0.0), &FOUR, &FOUR);
}

#[test]
fn temperature_half_squares() {
    let squared = [0.01 / 0.3, 0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3];
    check(options(0.5, 0, 1.0, 0.0), &FOUR, &squared);
}

#[test]
fn top_k_keeps_k() {
    check(options(1.0, 2, 1.0, 0.0), &FOUR, &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
}

#[test]
fn top_k_keeps_ties_with_the_kth() {
    let third = 1.0 / 3.0;
    check(options(1.0, 2, 1.0, 0.0), &[0.3, 0.3, 0.1, 0.3], &[third, third, 0.0, third]);
}

#[test]
fn top_k_beyond_the_vocabulary_keeps_all() {
    check(options(1.0, 1000, 1.0, 0.0), &FOUR, &FOUR);
}

#[test]
fn top_p_keeps_what_reaches_p() {
    check(options(1.0, 0, 0.65, 0.0), &FOUR, &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
    check(options(1.0, 0, 0.75, 0.0), &FOUR, &[0.0, 4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0]);
}

#[test]
fn top_p_keeps_at_least_one() {
    check(options(1.0, 0, 1e-6, 0.0), &FOUR, &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn top_p_prefers_lower_ids_among_equals() {
    check(options(1.0, 0, 0.5, 0.0), &[0.25; 4], &[0.5, 0.5, 0.0, 0.0]);
}

#[test]
fn min_p_is_relative_to_the_largest() {
    check(options(1.0, 0, 1.0, 0.6), &FOUR, &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
    check(options(1.0, 0, 1.0, 1.0), &[0.4, 0.2, 0.4], &[0.5, 0.0, 0.5]);
}

#[test]
fn filters_apply_in_order() {
    // Top-k leaves 0.4 0.3 0.2 of 0.9; of that 0.75 is 0.675, reached by 0.4 + 0.3; before top-k it was not.
    check(options(1.0, 3, 0.75, 0.0), &FOUR, &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
    check(options(1.0, 3, 0.75, 0.8), &FOUR, &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let mut greedy = Sampler::new(SamplerOptions::greedy()).unwrap();
    let found = greedy.sample(&[1.0, 3.0, 3.0, f32::NEG_INFINITY]).unwrap();
    assert_eq!(found.id, 1);
    let expected = -(2.0f32 + (-2.0f32).exp()).ln();
    assert!((found.log_prob - expected).abs() < 1e-6);
    assert_eq!(greedy.probabilities(&[1.0, 3.0, 3.0]).unwrap(), [0.0, 1.0, 0.0]);
}

#[test]
fn log_prob_is_before_temperature_and_filters() {
    let found = sampler(0.3, 1, 1.0, 0.0).sample(&logits(&FOUR)).unwrap();
    assert_eq!(found.id, 1);
    assert!((found.log_prob - 0.4f32.ln()).abs() < 1e-6);
}

#[track_caller]
fn check_refused(options: SamplerOptions, message: &str) {
    assert_eq!(options.check().unwrap_err().to_string(), message);
    assert!(Sampler::new(options).is_err());
}

#[test]
fn options_out_of_range_are_named() {
    check_refused(options(2.5, 0, 1.0, 0.0), "temperature is 2.5, expected a number from 0 to 2");
    check_refused(options(f32::NAN, 0, 1.0, 0.0), "temperature is NaN, expected a number from 0 to 2");
    check_refused(options(1.0, 0, 0.0, 0.0), "top_p is 0, expected a number above 0 and at most 1");
    check_refused(options(1.0, 0, f32::NAN, 0.0), "top_p is NaN, expected a number above 0 and at most 1");
    check_refused(options(1.0, 0, 1.0, -0.1), "min_p is -0.1, expected a number from 0 to 1");
    check_refused(options(1.0, 0, 1.0, f32::INFINITY), "min_p is inf, expected a number from 0 to 1");
}

#[test]
fn unusable_logits_are_refused_and_not_counted() {
    let mut sampler = sampler(1.0, 0, 1.0, 0.0);
    let mut twin = sampler.clone();
    let (nan, infinite) = (f32::NAN, f32::INFINITY);
    assert_eq!(sampler.sample(&[]), Err(SamplerError::Empty));
    assert!(matches!(sampler.sample(&[0.0, nan]), Err(SamplerError::NotFinite { id: 1, .. })));
    assert_eq!(sampler.sample(&[infinite, 0.0]), Err(SamplerError::NotFinite { id: 0, value: infinite }));
    assert_eq!(sampler.sample(&[-infinite; 3]), Err(SamplerError::AllMasked { vocab_size: 3 }));
    assert_eq!(sampler.sample(&[0.0; 64]), twin.sample(&[0.0; 64]));
}

#[test]
fn draws_follow_the_seed() {
    let draws = |seed| {
        let mut sampler = Sampler::new(SamplerOptions { seed, ..options(1.0, 0, 1.0, 0.0) }).unwrap();
        (0..32).map(|_| sampler.sample(&[0.0; 50]).unwrap().id).collect::<Vec<_>>()
    };
    assert_eq!(draws(5), draws(5));
    assert_ne!(draws(5), draws(6));
}

#[test]
fn the_nth_draw_does_not_depend_on_earlier_logits() {
    let (mut one, mut other) = (sampler(1.0, 0, 0.9, 0.0), sampler(1.0, 0, 0.9, 0.0));
    let flat = [0.0; 300];
    let ramp: Vec<f32> = (0..500).map(|i| i as f32 * 0.01).collect();
    one.sample(&flat).unwrap();
    other.sample(&ramp).unwrap();
    for _ in 0..20 {
        assert_eq!(one.sample(&flat), other.sample(&flat));
    }
}

#[test]
fn draws_follow_the_probabilities() {
    const DRAWS: usize = 20_000;
    let logits: Vec<f32> = (0..12).map(|i| (i as f32 * 1.7).sin() * 1.5).collect();
    let mut sampler = sampler(0.9, 10, 0.97, 0.05);
    let probabilities = sampler.probabilities(&logits).unwrap();
    let mut counts = [0usize; 12];
    for _ in 0..DRAWS {
        counts[sampler.sample(&logits).unwrap().id as usize] += 1;
    }
    let mut chi_square = 0.0;
    let mut kept = 0;
    for (count, probability) in counts.into_iter().zip(&probabilities) {
        if *probability == 0.0 {
            assert_eq!(count, 0);
            continue;
        }
        kept += 1;
        let expected = f64::from(*probability) * DRAWS as f64;
        chi_square += (count as f64 - expected).powi(2) / expected;
    }
    assert!((5..12).contains(&kept), "{kept} tokens were kept");
    // 0.999 quantile of chi-square with 10 degrees of freedom; fewer have a lower one.
    assert!(chi_square < 29.59, "chi-square {chi_square}");
}

#[test]
fn buffers_are_reused() {
    let mut sampler = sampler(0.8, 200, 0.95, 0.01);
    let logits: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
    sampler.sample(&logits).unwrap();
    let spaces = |sampler: &Sampler| {
        let buffers = &sampler.buffers;
        (buffers.logits.as_ptr(), buffers.kept.as_ptr(), buffers.ranked.as_ptr())
    };
    let before = spaces(&sampler);
    for _ in 0..50 {
        sampler.sample(&logits).unwrap();
    }
    assert_eq!(before, spaces(&sampler));
}

#[test]
fn options_are_read_strictly() {
    let read = |text| serde_json::from_str::<SamplerOptions>(text);
    let found = read(r#"{"temperature": 0.0, "seed": 0}"#).unwrap();
    assert_eq!(found, SamplerOptions::greedy());
    let written = serde_json::to_string(&found).unwrap();
    assert_eq!(read(&written).unwrap(), found);
    let error = read(r#"{"temperature": 0.0, "seed": 0, "topk": 3}"#).unwrap_err();
    assert!(error.to_string().contains("topk"), "{error}");
    assert!(read(r#"{"temperature": 0.0}"#).is_err());
}

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    logits: std::collections::BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
struct Case {
    logits: String,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    kept: usize,
    probabilities: Vec<f32>,
}

#[test]
fn filters_equal_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/sampler/expected.json");
    let fixture: Fixture = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(fixture.cases.len() > 90);
    for (index, case) in fixture.cases.iter().enumerate() {
        let logits = &fixture.logits[&case.logits];
        let temperature = case.temperature.unwrap_or(1.0);
        let sampler =
            sampler(temperature, case.top_k.unwrap_or(0), case.top_p.unwrap_or(1.0), case.min_p.unwrap_or(0.0));
        let found = sampler.probabilities(logits).unwrap();
        let kept = found.iter().filter(|p| **p > 0.0).count();
        assert_eq!(kept, case.kept, "case {index}");
        // The recorded logits were rounded to f32 after the division by the temperature.
        let largest = logits.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        let tolerance = 1e-6 + largest / temperature * f32::EPSILON;
        for (id, (found, expected)) in found.iter().zip(&case.probabilities).enumerate() {
            let near = (found - expected).abs() <= 1e-9 + tolerance * expected;
            assert!(near, "case {index} token {id}: {found} for {expected}");
        }
    }
}

/// The chain by a full sort, as its definition says it.
fn by_sorting(options: &SamplerOptions, logits: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).filter(|id| logits[*id as usize].is_finite()).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    if options.top_k > 0 && options.top_k < order.len() {
        let kth = logits[order[options.top_k - 1] as usize];
        order.retain(|id| logits[*id as usize] >= kth);
    }
    let largest = f64::from(logits[order[0] as usize]);
    let weight = |id: u32| ((f64::from(logits[id as usize]) - largest) / f64::from(options.temperature)).exp();
    let total: f64 = order.iter().map(|id| weight(*id)).sum();
    let mut above = 0.0;
    order.retain(|id| {
        let stays = above < f64::from(options.top_p) * total;
        above += weight(*id);
        stays
    });
    order.retain(|id| weight(*id) >= f64::from(options.min_p) && weight(*id) > 0.0);
    order.sort_unstable();
    order
}

fn any_logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        12 => -20.0f32..20.0,
        2 => Just(0.0f32),
        1 => Just(f32::NEG_INFINITY),
        1 => any::<f32>(),
    ]
}

/// Mostly usable logits, with each kind of unusable ones.
fn logits_with_faults() -> impl Strategy<Value = Vec<f32>> {
    let fault = prop_oneof![
        6 => Just(None),
        1 => Just(Some(f32::NAN)),
        1 => Just(Some(f32::INFINITY)),
    ];
    let values = prop_oneof![
        8 => prop::collection::vec(any_logit(), 0..80),
        1 => prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..8),
        1 => prop::collection::vec(Just(f32::NEG_INFINITY), 0..4),
    ];
    (values, fault, any::<prop::sample::Index>()).prop_map(|(mut values, fault, place)| {
        if let (Some(fault), false) = (fault, values.is_empty()) {
            let place = place.index(values.len());
            values[place] = fault;
        }
        values
    })
}

fn any_options() -> impl Strategy<Value = SamplerOptions> {
    let fraction = || prop_oneof![8 => 0.0f32..=1.0, 1 => Just(0.0), 1 => Just(1.0), 1 => any::<f32>()];
    let temperature = prop_oneof![8 => 0.0f32..=2.0, 1 => Just(0.0), 1 => Just(1e-45), 1 => any::<f32>()];
    let top_k = prop_oneof![Just(0usize), 1usize..90, Just(usize::MAX)];
    (temperature, top_k, fraction(), fraction(), any::<u64>()).prop_map(
        |(temperature, top_k, top_p, min_p, seed)| SamplerOptions { temperature, top_k, top_p, min_p, seed },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Reliability property F13.
    #[test]
    fn any_logits_and_options_give_an_id_or_an_error(
        logits in logits_with_faults(),
        options in any_options(),
    ) {
        let valid_options = (0.0..=2.0).contains(&options.temperature)
            && options.top_p > 0.0
            && options.top_p <= 1.0
            && (0.0..=1.0).contains(&options.min_p);
        let made = Sampler::new(options);
        prop_assert_eq!(made.is_ok(), valid_options);
        let Ok(mut sampler) = made else { return Ok(()) };
        let usable = logits.iter().all(|logit| !logit.is_nan() && *logit != f32::INFINITY)
            && logits.iter().any(|logit| logit.is_finite());
        for _ in 0..3 {
            let found = sampler.sample(&logits);
            prop_assert_eq!(found.is_ok(), usable);
            prop_assert_eq!(sampler.probabilities(&logits).is_ok(), usable);
            let Ok(found) = found else { continue };
            prop_assert!((found.id as usize) < logits.len());
            prop_assert!(found.log_prob <= 0.0 && found.log_prob.is_finite());
            prop_assert!(logits[found.id as usize].is_finite());
            let sum: f32 = sampler.probabilities(&logits).unwrap().iter().sum();
            prop_assert!((sum - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn selection_equals_sorting(
        logits in prop::collection::vec(prop_oneof![-6.0f32..6.0, Just(1.0f32)], 1..200),
        temperature in 0.05f32..2.0,
        top_k in 0usize..220,
        top_p in 0.01f32..1.0,
        min_p in 0.0f32..0.5,
    ) {
        let sampler = sampler(temperature, top_k, top_p, min_p);
        let mut buffers = Buffers::default();
        buffers.filter(sampler.options(), &logits, best(&logits).unwrap());
        let found: Vec<u32> = buffers.kept.iter().map(|(_, id)| *id).collect();
        prop_assert_eq!(found, by_sorting(sampler.options(), &logits));
    }
}
