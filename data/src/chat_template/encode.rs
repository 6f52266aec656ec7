//! From a rendering to token ids, with the message each token belongs to.

use super::{ChatTemplate, Rendered};
use crate::error::DataError;
use crate::tokenizer::Tokenizer;

/// A conversation as token ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedChat {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each id, the message of the assistant it belongs to, the token that ends its turn included.
    pub message_of_token: Vec<Option<usize>>,
    /// For each id, whether it is a control token, which the template wrote.
    pub control: Vec<bool>,
}

impl EncodedChat {
    /// Whether the sequence opens with two beginning-of-text tokens.
    pub fn doubles_bos(&self, tokenizer: &Tokenizer) -> bool {
        match (tokenizer.bos_id(), &self.ids[..]) {
            (Some(bos), [first, second, ..]) => [*first, *second] == [bos, bos],
            _ => false,
        }
    }

    /// Messages of the assistant whose last token is not a control token: nothing tells the model to stop there.
    pub fn without_end(&self) -> Vec<usize> {
        let next = |at: usize| self.message_of_token.get(at + 1).copied().flatten();
        let last = |at: &usize| self.message_of_token[*at].is_some() && self.message_of_token[*at] != next(*at);
        let open = (0..self.ids.len()).filter(last).filter(|at| !self.control[*at]);
        open.filter_map(|at| self.message_of_token[at]).collect()
    }
}

impl ChatTemplate {
    /// Token ids of a rendering. Added tokens are recognised in what the template wrote and nowhere else; nothing is
    /// put around the text, since templates write their own beginning of text.
    ///
    /// A token that reaches into a message of the assistant counts to it as a whole, as transformers counts.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&self, rendered: &Rendered, tokenizer: &Tokenizer) -> Result<EncodedChat, DataError> {
        let tokens = tokenizer.encode_chat(rendered.text(), &rendered.literal())?;
        let mut encoded = EncodedChat::default();
        let mut spans = rendered.spans.iter().peekable();
        for token in tokens {
            while spans.next_if(|span| span.range.end <= token.range.start).is_some() {}
            let owner = spans.peek().filter(|span| {
                let reaches = token.range.end > span.range.start;
                reaches || (token.range.is_empty() && token.range.start >= span.range.start)
            });
            encoded.ids.push(token.id);
            encoded.message_of_token.push(owner.map(|span| span.message));
            encoded.control.push(token.control);
        }
        Ok(encoded)
    }
}
