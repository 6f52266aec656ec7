//! What proposes tokens: `lookup`, `exit:N` or the folder of a smaller model.

use std::path::Path;

use burn::tensor::{DType, Device};
use clap::Args;
use fornax_infer::speculative::{Draft, Lookup, SpeculationOptions, SpeculationStats};

use super::model_folder;
use super::report::Failure;

/// Speculative decoding.
#[derive(Debug, Args)]
pub(crate) struct DraftArguments {
    /// Let something cheap propose tokens, which changes the speed and not the text's distribution: a smaller model with the
    /// same vocabulary, what followed the same tokens before (lookup), or the model's own leading N layers (exit:N)
    #[arg(long, value_name = "DIR|lookup|exit:N")]
    draft: Option<String>,
    /// Propose so many tokens always; without it the number follows what is accepted
    #[arg(long, value_name = "N", requires = "draft")]
    draft_length: Option<usize>,
}

impl DraftArguments {
    /// What was asked for.
    pub(crate) fn options(
        &self,
        dtype: Option<DType>,
        device: &Device,
    ) -> Result<Option<SpeculationOptions>, Failure> {
        let Some(word) = &self.draft else { return Ok(None) };
        let mut options = SpeculationOptions::new(open("--draft", word, dtype, device)?);
        if let Some(length) = self.draft_length {
            (options.most, options.fixed) = (length, true);
        }
        Ok(Some(options))
    }
}

/// The draft that `word` names, which `flag` was given.
pub(crate) fn open(flag: &str, word: &str, dtype: Option<DType>, device: &Device) -> Result<Draft, Failure> {
    if word == "lookup" {
        return Ok(Draft::Lookup(Lookup::default()));
    }
    match word.strip_prefix("exit:").map(str::parse) {
        Some(Ok(layers)) => Ok(Draft::EarlyExit { layers }),
        Some(Err(_)) => {
            Err(Failure::input(format_args!("{flag} is `{word}`, expected exit:N with a number of layers")))
        }
        None => Ok(Draft::Model(Box::new(model_folder::open_weights(Path::new(word), dtype, device)?))),
    }
}

/// What became of the proposals, in a line.
pub(crate) fn judged(stats: &SpeculationStats) -> String {
    let (accepted, drafted) = (stats.accepted, stats.drafted);
    let length = stats.mean_length().map_or_else(String::new, |mean| format!(", {mean:.2} tokens a pass"));
    let off = if stats.switched_off > 0 { "; switched off, it did not pay" } else { "" };
    format!("speculation: {accepted} of {drafted} proposed tokens accepted{length}{off}\n")
}
