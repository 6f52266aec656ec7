//! Products of a few rows with many, as decoding makes them: the time goes into reading the many once, so nothing is
//! packed. Each result is a sum in one order that depends on its length alone: a row gives the same bits among any
//! number of others, on any number of threads.

use super::parallel;
use super::product::{Matrix, Target};
use super::simd::{Simd, kernel, load_at, store_at};

/// Rows of x from which on a kernel with tiles of the result is faster.
pub(super) const MANY: usize = 32;
/// Floats of w in one task.
const TASK: usize = 1 << 15;
/// Tiles of w that are asked for ahead of time.
const AHEAD: usize = 2;
/// Floats of w below which one thread is faster than two.
const SMALL: usize = 1 << 18;

/// Whether [`products`] reads these operands of `c_mn = a_mk b_kn`: both run along k.
pub(super) fn takes(m: usize, a: Matrix, b: Matrix) -> bool {
    m < MANY && a.strides[1] == 1 && b.strides[0] == 1 && a.strides[0] >= 0 && b.strides[1] >= 0
}

/// y_mn = x_mk w_nk^T, or y_mn += x_mk w_nk^T, on all threads where that pays.
///
/// # Safety
/// Rows of x and w must hold k floats each, y must have rows of `y_stride` floats, be writable and used by no one else.
pub(super) unsafe fn products(
    [m, n, k]: [usize; 3],
    y: *mut f32,
    y_stride: usize,
    (x, w): (Matrix, Matrix),
    add: bool,
) {
    let rows = (TASK / k.max(1)).next_multiple_of(8).max(8);
    let y = Target(y);
    let task = |task: usize| {
        let first = task * rows;
        let size = [m, rows.min(n - first), k];
        // SAFETY: tasks write columns of their own, within what the caller promised.
        unsafe { products_alone(size, y.at(first), y_stride, (x, w.at(first, 0)), add) };
    };
    let tasks = n.div_ceil(rows);
    if n * k <= SMALL { (0..tasks).for_each(task) } else { parallel::each(tasks, task) }
}

kernel! {
    /// As `products`, on the calling thread.
    ///
    /// # Safety
    /// As `products`.
    pub(super) unsafe fn products_alone(
        s,
        size: [usize; 3],
        y: *mut f32,
        y_stride: usize,
        operands: (Matrix, Matrix),
        add: bool,
    ) {
        let ([m, n, k], (x, w)) = (size, operands);
        let mut column = 0;
        while column < n {
            // As many rows of w as make eight sums with the rows of x.
            let columns = (n - column).min(match m { 1 => 8, 2 => 4, _ => 2 });
            for row in (0..m).step_by(4) {
                let at = (x.at(row, 0), w.at(column, 0));
                // SAFETY: rows of x and w of k floats, and a part of y.
                unsafe {
                    let y = y.add(row * y_stride + column);
                    match ((m - row).min(4), columns) {
                        (1, 2) => tile::<S, 1, 2>(s, y, y_stride, at, k, add),
                        (1, 8) => tile::<S, 1, 8>(s, y, y_stride, at, k, add),
                        (2, 4) => tile::<S, 2, 4>(s, y, y_stride, at, k, add),
                        (2, 2) => tile::<S, 2, 2>(s, y, y_stride, at, k, add),
                        (3, 2) => tile::<S, 3, 2>(s, y, y_stride, at, k, add),
                        (4, 2) => tile::<S, 4, 2>(s, y, y_stride, at, k, add),
                        (rows, columns) => {
                            for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
                                let at = (at.0.at(i, 0), at.1.at(j, 0));
                                tile::<S, 1, 1>(s, y.add(i * y_stride + j), y_stride, at, k, add);
                            }
                        }
                    }
                }
            }
            column += columns;
        }
    }
}

