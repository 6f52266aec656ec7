//! The teller: casts people, things and spots, tells facts in sentences of the right split, and keeps the world in step.

use super::grammar::{self, Slots, pick};
use super::lexicon::{self, Place};
use super::phrases;
use super::world::{Event, Fact, Thing, World};
use super::{Phrasing, Split, combination, is_held_out, scenes, sentences, split_of_sentence};
use fornax_base::rng::Rng;

/// How often a sentence is drawn again until it belongs to the split; the attempt at a story is given up after that.
const DRAWS: usize = 200;

/// Somebody in a story.
#[derive(Clone, Copy, Debug)]
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) female: bool,
}

/// Tells one story. Every step returns `None` when it cannot be told, and the whole attempt is then given up.
pub(super) struct Teller<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) split: Split,
    pub(super) phrasing: Phrasing,
    pub(super) text: String,
    pub(super) events: Vec<Event>,
    pub(super) world: World,
    pub(super) place: &'static Place,
    pub(super) weather: &'static str,
    pub(super) tod: &'static str,
    pub(super) a: Person,
    pub(super) b: Person,
    pub(super) c: Person,
    pub(super) x: Thing,
    /// The spot of the combination that decides the story's split.
    pub(super) key_spot: &'static str,
    slots: Slots,
    used_spots: Vec<&'static str>,
    used_nouns: Vec<&'static str>,
    told: Vec<String>,
    topic: Option<&'static str>,
    pub(super) c_is_known: bool,
}

impl<'a> Teller<'a> {
    /// A cast whose hero, main thing and key spot are a combination of the split.
    pub(super) fn cast(rng: &'a mut Rng, split: Split, phrasing: Phrasing) -> Option<Self> {
        let place = &lexicon::PLACES[rng.below(lexicon::PLACES.len() as u64) as usize];
        let animals = rng.below(4) == 0;
        let a = person(rng, &[], animals);
        let b = person(rng, &[a.name], animals);
        let c = person(rng, &[a.name, b.name], animals);
        let x = thing(rng, &lexicon::LOOKS, &lexicon::THINGS);
        let mut teller = Teller {
            rng,
            split,
            phrasing,
            text: String::with_capacity(1024),
            events: Vec::with_capacity(16),
            world: World::default(),
            place,
            weather: "",
            tod: "",
            a,
            b,
            c,
            x,
            key_spot: "",
            slots: Slots::default(),
            used_spots: Vec::new(),
            used_nouns: Vec::new(),
            told: Vec::with_capacity(32),
            topic: None,
            c_is_known: false,
        };
        teller.set_scene();
        teller.key_spot_for(x)?;
        Some(teller)
    }

    fn set_scene(&mut self) {
        let weathers: &[&str] = match self.place.indoors {
            true => &["sunny", "rainy", "snowy", "cloudy"],
            false => &["sunny", "sunny", "windy", "cloudy"],
        };
        let weather = pick(self.rng, weathers);
        self.slots.set("weather", weather);
        self.tod = pick(self.rng, &["morning", "afternoon", "day"]);
        self.slots.set("tod", self.tod);
        self.slots.set("place", self.place.name);
        self.slots.set("inside", self.place.inside);
        self.weather = weather;
    }

