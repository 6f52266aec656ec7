//! A cache in blocks: who holds which block, and which beginnings are there already.

use std::collections::{HashMap, VecDeque};

/// All blocks.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Tokens in a block.
    pub block_len: usize,
    /// Blocks that nobody holds; the one at the front is taken next. What they hold can still be found.
    pub free: VecDeque<u32>,
    /// How many sequences hold each block.
    pub holders: Vec<u32>,
    /// The block that ends with these ids, which go back to the beginning of the sequence. Full blocks only.
    pub known: HashMap<Vec<u32>, u32>,
}

/// One sequence and its blocks, in order: token i stands in block i / block_len.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Its ids.
    pub ids: Vec<u32>,
    /// Its blocks.
    pub blocks: Vec<u32>,
}

/// What has to be done in the memory before the token that was appended is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grown {
    /// Nothing.
    InPlace,
    /// Block `from`, which others read, is to be copied to block `to`.
    Copied {
        /// Where it is.
        from: u32,
        /// Where it goes.
        to: u32,
    },
}

impl Pool {
    /// Free blocks 0 to `blocks`, in this order.
    pub fn new(blocks: u32, block_len: usize) -> Pool {
        let (free, holders) = ((0..blocks).collect(), vec![0; blocks as usize]);
        Pool { block_len, free, holders, known: HashMap::new() }
    }

    /// Blocks for a prompt of at least one token, and how many of its tokens are in the memory already.
    ///
    /// - Full blocks at its beginning that are known are held together with those that hold them, as long as one follows
    ///   the other. One token at least is left to compute.
    /// - The other blocks are taken from the front of the free ones. Those that the prompt fills are known from now on.
    /// - Where they are too few: nothing, and nothing has changed.
    pub fn admit(&mut self, ids: &[u32]) -> Option<(Sequence, usize)> {
        let len = self.block_len;
        let most = (ids.len() - 1) / len;
        let shared = (1..=most).map_while(|n| self.known.get(&ids[..n * len]).copied());
        let mut blocks: Vec<u32> = shared.collect();
        let reused = blocks.len();
        let wanted = ids.len().div_ceil(len) - reused;
        let idle = blocks.iter().filter(|&&block| self.holders[block as usize] == 0).count();
        if self.free.len() < wanted + idle {
            return None;
        }
        for &block in &blocks {
            self.holders[block as usize] += 1;
        }
        self.free.retain(|block| !blocks.contains(block));
        for n in reused..reused + wanted {
            let block = self.take()?;
            blocks.push(block);
            if (n + 1) * len <= ids.len() {
                self.known.entry(ids[..(n + 1) * len].to_vec()).or_insert(block);
            }
        }
        Some((Sequence { ids: ids.to_vec(), blocks }, reused * len))
    }

    /// One more token. A full last block wants a new one; one that others hold too is left to them, and a new one
    /// takes its place. A block that becomes full is known from now on. Where no block is free: nothing, and nothing has
    /// changed.
    pub fn append(&mut self, sequence: &mut Sequence, id: u32) -> Option<Grown> {
        let mut grown = Grown::InPlace;
        if sequence.ids.len() == sequence.blocks.len() * self.block_len {
            let block = self.take()?;
            sequence.blocks.push(block);
        } else if let Some(last) = sequence.blocks.last_mut()
            && self.holders[*last as usize] > 1
        {
            let (from, to) = (*last, self.take()?);
            self.holders[from as usize] -= 1;
            *last = to;
            grown = Grown::Copied { from, to };
        }
        sequence.ids.push(id);
        if sequence.ids.len() == sequence.blocks.len() * self.block_len
            && let Some(block) = sequence.blocks.last()
        {
            self.known.entry(sequence.ids.clone()).or_insert(*block);
        }
        Some(grown)
    }

    /// A second continuation of the same ids: it holds the same blocks.
    pub fn fork(&mut self, sequence: &Sequence) -> Sequence {
        for &block in &sequence.blocks {
            self.holders[block as usize] += 1;
        }
        sequence.clone()
    }

    /// Gives the blocks back. Those that nobody holds any more go to the end of the free ones, the last of the sequence
    /// before the one in front of it: more sequences share a beginning than an end, so beginnings are taken last.
    pub fn release(&mut self, sequence: Sequence) {
        for &block in sequence.blocks.iter().rev() {
            self.holders[block as usize] -= 1;
            if self.holders[block as usize] == 0 {
                self.free.push_back(block);
            }
        }
    }

    /// Takes the free block at the front, for one holder. What it held is known no more.
    pub fn take(&mut self) -> Option<u32> {
        let block = self.free.pop_front()?;
        self.known.retain(|_, known| *known != block);
        self.holders[block as usize] = 1;
        Some(block)
    }
}
