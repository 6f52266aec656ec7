//! Post-training with the real program: every objective on real rows, exact resume, what a run leaves, wrong input.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{copy, folder, fornax, generate, paths_below, run, shared_data};

const BASE: &str = "tinystories-656k-hf";

/// A recipe on a real model and real rows: six steps of four rows.
fn recipe(objective: &str, source: &Path, more: &str) -> Option<String> {
    let base = shared_data(BASE)?;
    Some(format!(
        "objective = \"{objective}\"\nmodel = {{ base = \"{}\" }}\n{more}\n\
         [data]\nsource = \"{}\"\ntemplate = \"plain\"\nrows = 40\nskip_bad_rows = true\n\
         [train]\nsteps = 6\ncontext = 160\nbatch = 4\nmicro_batch = 2\n\
         [optimizer]\nlr = 1e-3\n[eval]\nevery = 3\nrows = 4\n[checkpoint]\nevery = 3\n",
        base.display(),
        source.display()
    ))
}

fn written(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("recipe.toml");
    fs::write(&path, text).unwrap();
    path
}

fn finetune(recipe: &Path, run_folder: &Path) -> Command {
    let mut command = fornax(["finetune"]);
    command.arg(recipe).arg("--run").arg(run_folder).args(["--device", "cpu"]);
    command
}

/// The files of a run that must not depend on how it was interrupted.
fn results(run_folder: &Path) -> Vec<(String, Vec<u8>)> {
    let lasting = |name: &String| {
        name.ends_with("step-00000006/model.safetensors")
            || name.ends_with("step-00000006/optimizer.safetensors")
            || name.ends_with("adapter_model.safetensors")
            || name.ends_with("model/model.safetensors")
    };
    let mut names: Vec<String> = paths_below(run_folder).into_iter().filter(lasting).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), fs::read(run_folder.join(&name)).unwrap())).collect()
}

/// Objectives with what their recipe needs besides; the rows are of the data folder.
const OBJECTIVES: [(&str, &str, &str); 9] = [
    ("sft", "sft-rasbt/instruction-data.json", "adapter = { r = 4, dropout = 0.1 }"),
    ("sft", "sft-llamafactory/identity.json", ""),
    ("dpo", "pref-hh-rlhf/harmless-base.test.jsonl.gz", "adapter = { r = 4, dora = true }"),
    (
        "dpo",
        "pref-llamafactory/dpo_en_demo.json",
        "dpo = { loss = [\"sigmoid\", \"sft\"], precompute_ref_log_probs = true }",
    ),
    ("orpo", "pref-llamafactory/dpo_en_demo.json", "adapter = { r = 4, rslora = true }"),
    ("cpo", "pref-llamafactory/dpo_en_demo.json", "adapter = { r = 4 }\ncpo = { loss = \"simpo\" }"),
    ("kto", "pref-llamafactory/kto_en_demo.json", "adapter = { r = 4 }"),
    ("reward", "pref-llamafactory/dpo_en_demo.json", ""),
    (
        "grpo",
        "sft-rasbt/instruction-data.json",
        "adapter = { r = 4 }\n[grpo]\nnum_generations = 2\nmax_completion_length = 8\n\
         [[grpo.rewards]]\nkind = \"regex\"\npattern = \"a\"",
    ),
];

#[test]
fn a_run_that_is_resumed_ends_with_the_bytes_of_one_that_is_not() {
    for (number, (objective, source, more)) in OBJECTIVES.into_iter().enumerate() {
        let Some(source) = shared_data(source) else { continue };
        let Some(mut text) = recipe(objective, &source, more) else { continue };
        if objective == "grpo" {
            // Instructions are prompts; their answers are columns that rewards may read.
            text =
                text.replace("rows = 40", "rows = 40\nformat = \"prompt\"\nfields = { prompt = \"instruction\" }");
        }
        let folder = folder();
        let path = written(folder.path(), &text);
        let (straight, cut) = (folder.path().join("straight"), folder.path().join("cut"));
        let said = run(&mut finetune(&path, &straight)).exits(0).stderr;
        assert!(said.contains("trainable params: ") && said.contains(" rows, "), "{number} {objective}: {said}");
        copy(&straight, &cut);
        let mut resume = fornax(["finetune", "--resume"]);
        run(resume.arg(&cut).args(["--step", "3", "--device", "cpu"])).exits(0);
        let (expected, found) = (results(&straight), results(&cut));
        assert!(expected.len() >= 3, "{number} {objective}: {:?}", paths_below(&straight));
        for (expected, found) in expected.iter().zip(&found) {
            assert!(expected == found, "{number} {objective}: {} differs", expected.0);
        }
        assert_eq!(expected.len(), found.len());
    }
}

