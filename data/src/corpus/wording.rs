//! How questions are asked and answered, as templates (`grammar`).
//!
//! `{P}` and `{Q}` are people, `{T}` a thing, `{S}` a spot, `{animal}` an animal, `{L}` a place, `{items}` what is counted, `{cause}` a clause,
//! `{feel}` a feeling, and `{A}` the short answer.

use super::questions::QuestionKind;

/// The words for one kind of question.
pub(super) struct Wording {
    /// As training asks.
    pub(super) asked: [&'static str; 3],
    /// What follows "Can you tell me" where the phrasing is unseen.
    pub(super) indirect: &'static str,
    /// The answer as a full sentence.
    pub(super) answer: &'static str,
}

/// The words for a question.
pub(super) fn wording(kind: &QuestionKind) -> &'static Wording {
    use QuestionKind as Kind;
    match kind {
        Kind::WhereNow(_) => &WHERE_NOW,
        Kind::WhereFirst(_) => &WHERE_FIRST,
        Kind::WherePut(..) => &WHERE_PUT,
        Kind::WhereSought(..) => &WHERE_SOUGHT,
        Kind::WhereRests(_) => &WHERE_RESTS,
        Kind::WhoHas(_) => &WHO_HAS,
        Kind::WhoPut(..) => &WHO_PUT,
        Kind::WhoTook(..) => &WHO_TOOK,
        Kind::WhoGave(..) => &WHO_GAVE,
        Kind::WhoGot(..) => &WHO_GOT,
        Kind::WhoBroke(_) => &WHO_BROKE,
        Kind::WhoMended(_) => &WHO_MENDED,
        Kind::WhatGiven(..) => &WHAT_GIVEN,
        Kind::WithWhat(_) => &WITH_WHAT,
        Kind::CountFirst(..) => &COUNT_FIRST,
        Kind::CountGained(..) => &COUNT_GAINED,
        Kind::CountShared(..) => &COUNT_SHARED,
        Kind::CountNow(..) => &COUNT_NOW,
        Kind::Feeling(..) => &FEELING,
        Kind::WhyFeeling(..) => &WHY_FEELING,
        Kind::WhyBroke(..) => &WHY_BROKE,
        Kind::WentAfter(..) => &WENT_AFTER,
        Kind::WentBefore(..) => &WENT_BEFORE,
    }
}

const WHERE_NOW: Wording = Wording {
    asked: [
        "where is the {T} now?",
        "where is the {T} at the end of the story?",
        "where can we find the {T} at the end?",
    ],
    indirect: "where the {T} is now",
    answer: "The {T} is {A}.",
};

const WHERE_FIRST: Wording = Wording {
    asked: [
        "where was the {T} at first?",
        "where was the {T} in the beginning?",
        "where did the {T} lie at the start of the story?",
    ],
    indirect: "where the {T} was at first",
    answer: "The {T} was {A}.",
};

const WHERE_PUT: Wording = Wording {
    asked: ["where did {P} put the {T}?", "where did {P} leave the {T}?", "what spot did {P} choose for the {T}?"],
    indirect: "where {P} put the {T}",
    answer: "{P} put the {T} {A}.",
};

const WHERE_SOUGHT: Wording = Wording {
    asked: [
        "where did {P} look for the {T} first?",
        "where did {P} first look for the {T}?",
        "what was the first spot where {P} looked for the {T}?",
    ],
    indirect: "where {P} looked for the {T} first",
    answer: "{P} looked for the {T} {A}.",
};

const WHERE_RESTS: Wording = Wording {
    asked: ["where was the {animal}?", "where did the {animal} rest?", "at what spot was the {animal}?"],
    indirect: "where the {animal} was",
    answer: "The {animal} was {A}.",
};

const WHO_HAS: Wording = Wording {
    asked: ["who has the {T} now?", "who has the {T} at the end of the story?", "who holds the {T} at the end?"],
    indirect: "who has the {T} now",
    answer: "{A} has the {T}.",
};

const WHO_PUT: Wording = Wording {
    asked: ["who put the {T} {S}?", "who left the {T} {S}?", "who was it that put the {T} {S}?"],
    indirect: "who put the {T} {S}",
    answer: "{A} put the {T} {S}.",
};

const WHO_TOOK: Wording = Wording {
    asked: [
        "who picked up the {T} that was {S}?",
        "who took the {T} that was {S}?",
        "who found the {T} {S} and took it?",
    ],
    indirect: "who picked up the {T} that was {S}",
    answer: "{A} picked up the {T} that was {S}.",
};

