//! `fornax data inspect`: what the model will read, token by token.

use std::path::{Path, PathBuf};

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::read_text_limited;
use fornax_data::mixture::{Mixture, is_prepared, tokenizer_folder};
use fornax_data::records::ENDINGS as RECORDS;
use fornax_data::{Batch, Batches, Cursor, Packing, Tokenizer};
use fornax_train::recipe::TrainRecipe;
use fornax_train::run::RECIPE_FILE;
use fornax_train::setup::{DATA_FOLDER, TOKENIZER_FOLDER};
use serde::Serialize;

use super::data_failure;
use super::inspect_rows::{Asked, RowsArguments};
use super::show::Style;
use crate::cli::report::{Failure, print};

/// Longest text that is shown.
const MAX_TEXT_BYTES: u64 = 16 << 20;
const MAX_RECIPE_BYTES: u64 = 1 << 20;
/// Rows that are shown where the command does not say.
const ROWS: u64 = 2;
/// Tokens of a row where neither the command nor a recipe says.
const CONTEXT: usize = 64;

/// Show text as the tokens a model reads, or rows as training sees them
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Run folder, dataset folder, model folder, tokenizer.json or .gguf file; with --model, rows of post-training data
    #[arg(value_name = "DATASET|MODEL|TOKENIZER|ROWS")]
    path: PathBuf,
    /// Text to show
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["file", "rows"])]
    text: Option<String>,
    /// File with the text to show
    #[arg(long, value_name = "FILE", conflicts_with = "rows")]
    file: Option<PathBuf>,
    /// Rows to show, from the start on [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rows: Option<u64>,
    /// Tokens in a row [default: the recipe's or the model's, else 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Tokenizer of a dataset outside of a run folder
    #[arg(long, value_name = "FILE|DIR")]
    tokenizer: Option<PathBuf>,
    /// Show ids too
    #[arg(long)]
    ids: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    of_rows: RowsArguments,
}

/// Whether a folder is that of a run; a recipe alone may lie anywhere.
fn is_run(folder: &Path) -> bool {
    folder.join(RECIPE_FILE).exists() && folder.join(TOKENIZER_FOLDER).exists()
}

/// What a path turned out to be.
struct Subject {
    tokenizer: PathBuf,
    dataset: Option<PathBuf>,
    recipe: Option<TrainRecipe>,
}

#[derive(Serialize)]
struct Report {
    tokenizer: TokenizerReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Vec<Token>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<Vec<Token>>>,
}

#[derive(Serialize)]
struct TokenizerReport {
    path: PathBuf,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    unk: Option<u32>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    /// Its bytes as text; those that are no UTF-8 are U+FFFD.
    text: String,
    #[serde(skip)]
    bytes: Vec<u8>,
    special: bool,
    /// Whether it is a target that is trained; absent outside of rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<u32>,
    /// Its position in its document; none for the last target, which is no input.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u32>,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        if let Some(model) = &self.of_rows.model {
            let asked = Asked { rows: self.rows, context: self.context, ids: self.ids, json: self.json };
            return self.of_rows.run(&self.path, model, &asked);
        }
        let name = self.path.to_string_lossy();
        if self.path.is_file() && RECORDS.iter().any(|ending| name.ends_with(ending) && *ending != ".json") {
            let path = self.path.display();
            return Err(Failure::input(format_args!("`{path}` holds rows, which a model must read"))
                .hint("--model DIR names a model folder or a tokenizer"));
        }
        let subject = self.subject()?;
        let tokenizer = Tokenizer::load(&subject.tokenizer).map_err(data_failure)?;
        let text = match (&self.text, &self.file) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(file)) => {
                Some(read_text_limited(file, MAX_TEXT_BYTES).map_err(|e| Failure::new(Exit::BadInput, e))?)
            }
            (None, None) => None,
        };
        let rows = match (&subject.dataset, &text) {
            (Some(dataset), None) => Some(self.read_rows(dataset, &subject, &tokenizer)?),
            (None, None) if self.rows.is_some() || self.context.is_some() => {
                let path = self.path.display();
                return Err(Failure::input(format_args!("`{path}` holds no dataset, so it has no rows"))
                    .hint("give a run folder or a folder of `fornax data prepare`, or --text TEXT"));
            }
            _ => None,
        };
        let text = match text {
            Some(text) => {
                let ids = tokenizer.encode(&text, true).map_err(data_failure)?;
                Some(ids.iter().map(|id| Token::new(&tokenizer, *id)).collect())
            }
            None => None,
        };
        let report = Report { tokenizer: TokenizerReport::new(&subject.tokenizer, &tokenizer), text, rows };
        print(&match self.json {
            true => serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n",
            false => report.to_text(Style::of_stdout(), self.ids),
        })?;
        Ok(Exit::Done)
    }

    fn subject(&self) -> Result<Subject, Failure> {
        let path = &self.path;
        if !path.exists() {
            return Err(Failure::input(format_args!("`{}` does not exist", path.display())));
        }
        let run = match path.join(RECIPE_FILE).exists() {
            true => Some(path.as_path()),
            // The folder of shards inside a run folder.
            false => path.parent().filter(|above| is_prepared(path) && is_run(above)),
        };
        let Some(run) = run else {
            let dataset = is_prepared(path).then(|| path.clone());
            let tokenizer = match (&self.tokenizer, &dataset, tokenizer_folder(path)) {
                (Some(tokenizer), _, _) => tokenizer.clone(),
                (None, None, _) => path.clone(),
                (None, Some(_), Some(folder)) => folder.to_owned(),
                (None, Some(_), None) => {
                    return Err(Failure::input(format_args!("`{}` does not hold its tokenizer", path.display()))
                        .hint("--tokenizer FILE names the one it was prepared with"));
                }
            };
            return Ok(Subject { tokenizer, dataset, recipe: None });
        };
        let file = run.join(RECIPE_FILE);
        let text = read_text_limited(&file, MAX_RECIPE_BYTES).map_err(|e| Failure::new(Exit::BadInput, e))?;
        let recipe: Result<TrainRecipe, _> = fornax_base::recipe::load(&text, &file.display().to_string(), &[]);
        let recipe = recipe.map_err(|error| Failure::new(Exit::BadInput, error))?;
        let tokenizer = self.tokenizer.clone().unwrap_or_else(|| run.join(TOKENIZER_FOLDER));
        Ok(Subject { tokenizer, dataset: Some(run.join(DATA_FOLDER)), recipe: Some(recipe) })
    }

    /// The rows that training takes in its opening steps.
    fn read_rows(
        &self,
        folder: &Path,
        subject: &Subject,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Vec<Token>>, Failure> {
        let mixture = Mixture::open(folder).map_err(data_failure)?;
        let (found, expected) = (tokenizer.fingerprint(), mixture.tokenizer());
        if found != expected {
            let (folder, tokenizer) = (folder.display(), subject.tokenizer.display());
            return Err(Failure::input(format_args!(
                "`{folder}` was prepared with the tokenizer {}, `{tokenizer}` is {}",
                &expected[..expected.len().min(12)],
                &found[..found.len().min(12)]
            ))
            .hint("--tokenizer FILE names the one it was prepared with"));
        }
        let recipe = subject.recipe.as_ref();
        let context = self.context.map(|context| context as usize).or(recipe.map(|recipe| recipe.train.context));
        // A short dataset is shown whole.
        let shortest = mixture.train().iter().map(|(stream, _)| stream.len()).min().unwrap_or(0);
        let context = context.unwrap_or(CONTEXT.min(shortest.saturating_sub(1) as usize));
        let packing = recipe.map_or(Packing::Documents, |recipe| recipe.data.packing);
        let seed = recipe.map_or(mixture.parts()[0].dataset.manifest().seed, |recipe| recipe.seed);
        let batches = Batches::mixed(mixture.train(), 1, context, packing, seed).map_err(data_failure)?;
        let mut cursor = Cursor::default();
        Ok((0..self.rows.unwrap_or(ROWS)).map(|_| row(tokenizer, &batches.next_from(&mut cursor))).collect())
    }
}

