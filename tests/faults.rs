//! Damage, a second process, and folders that cannot be written: what the program says and does.
//!
//! Rows C4, C11, C12 and C15 of the reliability table, on the level of whole runs.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use common::{Live, copy, flip, folder, fornax, generate, paths_below, resume, run, tiny_recipe, train};
use fornax_base::rng::rng;
use fornax_train::checkpoint;
use fornax_train::events::{TrainEvent, read_events};
use rustix::process::{Signal, getuid};
use tempfile::TempDir;

static FINISHED: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults-finished");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let run_folder = folder.join("run");
    run(&mut train(&tiny_recipe(&folder), &run_folder, &[])).exits(0);
    run_folder
});

/// A copy of a finished run with checkpoints of steps 55 and 60.
fn finished() -> (TempDir, PathBuf) {
    let folder = folder();
    let run_folder = folder.path().join("run");
    copy(&FINISHED, &run_folder);
    (folder, run_folder)
}

/// A run that would go on for hours.
fn endless(folder: &Path, sets: &[&str]) -> (PathBuf, Live) {
    let run_folder = folder.join("run");
    let sets = [&["train.steps=100_000_000", "log.every=20"], sets].concat();
    let live = Live::start(&mut train(&tiny_recipe(folder), &run_folder, &sets));
    (run_folder, live)
}

const CHECKPOINT_FILES: [&str; 4] = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"];

#[test]
fn a_flipped_byte_in_the_newest_checkpoint_is_passed_over_and_said() {
    for (n, file) in CHECKPOINT_FILES.into_iter().enumerate() {
        let (_folder, run_folder) = finished();
        let damaged = checkpoint::folder_of(&run_folder, 60).join(file);
        let length = fs::metadata(&damaged).unwrap().len();
        flip(&damaged, rng(11, n as u64, "flip").below(length) as usize);
        let exact = run(resume(&run_folder, &[]).args(["--step", "60"]));
        exact.exits(4).says(&["error: ", "step-00000060"]);
        run(&mut resume(&run_folder, &[])).exits(0).says(&["resumed at step 55", "passed over", "step-00000060"]);
        let events = read_events(&run_folder.join("events.jsonl")).unwrap();
        let skipped = events.iter().find_map(|event| match event {
            TrainEvent::Resumed { step: 55, skipped, .. } => Some(skipped.clone()),
            _ => None,
        });
        assert!(skipped.is_some_and(|s| s.len() == 1 && s[0].contains("step-00000060")), "{file}");
        // The step taken again replaces the damaged checkpoint by the same bytes a whole one had.
        for name in ["model.safetensors", "optimizer.safetensors"] {
            let read = |run: &Path| fs::read(checkpoint::folder_of(run, 60).join(name)).unwrap();
            assert!(read(&run_folder) == read(&FINISHED), "{name} after damage to {file}");
        }
    }
}

#[test]
fn without_a_whole_checkpoint_nothing_is_trained() {
    let (_folder, run_folder) = finished();
    for step in [55, 60] {
        flip(&checkpoint::folder_of(&run_folder, step).join("model.safetensors"), 1000);
    }
    let before = paths_below(&run_folder);
    let words = ["no checkpoint of", "step-00000055", "step-00000060"];
    let ran = run(&mut resume(&run_folder, &[])).exits(4).says(&words);
    assert!(!ran.stderr.contains("training 39,"), "{ran:#?}");
    assert_eq!(paths_below(&run_folder), before);
    // The exported model is whole; without it, `generate` would need a checkpoint.
    run(&mut generate(&run_folder, &["--prompt", "One", "--max-tokens", "2"])).exits(0);
}

