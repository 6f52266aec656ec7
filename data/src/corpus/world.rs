//! The little world as facts: people, things and spots, what happens to them, and which combinations only held-out stories use.

use super::Split;
use super::lexicon::NUMBERS;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// One of this many (name, thing, spot) combinations is kept for held-out stories.
const COMBINATION_BUCKETS: u64 = 8;

/// One of this many sentences is kept for held-out stories.
const SENTENCE_BUCKETS: u64 = 4;

/// A thing by its look and its noun; no story has two things of the same noun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thing {
    /// What it looks like: "red".
    pub look: &'static str,
    /// What it is: "ball".
    pub noun: &'static str,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.look, self.noun)
    }
}

/// Something that is so, or becomes so, in a story. People are their names, spots their phrases ("under the bed").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The thing lies there when the story meets it.
    Lies {
        /// What lies there.
        thing: Thing,
        /// Where it lies.
        spot: &'static str,
    },
    /// The person has the thing when the story meets it.
    Has {
        /// Who has it.
        who: &'static str,
        /// What they have.
        thing: Thing,
    },
    /// The person picks the thing up where it lies.
    Take {
        /// Who takes it.
        who: &'static str,
        /// What is taken.
        thing: Thing,
        /// Where it lay.
        spot: &'static str,
    },
    /// The person, who has the thing, puts it down.
    Put {
        /// Who puts it down.
        who: &'static str,
        /// What is put down.
        thing: Thing,
        /// Where it lies now.
        spot: &'static str,
    },
    /// The thing changes hands.
    Give {
        /// Who had it.
        from: &'static str,
        /// Who has it now.
        to: &'static str,
        /// What is given.
        thing: Thing,
    },
    /// The person looks for the thing where it is not.
    Seek {
        /// Who looks.
        who: &'static str,
        /// What they look for.
        thing: Thing,
        /// Where it is not.
        spot: &'static str,
    },
    /// The thing breaks.
    Break {
        /// Who broke it.
        who: &'static str,
        /// What broke.
        thing: Thing,
        /// A clause that says why: "he was running too fast".
        cause: String,
    },
    /// The broken thing is whole again.
    Mend {
        /// Who mended it.
        who: &'static str,
        /// What was mended.
        thing: Thing,
        /// With what: "glue".
        tool: String,
    },
    /// The person goes to a place ("the park").
    Go {
        /// Who goes.
        who: &'static str,
        /// Where to.
        place: &'static str,
    },
    /// An animal without a name is there, all through the story.
    Rests {
        /// What animal it is: "cat".
        animal: &'static str,
        /// Where it is.
        spot: &'static str,
    },
    /// The person has this many when the story begins to count.
    Count {
        /// Who has them.
        who: &'static str,
        /// The plural of what is counted.
        items: &'static str,
        /// How many.
        count: usize,
    },
    /// The person gets this many more.
    Gain {
        /// Who gets them.
        who: &'static str,
        /// The plural of what is counted.
        items: &'static str,
        /// How many more.
        count: usize,
    },
    /// The person gives this many of theirs away.
    Share {
        /// Who gives.
        from: &'static str,
        /// Who gets.
        to: &'static str,
        /// The plural of what is counted.
        items: &'static str,
        /// How many change hands.
        count: usize,
    },
    /// The person eats or loses this many.
    Lose {
        /// Who has fewer now.
        who: &'static str,
        /// The plural of what is counted.
        items: &'static str,
        /// How many are gone.
        count: usize,
    },
    /// The person has a feeling, for a reason.
    Feel {
        /// Who feels it.
        who: &'static str,
        /// The feeling: "sad".
        feeling: &'static str,
        /// A clause that says why: "he had missed the bus".
        cause: String,
    },
}

/// A fact and where the story tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happens.
    pub fact: Fact,
    /// The bytes of the story's text that tell it.
    pub told: Range<usize>,
}

/// Where a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Held(&'static str),
    At(&'static str),
}

/// The state after the facts so far. It refuses a fact that cannot follow, so that nobody gives what they do not have.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) things: BTreeMap<Thing, Where>,
    pub(super) counts: BTreeMap<(&'static str, &'static str), usize>,
    broken: Vec<Thing>,
}

