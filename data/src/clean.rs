//! Cleaning: which documents are kept, and what is repaired in them. Every rule is off unless asked for, and needs no
//! word list of any language.
//!
//! The quality and repetition rules are those of Gopher (Rae et al. 2021, section A.1.1 and table A1), without its rule
//! of English stop words; the line rules are those of C4 (Raffel et al. 2020, section 2.2), without its list of bad words.

mod repetition;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokenizers::NormalizedString;

/// What is asked of a document. Absent limits are not checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleanOptions {
    /// Replace bytes that are not UTF-8 by U+FFFD; without it such a document is a bad row.
    #[serde(skip_serializing_if = "is_false")]
    pub replace_invalid: bool,
    /// Pass over rows that cannot be read (bad UTF-8, bad JSON, no text field, too long) and count them; without it
    /// the first of them ends the work.
    #[serde(skip_serializing_if = "is_false")]
    pub skip_bad_rows: bool,
    /// Bring text into Unicode's composed form (NFC).
    #[serde(skip_serializing_if = "is_false")]
    pub nfc: bool,
    /// Remove control characters except line breaks and tabs.
    #[serde(skip_serializing_if = "is_false")]
    pub strip_control: bool,
    /// C4's line rules: lines without a closing mark, of fewer than five words, or about JavaScript are removed;
    /// documents with placeholder text or braces, or with fewer than three sentences left, are dropped.
    #[serde(skip_serializing_if = "is_false")]
    pub c4_lines: bool,
    /// Fewest characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_chars: Option<u64>,
    /// Most characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_chars: Option<u64>,
    /// Fewest words; a word is what stands between white space.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_words: Option<u64>,
    /// Most words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_words: Option<u64>,
    /// Least mean length of a word in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_mean_word: Option<f64>,
    /// Greatest mean length of a word in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_mean_word: Option<f64>,
    /// Most `#` and ellipses a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_symbols: Option<f64>,
    /// Least share of words with a letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_alphabetic: Option<f64>,
    /// Greatest share of lines that begin with a bullet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bullets: Option<f64>,
    /// Greatest share of lines that end with an ellipsis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ellipses: Option<f64>,
    /// Greatest share of control characters (line breaks and tabs apart) and U+FFFD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_control: Option<f64>,
    /// The repetition rules of Gopher's table A1: repeated lines, paragraphs and n-grams.
    #[serde(skip_serializing_if = "is_false")]
    pub repetition: bool,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

impl CleanOptions {
    /// Fills in Gopher's limits where none is given.
    #[must_use]
    pub fn with_gopher(mut self) -> CleanOptions {
        self.min_words.get_or_insert(50);
        self.max_words.get_or_insert(100_000);
        self.min_mean_word.get_or_insert(3.0);
        self.max_mean_word.get_or_insert(10.0);
        self.max_symbols.get_or_insert(0.1);
        self.min_alphabetic.get_or_insert(0.8);
        self.max_bullets.get_or_insert(0.9);
        self.max_ellipses.get_or_insert(0.3);
        self.repetition = true;
        self
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == CleanOptions::default()
    }

    /// The limit that cannot be met or is no number, as a sentence.
    pub fn wrong(&self) -> Option<String> {
        let shares = [
            ("max_symbols", self.max_symbols),
            ("min_alphabetic", self.min_alphabetic),
            ("max_bullets", self.max_bullets),
            ("max_ellipses", self.max_ellipses),
            ("max_control", self.max_control),
        ];
        for (name, share) in shares {
            if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
                return Some(format!("{name} is {share}, a number from 0 to 1 is expected"));
            }
        }
        let float = |number: Option<u64>| number.map(|number| number as f64);
        let pairs = [
            ("min_chars", float(self.min_chars), "max_chars", float(self.max_chars)),
            ("min_words", float(self.min_words), "max_words", float(self.max_words)),
            ("min_mean_word", self.min_mean_word, "max_mean_word", self.max_mean_word),
        ];
        for (low_name, low, high_name, high) in pairs {
            for (name, number) in [(low_name, low), (high_name, high)] {
                if let Some(number) = number.filter(|number| !(number.is_finite() && *number >= 0.0)) {
                    return Some(format!("{name} is {number}, a number of at least 0 is expected"));
                }
            }
            if let (Some(low), Some(high)) = (low, high)
                && low > high
            {
                return Some(format!("{low_name} ({low}) is greater than {high_name} ({high})"));
            }
        }
        None
    }
}

