//! Matrix products for tall matrices: blocks of rows as tasks, the right operand packed once for all of them,
//! and a kernel that keeps a tile of the result in registers (Goto and van de Geijn 2008,
//! doi:10.1145/1356052.1356053).

use std::sync::atomic::{AtomicU8, Ordering};

use super::buffer::unset;
use super::parallel::{self, Shared};
use super::product::{Matrix, Target};
use super::simd::{Simd, kernel, load_at, store_at};

/// Rows of one task at most: with `DEPTH`, 192 KiB of the left operand in the second-level cache.
const BLOCK_ROWS: usize = 96;
/// Floats of the right operand packed at a time: 4 MiB.
const PACKED: usize = 1 << 20;
/// Steps of the inner dimension that one tile takes: 64 KiB of the right operand in the first-level cache.
const DEPTH: usize = 512;
/// Panels packed by one thread in one go.
const GROUP: usize = 2;

/// c_mn = a_mk b_kn, or c_mn += a_mk b_kn, on all threads.
///
/// # Safety
/// The matrices must hold as many elements as the dimensions say; `c` has rows of `c_stride` floats, is
/// writable and used by no one else.
pub(super) unsafe fn multiply(
    [m, n, k]: [usize; 3],
    c: *mut f32,
    c_stride: usize,
    (a, b): (Matrix, Matrix),
    add: bool,
) {
    let width = panel_width();
    let columns = n.min(4096);
    let depth = k.div_ceil(k.div_ceil((PACKED / columns).max(64))).max(1);
    let mut packed = unset(columns.next_multiple_of(width) * depth);
    for column in (0..n).step_by(columns) {
        for from in (0..k).step_by(depth) {
            let size = [m, (n - column).min(columns), (k - from).min(depth)];
            let (a, b) = (a.at(0, from), b.at(from, column));
            // SAFETY: a part of what the caller promised.
            unsafe { multiply_packed(size, c.add(column), c_stride, (a, b), add || from > 0, &mut packed) };
        }
    }
}

/// As `multiply`, for a right operand that fits `packed`.
unsafe fn multiply_packed(
    [m, n, k]: [usize; 3],
    c: *mut f32,
    c_stride: usize,
    (a, b): (Matrix, Matrix),
    add: bool,
    packed: &mut [f32],
) {
    let (height, width) = (tile_rows(), panel_width());
    // At least eight tasks, so that threads end together.
    let rows = m.div_ceil(8).next_multiple_of(height).min(BLOCK_ROWS);
    let panels = n.div_ceil(width);
    let states: Vec<AtomicU8> = (0..panels.div_ceil(GROUP)).map(|_| AtomicU8::new(EMPTY)).collect();
    let (packed, c) = (Shared::new(packed), Target(c));
    parallel::each(m.div_ceil(rows), |task| {
        pack_panels(&states, task, packed, b, [n, k], width);
        let first = task * rows;
        let block = Block { rows: rows.min(m - first), columns: n, depth: k, c_stride, add };
        // SAFETY: the rows of c are this task's alone; every panel is packed and no longer written.
        unsafe {
            let panels = std::slice::from_raw_parts(packed.at(0), panels * width * k);
            multiply_block(c.at(first * c_stride), a.at(first, 0), panels, block);
        }
    });
}

/// One task's part of a product.
#[derive(Clone, Copy)]
struct Block {
    rows: usize,
    columns: usize,
    depth: usize,
    c_stride: usize,
    add: bool,
}

const EMPTY: u8 = 0;
const TAKEN: u8 = 1;
const READY: u8 = 2;

