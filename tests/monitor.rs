//! The monitor on real terminals and without one.
//!
//! Row C14 of the reliability table, and Ctrl-C under the monitor.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use common::terminal::OnTerminal;
use common::{Live, copy, folder, fornax, paths_below, run, tiny_recipe, train};
use fornax_train::events::{StopReason, TrainEvent, read_events};
use rustix::process::Signal;

/// A finished run of the tiny recipe.
static RUN: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("monitor-finished");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let run_folder = folder.join("run");
    run(&mut train(&tiny_recipe(&folder), &run_folder, &[])).exits(0);
    run_folder
});

/// Sets of a run that ends when it is told to.
const ENDLESS: [&str; 4] =
    ["train.steps=1_000_000", "schedule.kind=constant", "checkpoint.every=1_000_000", "eval.every=0"];

fn monitor(runs: &[&Path], arguments: &[&str]) -> Command {
    let mut command = fornax(["monitor"]);
    command.args(runs).args(arguments);
    command
}

fn model(run: &Path) -> Vec<u8> {
    fs::read(run.join("model/model.safetensors")).unwrap()
}

fn last_event(run: &Path) -> TrainEvent {
    read_events(&run.join("events.jsonl")).unwrap().pop().unwrap()
}

#[test]
fn the_monitor_inside_the_training_steers_it_and_gives_the_terminal_back() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    let mut command = train(&tiny_recipe(folder.path()), &run_folder, &ENDLESS);
    let mut terminal = OnTerminal::start(command.arg("--tui"), 100, 30);
    terminal.wait_for("q leave");
    terminal.wait_for("/1000000");
    assert!(terminal.is_raw());
    terminal.types("w");
    terminal.wait_for("| saved ");
    terminal.types("l0.5\r");
    terminal.wait_for("learning rate x 0.5 from here on");
    terminal.types("p");
    terminal.wait_for("paused");
    terminal.types("p");
    terminal.wait_for("going on");
    for (columns, rows) in [(1, 1), (200, 60), (3, 40), (80, 24)] {
        terminal.resize(columns, rows);
        std::thread::sleep(Duration::from_millis(600));
    }
    terminal.wait_for("gradient norm");
    terminal.types("?");
    terminal.wait_for("any key closes this");
    terminal.types("?q");
    terminal.wait_for("leaving stops");
    terminal.types("n\x03");
    let (status, text) = terminal.finish();
    assert_eq!(status.code(), Some(130), "{text}");
    assert!(text.contains("interrupted after saving") && text.contains("continue with: fornax train"), "{text}");
    let stopped = last_event(&run_folder);
    assert!(matches!(stopped, TrainEvent::Stopped { reason: StopReason::Interrupted, .. }), "{stopped:?}");
    run(&mut monitor(&[&run_folder], &[])).exits(0);
}

#[test]
fn a_second_ctrl_c_under_the_monitor_ends_at_once() {
    let folder = folder();
    let recipe = tiny_recipe(folder.path());
    // Steps that take long.
    let sets = ["train.batch=8192", "train.micro_batch=4", "eval.every=0", "eval.sample_every=0"];
    type Ask = fn(&mut OnTerminal);
    let typed: Ask = |terminal| terminal.types("\x03");
    let sent: Ask = |terminal| terminal.signal(Signal::TERM);
    for (name, ask, code) in [("typed", typed, 130), ("sent", sent, 143)] {
        let run_folder = folder.path().join(name);
        let mut command = train(&recipe, &run_folder, &sets);
        let mut terminal = OnTerminal::start(command.arg("--tui"), 80, 24);
        terminal.wait_for("q leave");
        // Into the opening step, behind the measurement of the matmul rate.
        terminal.wait_for("running");
        std::thread::sleep(Duration::from_millis(500));
        ask(&mut terminal);
        std::thread::sleep(Duration::from_millis(300));
        assert!(terminal.is_raw(), "the step is not long enough for this test:\n{}", terminal.shown());
        let asked = Instant::now();
        ask(&mut terminal);
        let (status, text) = terminal.finish();
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert_eq!(status.code(), Some(code), "{text}");
        let leftovers: Vec<_> = paths_below(&run_folder).into_iter().filter(|p| p.contains(".tmp")).collect();
        assert_eq!(leftovers, Vec::<String>::new());
    }
}

