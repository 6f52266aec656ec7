//! `fornax train`: run a recipe, or resume a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::{RealFs, read_text_limited};
use fornax_base::recipe;
use fornax_data::batches::Batch;
use fornax_model::Decoder;
use fornax_model::device::describe;
use fornax_train::TrainError;
use fornax_train::control::{Ending, Signal};
use fornax_train::depth::derive;
use fornax_train::events::TrainEvent;
use fornax_train::overfit::Limits;
use fornax_train::plain::grouped;
use fornax_train::recipe::TrainRecipe;
use fornax_train::run::{Outcome, Run, RunRecipe, Surroundings};
use fornax_train::step::next_token_with_z;

use super::DeviceArgument;
use super::model_folder::shown;
use super::overfit;
use super::pretrain_check::check;
use super::progress;
use super::report::{Failure, say};
use super::{screen, signals};

pub(crate) const MAX_RECIPE_BYTES: u64 = 1 << 20;

/// Train a model as a recipe says, or resume a run
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// The recipe, for example recipes/shakespeare-char.toml
    #[arg(value_name = "RECIPE", required_unless_present_any = ["resume", "depth"], conflicts_with = "resume")]
    recipe: Option<PathBuf>,
    /// Instead of a recipe: derive one for a model of this many layers
    #[arg(long, value_name = "N", conflicts_with_all = ["recipe", "resume"])]
    depth: Option<usize>,
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
    /// Check the recipe, print it resolved with what it will cost, and stop
    #[arg(long, alias = "print-recipe", conflicts_with = "resume")]
    check: bool,
    /// Train on one batch until its loss is below --target-loss, in N steps (200) at most; exit 5 if it is not
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "200")]
    #[arg(conflicts_with_all = ["resume", "run", "check"])]
    overfit_one_batch: Option<u64>,
    /// With --overfit-one-batch: the loss to fall below, in nats per token
    #[arg(long, value_name = "LOSS", default_value_t = 0.1, requires = "overfit_one_batch")]
    target_loss: f64,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print each event as a line of JSON on stdout
    #[arg(long)]
    json: bool,
    /// Show the monitor while training
    #[arg(long, conflicts_with_all = ["json", "check", "overfit_one_batch"])]
    tui: bool,
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// As lines and a progress bar.
    Lines,
    /// With each event as JSON on stdout.
    Json,
    /// In the monitor, where there is a terminal.
    Screen,
}

impl Train {
    pub(crate) fn run(mut self) -> Result<Exit, Failure> {
        self.sets.extend(self.precision.iter().map(|dtype| format!("train.precision={dtype}")));
        if let Some(run) = &self.resume {
            return self.resume_run(run);
        }
        let (path, text, derivation) = self.recipe_text()?;
        let recipe = read_recipe(&text, &path, &self.sets)?;
        if self.check {
            let (device, _) = self.device.open()?;
            return check(&recipe, &derivation, &device, self.json);
        }
        say(&derivation.iter().map(|line| format!("{line}\n")).collect::<String>());
        if let Some(steps) = self.overfit_one_batch {
            let around = surroundings(&self.device, None)?;
            let limits = Limits { steps, target_loss: self.target_loss };
            let z_loss = recipe.train.z_loss;
            let objective = |decoder: &Decoder, batch: &Batch| next_token_with_z(decoder, batch, z_loss);
            return overfit::run(&around, &recipe, &objective, limits, self.json);
        }
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run");
        let folder = self.run.clone().unwrap_or_else(|| PathBuf::from("runs").join(name));
        let outcome = train(&self.device, self.shown(), &folder, |around| {
            let run = Run::start(around, &folder, &recipe, &mut progress::preparing())?;
            say_sources(&run);
            Ok(run)
        })?;
        Ok(concluded(&folder, &outcome))
    }

    fn shown(&self) -> Shown {
        match (self.json, self.tui) {
            (true, _) => Shown::Json,
            (_, true) => Shown::Screen,
            _ => Shown::Lines,
        }
    }

    /// Where the recipe comes from, its text, and the arithmetic behind it where it was derived.
    fn recipe_text(&self) -> Result<(PathBuf, String, Vec<String>), Failure> {
        if let Some(depth) = self.depth {
            let derived = derive(depth).map_err(TrainError::from)?;
            return Ok((PathBuf::from(format!("depth-{depth}")), derived.text, derived.lines));
        }
        let path = self.recipe.clone().unwrap_or_default();
        let text = read_text_limited(&path, MAX_RECIPE_BYTES).map_err(|e| Failure::new(Exit::BadInput, e))?;
        Ok((path, text, Vec::new()))
    }

