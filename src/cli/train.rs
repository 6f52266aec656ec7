//! `fornax train`: run a recipe, or resume a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::{RealFs, read_text_limited};
use fornax_base::recipe;
use fornax_model::device::describe;
use fornax_train::TrainError;
use fornax_train::control::{Ending, Signal};
use fornax_train::recipe::TrainRecipe;
use fornax_train::run::{Outcome, Run, Surroundings};
use fornax_train::step::next_token;

use super::DeviceArgument;
use super::model_folder::shown;
use super::progress;
use super::report::{Failure, print, say};
use super::signals;

const MAX_RECIPE_BYTES: u64 = 1 << 20;

/// Train a model as a recipe says, or resume a run
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// The recipe, for example recipes/shakespeare-char.toml
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
    /// Dtype of the matrix products: f32, bf16 or f16; the same as --set train.precision=DTYPE
    #[arg(long, value_name = "DTYPE", value_parser = ["f32", "bf16", "f16"])]
    precision: Option<String>,
    /// Check the recipe, print it resolved, and stop
    #[arg(long, conflicts_with = "resume")]
    check: bool,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print each event as a line of JSON on stdout
    #[arg(long)]
    json: bool,
}

impl Train {
    pub(crate) fn run(mut self) -> Result<Exit, Failure> {
        self.sets.extend(self.precision.iter().map(|dtype| format!("train.precision={dtype}")));
        if let Some(run) = &self.resume {
            return self.resume_run(run);
        }
        let path = self.recipe.as_deref().unwrap_or(Path::new(""));
        let text = read_text_limited(path, MAX_RECIPE_BYTES).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let recipe = read_recipe(&text, path, &self.sets)?;
        if self.check {
            let resolved = recipe.resolved_toml().map_err(TrainError::from)?;
            print(&resolved)?;
            return Ok(Exit::Done);
        }
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run");
        let folder = self.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(name));
        let outcome = train(&self.device, self.json, &folder, |around| {
            Run::start(around, &folder, &recipe, &mut progress::preparing())
        })?;
        Ok(conclude(&folder, &outcome))
    }

    fn resume_run(&self, folder: &Path) -> Result<Exit, Failure> {
        let change = |text: &str, path: &Path| -> Result<TrainRecipe, TrainError> {
            Ok(recipe::load(text, &path.display().to_string(), &self.sets)?)
        };
        let outcome = train(&self.device, self.json, folder, |around| {
            let run = Run::resume(around, folder, self.step, &change, &mut progress::preparing())?;
            let steps = run.recipe().train.steps;
            if run.step() == steps {
                say(&format!("this run is finished: all {steps} steps are done; its model is written again\n"));
            }
            Ok(run)
        })?;
        Ok(conclude(folder, &outcome))
    }
}

/// Reads a recipe with overrides and checks it.
pub(crate) fn read_recipe(text: &str, path: &Path, sets: &[String]) -> Result<TrainRecipe, Failure> {
    let recipe: TrainRecipe = recipe::load(text, &path.display().to_string(), sets).map_err(TrainError::from)?;
    recipe.check().map_err(TrainError::from)?;
    Ok(recipe)
}

/// Opens the device, listens to signals, and takes the run that `open` gives to its end.
pub(crate) fn train(
    device: &DeviceArgument,
    json: bool,
    folder: &Path,
    open: impl FnOnce(Surroundings) -> Result<Run, TrainError>,
) -> Result<Outcome, Failure> {
    let (device, device_name) = device.open()?;
    let (sender, listener) = progress::listen(json);
    let signal = Signal::default();
    let around = Surroundings {
        fs: Arc::new(RealFs),
        device_name,
        device_description: describe(device_name, &device),
        device,
        signal: signal.clone(),
        listener: Some(sender),
        tool_version: env!("CARGO_PKG_VERSION").to_string(),
    };
    say(&format!("run folder: {}\n", folder.display()));
    let mut run = open(around)?;
    say_sources(&run)?;
    signals::ask_through(signal.flag())?;
    let result = run.fit(&next_token);
    drop(run); // with it the sender, which ends the listener
    listener.finish();
    result.map_err(|error| Failure::from(error).while_running())
}

/// Says what a run of several sources reads of each.
fn say_sources(run: &Run) -> Result<(), Failure> {
    let sources = run.sources()?;
    for source in sources.iter().filter(|_| sources.len() > 1) {
        say(&format!(
            "source {}: {:.2} % of the tokens, {} tokens, {:.2} epochs\n",
            source.name,
            source.share * 100.0,
            progress::grouped(source.tokens),
            source.passes
        ));
    }
    Ok(())
}

/// Says what to type next and gives the exit code.
pub(crate) fn conclude(folder: &Path, outcome: &Outcome) -> Exit {
    match outcome.ending {
        None => {
            say(&format!("\ntry it: fornax generate --model {} --prompt TEXT\n", shown(folder)));
            Exit::Done
        }
        Some(ending) => {
            say(&format!("continue with: fornax train --resume {}\n", shown(folder)));
            match ending {
                Ending::Command => Exit::Done,
                Ending::Signal(exit) => exit,
            }
        }
    }
}
