//! How far one distribution is from another, in both directions, and estimated from single tokens.
//!
//! Shapes: v vocabulary.

/// ln softmax(logits), finite for logits of 1,000.
pub fn log_softmax(logits_v: &[f32]) -> Vec<f32> {
    let max = logits_v.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits_v.iter().map(|x| (x - max).exp()).sum();
    logits_v.iter().map(|x| x - max - total.ln()).collect()
}

/// KL(p || q) = sum of p (ln p - ln q), in nats, of the distributions with these logarithms.
pub fn kl(logp_v: &[f32], logq_v: &[f32]) -> f32 {
    logp_v.iter().zip(logq_v).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// The gradient of KL(teacher || student), the forward one, by the logits of the student.
pub fn forward_gradient(teacher_v: &[f32], student_v: &[f32]) -> Vec<f32> {
    let (logp_v, logq_v) = (log_softmax(teacher_v), log_softmax(student_v));
    logp_v.iter().zip(&logq_v).map(|(p, q)| q.exp() - p.exp()).collect()
}

/// The gradient of KL(student || teacher), the reverse one, by the logits of the student.
pub fn reverse_gradient(teacher_v: &[f32], student_v: &[f32]) -> Vec<f32> {
    let (logp_v, logq_v) = (log_softmax(teacher_v), log_softmax(student_v));
    let kl = kl(&logq_v, &logp_v);
    logp_v.iter().zip(&logq_v).map(|(p, q)| q.exp() * (q - p - kl)).collect()
}

/// An estimate of KL(model || reference) from one token that the model wrote, by its two log-probabilities: Schulman's
/// third, `exp(d) - d - 1` with d = reference - model. Its mean over the model's tokens is the KL, and it is never
/// negative.
pub fn estimate(logp: f32, reference_logp: f32) -> f32 {
    let d = reference_logp - logp;
    d.exp() - d - 1.0
}
