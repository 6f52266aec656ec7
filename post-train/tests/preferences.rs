//! Preferences learned by a tiny model: the loss falls, a step may be cut into any micro-batches, references agree.

#![allow(clippy::print_stdout, reason = "the figures belong to the result of a test")]

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use fornax_base::exit::Exit;
use fornax_base::files::RealFs;
use fornax_base::rng::rng;
use fornax_data::batches::Cursor;
use fornax_data::examples::{Example, Labelled, Pair};
use fornax_model::adapter::{AdapterConfig, Targets};
use fornax_model::{Decoder, ModelConfig};
use fornax_post_train::cpo::{CpoLoss, CpoRecipe};
use fornax_post_train::dpo::{DpoLoss, DpoRecipe};
use fornax_post_train::kto::{KtoLoss, KtoObjective, KtoRecipe};
use fornax_post_train::order::Cut;
use fornax_post_train::orpo::OrpoRecipe;
use fornax_post_train::preference::{PairLoss, PairObjective, PairReference, Start, reference_logps};
use fornax_post_train::reference::{Reference, ReferenceLogps};
use fornax_train::gate::GradientGate;
use fornax_train::objective::Objective;
use fornax_train::optimizer::Optimizer;
use fornax_train::recipe::{OptimizerKind, OptimizerRecipe};
use fornax_train::step::{StepReport, step_over};

const SEED: u64 = 5;
const CONTEXT: usize = 16;

fn model() -> Decoder {
    let config = ModelConfig {
        vocab_size: 40,
        width: 16,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 4,
        ffn_width: 24,
        context: CONTEXT,
        tied: false,
        ..ModelConfig::llama(2)
    };
    Decoder::init(&config, 3, &Device::flex())
}

/// Prompts of 1 to 4 tokens; a good completion has small ids, a bad one large ids, 1 to 8 tokens each.
fn pairs(n: usize, purpose: &str) -> Vec<Pair> {
    let mut random = rng(SEED, 0, purpose);
    let mut make = || {
        let prompt: Vec<u32> = (0..1 + random.below(4)).map(|_| random.below(40) as u32).collect();
        let mut complete = |from: u32| {
            let answer: Vec<u32> = (0..1 + random.below(8)).map(|_| from + random.below(20) as u32).collect();
            let trained = [vec![false; prompt.len()], vec![true; answer.len()]].concat();
            Example { ids: [prompt.clone(), answer].concat(), trained, row: 1 }
        };
        Pair { chosen: complete(0), rejected: complete(20) }
    };
    (0..n).map(|_| make()).collect()
}

fn cut(rows: usize, micro_batches: usize) -> Cut {
    Cut { rows, micro_batches, seed: SEED }
}

/// An objective of pairs against a frozen copy of the model.
fn objective(loss: &PairLoss, cut: Cut) -> PairObjective {
    let reference = loss.wants_reference().then(|| PairReference::Model(Reference::Copy(Box::new(model()))));
    PairObjective::new(loss.clone(), pairs(40, "train"), pairs(12, "held out"), reference, cut)
}

/// A model in training.
struct Trainee {
    decoder: Decoder,
    optimizer: Optimizer,
    gate: GradientGate,
    cursor: Cursor,
}

impl Trainee {
    fn new() -> Self {
        Self::of(model())
    }

    /// With a new adapter, which alone learns.
    fn adapted() -> Self {
        let mut decoder = model();
        decoder.attach("default", AdapterConfig::lora(4, 8.0, Targets::AllLinear), SEED).unwrap();
        Self::of(decoder)
    }

    fn of(decoder: Decoder) -> Self {
        let recipe = OptimizerRecipe { weight_decay: 0.0, ..OptimizerRecipe::new(OptimizerKind::AdamW, 3e-3) };
        Self {
            decoder: decoder.trainable(true),
            optimizer: Optimizer::new(&recipe),
            gate: GradientGate::default(),
            cursor: Cursor::default(),
        }
    }

    fn step(&mut self, objective: &mut dyn Objective) -> StepReport {
        let ready = objective.prepare(&self.decoder, 0, self.cursor).unwrap();
        self.cursor = ready.cursor;
        let term = |decoder: &Decoder, i: usize| objective.term(decoder, i);
        let Self { decoder, optimizer, gate, .. } = self;
        step_over(decoder, optimizer, gate, &term, ready.micro_batches, 3e-3, 1.0).unwrap()
    }