const WHO_GAVE: Wording = Wording {
    asked: ["who gave the {T} to {P}?", "who gave {P} the {T}?", "from whom did {P} get the {T}?"],
    indirect: "who gave the {T} to {P}",
    answer: "{A} gave the {T} to {P}.",
};

const WHO_GOT: Wording = Wording {
    asked: ["who got the {T} from {P}?", "whom did {P} give the {T} to?", "to whom did {P} give the {T}?"],
    indirect: "who got the {T} from {P}",
    answer: "{A} got the {T} from {P}.",
};

const WHO_BROKE: Wording = Wording {
    asked: ["who broke the {T}?", "who was it that broke the {T}?", "whose accident broke the {T}?"],
    indirect: "who broke the {T}",
    answer: "{A} broke the {T}.",
};

const WHO_MENDED: Wording = Wording {
    asked: ["who mended the {T}?", "who fixed the {T}?", "who made the {T} whole again?"],
    indirect: "who mended the {T}",
    answer: "{A} mended the {T}.",
};

const WHAT_GIVEN: Wording = Wording {
    asked: ["what did {P} give to {Q}?", "what did {P} give {Q}?", "what did {Q} get from {P}?"],
    indirect: "what {P} gave to {Q}",
    answer: "{P} gave {A} to {Q}.",
};

const WITH_WHAT: Wording = Wording {
    asked: ["what was the {T} mended with?", "what was used to fix the {T}?", "with what was the {T} mended?"],
    indirect: "what the {T} was mended with",
    answer: "The {T} was mended with {A}.",
};

const COUNT_FIRST: Wording = Wording {
    asked: [
        "how many {items} did {P} have at first?",
        "how many {items} did {P} have in the beginning?",
        "how many {items} did {P} start with?",
    ],
    indirect: "how many {items} {P} had at first",
    answer: "{P} had {A} {item_s} at first.",
};

const COUNT_GAINED: Wording = Wording {
    asked: [
        "how many more {items} did {P} get?",
        "how many new {items} did {P} get?",
        "how many {items} did {P} add to the others?",
    ],
    indirect: "how many more {items} {P} got",
    answer: "{P} got {A} more {item_s}.",
};

const COUNT_SHARED: Wording = Wording {
    asked: [
        "how many {items} did {P} give to {Q}?",
        "how many {items} did {Q} get from {P}?",
        "how many of the {items} did {P} give {Q}?",
    ],
    indirect: "how many {items} {P} gave to {Q}",
    answer: "{P} gave {A} {item_s} to {Q}.",
};

const COUNT_NOW: Wording = Wording {
    asked: [
        "how many {items} does {P} have now?",
        "how many {items} does {P} have at the end?",
        "how many {items} does {P} have in all at the end of the story?",
    ],
    indirect: "how many {items} {P} has now",
    answer: "{P} has {A} {item_s} now.",
};

const FEELING: Wording = Wording {
    asked: [
        "how did {P} feel when {cause}?",
        "what did {P} feel when {cause}?",
        "how was {P} feeling when {cause}?",
    ],
    indirect: "how {P} felt when {cause}",
    answer: "{P} felt {A}.",
};

const WHY_FEELING: Wording = Wording {
    asked: ["why was {P} {feel}?", "why did {P} feel {feel}?", "what made {P} {feel}?"],
    indirect: "why {P} was {feel}",
    answer: "{P} was {feel} because {A}.",
};

const WHY_BROKE: Wording = Wording {
    asked: [
        "why did {P} break the {T}?",
        "why did the {T} break when {P} had it?",
        "how did it happen that {P} broke the {T}?",
    ],
    indirect: "why {P} broke the {T}",
    answer: "{P} broke the {T} because {A}.",
};

const WENT_AFTER: Wording = Wording {
    asked: [
        "where did {P} go right after {L}?",
        "where did {P} go next after {L}?",
        "after {L}, where did {P} go?",
    ],
    indirect: "where {P} went right after {L}",
    answer: "{P} went to {A} after {L}.",
};

const WENT_BEFORE: Wording = Wording {
    asked: [
        "where did {P} go right before {L}?",
        "where had {P} been just before {L}?",
        "before {L}, where did {P} go?",
    ],
    indirect: "where {P} went right before {L}",
    answer: "{P} went to {A} before {L}.",
};
