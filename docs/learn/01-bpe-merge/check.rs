//! Compares the reader's merges with those of Fornax's tokenizer trainer, and the ids with its encoder.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::collections::BTreeMap;
use std::process::ExitCode;

use answer::{Pair, Word};
use fornax_learn::fornax_data::Tokenizer;
use fornax_learn::{Checks, Outcome};

/// Words of letters, each one piece for Fornax's trainer, with counts that tie and runs that overlap.
const TEXT: [(&str, u64); 12] = [
    ("banana", 5),
    ("bandana", 3),
    ("ananas", 2),
    ("naïve", 4),
    ("aaaaa", 3),
    ("aaaa", 2),
    ("tattoo", 5),
    ("toot", 6),
    ("cab", 9),
    ("abc", 9),
    ("été", 4),
    ("unhappiness", 2),
];
const MERGES: usize = 40;
/// Special tokens take the lowest ids of a Fornax tokenizer.
const SPECIAL: u32 = 3;
const UNSEEN: [&str; 7] = ["bananabanana", "aaaaaaa", "tattoot", "bcabcab", "naïveté", "x", "unhappybandana"];

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("best_pair and merge: the merges of a whole training", training);
    checks.run("merge: runs and ends", runs);
    checks.run("best_pair: nothing to merge", nothing);
    checks.run("encode: the ids of unseen words", encoding);
    checks.finish()
}

fn fornax() -> Tokenizer {
    let texts = TEXT.iter().flat_map(|(text, count)| (0..*count).map(|_| Ok(text.to_string())));
    let vocabulary = 256 + MERGES + SPECIAL as usize;
    Tokenizer::train_bpe(&mut texts.into_iter(), vocabulary, &mut |_| {}).expect("the words are text")
}

/// Bytes of the tokens that Fornax's trainer made, in order.
fn fornax_tokens() -> Vec<Vec<u8>> {
    let tokenizer = fornax();
    // The letters used here stand for their own bytes in the byte-level alphabet.
    let bytes = |id| tokenizer.token(id).unwrap_or_default().chars().map(|c| c as u8).collect();
    (SPECIAL + 256..tokenizer.vocab_size() as u32).map(bytes).collect()
}

type BestPair = fn(&[Word], &[Vec<u8>]) -> Option<Pair>;
type Merge = fn(&[u32], Pair, u32) -> Vec<u32>;

/// The learned pairs with the ids they make, and the bytes of all tokens.
fn train(best_pair: BestPair, merge: Merge) -> (Vec<(Pair, u32)>, Vec<Vec<u8>>) {
    let mut words: Vec<Word> = TEXT.iter().map(|(text, n)| (text.bytes().map(u32::from).collect(), *n)).collect();
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let mut merges = Vec::new();
    while tokens.len() < 256 + MERGES {
        let Some(pair) = best_pair(&words, &tokens) else { break };
        let bytes = [tokens[pair.0 as usize].clone(), tokens[pair.1 as usize].clone()].concat();
        // Two ways to spell one token share an id.
        let id = tokens.iter().position(|token| *token == bytes).unwrap_or(tokens.len());
        if id == tokens.len() {
            tokens.push(bytes);
        }
        merges.push((pair, id as u32));
        if merges.len() > 4 * MERGES {
            break; // A merge that changes nothing would go on for ever.
        }
        for (word, _) in &mut words {
            *word = merge(word, pair, id as u32);
        }
    }
    (merges, tokens.split_off(256))
}

fn training() -> Outcome {
    let expected = fornax_tokens();
    let (_, found) = train(answer::best_pair, answer::merge);
    if found == expected {
        return Ok(format!("{} merges, all equal", expected.len()));
    }
    let mistakes: [(&str, BestPair, Merge); 5] = [
        ("among equally frequent pairs yours takes the smaller one, not the greater", smaller_tie, merged),
        ("each word counts once, however often it occurs", unweighted, merged),
        ("overlapping pairs are counted once: `a a a` holds (a, a) twice", without_overlap, merged),
        ("equally frequent pairs are compared by their ids, not by the bytes of their tokens", tie_by_id, merged),
        ("runs are merged from the right: `a a a` becomes `aa a`, not `a aa`", best, merged_from_the_right),
    ];
    for (words, best_pair, merge) in mistakes {
        let wrong = train(best_pair, merge).1;
        assert!(wrong != expected, "this check cannot see that {words}");
        if wrong == found {
            return Err(words.to_string());
        }
    }
    let shown = |tokens: &[Vec<u8>], i: usize| match tokens.get(i) {
        Some(token) => format!("`{}`", String::from_utf8_lossy(token)),
        None => "nothing".into(),
    };
    let first = (0..).find(|&i| found.get(i) != expected.get(i)).unwrap_or(0);
    Err(format!("merge {} makes {}, Fornax's makes {}", first + 1, shown(&found, first), shown(&expected, first)))
}

fn runs() -> Outcome {
    let cases: [(&[u32], &[u32]); 7] = [
        (&[], &[]),
        (&[7], &[7]),
        (&[7, 7], &[9]),
        (&[7, 7, 7], &[9, 7]),
        (&[7, 7, 7, 7, 7], &[9, 9, 7]),
        (&[1, 7, 7], &[1, 9]),
        (&[7, 1, 7, 2, 7], &[7, 1, 7, 2, 7]),
    ];
    for (ids, expected) in cases {
        let found = answer::merge(ids, (7, 7), 9);
        if found != expected {
            return Err(format!("merge({ids:?}, (7, 7), 9) is {found:?}, expected {expected:?}"));
        }
    }
    Ok(format!("{} rows", cases.len()))
}

