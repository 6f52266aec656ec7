//! From ids to text, one id at a time: the pieces, put together, are the text of all ids decoded at once.
//!
//! Knows a tokenizer's `decode` and nothing of its making. A window of the latest ids is decoded instead of the whole
//! history; what of its text is new and can no longer change is handed out. Four things make this exact for ids in any
//! order, with the decoders of the `tokenizers` library that work on tokens and their neighbours:
//!
//! - *Beginning of the text.* Some decoders strip a space there. The window is cut at its front as soon as some text
//!   is out, and never so far that what remains has no text: the stripping then happens within what was given already.
//! - *Incomplete characters.* Byte-level decoders give U+FFFD for one. A U+FFFD at the end of the window is held back.
//! - *Byte tokens* such as `<0xE2>` (SentencePiece's byte fallback). A run of them is text when all of it is UTF-8, else
//!   a U+FFFD for each, so it is held back until it ends.
//! - *Skipped special tokens* leave no trace, not even an end to a run.
//!
//! The work for an id does not grow with the text: a run is decoded once, when it ends, and the window stays at a few
//! ids. (A speech decoder, CTC, is exact too, but it merges repeated tokens and may keep a longer window.)

use std::sync::Arc;

use fornax_data::{DataError, Tokenizer};

/// Tokens of a prompt's end that are looked at, where they hold some text that is certain.
const PROMPT_END: usize = 32;
/// A window of ids that ends in an undecided character is cut when it is longer than this.
const LONG_WINDOW: usize = 16;
/// Bytes of an incomplete character are at most three, and three stray bytes are three characters: a window with more
/// characters than that holds all of it.
const SAFE_CHARACTERS: usize = 4;

/// Why ids cannot become text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetokenizeError {
    /// The tokenizer failed.
    #[error(transparent)]
    Decode(#[from] DataError),
    /// The decoder works across tokens in a way that cannot be streamed.
    #[error(
        "token {id} changes text that was handed out before it: {expected:?} became {found:?}; this tokenizer's decoder cannot be streamed"
    )]
    Rewritten {
        /// The token.
        id: u32,
        /// End of the text handed out.
        expected: String,
        /// What the decoder now says instead.
        found: String,
    },
}

/// Turns the ids of one sequence into text while they come.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use fornax_data::Tokenizer;
/// use fornax_infer::detokenize::Detokenizer;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let documents = ["naïve café"].map(|text| Ok(text.to_owned()));
/// let tokenizer = Tokenizer::train_bpe(&mut documents.into_iter(), 259, &mut |_| {})?;
/// let ids = tokenizer.encode("é", false)?;
/// let mut detokenizer = Detokenizer::new(Arc::new(tokenizer), true);
/// assert_eq!(detokenizer.push(ids[0])?, None);
/// assert_eq!(detokenizer.push(ids[1])?, Some("é".to_owned()));
/// assert_eq!(detokenizer.finish()?, "");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    /// The latest ids: all since the beginning until some text is out, later those the next piece depends on.
    window: Vec<u32>,
    /// The part of the window's text that is handed out.
    given: String,
    /// A token with text, to see what another adds to it.
    anchor: Option<u32>,
    /// Whether the window was cut behind text that is certain, so that nothing before it matters any more.
    settled: bool,
}

impl Detokenizer {
    /// Starts a text. With `skip_special`, special tokens add nothing to it.
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Detokenizer {
        let anchor = (0..tokenizer.vocab_size() as u32).find(|id| {
            tokenizer.token_bytes(*id) > 0
                && tokenizer.decode(&[*id], skip_special).is_ok_and(|text| !text.is_empty())
        });
        Detokenizer { tokenizer, skip_special, window: Vec::new(), given: String::new(), anchor, settled: false }
    }

    /// Starts behind `prompt`, whose text is not handed out: a space between it and what follows is kept, which some
    /// tokenizers would strip from the beginning of a text. Of a long prompt the end is read alone.
    ///
    /// # Errors
    /// As [`Detokenizer::push`].
    pub fn after_prompt(
        tokenizer: Arc<Tokenizer>,
        prompt: &[u32],
        skip_special: bool,
    ) -> Result<Detokenizer, DetokenizeError> {
        let fresh = Detokenizer::new(tokenizer, skip_special);
        let mut length = PROMPT_END;
        loop {
            let mut detokenizer = fresh.clone();
            for id in &prompt[prompt.len().saturating_sub(length)..] {
                detokenizer.push(*id)?;
            }
            if detokenizer.settled || length >= prompt.len() {
                return Ok(detokenizer);
            }
            length *= 2;
        }
    }

