//! `--schema`, `--regex` and `--grammar`: what a generated text must be like.

use std::path::PathBuf;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_infer::grammar::{Grammar, GrammarCompiler, GrammarError, GrammarLimits, GrammarSpec};

use super::model_folder::LoadedModel;
use super::report::Failure;

/// The form of the text.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct GrammarArguments {
    /// The text is JSON that is valid under the JSON schema in this file
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// The text is what this regular expression matches as a whole
    #[arg(long, value_name = "PATTERN")]
    regex: Option<String>,
    /// The text belongs to the grammar in this file: .lark, .gbnf, .regex, or .json for a schema
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
}

impl GrammarArguments {
    /// What is asked for, before a model is loaded.
    pub(crate) fn spec(&self) -> Result<Option<GrammarSpec>, Failure> {
        let limits = GrammarLimits::default();
        let spec = match (&self.schema, &self.regex, &self.grammar) {
            (Some(path), ..) if path.extension().is_none_or(|extension| extension != "json") => {
                return Err(Failure::input(format_args!("`{}` is no .json file", path.display()))
                    .hint("a JSON schema is a .json file; `--grammar` takes .lark, .gbnf and .regex"));
            }
            (Some(path), ..) | (_, _, Some(path)) => Some(GrammarSpec::from_file(path, &limits).map_err(failure)?),
            (None, Some(pattern), None) => Some(GrammarSpec::Regex(pattern.clone())),
            (None, None, None) => None,
        };
        Ok(spec)
    }
}

/// Compiles for the vocabulary of a model.
pub(crate) fn compile(spec: &GrammarSpec, model: &LoadedModel) -> Result<Grammar, Failure> {
    let vocab_size = model.decoder.config().vocab_size;
    let compiler = GrammarCompiler::new(&model.tokenizer, vocab_size, &model.end_ids(), GrammarLimits::default());
    compiler.and_then(|compiler| compiler.compile(spec)).map_err(failure)
}

fn failure(error: GrammarError) -> Failure {
    Failure::new(Exit::BadInput, error)
        .hint("docs/guide/structured-output.md lists what each kind of grammar may hold, and its limits")
}
