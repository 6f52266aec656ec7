//! Which pages of the key-value cache are free, who holds the others, and what finished blocks they keep.
//!
//! Numbers only: the keys and values themselves are `fornax_model::KvCache`'s. A page that nobody holds any more keeps
//! its block until it is taken for something else, the one free for longest before the others (vLLM's rule).

use std::collections::HashMap;

use super::prefix::BlockHash;

/// The pages of one cache.
#[derive(Debug)]
pub struct Pages {
    page_len: usize,
    /// Tables that hold each page.
    holders: Vec<u32>,
    /// The block that each page keeps, where all of its slots are written and may be read by others.
    blocks: Vec<Option<BlockHash>>,
    of_block: HashMap<BlockHash, u32>,
    free: FreeList,
}

impl Pages {
    /// `pages` free pages of `page_len` tokens each.
    ///
    /// # Panics
    /// Panics without pages or with pages of no tokens.
    pub fn new(pages: usize, page_len: usize) -> Self {
        assert!(pages > 0 && page_len > 0, "{pages} pages of {page_len} tokens");
        Self {
            page_len,
            holders: vec![0; pages],
            blocks: vec![None; pages],
            of_block: HashMap::new(),
            free: FreeList::full(pages),
        }
    }

    /// Tokens of a page.
    pub fn page_len(&self) -> usize {
        self.page_len
    }

    /// Pages in all.
    pub fn total(&self) -> usize {
        self.holders.len()
    }

    /// Pages that nobody holds, those among them that keep a block included.
    pub fn free(&self) -> usize {
        self.free.len
    }

    /// Pages that somebody holds.
    pub fn used(&self) -> usize {
        self.total() - self.free()
    }

    /// Pages that `tokens` tokens need.
    pub fn needed(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_len)
    }

    /// Takes a page for one holder: an empty one, else the one that was free for longest, whose block is forgotten.
    /// `None` when none is free.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.first()?;
        self.free.remove(page);
        self.forget(page);
        self.holders[page as usize] = 1;
        Some(page)
    }

    /// One more holder of a page, free or not.
    pub fn share(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        if *holders == 0 {
            self.free.remove(page);
        }
        *holders += 1;
    }

    /// One holder less; a page without one is free and keeps its block.
    ///
    /// # Panics
    /// Panics when nobody holds the page.
    pub fn release(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        assert!(*holders > 0, "page {page} is released and nobody holds it");
        *holders -= 1;
        if *holders == 0 {
            // One that keeps nothing is taken before any that does.
            match self.blocks[page as usize] {
                Some(_) => self.free.push_last(page),
                None => self.free.push_first(page),
            }
        }
    }

    /// How many hold a page.
    pub fn holders(&self, page: u32) -> u32 {
        self.holders[page as usize]
    }

    /// The page that keeps a block.
    pub fn find(&self, block: &BlockHash) -> Option<u32> {
        self.of_block.get(block).copied()
    }

    /// A held page whose slots are all written keeps `block` from now on. Where another page keeps the same, that one
    /// stays the one to be found.
    pub fn remember(&mut self, page: u32, block: BlockHash) {
        if self.blocks[page as usize].is_none() && !self.of_block.contains_key(&block) {
            self.blocks[page as usize] = Some(block);
            self.of_block.insert(block, page);
        }
    }

    /// What the page kept is about to be written over.
    pub fn forget(&mut self, page: u32) {
        if let Some(block) = self.blocks[page as usize].take() {
            self.of_block.remove(&block);
        }
    }

    /// Whether the page can be found by a block.
    pub fn keeps_block(&self, page: u32) -> bool {
        self.blocks[page as usize].is_some()
    }
}

const END: u32 = u32::MAX;

/// Free pages in the order in which they are taken: a doubly linked list in two vectors, every operation in constant
/// time.
#[derive(Debug)]
struct FreeList {
    before: Vec<u32>,
    after: Vec<u32>,
    first: u32,
    last: u32,
    len: usize,
}

