//! The monitor: a run, or several, as curves and texts on a terminal
//!
//! Knows events, logs and screens; it opens no terminal and reads no keyboard. In reading order: [`tail`] follows a
//! log, [`replay`] plays one, [`history`] is what is known of a run, made of [`series`]; [`view`] is the state of the
//! screen and what keys do to it, [`draw`] puts it on a `ratatui` frame with [`layout`], [`panels`], [`chart`],
//! [`scale`] and [`dots`]; [`picture`] draws the same charts as PNG, [`plot`] any other curves, [`summary`] is the state in words.

pub mod chart;
pub mod dots;
pub mod draw;
pub mod elapsed;
pub mod history;
pub mod keys;
pub mod layout;
pub mod panels;
pub mod picture;
pub mod plot;
pub mod replay;
pub mod scale;
pub mod series;
pub mod summary;
pub mod tail;
pub mod view;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use history::{History, Phase};
pub use view::{Action, Mode, Monitor};
