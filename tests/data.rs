//! Training text through the program: prepared once, mixed, cleaned, measured, without duplicates.
//!
//! Row C8 of the reliability table for a mixture, and what wrong input to the data commands says.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{TINY, copy, folder, fornax, resume, run, train};
use fornax_train::checkpoint;
use serde_json::Value;

/// Stories with a few duplicates, as text and as JSON Lines, and a tokenizer trained on them.
struct Work {
    folder: tempfile::TempDir,
}

impl Work {
    fn new() -> Work {
        let work = Work { folder: folder() };
        let story = |i: usize| {
            let animal = ["cat", "dog", "hen", "fox", "owl"][i % 5];
            let place = ["barn", "field", "river", "hill"][i / 5 % 4];
            format!(
                "Story {i}. A {animal} went to the {place} and counted {} stones there. Then it slept.",
                i * 37
            )
        };
        let stories: Vec<String> = (0..300).map(story).collect();
        fs::write(work.at("stories.txt"), stories.join("\n<|endoftext|>\n")).unwrap();
        let sums = (0..200).map(|i| format!("{{\"body\": \"{i} and {} make {}.\"}}\n", i * 3, i * 4));
        fs::write(work.at("sums.jsonl"), sums.collect::<String>()).unwrap();
        run(&mut train(&work.recipe("[data]\nsource = \"stories.txt\""), &work.at("made"), &["train.steps=1"]))
            .exits(0);
        work
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The tiny recipe with another `[data]` section; file names in it become paths. Without a corpus its tokenizer is
    /// that of the text, or with `[prepared]` none.
    fn recipe(&self, data: &str) -> PathBuf {
        let from = TINY.find("[data]").unwrap();
        let to = TINY.find("[train]").unwrap();
        let mut data = data.to_owned();
        for name in ["stories.txt", "sums.jsonl", "prepared", "mixed"] {
            data = data.replace(&format!("\"{name}\""), &format!("{:?}", self.at(name)));
        }
        let mut text = format!("{}{data}\n\n{}", &TINY[..from], &TINY[to..]);
        // Some of the runs are a step long.
        text = text.replace("warmup_steps = 5", "warmup_steps = 0");
        if data.contains("prepared\"") || data.contains("mixed\"") {
            let (from, to) =
                (text.find("[tokenizer]").unwrap(), text.find("[data]").or(text.find("[[data")).unwrap());
            text.replace_range(from..to, "");
        }
        let path = self.at("recipe.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn data(&self, arguments: &[&str]) -> Command {
        let mut command = fornax(["data"]);
        command.args(arguments).current_dir(self.folder.path()).env_remove("HF_TOKEN");
        command.env("HF_HOME", self.at("hf")).env("HF_ENDPOINT", "http://127.0.0.1:9");
        command
    }

    fn prepare(&self, arguments: &[&str]) -> Command {
        self.data(&[&["prepare", "--tokenizer", "made/tokenizer"], arguments].concat())
    }
}

fn json(command: &mut Command) -> Value {
    serde_json::from_str(&run(command).exits(0).stdout).unwrap()
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("model/model.safetensors")).unwrap()
}

#[test]
fn a_prepared_dataset_trains_as_its_text_does() {
    let work = Work::new();
    let report = json(&mut work.prepare(&["stories.txt", "--out", "prepared", "--seed", "1337", "--json"]));
    let part = &report["parts"][0];
    let documents = |split: &str| part[split]["documents"].as_u64().unwrap();
    assert_eq!(documents("train") + documents("validation"), 300, "{report}");
    let steps = ["train.steps=10"];
    run(&mut train(&work.recipe("[data]\nsource = \"stories.txt\""), &work.at("text-run"), &steps)).exits(0);
    run(&mut train(&work.recipe("[data]\nsource = \"prepared\""), &work.at("run"), &steps)).exits(0);
    assert!(weights(&work.at("run")) == weights(&work.at("text-run")));
    assert!(!work.at("run/data").join("train-00000.shard").exists(), "nothing is copied");
    let shown = run(&mut work.data(&["inspect", "prepared", "--rows", "1"])).exits(0);
    assert!(shown.stdout.contains("tokenizer prepared: 400 tokens"), "{shown:?}");
    // A second preparation writes nothing.
    let before = fs::metadata(work.at("prepared/dataset.json")).unwrap().modified().unwrap();
    let again = json(&mut work.prepare(&["stories.txt", "--out", "prepared", "--seed", "1337", "--json"]));
    assert_eq!(again["parts"][0]["reused"], true);
    assert_eq!(fs::metadata(work.at("prepared/dataset.json")).unwrap().modified().unwrap(), before);
    // What was decided at preparation is not decided again.
    let refused = |more: &str| {
        let recipe = work.recipe(&format!("[data]\nsource = \"prepared\"\n{more}"));
        let ran = run(&mut train(&recipe, &work.at("refused"), &[])).refuses(&["is a prepared dataset"]);
        assert!(!work.at("refused/recipe.toml").exists(), "{ran:?}");
    };
    refused("text_field = \"body\"");
    // Text brings no tokenizer, in whatever way it is named.
    fs::create_dir(work.at("texts")).unwrap();
    fs::copy(work.at("stories.txt"), work.at("texts/a.txt")).unwrap();
    for name in ["stories.txt", "texts"] {
        let source = format!("data.source={}", work.at(name).display());
        let recipe = work.recipe("[data]\nsource = \"prepared\"");
        run(&mut train(&recipe, &work.at("refused"), &[&source])).refuses(&["`tokenizer` is missing"]);
    }
    refused("validation_fraction = 0.3");
    refused("[data.clean]\nmin_words = 3");
    // A flipped byte is found when the run goes on, and so is another dataset in its place.
    let shard = work.at("prepared/train-00000.shard");
    let whole = fs::read(&shard).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&shard, flipped).unwrap();
    run(&mut resume(&work.at("run"), &[])).exits(4).says(&["train-00000.shard", "sha-256"]);
    fs::write(&shard, whole).unwrap();
    run(&mut work.prepare(&["stories.txt", "--out", "prepared", "--seed", "5"])).exits(0);
    run(&mut resume(&work.at("run"), &[])).exits(4).says(&["its fingerprint is", "the mixture lists"]);
}

