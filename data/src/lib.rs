#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod batches;
pub mod chat;
pub mod chat_template;
pub mod clean;
pub mod contamination;
pub mod corpus;
pub mod dataset;
pub mod dedup;
pub mod error;
pub mod examples;
pub mod hub;
pub mod intake;
pub mod mixture;
pub mod prefetch;
pub mod shards;
pub mod sources;
pub mod statistics;
pub mod stream;
pub mod tokenizer;

mod digest;
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
