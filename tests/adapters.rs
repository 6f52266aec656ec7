//! Adapters on the command line, and adapters made by Fornax for other programs to read.
//!
//! Those of the second kind are left in the target folder's `tmp/adapters` with the logits Fornax computes, so that
//! `tests/fixtures/make/check_adapters.py` can load them in PEFT (and mlx-lm) and compare.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use burn::tensor::{DType, Device, Tensor, TensorData};
use common::{copy, folder, fornax, run, tiny_recipe, train};
use fornax_base::files::{RealFs, write_atomic};
use fornax_base::rng::rng;
use fornax_model::adapter::{AdapterConfig, AdapterId, Init, Targets, largest_logit_difference};
use fornax_model::weights::peft::{AdapterFolder, CONFIG_FILE, WEIGHTS_FILE, save};
use fornax_model::weights::{LoadOptions, load, mlx, write_tensors};
use fornax_model::{Decoder, Layout, token_tensor};
use serde_json::Value;

fn names(all: &[&str]) -> Targets {
    Targets::Names(all.iter().map(|name| (*name).into()).collect())
}

fn lora(targets: Targets) -> AdapterConfig {
    AdapterConfig::lora(4, 8.0, targets)
}

/// Kinds of adapters, with the base that each is made on.
fn kinds() -> Vec<(&'static str, &'static str, AdapterConfig)> {
    let all = || lora(Targets::AllLinear);
    let save = |targets, modules: &[&str]| AdapterConfig {
        modules_to_save: modules.iter().map(|name| (*name).into()).collect(),
        ..lora(targets)
    };
    let patterns = AdapterConfig {
        rank_pattern: vec![("q_proj".into(), 2), (r"layers\.0\.mlp\.(gate|up)_proj".into(), 5)],
        alpha_pattern: vec![("v_proj".into(), 16.0), ("o_proj".into(), 0.5)],
        ..all()
    };
    let layers = AdapterConfig {
        layers_to_transform: Some(vec![1]),
        layers_pattern: vec!["layers".into()],
        ..lora(names(&["q_proj", "gate_proj"]))
    };
    vec![
        ("lora", "tinyllama", lora(names(&["q_proj", "v_proj"]))),
        ("all-linear", "tinyllama", AdapterConfig { init: Init::Gaussian, dropout: 0.1, ..all() }),
        ("rslora", "tinyllama", AdapterConfig { rslora: true, ..all() }),
        ("dora", "tinyllama", AdapterConfig { dora: true, ..all() }),
        ("dora-rslora-biases", "qwen2", AdapterConfig { dora: true, rslora: true, ..all() }),
        ("patterns", "tinyllama", patterns),
        ("layers", "tinyllama", layers),
        ("regex", "tinyllama", lora(Targets::Regex(r".*\.1\.(self_attn\.(q|k)_proj|mlp\.up_proj)".into()))),
        ("exclude", "qwen3", AdapterConfig { exclude: Some(names(&["down_proj"])), ..all() }),
        ("head-norms", "tinyllama", save(names(&["q_proj"]), &["lm_head", "norm"])),
        ("embedding-saved", "tinyllama", save(names(&["q_proj"]), &["embed_tokens"])),
        ("projection-saved", "qwen2", save(names(&["o_proj"]), &["q_proj"])),
        ("embedding", "tinyllama", lora(names(&["embed_tokens", "k_proj"]))),
        ("head", "tinyllama", lora(names(&["lm_head", "k_proj"]))),
    ]
}

fn parity(base: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(base)
}

fn loaded(folder: &Path) -> Decoder {
    load(folder, LoadOptions { dtype: Some(DType::F32), strict: true }, &Device::flex()).unwrap().decoder
}

