//! Cross-entropy over the targets that count.
//!
//! Shapes: n tokens, v vocabulary. A matrix is a slice, row by row: element (i, j) of logits_nv is
//! `logits_nv[i * v + j]`.

/// The sum of `-ln softmax(logits)[target]` over the rows whose mask is true, and the number of those rows.
///
/// A row that does not count adds nothing, whatever its target: padding may hold any id, also one beyond the
/// vocabulary. Logits of 1,000 must not overflow.
pub fn summed(logits_nv: &[f32], v: usize, targets_n: &[u32], mask_n: &[bool]) -> (f32, usize) {
    let (mut sum, mut counted) = (0.0, 0);
    for (i, row_v) in logits_nv.chunks(v).enumerate() {
        if mask_n[i] {
            let max = row_v.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f32 = row_v.iter().map(|x| (x - max).exp()).sum();
            sum += total.ln() - (row_v[targets_n[i] as usize] - max);
            counted += 1;
        }
    }
    (sum, counted)
}

/// The loss of one optimizer step from the sums and counts of its micro-batches: the average over all counted targets
/// of the step; 0 when there is none.
pub fn step_loss(parts: &[(f32, usize)]) -> f32 {
    let sum: f32 = parts.iter().map(|(sum, _)| sum).sum();
    let counted: usize = parts.iter().map(|(_, counted)| counted).sum();
    if counted == 0 { 0.0 } else { sum / counted as f32 }
}

/// dlogits_nv: the gradient of the step's loss with respect to the logits of one micro-batch, where the whole step has
/// `counted` targets: `(softmax - onehot(target)) / counted` in rows that count, 0 in the others.
pub fn gradient(logits_nv: &[f32], v: usize, targets_n: &[u32], mask_n: &[bool], counted: usize) -> Vec<f32> {
    let mut dlogits_nv = vec![0.0; logits_nv.len()];
    for (i, (row_v, drow_v)) in logits_nv.chunks(v).zip(dlogits_nv.chunks_mut(v)).enumerate() {
        if !mask_n[i] {
            continue;
        }
        let max = row_v.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = row_v.iter().map(|x| (x - max).exp()).sum();
        for (j, x) in row_v.iter().enumerate() {
            let onehot = if j == targets_n[i] as usize { 1.0 } else { 0.0 };
            drow_v[j] = ((x - max).exp() / total - onehot) / counted as f32;
        }
    }
    dlogits_nv
}
