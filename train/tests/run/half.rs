//! f16: the loss is scaled, an overflow passes a step over, and a resume goes on with the same scale.

use fornax_base::exit::Exit;
use fornax_data::batches::Batch;
use fornax_model::Decoder;
use fornax_train::checkpoint;
use fornax_train::events::TrainEvent;
use fornax_train::step::{LossTerm, next_token};

use crate::{Place, checkpoint_bytes, copy_folder, events, resume, scaled, told};

/// Some batches, by what is in them, have a loss whose gradients f16 cannot hold at the opening scale.
fn steep_in_places(decoder: &Decoder, batch: &Batch) -> LossTerm {
    let term = next_token(decoder, batch);
    match batch.inputs.iter().sum::<u32>() % 3 {
        0 => LossTerm { loss_sum: term.loss_sum * 64.0, ..term },
        _ => term,
    }
}

fn scales(run: &std::path::Path, steps: u64) -> Vec<f64> {
    let scale = |step| checkpoint::open_step(run, step).unwrap().state().loss_scale.unwrap().scale();
    (1..=steps).map(scale).collect()
}

#[test]
fn an_overflow_passes_the_step_over_and_resume_is_exact() {
    let place = Place::new();
    let recipe = place.recipe(&["train.precision=f16"]);
    let folder = place.at("straight");
    let outcome = place.start("straight", &recipe).unwrap().fit(&steep_in_places).unwrap();
    assert_eq!(outcome.step, 12);
    let scales = scales(&folder, 12);
    let skipped: Vec<u64> = (1..=12).filter(|&k| scales[k as usize - 1] < before(&scales, k)).collect();
    println!("scales {scales:?}, passed over {skipped:?}");
    assert!(!skipped.is_empty() && skipped.len() < 12, "{scales:?}");
    let state = checkpoint::open_step(&folder, 12).unwrap().state().clone();
    assert_eq!(state.optimizer_updates, 12 - skipped.len() as u64);
    for k in 1..=12 {
        let told_of = |wanted: fn(&TrainEvent) -> Option<u64>| {
            events(&folder).iter().filter_map(wanted).filter(|step| *step == k).count()
        };
        let warned = told_of(|event| match event {
            TrainEvent::Warning { step, message } if message.contains("loss scale") => Some(*step),
            _ => None,
        });
        let stepped = told_of(|event| match event {
            TrainEvent::Step { step, .. } => Some(*step),
            _ => None,
        });
        let expected = if skipped.contains(&k) { (1, 0) } else { (0, 1) };
        assert_eq!((warned, stepped), expected, "step {k}");
    }
    for at in [skipped[0], 11] {
        let cut = place.at(&format!("resumed at {at}"));
        copy_folder(&folder, &cut);
        for later in at + 1..=12 {
            std::fs::remove_dir_all(checkpoint::folder_of(&cut, later)).unwrap();
        }
        std::fs::remove_dir_all(cut.join("model")).unwrap();
        resume(&cut, None, &[]).unwrap().fit(&steep_in_places).unwrap();
        assert!(checkpoint_bytes(&cut, 12) == checkpoint_bytes(&folder, 12), "resumed at {at}");
        assert_eq!(told(&cut), told(&folder), "resumed at {at}");
    }
}

fn before(scales: &[f64], step: u64) -> f64 {
    if step == 1 { 65_536.0 } else { scales[step as usize - 2] }
}

/// Neither the reported loss nor the norm has the scale in it: they are near those of f32.
#[test]
fn reported_numbers_are_without_the_scale() {
    let place = Place::new();
    let numbers = |name: &str, precision: &str| -> Vec<(f64, f64)> {
        let run = place.train(name, &place.recipe(&[precision]));
        let steps = events(&run).into_iter().filter_map(|event| match event {
            TrainEvent::Step { loss, grad_norm, .. } => Some((loss, grad_norm)),
            _ => None,
        });
        steps.collect()
    };
    let (full, half) = (numbers("f32", "train.precision=f32"), numbers("f16", "train.precision=f16"));
    assert_eq!((full.len(), half.len()), (12, 12));
    let apart = full.iter().zip(&half).map(|(a, b)| ((a.0 - b.0).abs(), (a.1 / b.1 - 1.0).abs()));
    let (loss, norm) = apart.fold((0.0f64, 0.0f64), |worst, x| (worst.0.max(x.0), worst.1.max(x.1)));
    println!("f16 against f32 over 12 steps: loss {loss:.1e}, norm {norm:.1e}");
    assert!(full != half && loss < 1e-2 && norm < 5e-2, "loss {loss}, norm {norm}");
}

/// What no scale can mend stops the run: a loss that is not finite at once, an overflow at the smallest scale.
#[test]
fn what_no_scale_mends_is_refused() {
    let place = Place::new();
    let recipe = place.recipe(&["train.precision=f16", "train.steps=40", "checkpoint.every=40"]);
    for (name, factor, steps) in [("nan", f32::NAN, 0), ("always", 1e9, 16)] {
        let mut run = place.start(name, &recipe).unwrap();
        let error = run.fit(&scaled(|_| factor)).unwrap_err();
        assert_eq!((error.exit(), run.step()), (Exit::NotFinite, steps), "{name}: {error}");
    }
}
