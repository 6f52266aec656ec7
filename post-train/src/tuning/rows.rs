//! The rows of a recipe, tokenized for its base and split into those trained on and those held out.

use fornax_data::DataError;
use fornax_data::examples::{Example, Labelled, Pair, Prompt};
use fornax_data::held_out::HeldOut;
use fornax_data::hub::Hub;
use fornax_data::loading::{self, FitOptions, LoadReport, Loaded, ReadOptions};
use fornax_data::records::Records;
use fornax_data::rendering::Renderer;
use fornax_train::TrainError;
use fornax_train::setup::Preparing;

use super::Base;
use crate::corpus;
use crate::recipe::{CORPUS, CORPUS_ROWS, FinetuneRecipe};

/// Reads rows and tells what it found.
pub(crate) struct Rows<'a> {
    pub(crate) recipe: &'a FinetuneRecipe,
    pub(crate) base: &'a Base,
    /// Sentences for the user.
    pub(crate) facts: &'a mut Vec<String>,
    pub(crate) progress: &'a mut dyn FnMut(Preparing),
}

/// Rows to train on, and rows that are held out.
type Split<T> = Result<(Vec<T>, Vec<T>), TrainError>;
/// A way of making rows of records.
type Load<T> = fn(&Records, &ReadOptions, &Renderer<'_>, FitOptions) -> Result<Loaded<T>, DataError>;

impl Rows<'_> {
    pub(crate) fn examples(&mut self) -> Split<Example> {
        self.split(loading::examples)
    }

    pub(crate) fn pairs(&mut self) -> Split<Pair> {
        self.split(loading::pairs)
    }

    pub(crate) fn labelled(&mut self) -> Split<Labelled> {
        self.split(loading::labelled)
    }

    pub(crate) fn prompts(&mut self) -> Split<Prompt> {
        self.split(loading::prompts)
    }

    fn split<T>(&mut self, load: Load<T>) -> Split<T> {
        let (data, measured) = (&self.recipe.data, self.recipe.eval.rows);
        let train = self.read(&data.source, data.rows, load)?;
        if let Some(source) = &data.validation {
            let mut held = self.read(source, None, load)?.rows;
            held.truncate(measured);
            return Ok((train.rows, held));
        }
        let part = match data.validation_fraction {
            0.0 => HeldOut::Nothing,
            fraction => HeldOut::Fraction(fraction),
        };
        let (train, mut held) = train.split(self.recipe.seed, part)?;
        held.truncate(measured);
        Ok((train, held))
    }

    fn read<T>(&mut self, source: &str, limit: Option<u64>, load: Load<T>) -> Result<Loaded<T>, TrainError> {
        let data = &self.recipe.data;
        let records = match source {
            CORPUS => corpus::records(self.recipe.objective, self.recipe.seed, limit.unwrap_or(CORPUS_ROWS)),
            _ => Records::named(source, &Hub::from_env, &mut |part| (self.progress)(Preparing::Hub(part)))?,
        };
        let options = ReadOptions {
            format: data.format,
            fields: data.fields.clone(),
            skip_bad_rows: data.skip_bad_rows,
            limit,
        };
        let renderer = Renderer::new(&self.base.tokenizer, self.base.style.as_ref());
        let fit = FitOptions { mask: data.mask, context: self.recipe.row_context(), truncate: data.truncate };
        let loaded = load(&records, &options, &renderer, fit)?;
        self.facts.extend(told(source, &loaded.report));
        Ok(loaded)
    }
}

/// What was read, as sentences.
fn told(source: &str, report: &LoadReport) -> Vec<String> {
    let mut lines = vec![format!(
        "{source}: {}; {} rows, {} tokens, {} of them trained, the longest row {}, {} bytes in memory",
        report.detected, report.rows, report.tokens, report.trained, report.longest, report.bytes
    )];
    let cut = &report.truncated;
    if cut.any() {
        lines.push(format!(
            "{source}: to fit the context, {} rows lost their end, {} the beginning of their prompt, and {} were left out",
            cut.end, cut.prompt, cut.dropped
        ));
    }
    if report.skipped > 0 {
        let because = report.skipped_because.join("; ");
        lines.push(format!("{source}: {} rows were passed over: {because}", report.skipped));
    }
    lines
}
