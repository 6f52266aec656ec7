//! Whole screens against stored ones. `FORNAX_NEW_SCREENS=1` stores them anew; look at the difference before keeping it.

use std::path::Path;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::chart::Looks;
use super::draw::draw;
use super::keys::keys;
use super::testing::run;
use super::view::{Mode, Monitor};
use super::{Phase, picture};
use crate::events::{StopReason, TrainEvent};

const FULL: Looks = Looks { unicode: true, colour: true };
const ASCII: Looks = Looks { unicode: false, colour: false };

fn monitor(runs: &[(&str, u64, f64)], mode: Mode, looks: Looks) -> Monitor {
    let mut monitor = Monitor::new(runs.iter().map(|(name, ..)| name.to_string()), mode, looks);
    for (index, (name, done, offset)) in runs.iter().enumerate() {
        run(name, *done, 2000, *offset).iter().for_each(|event| monitor.absorb(index, event));
    }
    monitor
}

fn press(monitor: &mut Monitor, text: &str) {
    for key in keys(text.as_bytes()) {
        monitor.press(key);
    }
}

fn screen(monitor: &Monitor, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(monitor, frame)).unwrap();
    terminal.backend().clone()
}

fn lines(monitor: &Monitor, width: u16, height: u16) -> String {
    let backend = screen(monitor, width, height);
    let rows = backend.buffer().content().chunks(usize::from(width));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n").collect()
}

#[track_caller]
fn check(name: &str, monitor: &Monitor, width: u16, height: u16) {
    let shown = lines(monitor, width, height);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/monitor/tests/screens").join(name);
    if std::env::var_os("FORNAX_NEW_SCREENS").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shown == stored, "{name} is now:\n{shown}\nand was:\n{stored}");
}

#[test]
fn one_run_at_80x24() {
    check("one-80x24.txt", &monitor(&[("runs/shakespeare", 1200, 0.0)], Mode::Attached, FULL), 80, 24);
}

#[test]
fn one_run_at_200x60() {
    check("one-200x60.txt", &monitor(&[("runs/shakespeare", 1200, 0.0)], Mode::Training, FULL), 200, 60);
}

#[test]
fn one_run_in_plain_ascii() {
    let monitor = monitor(&[("runs/shakespeare", 1200, 0.0)], Mode::Attached, ASCII);
    check("ascii-80x24.txt", &monitor, 80, 24);
    let backend = screen(&monitor, 80, 24);
    for cell in backend.buffer().content() {
        assert!(cell.symbol().is_ascii(), "{:?}", cell.symbol());
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{:?}", cell.symbol());
    }
}

#[test]
fn several_runs_are_told_apart_by_letters_and_colours() {
    let runs =
        [("runs/a", 2000, 0.0), ("runs/with-a-rather-long-name-of-its-own", 1500, 0.4), ("runs/c", 400, 0.8)];
    let mut several = monitor(&runs, Mode::Attached, FULL);
    press(&mut several, "\t");
    check("three-100x30.txt", &several, 100, 30);
    let backend = screen(&several, 100, 30);
    let colours: std::collections::HashSet<_> =
        backend.buffer().content().iter().filter(|cell| cell.symbol() == "B").map(|cell| cell.fg).collect();
    assert!(colours.contains(&Color::Yellow), "{colours:?}");
    check("three-ascii-100x30.txt", &monitor(&runs, Mode::Attached, ASCII), 100, 30);
}

#[test]
fn a_replay_questions_and_help() {
    let mut replay = monitor(&[("runs/shakespeare", 700, 0.0)], Mode::Replay, FULL);
    replay.state = Some("replay x10, playing at 23 m 20 s".into());
    check("replay-80x24.txt", &replay, 80, 24);
    let mut asking = monitor(&[("runs/shakespeare", 700, 0.0)], Mode::Attached, FULL);
    press(&mut asking, "l0.5");
    assert!(lines(&asking, 80, 24).contains("multiply the learning rate of runs/shakespeare by: 0.5_"));
    press(&mut asking, "\x1bx");
    assert!(lines(&asking, 80, 24).contains("stop runs/shakespeare after saving? y / n"));
    press(&mut asking, "n?");
    check("help-80x24.txt", &asking, 80, 24);
}

#[test]
fn zoom_log_axis_and_hidden_panes_show() {
    let mut monitor = monitor(&[("runs/shakespeare", 1200, 0.0)], Mode::Attached, FULL);
    press(&mut monitor, "++g67s");
    check("zoomed-80x24.txt", &monitor, 80, 24);
    press(&mut monitor, "12345");
    let shown = lines(&monitor, 80, 24);
    assert!(!shown.contains("loss (log)") && !shown.contains("tokens/s ") && !shown.contains("log\n"), "{shown}");
}

