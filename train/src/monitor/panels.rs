//! Which curves share a chart
//!
//! A curve that no chart here names gets one of its own, so that a new metric of an event is seen without a change
//! here.

use crate::events::metric;

use super::history::History;
use super::scale::Unit;

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Faint as it is, with its moving average over it.
    Noisy,
    /// A point for each measurement, joined by a line.
    Points,
    /// A line.
    Line,
}

/// A curve of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Curve {
    /// Name of the metric.
    pub name: &'static str,
    /// How it is drawn.
    pub kind: Kind,
    /// Word in the legend.
    pub label: &'static str,
}

/// A chart: curves of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    /// Its name on the screen.
    pub title: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// Its curves.
    pub curves: Vec<Curve>,
    /// Whether the logarithmic axis is for this chart too.
    pub may_log: bool,
    /// Whether it is shown before anybody asked for it.
    pub is_shown: bool,
}

impl Panel {
    fn of(title: &'static str, unit: Unit, curves: &[(&'static str, Kind, &'static str)]) -> Self {
        let curves = curves.iter().map(|&(name, kind, label)| Curve { name, kind, label }).collect();
        Panel { title, unit, curves, may_log: false, is_shown: true }
    }

    fn may_log(self) -> Self {
        Panel { may_log: true, ..self }
    }

    fn hidden(self) -> Self {
        Panel { is_shown: false, ..self }
    }
}

/// The chart that stands largest.
pub const LOSS: &str = "loss";

/// The charts of these runs in their order on the screen: those always there, and those of the curves that some run
/// has beside them.
pub fn panels<'a>(histories: impl Iterator<Item = &'a History>) -> Vec<Panel> {
    let mut panels = vec![
        Panel::of(
            LOSS,
            Unit::Plain,
            &[(metric::TRAIN_LOSS, Kind::Noisy, "train"), (metric::VALIDATION_LOSS, Kind::Points, "validation")],
        )
        .may_log(),
        Panel::of("learning rate", Unit::Small, &[(metric::LR, Kind::Line, "learning rate")]),
        Panel::of("gradient norm", Unit::Plain, &[(metric::GRAD_NORM, Kind::Noisy, "gradient norm")]).may_log(),
        Panel::of("tokens/s", Unit::Count, &[(metric::TOKENS_PER_SECOND, Kind::Noisy, "tokens/s")]),
        Panel::of("memory", Unit::Bytes, &[(metric::MEMORY_BYTES, Kind::Line, "memory")]),
    ];
    let further = [
        Panel::of(
            "reward margin",
            Unit::Plain,
            &[("rewards/margins", Kind::Noisy, "train"), ("eval_rewards/margins", Kind::Points, "validation")],
        ),
        Panel::of(
            "accuracy",
            Unit::Plain,
            &[
                ("rewards/accuracies", Kind::Noisy, "train"),
                ("eval_rewards/accuracies", Kind::Points, "validation"),
            ],
        ),
        Panel::of(
            "reward",
            Unit::Plain,
            &[("reward", Kind::Noisy, "train"), ("eval_reward", Kind::Points, "validation")],
        ),
        Panel::of("kl", Unit::Plain, &[("kl", Kind::Noisy, "train"), ("eval_kl", Kind::Points, "validation")]),
        Panel::of("completion length", Unit::Plain, &[("completions/mean_length", Kind::Noisy, "mean")]),
        Panel::of(
            "bits per byte",
            Unit::Plain,
            &[(metric::BITS_PER_BYTE, Kind::Points, "validation, bits per byte")],
        )
        .hidden(),
        Panel::of("share of peak", Unit::Share, &[(metric::MFU, Kind::Noisy, "model FLOPs utilization")]).hidden(),
        Panel::of("of matmul rate", Unit::Share, &[(metric::MATMUL_SHARE, Kind::Noisy, "share of matmul rate")])
            .hidden(),
    ];
    let mut names: Vec<&'static str> = Vec::new();
    for name in histories.flat_map(History::names) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    panels
        .extend(further.into_iter().filter(|panel| panel.curves.iter().any(|curve| names.contains(&curve.name))));
    for name in names {
        if !panels.iter().any(|panel| panel.curves.iter().any(|curve| curve.name == name)) {
            // Post-training reports more numbers than a screen or a picture has room for.
            panels.push(Panel::of(name, Unit::Plain, &[(name, Kind::Noisy, name)]).hidden());
        }
    }
    panels
}
