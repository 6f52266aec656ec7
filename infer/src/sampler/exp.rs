//! Sums of exponentials over a whole vocabulary, in plain loops that the compiler turns into vector code.

/// Values whose weights are summed in f32 before they go into an f64.
pub(super) const BLOCK: usize = 256;
const LANES: usize = 16;
/// Adding it rounds a number below 2^22 to a whole one, which then stands in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;

/// `e^x` for x of at most 0, within 3e-7 of it; below -87 that of -87, which beside 1 is nothing.
///
/// Cody and Waite's reduction to `|r| <= ln 2 / 2` and the series of `e^r`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Written as a comparison because `max` asks about NaN, which costs three instructions more.
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let series = 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r + 1.0;
    let series = series * r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127) << 23;
    f32::from_bits(power) * series
}

/// Sum over one block, in lanes.
#[inline(always)]
fn add(block: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let (chunks, rest) = block.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for chunk in chunks {
        for (sum, logit) in lanes.iter_mut().zip(chunk) {
            *sum += term(*logit);
        }
    }
    let rest: f32 = rest.iter().map(|logit| term(*logit)).sum();
    lanes.iter().map(|sum| f64::from(*sum)).sum::<f64>() + f64::from(rest)
}

/// Sum of `e^((logit - largest) / temperature)` over one block.
pub(super) fn block_sum(block: &[f32], largest: f32, temperature: f32) -> f64 {
    add(block, |logit| exp((logit - largest) / temperature))
}

/// Sum of `e^((logit - largest) / temperature)`, within 1e-6 of it.
pub(super) fn sum(logits: &[f32], largest: f32, temperature: f32) -> f64 {
    logits.chunks(BLOCK).map(|block| block_sum(block, largest, temperature)).sum()
}

/// Sum of `x e^x` with `x = (logit - largest) / temperature`, within 1e-6 of it.
pub(super) fn weighted_sum(logits: &[f32], largest: f32, temperature: f32) -> f64 {
    let term = |logit: f32| {
        let x = (logit - largest) / temperature;
        let x = if x > -87.0 { x } else { -87.0 };
        x * exp(x)
    };
    logits.chunks(BLOCK).map(|block| add(block, term)).sum()
}

/// The largest of some numbers, none of them NaN; -inf where there is none.
pub(super) fn largest(logits: &[f32]) -> f32 {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let greater = |most: f32, logit: f32| if logit > most { logit } else { most };
    for chunk in chunks {
        for (most, logit) in lanes.iter_mut().zip(chunk) {
            *most = greater(*most, *logit);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, logit| greater(most, *logit))
}

/// Whether every number is finite or -inf.
pub(super) fn usable(logits: &[f32]) -> bool {
    // Without a way out in the middle this is vector code; faults are rare.
    logits.iter().fold(true, |usable, logit| usable & (*logit < f32::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_near_those_of_the_library() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 3e-7, "e^{x} is off by {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn sums_are_near_those_in_f64() {
        let logits: Vec<f32> = (0..5001).map(|i| (i as f32 * 0.7).sin() * 12.0).collect();
        for (temperature, n) in [(1.0f32, 5001), (0.3, 5001), (2.0, 17), (0.7, 1), (1e-45, 300)] {
            let most = largest(&logits[..n]);
            let exact: f64 =
                logits[..n].iter().map(|l| (f64::from(l - most) / f64::from(temperature)).exp()).sum();
            let error = (sum(&logits[..n], most, temperature) - exact).abs() / exact;
            assert!(error < 1e-6, "{n} at {temperature}: {error}");
            let exponents = logits[..n].iter().map(|l| f64::from(l - most) / f64::from(temperature));
            let exact: f64 = exponents.filter(|x| *x > -87.0).map(|x| x * x.exp()).sum();
            let error = (weighted_sum(&logits[..n], most, temperature) - exact).abs();
            assert!(error < 1e-6 * exact.abs().max(1.0), "{n} at {temperature}: {error}");
        }
    }

    #[test]
    fn unusable_numbers_are_seen_wherever_they_are() {
        let mut logits = vec![0.5f32; 100];
        logits[40] = f32::NEG_INFINITY;
        assert!(usable(&logits));
        for place in [0, 17, 63, 99] {
            for fault in [f32::NAN, f32::INFINITY] {
                let mut logits = logits.clone();
                logits[place] = fault;
                assert!(!usable(&logits));
            }
        }
    }
}
