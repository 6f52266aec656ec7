//! The recipes of the repository: they load, they run, and their typos are answered with the right key.
//!
//! Rows K2 and K3 of the reliability table.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{TINY, copy, folder, fornax, generate, run, shared_data, train};
use fornax_base::recipe::load;
use fornax_train::recipe::TrainRecipe;

/// Name and text of every recipe.
fn recipes() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    found.sort();
    assert!(found.len() >= 5, "{found:?}");
    found
}

#[test]
fn every_recipe_is_short_tells_its_command_and_passes_its_check() {
    for (path, text) in recipes() {
        let lines = text.lines().count();
        assert!(lines <= 40, "{} has {lines} lines, at most 40 are allowed", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        let command = text.lines().next().unwrap();
        assert!(command.starts_with("# fornax ") && command.contains(name), "{}: {command}", path.display());
        let ran = run(fornax(["train", "--check"]).arg(&path)).exits(0);
        assert_eq!(ran.stderr, "");
        // What it prints is a recipe that says the same.
        let resolved: TrainRecipe = load(&ran.stdout, "stdout", &[]).unwrap();
        let original: TrainRecipe = load(&text, name, &[]).unwrap();
        assert_eq!(resolved.hash().unwrap(), original.hash().unwrap());
    }
}

/// Overrides under which any recipe takes two steps in a moment.
const DRY: [&str; 11] = [
    "train.steps=2",
    "train.context=32",
    "train.batch=2",
    "train.micro_batch=1",
    "model.n_layers=1",
    "model.n_heads=2",
    "model.width=32",
    "model.ffn_width=64",
    "schedule.warmup_steps=1",
    "eval.tokens=64",
    "eval.every=1",
];

#[test]
fn every_recipe_takes_two_steps_and_generates() {
    for (path, text) in recipes() {
        let recipe: TrainRecipe = load(&text, "recipe", &[]).unwrap();
        let mut sets: Vec<String> = DRY.map(str::to_owned).to_vec();
        if recipe.data.is_corpus() {
            sets.push("data.corpus_bytes=100_000".into());
        } else {
            let Some(data) = shared_data("tinyshakespeare/input.txt") else { continue };
            sets.push(format!("data.source={}", data.display()));
        }
        let tokenizer = recipe.tokenizer.as_ref();
        if tokenizer.is_some_and(|tokenizer| tokenizer.vocab_size.is_some()) {
            sets.push("tokenizer.vocab_size=300".into());
        }
        if tokenizer.is_some_and(|tokenizer| tokenizer.path.is_some()) {
            let Some(path) = shared_data("tokenizer-gpt2/tokenizer.json") else { continue };
            sets.push(format!("tokenizer.path={}", path.display()));
        }
        let folder = folder();
        let run_folder = folder.path().join("run");
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        run(&mut train(&path, &run_folder, &sets)).exits(0).says(&["step 00002 | saved", "finished: "]);
        let options = ["--prompt", "One", "--max-tokens", "4", "--ignore-eos", "--json"];
        let ran = run(&mut generate(&run_folder, &options)).exits(0);
        let object: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(object["ids"].as_array().unwrap().len(), 4, "{object}");
    }
}

#[test]
fn the_quickstart_ends_with_a_model_and_what_to_type_next() {
    let folder = folder();
    let mut sets: Vec<&str> = DRY.to_vec();
    sets.extend(["data.corpus_bytes=100_000", "eval.sample_tokens=4", "train.context=256"]);
    sets.extend([
        "eval.tokens=256",
        "sft.train.steps=2",
        "sft.schedule.warmup_steps=1",
        "sft.train.batch=2",
        "sft.data.rows=100",
    ]);
    sets.extend([
        "sft.train.context=256",
        "dpo.train.context=256",
        "dpo.train.steps=2",
        "dpo.schedule.warmup_steps=1",
        "dpo.train.batch=2",
        "dpo.data.rows=40",
        "dpo.eval.rows=4",
    ]);
    let command = || {
        let mut command = fornax(["quickstart", "--questions", "4"]);
        command.current_dir(folder.path());
        for set in &sets {
            command.args(["--set", set]);
        }
        command
    };
    let ran = run(&mut command()).exits(0).says(&[
        "stage 1 of ",
        "sample: ",
        "your model is in runs/quickstart/model",
        "fornax generate --model runs/quickstart --prompt",
        "held-out questions answered exactly: ",
        "the answer mentioned last ",
        "one short polite sentence: ",
    ]);
    assert_eq!(ran.stdout, "");
    for stage in ["sft/model", "dpo/adapter", "sft/answers.jsonl", "dpo/answers.jsonl", "answers.jsonl"] {
        assert!(folder.path().join("runs/quickstart").join(stage).exists(), "{stage}");
    }
    assert!(folder.path().join("runs/quickstart/model/model.safetensors").exists());
    run(&mut command()).exits(0).says(&["your model is in runs/quickstart-2/model"]);
    let named = folder.path().join("runs/quickstart");
    run(command().arg("--run").arg(&named)).refuses(&["already holds a run", "hint: "]);
    run(fornax(["quickstart", "--set", "sft.train.stepz=1"]).current_dir(folder.path()))
        .refuses(&["unknown key", "did you mean `steps`?"]);
    run(fornax(["quickstart", "--set", "train.stepz=1"]).current_dir(folder.path()))
        .refuses(&["unknown key", "did you mean `steps`?"]);

    // A run folder moved elsewhere still generates.
    copy(&named, &folder.path().join("moved"));
    let ran =
        run(generate(Path::new("moved"), &["--prompt", "One day, ", "--max-tokens", "3"])
            .current_dir(folder.path()));
    assert!(!ran.exits(0).stdout.is_empty());
}

/// A key of a recipe: its line, where its name stands in that line, and its full name.
struct Key {
    line: usize,
    name: String,
    is_section: bool,
}

fn keys(text: &str) -> Vec<Key> {
    let mut found = Vec::new();
    for (line, content) in text.lines().enumerate() {
        let name = match content.strip_prefix('[') {
            Some(section) => section.strip_suffix(']').map(|name| (name, true)),
            None => content.split_once(" = ").map(|(name, _)| (name, false)),
        };
        if let Some((name, is_section)) = name.filter(|_| !content.starts_with('#')) {
            found.push(Key { line, name: name.to_owned(), is_section });
        }
    }
    found
}

/// Keys so alike that a typo of one may be as near to the other.
const TWINS: [[&str; 2]; 1] = [["keep_last", "keep_best"]];

fn one_letter_apart(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).filter(|(a, b)| a != b).count() == 1
}

