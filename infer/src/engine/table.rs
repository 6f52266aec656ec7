//! The pages of one sequence, in the order of its tokens.

use super::pages::Pages;
use super::prefix::BlockHash;

/// Which page holds each stretch of `page_len` tokens of a sequence.
#[derive(Debug, Default)]
pub struct BlockTable {
    /// Page of tokens `i * page_len ..`; the opening `left` of them are given back already.
    pages: Vec<u32>,
    /// Pages in front that no later token sees, because every layer's window has moved on.
    left: usize,
    /// Opening blocks that others can find, or could until their pages were taken.
    published: usize,
    /// Names of the whole blocks of ids that are known, as far as anyone asked for them.
    hashes: Vec<BlockHash>,
}

/// Pages whose blocks a new sequence can read instead of computing them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reusable {
    /// The pages, from the opening tokens on.
    pub pages: Vec<u32>,
    /// Pages in front that no later token sees; they are not taken.
    pub left: usize,
    /// Those to take that nobody holds: there will be so many free ones less.
    pub free: usize,
}

impl Reusable {
    /// Pages to take.
    pub fn taken(&self) -> usize {
        self.pages.len() - self.left
    }
}

/// Leading tokens that no token sees from place `at` on, where every layer reaches back `window` tokens.
pub fn unseen(at: usize, window: Option<usize>) -> usize {
    // The token at `at` sees itself and window - 1 before it.
    window.map_or(0, |window| (at + 1).saturating_sub(window))
}

impl BlockTable {
    /// The pages, as `Segment` wants them: those left behind may be any numbers.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Pages held.
    pub fn held(&self) -> usize {
        self.pages.len() - self.left
    }

    /// Finds the longest run of whole blocks of `ids` that are in the cache. The block of the last id is never among
    /// them: its logits are wanted, and they are not kept.
    pub fn reusable(&mut self, pages: &Pages, root: BlockHash, ids: &[u32], window: Option<usize>) -> Reusable {
        let blocks = ids.len().saturating_sub(1) / pages.page_len();
        self.name_blocks(root, ids, blocks, pages.page_len());
        let found: Vec<u32> = self.hashes[..blocks].iter().map_while(|block| pages.find(block)).collect();
        let left = unseen(found.len() * pages.page_len(), window) / pages.page_len();
        let free = found[left..].iter().filter(|&&page| pages.holders(page) == 0).count();
        Reusable { pages: found, left, free }
    }

    /// Begins with pages that others computed; returns the tokens in them.
    pub fn begin(&mut self, pages: &mut Pages, reusable: &Reusable) -> usize {
        reusable.pages[reusable.left..].iter().for_each(|&page| pages.share(page));
        (self.pages, self.left) = (reusable.pages.clone(), reusable.left);
        self.published = self.pages.len();
        self.published * pages.page_len()
    }

    /// Makes the slots `from..to` this sequence's own to write: takes new pages, and copies those that others hold too
    /// (`copies` gets pairs of old and new). False, with nothing changed, where too few are free.
    pub fn reserve(&mut self, pages: &mut Pages, from: usize, to: usize, copies: &mut Vec<(u32, u32)>) -> bool {
        let there = self.pages.len();
        let written = there.min(from / pages.page_len())..there.min(pages.needed(to));
        let shared = self.pages[written.clone()].iter().filter(|&&page| pages.holders(page) > 1).count();
        let new = pages.needed(to).saturating_sub(self.pages.len());
        if shared + new > pages.free() {
            return false;
        }
        for place in written {
            let old = self.pages[place];
            if pages.holders(old) == 1 {
                pages.forget(old);
            } else if let Some(own) = pages.take() {
                copies.push((old, own));
                pages.release(old);
                self.pages[place] = own;
            }
        }
        self.pages.extend((0..new).map_while(|_| pages.take()));
        true
    }

    /// Lets others find the whole blocks among the opening `computed` tokens.
    pub fn publish(&mut self, pages: &mut Pages, root: BlockHash, ids: &[u32], computed: usize) {
        let blocks = computed / pages.page_len();
        self.name_blocks(root, ids, blocks, pages.page_len());
        for place in self.left.max(self.published)..blocks {
            pages.remember(self.pages[place], self.hashes[place]);
        }
        self.published = self.published.max(blocks);
    }

    /// Gives back the pages whose tokens all stand before `visible`.
    pub fn leave(&mut self, pages: &mut Pages, visible: usize) {
        let left = (visible / pages.page_len()).min(self.pages.len());
        for place in self.left..left {
            pages.release(self.pages[place]);
        }
        self.left = self.left.max(left);
    }

    /// Whether the slot of token `place` is still held.
    pub fn holds(&self, place: usize, page_len: usize) -> bool {
        place / page_len >= self.left
    }

    /// Gives back the pages behind those of `len` tokens.
    pub fn trim(&mut self, pages: &mut Pages, len: usize) {
        let keep = pages.needed(len).max(self.left);
        while self.pages.len() > keep {
            self.pages.pop().into_iter().for_each(|page| pages.release(page));
        }
    }

    /// Forgets the names of blocks behind `len` tokens: other ids may follow.
    pub fn rename_behind(&mut self, len: usize, page_len: usize) {
        self.hashes.truncate(len / page_len);
        self.published = self.published.min(len / page_len);
    }

    /// Gives back every page, the last one foremost, so that of a prompt the end is taken before the beginning.
    pub fn release(&mut self, pages: &mut Pages) {
        for &page in self.pages[self.left..].iter().rev() {
            pages.release(page);
        }
        self.pages.clear();
        (self.left, self.published) = (0, 0);
    }

