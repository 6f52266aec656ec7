//! Recorded steps of tuning through the program.

mod common;

use std::fs;
use std::path::Path;

use common::{fornax, run};
use serde_json::Value;

const STEPS: [&str; 10] = [
    "sft",
    "sft-packed",
    "lora",
    "rslora",
    "dora",
    "qlora-int8",
    "qlora-int4",
    "qlora-nf4",
    "dpo-mix",
    "dpo-sigmoid",
];

fn recorded() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copied = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &copied),
            false => drop(fs::copy(&path, &copied).unwrap()),
        }
    }
}

/// The lines of `bench parity --post --json` over `fixtures`, and the exit code.
fn steps(fixtures: &Path, more: &[&str], exit: i32) -> Vec<Value> {
    let fixtures = fixtures.to_str().unwrap();
    let arguments = [&["bench", "parity", "--post", "--fixtures", fixtures, "--json"], more].concat();
    let ran = run(&mut fornax(&arguments)).exits(exit);
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn steps_of_tuning_equal_the_recorded_ones() {
    let page = fs::read_to_string(recorded().join("../../docs/reference/contract.md")).unwrap();
    let lines = steps(recorded(), &[], 0);
    let names: Vec<&str> = lines.iter().map(|line| line["fixture"].as_str().unwrap()).collect();
    assert_eq!(names, STEPS);
    for line in &lines {
        assert_eq!(line["passed"], true, "{line}");
        for (field, limit) in [("loss", 1e-4), ("gradients", 1e-4), ("parameters", 1e-4), ("changes", 2e-3)] {
            assert_eq!(line["tolerance"][field], limit, "{line}");
        }
        let full = line["fixture"].as_str().unwrap().starts_with("sft");
        assert_eq!(line["frozen_error"], if full { Value::Null } else { 0.0.into() }, "{line}");
        for field in line.as_object().unwrap().keys() {
            assert!(page.contains(&format!("`{field}`")), "the contract does not name {field}");
        }
    }
}

/// Where the bytes of a tensor begin in a safetensors file.
fn offset(bytes: &[u8], tensor: &str) -> usize {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    8 + length + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize
}

#[test]
fn one_altered_number_is_found_in_its_step() {
    let q_proj = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";
    let v_proj = "model.layers.1.self_attn.v_proj.weight";
    for (file, tensor, field, off) in [
        ("sft/expected.safetensors", format!("after.{v_proj}"), "parameter_error", &["sft", "sft-packed"][..]),
        ("peft/dora/expected.safetensors", format!("grad.{q_proj}"), "gradient_error", &["dora"]),
        ("peft/qlora-int4/expected.safetensors", "loss".to_owned(), "loss_error", &["qlora-int4"]),
        ("preference/step.safetensors", format!("sigmoid.grad.{q_proj}"), "gradient_error", &["dpo-sigmoid"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for part in ["sft", "peft", "preference", "parity/tinyllama"] {
            copy(&recorded().join(part), &folder.path().join(part));
        }
        let path = folder.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let at = offset(&bytes, &tensor);
        let number = f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        bytes[at..at + 4].copy_from_slice(&(number + 0.25).to_le_bytes());
        fs::write(&path, bytes).unwrap();
        for line in steps(folder.path(), &[], 5) {
            let altered = off.contains(&line["fixture"].as_str().unwrap());
            assert_eq!(line["passed"], !altered, "{file}: {line}");
            assert_eq!(line[field].as_f64().unwrap() > 1e-4, altered, "{file}: {line}");
        }
    }
}

#[test]
fn half_precision_is_within_its_limits_and_f32_limits_refuse_it() {
    let lines = steps(recorded(), &["--precision", "bf16"], 0);
    assert!(lines.iter().all(|line| line["dtype"] == "bf16" && line["passed"] == true), "{lines:?}");
    let lines = steps(recorded(), &["--precision", "bf16", "--gradient-tolerance", "1e-4"], 5);
    assert!(lines.iter().all(|line| line["passed"] == false), "{lines:?}");
}

#[test]
fn missing_and_damaged_records_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = folder.path().to_str().unwrap();
    let post = ["bench", "parity", "--post", "--fixtures", fixtures];
    run(&mut fornax(post)).exits(2).says(&["sft/expected.safetensors", "hint:", "--fixtures"]);
    run(&mut fornax([&post[..], &["--tolerance", "1"]].concat())).exits(2).says(&["cannot be used with"]);
    for part in ["sft", "peft", "preference", "parity/tinyllama"] {
        copy(&recorded().join(part), &folder.path().join(part));
    }
    fs::write(folder.path().join("preference/step.json"), "{}").unwrap();
    run(&mut fornax(post)).exits(4).says(&["preference/step.json", "adapter"]);
}
