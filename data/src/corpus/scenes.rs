//! The plots: what happens in a story, in which order, and which sentences tell it.

use super::beats::*;
use super::grammar::pick;
use super::lexicon;
use super::phrases::*;
use super::story::{Teller, thing};
use super::world::{Fact, Thing};

/// The plots a story may have.
pub(super) const PLOTS: &[fn(&mut Teller<'_>) -> Option<()>] =
    &[lost, gift, sums, trade, hiding, errand, mending, outing, tidying, stray_pet];

/// The hero, the weather and a friend.
pub(super) fn opening(t: &mut Teller<'_>) -> Option<()> {
    let (a, b) = (t.a, t.b);
    t.actor(a).say(INTRO)?;
    if !t.text.contains(t.weather) && !t.chance(3) {
        let weather = t.weather_phrases();
        t.actor(a).say(weather)?;
    }
    let rel = pick(t.rng, &["friend", "neighbor", "best friend", "cousin", "classmate", "old friend", "playmate"]);
    let here = t.text.contains(t.place.name);
    let when = if t.text.contains(t.tod) { "that" } else { "one" };
    t.set("when", when).set("rel", rel).pair(a, b).say(if here { FRIEND } else { FRIEND_PLACE })
}

/// One or two closing lines.
pub(super) fn ending(t: &mut Teller<'_>) -> Option<()> {
    if t.chance(2) {
        rests(t)?;
    }
    t.paragraph();
    let (a, b, c) = (t.a, t.b, t.c);
    if t.chance(3) {
        t.pair(b, a).say(FAREWELL)?;
    }
    t.pair(a, b).say(CLOSE)?;
    if t.chance(2) {
        return Some(());
    }
    let templates = if t.text.contains(c.name) { LATER_KNOWN } else { LATER };
    t.actor(c).say(templates)
}

/// A thing is moved while its owner is away.
fn lost(t: &mut Teller<'_>) -> Option<()> {
    let (a, b, x, from) = (t.a, t.b, t.x, t.key_spot);
    let to = t.spot(&[a, b], x)?;
    has(t, a, x)?;
    put(t, a, x, from)?;
    t.paragraph();
    let early = t.chance(2);
    if early {
        aside(t)?;
    }
    t.actor(b).thing(x).set("O", from).set("S", to).set("R", a.name);
    let templates = t.phrased(MOVE, MOVE_UNSEEN);
    let facts = [Fact::Take { who: b.name, thing: x, spot: from }, Fact::Put { who: b.name, thing: x, spot: to }];
    t.tell(templates, &facts)?;
    if !early && t.chance(2) {
        aside(t)?;
    }
    search(t, from, to)
}

/// The hero misses the main thing and is told where it is.
fn search(t: &mut Teller<'_>, from: &'static str, to: &'static str) -> Option<()> {
    let (a, b, x) = (t.a, t.b, t.x);
    t.paragraph();
    seek(t, a, x, from, SEEK)?;
    feel_bad(
        t,
        a,
        "[{he} could not find the {T}|the {T} was gone|{he} had lost the {T}|somebody had taken the {T}]",
    )?;
    t.pair(a, b).say(ASK_WHERE)?;
    t.pair(b, a).set("S", to).say(TELL_WHERE)?;
    if t.chance(4) {
        return t.pair(a, b).say(LEFT_THERE);
    }
    t.pair(a, b).tell(TAKE, &[Fact::Take { who: a.name, thing: x, spot: to }])?;
    t.pair(a, b).say(RELIEF)
}

/// Somebody is sad, and a present cheers them up; sometimes it goes on to the next.
fn gift(t: &mut Teller<'_>) -> Option<()> {
    let (a, b, c, x, spot) = (t.a, t.b, t.c, t.x, t.key_spot);
    find(t, a, x, spot)?;
    if t.chance(2) {
        aside(t)?;
    }
    t.paragraph();
    feel_bad(t, b, "<trouble>")?;
    t.pair(a, b).say(WHAT_IS_WRONG)?;
    give(t, a, b, x, GIVE)?;
    t.pair(a, b).say(CHEERED)?;
    match t.rng.below(3) {
        0 => {
            let spot = t.spot(&[b], x)?;
            put(t, b, x, spot)
        }
        1 => {
            t.paragraph();
            let y = t.another_thing();
            has(t, b, y)?;
            give(t, b, a, y, GIVE_REWARD)
        }
        _ => {
            t.paragraph();
            third(t)?;
            give(t, b, c, x, GIVE)?;
            t.pair(b, c).say(THANKFUL)
        }
    }
}

/// Things are counted, found, eaten and shared.
fn sums(t: &mut Teller<'_>) -> Option<()> {
    let (a, b, x, spot) = (t.a, t.b, t.x, t.key_spot);
    let item = pick(t.rng, &lexicon::ITEMS);
    has(t, a, x)?;
    put(t, a, x, spot)?;
    t.paragraph();
    number(t, 1, item);
    t.pair(a, b).say(WANT_ITEMS)?;
    let first = roll(t, 1, 8);
    count(t, a, item, first)?;
    let with_friend = t.chance(2);
    if with_friend {
        let friends = roll(t, 1, 5);
        count(t, b, item, friends)?;
    }
    let more = roll(t, 1, 5);
    gain(t, a, item, more)?;
    total(t, a, item, NOW_TOTAL)?;
    let mut left = first + more;
    if left > 3 && t.chance(2) {
        let gone = roll(t, 1, 2);
        lose(t, a, item, gone)?;
        total(t, a, item, LEFT)?;
        left -= gone;
    }
    if left > 2 && (with_friend || t.chance(2)) {
        let shared = roll(t, 1, left as u64 - 1);
        share(t, a, b, item, shared)?;
        total(t, a, item, LEFT)?;
    }
    Some(())
}

/// Two swap what they have.
fn trade(t: &mut Teller<'_>) -> Option<()> {
    let (a, b, x, spot) = (t.a, t.b, t.x, t.key_spot);
    let y = t.another_thing();
    find(t, a, x, spot)?;
    has(t, b, y)?;
    t.paragraph();
    t.pair(a, b).thing(y).say(ADMIRE)?;
    t.pair(a, b).thing(x).set("U", y.to_string()).say(OFFER)?;
    let templates = t.phrased(SWAP, SWAP_UNSEEN);
    let facts =
        [Fact::Give { from: a.name, to: b.name, thing: x }, Fact::Give { from: b.name, to: a.name, thing: y }];
    t.tell(templates, &facts)?;
    t.say(BOTH_HAPPY)?;
    if t.chance(2) {
        let (who, thing) = if t.chance(2) { (a, y) } else { (b, x) };
        let spot = t.spot(&[who], thing)?;
        put(t, who, thing, spot)?;
    }
    if t.chance(3) { aside(t) } else { Some(()) }
}

/// A thing is hidden for fun and looked for in two wrong spots.
fn hiding(t: &mut Teller<'_>) -> Option<()> {
    let (a, b, x, spot) = (t.a, t.b, t.x, t.key_spot);
    let wrong = [t.spot(&[b], x)?, t.spot(&[b], x)?];
    has(t, a, x)?;
    t.paragraph();
    t.pair(a, b).say(HIDE_IDEA)?;
    let to = pick(t.rng, &["ten", "twelve", "fifteen", "twenty"]);
    t.pair(a, b).set("S", spot).set("n", to);
    let templates = t.phrased(HIDE, HIDE_UNSEEN);
    t.tell(templates, &[Fact::Put { who: a.name, thing: x, spot }])?;
    seek(t, b, x, wrong[0], SEEK_GAME)?;
    if t.chance(2) {
        seek(t, b, x, wrong[1], SEEK_GAME)?;
    }
    if t.chance(3) {
        return t.pair(b, a).say(GAVE_UP);
    }
    t.pair(b, a).set("S", spot).tell(SEEK_FOUND, &[Fact::Take { who: b.name, thing: x, spot }])?;
    t.pair(b, a).say(GAME_WON)?;
    if t.chance(2) { give(t, b, a, x, GIVE_BACK) } else { Some(()) }
}

/// The hero is asked to fetch a thing and bring it to somebody.
fn errand(t: &mut Teller<'_>) -> Option<()> {
    let (a, b, c, x, spot) = (t.a, t.b, t.c, t.x, t.key_spot);
    t.actor(a).thing(x).set("S", spot);
    t.tell(LIES, &[Fact::Lies { thing: x, spot }])?;
    t.set("R", c.name);
    t.pair(b, a).say(ERRAND)?;
    t.paragraph();
    take(t, a, x, spot)?;
    t.pair(a, c).say(ON_THE_WAY)?;
    give(t, a, c, x, DELIVER)?;
    t.pair(a, c).say(GRATEFUL)?;
    match t.rng.below(3) {
        0 => {
            let spot = t.spot(&[c], x)?;
            put(t, c, x, spot)
        }
        1 => {
            let y = t.another_thing();
            has(t, c, y)?;
            give(t, c, a, y, GIVE_REWARD)
        }
        _ => Some(()),
    }
}

/// A thing breaks, the truth is told, and somebody mends it.
fn mending(t: &mut Teller<'_>) -> Option<()> {
    let (a, b, c) = (t.a, t.b, t.c);
    let x = Thing { look: t.x.look, noun: pick(t.rng, &lexicon::FRAGILE) };
    let spot = t.key_spot_for(x)?;
    find(t, a, x, spot)?;
    t.paragraph();
    give(t, a, b, x, LEND)?;
    t.actor(b).thing(x);
    let cause = t.phrase("<accident>");
    t.set("cause", cause.as_str());
    t.tell(BREAK, &[Fact::Break { who: b.name, thing: x, cause }])?;
    t.pair(b, a).say(SORRY)?;
    let other = t.chance(2);
    let mender = if other { c } else { a };
    if other {
        third(t)?;
    }
    give(t, b, mender, x, if other { GIVE_TO_MEND } else { GIVE_BACK })?;
    t.actor(mender);
    let tool = t.phrase("<tool>");
    t.set("tool", tool.as_str());
    t.tell(MEND, &[Fact::Mend { who: mender.name, thing: x, tool }])?;
    t.pair(mender, b).say(MENDED)?;
    if t.chance(2) {
        let spot = t.spot(&[mender], x)?;
        put(t, mender, x, spot)?;
    }
    Some(())
}

/// A walk through three places with a thing that is left at one of them.
fn outing(t: &mut Teller<'_>) -> Option<()> {
    let (a, b, x, spot) = (t.a, t.b, t.x, t.key_spot);
    let home = t.place;
    let mut places: Vec<_> =
        lexicon::PLACES.iter().filter(|place| place.public && place.name != home.name).collect();
    t.rng.shuffle(&mut places);
    find(t, a, x, spot)?;
    t.pair(a, b).say(GOODBYE)?;
    for (templates, place) in [GO, GO_NEXT, GO_LAST].into_iter().zip(places) {
        t.paragraph();
        t.actor(a).set("L", place.name);
        t.tell(templates, &[Fact::Go { who: a.name, place: place.name }])?;
        t.move_to(place);
        t.actor(a).say(if place.indoors { SIGHTS_IN } else { SIGHTS })?;
        let held = t.world.holder(x) == Some(a.name);
        match t.rng.below(4) {
            0 if held => {
                let spot = t.spot(&[a], x)?;
                put(t, a, x, spot)?;
            }
            1 => {
                let y = t.another_thing();
                let spot = t.spot(&[a], y)?;
                find(t, a, y, spot)?;
            }
            _ => {}
        }
    }
    Some(())
}

/// Two clean up: things go from where they lay to where they belong.
fn tidying(t: &mut Teller<'_>) -> Option<()> {
    let (a, b) = (t.a, t.b);
    t.pair(a, b).say(MESSY)?;
    t.paragraph();
    let things = [(a, t.x), (b, t.another_thing()), (a, t.another_thing())];
    for (turn, (who, thing)) in things.into_iter().enumerate() {
        let from = if turn == 0 { t.key_spot } else { t.spot(&[who], thing)? };
        let to = t.spot(&[who], thing)?;
        t.actor(who).thing(thing).set("S", from);
        t.tell(LIES, &[Fact::Lies { thing, spot: from }])?;
        t.set("O", from).set("S", to);
        let facts =
            [Fact::Take { who: who.name, thing, spot: from }, Fact::Put { who: who.name, thing, spot: to }];
        let templates = t.phrased(TIDY, TIDY_UNSEEN);
        t.tell(templates, &facts)?;
        if turn == 1 && t.chance(3) {
            break;
        }
    }
    t.paragraph();
    t.pair(a, b).say(CLEAN)
}

/// A lost pet is found and brought back to its owner.
fn stray_pet(t: &mut Teller<'_>) -> Option<()> {
    let (a, b, c) = (t.a, t.b, t.c);
    let pet = thing(t.rng, &lexicon::PET_LOOKS, &lexicon::PETS);
    if [a, b, c].iter().any(|who| pet.noun.contains(who.kind)) {
        return None;
    }
    let spot = t.key_spot_for(pet)?;
    find(t, a, pet, spot)?;
    t.say(PET_SAD)?;
    t.paragraph();
    t.pair(a, b).say(PET_ASK)?;
    t.actor(c).say(PET_OWNER)?;
    give(t, a, c, pet, GIVE_PET)?;
    t.pair(a, c).say(PET_HOME)?;
    if t.chance(2) {
        let y = t.another_thing();
        has(t, c, y)?;
        give(t, c, a, y, GIVE_REWARD)?;
    }
    Some(())
}
