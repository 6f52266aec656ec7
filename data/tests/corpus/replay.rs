//! What happened in a story, worked out from its facts alone and with no code of the generator.

use fornax_data::corpus::{Event, Fact, QuestionKind, Thing};
use std::collections::{BTreeMap, BTreeSet};

/// A replay that shares nothing with the generator: where everything is and how many there are, after each fact.
#[derive(Default)]
struct Replay {
    place: BTreeMap<Thing, String>,
    counts: BTreeMap<(String, String), i64>,
}

impl Replay {
    fn step(&mut self, fact: &Fact) {
        let held = |who: &str| format!("held by {who}");
        match fact {
            Fact::Lies { thing, spot } => {
                assert!(self.place.insert(*thing, (*spot).to_string()).is_none())
            }
            Fact::Has { who, thing } => assert!(self.place.insert(*thing, held(who)).is_none()),
            Fact::Take { who, thing, spot } => self.shift(*thing, spot, &held(who)),
            Fact::Put { who, thing, spot } => self.shift(*thing, &held(who), spot),
            Fact::Give { from, to, thing } => self.shift(*thing, &held(from), &held(to)),
            Fact::Seek { thing, spot, .. } => assert_ne!(self.place[thing], *spot),
            Fact::Break { who, thing, .. } | Fact::Mend { who, thing, .. } => {
                assert_eq!(self.place[thing], held(who))
            }
            Fact::Count { who, items, count } => self.add(who, items, *count as i64),
            Fact::Gain { who, items, count } => self.add(who, items, *count as i64),
            Fact::Lose { who, items, count } => self.add(who, items, -(*count as i64)),
            Fact::Share { from, to, items, count } => {
                self.add(from, items, -(*count as i64));
                self.add(to, items, *count as i64);
            }
            Fact::Go { .. } | Fact::Feel { .. } | Fact::Rests { .. } => {}
        }
    }

    fn shift(&mut self, thing: Thing, from: &str, to: &str) {
        let before = self.place.insert(thing, to.to_string());
        assert_eq!(before.as_deref(), Some(from), "{thing} was moved from where it was not");
    }

    fn add(&mut self, who: &str, items: &str, count: i64) {
        let held = self.counts.entry((who.to_string(), items.to_string())).or_default();
        *held += count;
        assert!((0..=20).contains(held), "{who} has {held} {items}");
    }
}

/// The word for a number from zero to twenty.
pub(crate) fn number(count: i64) -> String {
    let words = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen \
                 seventeen eighteen nineteen twenty";
    words.split_whitespace().nth(count as usize).unwrap().to_string()
}

/// Every answer that the facts give to the question; a good question has one.
pub(crate) fn answers(events: &[Event], kind: &QuestionKind) -> BTreeSet<String> {
    use QuestionKind as Kind;
    let mut replay = Replay::default();
    events.iter().for_each(|event| replay.step(&event.fact));
    let count = |who: &str, items: &str| number(replay.counts[&(who.to_string(), items.to_string())]);
    match kind {
        Kind::WhereNow(thing) => return BTreeSet::from([replay.place[thing].clone()]),
        Kind::WhoHas(thing) => {
            return BTreeSet::from([replay.place[thing].replace("held by ", "")]);
        }
        Kind::CountNow(who, items) => return BTreeSet::from([count(who, items)]),
        Kind::WhereSought(who, thing) => {
            let sought = events.iter().find_map(|event| match &event.fact {
                Fact::Seek { who: w, thing: t, spot } if w == who && t == thing => Some((*spot).to_string()),
                _ => None,
            });
            return sought.into_iter().collect();
        }
        Kind::WentAfter(who, place) => return neighbors(events, who, place, 1),
        Kind::WentBefore(who, place) => return neighbors(events, who, place, -1),
        _ => {}
    }
    events.iter().filter_map(|event| answer_in(&event.fact, kind)).collect()
}

/// The places that the person went to so many steps after this one.
fn neighbors(events: &[Event], who: &str, place: &str, steps: isize) -> BTreeSet<String> {
    let walk: Vec<&str> = events
        .iter()
        .filter_map(|event| match event.fact {
            Fact::Go { who: w, place } if w == who => Some(place),
            _ => None,
        })
        .collect();
    let at = |here: usize| walk.get(here.checked_add_signed(steps)?).map(|&there| there.to_string());
    (0..walk.len()).filter(|&here| walk[here] == place).filter_map(at).collect()
}

