//! However a run is interrupted, it ends with the bytes of a run that was not.
//!
//! Rows C1, C8 (one step), C10 and C13 of the reliability table.

#![allow(clippy::print_stdout, reason = "a test that measures says so")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::{Live, Ran, copy, folder, paths_below, resume, run, scale, tiny_recipe, train};
use fornax_base::rng::rng;
use fornax_train::checkpoint;
use fornax_train::events::{StopReason, TrainEvent, read_events};
use rustix::process::Signal;

const STEPS: u64 = 60;

/// The run nobody interrupts.
struct Straight {
    run: PathBuf,
    took: Duration,
}

static STRAIGHT: LazyLock<Straight> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("resume-straight");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let run_folder = folder.join("run");
    let start = Instant::now();
    run(&mut train(&tiny_recipe(&folder), &run_folder, &[])).exits(0);
    Straight { run: run_folder, took: start.elapsed() }
});

/// Loss, rate and gradient norm of each step, bit for bit.
fn columns(run: &Path) -> Vec<(u64, [u64; 3])> {
    let events = read_events(&run.join("events.jsonl")).unwrap();
    let row = |event: &TrainEvent| match *event {
        TrainEvent::Step { step, loss, lr, grad_norm, .. } => {
            Some((step, [loss, lr, grad_norm].map(f64::to_bits)))
        }
        _ => None,
    };
    events.iter().filter_map(row).collect()
}

/// Validation losses and samples in order.
fn looks(run: &Path) -> Vec<TrainEvent> {
    let events = read_events(&run.join("events.jsonl")).unwrap();
    let is_look = |event: &TrainEvent| matches!(event, TrainEvent::Validation { .. } | TrainEvent::Sample { .. });
    events.into_iter().filter(is_look).collect()
}

fn newest(run: &Path) -> Option<u64> {
    checkpoint::list(run).unwrap().last().map(|folder| folder.step)
}

#[track_caller]
fn assert_equals_straight(run: &Path, history: &str) {
    let straight = &STRAIGHT.run;
    let last = format!("checkpoints/{}", checkpoint::folder_name(STEPS));
    for file in [
        "model/model.safetensors".to_owned(),
        "model/config.json".to_owned(),
        "model/tokenizer.json".to_owned(),
        format!("{last}/model.safetensors"),
        format!("{last}/optimizer.safetensors"),
    ] {
        let read = |run: &Path| fs::read(run.join(&file)).unwrap_or_else(|e| panic!("{file}: {e}; {history}"));
        assert!(read(run) == read(straight), "{file} differs after {history}");
    }
    let steps: Vec<u64> = columns(run).iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>(), "{history}");
    assert_eq!(columns(run), columns(straight), "{history}");
    assert_eq!(looks(run), looks(straight), "{history}");
    let leftovers: Vec<_> = paths_below(run).into_iter().filter(|path| path.contains(".tmp")).collect();
    assert_eq!(leftovers, Vec::<String>::new(), "{history}");
}

/// When to interrupt a process.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after its start.
    After(Duration),
    /// So long after a new path with this in its name is seen in the run folder.
    Path(&'static str, Duration),
}

/// A run that is interrupted again and again.
struct Tormented {
    recipe: PathBuf,
    run: PathBuf,
    history: String,
    is_finished: bool,
}

impl Tormented {
    fn new(folder: &Path, name: &str) -> Self {
        let run = folder.join(name);
        Tormented { recipe: tiny_recipe(folder), run, history: format!("{name}:"), is_finished: false }
    }

    /// Starts the run, or resumes it wherever it has become one.
    fn start(&self) -> Live {
        let begun = self.run.join("recipe.toml").exists();
        if !begun && self.run.exists() {
            run(&mut resume(&self.run, &[])).refuses(&["is not a run folder", "hint: "]);
        }
        Live::start(&mut match begun {
            true => resume(&self.run, &[]),
            false => train(&self.recipe, &self.run, &[]),
        })
    }