#[test]
fn c8_a_mixture_resumed_at_any_step_equals_the_straight_run() {
    let work = Work::new();
    let mixture = "[data]\ncorpus_bytes = 200_000\n[[data.mixture]]\nsource = \"stories.txt\"\nweight = 3\n\
                   [[data.mixture]]\nsource = \"sums.jsonl\"\nweight = 1\ntext_field = \"body\"\n\
                   [[data.mixture]]\nsource = \"corpus\"\nweight = 2.5";
    let recipe = work.recipe(mixture);
    let sets = ["train.steps=24", "checkpoint.every=1", "checkpoint.keep_last=100", "eval.every=12"];
    let straight = work.at("straight");
    let ran = run(&mut train(&recipe, &straight, &sets)).exits(0);
    ran.says(&["stories.txt: 46.15 % of the tokens", "sums.jsonl: 15.38 %", "corpus: 38.46 %", "epochs"]);
    let steps: Vec<u64> = match common::scale(0, 1) {
        0 => vec![1, 7, 18],
        _ => (1..24).collect(),
    };
    for step in steps {
        let again = work.at(&format!("from-{step}"));
        copy(&straight, &again);
        run(resume(&again, &[]).args(["--step", &step.to_string()])).exits(0);
        assert!(weights(&again) == weights(&straight), "from step {step}");
        let optimizer = |run: &Path| {
            let folder = run.join("checkpoints").join(checkpoint::folder_name(24));
            fs::read(folder.join("optimizer.safetensors")).unwrap()
        };
        assert!(optimizer(&again) == optimizer(&straight), "from step {step}");
    }
}

