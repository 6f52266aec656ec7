//! Vectors of f32 in three instruction sets, chosen when the program runs: AVX-512, AVX2 with FMA, and plain
//! Rust. A kernel is written once over [`Simd`] and compiled for each by the `kernel!` macro.

use std::sync::OnceLock;

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
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_1e-1] {
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
        $($doc)*
        #[allow(clippy::too_many_arguments, unused_unsafe)]
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

/// Plain Rust: eight floats, which compilers turn into what the target has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

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

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    /// Sixteen floats, AVX-512.
    #[derive(Clone, Copy)]
    pub(in crate::ops::flex) struct Avx512(());

    /// Eight floats, AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(in crate::ops::flex) struct Avx2(());

    impl Avx512 {
        /// # Safety
        /// The processor must have AVX-512 F, VL, BW and DQ.
        #[inline(always)]
        pub(in crate::ops::flex) unsafe fn assume() -> Self {
            Self(())
        }

        /// The first `n` lanes.
        #[inline(always)]
        fn first(n: usize) -> __mmask16 {
            debug_assert!(n <= 16);
            ((1u32 << n) - 1) as __mmask16
        }
    }

    impl Avx2 {
        /// # Safety
        /// The processor must have AVX2 and FMA.
        #[inline(always)]
        pub(in crate::ops::flex) unsafe fn assume() -> Self {
            Self(())
        }

        /// The first `n` lanes.
        #[inline(always)]
        fn first(n: usize) -> __m256i {
            let lanes: [i32; 8] = std::array::from_fn(|i| if i < n { -1 } else { 0 });
            // SAFETY: 32 bytes are read from an array of as many; AVX is there.
            unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
        }
    }

    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const TILE_ROWS: usize = 12;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            // SAFETY: a value of this type proves AVX-512; so in every method below.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        fn load(self, x: &[f32]) -> __m512 {
            assert!(x.len() >= 16);
            // SAFETY: sixteen floats are there.
            unsafe { _mm512_loadu_ps(x.as_ptr()) }
        }
        #[inline(always)]
        fn load_part(self, x: &[f32]) -> __m512 {
            assert!(x.len() <= 16);
            // SAFETY: the mask reads as many floats as there are.
            unsafe { _mm512_maskz_loadu_ps(Self::first(x.len()), x.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, x: &mut [f32], v: __m512) {
            assert!(x.len() >= 16);
            // SAFETY: sixteen floats are there.
            unsafe { _mm512_storeu_ps(x.as_mut_ptr(), v) }
        }
        #[inline(always)]
        fn store_part(self, x: &mut [f32], v: __m512) {
            assert!(x.len() <= 16);
            // SAFETY: the mask writes as many floats as there are.
            unsafe { _mm512_mask_storeu_ps(x.as_mut_ptr(), Self::first(x.len()), v) }
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn min(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        fn sqrt(self, a: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_sqrt_ps(a) }
        }
        #[inline(always)]
        fn round(self, a: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn scale(self, p: __m512, n: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_scalef_ps(p, n) }
        }
        #[inline(always)]
        fn zero_below(self, v: __m512, x: __m512, bound: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, bound), v) }
        }
        #[inline(always)]
        fn sum(self, a: __m512) -> f32 {
            // SAFETY: as above.
            unsafe { _mm512_reduce_add_ps(a) }
        }
        #[inline(always)]
        fn largest(self, a: __m512) -> f32 {
            // SAFETY: as above.
            unsafe { _mm512_reduce_max_ps(a) }
        }
        #[inline(always)]
        unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
            // SAFETY: the caller's promise, and AVX-512 as above.
            unsafe {
                let mut r: [__m512; 16] = std::array::from_fn(|i| _mm512_loadu_ps(from.add(i * from_stride)));
                let mut t = r;
                // Pairs of rows, then fours: each quarter of r[4 i + j] holds one column of rows 4 i to 4 i + 3.
                for i in 0..8 {
                    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
                }
                for i in 0..8 {
                    let (a, b) =
                        (_mm512_castps_pd(t[i / 2 * 4 + i % 2]), _mm512_castps_pd(t[i / 2 * 4 + i % 2 + 2]));
                    r[i / 2 * 4 + i % 2 * 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    r[i / 2 * 4 + i % 2 * 2 + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
                // Then the quarters of four such vectors.
                for j in 0..4 {
                    t[j] = _mm512_shuffle_f32x4::<0x88>(r[j], r[4 + j]);
                    t[4 + j] = _mm512_shuffle_f32x4::<0x88>(r[8 + j], r[12 + j]);
                    t[8 + j] = _mm512_shuffle_f32x4::<0xdd>(r[j], r[4 + j]);
                    t[12 + j] = _mm512_shuffle_f32x4::<0xdd>(r[8 + j], r[12 + j]);
                }
                for j in 0..4 {
                    r[j] = _mm512_shuffle_f32x4::<0x88>(t[j], t[4 + j]);
                    r[8 + j] = _mm512_shuffle_f32x4::<0xdd>(t[j], t[4 + j]);
                    r[4 + j] = _mm512_shuffle_f32x4::<0x88>(t[8 + j], t[12 + j]);
                    r[12 + j] = _mm512_shuffle_f32x4::<0xdd>(t[8 + j], t[12 + j]);
                }
                for (i, row) in r.into_iter().enumerate() {
                    _mm512_storeu_ps(to.add(i * to_stride), row);
                }
            }
        }
    }

    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const TILE_ROWS: usize = 6;

        #[inline(always)]
        fn splat(self, x: f32) -> __m256 {
            // SAFETY: a value of this type proves AVX2 and FMA; so in every method below.
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        fn load(self, x: &[f32]) -> __m256 {
            assert!(x.len() >= 8);
            // SAFETY: eight floats are there.
            unsafe { _mm256_loadu_ps(x.as_ptr()) }
        }
        #[inline(always)]
        fn load_part(self, x: &[f32]) -> __m256 {
            assert!(x.len() <= 8);
            // SAFETY: the mask reads as many floats as there are.
            unsafe { _mm256_maskload_ps(x.as_ptr(), Self::first(x.len())) }
        }
        #[inline(always)]
        fn store(self, x: &mut [f32], v: __m256) {
            assert!(x.len() >= 8);
            // SAFETY: eight floats are there.
            unsafe { _mm256_storeu_ps(x.as_mut_ptr(), v) }
        }
        #[inline(always)]
        fn store_part(self, x: &mut [f32], v: __m256) {
            assert!(x.len() <= 8);
            // SAFETY: the mask writes as many floats as there are.
            unsafe { _mm256_maskstore_ps(x.as_mut_ptr(), Self::first(x.len()), v) }
        }
        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn max(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        fn min(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        fn sqrt(self, a: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_sqrt_ps(a) }
        }
        #[inline(always)]
        fn round(self, a: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        fn scale(self, p: __m256, n: __m256) -> __m256 {
            // SAFETY: as above. n + 127, shifted into the exponent's place, is 2^n.
            unsafe {
                let n = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n)))
            }
        }
        #[inline(always)]
        fn zero_below(self, v: __m256, x: __m256, bound: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_NLT_UQ>(x, bound)) }
        }
        #[inline(always)]
        fn sum(self, a: __m256) -> f32 {
            let mut lanes = [0.0; 8];
            self.store(&mut lanes, a);
            super::Portable.sum(lanes)
        }
        #[inline(always)]
        fn largest(self, a: __m256) -> f32 {
            let mut lanes = [0.0; 8];
            self.store(&mut lanes, a);
            super::Portable.largest(lanes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `check` with every instruction set that this processor has.
    macro_rules! on_each {
        ($check:ident) => {
            $check(Portable);
            #[cfg(target_arch = "x86_64")]
            if level() != Level::Portable {
                // SAFETY: `level` found AVX2 and FMA, or more.
                $check(unsafe { x86::Avx2::assume() });
            }
            #[cfg(target_arch = "x86_64")]
            if level() == Level::Avx512 {
                // SAFETY: `level` found AVX-512.
                $check(unsafe { x86::Avx512::assume() });
            }
        };
    }

    fn map<S: Simd>(s: S, x: &[f32], f: impl Fn(S::V) -> S::V) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        for at in (0..x.len()).step_by(S::LANES) {
            let v = f(load_at(s, x, at));
            store_at(s, &mut y, at, v);
        }
        y
    }

    #[test]
    fn exponentials_are_right_to_a_few_units_in_the_last_place() {
        fn check<S: Simd>(s: S) {
            let x: Vec<f32> = (-87_300..88_300).map(|i| i as f32 * 0.001 + 0.000_37).collect();
            let worst = x.iter().zip(map(s, &x, |v| exp(s, v))).map(|(&x, e)| {
                let exact = f64::from(x).exp();
                ((f64::from(e) - exact) / exact).abs()
            });
            let worst = worst.fold(0.0, f64::max);
            assert!(worst < 3.0 * f64::from(f32::EPSILON), "off by {worst}");
        }
        on_each!(check);
    }

    #[test]
    fn exponentials_at_the_ends() {
        fn check<S: Simd>(s: S) {
            let x = [f32::NEG_INFINITY, -1e30, -104.0, -88.0, 0.0, f32::NAN, 89.0, f32::INFINITY];
            let e = map(s, &x, |v| exp(s, v));
            assert_eq!(e[..5], [0.0, 0.0, 0.0, 0.0, 1.0]);
            assert!(e[5].is_nan());
            assert!(e[6..].iter().all(|e| (2.3e38..f32::MAX).contains(e)), "{e:?}");
        }
        on_each!(check);
    }

    #[test]
    fn rows_become_columns() {
        fn check<S: Simd>(s: S) {
            let (n, from_stride, to_stride) = (S::LANES, S::LANES + 3, S::LANES + 5);
            let from: Vec<f32> = (0..n * from_stride).map(|i| i as f32).collect();
            let mut to = vec![-1.0; n * to_stride];
            // SAFETY: both hold n rows of n floats.
            unsafe { s.transpose(from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride) };
            for (i, &x) in to.iter().enumerate() {
                let (row, column) = (i / to_stride, i % to_stride);
                let expected = if column < n { from[column * from_stride + row] } else { -1.0 };
                assert_eq!(x, expected, "row {row}, column {column}");
            }
        }
        on_each!(check);
    }

    #[test]
    fn parts_of_vectors_read_and_write_no_more_than_there_is() {
        fn check<S: Simd>(s: S) {
            for n in 0..=S::LANES {
                let x: Vec<f32> = (1..=n).map(|i| i as f32).collect();
                let v = if n == S::LANES { s.load(&x) } else { s.load_part(&x) };
                assert_eq!(s.sum(v), (n * (n + 1) / 2) as f32);
                assert_eq!(s.largest(v), n as f32);
                let mut y = vec![-1.0; n + 3];
                store_at(s, &mut y[..n], 0, v);
                assert_eq!(y, [x, vec![-1.0; 3]].concat());
            }
        }
        on_each!(check);
    }
}
