//! Hand numbers of what changes logits or rules tokens out.

use super::*;

/// Logits that some stages leave, up to a constant: the logarithms of probabilities less that of the last token.
fn relative(chain: &mut Chain, logits: &[f32]) -> Vec<f64> {
    let found = dense(&chain.distribution(logits, None).unwrap(), logits.len());
    found.iter().map(|p| p.ln() - found[logits.len() - 1].ln()).collect()
}

const LOGITS: [f32; 5] = [2.0, -1.0, 1.0, 0.5, 0.0];

#[test]
fn repetition_counts_prompt_and_output_and_the_others_output_alone() {
    let options = SamplingOptions {
        repetition_penalty: 2.0,
        frequency_penalty: 0.25,
        presence_penalty: 0.5,
        ..SamplingOptions::default()
    };
    let mut chain = Chain::new(&options, &[0, 1, 1], 5, &[]).unwrap();
    near(&relative(&mut chain, &LOGITS), &[1.0, -2.0, 1.0, 0.5, 0.0], 1e-6);
    chain.accept(2);
    chain.accept(2);
    chain.accept(1);
    near(&relative(&mut chain, &LOGITS), &[1.0, -2.75, -0.5, 0.5, 0.0], 1e-6);
    chain.rollback(2);
    near(&relative(&mut chain, &LOGITS), &[1.0, -2.0, -0.25, 0.5, 0.0], 1e-6);
    chain.rollback(1);
    near(&relative(&mut chain, &LOGITS), &[1.0, -2.0, 1.0, 0.5, 0.0], 1e-6);
}

#[test]
fn dry_grows_with_the_repetition() {
    let options = SamplingOptions { dry_multiplier: 0.5, dry_base: 2.0, ..SamplingOptions::default() };
    let flat = [0.0; 6];
    // 1 2 3 came before, followed by 4: three tokens repeated, one more than may be.
    let mut chain = Chain::new(&options, &[1, 2, 3, 4, 1, 2], 6, &[]).unwrap();
    near(&relative(&mut chain, &flat), &[0.0, 0.0, 0.0, -0.5, 0.0, 0.0], 1e-6);
    chain.accept(3);
    near(&relative(&mut chain, &flat), &[0.0, 0.0, 0.0, 0.0, -1.0, 0.0], 1e-6);
    chain.accept(4);
    near(&relative(&mut chain, &flat), &[0.0, -2.0, 0.0, 0.0, 0.0, 0.0], 1e-6);
    // A breaker inside ends it, and so does a range that does not reach back.
    let broken = SamplingOptions { dry_breakers: vec![2], ..options.clone() };
    let mut chain = Chain::new(&broken, &[1, 2, 3, 4, 1, 2, 3], 6, &[]).unwrap();
    near(&relative(&mut chain, &flat), &[0.0; 6], 1e-6);
    let short = SamplingOptions { dry_range: 4, ..options };
    let mut chain = Chain::new(&short, &[1, 2, 3, 4, 1, 2, 3], 6, &[]).unwrap();
    near(&relative(&mut chain, &flat), &[0.0; 6], 1e-6);
}

#[test]
fn dry_of_a_long_repetition_stays_finite() {
    let options = SamplingOptions { dry_multiplier: 1000.0, dry_base: 1000.0, ..SamplingOptions::default() };
    let mut chain = Chain::new(&options, &[1; 500], 3, &[]).unwrap();
    let found = chain.distribution(&[0.0, 5.0, 0.0], None).unwrap();
    near(&dense(&found, 3), &[0.5, 0.0, 0.5], 1e-9);
}

