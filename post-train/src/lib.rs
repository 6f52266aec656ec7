//! Post-training.
#![forbid(unsafe_code)]
