//! `fornax train --check`: the recipe with every default written out, and what it will cost.

use burn::tensor::Device;
use fornax_base::exit::Exit;
use fornax_train::TrainError;
use fornax_train::estimate::{Estimate, estimate, model_config};
use fornax_train::rate::matmul_rate;
use fornax_train::recipe::TrainRecipe;
use fornax_train::setup::compute;
use serde::Serialize;

use super::report::{Failure, print};

#[derive(Serialize)]
struct Report<'a> {
    recipe: &'a TrainRecipe,
    /// Where the recipe was derived from a depth: the arithmetic.
    derivation: &'a [String],
    estimate: Option<Estimate>,
    /// Why there is no estimate.
    no_estimate: Option<String>,
}

/// Prints the resolved recipe as TOML with the arithmetic in comments, so that what is printed is a recipe; or
/// everything as one JSON object.
pub(crate) fn check(
    recipe: &TrainRecipe,
    derivation: &[String],
    device: &Device,
    json: bool,
) -> Result<Exit, Failure> {
    let recipe = recipe.resolved().map_err(TrainError::from)?;
    let (estimate, no_estimate) = match model_config(&recipe)? {
        Ok(config) => {
            let rate = matmul_rate(device, compute(recipe.train.precision));
            (Some(estimate(&recipe, &config, rate)), None)
        }
        Err(why) => (None, Some(why)),
    };
    let text = match json {
        true => {
            let report = Report { recipe: &recipe, derivation, estimate, no_estimate };
            serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n"
        }
        false => {
            let mut text = comments(derivation.iter().map(String::as_str));
            text += &recipe.resolved_toml().map_err(TrainError::from)?;
            let lines = estimate.map_or_else(Vec::new, |estimate| estimate.lines());
            let why = no_estimate.map(|why| format!("no estimate: {why}"));
            text + "\n" + &comments(lines.iter().map(String::as_str).chain(why.as_deref()))
        }
    };
    print(&text)?;
    Ok(Exit::Done)
}

fn comments<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    // An error's sentence may have several lines, and each must stay a comment.
    lines.flat_map(str::lines).map(|line| format!("# {line}\n")).collect()
}