    /// Where the interrupted run stands, by what is in its folder.
    fn place(&self) -> &'static str {
        let has = |name: &str| self.run.join(name).exists();
        if !has("recipe.toml") {
            return "before recipe.toml";
        }
        if !has("data/dataset.json") {
            return "preparing data";
        }
        let below = paths_below(&self.run);
        if below.iter().any(|path| path.starts_with("checkpoints") && path.contains(".tmp")) {
            return "saving";
        }
        match newest(&self.run) {
            None => "before a checkpoint",
            Some(STEPS) if has("model/model.safetensors") => "at the end",
            Some(STEPS) => "exporting",
            Some(_) => "between checkpoints",
        }
    }

    /// Lets one process live until `moment` and sends it `signal`; `None` when it had finished before.
    fn interrupt(&mut self, moment: Moment, signal: Signal) -> Option<Ran> {
        let before = paths_below(&self.run);
        let mut live = self.start();
        let reached = match moment {
            Moment::After(time) => !live.ends_within(time),
            Moment::Path(word, delay) => {
                let mut is_there = false;
                while !is_there && !live.ends_within(Duration::from_micros(200)) {
                    is_there = paths_below(&self.run).iter().any(|p| p.contains(word) && !before.contains(p));
                }
                std::thread::sleep(delay);
                is_there
            }
        };
        let sent = reached && live.signal(signal);
        let start = Instant::now();
        let ran = live.finish();
        let limit = Duration::from_secs(30);
        assert!(start.elapsed() < limit, "{:?} after {signal:?}, {}", start.elapsed(), self.history);
        self.is_finished = ran.code() == Some(0);
        if !sent || self.is_finished {
            assert!(self.is_finished, "{} {moment:?}: {ran:#?}", self.history);
            return None;
        }
        self.history += &format!(" {signal:?} {}", self.place());
        Some(ran)
    }

    /// Resumes to the end and compares.
    fn finish(mut self) {
        if !self.is_finished {
            self.history += "; the last resume";
            let ran = self.start().finish();
            assert_eq!(ran.code(), Some(0), "{}: {ran:#?}", self.history);
        }
        assert_equals_straight(&self.run, &self.history);
    }
}

/// Interrupts runs at `total` moments, at most three in one run, and counts exit codes and where they fell.
fn torment(
    name: &str,
    total: u32,
    mut next: impl FnMut(u32) -> (Moment, Signal),
    mut after: impl FnMut(&Tormented, &Ran),
) -> BTreeMap<(Option<i32>, &'static str), u32> {
    let folder = folder();
    let (mut done, mut tries, mut runs) = (0, 0, 0);
    let mut places = BTreeMap::new();
    while done < total {
        let mut tormented = Tormented::new(folder.path(), &format!("{name}-{runs}"));
        runs += 1;
        for _ in 0..3 {
            let (moment, signal) = next(tries);
            tries += 1;
            assert!(tries < total * 10, "only {done} of {tries} moments were in time: {places:?}");
            if let Some(ran) = tormented.interrupt(moment, signal) {
                done += 1;
                *places.entry((ran.code(), tormented.place())).or_default() += 1;
                after(&tormented, &ran);
            }
            if tormented.is_finished || done == total {
                break;
            }
        }
        tormented.finish();
    }
    println!("{name}: {done} interruptions in {runs} runs: {places:?}");
    places
}

/// A moment of a run; beside other tests it takes longer than the straight one did.
fn random_time(purpose: &str, n: u32) -> Duration {
    STRAIGHT.took.mul_f64(1.5 * rng(7, u64::from(n), purpose).uniform_f64())
}

#[test]
fn killed_at_random_moments_a_run_ends_as_if_never_killed() {
    let next = |n| (Moment::After(random_time("kill", n)), Signal::KILL);
    torment("killed", scale(20, 200), next, |_, ran| assert!(ran.was_ended_by(Signal::KILL), "{ran:#?}"));
}

#[test]
fn killed_while_it_prepares_saves_or_exports_a_run_ends_as_if_never_killed() {
    const PATHS: [&str; 6] = ["lock", "recipe.toml", "dataset.json", "checkpoints/step", "000060.tmp", "model/"];
    let next = |n: u32| {
        let path = PATHS[n as usize % PATHS.len()];
        let delay = Duration::from_micros(rng(7, u64::from(n), "delay").below(8_000));
        (Moment::Path(path, delay), Signal::KILL)
    };
    let places = torment("aimed", scale(18, 120), next, |_, _| {});
    assert!(places.len() >= 3 && places.contains_key(&(None, "saving")), "{places:?}");
}

