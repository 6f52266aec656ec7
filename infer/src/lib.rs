#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod chat;
pub mod completions;
pub mod detokenize;
pub mod engine;
pub mod explain;
pub mod generate;
pub mod grammar;
pub mod sampler;
pub mod speculative;
pub mod stop;
pub mod text;
pub mod tools;
