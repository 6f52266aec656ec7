//! Divergences against TRL (`tests/fixtures/make/grpo.py` recorded them), and a small model that comes nearer to a
//! larger one.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use fornax_infer::engine::{EngineOptions, ModelFacts, Request, ValidRequest, run_closed};
use fornax_infer::sampler::SamplingOptions;
use fornax_infer::speculative::{Draft, SpeculationOptions};
use fornax_model::ModelConfig;
use fornax_model::ops::{self, DivergenceOptions, Headed};
use fornax_model::packed::Codes;
use fornax_model::weights::TensorFile;
use fornax_train::gate::GradientGate;
use fornax_train::optimizer::Optimizer;
use fornax_train::recipe::{OptimizerKind, OptimizerRecipe};
use fornax_train::step::{StepReport, step_over};
use serde_json::Value;

use super::*;

/// Logits as hidden states under a head that is the identity.
#[test]
fn divergences_and_gradients_are_those_of_trl() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/grpo");
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("distill.json")).unwrap()).unwrap();
    let file = TensorFile::open(&folder.join("distill.safetensors")).unwrap();
    let device = Device::flex();
    let floats = |name: &str| -> Vec<f32> {
        let tensor = file.get(name).unwrap_or_else(|| panic!("{name}"));
        tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let trained = file.get("trained").unwrap();
    let weights: Vec<f32> =
        trained.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect();
    let (n, v) = (weights.len(), file.get("student").unwrap().shape[2]);
    let matrix = |name: &str| Tensor::<1>::from_data(floats(name).as_slice(), &device).reshape([n, v]);
    let of: f32 = weights.iter().sum();
    let cases: BTreeMap<String, Value> = serde_json::from_value(json["cases"].clone()).unwrap();
    assert_eq!(cases.len(), 10);
    for (name, case) in cases {
        let number = |key: &str| case[key].as_f64().unwrap() as f32;
        let student = matrix("student").autodiff().require_grad();
        let headed = |hidden_nc| Headed { hidden_nc, head_vc: Tensor::eye(v, &device) };
        let options = DivergenceOptions::new(number("beta"), number("temperature"), v);
        let weights = Tensor::<1>::from_data(weights.as_slice(), &device);
        let loss = ops::divergence(headed(student.clone()), headed(matrix("teacher")), weights, options);
        let gradient = student.grad(&loss.backward()).unwrap().reshape([n * v]);
        let loss = loss.try_into_scalar::<f32>().unwrap() / of;
        assert!((loss - number("loss")).abs() < 1e-5, "{name}: {loss} against {}", number("loss"));
        let expected = floats(&format!("{name}.grad_student"));
        for (found, expected) in gradient.try_into_vec_as::<f32>().unwrap().iter().zip(expected) {
            assert!((found / of - expected).abs() < 1e-6, "{name}: {found} against {expected}");
        }
    }
}

const LETTERS: &str = "abcdefghij.";

fn tokenizer(letters: &str) -> Tokenizer {
    Tokenizer::characters(&mut std::iter::once(Ok(letters.to_owned()))).unwrap()
}

fn model(width: usize, seed: u64, std: f64) -> Decoder {
    let config = ModelConfig {
        vocab_size: LETTERS.len(),
        width,
        n_heads: 2,
        n_kv_heads: 2,
        head_dim: width / 2,
        ffn_width: 2 * width,
        context: 16,
        init_std: std,
        ..ModelConfig::llama(1)
    };
    Decoder::init(&config, seed, &Device::flex())
}

/// Random letters, all but the opening three trained.
fn rows(n: u64) -> Vec<Example> {
    let row = |row: u64| {
        let mut random = rng(1, row, "row");
        let ids: Vec<u32> = (0..12).map(|_| random.below(LETTERS.len() as u64) as u32).collect();
        Example { trained: (0..12).map(|i| i >= 3).collect(), ids, row }
    };
    (1..=n).map(row).collect()
}

fn parts(change: impl FnOnce(&mut DistillRecipe)) -> DistillParts {
    let mut recipe = DistillRecipe::new("big");
    change(&mut recipe);
    DistillParts {
        recipe,
        teacher: model(32, 8, 0.3),
        train: rows(64),
        held_out: rows(68).split_off(64),
        context: 16,
        stop_ids: vec![LETTERS.len() as u32 - 1],
        rows: 4,
        micro_batches: 2,
        seed: 3,
    }
}

fn distill(change: impl FnOnce(&mut DistillRecipe)) -> Distill {
    let tokenizer = tokenizer(LETTERS);
    Distill::new(parts(change), &model(16, 4, 0.02), (&tokenizer, &tokenizer)).unwrap()
}

