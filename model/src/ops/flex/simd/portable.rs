//! Plain Rust.

use super::Simd;

/// Plain Rust: eight floats, which compilers turn into what the target has.
#[derive(Clone, Copy)]
pub(in crate::ops::flex) struct Portable;

impl Portable {
    #[inline(always)]
    fn each(a: [f32; 8], f: impl Fn(usize, f32) -> f32) -> [f32; 8] {
        std::array::from_fn(|i| f(i, a[i]))
    }
}

impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; 8]
    }
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::V {
        std::array::from_fn(|i| x[i])
    }
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::V {
        std::array::from_fn(|i| x.get(i).copied().unwrap_or(0.0))
    }
    #[inline(always)]
    unsafe fn read(self, x: *const f32) -> Self::V {
        // SAFETY: eight floats are there, the caller's promise; an array of them has their alignment.
        unsafe { x.cast::<[f32; 8]>().read() }
    }
    #[inline(always)]
    fn store(self, x: &mut [f32], v: Self::V) {
        x[..8].copy_from_slice(&v);
    }
    #[inline(always)]
    fn store_part(self, x: &mut [f32], v: Self::V) {
        let n = x.len();
        x.copy_from_slice(&v[..n]);
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        Self::each(a, |i, a| a + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        Self::each(a, |i, a| a - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        Self::each(a, |i, a| a * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        Self::each(a, |i, a| a / b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Rounded twice: without the instruction, f32::mul_add is a slow call.
        Self::each(a, |i, a| a * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        Self::each(a, |i, a| if a > b[i] { a } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        Self::each(a, |i, a| if a < b[i] { a } else { b[i] })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        Self::each(a, |_, a| a.sqrt())
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Adding and taking away 1.5 * 2^23 leaves the nearest whole number of anything below 2^22.
        Self::each(a, |_, a| (a + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    fn scale(self, p: Self::V, n: Self::V) -> Self::V {
        // A conversion of not-a-number gives 0 here, and p is not a number then.
        Self::each(p, |i, p| p * f32::from_bits(((n[i] as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn zero_below(self, v: Self::V, x: Self::V, bound: Self::V) -> Self::V {
        Self::each(v, |i, v| if x[i] < bound[i] { 0.0 } else { v })
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        let [a, b, c, d, e, f, g, h] = a;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    fn largest(self, a: Self::V) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
