//! Questions about a story, with answers computed from its facts.

use super::lexicon::NUMBERS;
use super::phrases::sentence_case;
use super::story::Teller;
use super::world::{Event, Fact, Thing, Where, World};
use super::{Phrasing, Question};

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
    let mut found = about_things(&facts, world);
    found.extend(about_numbers(&facts, world));
    found.extend(facts.iter().enumerate().flat_map(|(at, fact)| about_fact(&facts, at, fact)));
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

/// The questions that a single fact answers, if no other fact of the story answers them differently.
fn about_fact(facts: &[&Fact], at: usize, fact: &Fact) -> Vec<(QuestionKind, String)> {
    use QuestionKind as Kind;
    let once = |same: &dyn Fn(&Fact) -> bool| facts.iter().filter(|fact| same(fact)).count() == 1;
    let mut found = Vec::new();
    let mut push = |unique: bool, kind: Kind, answer: &str| {
        if unique {
            found.push((kind, answer.to_owned()));
        }
    };
    match fact {
        &Fact::Put { who, thing, spot } => {
            let by_who = once(&|f| matches!(f, Fact::Put { who: w, thing: t, .. } if *w == who && *t == thing));
            let at_spot = once(&|f| matches!(f, Fact::Put { thing: t, spot: s, .. } if *t == thing && *s == spot));
            push(by_who, Kind::WherePut(who, thing), spot);
            push(at_spot, Kind::WhoPut(thing, spot), who);
        }
        &Fact::Take { who, thing, spot } => {
            let once = once(&|f| matches!(f, Fact::Take { thing: t, spot: s, .. } if *t == thing && *s == spot));
            push(once, Kind::WhoTook(thing, spot), who);
        }
        &Fact::Give { from, to, thing } => {
            let got = once(&|f| matches!(f, Fact::Give { to: o, thing: t, .. } if *o == to && *t == thing));
            let gave = once(&|f| matches!(f, Fact::Give { from: o, thing: t, .. } if *o == from && *t == thing));
            let pair = once(&|f| matches!(f, Fact::Give { from: x, to: y, .. } if *x == from && *y == to));
            push(got, Kind::WhoGave(thing, to), from);
            push(gave, Kind::WhoGot(thing, from), to);
            push(pair, Kind::WhatGiven(from, to), &format!("the {thing}"));
        }
        &Fact::Seek { who, thing, spot } => {
            let earlier = facts[..at].iter().any(|f| matches!(f, Fact::Seek { who: w, .. } if *w == who));
            push(!earlier, Kind::WhereSought(who, thing), spot);
        }
        Fact::Break { who, thing, cause } => {
            push(true, Kind::WhoBroke(*thing), who);
            push(true, Kind::WhyBroke(who, *thing), cause);
        }
        Fact::Mend { who, thing, tool } => {
            push(true, Kind::WhoMended(*thing), who);
            push(true, Kind::WithWhat(*thing), tool);
        }
        &Fact::Gain { who, items, count } => {
            let once = once(&|f| matches!(f, Fact::Gain { who: w, .. } if *w == who));
            push(once, Kind::CountGained(who, items), NUMBERS[count]);
        }
        &Fact::Share { from, to, items, count } => {
            let once = once(&|f| matches!(f, Fact::Share { from: x, to: y, .. } if *x == from && *y == to));
            push(once, Kind::CountShared(from, to, items), NUMBERS[count]);
        }
        Fact::Feel { who, feeling, cause } => {
            let once = once(&|f| matches!(f, Fact::Feel { who: w, .. } if w == who));
            push(once, Kind::Feeling(who, cause.clone()), feeling);
            push(once, Kind::WhyFeeling(who, feeling), cause);
        }
        &Fact::Go { who, place } => {
            let next = facts[at + 1..].iter().find_map(|f| match f {
                Fact::Go { who: w, place: next } if *w == who => Some(*next),
                _ => None,
            });
            if let Some(next) = next {
                push(true, Kind::WentAfter(who, place), next);
                push(true, Kind::WentBefore(who, next), place);
            }
        }
        Fact::Lies { .. } | Fact::Has { .. } | Fact::Count { .. } | Fact::Lose { .. } => {}
    }
    found
}

