//! Post-training on the training loop: a recipe, a loss and a data row for each objective, no loop of its own.
//!
//! Preferences: [`dpo`], [`orpo`], [`cpo`], [`kto`] and [`reward`] hold the formulas, pure functions of
//! log-probabilities; [`pairs`] makes batches and metrics, [`logps`] the log-probabilities, [`preference`] both together
//! into something a run learns from, and [`mod@reference`] is what a policy is measured against. [`grpo`] learns from
//! [`rewards`] of [`rollout`]s, [`distill`] from another model.

#![forbid(unsafe_code)]

pub mod accuracy;
pub mod base;
mod corpus;
pub mod cpo;
pub mod distill;
pub mod dpo;
pub mod error;
pub mod grpo;
pub mod kto;
pub mod logps;
mod losses;
pub mod order;
pub mod orpo;
pub mod pairs;
pub mod preference;
pub mod preview;
pub mod recipe;
pub mod reference;
pub mod reward;
pub mod rewards;
pub mod rollout;
pub mod sft;
pub mod tuning;
