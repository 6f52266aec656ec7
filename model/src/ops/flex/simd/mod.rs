//! Vectors of f32 in three instruction sets, chosen when the program runs: AVX-512, AVX2 with FMA, and plain
//! Rust. A kernel is written once over [`Simd`] and compiled for each by the `kernel!` macro.

mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(super) mod x86;

use std::sync::OnceLock;

pub(super) use portable::Portable;

/// One instruction set's vector of f32. A value of an implementing type is the proof that the processor has
/// that instruction set, so the methods are safe.
pub(super) trait Simd: Copy {
    /// The vector.
    type V: Copy;
    /// Floats in a vector.
    const LANES: usize;
    /// Rows of two vectors that fit the registers beside the operands of a matrix product.
    const TILE_ROWS: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// The first `LANES` of `x`, which must hold as many.
    fn load(self, x: &[f32]) -> Self::V;
    /// As `load`, of fewer than `LANES`; the other lanes are 0.
    fn load_part(self, x: &[f32]) -> Self::V;
    /// As `load`, from an address: for inner loops whose slices would be checked at every step.
    ///
    /// # Safety
    /// `LANES` floats must be there.
    unsafe fn read(self, x: *const f32) -> Self::V;
    /// Asks for what is at an address, which may be any, before it is read.
    #[inline(always)]
    fn prefetch(self, x: *const f32) {
        let _ = x;
    }
    /// Writes the first `LANES` of `x`, which must hold as many.
    fn store(self, x: &mut [f32], v: Self::V);
    /// As `store`, into fewer than `LANES`.
    fn store_part(self, x: &mut [f32], v: Self::V);
    /// a + b.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a b + c, rounded once where the instruction set can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where either is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where either is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// Square root.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// To the nearest whole number.
    fn round(self, a: Self::V) -> Self::V;
    /// p 2^n for whole n of [-126, 127] and p of [0.5, 2].
    fn scale(self, p: Self::V, n: Self::V) -> Self::V;
    /// v, or 0 where `x < bound`.
    fn zero_below(self, v: Self::V, x: Self::V, bound: Self::V) -> Self::V;
    /// The lanes added in a fixed order.
    fn sum(self, a: Self::V) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::V) -> f32;
    /// Exchanges rows and columns of a square of `LANES` floats: row i begins at `from + i * from_stride`, its
    /// floats go to column i of the rows at `to`.
    ///
    /// # Safety
    /// Both squares must be there, and `to` writable.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                // SAFETY: the caller's promise.
                unsafe { *to.add(column * to_stride + row) = *from.add(row * from_stride + column) };
            }
        }
    }
}

/// Below it `exp` gives 0: the results would be subnormal.
const EXP_LOW: f32 = -87.336_54;
/// Above it `exp` stays at its largest value, 2.4e38.
const EXP_HIGH: f32 = 88.376_26;

/// e^x to about 2 units in the last place; 0 below -87.34, no infinity above 88.38, not-a-number kept.
///
/// Cody and Waite's reduction to |r| <= ln 2 / 2, then the polynomial of degree 6 of Moshier's Cephes library
/// (expf).
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let low = s.splat(EXP_LOW);
    let bounded = s.max(low, s.min(s.splat(EXP_HIGH), x));
    let n = s.round(s.mul(bounded, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-0.693_359_4), bounded);
    let r = s.mul_add(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = s.mul_add(p, r, s.splat(coefficient));
    }
    let p = s.mul_add(p, s.mul(r, r), s.add(r, s.splat(1.0)));
    s.zero_below(s.scale(p, n), x, low)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// The instruction set in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// The best instruction set of this processor.
pub(super) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            let narrow = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if wide && narrow {
                return Level::Avx512;
            }
            if narrow {
                return Level::Avx2;
            }
        }
        Level::Portable
    })
}

/// Defines a function whose body is compiled for every instruction set and picked when called. The first
/// parameter of the body, named by the caller, is the instruction set.
macro_rules! kernel {
    ($(#[$doc:meta])* pub(super) unsafe fn $($rest:tt)*) => {
        $crate::ops::flex::simd::kernel! { @[unsafe] [$(#[$doc])* pub(super)] $($rest)* }
    };
    ($(#[$doc:meta])* pub(super) fn $($rest:tt)*) => {
        $crate::ops::flex::simd::kernel! { @[] [$(#[$doc])* pub(super)] $($rest)* }
    };
    ($(#[$doc:meta])* unsafe fn $($rest:tt)*) => {
        $crate::ops::flex::simd::kernel! { @[unsafe] [$(#[$doc])*] $($rest)* }
    };
    ($(#[$doc:meta])* fn $($rest:tt)*) => {
        $crate::ops::flex::simd::kernel! { @[] [$(#[$doc])*] $($rest)* }
    };
    (
        @[$($safety:tt)?] [$($doc:tt)*]
        $name:ident($s:ident $(, $arg:ident: $ty:ty)* $(,)?) $(-> $out:ty)? $body:block
    ) => {
        #[allow(clippy::too_many_arguments, unused_unsafe)]
        $($doc)*
        $($safety)? fn $name($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            $($safety)? fn body<S: $crate::ops::flex::simd::Simd>($s: S $(, $arg: $ty)*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            $($safety)? fn avx512($($arg: $ty),*) $(-> $out)? {
                // SAFETY: this function runs on processors with AVX-512 only; the caller promises the rest.
                unsafe { body($crate::ops::flex::simd::x86::Avx512::assume() $(, $arg)*) }
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            $($safety)? fn avx2($($arg: $ty),*) $(-> $out)? {
                // SAFETY: this function runs on processors with AVX2 and FMA only; the caller promises the rest.
                unsafe { body($crate::ops::flex::simd::x86::Avx2::assume() $(, $arg)*) }
            }

            // SAFETY: `level` found these instructions on this processor; the caller promises the rest.
            unsafe {
                match $crate::ops::flex::simd::level() {
                    #[cfg(target_arch = "x86_64")]
                    $crate::ops::flex::simd::Level::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::ops::flex::simd::Level::Avx2 => avx2($($arg),*),
                    $crate::ops::flex::simd::Level::Portable => body($crate::ops::flex::simd::Portable $(, $arg)*),
                }
            }
        }
    };
}
pub(super) use kernel;

/// Loads the vector of `x` that begins at `at`: a whole one, or the rest of `x`.
#[inline(always)]
pub(super) fn load_at<S: Simd>(s: S, x: &[f32], at: usize) -> S::V {
    let rest = &x[at..];
    if rest.len() >= S::LANES { s.load(rest) } else { s.load_part(rest) }
}

/// Stores the vector of `x` that begins at `at`: a whole one, or the rest of `x`.
#[inline(always)]
pub(super) fn store_at<S: Simd>(s: S, x: &mut [f32], at: usize, v: S::V) {
    let rest = &mut x[at..];
    if rest.len() >= S::LANES { s.store(rest, v) } else { s.store_part(rest, v) }
}
