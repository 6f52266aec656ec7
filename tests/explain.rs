//! `fornax explain` against transformers: a real checkpoint, and tiny models with grouped heads, head norms and
//! windows.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use common::{folder, fornax, run, shared_data, tiny_recipe, train};
use fornax_infer::explain::{Explanation, Listed, explain};
use fornax_model::weights::{LoadOptions, load};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(fixtures().join("explain/expected.json")).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// The folder of a recorded case; `None` where its data is absent.
fn model(name: &str) -> Option<PathBuf> {
    match name {
        "tinystories-656k-hf" => shared_data(name),
        _ => Some(fixtures().join("parity").join(name)),
    }
}

/// Every slot of every head is listed, so that whole rows can be compared.
fn explained(name: &str, case: &Value) -> Option<Explanation> {
    let options = LoadOptions { dtype: Some(DType::F32), strict: true };
    let decoder = load(&model(name)?, options, &Device::flex()).unwrap().decoder;
    let position = case["position"].as_u64().unwrap() as usize;
    let listed = Listed { targets: usize::MAX, next: 5 };
    Some(explain(&decoder, &ids(&case["ids"]), position, listed).unwrap())
}

#[track_caller]
fn near(what: &str, found: f64, expected: f64, tolerance: f64) {
    let apart = (found - expected).abs();
    assert!(apart <= tolerance * expected.abs().max(1.0), "{what}: {found}, transformers has {expected}");
}

#[test]
fn the_way_of_a_token_equals_transformers() {
    let expected = expected();
    let mut compared = 0;
    for (name, cases) in expected["cases"].as_object().unwrap() {
        for case in cases.as_array().unwrap() {
            let Some(found) = explained(name, case) else { continue };
            let norms = floats(&case["residual_norms"]);
            near(name, found.embedding_norm, norms[0], 1e-5);
            assert_eq!(found.layers.len() * 2 + 1, norms.len());
            for (i, layer) in found.layers.iter().enumerate() {
                near(name, layer.before, norms[2 * i], 1e-5);
                near(name, layer.after_attention, norms[2 * i + 1], 1e-5);
                near(name, layer.after_mlp, norms[2 * i + 2], 1e-5);
                let rows = case["attention"][i].as_array().unwrap();
                assert_eq!(layer.heads.len(), rows.len());
                for (head, row) in layer.heads.iter().zip(rows.iter().map(floats)) {
                    for target in &head.targets {
                        near(name, target.weight, row[target.position], 1e-5);
                        compared += 1;
                    }
                    // What is not listed is not read at all, and the greatest weight leads.
                    let listed: f64 = head.targets.iter().map(|target| target.weight).sum();
                    near(name, listed, row.iter().sum(), 1e-5);
                    assert!(head.targets.windows(2).all(|pair| pair[0].weight >= pair[1].weight));
                    let entropy: f64 = row.iter().filter(|&&w| w > 0.0).map(|w| -w * w.ln()).sum();
                    near(name, head.entropy, entropy, 1e-4);
                }
            }
            let next: Vec<u32> = found.next.iter().map(|token| token.id).collect();
            assert_eq!(next, ids(&case["next_ids"]), "{name}");
            for (i, token) in found.next.iter().enumerate() {
                near(name, token.logit, case["next_logits"][i].as_f64().unwrap(), 1e-4);
                near(name, token.probability, case["next_probabilities"][i].as_f64().unwrap(), 1e-5);
            }
            let losses: Vec<f64> = found.losses[1..].iter().map(|loss| loss.unwrap()).collect();
            assert_eq!((found.losses[0], losses.len()), (None, ids(&case["ids"]).len() - 1));
            for (found, expected) in losses.iter().zip(floats(&case["losses"])) {
                near(name, *found, expected, 1e-5);
            }
        }
    }
    assert!(compared > 300, "only {compared} weights were compared");
}

#[test]
fn people_and_programs_see_the_same_numbers() {
    let Some(model) = shared_data("tinystories-656k-hf") else { return };
    let expected = expected();
    let command = |more: &[&str]| {
        let mut command = fornax(["explain", "--prompt", expected["text"].as_str().unwrap()]);
        command.arg("--model").arg(&model).args(more);
        command
    };
    let json = run(&mut command(&["--json"])).exits(0).stdout;
    let object: Value = serde_json::from_str(&json).unwrap();
    let case = &expected["cases"]["tinystories-656k-hf"][0];
    let tokens = object["tokens"].as_array().unwrap();
    let found: Vec<u32> = tokens.iter().map(|token| token["id"].as_u64().unwrap() as u32).collect();
    assert_eq!(found, ids(&case["ids"]));
    assert_eq!(object["position"], case["position"]);
    assert_eq!(object["layers"][1]["heads"][0]["targets"].as_array().unwrap().len(), 3);
    assert_eq!(object["next"].as_array().unwrap().len(), 5);
    near("embedding", object["embedding_norm"].as_f64().unwrap(), floats(&case["residual_norms"])[0], 1e-5);
    // The pieces put together are the text that was given.
    let text: String = tokens.iter().skip(1).map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(text.trim_start(), expected["text"].as_str().unwrap());

    let plain = run(&mut command(&[])).exits(0);
    assert_eq!(plain.stderr, "");
    assert!(plain.stdout.lines().all(|line| line.chars().count() <= 80), "{}", plain.stdout);
    for words in ["layer 1: residual stream", "  head 7  entropy", "what may come next:", "mean loss"] {
        assert!(plain.stdout.contains(words), "{words} is not in {}", plain.stdout);
    }
    let before = run(&mut command(&["--position", "0"])).exits(0).stdout;
    assert!(before.contains("\ntoken 0: embedding"), "{before}");
}

#[test]
fn control_characters_are_escaped_and_wrong_input_is_refused() {
    let folder = folder();
    let run_folder = folder.path().join("run");
    run(&mut train(&tiny_recipe(folder.path()), &run_folder, &["train.steps=5", "eval.every=0"])).exits(0);
    let explain = |prompt: &str, more: &[&str]| {
        let mut command = fornax(["explain", "--prompt", prompt, "--model"]);
        command.arg(&run_folder).args(more);
        run(&mut command)
    };
    let shown = explain("One\u{1b}[31m\t\u{7}\nÄ 水 \u{202e}", &[]).exits(0).stdout;
    assert!(shown.contains(r"\u{1b}") && shown.contains(r"\t") && shown.contains(r"\n"), "{shown}");
    let is_shown = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
    assert!(shown.chars().all(is_shown), "{shown:?}");
    explain("One day", &["--position", "99"]).refuses(&["position 99 is none of them"]);
    explain(&"One day ".repeat(50), &[]).refuses(&["the model's context holds 32", "hint: shorten the prompt"]);
    explain("", &[]).refuses(&["the prompt has no tokens"]);
    run(&mut fornax(["explain", "--prompt", "a", "--model", "absent"])).refuses(&["`absent` does not exist"]);
}
