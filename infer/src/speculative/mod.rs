//! Speculative decoding: something cheap proposes the next tokens, the model judges all of them in one pass, and what
//! comes out is distributed as without it.
//!
//! Knows token ids, decoders and sampler chains; nothing of text.

mod accept;
mod adaptive;
mod draft;
mod lookup;
mod statistics;

pub use accept::{Choice, Proposed, Verdict, accept, choose};
pub use adaptive::{Adaptive, Costs};
pub use draft::{Draft, Item, Speculation, SpeculationError, SpeculationOptions, Speculator};
pub use lookup::Lookup;
pub use statistics::SpeculationStats;

#[cfg(test)]
mod tests;
