//! `fornax finetune`: run a post-training recipe, or resume a run.

use std::path::{Path, PathBuf};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::read_text_limited;
use fornax_base::recipe;
use fornax_post_train::recipe::FinetuneRecipe;
use fornax_post_train::tuning::ADAPTER_FOLDER;
use fornax_train::TrainError;
use fornax_train::run::{Outcome, Run};

use super::DeviceArgument;
use super::model_folder::shown;
use super::progress;
use super::report::{Failure, say};
use super::train::{MAX_RECIPE_BYTES, Shown, conclude, train};

/// Tune a model with examples, preferences or rewards, as a recipe says
#[derive(Debug, Args)]
pub(crate) struct Finetune {
    /// The recipe, for example recipes/lora.toml
    #[arg(value_name = "RECIPE", required_unless_present = "resume", conflicts_with = "resume")]
    recipe: Option<PathBuf>,
    /// Run folder to create; default runs/<name of the recipe>
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    run: Option<PathBuf>,
    /// Continue this run from its newest whole checkpoint
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
    /// With --resume: continue from exactly this step's checkpoint
    // clap drops `requires` where RECIPE, which excludes --resume, is given.
    #[arg(long, value_name = "N", requires = "resume", conflicts_with = "recipe")]
    step: Option<u64>,
    /// Override a key of the recipe, for example --set train.steps=100
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print each event as a line of JSON on stdout
    #[arg(long)]
    json: bool,
    /// Show the monitor while training
    #[arg(long, conflicts_with = "json")]
    tui: bool,
}

impl Finetune {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        if let Some(run) = &self.resume {
            return self.resume_run(run);
        }
        let path = self.recipe.clone().unwrap_or_default();
        let text = read_text_limited(&path, MAX_RECIPE_BYTES).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let recipe = read_finetune_recipe(&text, &path, &self.sets)?;
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run");
        let folder = self.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(name));
        let outcome = train(&self.device, self.shown(), &folder, |around| {
            let run = Run::start(around, &folder, &recipe, &mut progress::preparing())?;
            say_facts(&run);
            Ok(run)
        })?;
        let base = recipe.adapter.is_some().then_some(recipe.model.base);
        Ok(concluded(&folder, base.as_deref(), &outcome))
    }

    fn shown(&self) -> Shown {
        match (self.json, self.tui) {
            (true, _) => Shown::Json,
            (_, true) => Shown::Screen,
            _ => Shown::Lines,
        }
    }

    fn resume_run(&self, folder: &Path) -> Result<Exit, Failure> {
        let change = |text: &str, path: &Path| -> Result<FinetuneRecipe, TrainError> {
            Ok(recipe::load(text, &path.display().to_string(), &self.sets)?)
        };
        let mut base = None;
        let outcome = train(&self.device, self.shown(), folder, |around| {
            let run = Run::resume(around, folder, self.step, &change, &mut progress::preparing())?;
            say_facts(&run);
            let steps = run.steps();
            if run.step() == steps {
                say(&format!("this run is finished: all {steps} steps are done; its model is written again\n"));
            }
            let recipe = run.recipe();
            base = recipe.adapter.is_some().then(|| recipe.model.base.clone());
            Ok(run)
        })?;
        Ok(concluded(folder, base.as_deref(), &outcome))
    }
}

/// Reads a post-training recipe with overrides and checks it.
pub(crate) fn read_finetune_recipe(text: &str, path: &Path, sets: &[String]) -> Result<FinetuneRecipe, Failure> {
    let recipe: FinetuneRecipe =
        recipe::load(text, &path.display().to_string(), sets).map_err(TrainError::from)?;
    Ok(recipe.resolved()?)
}

/// Says what to type next: an adapter is tried on its base.
fn concluded(folder: &Path, base: Option<&str>, outcome: &Outcome) -> Exit {
    let run = shown(folder);
    let try_it = match base {
        Some(base) => format!("generate --model {base} --adapter {run}/{ADAPTER_FOLDER} --prompt TEXT"),
        None => format!("generate --model {run} --prompt TEXT"),
    };
    conclude(folder, outcome, "finetune", &try_it)
}

/// Says what was found in the data and what learns.
pub(crate) fn say_facts(run: &Run<FinetuneRecipe>) {
    for fact in run.facts() {
        say(&format!("{fact}\n"));
    }
}
