//! What makes a recipe impossible, said with both numbers

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::{
    CORPUS, DataRecipe, EvalRecipe, ModelRecipe, ModelShape, RecipeCheckError, ScheduleKind, ScheduleRecipe,
    StepsRecipe, TokenizerKind, TrainRecipe,
};
use crate::schedule::Schedule;

/// Dimensions stay below 2^31, which every device's index type holds.
const GREATEST_DIMENSION: usize = i32::MAX as usize;
const GREATEST_ROWS: usize = 1 << 24;
pub(super) const GREATEST_STEPS: u64 = 1_000_000_000_000;

use RecipeCheckError::{
    Both, DecayOverlaps, LongerThanRun, Missing, NoEffect, NotMultiple, OutOfRange, SmallerThan,
};

/// No tokenizer, and nothing that brings one.
pub(crate) const NO_TOKENIZER: RecipeCheckError =
    Missing { key: "tokenizer", because: "neither `model.init` nor a prepared dataset brings one" };

pub(super) fn check(recipe: &TrainRecipe) -> Result<(), RecipeCheckError> {
    // In the order of the file's sections.
    model_shape(&recipe.model)?;
    check_tokenizer(recipe)?;
    check_data(&recipe.data)?;
    recipe.settings().check()?;
    check_held_out(recipe)
}

pub(super) fn model_shape(model: &ModelRecipe) -> Result<Option<ModelShape>, RecipeCheckError> {
    if model.init.is_some() {
        return refuse_shape_keys(model).map(|()| None);
    }
    let needed = |key, value: Option<usize>| {
        let because = "`model.init` is not given";
        let value = value.ok_or(Missing { key, because })?;
        within(key, value, 1..=GREATEST_DIMENSION).map(|()| value)
    };
    let n_layers = needed("model.n_layers", model.n_layers)?;
    let n_heads = needed("model.n_heads", model.n_heads)?;
    let width = needed("model.width", model.width)?;
    let shape = ModelShape {
        n_layers,
        n_heads,
        n_kv_heads: model.n_kv_heads.unwrap_or(n_heads),
        head_dim: head_dim(model, width, n_heads)?,
        width,
        ffn_width: model.ffn_width.unwrap_or(default_ffn_width(width)),
        tied: model.tied.unwrap_or(true),
        rope_theta: model.rope_theta.unwrap_or(10_000.0),
        norm_eps: model.norm_eps.unwrap_or(1e-5),
        logit_softcap: model.logit_softcap,
    };
    check_shape(&shape).map(|()| Some(shape))
}

fn check_shape(shape: &ModelShape) -> Result<(), RecipeCheckError> {
    let (n_heads, n_kv_heads) = (shape.n_heads, shape.n_kv_heads);
    within("model.n_kv_heads", n_kv_heads, 1..=n_heads)?;
    multiple("model.n_heads", n_heads, "model.n_kv_heads", n_kv_heads)?;
    within("model.ffn_width", shape.ffn_width, 1..=GREATEST_DIMENSION)?;
    if n_heads.saturating_mul(shape.head_dim) > GREATEST_DIMENSION {
        return Err(OutOfRange {
            key: "model.head_dim",
            found: shape.head_dim.to_string(),
            expected: format!("at most {GREATEST_DIMENSION} over {n_heads} heads"),
        });
    }
    let theta = shape.rope_theta;
    number("model.rope_theta", theta, "a number above 0", |x| x > 0.0)?;
    let eps = "a number above 0 and below 1";
    number("model.norm_eps", shape.norm_eps, eps, |x| x > 0.0 && x < 1.0)?;
    // Below 1 hardly any distribution could be expressed; above, single precision would not see the bend.
    let cap = shape.logit_softcap.unwrap_or(1.0);
    number("model.logit_softcap", cap, "a number from 1 to 10000", |x| (1.0..=10_000.0).contains(&x))
}

/// 8/3 of the width keeps SwiGLU's three matrices as large as a plain block's two of 4 times the width (Shazeer,
/// arXiv:2002.05202).
fn default_ffn_width(width: usize) -> usize {
    width.saturating_mul(8).div_ceil(3).div_ceil(32).saturating_mul(32)
}

fn head_dim(model: &ModelRecipe, width: usize, n_heads: usize) -> Result<usize, RecipeCheckError> {
    let dim = match model.head_dim {
        Some(dim) => dim,
        None => {
            multiple("model.width", width, "model.n_heads", n_heads)?;
            width / n_heads
        }
    };
    within("model.head_dim", dim, 2..=GREATEST_DIMENSION)?;
    if dim % 2 == 0 {
        Ok(dim)
    } else {
        Err(OutOfRange {
            key: "model.head_dim",
            found: dim.to_string(),
            expected: "an even number, since the rotary embedding turns pairs,".to_owned(),
        })
    }
}

