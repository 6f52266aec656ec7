//! Any logits, any options.

use proptest::prelude::*;

use super::*;

/// Top-k, top-p and min-p by a full sort, as their definitions say it; `None` where the sum decides by a hair.
fn by_sorting(options: &SamplingOptions, logits: &[f32]) -> Option<Vec<u32>> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    if options.top_k > 0 && options.top_k < order.len() {
        let kth = logits[order[options.top_k - 1] as usize];
        order.retain(|id| logits[*id as usize] >= kth);
    }
    let largest = f64::from(logits[order[0] as usize]);
    let weight = |id: u32| ((f64::from(logits[id as usize]) - largest) / f64::from(options.temperature)).exp();
    let total: f64 = order.iter().map(|id| weight(*id)).sum();
    let target = f64::from(options.top_p) * total;
    let (mut above, mut clear) = (0.0, true);
    order.retain(|id| {
        let stays = above < target;
        above += weight(*id);
        clear &= (above - target).abs() > 1e-5 * total;
        stays
    });
    order.retain(|id| weight(*id) >= f64::from(options.min_p) && weight(*id) > 0.0);
    order.sort_unstable();
    clear.then_some(order)
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
        2 => prop::collection::vec(any_logit(), 0..80),
        6 => prop::collection::vec(any_logit(), 8..80),
        1 => prop::collection::vec(any_logit(), 600..700),
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

/// Mostly within the range, sometimes its ends, now and then anything.
fn number(range: std::ops::RangeInclusive<f32>, off: f32) -> impl Strategy<Value = f32> {
    let (least, most) = (*range.start(), *range.end());
    prop_oneof![
        10 => Just(off),
        16 => range,
        1 => Just(least),
        1 => Just(most),
        1 => Just(1e-45),
        1 => prop_oneof![3 => Just(off), 1 => any::<f32>()],
    ]
}

/// Mostly ids that any vocabulary here has.
fn id() -> impl Strategy<Value = u32> {
    prop_oneof![40 => 0u32..8, 1 => 0u32..90]
}

fn ids() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(id(), 1..6)]
}

fn any_options() -> impl Strategy<Value = SamplingOptions> {
    let filters = (
        number(0.0..=2.0, 1.0),
        prop_oneof![Just(0usize), 1usize..90, Just(usize::MAX)],
        number(0.0..=1.0, 1.0),
        number(0.0..=1.0, 0.0),
        number(0.0..=1.0, 1.0),
        number(0.0..=3.0, 0.0),
        (number(0.0..=1.0, 0.0), number(0.0..=1.0, 0.1)),
        (any::<bool>(), number(0.0..=9.0, 5.0), number(0.0..=1.0, 0.1)),
    );
    let penalties = (
        (number(0.0..=9.0, 0.0), number(1.0..=9.0, 1.75), 0usize..4, 0usize..9, ids()),
        (number(0.0..=9.0, 1.0), number(-2.0..=2.0, 0.0), number(-2.0..=2.0, 0.0)),
        prop_oneof![
            3 => Just(Vec::new()),
            1 => prop::collection::vec((id(), number(-100.0..=100.0, 0.0)), 0..5),
        ],
        (prop_oneof![4 => Just(None), 1 => ids().prop_map(Some)], ids(), ids()),
        (0usize..4, any::<bool>(), 0usize..4),
    );
    let order = prop_oneof![Just(Stage::ALL.to_vec()), Just(Stage::ALL.to_vec()).prop_shuffle()];
    (filters, penalties, order, any::<u64>()).prop_map(|(filters, penalties, chain, seed)| {
        let (temperature, top_k, top_p, min_p, typical_p, top_n_sigma, xtc, mirostat) = filters;
        let (dry, repetition, bias, (allowed_ids, banned_ids, stop_ids), (min_tokens, ignore_eos, top)) =
            penalties;
        SamplingOptions {
            chain,
            seed,
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            top_n_sigma,
            xtc_probability: xtc.0,
            xtc_threshold: xtc.1,
            dry_multiplier: dry.0,
            dry_base: dry.1,
            dry_allowed_length: dry.2,
            dry_range: dry.3,
            dry_breakers: dry.4,
            mirostat: mirostat.0,
            mirostat_tau: mirostat.1,
            mirostat_eta: mirostat.2,
            repetition_penalty: repetition.0,
            frequency_penalty: repetition.1,
            presence_penalty: repetition.2,
            logit_bias: bias.into_iter().collect(),
            allowed_ids,
            banned_ids,
            min_tokens,
            ignore_eos,
            stop_ids,
            top_log_probs: top,
        }
    })
}