/// Packs what no other task has taken, from one end or the other, and waits for what others took.
fn pack_panels(states: &[AtomicU8], task: usize, packed: Shared, b: Matrix, [n, k]: [usize; 2], width: usize) {
    for i in 0..states.len() {
        let group = if task.is_multiple_of(2) { i } else { states.len() - 1 - i };
        let state = &states[group];
        if state.load(Ordering::Relaxed) != EMPTY
            || state.compare_exchange(EMPTY, TAKEN, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            continue;
        }
        for panel in group * GROUP..((group + 1) * GROUP).min(n.div_ceil(width)) {
            // SAFETY: the exchange gave this panel to this task.
            let target = unsafe { packed.part(panel * width * k, (panel + 1) * width * k) };
            let columns = width.min(n - panel * width);
            // SAFETY: these columns are within b.
            unsafe { pack_panel(target, b.at(0, panel * width), columns, k) };
        }
        state.store(READY, Ordering::Release);
    }
    for state in states {
        let mut turns = 0u32;
        while state.load(Ordering::Acquire) != READY {
            turns += 1;
            if turns.is_multiple_of(1024) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

kernel! {
    /// Columns of b, two vectors for each of k steps, zeros behind the last column.
    ///
    /// # Safety
    /// b must have k rows and `columns` columns.
    unsafe fn pack_panel(s, target: &mut [f32], b: Matrix, columns: usize, k: usize) {
        let width = 2 * S::LANES;
        if columns < width {
            target.fill(0.0);
        }
        if b.strides[1] == 1 {
            for (step, target) in target.chunks_exact_mut(width).enumerate() {
                // SAFETY: `columns` floats of row `step`.
                let row = unsafe { std::slice::from_raw_parts(b.at(step, 0).start, columns) };
                for at in (0..columns).step_by(S::LANES) {
                    store_at(s, &mut target[..columns], at, load_at(s, row, at));
                }
            }
            return;
        }
        // Squares where the columns are runs of steps, then one by one what is left.
        let runs = if b.strides[0] == 1 && b.strides[1] > 0 { k / S::LANES * S::LANES } else { 0 };
        let squares = columns / S::LANES * S::LANES;
        for first in (0..squares).step_by(S::LANES) {
            for step in (0..runs).step_by(S::LANES) {
                let to = target[step * width + first..].as_mut_ptr();
                // SAFETY: a square within b, and one within the panel of k rows.
                unsafe { s.transpose(b.at(step, first).start, b.strides[1] as usize, to, width) };
            }
        }
        for step in 0..k {
            let first = if step < runs { squares } else { 0 };
            for column in first..columns {
                // SAFETY: within b.
                target[step * width + column] = unsafe { *b.at(step, column).start };
            }
        }
    }
}

/// Floats of one step of a panel.
fn panel_width() -> usize {
    lanes() * 2
}

kernel! {
    fn lanes(_s) -> usize {
        S::LANES
    }
}

kernel! {
    fn tile_rows(_s) -> usize {
        S::TILE_ROWS
    }
}

kernel! {
    /// # Safety
    /// c and a must have the rows, columns and depth of `block`; no one else may use those of c.
    unsafe fn multiply_block(s, c: *mut f32, a: Matrix, panels: &[f32], block: Block) {
        // SAFETY: the caller's promise.
        unsafe {
            match S::TILE_ROWS {
                12 => tiles::<S, 12>(s, c, a, panels, block),
                6 => tiles::<S, 6>(s, c, a, panels, block),
                _ => tiles::<S, 4>(s, c, a, panels, block),
            }
        }
    }
}

#[inline(always)]
unsafe fn tiles<S: Simd, const R: usize>(s: S, c: *mut f32, a: Matrix, panels: &[f32], block: Block) {
    let width = 2 * S::LANES;
    let mut packed_rows =
        unset(if a.strides[1] == 1 { R } else { block.rows.next_multiple_of(R) } * block.depth.min(DEPTH));
    for from in (0..block.depth).step_by(DEPTH) {
        let depth = DEPTH.min(block.depth - from);
        let add = block.add || from > 0;
        let whole = block.rows / R * R;
        // Rows that lie along the inner dimension are read where they are; others, and the last few, are packed.
        let first_packed = if a.strides[1] == 1 { whole } else { 0 };
        for (i, row) in (first_packed..block.rows).step_by(R).enumerate() {
            let rows = R.min(block.rows - row);
            // SAFETY: rows and steps of a.
            unsafe { pack_rows::<R>(&mut packed_rows[i * R * depth..][..R * depth], a.at(row, from), rows) };
        }
        for column in (0..block.columns).step_by(width) {
            // The panel holds all steps of its columns.
            let panel = &panels[column * block.depth + from * width..][..depth * width];
            for row in (0..block.rows).step_by(R) {
                let (start, strides) = if row < first_packed {
                    (a.at(row, from).start, [a.strides[0], 1])
                } else {
                    (packed_rows[(row - first_packed) * depth..].as_ptr(), [1, R as isize])
                };
                let (rows, columns) = (R.min(block.rows - row), width.min(block.columns - column));
                // SAFETY: R rows of `depth` steps at `start`, a panel of as many steps, and a tile of c.
                unsafe {
                    let c = c.add(row * block.c_stride + column);
                    if rows == R && columns == width {
                        tile::<S, R>(s, c, block.c_stride, start, strides, panel, add);
                    } else {
                        let mut part = [0.0f32; 12 * 32];
                        tile::<S, R>(s, part.as_mut_ptr(), width, start, strides, panel, false);
                        copy_part(c, block.c_stride, &part, width, [rows, columns], add);
                    }
                }
            }
        }
    }
}

/// R rows of a, R floats for each step; zeros for rows that are not there.
///
/// # Safety
/// a must have `rows` rows and as many steps as `target` has room for.
unsafe fn pack_rows<const R: usize>(target: &mut [f32], a: Matrix, rows: usize) {
    for (step, target) in target.chunks_exact_mut(R).enumerate() {
        if rows == R && a.strides[0] == 1 {
            // SAFETY: the caller's promise.
            target.copy_from_slice(unsafe { std::slice::from_raw_parts(a.at(0, step).start, R) });
            continue;
        }
        for (row, target) in target.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *target = if row < rows { unsafe { *a.at(row, step).start } } else { 0.0 };
        }
    }
}

/// # Safety
/// `c` must have `rows` rows and `columns` columns.
unsafe fn copy_part(
    c: *mut f32,
    c_stride: usize,
    part: &[f32],
    width: usize,
    [rows, columns]: [usize; 2],
    add: bool,
) {
    for row in 0..rows {
        // SAFETY: the caller's promise.
        let target = unsafe { std::slice::from_raw_parts_mut(c.add(row * c_stride), columns) };
        for (target, part) in target.iter_mut().zip(&part[row * width..]) {
            *target = if add { *target + part } else { *part };
        }
    }
}

/// A tile of R rows and two vectors: c = a b, or c += a b.
///
/// # Safety
/// `a` must have R rows and as many steps as the panel, at its strides; `c` R rows of two vectors.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize>(
    s: S,
    c: *mut f32,
    c_stride: usize,
    a: *const f32,
    [row_stride, step_stride]: [isize; 2],
    panel: &[f32],
    add: bool,
) {
    let mut sums = [[s.splat(0.0); 2]; R];
    let mut a = a;
    for b in panel.chunks_exact(2 * S::LANES) {
        let b = [s.load(b), s.load(&b[S::LANES..])];
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let a = s.splat(unsafe { *a.offset(row as isize * row_stride) });
            sums[0] = s.mul_add(a, b[0], sums[0]);
            sums[1] = s.mul_add(a, b[1], sums[1]);
        }
        a = a.wrapping_offset(step_stride);
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(row * c_stride), 2 * S::LANES) };
        for (half, &sum) in c.chunks_exact_mut(S::LANES).zip(sums) {
            let sum = if add { s.add(s.load(half), sum) } else { sum };
            s.store(half, sum);
        }
    }
}