/// `name` with each of its letters in turn replaced by another.
fn typos(name: &str) -> Vec<String> {
    let letters = name.char_indices().filter(|(_, c)| c.is_ascii_alphabetic());
    letters
        .flat_map(|(at, c)| {
            let others = ('a'..='z').filter(move |other| *other != c);
            others.map(move |other| format!("{}{other}{}", &name[..at], &name[at + 1..]))
        })
        .collect()
}

#[test]
fn one_wrong_letter_in_a_key_is_answered_with_the_right_key() {
    let mut tried = 0;
    let mut texts: Vec<String> = recipes().into_iter().map(|(_, text)| text).collect();
    texts.push(TINY.to_owned());
    for text in texts {
        for key in keys(&text) {
            for typo in typos(&key.name) {
                let lines = text.lines().enumerate().map(|(line, content)| match line == key.line {
                    true => content.replacen(&key.name, &typo, 1),
                    false => content.to_owned(),
                });
                let wrong: Vec<String> = lines.collect();
                let error = load::<TrainRecipe>(&wrong.join("\n"), "recipe.toml", &[]).unwrap_err();
                let hint = error.hint().unwrap_or_default();
                let twin = TWINS.iter().find(|twins| twins.contains(&key.name.as_str()));
                if twin.is_some_and(|twins| twins.iter().all(|name| one_letter_apart(name, &typo))) {
                    continue; // both are meant equally
                }
                assert!(hint.contains(&format!("did you mean `{}`?", key.name)), "{typo}: {error} {hint}");
                assert!(error.to_string().contains(&typo), "{typo}: {error}");
                tried += 1;
            }
        }
        let sections = keys(&text).iter().filter(|key| key.is_section).count();
        assert!(sections >= 6, "{sections} sections were found in\n{text}");
    }
    assert!(tried > 5_000, "{tried}");
}

#[test]
fn the_program_answers_a_typo_with_exit_2_and_the_right_key() {
    let folder = folder();
    let path = folder.path().join("typo.toml");
    for (right, wrong) in [
        ("width", "widht"),
        ("[optimizer]", "[optimiser]"),
        ("corpus_bytes", "corpus_byte"),
        ("warmup_steps", "warmup_stebs"),
        ("sample_every", "sampel_every"),
    ] {
        fs::write(&path, TINY.replacen(right, wrong, 1)).unwrap();
        let hint = format!("hint: did you mean `{}`?", right.trim_matches(['[', ']']));
        run(fornax(["train", "--check"]).arg(&path)).refuses(&["has an unknown key", "typo.toml", &hint]);
        run(&mut train(&path, &folder.path().join("run"), &[])).refuses(&[&hint]);
    }
    fs::write(&path, TINY).unwrap();
    for (set, words) in [
        ("model.widht=64", "did you mean `width`?"),
        ("train.steps=many", "train.steps"),
        ("train.steps", "has no `=`"),
        ("train.steps=0", "`train.steps` is 0"),
    ] {
        run(&mut train(&path, &folder.path().join("run"), &[set])).refuses(&[words]);
    }
    assert!(!folder.path().join("run").exists());
}