#[test]
fn a_prepared_mixture_is_trained_on_and_measured() {
    let work = Work::new();
    fs::write(work.at("more.txt"), "One more story. It is short.\n<|endoftext|>\nAnd another one, as short.")
        .unwrap();
    let mix =
        ["--mix", "0.7=stories.txt", "--mix", "0.3=more.txt", "--out", "mixed", "--validation-fraction", "0.5"];
    let ran = run(&mut work.prepare(&mix)).exits(0);
    assert!(ran.stdout.contains("source stories.txt (70.00 % of the tokens)"), "{ran:?}");
    let recipe = work.recipe("[data]\nsource = \"mixed\"");
    let sets = ["train.steps=5", "train.context=4"];
    run(&mut train(&recipe, &work.at("run"), &sets)).exits(0).says(&["70.00 % of the tokens", "30.00 %"]);
    let stats = json(&mut work.data(&["stats", "mixed", "--json"]));
    assert_eq!(stats["documents"], 302);
    let tokens = stats["tokens"].as_u64().unwrap();
    let text =
        json(&mut work.data(&["stats", "stories.txt", "more.txt", "--tokenizer", "made/tokenizer", "--json"]));
    assert_eq!(
        (&text["documents"], &text["tokens"], &text["bytes"]),
        (&stats["documents"], &tokens.into(), &stats["bytes"])
    );
    run(&mut work.prepare(&["stories.txt", "--out", "mixed"])).refuses(&["holds a mixture"]);
    // The tokenizer lies in the folder, for its parts too.
    for folder in ["mixed", "mixed/part-000"] {
        let rows = json(&mut work.data(&["inspect", folder, "--rows", "1", "--context", "8", "--json"]));
        assert_eq!(rows["tokenizer"]["path"], "mixed");
        assert_eq!(rows["rows"][0].as_array().unwrap().len(), 9, "{rows}");
    }
    // A source that cannot be read leaves the mixture as it was.
    let list = fs::read(work.at("mixed/mixture.json")).unwrap();
    let wrong = ["--mix", "1=stories.txt", "--mix", "1=sums.jsonl", "--out", "mixed"];
    run(&mut work.prepare(&wrong)).refuses(&["`sums.jsonl` line 1: field `text` is missing, found: body"]);
    assert_eq!(fs::read(work.at("mixed/mixture.json")).unwrap(), list);
}

