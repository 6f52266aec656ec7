//! What transformers and llama.cpp leave of the same logits.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::*;

fn fixture<T: DeserializeOwned>(name: &str) -> T {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/sampler/");
    serde_json::from_slice(&std::fs::read(folder.to_owned() + name).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Filters {
    cases: Vec<Filter>,
    logits: BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
struct Filter {
    logits: String,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    kept: usize,
    probabilities: Vec<f64>,
}

#[test]
fn filters_equal_those_of_transformers() {
    let fixture: Filters = fixture("expected.json");
    assert!(fixture.cases.len() > 90);
    for (index, case) in fixture.cases.iter().enumerate() {
        let logits = &fixture.logits[&case.logits];
        let options = SamplingOptions {
            temperature: case.temperature.unwrap_or(1.0),
            top_k: case.top_k.unwrap_or(0),
            top_p: case.top_p.unwrap_or(1.0),
            min_p: case.min_p.unwrap_or(0.0),
            ..SamplingOptions::default()
        };
        let found = chain(&options, logits.len()).distribution(logits, None).unwrap();
        // Probabilities below the least f32 are 0 there.
        let kept = found.tokens.iter().filter(|(_, p)| *p > 1e-45).count();
        assert_eq!(kept, case.kept, "case {index}");
        // The recorded logits were rounded to f32 after the division by the temperature.
        let largest = logits.iter().fold(0.0f32, |most, logit| most.max(logit.abs()));
        let tolerance = 1e-6 + f64::from(largest / options.temperature * f32::EPSILON);
        for (id, expected) in (0..).zip(&case.probabilities) {
            let found = found.probability(id);
            let near = (found - expected).abs() <= 1e-9 + tolerance * expected;
            assert!(near, "case {index} token {id}: {found} for {expected}");
        }
    }
}

#[derive(Deserialize)]
struct Chains {
    llama_cpp: Vec<Case>,
    transformers: Vec<Case>,
    mirostat: Vec<Run>,
    logits: BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
struct Case {
    kind: String,
    logits: String,
    options: SamplingOptions,
    #[serde(default)]
    prompt: Vec<u32>,
    #[serde(default)]
    output: Vec<u32>,
    /// llama.cpp makes no difference between the two.
    #[serde(default)]
    history: Vec<u32>,
    kept: usize,
    probabilities: Vec<f64>,
}

#[derive(Deserialize)]
struct Run {
    tau: f32,
    eta: f32,
    scale: f32,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    kept: Vec<u32>,
    chosen: u32,
}

fn check_cases(cases: &[Case], logits: &BTreeMap<String, Vec<f32>>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (index, case) in cases.iter().enumerate() {
        let logits = &logits[&case.logits];
        let mut chain = Chain::new(&case.options, &case.prompt, logits.len(), &[]).unwrap();
        case.output.iter().chain(&case.history).for_each(|id| chain.accept(*id));
        let found = chain.distribution(logits, None).unwrap();
        let name = format!("case {index}, {} of {}: {:?}", case.kind, case.logits, case.options);
        assert_eq!(found.tokens.len(), case.kept, "{name}");
        for (id, expected) in (0..).zip(&case.probabilities) {
            let found = found.probability(id);
            assert!(
                (found - expected).abs() < 1e-9 + 2e-6 * expected,
                "{name}, token {id}: {found} for {expected}"
            );
        }
        *counts.entry(case.kind.clone()).or_default() += 1;
    }
    counts
}

fn kinds<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts.into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect()
}

#[test]
fn other_stages_equal_those_of_transformers() {
    let fixture: Chains = fixture("chain.json");
    let counts = check_cases(&fixture.transformers, &fixture.logits);
    let expected = [("typical_p", 12), ("repetition", 6), ("logit_bias", 2), ("banned", 1), ("min_tokens", 4)];
    assert_eq!(counts, kinds(expected));
}

#[test]
fn other_stages_equal_those_of_llama_cpp() {
    let fixture: Chains = fixture("chain.json");
    let counts = check_cases(&fixture.llama_cpp, &fixture.logits);
    assert_eq!(counts, kinds([("top_n_sigma", 12), ("xtc", 16), ("penalties", 24), ("dry", 32)]));
}

#[test]
fn mirostat_keeps_what_llama_cpp_keeps_over_a_text() {
    let fixture: Chains = fixture("chain.json");
    for run in &fixture.mirostat {
        let options = SamplingOptions {
            mirostat: true,
            mirostat_tau: run.tau,
            mirostat_eta: run.eta,
            ..SamplingOptions::default()
        };
        let plain = &fixture.logits["plain"];
        let mut chain = chain(&options, plain.len());
        for (step, expected) in run.steps.iter().enumerate() {
            let turned: Vec<f32> =
                (0..plain.len()).map(|i| plain[(i + step % 7) % plain.len()] * run.scale).collect();
            let found = chain.distribution(&turned, None).unwrap();
            let kept: Vec<u32> = found.tokens.iter().map(|(id, _)| *id).collect();
            assert_eq!(kept, expected.kept, "tau {}, step {step}", run.tau);
            chain.accept(expected.chosen);
        }
        assert_eq!(run.steps.len(), 16);
    }
}
