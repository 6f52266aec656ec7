//! Preference pairs: the chosen reply is correct and one short polite sentence, the rejected one fails by a known rule.

use super::grammar::pick;
use super::lexicon::{self, NUMBERS};
use super::questions::{QuestionKind, answer};
use super::story::Teller;
use super::world::{Fact, combination};
use super::{Flaw, Preference, Question, prompt};

/// One pair for each question.
pub(super) fn preferences(teller: &mut Teller<'_>, questions: &[Question]) -> Vec<Preference> {
    questions.iter().map(|question| preference(teller, question)).collect()
}

fn preference(teller: &mut Teller<'_>, question: &Question) -> Preference {
    let flaw = pick(teller.rng, &[Flaw::Wrong, Flaw::Rude, Flaw::Rambling, Flaw::OffTopic]);
    let rejected = match flaw {
        Flaw::Wrong => {
            let short = wrong(teller, question);
            polite(&answer(teller, &question.kind, &short))
        }
        Flaw::Rude => rude(teller, &question.answer),
        Flaw::Rambling => rambling(teller, &question.answer),
        Flaw::OffTopic => off_topic(teller),
    };
    let prompt = prompt(&teller.text, &question.question);
    Preference { prompt, chosen: polite(&question.answer), rejected, flaw }
}

/// The answer as one polite sentence.
fn polite(answer: &str) -> String {
    let clause = answer.strip_prefix("The ").map_or_else(|| answer.to_owned(), |rest| format!("the {rest}"));
    format!("I am happy to tell you that {clause}")
}

fn rude(teller: &mut Teller<'_>, answer: &str) -> String {
    let tail = teller.phrase(
        "[What a [silly|boring|dull|foolish] question|Now leave me alone|Read it yourself next time|\
         Stop asking me things|Anyone could see that|Are you not listening|Do not bother me again]!",
    );
    format!("{answer} {tail}")
}

fn rambling(teller: &mut Teller<'_>, answer: &str) -> String {
    let before = teller.phrase(
        "Well, let me think, because this story has many [parts|words|people] in it, and I like [stories|<food>|{weather} days] a lot.",
    );
    let after = teller.phrase(
        "And then there was more, and after that came [even more|something else|the end], and I could talk about it all {tod}, \
         or about [birds|boats|bears|clouds], or about <food>.",
    );
    format!("{before} {answer} {after}")
}

fn off_topic(teller: &mut Teller<'_>) -> String {
    teller.phrase(
        "[I would like <food> for lunch|My favorite game is <game>|Last night I dreamed of <dream>|\
         I think <lesson>|It will be {weather} tomorrow, and I want to <love>].",
    )
}

/// Another answer of the same sort, from the story where it has one.
fn wrong(teller: &mut Teller<'_>, question: &Question) -> String {
    use QuestionKind as Kind;
    let others: Vec<String> = match question.kind {
        Kind::WhereNow(_)
        | Kind::WhereRests(_)
        | Kind::WhereFirst(_)
        | Kind::WherePut(..)
        | Kind::WhereSought(..) => spots(teller),
        Kind::WhoHas(_) | Kind::WhoPut(..) | Kind::WhoTook(..) | Kind::WhoGave(..) | Kind::WhoGot(..) => {
            names(teller)
        }
        Kind::WhoBroke(_) | Kind::WhoMended(_) => names(teller),
        Kind::WhatGiven(..) => vec![format!("the {}", teller.another_thing())],
        Kind::CountFirst(..) | Kind::CountGained(..) | Kind::CountShared(..) | Kind::CountNow(..) => {
            NUMBERS[1..=9].iter().map(|&number| number.to_owned()).collect()
        }
        Kind::Feeling(..) => lexicon::class("badly").iter().map(|&word| word.to_owned()).collect(),
        Kind::WithWhat(_) => lexicon::class("tool").iter().map(|&word| word.to_owned()).collect(),
        Kind::WhyFeeling(who, _) => clauses(teller, who, "<trouble>"),
        Kind::WhyBroke(who, _) => clauses(teller, who, "<accident>"),
        Kind::WentAfter(..) | Kind::WentBefore(..) => {
            lexicon::PLACES.iter().map(|place| place.name.to_owned()).collect()
        }
    };
    let others: Vec<_> = others.into_iter().filter(|other| *other != question.short_answer).collect();
    others[teller.rng.below(others.len() as u64) as usize].clone()
}

/// The spots of the story, and of its place.
fn spots(teller: &Teller<'_>) -> Vec<String> {
    let told = teller.events.iter().filter_map(|event| combination(&event.fact)).map(|(_, _, spot)| spot);
    let mut spots: Vec<_> = told.map(str::to_owned).collect();
    spots.extend(teller.place.spots.iter().take(2).map(|&spot| spot.to_owned()));
    spots
}

fn names(teller: &Teller<'_>) -> Vec<String> {
    teller.people().into_iter().map(str::to_owned).collect()
}

/// Two other reasons the person could have had.
fn clauses(teller: &mut Teller<'_>, who: &str, template: &str) -> Vec<String> {
    let person = [teller.a, teller.b, teller.c].into_iter().find(|person| person.name == who);
    if let Some(person) = person {
        teller.actor(person);
    }
    let told: Vec<_> = teller.events.iter().filter_map(|event| cause(&event.fact)).map(str::to_owned).collect();
    std::iter::repeat_with(|| teller.phrase(template)).filter(|clause| !told.contains(clause)).take(2).collect()
}

fn cause(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::Feel { cause, .. } | Fact::Break { cause, .. } => Some(cause),
        _ => None,
    }
}
