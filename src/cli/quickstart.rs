//! `fornax quickstart`: a list of stages from nothing to a model that talks.

use std::path::{Path, PathBuf};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_train::run::Run;

use super::DeviceArgument;
use super::model_folder::{shown, unused_run};
use super::progress;
use super::report::{Failure, say};
use super::train::{Shown, read_recipe, train};

/// The recipe of the training stage, built in so that the program needs no file beside it.
const RECIPE: &str = include_str!("../../recipes/quickstart.toml");

/// Make a small model from nothing and talk to it: the whole way in a few minutes
#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// Run folder to create; default runs/quickstart
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Override a key of the recipe, for example --set train.steps=100
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    #[command(flatten)]
    device: DeviceArgument,
    /// Show the monitor while training
    #[arg(long)]
    tui: bool,
}

/// One part of the quickstart. Later parts (fine-tuning, preference training, quantization, evaluation) work
/// on what the earlier ones left in the run folder.
struct Stage {
    title: &'static str,
    run: fn(&Quickstart, &Path) -> Result<Exit, Failure>,
}

const STAGES: &[Stage] = &[Stage {
    title: "train a tokenizer and a model of about a million parameters on made-up stories",
    run: pretrain,
}];

impl Quickstart {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let folder = self.run.clone().unwrap_or_else(|| unused_run("quickstart"));
        for (i, stage) in STAGES.iter().enumerate() {
            say(&format!("stage {} of {}: {}\n", i + 1, STAGES.len(), stage.title));
            let exit = (stage.run)(&self, &folder)?;
            if exit != Exit::Done {
                return Ok(exit);
            }
        }
        let folder = shown(&folder);
        say(&format!(
            "\nyour model is in {folder}/model, in Hugging Face layout. Try it:\n\n  \
             fornax generate --model {folder} --prompt \"One day,\"\n\n\
             (or `cargo run --release -- generate ...` from the source folder)\n"
        ));
        Ok(Exit::Done)
    }
}

fn pretrain(quickstart: &Quickstart, folder: &Path) -> Result<Exit, Failure> {
    let recipe = read_recipe(RECIPE, Path::new("recipes/quickstart.toml"), &quickstart.sets)?;
    let shown = if quickstart.tui { Shown::Screen } else { Shown::Lines };
    let outcome = train(&quickstart.device, shown, folder, |around| {
        Run::start(around, folder, &recipe, &mut progress::preparing())
    })?;
    match outcome.ending {
        None => Ok(Exit::Done),
        Some(_) => Ok(super::train::concluded(folder, &outcome)),
    }
}
