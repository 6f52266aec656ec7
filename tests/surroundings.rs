//! What surrounds a run and must not change it: a disk that fills up, a clock that jumps, locale, umask, odd names.
//!
//! Rows C3 and C17 of the reliability table.

#![allow(clippy::print_stdout, reason = "a test that cannot run here says so")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use common::{Live, Ran, folder, resume, run, tiny_recipe, train};
use fornax_train::checkpoint;

/// Steps of the runs here.
const STEPS: [&str; 2] = ["train.steps=20", "checkpoint.every=5"];

static STRAIGHT: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("surroundings-straight");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let run_folder = folder.join("run");
    run(&mut train(&tiny_recipe(&folder), &run_folder, &STEPS)).exits(0);
    run_folder
});

#[track_caller]
fn assert_equals_straight(run: &Path) {
    let last = format!("checkpoints/{}", checkpoint::folder_name(20));
    for file in ["model/model.safetensors", &format!("{last}/model.safetensors"), &format!("{last}/state.json")] {
        let read = |run: &Path| fs::read(run.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(read(run) == read(&STRAIGHT), "{file} differs in {}", run.display());
    }
}

/// `program` behind a shell that runs `before` and then becomes it.
fn behind(before: &str, program: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{before}; exec \"$0\" \"$@\"")])
        .arg(program.get_program())
        .args(program.get_args());
    shell
}

#[test]
fn c17_locale_umask_and_names_change_nothing() {
    let folder = folder();
    let recipe = tiny_recipe(folder.path());
    let long = "n".repeat(255);
    for name in ["with spaces and 'quotes'", "grüße-日本-🦀", &long, "-leading", "new\nline"] {
        let run_folder = folder.path().join(name);
        let mut command = behind("umask 077", &train(&recipe, &run_folder, &STEPS));
        command.env("LC_ALL", "tr_TR.UTF-8").env("LANG", "de_DE@euro").env("TZ", "Pacific/Apia");
        run(&mut command).exits(0);
        assert_equals_straight(&run_folder);
        let mode = fs::metadata(run_folder.join("model/model.safetensors")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name:?}");
    }
}

/// The library that gives a process another clock (Debian's package `faketime`), where it is installed.
fn libfaketime() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime"];
    let found = folders.map(|folder| Path::new(folder).join("libfaketimeMT.so.1"));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("not run: libfaketime is not installed (Debian's package `faketime`)");
    }
    found
}

#[test]
fn c17_a_clock_that_jumps_back_changes_nothing() {
    let Some(library) = libfaketime() else { return };
    let folder = folder();
    let (clock, run_folder) = (folder.path().join("clock"), folder.path().join("run"));
    fs::write(&clock, "+0").unwrap();
    let mut command = train(&tiny_recipe(folder.path()), &run_folder, &STEPS);
    command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
    // The monotonic clock cannot jump on a real machine; the wall clock does.
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut live = Live::start(&mut command);
    live.wait_for("step 00001");
    fs::write(&clock, "-1h").unwrap();
    live.finish().exits(0);
    assert_equals_straight(&run_folder);
}

/// Runs the program with its run folder on a disk of `kilobytes`, in a mount namespace of its own, and copies what is
/// on that disk afterwards to `out`. `None` where the system gives no such namespace.
fn on_small_disk(kilobytes: u32, program: &Command, disk: &Path, out: &Path) -> Option<Ran> {
    let try_it = Command::new("unshare").args(["--mount", "--map-root-user", "true"]).output();
    if !try_it.is_ok_and(|tried| tried.status.success()) {
        println!("not run: this system gives no mount namespace (`unshare --mount --map-root-user`)");
        return None;
    }
    let script = format!(
        "mount -t tmpfs -o size={kilobytes}k tmpfs \"$DISK\" || exit 99; \"$0\" \"$@\"; code=$?; \
         cp -r \"$DISK/.\" \"$OUT\" || exit 98; exit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", &script]);
    command.arg(program.get_program()).args(program.get_args()).env("DISK", disk).env("OUT", out);
    Some(run(&mut command))
}

/// Bytes of all files below a folder, in kilobytes.
fn kilobytes_below(folder: &Path) -> u32 {
    let output = Command::new("du").args(["-sk", "--apparent-size"]).arg(folder).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap().parse().unwrap()
}

/// On a real disk with room for the data and two checkpoints, the saves after them fail: one warning for each, exit 1
/// after three, and the checkpoints there before load. With room again the run goes on to the same bytes.
#[test]
fn c3_a_full_disk_costs_no_checkpoint() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for name in ["disk", "out"] {
        fs::create_dir(at(name)).unwrap();
    }
    let one = kilobytes_below(&STRAIGHT.join("checkpoints").join(checkpoint::folder_name(20)));
    let rest = kilobytes_below(&STRAIGHT.join("data")) + kilobytes_below(&STRAIGHT.join("checkpoints")) - 2 * one;
    let recipe = tiny_recipe(folder.path());
    let command = train(&recipe, &at("disk").join("run"), &[STEPS[0], "checkpoint.every=1"]);
    // Half a checkpoint of room beyond the two: a third can be begun and not finished.
    let Some(ran) = on_small_disk(rest + 2 * one + one / 2 + 40, &command, &at("disk"), &at("out")) else {
        return;
    };
    let ran = ran.exits(1).says(&["warning: checkpoint at step", "No space left on device"]);
    let ran = ran.says(&["error: checkpoints could not be saved 3 times in a row"]);
    assert_eq!(ran.stderr.matches("was not saved").count(), 2, "one warning for each attempt: {ran:#?}");
    let run_folder = at("out").join("run");
    let (found, skipped) = checkpoint::newest_valid(&run_folder).unwrap();
    assert!(found.is_some() && skipped.is_empty(), "{skipped:?}");
    run(&mut resume(&run_folder, &["checkpoint.every=5"])).exits(0);
    assert_equals_straight(&run_folder);
}
