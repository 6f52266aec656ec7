//! Values, gradients and metrics against TRL on fixed logits; `tests/fixtures/make/preference.py` recorded them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_data::examples::{Example, Pair};
use fornax_model::ops;
use fornax_model::weights::TensorFile;
use fornax_train::step::Reported;
use serde_json::Value;

use super::*;
use crate::kto::{KtoRecipe, divergence};
use crate::reward::RewardRecipe;

/// Of values and metrics; log-probabilities of whole completions are of the size of 20, in f32.
const VALUE: f64 = 1e-5;
const GRADIENT: f64 = 1e-6;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/preference")
}

struct Recorded {
    cases: BTreeMap<String, Value>,
    file: TensorFile,
}

impl Recorded {
    fn read(name: &str) -> Recorded {
        let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let cases = serde_json::from_value(json["cases"].clone()).unwrap();
        Recorded { cases, file: TensorFile::open(&folder().join(format!("{name}.safetensors"))).unwrap() }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let tensor = self.file.get(name).unwrap_or_else(|| panic!("{name}"));
        tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn ints(&self, name: &str) -> Vec<i64> {
        let tensor = self.file.get(name).unwrap_or_else(|| panic!("{name}"));
        tensor.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    }

    fn shape(&self, name: &str) -> Vec<usize> {
        self.file.get(name).unwrap().shape.to_vec()
    }

    /// The rows as examples whose completions are trained.
    fn examples(&self, prefix: &str) -> Vec<Example> {
        let columns = self.shape(&format!("{prefix}ids"))[1];
        let [ids, attention, completion] =
            ["ids", "attention_mask", "completion_mask"].map(|name| self.ints(&format!("{prefix}{name}")));
        let row = |at: usize| {
            let n = attention[at..at + columns].iter().sum::<i64>() as usize;
            Example {
                ids: ids[at..at + n].iter().map(|&id| id as u32).collect(),
                trained: completion[at..at + n].iter().map(|&trained| trained == 1).collect(),
                row: 1,
            }
        };
        (0..ids.len()).step_by(columns).map(row).collect()
    }

    fn pairs(&self) -> PairBatch {
        let rows = self.examples("");
        let (chosen, rejected) = rows.split_at(rows.len() / 2);
        let both = chosen.iter().cloned().zip(rejected.iter().cloned());
        let pairs: Vec<Pair> = both.map(|(chosen, rejected)| Pair { chosen, rejected }).collect();
        PairBatch::new(&pairs.iter().collect::<Vec<_>>())
    }

    /// Logits that a gradient is wanted of, and the same without the last position, which predicts nothing.
    fn logits(&self, name: &str) -> (Tensor<3>, Tensor<3>) {
        let [r, t, v] = self.shape(name).try_into().unwrap();
        let all = leaf(&self.floats(name)).reshape([r, t, v]).detach().require_grad();
        (all.clone(), all.slice_dim(1, 0..t - 1))
    }
}

fn leaf(values: &[f32]) -> Tensor<1> {
    plain(values).autodiff().require_grad()
}

fn plain(values: &[f32]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (&Device::flex(), DType::F32))
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

fn halves(x_r: &Tensor<1>) -> Logps {
    let p = x_r.dims()[0] / 2;
    Logps { chosen: x_r.clone().slice_dim(0, 0..p), rejected: x_r.clone().slice_dim(0, p..2 * p) }
}

/// Scores logits as they are: their head is the unit matrix.
fn as_they_are(hidden_nc: Tensor<2>, targets_n: Tensor<1, burn::tensor::Int>) -> ops::TokenScores {
    let v = hidden_nc.dims()[1];
    ops::token_scores(hidden_nc, Tensor::eye(v, &Device::flex()), targets_n, 0.0)
}

#[track_caller]
fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let (found, expected) = (f64::from(found), f64::from(expected));
        let bound = tolerance * expected.abs().max(1.0);
        assert!((found - expected).abs() < bound, "{what}, element {at}: {found}, TRL has {expected}");
    }
}

