//! Every instruction set that this processor has, against f64 and against hand numbers.

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
            if n == S::LANES {
                s.prefetch(x.as_ptr().wrapping_add(1 << 30));
                // SAFETY: as many floats as lanes.
                assert_eq!(s.sum(unsafe { s.read(x.as_ptr()) }), s.sum(v));
            }
            assert_eq!(s.largest(v), n as f32);
            let mut y = vec![-1.0; n + 3];
            store_at(s, &mut y[..n], 0, v);
            assert_eq!(y, [x, vec![-1.0; 3]].concat());
        }
    }
    on_each!(check);
}
