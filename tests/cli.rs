//! The command line: help, wrong input, and every place its output may go to.
//!
//! Rows K1 (with `tests/docs.rs`), K4 and, through `generate`, W10 of the reliability table.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use common::terminal::on_terminal;
use common::{LIMIT, Live, copy, folder, fornax, generate, resume, run, tiny_recipe, train};

/// A finished run of the tiny recipe, whose model holds 32 tokens.
static RUN: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-finished");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let run_folder = folder.join("run");
    run(&mut train(&tiny_recipe(&folder), &run_folder, &[])).exits(0);
    run_folder
});

const TRAIN: &[&str] = &[
    "--depth",
    "--run",
    "--resume",
    "--step",
    "--set",
    "--precision",
    "--check",
    "--overfit-one-batch",
    "--target-loss",
    "--device",
    "--json",
    "--tui",
    "--help",
];

/// Every command, words of a group included, with its flags in order.
const COMMANDS: &[(&str, &[&str])] = &[
    ("quickstart", &["--run", "--set", "--questions", "--device", "--tui", "--help"]),
    ("train", TRAIN),
    ("pretrain", TRAIN),
    (
        "monitor",
        &["--replay", "--speed", "--follow", "--json", "--png", "--size", "--tensorboard", "--ascii", "--help"],
    ),
    (
        "generate",
        &[
            "--model",
            "--adapter",
            "--lora",
            "--prompt",
            "--prompt-file",
            "--max-tokens",
            "--n",
            "--temperature",
            "--top-k",
            "--top-p",
            "--min-p",
            "--typical-p",
            "--top-n-sigma",
            "--xtc-probability",
            "--xtc-threshold",
            "--dry-multiplier",
            "--dry-base",
            "--dry-allowed-length",
            "--dry-range",
            "--dry-breaker",
            "--mirostat",
            "--mirostat-tau",
            "--mirostat-eta",
            "--repetition-penalty",
            "--frequency-penalty",
            "--presence-penalty",
            "--logit-bias",
            "--allow",
            "--ban",
            "--min-tokens",
            "--stop",
            "--include-stop",
            "--stop-id",
            "--ignore-eos",
            "--samplers",
            "--seed",
            "--schema",
            "--regex",
            "--grammar",
            "--logprobs",
            "--kv",
            "--kv-dtype",
            "--draft",
            "--draft-length",
            "--precision",
            "--device",
            "--json",
            "--help",
        ],
    ),
    (
        "chat",
        &[
            "--model",
            "--adapter",
            "--system",
            "--system-file",
            "--template",
            "--raw",
            "--load",
            "--max-tokens",
            "--context",
            "--temperature",
            "--top-k",
            "--top-p",
            "--min-p",
            "--typical-p",
            "--top-n-sigma",
            "--xtc-probability",
            "--xtc-threshold",
            "--dry-multiplier",
            "--dry-base",
            "--dry-allowed-length",
            "--dry-range",
            "--dry-breaker",
            "--mirostat",
            "--mirostat-tau",
            "--mirostat-eta",
            "--repetition-penalty",
            "--frequency-penalty",
            "--presence-penalty",
            "--logit-bias",
            "--allow",
            "--ban",
            "--min-tokens",
            "--stop",
            "--include-stop",
            "--stop-id",
            "--ignore-eos",
            "--samplers",
            "--seed",
            "--kv-dtype",
            "--draft",
            "--draft-length",
            "--history",
            "--precision",
            "--device",
            "--json",
            "--help",
        ],
    ),
    ("check", &["--set", "--device", "--json", "--help"]),
    ("finetune", &["--run", "--resume", "--step", "--set", "--device", "--json", "--tui", "--help"]),
    ("adapter", &["--help"]),
    ("adapter merge", &["--model", "--out", "--dtype", "--tokens", "--device", "--json", "--help"]),
    ("adapter inspect", &["--model", "--json", "--help"]),
    ("adapter convert", &["--out", "--to", "--json", "--help"]),
    ("explain", &["--model", "--prompt", "--position", "--device", "--json", "--help"]),
    ("learn", &["--help"]),
    ("learn list", &["--dir", "--json", "--help"]),
    ("learn show", &["--hint", "--solution", "--dir", "--help"]),
    ("learn check", &["--solution", "--start", "--dir", "--json", "--help"]),
    ("learn reset", &["--dir", "--help"]),
    ("bench", &["--help"]),
    (
        "bench train",
        &[
            "--workload",
            "--mode",
            "--rank",
            "--seconds",
            "--steps",
            "--warmup",
            "--threads",
            "--precision",
            "--batch",
            "--context",
            "--device",
            "--json",
            "--help",
        ],
    ),
    (
        "bench generate",
        &[
            "--model",
            "--workload",
            "--prompt-tokens",
            "--new-tokens",
            "--batch",
            "--kv",
            "--kv-dtype",
            "--speculate",
            "--draft-length",
            "--prompt-file",
            "--runs",
            "--plot",
            "--threads",
            "--precision",
            "--device",
            "--json",
            "--help",
        ],
    ),
    (
        "bench engine",
        &[
            "--model",
            "--workload",
            "--requests",
            "--max-running",
            "--token-budget",
            "--runs",
            "--kv",
            "--kv-dtype",
            "--threads",
            "--precision",
            "--device",
            "--json",
            "--help",
        ],
    ),
    (
        "bench context",
        &[
            "--model",
            "--workload",
            "--lengths",
            "--new-tokens",
            "--kv",
            "--kv-dtype",
            "--plot",
            "--threads",
            "--precision",
            "--device",
            "--json",
            "--help",
        ],
    ),
    (
        "bench ops",
        &[
            "--op",
            "--workload",
            "--batch",
            "--context",
            "--seconds",
            "--check-tokens",
            "--threads",
            "--precision",
            "--device",
            "--json",
            "--help",
        ],
    ),
    (
        "bench parity",
        &[
            "--post",
            "--engine",
            "--fixtures",
            "--precision",
            "--tolerance",
            "--gradient-tolerance",
            "--device",
            "--json",
            "--help",
        ],
    ),
    ("data", &["--help"]),
    (
        "data prepare",
        &[
            "--mix",
            "--tokenizer",
            "--out",
            "--text-field",
            "--validation-fraction",
            "--shard-tokens",
            "--seed",
            "--json",
            "--help",
            "--against",
            "--against-ngram",
            "--drop",
            "--gopher",
            "--c4-lines",
            "--repetition",
            "--min-chars",
            "--max-chars",
            "--min-words",
            "--max-words",
            "--min-mean-word",
            "--max-mean-word",
            "--max-symbols",
            "--min-alphabetic",
            "--max-bullets",
            "--max-ellipses",
            "--max-control",
            "--nfc",
            "--strip-control",
            "--replace-invalid",
            "--skip-bad-rows",
            "--examples",
        ],
    ),
    (
        "data stats",
        &[
            "--tokenizer",
            "--text-field",
            "--json",
            "--help",
            "--against",
            "--against-ngram",
            "--gopher",
            "--c4-lines",
            "--repetition",
            "--min-chars",
            "--max-chars",
            "--min-words",
            "--max-words",
            "--min-mean-word",
            "--max-mean-word",
            "--max-symbols",
            "--min-alphabetic",
            "--max-bullets",
            "--max-ellipses",
            "--max-control",
            "--nfc",
            "--strip-control",
            "--replace-invalid",
            "--skip-bad-rows",
            "--examples",
        ],
    ),
    (
        "data dedup",
        &[
            "--out",
            "--text-field",
            "--near",
            "--threshold",
            "--permutations",
            "--ngram",
            "--json",
            "--help",
            "--gopher",
            "--c4-lines",
            "--repetition",
            "--min-chars",
            "--max-chars",
            "--min-words",
            "--max-words",
            "--min-mean-word",
            "--max-mean-word",
            "--max-symbols",
            "--min-alphabetic",
            "--max-bullets",
            "--max-ellipses",
            "--max-control",
            "--nfc",
            "--strip-control",
            "--replace-invalid",
            "--skip-bad-rows",
            "--examples",
        ],
    ),
    (
        "data train-tokenizer",
        &["--vocab-size", "--out", "--kind", "--special", "--limit", "--text-field", "--json", "--help"],
    ),
    (
        "data inspect",
        &[
            "--text",
            "--file",
            "--rows",
            "--context",
            "--tokenizer",
            "--ids",
            "--json",
            "--help",
            "--model",
            "--format",
            "--mask",
            "--template",
            "--truncate",
            "--field",
            "--skip-bad-rows",
        ],
    ),
    ("data compare-tokenizers", &["--file", "--json", "--help"]),
    ("doctor", &["--json", "--help"]),
];

