//! `fornax data prepare`: text to the token shards that training reads.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::{RealFs, create_folder};
use fornax_base::lock::FolderLock;
use fornax_data::dataset::PrepareOptions;
use fornax_data::intake::IntakeReport;
use fornax_data::mixture::{PreparedPart, Text, prepare_texts};
use fornax_data::{DataError, Tokenizer};
use fornax_train::setup::Preparing;
use serde::Serialize;

use super::arguments::{AgainstArguments, CleanArguments, source};
use super::data_failure;
use super::report::{intake_lines, print_json};
use crate::cli::progress::{self, grouped};
use crate::cli::report::{Failure, print, say};

/// Encode text into the token shards that training reads
#[derive(Debug, Args)]
pub(crate) struct Prepare {
    /// Text, JSON Lines or Parquet files, folders of them, or datasets of the hub (hf:owner/name); all become one dataset
    #[arg(value_name = "SOURCE", required_unless_present = "mix", conflicts_with = "mix")]
    sources: Vec<String>,
    /// One of several sources with its weight, for example --mix 0.7=stories.txt --mix 0.3=hf:owner/name
    #[arg(long, value_name = "WEIGHT=SOURCE")]
    mix: Vec<Weighted>,
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
    #[arg(long, value_name = "F", default_value_t = 0.1, allow_negative_numbers = true)]
    validation_fraction: f64,
    /// Tokens of a shard at most; a longer document makes a longer shard
    #[arg(long, value_name = "N", default_value_t = 64 << 20)]
    shard_tokens: u64,
    /// Decides which documents are held out
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    against: AgainstArguments,
    /// Drop documents that share a run of words with a benchmark
    #[arg(long, requires = "against", help_heading = "Options: contamination")]
    drop: bool,
    #[command(flatten)]
    clean: CleanArguments,
}

/// A source with its weight.
#[derive(Debug, Clone)]
struct Weighted {
    weight: f64,
    source: String,
}

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Weighted, String> {
        let (weight, source) =
            text.split_once('=').ok_or("WEIGHT=SOURCE is expected, for example 0.7=stories.txt")?;
        match weight.trim().parse::<f64>() {
            Ok(weight) if weight.is_finite() && weight > 0.0 && !source.is_empty() => {
                Ok(Weighted { weight, source: source.to_owned() })
            }
            _ => Err(format!("`{weight}` is no weight, a number above 0 is expected before the `=`")),
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    out: &'a PathBuf,
    tokenizer: String,
    vocab_size: u32,
    parts: Vec<PartReport>,
}

#[derive(Serialize)]
struct PartReport {
    source: String,
    weight: f64,
    reused: bool,
    train: SplitReport,
    validation: SplitReport,
    intake: Option<IntakeReport>,
}

#[derive(Serialize)]
struct SplitReport {
    documents: u64,
    tokens: u64,
    bytes: u64,
    shards: usize,
}

impl Prepare {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let tokenizer = Tokenizer::load(&self.tokenizer).map_err(data_failure)?;
        let mut options = PrepareOptions::new(self.seed);
        options.validation_fraction = self.validation_fraction;
        options.max_shard_tokens = self.shard_tokens;
        options.filters = self.clean.filters();
        options.filters.against = self.against.load()?;
        options.filters.drop_contaminated = self.drop;
        options.check().map_err(data_failure)?;
        let mut shown = progress::preparing();
        let texts = self.texts(&mut shown)?;
        create_folder(&RealFs, &self.out).map_err(|e| data_failure(e.into()))?;
        let _lock = FolderLock::acquire(&self.out).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let parts = prepare_texts(&RealFs, &texts, &tokenizer, &self.out, &options, &mut |part| {
            shown(Preparing::Data(part));
        })
        .map_err(|error| match error {
            DataError::Shard(_) | DataError::File(_) => data_failure(error).while_running(),
            error => data_failure(error),
        })?;
        self.report(&tokenizer, &parts)?;
        say(&format!("train on it with data.source = \"{}\"\n", self.out.display()));
        Ok(Exit::Done)
    }

    fn texts(&self, shown: &mut dyn FnMut(Preparing)) -> Result<Vec<Text>, Failure> {
        let field = self.text_field.as_deref();
        if self.mix.is_empty() {
            let sources: Result<Vec<_>, _> = self.sources.iter().map(|name| source(name, field, shown)).collect();
            return Ok(vec![Text { name: self.sources.join(", "), weight: None, sources: sources? }]);
        }
        let text = |part: &Weighted| {
            let sources = vec![source(&part.source, field, shown)?];
            Ok(Text { name: part.source.clone(), weight: Some(part.weight), sources })
        };
        self.mix.iter().map(text).collect()
    }

    fn report(&self, tokenizer: &Tokenizer, parts: &[PreparedPart]) -> Result<(), Failure> {
        let report = Report {
            out: &self.out,
            tokenizer: tokenizer.fingerprint(),
            vocab_size: tokenizer.vocab_size() as u32,
            parts: parts.iter().map(part_report).collect(),
        };
        if self.json {
            return print_json(&report);
        }
        let mut text = String::new();
        let all: f64 = report.parts.iter().map(|part| part.weight).sum();
        for (prepared, part) in parts.iter().zip(&report.parts) {
            if parts.len() > 1 {
                text += &format!("source {} ({:.2} % of the tokens)\n", part.source, part.weight / all * 100.0);
            }
            if let Some(intake) = &part.intake {
                let examples = if self.clean.examples { prepared.prepared.examples.as_slice() } else { &[] };
                text += &intake_lines(intake, examples, &prepared.prepared.overlap_examples);
            }
            for (name, split) in [("train", &part.train), ("validation", &part.validation)] {
                text += &format!(
                    "{name}: {} documents, {} tokens in {} shards ({} bytes of text)\n",
                    grouped(split.documents),
                    grouped(split.tokens),
                    split.shards,
                    grouped(split.bytes)
                );
            }
            if part.reused {
                text += "it was there already: nothing was written\n";
            }
        }
        print(&text)
    }
}

fn part_report(part: &PreparedPart) -> PartReport {
    let manifest = part.prepared.dataset.manifest();
    let [train, validation] = [&manifest.train, &manifest.validation].map(|split| SplitReport {
        documents: split.documents,
        tokens: split.tokens,
        bytes: split.bytes,
        shards: split.shards.len(),
    });
    PartReport {
        source: part.name.clone(),
        weight: part.weight,
        reused: part.prepared.reused,
        train,
        validation,
        intake: manifest.intake.clone(),
    }
}
