//! Adapters against PEFT: logits, loss, gradients, one AdamW step, merged weights and files recorded by
//! `tests/fixtures/make/adapters.py`.

#![allow(clippy::print_stdout, reason = "measured differences, shown with --nocapture")]

#[path = "adapters/recorded.rs"]
mod recorded;

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::files::{RealFs, write_atomic};
use fornax_base::rng::rng;
use fornax_model::adapter::{AdapterConfig, AdapterError, AdapterId, Targets, plan};
use fornax_model::ops::{AdamWStep, adamw_step};
use fornax_model::packed::{Codes, Packing};
use fornax_model::weights::peft::{AdapterFolder, WEIGHTS_FILE, read_config, save, to_json};
use fornax_model::weights::{self, LoadOptions, TensorFile, load, load_packed, restore_trainable, write_tensors};
use fornax_model::{Decoder, Layout, token_tensor};

use recorded::{Case, cases, fixtures, floats, ids, largest_difference, values};

const PREFIX: &str = "base_model.model.";

/// The case's base with the case's adapter on it.
fn adapted(case: &Case) -> (Decoder, AdapterId) {
    let mut decoder = base(case);
    let id = AdapterFolder::open(&case.folder).unwrap().attach(&mut decoder, "default").unwrap();
    (decoder, id)
}

fn base(case: &Case) -> Decoder {
    let options = LoadOptions { dtype: Some(DType::F32), strict: true };
    let loaded = match case.packing {
        None => load(&case.base, options, &Device::flex()),
        Some(packing) => load_packed(&case.base, options, packing, &Device::flex()),
    };
    loaded.unwrap().decoder
}

fn logits(decoder: &Decoder, tokens: &[u32], rows: usize) -> Vec<f32> {
    let t = tokens.len() / rows;
    let device = decoder.device();
    let hidden = decoder.forward(token_tensor(tokens, rows, &device), &Layout::contiguous(0, t, &device), None);
    values(decoder.logits(hidden))
}

/// The mean loss over the recorded batch.
fn loss(decoder: &Decoder, expected: &TensorFile) -> Tensor<1> {
    let device = decoder.device();
    let mask: Vec<f32> = ids(expected, "mask").iter().map(|&m| m as f32).collect();
    let n: f32 = mask.iter().sum();
    let weights = Tensor::<2>::from_data(TensorData::new(mask, [2, 24]), &device);
    let tokens = token_tensor(&ids(expected, "tokens"), 2, &device);
    let hidden = decoder.forward(tokens, &Layout::contiguous(0, 24, &device), None);
    decoder.loss(hidden, token_tensor(&ids(expected, "targets"), 2, &device), weights / n)
}

/// A parameter's name in the file.
fn on_disk(name: &str) -> String {
    format!("{PREFIX}{}", name.replace(".modules_to_save", ""))
}

#[test]
fn logits_equal_peft_with_the_adapter_and_merged() {
    for case in cases() {
        let (decoder, _) = adapted(&case);
        let tokens = ids(&case.expected, "tokens");
        let own = logits(&decoder, &tokens, 2);
        let off = largest_difference(&own, &floats(&case.expected, "logits"));
        let merged = logits(&decoder.merged(DType::F32).unwrap(), &tokens, 2);
        let merged_off = largest_difference(&merged, &floats(&case.expected, "merged_logits"));
        println!("{:18} logits {off:.1e}, merged {merged_off:.1e}", case.name);
        assert!(off < 1e-4, "{}: {off}", case.name);
        assert!(merged_off < 1e-4, "{}: merged {merged_off}", case.name);
        let alone = logits(&decoder.without_adapters(), &tokens, 2);
        assert_eq!(alone, logits(&base(&case), &tokens, 2), "{}", case.name);
        assert!(largest_difference(&own, &alone) > 0.1, "{}: the adapter does nothing", case.name);
    }
}

