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
        todo!("all free")
    }

    /// Blocks for a prompt of at least one token, and how many of its tokens are in the memory already.
    ///
    /// - Full blocks at its beginning that are known are held together with those that hold them, as long as one follows
    ///   the other. One token at least is left to compute.
    /// - The other blocks are taken from the front of the free ones. Those that the prompt fills are known from now on.
    /// - Where they are too few: nothing, and nothing has changed.
    pub fn admit(&mut self, ids: &[u32]) -> Option<(Sequence, usize)> {
        todo!("known beginnings, then free blocks")
    }

    /// One more token. A full last block wants a new one; one that others hold too is left to them, and a new one
    /// takes its place. A block that becomes full is known from now on. Where no block is free: nothing, and nothing has
    /// changed.
    pub fn append(&mut self, sequence: &mut Sequence, id: u32) -> Option<Grown> {
        todo!("a new block, a copied one, or none")
    }

    /// A second continuation of the same ids: it holds the same blocks.
    pub fn fork(&mut self, sequence: &Sequence) -> Sequence {
        todo!("one more holder for each")
    }

    /// Gives the blocks back. Those that nobody holds any more go to the end of the free ones, the last of the sequence
    /// before the one in front of it: more sequences share a beginning than an end, so beginnings are taken last.
    pub fn release(&mut self, sequence: Sequence) {
        todo!("one holder less for each")
    }

    /// Takes the free block at the front, for one holder. What it held is known no more.
    pub fn take(&mut self) -> Option<u32> {
        todo!("from the front of the free ones")
    }
}