/// Rows of post-training data as a model learns them, and what is said of rows that cannot be used.
#[test]
fn rows_are_shown_as_they_are_trained() {
    let work = Work::new();
    let row = |asked: &str, answered: &str| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{asked}\"}}, \
             {{\"role\": \"assistant\", \"content\": \"{answered}\"}}]}}\n"
        )
    };
    fs::write(
        work.at("rows.jsonl"),
        row("cat?", "hen") + &row("barn?", "river and field and hill and stones and owl and fox and hen"),
    )
    .unwrap();
    let shown = run(&mut work.data(&["inspect", "rows.jsonl", "--model", "made/tokenizer"])).exits(0);
    for words in
        ["format messages: the 2 opening rows have turns", "-- row 1: ", "<|im_end|>](⏎)", "(<|im_start|>)"]
    {
        assert!(shown.stdout.contains(words), "{words}: {shown:?}");
    }
    assert!(!shown.stdout.contains('\x1b'), "{shown:?}");
    let read = |more: &[&str]| {
        let mut command = work.data(&["inspect", "rows.jsonl", "--model", "made/tokenizer", "--json"]);
        json(command.args(more))
    };
    let trained = |report: &Value, row: usize| {
        let tokens = report["rows"][row]["tokens"].as_array().unwrap();
        let trained = tokens.iter().filter(|token| token["trained"] == true);
        trained.map(|token| token["text"].as_str().unwrap()).collect::<String>()
    };
    let whole = read(&[]);
    assert_eq!(trained(&whole, 0), "hen<|im_end|>");
    assert_eq!(
        (&whole["read"]["read"], &whole["read"]["bytes"]),
        (&2.into(), &(5 * whole["read"]["tokens"].as_u64().unwrap()).into())
    );
    assert!(trained(&read(&["--mask", "all", "--rows", "1"]), 0).starts_with("user\ncat?"));
    assert_eq!(trained(&read(&["--template", "plain"]), 0), "hen<|endoftext|>");
    // A context that holds the short row and not the long one.
    let tokens = |row: usize| whole["rows"][row]["tokens"].as_array().unwrap().len();
    assert!(tokens(1) > tokens(0) + 1, "{whole}");
    let context = tokens(0).to_string();
    let cut = read(&["--context", &context]);
    assert_eq!(cut["read"]["truncated"]["end"], 1);
    assert_eq!(cut["rows"][1]["tokens"].as_array().unwrap().len(), tokens(0) + 1);
    assert_eq!(read(&["--context", &context, "--truncate", "drop"])["read"]["truncated"]["dropped"], 1);
    // Pairs, and a field of another name.
    fs::write(work.at("pairs.json"), "[{\"question\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}]").unwrap();
    let pairs = ["inspect", "pairs.json", "--model", "made/tokenizer", "--field", "prompt=question", "--json"];
    let pairs = json(&mut work.data(&pairs));
    assert_eq!((&pairs["rows"][0]["side"], &pairs["rows"][1]["side"]), (&"chosen".into(), &"rejected".into()));
    // What cannot be used is told with its row, or passed over and counted.
    fs::write(work.at("bad.jsonl"), row("a", "b") + "nonsense\n" + &row("c", "")).unwrap();
    let bad = ["inspect", "bad.jsonl", "--model", "made/tokenizer", "--rows", "9"];
    run(&mut work.data(&bad))
        .refuses(&["`bad.jsonl` row 2: not JSON", "hint: each row must be one whole JSON object"]);
    let passed = json(work.data(&bad).args(["--skip-bad-rows", "--json"]));
    assert_eq!((&passed["read"]["read"], &passed["read"]["skipped"]), (&3.into(), &2.into()));
    run(&mut work.data(&["inspect", "rows.jsonl"])).refuses(&["`rows.jsonl` holds rows", "--model DIR"]);
    let unknown = ["inspect", "rows.jsonl", "--model", "made/tokenizer", "--mask", "none"];
    run(&mut work.data(&unknown))
        .exits(2)
        .says(&["unknown mask `none`, known are assistant, completion, last-turn, all"]);
}

#[test]
fn filters_work_alike_in_every_command() {
    let work = Work::new();
    let rows = "{\"text\": \"one two three four\"}\n{\"text\": \"short\"}\n{\"text\": \"one two three four\"}\n\
                {\"text\": \"five six seven eight nine ten eleven twelve thirteen words are in this line here\"}\nbad\n";
    fs::write(work.at("rows.jsonl"), rows).unwrap();
    fs::write(
        work.at("bench.jsonl"),
        "{\"q\": \"Five six seven, eight nine ten eleven twelve thirteen words are in this!\"}",
    )
    .unwrap();
    let filters = ["--min-words", "2", "--skip-bad-rows"];
    let against = ["--against", "bench.jsonl"];
    let stats = json(work.data(&["stats", "rows.jsonl", "--json"]).args(filters).args(against));
    assert_eq!((&stats["documents"], &stats["duplicates"]), (&3.into(), &1.into()), "{stats}");
    assert_eq!(stats["intake"]["dropped"]["few_words"], 1);
    assert_eq!(stats["intake"]["dropped"]["bad_row"], 1);
    assert_eq!(stats["intake"]["overlap"][0]["overlapping"], 1);
    let dedup = json(work.data(&["dedup", "rows.jsonl", "--out", "out.jsonl.gz", "--json"]).args(filters));
    assert_eq!((&dedup["exact_duplicates"], &dedup["kept"]), (&1.into(), &2.into()), "{dedup}");
    assert_eq!(dedup["clusters"][0]["dropped"][0]["number"], 3);
    let prepared =
        work.prepare(&["rows.jsonl", "--out", "p", "--drop", "--examples"]).args(filters).args(against).output();
    let stdout = String::from_utf8(prepared.unwrap().stdout).unwrap();
    let stdout = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in [
        "documents: 5 read, 2 kept",
        "dropped few_words 1",
        "rows.jsonl:2 short",
        "dropped contaminated 1",
        "1 of 1 items overlap with 1 documents",
    ] {
        assert!(stdout.contains(line), "{line} is not in {stdout}");
    }
    let recipe = work.recipe("[data]\nsource = \"stories.txt\"\n[data.clean]\nmax_words = 15");
    run(&mut train(&recipe, &work.at("none"), &["train.steps=1"])).refuses(&["has no text"]);
    run(&mut train(&recipe, &work.at("none"), &["data.clean.max_words=-1"])).refuses(&["max_words"]);
    run(&mut train(&recipe, &work.at("some"), &["train.steps=1", "data.clean.max_words=40"])).exits(0);
}

