//! Randomness as a function of (seed, step, purpose), so that a resumed run draws what the straight run drew.
//!
//! The values are part of the contract: every algorithm above the ChaCha8 block function (a published standard) is
//! here, so no library version changes them.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use sha2::{Digest, Sha256};

/// A stream of random numbers for one purpose at one step.
///
/// The stream is ChaCha8 (Bernstein 2008, <https://cr.yp.to/chacha.html>) keyed with the sha-256 of
/// `seed || step || purpose`, both numbers in 8 bytes, little end leading.
pub fn rng(seed: u64, step: u64, purpose: &str) -> Rng {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(step.to_le_bytes());
    hasher.update(purpose.as_bytes());
    Rng { stream: ChaCha8Rng::from_seed(hasher.finalize().into()), spare_normal: None }
}

/// Random numbers; made by [`rng`].
#[derive(Clone, Debug)]
pub struct Rng {
    stream: ChaCha8Rng,
    spare_normal: Option<f32>,
}

impl Rng {
    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        self.stream.next_u32()
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// A number in `0..n`, each equally likely (Lemire 2019, "Fast random integer generation in an interval").
    ///
    /// # Panics
    /// When `n` is 0: there is no such number.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "a random number below 0 was asked for");
        let mut product = u128::from(self.next_u64()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u64) < threshold {
                product = u128::from(self.next_u64()) * u128::from(n);
            }
        }
        (product >> 64) as u64
    }

    /// A number in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in `[0, 1)`, a multiple of 2^-24.
    pub fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// A number of mean 0 and variance 1, normally distributed (Box and Muller 1958), at most 8.6 away from 0.
    pub fn normal_f32(&mut self) -> f32 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.uniform_f64()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform_f64()).sin_cos();
        self.spare_normal = Some((radius * sin) as f32);
        (radius * cos) as f32
    }

    /// Puts a slice in random order, each order equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let chosen = self.below(last as u64 + 1) as usize;
            items.swap(last, chosen);
        }
    }
}

const ROUNDS: usize = 8;

