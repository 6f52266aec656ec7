//! Tokenizers measured on the same texts, and the places where they cut strangely.

use std::collections::HashSet;

use super::Tokenizer;

/// Texts of about a hundred words each that every comparison contains, with their names.
pub const SAMPLES: [(&str, &str); 6] = [
    ("english", include_str!("samples/english.txt")),
    ("arabic", include_str!("samples/arabic.txt")),
    ("mixed", include_str!("samples/mixed.txt")),
    ("code", include_str!("samples/code.txt")),
    ("json", include_str!("samples/json.txt")),
    ("legal", include_str!("samples/legal.txt")),
];

/// Distinct spans of one kind that are looked at; later ones are passed over.
const MOST_SPANS: usize = 2000;
/// A span is cut at so many characters.
const LONGEST_SPAN: usize = 80;
/// Words of at least so many letters can be the rarest.
const SHORTEST_WORD: usize = 6;

/// What is counted of a text before any tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Unicode scalar values.
    pub characters: usize,
    /// Bytes of UTF-8.
    pub bytes: usize,
    /// Pieces between whitespace.
    pub words: usize,
}

impl Size {
    /// Counts `text`.
    pub fn of(text: &str) -> Size {
        Size { characters: text.chars().count(), bytes: text.len(), words: text.split_whitespace().count() }
    }
}

/// What one tokenizer makes of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Number of tokens, without special ones around the text. `None` when the text cannot be encoded, as by a
    /// character vocabulary without one of its characters.
    pub tokens: Option<usize>,
    /// Tokens for unknown text; where the text cannot be encoded, the characters that are not in the vocabulary.
    pub unknown: usize,
    /// Whether decoding gives the text back.
    pub round_trip: bool,
}

impl Measure {
    /// Encodes `text` and decodes it again.
    pub fn of(tokenizer: &Tokenizer, text: &str) -> Measure {
        let Ok(ids) = tokenizer.encode(text, false) else {
            let mut buffer = [0; 4];
            let fails = |c: &char| tokenizer.encode(c.encode_utf8(&mut buffer), false).is_err();
            return Measure { tokens: None, unknown: text.chars().filter(fails).count(), round_trip: false };
        };
        let unknown = ids.iter().filter(|id| Some(**id) == tokenizer.unk_id()).count();
        let round_trip = tokenizer.decode(&ids, false).is_ok_and(|decoded| decoded == text);
        Measure { tokens: Some(ids.len()), unknown, round_trip }
    }
}

/// What kind of text tokenizers are known to cut strangely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Digits with their separators.
    Number,
    /// Whitespace at the start of a line, with the word after it.
    Indentation,
    /// An `http` address.
    Url,
    /// Pictographs with what joins and colours them.
    Emoji,
    /// An Arabic word with written vowels.
    Diacritics,
    /// A long word of letters, without written vowels.
    Word,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Kind; 6] =
        [Kind::Number, Kind::Indentation, Kind::Url, Kind::Emoji, Kind::Diacritics, Kind::Word];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Number => "number",
            Kind::Indentation => "indentation",
            Kind::Url => "URL",
            Kind::Emoji => "emoji",
            Kind::Diacritics => "diacritics",
            Kind::Word => "rare word",
        }
    }
}

/// A span of a text and how each tokenizer cuts it when it stands alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrangeSplit {
    /// What it is.
    pub kind: Kind,
    /// The span.
    pub text: String,
    /// For each tokenizer the bytes of its tokens; `None` where it cannot encode the span.
    pub splits: Vec<Option<Vec<Vec<u8>>>>,
}

/// For each kind that occurs in `text`, the span that takes the most tokens, counted over all `tokenizers` together.
pub fn strange_splits(tokenizers: &[&Tokenizer], text: &str) -> Vec<StrangeSplit> {
    let split = |tokenizer: &&Tokenizer, span: &str| -> Option<Vec<Vec<u8>>> {
        let ids = tokenizer.encode(span, false).ok()?;
        Some(ids.iter().map(|id| tokenizer.spelled(*id)).collect())
    };
    let of_kind = |kind: Kind| {
        let spans = spans(kind, text).into_iter();
        let all = spans
            .map(|span| (span, tokenizers.iter().map(|tokenizer| split(tokenizer, span)).collect::<Vec<_>>()));
        let n_tokens = |splits: &[Option<Vec<Vec<u8>>>]| splits.iter().flatten().map(Vec::len).sum::<usize>();
        // Of equals the one that comes earlier.
        let strangest = all.reduce(|best, next| if n_tokens(&next.1) > n_tokens(&best.1) { next } else { best });
        strangest.map(|(span, splits)| StrangeSplit { kind, text: span.to_owned(), splits })
    };
    Kind::ALL.into_iter().filter_map(of_kind).collect()
}

