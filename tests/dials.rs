//! What helps before a training: `--check` with its estimate, `--depth`, and `--overfit-one-batch`.

mod common;

use std::fs;

use common::{TINY, folder, fornax, run, tiny_recipe};
use fornax_base::recipe::load;
use fornax_train::recipe::TrainRecipe;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_check_says_what_a_recipe_costs() {
    let folder = folder();
    let path = tiny_recipe(folder.path());
    let check = |more: &[&str]| run(fornax(["train", "--check"]).arg(&path).args(more)).exits(0).stdout;
    let object = json(&check(&["--json"]));
    let estimate = &object["estimate"];
    // By hand: width 32, 2 layers of 4 x 32 x 32 + 3 x 32 x 96 + 2 x 32, embedding 400 x 32, norm 32.
    let layer = 4 * 32 * 32 + 3 * 32 * 96 + 2 * 32;
    let parameters = 400 * 32 + 2 * layer + 32;
    assert_eq!(estimate["parameters"], parameters);
    assert_eq!(estimate["embedding_parameters"], 400 * 32);
    assert_eq!(estimate["tokens"], 60 * 4 * 32);
    let per_token = 6.0 * f64::from(400 * 32 + 2 * (layer - 64)) + 12.0 * f64::from(2 * 32 * 32);
    assert_eq!(estimate["flops_per_token"].as_f64(), Some(per_token));
    let memory = &estimate["memory"];
    assert_eq!(memory["parameters"], 4 * parameters);
    assert_eq!(memory["optimizer"], 8 * parameters);
    assert_eq!(memory["gradients"], 4 * parameters);
    let rate = estimate["matmul_rate"].as_f64().unwrap();
    let seconds = estimate["seconds_at_matmul_rate"].as_f64().unwrap();
    assert!((seconds * rate / (per_token * 7680.0) - 1.0).abs() < 1e-9);
    assert_eq!(object["recipe"]["train"]["steps"], 60);
    // Checkpointing lowers what is kept, accumulation doubles the gradients.
    let saving = json(&check(&["--json", "--set", "train.activation_checkpointing=true"]));
    assert!(saving["estimate"]["memory"]["activations"].as_u64() < memory["activations"].as_u64());
    let parts = json(&check(&["--json", "--set", "train.micro_batch=2"]));
    assert_eq!(parts["estimate"]["memory"]["gradients"], 8 * parameters);
    // For people it is a recipe with comments.
    let text = check(&[]);
    load::<TrainRecipe>(&text, "stdout", &[]).unwrap();
    for words in
        ["# parameters: 39,", "# tokens: 60 steps of 128 = 7,680", "# loss: ln(vocabulary) = 5.99", "# memory: "]
    {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let absent = TINY
        .replace("source = \"corpus\"\ncorpus_bytes = 200_000", "source = \"absent.txt\"")
        .replace("kind = \"bpe\"\nvocab_size = 400", "kind = \"characters\"");
    fs::write(&path, absent).unwrap();
    let unknown = check(&[]);
    assert!(unknown.contains("# no estimate: the vocabulary is counted in the text: "), "{unknown}");
    load::<TrainRecipe>(&unknown, "stdout", &[]).unwrap();
}

#[test]
fn one_dial_derives_a_recipe_and_trains_it() {
    let printed = run(&mut fornax(["train", "--depth", "3", "--print-recipe"])).exits(0).stdout;
    assert!(printed.starts_with("# width = 64 x depth = 192\n"), "{printed}");
    let recipe: TrainRecipe = load(&printed, "stdout", &[]).unwrap();
    assert_eq!((recipe.model.width, recipe.model.n_heads), (Some(192), Some(3)));
    let changed = run(&mut fornax(["train", "--depth", "3", "--check", "--json", "--set", "log.every=7"]));
    let object = json(&changed.exits(0).stdout);
    assert_eq!(object["recipe"]["log"]["every"], 7);
    assert!(object["derivation"].as_array().unwrap().len() > 8, "{object}");

    let folder = folder();
    let mut command = fornax(["train", "--depth", "1"]);
    for set in [
        "train.steps=2",
        "train.batch=2",
        "train.micro_batch=2",
        "train.context=32",
        "tokenizer.vocab_size=300",
        "data.corpus_bytes=100_000",
        "data.validation_fraction=0.1",
        "schedule.warmup_steps=1",
        "eval.tokens=64",
        "eval.sample_tokens=4",
    ] {
        command.args(["--set", set]);
    }
    let ran = run(command.current_dir(folder.path())).exits(0).says(&["width = 64 x depth = 64", "finished: "]);
    assert_eq!(ran.stdout, "");
    assert!(folder.path().join("runs/depth-1/model/model.safetensors").exists());
    run(&mut fornax(["train", "--depth", "0"])).refuses(&["`--depth` is 0", "from 1 to 64"]);
    run(fornax(["train", "--depth", "2"]).arg("recipe.toml")).refuses(&["cannot be used with"]);
}

#[test]
fn one_batch_is_learned_by_heart_or_the_gate_is_not_met() {
    let folder = folder();
    let path = tiny_recipe(folder.path());
    let overfit = |more: &[&str]| {
        let mut command = fornax(["train"]);
        command.arg(&path).args(more).current_dir(folder.path()).env("TMPDIR", folder.path());
        run(&mut command)
    };
    let fine = overfit(&["--overfit-one-batch=400", "--set", "optimizer.lr=1e-2"]);
    fine.exits(0).says(&["step 00001 | loss 5.", "learned: a batch of 4 rows", "below 0.1"]);
    let short = overfit(&["--overfit-one-batch=3"]).exits(5);
    let short = short.says(&["after 3 steps, expected below 0.1", "hint: "]);
    assert_eq!(short.stdout, "");
    let lenient = overfit(&["--overfit-one-batch=3", "--target-loss", "100", "--json"]).exits(0);
    let lines: Vec<Value> = lenient.stdout.lines().map(json).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[0]["step"], &lines[1]["reached"]), (&Value::from(1), &Value::from(true)));
    let stuck = overfit(&["--overfit-one-batch=8", "--set", "optimizer.lr=1e-9"]);
    stuck.exits(5).says(&["hint: the loss hardly moves"]);
    // Nothing stays behind: no run, no scratch.
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tiny.toml"]);
    for (arguments, words) in [
        (&["--target-loss", "1"][..], &["--overfit-one-batch"][..]),
        (&["--overfit-one-batch=many"], &["'many'"]),
        (&["--overfit-one-batch", "--check"], &["cannot be used with"]),
    ] {
        overfit(arguments).refuses(words);
    }
}