    fn parameters(&self) -> BTreeMap<String, Vec<f32>> {
        let read = |(name, _, tensor): (String, _, Tensor<1>)| (name, tensor.into_data().try_to_vec().unwrap());
        self.decoder.parameters().into_iter().map(read).collect()
    }
}

/// Losses that compare pair by pair, with their names.
fn losses() -> Vec<(String, PairLoss)> {
    use DpoLoss::*;
    let dpo = |loss: Vec<DpoLoss>| {
        let name = format!("{loss:?}");
        let recipe = DpoRecipe { beta: 0.3, loss, ..DpoRecipe::default() };
        recipe.check().unwrap();
        (name, PairLoss::Dpo(recipe))
    };
    let mut all: Vec<_> = [
        Sigmoid,
        Hinge,
        Ipo,
        Robust,
        ExoPair,
        NcaPair,
        BcoPair,
        SppoHard,
        ApoZero,
        ApoDown,
        Discopop,
        Sft,
        SigmoidNorm,
    ]
    .map(|loss| dpo(vec![loss]))
    .to_vec();
    all.push(dpo(vec![Sigmoid, BcoPair, Sft]));
    let free = DpoRecipe { reference_free: true, ..DpoRecipe::default() };
    all.push(("reference-free".into(), PairLoss::Dpo(free)));
    all.push(("orpo".into(), PairLoss::Orpo(OrpoRecipe::default())));
    all.push(("cpo".into(), PairLoss::Cpo(CpoRecipe::default())));
    let simpo = CpoRecipe { beta: 2.0, loss: CpoLoss::Simpo, cpo_alpha: 0.0, ..CpoRecipe::default() };
    all.push(("simpo".into(), PairLoss::Cpo(simpo)));
    all
}

#[test]
fn losses_fall_and_held_out_margins_rise() {
    let mut all = losses();
    for loss in [DpoLoss::Aot, DpoLoss::AotUnpaired] {
        all.push((format!("{loss:?}"), PairLoss::Dpo(DpoRecipe { loss: vec![loss], ..DpoRecipe::default() })));
    }
    for (name, loss) in all {
        let (mut objective, mut trainee) = (objective(&loss, cut(8, 1)), Trainee::new());
        let before = objective.evaluate(&model()).unwrap().unwrap();
        let mut first = None;
        for _ in 0..20 {
            first.get_or_insert(trainee.step(&mut objective));
        }
        let plain = trainee.decoder.clone().trainable(false);
        let after = objective.evaluate(&plain).unwrap().unwrap();
        assert_eq!(after.weight, 12);
        let of = |key: &str| (before.metrics[key], after.metrics[key]);
        let (margin, accuracy) = (of("rewards/margins"), of("rewards/accuracies"));
        println!(
            "{name:28} loss {:.4} -> {:.4}, margin {:.4} -> {:.4}, accuracy {:.2} -> {:.2}",
            before.loss, after.loss, margin.0, margin.1, accuracy.0, accuracy.1
        );
        assert!(after.loss < before.loss, "{name}: held-out loss {} -> {}", before.loss, after.loss);
        // DiscoPOP's loss rises with the margin where policy and reference are the same: near 0 it has a minimum below.
        let is_discopop = name == "[Discopop]";
        assert!(is_discopop || margin.1 > margin.0, "{name}: held-out margin {} -> {}", margin.0, margin.1);
        if loss.wants_reference() {
            // Policy and reference are the same model.
            assert_eq!(before.metrics["rewards/margins"], 0.0, "{name}");
            assert_eq!(first.unwrap().metrics["rewards/chosen"], 0.0, "{name}");
        }
    }
}