#[test]
fn an_adapter_and_a_whole_model_are_tried_with_what_the_run_says() {
    let Some(source) = shared_data("sft-rasbt/instruction-data.json") else { return };
    let (Some(adapted), Some(whole)) = (recipe("sft", &source, "adapter = { r = 4 }"), recipe("sft", &source, ""))
    else {
        return;
    };
    let folder = folder();
    let base = shared_data(BASE).unwrap();
    let run_folder = folder.path().join("adapted");
    let said = run(&mut finetune(&written(folder.path(), &adapted), &run_folder)).exits(0).stderr;
    let words = format!("generate --model {} --adapter", base.display());
    assert!(said.contains(&words), "{said}");
    let adapter = run_folder.join("adapter").display().to_string();
    let options = ["--adapter", &adapter, "--prompt", "One day", "--max-tokens", "4", "--ignore-eos"];
    run(&mut generate(&base, &options)).exits(0);
    let run_folder = folder.path().join("whole");
    run(&mut finetune(&written(folder.path(), &whole), &run_folder)).exits(0);
    // The template it was trained with is there for whoever serves it.
    assert!(run_folder.join("model/chat_template.jinja").exists());
    run(&mut generate(&run_folder, &["--prompt", "One day", "--max-tokens", "4", "--ignore-eos"])).exits(0);
}

#[test]
fn a_base_that_changed_is_no_base_to_resume_on() {
    let Some(source) = shared_data("sft-rasbt/instruction-data.json") else { return };
    let Some(text) = recipe("sft", &source, "adapter = { r = 4 }") else { return };
    let folder = folder();
    let base = folder.path().join("base");
    copy(&shared_data(BASE).unwrap(), &base);
    let text = text.replace(&shared_data(BASE).unwrap().display().to_string(), &base.display().to_string());
    let run_folder = folder.path().join("run");
    run(&mut finetune(&written(folder.path(), &text), &run_folder)).exits(0);
    let weights = base.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let mut permissions = fs::metadata(&weights).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false, reason = "a copy of read-only data")]
    permissions.set_readonly(false);
    fs::set_permissions(&weights, permissions).unwrap();
    fs::write(&weights, bytes).unwrap();
    let mut resume = fornax(["finetune", "--resume"]);
    let ran = run(resume.arg(&run_folder).args(["--step", "3", "--device", "cpu"])).exits(4);
    assert!(ran.stderr.contains("model.safetensors") && ran.stderr.contains("checksum"), "{}", ran.stderr);
}

/// Rows that cannot be used, and what is said of them.
const WRONG: [(&str, &str, &str); 12] = [
    ("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": \n", "row 2"),
    ("missing.jsonl", "{\"instruction\": \"a\", \"output\": \"b\"}\n{\"instruction\": \"a\"}\n", "`output`"),
    ("role.jsonl", "{\"messages\": [{\"role\": \"wizard\", \"content\": \"a\"}]}\n", "wizard"),
    ("list.jsonl", "[1, 2]\n", "row 1"),
    ("empty.jsonl", "", "row"),
    ("unknown.jsonl", "{\"wine\": \"red\"}\n", "wine"),
    ("mixed.jsonl", "{\"text\": \"a\"}\n{\"chosen\": \"a\", \"rejected\": \"b\"}\n", "row 2"),
    ("type.jsonl", "{\"prompt\": 7, \"completion\": \"b\"}\n", "`prompt`"),
    ("alone.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n", "row 1"),
    ("bytes.jsonl", "{\"text\": \"\u{0}\"", "row 1"),
    ("nothing.txt", "a text\n", "nothing.txt"),
    ("deep.json", "{", "deep.json"),
];

#[test]
fn wrong_rows_are_refused_with_their_number_and_leave_nothing() {
    let folder = folder();
    for (name, content, word) in WRONG {
        let source = folder.path().join(name);
        fs::write(&source, content).unwrap();
        let Some(text) = recipe("sft", &source, "") else { return };
        let run_folder = folder.path().join("run");
        let path = written(folder.path(), &text.replace("skip_bad_rows = true\n", ""));
        run(&mut finetune(&path, &run_folder)).refuses(&[word]);
        assert!(!run_folder.join("recipe.toml").exists(), "{name} left a run");
        run(fornax(["check"]).arg(&path)).refuses(&[word]);
    }
}

/// A gzip stream of four rows, cut short.
const CUT: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xab, 0x56, 0x2a, 0x49, 0xad, 0x28, 0x51, 0xb2,
    0x52, 0x4a, 0x54, 0xaa, 0xe5, 0xaa, 0x26, 0xcc,
];

