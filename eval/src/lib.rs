//! What a model and this program are worth: speed, and agreement with references.
//!
//! [`mod@bench`] measures speed, [`parity`] holds a device to recorded numbers; the scripts in `eval/peers/` run other
//! programs on the same work.

#![forbid(unsafe_code)]

pub mod bench;
pub mod parity;
pub mod stories;