/// `fornax COMMAND --help`.
fn help_of(command: &str) -> Command {
    fornax(command.split(' ').chain(["--help"]))
}

/// The flags a help text lists, in its order.
fn flags(help: &str) -> Vec<&str> {
    let options = help.split_once("Options:").expect("a list of options").1;
    let starts = options.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    starts.filter_map(|line| line.split([' ', ',', '[']).find(|word| word.starts_with("--"))).collect()
}

#[test]
fn every_help_lists_its_flags_and_explains_each() {
    let all = run(&mut fornax(["--help"])).exits(0).stdout;
    for &(command, expected) in COMMANDS {
        let help = run(&mut help_of(command)).exits(0);
        assert_eq!(help.stderr, "");
        assert_eq!(flags(&help.stdout), expected, "{command}");
        for line in help.stdout.lines().filter(|line| line.trim_start().starts_with("--")) {
            let explained = line.trim_start().split("  ").any(|part| part.contains(' ') && !part.starts_with('-'));
            assert!(explained, "{command}: {line}");
        }
        let (within, word) = match command.split_once(' ') {
            Some((group, word)) => (run(&mut help_of(group)).exits(0).stdout, word),
            None => (all.clone(), command),
        };
        assert!(word == "pretrain" || within.contains(&format!("  {word} ")), "{command} is not in {within}");
    }
    assert_eq!(flags(&all), ["--help", "--version"]);
}

