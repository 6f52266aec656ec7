//! `fornax check`: what a recipe would do and cost, without running it.

use std::path::PathBuf;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::read_text_limited;
use fornax_base::recipe;
use fornax_data::tokenizer::Tokenizer;
use fornax_post_train::preview::{Preview, PreviewRow, Previewed, preview};
use fornax_post_train::recipe::FinetuneRecipe;
use fornax_train::TrainError;
use fornax_train::estimate::time_line;
use fornax_train::rate::matmul_rate;
use fornax_train::setup::compute;
use serde::Serialize;

use super::DeviceArgument;
use super::data::show::Style;
use super::finetune::read_finetune_recipe;
use super::pretrain_check;
use super::report::{Failure, print};
use super::train::{MAX_RECIPE_BYTES, read_recipe};

/// Check a recipe without running it: show rows as they will be trained on, and what it will cost
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The recipe, of pretraining or of post-training
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// Override a key of the recipe, for example --set train.steps=100
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    recipe: &'a FinetuneRecipe,
    preview: Option<&'a Preview>,
    /// Why there is no preview.
    not_fetched: Option<&'a str>,
    matmul_rate: Option<f64>,
    seconds_at_matmul_rate: Option<f64>,
}

impl Check {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let path = &self.recipe;
        let text = read_text_limited(path, MAX_RECIPE_BYTES).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let (device, _) = self.device.open()?;
        // A recipe of post-training names its objective; one of pretraining has no such key.
        let keys: recipe::Keys =
            recipe::load(&text, &path.display().to_string(), &self.sets).map_err(TrainError::from)?;
        if !keys.has("objective") {
            let recipe = read_recipe(&text, path, &self.sets)?;
            return pretrain_check::check(&recipe, &[], &device, self.json);
        }
        let recipe = read_finetune_recipe(&text, path, &self.sets)?;
        let previewed = preview(&recipe, &device)?;
        let rate = matmul_rate(&device, compute(recipe.train.precision));
        print(&match (&previewed, self.json) {
            (_, true) => {
                let (preview, not_fetched) = match &previewed {
                    Previewed::Made(preview, _) => (Some(&**preview), None),
                    Previewed::NotFetched { base } => (None, Some(base.as_str())),
                };
                let seconds_at_matmul_rate = preview.and_then(|preview| Some(preview.flops / rate?));
                let report =
                    Report { recipe: &recipe, preview, not_fetched, matmul_rate: rate, seconds_at_matmul_rate };
                serde_json::to_string(&report).map_err(|error| Failure::new(Exit::Failed, error))? + "\n"
            }
            (Previewed::Made(preview, tokenizer), false) => shown(preview, tokenizer, rate),
            (Previewed::NotFetched { base }, false) => format!(
                "the recipe can be run; `{base}` is not on this machine and is fetched when it is, so there are no rows \
                 to show and no estimate\n"
            ),
        })?;
        Ok(Exit::Done)
    }
}

fn shown(preview: &Preview, tokenizer: &Tokenizer, rate: Option<f64>) -> String {
    let style = Style::of_stdout();
    let mut text = String::new();
    for row in &preview.rows {
        text += &row_text(style, tokenizer, row);
    }
    text += &style.heading("cost");
    for line in &preview.facts {
        text += &format!("{line}\n");
    }
    text += &format!("{}\n", preview.trainable);
    text += &format!("{} steps\n", preview.steps);
    text += &format!("{}\n", preview.memory.line());
    text + &format!("{}\n", time_line(rate, rate.map(|rate| preview.flops / rate)))
}

fn row_text(style: Style, tokenizer: &Tokenizer, row: &PreviewRow) -> String {
    let trained = row.trained.iter().skip(1).filter(|trained| **trained).count();
    let side = if row.side.is_empty() { String::new() } else { format!(", {}", row.side) };
    let mut text =
        style.heading(&format!("row {}{side}: {} tokens, {trained} of them trained", row.row, row.ids.len()));
    for (n, (id, trained)) in row.ids.iter().zip(&row.trained).enumerate() {
        text += &style.row_token(n, &tokenizer.spelled(*id), None, *trained);
    }
    text + "\n"
}