/// The question as asked: familiar phrasings, and the one for unseen phrasing at the end.
fn phrasings(kind: &QuestionKind) -> (Vec<String>, String) {
    use QuestionKind as Kind;
    let lines: [String; 3] = match kind {
        Kind::WhereNow(t) => [format!("where is the {t} now"), format!("where is the {t} at the end of the story"), format!("where can we find the {t} at the end")],
        Kind::WhereFirst(t) => [format!("where was the {t} at first"), format!("where was the {t} in the beginning"), format!("where did the {t} lie at the start of the story")],
        Kind::WherePut(p, t) => [format!("where did {p} put the {t}"), format!("where did {p} leave the {t}"), format!("what spot did {p} choose for the {t}")],
        Kind::WhereSought(p, t) => [format!("where did {p} look for the {t} first"), format!("where did {p} first look for the {t}"), format!("what was the first spot where {p} looked for the {t}")],
        Kind::WhoHas(t) => [format!("who has the {t} now"), format!("who has the {t} at the end of the story"), format!("who holds the {t} at the end")],
        Kind::WhoPut(t, s) => [format!("who put the {t} {s}"), format!("who left the {t} {s}"), format!("who was it that put the {t} {s}")],
        Kind::WhoTook(t, s) => [format!("who picked up the {t} that was {s}"), format!("who took the {t} that was {s}"), format!("who found the {t} {s} and took it")],
        Kind::WhoGave(t, p) => [format!("who gave the {t} to {p}"), format!("who gave {p} the {t}"), format!("from whom did {p} get the {t}")],
        Kind::WhoGot(t, p) => [format!("who got the {t} from {p}"), format!("whom did {p} give the {t} to"), format!("to whom did {p} give the {t}")],
        Kind::WhoBroke(t) => [format!("who broke the {t}"), format!("who was it that broke the {t}"), format!("whose accident broke the {t}")],
        Kind::WhoMended(t) => [format!("who mended the {t}"), format!("who fixed the {t}"), format!("who made the {t} whole again")],
        Kind::WhatGiven(p, q) => [format!("what did {p} give to {q}"), format!("what did {p} give {q}"), format!("what did {q} get from {p}")],
        Kind::WithWhat(t) => [format!("what was the {t} mended with"), format!("what was used to fix the {t}"), format!("with what was the {t} mended")],
        Kind::CountFirst(p, i) => [format!("how many {i} did {p} have at first"), format!("how many {i} did {p} have in the beginning"), format!("how many {i} did {p} start with")],
        Kind::CountGained(p, i) => [format!("how many more {i} did {p} get"), format!("how many new {i} did {p} get"), format!("how many {i} did {p} add to the others")],
        Kind::CountShared(p, q, i) => [format!("how many {i} did {p} give to {q}"), format!("how many {i} did {q} get from {p}"), format!("how many of the {i} did {p} give {q}")],
        Kind::CountNow(p, i) => [format!("how many {i} does {p} have now"), format!("how many {i} does {p} have at the end"), format!("how many {i} does {p} have in all at the end of the story")],
        Kind::Feeling(p, c) => [format!("how did {p} feel when {c}"), format!("what did {p} feel when {c}"), format!("how was {p} feeling when {c}")],
        Kind::WhyFeeling(p, f) => [format!("why was {p} {f}"), format!("why did {p} feel {f}"), format!("what made {p} {f}")],
        Kind::WhyBroke(p, t) => [format!("why did {p} break the {t}"), format!("why did the {t} break when {p} had it"), format!("how did it happen that {p} broke the {t}")],
        Kind::WentAfter(p, l) => [format!("where did {p} go right after {l}"), format!("where did {p} go next after {l}"), format!("after {l}, where did {p} go")],
        Kind::WentBefore(p, l) => [format!("where did {p} go right before {l}"), format!("where had {p} been just before {l}"), format!("before {l}, where did {p} go")],
    };
    let unseen = format!("Can you tell me {}?", indirect(kind));
    (lines.iter().map(|line| sentence_case(&format!("{line}?"))).collect(), unseen)
}

