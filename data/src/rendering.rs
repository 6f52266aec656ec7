//! Lessons, preferences and prompts as token ids, with the tokens that are trained.
//!
//! Turns go through a chat template, and which tokens an assistant wrote is known from the template, never guessed from
//! ids. Strings are encoded as they stand, with what the tokenizer puts in front of a text; the end-of-text token behind
//! them is there by its place, not found by its id.

mod built_in;
mod style;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::style::{BUILT_IN, PromptStyle};
use crate::conversations::{Dialogue, Lesson};
use crate::error::DataError;
use crate::formats::Format;
use crate::preferences::Question;
use crate::records::Problem;
use crate::tokenizer::Tokenizer;

/// Which tokens of a row are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    /// What assistants say, each turn with the token that ends it.
    Assistant,
    /// What stands behind the prompt of the row; in a conversation without one, its last turn.
    Completion,
    /// What assistants say behind the last user message.
    LastTurn,
    /// Every token but the opening one.
    All,
}

impl Mask {
    /// All of them.
    pub const ALL: [Mask; 4] = [Mask::Assistant, Mask::Completion, Mask::LastTurn, Mask::All];

    /// Its name in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Mask::Assistant => "assistant",
            Mask::Completion => "completion",
            Mask::LastTurn => "last-turn",
            Mask::All => "all",
        }
    }

    /// The mask of rows whose recipe names none.
    pub fn of_format(format: Format) -> Mask {
        match format {
            Format::Text => Mask::All,
            Format::Messages | Format::Sharegpt => Mask::Assistant,
            _ => Mask::Completion,
        }
    }
}

impl FromStr for Mask {
    type Err = String;

    fn from_str(text: &str) -> Result<Mask, String> {
        let known = Mask::ALL.map(Mask::name).join(", ");
        let found = Mask::ALL.into_iter().find(|mask| mask.name() == text);
        found.ok_or_else(|| format!("unknown mask `{text}`, known are {known}"))
    }
}

/// A row as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids.
    pub ids: Vec<u32>,
    /// One for each id: whether it is a target that counts.
    pub trained: Vec<bool>,
}

impl Tokens {
    /// Tokens in front of the opening one that is trained.
    pub fn prompt(&self) -> usize {
        self.trained.iter().position(|trained| *trained).unwrap_or(self.ids.len())
    }

    /// Whether a target counts; the opening token is none.
    pub(crate) fn has_target(&self) -> bool {
        self.trained.iter().skip(1).any(|trained| *trained)
    }
}

/// Makes tokens of rows.
#[derive(Debug, Clone)]
pub struct Renderer<'a> {
    tokenizer: &'a Tokenizer,
    style: Option<&'a PromptStyle>,
}

