//! `fornax data inspect FILE --model DIR`: rows of post-training data as a model learns them.

use std::path::{Path, PathBuf};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_data::Tokenizer;
use fornax_data::examples::Example;
use fornax_data::formats::Format;
use fornax_data::hub::Hub;
use fornax_data::loading::{
    FitOptions, LoadReport, Loaded, ReadOptions, detect, examples, labelled, pairs, prompts,
};
use fornax_data::records::Records;
use fornax_data::rendering::{Mask, PromptStyle, Renderer};
use fornax_data::truncation::Truncate;
use fornax_model::weights::read_config;
use serde::Serialize;

use super::data_failure;
use super::show::Style;
use crate::cli::report::{Failure, print};

/// Rows that are shown where the command does not say.
const ROWS: u64 = 2;

/// How rows of post-training data are shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options: rows of post-training data")]
pub(super) struct RowsArguments {
    /// Model folder or tokenizer that reads rows: the path is then a .jsonl, .json or .parquet file, a folder of them, or
    /// hf:owner/name
    #[arg(long, value_name = "DIR", conflicts_with_all = ["text", "file", "tokenizer"])]
    pub(super) model: Option<PathBuf>,
    /// What the rows are: text, messages, sharegpt, alpaca, prompt-completion, preference, unpaired or prompt [default:
    /// what the opening rows look like]
    #[arg(long, value_name = "FORMAT", requires = "model")]
    format: Option<Format>,
    /// Which tokens are trained: assistant, completion, last-turn or all [default: by format]
    #[arg(long, value_name = "MASK", requires = "model")]
    mask: Option<Mask>,
    /// How conversations are written: chatml, alpaca, plain, or a file with a Jinja template [default: the model's own]
    #[arg(long, value_name = "NAME|FILE", requires = "model")]
    template: Option<String>,
    /// What becomes of rows beyond the context: end, drop or prompt-left [default: end; prompt-left for preferences,
    /// verdicts and prompts]
    #[arg(long, value_name = "POLICY", requires = "model")]
    truncate: Option<Truncate>,
    /// Name of a field in the file, by the name that formats give it; may be given several times
    #[arg(long = "field", value_name = "NAME=FIELD", value_parser = renamed, requires = "model")]
    fields: Vec<(String, String)>,
    /// Pass over rows that cannot be used, and count them
    #[arg(long, requires = "model")]
    skip_bad_rows: bool,
}

fn renamed(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((ours, theirs)) if !ours.is_empty() && !theirs.is_empty() => Ok((ours.to_owned(), theirs.to_owned())),
        _ => Err("NAME=FIELD is expected, such as prompt=question".to_owned()),
    }
}

/// What the command asks for beside [`RowsArguments`].
pub(super) struct Asked {
    pub(super) rows: Option<u64>,
    pub(super) context: Option<u32>,
    pub(super) ids: bool,
    pub(super) json: bool,
}

#[derive(Serialize)]
struct Report {
    source: PathBuf,
    detected: String,
    template: Option<String>,
    context: Option<usize>,
    rows: Vec<Shown>,
    read: LoadReport,
}

/// One token sequence of a row.
#[derive(Serialize)]
struct Shown {
    row: u64,
    /// `chosen`, `rejected`, `desirable`, `undesirable` or `prompt`, for rows that are more than a lesson.
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<&'static str>,
    trained: usize,
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    /// Its bytes as text; those that are no UTF-8 are U+FFFD.
    text: String,
    #[serde(skip)]
    bytes: Vec<u8>,
    special: bool,
    trained: bool,
}