    fn resume_run(&self, folder: &Path) -> Result<Exit, Failure> {
        let change = |text: &str, path: &Path| -> Result<TrainRecipe, TrainError> {
            Ok(recipe::load(text, &path.display().to_string(), &self.sets)?)
        };
        let outcome = train(&self.device, self.shown(), folder, |around| {
            let run = Run::resume(around, folder, self.step, &change, &mut progress::preparing())?;
            say_sources(&run);
            let steps = run.steps();
            if run.step() == steps {
                say(&format!("this run is finished: all {steps} steps are done; its model is written again\n"));
            }
            Ok(run)
        })?;
        Ok(concluded(folder, &outcome))
    }
}

/// Reads a recipe with overrides and checks it.
pub(crate) fn read_recipe(text: &str, path: &Path, sets: &[String]) -> Result<TrainRecipe, Failure> {
    let recipe: TrainRecipe = recipe::load(text, &path.display().to_string(), sets).map_err(TrainError::from)?;
    recipe.check().map_err(TrainError::from)?;
    Ok(recipe)
}

/// Opens the device, listens to signals, and takes the run that `open` gives to its end.
pub(crate) fn train<R: RunRecipe>(
    device: &DeviceArgument,
    shown: Shown,
    folder: &Path,
    open: impl FnOnce(Surroundings) -> Result<Run<R>, TrainError>,
) -> Result<Outcome, Failure> {
    let (sender, events) = progress::events();
    let around = surroundings(device, Some(sender))?;
    let signal = around.signal.clone();
    say(&format!("run folder: {}\n", folder.display()));
    if shown == Shown::Screen && !screen::is_possible() {
        say("warning: the monitor needs a terminal on stdout; there are lines instead\n");
    }
    let (mut run, listener) = if shown == Shown::Screen && screen::is_possible() {
        let run = open(around)?;
        let hung_up = Arc::default();
        signals::ask_under_a_screen(signal.flag(), Arc::clone(&hung_up))?;
        (run, progress::on_screen(events, folder, hung_up))
    } else {
        let listener = progress::listen(events, shown == Shown::Json);
        let run = open(around)?;
        signals::ask_through(signal.flag())?;
        (run, listener)
    };
    let result = run.train();
    drop(run); // with it the sender, which ends the listener
    listener.finish();
    result.map_err(|error| Failure::from(error).while_running())
}

/// Opens the device; signals and files are the real ones.
fn surroundings(
    device: &DeviceArgument,
    listener: Option<SyncSender<TrainEvent>>,
) -> Result<Surroundings, Failure> {
    let (device, device_name) = device.open()?;
    Ok(Surroundings {
        fs: Arc::new(RealFs),
        device_name,
        device_description: describe(device_name, &device),
        device,
        signal: Signal::default(),
        listener,
        tool_version: env!("CARGO_PKG_VERSION").to_string(),
    })
}

/// Says what a run of several sources reads of each.
fn say_sources(run: &Run) {
    let sources = run.sources();
    for source in sources.iter().filter(|_| sources.len() > 1) {
        say(&format!(
            "source {}: {:.2} % of the tokens, {} tokens, {:.2} epochs\n",
            source.name,
            source.share * 100.0,
            grouped(source.tokens),
            source.passes
        ));
    }
}

/// Says what to type next and gives the exit code; `command` is the one that resumes, `try_it` what shows the result.
pub(crate) fn conclude(folder: &Path, outcome: &Outcome, command: &str, try_it: &str) -> Exit {
    match outcome.ending {
        None => {
            say(&format!("\ntry it: fornax {try_it}\n"));
            Exit::Done
        }
        Some(ending) => {
            say(&format!("continue with: fornax {command} --resume {}\n", shown(folder)));
            match ending {
                Ending::Command => Exit::Done,
                Ending::Signal(exit) => exit,
            }
        }
    }
}

/// As [`conclude`], of pretraining.
pub(crate) fn concluded(folder: &Path, outcome: &Outcome) -> Exit {
    conclude(folder, outcome, "train", &format!("generate --model {} --prompt TEXT", shown(folder)))
}
