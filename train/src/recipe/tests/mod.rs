mod wild;

use fornax_base::recipe::load;

use super::*;

/// Every key there is, each with a value that passes the check; `init`, `path` and `text_field` exclude others and
/// are added by the tests that need them.
const FULL: &str = r#"
seed = 7
description = "all keys"

[model]
n_layers = 2
n_heads = 4
n_kv_heads = 2
head_dim = 8
width = 32
ffn_width = 96
tied = false
rope_theta = 10000.0
norm_eps = 1e-5
logit_softcap = 30.0

[tokenizer]
kind = "bpe"
vocab_size = 512

[data]
source = "corpus"
corpus_bytes = 100000
validation_fraction = 0.05
packing = "wrap"

[train]
steps = 1000
context = 64
batch = 12
micro_batch = 4
precision = "bf16"
z_loss = 1e-4

[optimizer]
kind = "muon"
lr = 1e-3
beta1 = 0.9
beta2 = 0.99
eps = 1e-8
weight_decay = 0.1
clip_norm = 1.0
muon_lr = 0.03
momentum = 0.9
nesterov = false
ns_steps = 4
ns_precision = "bf16"
adjust_lr_fn = "match_rms_adamw"

[schedule]
kind = "wsd"
warmup_steps = 100
final_lr_fraction = 0.0
decay_fraction = 0.3

[eval]
every = 100
tokens = 4096
sample_every = 200
sample_tokens = 32
prompts = ["Once", "\n"]
temperature = 0.5

[checkpoint]
every = 100
keep_last = 3
keep_best = true

[log]
every = 10
"#;

const SHORT: &str = r#"
[model]
n_layers = 4
n_heads = 4
width = 128
[tokenizer]
kind = "characters"
[data]
source = "input.txt"
[train]
steps = 2000
context = 64
batch = 12
[optimizer]
lr = 1e-3
[schedule]
kind = "cosine"
"#;

fn read(text: &str, sets: &[&str]) -> TrainRecipe {
    let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
    load(text, "recipe.toml", &sets).unwrap()
}

#[track_caller]
fn refused(text: &str, sets: &[&str], sentence: &str) {
    assert_eq!(read(text, sets).check().unwrap_err().to_string(), sentence);
}

#[test]
fn defaults_are_those_of_the_page() {
    let recipe = read(SHORT, &[]);
    recipe.check().unwrap();
    let shape = recipe.model_shape().unwrap().unwrap();
    let expected = ModelShape {
        n_layers: 4,
        n_heads: 4,
        n_kv_heads: 4,
        head_dim: 32,
        width: 128,
        ffn_width: 352,
        tied: true,
        rope_theta: 10_000.0,
        norm_eps: 1e-5,
        logit_softcap: None,
    };
    assert_eq!(shape, expected);
    assert_eq!((recipe.seed, recipe.train.micro_batch()), (1337, 12));
    let (optimizer, checkpoint) = (&recipe.optimizer, &recipe.checkpoint);
    assert_eq!(optimizer.kind, OptimizerKind::AdamW);
    assert_eq!((optimizer.beta1, optimizer.beta2(), optimizer.eps()), (0.9, 0.95, 1e-8));
    assert_eq!((recipe.train.z_loss, shape.logit_softcap), (0.0, None));
    assert_eq!((optimizer.weight_decay, optimizer.clip_norm), (0.1, 1.0));
    assert_eq!((checkpoint.keep_last, checkpoint.keep_best), (2, false));
    assert_eq!(recipe.schedule().final_lr_fraction, 0.1);
    assert_eq!(recipe.data.validation_fraction, 0.1);
}

