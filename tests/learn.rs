//! The exercises: each fails as it is shipped and passes with its answer, the usual mistakes are named, and checking
//! builds nothing that the program itself has built.
//!
//! Row K6 of the reliability table. The real `fornax learn` drives the real cargo, in the target folder of these tests.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use common::{copy, folder, fornax, paths_below};
use serde_json::Value;

const EXERCISES: [&str; 22] = [
    "01-bpe-merge",
    "02-trace",
    "03-rms-norm",
    "04-rope",
    "05-attention",
    "06-cross-entropy",
    "07-adamw",
    "08-schedule",
    "09-chat-mask",
    "10-packing",
    "11-lora",
    "12-dpo",
    "13-preference-accuracy",
    "14-group-advantage",
    "15-kl-divergence",
    "16-packed-gradient",
    "17-sampler-chain",
    "18-kv-cache",
    "19-block-allocator",
    "20-continuous-batching",
    "21-speculative-acceptance",
    "22-grammar-mask",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn course() -> PathBuf {
    root().join("docs/learn")
}

/// `fornax learn WORDS --dir COURSE`, building where these tests were built.
fn learn(words: &[&str], course: &Path) -> Command {
    let mut command = fornax(["learn"]);
    command.args(words).arg("--dir").arg(course);
    command.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap());
    command
}

/// Held while an exercise is built and run: programs of the real course and of its copy have one name in the target
/// folder, and the tests here run side by side.
static BUILDING: Mutex<()> = Mutex::new(());

/// Runs to the end, however long a build takes: the limit of the other tests is for programs that hang.
#[track_caller]
fn run(mut command: Command, exit: i32) -> (String, String) {
    let builds = command.get_args().any(|argument| argument == "check");
    let _alone = builds.then(|| BUILDING.lock().unwrap_or_else(PoisonError::into_inner));
    let Output { status, stdout, stderr } = command.output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(status.code(), Some(exit), "{command:?}\n{stdout}\n{stderr}");
    assert!(!stdout.contains('\x1b') && !stderr.contains("this is a bug"), "{stdout}\n{stderr}");
    (stdout, stderr)
}

/// Each exercise of a `--json` answer by its name.
fn exercises(stdout: &str) -> BTreeMap<String, Value> {
    let answer: Value = serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    let all = answer["exercises"].as_array().unwrap().iter();
    all.map(|exercise| (exercise["name"].as_str().unwrap().to_owned(), exercise.clone())).collect()
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    paths_below(folder).into_iter().map(|path| (path.clone(), fs::read(folder.join(path)).ok())).collect()
}

#[test]
fn k6_every_exercise_fails_unsolved_and_passes_solved() {
    let before = contents(&course());
    let (stdout, stderr) = run(learn(&["check", "all", "--start", "--json"], &course()), 5);
    assert!(stderr.contains("error: 22 of 22 exercises are not passed"), "{stderr}");
    let found = exercises(&stdout);
    assert!(found.keys().eq(EXERCISES), "{found:?}");
    for (name, exercise) in &found {
        assert_eq!(exercise["state"], "unwritten", "{name}: {exercise}");
        let checks = exercise["checks"].as_array().unwrap();
        assert!(
            checks.len() >= 3 && checks.iter().all(|check| check["outcome"] == "unwritten"),
            "{name}: {checks:?}"
        );
    }
    let (stdout, _) = run(learn(&["check", "all", "--solution", "--json"], &course()), 0);
    for (name, exercise) in exercises(&stdout) {
        assert_eq!(exercise["state"], "passed", "{name}: {exercise}");
    }
    let after = contents(&course());
    let changed = |path: &&String| before.get(*path) != after.get(*path);
    let changed: Vec<&String> = before.keys().chain(after.keys()).filter(changed).collect();
    assert!(changed.is_empty(), "a check changed {changed:?}");
}