#[test]
fn version_no_arguments_and_unknown_ones() {
    let version = run(&mut fornax(["--version"])).exits(0).stdout;
    assert_eq!(version, format!("fornax {}\n", env!("CARGO_PKG_VERSION")));
    let ran = run(&mut fornax::<&str>([])).exits(2).says(&["Usage: fornax <COMMAND>", "quickstart"]);
    assert_eq!(ran.stdout, "");
    for (arguments, words) in [
        (&["trian"][..], &["unrecognized subcommand 'trian'", "'train'"][..]),
        (&["train"], &["<RECIPE>"]),
        (&["train", "a.toml", "--resume", "b"], &["cannot be used with"]),
        (&["train", "a.toml", "--step", "5"], &["--step", "cannot be used with"]),
        (&["train", "--step", "5"], &["<RECIPE>"]),
        (&["train", "--resume", "b", "--check"], &["cannot be used with"]),
        (&["generate", "--prompt", "a"], &["--model"]),
        (&["generate", "--model", "m", "--promt", "a"], &["'--promt'", "'--prompt'"]),
        (&["generate", "--model", "m", "--prompt", "a", "--prompt-file", "b"], &["cannot be used with"]),
    ] {
        run(&mut fornax(arguments)).refuses(words);
    }
}

#[test]
fn doctor_speaks_to_people_and_to_programs() {
    let plain = run(&mut fornax(["doctor"])).exits(0);
    assert!(plain.stdout.contains("cpu") && plain.stdout.contains("ready"), "{plain:?}");
    let json = run(&mut fornax(["doctor", "--json"])).exits(0).stdout;
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["devices"][0]["name"], "cpu", "{json}");
    assert_eq!(json.lines().count(), 1);
}

