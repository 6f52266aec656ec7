//! The beats of a story: a fact or two, and the sentences that tell them.

use super::grammar::pick;
use super::lexicon::{self, Item, NUMBERS, Source};
use super::phrases::*;
use super::story::{Person, Teller};
use super::world::{Fact, Thing};

/// The third person comes in, or comes back.
pub(super) fn third(t: &mut Teller<'_>) -> Option<()> {
    let templates = if t.c_is_known { THIRD_AGAIN } else { THIRD };
    t.c_is_known = true;
    let c = t.c;
    t.actor(c).say(templates)
}

/// The person has the thing.
pub(super) fn has(t: &mut Teller<'_>, who: Person, thing: Thing) -> Option<()> {
    t.actor(who).thing(thing);
    t.tell(HAS, &[Fact::Has { who: who.name, thing }])
}

/// The person finds the thing and picks it up.
pub(super) fn find(t: &mut Teller<'_>, who: Person, thing: Thing, spot: &'static str) -> Option<()> {
    t.actor(who).thing(thing).set("S", spot);
    t.tell(FIND, &[Fact::Lies { thing, spot }, Fact::Take { who: who.name, thing, spot }])
}

/// The person puts the thing down.
pub(super) fn put(t: &mut Teller<'_>, who: Person, thing: Thing, spot: &'static str) -> Option<()> {
    t.actor(who).thing(thing).set("S", spot);
    let templates = t.phrased(PUT, PUT_UNSEEN);
    t.tell(templates, &[Fact::Put { who: who.name, thing, spot }])
}

/// The person picks up the thing that the story has told of.
pub(super) fn take(t: &mut Teller<'_>, who: Person, thing: Thing, spot: &'static str) -> Option<()> {
    t.actor(who).thing(thing).set("S", spot);
    t.tell(TAKE_PLAIN, &[Fact::Take { who: who.name, thing, spot }])
}

/// The thing changes hands.
pub(super) fn give(
    t: &mut Teller<'_>,
    from: Person,
    to: Person,
    thing: Thing,
    familiar: &'static [&'static str],
) -> Option<()> {
    t.pair(from, to).thing(thing);
    let templates = t.phrased(familiar, GIVE_UNSEEN);
    t.tell(templates, &[Fact::Give { from: from.name, to: to.name, thing }])
}

/// The person looks for the thing in vain.
pub(super) fn seek(
    t: &mut Teller<'_>,
    who: Person,
    thing: Thing,
    spot: &'static str,
    templates: &[&str],
) -> Option<()> {
    t.actor(who).thing(thing).set("S", spot);
    t.tell(templates, &[Fact::Seek { who: who.name, thing, spot }])
}

/// The person is unhappy, for a reason.
pub(super) fn feel_bad(t: &mut Teller<'_>, who: Person, cause: &str) -> Option<()> {
    let feeling = t.word("badly");
    t.actor(who).set("feel", feeling);
    let cause = t.phrase(cause);
    t.set("cause", cause.as_str());
    t.tell(FEEL_BAD, &[Fact::Feel { who: who.name, feeling, cause }])
}

/// The third person comes in with a thing and puts it down: something else to remember.
pub(super) fn aside(t: &mut Teller<'_>) -> Option<()> {
    let c = t.c;
    let thing = t.another_thing();
    let spot = t.spot(&[c], thing)?;
    third(t)?;
    if t.chance(2) {
        has(t, c, thing)?;
        put(t, c, thing, spot)
    } else {
        find(t, c, thing, spot)
    }
}

/// An animal looks on from another spot.
pub(super) fn rests(t: &mut Teller<'_>) -> Option<()> {
    let (a, x) = (t.a, t.x);
    let animal = pick(t.rng, &lexicon::ONLOOKERS);
    let spot = t.spot(&[], x)?;
    t.actor(a).set("animal", animal).set("S", spot);
    t.tell(RESTS, &[Fact::Rests { animal, spot }])
}

/// How many of the item, in words: "one apple", "three apples".
fn amount(count: usize, item: Item) -> String {
    format!("{} {}", NUMBERS[count], if count == 1 { item.one } else { item.many })
}

/// Fills the slots that speak of a number of items.
pub(super) fn number(t: &mut Teller<'_>, count: usize, item: Item) {
    let one = count == 1;
    t.set("n", NUMBERS[count]).set("nI", amount(count, item)).set("items", item.many);
    t.set("item_s", if one { item.one } else { item.many });
    t.set("it_them", if one { "it" } else { "them" });
    t.set("it_they", if one { "it" } else { "they" });
}

/// The person has some of the items.
pub(super) fn count(t: &mut Teller<'_>, who: Person, item: Item, count: usize) -> Option<()> {
    t.actor(who);
    number(t, count, item);
    let templates = if count == 1 { COUNT_ONE } else { COUNT };
    t.tell(templates, &[Fact::Count { who: who.name, items: item.many, count }])
}

/// Says how many there are now, sometimes.
pub(super) fn total(t: &mut Teller<'_>, who: Person, item: Item, templates: &[&str]) -> Option<()> {
    let now = *t.world.counts.get(&(who.name, item.many))?;
    if now == 0 || t.chance(2) {
        return Some(());
    }
    t.actor(who);
    number(t, now, item);
    t.say(templates)
}

/// The person gets more of the items.
pub(super) fn gain(t: &mut Teller<'_>, who: Person, item: Item, count: usize) -> Option<()> {
    t.actor(who);
    number(t, count, item);
    let templates = match item.source {
        Source::Picked => GAIN_PICKED,
        Source::Baked => GAIN_BAKED,
        Source::Found => GAIN_FOUND,
    };
    t.tell(templates, &[Fact::Gain { who: who.name, items: item.many, count }])
}

/// The person has fewer of the items.
pub(super) fn lose(t: &mut Teller<'_>, who: Person, item: Item, count: usize) -> Option<()> {
    t.actor(who);
    number(t, count, item);
    let templates = if item.source == Source::Found { LOSE_DROP } else { LOSE_EAT };
    t.tell(templates, &[Fact::Lose { who: who.name, items: item.many, count }])
}

/// The one person gives the other some of the items.
pub(super) fn share(t: &mut Teller<'_>, from: Person, to: Person, item: Item, count: usize) -> Option<()> {
    t.pair(from, to);
    number(t, count, item);
    let templates = if count == 1 { SHARE_ONE } else { SHARE };
    t.tell(templates, &[Fact::Share { from: from.name, to: to.name, items: item.many, count }])
}

/// A number of a range, ends included.
pub(super) fn roll(t: &mut Teller<'_>, low: u64, high: u64) -> usize {
    (low + t.rng.below(high - low + 1)) as usize
}
