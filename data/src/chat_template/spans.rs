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
    let search = Search { template, conversation, options, text: &rendered.text, controls: &template.controls };
    let mut spans: Vec<AssistantSpan> = Vec::new();
    let mut unplaced = Vec::new();
    for (message, _) in
        conversation.messages.iter().enumerate().filter(|(_, message)| ANSWERS.contains(&message.role()))
    {
        let from = spans.last().map_or(0, |last| last.range.end);
        match search.span(message).filter(|range| from <= range.start) {
            Some(range) => spans.push(AssistantSpan { message, range }),
            None => unplaced.push(message),
        }
    }
    (rendered.spans, rendered.unplaced) = (spans, unplaced);
}

/// The rendering of the whole conversation, and what is needed to render parts of it.
struct Search<'a> {
    template: &'a ChatTemplate,
    conversation: &'a Conversation,
    options: &'a RenderOptions,
    text: &'a Text,
    controls: &'a ControlTokens,
}

impl Search<'_> {
    fn render(&self, messages: &[Message], ask: bool) -> Option<Text> {
        self.template.render_part(messages, self.conversation, ask, self.options)
    }

    fn span(&self, message: usize) -> Option<Range<usize>> {
        let messages = &self.conversation.messages;
        let source = source_of(message);
        let any_question = [Message::new("user", "?")];
        // In a conversation that the assistant opens, what asks for an answer is seen behind any question.
        let question = self.render(&messages[..message], true).or_else(|| self.render(&any_question, true))?;
        let mut answer = self.render(&messages[..=message], false)?;
        let mut answered = messages[..=message].to_vec();
        let content = self.content(&answer, source);
        let start = self.start(&question, source, content.as_ref())?;
        let mut said = start;
        if let Some(content) = content {
            said = content.end;
        } else {
            // Where nothing is said, its place is seen by saying anything.
            answered[message] = Message::new(messages[message].role(), "!");
            answer = self.render(&answered, false)?;
            let place = extent(&answer, |found| found == source)?;
            let earlier =
                extent(&answer.slice(0..place.start), |found| found != TEMPLATE).map_or(0, |said| said.end);
            let lead = &answer.plain()[earlier..place.start];
            let before = self.said_before(source, self.text.plain().len());
            said = said.max(before + self.common(&self.text.plain()[before..], lead));
        }
        let mut tail = tail(&answer, source)?;
        let more = (message + 1 == messages.len()).then(|| [&answered[..], &any_question[..]].concat());
        let more = more.and_then(|more| self.render(&more, false));
        if let Some(more) = more.as_ref().and_then(|more| self::tail(more, source)) {
            // What the template writes once, behind all messages, does not end a turn.
            let common = self.common(tail, more);
            if !tail[..common].trim().is_empty() {
                tail = &tail[..common];
            }
        }
        let end = self.end(tail, said);
        (start < end).then_some(start..end)
    }

    /// Where the message of `source` stands, of which `answer` ends with all parts. Templates may repeat some of it
    /// later, such as the name of a tool beside what the tool answers.
    fn content(&self, answer: &Text, source: Source) -> Option<Range<usize>> {
        let parts = answer.runs().iter().filter(|(_, found)| *found == source).count();
        let mut start = 0;
        let mut ranges = Vec::new();
        for (end, found) in self.text.runs() {
            ranges.extend((*found == source).then_some(start..*end));
            start = *end;
        }
        let last = ranges.get(parts.min(ranges.len()).checked_sub(1)?)?;
        Some(ranges[0].start..last.end)
    }

    /// Where what other sources say before `limit` ends: those before `source`, or all where that says something.
    fn said_before(&self, source: Source, limit: usize) -> usize {
        let all = limit < self.text.plain().len();
        let earlier = |found: Source| found != TEMPLATE && (all || found < source);
        extent(&self.text.slice(0..limit), earlier).map_or(0, |said| said.end)
    }

    /// Where the answer to `question` begins, which has this source and stands at `content`.
    fn start(&self, question: &Text, source: Source, content: Option<&Range<usize>>) -> Option<usize> {
        let whole = self.text.plain();
        if whole.starts_with(question.plain()) {
            let start = question.plain().len();
            return Some(start).filter(|start| content.is_none_or(|content| *start <= content.start));
        }
        // What is said before the answer, in both, and what the template writes behind it.
        let before = self.said_before(source, content.map_or(whole.len(), |content| content.start));
        let limit = content.map_or_else(|| self.next_said(before), |content| content.start);
        let asked = extent(question, |source| source != TEMPLATE).map_or(0, |said| said.end);
        let (gap, header) = (&whole[before..limit], &question.plain()[asked..]);
        let common = self.common(gap, header);
        if common == header.len() {
            return Some(before + common);
        }
        // The header may stand behind something else, as at the beginning of a text.
        if let Some(found) = gap.rfind(header).filter(|_| !header.is_empty()) {
            return Some(before + found + header.len());
        }
        let same = gap.bytes().rev().zip(header.bytes().rev()).take_while(|(a, b)| a == b).count();
        match content {
            Some(content) if common == 0 && same > 0 => Some(content.start),
            _ => self.header_end(&gap[..common]).map(|end| before + end),
        }
    }

    /// Where the next text begins that is not the template's.
    fn next_said(&self, from: usize) -> usize {
        let mut start = 0;
        for (end, source) in self.text.runs() {
            if *source != TEMPLATE && start >= from {
                return start;
            }
            start = *end;
        }
        start
    }

    /// Where a header ends that an answer shares with what asks for one before it goes on in another way: with the line
    /// behind its last special token.
    fn header_end(&self, shared: &str) -> Option<usize> {
        let Some((token, _)) = self.controls.occurrences(shared).into_iter().rfind(|(_, special)| *special) else {
            let end = shared.trim_end_matches(|character: char| !character.is_whitespace()).len();
            return Some(end).filter(|end| *end > 0);
        };
        let rest = &shared[token.end..];
        let line = rest.find('\n').map_or(0, |at| rest.len() - rest[at..].trim_start_matches('\n').len());
        Some(token.end + line)
    }

    /// Where an answer ends that was said up to `said`, and has `tail` behind it.
    fn end(&self, tail: &str, said: usize) -> usize {
        let rest = &self.text.plain()[said..];
        let written = &rest[..self.common(rest, tail)];
        if let Some((last, _)) = self.controls.occurrences(written).last() {
            return said + last.end;
        }
        // The last turn may end with another token than those before it.
        let first = |text: &str| {
            let (range, _) = self.controls.occurrences(text).into_iter().next()?;
            Some(range).filter(|range| text[..range.start].trim().is_empty())
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
            let found = self.controls.occurrences(&text[..reach]);
            if let Some((range, _)) = found.into_iter().find(|(range, _)| cut(range)) {
                same = range.start;
            }
        }
        same
    }
}

/// What the template writes in `answer` behind the message of this source, up to what is said next.
fn tail(answer: &Text, source: Source) -> Option<&str> {
    let said = extent(answer, |found| found == source)?.end;
    let next = extent(answer, |found| found > source).map_or(answer.plain().len(), |next| next.start);
    answer.plain().get(said..next)
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
