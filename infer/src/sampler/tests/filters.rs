//! Hand numbers.

use super::*;

#[track_caller]
fn check_options(options: SamplingOptions, given: &[f32], expected: &[f64]) {
    check(chain(&options, given.len()), given, expected);
}

fn neutral() -> SamplingOptions {
    SamplingOptions::default()
}

#[test]
fn no_filter_is_softmax() {
    check_options(neutral(), &FOUR, &[0.1, 0.4, 0.3, 0.2]);
}

#[test]
fn temperature_half_squares() {
    let squared = [0.01 / 0.3, 0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3];
    check_options(SamplingOptions { temperature: 0.5, ..neutral() }, &FOUR, &squared);
}

#[test]
fn top_k_keeps_k() {
    let two = SamplingOptions { top_k: 2, ..neutral() };
    check_options(two.clone(), &FOUR, &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
    // Ties with the k-th stay, and more than there are is all.
    let third = 1.0 / 3.0;
    check_options(two, &[0.3, 0.3, 0.1, 0.3], &[third, third, 0.0, third]);
    check_options(SamplingOptions { top_k: 1000, ..neutral() }, &FOUR, &[0.1, 0.4, 0.3, 0.2]);
}

#[test]
fn top_p_keeps_what_reaches_p() {
    let top_p = |top_p| SamplingOptions { top_p, ..neutral() };
    check_options(top_p(0.65), &FOUR, &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
    check_options(top_p(0.75), &FOUR, &[0.0, 4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0]);
    check_options(top_p(1e-6), &FOUR, &[0.0, 1.0, 0.0, 0.0]);
    // Among equals the lower ids stay.
    check_options(top_p(0.5), &[0.25; 4], &[0.5, 0.5, 0.0, 0.0]);
}

#[test]
fn min_p_is_relative_to_the_largest() {
    let min_p = |min_p| SamplingOptions { min_p, ..neutral() };
    check_options(min_p(0.6), &FOUR, &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
    check_options(min_p(1.0), &[0.4, 0.2, 0.4], &[0.5, 0.0, 0.5]);
}

#[test]
fn typical_p_keeps_what_surprises_as_expected() {
    // The entropy is 1.3938 nats; surprises are 0.357 (0.7), 2.303 (0.1), 2.996 (0.05): distances 0.584 for 0.7 at
    // H = 0.9404 (0.7: 0.2497 + 0.1: 0.2303 * 2 + 0.05: 0.1498 * 2), 1.362 for 0.1, 2.055 for 0.05.
    let given = [0.05, 0.7, 0.1, 0.1, 0.05];
    let typical = |typical_p| SamplingOptions { typical_p, ..neutral() };
    check_options(typical(0.6), &given, &[0.0, 1.0, 0.0, 0.0, 0.0]);
    // Both tokens of 0.1 are as far, so that both stay when one would reach 0.75.
    check_options(typical(0.75), &given, &[0.0, 7.0 / 9.0, 1.0 / 9.0, 1.0 / 9.0, 0.0]);
    // The most probable one can be the strangest: H = 1.5571, its distance 0.6408, that of 0.15 0.3400.
    let flat = [0.4, 0.15, 0.15, 0.15, 0.15];
    check_options(typical(0.5), &flat, &[0.0, 0.25, 0.25, 0.25, 0.25]);
}

#[test]
fn top_n_sigma_measures_from_the_largest() {
    // Mean 2, variance (4 + 1 + 0 + 1 + 4) / 5 = 2, deviation 1.4142: 1 of them below 4 is 2.5858.
    let logits = [0.0, 1.0, 2.0, 3.0, 4.0];
    let kept = |n| {
        let options = SamplingOptions { top_n_sigma: n, temperature: 0.7, ..neutral() };
        let found = chain(&options, 5).distribution(&logits, None).unwrap();
        found.tokens.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    };
    assert_eq!(kept(0.5), [4]);
    assert_eq!(kept(1.0), [3, 4]);
    assert_eq!(kept(1.5), [2, 3, 4]);
    assert_eq!(kept(3.0), [0, 1, 2, 3, 4]);
}

#[test]
fn xtc_leaves_the_least_of_the_top_choices() {
    let xtc = |xtc_probability, xtc_threshold| SamplingOptions { xtc_probability, xtc_threshold, ..neutral() };
    check_options(xtc(1.0, 0.15), &FOUR, &[1.0 / 3.0, 0.0, 0.0, 2.0 / 3.0]);
    check_options(xtc(1.0, 0.25), &FOUR, &[1.0 / 6.0, 0.0, 3.0 / 6.0, 2.0 / 6.0]);
    // One token above the threshold is no choice.
    check_options(xtc(1.0, 0.35), &FOUR, &[0.1, 0.4, 0.3, 0.2]);
    check_options(xtc(0.0, 0.1), &FOUR, &[0.1, 0.4, 0.3, 0.2]);
    // Of equal ones the highest id stays.
    check_options(xtc(1.0, 0.2), &[0.1, 0.3, 0.3, 0.3], &[0.25, 0.0, 0.0, 0.75]);
}

#[test]
fn xtc_happens_as_often_as_asked() {
    let options = SamplingOptions { xtc_probability: 0.3, xtc_threshold: 0.15, seed: 4, ..neutral() };
    let mut chain = chain(&options, 4);
    let logits = logits(&FOUR);
    let happened = (0..4000).filter(|_| {
        let left = chain.distribution(&logits, None).unwrap().tokens.len();
        assert!(left == 2 || left == 4);
        chain.accept(0);
        left == 2
    });
    // 1,200 expected with a deviation of 29; four of them.
    let happened = happened.count();
    assert!(happened.abs_diff(1200) < 116, "{happened}");
}

#[test]
fn mirostat_follows_the_surprise() {
    // At the start 2 tau = 2 bits: 0.25 and above stay. The chosen token then has 4/7, 0.8074 bits, which is 0.1926
    // below tau: the bound rises by half of that.
    let options = SamplingOptions { mirostat: true, mirostat_tau: 1.0, mirostat_eta: 0.5, ..neutral() };
    let mut chain = chain(&options, 4);
    let found = chain.distribution(&logits(&FOUR), None).unwrap();
    near(&dense(&found, 4), &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0], 1e-6);
    chain.accept(1);
    assert!((chain.bound - 2.096_322).abs() < 1e-5, "{}", chain.bound);
    // A token that the distribution does not hold tells nothing.
    chain.distribution(&logits(&FOUR), None).unwrap();
    chain.accept(0);
    assert!((chain.bound - 2.096_322).abs() < 1e-5);
    chain.rollback(2);
    assert_eq!(chain.bound, 2.0);
    // At least one token stays.
    chain.bound = -3.0;
    let found = chain.distribution(&logits(&FOUR), None).unwrap();
    assert_eq!(found, Distribution::certain(1));
}

#[test]
fn stages_apply_in_the_order_of_the_chain() {
    // Top-k leaves 0.4 0.3 0.2 of 0.9; of that 0.75 is 0.675, reached by 0.4 + 0.3; before top-k it was not.
    let options = SamplingOptions { top_k: 3, top_p: 0.75, ..neutral() };
    check_options(options.clone(), &FOUR, &[0.0, 4.0 / 7.0, 3.0 / 7.0, 0.0]);
    let turned = SamplingOptions { chain: vec![Stage::TopP, Stage::TopK], ..options };
    check_options(turned, &FOUR, &[0.0, 4.0 / 9.0, 3.0 / 9.0, 2.0 / 9.0]);
    // llama.cpp's order: top-p before temperature sees 0.4 0.3 0.2 0.1, behind it 16 9 4 1 of 30.
    let options = SamplingOptions { temperature: 0.5, top_p: 0.75, ..neutral() };
    check_options(options.clone(), &FOUR, &[0.0, 16.0 / 25.0, 9.0 / 25.0, 0.0]);
    let last = SamplingOptions { chain: vec![Stage::TopP, Stage::Temperature], ..options };
    check_options(last, &FOUR, &[0.0, 16.0 / 29.0, 9.0 / 29.0, 4.0 / 29.0]);
}

#[test]
fn changes_behind_filters_and_temperature_count() {
    // 0.4, 0.3, 0.2 stay; at temperature 0.5 they are 16 9 4; ln 4 more for token 3 makes it 16.
    let options = SamplingOptions {
        chain: vec![Stage::TopK, Stage::Temperature, Stage::LogitBias, Stage::MinP],
        top_k: 3,
        temperature: 0.5,
        logit_bias: [(3, 4f32.ln()), (0, 50.0)].into(),
        min_p: 0.9,
        ..neutral()
    };
    check_options(options, &FOUR, &[0.0, 0.5, 0.0, 0.5]);
    let early = SamplingOptions {
        chain: vec![Stage::Temperature, Stage::LogitBias],
        temperature: 0.5,
        logit_bias: [(3, 4f32.ln())].into(),
        ..neutral()
    };
    check_options(early, &FOUR, &[1.0 / 42.0, 16.0 / 42.0, 9.0 / 42.0, 16.0 / 42.0]);
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let mut greedy = Chain::greedy(4);
    let logits = [1.0, 3.0, 3.0, f32::NEG_INFINITY];
    let found = greedy.sample(&logits, None).unwrap();
    assert_eq!(found.id, 1);
    let expected = -(2.0f32 + (-2.0f32).exp()).ln();
    assert!((found.log_prob - expected).abs() < 1e-6);
    assert_eq!(greedy.distribution(&logits, None).unwrap(), Distribution::certain(1));
    // Behind other stages too, and filters before it count.
    let options = SamplingOptions { logit_bias: [(2, 0.5)].into(), ..SamplingOptions::greedy() };
    assert_eq!(chain(&options, 4).sample(&logits, None).unwrap().id, 2);
    let options = SamplingOptions {
        chain: vec![Stage::Xtc, Stage::Temperature],
        xtc_probability: 1.0,
        ..SamplingOptions::greedy()
    };
    assert_eq!(chain(&options, 3).sample(&[2.0, 1.0, 1.5], None).unwrap().id, 1);
}
