//! Compares the reader's masks with an automaton walked in every way, and writes texts under them.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::collections::BTreeMap;
use std::process::ExitCode;

use answer::Automaton;
use fornax_learn::fornax_base::rng::rng;
use fornax_learn::{Checks, Mistake, Outcome, compare, normals};

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("live: states from which a text can end", live);
    checks.run("walk: through the bytes of a token", walk);
    checks.run("mask: 59 tokens in every state", mask);
    checks.run("packed and restrict: bits, and logits under them", bits);
    checks.run("forced: bytes that need no model", forced);
    checks.run("300 texts written under the mask", texts);
    checks.finish()
}

/// A JSON object like {"on": true, "n": -12.5e3} with a state that no text leaves: "n": may be followed by an x.
fn automaton() -> Automaton {
    let mut automaton = Automaton { next: vec![BTreeMap::new()], accepts: vec![false] };
    let state = |automaton: &mut Automaton| {
        automaton.next.push(BTreeMap::new());
        automaton.accepts.push(false);
        automaton.next.len() - 1
    };
    let chain = |automaton: &mut Automaton, from: usize, text: &str| {
        text.bytes().fold(from, |at, byte| match automaton.next[at].get(&byte) {
            Some(&to) => to,
            None => {
                let to = state(automaton);
                automaton.next[at].insert(byte, to);
                to
            }
        })
    };
    let on = chain(&mut automaton, 0, "{\"on\": ");
    let (yes, no) = (chain(&mut automaton, on, "true"), chain(&mut automaton, on, "false"));
    let comma = chain(&mut automaton, yes, ",");
    automaton.next[no].insert(b',', comma);
    let end = chain(&mut automaton, yes, "}");
    automaton.next[no].insert(b'}', end);
    automaton.accepts[end] = true;
    let number = chain(&mut automaton, comma, " \"n\": ");
    chain(&mut automaton, number, "xy");
    let minus = chain(&mut automaton, number, "-");
    let digit = chain(&mut automaton, number, "1");
    for byte in b'0'..=b'9' {
        automaton.next[digit].insert(byte, digit);
        automaton.next[minus].insert(byte, digit);
        automaton.next[number].insert(byte, digit);
    }
    let point = chain(&mut automaton, digit, ".5");
    automaton.next[point].insert(b'}', end);
    automaton.next[digit].insert(b'}', end);
    // A character of two bytes may end the text too.
    let umlaut = chain(&mut automaton, end, "ü");
    automaton.accepts[umlaut] = true;
    automaton
}

/// Single bytes, longer tokens, one half of a character, and two control tokens.
fn vocabulary() -> (Vec<Vec<u8>>, u32) {
    let mut tokens: Vec<Vec<u8>> = b"{}\":, truefalsno-0123456789.xy".iter().map(|byte| vec![*byte]).collect();
    for text in [
        "{\"",
        "{\"on",
        "\": ",
        "true",
        "tr",
        "ue",
        "ue}",
        "false,",
        "fal",
        "se}",
        ", \"n\": ",
        "12",
        "7}",
        "5}",
        ".5",
        "-",
        "-1",
        "x",
        "xy",
        "on\": true}",
        "}}",
        "} ",
        "tru",
        "ü",
        "}ü",
    ] {
        tokens.push(text.as_bytes().to_vec());
    }
    tokens.push(vec![0xc3]);
    tokens.push(vec![0xbc]);
    tokens.push(Vec::new());
    tokens.push(Vec::new());
    let eos = tokens.len() as u32 - 1;
    (tokens, eos)
}

/// States from which an accepting one can be reached, found from each by walking all ways.
fn can_end(automaton: &Automaton, from: usize) -> bool {
    let (mut seen, mut open) = (vec![false; automaton.next.len()], vec![from]);
    while let Some(state) = open.pop() {
        if automaton.accepts[state] {
            return true;
        }
        if !std::mem::replace(&mut seen[state], true) {
            open.extend(automaton.next[state].values());
        }
    }
    false
}

fn right_live(automaton: &Automaton) -> Vec<bool> {
    (0..automaton.next.len()).map(|state| can_end(automaton, state)).collect()
}

fn numbers(marks: &[bool]) -> Vec<f32> {
    marks.iter().map(|mark| f32::from(*mark)).collect()
}

fn live() -> Outcome {
    let automaton = automaton();
    let expected = right_live(&automaton);
    let n = expected.len();
    let one_step = |s: usize| automaton.accepts[s] || automaton.next[s].values().any(|&to| automaton.accepts[to]);
    let mistakes: [Mistake<'_>; 4] = [
        (
            "states in which a text ends alone are live; those on the way there are too",
            numbers(&automaton.accepts),
        ),
        ("only one byte is looked ahead", numbers(&(0..n).map(one_step).collect::<Vec<_>>())),
        ("every state is live: from the one behind x no text ends", vec![1.0; n]),
        ("a state is live as soon as some byte may follow", {
            numbers(&(0..n).map(|s| automaton.accepts[s] || !automaton.next[s].is_empty()).collect::<Vec<_>>())
        }),
    ];
    compare(&numbers(&answer::live(&automaton)), &numbers(&expected), 0.0, &mistakes)
}