/// R rows of x by C rows of w.
///
/// # Safety
/// As [`products`], of these rows.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const C: usize>(
    s: S,
    y: *mut f32,
    y_stride: usize,
    (x, w): (Matrix, Matrix),
    k: usize,
    add: bool,
) {
    // Plain loops over whole vectors, which compile to one run of instructions; what is left comes behind them.
    let (mut xs, mut ws) = ([x.start; R], [w.start; C]);
    for (i, row) in xs.iter_mut().enumerate() {
        *row = x.at(i, 0).start;
    }
    for (j, row) in ws.iter_mut().enumerate() {
        *row = w.at(j, 0).start;
    }
    let ahead = AHEAD * C * w.strides[0] as usize;
    let mut sums = [[s.splat(0.0); C]; R];
    let whole = k / S::LANES * S::LANES;
    let mut at = 0;
    while at < whole {
        let mut columns = [s.splat(0.0); C];
        for (column, row) in columns.iter_mut().zip(ws) {
            s.prefetch(row.wrapping_add(at + ahead));
            // SAFETY: rows of k floats, the caller's promise; so below.
            *column = unsafe { s.read(row.wrapping_add(at)) };
        }
        for (sums, row) in sums.iter_mut().zip(xs) {
            // SAFETY: as above.
            let of_x = unsafe { s.read(row.wrapping_add(at)) };
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = s.mul_add(of_x, column, *sum);
            }
        }
        at += S::LANES;
    }
    if whole < k {
        for (sums, x) in sums.iter_mut().zip(xs) {
            // SAFETY: as above.
            let of_x = s.load_part(unsafe { std::slice::from_raw_parts(x.wrapping_add(whole), k - whole) });
            for (sum, w) in sums.iter_mut().zip(ws) {
                // SAFETY: as above.
                let of_w = s.load_part(unsafe { std::slice::from_raw_parts(w.wrapping_add(whole), k - whole) });
                *sum = s.mul_add(of_x, of_w, *sum);
            }
        }
    }
    for (i, sums) in sums.into_iter().enumerate() {
        for (j, sum) in sums.into_iter().enumerate() {
            // SAFETY: within y, the caller's promise.
            unsafe {
                let y = y.add(i * y_stride + j);
                *y = if add { *y + s.sum(sum) } else { s.sum(sum) };
            }
        }
    }
}

kernel! {
    /// out_md += weights_mn v_nd, with sums over n in its order.
    ///
    /// # Safety
    /// Rows of v must hold d floats each; `out` and `weights` rows of d and of `w_stride` floats.
    pub(super) unsafe fn mix(s, size: [usize; 3], out: &mut [f32], weights: &[f32], w_stride: usize, v: Matrix) {
        let [m, n, d] = size;
        let mut row = 0;
        while row < m {
            let rows = if m - row >= 2 { 2 } else { 1 };
            let (out, weights) = (&mut out[row * d..(row + rows) * d], &weights[row * w_stride..]);
            let mut at = 0;
            while at < d {
                // Whole vectors, up to four at a time, then what is left.
                let vectors = ((d - at) / S::LANES).min(4);
                let place = [n, d, at];
                // SAFETY: the caller's promise.
                unsafe {
                    match (rows, vectors) {
                        (2, 4) => mix_tile::<S, 2, 4>(s, place, out, weights, w_stride, v),
                        (2, 3) => mix_tile::<S, 2, 3>(s, place, out, weights, w_stride, v),
                        (2, 2) => mix_tile::<S, 2, 2>(s, place, out, weights, w_stride, v),
                        (2, _) => mix_tile::<S, 2, 1>(s, place, out, weights, w_stride, v),
                        (_, 4) => mix_tile::<S, 1, 4>(s, place, out, weights, w_stride, v),
                        (_, 3) => mix_tile::<S, 1, 3>(s, place, out, weights, w_stride, v),
                        (_, 2) => mix_tile::<S, 1, 2>(s, place, out, weights, w_stride, v),
                        _ => mix_tile::<S, 1, 1>(s, place, out, weights, w_stride, v),
                    }
                }
                at += vectors.max(1) * S::LANES;
            }
            row += rows;
        }
    }
}

/// R rows of the result, C vectors of each from channel `at` on.
///
/// # Safety
/// As [`mix`].
#[inline(always)]
unsafe fn mix_tile<S: Simd, const R: usize, const C: usize>(
    s: S,
    [n, d, at]: [usize; 3],
    out: &mut [f32],
    weights: &[f32],
    w_stride: usize,
    v: Matrix,
) {
    let mut sums = [[s.splat(0.0); C]; R];
    for (sums, out) in sums.iter_mut().zip(out.chunks_exact(d)) {
        for (c, sum) in sums.iter_mut().enumerate() {
            *sum = load_at(s, out, at + c * S::LANES);
        }
    }
    let whole = C > 1 || d - at >= S::LANES;
    for j in 0..n {
        let mut channels = [s.splat(0.0); C];
        let mut row = v.at(j, at).start;
        for channel in &mut channels {
            // SAFETY: d floats of row j, of which C vectors or the rest of the last one follow `at`.
            *channel =
                unsafe { if whole { s.read(row) } else { s.load_part(std::slice::from_raw_parts(row, d - at)) } };
            row = row.wrapping_add(S::LANES);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            let weight = s.splat(weights[r * w_stride + j]);
            for (sum, channel) in sums.iter_mut().zip(channels) {
                *sum = s.mul_add(weight, channel, *sum);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_exact_mut(d)) {
        for (c, sum) in sums.iter().enumerate() {
            store_at(s, out, at + c * S::LANES, *sum);
        }
    }
}