#[test]
fn modules_and_counts_equal_peft() {
    for case in cases() {
        let (decoder, _) = adapted(&case);
        assert_eq!(decoder.trainable_line(), case.json["trainable_line"].as_str().unwrap(), "{}", case.name);
        let config = read_config(&case.folder).unwrap();
        let planned = plan(&config, decoder.config()).unwrap();
        let low = planned.iter().filter(|p| p.change != fornax_model::adapter::Change::Whole);
        let mut modules: Vec<&str> = low.map(|p| p.module.name.as_str()).collect();
        modules.sort_unstable();
        let recorded: Vec<&str> =
            case.json["modules"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
        assert_eq!(modules, recorded, "{}", case.name);
    }
}

#[test]
fn gradients_and_one_step_equal_peft() {
    for case in cases() {
        for checkpointing in [false, true] {
            let mut decoder = adapted(&case).0.trainable(true);
            decoder.set_activation_checkpointing(checkpointing);
            let loss = loss(&decoder, &case.expected);
            let value = loss.clone().into_scalar::<f32>();
            let recorded = floats(&case.expected, "loss")[0];
            assert!((value - recorded).abs() < 1e-5, "{}: loss {value} against {recorded}", case.name);
            let gradients = decoder.backward(&loss);
            let names: Vec<String> = gradients.keys().map(|name| on_disk(name)).collect();
            let mut recorded: Vec<&str> = case.expected.names().filter_map(|n| n.strip_prefix("grad.")).collect();
            let mut found = names.clone();
            recorded.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, recorded, "{}: parameters with a gradient", case.name);
            let mut worst: f32 = 0.0;
            for (name, gradient) in &gradients {
                let recorded = floats(&case.expected, &format!("grad.{}", on_disk(name)));
                let largest = recorded.iter().fold(0.0f32, |m, g| m.max(g.abs()));
                let error = largest_difference(&values(gradient.clone()), &recorded) / largest;
                assert!(error < 1e-4, "{}: the gradient of {name} is off by {error}", case.name);
                worst = worst.max(error);
            }
            println!("{:18} {} gradients differ by at most {worst:.1e}", case.name, gradients.len());
            step_equals(&case, decoder, gradients);
        }
    }
}

/// One AdamW step with the recorded settings against the recorded adapter.
fn step_equals(case: &Case, mut decoder: Decoder, mut gradients: BTreeMap<String, Tensor<1>>) {
    let setting = |name: &str| case.json["adamw"][name].as_f64().unwrap();
    let beta = |i: usize| case.json["adamw"]["betas"][i].as_f64().unwrap();
    let step = AdamWStep {
        gradient_scale: 1.0,
        lr: setting("lr"),
        beta1: beta(0),
        beta2: beta(1),
        eps: setting("eps"),
        decay: 1.0,
        correction1: 1.0 - beta(0),
        correction2: 1.0 - beta(1),
    };
    let mut start = BTreeMap::new();
    decoder.visit_mut(&mut |name, mut parameter| {
        let Some(gradient) = gradients.remove(name) else { return };
        let zeros = gradient.zeros_like();
        start.insert(name.to_string(), values(parameter.flat()));
        parameter.update_flat(|p| {
            let [p, _, _] = adamw_step(p, gradient, zeros.clone(), zeros, step);
            p
        });
    });
    for (name, _, after) in decoder.trainable_parameters() {
        let recorded = floats(&case.expected, &format!("after.{}", on_disk(&name)));
        let norm = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let error = norm(&values(after), &recorded) / norm(&recorded, &start[&name]);
        // AdamW's opening step is the sign of the gradient: where it is nearly zero, rounding may turn it.
        assert!(error < 2e-3, "{}: the step of {name} is off by {error}", case.name);
    }
}

/// What was recorded over dense weights holds for packed ones only if packing lost nothing.
#[test]
fn packing_keeps_the_recorded_bases_exactly() {
    for case in cases().iter().filter(|case| case.packing.is_some()) {
        let packed = base(case);
        let options = LoadOptions { dtype: Some(DType::F32), strict: true };
        let plain = load(&case.base, options, &Device::flex()).unwrap().decoder;
        assert_eq!((packed.packed().len(), plain.packed().len()), (7 * packed.config().n_layers, 0));
        let read = packed.in_dtype(DType::F32).parameters();
        for ((name, _, read), (_, _, stored)) in read.into_iter().zip(plain.parameters()) {
            let off = largest_difference(&values(read), &values(stored));
            assert!(off == 0.0, "{}: {name} is off by {off}", case.name);
        }
    }
}