fn refuse_shape_keys(model: &ModelRecipe) -> Result<(), RecipeCheckError> {
    let given = [
        ("model.n_layers", model.n_layers.is_some()),
        ("model.n_heads", model.n_heads.is_some()),
        ("model.n_kv_heads", model.n_kv_heads.is_some()),
        ("model.head_dim", model.head_dim.is_some()),
        ("model.width", model.width.is_some()),
        ("model.ffn_width", model.ffn_width.is_some()),
        ("model.tied", model.tied.is_some()),
        ("model.rope_theta", model.rope_theta.is_some()),
        ("model.norm_eps", model.norm_eps.is_some()),
        ("model.logit_softcap", model.logit_softcap.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((other, _)) => {
            Err(Both { one: "model.init", other, because: "the model folder brings its own shape" })
        }
    }
}

fn check_tokenizer(recipe: &TrainRecipe) -> Result<(), RecipeCheckError> {
    let tokenizer = match (&recipe.model.init, &recipe.tokenizer) {
        (Some(_), None) => return Ok(()),
        (Some(_), Some(_)) => {
            return Err(Both {
                one: "model.init",
                other: "tokenizer",
                because: "the model folder brings its own tokenizer",
            });
        }
        // A prepared dataset brings its own; whether a folder is one is seen where it is opened.
        (None, None) if recipe.data.may_be_prepared() => return Ok(()),
        (None, None) => return Err(NO_TOKENIZER),
        (None, Some(tokenizer)) => tokenizer,
    };
    let bpe = tokenizer.kind == TokenizerKind::Bpe;
    match tokenizer.vocab_size {
        // 256 bytes and at least one special token.
        Some(size) if bpe => within("tokenizer.vocab_size", size, 257..=1 << 24)?,
        None if bpe => {
            return Err(Missing { key: "tokenizer.vocab_size", because: "`tokenizer.kind` is `bpe`" });
        }
        given => no_effect("tokenizer.vocab_size", given.is_some(), "`tokenizer.kind` is not `bpe`")?,
    }
    if tokenizer.kind != TokenizerKind::File {
        let because = "`tokenizer.kind` is not `file`";
        return no_effect("tokenizer.path", tokenizer.path.is_some(), because);
    }
    match tokenizer.path {
        Some(_) => Ok(()),
        None => Err(Missing { key: "tokenizer.path", because: "`tokenizer.kind` is `file`" }),
    }
}

fn check_data(data: &DataRecipe) -> Result<(), RecipeCheckError> {
    match (data.source.is_empty(), data.mixture.is_empty()) {
        (true, true) => {
            return Err(OutOfRange {
                key: "data.source",
                found: "empty".to_owned(),
                expected: "`corpus`, a path, or a dataset of the hub".to_owned(),
            });
        }
        (false, false) => {
            let because = "a run reads one or the other";
            return Err(Both { one: "data.source", other: "data.mixture", because });
        }
        _ => {}
    }
    for part in &data.mixture {
        let weight = "a number above 0";
        number("data.mixture.weight", part.weight, weight, |x| x > 0.0)?;
        if part.source.is_empty() {
            let expected = "`corpus`, a path, or a dataset of the hub".to_owned();
            return Err(OutOfRange { key: "data.mixture.source", found: "empty".to_owned(), expected });
        }
        let is_plain = part.source == CORPUS || part.source.ends_with(".txt");
        no_effect("data.mixture.text_field", is_plain && part.text_field.is_some(), "this source is plain text")?;
    }
    let named = data.text_field.is_some();
    no_effect("data.text_field", named && !data.mixture.is_empty(), "each source of `data.mixture` has its own")?;
    no_effect("data.text_field", named && data.source == CORPUS, "`data.source` is `corpus`")?;
    no_effect("data.text_field", named && data.source.ends_with(".txt"), "`data.source` is plain text")?;
    if !data.is_corpus() {
        let because = "`data.source` is not `corpus`";
        no_effect("data.corpus_bytes", data.corpus_bytes.is_some(), because)?;
    }
    if let Some(wrong) = data.clean.wrong() {
        return Err(RecipeCheckError::Clean(wrong));
    }
    let bytes = data.corpus_bytes.unwrap_or(1 << 20);
    within("data.corpus_bytes", bytes, 1_000..=1_000_000_000_000)?;
    let fraction = data.validation_fraction;
    number("data.validation_fraction", fraction, "a number from 0 to below 1", |x| (0.0..1.0).contains(&x))
}

pub(super) fn check_steps(train: &StepsRecipe) -> Result<(), RecipeCheckError> {
    within("train.steps", train.steps, 1..=GREATEST_STEPS)?;
    within("train.context", train.context, 1..=GREATEST_ROWS)?;
    within("train.batch", train.batch, 1..=GREATEST_ROWS)?;
    within("train.micro_batch", train.micro_batch(), 1..=train.batch)?;
    multiple("train.batch", train.batch, "train.micro_batch", train.micro_batch())?;
    number("train.z_loss", train.z_loss, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

pub(super) fn check_schedule(
    schedule: &ScheduleRecipe,
    full: &Schedule,
    steps: u64,
) -> Result<(), RecipeCheckError> {
    let warmup = schedule.warmup_steps;
    if warmup > steps {
        return Err(LongerThanRun { key: "schedule.warmup_steps", found: warmup, steps });
    }
    if schedule.kind == ScheduleKind::Constant {
        let is_given = schedule.final_lr_fraction.is_some();
        no_effect("schedule.final_lr_fraction", is_given, "`schedule.kind` is `constant`")?;
    }
    if schedule.kind != ScheduleKind::Wsd {
        let is_given = schedule.decay_fraction.is_some();
        no_effect("schedule.decay_fraction", is_given, "`schedule.kind` is not `wsd`")?;
    }
    let last = full.final_lr_fraction;
    number("schedule.final_lr_fraction", last, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))?;
    let decay = full.decay_fraction;
    number("schedule.decay_fraction", decay, "a number above 0 and at most 1", |x| x > 0.0 && x <= 1.0)?;
    let decay = full.decay_steps(steps);
    if warmup.saturating_add(decay) > steps {
        return Err(DecayOverlaps { warmup, decay, steps });
    }
    Ok(())
}

pub(super) fn check_eval(eval: &EvalRecipe) -> Result<(), RecipeCheckError> {
    within("eval.every", eval.every, 0..=GREATEST_STEPS)?;
    within("eval.sample_every", eval.sample_every, 0..=GREATEST_STEPS)?;
    within("eval.tokens", eval.tokens, 0..=GREATEST_STEPS)?;
    within("eval.sample_tokens", eval.sample_tokens, 0..=GREATEST_ROWS)?;
    number("eval.temperature", eval.temperature, "a number from 0 to 2", |x| (0.0..=2.0).contains(&x))?;
    if eval.sample_every == 0 {
        return Ok(());
    }
    if eval.prompts.is_empty() {
        return Err(Missing { key: "eval.prompts", because: "`eval.sample_every` is above 0" });
    }
    within("eval.sample_tokens", eval.sample_tokens, 1..=GREATEST_ROWS)
}

/// Text is held out wherever validation asks for some.
fn check_held_out(recipe: &TrainRecipe) -> Result<(), RecipeCheckError> {
    if recipe.eval.every == 0 {
        return Ok(());
    }
    let (found, than) = (recipe.eval.tokens, recipe.train.context as u64);
    if found < than {
        return Err(SmallerThan { key: "eval.tokens", found, than_key: "train.context", than });
    }
    if recipe.data.validation_fraction == 0.0 {
        return Err(NoEffect {
            key: "eval.every",
            because: "`data.validation_fraction` is 0, so no text is held out",
        });
    }
    Ok(())
}

/// Refuses a number outside of `range`.
///
/// # Errors
/// [`RecipeCheckError::OutOfRange`].
pub fn within<N: PartialOrd + Display + Copy>(
    key: &'static str,
    found: N,
    range: RangeInclusive<N>,
) -> Result<(), RecipeCheckError> {
    if range.contains(&found) {
        return Ok(());
    }
    Err(OutOfRange {
        key,
        found: found.to_string(),
        expected: format!("a whole number from {} to {}", range.start(), range.end()),
    })
}

/// Refuses a number that is not finite or not fine.
///
/// # Errors
/// [`RecipeCheckError::OutOfRange`].
pub fn number(
    key: &'static str,
    found: f64,
    expected: &str,
    is_fine: impl Fn(f64) -> bool,
) -> Result<(), RecipeCheckError> {
    if found.is_finite() && is_fine(found) {
        return Ok(());
    }
    Err(OutOfRange { key, found: found.to_string(), expected: expected.to_owned() })
}

fn multiple(key: &'static str, found: usize, by_key: &'static str, by: usize) -> Result<(), RecipeCheckError> {
    if by != 0 && found.is_multiple_of(by) {
        return Ok(());
    }
    Err(NotMultiple { key, found, by_key, by })
}

/// Refuses a key that is given and would do nothing.
///
/// # Errors
/// [`RecipeCheckError::NoEffect`].
pub fn no_effect(key: &'static str, is_given: bool, because: &'static str) -> Result<(), RecipeCheckError> {
    if is_given { Err(NoEffect { key, because }) } else { Ok(()) }
}