/// The tokens that may come at all.
fn allowed(options: &SamplingOptions, mask: Option<&[u32]>, logits: &[f32]) -> Vec<u32> {
    let in_mask = |id: u32| {
        mask.is_none_or(|mask| mask.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1))
    };
    let listed = |id: u32| options.allowed_ids.as_ref().is_none_or(|ids| ids.contains(&id));
    (0..logits.len() as u32)
        .filter(|&id| logits[id as usize] > f32::NEG_INFINITY && in_mask(id) && listed(id))
        .filter(|id| !options.banned_ids.contains(id))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Reliability property F13.
    #[test]
    fn any_logits_and_options_give_an_id_or_an_error(
        logits in logits_with_faults(),
        options in any_options(),
        prompt in prop::collection::vec(0u32..90, 0..9),
        mask in prop_oneof![3 => Just(None), 1 => prop::collection::vec(any::<u32>(), 0..4).prop_map(Some)],
        eos in prop::collection::vec(0u32..90, 0..3),
    ) {
        let checked = options.check().and_then(|()| options.check_ids(logits.len()));
        let made = Chain::new(&options, &prompt, logits.len(), &eos);
        let words = |error: Option<&SamplerError>| error.map(SamplerError::to_string);
        prop_assert_eq!(words(made.as_ref().err()), words(checked.as_ref().err()));
        let Ok(mut chain) = made else { return Ok(()) };
        let mask = mask.as_deref();
        let finite = logits.iter().all(|logit| !logit.is_nan() && *logit != f32::INFINITY);
        let allowed = allowed(&options, mask, &logits);
        for _ in 0..4 {
            let distribution = chain.distribution(&logits, mask);
            let found = chain.sample(&logits, mask);
            prop_assert_eq!(found.is_ok(), finite && !allowed.is_empty(), "{:?}", found);
            prop_assert_eq!(words(distribution.as_ref().err()), words(found.as_ref().err()));
            let (Ok(distribution), Ok(found)) = (distribution, found) else { return Ok(()) };
            prop_assert!(allowed.contains(&found.id), "{} of {:?}", found.id, allowed);
            prop_assert!(found.log_prob <= 0.0 && !found.log_prob.is_nan());
            prop_assert!(found.top.len() <= options.top_log_probs);
            let sum: f64 = distribution.tokens.iter().map(|(_, p)| p).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9, "{}", sum);
            prop_assert!(distribution.tokens.is_sorted_by_key(|(id, _)| *id));
            prop_assert!(distribution.tokens.iter().all(|(id, p)| *p > 0.0 && allowed.contains(id)));
            chain.accept(found.id);
        }
    }

    #[test]
    fn selection_equals_sorting(
        logits in prop::collection::vec(prop_oneof![-6.0f32..6.0, Just(1.0f32)], 1..400),
        temperature in 0.05f32..2.0,
        top_k in 0usize..220,
        top_p in 0.01f32..1.0,
        min_p in 0.0f32..0.5,
    ) {
        let options = SamplingOptions { temperature, top_k, top_p, min_p, ..SamplingOptions::default() };
        let found = chain(&options, logits.len()).distribution(&logits, None).unwrap();
        let found: Vec<u32> = found.tokens.iter().map(|(id, _)| *id).collect();
        if let Some(expected) = by_sorting(&options, &logits) {
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn typical_equals_sorting(
        logits in prop::collection::vec(prop_oneof![-9.0f32..9.0, Just(1.0f32), Just(f32::NEG_INFINITY)], 1..300),
        temperature in 0.1f32..2.0,
        typical_p in 0.01f32..0.99,
    ) {
        prop_assume!(logits.iter().any(|logit| logit.is_finite()));
        let options = SamplingOptions { temperature, typical_p, ..SamplingOptions::default() };
        let found = chain(&options, logits.len()).distribution(&logits, None).unwrap();
        let found: Vec<u32> = found.tokens.iter().map(|(id, _)| *id).collect();
        let plain = SamplingOptions { temperature, ..SamplingOptions::default() };
        let mut tokens = chain(&plain, logits.len()).distribution(&logits, None).unwrap().tokens;
        let entropy: f64 = tokens.iter().map(|(_, p)| -p * p.ln()).sum();
        let strangeness = |p: f64| (-p.ln() - entropy).abs();
        tokens.sort_by(|a, b| strangeness(a.1).total_cmp(&strangeness(b.1)));
        let (mut sum, mut clear) = (0.0, true);
        let mut last = 0.0;
        for (_, p) in &tokens {
            clear &= (sum - f64::from(typical_p)).abs() > 1e-5;
            if sum >= f64::from(typical_p) {
                break;
            }
            sum += p;
            last = strangeness(*p);
        }
        // Two tokens on both sides of the entropy may be as far but for a hair.
        clear &= tokens.iter().all(|(_, p)| (strangeness(*p) - last).abs() > 1e-5 || strangeness(*p) == last);
        if clear {
            let mut expected: Vec<u32> = tokens.iter().filter(|(_, p)| strangeness(*p) <= last).map(|(id, _)| *id).collect();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    /// A repetition found by comparing every place with the end.
    #[test]
    fn dry_equals_its_definition(
        history in prop::collection::vec(0u32..4, 0..40),
        breakers in prop_oneof![Just(vec![]), Just(vec![3u32])],
        range in 0usize..30,
        allowed in 1usize..4,
    ) {
        let options = SamplingOptions {
            dry_multiplier: 0.5, dry_base: 1.5, dry_allowed_length: allowed, dry_range: range, ..Default::default()
        };
        let start = if range == 0 { 0 } else { history.len().saturating_sub(range) };
        let latest = &history[start..];
        let n = latest.len();
        let unbroken = latest.iter().rev().take_while(|id| !breakers.contains(id)).count();
        let mut expected = std::collections::BTreeMap::new();
        for end in 1..n {
            // Tokens before `end` that equal the last ones; `latest[end]` followed them.
            let same = (1..=end).take_while(|k| latest[end - k] == latest[n - k]).count().min(unbroken);
            if same >= allowed && unbroken >= allowed && n > allowed {
                let penalty = 0.5 * 1.5f32.powi((same - allowed) as i32);
                let most = expected.entry(latest[end]).or_insert(0.0f32);
                *most = most.max(penalty);
            }
        }
        prop_assert_eq!(dry::penalties(&options, &breakers, &history), expected);
    }
}
