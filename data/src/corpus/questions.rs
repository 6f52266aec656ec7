//! Questions about a story, with answers computed from its facts.

use super::lexicon::{self, NUMBERS};
use super::story::Teller;
use super::wording::{Wording, wording};
use super::world::{Event, Fact, Thing, Where, World};
use super::{Phrasing, Question};

/// How questions of unseen phrasing begin.
const UNSEEN: [&str; 4] =
    ["Can you tell me", "Can you tell me, please,", "Listen well: can you tell me", "My friend, can you tell me"];

/// What a question asks, as facts to look up. People are their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuestionKind {
    /// Where the thing lies at the end.
    WhereNow(Thing),
    /// Where the thing lay before anybody touched it.
    WhereFirst(Thing),
    /// Where the person, who did so once, put the thing.
    WherePut(&'static str, Thing),
    /// Where the person looked for the thing in vain, before looking elsewhere.
    WhereSought(&'static str, Thing),
    /// Where the animal was.
    WhereRests(&'static str),
    /// Who has the thing at the end.
    WhoHas(Thing),
    /// Who put the thing at the spot.
    WhoPut(Thing, &'static str),
    /// Who picked the thing up at the spot.
    WhoTook(Thing, &'static str),
    /// Who gave the thing to the person.
    WhoGave(Thing, &'static str),
    /// Who was given the thing by the person.
    WhoGot(Thing, &'static str),
    /// Who broke the thing.
    WhoBroke(Thing),
    /// Who mended the thing.
    WhoMended(Thing),
    /// What the one person gave to the other.
    WhatGiven(&'static str, &'static str),
    /// What the thing was mended with.
    WithWhat(Thing),
    /// How many of the items the person had before anything changed.
    CountFirst(&'static str, &'static str),
    /// How many more of the items the person got.
    CountGained(&'static str, &'static str),
    /// How many of the items the one person gave to the other.
    CountShared(&'static str, &'static str, &'static str),
    /// How many of the items the person has at the end: a sum.
    CountNow(&'static str, &'static str),
    /// What the person felt, and the reason that the question names.
    Feeling(&'static str, String),
    /// Why the person felt so.
    WhyFeeling(&'static str, &'static str),
    /// Why the person broke the thing.
    WhyBroke(&'static str, Thing),
    /// Where the person went next after that place.
    WentAfter(&'static str, &'static str),
    /// Where the person had gone just before that place.
    WentBefore(&'static str, &'static str),
}

/// Every question that the facts answer in one way, with its short answer.
pub(super) fn candidates(events: &[Event], world: &World) -> Vec<(QuestionKind, String)> {
    let facts: Vec<&Fact> = events.iter().map(|event| &event.fact).collect();
    let mut found: Vec<_> = facts.iter().flat_map(|fact| about_fact(fact)).collect();
    found.extend(about_things(&facts, world));
    found.extend(about_numbers(&facts, world));
    found.extend(about_order(&facts));
    // A question that two facts answer is ambiguous, so neither stays.
    let kinds: Vec<_> = found.iter().map(|(kind, _)| kind.clone()).collect();
    found.retain(|(kind, _)| kinds.iter().filter(|other| *other == kind).count() == 1);
    found
}

fn about_things(facts: &[&Fact], world: &World) -> Vec<(QuestionKind, String)> {
    let mut found = Vec::new();
    for (&thing, place) in &world.things {
        match *place {
            Where::At(spot) => found.push((QuestionKind::WhereNow(thing), spot.to_owned())),
            Where::Held(who) => found.push((QuestionKind::WhoHas(thing), who.to_owned())),
        }
        let lay = facts.iter().find_map(|fact| match fact {
            Fact::Lies { thing: other, spot } if *other == thing => Some(*spot),
            _ => None,
        });
        let place_now = match *place {
            Where::At(spot) => Some(spot),
            Where::Held(_) => None,
        };
        if let Some(spot) = lay.filter(|&spot| Some(spot) != place_now) {
            found.push((QuestionKind::WhereFirst(thing), spot.to_owned()));
        }
    }
    found
}

fn about_numbers(facts: &[&Fact], world: &World) -> Vec<(QuestionKind, String)> {
    let mut found = Vec::new();
    for fact in facts {
        if let Fact::Count { who, items, count } = fact {
            found.push((QuestionKind::CountFirst(who, items), NUMBERS[*count].to_owned()));
            let now = world.counts.get(&(*who, *items)).copied().unwrap_or(0);
            if now > 0 {
                found.push((QuestionKind::CountNow(who, items), NUMBERS[now].to_owned()));
            }
        }
    }
    found
}

/// The questions about which spot or place came before which.
fn about_order(facts: &[&Fact]) -> Vec<(QuestionKind, String)> {
    let sought = facts.iter().find_map(|fact| match **fact {
        Fact::Seek { who, thing, spot } => Some((QuestionKind::WhereSought(who, thing), spot)),
        _ => None,
    });
    let mut found: Vec<_> = sought.into_iter().collect();
    let walk: Vec<_> = facts
        .iter()
        .filter_map(|fact| match **fact {
            Fact::Go { who, place } => Some((who, place)),
            _ => None,
        })
        .collect();
    for pair in walk.windows(2) {
        let ((who, before), (_, after)) = (pair[0], pair[1]);
        found.push((QuestionKind::WentAfter(who, before), after));
        found.push((QuestionKind::WentBefore(who, after), before));
    }
    found.into_iter().map(|(kind, answer)| (kind, answer.to_owned())).collect()
}

/// The questions that a fact answers by itself.
fn about_fact(fact: &Fact) -> Vec<(QuestionKind, String)> {
    use QuestionKind as Kind;
    match fact.clone() {
        Fact::Put { who, thing, spot } => {
            vec![(Kind::WherePut(who, thing), spot.to_owned()), (Kind::WhoPut(thing, spot), who.to_owned())]
        }
        Fact::Take { who, thing, spot } => vec![(Kind::WhoTook(thing, spot), who.to_owned())],
        Fact::Give { from, to, thing } => vec![
            (Kind::WhoGave(thing, to), from.to_owned()),
            (Kind::WhoGot(thing, from), to.to_owned()),
            (Kind::WhatGiven(from, to), format!("the {thing}")),
        ],
        Fact::Break { who, thing, cause } => {
            vec![(Kind::WhoBroke(thing), who.to_owned()), (Kind::WhyBroke(who, thing), cause)]
        }
        Fact::Mend { who, thing, tool } => {
            vec![(Kind::WhoMended(thing), who.to_owned()), (Kind::WithWhat(thing), tool)]
        }
        Fact::Gain { who, items, count } => {
            vec![(Kind::CountGained(who, items), NUMBERS[count].to_owned())]
        }
        Fact::Share { from, to, items, count } => {
            vec![(Kind::CountShared(from, to, items), NUMBERS[count].to_owned())]
        }
        Fact::Feel { who, feeling, cause } => {
            vec![(Kind::Feeling(who, cause.clone()), feeling.to_owned()), (Kind::WhyFeeling(who, feeling), cause)]
        }
        Fact::Rests { animal, spot } => vec![(Kind::WhereRests(animal), spot.to_owned())],
        _ => Vec::new(),
    }
}

/// Fills the slots of the wording for a question.
fn fill(teller: &mut Teller<'_>, kind: &QuestionKind) {
    use QuestionKind as Kind;
    match kind {
        Kind::WhereNow(thing) | Kind::WhereFirst(thing) | Kind::WhoHas(thing) => teller.thing(*thing),
        Kind::WhoBroke(thing) | Kind::WhoMended(thing) | Kind::WithWhat(thing) => teller.thing(*thing),
        Kind::WherePut(who, thing) | Kind::WhereSought(who, thing) => teller.set("P", *who).thing(*thing),
        Kind::WhoGave(thing, who) | Kind::WhoGot(thing, who) => teller.set("P", *who).thing(*thing),
        Kind::WhyBroke(who, thing) => teller.set("P", *who).thing(*thing),
        Kind::WhoPut(thing, spot) | Kind::WhoTook(thing, spot) => teller.set("S", *spot).thing(*thing),
        Kind::WhereRests(animal) => teller.set("animal", *animal),
        Kind::WhatGiven(from, to) => teller.set("P", *from).set("Q", *to),
        Kind::CountFirst(who, items) | Kind::CountGained(who, items) => teller.set("P", *who).set("items", *items),
        Kind::CountNow(who, items) => teller.set("P", *who).set("items", *items),
        Kind::CountShared(from, to, items) => teller.set("P", *from).set("Q", *to).set("items", *items),
        Kind::Feeling(who, cause) => teller.set("P", *who).set("cause", cause.as_str()),
        Kind::WhyFeeling(who, feeling) => teller.set("P", *who).set("feel", *feeling),
        Kind::WentAfter(who, place) | Kind::WentBefore(who, place) => teller.set("P", *who).set("L", *place),
    };
}

/// A short answer as a full sentence.
pub(super) fn answer(teller: &mut Teller<'_>, kind: &QuestionKind, short: &str) -> String {
    use QuestionKind as Kind;
    fill(teller, kind);
    if let Kind::CountFirst(_, items)
    | Kind::CountGained(_, items)
    | Kind::CountNow(_, items)
    | Kind::CountShared(.., items) = kind
    {
        let item = lexicon::ITEMS.iter().find(|item| item.many == *items).filter(|_| short == "one");
        teller.set("item_s", item.map_or(*items, |item| item.one));
    }
    teller.set("A", short).finished(wording(kind).answer)
}

/// Up to four questions of different kinds about the story just told.
pub(super) fn questions(teller: &mut Teller<'_>) -> Vec<Question> {
    let mut found = candidates(&teller.events, &teller.world);
    teller.rng.shuffle(&mut found);
    let mut asked: Vec<Question> = Vec::with_capacity(4);
    for (kind, short_answer) in found {
        let same = |other: &Question| std::mem::discriminant(&other.kind) == std::mem::discriminant(&kind);
        if asked.len() == 4 || asked.iter().any(same) {
            continue;
        }
        fill(teller, &kind);
        let Wording { asked: familiar, indirect, .. } = wording(&kind);
        let question = match teller.phrasing {
            Phrasing::Familiar => teller.ask(familiar),
            Phrasing::Unseen => teller.ask(&UNSEEN.map(|start| format!("{start} {indirect}?"))),
        };
        if let Some(question) = question {
            let answer = answer(teller, &kind, &short_answer);
            asked.push(Question { question, answer, short_answer, kind });
        }
    }
    asked
}
