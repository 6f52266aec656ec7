//! The embedded corpus: little stories about a small consistent world, on demand from a seed, whose facts a program can check.
//!
//! A story is a sequence of [`Event`]s, each a [`Fact`] and the bytes of the text that tell it. The answers to its
//! questions are computed from the facts. The two [`Split`]s share no sentence and no question, because each sentence
//! belongs to one split by its hash ([`split_of_sentence`]); stories for training never let a person handle a thing at
//! a spot when that combination is held out ([`is_held_out`]), and never use an unseen phrasing ([`unseen_marks`]).
//! Answers are single names, spots, numbers and short clauses, which both splits use.

mod beats;
mod grammar;
mod lexicon;
mod phrases;
mod preferences;
mod questions;
mod scenes;
mod story;
mod wording;
mod world;

pub use questions::QuestionKind;
pub use world::{Event, Fact, Thing, combination, is_held_out, sentences, split_of_sentence};

use story::Teller;

/// Which stories: those to learn from, or those to be tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training and for choosing settings.
    Train,
    /// For evaluation: unseen combinations, and every other story told and asked in an unseen phrasing.
    HeldOut,
}

/// Whether a story is told and asked in words that training stories use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phrasing {
    /// The phrasings of training.
    Familiar,
    /// Moves and questions in phrasings that training never has.
    Unseen,
}

/// A story with its facts, questions and preference pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// The story, one paragraph per line, without a newline at the end.
    pub text: String,
    /// The names of everybody in the text.
    pub people: Vec<&'static str>,
    /// What happens, in order.
    pub events: Vec<Event>,
    /// Up to four questions of different kinds.
    pub questions: Vec<Question>,
    /// One pair for each question, in the same order.
    pub preferences: Vec<Preference>,
    /// Whether the words are those of training.
    pub phrasing: Phrasing,
}

/// A question about a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The question as asked.
    pub question: String,
    /// A full sentence, which contains the short answer.
    pub answer: String,
    /// A name, a spot, a number word, a thing with its article, a feeling or a clause, for exact match.
    pub short_answer: String,
    /// What is asked, as facts to look up.
    pub kind: QuestionKind,
}

/// Two replies to the same prompt, of which the chosen one is correct, polite and a single short sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The story and a question ([`prompt`]).
    pub prompt: String,
    /// The better reply.
    pub chosen: String,
    /// The worse reply.
    pub rejected: String,
    /// What is wrong with the worse reply.
    pub flaw: Flaw,
}

/// What is wrong with a rejected reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Polite and short, but not true in the story.
    Wrong,
    /// True, but unfriendly.
    Rude,
    /// True, but long.
    Rambling,
    /// Does not answer.
    OffTopic,
}

/// A story and a question as one prompt: the story, an empty line, and the question.
#[must_use]
pub fn prompt(text: &str, question: &str) -> String {
    format!("{text}\n\n{question}")
}

/// Words of which each story of unseen phrasing has some, in its text or its questions, and no training document any.
#[must_use]
pub fn unseen_marks() -> &'static [&'static str] {
    phrases::UNSEEN_MARKS
}

/// The story at `index` of a split: the same for the same arguments, on every machine.
#[must_use]
pub fn story(seed: u64, index: u64, split: Split) -> Story {
    let (purpose, phrasing) = match split {
        Split::Train => ("corpus/train", Phrasing::Familiar),
        Split::HeldOut if index.is_multiple_of(2) => ("corpus/held-out", Phrasing::Familiar),
        Split::HeldOut => ("corpus/held-out", Phrasing::Unseen),
    };
    let mut rng = fornax_base::rng::rng(seed, index, purpose);
    loop {
        let Some(mut teller) = Teller::cast(&mut rng, split, phrasing) else {
            continue;
        };
        if teller.whole().is_none() {
            continue;
        }
        let questions = questions::questions(&mut teller);
        if questions.len() < 2 {
            continue;
        }
        let preferences = preferences::preferences(&mut teller, &questions);
        return Story {
            people: teller.people(),
            text: teller.text,
            events: teller.events,
            questions,
            preferences,
            phrasing,
        };
    }
}

/// The stories of a split, without end.
pub fn stories(seed: u64, split: Split) -> impl Iterator<Item = Story> {
    (0..).map(move |index| story(seed, index, split))
}

/// Documents until `bytes` are reached: stories, one in eight of them followed by a question and its answer.
pub fn documents(seed: u64, split: Split, bytes: usize) -> impl Iterator<Item = String> {
    let mut written = 0;
    (0_u64..).map_while(move |index| {
        if written >= bytes {
            return None;
        }
        let story = story(seed, index, split);
        let mut document = story.text;
        if index % 8 == 7 {
            let Question { question, answer, .. } = &story.questions[0];
            document.push_str(&format!("\n\nQuestion: {question}\nAnswer: {answer}"));
        }
        written += document.len();
        Some(document)
    })
}