/// Distinct spans of one kind in their order.
fn spans(kind: Kind, text: &str) -> Vec<&str> {
    let found: Box<dyn Iterator<Item = &str>> = match kind {
        Kind::Number => Box::new(
            runs(text, |c| c.is_numeric() || ".,".contains(c))
                .map(|run| run.trim_matches(['.', ',']))
                .filter(|run| run.chars().filter(|c| c.is_numeric()).count() > 1),
        ),
        Kind::Indentation => Box::new(text.lines().filter_map(indentation)),
        Kind::Url => Box::new(text.split(|c: char| c.is_whitespace() || "\"'<>()".contains(c)).filter_map(url)),
        Kind::Emoji => Box::new(runs(text, is_emoji).filter(|run| run.chars().any(|c| !is_joiner(c)))),
        Kind::Diacritics => Box::new(runs(text, is_arabic).filter(|run| run.chars().any(is_vowel))),
        Kind::Word => Box::new(
            runs(text, char::is_alphabetic)
                .filter(|run| !run.chars().any(is_vowel) && run.chars().count() >= SHORTEST_WORD),
        ),
    };
    let mut seen = HashSet::new();
    found.map(shortened).filter(|span| !span.is_empty() && seen.insert(*span)).take(MOST_SPANS).collect()
}

/// The longest pieces of `text` all of whose characters are `wanted`.
fn runs(text: &str, wanted: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c| !wanted(c)).filter(|run| !run.is_empty())
}

/// The whitespace that opens a line and the letters behind it, or what else stands there, where that is more than one
/// space.
fn indentation(line: &str) -> Option<&str> {
    let depth = line.len() - line.trim_start().len();
    let behind = &line[depth..];
    let letters = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
    let end = letters.max(behind.chars().next()?.len_utf8());
    (depth > 1 || line.starts_with('\t')).then(|| &line[..depth + end])
}

fn url(word: &str) -> Option<&str> {
    let at = word.find("http://").or_else(|| word.find("https://"))?;
    Some(word[at..].trim_end_matches(['.', ',', ';', ':', '!', '?']))
}

fn shortened(span: &str) -> &str {
    span.char_indices().nth(LONGEST_SPAN).map_or(span, |(at, _)| &span[..at])
}

fn is_emoji(c: char) -> bool {
    matches!(c, '\u{2600}'..='\u{27BF}' | '\u{2B50}'..='\u{2B55}' | '\u{1F1E6}'..='\u{1F1FF}' | '\u{1F300}'..='\u{1FAFF}')
        || is_joiner(c)
}

/// The zero-width joiner and the variation selector that asks for colour.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200D}' | '\u{FE0F}')
}

fn is_arabic(c: char) -> bool {
    matches!(c, '\u{0620}'..='\u{065F}' | '\u{0670}'..='\u{06D3}')
}

/// Written vowels, doubling and their like.
fn is_vowel(c: char) -> bool {
    matches!(c, '\u{064B}'..='\u{065F}' | '\u{0670}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_found_by_kind() {
        let text = "In 1,234.5 and 7,\n    return x\n\tgo\n one\nsee (https://a.b/c?d=1&e). 👩‍👩‍👧 ok 🇯🇵❤️ مُحَمَّد كتب 2024 Straßenbahn 2024";
        let of = |kind| spans(kind, text);
        assert_eq!(of(Kind::Number), ["1,234.5", "2024"]);
        assert_eq!(of(Kind::Indentation), ["    return", "\tgo"]);
        assert_eq!(of(Kind::Url), ["https://a.b/c?d=1&e"]);
        assert_eq!(of(Kind::Emoji), ["👩‍👩‍👧", "🇯🇵❤️"]);
        assert_eq!(of(Kind::Diacritics), ["مُحَمَّد"]);
        assert_eq!(of(Kind::Word), ["return", "Straßenbahn"]);
        assert!(Kind::ALL.iter().all(|kind| spans(*kind, "").is_empty()));
        assert_eq!(spans(Kind::Number, &"1".repeat(200))[0].len(), LONGEST_SPAN);
    }

    #[test]
    fn measures_are_those_of_the_text() {
        let text = "aa bb\nñ";
        assert_eq!(Size::of(text), Size { characters: 7, bytes: 8, words: 3 });
        let characters = Tokenizer::characters(&mut std::iter::once(Ok(text.to_owned()))).unwrap();
        assert_eq!(Measure::of(&characters, text), Measure { tokens: Some(7), unknown: 0, round_trip: true });
        assert_eq!(Measure::of(&characters, "axbx"), Measure { tokens: None, unknown: 2, round_trip: false });
    }

    #[test]
    fn the_span_with_the_most_tokens_is_shown_as_each_tokenizer_cuts_it() {
        let documents = ["12 12 12 345", "b"].map(|text| Ok(text.to_owned()));
        let trained = Tokenizer::train_bpe(&mut documents.into_iter(), 262, &mut |_| {}).unwrap();
        let characters = Tokenizer::characters(&mut std::iter::once(Ok("0123456789".to_owned()))).unwrap();
        let found = strange_splits(&[&trained, &characters], "12 9876 x");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].kind, found[0].text.as_str()), (Kind::Number, "9876"));
        for split in &found[0].splits {
            assert_eq!(split.as_ref().unwrap().concat(), b"9876");
        }
        assert_eq!(strange_splits(&[&characters], "https://a.b")[0].splits, [None]);
        assert!(strange_splits(&[&trained], "").is_empty());
    }

    #[test]
    fn every_sample_has_its_hundred_words_and_every_kind_occurs() {
        for (name, text) in SAMPLES {
            let words = text.split_whitespace().count();
            assert!((50..=150).contains(&words), "{name}: {words}");
        }
        for kind in Kind::ALL {
            assert!(SAMPLES.iter().any(|(_, text)| !spans(kind, text).is_empty()), "{kind:?}");
        }
    }
}
