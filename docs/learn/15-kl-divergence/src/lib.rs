//! How far one distribution is from another, in both directions, and estimated from single tokens.
//!
//! Shapes: v vocabulary.

/// ln softmax(logits), finite for logits of 1,000.
pub fn log_softmax(logits_v: &[f32]) -> Vec<f32> {
    todo!("less the logarithm of the sum of exponentials")
}

/// KL(p || q) = sum of p (ln p - ln q), in nats, of the distributions with these logarithms.
pub fn kl(logp_v: &[f32], logq_v: &[f32]) -> f32 {
    todo!("average of the difference, weighted by p")
}

/// The gradient of KL(teacher || student), the forward one, by the logits of the student.
pub fn forward_gradient(teacher_v: &[f32], student_v: &[f32]) -> Vec<f32> {
    todo!("what the derivative of the logarithm of softmax leaves")
}

/// The gradient of KL(student || teacher), the reverse one, by the logits of the student.
pub fn reverse_gradient(teacher_v: &[f32], student_v: &[f32]) -> Vec<f32> {
    todo!("the student stands in the weights too")
}

/// An estimate of KL(model || reference) from one token that the model wrote, by its two log-probabilities: Schulman's
/// third, `exp(d) - d - 1` with d = reference - model. Its mean over the model's tokens is the KL, and it is never
/// negative.
pub fn estimate(logp: f32, reference_logp: f32) -> f32 {
    todo!("three terms")
}