/// Changes to an answer, and what the check must say to each.
type Mistakes = [(&'static str, &'static [(&'static str, &'static str)], &'static str); 22];

const COMMON: Mistakes = [
    (
        "01-bpe-merge",
        &[("(count, bytes(left), bytes(right))", "(count, std::cmp::Reverse((bytes(left), bytes(right))))")],
        "among equally frequent pairs yours takes the smaller one",
    ),
    ("02-trace", &[("*x += y;", "*x = y;")], "the branches replace the residual stream"),
    (
        "03-rms-norm",
        &[("(mean_square + eps).sqrt()", "mean_square.sqrt()")],
        "your output equals RMSNorm without epsilon",
    ),
    (
        "04-rope",
        &[("row[i + half]", "row[2 * i + 1]"), ("row[i]", "row[2 * i]")],
        "your output equals interleaved RoPE (GPT-J), not rotate-half",
    ),
    ("05-attention", &[("s - t + query + 1", "(s - t + query + 2).min(s)")], "the mask lets position t see t + 1"),
    (
        "06-cross-entropy",
        &[("    (sum, counted)\n", "    (sum / targets_n.len() as f32, counted)\n")],
        "the sum is divided by all rows, not only those that count",
    ),
    (
        "07-adamw",
        &[("1.0 - beta1.powi(update as i32)", "1.0"), ("1.0 - beta2.powi(update as i32)", "1.0")],
        "bias correction missing",
    ),
    ("08-schedule", &[("(step + 1) as f64 / (warmup + 1)", "step as f64 / warmup")], "warm-up starts at rate 0"),
    ("09-chat-mask", &[("own && i > head", "own")], "the head of the assistant's message is trained"),
    (
        "10-packing",
        &[(" && documents[key] == documents[query]", "")],
        "an example sees those before it in the row",
    ),
    ("11-lora", &[("+ scale(adapter, sizes) * up", "+ up")], "the scale is missing"),
    (
        "12-dpo",
        &[
            ("(pair.chosen - pair.reference_chosen)", "pair.chosen"),
            ("(pair.rejected - pair.reference_rejected)", "pair.rejected"),
        ],
        "the reference is missing",
    ),
    ("13-preference-accuracy", &[("c > r", "c >= r")], "equal scores are counted as won"),
    ("14-group-advantage", &[("(group as f32 - 1.0)", "group as f32")], "the deviation divides by n"),
    ("15-kl-divergence", &[("reference_logp - logp", "logp - reference_logp")], "model and reference are swapped"),
    ("16-packed-gradient", &[("(w / scale).round()", "(w / scale)")], "the codes are cut off, not rounded"),
    (
        "17-sampler-chain",
        &[("before >= p", "before + probabilities[id] >= p")],
        "the token with which p is reached is dropped",
    ),
    (
        "18-kv-cache",
        &[(".min(asked.len().saturating_sub(1))", "")],
        "no token is left whose logits could be computed",
    ),
    (
        "19-block-allocator",
        &[
            ("self.known.get(&ids[..n * len])", "self.known.get(&ids[(n - 1) * len..n * len])"),
            (".entry(ids[..(n + 1) * len].to_vec())", ".entry(ids[n * len..(n + 1) * len].to_vec())"),
        ],
        "keys depend on everything before them",
    ),
    (
        "20-continuous-batching",
        &[
            (
                "s| missing(s) == 1) {\n            compute(sequence.id, 1)",
                "s| missing(s) > 1) {\n            compute(sequence.id, missing(&sequence))",
            ),
            (
                "s| missing(s) > 1) {\n            compute(sequence.id, missing(&sequence));\n        }\n        while",
                "s| missing(s) == 1) {\n            compute(sequence.id, 1);\n        }\n        while",
            ),
        ],
        "a long prompt holds everybody up",
    ),
    (
        "21-speculative-acceptance",
        &[("draw(&residual(p, q), uniform())", "draw(p, uniform())")],
        "is replaced from the target, not from the residual",
    ),
    ("22-grammar-mask", &[("live[state].then_some(state)", "Some(state)")], "from where no text ends any more"),
];

const OTHERS: Mistakes = [
    ("01-bpe-merge", &[("or_default() += count", "or_default() += 1")], "each word counts once"),
    ("02-trace", &[("(decoder.norm)(&x_tc)", "x_tc.clone()")], "the last normalization is missing"),
    ("03-rms-norm", &[("/ row_c.len() as f32", "")], "the squares are summed"),
    ("04-rope", &[("(position as f32 * inverse_k[i])", "(-(position as f32) * inverse_k[i])")], "goes backwards"),
    ("05-attention", &[("head / (h / g)", "head % g")], "query head i reads key-value head i % g"),
    (
        "06-cross-entropy",
        &[("- onehot) / counted as f32", "- onehot) / mask_n.iter().filter(|counts| **counts).count() as f32")],
        "the gradient is divided by the targets of this micro-batch",
    ),
    (
        "07-adamw",
        &[("(square / correction2).sqrt() + eps", "(square / correction2 + eps).sqrt()")],
        "epsilon stands under the root",
    ),
    (
        "08-schedule",
        &[("total.saturating_sub(falling).max(warmup)", "warmup")],
        "the rate falls from the end of warm-up on",
    ),
    ("09-chat-mask", &[("own && i > head", "own && i > head && i <= text.len()")], "it would never learn to stop"),
    ("10-packing", &[("std::cmp::Reverse(lengths[i])", "i")], "in the order they came"),
    (
        "11-lora",
        &[("w + scale(adapter, sizes) * product", "w - scale(adapter, sizes) * product")],
        "the product is subtracted",
    ),
    (
        "12-dpo",
        &[("wrong / counted as f32", "wrong / pairs.len() as f32")],
        "divided by the pairs of this micro-batch",
    ),
    ("13-preference-accuracy", &[("0.5 * count.drawn as f64", "0.0")], "equal lengths are lost"),
    (
        "14-group-advantage",
        &[("sum / tokens as f32", "sum / answers.len() as f32")],
        "it is divided by the tokens",
    ),
    ("15-kl-divergence", &[("(q - p - kl)", "(q - p)")], "the divergence itself is missing"),
    (
        "16-packed-gradient",
        &[("if bits < 8 { bits as i32 } else { bits as i32 - 16 }", "bits as i32")],
        "the sign is lost",
    ),
    (
        "17-sampler-chain",
        &[("if *logit > 0.0 { *logit / penalty } else { *logit * penalty }", "*logit / penalty")],
        "a negative logit is divided",
    ),
    ("18-kv-cache", &[("(self.len..self.len + t)", "(0..t)")], "the positions begin at 0"),
    (
        "19-block-allocator",
        &[("&& self.holders[*last as usize] > 1", "&& self.holders[*last as usize] > 9")],
        "written in place, and another sequence reads it",
    ),
    (
        "20-continuous-batching",
        &[("self.waiting.push_front(last)", "self.waiting.push_back(last)")],
        "waits behind those that came later",
    ),
    (
        "21-speculative-acceptance",
        &[("(target / draft).min(1.0)", "(draft / target).min(1.0)")],
        "the ratio is upside down",
    ),
    ("22-grammar-mask", &[("true => automaton.accepts[state],", "true => true,")], "the text may end anywhere"),
];

/// A copy of the course that does not share built programs with the real one: cargo compares times of files alone,
/// and would take what it built from the copy for the reader's own.
fn copied_course() -> PathBuf {
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("learn-copy");
    let _ = fs::remove_dir_all(&to);
    copy(&course(), &to);
    let change = |name: &str, changes: &[(&str, &str)]| {
        let text = changes.iter().fold(fs::read_to_string(to.join(name)).unwrap(), |text, (from, to)| {
            assert!(text.contains(from), "{name} has no {from}");
            text.replace(from, to)
        });
        fs::write(to.join(name), text).unwrap();
    };
    let up = root().display().to_string() + "/";
    change("Cargo.toml", &[("version = \"0.0.0\"", "version = \"0.0.1\""), ("\"../../", &format!("\"{up}"))]);
    change("check/Cargo.toml", &[("\"../../../", &format!("\"{up}"))]);
    for name in EXERCISES.map(|name| format!("learn-{name}")).iter().map(String::as_str).chain(["fornax-learn"]) {
        let version = |n| format!("name = \"{name}\"\nversion = \"0.0.{n}\"");
        change("Cargo.lock", &[(&version(0), &version(1))]);
    }
    for name in EXERCISES {
        fs::copy(course().join(name).join("start/lib.rs"), to.join(name).join("src/lib.rs")).unwrap();
        // An earlier run of this test left its record.
        run(learn(&["reset", name], &to), 0);
    }
    to
}

/// Writes the answer with a mistake in each exercise, and expects it to be named.
fn names_each(course: &Path, mistakes: &Mistakes, level: u64) {
    for (name, changes, _) in mistakes {
        let mut text = fs::read_to_string(course.join(name).join("solution/lib.rs")).unwrap();
        for (from, to) in *changes {
            assert!(text.contains(from), "{name}: the answer has no `{from}`");
            text = text.replace(from, to);
        }
        fs::write(course.join(name).join("src/lib.rs"), text).unwrap();
    }
    let (stdout, _) = run(learn(&["check", "all", "--json"], course), 5);
    let found = exercises(&stdout);
    for (name, _, words) in mistakes {
        let exercise = &found[*name];
        assert_eq!(exercise["state"], "failed", "{exercise}");
        let named = exercise["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["outcome"] == "failed" && check["message"].as_str().unwrap().contains(words));
        assert!(named, "{name}: `{words}` is not in {exercise}");
        assert_eq!(exercise["hint"]["level"], level, "{exercise}");
    }
}

fn state(course: &Path, name: &str) -> Value {
    let (stdout, _) = run(learn(&["list", "--json"], course), 0);
    exercises(&stdout)[name]["state"].clone()
}

#[test]
fn a_reader_is_told_the_mistake_the_hint_and_how_far_he_is() {
    let course = copied_course();
    let name = "08-schedule";
    let source = course.join(name).join("src/lib.rs");
    let [start, answer] =
        ["start", "solution"].map(|of| fs::read_to_string(course.join(name).join(of).join("lib.rs")).unwrap());
    assert_eq!(state(&course, name), "untouched");
    names_each(&course, &COMMON, 1);
    assert_eq!(state(&course, name), "started");
    names_each(&course, &OTHERS, 2);

    fs::write(&source, format!("{answer}\nfn half() -> {{\n")).unwrap();
    let (stdout, stderr) = run(learn(&["check", "08"], &course), 5);
    assert!(stdout.contains("it does not compile") && stderr.contains("src/lib.rs"), "{stdout}\n{stderr}");
    assert!(stderr.contains("error: exercise 08 does not compile"), "{stderr}");

    fs::write(&source, answer.replace("let done", "println!(\"at {step}\");\n    let done")).unwrap();
    let (stdout, stderr) = run(learn(&["check", "schedule"], &course), 0);
    assert!(stdout.starts_with("08 Learning-rate schedule\n") && !stdout.contains("at 17"), "{stdout}");
    assert!(stderr.contains("at 17"), "what the reader prints is shown: {stderr}");
    assert_eq!(state(&course, name), "passed");

    // What was written is kept, also beside an earlier backup.
    for (text, backup) in [("// mine\n", "lib.rs.bak"), ("// again\n", "lib.rs.bak2")] {
        fs::write(&source, text).unwrap();
        assert_eq!(state(&course, name), "started");
        let (_, stderr) = run(learn(&["reset", "8"], &course), 0);
        assert!(stderr.contains(backup), "{stderr}");
        assert_eq!(fs::read_to_string(source.with_file_name(backup)).unwrap(), text);
        assert_eq!(fs::read_to_string(&source).unwrap(), start);
    }
    let (_, stderr) = run(learn(&["reset", "8"], &course), 0);
    assert!(stderr.contains("is as it was shipped") && !source.with_file_name("lib.rs.bak3").exists(), "{stderr}");
}

#[test]
fn pages_hints_and_answers_are_shown() {
    for name in EXERCISES {
        let number = &name[..2];
        let (page, _) = run(learn(&["show", number], &course()), 0);
        for part in [
            "Mechanism\n---",
            "Arithmetic\n---",
            "Task\n---",
            "What to measure\n---",
            "Failure modes\n---",
            "Decision rule\n---",
        ] {
            assert!(page.contains(part), "{name} has no {part}");
        }
        assert!(!page.contains("<details>") && !page.contains("solution/lib.rs"), "{name}: {page}");
        assert!(page.contains(&format!("fornax learn check {number}")), "{page}");
        let hints = ["1", "2", "3"].map(|level| run(learn(&["show", number, "--hint", level], &course()), 0).0);
        assert!(hints.iter().all(|hint| hint.len() > 80 && !hint.contains("##")), "{name}: {hints:?}");
        assert!(hints[0].contains('?'), "a hint asks before it tells: {}", hints[0]);
        let (answer, _) = run(learn(&["show", number, "--solution"], &course()), 0);
        assert_eq!(answer, fs::read_to_string(course().join(name).join("solution/lib.rs")).unwrap());
    }
    let (list, stderr) = run(learn(&["list"], &course()), 0);
    assert!(list.contains("\n03  ") && list.contains("RMSNorm") && stderr.contains("learn show 01"), "{list}");
}

#[test]
fn what_is_no_exercise_no_course_or_no_cargo_is_refused() {
    for (word, hint) in [
        ("23", "did you mean `22`?"),
        ("0", "did you mean `01`?"),
        ("rmsnorm", "did you mean `rms-norm`?"),
        ("al", "did you mean `all`?"),
        ("-", "`fornax learn list` lists them"),
    ] {
        let (stdout, stderr) = run(learn(&["check", word], &course()), 2);
        assert!(stderr.contains(&format!("error: `{word}` is no exercise; there are 01 to 22")), "{stderr}");
        assert!(stderr.contains(hint) && stdout.is_empty(), "{stderr}");
    }
    let empty = folder();
    let (_, stderr) = run(learn(&["list"], empty.path()), 2);
    assert!(
        stderr.contains("holds no exercises") && stderr.contains("hint: the exercises come with the source"),
        "{stderr}"
    );
    let mut elsewhere = fornax(["learn", "list"]);
    elsewhere.current_dir(std::env::temp_dir());
    let (_, stderr) = run(elsewhere, 2);
    assert!(stderr.contains("no docs/learn was found in"), "{stderr}");
    let mut without_cargo = learn(&["check", "3"], &course());
    without_cargo.env_remove("CARGO").env("PATH", empty.path());
    let (_, stderr) = run(without_cargo, 2);
    assert!(stderr.contains("error: cargo was not found") && stderr.contains("hint: install Rust"), "{stderr}");
    // From a folder below, as cargo finds its manifest.
    let mut below = fornax(["learn", "list", "--json"]);
    below.current_dir(root().join("docs/concepts"));
    assert_eq!(exercises(&run(below, 0).0).len(), EXERCISES.len());
}

/// Lines from a heading `[profile...]` to the next other heading, without comments.
fn profiles(manifest: &str) -> Vec<&str> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in manifest.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            inside = line.starts_with("[profile.");
        }
        lines.extend(inside.then_some(line));
    }
    lines
}