#[test]
fn wrong_rows_templates_and_adapters_are_refused_before_anything_is_trained() {
    let folder = folder();
    let talk = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n";
    let row_17 = format!("{}{{\"messages\": [}}\n", talk.repeat(16));
    let empty = "{\"prompt\": \"a\", \"chosen\": \"\", \"rejected\": \"c\"}\n";
    let unknown = "{{ shout(messages) }}";
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x{% endfor %}{% endfor %}{% endfor %}";
    let adapter = folder.path().join("adapter");
    wrong_adapter(&adapter);
    let from = format!("adapter = {{ from = \"{}\" }}", adapter.display());
    for (objective, name, content, template, more, word) in [
        ("sft", "late.jsonl", row_17.as_bytes(), "", "", "row 17"),
        ("dpo", "empty.jsonl", empty.as_bytes(), "", "", "row 1"),
        ("sft", "cut.jsonl.gz", CUT, "", "", "cut off"),
        ("sft", "a.jsonl", talk.as_bytes(), unknown, "", "shout"),
        ("sft", "b.jsonl", talk.as_bytes(), endless, "", "template"),
        ("sft", "c.jsonl", talk.as_bytes(), "", from.as_str(), "lora_A"),
    ] {
        let source = folder.path().join(name);
        fs::write(&source, content).unwrap();
        let Some(mut text) = recipe(objective, &source, more) else { return };
        text = text.replace("skip_bad_rows = true\n", "");
        if !template.is_empty() {
            let path = folder.path().join("template.jinja");
            fs::write(&path, template).unwrap();
            text = text.replace("\"plain\"", &format!("\"{}\"", path.display()));
        }
        let run_folder = folder.path().join("run");
        let path = written(folder.path(), &text);
        run(&mut finetune(&path, &run_folder)).refuses(&[word]);
        assert!(!run_folder.join("recipe.toml").exists(), "{name} left a run");
    }
}

/// An adapter folder whose one matrix reads 5 columns.
fn wrong_adapter(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}"#;
    fs::write(folder.join("adapter_config.json"), config).unwrap();
    let zeros = vec![0u8; 4 * 2 * 128];
    let view = |shape: Vec<usize>| {
        let bytes = &zeros[..4 * shape.iter().product::<usize>()];
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, bytes).unwrap()
    };
    let of_layer = |layer: usize| {
        let name = |part: &str| format!("base_model.model.model.layers.{layer}.self_attn.q_proj.{part}.weight");
        [(name("lora_A"), view(vec![2, 5])), (name("lora_B"), view(vec![128, 2]))]
    };
    let tensors: Vec<_> = (0..2).flat_map(of_layer).collect();
    let bytes = safetensors::serialize(tensors, None).unwrap();
    fs::write(folder.join("adapter_model.safetensors"), bytes).unwrap();
}

#[test]
fn wrong_recipes_are_refused_with_the_key() {
    let Some(source) = shared_data("sft-rasbt/instruction-data.json") else { return };
    let folder = folder();
    for (from, to, words) in [
        ("objective = \"sft\"", "objective = \"stf\"", "stf"),
        ("template = \"plain\"", "template = \"nowhere.jinja\"", "nowhere.jinja"),
        ("steps = 6", "steps = 6\nepochs = 1.0", "train.epochs"),
        ("[data]", "dpo = { beta = 0.1 }\n[data]", "`dpo`"),
        ("[data]", "adapter = { r = 4, targets = [\"q_prj\"] }\n[data]", "q_prj"),
        ("[data]", "adapter = { r = 0 }\n[data]", "adapter.r"),
        ("context = 160", "context = 1_000_000", "1000000"),
        ("skip_bad_rows = true", "skip_bad_row = true", "did you mean `skip_bad_rows`?"),
        (BASE, "no-such-model", "does not exist"),
        ("mode", "model.packed = \"int4\"\nmode", "adapter"),
    ] {
        let Some(text) = recipe("sft", &source, "") else { return };
        let text = match to.starts_with("model.packed") {
            true => text.replacen("model = { base =", "model = { packed = \"int4\", base =", 1),
            false => text.replacen(from, to, 1),
        };
        let path = written(folder.path(), &text);
        let run_folder = folder.path().join("run");
        run(&mut finetune(&path, &run_folder)).refuses(&[words]);
        assert!(!run_folder.join("recipe.toml").exists(), "{to} left a run");
    }
}

#[test]
fn every_recipe_of_post_training_loads_and_checks() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut checked = 0;
    for objective in ["sft", "lora", "qlora", "dpo", "orpo", "kto", "grpo", "distill"] {
        let mut names: Vec<_> =
            fs::read_dir(recipes.join(objective)).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        assert!(names.len() >= 2, "{objective}: {names:?}");
        for path in names {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.lines().count() <= 40, "{}", path.display());
            let below = path.strip_prefix(&recipes).unwrap().display().to_string();
            let command = format!("# fornax finetune recipes/{below}");
            assert!(text.starts_with(&command), "{}: {command}", path.display());
            let mut check = fornax(["check", "--json"]);
            check.arg(&path).env("HF_HUB_CACHE", recipes.join("no-cache"));
            if text.contains("base = \"runs/") {
                let Some(base) = shared_data(BASE) else { continue };
                check.args(["--set", &format!("model.base={}", base.display()), "--set", "data.rows=40"]);
                check.args(["--set", "data.template=plain", "--set", "eval.rows=4"]);
                // The stand-in of the quickstart's model has 512 positions, not 768.
                check.args(["--set", "train.context=512"]);
                if objective == "distill" {
                    check.args(["--set", &format!("distill.teacher={}", base.display())]);
                }
            }
            let ran = run(&mut check).exits(0);
            let object: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            let previewed = object["preview"]["steps"].as_u64().is_some();
            assert!(previewed || object["not_fetched"].is_string(), "{}: {object}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 16, "{checked}");
}
