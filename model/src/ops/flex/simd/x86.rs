//! AVX-512, and AVX2 with FMA.

use std::arch::x86_64::*;

use super::{Portable, Simd};

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
    fn prefetch(self, x: *const f32) {
        // SAFETY: a prefetch of any address is no access.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }
    #[inline(always)]
    unsafe fn read(self, x: *const f32) -> __m512 {
        // SAFETY: sixteen floats are there, the caller's promise.
        unsafe { _mm512_loadu_ps(x) }
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
                let (a, b) = (_mm512_castps_pd(t[i / 2 * 4 + i % 2]), _mm512_castps_pd(t[i / 2 * 4 + i % 2 + 2]));
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
    fn prefetch(self, x: *const f32) {
        // SAFETY: a prefetch of any address is no access.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }
    #[inline(always)]
    unsafe fn read(self, x: *const f32) -> __m256 {
        // SAFETY: eight floats are there, the caller's promise.
        unsafe { _mm256_loadu_ps(x) }
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
        Portable.sum(lanes)
    }
    #[inline(always)]
    fn largest(self, a: __m256) -> f32 {
        let mut lanes = [0.0; 8];
        self.store(&mut lanes, a);
        Portable.largest(lanes)
    }
}