#[test]
fn bench_gives_the_fields_of_the_contract_and_refuses_what_it_cannot_measure() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/contract.md")).unwrap();
    let small = ["--workload", "nano", "--batch", "1", "--context", "8", "--json"];
    let train = ["bench", "train", "--steps", "2", "--warmup", "1"];
    let ops = ["bench", "ops", "--seconds", "0", "--op", "swiglu"];
    let generate =
        ["bench", "generate", "--workload", "nano", "--prompt-tokens", "4", "--new-tokens", "3", "--json"];
    let parity = ["bench", "parity", "--fixtures", "tests/fixtures/parity/llama3", "--json"];
    let mixed = ["bench", "engine", "--workload", "nano", "--requests", "2", "--runs", "1", "--json"];
    let context = ["bench", "context", "--workload", "nano", "--lengths", "8", "--new-tokens", "3", "--json"];
    for arguments in [
        [&train[..], &small].concat(),
        [&ops[..], &small].concat(),
        generate.into(),
        context.into(),
        mixed.into(),
        parity.into(),
    ] {
        let ran = run(fornax(&arguments).current_dir(env!("CARGO_MANIFEST_DIR"))).exits(0);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        for field in report.as_object().unwrap().keys() {
            assert!(page.contains(&format!("`{field}`")), "the contract does not name {field} of {arguments:?}");
        }
    }
    let engine = [&parity[..2], &["--engine"], &parity[2..]].concat();
    let lines = run(fornax(&engine).current_dir(env!("CARGO_MANIFEST_DIR"))).exits(0).stdout;
    assert_eq!(lines.lines().count(), 7, "{lines}");
    for line in lines.lines() {
        let report: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(report["passed"], true, "{line}");
        for field in report.as_object().unwrap().keys() {
            assert!(page.contains(&format!("`{field}`")), "the contract does not name {field} of {engine:?}");
        }
    }
    let several = run(&mut fornax([&train[..], &small[2..], &["--workload", "nano,small"]].concat())).exits(0);
    let names: Vec<String> = several.stdout.lines().map(|line| line[..60].to_owned()).collect();
    assert!(names.len() == 2 && names[0].contains("nano") && names[1].contains("small"), "{names:?}");
    let off = ["bench", "parity", "--fixtures", "tests/fixtures/parity/llama3", "--tolerance", "0"];
    run(fornax(off).current_dir(env!("CARGO_MANIFEST_DIR"))).exits(5).says(&["1 of 1 models", "llama3"]);
    for (arguments, words) in [
        (&["bench", "train", "--workload", "tiny"][..], &["`tiny`", "nano, small, story, gpt2"][..]),
        (&["bench", "train", "--workload", "nano", "--batch", "0"], &["the batch is 0"]),
        (&["bench", "train", "--workload", "nano,small", "--context", "0"], &["the context is 0"]),
        (&["bench", "train", "--steps", "1", "--seconds", "1"], &["cannot be used with"]),
        (&["bench", "train", "--seconds", "-1"], &["--seconds", "0 to 86400"]),
        (&["bench", "parity", "--fixtures", "docs", "--tolerance", "-1"], &["--tolerance", "0 or more"]),
        (&["bench", "ops", "--op", "matmul"], &["`matmul`", "linear, qlinear"]),
        (&["bench", "generate"], &["--model"]),
        (&["bench", "generate", "--workload", "nano", "--new-tokens", "1"], &["the number of new tokens is 1"]),
        (
            &["bench", "generate", "--workload", "nano", "--speculate", "exit:4"],
            &["an early exit after 4 layers of 4, expected from 1 to 3"],
        ),
        (&["bench", "generate", "--workload", "nano", "--speculate", "exit:x"], &["`exit:x`"]),
        (&["bench", "generate", "--workload", "nano", "--speculate", "absent"], &["`absent` does not exist"]),
        (&["bench", "generate", "--workload", "nano", "--kv-dtype", "int4"], &["int4", "int8"]),
        (&["bench", "context", "--workload", "nano", "--lengths", "0"], &["the length is 0"]),
        (&["bench", "parity", "--fixtures", "docs"], &["`docs`", "expected.safetensors"]),
        (&["bench", "parity", "--fixtures", "absent"], &["`absent`"]),
    ] {
        run(fornax(arguments).current_dir(env!("CARGO_MANIFEST_DIR"))).refuses(words);
    }
}

/// Every combination is a row of the table, and the picture is a PNG.
#[test]
fn bench_generate_measures_a_grid_and_draws_it() {
    let folder = folder();
    let plot = folder.path().join("rates.png");
    let arguments = ["bench", "generate", "--workload", "nano", "--prompt-tokens", "4,8", "--new-tokens", "3"];
    let more = ["--batch", "1,2", "--kv", "contiguous,paged", "--kv-dtype", "f32,int8", "--runs", "1", "--plot"];
    let ran = run(fornax(arguments).args(more).arg(&plot)).exits(0).says(&["rates.png"]);
    let rows: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 2 + 2 * 2 * 2 * 2, "{}", ran.stdout);
    assert!(ran.stdout.contains("paged int8") && ran.stdout.contains("GB/s"), "{}", ran.stdout);
    assert!(fs::read(&plot).unwrap().starts_with(b"\x89PNG"));
    let context = ["bench", "context", "--workload", "nano", "--lengths", "16,8", "--new-tokens", "3", "--plot"];
    let ran = run(fornax(context).arg(&plot)).exits(0);
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with('|')).count(), 4, "{}", ran.stdout);
}

