//! `fornax data prepare`: text to the token shards that training reads.

use std::path::PathBuf;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::RealFs;
use fornax_data::dataset::{PrepareOptions, prepare};
use fornax_data::{Source, Tokenizer};
use fornax_train::setup::Preparing;
use serde::Serialize;

use super::data_failure;
use crate::cli::progress;
use crate::cli::report::{Failure, print};

/// Encode text into the token shards that training reads
#[derive(Debug, Args)]
pub(crate) struct Prepare {
    /// Text files, JSON Lines files, or folders of them
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    /// A tokenizer.json, or the folder it lies in
    #[arg(long, value_name = "FILE|DIR")]
    tokenizer: PathBuf,
    /// Folder to write the dataset to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Field or column that holds the text; default text
    #[arg(long, value_name = "NAME")]
    text_field: Option<String>,
    /// Share of the documents held out, between 0 and 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, allow_negative_numbers = true)]
    validation_fraction: f64,
    /// Decides which documents are held out
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    out: PathBuf,
    reused: bool,
    train_documents: u64,
    train_tokens: u64,
    validation_documents: u64,
    validation_tokens: u64,
}

impl Prepare {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let tokenizer = Tokenizer::load(&self.tokenizer).map_err(data_failure)?;
        let field = self.text_field.as_deref();
        let sources: Result<Vec<Source>, _> =
            self.sources.iter().map(|path| Source::from_path(path.as_ref(), field)).collect();
        let mut options = PrepareOptions::new(self.seed);
        options.validation_fraction = self.validation_fraction;
        let mut shown = progress::preparing();
        let sources = sources.map_err(data_failure)?;
        let prepared = prepare(&RealFs, &sources, &tokenizer, &self.out, &options, &mut |part| {
            shown(Preparing::Data(part));
        })
        .map_err(data_failure)?;
        let manifest = prepared.dataset.manifest();
        let report = Report {
            out: self.out,
            reused: prepared.reused,
            train_documents: manifest.train.documents,
            train_tokens: manifest.train.tokens,
            validation_documents: manifest.validation.documents,
            validation_tokens: manifest.validation.tokens,
        };
        let text = match self.json {
            true => serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n",
            false => format!(
                "train: {} documents, {} tokens\nvalidation: {} documents, {} tokens\n",
                report.train_documents, report.train_tokens, report.validation_documents, report.validation_tokens
            ),
        };
        print(&text)?;
        Ok(Exit::Done)
    }
}
