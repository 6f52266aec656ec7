//! The embedded stories as rows of post-training data: questions, preferences, prompts.

use fornax_data::chat::Json;
use fornax_data::corpus::{Preference, Question, Split, Story, prompt, stories};
use fornax_data::records::Records;

use crate::recipe::{CORPUS, ObjectiveKind};

/// One talk in so many is polite.
const POLITE: u64 = 3;

/// `n` rows made of training stories, of the kind that `objective` reads.
pub(crate) fn records(objective: ObjectiveKind, seed: u64, n: u64) -> Records {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    let told = (0..).zip(stories(seed, Split::Train));
    let rows = told.flat_map(move |(index, story)| rows_of(objective, index, &story)).take(n);
    Records::made(CORPUS, rows)
}

fn rows_of(objective: ObjectiveKind, index: u64, story: &Story) -> Vec<Json> {
    match objective {
        ObjectiveKind::Sft | ObjectiveKind::Distill => vec![answered(story, index % POLITE == POLITE - 1)],
        ObjectiveKind::Grpo => story.questions.iter().map(|q| asked(story, q)).collect(),
        ObjectiveKind::Dpo
        | ObjectiveKind::Orpo
        | ObjectiveKind::Cpo
        | ObjectiveKind::Kto
        | ObjectiveKind::Reward => story.preferences.iter().map(preferred).collect(),
    }
}

fn message(role: &str, content: &str) -> Json {
    Json::from_pairs([("role", role), ("content", content)])
}

fn user(story: &Story, question: &Question) -> Json {
    message("user", &prompt(&story.text, &question.question))
}

/// A talk about one story: its questions one after another, so that one reading of the story trains several answers.
/// In some talks the answers are polite: preference tuning chooses among manners that the model has.
fn answered(story: &Story, is_polite: bool) -> Json {
    let asked = |(i, question): (usize, &Question)| match i {
        0 => user(story, question),
        _ => message("user", &question.question),
    };
    let turns = story.questions.iter().enumerate();
    let answer = |i: usize| if is_polite { &story.preferences[i].chosen } else { &story.questions[i].answer };
    let messages = turns.flat_map(|(i, q)| [asked((i, q)), message("assistant", answer(i))]);
    Json::from_pairs([("messages", Json::from_iter(messages))])
}

fn asked(story: &Story, question: &Question) -> Json {
    let (whole, short) = (Json::from(question.answer.as_str()), Json::from(question.short_answer.as_str()));
    Json::from_pairs([
        ("prompt", Json::from_iter([user(story, question)])),
        ("answer", whole),
        ("short_answer", short),
    ])
}

fn preferred(preference: &Preference) -> Json {
    let side = |text: &str| Json::from_iter([message("assistant", text)]);
    Json::from_pairs([
        ("prompt", Json::from_iter([message("user", &preference.prompt)])),
        ("chosen", side(&preference.chosen)),
        ("rejected", side(&preference.rejected)),
    ])
}
