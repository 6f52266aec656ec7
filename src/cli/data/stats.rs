//! `fornax data stats`: what a text or a prepared dataset is like.

use std::path::{Path, PathBuf};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_data::Tokenizer;
use fornax_data::intake::{Intake, IntakeReport};
use fornax_data::mixture::{self, Mixture};
use fornax_data::statistics::{Lengths, Statistics, measure, measure_dataset};
use fornax_train::plain::grouped;
use serde::Serialize;

use super::arguments::{AgainstArguments, CleanArguments, source};
use super::data_failure;
use super::report::{intake_lines, percent, print_json};
use crate::cli::progress;
use crate::cli::report::{Failure, print};

/// Measure a text or a prepared dataset: lengths, words, tokens, duplicates
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Text, JSON Lines or Parquet files, folders of them, datasets of the hub (hf:owner/name), or one prepared dataset
    #[arg(value_name = "SOURCE|DATASET", required = true)]
    sources: Vec<String>,
    /// Count tokens with this tokenizer.json, or the one in this folder
    #[arg(long, value_name = "FILE|DIR")]
    tokenizer: Option<PathBuf>,
    /// Field or column that holds the text; default text
    #[arg(long, value_name = "NAME")]
    text_field: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    against: AgainstArguments,
    #[command(flatten)]
    clean: CleanArguments,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    statistics: Statistics,
    /// What filters did; absent for a prepared dataset.
    intake: Option<IntakeReport>,
}

impl Stats {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let prepared = self.sources.iter().find(|name| mixture::is_prepared(Path::new(name)));
        match prepared {
            Some(folder) => self.dataset(Path::new(folder)),
            None => self.text(),
        }
    }

    fn text(&self) -> Result<Exit, Failure> {
        let tokenizer = self.tokenizer.as_ref().map(|path| Tokenizer::load(path));
        let tokenizer = tokenizer.transpose().map_err(data_failure)?;
        let mut filters = self.clean.filters();
        filters.against = self.against.load()?;
        let mut shown = progress::preparing();
        let field = self.text_field.as_deref();
        let sources: Result<Vec<_>, _> = self.sources.iter().map(|name| source(name, field, &mut shown)).collect();
        let mut intake = Intake::new(&sources?, &filters).map_err(data_failure)?;
        let mut counted = progress::counting("measuring documents");
        let statistics = measure(&mut intake, tokenizer.as_ref(), &mut counted).map_err(data_failure)?;
        let report = Report { statistics, intake: Some(intake.report()) };
        if self.json {
            print_json(&report)?;
            return Ok(Exit::Done);
        }
        let mut text = String::new();
        if !filters.is_empty() {
            let examples = if self.clean.examples { intake.examples() } else { Vec::new() };
            text = intake_lines(&intake.report(), &examples, intake.overlap_examples()) + "\n";
        }
        print(&(text + &plain(&report.statistics)))?;
        Ok(Exit::Done)
    }

    fn dataset(&self, folder: &Path) -> Result<Exit, Failure> {
        if self.sources.len() > 1 {
            return Err(Failure::input(format_args!(
                "`{}` is a prepared dataset, which is measured alone; {} sources were given",
                folder.display(),
                self.sources.len()
            )));
        }
        if !self.clean.filters().is_empty() || self.against.load()?.is_some() || self.text_field.is_some() {
            return Err(Failure::input(format_args!(
                "`{}` is a prepared dataset, to which no filter, benchmark or field applies",
                folder.display()
            ))
            .hint("measure the text it was made from"));
        }
        let mixture = Mixture::open(folder).map_err(data_failure)?;
        let tokenizer =
            Tokenizer::load(self.tokenizer.as_deref().or(mixture::tokenizer_folder(folder)).unwrap_or(folder))
                .map_err(data_failure)?;
        if tokenizer.fingerprint() != mixture.tokenizer() {
            return Err(Failure::input(format_args!(
                "`{}` was prepared with the tokenizer {}, this one is {}",
                folder.display(),
                mixture.tokenizer(),
                tokenizer.fingerprint()
            )));
        }
        let parts: Vec<(PathBuf, _)> =
            mixture.parts().iter().map(|part| (PathBuf::from(&part.name), &part.dataset)).collect();
        let mut counted = progress::counting("measuring documents");
        let statistics = measure_dataset(&parts, &tokenizer, &mut counted).map_err(data_failure)?;
        match self.json {
            true => print_json(&Report { statistics, intake: None })?,
            false => print(&plain(&statistics))?,
        }
        Ok(Exit::Done)
    }
}

fn plain(stats: &Statistics) -> String {
    let least = if stats.distinct_words_is_least { "at least " } else { "" };
    let mut text = String::new();
    for (name, value) in [
        ("documents", grouped(stats.documents)),
        ("bytes", grouped(stats.bytes)),
        ("characters", grouped(stats.characters)),
        ("lines", grouped(stats.lines)),
        ("words", grouped(stats.words)),
        ("different words", format!("{least}{}", grouped(stats.distinct_words))),
        (
            "duplicates",
            format!("{} ({:.2} %)", grouped(stats.duplicates), percent(stats.duplicates, stats.documents)),
        ),
        ("gzip ratio", format!("{:.3}", stats.gzip_ratio)),
    ] {
        text += &format!("{name:<18} {value}\n");
    }
    if let (Some(tokens), Some(per_word), Some(bytes)) =
        (stats.tokens, stats.tokens_per_word, stats.bytes_per_token)
    {
        text += &format!("{:<18} {} ({per_word:.3} a word, {bytes:.3} bytes each)\n", "tokens", grouped(tokens));
    }
    text += &lengths("characters", &stats.document_characters);
    if let Some(tokens) = &stats.document_tokens {
        text += &lengths("tokens", tokens);
    }
    text += "\ndocuments by length in characters\n";
    let most = stats.histogram.iter().map(|bin| bin.documents).max().unwrap_or(0).max(1);
    for bin in &stats.histogram {
        let bar = "#".repeat((bin.documents * 40).div_ceil(most) as usize);
        text += &format!(
            "{:>12} to {:<12} {:>12} {bar}\n",
            grouped(bin.from),
            grouped(bin.to - 1),
            grouped(bin.documents)
        );
    }
    for (title, list) in [("longest", &stats.longest), ("shortest", &stats.shortest)] {
        text += &format!("\n{title} documents\n");
        for extreme in list {
            let (file, shown) = (extreme.file.display(), one_line(&extreme.text));
            text += &format!("{:>12} {file}:{} {shown}\n", grouped(extreme.characters), extreme.number);
        }
    }
    if !stats.top_lines.is_empty() {
        text += "\nlines that stand there most often\n";
        for line in &stats.top_lines {
            text += &format!("{:>12} {}\n", grouped(line.count), one_line(&line.text));
        }
    }
    text
}

fn lengths(what: &str, lengths: &Lengths) -> String {
    let Lengths { min, p5, p25, p50, p75, p95, p99, max, mean } = *lengths;
    format!(
        "\n{what} a document\n  mean {mean:.1}, least {}, 5 % {}, 25 % {}, 50 % {}, 75 % {}, 95 % {}, 99 % {}, most {}\n",
        grouped(min),
        grouped(p5),
        grouped(p25),
        grouped(p50),
        grouped(p75),
        grouped(p95),
        grouped(p99),
        grouped(max)
    )
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
