//! Gives the reader's pool a memory that remembers what was written into each slot, and reads it back.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::process::ExitCode;

use answer::{Grown, Pool, Sequence};
use fornax_learn::fornax_base::rng::rng;
use fornax_learn::{Checks, Outcome};

const LEN: usize = 4;

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("admit: blocks for a prompt, and a prompt too many", admit);
    checks.run("admit: a known beginning is shared", share);
    checks.run("append: a full block, and one that another holds", append);
    checks.run("release: what nobody holds is free", release);
    checks.run("release: what was given back can be found until it is taken", forget);
    checks.run("2,000 requests, forks, tokens and ends by chance", chance);
    checks.finish()
}

/// The pool with a memory: a slot holds the ids up to its token, which is what keys and values depend on.
struct Memory {
    pool: Pool,
    slots: Vec<Vec<u32>>,
}

impl Memory {
    fn new(blocks: u32) -> Memory {
        Memory { pool: Pool::new(blocks, LEN), slots: vec![Vec::new(); blocks as usize * LEN] }
    }

    /// Admits, and writes what is not there already.
    fn admit(&mut self, ids: &[u32]) -> Option<(Sequence, usize)> {
        let (sequence, reused) = self.pool.admit(ids)?;
        (reused..ids.len()).for_each(|i| self.write(&sequence, i));
        Some((sequence, reused))
    }

    fn append(&mut self, sequence: &mut Sequence, id: u32) -> Option<Grown> {
        let grown = self.pool.append(sequence, id)?;
        if let Grown::Copied { from, to } = grown {
            for i in 0..LEN {
                self.slots[to as usize * LEN + i] = self.slots[from as usize * LEN + i].clone();
            }
        }
        if !sequence.ids.is_empty() && sequence.blocks.len() * LEN >= sequence.ids.len() {
            self.write(sequence, sequence.ids.len() - 1);
        }
        Some(grown)
    }

    fn write(&mut self, sequence: &Sequence, i: usize) {
        if let Some(block) = sequence.blocks.get(i / LEN) {
            self.slots[*block as usize * LEN + i % LEN] = sequence.ids[..=i].to_vec();
        }
    }

    /// Whether each token of the sequence is where it should be.
    fn read(&self, sequence: &Sequence) -> Result<(), String> {
        let (tokens, blocks) = (sequence.ids.len(), sequence.blocks.len());
        if blocks != tokens.div_ceil(LEN) {
            let wanted = tokens.div_ceil(LEN);
            return Err(format!(
                "a sequence of {tokens} tokens has {blocks} blocks of {LEN}, {wanted} are wanted"
            ));
        }
        for i in 0..tokens {
            let block = sequence.blocks[i / LEN];
            let slot = &self.slots[block as usize * LEN + i % LEN];
            if *slot != sequence.ids[..=i] {
                return Err(match slot.last() == Some(&sequence.ids[i]) {
                    true => format!(
                        "slot {} of block {block} holds the right token behind another past: {slot:?}",
                        i % LEN
                    ),
                    false => format!(
                        "slot {} of block {block} was written for {slot:?}, and is read as token {i} of {:?}",
                        i % LEN,
                        sequence.ids
                    ),
                });
            }
        }
        Ok(())
    }

    /// Whether each block is free or held, and held as often as is counted.
    fn whole(&self, sequences: &[Sequence]) -> Result<(), String> {
        sequences.iter().try_for_each(|sequence| self.read(sequence))?;
        for block in 0..self.pool.holders.len() as u32 {
            let held = sequences.iter().filter(|sequence| sequence.blocks.contains(&block)).count();
            let counted = self.pool.holders[block as usize];
            let free = self.pool.free.iter().filter(|&&free| free == block).count();
            if held != counted as usize {
                return Err(format!("{held} sequences hold block {block}, and {counted} are counted"));
            }
            if free != usize::from(held == 0) {
                return Err(match (held, free) {
                    (0, 0) => format!("nobody holds block {block}, and it is not free: it is lost"),
                    (0, _) => format!("block {block} is free {free} times: it will be handed out twice"),
                    _ => format!("block {block} is free, and {held} sequences hold it"),
                });
            }
        }
        Ok(())
    }
}