#[test]
fn wrong_input_is_refused_and_leaves_nothing() {
    let work = Work::new();
    fs::write(work.at("empty.txt"), "").unwrap();
    fs::write(work.at("note.md"), "x").unwrap();
    fs::write(work.at("bad.jsonl"), "{\"text\": \"a\"}\n{\"text\": \"\u{7}\n").unwrap();
    let out = ["--out", "out"];
    let cases: [(&[&str], &[&str]); 11] = [
        (&["absent.txt"], &["cannot read `absent.txt`"]),
        (&["note.md"], &["`note.md` is not a .txt, .jsonl or .parquet file"]),
        (&["empty.txt"], &["`empty.txt` has no text"]),
        (&["bad.jsonl"], &["`bad.jsonl` line 2: not a JSON object", "hint: `--text-field`"]),
        (&["sums.jsonl"], &["field `text` is missing, found: body", "hint: `--text-field`"]),
        (&["hf:owner"], &["is not a dataset of the hub", "hint: write hf:owner/name"]),
        (&["stories.txt", "--validation-fraction", "1"], &["is not between 0 and 1"]),
        (
            &["stories.txt", "--min-words", "5", "--max-words", "4"],
            &["min_words (5) is greater than max_words (4)"],
        ),
        (&["stories.txt", "--against", "absent.jsonl"], &["cannot read `absent.jsonl`"]),
        (&["--mix", "0=stories.txt"], &["`0` is no weight"]),
        (&["--mix", "stories.txt"], &["WEIGHT=SOURCE is expected"]),
    ];
    for (arguments, words) in cases {
        run(work.prepare(arguments).args(out)).refuses(words);
        assert!(!work.at("out/dataset.json").exists(), "{arguments:?}");
    }
    run(work.prepare(&["hf:owner/name"]).args(out)).exits(1).says(&["cannot be reached", "hint: "]);
    let dedup: [(&[&str], &[&str]); 4] = [
        (&["stories.txt", "--out", "x.txt"], &["does not end in .jsonl or .jsonl.gz"]),
        (&["stories.txt", "--out", "x.jsonl", "--near", "--threshold", "2"], &["threshold is 2"]),
        (&["stories.txt", "--out", "x.jsonl", "--threshold", "0.5"], &["--near"]),
        (&["stories.txt", "--out", "x.jsonl", "--near", "--permutations", "1"], &["permutations is 1"]),
    ];
    for (arguments, words) in dedup {
        run(&mut work.data(&[&["dedup"], arguments].concat())).refuses(words);
    }
    run(&mut work.data(&["dedup", "stories.txt", "--out", "no/folder/x.jsonl"])).says(&["cannot create"]);
    run(&mut work.data(&["stats", "empty.txt"])).refuses(&["`empty.txt` has no text"]);
    run(&mut work.data(&["dedup", "empty.txt", "--out", "x.jsonl"])).refuses(&["`empty.txt` has no text"]);
    assert!(!work.at("x.jsonl").exists() && !work.at("x.txt").exists());
}
