//! Events as lines of plain text, for pipes, logs and the monitor's list

pub use fornax_base::numbers::grouped;

use crate::events::TrainEvent;
use crate::objective::Metrics;

/// The numbers of an objective that a line has room for, behind its loss.
fn listed(metrics: &Metrics) -> String {
    const SHOWN: [(&str, &str); 8] = [
        ("rewards/margins", "margin"),
        ("rewards/accuracies", "accuracy"),
        ("rewards/accuracies_low", "from"),
        ("rewards/accuracies_high", "to"),
        ("accuracy", "accuracy"),
        ("reward", "reward"),
        ("kl", "kl"),
        ("exact_match", "exact match"),
    ];
    let shown = |(name, word): &(&str, &str)| metrics.get(*name).map(|value| format!(" | {word} {value:.3}"));
    SHOWN.iter().filter_map(shown).collect()
}

/// One event as people read it, without escape codes or other control characters but line breaks.
pub fn sentence(event: &TrainEvent) -> String {
    match event {
        TrainEvent::Started {
            n_parameters, device, precision, tokens_per_step, total_steps, optimizer, ..
        } => format!(
            "training {} parameters on {device} in {precision}: {total_steps} steps of {} tokens\n{optimizer}",
            grouped(*n_parameters),
            grouped(*tokens_per_step)
        ),
        TrainEvent::Step {
            step,
            loss,
            lr,
            grad_norm,
            tokens_per_second,
            matmul_share,
            mfu,
            eta_seconds,
            metrics,
            ..
        } => {
            let share = match (mfu, matmul_share) {
                (Some(mfu), _) => format!(" | mfu {:.0}%", mfu * 100.0),
                (None, Some(share)) => format!(" | {:.0}% of matmul rate", share * 100.0),
                (None, None) => String::new(),
            };
            let eta = eta_seconds.map(|s| format!(" | eta {}", duration(s))).unwrap_or_default();
            format!(
                "step {step:05} | loss {loss:.4} | lr {lr:.2e} | norm {grad_norm:.2}{} | {} tok/s{share}{eta}",
                listed(metrics),
                grouped(*tokens_per_second as u64)
            )
        }
        TrainEvent::Validation { step, loss, bits_per_byte, metrics, .. } => {
            let bits = bits_per_byte.map(|bits| format!(" | {bits:.3} bits per byte")).unwrap_or_default();
            format!("step {step:05} | validation loss {loss:.4}{bits}{}", listed(metrics))
        }
        TrainEvent::Sample { step, prompt, text } => {
            format!("step {step:05} | sample: {}«{}»", harmless(prompt), harmless(text))
        }
        TrainEvent::CheckpointSaved { step, path, seconds } => {
            format!("step {step:05} | saved {} in {seconds:.2} s", path.display())
        }
        TrainEvent::Warning { step, message } => format!("step {step:05} | warning: {}", harmless(message)),
        TrainEvent::Resumed { step, from, skipped, changed } => {
            let mut text = format!("resumed at step {step} from {}", from.display());
            for skipped in skipped {
                text += &format!("\n  passed over {skipped}");
            }
            for changed in changed {
                text += &format!("\n  changed {changed}");
            }
            text
        }
        TrainEvent::LrFactor { step, factor } => {
            format!("step {step:05} | learning rate x {factor} from here on")
        }
        TrainEvent::Paused { step, paused: true } => format!("step {step:05} | paused"),
        TrainEvent::Paused { step, paused: false } => format!("step {step:05} | going on"),
        TrainEvent::Stopped { step, message, .. } => format!("step {step:05} | {}", harmless(message)),
        TrainEvent::Finished { seconds, tokens, validation_loss, model, .. } => format!(
            "finished: {} tokens in {}{}; model in {}",
            grouped(*tokens),
            duration(*seconds),
            validation_loss.map(|l| format!(", validation loss {l:.4}")).unwrap_or_default(),
            model.display()
        ),
    }
}

/// The text without characters that steer a terminal, which a young model writes like any others; line breaks stay.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Seconds as "59 s", "1 m 01 s" or "1 h 01 m".
pub fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} m {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} m", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[2J\rb\u{9b}\nc"), "a\u{fffd}[2J\u{fffd}b\u{fffd}\nc");
    }

    #[test]
    fn numbers_are_grouped_and_times_short() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(duration(59.4), "59 s");
        assert_eq!(duration(61.0), "1 m 01 s");
        assert_eq!(duration(3_661.0), "1 h 01 m");
    }
}