#[test]
fn rows_with_different_adapters_equal_peft() {
    let folder = fixtures().join("mixed");
    let expected = TensorFile::open(&folder.join("expected.safetensors")).unwrap();
    let json = recorded::json(&folder.join("expected.json"));
    let all = cases();
    let case = |name: &str| all.iter().find(|case| case.name == name).unwrap();
    let mut decoder = base(case("lora"));
    let mut named = BTreeMap::new();
    for name in ["rslora", "all-linear", "lora"] {
        let id = AdapterFolder::open(&case(name).folder).unwrap().attach(&mut decoder, name).unwrap();
        named.insert(name, id);
    }
    let rows: Vec<&str> = json["rows"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
    let per_row: Vec<Option<AdapterId>> = rows.iter().map(|name| named.get(name).copied()).collect();
    let device = decoder.device();
    let layout = Layout::contiguous(0, 24, &device).with_adapters(per_row);
    let tokens = ids(&expected, "tokens");
    let hidden = decoder.forward(token_tensor(&tokens, rows.len(), &device), &layout, None);
    let found = values(decoder.logits_of_rows(hidden, &layout));
    let off = largest_difference(&found, &floats(&expected, "logits"));
    println!("mixed batch: logits {off:.1e}");
    assert!(off < 1e-4, "{off}");
    let size = found.len() / rows.len();
    for (row, name) in rows.iter().enumerate() {
        decoder.activate(named.get(name).copied());
        let alone = logits(&decoder, &tokens[row * 24..(row + 1) * 24], 1);
        let off = largest_difference(&alone, &found[row * size..(row + 1) * size]);
        assert!(off < 1e-5, "row {row} ({name}) is off by {off}");
    }
}

/// Heads, embeddings and norms of the rows' own adapters, beside rows without any.
#[test]
fn rows_use_the_heads_and_tables_of_their_adapters() {
    let all = cases();
    let names = ["save-head", "embedding", "save-norms", "head", "save-embedding", "dora"];
    let chosen: Vec<&Case> = names.iter().map(|name| all.iter().find(|c| c.name == *name).unwrap()).collect();
    let mut decoder = base(chosen[0]);
    let mut attach = |case: &&Case| {
        let name = case.name.replace('-', "_");
        AdapterFolder::open(&case.folder).unwrap().attach(&mut decoder, &name).unwrap()
    };
    let per_row: Vec<Option<AdapterId>> = chosen.iter().map(&mut attach).map(Some).chain([None]).collect();
    let tokens = &ids(&chosen[0].expected, "tokens")[..24];
    let batch: Vec<u32> = per_row.iter().flat_map(|_| tokens.iter().copied()).collect();
    let device = decoder.device();
    let layout = Layout::contiguous(0, 24, &device).with_adapters(per_row.clone());
    let hidden = decoder.forward(token_tensor(&batch, per_row.len(), &device), &layout, None);
    let found = values(decoder.logits_of_rows(hidden, &layout));
    let size = found.len() / per_row.len();
    for (row, case) in chosen.iter().enumerate() {
        // Row 0 of the recorded batch holds other tokens than here where the base differs; the adapter alone is the
        // truth, and is held to PEFT above.
        let alone = logits(&adapted(case).0, tokens, 1);
        let off = largest_difference(&alone, &found[row * size..(row + 1) * size]);
        assert!(off < 1e-5, "{} in a mixed batch is off by {off}", case.name);
    }
    let last = logits(&base(chosen[0]), tokens, 1);
    assert!(largest_difference(&last, &found[chosen.len() * size..]) < 1e-5);
}

#[test]
fn an_adapter_is_written_as_peft_writes_it() {
    for case in cases() {
        let (decoder, id) = adapted(&case);
        let folder = tempfile::tempdir().unwrap();
        save(&RealFs, &decoder, id, DType::F32, folder.path()).unwrap();
        let original = recorded::json(&case.folder.join("adapter_config.json"));
        let written = recorded::json(&folder.path().join("adapter_config.json"));
        for (key, value) in written.as_object().unwrap() {
            // PEFT lists whole paths where it expanded `all-linear` itself; both mean the same modules.
            let expanded = key == "target_modules" && ["all-linear", "exclude", "qwen2"].contains(&&*case.name);
            assert!(expanded || value == &original[key], "{}: `{key}` {value}", case.name);
        }
        let [ours, theirs] =
            [folder.path(), &case.folder].map(|f| TensorFile::open(&f.join(WEIGHTS_FILE)).unwrap());
        let beside: Vec<&str> = case.json["stored_but_not_trained"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|name| name.as_str().unwrap())
            .collect();
        let names: Vec<&str> = ours.names().collect();
        let expected: Vec<&str> = theirs.names().filter(|name| !beside.contains(name)).collect();
        assert_eq!(names, expected, "{}", case.name);
        for name in names {
            let (a, b) = (ours.get(name).unwrap(), theirs.get(name).unwrap());
            assert_eq!((a.dtype, a.shape, a.bytes), (b.dtype, b.shape, b.bytes), "{}: {name}", case.name);
        }
        let again = AdapterFolder::open(folder.path()).unwrap();
        assert_eq!(
            plan(again.config(), decoder.config()).unwrap(),
            plan(&read_config(&case.folder).unwrap(), decoder.config()).unwrap()
        );
    }
}

#[test]
fn settings_are_written_sorted_with_two_spaces_and_no_last_line_break() {
    let config = AdapterConfig {
        dropout: 0.05,
        rank_pattern: vec![("q_proj".into(), 2)],
        base_model: Some("hf/name".into()),
        ..AdapterConfig::lora(16, 32.0, Targets::Names(vec!["v_proj".into(), "q_proj".into()]))
    };
    let expected = r#"{
  "alpha_pattern": {},
  "auto_mapping": null,
  "base_model_name_or_path": "hf/name",
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "layers_pattern": null,
  "layers_to_transform": null,
  "lora_alpha": 32,
  "lora_dropout": 0.05,
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": 16,
  "rank_pattern": {
    "q_proj": 2
  },
  "revision": null,
  "target_modules": [
    "q_proj",
    "v_proj"
  ],
  "task_type": "CAUSAL_LM",
  "use_dora": false,
  "use_rslora": false
}"#;
    assert_eq!(to_json(&config), expected);
}