/// The tokens of a batch of one row: its inputs, and behind them the last target.
fn row(tokenizer: &Tokenizer, batch: &Batch) -> Vec<Token> {
    let last = batch.targets.last().copied();
    let ids = batch.inputs.iter().copied().chain(last);
    // A token is trained where it is the target of the one before it.
    let trained = std::iter::once(false).chain(batch.mask.iter().copied());
    let mut tokens: Vec<Token> = ids
        .zip(trained)
        .enumerate()
        .map(|(at, (id, trained))| Token {
            trained: Some(trained),
            document: batch.documents.as_ref().and_then(|documents| documents.get(at).copied()),
            position: batch.positions.get(at).copied(),
            ..Token::new(tokenizer, id)
        })
        .collect();
    if let [.., before, last] = tokens.as_mut_slice() {
        // Masked behind a text, it opens the next one.
        let opens = u32::from(last.trained == Some(false));
        last.document = before.document.map(|document| document + opens);
    }
    tokens
}

impl Token {
    fn new(tokenizer: &Tokenizer, id: u32) -> Token {
        let bytes = tokenizer.spelled(id);
        Token {
            id,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
            special: tokenizer.is_special(id),
            trained: None,
            document: None,
            position: None,
        }
    }
}

impl TokenizerReport {
    fn new(path: &Path, tokenizer: &Tokenizer) -> TokenizerReport {
        TokenizerReport {
            path: path.to_owned(),
            vocab_size: tokenizer.vocab_size(),
            bos: tokenizer.bos_id(),
            eos: tokenizer.eos_id(),
            pad: tokenizer.pad_id(),
            unk: tokenizer.unk_id(),
        }
    }
}

impl Report {
    fn to_text(&self, style: Style, ids: bool) -> String {
        let TokenizerReport { path, vocab_size, bos, eos, pad, unk } = &self.tokenizer;
        let mut text = format!("tokenizer {}: {vocab_size} tokens", path.display());
        for (name, id) in [("bos", bos), ("eos", eos), ("pad", pad), ("unk", unk)] {
            text += &id.map(|id| format!(", {name} {id}")).unwrap_or_default();
        }
        text += "\n";
        if let Some(tokens) = &self.text {
            text += &style.heading(&format!("{} tokens", tokens.len()));
            text += &style.tokens(tokens.iter().map(|token| (token.bytes.as_slice(), ids.then_some(token.id))));
            text += "\n";
        }
        for (n, row) in (1..).zip(self.rows.iter().flatten()) {
            let trained = row.iter().filter(|token| token.trained == Some(true)).count();
            text += &style.heading(&format!("row {n}: {trained} of {} targets are trained", row.len() - 1));
            text += &row_text(style, row, ids);
        }
        text
    }
}

fn row_text(style: Style, row: &[Token], ids: bool) -> String {
    let mut text = String::new();
    let mut document = row.first().and_then(|token| token.document);
    for (n, token) in row.iter().enumerate() {
        if token.document != document {
            document = token.document;
            let number = document.map(|document| document + 1).unwrap_or_default();
            text += if text.ends_with('\n') { "" } else { "\n" };
            text += &style.heading(&format!("document {number} of this row"));
        }
        text += &style.token(n, &token.bytes, ids.then_some(token.id), token.trained == Some(true));
    }
    text + "\n"
}
