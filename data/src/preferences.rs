//! Rows that say which answer is better, whether an answer is good, or what is to be answered.

use crate::chat::Json;
use crate::chat::{Conversation, Message};
use crate::conversations::{Dialogue, Fields, Lesson, Side, Turn, wrong_type};
use crate::formats::Format;
use crate::records::Problem;
use minijinja::value::ValueKind;

/// Two answers to one prompt.
#[derive(Debug, Clone)]
pub struct Preference {
    /// The prompt with the better answer.
    pub chosen: Lesson,
    /// The prompt with the other one.
    pub rejected: Lesson,
}

/// An answer with a verdict.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The prompt with the answer.
    pub answer: Lesson,
    /// Whether it is a desirable one.
    pub desirable: bool,
}

/// What is to be answered.
#[derive(Debug, Clone)]
pub enum Question {
    /// A text to be continued, as it stands.
    Text(String),
    /// Turns, to be rendered by a template with the header of the assistant's turn behind them.
    Dialogue(Conversation),
}

const PAIRS: &str = "preference rows";

impl Preference {
    /// The pair of a row with `chosen` and `rejected`.
    ///
    /// # Errors
    /// What is wrong with the row; [`Problem::WrongKind`] for another format.
    pub fn of(format: Format, row: &Json) -> Result<Preference, Problem> {
        if format != Format::Preference {
            return Err(Problem::WrongKind { found: format, expected: PAIRS });
        }
        let fields = Fields::new(row)?;
        let (chosen, rejected) = (fields.side("chosen")?, fields.side("rejected")?);
        let (prompt, [chosen, rejected]) = parts(&fields, chosen, rejected)?;
        if same(&chosen, &rejected) {
            return Err(Problem::Same);
        }
        Ok(Preference {
            chosen: fields.joined(prompt.clone(), chosen, "chosen")?,
            rejected: fields.joined(prompt, rejected, "rejected")?,
        })
    }
}

/// The prompt of a pair and its two answers: the prompt is that of the row, or what both have in common.
fn parts(fields: &Fields<'_>, chosen: Side, rejected: Side) -> Result<(Side, [Side; 2]), Problem> {
    // Turns written in front of the answers: LLaMA-Factory's ShareGPT form.
    if fields.get("prompt").is_none() && (fields.get("conversations").is_some() || answers_alone(&chosen)) {
        return Ok((Side::Turns(fields.turns()?), [chosen, rejected]));
    }
    if fields.get("prompt").is_none() && fields.get("instruction").is_some() {
        return Ok((Side::Turns(fields.alpaca_prompt()?.0), [chosen, rejected]));
    }
    let prompt = fields.get("prompt").map(|_| fields.side("prompt")).transpose()?;
    match (prompt, chosen, rejected) {
        (None, Side::Text(chosen), Side::Text(rejected)) => match (human_turns(&chosen), human_turns(&rejected)) {
            (Some(chosen), Some(rejected)) => common_turns(chosen, rejected),
            _ => common_text(&chosen, &rejected),
        },
        (None, Side::Turns(chosen), Side::Turns(rejected)) => common_turns(chosen, rejected),
        // A prompt beside whole conversations says nothing new.
        (Some(_), Side::Turns(chosen), Side::Turns(rejected)) if asks(&chosen) && asks(&rejected) => {
            common_turns(chosen, rejected)
        }
        (Some(Side::Text(prompt)), chosen @ Side::Text(_), rejected @ Side::Text(_)) => {
            match human_turns(&prompt) {
                Some(turns) => Ok((Side::Turns(turns), [trimmed(chosen), trimmed(rejected)])),
                None => Ok((Side::Text(prompt), [chosen, rejected])),
            }
        }
        (Some(prompt), chosen, rejected) => Ok((prompt, [chosen, rejected])),
        (None, _, rejected) => Err(Problem::WrongType {
            field: "rejected".to_owned(),
            found: if matches!(rejected, Side::Text(_)) { "a string" } else { "a list" }.to_owned(),
            expected: "the type of `chosen`",
        }),
    }
}

/// A message object, as LLaMA-Factory has it, where a list would be a conversation.
fn answers_alone(side: &Side) -> bool {
    matches!(side, Side::Turns(turns) if turns.len() == 1 && turns[0].is_assistant())
}

/// Whether turns open with somebody who asks.
fn asks(turns: &[Turn]) -> bool {
    turns.first().is_some_and(|turn| !turn.is_assistant())
}

fn same(chosen: &Side, rejected: &Side) -> bool {
    match (chosen, rejected) {
        (Side::Text(chosen), Side::Text(rejected)) => chosen == rejected,
        (Side::Turns(chosen), Side::Turns(rejected)) => {
            chosen.len() == rejected.len() && chosen.iter().zip(rejected).all(|(a, b)| equal(a, b))
        }
        _ => false,
    }
}

fn equal(a: &Turn, b: &Turn) -> bool {
    a.message.json() == b.message.json()
}

fn trimmed(side: Side) -> Side {
    match side {
        Side::Text(text) => Side::Text(text.trim().to_owned()),
        turns => turns,
    }
}

/// The longest common beginning is the prompt, as in TRL's `extract_prompt`.
fn common_turns(mut chosen: Vec<Turn>, mut rejected: Vec<Turn>) -> Result<(Side, [Side; 2]), Problem> {
    let n = chosen.iter().zip(&rejected).take_while(|(a, b)| equal(a, b)).count();
    if n == chosen.len() && n == rejected.len() {
        return Err(Problem::Same);
    }
    let (chosen_rest, rejected_rest) = (chosen.split_off(n), rejected.split_off(n));
    Ok((Side::Turns(chosen), [Side::Turns(chosen_rest), Side::Turns(rejected_rest)]))
}