#[test]
fn a_model_that_cannot_be_used_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let config = fs::read(RUN.join("model/config.json")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("file.txt"), "text").unwrap();
    fs::write(at("weights.pt"), "\x02pickle").unwrap();
    for (name, weights) in [("pickle", "pytorch_model.bin"), ("bare", "other")] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("config.json"), &config).unwrap();
        fs::write(at(name).join(weights), "\x02pickle").unwrap();
    }
    fs::create_dir(at("begun")).unwrap();
    fs::copy(RUN.join("recipe.toml"), at("begun/recipe.toml")).unwrap();
    let cases: [(&str, &[&str]); 7] = [
        ("absent", &["does not exist"]),
        ("file.txt", &["is a file, but a model folder or run folder is expected"]),
        ("empty", &["it has no config.json"]),
        ("weights.pt", &["is a pickle", "hint: convert it to safetensors"]),
        ("pickle", &["pytorch_model.bin", "is a pickle", "hint: convert it to safetensors"]),
        ("bare", &["model.safetensors"]),
        ("begun", &["has no checkpoint yet", "hint: `fornax train --resume"]),
    ];
    for (name, words) in cases {
        let path = at(name);
        let shown = path.display().to_string();
        run(&mut generate(&path, &["--prompt", "a"])).refuses(words).says(&[&shown]);
    }
    // A damaged file is no wrong input, and says so by its exit code.
    copy(&RUN.join("model"), &at("damaged"));
    fs::write(at("damaged/model.safetensors"), b"\xff\xff\xff\xff\xff\xff\xff\x7f{}").unwrap();
    let ran = run(&mut generate(&at("damaged"), &["--prompt", "a"])).exits(4).says(&["error: ", "damaged"]);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_value_that_cannot_be_used_is_refused_with_its_range() {
    let long = "Once upon a time ".repeat(100);
    let cases: [(&[&str], &[&str]); 14] = [
        (&["--temperature", "-1"], &["temperature is -1, expected a number from 0 to 2"]),
        (&["--temperature", "NaN"], &["temperature is NaN"]),
        (&["--temperature=inf"], &["temperature is inf"]),
        (&["--temperature", "warm"], &["'warm'", "--temperature"]),
        (&["--top-p", "0"], &["top_p is 0, expected a number above 0 and at most 1"]),
        (&["--top-p", "-0.5"], &["top_p is -0.5"]),
        (&["--min-p", "2"], &["min_p is 2, expected a number from 0 to 1"]),
        (&["--top-k", "-1"], &["'-1'"]),
        (&["--max-tokens", "1e3"], &["'1e3'", "--max-tokens"]),
        (&["--seed", "99999999999999999999"], &["--seed"]),
        (&["--precision", "f64"], &["'f64'", "bf16"]),
        (&["--device", "tpu"], &["`tpu` is not a device", "vulkan[:N]"]),
        (&["--device", "cpu:x"], &["--device"]),
        (&["--prompt", &long], &["the model's context holds 32", "hint: shorten the prompt"]),
    ];
    for (arguments, words) in cases {
        let prompt: &[&str] = if arguments.contains(&"--prompt") { &[] } else { &["--prompt", "One"] };
        run(&mut generate(&RUN, &[arguments, prompt].concat())).refuses(words);
    }
    if cfg!(not(feature = "cuda")) {
        run(&mut generate(&RUN, &["--device", "cuda", "--prompt", "One"]))
            .refuses(&["compiled without the feature `cuda`", "hint: `fornax doctor`"]);
        let folder = folder();
        let run_folder = folder.path().join("run");
        run(train(&tiny_recipe(folder.path()), &run_folder, &[]).args(["--device", "cuda:1"]))
            .refuses(&["cuda:1"]);
        assert!(!run_folder.exists(), "nothing may be started");
    }
}