/// A random order of `0..n` in constant memory: the place of each index is computed, not stored, so that billions of
/// training windows need no table.
///
/// A Feistel network (Luby and Rackoff 1988) over the next power of four, walked until the value falls below `n`
/// (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"); at most 4 walks on average.
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The order of epoch `epoch` for `purpose`.
    pub fn new(seed: u64, epoch: u64, purpose: &str, n: u64) -> Self {
        let mut rng = rng(seed, epoch, purpose);
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| rng.next_u64()) }
    }

    /// How many indices are ordered.
    pub fn count(&self) -> u64 {
        self.n
    }

    /// What stands at place `i`; over `i` in `0..n` every value of `0..n` comes once.
    ///
    /// # Panics
    /// When `i` is not below `n`.
    pub fn at(&self, i: u64) -> u64 {
        assert!(i < self.n, "place {i} was asked for in an order of {}", self.n);
        let mut value = self.encipher(i);
        while value >= self.n {
            value = self.encipher(value);
        }
        value
    }

    fn encipher(&self, value: u64) -> u64 {
        let mask = u64::MAX >> (u64::BITS - self.half_bits);
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Permutation, rng};

    /// These numbers are a promise: a run started with one release resumes with the next. They were computed by a
    /// second implementation, in Python, from the definitions above.
    #[test]
    fn values_never_change() {
        let mut stream = rng(42, 7, "data");
        assert_eq!(stream.next_u64(), 16_545_642_737_539_562_913);
        assert_eq!(stream.next_u32(), 302_745_035);
        assert_eq!(stream.below(1_000_000), 120_843);
        assert_eq!(stream.uniform_f64(), 0.215_594_765_017_857_8);
        assert_eq!(stream.uniform_f32(), 0.050_628_543);
        let normals = [stream.normal_f32(), stream.normal_f32()];
        assert_eq!(normals.map(f32::to_bits), [0x3f13_6a70, 0x3f97_24e6]);
        let mut items = [0, 1, 2, 3, 4, 5, 6, 7];
        stream.shuffle(&mut items);
        assert_eq!(items, [6, 7, 2, 4, 3, 5, 1, 0]);
        let order = Permutation::new(42, 7, "data", 10);
        let places: Vec<u64> = (0..10).map(|i| order.at(i)).collect();
        assert_eq!(places, [6, 0, 1, 7, 8, 9, 2, 3, 5, 4]);
        let order = Permutation::new(42, 7, "data", 1_000_000_000_000);
        assert_eq!(order.at(123_456_789), 102_427_278_797);
    }

    #[test]
    fn streams_differ_by_seed_step_and_purpose() {
        let base = rng(1, 2, "data").next_u64();
        assert_eq!(base, rng(1, 2, "data").next_u64());
        for mut other in [rng(2, 2, "data"), rng(1, 3, "data"), rng(1, 2, "init"), rng(1, 2, "")] {
            assert_ne!(base, other.next_u64());
        }
    }

    #[test]
    fn below_is_even() {
        let mut rng = rng(3, 0, "test");
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        // 10,000 expected each with a deviation of 93; five of them.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 465), "{counts:?}");
        // Without rejection 2^64 draws fall on 3 * 2^62 numbers, and the multiples of 3 come twice as often.
        let huge = 3 << 62;
        let mut counts = [0u32; 3];
        for _ in 0..9000 {
            let drawn = rng.below(huge);
            assert!(drawn < huge);
            counts[(drawn % 3) as usize] += 1;
        }
        // 3,000 expected each with a deviation of 45; five of them.
        assert!(counts.iter().all(|&count| count.abs_diff(3000) < 225), "{counts:?}");
        assert_eq!(rng.below(1), 0);
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let mut rng = rng(4, 0, "test");
        let n = 100_000;
        let uniform: Vec<f64> = (0..n).map(|_| f64::from(rng.uniform_f32())).collect();
        let normal: Vec<f64> = (0..n).map(|_| f64::from(rng.normal_f32())).collect();
        let double: Vec<f64> = (0..n).map(|_| rng.uniform_f64()).collect();
        let mean = |values: &[f64], power: i32| values.iter().map(|v| v.powi(power)).sum::<f64>() / n as f64;
        for values in [&uniform, &double] {
            assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
            assert!((mean(values, 1) - 0.5).abs() < 0.005);
            assert!((mean(values, 2) - 1.0 / 3.0).abs() < 0.005);
        }
        assert!(mean(&normal, 1).abs() < 0.016);
        assert!((mean(&normal, 2) - 1.0).abs() < 0.025);
        assert!((mean(&normal, 4) - 3.0).abs() < 0.16);
    }

    #[test]
    fn shuffle_makes_every_order_equally_often() {
        let mut counts = std::collections::BTreeMap::new();
        let mut rng = rng(5, 0, "test");
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            rng.shuffle(&mut items);
            *counts.entry(items).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        assert!(counts.values().all(|&count| count.abs_diff(1000) < 160), "{counts:?}");
        rng.shuffle::<u8>(&mut []);
    }

    #[test]
    fn permutation_holds_every_value_once() {
        for n in 1..2000 {
            let order = Permutation::new(7, n, "order", n);
            let mut seen = vec![false; n as usize];
            for i in 0..n {
                assert!(!std::mem::replace(&mut seen[order.at(i) as usize], true), "twice in {n}");
            }
        }
    }

    #[test]
    fn permutation_is_even_over_seeds() {
        for n in [2u64, 3, 5, 6, 17] {
            let trials = 2000 * n;
            let mut counts = vec![vec![0u64; n as usize]; n as usize];
            for seed in 0..trials {
                let order = Permutation::new(seed, 0, "order", n);
                for i in 0..n {
                    counts[i as usize][order.at(i) as usize] += 1;
                }
            }
            // 2,000 expected in each place with a deviation below 45; five of them.
            let worst = counts.iter().flatten().map(|&count| count.abs_diff(2000)).max().unwrap();
            assert!(worst < 225, "worst {worst} for {n}: {counts:?}");
        }
    }

    #[test]
    fn permutation_of_billions_is_spread() {
        let n = 10_000_000_019;
        let order = Permutation::new(11, 0, "order", n);
        let mut buckets = [0u32; 100];
        let mut neighbours = 0;
        for i in 0..100_000 {
            let place = order.at(i);
            assert!(place < n);
            buckets[(place * 100 / n) as usize] += 1;
            neighbours += u32::from(i > 0 && order.at(i - 1).abs_diff(place) < n / 1000);
        }
        assert!(buckets.iter().all(|&count| count.abs_diff(1000) < 160), "{buckets:?}");
        // 200 expected with a deviation of 14.
        assert!(neighbours.abs_diff(200) < 71, "{neighbours}");
    }

    #[test]
    #[should_panic(expected = "place 3 was asked for in an order of 3")]
    fn permutation_refuses_places_beyond_its_end() {
        Permutation::new(0, 0, "order", 3).at(3);
    }
}