/// The case's base with a new adapter whose parameters have all moved.
fn moved(mut decoder: Decoder, name: &str, config: AdapterConfig) -> Decoder {
    decoder.attach(name, config, 7).unwrap();
    let trained = decoder.trainable_parameters();
    decoder.visit_mut(&mut |name, mut parameter| {
        if let Some((_, _, old)) = trained.iter().find(|(other, _, _)| other == name) {
            let mut random = rng(3, 0, name);
            let noise: Vec<f32> = (0..old.dims()[0]).map(|_| random.normal_f32() * 0.1).collect();
            let n = noise.len();
            parameter.set_flat(old.clone() + Tensor::from_data(TensorData::new(noise, [n]), &Device::flex()));
        }
    });
    decoder
}

#[test]
fn magnitudes_over_a_packed_base_are_those_over_what_it_stands_for() {
    let all = cases();
    let case = all.iter().find(|case| case.name == "qwen2").unwrap();
    for packing in [Codes::Int8, Codes::Int4, Codes::Nf4].map(Packing::usual) {
        let config = AdapterConfig { dora: true, ..AdapterConfig::lora(3, 6.0, Targets::AllLinear) };
        let packed = base(case).quantized(packing);
        let dense = packed.in_dtype(DType::F32);
        let [packed, dense] = [packed, dense].map(|base| moved(base, "default", config.clone()).trainable(true));
        let tokens = ids(&case.expected, "tokens");
        let (a, b) = (logits(&packed, &tokens, 2), logits(&dense, &tokens, 2));
        assert!(largest_difference(&a, &b) < 2e-5, "{packing:?}: {}", largest_difference(&a, &b));
        let [a, b] = [packed, dense].map(|decoder| decoder.backward(&loss(&decoder, &case.expected)));
        assert_eq!(a.len(), b.len());
        for (name, gradient) in a {
            let (found, expected) = (values(gradient), values(b[&name].clone()));
            let largest = expected.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            assert!(largest_difference(&found, &expected) < 2e-5 * largest, "{packing:?}: {name}");
        }
    }
}

