//! From a description of a form to an automaton, within limits.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use fornax_data::Tokenizer;
use llguidance::ParserFactory;
use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use toktrie::{InferenceCapabilities, TokEnv};

use super::automaton::Grammar;
use super::cache::Cache;
use super::error::{GrammarError, plain};
use super::limits::GrammarLimits;
use super::spec::GrammarSpec;
use super::vocabulary;

/// Stack of the thread that compiles: nesting is limited, and this is enough for it whatever the caller's stack is.
const STACK_BYTES: usize = 64 << 20;

/// Compiles grammars for one vocabulary and keeps what it compiled. Shared between threads; compiling runs on a thread of
/// its own while the caller waits, so call it where waiting is allowed, never on the engine's thread.
///
/// # Example
/// ```
/// use fornax_data::Tokenizer;
/// use fornax_infer::grammar::{GrammarCompiler, GrammarLimits, GrammarSpec};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let documents = ["yes or no"].map(|text| Ok(text.to_owned()));
/// let tokenizer = Tokenizer::train_bpe(&mut documents.into_iter(), 259, &mut |_| {})?;
/// let end = tokenizer.eos_id().into_iter().collect::<Vec<_>>();
/// let compiler = GrammarCompiler::new(&tokenizer, tokenizer.vocab_size(), &end, GrammarLimits::default())?;
/// let mut grammar = compiler.compile(&GrammarSpec::Choice(vec!["yes".into(), "no".into()]))?;
/// assert!(!grammar.mask()?.allows(end[0]));
/// for id in tokenizer.encode("no", false)? {
///     grammar.accept(id)?;
/// }
/// assert!(grammar.is_done() && grammar.mask()?.ids().eq(end));
/// # Ok(())
/// # }
/// ```
pub struct GrammarCompiler {
    factory: ParserFactory,
    limits: GrammarLimits,
    cache: Mutex<Cache>,
}

impl GrammarCompiler {
    /// A compiler for the vocabulary of `tokenizer`, a model that gives `vocab_size` logits, and the tokens `end` that end
    /// its texts. Takes a while for large vocabularies; made once for a model.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] for tokenizers whose tokens do not stand for bytes on their own.
    pub fn new(
        tokenizer: &Tokenizer,
        vocab_size: usize,
        end: &[u32],
        limits: GrammarLimits,
    ) -> Result<GrammarCompiler, GrammarError> {
        GrammarCompiler::of_environment(&vocabulary::environment(tokenizer, vocab_size, end)?, limits)
    }

    pub(super) fn of_environment(
        environment: &TokEnv,
        limits: GrammarLimits,
    ) -> Result<GrammarCompiler, GrammarError> {
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| GrammarError::Vocabulary { reason: plain(&error.to_string()) })?;
        factory.quiet();
        *factory.limits_mut() = limits.of_library();
        let cache = Mutex::new(Cache::new(limits.cache_bytes));
        Ok(GrammarCompiler { factory, limits, cache })
    }

    /// A fresh automaton for `spec`.
    ///
    /// # Errors
    /// What is wrong with it, or that it is beyond the limits.
    pub fn compile(&self, spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
        let key = spec.check_size(&self.limits)?;
        if let Some(grammar) = self.cache().get(&key) {
            return Ok(grammar);
        }
        let mut grammar = on_large_stack(|| self.build(spec))
            .unwrap_or_else(|reason| Err(GrammarError::Failed { kind: spec.kind(), reason }))?;
        // The opening mask shows grammars that nothing can satisfy, or that are too heavy, before they are accepted.
        grammar.mask()?;
        self.cache().insert(key, grammar.clone());
        Ok(grammar)
    }

    /// Grammars that are kept, and the bytes they take.
    pub fn kept(&self) -> (usize, usize) {
        self.cache().size()
    }

    /// The limits it was made with.
    pub fn limits(&self) -> &GrammarLimits {
        &self.limits
    }

    fn build(&self, spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
        let kind = spec.kind();
        let grammars = spec.to_library(&self.limits)?;
        let compiled = self.factory.create_parser(TopLevelGrammar { grammars, max_tokens: None });
        let mut parser = compiled.map_err(|error| classify(kind, &format!("{error:#}")))?;
        parser.start_without_prompt();
        Ok(Grammar::new(parser, kind))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing in the cache is left half done by a panic.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Runs `work` on a thread with a large stack. Its panic becomes an error.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("grammar".to_owned()).stack_size(STACK_BYTES);
        let spawned = builder.spawn_scoped(scope, work).map_err(|error| error.to_string())?;
        spawned.join().map_err(|_| "compiling it failed inside its library".to_owned())
    })
}

/// Sorts the library's words into errors.
fn classify(kind: &'static str, message: &str) -> GrammarError {
    let reason = plain(message);
    let unsupported = |keyword: String| GrammarError::Unsupported { keyword, place: "#".to_owned() };
    // Found behind references that lead outside of what was looked at before.
    if let Some((_, keys)) = reason.split_once("Unimplemented keys: [") {
        return unsupported(keys.split(']').next().unwrap_or_default().replace('"', ""));
    }
    if let Some((_, format)) = reason.split_once("Unknown format: ") {
        return unsupported(format!("format: {format}"));
    }
    if let Some((_, resource)) = reason.split_once("Resource '") {
        let resource = resource.split('\'').next().unwrap_or_default();
        return unsupported(format!("$ref: {resource}"));
    }
    for (words, keyword) in [
        ("oneOf constraints", "oneOf with options that may both hold"),
        ("min/maxProperties", "minProperties or maxProperties beside optional properties"),
        ("are not disjoint", "patternProperties that may match the same name"),
        ("circular references", "$ref to itself beside other keywords"),
    ] {
        if reason.contains(words) {
            return unsupported(keyword.to_owned());
        }
    }
    let heavy = ["too many", "too big", "too large", "too complex", "fuel", "limit", "exceeded", "stack level"];
    if heavy.iter().any(|word| reason.contains(word)) {
        return GrammarError::TooComplex { kind, reason };
    }
    GrammarError::Invalid { kind, reason }
}