#[test]
fn the_defaults_of_an_optimizer_are_written_out_and_are_its_own() {
    let resolved = |sets: &[&str]| read(SHORT, sets).resolved().unwrap().optimizer;
    let adamw = resolved(&[]);
    assert_eq!((adamw.beta2, adamw.eps, adamw.muon_lr, adamw.ns_steps), (Some(0.95), Some(1e-8), None, None));
    let lion = resolved(&["optimizer.kind=lion"]);
    assert_eq!((lion.beta2, lion.eps, lion.momentum), (Some(0.99), None, None));
    let muon = resolved(&["optimizer.kind=muon"]);
    assert_eq!((muon.muon_lr, muon.momentum, muon.nesterov), (Some(0.02), Some(0.95), Some(true)));
    assert_eq!((muon.ns_steps, muon.ns_precision), (Some(5), Some(NewtonSchulzPrecision::F32)));
    assert_eq!((muon.adjust_lr_fn, muon.beta2), (Some(AdjustLr::Original), Some(0.95)));
    let matched = resolved(&["optimizer.kind=muon", "optimizer.adjust_lr_fn=match_rms_adamw"]);
    assert_eq!(matched.muon_lr, Some(1e-3));
    let error = load::<TrainRecipe>(SHORT, "r.toml", &["optimizer.kind=moun".into()]).unwrap_err();
    let sentence = error.to_string();
    assert!(sentence.contains("`moun`, but one of `adamw`, `muon`, `lion` is expected"), "{sentence}");
}

#[test]
fn llama2c_s_ffn_width_is_met() {
    let shape = read(SHORT, &["model.width=288", "model.n_heads=6"]).model_shape();
    assert_eq!(shape.unwrap().unwrap().ffn_width, 768);
}

#[test]
fn what_cannot_be_run_is_said_with_both_numbers() {
    refused(
        SHORT,
        &["schedule.warmup_steps=2001"],
        "`schedule.warmup_steps` (2001) is longer than the run (`train.steps`: 2000 steps)",
    );
    refused(
        FULL,
        &["schedule.warmup_steps=900"],
        "`schedule.warmup_steps` (900) and the decay (300 steps) together are longer than the run \
         (`train.steps`: 1000 steps)",
    );
    refused(FULL, &["train.micro_batch=5"], "`train.batch` (12) is not a multiple of `train.micro_batch` (5)");
    refused(SHORT, &["model.width=130"], "`model.width` (130) is not a multiple of `model.n_heads` (4)");
    refused(
        FULL,
        &["checkpoint.keep_last=1"],
        "`checkpoint.keep_last` is 1, but a whole number from 2 to 1048576 is expected",
    );
    refused(FULL, &["eval.tokens=63"], "`eval.tokens` (63) is smaller than `train.context` (64)");
    refused(FULL, &["optimizer.lr=nan"], "`optimizer.lr` is NaN, but a number above 0 and at most 1 is expected");
    refused(
        FULL,
        &["optimizer.ns_steps=100"],
        "`optimizer.ns_steps` is 100, but a whole number from 1 to 99 is expected",
    );
    refused(
        FULL,
        &["optimizer.momentum=1"],
        "`optimizer.momentum` is 1, but a number from 0 to below 1 is expected",
    );
    refused(FULL, &["train.z_loss=-1"], "`train.z_loss` is -1, but a number from 0 to 1 is expected");
    refused(
        FULL,
        &["model.logit_softcap=0"],
        "`model.logit_softcap` is 0, but a number from 1 to 10000 is expected",
    );
    refused(FULL, &["model.n_kv_heads=3"], "`model.n_heads` (4) is not a multiple of `model.n_kv_heads` (3)");
}

