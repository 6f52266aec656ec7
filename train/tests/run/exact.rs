//! Exact resume and determinism, C8.

use fornax_base::exit::Exit;
use fornax_train::checkpoint;
use fornax_train::events::TrainEvent;

use crate::{Place, checkpoint_bytes, copy_folder, events, finish, resume, saved_steps, told};

/// Runs straight, then resumes at every step (or every `stride`-th, but all of them at night) from a copy that
/// was cut there, as a killed run is.
fn resumes_exactly_at_every_step(sets: &[&str], stride: usize) {
    let (steps, stride) = match std::env::var("FORNAX_TEST_SCALE").as_deref() {
        Ok("nightly") => (40, 1),
        _ => (12, stride),
    };
    let place = Place::new();
    let mut recipe = place.recipe(sets);
    recipe.train.steps = steps;
    let straight = place.train("straight", &recipe);
    assert_eq!(saved_steps(&straight), (1..=steps).collect::<Vec<_>>());
    let state = checkpoint::open_step(&straight, steps).unwrap().state().clone();
    assert!(state.cursor["epoch"].as_u64().unwrap() >= 1, "the run crosses an epoch: {}", state.cursor);
    for at in (1..=steps).step_by(stride) {
        let resumed = place.at(&format!("resumed at {at}"));
        copy_folder(&straight, &resumed);
        for later in at + 1..=steps {
            std::fs::remove_dir_all(checkpoint::folder_of(&resumed, later)).unwrap();
        }
        std::fs::remove_dir_all(resumed.join("model")).unwrap();
        let run = resume(&resumed, None, &[]).unwrap();
        assert_eq!(run.step(), at);
        let outcome = finish(run);
        assert_eq!((outcome.step, outcome.ending), (steps, None));
        assert!(events(&resumed).iter().any(|e| matches!(e, TrainEvent::Resumed { step, .. } if *step == at)));
        for step in at..=steps {
            assert!(
                checkpoint_bytes(&resumed, step) == checkpoint_bytes(&straight, step),
                "resumed at {at}: step {step} differs"
            );
        }
        assert_eq!(told(&resumed), told(&straight), "resumed at {at}");
        for name in ["model.safetensors", "config.json", "tokenizer.json"] {
            let read = |run: &std::path::Path| std::fs::read(run.join("model").join(name)).unwrap();
            assert!(read(&resumed) == read(&straight), "resumed at {at}: model/{name} differs");
        }
    }
}

#[test]
fn with_documents() {
    resumes_exactly_at_every_step(&[], 1);
}

#[test]
fn with_documents_in_micro_batches() {
    resumes_exactly_at_every_step(&["train.micro_batch=2", "schedule.kind=wsd"], 3);
}

#[test]
fn with_muon_under_a_softcap_and_with_lion() {
    let muon = ["optimizer.kind=muon", "model.logit_softcap=15.0", "train.micro_batch=2"];
    resumes_exactly_at_every_step(&muon, 4);
    resumes_exactly_at_every_step(&["optimizer.kind=lion", "optimizer.lr=1e-3"], 4);
}

#[test]
fn with_wrapped_rows_and_rare_reports() {
    let sets = ["data.packing=wrap", "log.every=5", "schedule.kind=linear", "eval.every=5"];
    resumes_exactly_at_every_step(&sets, 2);
}

#[test]
fn an_explicit_step_goes_back_and_gives_the_same_bytes() {
    let place = Place::new();
    let recipe = place.recipe(&[]);
    let straight = place.train("straight", &recipe);
    let (bytes, before) = (checkpoint_bytes(&straight, 12), told(&straight));
    let run = resume(&straight, Some(5), &[]).unwrap();
    assert_eq!(run.step(), 5);
    finish(run);
    assert!(checkpoint_bytes(&straight, 12) == bytes);
    assert_eq!(told(&straight), before);
    // Nothing of the other continuation is lost, and nothing of it is taken for this one.
    let aside = |step: u64| checkpoint::folder_of(&straight, step).with_added_extension("aside").exists();
    assert!(!aside(5) && aside(11) && aside(12));
    let error = resume(&straight, Some(77), &[]).err().unwrap();
    assert_eq!(error.exit(), Exit::BadInput, "{error}");
}

#[test]
fn a_finished_run_goes_on_with_more_steps() {
    let place = Place::new();
    let sets = ["schedule.kind=constant", "eval.every=0", "data.validation_fraction=0.3"];
    let straight = place.train("straight", &place.recipe(&sets));
    let shorter = place.train("shorter", &place.recipe(&[&sets[..], &["train.steps=7"]].concat()));
    finish(resume(&shorter, None, &["train.steps=12"]).unwrap());
    let [model, optimizer, _] = checkpoint_bytes(&shorter, 12);
    let [expected_model, expected_optimizer, _] = checkpoint_bytes(&straight, 12);
    assert!(model == expected_model && optimizer == expected_optimizer);
    let error = resume(&shorter, None, &["train.steps=3"]).err().unwrap();
    assert_eq!(error.exit(), Exit::BadInput, "{error}");
}

#[test]
fn micro_batches_may_change_on_resume_and_see_the_same_text() {
    let place = Place::new();
    let run = place.train("run", &place.recipe(&["eval.every=0"]));
    let straight = checkpoint::open_step(&run, 12).unwrap().state().clone();
    finish(resume(&run, Some(6), &["train.micro_batch=1"]).unwrap());
    let resumed = checkpoint::open_step(&run, 12).unwrap().state().clone();
    assert_eq!((resumed.cursor, resumed.tokens_seen), (straight.cursor, straight.tokens_seen));
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let place = Place::new();
    let one = place.train("one", &place.recipe(&[]));
    let two = place.train("two", &place.recipe(&[]));
    let other = place.train("other", &place.recipe(&["seed=7"]));
    for step in 1..=12 {
        assert!(checkpoint_bytes(&one, step) == checkpoint_bytes(&two, step), "step {step}");
        assert!(checkpoint_bytes(&one, step)[0] != checkpoint_bytes(&other, step)[0], "step {step}");
    }
    assert_eq!(told(&one), told(&two));
    assert_ne!(told(&one), told(&other));
}
