//! The embedded corpus against its bars: English of some variety, facts that a program can replay, splits that share nothing.

#[path = "corpus/replay.rs"]
mod replay;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use fornax_data::corpus::{
    Fact, Flaw, Phrasing, Question, Split, Story, combination, documents, is_held_out, prompt, sentences,
    split_of_sentence, stories, story, unseen_marks,
};
use replay::{answers, must_say, number};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Write;

const SEED: u64 = 1;
const MEGABYTE: usize = 1 << 20;

/// Three stories, to show what a failed bar was measured on.
fn samples(split: Split) -> String {
    stories(SEED, split).take(3).map(|story| format!("{}\n---\n", story.text)).collect()
}

/// The part of a document before its question.
fn narrative(document: &str) -> &str {
    document.split("\n\nQuestion: ").next().unwrap_or(document)
}

#[test]
fn a_megabyte_reads_like_stories() {
    let documents: Vec<String> = documents(SEED, Split::Train, MEGABYTE).collect();
    let mut words = BTreeSet::new();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for document in &documents {
        let letters = |c: char| !c.is_ascii_alphabetic() && c != '\'';
        words.extend(document.split(letters).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase));
        for sentence in sentences(narrative(document)) {
            *counts.entry(sentence).or_default() += 1;
        }
    }
    let total: usize = counts.values().sum();
    let repeated: usize = counts.values().filter(|&&count| count > 1).sum();
    let share = repeated as f64 / total as f64;

    let text = documents.join("\n");
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(text.as_bytes()).unwrap();
    let ratio = encoder.finish().unwrap().len() as f64 / text.len() as f64;

    let figures = format!("{} words, {share:.4} of sentences repeated, gzip ratio {ratio:.3}", words.len());
    let shown = samples(Split::Train);
    assert!(words.len() >= 1000 && share < 0.10 && (0.20..=0.40).contains(&ratio), "{figures}\n{shown}");
    let asked = documents.iter().filter(|document| document.contains("\n\nQuestion: ")).count();
    assert!((documents.len() / 9..documents.len() / 7).contains(&asked), "{asked} of {}", documents.len());
}

#[test]
fn sentences_are_finished_english() {
    for split in [Split::Train, Split::HeldOut] {
        for story in stories(2, split).take(3000) {
            let text = &story.text;
            let stray = |c: char| "[]{}<>|".contains(c);
            assert!(!text.contains(stray) && !text.contains("  ") && !text.contains(" ."), "{text}");
            assert!(text.lines().count() >= 3 && text.len() > 200 && text.len() < 2500, "{text}");
            for sentence in sentences(text) {
                let opening = sentence.trim_start_matches('"').chars().next().unwrap();
                assert!(opening.is_ascii_uppercase(), "{sentence}\nin {text}");
                assert!(sentence.trim_end_matches('"').ends_with(['.', '!', '?']), "{sentence}\nin {text}");
                assert_eq!(sentence.matches('"').count() % 2, 0, "{sentence}\nin {text}");
            }
            check_articles(text);
        }
    }
}

/// "an" stands before vowels alone, "a" before the rest; the words with a mute h or a "y" sound are listed.
fn check_articles(text: &str) {
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphabetic() && c != '\'').collect();
    for pair in words.windows(2) {
        let (article, word) = (pair[0].to_ascii_lowercase(), pair[1]);
        if word.is_empty() || !matches!(article.as_str(), "a" | "an") {
            continue;
        }
        let vowel = "aeiouAEIOU".contains(&word[..1]) != matches!(word, "honest" | "ukulele");
        assert_eq!(article == "an", vowel, "{article} {word} in {text}");
    }
}