/// What a step learns does not depend on how it is cut into micro-batches.
#[test]
fn eight_of_one_are_one_of_eight() {
    for (name, loss) in losses() {
        let run = |cut: Cut| {
            let (mut objective, mut trainee) = (objective(&loss, cut), Trainee::new());
            let reports = [trainee.step(&mut objective), trainee.step(&mut objective)];
            (reports, trainee.parameters())
        };
        let (one, eight) = (run(cut(8, 1)), run(cut(1, 8)));
        for (one, eight) in one.0.iter().zip(&eight.0) {
            assert_eq!(one.weight, 8.0);
            let close = |what: &str, a: f64, b: f64| {
                assert!((a - b).abs() <= 1e-4 * a.abs().max(0.1), "{name}, {what}: {a} in one, {b} in eight");
            };
            close("loss", one.loss, eight.loss);
            close("gradient norm", one.grad_norm, eight.grad_norm);
            assert_eq!(one.metrics.len(), eight.metrics.len());
            for (key, value) in &one.metrics {
                close(key, *value, eight.metrics[key]);
            }
        }
        // An AdamW update is nearly the sign of the gradient: rounding moves elements whose gradient is rounding.
        let (mut difference, mut moved) = (0.0, 0.0);
        let start: BTreeMap<String, Vec<f32>> = Trainee::new().parameters();
        for (key, one) in &one.1 {
            for ((a, b), c) in one.iter().zip(&eight.1[key]).zip(&start[key]) {
                difference += f64::from(a - b).powi(2);
                moved += f64::from(a - c).powi(2);
            }
        }
        let relative = (difference / moved).sqrt();
        assert!(relative < 1e-2, "{name}: parameters differ by {relative} of their way");
    }
}

/// KTO measures from a divergence that is estimated on each micro-batch: there the cut is seen, and elsewhere not.
#[test]
fn only_the_kl_term_of_kto_sees_the_cut() {
    for loss in [KtoLoss::ApoZeroUnpaired, KtoLoss::Kto] {
        let recipe = KtoRecipe { beta: 0.5, loss, ..KtoRecipe::default() };
        let (mut objective, mut trainee) = (kto(recipe.clone(), cut(8, 1)), Trainee::new());
        // A policy that left its reference.
        for _ in 0..10 {
            trainee.step(&mut objective);
        }
        let mean = |cut: Cut| {
            let mut objective = kto(recipe.clone(), cut);
            let ready = objective.prepare(&trainee.decoder, 0, trainee.cursor).unwrap();
            let terms = (0..ready.micro_batches).map(|i| objective.term(&trainee.decoder, i).unwrap());
            terms.map(|term| f64::from(term.loss_sum.into_scalar::<f32>())).sum::<f64>() / 8.0
        };
        let (one, two) = (mean(cut(8, 1)), mean(cut(2, 4)));
        let same = (one - two).abs() < 1e-5;
        assert_eq!(same, loss == KtoLoss::ApoZeroUnpaired, "{loss:?}: {one} in one, {two} in four");
    }
}

struct KtoRows {
    train: Vec<Labelled>,
    held_out: Vec<Labelled>,
}

fn kto_rows() -> KtoRows {
    let labelled = |pairs: Vec<Pair>| -> Vec<Labelled> {
        let both = |pair: Pair| [(pair.chosen, true), (pair.rejected, false)];
        pairs.into_iter().flat_map(both).map(|(example, desirable)| Labelled { example, desirable }).collect()
    };
    KtoRows { train: labelled(pairs(20, "train")), held_out: labelled(pairs(6, "held out")) }
}

fn kto(recipe: KtoRecipe, cut: Cut) -> KtoObjective {
    let KtoRows { train, held_out } = kto_rows();
    KtoObjective::new(recipe, train, held_out, Reference::Copy(Box::new(model())), CONTEXT, cut)
}

#[test]
fn kto_learns_from_single_completions() {
    for loss in [KtoLoss::Kto, KtoLoss::ApoZeroUnpaired] {
        let recipe = KtoRecipe { beta: 0.5, loss, ..KtoRecipe::default() };
        let (mut objective, mut trainee) = (kto(recipe, cut(8, 1)), Trainee::new());
        let before = objective.evaluate(&model()).unwrap().unwrap();
        assert_eq!((before.loss, before.weight), (0.5, 12));
        assert_eq!(before.metrics["rewards/margins"], 0.0);
        for _ in 0..20 {
            trainee.step(&mut objective);
        }
        let after = objective.evaluate(&trainee.decoder.clone().trainable(false)).unwrap().unwrap();
        println!("{loss:?}: loss 0.5 -> {:.4}, margin {:.4}", after.loss, after.metrics["rewards/margins"]);
        assert!(after.loss < 0.5 && after.metrics["rewards/margins"] > 0.0, "{after:?}");
        assert!(after.metrics.contains_key("kl"));
    }
}

