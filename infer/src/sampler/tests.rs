use super::*;

mod any;
mod filters;
mod peers;
mod penalties;
mod state;

/// Logits of given probabilities.
fn logits(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

fn chain(options: &SamplingOptions, vocab_size: usize) -> Chain {
    Chain::new(options, &[], vocab_size, &[]).unwrap()
}

/// The distribution as one number for each token.
fn dense(distribution: &Distribution, vocab_size: usize) -> Vec<f64> {
    (0..vocab_size as u32).map(|id| distribution.probability(id)).collect()
}

#[track_caller]
fn near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (id, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < tolerance, "token {id}: {found} for {expected}");
    }
}

/// What a chain leaves of these probabilities.
#[track_caller]
fn check(mut chain: Chain, given: &[f32], expected: &[f64]) {
    let found = chain.distribution(&logits(given), None).unwrap();
    near(&dense(&found, given.len()), expected, 1e-6);
}

const FOUR: [f32; 4] = [0.1, 0.4, 0.3, 0.2];