#[test]
fn a_prompt_that_cannot_be_read_is_refused() {
    let folder = folder();
    let file = folder.path().join("prompt.txt");
    let file_name = file.to_str().unwrap();
    for (bytes, words) in [
        (&b""[..], &["the prompt has no tokens", "hint: give at least one character"][..]),
        (b"ab\xff\xfe", &["is not UTF-8 text", "byte 2"]),
    ] {
        fs::write(&file, bytes).unwrap();
        run(generate(&RUN, &[]).stdin(File::open(&file).unwrap())).refuses(words);
        run(&mut generate(&RUN, &["--prompt-file", file_name])).refuses(&words[..1]);
    }
    run(&mut generate(&RUN, &["--prompt-file", "absent.txt"])).refuses(&["absent.txt"]);
    run(&mut generate(&RUN, &["--prompt-file", "/dev/zero"])).refuses(&["/dev/zero"]);
    fs::write(&file, "One day, ").unwrap();
    let texts = [
        run(generate(&RUN, &["--max-tokens", "5"]).stdin(File::open(&file).unwrap())),
        run(&mut generate(&RUN, &["--max-tokens", "5", "--prompt-file", file_name])),
        run(&mut generate(&RUN, &["--max-tokens", "5", "--prompt", "One day, "])),
    ];
    let texts = texts.map(|ran| ran.exits(0).stdout);
    assert!(texts[0] == texts[1] && texts[1] == texts[2] && texts[0].len() > 1, "{texts:?}");
}

#[test]
fn the_text_of_a_seed_is_the_same_and_json_holds_it() {
    let options = ["--prompt", "One day, ", "--max-tokens", "20", "--seed", "3", "--ignore-eos"];
    let text = run(&mut generate(&RUN, &options)).exits(0).says(&["prefill: ", "decode: 20 tokens"]).stdout;
    let json = run(generate(&RUN, &options).arg("--json")).exits(0).stdout;
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(object["text"], text.trim_end_matches('\n'), "{object}");
    assert_eq!(object["finish"], "length");
    assert_eq!(object["decode_tokens"], 20);
    // A run without an exported model generates from its newest checkpoint, which holds the same weights.
    let folder = folder();
    let run_folder = folder.path().join("run");
    copy(&RUN, &run_folder);
    fs::remove_dir_all(run_folder.join("model")).unwrap();
    let ran = run(&mut generate(&run_folder, &options)).exits(0).says(&["step-00000060"]);
    assert_eq!(ran.stdout, text);
}

/// The commands that write to stdout, whatever their number of bytes.
fn writers(folder: &Path) -> Vec<Command> {
    let mut check = fornax(["train", "--check"]);
    check.arg(tiny_recipe(folder));
    let prompt = ["--prompt", "One day, "];
    let mut json = generate(&RUN, &prompt);
    json.arg("--json");
    let plain = ["doctor", "--help", "--version"].map(|argument| fornax([argument]));
    let page = fornax(["learn", "show", "3"]);
    [check, generate(&RUN, &prompt), json, fornax(["doctor", "--json"]), fornax(["train", "--help"]), page]
        .into_iter()
        .chain(plain)
        .collect()
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = folder();
    for mut command in writers(folder.path()) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{command:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{command:?}: {stderr}");
    }
    let mut child = generate(&RUN, &["--prompt", "One"]).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure_in_a_sentence() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let folder = folder();
    for mut command in writers(folder.path()) {
        let output = command.stdout(full()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
        assert!(stderr.contains("error: cannot write to stdout\n  "), "{command:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{command:?}: {stderr}");
    }
    // Training outlives its log.
    let run_folder = folder.path().join("run");
    let sets = ["train.steps=10", "eval.sample_every=0"];
    let mut command = train(&tiny_recipe(folder.path()), &run_folder, &sets);
    let output = command.arg("--json").stdout(full()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("warning: no more JSON, because stdout cannot be written").count(), 1, "{stderr}");
}

/// The command with one of its streams closed, which the standard library cannot do.
fn with_closed(stream: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!(r#"exec "$0" "$@" {stream}"#)]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

#[test]
fn closed_streams_change_nothing_on_disk() {
    let folder = folder();
    let recipe = tiny_recipe(folder.path());
    let sets = ["train.steps=10"];
    let file = |run: &str| fs::read(folder.path().join(run).join("model/model.safetensors")).unwrap();
    run(&mut train(&recipe, &folder.path().join("open"), &sets)).exits(0);
    for (n, stream) in ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"].into_iter().enumerate() {
        let name = format!("closed-{n}");
        let mut command = train(&recipe, &folder.path().join(&name), &sets);
        run(&mut with_closed(stream, command.arg("--json"))).exits(0);
        assert!(file(&name) == file("open"), "{stream}");
        let events = fs::read_to_string(folder.path().join(&name).join("events.jsonl")).unwrap();
        for line in events.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{stream}: {e}: {line}"));
        }
    }
    let prompt = generate(&RUN, &["--prompt", "One", "--max-tokens", "3"]);
    let text = run(&mut with_closed("2>&-", &prompt)).exits(0).stdout;
    assert!(text.len() > 1, "{text:?}");
}

#[test]
fn json_of_a_training_is_the_events_line_by_line() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    let mut command = train(&tiny_recipe(folder.path()), &run_folder, &["train.steps=10"]);
    let stdout = run(command.arg("--json")).exits(0).stdout;
    let log = fs::read_to_string(run_folder.join("events.jsonl")).unwrap();
    assert_eq!(stdout, log);
    assert!(stdout.lines().count() > 12, "{stdout}");
}