fn ids(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

fn got(admitted: Option<(Sequence, usize)>, words: &str) -> Result<(Sequence, usize), String> {
    admitted.ok_or_else(|| format!("{words} was refused, and there is room"))
}

fn admit() -> Outcome {
    let mut memory = Memory::new(5);
    let (one, reused) = got(memory.admit(&ids(0..10)), "a prompt of 10 tokens")?;
    if (one.blocks.len(), reused) == (2, 0) {
        return Err("10 tokens are given 2 blocks of 4: the last one begun counts too".into());
    }
    memory.whole(std::slice::from_ref(&one))?;
    if one.blocks != [0, 1, 2] {
        return Err(format!("the blocks are {:?}; they are taken from the front of the free ones", one.blocks));
    }
    let before = (memory.pool.free.clone(), memory.pool.holders.clone(), memory.pool.known.len());
    if memory.admit(&ids(50..59)).is_some() {
        return Err("9 tokens were given room, and 2 blocks of 4 are free".into());
    }
    // A beginning that is known, and an end that does not fit.
    if memory.admit(&[ids(0..8), ids(60..72)].concat()).is_some() {
        return Err("3 blocks behind a known beginning were given, and 2 are free".into());
    }
    if (memory.pool.free.clone(), memory.pool.holders.clone(), memory.pool.known.len()) != before {
        return Err("a prompt was refused, and something changed: what it had taken is lost".into());
    }
    let (two, _) = got(memory.admit(&ids(50..58)), "a prompt of 8 tokens for the last 2 blocks")?;
    memory.whole(&[one, two])?;
    Ok("10 and 8 tokens in 5 blocks; two prompts refused".into())
}

fn share() -> Outcome {
    let mut memory = Memory::new(16);
    let first = [ids(0..10), vec![90, 91]].concat();
    let mut all = vec![got(memory.admit(&first), "a prompt")?.0];
    let cases: [(&str, Vec<u32>, usize); 5] = [
        ("8 tokens of the same beginning and 3 others", [ids(0..8), ids(20..23)].concat(), 8),
        (
            "9 tokens of the same beginning: the third block is not full with the same",
            [ids(0..9), ids(30..35)].concat(),
            8,
        ),
        ("the same prompt, all 12 tokens", first, 8),
        ("the same two blocks the other way round", [ids(4..8), ids(0..4), vec![7]].concat(), 0),
        ("5 tokens of the same beginning", ids(0..5), 4),
    ];
    for (words, prompt, expected) in cases {
        let (sequence, reused) = got(memory.admit(&prompt), words)?;
        match (reused, expected) {
            (r, e) if r == e => {}
            (12, 8) => {
                return Err(format!(
                    "{words}: all are taken from the memory, and no token is left to compute the logits of"
                ));
            }
            (_, 0) => {
                return Err(format!(
                    "{words}: {reused} tokens are shared; keys depend on everything before them, not on their block alone"
                ));
            }
            (0, _) => return Err(format!("{words}: nothing is shared, {expected} tokens are known")),
            _ => return Err(format!("{words}: {reused} tokens are shared, {expected} is right")),
        }
        all.push(sequence);
        memory.whole(&all).map_err(|fault| format!("{words}: {fault}"))?;
    }
    let held = 16 - memory.pool.free.len();
    Ok(format!("6 prompts of {} tokens in {held} blocks", all.iter().map(|s| s.ids.len()).sum::<usize>()))
}

fn append() -> Outcome {
    let mut memory = Memory::new(6);
    let (mut one, _) = got(memory.admit(&ids(0..6)), "a prompt")?;
    let mut two = memory.pool.fork(&one);
    memory.whole(&[one.clone(), two.clone()])?;
    let full = || "a token was refused, and there is room".to_owned();
    let shared = one.blocks[1];
    match memory.append(&mut two, 70).ok_or_else(full)? {
        Grown::InPlace => return Err("the last block is written in place, and another sequence reads it".into()),
        Grown::Copied { from, to } if from == shared && two.blocks[1] == to && to != shared => {}
        other => return Err(format!("{other:?}: block {shared} is to be copied to the new one")),
    }
    memory.whole(&[one.clone(), two.clone()])?;
    if memory.append(&mut one, 71).ok_or_else(full)? != Grown::InPlace {
        return Err("a block that nobody else holds any more is copied".into());
    }
    for id in 72..75 {
        memory.append(&mut one, id).ok_or_else(full)?;
        memory.whole(&[one.clone(), two.clone()])?;
    }
    // What was generated is known like a prompt: the next question of a conversation begins with it.
    let next = [one.ids[..8].to_vec(), vec![80]].concat();
    let (three, reused) = got(memory.admit(&next), "the next question")?;
    if reused != 8 {
        return Err(format!(
            "a block that became full by appending is not known: {reused} of 8 tokens are shared"
        ));
    }
    let mut all = [one, two, three];
    let mut last = 0;
    while memory.append(&mut all[2], 81).is_some() {
        last += 1;
        memory.whole(&all)?;
        if last > 16 {
            return Err("tokens are taken without end".into());
        }
    }
    memory.whole(&all).map_err(|fault| format!("a token was refused, and something changed: {fault}"))?;
    Ok(format!("a copy where two wrote, none where one did; {last} tokens to the last block"))
}

fn release() -> Outcome {
    let mut memory = Memory::new(4);
    let (one, _) = got(memory.admit(&ids(0..9)), "a prompt")?;
    let two = memory.pool.fork(&one);
    memory.pool.release(one);
    memory.whole(std::slice::from_ref(&two)).map_err(|fault| format!("one of two holders left: {fault}"))?;
    let (three, reused) = got(memory.admit(&[ids(0..4)].concat()), "a prompt of 4 tokens")?;
    if reused != 0 {
        return Err(format!("{reused} of 4 tokens are shared: one at least is left to compute"));
    }
    memory.whole(&[two.clone(), three.clone()])?;
    memory.pool.release(two);
    memory.pool.release(three);
    memory.whole(&[])?;
    let free: Vec<u32> = memory.pool.free.iter().copied().collect();
    match free[..] {
        [2, 1, 0, 3] => Ok("4 blocks free, beginnings at the end".into()),
        [0, 1, 2, 3] => Err("the beginning of a sequence is the next to be taken; its end should be".into()),
        [3, 0, 1, 2] | [3, 2, 1, 0] => {
            Err("what was given back is taken next; it should be found as long as possible".into())
        }
        _ => Err(format!("the free blocks are {free:?}, [2, 1, 0, 3] is right")),
    }
}

fn forget() -> Outcome {
    let mut memory = Memory::new(4);
    let (one, _) = got(memory.admit(&ids(0..9)), "a prompt")?;
    memory.pool.release(one);
    let (again, reused) = got(memory.admit(&ids(0..9)), "the same prompt")?;
    match reused {
        8 => {}
        0 => {
            return Err(
                "what was given back is forgotten at once: the next question of a conversation finds nothing"
                    .into(),
            );
        }
        _ => return Err(format!("{reused} of 9 tokens are found, 8 is right")),
    }
    memory
        .whole(std::slice::from_ref(&again))
        .map_err(|fault| format!("a free block was found again: {fault}"))?;
    memory.pool.release(again);
    // Three of four blocks for somebody else: the last one keeps the beginning.
    let (other, _) = got(memory.admit(&ids(60..72)), "a prompt of 12 tokens")?;
    let (back, reused) = got(memory.admit(&ids(0..4)), "a prompt of 4 tokens").and_then(|(sequence, _)| {
        memory.pool.release(sequence);
        got(memory.admit(&ids(60..64)), "a prompt of 4 tokens")
    })?;
    memory
        .whole(&[other.clone(), back.clone()])
        .map_err(|fault| format!("a block was taken, and its old ids are still known: {fault}"))?;
    if reused != 0 {
        return Err(format!("{reused} of 4 tokens are shared: one at least is left to compute"));
    }
    memory.pool.release(back);
    let mut other = other;
    memory.append(&mut other, 99).ok_or("a token was refused, and there is room")?;
    memory.pool.release(other);
    let (last, reused) = got(memory.admit(&ids(0..5)), "a prompt of 5 tokens")?;
    match reused {
        0 => memory.whole(&[last]).map(|()| "found while free, forgotten when taken".into()),
        _ => Err(format!("{reused} tokens are found in a block that has been taken since")),
    }
}

fn chance() -> Outcome {
    let mut memory = Memory::new(24);
    let mut random = rng(20_261_121, 0, "block allocator");
    let mut below = |n: usize| (random.uniform_f64() * n as f64) as usize;
    let mut all: Vec<Sequence> = Vec::new();
    let (mut refused, mut shared, mut copied) = (0, 0, 0);
    for turn in 0..2000 {
        match below(8) {
            0 | 1 => {
                // Few beginnings, so that many are shared; few ids, so that blocks are equal behind different ones.
                let prompt: Vec<u32> =
                    (0..1 + below(14)).map(|i| if i < 6 { (i % 3) as u32 } else { below(2) as u32 }).collect();
                match memory.admit(&prompt) {
                    Some((sequence, reused)) => {
                        shared += reused;
                        all.push(sequence);
                    }
                    None => refused += 1,
                }
            }
            2 if !all.is_empty() && all.len() < 12 => {
                let from = below(all.len());
                all.push(memory.pool.fork(&all[from]));
            }
            3 | 4 if all.len() > 4 => memory.pool.release(all.swap_remove(below(all.len()))),
            _ if !all.is_empty() => {
                let at = below(all.len());
                match memory.append(&mut all[at], below(2) as u32) {
                    Some(Grown::Copied { .. }) => copied += 1,
                    Some(Grown::InPlace) => {}
                    None => memory.pool.release(all.swap_remove(at)),
                }
            }
            _ => {}
        }
        memory.whole(&all).map_err(|fault| format!("turn {turn}: {fault}"))?;
    }
    all.drain(..).for_each(|sequence| memory.pool.release(sequence));
    memory.whole(&[])?;
    Ok(format!("{shared} tokens shared, {copied} blocks copied, {refused} prompts refused, nothing lost"))
}