/// As [`common_turns`] for strings, by characters; a space at the cut goes to the answers.
fn common_text(chosen: &str, rejected: &str) -> Result<(Side, [Side; 2]), Problem> {
    if chosen == rejected {
        return Err(Problem::Same);
    }
    let common = chosen.char_indices().zip(rejected.chars()).take_while(|((_, a), b)| a == b);
    let mut at = common.last().map_or(0, |((at, c), _)| at + c.len_utf8());
    if chosen[..at].ends_with(' ') {
        at -= 1;
    }
    let side = |text: &str| Side::Text(text.to_owned());
    Ok((side(&chosen[..at]), [side(&chosen[at..]), side(&rejected[at..])]))
}

/// How hh-rlhf marks its turns.
const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// The turns of a dialogue in hh-rlhf's form: `\n\nHuman: ...\n\nAssistant: ...`. An assistant's turn that is still
/// to be written is none.
fn human_turns(text: &str) -> Option<Vec<Turn>> {
    if !text.starts_with(HUMAN) || !text.contains(ASSISTANT) {
        return None;
    }
    let mut turns = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (role, marker) = if rest.starts_with(HUMAN) { ("user", HUMAN) } else { ("assistant", ASSISTANT) };
        rest = &rest[marker.len()..];
        let end = [HUMAN, ASSISTANT].iter().filter_map(|marker| rest.find(marker)).min().unwrap_or(rest.len());
        turns.push(Turn::new(Message::new(role, rest[..end].trim())));
        rest = &rest[end..];
    }
    if turns.last().is_some_and(|turn| turn.is_assistant() && turn.says_nothing()) {
        turns.pop();
    }
    Some(turns)
}

impl Judged {
    /// The judged answers of a row: one with `label` or `kto_tag`, or the two of a preference row.
    ///
    /// # Errors
    /// What is wrong with the row; [`Problem::WrongKind`] for another format.
    pub fn of(format: Format, row: &Json) -> Result<Vec<Judged>, Problem> {
        match format {
            Format::Preference => {
                let Preference { chosen, rejected } = Preference::of(format, row)?;
                Ok(vec![Judged { answer: chosen, desirable: true }, Judged { answer: rejected, desirable: false }])
            }
            Format::Unpaired => Ok(vec![Judged::of_row(row)?]),
            found => Err(Problem::WrongKind { found, expected: "unpaired or preference rows" }),
        }
    }

    fn of_row(row: &Json) -> Result<Judged, Problem> {
        let fields = Fields::new(row)?;
        let name = if fields.get("kto_tag").is_some() { "kto_tag" } else { "label" };
        let label = fields.required(name)?;
        if label.kind() != ValueKind::Bool {
            return Err(wrong_type(name, &label, "true or false"));
        }
        let answer = if fields.get("completion").is_some() {
            fields.completed("completion")?
        } else if fields.get("instruction").is_some() {
            Lesson::of(Format::Alpaca, row)?
        } else {
            let dialogue = fields.dialogue()?;
            match dialogue.turns.last() {
                Some(last) if last.is_assistant() && last.says_nothing() => {
                    return Err(Problem::EmptyField { field: "content of the last message".to_owned() });
                }
                Some(last) if last.is_assistant() => Lesson::Dialogue(dialogue),
                _ => return Err(Problem::NoAssistant),
            }
        };
        Ok(Judged { answer, desirable: label.is_true() })
    }
}

impl Question {
    /// The prompt of a row: `prompt`, or what stands in front of the answer in rows that have one.
    ///
    /// # Errors
    /// What is wrong with the row; [`Problem::WrongKind`] for a format without prompts.
    pub fn of(format: Format, row: &Json) -> Result<Question, Problem> {
        let fields = Fields::new(row)?;
        let conversation = |turns: Vec<Turn>, tools| -> Result<Question, Problem> {
            let turns = fields.with_system(turns)?;
            if turns.last().is_none_or(Turn::is_assistant) {
                return Err(Problem::AnsweredPrompt);
            }
            let messages = turns.into_iter().map(|turn| turn.message).collect();
            Ok(Question::Dialogue(Conversation { messages, tools }))
        };
        match format {
            Format::Prompt | Format::PromptCompletion => match fields.side("prompt")? {
                Side::Text(text) if text.trim().is_empty() => {
                    Err(Problem::EmptyField { field: "prompt".to_owned() })
                }
                Side::Text(text) if fields.text("system")?.is_none_or(|system| system.is_empty()) => {
                    Ok(Question::Text(text))
                }
                Side::Text(text) => conversation(vec![Turn::new(Message::new("user", &text))], fields.tools()?),
                Side::Turns(turns) => conversation(turns, fields.tools()?),
            },
            Format::Alpaca => {
                let (turns, tools) = fields.alpaca_prompt()?;
                conversation(turns, tools)
            }
            Format::Messages | Format::Sharegpt => {
                let turns = fields.turns()?;
                let turns = match Dialogue::of_turns(turns.clone(), None) {
                    Ok(dialogue) => turns[..dialogue.n_prompt].to_vec(),
                    Err(_) => turns,
                };
                conversation(turns, fields.tools()?)
            }
            found => Err(Problem::WrongKind { found, expected: "prompt rows" }),
        }
    }
}

#[cfg(test)]
mod tests;
