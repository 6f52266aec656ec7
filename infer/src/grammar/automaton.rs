//! The state of one sequence under a grammar.

use std::fmt;
use std::panic::AssertUnwindSafe;

use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::panic_utils;
use toktrie::{SimpleVob, TokTrie};

use super::error::{GrammarError, plain};

/// The tokens that may come next, as bits.
#[derive(Clone)]
pub struct Mask {
    bits: SimpleVob,
    vocab_size: usize,
}

impl Mask {
    /// Bit `id % 32` of word `id / 32` says whether token `id` is allowed. Bits beyond the vocabulary are 0.
    pub fn words(&self) -> &[u32] {
        &self.bits.as_slice()[..self.vocab_size.div_ceil(32)]
    }

    /// Whether `id` is allowed.
    pub fn allows(&self, id: u32) -> bool {
        (id as usize) < self.vocab_size && self.bits.is_allowed(id)
    }

    /// How many tokens are allowed.
    pub fn count(&self) -> usize {
        self.words().iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The allowed tokens, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.vocab_size as u32).filter(|id| self.bits.is_allowed(*id))
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} of {})", self.count(), self.vocab_size)
    }
}

/// A compiled grammar and how far one sequence has come in it. A clone is independent of its original: what one sequence
/// costs, or a failure of it, does not reach another.
pub struct Grammar {
    parser: TokenParser,
    kind: &'static str,
    /// Tokens accepted and not taken back, one that ended the text included.
    tokens: usize,
    /// A token that ends texts was accepted.
    ended: bool,
    /// What made this automaton unusable; every later call says so again.
    failed: Option<GrammarError>,
}

impl Grammar {
    pub(super) fn new(parser: TokenParser, kind: &'static str) -> Grammar {
        Grammar { parser, kind, tokens: 0, ended: false, failed: None }
    }

    /// The tokens that may come next: those after which the text can still become one that the grammar describes, and
    /// the tokens that end texts exactly where it may end. When nothing more may come, only the latter.
    ///
    /// # Errors
    /// [`GrammarError::Stuck`] when the text cannot end here and no token of the vocabulary can go on,
    /// [`GrammarError::TooComplex`] beyond the limits, [`GrammarError::Failed`] otherwise.
    pub fn mask(&mut self) -> Result<Mask, GrammarError> {
        let vocab_size = self.trie().vocab_size();
        if self.is_done() {
            return Ok(Mask { bits: self.trie().eos_token_set(), vocab_size });
        }
        let may_end = self.may_end()?;
        match self.attempt(TokenParser::compute_mask) {
            Ok(bits) => Ok(Mask { bits, vocab_size }),
            // Without tokens that end texts, a text that may end and cannot go on has ended.
            Err(GrammarError::Stuck { .. }) if may_end => {
                self.failed = None;
                self.ended = true;
                Ok(Mask { bits: self.trie().eos_token_set(), vocab_size })
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the next token of the sequence.
    ///
    /// # Errors
    /// [`GrammarError::NotAllowed`] for a token that [`Grammar::mask`] does not allow; nothing has changed then.
    pub fn accept(&mut self, id: u32) -> Result<(), GrammarError> {
        let refused = GrammarError::NotAllowed { kind: self.kind, id, tokens: self.tokens };
        self.check()?;
        if self.trie().eos_tokens().contains(&id) {
            if self.ended || !(self.is_done() || self.may_end()?) {
                return Err(refused);
            }
            self.ended = true;
        } else {
            if self.is_done() || self.validate(&[id])? == 0 {
                return Err(refused);
            }
            self.attempt(|parser| {
                parser.consume_token(id)?;
                parser.check_stop()
            })?;
        }
        self.tokens += 1;
        Ok(())
    }

    /// How many of `ids`, in this order, the grammar allows next. The state does not change.
    ///
    /// # Errors
    /// As [`Grammar::mask`].
    pub fn validate(&mut self, ids: &[u32]) -> Result<usize, GrammarError> {
        self.check()?;
        let vocab_size = self.trie().vocab_size();
        let ends = |id: &u32| self.trie().eos_tokens().contains(id);
        let known = ids.iter().take_while(|id| (**id as usize) < vocab_size).count();
        // Nothing follows a token that ends the text.
        let until = ids[..known].iter().position(ends).map_or(known, |at| at + 1);
        if self.ended {
            return Ok(0);
        }
        if self.is_done() {
            return Ok(usize::from(ids[..until].first().is_some_and(ends)));
        }
        self.attempt(|parser| parser.validate_tokens_raw(&ids[..until]))
    }

    /// Takes back the last `n` tokens, as speculation needs.
    ///
    /// # Errors
    /// [`GrammarError::Rollback`] for more than were accepted.
    pub fn rollback(&mut self, n: usize) -> Result<(), GrammarError> {
        self.check()?;
        if n > self.tokens {
            return Err(GrammarError::Rollback { asked: n, tokens: self.tokens });
        }
        if n == 0 {
            return Ok(());
        }
        let inside = n - usize::from(std::mem::take(&mut self.ended) && self.tokens > self.parser.num_tokens());
        self.tokens -= n;
        self.attempt(|parser| parser.rollback(inside))
    }

    /// Whether nothing more can come: the text is complete, whether or not a token that ends texts was accepted.
    pub fn is_done(&self) -> bool {
        self.ended || (self.parser.stopped() && self.failed.is_none())
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// As [`Grammar::mask`].
    pub fn may_end(&mut self) -> Result<bool, GrammarError> {
        self.check()?;
        if self.is_done() {
            return Ok(true);
        }
        self.attempt(|parser| Ok::<_, GrammarError>(parser.is_accepting()))
    }

    /// Whether [`Grammar::rollback`] works. It does not for Lark grammars with `stop=` or `max_tokens=`, whose sequences
    /// must not be speculated on.
    pub fn can_roll_back(&self) -> bool {
        self.parser.parser.grammar().lexer_spec().can_rollback()
    }

    /// Tokens accepted and not taken back.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes that the compiled grammar and what was learned of it take, as its library counts them.
    pub(super) fn bytes(&self) -> usize {
        self.parser.parser.lexer_stats().num_bytes
    }

    fn trie(&self) -> &TokTrie {
        self.parser.token_env.tok_trie()
    }

    fn check(&self) -> Result<(), GrammarError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Runs a step of the library, whose panics become errors.
    fn attempt<T, E: fmt::Display>(
        &mut self,
        step: impl FnOnce(&mut TokenParser) -> Result<T, E>,
    ) -> Result<T, GrammarError> {
        self.check()?;
        let parser = &mut self.parser;
        let result = match panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(step(parser)))) {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(panic) => Err(panic.to_string()),
        };
        result.map_err(|reason| {
            let (kind, reason) = (self.kind, plain(&reason));
            let error = match self.parser.stop_reason() {
                StopReason::NoExtensionBias => GrammarError::Stuck { kind, tokens: self.tokens },
                StopReason::LexerTooComplex | StopReason::ParserTooComplex => {
                    GrammarError::TooComplex { kind, reason }
                }
                _ => GrammarError::Failed { kind, reason },
            };
            self.failed = Some(error.clone());
            error
        })
    }
}

impl Clone for Grammar {
    fn clone(&self) -> Grammar {
        // A panic may have left the lexer of a failed automaton locked; it is not used again.
        let parser = if self.failed.is_some() { self.parser.clone() } else { self.parser.deep_clone() };
        Grammar { parser, kind: self.kind, tokens: self.tokens, ended: self.ended, failed: self.failed.clone() }
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").field("kind", &self.kind).field("tokens", &self.tokens).finish_non_exhaustive()
    }
}
