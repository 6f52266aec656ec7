//! The control file, signals, and listeners that do not listen.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use fornax_base::exit::Exit;
use fornax_base::files::RealFs;
use fornax_train::checkpoint::Checkpoint;
use fornax_train::control::{Command, Ending, Signal, send};
use fornax_train::events::{StopReason, TrainEvent};
use fornax_train::run::{Run, Surroundings};
use fornax_train::step::next_token;

use crate::{Place, around, around_with, checkpoint_bytes, events, finish, resume, told};

/// Long enough for any step on a busy machine; what passes it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// A run that ends only when it is told to.
const ENDLESS: [&str; 6] = [
    "train.steps=1000000",
    "schedule.kind=constant",
    "schedule.warmup_steps=0",
    "checkpoint.every=1000000",
    "eval.every=0",
    "eval.sample_every=0",
];

/// Reads events until one is wanted, and returns it.
fn wait(events: &Receiver<TrainEvent>, wanted: impl Fn(&TrainEvent) -> bool) -> TrainEvent {
    loop {
        let event = events.recv_timeout(PATIENCE).unwrap();
        if wanted(&event) {
            return event;
        }
    }
}

fn is_step(event: &TrainEvent) -> bool {
    matches!(event, TrainEvent::Step { .. })
}

/// Pauses, saves in the pause, goes on, saves, stops; gives the steps of the two saved checkpoints.
fn give_commands(run: PathBuf, events: Receiver<TrainEvent>) -> (TrainEvent, TrainEvent) {
    let tell = |command| send(&RealFs, &run, command).unwrap();
    wait(&events, is_step);
    tell(Command::Pause);
    let paused = wait(&events, |e| matches!(e, TrainEvent::Paused { paused: true, .. })).step();
    // Steps of the time before may still wait in the channel; none may follow the pause.
    assert_eq!(events.recv_timeout(Duration::from_millis(300)), Err(RecvTimeoutError::Timeout));
    tell(Command::Save);
    let in_pause = wait(&events, |_| true);
    assert_eq!(in_pause.step(), paused);
    std::fs::write(run.join("control"), "sove\n").unwrap();
    assert!(matches!(wait(&events, |_| true), TrainEvent::Warning { .. }));
    tell(Command::Resume);
    assert!(matches!(wait(&events, |_| true), TrainEvent::Paused { paused: false, .. }));
    wait(&events, |e| is_step(e) && e.step() > paused + 2);
    tell(Command::Save);
    let later = wait(&events, |e| matches!(e, TrainEvent::CheckpointSaved { .. }));
    assert!(later.step() > paused);
    wait(&events, is_step);
    tell(Command::Stop);
    (in_pause, later)
}

#[test]
fn pause_save_resume_and_stop_are_obeyed() {
    let place = Place::new();
    let (around, events) = around_with(Arc::new(RealFs));
    let folder = place.at("run");
    let mut run = Run::start(around, &folder, &place.recipe(&ENDLESS), &mut |_| {}).unwrap();
    let commander = std::thread::spawn({
        let folder = folder.clone();
        move || give_commands(folder, events)
    });
    let outcome = run.fit(&next_token).unwrap();
    drop(run);
    let (in_pause, later) = commander.join().unwrap();
    assert_eq!((outcome.ending, outcome.model), (Some(Ending::Command), None));
    for event in [in_pause, later] {
        let TrainEvent::CheckpointSaved { path, step, .. } = event else { panic!("{event:?}") };
        assert_eq!(Checkpoint::open(&path).unwrap().state().step, step);
    }
    let last = crate::events(&folder).pop().unwrap();
    assert!(
        matches!(&last, TrainEvent::Stopped { step, reason: StopReason::Command, .. } if *step == outcome.step),
        "{last:?}"
    );
    // The pause changed nothing: a straight run of as many steps ends with the same bytes.
    let steps = format!("train.steps={}", outcome.step);
    let straight = place.train("straight", &place.recipe(&[&ENDLESS[..], &[&steps]].concat()));
    let ([model, optimizer, _], [straight_model, straight_optimizer, _]) =
        (checkpoint_bytes(&folder, outcome.step), checkpoint_bytes(&straight, outcome.step));
    assert!(model == straight_model && optimizer == straight_optimizer);
    assert_eq!(finish(resume(&folder, None, &[&steps]).unwrap()).ending, None);
}

