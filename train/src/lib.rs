//! The training loop, its recipe, optimizer, schedule, checkpoints and events.
//!
//! In reading order: [`recipe`] says what to do, [`setup`] makes tokenizer, shards and model of it, [`run`]
//! loops over [`step`], which uses [`optimizer`], [`schedule`] and [`gate`]; [`validation`] measures,
//! [`events`] tell, [`checkpoint`] keeps, [`control`] listens; [`plain`] and [`monitor`] show what the events say,
//! [`tensorboard`] writes it for others.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod control;
pub mod error;
pub mod events;
pub mod gate;
pub mod monitor;
pub mod optimizer;
pub mod plain;
pub mod rate;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod setup;
pub mod step;
pub mod tensorboard;
pub mod validation;

pub use error::TrainError;