fn right_walk(automaton: &Automaton, live: &[bool], from: usize, bytes: &[u8]) -> Option<usize> {
    let state = bytes.iter().try_fold(from, |state, byte| automaton.next[state].get(byte).copied());
    state.filter(|state| live[*state])
}

/// What `of` says of all tokens in all states.
fn everywhere(of: impl Fn(usize, usize, &[u8]) -> bool) -> Vec<f32> {
    let automaton = automaton();
    let (tokens, _) = vocabulary();
    let all = (0..automaton.next.len()).flat_map(|s| tokens.iter().enumerate().map(move |(id, t)| (s, id, t)));
    all.filter(|(s, ..)| can_end(&automaton, *s)).map(|(s, id, bytes)| f32::from(of(s, id, bytes))).collect()
}

fn walk() -> Outcome {
    let automaton = automaton();
    let live = right_live(&automaton);
    for state in (0..live.len()).filter(|state| live[*state]) {
        for bytes in vocabulary().0 {
            let (found, expected) =
                (answer::walk(&automaton, &live, state, &bytes), right_walk(&automaton, &live, state, &bytes));
            let text = String::from_utf8_lossy(&bytes);
            match (found, expected) {
                (found, expected) if found == expected => {}
                (Some(to), None) if to < live.len() && !live[to] => {
                    return Err(format!(
                        "{text:?} leads from state {state} to {to}, from where no text ends any more"
                    ));
                }
                (Some(_), None) => {
                    return Err(format!("{text:?} may not follow in state {state}; each of its bytes counts"));
                }
                (found, expected) => {
                    return Err(format!("{text:?} leads from state {state} to {found:?}, {expected:?} is right"));
                }
            }
        }
    }
    Ok(format!("{} states, 59 tokens each", live.len()))
}

fn right_mask(automaton: &Automaton, state: usize) -> Vec<bool> {
    let (live, (tokens, eos)) = (right_live(automaton), vocabulary());
    let may = |(id, bytes): (usize, &Vec<u8>)| match id == eos as usize {
        true => automaton.accepts[state],
        false => !bytes.is_empty() && right_walk(automaton, &live, state, bytes).is_some(),
    };
    tokens.iter().enumerate().map(may).collect()
}

fn mask() -> Outcome {
    let automaton = automaton();
    let (live, (tokens, eos)) = (right_live(&automaton), vocabulary());
    let masks: Vec<Vec<bool>> =
        (0..live.len()).map(|s| answer::mask(&automaton, &live, s, &tokens, eos)).collect();
    if masks.iter().any(|mask| mask.len() != tokens.len()) {
        return Err(format!("a mask has a mark for each of the {} tokens", tokens.len()));
    }
    let right = |s: usize, id: usize| right_mask(&automaton, s)[id];
    let is_eos = |id: usize| id == eos as usize;
    let all_live = vec![true; live.len()];
    let mistakes: [Mistake<'_>; 7] = [
        ("a token is judged by its leading byte; all of its bytes count", {
            everywhere(|s, id, bytes| match bytes {
                [byte, ..] => automaton.next[s].get(byte).is_some_and(|to| live[*to]),
                [] => right(s, id),
            })
        }),
        ("a token into a dead end may come: the text cannot be ended any more", {
            everywhere(|s, id, bytes| match bytes {
                [] => right(s, id),
                _ => right_walk(&automaton, &all_live, s, bytes).is_some(),
            })
        }),
        ("a control token without bytes may come: it changes nothing, and may come forever", {
            everywhere(|s, id, bytes| right(s, id) || bytes.is_empty() && !is_eos(id))
        }),
        ("the text may end anywhere", everywhere(|s, id, _| is_eos(id) || right(s, id))),
        ("the text may never end", everywhere(|s, id, _| !is_eos(id) && right(s, id))),
        ("the text has to end where it may end, although it could go on", {
            everywhere(|s, id, _| right(s, id) && (is_eos(id) || !automaton.accepts[s]))
        }),
        ("only tokens of one byte may come; longer ones are what makes it fast", {
            everywhere(|s, id, bytes| right(s, id) && bytes.len() < 2)
        }),
    ];
    let found = everywhere(|s, id, _| masks[s][id]);
    compare(&found, &everywhere(|s, id, _| right(s, id)), 0.0, &mistakes)
}