#[test]
fn what_is_trained_is_restored_and_nothing_else_is_asked_for() {
    let all = cases();
    let case = all.iter().find(|case| case.name == "save-head").unwrap();
    let (trained, _) = adapted(case);
    let config = read_config(&case.folder).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trained.safetensors");
    write_atomic(&RealFs, &path, &mut |out| write_tensors(&trained.trainable_parameters(), DType::F32, out))
        .unwrap();
    let file = TensorFile::open(&path).unwrap();
    let mut fresh = base(case);
    fresh.attach("default", config.clone(), 1).unwrap();
    let mut fresh = fresh.trainable(true);
    restore_trainable(&mut fresh, &file).unwrap();
    let tokens = ids(&case.expected, "tokens");
    assert_eq!(logits(&fresh, &tokens, 2), logits(&trained, &tokens, 2));
    assert!(fresh.trainable_parameters().len() == file.names().count());
    let mut other = base(case);
    other.attach("default", AdapterConfig { rank: 3, ..config }, 1).unwrap();
    let before = logits(&other, &tokens, 2);
    let error = restore_trainable(&mut other, &file).unwrap_err().to_string();
    assert!(error.contains("lora_A.weight` is [4, 48], expected [3, 48]"), "{error}");
    assert_eq!(logits(&other, &tokens, 2), before);
    let error = restore_trainable(&mut base(case), &file).unwrap_err().to_string();
    assert!(error.contains("model.embed_tokens.weight` [113, 48] is missing"), "{error}");
}

#[test]
fn adapters_come_and_go_by_their_names() {
    let all = cases();
    let case = &all[0];
    let mut decoder = base(case);
    let lora = || AdapterConfig::lora(2, 4.0, Targets::AllLinear);
    let expected = logits(&decoder, &ids(&case.expected, "tokens"), 2);
    let parameters = decoder.parameters().len();
    let one = decoder.attach("one", lora(), 1).unwrap();
    assert!(matches!(decoder.attach("one", lora(), 1), Err(AdapterError::Taken { .. })));
    for name in ["", "a.b", "a b", "é"] {
        assert!(matches!(decoder.attach(name, lora(), 1), Err(AdapterError::Name { .. })), "{name:?}");
    }
    let wrong = AdapterConfig::lora(2, 4.0, Targets::Names(vec!["q_proj".into(), "q_porj".into()]));
    let error = decoder.attach("two", wrong, 1).unwrap_err().to_string();
    assert!(error.contains("`q_porj` names no module"), "{error}");
    let two = decoder.attach("two", lora(), 1).unwrap();
    let names: Vec<String> = decoder.adapters().map(|(_, name, _)| name.to_string()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(decoder.active_adapter(), Some(two));
    let trained = decoder.trainable_parameters();
    assert!(trained.iter().all(|(name, _, _)| name.contains(".two.")), "only the active adapter is trained");
    let folder = tempfile::tempdir().unwrap();
    let error = weights::save(&RealFs, &decoder, DType::F32, 1 << 30, folder.path()).unwrap_err().to_string();
    assert!(error.contains("2 loaded adapters"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    decoder.detach(one);
    decoder.detach(two);
    assert_eq!(decoder.parameters().len(), parameters);
    assert_eq!(logits(&decoder, &ids(&case.expected, "tokens"), 2), expected);
    assert!(matches!(decoder.merged(DType::F32), Err(AdapterError::NoneActive)));
    weights::save(&RealFs, &decoder, DType::F32, 1 << 30, folder.path()).unwrap();
}