/// Every metric of TRL but `skip` is there, and equal.
fn check_metrics(name: &str, term: LossTerm, case: &Value, skip: &[&str]) {
    let mut reported = Reported::default();
    reported.add(term.metrics).unwrap();
    let found = reported.means();
    for (key, expected) in case["metrics"].as_object().unwrap() {
        if skip.contains(&key.as_str()) {
            continue;
        }
        let found = *found.get(key).unwrap_or_else(|| panic!("{name}: no metric {key}"));
        close(&format!("{name}: {key}"), &[found as f32], &[expected.as_f64().unwrap() as f32], VALUE);
    }
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("{key} of {case}"))
}

fn dpo_recipe(case: &Value) -> DpoRecipe {
    let smoothing = number(case, "label_smoothing");
    let recipe = DpoRecipe {
        beta: number(case, "beta"),
        loss: serde_json::from_value(case["loss_types"].clone()).unwrap(),
        loss_weights: Some(serde_json::from_value(case["loss_weights"].clone()).unwrap()),
        label_smoothing: (smoothing != 0.0).then_some(smoothing),
        reference_free: case["reference_free"].as_bool().unwrap(),
        ..DpoRecipe::default()
    };
    recipe.check().unwrap();
    recipe
}

#[test]
fn dpo_losses_equal_trl() {
    let recorded = Recorded::read("dpo");
    let tokens: Vec<f32> = recorded.ints("tokens").into_iter().map(|n| n as f32).collect();
    let p = tokens.len() / 2;
    let mut losses = std::collections::BTreeSet::new();
    for (name, case) in &recorded.cases {
        let recipe = dpo_recipe(case);
        losses.extend(recipe.loss.iter().map(|loss| format!("{loss:?}")));
        let policy = leaf(&recorded.floats("policy.logps"));
        let reference = plain(&recorded.floats("reference.logps")).autodiff();
        let pairs = Pairs {
            policy: halves(&policy),
            reference: halves(&if recipe.reference_free { reference.zeros_like() } else { reference }),
            tokens: halves(&plain(&tokens).autodiff()),
            pairs_per_chosen_token: p as f64 / f64::from(tokens[..p].iter().sum::<f32>()),
        };
        let losses = recipe.losses(&pairs);
        if recorded.file.get(&format!("{name}.per_pair")).is_some() {
            let expected = recorded.floats(&format!("{name}.per_pair"));
            close(&format!("{name}, by pair"), &values(losses.clone()), &expected, VALUE);
        }
        let loss = losses.mean();
        close(name, &values(loss.clone()), &[number(case, "loss") as f32], VALUE);
        let gradient = values(policy.grad(&loss.backward()).unwrap());
        close(&format!("{name}, gradient"), &gradient, &recorded.floats(&format!("{name}.grad_logps")), GRADIENT);
    }
    assert_eq!(losses.len(), 15, "losses without a case: only {losses:?} have one");
}

#[test]
fn dpo_metrics_equal_trl() {
    let recorded = Recorded::read("dpo");
    let batch = recorded.pairs();
    for (name, case) in &recorded.cases {
        let loss = PairLoss::Dpo(dpo_recipe(case));
        let score = |logits: &str| {
            let (_, hidden) = recorded.logits(logits);
            batch.score_hidden(hidden, false, &as_they_are)
        };
        let reference = loss.wants_reference().then(|| score("reference.logits").logps());
        let term = loss.of_scores(&score("policy.logits"), reference, Counts::of(&loss, [&batch]));
        assert_eq!(term.weight, 6.0);
        let mean = values(term.loss_sum.clone())[0] / 6.0;
        close(name, &[mean], &[number(case, "loss") as f32], VALUE);
        // Counted over the whole run by the loop.
        check_metrics(name, term, case, &["num_tokens"]);
    }
}

