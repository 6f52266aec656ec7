//! Flags that several data commands share: where text comes from, and what is asked of documents.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use fornax_data::Source;
use fornax_data::clean::CleanOptions;
use fornax_data::contamination::{Benchmarks, NGRAM};
use fornax_data::hub::Hub;
use fornax_data::intake::Filters;
use fornax_train::setup::Preparing;

use super::data_failure;
use crate::cli::report::Failure;

/// Opens a source; files of the hub are fetched.
pub(super) fn source(
    name: &str,
    field: Option<&str>,
    progress: &mut dyn FnMut(Preparing),
) -> Result<Source, Failure> {
    Source::named(name, field, &Hub::from_env, &mut |part| progress(Preparing::Hub(part))).map_err(data_failure)
}

/// What is asked of documents.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options: cleaning")]
pub(super) struct CleanArguments {
    /// Gopher's quality and repetition rules (Rae et al. 2021); a limit given beside it replaces its own
    #[arg(long)]
    gopher: bool,
    /// C4's line rules (Raffel et al. 2020): drop lines that are no sentences, and documents of fewer than three
    #[arg(long)]
    c4_lines: bool,
    /// Gopher's repetition rules alone: repeated lines, paragraphs and n-grams
    #[arg(long)]
    repetition: bool,
    /// Fewest characters of a document
    #[arg(long, value_name = "N")]
    min_chars: Option<u64>,
    /// Most characters of a document
    #[arg(long, value_name = "N")]
    max_chars: Option<u64>,
    /// Fewest words of a document
    #[arg(long, value_name = "N")]
    min_words: Option<u64>,
    /// Most words of a document
    #[arg(long, value_name = "N")]
    max_words: Option<u64>,
    /// Least mean length of a word in characters
    #[arg(long, value_name = "CHARS")]
    min_mean_word: Option<f64>,
    /// Greatest mean length of a word in characters
    #[arg(long, value_name = "CHARS")]
    max_mean_word: Option<f64>,
    /// Most hash signs or ellipses, as a share of the words
    #[arg(long, value_name = "SHARE")]
    max_symbols: Option<f64>,
    /// Least share of words with a letter
    #[arg(long, value_name = "SHARE")]
    min_alphabetic: Option<f64>,
    /// Greatest share of lines that begin with a bullet
    #[arg(long, value_name = "SHARE")]
    max_bullets: Option<f64>,
    /// Greatest share of lines that end with an ellipsis
    #[arg(long, value_name = "SHARE")]
    max_ellipses: Option<f64>,
    /// Greatest share of control characters
    #[arg(long, value_name = "SHARE")]
    max_control: Option<f64>,
    /// Bring text into Unicode's composed form (NFC)
    #[arg(long)]
    nfc: bool,
    /// Remove control characters except line breaks and tabs
    #[arg(long)]
    strip_control: bool,
    /// Replace bytes that are not UTF-8 by U+FFFD
    #[arg(long)]
    replace_invalid: bool,
    /// Pass over rows that cannot be read, and count them
    #[arg(long)]
    skip_bad_rows: bool,
    /// Show up to three dropped documents for each reason
    #[arg(long)]
    pub(super) examples: bool,
}

impl CleanArguments {
    pub(super) fn options(&self) -> CleanOptions {
        let options = CleanOptions {
            replace_invalid: self.replace_invalid,
            skip_bad_rows: self.skip_bad_rows,
            nfc: self.nfc,
            strip_control: self.strip_control,
            c4_lines: self.c4_lines,
            min_chars: self.min_chars,
            max_chars: self.max_chars,
            min_words: self.min_words,
            max_words: self.max_words,
            min_mean_word: self.min_mean_word,
            max_mean_word: self.max_mean_word,
            max_symbols: self.max_symbols,
            min_alphabetic: self.min_alphabetic,
            max_bullets: self.max_bullets,
            max_ellipses: self.max_ellipses,
            max_control: self.max_control,
            repetition: self.repetition,
        };
        if self.gopher { options.with_gopher() } else { options }
    }

    pub(super) fn filters(&self) -> Filters {
        Filters { clean: self.options(), ..Filters::default() }
    }
}

/// Which benchmarks to look for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options: contamination")]
pub(super) struct AgainstArguments {
    /// Benchmark file whose items to look for: JSON Lines, or any text; may be given several times
    #[arg(long, value_name = "FILE")]
    against: Vec<PathBuf>,
    /// Words that must stand in both, in a row, ignoring case and punctuation
    #[arg(long, value_name = "WORDS", default_value_t = NGRAM, requires = "against")]
    against_ngram: usize,
}

impl AgainstArguments {
    pub(super) fn load(&self) -> Result<Option<Arc<Benchmarks>>, Failure> {
        match self.against.is_empty() {
            true => Ok(None),
            false => {
                Ok(Some(Arc::new(Benchmarks::load(&self.against, self.against_ngram).map_err(data_failure)?)))
            }
        }
    }
}
