//! Marks around text that does not come from the template, so that it can be told apart in what the template writes.
//!
//! A mark is a private-use character: one that opens for each origin, one that closes. A template passes them on with
//! the text they enclose. Where the input holds such characters itself, others stand in for them while rendering.

use std::ops::Range;

use minijinja::Value;

/// First of the characters kept for marks, which also closes; those behind it open.
const CLOSE: u32 = 0x10_C000;
/// How many characters lie in one block; plane 15 and 16 have four blocks each, the last of which is the marks'.
const BLOCK: u32 = 0x4000;
/// First character of plane 15.
const PLANE_15: u32 = 0xF_0000;
/// The blocks of both planes that are not the marks'.
const STAND_INS: u32 = 7;
/// Sources that can be told apart: one for data beside the messages, the others for messages.
pub(super) const MOST_SOURCES: usize = BLOCK as usize - 2;

/// Who wrote a character: 0 is the template, n > 0 is the n-th marked source.
pub(super) type Source = u16;
/// The template itself.
pub(super) const TEMPLATE: Source = 0;

fn mark_of(character: char) -> Option<Source> {
    u32::from(character).checked_sub(CLOSE).map(|offset| offset as Source)
}

fn mark(source: Source) -> char {
    char::from_u32(CLOSE + u32::from(source)).unwrap_or('\u{10FFFD}')
}

/// Whether some character of `text` is a mark. All of them start with the same byte.
pub(super) fn has_marks(text: &str) -> bool {
    text.as_bytes().contains(&0xF4) && text.chars().any(|character| mark_of(character).is_some())
}

/// `text` with marks around it; nothing stays nothing, so that it stays false in a condition.
pub(super) fn marked(text: &str, source: Source) -> String {
    if text.is_empty() {
        return String::new();
    }
    let mut marked = String::with_capacity(text.len() + 8);
    marked.push(mark(source));
    marked.push_str(text);
    marked.push(mark(TEMPLATE));
    marked
}

/// A text without marks, and who wrote what of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Text {
    plain: String,
    /// Byte offset of the end of each run of one source, rising, the last being the length of `plain`.
    runs: Vec<(usize, Source)>,
}

impl Text {
    /// Reads marks leniently: one that closes without an opener says nothing, one that is not closed goes to the end.
    pub(super) fn read(text: &str) -> Text {
        Text::parse(text).0
    }

    /// Reads marks that must stand in pairs, as they do unless the template cut one off.
    pub(super) fn read_whole(text: &str) -> Option<Text> {
        let (text, whole) = Text::parse(text);
        whole.then_some(text)
    }

    fn parse(marked: &str) -> (Text, bool) {
        let mut text = Text::default();
        if !has_marks(marked) {
            text.push_str(marked, TEMPLATE);
            return (text, true);
        }
        text.plain.reserve(marked.len());
        let (mut source, mut whole, mut from) = (TEMPLATE, true, 0);
        for (at, character) in marked.char_indices() {
            if let Some(next) = mark_of(character) {
                whole &= (source == TEMPLATE) != (next == TEMPLATE);
                text.push_str(&marked[from..at], source);
                source = next;
                from = at + character.len_utf8();
            }
        }
        text.push_str(&marked[from..], source);
        (text, whole && source == TEMPLATE)
    }

    /// The text with its marks, for the template to go on with.
    pub(super) fn write(&self) -> String {
        let mut marked = String::with_capacity(self.plain.len() + 8 * self.runs.len());
        let mut start = 0;
        for (end, source) in &self.runs {
            if *source == TEMPLATE {
                marked.push_str(&self.plain[start..*end]);
            } else {
                marked.push(mark(*source));
                marked.push_str(&self.plain[start..*end]);
                marked.push(mark(TEMPLATE));
            }
            start = *end;
        }
        marked
    }

    pub(super) fn value(&self) -> Value {
        Value::from(self.write())
    }

    pub(super) fn plain(&self) -> &str {
        &self.plain
    }

    /// Ends and sources of the runs, in order.
    pub(super) fn runs(&self) -> &[(usize, Source)] {
        &self.runs
    }