    /// Takes the next id and returns the text that is certain now, `None` when there is none. An id outside the
    /// vocabulary adds nothing.
    ///
    /// # Errors
    /// [`DetokenizeError::Decode`] or [`DetokenizeError::Rewritten`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>, DetokenizeError> {
        if self.leaves_no_trace(id)? {
            return Ok(None);
        }
        self.window.push(id);
        if self.is_byte(id)? {
            return Ok(None);
        }
        let text = self.decode(&self.window)?;
        let new = self.new_part(&text, id)?;
        let piece = new.strip_suffix(char::REPLACEMENT_CHARACTER).unwrap_or(new).to_owned();
        if piece.len() < new.len() {
            self.given.push_str(&piece);
            self.cut_undecided()?;
        } else if !text.is_empty() {
            self.cut_decided()?;
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Returns what was held back; an incomplete character is U+FFFD now. Empty when nothing was.
    ///
    /// # Errors
    /// As [`Detokenizer::push`].
    pub fn finish(self) -> Result<String, DetokenizeError> {
        let Some(last) = self.window.last() else {
            return Ok(String::new());
        };
        let text = self.decode(&self.window)?;
        Ok(self.new_part(&text, *last)?.to_owned())
    }

    fn decode(&self, ids: &[u32]) -> Result<String, DetokenizeError> {
        Ok(self.tokenizer.decode(ids, self.skip_special)?)
    }

    fn new_part<'a>(&self, text: &'a str, id: u32) -> Result<&'a str, DetokenizeError> {
        text.strip_prefix(&self.given).ok_or_else(|| DetokenizeError::Rewritten {
            id,
            expected: self.given.clone(),
            found: text.to_owned(),
        })
    }

    /// Whether decoding leaves this id out before it looks at any token.
    fn leaves_no_trace(&self, id: u32) -> Result<bool, DetokenizeError> {
        if self.tokenizer.token_bytes(id) > 0 {
            return Ok(false);
        }
        if self.tokenizer.token(id).is_none() {
            return Ok(true);
        }
        let Some(anchor) = self.anchor else {
            return Ok(true);
        };
        let adds = |skip_special| -> Result<bool, DetokenizeError> {
            let with = self.tokenizer.decode(&[anchor, id], skip_special)?;
            Ok(with != self.tokenizer.decode(&[anchor], skip_special)?)
        };
        Ok(self.skip_special && adds(false)? && !adds(true)?)
    }

    /// Whether this is a byte token that the decoder takes as a byte; without byte fallback it is its six characters.
    fn is_byte(&self, id: u32) -> Result<bool, DetokenizeError> {
        let looks_like_one = self
            .tokenizer
            .token(id)
            .is_some_and(|token| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>'));
        Ok(looks_like_one && self.decode(&[id])?.chars().count() <= 1)
    }

    /// Cuts a window whose whole text is out down to its last ids that have text.
    fn cut_decided(&mut self) -> Result<(), DetokenizeError> {
        let n = self.window.len();
        let mut start = n;
        while start > 0 {
            start -= 1;
            self.given = self.decode(&self.window[start..])?;
            if !self.given.is_empty() {
                break;
            }
        }
        self.window.drain(..start);
        self.settled |= !self.given.is_empty();
        self.forget_repetition()
    }

    /// Tokens without text pile up in the window; of equal neighbours one is enough.
    fn forget_repetition(&mut self) -> Result<(), DetokenizeError> {
        if let [_, .., before, last] = self.window[..]
            && before == last
            && self.decode(&self.window[..self.window.len() - 1])? == self.given
        {
            self.window.pop();
        }
        Ok(())
    }

    /// Cuts a long window that ends in a U+FFFD which may still become a character.
    fn cut_undecided(&mut self) -> Result<(), DetokenizeError> {
        let n = self.window.len();
        let mut length = LONG_WINDOW / 2;
        while n > LONG_WINDOW && length < n {
            let text = self.decode(&self.window[n - length..])?;
            if let Some(given) = text.strip_suffix(char::REPLACEMENT_CHARACTER)
                && text.chars().count() >= SAFE_CHARACTERS
            {
                self.given = given.to_owned();
                self.window.drain(..n - length);
                break;
            }
            length *= 2;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
