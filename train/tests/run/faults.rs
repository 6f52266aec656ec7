//! Numbers that are not finite, disks that fail, prompts that cannot be continued, pruning.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fornax_base::exit::Exit;
use fornax_base::files::{FileSystem, RealFs, WritableFile};
use fornax_train::TrainError;
use fornax_train::checkpoint;
use fornax_train::events::{StopReason, TrainEvent};
use fornax_train::run::Run;
use fornax_train::step::next_token;

use crate::{
    Place, around_with, checkpoint_bytes, events, finish, finite_checkpoint, resume, saved_steps, scaled, told,
    validation_losses,
};

/// An error with its causes.
fn whole(error: &TrainError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// C6 at the level of a run: whatever stops being finite, in any micro-batch.
#[test]
fn numbers_that_are_not_finite_stop_the_run() {
    let place = Place::new();
    let sets = ["train.micro_batch=2", "checkpoint.every=4"];
    let recipe = place.recipe(&sets);
    let straight = place.train("straight", &recipe);
    // Two calls make a step: calls 11 and 12 are the micro-batches of step 6.
    for (name, call, factor) in
        [("nan", 12, f32::NAN), ("infinity", 11, f32::INFINITY), ("overflow", 12, f32::MAX)]
    {
        let folder = place.at(name);
        let mut run = place.start(name, &recipe).unwrap();
        let spoiled = scaled(|k| if k == call { factor } else { 1.0 });
        let error = run.fit(&spoiled).unwrap_err();
        drop(run);
        assert_eq!(error.exit(), Exit::NotFinite);
        let last = checkpoint::folder_of(&folder, 4);
        let lr = recipe.schedule().lr_at(5, 12);
        let said = whole(&error);
        let cursor = checkpoint::open_step(&folder, 4).unwrap().state().cursor.clone();
        println!("{name}: {said}");
        for part in
            ["step 6", "epoch", "window", "gradient norm", &format!("lr {lr}"), &last.display().to_string()]
        {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
        assert!(cursor["window"].is_u64(), "{cursor}");
        assert_eq!(finite_checkpoint(&last).state().step, 4);
        assert_eq!(saved_steps(&folder), [4], "nothing is saved after");
        let stopped = events(&folder).pop().unwrap();
        let TrainEvent::Stopped { step: 5, reason: StopReason::NonFinite, message } = &stopped else {
            panic!("{stopped:?}");
        };
        assert_eq!(*message, said);
        // The run can be taken up again where it was sound.
        finish(resume(&folder, None, &[]).unwrap());
        assert!(checkpoint_bytes(&folder, 12) == checkpoint_bytes(&straight, 12), "{name}");
        assert_eq!(told(&folder), told(&straight));
    }
}

/// A step that is masked as a whole (C7) in a whole run: a warning, no update, and resume stays exact.
#[test]
fn a_step_without_targets_is_a_warning() {
    let place = Place::new();
    let recipe = place.recipe(&[]);
    let mut run = place.start("run", &recipe).unwrap();
    let calls = std::cell::Cell::new(0);
    let outcome = run.fit(&|decoder, batch| {
        calls.set(calls.get() + 1);
        let mut batch = batch.clone();
        if calls.get() == 5 {
            batch.mask.fill(false);
        }
        next_token(decoder, &batch)
    });
    assert_eq!(outcome.unwrap().step, 12);
    let folder = place.at("run");
    let warnings = told(&folder).iter().filter(|line| line.starts_with("warning 5 every target")).count();
    assert_eq!(warnings, 1);
    let state = finite_checkpoint(&checkpoint::folder_of(&folder, 5)).state().clone();
    assert_eq!((state.step, state.optimizer_updates), (5, 4));
    let [model, optimizer, _] = checkpoint_bytes(&folder, 5);
    let [model_before, optimizer_before, _] = checkpoint_bytes(&folder, 4);
    assert!(model == model_before && optimizer == optimizer_before);
    let bytes = checkpoint_bytes(&folder, 12);
    drop(run);
    finish(resume(&folder, Some(5), &[]).unwrap());
    assert!(checkpoint_bytes(&folder, 12) == bytes);
}

#[test]
fn prompts_that_cannot_be_continued_are_warnings() {
    let place = Place::new();
    let long = "Sue ran. ".repeat(20);
    let prompts = format!("eval.prompts=[\"Tom \", {long:?}, \"\\u2603\", \"\"]");
    let run = place.train("run", &place.recipe(&[&prompts, "eval.sample_every=6"]));
    for step in [0, 6, 12] {
        let at_step = |kind: &str| {
            let start = format!("{kind} {step} ");
            told(&run).into_iter().filter(|line| line.starts_with(&start)).collect::<Vec<_>>()
        };
        let (samples, warnings) = (at_step("sample"), at_step("warning"));
        assert_eq!((samples.len(), warnings.len()), (1, 3), "{samples:?} {warnings:?}");
        assert!(warnings[0].contains("180 tokens") && warnings[1].contains("U+2603"), "{warnings:?}");
    }
}

/// A disk that is full while a switch is on.
#[derive(Clone, Default)]
struct Disk {
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> io::Result<()> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

struct DiskFile {
    real: Box<dyn WritableFile>,
    disk: Disk,
}

impl Write for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.disk.check().is_err() && bytes.len() > 8 {
            return self.real.write(&bytes[..8]); // the last free bytes
        }
        self.disk.check()?;
        self.real.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.real.flush()
    }
}

impl WritableFile for DiskFile {
    fn sync(&mut self) -> io::Result<()> {
        self.real.sync()
    }
}

impl FileSystem for Disk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        self.check()?;
        Ok(Box::new(DiskFile { real: RealFs.create_new(path)?, disk: self.clone() }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WritableFile>> {
        Ok(Box::new(DiskFile { real: RealFs.open_append(path)?, disk: self.clone() }))
    }

    fn set_len(&self, path: &Path, len: u64) -> io::Result<()> {
        RealFs.set_len(path, len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        RealFs.sync_folder(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        RealFs.create_folder(path)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_folder(path)
    }
}

/// The warnings the listener was told.
fn warnings(events: impl IntoIterator<Item = TrainEvent>) -> Vec<String> {
    let warning = |event| match event {
        TrainEvent::Warning { message, .. } => Some(message),
        _ => None,
    };
    events.into_iter().filter_map(warning).collect()
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_warnings_alone() {
    let place = Place::new();
    let recipe = place.recipe(&["checkpoint.every=2"]);
    let straight = place.train("straight", &recipe);
    let disk = Disk::default();
    let (around, listener) = around_with(Arc::new(disk.clone()));
    let folder = place.at("run");
    let mut run = Run::start(around, &folder, &recipe, &mut |_| {}).unwrap();
    // Full from step 3 to step 7: the checkpoints of steps 4 and 6 fail, that of step 8 is saved.
    let calls = std::cell::Cell::new(0);
    let outcome = run.fit(&|decoder, batch| {
        calls.set(calls.get() + 1);
        disk.full.store((3..=7).contains(&calls.get()), Ordering::SeqCst);
        next_token(decoder, batch)
    });
    assert_eq!(outcome.unwrap().step, 12);
    drop(run);
    let said = warnings(listener);
    assert_eq!(said.iter().filter(|w| w.contains("was not saved")).count(), 2, "{said:?}");
    assert_eq!(saved_steps(&folder), [2, 8, 10, 12]);
    assert!(checkpoint_bytes(&folder, 12) == checkpoint_bytes(&straight, 12));
    // No event is lost: the log has caught up.
    let without_warnings = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| !line.starts_with("warning")).collect()
    };
    assert_eq!(without_warnings(told(&folder)), told(&straight));
}

#[test]
fn three_saves_that_fail_in_a_row_end_the_run() {
    let place = Place::new();
    let recipe = place.recipe(&["checkpoint.every=2", "train.steps=40"]);
    for name in ["full disk", "folder removed"] {
        let disk = Disk::default();
        let (around, listener) = around_with(Arc::new(disk.clone()));
        let folder = place.at(name);
        let mut run = Run::start(around, &folder, &recipe, &mut |_| {}).unwrap();
        let calls = std::cell::Cell::new(0);
        let error = run
            .fit(&|decoder, batch| {
                calls.set(calls.get() + 1);
                match (calls.get(), name) {
                    (3, "full disk") => disk.full.store(true, Ordering::SeqCst),
                    (3, _) => std::fs::remove_dir_all(&folder).unwrap(),
                    _ => {}
                }
                next_token(decoder, batch)
            })
            .unwrap_err();
        drop(run);
        assert!(matches!(error, TrainError::SavesFailing { times: 3, .. }), "{error}");
        assert_eq!((error.exit(), calls.get()), (Exit::Failed, 8));
        let told: Vec<TrainEvent> = listener.into_iter().collect();
        let stopped = told.iter().any(|event| {
            matches!(event, TrainEvent::Stopped { step: 8, reason: StopReason::CheckpointsFailing, .. })
        });
        let said = warnings(told);
        println!("{name}: {said:?}, {}", whole(&error));
        assert!(stopped && said.iter().filter(|w| w.contains("was not saved")).count() == 2, "{said:?}");
        if name == "full disk" {
            assert_eq!(saved_steps(&folder), [2]);
            finite_checkpoint(&checkpoint::folder_of(&folder, 2));
        } else {
            assert!(!folder.exists(), "a folder that was removed is not made again");
        }
    }
}

/// A signal's promise is to have saved: a save that fails is tried again, and never passed off as done.
#[test]
fn an_ending_that_cannot_save_is_a_failure() {
    let place = Place::new();
    let disk = Disk::default();
    let (around, _listener) = around_with(Arc::new(disk.clone()));
    let signal = around.signal.clone();
    let mut run =
        Run::start(around, &place.at("run"), &place.recipe(&["checkpoint.every=100"]), &mut |_| {}).unwrap();
    let calls = std::cell::Cell::new(0);
    let error = run
        .fit(&|decoder, batch| {
            calls.set(calls.get() + 1);
            if calls.get() == 3 {
                disk.full.store(true, Ordering::SeqCst);
                signal.flag().store(143, Ordering::SeqCst);
            }
            next_token(decoder, batch)
        })
        .unwrap_err();
    assert_eq!((error.exit(), calls.get()), (Exit::Failed, 3), "{error}");
}

#[test]
fn a_model_that_cannot_be_written_is_a_failure_that_resume_mends() {
    let place = Place::new();
    let folder = place.at("run");
    let mut run = place.start("run", &place.recipe(&[])).unwrap();
    std::fs::write(folder.join("model"), "in the way").unwrap();
    let error = run.fit(&next_token).unwrap_err();
    drop(run);
    assert!(matches!(error, TrainError::Export { .. }), "{error}");
    assert_eq!(error.exit(), Exit::Failed);
    std::fs::remove_file(folder.join("model")).unwrap();
    let outcome = finish(resume(&folder, None, &[]).unwrap());
    assert!(outcome.model.unwrap().join("model.safetensors").exists());
}

/// The loss turns round after step 6, so that the lowest validation loss stands in the middle of the run, and
/// momentum puts it at step 7, where only some of the runs save.
#[test]
fn the_newest_and_the_best_checkpoint_are_kept() {
    let place = Place::new();
    let turned = |k| if k <= 6 { 1.0 } else { -1.0 };
    let base = ["schedule.kind=constant", "optimizer.lr=0.02", "checkpoint.keep_last=2", "eval.tokens=48"];
    for (name, sets) in [
        ("each", ["eval.every=1", "checkpoint.every=1", "checkpoint.keep_best=true"]),
        ("every other", ["eval.every=1", "checkpoint.every=2", "checkpoint.keep_best=true"]),
        ("without", ["eval.every=1", "checkpoint.every=1", "checkpoint.keep_best=false"]),
    ] {
        let recipe = place.recipe(&[&base[..], &sets].concat());
        let mut run = place.start(name, &recipe).unwrap();
        run.fit(&scaled(turned)).unwrap();
        let folder = place.at(name);
        let every = recipe.checkpoint.every;
        let losses = validation_losses(&folder);
        let saved = losses.iter().filter(|(step, _)| *step > 0 && step.is_multiple_of(every));
        let best = saved.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
        let lowest = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
        assert_eq!(lowest == best, every == 1, "the lowest is at {lowest}, the best saved one at {best}");
        assert!(best < 12 - every, "the best is an old one: {losses:?}");
        let mut expected = vec![12 - every, 12];
        if recipe.checkpoint.keep_best {
            expected.insert(0, best);
        }
        assert_eq!(saved_steps(&folder), expected, "{name}: {losses:?}");
        for step in saved_steps(&folder) {
            finite_checkpoint(&checkpoint::folder_of(&folder, step));
        }
        let state = checkpoint::open_step(&folder, 12).unwrap().state().clone();
        assert_eq!(state.best.unwrap().step, best);
        assert_eq!(state.validation_loss, losses.last().map(|(_, loss)| *loss));
    }
}