    pub(super) fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }

    pub(super) fn push_str(&mut self, text: &str, source: Source) {
        if text.is_empty() {
            return;
        }
        self.plain.push_str(text);
        match self.runs.last_mut() {
            Some((end, last)) if *last == source => *end = self.plain.len(),
            _ => self.runs.push((self.plain.len(), source)),
        }
    }

    pub(super) fn push(&mut self, other: &Text) {
        other.each(0..other.plain.len(), |piece, source| self.push_str(piece, source));
    }

    /// The bytes of `range`, which starts and ends between characters.
    pub(super) fn slice(&self, range: Range<usize>) -> Text {
        let mut cut = Text::default();
        self.each(range, |piece, source| cut.push_str(piece, source));
        cut
    }

    /// The text with each run changed by `change`.
    pub(super) fn map(&self, change: impl Fn(&str) -> String) -> Text {
        let mut changed = Text::default();
        self.each(0..self.plain.len(), |piece, source| changed.push_str(&change(piece), source));
        changed
    }

    /// The pieces of `range` with their sources.
    pub(super) fn each(&self, range: Range<usize>, mut visit: impl FnMut(&str, Source)) {
        let first = self.runs.partition_point(|(end, _)| *end <= range.start);
        let mut start = range.start;
        for (end, source) in &self.runs[first..] {
            let end = (*end).min(range.end);
            if start >= end {
                break;
            }
            visit(&self.plain[start..end], *source);
            start = end;
        }
    }

    /// Who wrote the character at byte `at`.
    pub(super) fn source_at(&self, at: usize) -> Source {
        let run = self.runs.partition_point(|(end, _)| *end <= at);
        self.runs.get(run).map_or(TEMPLATE, |(_, source)| *source)
    }
}

/// What stands in for characters of the input that are kept for marks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StandIn {
    /// How far below a mark its stand-in lies; 0 where none is needed.
    down: u32,
}

impl StandIn {
    pub(super) const NONE: StandIn = StandIn { down: 0 };

    /// A block of characters that none of `texts` holds; `None` where they hold some of each.
    pub(super) fn for_texts<'a>(texts: impl Iterator<Item = &'a str>) -> Option<StandIn> {
        let mut used = [false; STAND_INS as usize + 1];
        for text in texts {
            // Both planes start with these two bytes in UTF-8.
            if text.bytes().any(|byte| byte >= 0xF3) {
                let blocks = text.chars().filter_map(|character| u32::from(character).checked_sub(PLANE_15));
                blocks.for_each(|offset| used[(offset / BLOCK) as usize] = true);
            }
        }
        if !used[STAND_INS as usize] {
            return Some(StandIn::NONE);
        }
        let free = used.iter().position(|used| !used)? as u32;
        Some(StandIn { down: (STAND_INS - free) * BLOCK })
    }

    /// The text with stand-ins for the characters of marks.
    pub(super) fn put(self, text: &str) -> String {
        self.shift(text, CLOSE, |code| code - self.down)
    }

    /// The text as it was.
    pub(super) fn undo(self, text: &str) -> String {
        self.shift(text, CLOSE - self.down, |code| code + self.down)
    }

    fn shift(self, text: &str, first: u32, to: impl Fn(u32) -> u32) -> String {
        if self.down == 0 {
            return text.to_owned();
        }
        let block = first..first + BLOCK;
        let shifted = |character: char| {
            let code = u32::from(character);
            let code = if block.contains(&code) { to(code) } else { code };
            char::from_u32(code).unwrap_or(character)
        };
        text.chars().map(shifted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_enclose_and_are_taken_off() {
        let line = format!("<|user|>{}!", marked("hi", 3));
        let text = Text::read_whole(&line).unwrap();
        assert_eq!((text.plain(), text.runs()), ("<|user|>hi!", &[(8, 0), (10, 3), (11, 0)][..]));
        assert_eq!(text.write(), line);
        assert_eq!(text.slice(7..9).runs(), &[(1, 0), (2, 3)]);
        assert_eq!([text.source_at(7), text.source_at(8), text.source_at(10), text.source_at(11)], [0, 3, 0, 0]);
        assert_eq!(marked("", 3), "");
    }

    #[test]
    fn a_mark_that_was_cut_off_is_noticed() {
        let line = marked("hi", 3);
        let open = line.strip_suffix('\u{10C000}').unwrap();
        assert!(Text::read_whole(open).is_none());
        assert_eq!(Text::read(open).plain(), "hi");
        assert!(Text::read_whole(&line[4..]).is_none() && Text::read_whole(&format!("{open}{line}")).is_none());
    }

    #[test]
    fn other_characters_stand_in_for_those_of_marks() {
        let odd = "a\u{10C000}\u{10FFFF}\u{F0000}b";
        let stand_in = StandIn::for_texts([odd].into_iter()).unwrap();
        let put = stand_in.put(odd);
        assert!(!has_marks(&put) && put.contains('\u{F0000}'));
        assert_eq!(stand_in.undo(&put), odd);
        assert_eq!(StandIn::for_texts(["plain 🙂 \u{F0000}"].into_iter()), Some(StandIn::NONE));
        let all: String = (0..8).filter_map(|block| char::from_u32(PLANE_15 + block * BLOCK)).collect();
        assert_eq!(StandIn::for_texts([all.as_str()].into_iter()), None);
    }
}