#[test]
fn damaged_shards_are_named_before_training() {
    let shard = |run: &Path| run.join("data/train-00000.shard");
    let length = fs::metadata(shard(&FINISHED)).unwrap().len() as usize;
    let documents = u64::from_le_bytes(fs::read(shard(&FINISHED)).unwrap()[32..40].try_into().unwrap());
    let tokens_at = 128 + 8 * documents as usize;
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(Damage<'_>, &[&str]); 6] = [
        (&|run| fs::remove_file(shard(run)).unwrap(), &["is not usable"]),
        (
            &|run| fs::write(shard(run), &fs::read(shard(run)).unwrap()[..length / 2]).unwrap(),
            &["its header needs"],
        ),
        (&|run| fs::write(shard(run), b"").unwrap(), &["is not usable"]),
        (&|run| flip(&shard(run), tokens_at + 2 * 777), &["has sha-256"]),
        (&|run| flip(&shard(run), 3), &["has magic"]),
        (
            &|run| {
                let mut bytes = fs::read(shard(run)).unwrap();
                bytes[tokens_at + 2 * 777..][..2].copy_from_slice(&60_000u16.to_le_bytes());
                fs::write(shard(run), bytes).unwrap();
            },
            &["token 777 has id 60000", "vocabulary ends at 400"],
        ),
    ];
    for (damage, words) in cases {
        let (_folder, run_folder) = finished();
        fs::remove_dir_all(checkpoint::folder_of(&run_folder, 60)).unwrap();
        damage(&run_folder);
        let before = paths_below(&run_folder);
        let ran = run(&mut resume(&run_folder, &[])).exits(4).says(words).says(&["train-00000.shard"]);
        assert!(!ran.stderr.contains("training 39,"), "{ran:#?}");
        assert_eq!(paths_below(&run_folder), before, "{words:?}");
    }
}

#[test]
fn a_second_process_is_refused_and_a_dead_one_replaced() {
    let folder = folder();
    let (run_folder, mut live) = endless(folder.path(), &[]);
    live.wait_for("step 00001");
    let pid = format!("in use by process {}", live.id());
    run(&mut resume(&run_folder, &[])).refuses(&[&pid]);
    run(&mut train(&tiny_recipe(folder.path()), &run_folder, &[])).refuses(&[&pid]);
    live.wait_for("saved");
    assert!(live.signal(Signal::KILL));
    live.finish();
    let lock = fs::read_to_string(run_folder.join("lock")).unwrap();
    assert!(!lock.trim().is_empty(), "a killed process leaves its id");
    let mut next = Live::start(&mut resume(&run_folder, &[]));
    next.wait_for("resumed at step");
    next.wait_for("| loss");
    assert!(next.signal(Signal::TERM));
    next.finish().exits(143);
}

#[test]
fn a_run_deleted_under_its_process_ends_after_three_failed_saves() {
    let folder = folder();
    let (run_folder, mut live) = endless(folder.path(), &[]);
    live.wait_for("saved");
    // A save under way puts a file into a folder that is being deleted.
    while fs::remove_dir_all(&run_folder).is_err() || run_folder.exists() {}
    assert!(live.ends_within(Duration::from_secs(60)), "it goes on without its folder");
    let ran = live.finish().exits(1).says(&[
        "warning: checkpoint at step",
        "was not saved",
        "error: checkpoints could not be saved 3 times in a row",
    ]);
    assert_eq!(ran.stderr.matches("warning: ").count(), 2, "{ran:#?}");
    assert!(!run_folder.exists(), "{:?}", paths_below(&run_folder));
}

#[test]
fn a_signal_without_a_checkpoint_is_not_called_saved() {
    let folder = folder();
    let (run_folder, mut live) = endless(folder.path(), &["checkpoint.every=100_000_000"]);
    live.wait_for("step 00001");
    let checkpoints = run_folder.join("checkpoints");
    fs::rename(&checkpoints, folder.path().join("aside")).unwrap();
    fs::write(&checkpoints, "in the way").unwrap();
    assert!(live.signal(Signal::TERM));
    let ran = live.finish().exits(1).says(&["error: checkpoints could not be saved 3 times in a row"]);
    assert!(!ran.stderr.contains("after saving"), "{ran:#?}");
}