#[test]
fn no_key_is_read_and_ignored() {
    for (text, set, part) in [
        (FULL, "model.init=dir", "`model.init` and `model.n_layers` are both given"),
        (FULL, "tokenizer.path=a.json", "`tokenizer.kind` is not `file`"),
        (FULL, "tokenizer.kind=file", "`tokenizer.vocab_size` is given"),
        (FULL, "tokenizer.kind=characters", "`tokenizer.vocab_size` is given"),
        (SHORT, "tokenizer.kind=bpe", "`tokenizer.vocab_size` is missing"),
        (SHORT, "tokenizer.kind=file", "`tokenizer.path` is missing"),
        (FULL, "data.text_field=text", "`data.text_field` is given"),
        (SHORT, "data.text_field=text", "`data.text_field` is given"),
        (SHORT, "data.corpus_bytes=5000", "`data.corpus_bytes` is given"),
        (FULL, "schedule.kind=cosine", "`schedule.decay_fraction` is given"),
        (FULL, "schedule.kind=constant", "`schedule.final_lr_fraction` is given"),
        (FULL, "eval.every=0", "`checkpoint.keep_best` is given"),
        (FULL, "eval.prompts=[]", "`eval.prompts` is missing"),
        (FULL, "data.validation_fraction=0", "`eval.every` is given"),
        (FULL, "optimizer.kind=adamw", "`optimizer.muon_lr` is given"),
        (FULL, "optimizer.kind=lion", "`optimizer.eps` is given"),
        (SHORT, "optimizer.momentum=0.9", "`optimizer.momentum` is given"),
        (SHORT, "optimizer.nesterov=true", "`optimizer.nesterov` is given"),
        (SHORT, "optimizer.ns_steps=5", "`optimizer.ns_steps` is given"),
        (SHORT, "optimizer.ns_precision=f32", "`optimizer.kind` is not `muon`"),
        (SHORT, "optimizer.adjust_lr_fn=original", "`optimizer.kind` is not `muon`"),
    ] {
        let error = read(text, &[set]).check().unwrap_err().to_string();
        assert!(error.contains(part), "{set}: {error}");
    }
}

#[test]
fn a_continued_model_brings_shape_and_tokenizer() {
    let text = SHORT
        .replace("n_layers = 4\nn_heads = 4\nwidth = 128", "init = \"dir\"")
        .replace("[tokenizer]\nkind = \"characters\"\n", "");
    let recipe = read(&text, &[]);
    recipe.check().unwrap();
    assert_eq!(recipe.model_shape().unwrap(), None);
    refused(
        &text,
        &["tokenizer.kind=characters"],
        "`model.init` and `tokenizer` are both given, but the model folder brings its own tokenizer",
    );
}

#[test]
fn the_resolved_recipe_reads_back_and_stays() {
    for text in [FULL, SHORT] {
        let recipe = read(text, &[]);
        let resolved = recipe.resolved_toml().unwrap();
        let again = read(&resolved, &[]);
        assert_eq!(again, recipe.resolved().unwrap());
        assert_eq!(again.resolved_toml().unwrap(), resolved);
        assert_eq!(again.hash().unwrap(), recipe.hash().unwrap());
    }
    let resolved = read(SHORT, &[]).resolved_toml().unwrap();
    for line in ["seed = 1337", "ffn_width = 352", "micro_batch = 12", "final_lr_fraction = 0.1"] {
        assert!(resolved.contains(line), "{line} in {resolved}");
    }
}

#[test]
fn the_hash_follows_values_and_not_the_writing() {
    let hash = read(SHORT, &[]).hash().unwrap();
    assert_eq!(hash.len(), 64);
    assert_eq!(read(SHORT, &["model.n_kv_heads=4", "seed=1337"]).hash().unwrap(), hash);
    assert_ne!(read(SHORT, &["seed=1338"]).hash().unwrap(), hash);
    assert_ne!(read(SHORT, &["optimizer.lr=0.0010000000000000002"]).hash().unwrap(), hash);
}

/// Each key of the full recipe, as `section.key`, and those it leaves out.
fn every_key() -> Vec<String> {
    let mut keys = Vec::new();
    let mut section = String::new();
    for line in FULL.lines() {
        if let Some(name) = line.strip_prefix('[') {
            let name = name.trim_end_matches(']');
            keys.push(name.to_owned());
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.push(format!("{section}{key}"));
        }
    }
    keys.extend(["model.init", "tokenizer.path", "data.text_field"].map(str::to_owned));
    keys
}