    /// Sentences about the weather of the story.
    pub(super) fn weather_phrases(&self) -> &'static [&'static str] {
        match self.weather {
            "rainy" => phrases::SET_RAINY,
            "snowy" => phrases::SET_SNOWY,
            "windy" => phrases::SET_WINDY,
            "cloudy" => phrases::SET_CLOUDY,
            _ if self.place.indoors => phrases::SET_SUNNY_IN,
            _ => phrases::SET_SUNNY,
        }
    }

    /// Another thing, of a noun the story does not have yet.
    pub(super) fn another_thing(&mut self) -> Thing {
        loop {
            let thing = thing(self.rng, &lexicon::LOOKS, &lexicon::THINGS);
            if !self.used_nouns.contains(&thing.noun) {
                self.used_nouns.push(thing.noun);
                return thing;
            }
        }
    }

    /// A spot of the place, not used yet, at which these people may handle the thing in this split.
    pub(super) fn spot(&mut self, people: &[Person], thing: Thing) -> Option<&'static str> {
        let free: Vec<_> = self
            .place
            .spots
            .iter()
            .copied()
            .filter(|spot| !self.used_spots.contains(spot))
            .filter(|spot| people.iter().all(|who| self.allows(who.name, thing.noun, spot)))
            .collect();
        if free.is_empty() {
            return None;
        }
        let spot = pick(self.rng, &free);
        self.used_spots.push(spot);
        Some(spot)
    }

    /// A key spot for the hero with another main thing.
    pub(super) fn key_spot_for(&mut self, thing: Thing) -> Option<&'static str> {
        let held_out = self.split == Split::HeldOut;
        let spots: Vec<_> = self
            .place
            .spots
            .iter()
            .copied()
            .filter(|spot| is_held_out(self.a.name, thing.noun, spot) == held_out)
            .collect();
        if spots.is_empty() {
            return None;
        }
        self.x = thing;
        self.key_spot = pick(self.rng, &spots);
        self.used_spots = vec![self.key_spot];
        self.used_nouns.push(thing.noun);
        Some(self.key_spot)
    }

    /// Moves the story to a place, whose spots are used from here on.
    pub(super) fn move_to(&mut self, place: &'static Place) {
        self.place = place;
        self.slots.set("place", place.name);
        self.slots.set("inside", place.inside);
    }

    fn allows(&self, who: &str, noun: &str, spot: &str) -> bool {
        self.split == Split::HeldOut || !is_held_out(who, noun, spot)
    }

    /// The templates for a fact: the unseen ones in stories of unseen phrasing.
    pub(super) fn phrased(
        &self,
        familiar: &'static [&'static str],
        unseen: &'static [&'static str],
    ) -> &'static [&'static str] {
        match self.phrasing {
            Phrasing::Familiar => familiar,
            Phrasing::Unseen => unseen,
        }
    }

    /// A chance of one in `n`.
    pub(super) fn chance(&mut self, n: u64) -> bool {
        self.rng.below(n) == 0
    }

    /// Fills a slot until it is filled again.
    pub(super) fn set(&mut self, slot: &'static str, text: impl Into<String>) -> &mut Self {
        self.slots.set(slot, text);
        self
    }

    /// Makes the thing the one spoken of: `{T}` in full, `{t}` sometimes by its noun alone.
    pub(super) fn thing(&mut self, thing: Thing) -> &mut Self {
        let short = !self.chance(3);
        self.slots.set("T", thing.to_string());
        self.slots.set("t", if short { thing.noun.to_owned() } else { thing.to_string() });
        self
    }

    /// A template as finished sentences, of whichever split.
    pub(super) fn finished(&mut self, template: &str) -> String {
        grammar::render(template, &self.slots, self.rng)
    }

    /// Makes the person the one who acts in the next sentences.
    pub(super) fn actor(&mut self, p: Person) -> &mut Self {
        let (he, him, his) = pronouns(p);
        let again = self.topic == Some(p.name) && self.rng.below(2) == 0;
        self.topic = Some(p.name);
        self.slots.set("N", if again { he } else { p.name });
        self.slots.set("P", p.name);
        self.slots.set("kind", p.kind);
        self.slots.set("he", he);
        self.slots.set("him", him);
        self.slots.set("his", his);
        self
    }

    /// Makes them the ones who act and are acted upon in the next sentences.
    pub(super) fn pair(&mut self, p: Person, q: Person) -> &mut Self {
        self.topic = None;
        self.actor(p);
        self.topic = None;
        let (he, him, his) = pronouns(q);
        self.slots.set("Q", q.name);
        self.slots.set("qhe", he);
        self.slots.set("qhim", him);
        self.slots.set("qhis", his);
        self.slots.set("qhers", if q.female { "hers" } else { "his" });
        self
    }

    /// A word or clause of a template, as it would read now.
    pub(super) fn phrase(&mut self, template: &str) -> String {
        let mut text = String::new();
        grammar::expand(template, &self.slots, self.rng, &mut text);
        text
    }

    /// The names of everybody the text speaks of.
    pub(super) fn people(&self) -> Vec<&'static str> {
        let cast = [self.a, self.b, self.c];
        let told = |name: &&str| self.text.contains(name);
        cast.iter().map(|person| person.name).filter(told).collect()
    }

    /// A word of a class.
    pub(super) fn word(&mut self, class: &str) -> &'static str {
        pick(self.rng, lexicon::class(class))
    }

    /// Begins a new paragraph.
    pub(super) fn paragraph(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.topic = None;
    }

    /// Tells one of the templates and nothing more.
    pub(super) fn say(&mut self, templates: &[&str]) -> Option<()> {
        self.tell(templates, &[])
    }

    /// Lets the facts happen, in order, and tells them by one of the templates.
    pub(super) fn tell(&mut self, templates: &[&str], facts: &[Fact]) -> Option<()> {
        for fact in facts {
            self.world.apply(fact)?;
            if let Some((who, thing, spot)) = combination(fact)
                && !self.allows(who, thing.noun, spot)
            {
                return None;
            }
        }
        let sentence = self.draw(templates)?;
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push(' ');
        }
        let start = self.text.len();
        self.text.push_str(&sentence);
        let told = start..self.text.len();
        self.events.extend(facts.iter().map(|fact| Event { fact: fact.clone(), told: told.clone() }));
        Some(())
    }

    /// A telling whose sentences all belong to the split and are new to the story.
    fn draw(&mut self, templates: &[&str]) -> Option<String> {
        for _ in 0..DRAWS {
            let template = pick(self.rng, templates);
            let text = grammar::render(template, &self.slots, self.rng);
            let fits = |sentence: &str| {
                split_of_sentence(sentence) == self.split && !self.told.iter().any(|told| told == sentence)
            };
            if sentences(&text).all(fits) {
                self.told.extend(sentences(&text).map(str::to_owned));
                return Some(text);
            }
        }
        None
    }

    /// A question of the split by one of its phrasings.
    pub(super) fn ask<T: AsRef<str>>(&mut self, templates: &[T]) -> Option<String> {
        (0..DRAWS).find_map(|_| {
            let template = &templates[self.rng.below(templates.len() as u64) as usize];
            let text = grammar::render(template.as_ref(), &self.slots, self.rng);
            (split_of_sentence(&text) == self.split).then_some(text)
        })
    }

    /// Tells a whole story: an opening, one of the plots, and an end.
    pub(super) fn whole(&mut self) -> Option<()> {
        scenes::opening(self)?;
        let plot = pick(self.rng, scenes::PLOTS);
        plot(self)?;
        scenes::ending(self)
    }
}

/// A thing of one of the nouns.
pub(super) fn thing(rng: &mut Rng, looks: &[&'static str], nouns: &[&'static str]) -> Thing {
    Thing { look: pick(rng, looks), noun: pick(rng, nouns) }
}

fn person(rng: &mut Rng, taken: &[&str], animals: bool) -> Person {
    loop {
        let female = rng.below(2) == 0;
        let name = pick(rng, if female { &lexicon::GIRLS } else { &lexicon::BOYS });
        let kind = match (animals, female) {
            (true, _) => pick(rng, &lexicon::ANIMALS),
            (false, true) => "girl",
            (false, false) => "boy",
        };
        if !taken.contains(&name) {
            return Person { name, kind, female };
        }
    }
}

/// He, him, his.
pub(super) fn pronouns(person: Person) -> (&'static str, &'static str, &'static str) {
    if person.female { ("she", "her", "her") } else { ("he", "him", "his") }
}
