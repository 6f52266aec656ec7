//! Post-training.
#![forbid(unsafe_code)]

pub mod rewards;