#[test]
fn a_signal_ends_the_run_after_saving() {
    for (code, exit, reason) in
        [(130, Exit::Interrupted, StopReason::Interrupted), (143, Exit::Terminated, StopReason::Terminated)]
    {
        let place = Place::new();
        let signal = Signal::default();
        let around = Surroundings { signal: signal.clone(), ..around() };
        let folder = place.at("run");
        let mut run = Run::start(around, &folder, &place.recipe(&ENDLESS), &mut |_| {}).unwrap();
        let calls = std::cell::Cell::new(0);
        let outcome = run
            .fit(&|decoder, batch| {
                calls.set(calls.get() + 1);
                if calls.get() == 3 {
                    signal.flag().store(code, Ordering::SeqCst);
                }
                next_token(decoder, batch)
            })
            .unwrap();
        // The step under way is finished, no other one begun.
        assert_eq!((outcome.step, outcome.ending), (3, Some(Ending::Signal(exit))));
        assert_eq!(crate::saved_steps(&folder), [3]);
        assert!(matches!(events(&folder).pop().unwrap(), TrainEvent::Stopped { reason: r, .. } if r == reason));
    }
}

#[test]
fn listeners_that_are_full_or_gone_do_not_matter() {
    let place = Place::new();
    let recipe = place.recipe(&[]);
    let plain = place.train("plain", &recipe);
    for name in ["full", "gone"] {
        let (sender, receiver) = sync_channel(1);
        let _kept = (name == "full").then_some(receiver);
        let around = Surroundings { listener: Some(sender), ..around() };
        let mut run = Run::start(around, &place.at(name), &recipe, &mut |_| {}).unwrap();
        assert_eq!(run.fit(&next_token).unwrap().step, 12);
        assert_eq!(told(&place.at(name)), told(&plain));
        assert!(checkpoint_bytes(&place.at(name), 12) == checkpoint_bytes(&plain, 12));
    }
}

#[test]
fn a_run_under_way_is_left_alone() {
    let place = Place::new();
    let recipe = place.recipe(&[]);
    let run = place.start("run", &recipe).unwrap();
    for error in [place.start("run", &recipe).err().unwrap(), resume(&place.at("run"), None, &[]).err().unwrap()] {
        assert_eq!(error.exit(), Exit::BadInput);
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    }
    drop(run);
    // Killed before a step: a resume begins at 0.
    let run = resume(&place.at("run"), None, &[]).unwrap();
    assert_eq!(run.step(), 0);
    finish(run);
    let straight = place.train("straight", &recipe);
    assert!(checkpoint_bytes(&place.at("run"), 12) == checkpoint_bytes(&straight, 12));
    let error = place.start("run", &recipe).err().unwrap();
    assert!(error.hint().unwrap().contains("--resume"), "{error}");
}

#[test]
fn a_start_that_fails_leaves_the_folder_to_the_corrected_recipe() {
    let place = Place::new();
    let wrong = place.recipe(&["train.context=4000", "eval.tokens=4000"]);
    let error = place.start("run", &wrong).err().unwrap();
    assert_eq!(error.exit(), Exit::BadInput, "{error}");
    let run = place.train("run", &place.recipe(&["tokenizer.kind=bpe", "tokenizer.vocab_size=300"]));
    let straight = place.train("straight", &place.recipe(&["tokenizer.kind=bpe", "tokenizer.vocab_size=300"]));
    assert!(checkpoint_bytes(&run, 12) == checkpoint_bytes(&straight, 12));
    // What another program left there is neither used nor removed.
    std::fs::create_dir_all(place.at("taken").join("data")).unwrap();
    let error = place.start("taken", &place.recipe(&[])).err().unwrap();
    assert_eq!(error.exit(), Exit::BadInput, "{error}");
    assert!(place.at("taken").join("data").exists() && error.to_string().contains("`data`"), "{error}");
}