impl RowsArguments {
    /// Shows the rows of `source` as `model` learns them.
    pub(super) fn run(&self, source: &Path, model: &Path, asked: &Asked) -> Result<Exit, Failure> {
        let tokenizer = Tokenizer::load(model).map_err(data_failure)?;
        let style = match &self.template {
            Some(name) => Some(PromptStyle::named(name, &tokenizer).map_err(data_failure)?),
            None if model.is_dir() => PromptStyle::of_folder(model, &tokenizer).map_err(data_failure)?,
            None => None,
        };
        let name = source.to_string_lossy();
        let records = Records::named(&name, &Hub::from_env, &mut |_| {}).map_err(data_failure)?;
        let read = ReadOptions {
            format: self.format,
            fields: self.fields.iter().cloned().collect(),
            skip_bad_rows: self.skip_bad_rows,
            limit: Some(asked.rows.unwrap_or(ROWS)),
        };
        let detected = detect(&records, &read).map_err(data_failure)?;
        let context = match asked.context {
            Some(context) => Some(context as usize),
            None if model.join("config.json").exists() => {
                Some(read_config(model).map_err(|error| Failure::new(Exit::BadInput, error))?.context)
            }
            None => None,
        };
        let fit =
            FitOptions { mask: self.mask, context: context.unwrap_or(u32::MAX as usize), truncate: self.truncate };
        let renderer = Renderer::new(&tokenizer, style.as_ref());
        let (rows, report) = shown(&records, &read, &renderer, fit, detected.format).map_err(data_failure)?;
        let report = Report {
            source: source.to_owned(),
            detected: detected.sentence,
            template: style.as_ref().map(|style| style.name().to_owned()),
            context,
            rows,
            read: report,
        };
        print(&match asked.json {
            true => serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n",
            false => report.to_text(Style::of_stdout(), asked.ids),
        })?;
        Ok(Exit::Done)
    }
}

/// The rows as the objectives for their format read them.
fn shown(
    records: &Records,
    read: &ReadOptions,
    renderer: &Renderer<'_>,
    fit: FitOptions,
    format: Format,
) -> Result<(Vec<Shown>, LoadReport), fornax_data::DataError> {
    let tokenizer = renderer.tokenizer();
    let of = |row: &Example, side| Shown::new(tokenizer, row.row, side, &row.ids, &row.trained);
    Ok(match format {
        Format::Preference => {
            let Loaded { rows, report, .. } = pairs(records, read, renderer, fit)?;
            let both = |pair: &fornax_data::examples::Pair| {
                [of(&pair.chosen, Some("chosen")), of(&pair.rejected, Some("rejected"))]
            };
            (rows.iter().flat_map(both).collect(), report)
        }
        Format::Unpaired => {
            let Loaded { rows, report, .. } = labelled(records, read, renderer, fit)?;
            let verdict = |good: bool| Some(if good { "desirable" } else { "undesirable" });
            (rows.iter().map(|row| of(&row.example, verdict(row.desirable))).collect(), report)
        }
        Format::Prompt => {
            let Loaded { rows, report, .. } = prompts(records, read, renderer, fit)?;
            let prompt = |row: &fornax_data::examples::Prompt| {
                Shown::new(tokenizer, row.row, Some("prompt"), &row.ids, &vec![false; row.ids.len()])
            };
            (rows.iter().map(prompt).collect(), report)
        }
        _ => {
            let Loaded { rows, report, .. } = examples(records, read, renderer, fit)?;
            (rows.iter().map(|row| of(row, None)).collect(), report)
        }
    })
}

impl Shown {
    fn new(tokenizer: &Tokenizer, row: u64, side: Option<&'static str>, ids: &[u32], trained: &[bool]) -> Shown {
        let token = |(id, trained): (&u32, &bool)| {
            let bytes = tokenizer.spelled(*id);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Token { id: *id, text, bytes, special: tokenizer.is_special(*id), trained: *trained }
        };
        let tokens: Vec<Token> = ids.iter().zip(trained).map(token).collect();
        // The opening token is no target.
        let trained = tokens.iter().skip(1).filter(|token| token.trained).count();
        Shown { row, side, trained, tokens }
    }
}

impl Report {
    fn to_text(&self, style: Style, ids: bool) -> String {
        let mut text = format!("{}\n", self.detected);
        text += &self.template.as_ref().map(|name| format!("conversations by {name}\n")).unwrap_or_default();
        for row in &self.rows {
            let side = row.side.map(|side| format!(", {side}")).unwrap_or_default();
            let (trained, targets) = (row.trained, row.tokens.len().saturating_sub(1));
            text += &style.heading(&format!("row {}{side}: {trained} of {targets} targets are trained", row.row));
            for (n, token) in row.tokens.iter().enumerate() {
                text += &style.row_token(n, &token.bytes, ids.then_some(token.id), token.trained);
            }
            text += "\n";
        }
        let LoadReport { read, skipped, truncated, .. } = &self.read;
        text += &format!("{read} rows read, {skipped} passed over");
        if let Some(context) = self.context {
            text += &format!(
                "; context {context}: {} lost their end, {} the beginning of their prompt, {} left out",
                truncated.end, truncated.prompt, truncated.dropped
            );
        }
        text += "\n";
        text += &self.read.skipped_because.iter().map(|why| format!("passed over: {why}\n")).collect::<String>();
        text
    }
}