fn bits() -> Outcome {
    let marks: Vec<bool> = normals("marks", 75).iter().map(|x| *x > 0.3).collect();
    let place = |at: fn(usize) -> (usize, usize), words: usize| -> Vec<u32> {
        let mut packed = vec![0u32; words];
        for id in (0..75).filter(|id| marks[*id]) {
            let (word, bit) = at(id);
            packed[word] |= 1 << bit;
        }
        packed
    };
    let expected = place(|id| (id / 32, id % 32), 3);
    let found = answer::packed(&marks);
    if found != expected {
        let known = [
            ("the lowest id stands in the highest bit", place(|id| (id / 32, 31 - id % 32), 3)),
            ("the last word is missing: 75 tokens need three", place(|id| (id / 32, id % 32), 3)[..2].to_vec()),
            ("a word holds 8 tokens; it is to hold 32", place(|id| (id / 8, id % 8), 10)),
            ("the bits say what may not come", place(|id| (id / 32, id % 32), 3).iter().map(|w| !w).collect()),
        ];
        let known = known.iter().find(|(_, words)| *words == found).map(|(words, _)| (*words).to_owned());
        return Err(known.unwrap_or_else(|| format!("the words are {found:08x?}, {expected:08x?} is right")));
    }
    let logits = normals("logits", 75);
    let under = |of: &dyn Fn(usize) -> f32| (0..75).map(of).collect::<Vec<f32>>();
    let exp = |logits: &[f32]| logits.iter().map(|l| l.exp()).collect::<Vec<f32>>();
    let right = under(&|id| if marks[id] { logits[id] } else { f32::NEG_INFINITY });
    let zero = under(&|id| if marks[id] { logits[id] } else { 0.0 });
    let other = under(&|id| if marks[id] { f32::NEG_INFINITY } else { logits[id] });
    let mistakes: [Mistake<'_>; 3] = [
        ("what may not come has logit 0, which is likely", exp(&zero)),
        ("what may come is ruled out", exp(&other)),
        ("nothing is ruled out", exp(&logits)),
    ];
    let mut found = logits.clone();
    answer::restrict(&mut found, &expected);
    compare(&exp(&found), &exp(&right), 1e-6, &mistakes)
}

fn forced() -> Outcome {
    let automaton = automaton();
    let live = right_live(&automaton);
    let behind = |text: &str| {
        right_walk(&automaton, &live, 0, text.as_bytes()).unwrap_or_else(|| panic!("{text:?} may not come"))
    };
    let cases = [
        ("", "{\"on\": "),
        ("{\"on\": t", "rue"),
        ("{\"on\": false,", " \"n\": "),
        ("{\"on\": true, \"n\": 1.", "5}"),
        ("{\"on\": true, \"n\": 1", ""),
        ("{\"on\": true}", ""),
    ];
    for (text, expected) in cases {
        let found = answer::forced(&automaton, &live, behind(text));
        let found = String::from_utf8_lossy(&found).into_owned();
        if found == expected {
            continue;
        }
        let sentence = format!("behind {text:?} {found:?} is forced, {expected:?} is right");
        return Err(match (text, found.as_str()) {
            (_, "") => format!("nothing is forced where one byte alone may come ({sentence})"),
            ("{\"on\": true}", _) | (_, "5}ü") => format!("what may end is forced to go on ({sentence})"),
            _ if found.len() == 1 => format!("one byte is forced, and those behind it are too ({sentence})"),
            _ => sentence,
        });
    }
    let bytes: usize = cases.iter().map(|(_, forced)| forced.len()).sum();
    Ok(format!("{} places, {bytes} bytes without a pass of the model", cases.len()))
}

/// Tokens by chance, among those that the mask allows: every text is one of the grammar.
fn texts() -> Outcome {
    let automaton = automaton();
    let (live, (tokens, eos)) = (answer::live(&automaton), vocabulary());
    let mut random = rng(20_261_121, 0, "grammar mask");
    let mut written = 0;
    for number in 0..300 {
        let (mut state, mut text) = (0, Vec::new());
        let ended = (0..400).find(|_| {
            let may = answer::mask(&automaton, &live, state, &tokens, eos);
            let ids: Vec<usize> = (0..may.len()).filter(|id| may[*id]).collect();
            let id = ids.get((random.uniform_f64() * ids.len() as f64) as usize).copied();
            match id {
                Some(id) if id != eos as usize => {
                    text.extend(&tokens[id]);
                    written += 1;
                    state = answer::walk(&automaton, &live, state, &tokens[id]).unwrap_or(state);
                    false
                }
                _ => true,
            }
        });
        let shown = String::from_utf8_lossy(&text).into_owned();
        if ended.is_none() {
            return Err(format!("text {number} does not end in 400 tokens: {shown:?}"));
        }
        let reached = text.iter().try_fold(0, |state, byte| automaton.next[state].get(byte).copied());
        if !reached.is_some_and(|state| automaton.accepts[state]) {
            return Err(format!("text {number} is none of the grammar: {shown:?}"));
        }
    }
    Ok(format!("{written} tokens, every text is one of the grammar"))
}