/// Why a document is dropped. The order is that in which rules are looked at; one reason is counted for a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The row cannot be read.
    BadRow,
    /// Nothing is left of it after repairs.
    Empty,
    /// Placeholder text (`lorem ipsum`).
    PlaceholderText,
    /// A curly bracket: code rather than text.
    Braces,
    /// Fewer than three sentences are left.
    FewSentences,
    /// Too few characters.
    FewChars,
    /// Too many characters.
    ManyChars,
    /// Too many control characters.
    ControlChars,
    /// Too few words.
    FewWords,
    /// Too many words.
    ManyWords,
    /// Words are too short.
    ShortWords,
    /// Words are too long.
    LongWords,
    /// Too many `#` or ellipses.
    Symbols,
    /// Too few words with a letter.
    NotAlphabetic,
    /// Too many lines begin with a bullet.
    Bullets,
    /// Too many lines end with an ellipsis.
    Ellipses,
    /// Too many lines, or characters in lines, stand there twice.
    RepeatedLines,
    /// Too many paragraphs, or characters in paragraphs, stand there twice.
    RepeatedParagraphs,
    /// One short n-gram makes up too much of the text.
    TopNgram,
    /// Repeated long n-grams make up too much of the text.
    RepeatedNgrams,
    /// It shares an n-gram with a benchmark.
    Contaminated,
}

impl Reason {
    /// Its name, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Reason::BadRow => "bad_row",
            Reason::Empty => "empty",
            Reason::PlaceholderText => "placeholder_text",
            Reason::Braces => "braces",
            Reason::FewSentences => "few_sentences",
            Reason::FewChars => "few_chars",
            Reason::ManyChars => "many_chars",
            Reason::ControlChars => "control_chars",
            Reason::FewWords => "few_words",
            Reason::ManyWords => "many_words",
            Reason::ShortWords => "short_words",
            Reason::LongWords => "long_words",
            Reason::Symbols => "symbols",
            Reason::NotAlphabetic => "not_alphabetic",
            Reason::Bullets => "bullets",
            Reason::Ellipses => "ellipses",
            Reason::RepeatedLines => "repeated_lines",
            Reason::RepeatedParagraphs => "repeated_paragraphs",
            Reason::TopNgram => "top_ngram",
            Reason::RepeatedNgrams => "repeated_ngrams",
            Reason::Contaminated => "contaminated",
        }
    }
}

/// What was done to documents that were kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repairs {
    /// Documents in which bytes that are not UTF-8 were replaced.
    pub invalid_utf8: u64,
    /// Documents that NFC changed.
    pub nfc: u64,
    /// Control characters removed.
    pub control_chars: u64,
    /// Lines removed.
    pub lines: u64,
}

/// How many documents were dropped for which reason.
pub type Dropped = BTreeMap<Reason, u64>;

/// A document after repairs, and what was done to it; or why it is dropped.
pub(crate) type Verdict = Result<(String, Repairs), Reason>;

/// Repairs `text` and looks at it.
pub(crate) fn clean(options: &CleanOptions, text: String) -> Verdict {
    let mut repairs = Repairs::default();
    let text = repaired(options, text, &mut repairs);
    let text = if options.c4_lines { c4(&text, &mut repairs)? } else { text };
    if text.trim().is_empty() {
        return Err(Reason::Empty);
    }
    check_chars(options, &text)?;
    check_words(options, &text)?;
    check_lines(options, &text)?;
    if options.repetition {
        repetition::check(&text)?;
    }
    Ok((text, repairs))
}

fn repaired(options: &CleanOptions, mut text: String, repairs: &mut Repairs) -> String {
    if options.nfc && !text.is_ascii() {
        let mut normalized = NormalizedString::from(text.as_str());
        normalized.nfc();
        if normalized.get() != text {
            repairs.nfc = 1;
            text = normalized.get().to_owned();
        }
    }
    if options.strip_control {
        let before = text.chars().count();
        text.retain(|c| !is_control(c));
        repairs.control_chars = (before - text.chars().count()) as u64;
    }
    text
}

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\r' | '\t')
}

