//! Rotary frequencies against transformers, in both forms of the configuration.

#![allow(clippy::print_stdout, reason = "a test that measures says so")]

use std::path::Path;

use fornax_model::ModelConfig;
use serde_json::{Value, json};

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/rope/expected.json");
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    expected["cases"].as_array().unwrap().clone()
}

/// The recorded form holds what rotary settings depend on; the other sizes are filled in here.
fn read(form: &Value) -> ModelConfig {
    let mut form = form.clone();
    for key in ["vocab_size", "intermediate_size", "num_hidden_layers"] {
        form[key] = json!(3);
    }
    ModelConfig::from_hf_json(&form.to_string()).unwrap_or_else(|e| panic!("{form}: {e}"))
}

fn relative(found: f64, expected: f64) -> f64 {
    (found - expected).abs() / expected.abs()
}

#[test]
fn frequencies_equal_transformers_in_both_forms() {
    let cases = cases();
    assert_eq!(cases.len(), 25);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let (older, newer) = (read(&case["config_v4"]), read(&case["config_v5"]));
        assert_eq!(older, newer, "{name}: the two forms differ");
        let (inverse, scale) = newer.rope_scaling.inverse_frequencies(newer.rope_theta, newer.head_dim);
        let recorded: Vec<f64> =
            case["inv_freq"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!(inverse.len(), recorded.len(), "{name}");
        let errors = inverse.iter().zip(&recorded).map(|(&f, &r)| relative(f64::from(f), r));
        let worst = errors.fold(0.0, f64::max);
        let scale_error = relative(f64::from(scale), case["attention_scaling"].as_f64().unwrap());
        println!("{name:38} frequencies {worst:.1e}, scale {scale_error:.1e}");
        assert!(worst < 1e-6, "{name}: frequencies are off by {worst}");
        assert!(scale_error < 1e-6, "{name}: scale is off by {scale_error}");
    }
}

/// Older files call the kind of scaling `type`, and some write both names.
#[test]
fn the_older_name_of_the_kind_reads_the_same() {
    for case in cases() {
        let expected = read(&case["config_v4"]);
        let mut form = case["config_v4"].clone();
        let Some(map) = form["rope_scaling"].as_object_mut() else {
            continue;
        };
        let kind = map["rope_type"].clone();
        map.insert("type".into(), kind);
        assert_eq!(read(&form), expected, "{}", case["name"]);
        form["rope_scaling"].as_object_mut().unwrap().remove("rope_type");
        assert_eq!(read(&form), expected, "{}", case["name"]);
    }
}

#[test]
fn written_settings_read_back_equal() {
    for case in cases() {
        let config = read(&case["config_v5"]);
        let written = config.to_hf_json();
        assert_eq!(ModelConfig::from_hf_json(&written).unwrap(), config, "{written}");
    }
}