#[test]
fn breakers_are_the_tokens_that_hold_a_text() {
    let mut documents = std::iter::once(Ok("a: b\nc: d\n\n".repeat(9)));
    let tokenizer = fornax_data::Tokenizer::train_bpe(&mut documents, 270, &mut |_| {}).unwrap();
    let ids = breaker_ids(&tokenizer, &[":", "\n"]).unwrap();
    assert!(ids.len() > 2, "some merges hold them too");
    for id in 0..tokenizer.vocab_size() as u32 {
        let text = tokenizer.spelled(id);
        assert_eq!(ids.contains(&id), text.contains(&b':') || text.contains(&b'\n'), "{id}");
    }
    let error = breaker_ids(&tokenizer, &["zebra crossing"]).unwrap_err().to_string();
    assert_eq!(error, "dry_breakers is \"zebra crossing\", expected a text that stands in at least 1 token");
}

#[test]
fn bias_bans_and_allowed_ids() {
    let third = 1.0 / 3.0;
    let options = SamplingOptions { logit_bias: [(0, 2f32.ln()), (1, -100.0)].into(), ..Default::default() };
    check(chain(&options, 4), &[0.25; 4], &[0.5, 0.0, 0.25, 0.25]);
    let options = SamplingOptions { banned_ids: vec![3], ..Default::default() };
    check(chain(&options, 4), &[0.25; 4], &[third, third, third, 0.0]);
    let options = SamplingOptions { allowed_ids: Some(vec![3, 1, 2]), banned_ids: vec![2], ..Default::default() };
    check(chain(&options, 4), &[0.25; 4], &[0.0, 0.5, 0.0, 0.5]);
    // They rule out before anything is filtered: top-k takes two of those that may come.
    let options = SamplingOptions { banned_ids: vec![1], top_k: 2, ..Default::default() };
    check(chain(&options, 4), &FOUR, &[0.0, 0.0, 0.6, 0.4]);
}

#[test]
fn a_mask_rules_out_what_its_bits_leave_out() {
    let logits: Vec<f32> = (0..100).map(|i| i as f32 * 0.01).collect();
    let mut chain = chain(&SamplingOptions::default(), 100);
    let ids = |found: Distribution| found.tokens.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    let found = chain.distribution(&logits, Some(&[1 << 31, 0, 0b101, 0])).unwrap();
    assert_eq!(ids(found), [31, 64, 66]);
    // What lies beyond the mask is not allowed.
    let found = chain.distribution(&logits, Some(&[u32::MAX])).unwrap();
    assert_eq!(ids(found), (0..32).collect::<Vec<_>>());
    for mask in [&[][..], &[0, 0, 0, 0]] {
        let error = chain.distribution(&logits, Some(mask)).unwrap_err();
        assert_eq!(error, SamplerError::NothingAllowed { vocab_size: 100 });
    }
    let mut greedy = Chain::greedy(100);
    assert_eq!(greedy.sample(&logits, Some(&[0b110])).unwrap().id, 2);
    assert_eq!(greedy.sample(&logits, None).unwrap().id, 99);
}

#[test]
fn the_text_does_not_end_before_min_tokens() {
    let options = SamplingOptions { min_tokens: 2, stop_ids: vec![2], ..SamplingOptions::default() };
    let mut chain = Chain::new(&options, &[1, 1, 1], 4, &[3]).unwrap();
    assert!(chain.is_end(2) && chain.is_end(3) && !chain.is_end(0));
    let ids = |chain: &mut Chain, mask: Option<&[u32]>| {
        let found = chain.distribution(&[0.0; 4], mask).unwrap();
        found.tokens.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&mut chain, None), [0, 1]);
    chain.accept(0);
    assert_eq!(ids(&mut chain, None), [0, 1]);
    // A grammar that allows the end alone is not contradicted.
    assert_eq!(ids(&mut chain, Some(&[0b1000])), [3]);
    chain.accept(0);
    assert_eq!(ids(&mut chain, None), [0, 1, 2, 3]);
    // With ignore_eos the end-of-text token is a token like others.
    let options = SamplingOptions { ignore_eos: true, ..options };
    let mut chain = Chain::new(&options, &[], 4, &[3]).unwrap();
    assert!(chain.is_end(2) && !chain.is_end(3));
    assert_eq!(ids(&mut chain, None), [0, 1, 3]);
}
