//! The template language: text with choices, slots and word classes, and the small rules of English that finish a sentence.
//!
//! `[a|b]` is one of its parts (which may nest), `{T}` a slot's text, `<happy>` a word of a class.

use super::lexicon;
use fornax_base::rng::Rng;

/// Texts by slot name. A slot that is not set reads as empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(Vec<(&'static str, String)>);

impl Slots {
    /// Sets or replaces a slot.
    pub(super) fn set(&mut self, name: &'static str, text: impl Into<String>) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(slot) => slot.1 = text.into(),
            None => self.0.push((name, text.into())),
        }
    }

    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text)
    }
}

/// One of the items, each as likely. The list must not be empty.
pub(super) fn pick<T: Copy>(rng: &mut Rng, items: &[T]) -> T {
    items[rng.below(items.len() as u64) as usize]
}

/// A template as finished sentences.
pub(super) fn render(template: &str, slots: &Slots, rng: &mut Rng) -> String {
    let mut text = String::with_capacity(160);
    expand(template, slots, rng, &mut text);
    polish(&text)
}

/// Appends the template with its choices made and slots filled.
pub(super) fn expand(template: &str, slots: &Slots, rng: &mut Rng, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find(['[', '{', '<']) {
        out.push_str(&rest[..at]);
        let (inner, tail) = match rest.as_bytes()[at] {
            b'[' => bracketed(&rest[at..]),
            b'{' => rest[at + 1..].split_once('}').unwrap_or(("", "")),
            _ => rest[at + 1..].split_once('>').unwrap_or(("", "")),
        };
        match rest.as_bytes()[at] {
            b'[' => expand(choose(inner, rng), slots, rng, out),
            b'{' => out.push_str(slots.get(inner)),
            _ => {
                let words = lexicon::class(inner);
                if !words.is_empty() {
                    expand(pick(rng, words), slots, rng, out);
                }
            }
        }
        rest = tail;
    }
    out.push_str(rest);
}

/// The inside of the bracket that begins the text, and what follows it.
fn bracketed(text: &str) -> (&str, &str) {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 1 => return (&text[1..at], &text[at + 1..]),
            b']' => depth -= 1,
            _ => {}
        }
    }
    ("", "")
}

/// One of the choices of a list.
fn choose<'a>(list: &'a str, rng: &mut Rng) -> &'a str {
    let mut parts: [&str; 16] = [""; 16];
    let mut count = 0;
    for (part, slot) in choices(list).zip(&mut parts) {
        *slot = part;
        count += 1;
    }
    pick(rng, &parts[..count])
}

/// The parts of a list between those `|` that are not inside a bracket; an empty list has one empty part.
pub(super) fn choices(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let list = rest?;
        let mut depth = 0_usize;
        let bar = list.bytes().position(|byte| {
            match byte {
                b'[' => depth += 1,
                b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            byte == b'|' && depth == 0
        });
        rest = bar.map(|bar| &list[bar + 1..]);
        Some(bar.map_or(list, |bar| &list[..bar]))
    })
}

/// Capital letters at the beginning of sentences, single spaces, and "an" before a vowel.
fn polish(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len() + 4);
    let mut begins = true;
    let mut words = raw.split(' ').filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        if !text.is_empty() {
            text.push(' ');
        }
        if begins {
            let quoted = usize::from(word.starts_with('"'));
            text.push_str(&word[..quoted]);
            let mut letters = word[quoted..].chars();
            text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
            text.push_str(letters.as_str());
        } else {
            text.push_str(word);
        }
        let bare = word.trim_start_matches('"');
        if bare.eq_ignore_ascii_case("a") && words.peek().is_some_and(|next| takes_an(next)) {
            text.push('n');
        }
        begins = word.ends_with(['.', '!', '?']);
    }
    text
}

/// Whether the word begins with a vowel sound.
fn takes_an(word: &str) -> bool {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
    let sounds_as_consonant = ["uni", "use", "one", "ukulele"].iter().any(|start| word.starts_with(start));
    let silent_h = ["honest", "hour"].iter().any(|start| word.starts_with(start));
    (vowel && !sounds_as_consonant) || silent_h
}
