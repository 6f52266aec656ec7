//! `fornax adapter`: look at an adapter, fold it into its model, carry it over to mlx-lm or back.

mod convert;
mod inspect;
mod merge;

use std::path::Path;

use clap::{Args, Subcommand};
use fornax_base::exit::Exit;
use fornax_model::Decoder;
use fornax_model::adapter::{AdapterError, AdapterId, DEFAULT_NAME};
use fornax_model::weights::peft::AdapterFolder;

use super::model_folder::weights_failure;
use super::report::Failure;

/// Look at adapters, merge them into their model, convert them
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Adapter {
    #[command(subcommand)]
    command: AdapterCommand,
}

#[derive(Debug, Subcommand)]
enum AdapterCommand {
    /// Write the model that an adapter and its base are together
    Merge(merge::Merge),
    /// Show what an adapter changes, and how much
    Inspect(inspect::Inspect),
    /// Write an adapter of PEFT for mlx-lm, or one of mlx-lm for PEFT
    Convert(convert::Convert),
}

impl Adapter {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            AdapterCommand::Merge(command) => command.run(),
            AdapterCommand::Inspect(command) => command.run(),
            AdapterCommand::Convert(command) => command.run(),
        }
    }
}

/// Puts the adapter of a folder on a model, as the one that is used.
pub(crate) fn attach(decoder: &mut Decoder, folder: &Path) -> Result<AdapterFolder, Failure> {
    let adapter = AdapterFolder::open(folder).map_err(adapter_failure)?;
    adapter.attach(decoder, DEFAULT_NAME).map_err(adapter_failure)?;
    Ok(adapter)
}

/// The same under a name, of which a decoder may hold several.
pub(crate) fn attach_as(decoder: &mut Decoder, folder: &Path, name: &str) -> Result<AdapterId, Failure> {
    let adapter = AdapterFolder::open(folder).map_err(adapter_failure)?;
    adapter.attach(decoder, name).map_err(adapter_failure)
}

/// A damaged file is damaged data; everything else is wrong input.
pub(crate) fn adapter_failure(error: AdapterError) -> Failure {
    let error = match error {
        AdapterError::Weights(error) => return weights_failure(error),
        error => error,
    };
    let hint = match &error {
        AdapterError::NotAnAdapterFolder { .. } => {
            Some("an adapter folder is what PEFT's save_pretrained or `fornax finetune` writes")
        }
        AdapterError::Unsupported { .. } => {
            Some("merge it with the program that made it, and use the merged model")
        }
        AdapterError::Mismatch { .. } => {
            Some("an adapter fits only the model it was trained on: base_model_name_or_path in its configuration")
        }
        AdapterError::Setting { key: "target_modules" | "modules_to_save", .. } => Some(
            "names are those of the model's modules or their ends; `all-linear` takes every linear layer but the head",
        ),
        _ => None,
    };
    let failure = Failure::new(Exit::BadInput, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Refuses a folder to write into that holds something already.
fn refuse_used(path: &Path) -> Result<(), Failure> {
    let holds_something = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    if path.is_file() || holds_something {
        return Err(Failure::input(format_args!("`{}` exists already", path.display()))
            .hint("give --out a folder that is empty or not there yet"));
    }
    Ok(())
}
