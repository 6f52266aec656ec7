//! `fornax data compare-tokenizers`: how many tokens the same texts take, and where they are cut strangely.

use std::path::PathBuf;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_base::files::read_text_limited;
use fornax_data::Tokenizer;
use fornax_data::tokenizer::compare::{Measure, SAMPLES, Size, StrangeSplit, strange_splits};
use serde::Serialize;

use super::data_failure;
use super::show::{Style, visible};
use crate::cli::report::{Failure, print};

/// Longest text that is compared.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// Compare tokenizers on English, Arabic, mixed, code, JSON and legal text, and on your own
#[derive(Debug, Args)]
pub(crate) struct CompareTokenizers {
    /// tokenizer.json or .gguf files, or folders that hold a tokenizer.json
    #[arg(value_name = "TOKENIZER", required = true)]
    tokenizers: Vec<PathBuf>,
    /// Compare on this text file as well; may be given several times
    #[arg(long, value_name = "TEXT")]
    file: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    texts: Vec<TextReport>,
}

#[derive(Serialize)]
struct TextReport {
    name: String,
    characters: usize,
    bytes: usize,
    words: usize,
    tokenizers: Vec<TokenizerReport>,
    splits: Vec<SplitReport>,
}

#[derive(Serialize)]
struct TokenizerReport {
    tokenizer: String,
    /// None where the text cannot be encoded.
    tokens: Option<usize>,
    tokens_per_word: Option<f64>,
    bytes_per_token: Option<f64>,
    unknown: usize,
    round_trip: bool,
}

#[derive(Serialize)]
struct SplitReport {
    kind: &'static str,
    text: String,
    splits: Vec<OneSplit>,
}

#[derive(Serialize)]
struct OneSplit {
    tokenizer: String,
    /// With whitespace and bytes made visible; none where the text cannot be encoded.
    tokens: Option<Vec<String>>,
    #[serde(skip)]
    bytes: Vec<Vec<u8>>,
}

impl CompareTokenizers {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let mut tokenizers = Vec::new();
        for path in &self.tokenizers {
            tokenizers.push((path.display().to_string(), Tokenizer::load(path).map_err(data_failure)?));
        }
        let mut texts: Vec<(String, String)> =
            SAMPLES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        for path in &self.file {
            let text = read_text_limited(path, MAX_TEXT_BYTES).map_err(|e| Failure::new(Exit::BadInput, e))?;
            texts.push((path.display().to_string(), text));
        }
        let texts = texts.into_iter().map(|(name, text)| compare(&tokenizers, name, &text)).collect();
        let report = Report { texts };
        print(&match self.json {
            true => serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n",
            false => report.to_text(Style::of_stdout()),
        })?;
        Ok(Exit::Done)
    }
}

fn compare(tokenizers: &[(String, Tokenizer)], name: String, text: &str) -> TextReport {
    let Size { characters, bytes, words } = Size::of(text);
    let measured = tokenizers.iter().map(|(name, tokenizer)| {
        let Measure { tokens, unknown, round_trip } = Measure::of(tokenizer, text);
        let ratio = |a: usize, b: usize| (b > 0).then(|| a as f64 / b as f64);
        TokenizerReport {
            tokenizer: name.clone(),
            tokens,
            tokens_per_word: tokens.and_then(|tokens| ratio(tokens, words)),
            bytes_per_token: tokens.and_then(|tokens| ratio(bytes, tokens)),
            unknown,
            round_trip,
        }
    });
    let bare: Vec<&Tokenizer> = tokenizers.iter().map(|(_, tokenizer)| tokenizer).collect();
    let splits =
        strange_splits(&bare, text).into_iter().map(|split| SplitReport::new(tokenizers, split)).collect();
    TextReport { name, characters, bytes, words, tokenizers: measured.collect(), splits }
}

impl SplitReport {
    fn new(tokenizers: &[(String, Tokenizer)], split: StrangeSplit) -> SplitReport {
        let splits = tokenizers.iter().zip(split.splits).map(|((name, _), tokens)| OneSplit {
            tokenizer: name.clone(),
            tokens: tokens.as_ref().map(|tokens| tokens.iter().map(|token| visible(token)).collect()),
            bytes: tokens.unwrap_or_default(),
        });
        SplitReport { kind: split.kind.name(), text: split.text, splits: splits.collect() }
    }
}

impl Report {
    fn to_text(&self, style: Style) -> String {
        self.texts.iter().map(|text| text.to_text(style)).collect::<Vec<_>>().join("\n")
    }
}

impl TextReport {
    fn to_text(&self, style: Style) -> String {
        let TextReport { name, characters, bytes, words, .. } = self;
        let mut text = style.heading(&format!("{name}: {characters} characters, {bytes} bytes, {words} words"));
        let width = self.tokenizers.iter().map(|row| row.tokenizer.chars().count()).max().unwrap_or(0);
        text += &format!(
            "{:width$}  {:>9}  {:>11}  {:>11}  {:>7}  round trip\n",
            "tokenizer", "tokens", "tokens/word", "bytes/token", "unknown"
        );
        for row in &self.tokenizers {
            let ratio = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
            text += &format!(
                "{:width$}  {:>9}  {:>11}  {:>11}  {:>7}  {}\n",
                row.tokenizer,
                row.tokens.map_or("-".to_owned(), |tokens| tokens.to_string()),
                ratio(row.tokens_per_word),
                ratio(row.bytes_per_token),
                row.unknown,
                if row.round_trip { "yes" } else { "no" },
            );
        }
        for split in &self.splits {
            text += &format!("{}: {}\n", split.kind, visible(split.text.as_bytes()));
            for one in &split.splits {
                let shown = match &one.tokens {
                    None => "cannot be encoded".to_owned(),
                    Some(tokens) => {
                        let pieces = one.bytes.iter().map(|bytes| (bytes.as_slice(), None));
                        format!("{:>3}  {}", tokens.len(), style.tokens(pieces).trim_end_matches('\n'))
                    }
                };
                text += &format!("  {:width$}  {shown}\n", one.tokenizer);
            }
        }
        text
    }
}
