//! The text of one sequence while its tokens come: detokenizer, then stop strings.

use std::collections::VecDeque;
use std::sync::Arc;

use fornax_data::Tokenizer;

use crate::detokenize::{DetokenizeError, Detokenizer};
use crate::sampler::Sampled;
use crate::stop::{Held, StopStrings};

/// How tokens become text.
#[derive(Debug, Clone, Default)]
pub struct TextOptions {
    /// Special tokens add nothing to the text.
    pub skip_special: bool,
    /// Texts at which it ends.
    pub stop: StopStrings,
    /// Stop strings are not looked for in the text of so many tokens at the beginning.
    pub min_tokens: usize,
}

/// A token with its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextToken {
    /// Its id and log-probabilities.
    pub sampled: Sampled,
    /// The byte of the text at which its own begins.
    pub offset: usize,
}

/// Text that is certain, and the tokens it is made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextPiece {
    /// Whole characters; they stay as they are.
    pub text: String,
    /// The tokens whose text has ended with this piece. A token that is part of several pieces comes with the last of
    /// them; one that a stop string cut off comes if some of its text is left.
    pub tokens: Vec<TextToken>,
    /// The stop string that ended the text, by its place in the list: no text comes after it.
    pub stopped: Option<usize>,
}

/// Turns the tokens of one sequence into text. The pieces, put together, are the text of all tokens decoded at once,
/// up to a stop string.
#[derive(Debug, Clone)]
pub struct TextStream {
    detokenizer: Detokenizer,
    stop: StopStrings,
    min_tokens: usize,
    pushed: usize,
    /// Bytes of text that the detokenizer gave.
    certain: usize,
    /// Bytes of text that left this stream.
    sent: usize,
    /// Tokens that belong to no piece so far, each with the end of its text where that is known.
    waiting: VecDeque<(TextToken, Option<usize>)>,
}

impl TextStream {
    /// Starts behind `prompt`, whose text is not handed out.
    ///
    /// # Errors
    /// What [`Detokenizer::after_prompt`] reports.
    pub fn new(
        tokenizer: Arc<Tokenizer>,
        prompt: &[u32],
        options: TextOptions,
    ) -> Result<TextStream, DetokenizeError> {
        let TextOptions { skip_special, stop, min_tokens } = options;
        Ok(TextStream {
            detokenizer: Detokenizer::after_prompt(tokenizer, prompt, skip_special)?,
            stop,
            min_tokens,
            pushed: 0,
            certain: 0,
            sent: 0,
            waiting: VecDeque::new(),
        })
    }

    /// Which stop string ended the text, by its place in the list.
    pub fn stopped(&self) -> Option<usize> {
        self.stop.stopped()
    }

    /// Takes the next token; `None` when nothing is certain with it. Behind a stop string nothing is.
    ///
    /// # Errors
    /// What [`Detokenizer::push`] reports.
    pub fn push(&mut self, sampled: Sampled) -> Result<Option<TextPiece>, DetokenizeError> {
        if self.stopped().is_some() {
            return Ok(None);
        }
        let id = sampled.id;
        self.pushed += 1;
        self.waiting.push_back((TextToken { sampled, offset: self.certain }, None));
        let held = match self.detokenizer.push(id)? {
            Some(text) => self.give(&text),
            None => Held::default(),
        };
        let piece = self.piece(held);
        Ok((piece != TextPiece::default()).then_some(piece))
    }

    /// What was held back, when no token comes any more, and the tokens that are in no piece.
    ///
    /// # Errors
    /// What [`Detokenizer::finish`] reports.
    pub fn finish(mut self) -> Result<TextPiece, DetokenizeError> {
        if self.stopped().is_some() {
            return Ok(TextPiece { stopped: self.stopped(), ..TextPiece::default() });
        }
        let rest = self.detokenizer.clone().finish()?;
        let mut held = self.give(&rest);
        if held.stopped.is_none() {
            held.emit += &self.stop.finish();
        }
        let mut piece = self.piece(held);
        if piece.stopped.is_none() {
            piece.tokens.extend(self.waiting.drain(..).map(|(token, _)| token));
        }
        Ok(piece)
    }

    /// Text from the detokenizer: with it the tokens so far have an end.
    fn give(&mut self, text: &str) -> Held {
        self.certain += text.len();
        for (_, end) in self.waiting.iter_mut().rev().take_while(|(_, end)| end.is_none()) {
            *end = Some(self.certain);
        }
        match self.pushed <= self.min_tokens {
            true => self.stop.pass(text),
            false => self.stop.push(text),
        }
    }

    fn piece(&mut self, Held { emit, stopped }: Held) -> TextPiece {
        self.sent += emit.len();
        let mut tokens = Vec::new();
        while let Some((token, end)) = self.waiting.front() {
            let whole = end.is_some_and(|end| end <= self.sent);
            let cut = stopped.is_some() && token.offset < self.sent;
            if !whole && !cut {
                break;
            }
            tokens.extend(self.waiting.pop_front().map(|(token, _)| token));
        }
        TextPiece { text: emit, tokens, stopped }
    }
}

#[cfg(test)]
mod tests;
