//! `fornax data dedup`: a text without its duplicates.

use std::path::{Path, PathBuf};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::{RealFs, remove_stale_temps};
use fornax_data::dedup::{Bands, Cluster, NearOptions, find_duplicates, write_kept};
use fornax_data::intake::{Intake, IntakeReport};
use serde::Serialize;

use super::arguments::{CleanArguments, source};
use super::data_failure;
use super::report::{intake_lines, percent, print_json};
use crate::cli::progress::{self, grouped};
use crate::cli::report::{Failure, print, say};

/// Write a text without its exact and near duplicates
#[derive(Debug, Args)]
pub(crate) struct Dedup {
    /// Text, JSON Lines or Parquet files, folders of them, or datasets of the hub (hf:owner/name)
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    /// File to write the documents to that are kept: FILE.jsonl or FILE.jsonl.gz
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Field or column that holds the text; default text
    #[arg(long, value_name = "NAME")]
    text_field: Option<String>,
    /// Drop near duplicates too, found by MinHash
    #[arg(long)]
    near: bool,
    /// Least similarity of near duplicates: the Jaccard similarity of their runs of words
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, requires = "near", allow_negative_numbers = true)]
    threshold: f64,
    /// Hash functions of a signature; more estimate the similarity better and take more memory
    #[arg(long, value_name = "N", default_value_t = 128, requires = "near")]
    permutations: usize,
    /// Words in a run
    #[arg(long, value_name = "N", default_value_t = 5, requires = "near")]
    ngram: usize,
    /// Print one JSON object, with every cluster
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    clean: CleanArguments,
}

#[derive(Serialize)]
struct Report<'a> {
    out: &'a PathBuf,
    documents: u64,
    exact_duplicates: u64,
    near_duplicates: u64,
    kept: u64,
    kept_bytes: u64,
    bands: Option<usize>,
    rows: Option<usize>,
    compared: u64,
    intake: IntakeReport,
    clusters: &'a [Cluster],
}

impl Dedup {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let name = self.out.to_string_lossy();
        if ![".jsonl", ".jsonl.gz"].iter().any(|ending| name.ends_with(ending)) {
            return Err(Failure::input(format_args!("`{name}` does not end in .jsonl or .jsonl.gz"))
                .hint("documents are written as JSON Lines with the field `text`"));
        }
        let near = NearOptions { threshold: self.threshold, permutations: self.permutations, ngram: self.ngram };
        let near = self.near.then_some(near);
        let mut shown = progress::preparing();
        let field = self.text_field.as_deref();
        let sources: Result<Vec<_>, _> = self.sources.iter().map(|name| source(name, field, &mut shown)).collect();
        let (sources, filters) = (sources?, self.clean.filters());
        let mut counted = progress::counting("looking at documents");
        let mut intake = Intake::new(&sources, &filters).map_err(data_failure)?;
        let duplicates = find_duplicates(&mut intake, near, &mut counted).map_err(data_failure)?;
        // What a process that was killed here left behind; where that cannot be looked at, writing fails and says why.
        let _ = remove_stale_temps(
            &RealFs,
            self.out.parent().filter(|p| *p != Path::new("")).unwrap_or(Path::new(".")),
        );
        let mut counted = progress::counting("writing documents");
        let kept_bytes = write_kept(&RealFs, &sources, &filters, &duplicates, &self.out, &mut counted)
            .map_err(|error| data_failure(error).while_running())?;
        let cut: Option<Bands> = near.map(|near| near.bands());
        let report = Report {
            out: &self.out,
            documents: duplicates.documents,
            exact_duplicates: duplicates.exact,
            near_duplicates: duplicates.near,
            kept: duplicates.kept(),
            kept_bytes,
            bands: cut.map(|cut| cut.bands),
            rows: cut.map(|cut| cut.rows),
            compared: duplicates.compared,
            intake: intake.report(),
            clusters: &duplicates.clusters,
        };
        if self.json {
            print_json(&report)?;
        } else {
            let examples = if self.clean.examples { intake.examples() } else { Vec::new() };
            print(&self.plain(&report, &intake_lines(&report.intake, &examples, &[])))?;
        }
        say(&format!("written: {}\n", self.out.display()));
        Ok(Exit::Done)
    }

    fn plain(&self, report: &Report<'_>, intake: &str) -> String {
        let share = |n: u64| percent(n, report.documents);
        let mut text = String::new();
        if report.intake.documents != report.documents || !report.intake.dropped.is_empty() {
            text += intake;
        }
        text += &format!(
            "documents: {}\nexact duplicates: {} ({:.2} %)\n",
            grouped(report.documents),
            grouped(report.exact_duplicates),
            share(report.exact_duplicates)
        );
        if let (Some(bands), Some(rows)) = (report.bands, report.rows) {
            text += &format!(
                "near duplicates: {} ({:.2} %), similarity {} and above; {bands} bands of {rows}, {} pairs compared\n",
                grouped(report.near_duplicates),
                share(report.near_duplicates),
                self.threshold,
                grouped(report.compared)
            );
        }
        text += &format!("kept: {} documents, {} bytes\n", grouped(report.kept), grouped(report.kept_bytes));
        if self.clean.examples {
            for cluster in report.clusters.iter().take(3) {
                text += &format!("  kept {}:{}\n", cluster.kept.file.display(), cluster.kept.number);
                for dropped in cluster.dropped.iter().take(3) {
                    let place = &dropped.place;
                    text += &format!(
                        "    dropped {}:{} (similarity {:.3})\n",
                        place.file.display(),
                        place.number,
                        dropped.similarity
                    );
                }
            }
        }
        text
    }
}