impl FreeList {
    fn full(pages: usize) -> Self {
        let mut list = Self { before: vec![END; pages], after: vec![END; pages], first: END, last: END, len: 0 };
        (0..pages as u32).for_each(|page| list.push_last(page));
        list
    }

    fn first(&self) -> Option<u32> {
        (self.first != END).then_some(self.first)
    }

    fn push_last(&mut self, page: u32) {
        self.link(page, self.last, END);
    }

    fn push_first(&mut self, page: u32) {
        self.link(page, END, self.first);
    }

    fn link(&mut self, page: u32, before: u32, after: u32) {
        (self.before[page as usize], self.after[page as usize]) = (before, after);
        self.set_after(before, page);
        self.set_before(after, page);
        self.len += 1;
    }

    fn remove(&mut self, page: u32) {
        let (before, after) = (self.before[page as usize], self.after[page as usize]);
        self.set_after(before, after);
        self.set_before(after, before);
        self.len -= 1;
    }

    fn set_after(&mut self, page: u32, after: u32) {
        match page {
            END => self.first = after,
            page => self.after[page as usize] = after,
        }
    }

    fn set_before(&mut self, page: u32, before: u32) {
        match page {
            END => self.last = before,
            page => self.before[page as usize] = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u32) -> BlockHash {
        BlockHash::root(None, None).child(&[n])
    }

    #[test]
    fn a_page_is_free_when_its_last_holder_lets_go() {
        let mut pages = Pages::new(2, 16);
        let page = pages.take().unwrap();
        pages.share(page);
        assert_eq!((pages.holders(page), pages.free(), pages.used()), (2, 1, 1));
        pages.release(page);
        assert_eq!(pages.free(), 1);
        pages.release(page);
        assert_eq!((pages.free(), pages.holders(page)), (2, 0));
        let both = [pages.take(), pages.take(), pages.take()];
        assert!(both[0].is_some() && both[1].is_some() && both[0] != both[1] && both[2].is_none());
        assert_eq!((pages.needed(0), pages.needed(16), pages.needed(17)), (0, 1, 2));
    }

    #[test]
    #[should_panic(expected = "page 0 is released and nobody holds it")]
    fn a_page_is_not_released_twice() {
        let mut pages = Pages::new(1, 16);
        let page = pages.take().unwrap();
        pages.release(page);
        pages.release(page);
    }

    /// Empty pages go before kept ones, and of these the one that was free for longest.
    #[test]
    fn blocks_are_kept_until_their_pages_are_needed() {
        let mut pages = Pages::new(4, 16);
        let held: Vec<u32> = (0..3).map(|_| pages.take().unwrap()).collect();
        for (&page, n) in held.iter().zip(0..) {
            pages.remember(page, block(n));
        }
        for page in [held[1], held[0], held[2]] {
            pages.release(page);
        }
        assert_eq!(pages.free(), 4);
        let empty = pages.take().unwrap();
        assert!(!held.contains(&empty) && pages.find(&block(1)) == Some(held[1]));
        // Found again, page 1 is no longer the one to go.
        pages.share(held[1]);
        assert_eq!(pages.take(), Some(held[0]));
        assert_eq!((pages.find(&block(0)), pages.find(&block(2))), (None, Some(held[2])));
        assert_eq!(pages.take(), Some(held[2]));
        assert_eq!(pages.take(), None);
        assert!(pages.keeps_block(held[1]) && !pages.keeps_block(held[2]));
    }

    #[test]
    fn of_two_equal_blocks_one_is_found() {
        let mut pages = Pages::new(2, 16);
        let [a, b] = [pages.take().unwrap(), pages.take().unwrap()];
        pages.remember(a, block(7));
        pages.remember(b, block(7));
        assert_eq!(pages.find(&block(7)), Some(a));
        pages.forget(b);
        assert_eq!(pages.find(&block(7)), Some(a));
        pages.forget(a);
        assert_eq!(pages.find(&block(7)), None);
    }
}
