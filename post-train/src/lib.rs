//! Post-training: a recipe, a loss and a data row for each objective; the loop is `fornax_train`'s.

#![forbid(unsafe_code)]

pub mod accuracy;
pub mod recipe;