fn nothing() -> Outcome {
    let tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let once = vec![(vec![1, 2, 3], 1), (vec![4], 90)];
    for words in [vec![], once] {
        if let Some(pair) = answer::best_pair(&words, &tokens) {
            return Err(format!("{pair:?} is chosen from {words:?}, where no pair occurs twice"));
        }
    }
    Ok("no pair from words without one".into())
}

fn encoding() -> Outcome {
    let tokenizer = fornax();
    let (merges, tokens) = train(best, merged);
    assert!(tokens == fornax_tokens(), "the merges given to `encode` are not Fornax's");
    for text in UNSEEN.into_iter().chain(TEXT.map(|(text, _)| text)) {
        let ids = tokenizer.encode(text, false).map_err(|error| error.to_string())?;
        let expected: Vec<u32> = ids.iter().map(|id| id - SPECIAL).collect();
        let found = answer::encode(text.as_bytes(), &merges);
        if found == expected {
            continue;
        }
        let why = if found == longest_token(text.as_bytes(), &tokens) {
            "takes the longest token from the left; the order of learning decides"
        } else if found == leftmost_pair(text.as_bytes(), &merges) {
            "merges the leftmost known pair; the one learned earliest goes before, wherever it stands"
        } else if found == text.bytes().map(u32::from).collect::<Vec<_>>() {
            "merges nothing"
        } else {
            "differs"
        };
        return Err(format!("encode(`{text}`) {why}: {found:?}, Fornax's ids are {expected:?}"));
    }
    Ok(format!("{} words, all ids equal", UNSEEN.len() + TEXT.len()))
}

fn chosen(words: &[Word], weighted: bool, overlap: bool, better: impl Fn(Pair, Pair) -> bool) -> Option<Pair> {
    let mut counts: BTreeMap<Pair, u64> = BTreeMap::new();
    for (ids, count) in words {
        let mut last = None;
        for (i, two) in ids.windows(2).enumerate() {
            let pair = (two[0], two[1]);
            if !overlap && last == Some((pair, i.wrapping_sub(1))) {
                last = None;
                continue;
            }
            last = Some((pair, i));
            *counts.entry(pair).or_default() += if weighted { *count } else { 1 };
        }
    }
    let mut best: Option<(Pair, u64)> = None;
    for (pair, count) in counts {
        if count >= 2 && best.is_none_or(|(b, n)| count > n || (count == n && better(pair, b))) {
            best = Some((pair, count));
        }
    }
    best.map(|(pair, _)| pair)
}

fn by_bytes(tokens: &[Vec<u8>]) -> impl Fn(Pair, Pair) -> bool {
    |a: Pair, b: Pair| {
        let bytes = |pair: Pair| (&tokens[pair.0 as usize], &tokens[pair.1 as usize]);
        bytes(a) > bytes(b)
    }
}

fn best(words: &[Word], tokens: &[Vec<u8>]) -> Option<Pair> {
    chosen(words, true, true, by_bytes(tokens))
}

fn smaller_tie(words: &[Word], tokens: &[Vec<u8>]) -> Option<Pair> {
    let greater = by_bytes(tokens);
    chosen(words, true, true, |a, b| !greater(a, b))
}

fn tie_by_id(words: &[Word], _: &[Vec<u8>]) -> Option<Pair> {
    chosen(words, true, true, |a, b| a > b)
}

fn unweighted(words: &[Word], tokens: &[Vec<u8>]) -> Option<Pair> {
    chosen(words, false, true, by_bytes(tokens))
}

fn without_overlap(words: &[Word], tokens: &[Vec<u8>]) -> Option<Pair> {
    chosen(words, true, false, by_bytes(tokens))
}

fn merged(ids: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut out: Vec<u32> = Vec::new();
    let mut rest = ids;
    while let [first, tail @ ..] = rest {
        let whole = tail.first().is_some_and(|second| (*first, *second) == pair);
        out.push(if whole { id } else { *first });
        rest = if whole { &tail[1..] } else { tail };
    }
    out
}

fn merged_from_the_right(ids: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let reversed: Vec<u32> = ids.iter().rev().copied().collect();
    let mut out = merged(&reversed, (pair.1, pair.0), id);
    out.reverse();
    out
}

fn longest_token(bytes: &[u8], tokens: &[Vec<u8>]) -> Vec<u32> {
    let (mut ids, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let fits = (0..).zip(tokens).filter(|(_, token)| bytes[at..].starts_with(token));
        match fits.max_by_key(|(_, token)| token.len()) {
            Some((i, token)) => {
                ids.push(256 + i);
                at += token.len();
            }
            None => {
                ids.push(u32::from(bytes[at]));
                at += 1;
            }
        }
    }
    ids
}

fn leftmost_pair(bytes: &[u8], merges: &[(Pair, u32)]) -> Vec<u32> {
    let mut ids: Vec<u32> = bytes.iter().map(|&byte| u32::from(byte)).collect();
    loop {
        let known = |two: &[u32]| merges.iter().find(|(pair, _)| *pair == (two[0], two[1]));
        let Some((at, id)) = ids.windows(2).enumerate().find_map(|(at, two)| Some((at, known(two)?.1))) else {
            return ids;
        };
        ids.splice(at..at + 2, [id]);
    }
}
