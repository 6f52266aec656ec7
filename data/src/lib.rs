#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod batches;
pub mod chat;
pub mod chat_template;
pub mod clean;
pub mod contamination;
pub mod conversations;
pub mod corpus;
pub mod dataset;
pub mod dedup;
pub mod error;
pub mod example_batches;
pub mod examples;
pub mod formats;
pub mod held_out;
pub mod hub;
pub mod intake;
pub mod loading;
pub mod mixture;
pub mod packing;
pub mod preferences;
pub mod prefetch;
pub mod records;
pub mod rendering;
pub mod shards;
pub mod sources;
pub mod statistics;
pub mod stream;
pub mod tokenizer;
pub mod truncation;

mod digest;
#[cfg(test)]
mod testing;
mod words;

pub use batches::{Batch, Batches, Cursor, Packing, validation_batches};
pub use dataset::{Dataset, PrepareOptions, PrepareProgress, Prepared, prepare};
pub use error::DataError;
pub use mixture::Mixture;
pub use prefetch::Prefetch;
pub use shards::{Shard, ShardError, ShardWriter};
pub use sources::Source;
pub use stream::TokenStream;
pub use tokenizer::Tokenizer;