/// A model with an adapter that has moved from its start.
fn trained(base: &Path, config: AdapterConfig) -> (Decoder, AdapterId) {
    let mut decoder = loaded(base);
    let id = decoder.attach("default", config, 3).unwrap();
    let mut trained = decoder.trainable_parameters().into_iter().peekable();
    let mut clone = decoder.clone();
    clone.visit_mut(&mut |name, mut parameter| {
        let Some((_, _, old)) = trained.next_if(|(other, _, _)| other == name) else { return };
        let (n, mut random) = (old.dims()[0], rng(1, 0, name));
        let noise: Vec<f32> = (0..n).map(|_| random.normal_f32()).collect();
        let noise = Tensor::<1>::from_data(TensorData::new(noise, [n]), (&Device::flex(), DType::F32));
        let product = name.contains("lora_B") || name.contains("lora_embedding");
        parameter.set_flat(if product { old + noise * 0.15 } else { old.clone() + old * noise * 0.1 });
    });
    assert!(trained.next().is_none());
    (clone, id)
}

const TOKENS: [usize; 2] = [2, 19];

fn ids(decoder: &Decoder) -> Vec<u32> {
    let mut random = rng(2, 0, "tokens");
    let v = decoder.config().vocab_size as u64;
    (0..TOKENS[0] * TOKENS[1]).map(|_| random.below(v) as u32).collect()
}

fn logits(decoder: &Decoder) -> Tensor<3> {
    let device = Device::flex();
    let layout = Layout::contiguous(0, TOKENS[1], &device);
    decoder.logits(decoder.forward(token_tensor(&ids(decoder), TOKENS[0], &device), &layout, None))
}

fn values(tensor: Tensor<3>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// `logits.safetensors` beside an adapter: tokens, and what Fornax computes of them.
fn write_logits(decoder: &Decoder, folder: &Path) {
    let logits = logits(decoder);
    let (shape, n) = (logits.dims().to_vec(), logits.dims().iter().product::<usize>());
    let ids: Vec<f32> = ids(decoder).into_iter().map(|id| id as f32).collect();
    let ids = Tensor::<1>::from_data(TensorData::new(ids.clone(), [ids.len()]), (&Device::flex(), DType::F32));
    let tensors =
        [("logits".to_string(), shape, logits.reshape([n])), ("tokens".to_string(), TOKENS.to_vec(), ids)];
    write_atomic(&RealFs, &folder.join("logits.safetensors"), &mut |out| write_tensors(&tensors, DType::F32, out))
        .unwrap();
}

fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adapters").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_written_adapter_is_the_same_adapter() {
    for (name, base, config) in kinds() {
        let config = AdapterConfig { base_model: Some(format!("parity/{base}")), ..config };
        let (decoder, id) = trained(&parity(base), config);
        let folder = fresh(name);
        save(&RealFs, &decoder, id, DType::F32, &folder).unwrap();
        let mut again = loaded(&parity(base));
        AdapterFolder::open(&folder).unwrap().attach(&mut again, "another-name").unwrap();
        assert_eq!(values(logits(&again)), values(logits(&decoder)), "{name}");
        let change = largest_difference(&values(logits(&again)), &values(logits(&loaded(&parity(base)))));
        assert!(change > 0.05, "{name} moves the logits by {change}");
        write_logits(&decoder, &folder);
    }
}

