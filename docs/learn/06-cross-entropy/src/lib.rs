//! Cross-entropy over the targets that count.
//!
//! Shapes: n tokens, v vocabulary. A matrix is a slice, row by row: element (i, j) of logits_nv is
//! `logits_nv[i * v + j]`.

/// The sum of `-ln softmax(logits)[target]` over the rows whose mask is true, and the number of those rows.
///
/// A row that does not count adds nothing, whatever its target: padding may hold any id, also one beyond the
/// vocabulary. Logits of 1,000 must not overflow.
pub fn summed(logits_nv: &[f32], v: usize, targets_n: &[u32], mask_n: &[bool]) -> (f32, usize) {
    todo!("minus the logarithm of the target's probability, row by row")
}

/// The loss of one optimizer step from the sums and counts of its micro-batches: the average over all counted targets
/// of the step; 0 when there is none.
pub fn step_loss(parts: &[(f32, usize)]) -> f32 {
    todo!("one division, at the end")
}

/// dlogits_nv: the gradient of the step's loss with respect to the logits of one micro-batch, where the whole step has
/// `counted` targets: `(softmax - onehot(target)) / counted` in rows that count, 0 in the others.
pub fn gradient(logits_nv: &[f32], v: usize, targets_n: &[u32], mask_n: &[bool], counted: usize) -> Vec<f32> {
    todo!("the probabilities, minus one at the target")
}
