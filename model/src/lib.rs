//! The one decoder: configuration, weights, layers, KV cache and the ops under them.
//!
//! Knows tensors and weight names; nothing of text, HTTP, terminals, recipes or time.
//!
//! In reading order: [`config`] says what a model is, [`decoder`] computes it from [`attention`], [`mlp`]
//! and [`norm`], whose linear layers are [`projection`]s, dense or [`packed`]; [`kv_cache`] remembers, [`layout`] places tokens,
//! [`rope`] turns positions into angles; [`adapter`]s change what projections compute; [`trace`] shows the way of one token; [`weights`] reads and writes
//! model folders; [`ops`] does the work; [`device`] finds hardware.

pub mod adapter;
pub mod attention;
pub mod config;
pub mod decoder;
pub mod device;
mod embedding;
pub mod kv_cache;
pub mod layout;
pub mod mlp;
pub mod norm;
pub mod ops;
pub mod packed;
pub mod parameters;
pub mod projection;
mod recompute;
pub mod rope;
pub mod trace;
pub mod weights;

pub use config::{ConfigError, Family, ModelConfig};
pub use decoder::Decoder;
pub use kv_cache::{KvCache, KvElement};
pub use layout::{Layout, token_tensor};
pub use ops::Segment;
