//! What makes a post-training recipe impossible, said with both numbers

use fornax_train::TrainError;
use fornax_train::recipe::{RecipeCheckError, no_effect, number, within};

use super::data::CORPUS;
use super::{AdapterRecipe, FinetuneRecipe, ObjectiveKind, TargetsRecipe};
use crate::error::TuneError;

use RecipeCheckError::{Both, Missing, NoEffect};

pub(super) fn check(recipe: &FinetuneRecipe) -> Result<(), TrainError> {
    check_model(recipe)?;
    recipe.model.packing().map_err(TuneError::from)?;
    if let Some(adapter) = &recipe.adapter {
        check_adapter(adapter)?;
    }
    check_data(recipe)?;
    check_length(recipe)?;
    check_objective(recipe)?;
    let settings = recipe.settings();
    settings.check()?;
    within("eval.rows", recipe.eval.rows, 1..=1 << 24)?;
    Ok(())
}

fn check_model(recipe: &FinetuneRecipe) -> Result<(), RecipeCheckError> {
    let model = &recipe.model;
    if model.base.is_empty() {
        return Err(Missing { key: "model.base", because: "a model to start from is needed" });
    }
    no_effect("model.block", model.block.is_some() && model.packed.is_none(), "`model.packed` is not given")?;
    match model.packed.is_some() && recipe.adapter.is_none() {
        true => {
            Err(Missing { key: "adapter", because: "`model.packed` freezes the base, so nothing would learn" })
        }
        false => Ok(()),
    }
}

fn check_adapter(adapter: &AdapterRecipe) -> Result<(), RecipeCheckError> {
    if adapter.from.is_some() {
        let rest = AdapterRecipe { from: None, ..adapter.clone() };
        return match rest == AdapterRecipe::default() {
            true => Ok(()),
            false => Err(NoEffect {
                key: "adapter",
                because: "`adapter.from` names a folder that brings all the other keys",
            }),
        };
    }
    within("adapter.r", adapter.r, 1..=65_536)?;
    let alpha = adapter.alpha.unwrap_or(1.0);
    number("adapter.alpha", alpha, "a number above 0", |x| x > 0.0)?;
    number("adapter.dropout", adapter.dropout, "a number from 0 to below 1", |x| (0.0..1.0).contains(&x))?;
    match &adapter.targets {
        TargetsRecipe::Names(names) if names.is_empty() && adapter.modules_to_save.is_empty() => {
            Err(Missing { key: "adapter.targets", because: "an adapter without modules learns nothing" })
        }
        _ => Ok(()),
    }
}

fn check_data(recipe: &FinetuneRecipe) -> Result<(), RecipeCheckError> {
    let data = &recipe.data;
    if data.source.is_empty() {
        return Err(Missing { key: "data.source", because: "rows to train on are needed" });
    }
    let is_corpus = data.source == CORPUS;
    no_effect("data.format", data.format.is_some() && is_corpus, "`data.source` is `corpus`")?;
    within("data.rows", data.rows.unwrap_or(1), 1..=100_000_000)?;
    let fraction = data.validation_fraction;
    number("data.validation_fraction", fraction, "a number from 0 to below 1", |x| (0.0..1.0).contains(&x))?;
    if recipe.eval.every > 0 && fraction == 0.0 && data.validation.is_none() {
        return Err(NoEffect {
            key: "eval.every",
            because: "`data.validation_fraction` is 0, so no row is held out",
        });
    }
    Ok(())
}

/// Only the section of the recipe's own objective may be there.
fn check_objective(recipe: &FinetuneRecipe) -> Result<(), RecipeCheckError> {
    use ObjectiveKind::{Cpo, Distill, Dpo, Grpo, Kto, Orpo, Reward, Sft};
    let because = "`objective` is another one";
    no_effect(
        "data.packing",
        recipe.data.packing.is_some() && recipe.objective != Sft,
        "`objective` is not `sft`",
    )?;
    no_effect("dpo", recipe.dpo.is_some() && recipe.objective != Dpo, because)?;
    no_effect("orpo", recipe.orpo.is_some() && recipe.objective != Orpo, because)?;
    no_effect("cpo", recipe.cpo.is_some() && recipe.objective != Cpo, because)?;
    no_effect("kto", recipe.kto.is_some() && recipe.objective != Kto, because)?;
    no_effect("reward", recipe.reward.is_some() && recipe.objective != Reward, because)?;
    no_effect("grpo", recipe.grpo.is_some() && recipe.objective != Grpo, because)?;
    no_effect("distill", recipe.distill.is_some() && recipe.objective != Distill, because)?;
    match recipe.objective {
        Sft => Ok(()),
        Dpo => recipe.dpo.clone().unwrap_or_default().check(),
        Orpo => recipe.orpo.clone().unwrap_or_default().check(),
        Cpo => recipe.cpo.clone().unwrap_or_default().check(),
        Kto => recipe.kto.clone().unwrap_or_default().check(recipe.train.micro_batch()),
        Reward if recipe.adapter.is_some() => Err(Both {
            one: "adapter",
            other: "objective = \"reward\"",
            because: "a reward model is trained whole",
        }),
        Reward => recipe.reward.clone().unwrap_or_default().check(),
        Grpo => match &recipe.grpo {
            None => Err(Missing { key: "grpo.rewards", because: "`objective` is `grpo`" }),
            Some(grpo) => grpo.check(recipe.train.batch, recipe.checkpoint.every),
        },
        Distill => match &recipe.distill {
            None => Err(Missing { key: "distill.teacher", because: "`objective` is `distill`" }),
            Some(distill) => distill.check(),
        },
    }
}

fn check_length(recipe: &FinetuneRecipe) -> Result<(), RecipeCheckError> {
    let train = &recipe.train;
    match (train.steps, train.epochs) {
        (Some(_), Some(_)) => {
            Err(Both { one: "train.steps", other: "train.epochs", because: "one of them says how long a run is" })
        }
        (None, None) => Err(Missing { key: "train.steps", because: "`train.epochs` is not given either" }),
        (_, Some(epochs)) => {
            number("train.epochs", epochs, "a number above 0, at most 10000", |x| x > 0.0 && x <= 10_000.0)
        }
        _ => Ok(()),
    }
}