#[test]
fn a_failed_save_is_tried_again_at_the_next_occasion() {
    let folder = folder();
    let (run_folder, mut live) = endless(folder.path(), &["checkpoint.every=200"]);
    live.wait_for("saved");
    let (checkpoints, aside) = (run_folder.join("checkpoints"), folder.path().join("aside"));
    fs::rename(&checkpoints, &aside).unwrap();
    fs::write(&checkpoints, "in the way").unwrap();
    live.wait_for("was not saved");
    fs::remove_file(&checkpoints).unwrap();
    fs::rename(&aside, &checkpoints).unwrap();
    live.wait_for("saved /");
    assert!(live.signal(Signal::TERM));
    live.finish().exits(143);
    let (found, skipped) = checkpoint::newest_valid(&run_folder).unwrap();
    assert!(found.is_some() && skipped.is_empty(), "{skipped:?}");
}

#[test]
fn an_export_that_fails_is_a_failure_at_run_time() {
    let (_folder, run_folder) = finished();
    fs::remove_dir_all(run_folder.join("model")).unwrap();
    fs::write(run_folder.join("model"), "in the way").unwrap();
    run(&mut resume(&run_folder, &[])).exits(1).says(&["error: ", "model"]);
    fs::remove_file(run_folder.join("model")).unwrap();
    run(&mut resume(&run_folder, &[])).exits(0);
    assert!(run_folder.join("model/model.safetensors").exists());
}

#[test]
fn a_run_folder_below_a_file_is_refused() {
    let folder = folder();
    let recipe = tiny_recipe(folder.path());
    let below = recipe.join("run");
    let shown = below.display().to_string();
    run(&mut train(&recipe, &below, &[])).refuses(&[&shown]);
    run(&mut resume(&below, &[])).refuses(&[&shown]);
}

/// The program as a user whom permissions bind, which root is not.
fn bound_by_permissions(mut command: Command, binary: &Path) -> Command {
    if !getuid().is_root() {
        return command;
    }
    let mut other = Command::new(binary);
    other.args(command.get_args()).uid(65_534).gid(65_534).current_dir("/");
    std::mem::swap(&mut command, &mut other);
    command
}

#[test]
fn a_read_only_run_folder_is_refused_before_anything() {
    // Not below the target folder, which another user may not be allowed to enter.
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(folder.path(), 0o755);
    let binary = folder.path().join("fornax");
    fs::copy(env!("CARGO_BIN_EXE_fornax"), &binary).unwrap();
    let recipe = tiny_recipe(folder.path());
    let (new, old) = (folder.path().join("new"), folder.path().join("old"));
    fs::create_dir(&new).unwrap();
    copy(&FINISHED, &old);
    for path in [&new, &old] {
        open(path, 0o555);
    }
    let before = paths_below(folder.path());
    for (command, run_folder) in [(train(&recipe, &new, &[]), &new), (resume(&old, &[]), &old)] {
        let shown = format!("cannot lock `{}`", run_folder.display());
        run(&mut bound_by_permissions(command, &binary)).refuses(&[&shown, "Permission denied"]);
    }
    run(&mut bound_by_permissions(train(&recipe, &folder.path().join("deep/run"), &[]), &binary))
        .refuses(&["cannot create the folder", "Permission denied"]);
    assert_eq!(paths_below(folder.path()), before);
    let reading = generate(&old, &["--prompt", "One", "--max-tokens", "2"]);
    run(&mut bound_by_permissions(reading, &binary)).exits(0);
    for path in [&new, &old] {
        open(path, 0o755);
    }
}

#[test]
fn a_recipe_that_is_no_text_file_is_refused() {
    let folder = folder();
    let path = folder.path().join("recipe.toml");
    for bytes in [&b"\xff\xfe\x00"[..], b"[model", b"", &vec![b'#'; 2 << 20]] {
        fs::write(&path, bytes).unwrap();
        run(&mut train(&path, &folder.path().join("run"), &[])).refuses(&["recipe.toml"]);
    }
    run(&mut train(folder.path(), &folder.path().join("run"), &[])).refuses(&[]);
    run(&mut fornax(["train", "absent.toml"])).refuses(&["absent.toml"]);
    assert!(!folder.path().join("run").exists());
}