impl World {
    /// Moves to the state after `fact`, or returns `None` when the fact contradicts the state.
    pub(super) fn apply(&mut self, fact: &Fact) -> Option<()> {
        match *fact {
            Fact::Lies { thing, spot } => self.bring(thing, Where::At(spot)),
            Fact::Has { who, thing } => self.bring(thing, Where::Held(who)),
            Fact::Take { who, thing, spot } => self.shift(thing, Where::At(spot), Where::Held(who)),
            Fact::Put { who, thing, spot } => self.shift(thing, Where::Held(who), Where::At(spot)),
            Fact::Give { from, to, thing } => self.shift(thing, Where::Held(from), Where::Held(to)),
            Fact::Seek { thing, spot, .. } => (self.things.get(&thing)? != &Where::At(spot)).then_some(()),
            Fact::Break { thing, .. } => (!self.broken.contains(&thing)).then(|| self.broken.push(thing)),
            Fact::Mend { thing, .. } => {
                let at = self.broken.iter().position(|&broken| broken == thing)?;
                self.broken.remove(at);
                Some(())
            }
            Fact::Count { who, items, count } => match self.counts.insert((who, items), count) {
                None => Some(()),
                Some(_) => None,
            },
            Fact::Gain { who, items, count } => self.add(who, items, count),
            Fact::Lose { who, items, count } => self.subtract(who, items, count),
            Fact::Share { from, to, items, count } => {
                self.subtract(from, items, count)?;
                self.counts.entry((to, items)).or_insert(0);
                self.add(to, items, count)
            }
            Fact::Go { .. } | Fact::Feel { .. } | Fact::Rests { .. } => Some(()),
        }
    }

    /// Who holds the thing, if somebody does.
    pub(super) fn holder(&self, thing: Thing) -> Option<&'static str> {
        match self.things.get(&thing) {
            Some(Where::Held(who)) => Some(who),
            _ => None,
        }
    }

    fn bring(&mut self, thing: Thing, place: Where) -> Option<()> {
        match self.things.insert(thing, place) {
            None => Some(()),
            Some(_) => None,
        }
    }

    fn shift(&mut self, thing: Thing, from: Where, to: Where) -> Option<()> {
        let place = self.things.get_mut(&thing)?;
        if *place != from || from == to {
            return None;
        }
        *place = to;
        Some(())
    }

    fn add(&mut self, who: &'static str, items: &'static str, count: usize) -> Option<()> {
        let held = self.counts.get_mut(&(who, items))?;
        *held += count;
        (*held < NUMBERS.len()).then_some(())
    }

    fn subtract(&mut self, who: &'static str, items: &'static str, count: usize) -> Option<()> {
        let held = self.counts.get_mut(&(who, items))?;
        *held = held.checked_sub(count)?;
        Some(())
    }
}

/// The (name, thing, spot) combination that a fact puts together, if it does.
#[must_use]
pub fn combination(fact: &Fact) -> Option<(&'static str, Thing, &'static str)> {
    match *fact {
        Fact::Take { who, thing, spot } | Fact::Put { who, thing, spot } | Fact::Seek { who, thing, spot } => {
            Some((who, thing, spot))
        }
        _ => None,
    }
}

/// Whether stories for training never let this person handle this kind of thing at this spot.
#[must_use]
pub fn is_held_out(who: &str, noun: &str, spot: &str) -> bool {
    let mut hash = FNV_OFFSET;
    for part in [who, noun, spot] {
        hash = fnv(fnv(hash, part.as_bytes()), b"|");
    }
    mix(hash).is_multiple_of(COMBINATION_BUCKETS)
}

/// The split that may contain a sentence: each sentence belongs to one split by its hash, so the splits share none.
#[must_use]
pub fn split_of_sentence(sentence: &str) -> Split {
    if mix(fnv(FNV_OFFSET, sentence.as_bytes())).is_multiple_of(SENTENCE_BUCKETS) {
        Split::HeldOut
    } else {
        Split::Train
    }
}

/// Sentences of a text: each ends with `.`, `!` or `?` and perhaps a quotation mark, before a capital letter, a
/// quotation mark or the end of a line. `"Where is it?" asked Tom.` is one sentence.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| {
        let mut rest = line.trim();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (sentence, tail) = rest.split_at(sentence_length(rest));
            rest = tail.trim_start();
            Some(sentence)
        })
    })
}

/// Bytes of the sentence that begins a line.
fn sentence_length(line: &str) -> usize {
    let bytes = line.as_bytes();
    for at in 0..bytes.len() {
        if !matches!(bytes[at], b'.' | b'!' | b'?') {
            continue;
        }
        let end = at + 1 + usize::from(bytes.get(at + 1) == Some(&b'"'));
        let opens = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'"';
        if bytes.get(end) == Some(&b' ') && bytes.get(end + 1).is_some_and(opens) {
            return end;
        }
    }
    bytes.len()
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits: small, and the same on every machine.
fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    for &byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

/// Spreads the hash over its low bits, which FNV alone leaves weak (finalizer of MurmurHash3).
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