#[test]
fn an_adapter_goes_to_mlx_lm_and_back() {
    let mut converted = 0;
    for (name, base, config) in kinds() {
        let (decoder, id) = trained(&parity(base), config);
        let (peft, there, back) = (folder(), fresh(&format!("mlx-{name}")), folder());
        save(&RealFs, &decoder, id, DType::F32, peft.path()).unwrap();
        let original = AdapterFolder::open(peft.path()).unwrap();
        let result = mlx::from_peft(&RealFs, &original, &there);
        if ["patterns", "head-norms", "embedding-saved", "projection-saved", "embedding"].contains(&name) {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("mlx-lm"), "{name}: {error}");
            fs::remove_dir_all(&there).unwrap();
            continue;
        }
        result.unwrap();
        let settings: Value = json(&there.join(CONFIG_FILE));
        assert_eq!(settings["lora_parameters"]["rank"], 4, "{name}");
        fs::write(there.join("base.txt"), base).unwrap();
        write_logits(&decoder, &there);
        mlx::to_peft(&RealFs, &there, back.path()).unwrap();
        let mut again = loaded(&parity(base));
        AdapterFolder::open(back.path()).unwrap().attach(&mut again, "default").unwrap();
        let off = largest_difference(&values(logits(&again)), &values(logits(&decoder)));
        assert!(off < 1e-5, "{name}: {off}");
        converted += 1;
    }
    assert_eq!(converted, 9);
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The model folder of a finished run, and an adapter trained on it.
static MADE: LazyLock<(PathBuf, PathBuf)> = LazyLock::new(|| {
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adapter-commands");
    let _ = fs::remove_dir_all(&made);
    fs::create_dir_all(&made).unwrap();
    let run_folder = made.join("run");
    run(&mut train(&tiny_recipe(&made), &run_folder, &["train.steps=6"])).exits(0);
    let (model, adapter) = (run_folder.join("model"), made.join("adapter"));
    let config = AdapterConfig { base_model: Some("runs/tiny/model".into()), ..lora(Targets::AllLinear) };
    let (decoder, id) = trained(&model, config);
    save(&RealFs, &decoder, id, DType::F32, &adapter).unwrap();
    (model, adapter)
});

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn inspect_shows_what_an_adapter_changes() {
    let (model, adapter) = &*MADE;
    let plain = run(&mut fornax(["adapter", "inspect", text(adapter)])).exits(0);
    for part in ["LoRA, rank 4, alpha 8", "runs/tiny/model", "q_proj", "down_proj"] {
        assert!(plain.stdout.contains(part), "{plain:?}");
    }
    let out =
        run(&mut fornax(["adapter", "inspect", text(adapter), "--model", text(model), "--json"])).exits(0).stdout;
    let report: Value = serde_json::from_str(&out).unwrap();
    // Two layers of width 32: four projections of 32 + 32, two of 32 + 96 and one of 96 + 32 with rank 4.
    let expected = 2 * 4 * (4 * 64 + 3 * 128);
    assert_eq!(report["parameters"], expected);
    assert_eq!(report["modules"]["q_proj"]["count"], 2);
    assert_eq!(report["modules"]["q_proj"]["ranks"], serde_json::json!([4]));
    let line = report["trainable_line"].as_str().unwrap();
    assert!(line.starts_with("trainable params: 5,120 || all params: "), "{line}");
}

#[test]
fn merge_writes_the_model_that_generates_what_base_and_adapter_do() {
    let (model, adapter) = &*MADE;
    let made = folder();
    for (dtype, bound) in [("auto", 1e-4), ("bf16", 0.5)] {
        let out = made.path().join(dtype);
        let merge = ["adapter", "merge", text(adapter), "--model", text(model), "--out", text(&out)];
        let ran = run(fornax(merge).args(["--dtype", dtype, "--json"])).exits(0);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let difference = report["largest_logit_difference"].as_f64().unwrap();
        assert!(difference < bound, "{report}");
        assert!(dtype == "auto" || difference > 1e-4, "rounding to bf16 shows: {report}");
        assert_eq!(report["dtype"], if dtype == "auto" { "f32" } else { "bf16" });
        // What it says is what the written folder gives.
        let merged = loaded(&out);
        let mut both = loaded(model);
        AdapterFolder::open(adapter).unwrap().attach(&mut both, "default").unwrap();
        let ids: Vec<u32> = (5..37).collect();
        assert!(f64::from(largest_logit_difference(&both, &merged, &ids)) < bound);
        run(&mut fornax(merge)).exits(2).says(&["exists already", "--out"]);
    }
    let generate = |model: &Path, more: &[&str]| {
        let command = ["generate", "--prompt", "One day", "--temperature", "0", "--max-tokens", "12", "--model"];
        run(fornax(command).arg(model).args(more)).exits(0).stdout
    };
    let with = generate(model, &["--adapter", text(adapter)]);
    assert_eq!(with, generate(&made.path().join("auto"), &[]));
    assert_ne!(with, generate(model, &[]));
    let plain = made.path().join("plain");
    let ran = run(&mut fornax(["adapter", "merge", text(adapter), "--model", text(model), "--out", text(&plain)]));
    assert!(ran.exits(0).stdout.contains("largest difference of two logits"));
}