#[test]
fn a_terminal_that_is_closed_does_not_stop_the_training() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    let mut command = train(&tiny_recipe(folder.path()), &run_folder, &[]);
    let mut terminal = OnTerminal::start(command.arg("--tui"), 80, 24);
    terminal.wait_for("q leave");
    terminal.close();
    let (status, _) = terminal.finish();
    assert!(status.success(), "{status:?}");
    assert!(model(&run_folder) == model(&RUN));
    assert!(matches!(last_event(&run_folder), TrainEvent::Finished { .. }));
}

#[test]
fn a_fault_of_the_monitor_costs_the_monitor_alone() {
    if !cfg!(debug_assertions) {
        return; // The fault is built into the development build only.
    }
    let folder = folder();
    let run_folder = folder.path().join("run");
    let mut command = train(&tiny_recipe(folder.path()), &run_folder, &[]);
    let terminal = OnTerminal::start(command.arg("--tui").env("FORNAX_TEST_MONITOR_PANICS", "1"), 160, 50);
    let (status, text) = terminal.finish();
    assert!(status.success(), "{text}");
    assert!(text.contains("this is a bug") && text.contains("the monitor failed; training goes on"), "{text}");
    assert!(text.contains("finished: "), "{text}");
    assert!(model(&run_folder) == model(&RUN));
}

#[test]
fn without_a_terminal_the_monitor_in_training_gives_way_to_lines() {
    let folder = folder();
    let recipe = tiny_recipe(folder.path());
    let lines = folder.path().join("lines");
    run(train(&recipe, &lines, &["train.steps=10"]).arg("--tui"))
        .exits(0)
        .says(&["warning: the monitor needs a terminal on stdout", "step 00010"]);
    let closed = folder.path().join("closed");
    let mut command = train(&recipe, &closed, &["train.steps=10"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec "$0" "$@" <&- >&-"#]).arg(command.arg("--tui").get_program());
    run(shell.args(command.get_args())).exits(0);
    assert!(model(&lines) == model(&closed));
    for arguments in [["--tui", "--json"], ["--tui", "--check"]] {
        run(train(&recipe, &lines, &[]).args(arguments)).refuses(&["cannot be used with"]);
    }
}

#[test]
fn attached_monitors_leave_the_training_alone_unless_they_are_told() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    let mut live = Live::start(&mut train(&tiny_recipe(folder.path()), &run_folder, &ENDLESS));
    live.wait_for("step 00001");
    let mut one = OnTerminal::start(&monitor(&[&run_folder, &RUN], &[]), 120, 30);
    let mut two = OnTerminal::start(&monitor(&[&run_folder], &["--ascii"]), 80, 24);
    one.wait_for("running");
    one.wait_for("finished");
    two.wait_for("+--");
    one.types("w");
    two.wait_for("| saved ");
    two.types("q");
    assert_eq!(two.finish().0.code(), Some(0));
    // Closing its terminal ends a monitor, and nothing else.
    let mut third = OnTerminal::start(&monitor(&[&run_folder], &[]), 80, 24);
    third.wait_for("running");
    third.close();
    third.finish();
    let mut fourth = OnTerminal::start(&monitor(&[&run_folder], &[]), 80, 24);
    fourth.wait_for("running");
    fourth.signal(Signal::TERM);
    assert_eq!(fourth.finish().0.code(), Some(143));
    assert!(!live.ends_within(Duration::from_millis(100)));
    one.types("x");
    one.wait_for("after saving? y / n");
    one.types("y");
    live.finish().exits(0).says(&["stopped by command after saving"]);
    one.wait_for("stopped");
    one.types("w");
    one.wait_for("this run is over");
    one.types("\x03");
    assert_eq!(one.finish().0.code(), Some(0));
}

#[test]
fn a_finished_log_is_replayed() {
    let mut terminal = OnTerminal::start(&monitor(&[&RUN], &["--replay", "--speed", "0.01"]), 80, 24);
    terminal.wait_for("replay x0.01, playing");
    terminal.types(" ");
    terminal.wait_for("held");
    terminal.types(" >>>>>>>>>>>>>>");
    terminal.wait_for("over");
    terminal.wait_for("finished: ");
    terminal.types("w");
    terminal.wait_for("nobody to tell");
    terminal.types("q");
    assert_eq!(terminal.finish().0.code(), Some(0));
    run(&mut monitor(&[&RUN], &["--replay"])).refuses(&["needs a terminal", "hint: "]);
    run(&mut monitor(&[&RUN], &["--replay", "--speed", "0"])).refuses(&["--speed is 0"]);
}

#[test]
fn without_a_terminal_the_state_is_text_or_json() {
    let plain = run(&mut monitor(&[&RUN], &[])).exits(0);
    assert!(plain.stdout.contains("finished | step 60/60 | loss ") && plain.stderr.is_empty(), "{plain:?}");
    let json = run(&mut monitor(&[&RUN, &RUN.join("events.jsonl")], &["--json"])).exits(0).stdout;
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert_eq!((line["state"].as_str(), line["step"].as_u64()), (Some("finished"), Some(60)));
        assert!(line["loss"].is_f64() && line["validation_loss"].is_f64() && line["eta_seconds"].is_null());
    }
    let followed = run(&mut monitor(&[&RUN], &["--follow"])).exits(0).stdout;
    assert!(followed.lines().last().unwrap().contains("finished | step 60/60"), "{followed}");
    for (path, words) in [("absent", &["does not exist"][..]), (".", &["is no run folder", "events.jsonl"])] {
        let folder = folder();
        run(&mut monitor(&[&folder.path().join(path)], &[])).refuses(words);
    }
    run(&mut monitor(&[&RUN], &["--json", "--follow"])).refuses(&["cannot be used with"]);
    run(&mut monitor(&[], &[])).refuses(&["<RUN>"]);
    // Lines that are no events are told and passed over.
    let folder = folder();
    let log = folder.path().join("events.jsonl");
    fs::copy(RUN.join("events.jsonl"), &log).unwrap();
    File::options().append(true).open(&log).unwrap().write_all(b"garbage\n\xff\n{\"torn").unwrap();
    run(&mut monitor(&[&log], &[])).exits(0).says(&["2 lines of", "are no events"]);
}

