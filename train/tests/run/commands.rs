//! The control file, signals, and listeners that do not listen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use fornax_base::exit::Exit;
use fornax_base::files::{FileSystem, RealFs, WritableFile};
use fornax_data::batches::Batch;
use fornax_model::Decoder;
use fornax_train::checkpoint::{self, Checkpoint};
use fornax_train::control::{Command, Ending, Signal, send};
use fornax_train::events::{StopReason, TrainEvent, to_line};
use fornax_train::run::{EVENTS_FILE, Run, Surroundings};
use fornax_train::step::next_token;

use crate::{Place, around, around_with, checkpoint_bytes, copy_folder, events, finish, resume, told};

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

/// Trains to the end and multiplies the learning rate by 0.25 after step 5 and by 2 after step 8.
fn fit_with_commands(mut run: Run, folder: &Path) {
    let step = std::cell::Cell::new(run.step());
    let objective = |decoder: &Decoder, batch: &Batch| {
        // One micro-batch a step: this is the step under way.
        step.set(step.get() + 1);
        let factor = match step.get() {
            5 => Some("0.25"),
            8 => Some("2"),
            _ => None,
        };
        if let Some(factor) = factor {
            send(&RealFs, folder, Command::Lr(factor.parse().unwrap())).unwrap();
        }
        next_token(decoder, batch)
    };
    assert_eq!(run.fit(&objective).unwrap().ending, None);
}

#[test]
fn a_factor_of_the_learning_rate_is_resumed_exactly() {
    let place = Place::new();
    let straight = place.at("straight");
    fit_with_commands(place.start("straight", &place.recipe(&[])).unwrap(), &straight);
    let plain = place.train("plain", &place.recipe(&[]));
    let rates = |run: &Path| -> Vec<f64> {
        let lr = |event: &TrainEvent| if let TrainEvent::Step { lr, .. } = event { Some(*lr) } else { None };
        events(run).iter().filter_map(lr).collect()
    };
    let (changed, schedule) = (rates(&straight), rates(&plain));
    for (i, (lr, of_schedule)) in changed.iter().zip(&schedule).enumerate() {
        let factor = [1.0, 0.25, 2.0][usize::from(i >= 5) + usize::from(i >= 8)];
        assert_eq!(*lr, of_schedule * factor, "step {}", i + 1);
    }
    assert!(checkpoint_bytes(&straight, 12)[0] != checkpoint_bytes(&plain, 12)[0], "it makes a difference");
    for at in [4, 5, 6, 8, 9, 11] {
        let resumed = place.at(&format!("resumed at {at}"));
        copy_folder(&straight, &resumed);
        for later in at + 1..=12 {
            std::fs::remove_dir_all(checkpoint::folder_of(&resumed, later)).unwrap();
        }
        fit_with_commands(resume(&resumed, None, &[]).unwrap(), &resumed);
        for step in at..=12 {
            let same = checkpoint_bytes(&resumed, step) == checkpoint_bytes(&straight, step);
            assert!(same, "resumed at {at}: step {step} differs");
        }
        assert_eq!(told(&resumed), told(&straight), "resumed at {at}");
    }
}

#[test]
fn a_factor_in_the_log_that_no_checkpoint_has_is_taken_back() {
    let place = Place::new();
    let run = place.train("run", &place.recipe(&[]));
    for later in 6..=12 {
        std::fs::remove_dir_all(checkpoint::folder_of(&run, later)).unwrap();
    }
    // Killed between the event and the checkpoint that would have held it.
    let line = to_line(&TrainEvent::LrFactor { step: 5, factor: 0.5 }).unwrap();
    let log = run.join(EVENTS_FILE);
    std::fs::write(&log, std::fs::read_to_string(&log).unwrap() + &line + "\n").unwrap();
    finish(resume(&run, None, &[]).unwrap());
    let factors: Vec<f64> = events(&run)
        .iter()
        .filter_map(|event| if let TrainEvent::LrFactor { factor, .. } = event { Some(*factor) } else { None })
        .collect();
    assert_eq!(factors, [0.5, 1.0]);
    let straight = place.train("straight", &place.recipe(&[]));
    assert!(checkpoint_bytes(&run, 12) == checkpoint_bytes(&straight, 12));
}

#[test]
fn tensorboard_files_are_written_when_the_recipe_asks() {
    let place = Place::new();
    let plain = place.train("plain", &place.recipe(&[]));
    assert!(!plain.join("tensorboard").exists());
    let run = place.train("run", &place.recipe(&["log.tensorboard=true"]));
    let files = || std::fs::read_dir(run.join("tensorboard")).unwrap().count();
    assert_eq!(files(), 1);
    assert_eq!(told(&run), told(&plain), "it changes nothing else");
    finish(resume(&run, Some(6), &[]).unwrap());
    assert_eq!(files(), 2);
    // A disk that takes the log but no event files costs a warning.
    let place = Place::new();
    let folder = place.at("run");
    let recipe = place.recipe(&["log.tensorboard=true"]);
    let fs = Arc::new(NoTensorboard::default());
    let (around, _events) = around_with(Arc::clone(&fs) as Arc<dyn FileSystem>);
    let mut run = Run::start(around, &folder, &recipe, &mut |_| {}).unwrap();
    fs.refuses.store(true, Ordering::SeqCst);
    assert_eq!(run.fit(&next_token).unwrap().step, 12);
    let said = told(&folder).into_iter().filter(|line| line.contains("no more TensorBoard events")).count();
    assert_eq!(said, 1);
}

/// The disk itself, but writes into event files fail from a moment on.
#[derive(Default)]
struct NoTensorboard {
    refuses: Arc<AtomicBool>,
}

struct Refusing(Box<dyn WritableFile>, Arc<AtomicBool>);

impl std::io::Write for Refusing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::StorageFull.into()),
            false => self.0.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl WritableFile for Refusing {
    fn sync(&mut self) -> std::io::Result<()> {
        self.0.sync()
    }
}

impl FileSystem for NoTensorboard {
    fn create_new(&self, path: &Path) -> std::io::Result<Box<dyn WritableFile>> {
        RealFs.create_new(path)
    }

    fn open_append(&self, path: &Path) -> std::io::Result<Box<dyn WritableFile>> {
        let file = RealFs.open_append(path)?;
        match path.to_string_lossy().contains("tfevents") {
            true => Ok(Box::new(Refusing(file, Arc::clone(&self.refuses)))),
            false => Ok(file),
        }
    }

    fn set_len(&self, path: &Path, len: u64) -> std::io::Result<()> {
        RealFs.set_len(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        RealFs.rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> std::io::Result<()> {
        RealFs.sync_folder(path)
    }

    fn create_folder(&self, path: &Path) -> std::io::Result<()> {
        RealFs.create_folder(path)
    }

    fn remove_file(&self, path: &Path) -> std::io::Result<()> {
        RealFs.remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> std::io::Result<()> {
        RealFs.remove_folder(path)
    }
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