/// What a single fact answers.
fn answer_in(fact: &Fact, kind: &QuestionKind) -> Option<String> {
    use QuestionKind as Kind;
    let text = match (kind, fact) {
        (Kind::WhereFirst(t), Fact::Lies { thing, spot }) if t == thing => (*spot).to_string(),
        (Kind::WherePut(w, t), Fact::Put { who, thing, spot }) if (w, t) == (who, thing) => (*spot).to_string(),
        (Kind::WhoPut(t, s), Fact::Put { who, thing, spot }) if (t, s) == (thing, spot) => (*who).to_string(),
        (Kind::WhereRests(a), Fact::Rests { animal, spot }) if a == animal => (*spot).to_string(),
        (Kind::WhoTook(t, s), Fact::Take { who, thing, spot }) if (t, s) == (thing, spot) => (*who).to_string(),
        (Kind::WhoGave(t, w), Fact::Give { from, to, thing }) if (t, w) == (thing, to) => (*from).to_string(),
        (Kind::WhoGot(t, w), Fact::Give { from, to, thing }) if (t, w) == (thing, from) => (*to).to_string(),
        (Kind::WhatGiven(p, q), Fact::Give { from, to, thing }) if (p, q) == (from, to) => {
            format!("the {thing}")
        }
        (Kind::WhoBroke(t), Fact::Break { who, thing, .. }) if t == thing => (*who).to_string(),
        (Kind::WhyBroke(w, t), Fact::Break { who, thing, cause }) if (w, t) == (who, thing) => cause.clone(),
        (Kind::WhoMended(t), Fact::Mend { who, thing, .. }) if t == thing => (*who).to_string(),
        (Kind::WithWhat(t), Fact::Mend { thing, tool, .. }) if t == thing => tool.clone(),
        (Kind::CountFirst(w, i), Fact::Count { who, items, count }) if (w, i) == (who, items) => {
            number(*count as i64)
        }
        (Kind::CountGained(w, i), Fact::Gain { who, items, count }) if (w, i) == (who, items) => {
            number(*count as i64)
        }
        (Kind::CountShared(p, q, i), Fact::Share { from, to, items, count }) if (p, q, i) == (from, to, items) => {
            number(*count as i64)
        }
        (Kind::Feeling(w, _), Fact::Feel { who, feeling, .. }) if w == who => (*feeling).to_string(),
        (Kind::WhyFeeling(w, f), Fact::Feel { who, feeling, cause }) if (w, f) == (who, feeling) => cause.clone(),
        _ => return None,
    };
    Some(text)
}

/// What the telling of a fact must say; a name may be a pronoun.
pub(crate) fn must_say(fact: &Fact) -> Vec<String> {
    match fact {
        Fact::Lies { thing, spot } => vec![thing.to_string(), (*spot).to_string()],
        Fact::Has { thing, .. } => vec![thing.to_string()],
        Fact::Rests { animal, spot } => vec![(*animal).to_string(), (*spot).to_string()],
        Fact::Take { thing, .. } => vec![thing.noun.to_string()],
        Fact::Put { spot, .. } => vec![(*spot).to_string()],
        Fact::Give { from, to, thing } => vec![(*from).to_string(), (*to).to_string(), thing.noun.to_string()],
        Fact::Seek { thing, spot, .. } => vec![thing.noun.to_string(), (*spot).to_string()],
        Fact::Break { who, thing, cause } => {
            vec![(*who).to_string(), thing.noun.to_string(), cause.clone()]
        }
        Fact::Mend { who, thing, tool } => {
            vec![(*who).to_string(), thing.noun.to_string(), tool.clone()]
        }
        Fact::Go { place, .. } => vec![(*place).to_string()],
        Fact::Count { items, count, .. } if *count > 1 => {
            vec![(*items).to_string(), number(*count as i64)]
        }
        Fact::Share { from, to, count, .. } => {
            vec![(*from).to_string(), (*to).to_string(), number(*count as i64)]
        }
        Fact::Count { count, .. } | Fact::Gain { count, .. } | Fact::Lose { count, .. } => {
            vec![number(*count as i64)]
        }
        Fact::Feel { who, feeling, cause } => vec![(*who).to_string(), (*feeling).to_string(), cause.clone()],
    }
}