impl<'a> Renderer<'a> {
    /// A renderer with a tokenizer, and a way of writing conversations where rows hold some.
    pub fn new(tokenizer: &'a Tokenizer, style: Option<&'a PromptStyle>) -> Renderer<'a> {
        Renderer { tokenizer, style }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &'a Tokenizer {
        self.tokenizer
    }

    /// The tokens of a lesson.
    ///
    /// # Errors
    /// What is wrong with the row: nothing that is trained, two tokens that open the text, a turn that does not end,
    /// a conversation that the template refuses.
    pub fn lesson(&self, lesson: &Lesson, mask: Mask) -> Result<Tokens, Problem> {
        let tokens = match lesson {
            Lesson::Text(text) => self.text(text, mask)?,
            Lesson::Completion { prompt, completion } => self.completion(prompt, completion, mask)?,
            Lesson::Dialogue(dialogue) => self.dialogue(dialogue, mask)?,
        };
        self.refuse_doubled_bos(&tokens.ids)?;
        match tokens.has_target() {
            true => Ok(tokens),
            false => Err(Problem::EmptyMask { mask: mask.name() }),
        }
    }

    /// The tokens of a prompt; those of a dialogue end with the header of the assistant's turn.
    ///
    /// # Errors
    /// As [`Renderer::lesson`].
    pub fn question(&self, question: &Question) -> Result<Vec<u32>, Problem> {
        let ids = match question {
            Question::Text(text) => self.encode(text)?,
            Question::Dialogue(conversation) => self.style()?.encode_prompt(conversation, self.tokenizer)?,
        };
        self.refuse_doubled_bos(&ids)?;
        Ok(ids)
    }

    fn text(&self, text: &str, mask: Mask) -> Result<Tokens, Problem> {
        if mask != Mask::All {
            return Err(Problem::EmptyMask { mask: mask.name() });
        }
        let mut ids = self.encode(text)?;
        if let Some(eos) = self.tokenizer.eos_id().filter(|eos| ids.last() != Some(eos)) {
            ids.push(eos);
        }
        let trained = (0..ids.len()).map(|at| at > 0).collect();
        Ok(Tokens { ids, trained })
    }

    /// Prompt and completion are encoded as one text, as in TRL, so that no token ends at the seam which would not end
    /// there in a text. Trained is what differs from the prompt alone.
    fn completion(&self, prompt: &str, completion: &str, mask: Mask) -> Result<Tokens, Problem> {
        let alone = self.encode(prompt)?;
        let mut ids = self.encode(&format!("{prompt}{completion}"))?;
        let given = alone.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        let Some(eos) = self.tokenizer.eos_id() else {
            let found = ids.last().and_then(|id| self.tokenizer.token(*id)).unwrap_or_default();
            return Err(Problem::MissingEos { found });
        };
        if ids.last() != Some(&eos) || ids.len() == given {
            ids.push(eos);
        }
        let trained = (0..ids.len()).map(|at| at > 0 && (at >= given || mask == Mask::All)).collect();
        Ok(Tokens { ids, trained })
    }

    fn dialogue(&self, dialogue: &Dialogue, mask: Mask) -> Result<Tokens, Problem> {
        let style = self.style()?;
        let encoded = style.encode(&style.conversation(dialogue), self.tokenizer)?;
        let from = match mask {
            Mask::Assistant | Mask::All => 0,
            Mask::Completion => dialogue.n_prompt,
            Mask::LastTurn => Dialogue::of_turns(dialogue.turns.clone(), None)?.n_prompt,
        };
        let counts = |(at, message): (usize, &Option<usize>)| match message {
            Some(message) => {
                let said = dialogue.turns.get(*message).and_then(|turn| turn.trained);
                at > 0 && *message >= from && said != Some(false)
            }
            None => at > 0 && mask == Mask::All,
        };
        let trained: Vec<bool> = encoded.message_of_token.iter().enumerate().map(counts).collect();
        let written = |at: usize| {
            let mut own = encoded.message_of_token.iter().zip(&encoded.control);
            own.any(|(message, control)| *message == Some(at) && !control)
        };
        for (at, turn) in dialogue.turns.iter().enumerate() {
            // A template without tools writes no call: training would teach to answer nothing.
            if turn.is_assistant() && at >= from && turn.trained != Some(false) && !written(at) {
                return Err(Problem::Unwritten { message: at + 1 });
            }
        }
        // By its place: the last token that an assistant wrote is the one after which the model stops.
        let last = encoded.message_of_token.iter().rposition(Option::is_some);
        match last.filter(|last| trained[*last] && !encoded.control[*last]) {
            Some(last) => {
                let found = self.tokenizer.token(encoded.ids[last]).unwrap_or_default();
                Err(Problem::MissingEos { found })
            }
            None => Ok(Tokens { ids: encoded.ids, trained }),
        }
    }

    fn style(&self) -> Result<&'a PromptStyle, Problem> {
        self.style.ok_or(Problem::NoTemplate)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, Problem> {
        self.tokenizer.encode(text, true).map_err(|error| of_encoding(&error))
    }

    fn refuse_doubled_bos(&self, ids: &[u32]) -> Result<(), Problem> {
        match (ids, self.tokenizer.bos_id()) {
            ([a, b, ..], Some(bos)) if *a == bos && *b == bos => {
                Err(Problem::DoubledBos { token: self.tokenizer.token(bos).unwrap_or_default() })
            }
            _ => Ok(()),
        }
    }
}

/// What the tokenizer said, without a path: the row has one.
fn of_encoding(error: &DataError) -> Problem {
    Problem::Encode { reason: error.to_string() }
}

/// What a template said, with its causes, as one sentence.
pub(crate) fn of_template(error: &dyn std::error::Error) -> Problem {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    Problem::Template { reason }
}

#[cfg(test)]
mod tests;