#[test]
fn answers_follow_from_a_replay_of_the_facts() {
    let mut kinds = HashSet::new();
    for split in [Split::Train, Split::HeldOut] {
        for story in stories(3, split).take(4000) {
            assert!((2..=4).contains(&story.questions.len()));
            for question in &story.questions {
                kinds.insert(std::mem::discriminant(&question.kind));
                let expected = BTreeSet::from([question.short_answer.clone()]);
                assert_eq!(answers(&story.events, &question.kind), expected, "{}\n{question:?}", story.text);
                assert!(question.question.ends_with('?') && question.answer.ends_with('.'), "{question:?}");
                let (answer, short) = (question.answer.to_lowercase(), question.short_answer.to_lowercase());
                assert!(answer.contains(&short), "{question:?}");
            }
        }
    }
    assert_eq!(kinds.len(), 23, "every kind of question is asked");
}

#[test]
fn every_fact_is_told_in_the_sentence_it_points_to() {
    for split in [Split::Train, Split::HeldOut] {
        for story in stories(4, split).take(4000) {
            for event in &story.events {
                let told = story.text[event.told.clone()].to_lowercase();
                for words in must_say(&event.fact) {
                    assert!(told.contains(&words.to_lowercase()), "{:?} in: {told}\n{}", event.fact, story.text);
                }
            }
        }
    }
}

/// Every sentence and question of four megabytes of training stories.
fn trained() -> HashSet<String> {
    let mut trained = HashSet::new();
    let mut bytes = 0;
    for story in stories(SEED, Split::Train).take_while(|story| {
        bytes += story.text.len();
        bytes < 4 * MEGABYTE
    }) {
        trained.extend(sentences(&story.text).map(str::to_string));
        trained.extend(story.questions.into_iter().map(|question| question.question));
    }
    trained
}

#[test]
fn training_stories_hold_nothing_that_is_held_out() {
    for line in trained() {
        assert!(!unseen_marks().iter().any(|mark| line.contains(mark)), "{line}");
    }
    for story in stories(SEED, Split::Train).take(4000) {
        for (who, thing, spot) in story.events.iter().filter_map(|event| combination(&event.fact)) {
            assert!(!is_held_out(who, thing.noun, spot), "{who}, {thing}, {spot} in {}", story.text);
        }
    }
}

#[test]
fn held_out_stories_share_nothing_with_training() {
    let trained = trained();
    for story in stories(SEED, Split::HeldOut).take(2000) {
        let questions = story.questions.iter().map(|question| question.question.as_str());
        for sentence in sentences(&story.text).chain(questions) {
            assert!(!trained.contains(sentence), "shared: {sentence}\n{}", samples(Split::HeldOut));
            assert_eq!(split_of_sentence(sentence), Split::HeldOut);
        }
        let mut combinations = story.events.iter().filter_map(|event| combination(&event.fact));
        assert!(combinations.any(|(who, thing, spot)| is_held_out(who, thing.noun, spot)), "{}", story.text);
        let marked = |text: &str| unseen_marks().iter().any(|mark| text.contains(mark));
        let unseen = story.questions.iter().all(|question| marked(&question.question));
        assert_eq!(unseen, story.phrasing == Phrasing::Unseen, "{story:?}");
    }
}

#[test]
fn preferences_follow_their_rules() {
    let mut flaws: HashMap<String, usize> = HashMap::new();
    for story in stories(5, Split::Train).take(2000) {
        assert_eq!(story.preferences.len(), story.questions.len());
        for (pair, question) in story.preferences.iter().zip(&story.questions) {
            *flaws.entry(format!("{:?}", pair.flaw)).or_default() += 1;
            assert_eq!(pair.prompt, prompt(&story.text, &question.question));
            let short = question.short_answer.to_lowercase();
            let says = |text: &str| text.to_lowercase().contains(&short);
            assert!(says(&pair.chosen) && sentences(&pair.chosen).count() == 1, "{pair:?}");
            assert_ne!(pair.chosen, pair.rejected);
            match pair.flaw {
                Flaw::Wrong => assert!(pair.rejected.starts_with("I am happy to tell you that "), "{pair:?}"),
                Flaw::Rude => assert!(says(&pair.rejected) && pair.rejected.ends_with('!'), "{pair:?}"),
                Flaw::Rambling => {
                    assert!(says(&pair.rejected) && sentences(&pair.rejected).count() == 3, "{pair:?}")
                }
                Flaw::OffTopic => assert_eq!(sentences(&pair.rejected).count(), 1, "{pair:?}"),
            }
        }
    }
    assert!(flaws.len() == 4 && flaws.values().all(|&count| count > 1000), "{flaws:?}");
}

