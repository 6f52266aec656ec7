//! The training loop, its recipe, optimizer, schedule, checkpoints and events.
//!
//! In reading order: [`recipe`] says what to do, [`setup`] makes tokenizer, shards and model of it, [`run`]
//! loops over [`step`] for any [`objective`] ([`pretraining`] is one), which uses [`optimizer`], [`schedule`], [`gate`] and, under f16, [`loss_scale`];
//! [`validation`] measures, [`events`] tell, [`checkpoint`] keeps, [`control`] listens; [`plain`] and [`monitor`] show
//! what the events say, [`tensorboard`] writes it for others. [`depth`] derives a recipe from one number, [`estimate`]
//! says what a recipe costs, [`overfit`] tries whether it can learn one batch.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod control;
pub mod depth;
pub mod error;
pub mod estimate;
pub mod events;
pub mod gate;
pub mod loss_scale;
pub mod monitor;
pub mod objective;
pub mod optimizer;
pub mod overfit;
pub mod plain;
pub mod pretraining;
pub mod rate;
pub mod recipe;
pub mod run;
pub mod schedule;
pub mod setup;
pub mod step;
pub mod tensorboard;
pub mod validation;

pub use error::TrainError;
