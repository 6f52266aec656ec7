//! `fornax data train-tokenizer`: a vocabulary learned from text.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use fornax_base::exit::Exit;
use fornax_base::files::{RealFs, write_folder_atomic};
use fornax_data::sources::documents;
use fornax_data::tokenizer::TrainProgress;
use fornax_data::{DataError, Source, Tokenizer};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::arguments::source;
use super::data_failure;
use crate::cli::progress::preparing;
use crate::cli::report::{Failure, print, say};

/// Time between two lines where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(2);

/// Learn a vocabulary from text
#[derive(Debug, Args)]
pub(crate) struct TrainTokenizer {
    /// Text files, JSON Lines files, or folders of them
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    /// Tokens of a bpe vocabulary, with 256 bytes and the special tokens
    #[arg(long, value_name = "N")]
    vocab_size: Option<usize>,
    /// Folder to write the tokenizer to; it must not exist yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Byte-level pair merges, or one token for each character
    #[arg(long, value_enum, default_value_t = Kind::Bpe)]
    kind: Kind,
    /// A special token of a bpe vocabulary besides <|endoftext|>, <|im_start|> and <|im_end|>; may be repeated
    #[arg(long, value_name = "TOKEN")]
    special: Vec<String>,
    /// Read no more than this much text
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Field or column that holds the text; default text
    #[arg(long, value_name = "NAME")]
    text_field: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Bpe,
    Characters,
}

#[derive(Serialize)]
struct Report {
    out: PathBuf,
    kind: &'static str,
    vocab_size: usize,
    text_bytes: u64,
    seconds: f64,
    fingerprint: String,
}

impl TrainTokenizer {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        if self.out.exists() {
            let out = self.out.display();
            return Err(Failure::input(format_args!("`{out}` exists already and is not overwritten")));
        }
        let began = Instant::now();
        let mut bytes = 0;
        let tokenizer = self.train(&mut bytes)?;
        let written =
            write_folder_atomic::<DataError>(&RealFs, &self.out, &mut |folder| tokenizer.save(&RealFs, folder));
        written.map_err(data_failure)?;
        let report = Report {
            out: self.out,
            kind: match self.kind {
                Kind::Bpe => "bpe",
                Kind::Characters => "characters",
            },
            vocab_size: tokenizer.vocab_size(),
            text_bytes: bytes,
            seconds: began.elapsed().as_secs_f64(),
            fingerprint: tokenizer.fingerprint(),
        };
        print(&match self.json {
            true => serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n",
            false => format!(
                "{}: {} tokens from {bytes} bytes of text in {:.1} s\n",
                report.out.display(),
                report.vocab_size,
                report.seconds
            ),
        })?;
        Ok(Exit::Done)
    }

    fn train(&self, bytes: &mut u64) -> Result<Tokenizer, Failure> {
        let field = self.text_field.as_deref();
        let mut fetched = preparing();
        let sources: Result<Vec<Source>, _> =
            self.sources.iter().map(|name| source(name, field, &mut fetched)).collect();
        let all = documents(&sources?).map_err(data_failure)?;
        let mut all = limited(all, self.limit, bytes);
        let made = match (self.kind, self.vocab_size) {
            (Kind::Bpe, None) => {
                return Err(Failure::input("a bpe vocabulary needs its size")
                    .hint("--vocab-size 4096 suits a model of a few million parameters"));
            }
            (Kind::Bpe, Some(size)) => Tokenizer::train_bpe_with(&mut all, size, &self.special, &mut progress()),
            (Kind::Characters, None) if self.special.is_empty() => Tokenizer::characters(&mut all),
            (Kind::Characters, _) => {
                return Err(Failure::input(
                    "a character vocabulary has the characters of the text and no other tokens",
                )
                .hint("leave out --vocab-size and --special"));
            }
        };
        made.map_err(data_failure)
    }
}

/// Documents up to `limit` bytes of text in all, the last one cut between two characters; `bytes` counts them.
fn limited(
    mut documents: impl Iterator<Item = Result<String, DataError>>,
    limit: Option<u64>,
    bytes: &mut u64,
) -> impl Iterator<Item = Result<String, DataError>> {
    let limit = limit.unwrap_or(u64::MAX);
    std::iter::from_fn(move || {
        if *bytes >= limit {
            return None;
        }
        let mut document = documents.next()?;
        if let Ok(text) = &mut document {
            let room = usize::try_from(limit - *bytes).unwrap_or(usize::MAX);
            text.truncate(text.floor_char_boundary(room));
            // A character that does not fit ends the text too.
            *bytes = if text.len() < room { *bytes + text.len() as u64 } else { limit };
        }
        Some(document)
    })
}

/// A bar on a terminal, elsewhere a line now and then.
fn progress() -> impl FnMut(TrainProgress) {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(1),
        false => ProgressBar::hidden(),
    };
    let style = ProgressStyle::with_template("{msg} {pos}/{len} [{bar:24}]");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    let mut last: Option<Instant> = None;
    move |part| {
        let (text, line) = match part {
            TrainProgress::Counting { bytes } => ("counting", format!("counting: {bytes} bytes\n")),
            TrainProgress::Merging { done, total } => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                if done == total {
                    bar.finish_and_clear();
                }
                ("merging", format!("merging: {done} of {total}\n"))
            }
        };
        if !bar.is_hidden() {
            bar.set_message(text);
        } else if last.is_none_or(|at| at.elapsed() >= PLAIN_INTERVAL) {
            say(&line);
            last = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_cuts_between_characters() {
        let texts = || ["abc", "dé", "fgh"].into_iter().map(|text| Ok(text.to_owned()));
        let read = |limit| {
            let mut bytes = 0;
            let all: Result<Vec<String>, DataError> = limited(texts(), limit, &mut bytes).collect();
            (all.unwrap().concat(), bytes)
        };
        assert_eq!(read(None), ("abcdéfgh".to_owned(), 9));
        assert_eq!(read(Some(9)), ("abcdéfgh".to_owned(), 9));
        assert_eq!(read(Some(4)).0, "abcd");
        assert_eq!(read(Some(6)), ("abcdé".to_owned(), 6));
        assert_eq!(read(Some(2)).0, "ab");
    }
}