#[test]
fn convert_goes_both_ways_and_sees_which() {
    let (_, adapter) = &*MADE;
    let made = folder();
    let (there, back) = (made.path().join("mlx"), made.path().join("peft"));
    run(&mut fornax(["adapter", "convert", text(adapter), "--out", text(&there)])).exits(0).says(&["for mlx-lm"]);
    let json = run(&mut fornax(["adapter", "convert", text(&there), "--out", text(&back), "--json"])).exits(0);
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap()["to"], "peft");
    let [one, other] = [adapter, &back].map(|folder| fs::read(folder.join(WEIGHTS_FILE)).unwrap());
    assert!(one == other, "the tensors are the same bytes again");
    let out = made.path().join("again");
    let same = ["adapter", "convert", text(adapter), "--to", "peft", "--out", text(&out)];
    run(&mut fornax(same)).exits(2).says(&["has that form already"]);
    run(&mut fornax(["adapter", "convert", text(made.path()), "--out", text(&out)])).exits(2).says(&["neither"]);
    assert!(!out.exists(), "nothing is left where nothing was converted");
}

/// Replaces a part of `adapter_config.json`.
fn settings(folder: &Path, from: &str, to: &str) {
    let path = folder.join(CONFIG_FILE);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

type Wrong = (&'static str, fn(&Path), i32, &'static [&'static str]);

const WRONG: &[Wrong] = &[
    ("not JSON", |f| settings(f, "{", "{,"), 2, &["adapter_config.json", "not a valid adapter configuration"]),
    ("no settings", |f| fs::remove_file(f.join(CONFIG_FILE)).unwrap(), 2, &["not an adapter folder", "hint:"]),
    ("another method", |f| settings(f, "\"LORA\"", "\"IA3\""), 2, &["peft_type", "IA3", "hint:"]),
    (
        "biases",
        |f| settings(f, "\"bias\": \"none\"", "\"bias\": \"all\""),
        2,
        &["`bias`", "\"all\"", "not supported"],
    ),
    ("an unknown setting", |f| settings(f, "\"r\": 4", "\"r\": 4, \"use_new\": true"), 2, &["`use_new`", "true"]),
    ("another rank", |f| settings(f, "\"r\": 4", "\"r\": 5"), 2, &["lora_A.weight` is [4, 32], expected [5, 32]"]),
    ("no rank", |f| settings(f, "\"r\": 4", "\"r\": 0"), 2, &["`r`", "not 0"]),
    (
        "a missing magnitude",
        |f| settings(f, "\"use_dora\": false", "\"use_dora\": true"),
        2,
        &["lora_magnitude_vector` [32] is missing"],
    ),
    (
        "tensors of no target",
        |f| settings(f, "\"q_proj\",", ""),
        2,
        &["q_proj.lora_A.weight", "not part of this adapter"],
    ),
    (
        "no such module",
        |f| settings(f, "\"modules_to_save\": null", "\"modules_to_save\": [\"score\"]"),
        2,
        &["modules_to_save", "score", "up_proj"],
    ),
    (
        "cut short",
        |f| {
            let path = f.join(WEIGHTS_FILE);
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 9]).unwrap();
        },
        4,
        &["adapter_model.safetensors", "its header asks for"],
    ),
    ("a pickle", |f| fs::rename(f.join(WEIGHTS_FILE), f.join("adapter_model.bin")).unwrap(), 2, &["is a pickle"]),
];

#[test]
fn wrong_adapters_are_refused_with_the_name_of_what_is_wrong() {
    let (model, adapter) = &*MADE;
    for (what, damage, code, words) in WRONG {
        let made = folder();
        let wrong = made.path().join("wrong");
        copy(adapter, &wrong);
        damage(&wrong);
        let out = made.path().join("out");
        for command in [
            &["adapter", "merge", text(&wrong), "--model", text(model), "--out", text(&out)][..],
            &["generate", "--model", text(model), "--prompt", "a", "--adapter", text(&wrong)],
        ] {
            let ran = run(&mut fornax(command)).exits(*code);
            for word in *words {
                assert!(ran.stderr.contains(word), "{what}: no {word:?} in {}", ran.stderr);
            }
            assert!(!out.exists(), "{what}");
        }
    }
}