/// Marks that close a sentence: C4's, and those of other scripts.
const CLOSING: [char; 15] =
    ['.', '!', '?', '"', '\u{201d}', '\u{2026}', '。', '！', '？', '؟', '۔', '।', '॥', '»', '」'];

fn c4(text: &str, repairs: &mut Repairs) -> Result<String, Reason> {
    let lower = text.to_lowercase();
    if lower.contains("lorem ipsum") {
        return Err(Reason::PlaceholderText);
    }
    if text.contains('{') {
        return Err(Reason::Braces);
    }
    let is_kept = |line: &&str| {
        let line = line.trim();
        line.ends_with(CLOSING)
            && line.split_whitespace().count() >= 5
            && !line.to_lowercase().contains("javascript")
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let kept: Vec<&str> = lines.clone().filter(is_kept).collect();
    repairs.lines = (lines.count() - kept.len()) as u64;
    let sentences: usize = kept.iter().map(|line| sentences(line)).sum();
    if sentences < 3 {
        return Err(Reason::FewSentences);
    }
    Ok(match repairs.lines {
        0 => text.to_owned(),
        _ => kept.join("\n"),
    })
}

/// Sentences of a line: runs that end in a closing mark before white space or the end.
fn sentences(line: &str) -> usize {
    line.split_whitespace().filter(|word| word.ends_with(CLOSING)).count()
}

fn check_chars(options: &CleanOptions, text: &str) -> Result<(), Reason> {
    if options.min_chars.is_none() && options.max_chars.is_none() && options.max_control.is_none() {
        return Ok(());
    }
    let n = text.chars().count() as u64;
    if options.min_chars.is_some_and(|least| n < least) {
        return Err(Reason::FewChars);
    }
    if options.max_chars.is_some_and(|most| n > most) {
        return Err(Reason::ManyChars);
    }
    let control = || text.chars().filter(|c| is_control(*c) || *c == char::REPLACEMENT_CHARACTER).count();
    if options.max_control.is_some_and(|most| control() as f64 > most * n as f64) {
        return Err(Reason::ControlChars);
    }
    Ok(())
}

fn check_words(options: &CleanOptions, text: &str) -> Result<(), Reason> {
    let (mut n, mut chars, mut alphabetic) = (0u64, 0u64, 0u64);
    for word in text.split_whitespace() {
        n += 1;
        chars += word.chars().count() as u64;
        alphabetic += u64::from(word.contains(char::is_alphabetic));
    }
    if options.min_words.is_some_and(|least| n < least) {
        return Err(Reason::FewWords);
    }
    if options.max_words.is_some_and(|most| n > most) {
        return Err(Reason::ManyWords);
    }
    let words = n.max(1) as f64;
    let mean = chars as f64 / words;
    if options.min_mean_word.is_some_and(|least| mean < least) {
        return Err(Reason::ShortWords);
    }
    if options.max_mean_word.is_some_and(|most| mean > most) {
        return Err(Reason::LongWords);
    }
    let symbols = || {
        [text.matches('#').count(), text.matches("...").count(), text.matches('\u{2026}').count()]
            .into_iter()
            .max()
            .unwrap_or(0)
    };
    if options.max_symbols.is_some_and(|most| symbols() as f64 / words > most) {
        return Err(Reason::Symbols);
    }
    if options.min_alphabetic.is_some_and(|least| alphabetic as f64 / words < least) {
        return Err(Reason::NotAlphabetic);
    }
    Ok(())
}

fn check_lines(options: &CleanOptions, text: &str) -> Result<(), Reason> {
    if options.max_bullets.is_none() && options.max_ellipses.is_none() {
        return Ok(());
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let share = |is: &dyn Fn(&str) -> bool| {
        lines.iter().filter(|line| is(line)).count() as f64 / lines.len().max(1) as f64
    };
    let bullet = |line: &str| line.starts_with(['\u{2022}', '\u{2023}', '\u{25e6}', '*', '-']);
    if options.max_bullets.is_some_and(|most| share(&bullet) > most) {
        return Err(Reason::Bullets);
    }
    let ellipsis = |line: &str| line.ends_with("...") || line.ends_with('\u{2026}');
    if options.max_ellipses.is_some_and(|most| share(&ellipsis) > most) {
        return Err(Reason::Ellipses);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