/// Steps of a fresh student; -> the reports, the student, and what held-out rows say before and after.
fn train(objective: &mut Distill, steps: u64) -> (Vec<StepReport>, Decoder, [Evaluation; 2]) {
    let mut decoder = model(16, 4, 0.02).trainable(true);
    let plain = |decoder: &Decoder| decoder.clone().trainable(false);
    let before = objective.evaluate(&plain(&decoder)).unwrap().unwrap();
    let mut optimizer = Optimizer::new(&OptimizerRecipe::new(OptimizerKind::AdamW, 1e-2));
    let (mut gate, mut cursor, mut reports) = (GradientGate::default(), Cursor::default(), Vec::new());
    for step in 0..steps {
        let ready = objective.prepare(&decoder, step, cursor).unwrap();
        let term = |decoder: &Decoder, i: usize| objective.term(decoder, i);
        let report = step_over(&mut decoder, &mut optimizer, &mut gate, &term, ready.micro_batches, 2e-2, 1.0);
        reports.push(report.unwrap());
        cursor = ready.cursor;
    }
    let after = objective.evaluate(&plain(&decoder)).unwrap().unwrap();
    (reports, decoder, [before, after])
}

#[test]
fn a_student_comes_nearer_to_its_teacher() {
    // The rows' own tokens are random: as half of the loss they pull away from the teacher on other rows.
    let cases =
        [(0.0, 1.0, 0.0, 0.7), (1.0, 1.0, 0.0, 0.7), (0.5, 0.5, 0.0, f64::INFINITY), (0.5, 1.0, 1.0, 0.85)];
    for (beta, kd_ratio, lmbda, share) in cases {
        let mut objective = distill(|recipe| {
            (recipe.beta, recipe.kd_ratio, recipe.lmbda) = (beta, kd_ratio, lmbda);
            recipe.max_new_tokens = (lmbda > 0.0).then_some(9);
        });
        let (reports, _, [before, after]) = train(&mut objective, 80);
        let late = reports[72..].iter().map(|report| report.loss).sum::<f64>() / 8.0;
        assert!(late < 0.97 * reports[0].loss, "beta {beta}: {} {late}", reports[0].loss);
        let apart = |evaluation: &Evaluation| evaluation.metrics["divergence"];
        assert!(apart(&after) < share * apart(&before), "beta {beta}: {before:?} {after:?}");
        assert!(apart(&after) > 0.0);
        let expected = kd_ratio * apart(&after) + (1.0 - kd_ratio) * after.metrics["nll_loss"];
        assert!((after.loss - expected).abs() < 1e-5, "{} against {expected}", after.loss);
        assert_eq!(after.weight, 4 * 9);
        assert_eq!(reports[0].metrics.contains_key("nll_loss"), kd_ratio < 1.0);
    }
}

/// As the draft of its teacher: the share of its proposals that are accepted over 40 sampled texts.
fn acceptance(student: &Decoder) -> f64 {
    let teacher = model(32, 8, 0.3);
    let draft = Draft::Model(Box::new(student.clone()));
    let speculation = SpeculationOptions { most: 3, fixed: true, ..SpeculationOptions::new(draft) };
    let options = EngineOptions { speculation: Some(speculation), ..EngineOptions::default() };
    let facts = ModelFacts::of(&teacher, 16, 1);
    let request = |seed: u64| {
        let mut random = rng(2, seed, "prompt");
        let prompt: Vec<u32> = (0..3).map(|_| random.below(LETTERS.len() as u64) as u32).collect();
        let request = Request::new(prompt, SamplingOptions { seed, ..SamplingOptions::default() });
        ValidRequest::new(request, &facts).unwrap()
    };
    let closed = run_closed(&teacher, &options, (0..40).map(request).collect()).unwrap();
    closed.speculation.unwrap().acceptance().unwrap()
}

/// What distillation is for in speculative decoding: the draft says what the model would.
#[test]
fn a_distilled_draft_is_accepted_more_often() {
    let (_, student, _) = train(&mut distill(|recipe| recipe.beta = 0.0), 160);
    let (before, after) = (acceptance(&model(16, 4, 0.02)), acceptance(&student.trainable(false)));
    assert!(after > before + 0.03, "{before} before, {after} after");
}