/// C10: what may change at a resume, key by key.
#[test]
fn c10_a_changed_recipe_is_sorted_into_refused_and_allowed() {
    let old = read(FULL, &[]);
    let change = |set: &str| compare_for_resume(&old, &read(FULL, &[set]), 500).unwrap();
    assert_eq!(compare_for_resume(&old, &old, 500).unwrap(), ResumeChange::default());
    for set in [
        "log.every=1",
        "description=other",
        "eval.every=50",
        "eval.sample_every=100",
        "eval.sample_tokens=8",
        "eval.prompts=[\"x\"]",
        "eval.temperature=0",
        "checkpoint.every=5",
        "checkpoint.keep_last=9",
        "checkpoint.keep_best=false",
        "train.micro_batch=12",
        "train.activation_checkpointing=true",
        "train.steps=1200",
    ] {
        let change = change(set);
        assert_eq!((change.refused.len(), change.allowed.len()), (0, 1), "{set}");
    }
    for set in [
        "seed=8",
        "model.n_layers=3",
        "model.n_kv_heads=4",
        "model.head_dim=16",
        "model.width=64",
        "model.ffn_width=128",
        "model.tied=true",
        "model.rope_theta=5000.0",
        "model.norm_eps=1e-6",
        "tokenizer.vocab_size=600",
        "data.corpus_bytes=200000",
        "data.validation_fraction=0.1",
        "data.packing=documents",
        "train.context=32",
        "train.batch=24",
        "train.precision=f32",
        "train.z_loss=0.0",
        "model.logit_softcap=15.0",
        "optimizer.muon_lr=0.02",
        "optimizer.momentum=0.95",
        "optimizer.nesterov=true",
        "optimizer.ns_steps=5",
        "optimizer.ns_precision=f32",
        "optimizer.adjust_lr_fn=original",
        "optimizer.lr=2e-3",
        "optimizer.beta1=0.8",
        "optimizer.beta2=0.9",
        "optimizer.eps=1e-9",
        "optimizer.weight_decay=0.0",
        "optimizer.clip_norm=0.5",
        "schedule.warmup_steps=50",
        "schedule.final_lr_fraction=0.1",
        "schedule.decay_fraction=0.2",
        "eval.tokens=8192",
    ] {
        let change = change(set);
        assert_eq!((change.refused.len(), change.allowed.len()), (1, 0), "{set}");
    }
    let other_text = compare_for_resume(&read(SHORT, &[]), &read(SHORT, &["data.source=b.txt"]), 1);
    assert_eq!(other_text.unwrap().refused, ["data.source: \"input.txt\" -> \"b.txt\""]);
    assert_eq!(change("model.width=64").refused, ["model.width: 32 -> 64"]);
    assert_eq!(change("eval.temperature=0").allowed, ["eval.temperature: 0.5 -> 0.0"]);
}

#[test]
fn a_run_may_grow_while_its_past_stays_the_same() {
    let allowed = |kind: &str, steps: u64, done: u64| {
        let set = format!("schedule.kind={kind}");
        let (old, longer) = (
            read(SHORT, &[&set, "schedule.warmup_steps=100"]),
            read(SHORT, &[&set, "schedule.warmup_steps=100", &format!("train.steps={steps}")]),
        );
        compare_for_resume(&old, &longer, done).unwrap().refused.is_empty()
    };
    assert!(allowed("constant", 4000, 2000));
    assert!(allowed("constant", 1500, 1500));
    assert!(!allowed("constant", 1500, 1501));
    assert!(allowed("wsd", 4000, 1600));
    assert!(!allowed("wsd", 4000, 1601));
    assert!(allowed("wsd", 1000, 800));
    assert!(!allowed("wsd", 1000, 801));
    for kind in ["cosine", "linear"] {
        assert!(allowed(kind, 4000, 100));
        assert!(!allowed(kind, 4000, 101));
    }
}