/// After a signal: the checkpoint says what the event says, and nothing needs to be passed over.
fn check_stopped(tormented: &Tormented, ran: &Ran, signal: Signal, code: i32, reason: StopReason) {
    let history = &tormented.history;
    if ran.was_ended_by(signal) {
        // Before the loop nothing is there to be saved, and what is on disk stays whole.
        assert!(!ran.stderr.contains("training 39,"), "{history}: {ran:#?}");
        return;
    }
    assert_eq!(ran.code(), Some(code), "{history}: {ran:#?}");
    assert!(ran.stderr.contains("continue with: fornax train --resume"), "{ran:#?}");
    let (found, skipped) = checkpoint::newest_valid(&tormented.run).unwrap();
    assert!(skipped.is_empty(), "{history}: {skipped:?}");
    let events = read_events(&tormented.run.join("events.jsonl")).unwrap();
    match events.last() {
        Some(TrainEvent::Stopped { step, reason: said, .. }) => {
            assert_eq!((*step, *said), (found.unwrap().state().step, reason), "{history}");
        }
        other => panic!("the log ends with {other:?}; {history}"),
    }
}

#[test]
fn terminated_at_random_moments_a_run_saves_and_goes_on() {
    let next = |n| (Moment::After(random_time("term", n)), Signal::TERM);
    let after = |t: &Tormented, ran: &Ran| check_stopped(t, ran, Signal::TERM, 143, StopReason::Terminated);
    torment("terminated", scale(25, 50), next, after);
}

#[test]
fn interrupted_at_random_moments_a_run_saves_and_goes_on() {
    let next = |n| (Moment::After(random_time("int", n)), Signal::INT);
    let after = |t: &Tormented, ran: &Ran| check_stopped(t, ran, Signal::INT, 130, StopReason::Interrupted);
    torment("interrupted", scale(25, 50), next, after);
}

/// A step of 2,048 micro-batches takes seconds, which the end of a step would have to wait for.
const LONG_STEPS: [&str; 5] =
    ["train.batch=8192", "train.micro_batch=4", "checkpoint.every=1", "eval.every=0", "eval.sample_every=0"];

#[test]
fn a_second_signal_ends_within_a_second_and_leaves_the_files_whole() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    let recipe = tiny_recipe(folder.path());
    // The checkpoint of a short run, made a run of long steps by its recipe alone.
    let mut command = train(&recipe, &run_folder, &LONG_STEPS);
    for (asked, then, code) in [(Signal::TERM, Signal::INT, 130), (Signal::INT, Signal::TERM, 143)] {
        let mut live = Live::start(&mut command);
        live.wait_for("training 39,");
        std::thread::sleep(Duration::from_millis(300));
        assert!(live.signal(asked));
        assert!(!live.ends_within(Duration::from_millis(200)), "the step is not long enough for this test");
        let start = Instant::now();
        assert!(live.signal(then));
        assert!(live.ends_within(Duration::from_secs(1)), "alive after {:?}", start.elapsed());
        live.finish().exits(code);
        let leftovers: Vec<_> =
            paths_below(&run_folder).into_iter().filter(|path| path.contains(".tmp")).collect();
        assert_eq!(leftovers, Vec::<String>::new());
        command = resume(&run_folder, &[]);
    }
    let mut live = Live::start(&mut command);
    live.wait_for("training 39,");
}

#[test]
fn a_paused_run_obeys_a_signal() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    let mut live = Live::start(&mut train(&tiny_recipe(folder.path()), &run_folder, &["train.steps=1_000_000"]));
    live.wait_for("step 00001");
    fs::write(run_folder.join("control"), "pause\n").unwrap();
    live.wait_for("paused");
    assert!(!live.ends_within(Duration::from_millis(300)));
    assert!(live.signal(Signal::TERM));
    assert!(live.ends_within(Duration::from_secs(30)));
    live.finish().exits(143).says(&["terminated after saving"]);
}

#[test]
fn another_seed_ends_elsewhere() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    run(&mut train(&tiny_recipe(folder.path()), &run_folder, &["seed=2"])).exits(0);
    let file = "model/model.safetensors";
    assert!(fs::read(run_folder.join(file)).unwrap() != fs::read(STRAIGHT.run.join(file)).unwrap());
    assert_ne!(columns(&run_folder), columns(&STRAIGHT.run));
}

