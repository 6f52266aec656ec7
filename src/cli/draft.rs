//! `--draft`: what proposes tokens.

use std::path::Path;

use burn::tensor::{DType, Device};
use clap::Args;
use fornax_base::exit::Exit;
use fornax_infer::speculative::{Draft, Lookup, SpeculationOptions, SpeculationStats};
use fornax_model::Decoder;

use super::model_folder;
use super::report::Failure;

/// What proposes tokens.
#[derive(Debug, Args)]
pub(crate) struct DraftArguments {
    /// What proposes tokens, which changes the time and not the text: lookup (what followed the same tokens before), exit:N
    /// (the model's N leading layers), or the folder of a smaller model with the same vocabulary
    #[arg(long, value_name = "DRAFT")]
    draft: Option<String>,
    /// Propose so many tokens always; without it, as many as pay, up to 8
    #[arg(long, value_name = "N", requires = "draft")]
    draft_length: Option<usize>,
}

impl DraftArguments {
    /// The options for `target`, which computes on `device`; `None` without a draft.
    pub(crate) fn options(
        &self,
        target: &Decoder,
        dtype: Option<DType>,
        device: &Device,
    ) -> Result<Option<SpeculationOptions>, Failure> {
        let Some(word) = &self.draft else { return Ok(None) };
        let draft = named("--draft", word, dtype, device)?;
        // The same seed gives the same text: proposals are compared with what plain sampling takes.
        let mut options = SpeculationOptions { drawn: false, ..SpeculationOptions::new(draft) };
        if let Some(length) = self.draft_length {
            (options.most, options.fixed) = (length, true);
        }
        options.check(target).map_err(|error| Failure::new(Exit::BadInput, error))?;
        Ok(Some(options))
    }
}

/// What `word`, given to `flag`, proposes with.
pub(crate) fn named(flag: &str, word: &str, dtype: Option<DType>, device: &Device) -> Result<Draft, Failure> {
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

/// One line of what proposals brought.
pub(crate) fn told(stats: &SpeculationStats) -> String {
    let Some((acceptance, length)) = stats.acceptance().zip(stats.mean_length()) else {
        return "draft: nothing was proposed\n".into();
    };
    let speed = stats.speed_up().map_or(String::new(), |by| format!(", {by:.2} times plain decoding"));
    let off = match stats.switched_off {
        0 => String::new(),
        1 => ", switched off once".into(),
        n => format!(", switched off {n} times"),
    };
    format!(
        "draft: {} of {} tokens accepted ({:.0} %), {length:.2} tokens a round{speed}{off}\n",
        stats.accepted,
        stats.drafted,
        acceptance * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_was_measured_and_nothing_else() {
        let mut stats = SpeculationStats::default();
        assert_eq!(told(&stats), "draft: nothing was proposed\n");
        stats.judged(3, 2, 3);
        stats.switched_off = 1;
        let line = "draft: 2 of 3 tokens accepted (67 %), 3.00 tokens a round, switched off once\n";
        assert_eq!(told(&stats), line);
        (stats.verify_seconds, stats.plain_tokens, stats.plain_seconds) = (1.0, 2, 1.0);
        assert!(told(&stats).contains("1.50 times plain decoding"), "{}", told(&stats));
    }
}