/// The question in the word order that follows "Can you tell me".
fn indirect(kind: &QuestionKind) -> String {
    use QuestionKind as Kind;
    match kind {
        Kind::WhereNow(t) => format!("where the {t} is now"),
        Kind::WhereFirst(t) => format!("where the {t} was at first"),
        Kind::WherePut(p, t) => format!("where {p} put the {t}"),
        Kind::WhereSought(p, t) => format!("where {p} looked for the {t} first"),
        Kind::WhoHas(t) => format!("who has the {t} now"),
        Kind::WhoPut(t, s) => format!("who put the {t} {s}"),
        Kind::WhoTook(t, s) => format!("who picked up the {t} that was {s}"),
        Kind::WhoGave(t, p) => format!("who gave the {t} to {p}"),
        Kind::WhoGot(t, p) => format!("who got the {t} from {p}"),
        Kind::WhoBroke(t) => format!("who broke the {t}"),
        Kind::WhoMended(t) => format!("who mended the {t}"),
        Kind::WhatGiven(p, q) => format!("what {p} gave to {q}"),
        Kind::WithWhat(t) => format!("what the {t} was mended with"),
        Kind::CountFirst(p, i) => format!("how many {i} {p} had at first"),
        Kind::CountGained(p, i) => format!("how many more {i} {p} got"),
        Kind::CountShared(p, q, i) => format!("how many {i} {p} gave to {q}"),
        Kind::CountNow(p, i) => format!("how many {i} {p} has now"),
        Kind::Feeling(p, c) => format!("how {p} felt when {c}"),
        Kind::WhyFeeling(p, f) => format!("why {p} was {f}"),
        Kind::WhyBroke(p, t) => format!("why {p} broke the {t}"),
        Kind::WentAfter(p, l) => format!("where {p} went right after {l}"),
        Kind::WentBefore(p, l) => format!("where {p} went right before {l}"),
    }
}

/// The short answer as a full sentence.
pub(super) fn answer(kind: &QuestionKind, short: &str) -> String {
    use QuestionKind as Kind;
    let counted = |items: &str| if short == "one" { singular(items) } else { items.to_owned() };
    match kind {
        Kind::WhereNow(t) => format!("The {t} is {short}."),
        Kind::WhereFirst(t) => format!("The {t} was {short}."),
        Kind::WherePut(p, t) => format!("{p} put the {t} {short}."),
        Kind::WhereSought(p, t) => format!("{p} looked for the {t} {short}."),
        Kind::WhoHas(t) => format!("{short} has the {t}."),
        Kind::WhoPut(t, s) => format!("{short} put the {t} {s}."),
        Kind::WhoTook(t, s) => format!("{short} picked up the {t} that was {s}."),
        Kind::WhoGave(t, p) => format!("{short} gave the {t} to {p}."),
        Kind::WhoGot(t, p) => format!("{short} got the {t} from {p}."),
        Kind::WhoBroke(t) => format!("{short} broke the {t}."),
        Kind::WhoMended(t) => format!("{short} mended the {t}."),
        Kind::WhatGiven(p, q) => format!("{p} gave {short} to {q}."),
        Kind::WithWhat(t) => format!("The {t} was mended with {short}."),
        Kind::CountFirst(p, i) => format!("{p} had {short} {} at first.", counted(i)),
        Kind::CountGained(p, i) => format!("{p} got {short} more {}.", counted(i)),
        Kind::CountShared(p, q, i) => format!("{p} gave {short} {} to {q}.", counted(i)),
        Kind::CountNow(p, i) => format!("{p} has {short} {} now.", counted(i)),
        Kind::Feeling(p, _) => format!("{p} felt {short}."),
        Kind::WhyFeeling(p, f) => format!("{p} was {f} because {short}."),
        Kind::WhyBroke(p, t) => format!("{p} broke the {t} because {short}."),
        Kind::WentAfter(p, l) => format!("{p} went to {short} after {l}."),
        Kind::WentBefore(p, l) => format!("{p} went to {short} before {l}."),
    }
}

fn singular(items: &str) -> String {
    let known = super::lexicon::ITEMS.iter().find(|item| item.many == items);
    known.map_or(items, |item| item.one).to_owned()
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
        let (familiar, unseen) = phrasings(&kind);
        let question = match teller.phrasing {
            Phrasing::Familiar => teller.ask(&familiar),
            Phrasing::Unseen => teller.ask(&[unseen]),
        };
        if let Some(question) = question {
            let answer = answer(&kind, &short_answer);
            asked.push(Question { question, answer, short_answer, kind });
        }
    }
    asked
}