#[test]
fn a_followed_run_is_told_to_its_end() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    let mut live = Live::start(&mut train(&tiny_recipe(folder.path()), &run_folder, &ENDLESS));
    live.wait_for("step 00001");
    let mut command = monitor(&[&run_folder], &["--follow"]);
    let follower = command.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    fs::write(run_folder.join("control"), "lr 0.5\nstop\n").unwrap();
    live.finish().exits(0);
    let output = follower.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("learning rate x 0.5"), "{text}");
    assert!(
        text.contains("stopped by command") && text.lines().last().unwrap().contains(": stopped | "),
        "{text}"
    );
}

#[test]
fn pictures_and_tensorboard_files_are_made_of_logs() {
    let folder = folder();
    let png = folder.path().join("charts.png");
    let png_name = png.to_str().unwrap();
    run(&mut monitor(&[&RUN, &RUN], &["--png", png_name, "--size", "640x480"])).exits(0).says(&["wrote "]);
    let bytes = fs::read(&png).unwrap();
    // The size stands in the header chunk.
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    assert_eq!(bytes[16..24], [0, 0, 2, 128, 0, 0, 1, 224]);
    run(&mut monitor(&[&RUN], &["--png", png_name, "--size", "5x5"])).refuses(&["5x5", "320x240"]);
    run(&mut monitor(&[&RUN], &["--png", png_name, "--size", "big"])).refuses(&["as in 1200x900"]);
    run(&mut monitor(&[&RUN], &["--png", "/proc/none/a.png"])).refuses(&["/proc/none/a.png"]);
    let board = folder.path().join("board");
    copy(&RUN, &folder.path().join("b/run"));
    let twin = folder.path().join("b/run");
    run(&mut monitor(&[&RUN, &twin], &["--tensorboard", board.to_str().unwrap()])).exits(0);
    let file = "events.out.tfevents.0000000001.fornax";
    let [one, two] = ["run", "run-2"].map(|name| fs::read(board.join(name).join(file)).unwrap());
    assert!(one.len() == two.len() && one.len() > 5_000, "{} {}", one.len(), two.len());
}
