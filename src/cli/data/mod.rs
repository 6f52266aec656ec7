//! `fornax data`: text to token shards, and what is worth knowing about a text before that.

mod arguments;
mod compare_tokenizers;
mod dedup;
mod inspect;
mod inspect_rows;
mod prepare;
mod report;
pub(crate) mod show;
mod stats;
mod train_tokenizer;

use clap::{Args, Subcommand};
use fornax_base::exit::Exit;
use fornax_data::DataError;

use super::report::Failure;
pub(crate) use report::print_json;

/// Prepare, measure and clean training text
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Data {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Encode text into the token shards that training reads
    Prepare(prepare::Prepare),
    /// Measure a text or a prepared dataset: lengths, words, tokens, duplicates
    Stats(stats::Stats),
    /// Write a text without its exact and near duplicates
    Dedup(dedup::Dedup),
    /// Learn a vocabulary from text
    TrainTokenizer(train_tokenizer::TrainTokenizer),
    /// Show text as the tokens a model reads, or rows as training sees them
    Inspect(inspect::Inspect),
    /// Compare tokenizers on English, Arabic, mixed, code, JSON and legal text, and on your own
    CompareTokenizers(compare_tokenizers::CompareTokenizers),
}

impl Data {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            DataCommand::Prepare(command) => command.run(),
            DataCommand::Stats(command) => command.run(),
            DataCommand::Dedup(command) => command.run(),
            DataCommand::TrainTokenizer(command) => command.run(),
            DataCommand::Inspect(command) => command.run(),
            DataCommand::CompareTokenizers(command) => command.run(),
        }
    }
}

/// What an error of the data crate means for the user.
pub(crate) fn data_failure(error: DataError) -> Failure {
    let (exit, hint) = (error.exit(), error.hint());
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