#[test]
fn states_of_a_run() {
    let mut monitor = monitor(&[("runs/a", 700, 0.0)], Mode::Attached, FULL);
    let event = TrainEvent::LrFactor { step: 700, factor: 0.5 };
    monitor.absorb(0, &event);
    let shown = lines(&monitor, 100, 24);
    assert!(shown.contains("lr x0.5") && shown.contains("learning rate x 0.5 from here on"), "{shown}");
    monitor.runs[0].is_alive = Some(false);
    assert!(lines(&monitor, 100, 24).contains("no process"));
    let reason = StopReason::NonFinite;
    monitor.absorb(0, &TrainEvent::Stopped { step: 700, reason, message: "loss is NaN".into() });
    let shown = lines(&monitor, 100, 24);
    assert!(shown.contains("stopped") && shown.contains("loss is NaN") && !shown.contains("eta"), "{shown}");
    assert_eq!(monitor.runs[0].history.phase, Phase::Stopped(reason));
    let empty = Monitor::new(["runs/new".to_owned()], Mode::Attached, FULL);
    let shown = lines(&empty, 80, 24);
    assert!(shown.contains("no events yet") && shown.contains("no data yet"), "{shown}");
}

#[test]
fn every_size_down_to_1x1_is_drawn() {
    for looks in [FULL, ASCII] {
        let mut one = monitor(&[("runs/shakespeare", 1200, 0.0)], Mode::Attached, looks);
        let three = monitor(&[("a", 20, 0.0), ("b", 900, 0.5), ("c", 0, 0.0)], Mode::Training, looks);
        let none = Monitor::new(Vec::new(), Mode::Replay, looks);
        for (width, height) in (1..=40).flat_map(|w| (1..=20).map(move |h| (w * 5 - 4, h * 3 - 2))) {
            for monitor in [&one, &three, &none] {
                screen(monitor, width, height);
            }
            one.shows_help ^= true;
        }
    }
    check("tiny-24x8.txt", &monitor(&[("runs/shakespeare", 1200, 0.0)], Mode::Attached, FULL), 24, 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_keys_in_any_mode_on_any_screen(
        typed in proptest::collection::vec("[+\\-0gs1-9\t?hqxwplyn.<> \r\u{1b}\u{7f}]|\u{1b}\\[[ABCDFHZ]|\u{3}", 0..30),
        width in 1u16..120, height in 1u16..40, mode in 0usize..3, done in 0u64..60
    ) {
        let mode = [Mode::Attached, Mode::Training, Mode::Replay][mode];
        let mut monitor = Monitor::new(["a".to_owned(), "b".to_owned()], mode, FULL);
        run("a", done, 40, 0.0).iter().for_each(|event| monitor.absorb(0, event));
        for piece in typed {
            press(&mut monitor, &piece);
        }
        screen(&monitor, width, height);
    }
}

#[test]
fn a_long_run_is_drawn_from_bounded_memory() {
    let mut monitor = Monitor::new(["a".to_owned()], Mode::Attached, FULL);
    for at in 1..=300_000 {
        monitor.absorb(0, &super::testing::step(at, 2.0 + (at as f64).recip()));
    }
    let shown = lines(&monitor, 80, 24);
    assert!(shown.contains("300k") || shown.contains("200k"), "{shown}");
    press(&mut monitor, "++++++++");
    screen(&monitor, 200, 60);
}

#[test]
fn a_picture_has_its_size_and_its_curves() {
    let monitor = monitor(&[("runs/a", 2000, 0.0), ("runs/b", 1500, 0.4)], Mode::Attached, FULL);
    let runs: Vec<_> = monitor.runs.iter().map(|run| (run.name.as_str(), &run.history)).collect();
    let png = picture::png(&runs, &monitor.view(), 900, 600).unwrap();
    let pixels = tiny_skia::Pixmap::decode_png(&png).unwrap();
    assert_eq!((pixels.width(), pixels.height()), (900, 600));
    let count =
        |colour: [u8; 3]| pixels.pixels().iter().filter(|p| [p.red(), p.green(), p.blue()] == colour).count();
    // Both runs' curves in their colours, on white.
    assert!(count([0, 114, 178]) > 300 && count([213, 94, 0]) > 300 && count([255; 3]) > 300_000);
    for (width, height) in [(320, 240), (320, 2000), (3000, 240)] {
        for runs in [&runs[..], &runs[..1], &[]] {
            picture::png(runs, &monitor.view(), width, height).unwrap();
        }
    }
    let error = picture::png(&runs, &monitor.view(), 100, 600).unwrap_err();
    assert!(error.to_string().contains("100x600"), "{error}");
}