/// Log-probabilities computed once take the place of the model, in training and in evaluation.
#[test]
fn computed_references_equal_their_model() {
    let loss = PairLoss::Dpo(DpoRecipe { loss: vec![DpoLoss::Sigmoid, DpoLoss::Ipo], ..DpoRecipe::default() });
    let (train, held_out) = (pairs(40, "train"), pairs(12, "held out"));
    let of = |pairs: &[Pair]| reference_logps(&model(), pairs, 8).unwrap();
    let logps = ReferenceLogps { train: of(&train), held_out: of(&held_out) };
    let computed = PairReference::Computed(logps);
    let cached = PairObjective::new(loss.clone(), train, held_out, Some(computed), cut(8, 1));
    let run = |mut objective: PairObjective| {
        let mut trainee = Trainee::new();
        for _ in 0..5 {
            trainee.step(&mut objective);
        }
        let evaluation = objective.evaluate(&trainee.decoder.clone().trainable(false)).unwrap().unwrap();
        (evaluation.loss, evaluation.metrics["rewards/margins"])
    };
    let (asked, cached) = (run(objective(&loss, cut(8, 1))), run(cached));
    assert!((asked.0 - cached.0).abs() < 1e-5 && (asked.1 - cached.1).abs() < 1e-5, "{asked:?}, {cached:?}");
}

/// The reference is computed once, kept in the run folder, and found there by the next start; another model is refused.
#[test]
fn a_run_keeps_its_reference() {
    let run = tempfile::tempdir().unwrap();
    let recipe = DpoRecipe { precompute_ref_log_probs: true, ..DpoRecipe::default() };
    recipe.check().unwrap();
    let open = |model: &str, decoder: &Decoder| {
        let start = Start { decoder, is_new_adapter: false, model, fs: &RealFs, run: run.path() };
        let rows = (pairs(40, "train"), pairs(12, "held out"));
        PairObjective::open(PairLoss::Dpo(recipe.clone()), rows, &start, cut(8, 1))
    };
    let train = |mut objective: PairObjective| {
        let mut trainee = Trainee::new();
        [trainee.step(&mut objective).loss, trainee.step(&mut objective).loss]
    };
    let (objective, warning) = open("model", &model()).unwrap();
    let losses = train(objective);
    assert!(warning.is_none() && (losses[0] - 2.0f64.ln()).abs() < 1e-5, "{losses:?}");
    // From disk: the model that is given now is not asked.
    let other = Decoder::init(model().config(), 99, &Device::flex());
    let (objective, warning) = open("model", &other).unwrap();
    assert_eq!((train(objective), warning), (losses, None));
    let error = open("another", &other).err().unwrap();
    assert_eq!(error.exit(), Exit::BadInput);
    assert!(error.hint().unwrap().contains("start a new run"), "{error}");
}

/// The model without its adapter is the reference that a copy of the model is.
#[test]
fn without_its_adapter_the_policy_is_its_reference() {
    let dpo = PairLoss::Dpo(DpoRecipe { beta: 0.5, ..DpoRecipe::default() });
    let pairs_with = |reference: Reference| {
        let reference = Some(PairReference::Model(reference));
        PairObjective::new(dpo.clone(), pairs(40, "train"), pairs(12, "held out"), reference, cut(8, 1))
    };
    let copy = || Reference::Copy(Box::new(model()));
    let run = |objective: &mut dyn Objective| {
        let mut trainee = Trainee::adapted();
        let reports: Vec<f64> = (0..5).map(|_| trainee.step(objective).loss).collect();
        let evaluation = objective.evaluate(&trainee.decoder.clone().trainable(false)).unwrap().unwrap();
        (reports, evaluation, trainee.parameters())
    };
    let off = run(&mut pairs_with(Reference::WithoutAdapters));
    assert_eq!(off, run(&mut pairs_with(copy())));
    assert!(off.1.metrics["rewards/margins"] > 0.0, "{:?}", off.1);
    let verdicts = |reference: Reference| {
        let KtoRows { train, held_out } = kto_rows();
        KtoObjective::new(KtoRecipe::default(), train, held_out, reference, CONTEXT, cut(8, 1))
    };
    assert_eq!(run(&mut verdicts(Reference::WithoutAdapters)), run(&mut verdicts(copy())));
}