    /// A second table of the same pages.
    pub fn fork(&self, pages: &mut Pages) -> Self {
        self.pages[self.left..].iter().for_each(|&page| pages.share(page));
        Self { pages: self.pages.clone(), hashes: self.hashes.clone(), ..*self }
    }

    #[cfg(test)]
    pub(super) fn holding(&self) -> &[u32] {
        &self.pages[self.left..]
    }

    fn name_blocks(&mut self, root: BlockHash, ids: &[u32], blocks: usize, page_len: usize) {
        for place in self.hashes.len()..blocks {
            let parent = self.hashes.last().unwrap_or(&root);
            let block = parent.child(&ids[place * page_len..(place + 1) * page_len]);
            self.hashes.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> BlockHash {
        BlockHash::root(None, None)
    }

    /// A table of `ids`, all computed and published.
    fn computed(pages: &mut Pages, ids: &[u32]) -> BlockTable {
        let mut table = BlockTable::default();
        assert!(table.reserve(pages, 0, ids.len(), &mut Vec::new()));
        table.publish(pages, root(), ids, ids.len());
        table
    }

    #[test]
    fn whole_blocks_are_read_again_and_the_last_id_never() {
        let mut pages = Pages::new(8, 4);
        let ids: Vec<u32> = (0..11).collect();
        let mut one = computed(&mut pages, &ids);
        assert_eq!((one.held(), pages.used()), (3, 3));
        for (ids, blocks) in [
            (&ids[..], 2),
            (&ids[..9], 2),
            // The last id of a whole block is computed again, so the block is.
            (&ids[..8], 1),
            (&ids[..4], 0),
            (&[0, 1, 2, 3, 4, 5, 6, 9, 8, 9], 1),
            (&[9, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0),
            (&[], 0),
        ] {
            let found = BlockTable::default().reusable(&pages, root(), ids, None);
            assert_eq!(found.pages, one.pages()[..blocks], "{ids:?}");
        }
        let other = BlockHash::root(None, Some("someone"));
        assert!(BlockTable::default().reusable(&pages, other, &ids, None).pages.is_empty());
        one.release(&mut pages);
        assert_eq!(pages.used(), 0);
        let mut two = BlockTable::default();
        let found = two.reusable(&pages, root(), &ids, None);
        assert_eq!((found.pages.len(), found.free), (2, 2));
        assert_eq!(two.begin(&mut pages, &found), 8);
        assert_eq!(pages.used(), 2);
        // Token 8 sees 4 to 8.
        let mut three = BlockTable::default();
        let found = three.reusable(&pages, root(), &ids, Some(5));
        assert_eq!((found.taken(), found.left, found.free), (1, 1, 0));
        assert_eq!((three.begin(&mut pages, &found), three.held()), (8, 1));
    }

    #[test]
    fn what_others_hold_is_copied_before_it_is_written() {
        let mut pages = Pages::new(5, 4);
        let ids: Vec<u32> = (0..6).collect();
        let mut one = computed(&mut pages, &ids);
        let (old, mut copies) = (one.pages().to_vec(), Vec::new());
        let mut two = one.fork(&mut pages);
        assert_eq!(pages.used(), 2);
        assert!(two.reserve(&mut pages, 6, 7, &mut copies));
        assert_eq!(copies, [(old[1], two.pages()[1])]);
        assert_eq!((two.pages()[0], one.pages()), (old[0], old.as_slice()));
        // The other holder is alone with its page now and writes in place.
        assert!(one.reserve(&mut pages, 6, 7, &mut copies));
        assert_eq!((copies.len(), pages.used()), (1, 3));
        one.release(&mut pages);
        two.release(&mut pages);
        assert_eq!(pages.free(), 5);
    }

    #[test]
    fn a_reservation_that_does_not_fit_changes_nothing() {
        let mut pages = Pages::new(3, 4);
        let mut one = computed(&mut pages, &[1, 2, 3, 4, 5, 6]);
        let mut two = one.fork(&mut pages);
        let before = two.pages().to_vec();
        assert!(!two.reserve(&mut pages, 6, 9, &mut Vec::new()), "a copy and a new page, and one is free");
        assert_eq!((two.pages(), pages.free()), (before.as_slice(), 1));
        one.release(&mut pages);
        assert!(two.reserve(&mut pages, 6, 9, &mut Vec::new()));
        assert_eq!(pages.free(), 0);
    }

    #[test]
    fn a_block_written_again_is_not_found_any_more() {
        let mut pages = Pages::new(3, 4);
        let ids: Vec<u32> = (0..9).collect();
        let mut table = computed(&mut pages, &ids);
        table.trim(&mut pages, 6);
        table.rename_behind(6, 4);
        assert!(table.reserve(&mut pages, 6, 7, &mut Vec::new()));
        assert_eq!(BlockTable::default().reusable(&pages, root(), &ids, None).pages, table.pages()[..1]);
        let others = [0, 1, 2, 3, 4, 5, 50, 51, 52];
        table.publish(&mut pages, root(), &others, 8);
        assert_eq!(BlockTable::default().reusable(&pages, root(), &others, None).pages, table.pages());
    }

    #[test]
    fn pages_behind_a_window_are_given_back() {
        let mut pages = Pages::new(4, 4);
        let ids: Vec<u32> = (0..14).collect();
        let mut table = computed(&mut pages, &ids);
        table.leave(&mut pages, 9);
        assert_eq!((table.held(), pages.free(), table.pages().len()), (2, 2, 4));
        assert!(table.holds(8, 4) && !table.holds(7, 4));
        table.leave(&mut pages, 3);
        assert_eq!(table.held(), 2);
        let mut fork = table.fork(&mut pages);
        table.release(&mut pages);
        assert_eq!(pages.free(), 2);
        fork.release(&mut pages);
        assert_eq!(pages.free(), 4);
    }
}