#[test]
fn narrow_terminals_and_no_color() {
    for columns in [1, 20, 200] {
        for &(command, _) in COMMANDS {
            let mut help = help_of(command);
            run(help.env("COLUMNS", columns.to_string())).exits(0);
            let (status, text) = on_terminal(help.env("NO_COLOR", "1"), columns);
            assert!(status.success() && text.contains("--help"), "{command} in {columns} columns: {text}");
            assert!(!is_coloured(&text), "{command}: {text:?}");
        }
    }
    let (_, text) = on_terminal(&mut fornax(["train", "--help"]), 80);
    assert!(is_coloured(&text), "a terminal without NO_COLOR has bold words: {text:?}");
    let (status, text) = on_terminal(&mut generate(&RUN, &[]), 20);
    assert_eq!(status.code(), Some(2));
    assert!(text.contains("error: no prompt was given") && text.contains("hint: "), "{text}");
}

/// Whether a text selects colours or weights: `ESC [ ... m`.
fn is_coloured(text: &str) -> bool {
    text.split("\x1b[").skip(1).any(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != ';');
        end.is_some_and(|at| rest[at..].starts_with('m'))
    })
}

#[test]
fn a_training_on_a_terminal_of_any_width_shows_its_steps() {
    let folder = folder();
    let recipe = tiny_recipe(folder.path());
    for columns in [1, 20, 100] {
        let run_folder = folder.path().join(format!("run-{columns}"));
        let mut command = train(&recipe, &run_folder, &["train.steps=30"]);
        let (status, text) = on_terminal(command.env("NO_COLOR", "1"), columns);
        assert!(status.success(), "{columns} columns: {text}");
        assert!(text.contains("validation loss") && text.contains("finished: "), "{columns} columns: {text}");
        assert!(!text.contains("panicked") && !is_coloured(&text), "{columns} columns: {text:?}");
        assert!(columns < 100 || text.contains("/30 ["), "no progress bar in {text:?}");
    }
    let model = |columns: u32| fs::read(folder.path().join(format!("run-{columns}/model/model.safetensors")));
    assert!(model(1).unwrap() == model(100).unwrap());
}

#[test]
fn stdin_is_read_to_its_end_before_anything_is_written() {
    let mut command = generate(&RUN, &["--max-tokens", "3"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"One ").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    stdin.write_all(b"day, ").unwrap();
    drop(stdin);
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let whole = run(&mut generate(&RUN, &["--max-tokens", "3", "--prompt", "One day, "])).exits(0).stdout;
    assert_eq!(text, whole);
}

#[test]
fn resuming_what_is_no_run_is_refused() {
    let folder = folder();
    let path = folder.path().join("nothing");
    run(&mut resume(&path, &[])).refuses(&["is not a run folder", "hint: "]);
    assert!(!path.exists());
    let mut live = Live::start(&mut resume(folder.path(), &[]));
    assert!(live.ends_within(LIMIT));
    live.finish().refuses(&["it has no recipe.toml"]);
    assert!(!folder.path().join("lock").exists(), "a folder that is no run is left alone");
}