/// Equal seeds, equal runs, on the student's own completions too; a fresh objective goes on where another stopped.
#[test]
fn a_step_is_a_function_of_seed_and_step() {
    let bits = |decoder: &Decoder| -> Vec<u32> {
        let all = decoder.parameters().into_iter();
        all.flat_map(|(_, _, x)| x.try_into_vec_as::<f32>().unwrap()).map(f32::to_bits).collect()
    };
    let change = |recipe: &mut DistillRecipe| recipe.lmbda = 0.5;
    let (_, once, _) = train(&mut distill(change), 4);
    let (_, again, _) = train(&mut distill(change), 4);
    assert_eq!(bits(&once), bits(&again));
    let mut late = distill(change);
    let mut early = distill(change);
    let cursor = (0..3).fold(Cursor::default(), |cursor, step| early.prepare(&once, step, cursor).unwrap().cursor);
    let (a, b) = (early.prepare(&once, 3, cursor).unwrap(), late.prepare(&once, 3, cursor).unwrap());
    assert_eq!((a.cursor, a.metrics, a.tokens), (b.cursor, b.metrics, b.tokens));
    assert_eq!(early.ready, late.ready);
}

/// A packed teacher is another one by its rounding, and its student is none the worse for it.
#[test]
fn a_packed_teacher_is_near_the_dense_one() {
    let apart = |teacher: Decoder| {
        let parts = DistillParts { teacher, ..parts(|_| ()) };
        let tokenizer = tokenizer(LETTERS);
        let student = model(16, 4, 0.02);
        let mut objective = Distill::new(parts, &student, (&tokenizer, &tokenizer)).unwrap();
        objective.evaluate(&student).unwrap().unwrap().loss
    };
    let dense = apart(model(32, 8, 0.3));
    let packed = apart(model(32, 8, 0.3).quantized(Packing::new(Codes::Int8, 32).unwrap()));
    assert!(dense != packed && (dense - packed).abs() < 0.02 * dense, "{dense} {packed}");
}

#[test]
fn teachers_of_another_vocabulary_are_refused() {
    let refused = |parts: DistillParts, letters: &str| {
        let tokenizers = (&tokenizer(LETTERS), &tokenizer(letters));
        match Distill::new(parts, &model(16, 4, 0.02), tokenizers) {
            Ok(_) => panic!("taken"),
            Err(error) => error.to_string(),
        }
    };
    let mut other = parts(|_| ());
    let config = ModelConfig { vocab_size: 9, ..other.teacher.config().clone() };
    other.teacher = Decoder::init(&config, 1, &Device::flex());
    let message = refused(other, LETTERS);
    assert!(message.contains("of 11 tokens") && message.contains("`big` one of 9"), "{message}");
    let message = refused(parts(|_| ()), "abcdefghik.");
    assert!(message.contains("token 10") && message.contains("`j`") && message.contains("`k`"), "{message}");
    let message = refused(DistillParts { context: 17, ..parts(|_| ()) }, LETTERS);
    assert!(message.contains("(17)") && message.contains("(16)"), "{message}");
    let message = refused(DistillParts { train: Vec::new(), ..parts(|_| ()) }, LETTERS);
    assert!(message.contains("0 rows"), "{message}");
}

#[test]
fn recipes_are_checked() {
    let check = |change: &dyn Fn(&mut DistillRecipe)| {
        let mut recipe = DistillRecipe::new("big");
        change(&mut recipe);
        recipe.check().map_err(|error| error.to_string())
    };
    assert_eq!(check(&|_| ()), Ok(()));
    let packed = |word: &str, block| {
        let recipe = DistillRecipe { packed: Some(word.into()), block, ..DistillRecipe::new("big") };
        recipe.packing().map_err(|error| error.to_string())
    };
    assert_eq!(packed("int8", None).unwrap(), Some(Packing::new(Codes::Int8, 32).unwrap()));
    assert!(packed("int5", None).unwrap_err().contains("int5"));
    assert!(packed("int8", Some(0)).unwrap_err().contains('0'));
    type Change<'a> = &'a dyn Fn(&mut DistillRecipe);
    let cases: [(Change<'_>, &str); 7] = [
        (&|recipe| recipe.block = Some(32), "`distill.block`"),
        (&|recipe| recipe.teacher.clear(), "`distill.teacher`"),
        (&|recipe| recipe.beta = 1.5, "`distill.beta` is 1.5"),
        (&|recipe| recipe.temperature = 0.0, "`distill.temperature` is 0"),
        (&|recipe| recipe.kd_ratio = 0.0, "`distill.kd_ratio` is 0"),
        (&|recipe| recipe.lmbda = -1.0, "`distill.lmbda` is -1"),
        (&|recipe| recipe.max_new_tokens = Some(8), "`distill.max_new_tokens`"),
    ];
    for (change, words) in cases {
        let message = check(change).unwrap_err();
        assert!(message.contains(words), "{message}");
    }
}
