//! Which part of a rendering each message of the assistant takes.
//!
//! It begins behind what the template writes to ask for an answer, and ends with the last control token of what it
//! writes behind the content when nothing follows. Both are seen by rendering the conversation up to the message, without
//! it and with it. Where such a rendering is not how the whole begins (some templates drop earlier thoughts), what it
//! ends with is looked for beside the content of the message, whose place is known from its origin.

use std::ops::Range;

use super::marks::{Source, TEMPLATE, Text};
use super::{AssistantSpan, ChatTemplate, RenderOptions, Rendered, source_of};
use crate::chat::{Conversation, Message};
use crate::tokenizer::ControlTokens;

/// Roles whose messages are answers.
const ANSWERS: [&str; 2] = ["assistant", "model"];

/// Fills in the spans of `rendered`.
pub(super) fn find(
    template: &ChatTemplate,
    conversation: &Conversation,
    options: &RenderOptions,
    rendered: &mut Rendered,
) {
    let whole = Whole { text: &rendered.text, controls: &template.controls };
    let mut spans: Vec<AssistantSpan> = Vec::new();
    let mut unplaced = Vec::new();
    for (at, message) in conversation.messages.iter().enumerate() {
        if !ANSWERS.contains(&message.role()) {
            continue;
        }
        let part = |count: usize, ask: bool| {
            template.render_part(&conversation.messages[..count], conversation, ask, options)
        };
        let question = part(at, true).or_else(|| {
            // A conversation that the assistant opens: what asks for an answer is seen behind any question.
            let question = [Message::new("user", "?")];
            template.render_part(&question, conversation, true, options)
        });
        let range = question.and_then(|question| {
            let content = whole.content(source_of(at));
            let start = whole.start(&question, content.as_ref())?;
            let answer = part(at + 1, false)?;
            let end = whole.end(&answer, source_of(at), start, content.as_ref());
            (start < end).then_some(start..end)
        });
        let behind =
            spans.last().is_none_or(|last| range.as_ref().is_none_or(|range| last.range.end <= range.start));
        match range.filter(|_| behind) {
            Some(range) => spans.push(AssistantSpan { message: at, range }),
            None => unplaced.push(at),
        }
    }
    (rendered.spans, rendered.unplaced) = (spans, unplaced);
}

/// The rendering of the whole conversation.
struct Whole<'a> {
    text: &'a Text,
    controls: &'a ControlTokens,
}

impl Whole<'_> {
    /// From the first to the last character of a source.
    fn content(&self, source: Source) -> Option<Range<usize>> {
        extent(self.text, |found| found == source)
    }

    /// Where the answer to `question` begins, whose content stands at `content`.
    fn start(&self, question: &Text, content: Option<&Range<usize>>) -> Option<usize> {
        let whole = self.text.plain();
        let begins = |start: &usize| content.is_none_or(|content| *start <= content.start);
        if whole.starts_with(question.plain()) {
            return Some(question.plain().len()).filter(begins);
        }
        let content = content?;
        // What is said before the answer, in both, and what the template writes behind it.
        let before =
            extent(&self.text.slice(0..content.start), |source| source != TEMPLATE).map_or(0, |said| said.end);
        let asked = extent(question, |source| source != TEMPLATE).map_or(0, |said| said.end);
        let (gap, header) = (&whole[before..content.start], &question.plain()[asked..]);
        let common = self.common(gap, header);
        if common == gap.len() || common == header.len() {
            return Some(before + common);
        }
        // The header may stand behind something else, as at the beginning of a text.
        if let Some(found) = gap.rfind(header).filter(|_| !header.is_empty()) {
            return Some(before + found + header.len());
        }
        let same = gap.bytes().rev().zip(header.bytes().rev()).take_while(|(a, b)| a == b).count();
        if same > 0 && common == 0 {
            return Some(content.start);
        }
        // Up to the last boundary that both share.
        let shared = &gap[..common];
        let controls = self.controls.occurrences(shared).last().map_or(0, |range| range.end);
        let spaces = shared.trim_end_matches(|character: char| !character.is_whitespace()).len();
        Some(controls.max(spaces)).filter(|boundary| *boundary > 0).map(|boundary| before + boundary)
    }

    /// Where the answer that begins at `start` ends; `answer` is the conversation with nothing behind it.
    fn end(&self, answer: &Text, source: Source, start: usize, content: Option<&Range<usize>>) -> usize {
        let whole = self.text.plain();
        let said = content.map_or(start, |content| content.end.max(start));
        let alone = match extent(answer, |found| found == source) {
            Some(content) => content.end,
            None => start.min(answer.plain().len()),
        };
        let (rest, tail) = (&whole[said..], answer.plain().get(alone..).unwrap_or_default());
        let common = self.common(rest, tail);
        let written = &rest[..common];
        if let Some(last) = self.controls.occurrences(written).last() {
            return said + last.end;
        }
        // The last turn may end with another token than those before it.
        let first = |text: &str| {
            let first = self.controls.occurrences(text).into_iter().next();
            first.filter(|range| text[..range.start].trim().is_empty())
        };
        if let (true, Some(_), Some(range)) = (written.trim().is_empty(), first(tail), first(rest)) {
            return said + range.end;
        }
        said + written.trim_end().len()
    }

    /// Bytes at the beginning of `a` and `b` that are the same, no control token being cut.
    fn common(&self, a: &str, b: &str) -> usize {
        let pairs = a.char_indices().zip(b.chars());
        let mut same = pairs.take_while(|((_, a), b)| a == b).last().map_or(0, |((at, a), _)| at + a.len_utf8());
        // A token is at most a few dozen bytes long; those that begin far behind do not matter.
        for text in [a, b] {
            let mut reach = text.len().min(same + 256);
            while !text.is_char_boundary(reach) {
                reach -= 1;
            }
            let cut = |range: &Range<usize>| range.start < same && same < range.end;
            if let Some(range) = self.controls.occurrences(&text[..reach]).into_iter().find(cut) {
                same = range.start;
            }
        }
        same
    }
}

/// From the first to the last character whose source is `wanted`.
fn extent(text: &Text, wanted: impl Fn(Source) -> bool) -> Option<Range<usize>> {
    let mut start = 0;
    let mut extent: Option<Range<usize>> = None;
    for (end, source) in text.runs() {
        if wanted(*source) {
            extent = Some(extent.map_or(start, |extent| extent.start)..*end);
        }
        start = *end;
    }
    extent
}
