//! `fornax data train-tokenizer`, `inspect` and `compare-tokenizers`.

mod common;

use std::fs;
use std::path::Path;

use common::terminal::on_terminal;
use common::{folder, fornax, run, tiny_recipe, train};
use serde_json::Value;

const TEXT: &str = "One day, Tom saw a red hat. The hat was on the cat.\n\nThen Tom said: \"That is my hat!\"\n";

fn json(stdout: &str) -> Value {
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    serde_json::from_str(stdout).unwrap()
}

/// A text file and the vocabulary of 300 tokens learned from it.
fn trained(folder: &Path) -> (String, String) {
    let (text, out) = (folder.join("text.txt"), folder.join("tokenizer"));
    fs::write(&text, TEXT.repeat(4)).unwrap();
    let (text, out) = (text.display().to_string(), out.display().to_string());
    let command =
        ["data", "train-tokenizer", &text, "--vocab-size", "300", "--special", "<|tool|>", "--out", &out];
    let report = json(&run(fornax(command).arg("--json")).exits(0).stdout);
    assert_eq!((&report["vocab_size"], &report["kind"]), (&300.into(), &"bpe".into()), "{report}");
    assert_eq!(report["text_bytes"], TEXT.len() * 4);
    (text, out)
}

#[test]
fn a_vocabulary_is_learned_written_and_read() {
    let folder = folder();
    let (text, out) = trained(folder.path());
    let shown =
        run(&mut fornax(["data", "inspect", &out, "--text", "the hat<|tool|>\nx", "--ids"])).exits(0).stdout;
    assert!(shown.contains(": 300 tokens, eos 0, pad 0\n"), "{shown}");
    assert!(shown.contains("[<|tool|>:3][⏎:") && shown.contains("[·hat:"), "{shown}");
    let config = fs::read_to_string(Path::new(&out).join("tokenizer_config.json")).unwrap();
    assert!(
        config.contains(r#""additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|tool|>"]"#),
        "{config}"
    );
    // Equal text gives equal files, and a limit less text.
    let again = folder.path().join("again").display().to_string();
    let learn = |rest: &[&str]| fornax(["data", "train-tokenizer", &text].iter().chain(rest));
    run(&mut learn(&["--vocab-size", "300", "--special", "<|tool|>", "--out", &again])).exits(0);
    let file = |folder: &str| fs::read(Path::new(folder).join("tokenizer.json")).unwrap();
    assert!(file(&out) == file(&again));
    let short = folder.path().join("short").display().to_string();
    let report = run(&mut learn(&["--vocab-size", "300", "--limit", "50", "--out", &short, "--json"])).exits(0);
    assert_eq!(json(&report.stdout)["text_bytes"], 50);
    let characters = folder.path().join("characters").display().to_string();
    run(&mut learn(&["--kind", "characters", "--out", &characters])).exits(0);
    let shown =
        json(&run(&mut fornax(["data", "inspect", &characters, "--text", "hat", "--json"])).exits(0).stdout);
    let tokens: Vec<&str> =
        shown["text"].as_array().unwrap().iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(tokens, ["h", "a", "t"]);
    for (rest, words) in [
        (&["--out", out.as_str(), "--vocab-size", "300"][..], &["exists already and is not overwritten"][..]),
        (&["--out", "new"], &["a bpe vocabulary needs its size", "hint: --vocab-size"]),
        (&["--out", "new", "--vocab-size", "200"], &["vocabulary size 200 is outside 259..=524288"]),
        (
            &["--out", "new", "--vocab-size", "300", "--special", "<|im_end|>"],
            &["\"<|im_end|>\" is empty, or is a token already"],
        ),
        (&["--out", "new", "--vocab-size", "300", "--special", "a"], &["\"a\" is empty, or is a token already"]),
        (&["--out", "new", "--kind", "characters", "--vocab-size", "300"], &["hint: leave out --vocab-size"]),
        (&["--out", "new", "--vocab-size", "300", "--limit", "0"], &["--limit"]),
    ] {
        run(&mut learn(rest)).refuses(words);
    }
    run(&mut fornax(["data", "train-tokenizer", "absent.txt", "--vocab-size", "300", "--out", "new"]))
        .refuses(&["absent.txt"]);
}

/// The text of a shown row: brackets, headings and marks taken away.
fn words(shown: &str) -> String {
    let lines = shown.lines().filter(|line| !line.starts_with("-- ") && !line.starts_with("tokenizer "));
    let text: String = lines.collect();
    text.replace(['[', ']', '(', ')'], "").replace('·', " ").replace('⏎', "\n")
}

#[test]
fn rows_are_shown_as_training_sees_them() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    run(&mut train(&tiny_recipe(folder.path()), &run_folder, &["train.steps=5"])).exits(0);
    let path = run_folder.display().to_string();
    let inspect = |rest: &[&str]| fornax(["data", "inspect", &path].iter().chain(rest));
    let object = json(&run(&mut inspect(&["--rows", "600", "--json"])).exits(0).stdout);
    let rows = object["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 600);
    let mut boundaries = 0;
    for row in rows {
        // The recipe's context, and the last target.
        let tokens = row.as_array().unwrap();
        assert_eq!(tokens.len(), 33);
        assert_eq!((&tokens[0]["trained"], &tokens[0]["position"]), (&false.into(), &0.into()));
        assert_eq!(tokens[32]["position"], Value::Null);
        for two in tokens.windows(2) {
            let opens = two[0]["document"] != two[1]["document"];
            boundaries += usize::from(opens);
            // A document ends with the end-of-text token; what opens the next one is never a target.
            assert_eq!(two[1]["trained"], !opens, "{two:?}");
            assert_eq!(opens, two[0]["text"] == "<|endoftext|>", "{two:?}");
            assert!(!opens || two[1]["position"].as_u64().unwrap_or(0) == 0, "{two:?}");
        }
    }
    assert!(boundaries > 10, "only {boundaries} documents end in 600 rows of 32");
    // The same for people; the folder of shards alone knows its run too.
    let shards = run_folder.join("data").display().to_string();
    let shown = run(&mut inspect(&["--rows", "600"])).exits(0).stdout;
    assert_eq!(run(&mut fornax(["data", "inspect", &shards, "--rows", "600"])).exits(0).stdout, shown);
    assert!(shown.contains("-- row 600: ") && shown.contains("-- document 2 of this row --\n("), "{shown}");
    let all: String =
        rows.iter().flat_map(|row| row.as_array().unwrap()).map(|token| token["text"].as_str().unwrap()).collect();
    let visible = |text: &str| text.replace(['[', ']', '(', ')', '\n'], "");
    assert_eq!(visible(&words(&shown)), visible(&all));
    // A run folder without the recipe's context: the flag decides.
    let short = json(&run(&mut inspect(&["--rows", "1", "--context", "8", "--json"])).exits(0).stdout);
    assert_eq!(short["rows"][0].as_array().unwrap().len(), 9);

    // Shards that lie alone need their tokenizer named, and the right one.
    let alone = folder.path().join("alone");
    common::copy(&run_folder.join("data"), &alone);
    let alone = alone.display().to_string();
    run(&mut fornax(["data", "inspect", &alone])).refuses(&["does not hold its tokenizer", "hint: --tokenizer"]);
    let tokenizer = run_folder.join("tokenizer").display().to_string();
    run(&mut fornax(["data", "inspect", &alone, "--tokenizer", &tokenizer])).exits(0);
    let (_, other) = trained(folder.path());
    run(&mut fornax(["data", "inspect", &alone, "--tokenizer", &other]))
        .refuses(&["was prepared with the tokenizer"]);
    run(&mut fornax(["data", "inspect", &other, "--rows", "1"])).refuses(&["holds no dataset"]);
    run(&mut fornax(["data", "inspect", "absent"])).refuses(&["`absent` does not exist"]);
    run(&mut fornax(["data", "inspect", &other, "--file", "absent"])).refuses(&["absent"]);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let folder = folder();
    let (text, out) = trained(folder.path());
    for command in [vec!["inspect", &out, "--file", &text], vec!["compare-tokenizers", &out]] {
        let command = || fornax(["data"].iter().chain(&command));
        let (status, coloured) = on_terminal(&mut command(), 80);
        assert!(status.success() && coloured.contains("\x1b[97;48;5;24m"), "{coloured:?}");
        let (status, plain) = on_terminal(command().env("NO_COLOR", "1"), 80);
        assert!(status.success() && !plain.contains('\x1b') && plain.contains("["), "{plain:?}");
        assert_eq!(run(&mut command()).exits(0).stdout.replace('\n', "\r\n"), plain);
    }
}

#[test]
fn tokenizers_are_compared_on_the_samples_and_on_a_file() {
    let folder = folder();
    let (text, out) = trained(folder.path());
    let characters = folder.path().join("characters").display().to_string();
    run(&mut fornax(["data", "train-tokenizer", &text, "--kind", "characters", "--out", &characters])).exits(0);
    let compare = |rest: &[&str]| {
        fornax(["data", "compare-tokenizers", &out, &characters, "--file", &text].iter().chain(rest))
    };
    let object = json(&run(&mut compare(&["--json"])).exits(0).stdout);
    let texts = object["texts"].as_array().unwrap();
    let names: Vec<&str> = texts.iter().map(|text| text["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["english", "arabic", "mixed", "code", "json", "legal", &text]);
    for report in &texts[..6] {
        let [bpe, characters] = [&report["tokenizers"][0], &report["tokenizers"][1]];
        assert_eq!((&bpe["round_trip"], &bpe["unknown"]), (&true.into(), &0.into()), "{report}");
        let (tokens, bytes) = (bpe["tokens"].as_f64().unwrap(), report["bytes"].as_f64().unwrap());
        assert_eq!(bpe["bytes_per_token"].as_f64().unwrap(), bytes / tokens);
        // A character it has not seen is no token, and is counted.
        assert!(characters["tokens"].is_null() && characters["unknown"].as_u64().unwrap() > 0, "{report}");
        assert!(report["splits"].as_array().unwrap().len() > 1, "{report}");
    }
    let file = &texts[6];
    assert_eq!(
        (&file["bytes"], &file["words"]),
        (&(TEXT.len() * 4).into(), &(TEXT.split_whitespace().count() * 4).into())
    );
    assert_eq!(file["tokenizers"][1]["tokens"], TEXT.len() * 4);
    let shown = run(&mut compare(&[])).exits(0).stdout;
    for word in [
        "-- arabic: ",
        "tokens/word",
        "emoji: ",
        "diacritics: ",
        "URL: https",
        "cannot be encoded",
        "indentation: ····",
    ] {
        assert!(shown.contains(word), "{word} is not in {shown}");
    }
    run(&mut fornax(["data", "compare-tokenizers", "absent"])).refuses(&["absent"]);
    run(&mut fornax(["data", "compare-tokenizers"])).refuses(&["<TOKENIZER>"]);
    run(compare(&[]).args(["--file", "absent.txt"])).refuses(&["absent.txt"]);
}