/// Packages of a lock with version and checksum; `true` for those from a registry.
fn packages(lock: &str) -> BTreeMap<(String, String), Option<String>> {
    let value = |part: &str, key: &str| {
        let line = part.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let parts = lock.split("[[package]]").skip(1);
    parts.map(|p| ((value(p, "name").unwrap(), value(p, "version").unwrap()), value(p, "checksum"))).collect()
}

/// `name version features` of each crate that `cargo tree` lists.
fn tree(folder: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--locked", "--offline", "--prefix=none", "--format={p} {f}"]).args(arguments);
    let output = command.current_dir(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let crates = text.lines().map(|line| line.trim_end_matches(" (*)").to_owned());
    let mut crates: Vec<String> = crates.filter(|line| !line.contains(" (/") && !line.is_empty()).collect();
    crates.sort();
    crates.dedup();
    crates
}

/// What cargo tells crates apart by, besides the compiler: version, features, profile.
#[test]
fn a_check_builds_no_crate_that_the_program_has_built() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    assert_eq!(profiles(&read("docs/learn/Cargo.toml")), profiles(&read("Cargo.toml")));
    assert!(read("Cargo.toml").contains("\"docs/learn\""), "docs/learn is excluded from the workspace");

    let (ours, roots) = (packages(&read("docs/learn/Cargo.lock")), packages(&read("Cargo.lock")));
    let differ = |(package, checksum): &(&(String, String), &Option<String>)| {
        checksum.is_some() && roots.get(*package) != Some(*checksum)
    };
    let differ: Vec<_> = ours.iter().filter(differ).map(|(package, _)| package).collect();
    let again = "`cp Cargo.lock docs/learn && cargo update --workspace --manifest-path docs/learn/Cargo.toml`";
    assert!(differ.is_empty(), "docs/learn/Cargo.lock names {differ:?}, which the root's does not; {again}");
    assert!(ours.len() > 200, "{}", ours.len());

    // Normal edges by themselves too: a crate may have the features of a check where build scripts use it alone.
    for edges in ["normal", "normal,build"] {
        let of_course = tree(&course(), &["--package=learn-07-adamw", &format!("--edges={edges}")]);
        assert!(of_course.iter().any(|line| line.starts_with("burn v")), "{of_course:?}");
        let run = tree(root(), &["--package=fornax", &format!("--edges={edges}")]);
        let test = tree(root(), &["--workspace", &format!("--edges={edges},dev")]);
        for (built, name) in [(run, "cargo run"), (test, "cargo test --workspace")] {
            let anew: Vec<&String> = of_course.iter().filter(|one| !built.contains(one)).collect();
            assert!(anew.is_empty(), "a check builds anew what `{name}` has built with other features: {anew:?}");
        }
    }
}