/// Guesses without reading: the answer that is most frequent, and the entity of the right sort mentioned last.
#[test]
fn questions_need_the_story() {
    let held_out: Vec<Story> = stories(SEED, Split::HeldOut).take(1000).collect();
    let questions =
        || held_out.iter().flat_map(|story| story.questions.iter().map(move |question| (story, question)));
    let mut frequency: HashMap<&str, usize> = HashMap::new();
    for (_, question) in questions() {
        *frequency.entry(&question.short_answer).or_default() += 1;
    }
    let total = questions().count() as f64;
    let most_frequent = *frequency.values().max().unwrap() as f64 / total;
    let last =
        questions().filter(|(story, question)| last_mentioned(story, question) == question.short_answer).count();
    let last = last as f64 / total;
    assert!(
        most_frequent < 0.05 && last < 0.45,
        "most frequent answer {most_frequent:.3}, last mentioned {last:.3}"
    );
}

/// The name, spot, number, thing or clause of the story, of the answer's sort and not in the question, mentioned last.
fn last_mentioned(story: &Story, question: &Question) -> String {
    let mut entities: Vec<String> = Vec::new();
    let sort = sort_of(&question.short_answer, story);
    for event in &story.events {
        entities.extend(must_say(&event.fact));
        if let Fact::Lies { thing, .. } | Fact::Has { thing, .. } = &event.fact {
            entities.push(format!("the {thing}"));
        }
    }
    entities.extend(story.text.split(|c: char| !c.is_ascii_alphabetic()).map(str::to_string));
    let fits = |entity: &String| sort_of(entity, story) == sort && !question.question.contains(entity.as_str());
    let last =
        entities.into_iter().filter(fits).max_by_key(|entity| story.text.rfind(entity.trim_start_matches("the ")));
    last.unwrap_or_default()
}

/// A sort of answer, by what the facts use it for.
fn sort_of(entity: &str, story: &Story) -> &'static str {
    let facts = || story.events.iter().map(|event| &event.fact);
    let is_name = story.people.contains(&entity);
    let is_place = facts().any(|fact| matches!(fact, Fact::Go { place, .. } if *place == entity));
    let is_spot = facts().any(|fact| match fact {
        Fact::Lies { spot, .. } | Fact::Put { spot, .. } | Fact::Seek { spot, .. } | Fact::Rests { spot, .. } => {
            *spot == entity
        }
        _ => false,
    });
    match () {
        () if is_name => "name",
        () if is_place => "place",
        () if is_spot => "spot",
        () if (0..=20).any(|count| number(count) == entity) => "number",
        () if entity.starts_with("the ") => "thing",
        () if entity.contains(' ') => "clause",
        () => "word",
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let text = |seed| documents(seed, Split::Train, 100_000).collect::<Vec<_>>().join("\n");
    assert_eq!(text(SEED), text(SEED));
    assert_ne!(text(SEED), text(SEED + 1));
    assert_eq!(story(SEED, 7, Split::HeldOut), story(SEED, 7, Split::HeldOut));
    assert_ne!(story(SEED, 7, Split::HeldOut).text, story(SEED, 7, Split::Train).text);
    assert!(documents(SEED, Split::Train, 0).next().is_none());
    let digest: String = Sha256::digest(text(SEED)).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        digest,
        "8f03f781663235e0b089d9419fd34512ea63e0c1d90608518827f529f5caf2a6",
        "\n{}",
        samples(Split::Train)
    );
}