#[test]
fn orpo_and_cpo_equal_trl() {
    let recorded = Recorded::read("odds");
    let batch = recorded.pairs();
    for (name, case) in &recorded.cases {
        let loss = odds_loss(case);
        let (logits, hidden) = recorded.logits("policy.logits");
        let scores = batch.score_hidden(hidden, loss.reads_prompts(), &as_they_are);
        let term = loss.of_scores(&scores, None, Counts::of(&loss, [&batch]));
        let mean = term.loss_sum.clone() / 6.0;
        close(name, &values(mean.clone()), &[number(case, "loss") as f32], VALUE);
        let gradient = values(logits.grad(&mean.backward()).unwrap());
        close(&format!("{name}, gradient"), &gradient, &recorded.floats(&format!("{name}.grad_logits")), GRADIENT);
        // TRL's mean over prompts and padding, too; and its 0 where it computes no likelihood.
        let silent = case.get("cpo_alpha").is_some_and(|alpha| alpha.as_f64() == Some(0.0));
        let skip = ["logits/chosen", "logits/rejected", if silent { "nll_loss" } else { "" }];
        check_metrics(name, term, case, &skip);
    }
}

fn odds_loss(case: &Value) -> PairLoss {
    let beta = number(case, "beta");
    let Some(word) = case.get("loss_type") else { return PairLoss::Orpo(OrpoRecipe { beta }) };
    let loss: crate::cpo::CpoLoss = serde_json::from_value(word.clone()).unwrap();
    let smoothing = number(case, "label_smoothing");
    let recipe = CpoRecipe {
        beta,
        loss,
        label_smoothing: (smoothing != 0.0).then_some(smoothing),
        cpo_alpha: number(case, "cpo_alpha"),
        simpo_gamma: (loss == crate::cpo::CpoLoss::Simpo).then(|| number(case, "simpo_gamma")),
        ..CpoRecipe::default()
    };
    recipe.check().unwrap();
    PairLoss::Cpo(recipe)
}

#[test]
fn reward_losses_equal_trl() {
    let recorded = Recorded::read("reward");
    for (name, case) in recorded.cases.iter().filter(|(_, case)| case["margin"] == false) {
        let coefficient = case["center_rewards_coefficient"].as_f64().unwrap_or(0.0);
        let recipe = RewardRecipe { center_rewards_coefficient: coefficient };
        recipe.check().unwrap();
        let rewards = leaf(&recorded.floats("rewards"));
        let loss = recipe.losses(&halves(&rewards)).mean();
        close(name, &values(loss.clone()), &[number(case, "loss") as f32], VALUE);
        let gradient = values(rewards.grad(&loss.backward()).unwrap());
        close(
            &format!("{name}, gradient"),
            &gradient,
            &recorded.floats(&format!("{name}.grad_rewards")),
            GRADIENT,
        );
    }
}

#[test]
fn kto_losses_equal_trl() {
    let recorded = Recorded::read("kto");
    let labels = recorded.ints("labels");
    for (name, case) in &recorded.cases {
        let rows: Vec<usize> = serde_json::from_value(case["rows"].clone()).unwrap();
        let recipe = KtoRecipe {
            beta: number(case, "beta"),
            loss: serde_json::from_value(case["loss_type"].clone()).unwrap(),
            desirable_weight: number(case, "desirable_weight"),
            undesirable_weight: number(case, "undesirable_weight"),
        };
        recipe.check(rows.len()).unwrap();
        let pick = |name: &str| -> Vec<f32> {
            let all = recorded.floats(name);
            rows.iter().map(|&row| all[row]).collect()
        };
        let turned = plain(&pick("kl.policy.logps")) - plain(&pick("kl.reference.logps"));
        let turned = if case["kl_sides_exchanged"] == true { -turned } else { turned };
        let policy = leaf(&pick("policy.logps"));
        let desirable: Vec<bool> = rows.iter().map(|&row| labels[row] == 1).collect();
        let kl = divergence(turned.autodiff());
        let reported = if recipe.estimates_kl() { values(kl.clone())[0] } else { 0.0 };
        close(&format!("{name}: kl"), &[reported], &[number(&case["metrics"], "kl") as f32], VALUE);
        let ratios = policy.clone() - plain(&pick("reference.logps")).autodiff();
        let loss = recipe.losses(ratios, &desirable, kl).mean();
        close(name, &values(loss.clone()), &[number(case, "loss") as f32], VALUE);
        let gradient = values(policy.grad(&loss.backward()).unwrap());
        close(&format!("{name}, gradient"), &gradient, &recorded.floats(&format!("{name}.grad_logps")), GRADIENT);
    }
}