#[test]
fn the_terminal_may_be_closed() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    let mut live = Live::start(&mut train(&tiny_recipe(folder.path()), &run_folder, &[]));
    live.wait_for("step 00001 ");
    live.signal(Signal::HUP);
    live.finish().exits(0);
    assert_equals_straight(&run_folder, "SIGHUP");
}

#[test]
fn an_older_checkpoint_leads_to_the_same_end() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    copy(&STRAIGHT.run, &run_folder);
    run(resume(&run_folder, &[]).args(["--step", "55"])).exits(0).says(&["resumed at step 55"]);
    assert_equals_straight(&run_folder, "--step 55");
    run(resume(&run_folder, &[]).args(["--step", "7"])).refuses(&["no checkpoint of step 7; it has 55, 60"]);
}

#[test]
fn a_finished_run_says_so_and_is_not_begun_again() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    copy(&STRAIGHT.run, &run_folder);
    run(&mut resume(&run_folder, &[])).exits(0).says(&["this run is finished: all 60 steps are done"]);
    assert_equals_straight(&run_folder, "a resume of the finished run");
    let before = paths_below(&run_folder);
    run(&mut train(&tiny_recipe(folder.path()), &run_folder, &[]))
        .refuses(&["already holds a run", "hint: continue it with `fornax train --resume"]);
    assert_eq!(paths_below(&run_folder), before);
}

#[test]
fn a_folder_with_parts_of_a_run_but_no_recipe_is_left_alone() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    copy(&STRAIGHT.run, &run_folder);
    fs::remove_file(run_folder.join("recipe.toml")).unwrap();
    let before = paths_below(&run_folder);
    run(&mut train(&tiny_recipe(folder.path()), &run_folder, &[]))
        .refuses(&["has no recipe.toml, but holds `tokenizer`", "hint: "]);
    run(&mut resume(&run_folder, &[])).refuses(&["is not a run folder: it has no recipe.toml"]);
    assert_eq!(paths_below(&run_folder), before);
}

#[test]
fn keys_that_change_the_result_are_refused_and_harmless_ones_logged() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    copy(&STRAIGHT.run, &run_folder);
    fs::remove_dir_all(checkpoint::folder_of(&run_folder, STEPS)).unwrap();
    let recipe = fs::read_to_string(run_folder.join("recipe.toml")).unwrap();
    let refused = [
        ("model.width=64", "model.width: 32 -> 64"),
        ("seed=2", "seed: 1337 -> 2"),
        ("train.batch=8", "train.batch: 4 -> 8"),
        ("optimizer.lr=1e-3", "optimizer.lr: 0.003 -> 0.001"),
    ];
    for (set, line) in refused {
        run(&mut resume(&run_folder, &[set])).refuses(&[line, "cannot be changed so on resume", "hint: "]);
    }
    let (sets, lines): (Vec<&str>, Vec<&str>) = refused.into_iter().unzip();
    run(&mut resume(&run_folder, &sets)).refuses(&lines);
    run(&mut resume(&run_folder, &["train.stepz=9"])).refuses(&["unknown key", "did you mean `steps`?"]);
    assert_eq!(fs::read_to_string(run_folder.join("recipe.toml")).unwrap(), recipe);

    let harmless = ["log.every=2", r#"eval.prompts=["Question: "]"#];
    run(&mut resume(&run_folder, &harmless)).exits(0).says(&["log.every: 1 -> 2"]);
    let recipe = fs::read_to_string(run_folder.join("recipe.toml")).unwrap();
    assert!(recipe.contains("every = 2") && recipe.contains(r#"prompts = ["Question: "]"#), "{recipe}");
    let events = read_events(&run_folder.join("events.jsonl")).unwrap();
    let changed = events.iter().find_map(|event| match event {
        TrainEvent::Resumed { changed, .. } => Some(changed.clone()),
        _ => None,
    });
    let changed = changed.expect("a resumed event");
    assert_eq!(changed, [r#"eval.prompts: ["One day, "] -> ["Question: "]"#, "log.every: 1 -> 2"]);
    let straight = &STRAIGHT.run;
    let file = "model/model.safetensors";
    assert!(fs::read(run_folder.join(file)).unwrap() == fs::read(straight.join(file)).unwrap());
}
