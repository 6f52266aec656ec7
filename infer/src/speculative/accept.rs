//! The rule by which proposed tokens are accepted, so that what comes out is distributed as without them.

use crate::sampler::{Chain, Distribution, Sampled, SamplerError};

/// A proposed token.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposed {
    /// Its id.
    pub id: u32,
    /// What it was drawn from; `None` where it was not drawn (a lookup, a greedy draft).
    pub from: Option<Distribution>,
}

/// What became of a position.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The token that stands there now.
    pub sampled: Sampled,
    /// Whether it is the proposed one because it was accepted. False without a proposal: then nothing behind it may be
    /// looked at.
    pub accepted: bool,
}

/// Chooses the next token among `logits` (`[vocab]`) where `proposed` was proposed: `None` is plain sampling. `mask`
/// rules tokens out as in [`Chain::distribution`]. The caller tells the chain with [`Chain::accept`].
///
/// Speculative sampling (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318) against the
/// distribution that the whole chain gives, so it is exact for every chain. A token that was not drawn is compared with
/// the token that plain sampling takes here: accepted with the same probability as by the rule, and the text is that
/// of plain sampling, token by token.
///
/// # Errors
/// Where the chain cannot choose.
pub fn choose(
    chain: &mut Chain,
    logits: &[f32],
    mask: Option<&[u32]>,
    proposed: Option<&Proposed>,
) -> Result<Choice, SamplerError> {
    let Some(Proposed { id, from: Some(draft) }) = proposed else {
        let sampled = chain.sample(logits, mask)?;
        let accepted = proposed.is_some_and(|proposed| proposed.id == sampled.id);
        return Ok(Choice { sampled, accepted });
    };
    let target = chain.distribution(logits, mask)?;
    let uniforms = (chain.uniform(ACCEPT), chain.uniform(RESIDUAL));
    let (chosen, accepted) = match accept(&target, draft, *id, uniforms) {
        Verdict::Accepted => (*id, true),
        Verdict::Instead(other) => (other, false),
    };
    Ok(Choice { sampled: chain.sampled(logits, chosen)?, accepted })
}

const ACCEPT: &str = "speculative/accept";
const RESIDUAL: &str = "speculative/residual";

/// What the rule says of a drawn token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stands.
    Accepted,
    /// This one stands in its place.
    Instead(u32),
}

/// With q the target's and p the draft's distribution and x drawn from p: x is accepted with probability
/// `min(1, q(x) / p(x))`, and otherwise the token is drawn from `max(0, q - p)`, made to sum to 1. `uniforms` are two
/// independent numbers in [0, 1).
pub fn accept(target: &Distribution, draft: &Distribution, id: u32, uniforms: (f64, f64)) -> Verdict {
    let (q, p) = (target.probability(id), draft.probability(id));
    if uniforms.0 * p < q {
        return Verdict::Accepted;
    }
    let weights = target.tokens.iter().map(|&(id, q)| (id, (q - draft.probability(id)).max(0.0)));
    match Distribution::from_weights(weights) {
        Some(residual) => Verdict::Instead(residual.draw(uniforms.1)),
        // The distributions are equal up to rounding: then a draw from one is a draw from the other.
        None if q > 0.0 => Verdict::Accepted,
        None => Verdict::Instead(target.draw(uniforms.1)),
    }
}
