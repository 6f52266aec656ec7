//! Events of a made-up run, for the tests of the monitor

use crate::events::TrainEvent;
use crate::objective::Metrics;

/// A step of a run of 100 tokens a step and 50 tokens a second.
pub(crate) fn step(step: u64, loss: f64) -> TrainEvent {
    TrainEvent::Step {
        step,
        loss,
        lr: 3e-4 * (1.0 - step as f64 / 4000.0),
        grad_norm: 0.8 + 0.2 * (step as f64 * 1.7).sin(),
        tokens: step * 100,
        tokens_per_second: 50.0,
        matmul_share: Some(0.41),
        mfu: None,
        memory_bytes: Some(512 << 20),
        eta_seconds: Some((2000.0 - step as f64) * 2.0),
        metrics: Metrics::new(),
    }
}

/// A run of `total` steps up to `done`, with validations, samples, checkpoints and a warning.
pub(crate) fn run(name: &str, done: u64, total: u64, offset: f64) -> Vec<TrainEvent> {
    let mut events = vec![TrainEvent::Started {
        run: name.into(),
        step: 0,
        total_steps: total,
        n_parameters: 1_066_112,
        device: "cpu".into(),
        precision: "f32".into(),
        tokens_per_step: 100,
        recipe_hash: "0".into(),
        optimizer: "AdamW".into(),
    }];
    let curve = |at: u64| offset + 1.5 + 2.8 * (-(at as f64) / (total as f64 / 6.0)).exp();
    for at in 1..=done {
        events.push(step(at, curve(at) + 0.1 * (at as f64 * 2.3).sin()));
        if at % (total / 10) == 0 {
            let loss = curve(at) + 0.15;
            events.push(TrainEvent::Validation {
                step: at,
                loss,
                bits_per_byte: Some(loss / 1.2),
                tokens: 1000,
                metrics: Metrics::new(),
            });
        }
        if at % (total / 4) == 0 {
            let text = "there was a cat who liked the sun.\nIt sat on a wall.".into();
            events.push(TrainEvent::Sample { step: at, prompt: "One day, ".into(), text });
            let path = format!("{name}/checkpoints/step-{at:08}").into();
            events.push(TrainEvent::CheckpointSaved { step: at, path, seconds: 0.25 });
        }
        if at == total / 3 {
            events.push(TrainEvent::Warning { step: at, message: "every target of this step is masked".into() });
        }
    }
    events
}
