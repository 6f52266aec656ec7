//! Who computes in the next step: continuous batching under a budget of tokens and a pool of pages.
//!
//! A sequence knows its prompt and what it has produced; some of that is computed, and lies in the cache. A step computes
//! more of it; once everything known is computed, the step produces one token, which is known from then on.

use std::collections::VecDeque;

/// One request on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Its number.
    pub id: u32,
    /// Tokens of its prompt, at least one.
    pub prompt: usize,
    /// Tokens to produce, at least one.
    pub output: usize,
    /// Tokens produced.
    pub produced: usize,
    /// Tokens that lie in the cache.
    pub computed: usize,
    /// Pages that it holds.
    pub held: usize,
}

impl Sequence {
    /// Tokens that are known.
    pub fn known(&self) -> usize {
        self.prompt + self.produced
    }
}

/// What a step computes of one sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Whose.
    pub id: u32,
    /// How many tokens.
    pub tokens: usize,
}

/// All requests, the pages and the budget.
#[derive(Clone, Debug)]
pub struct Scheduler {
    /// Tokens that a step computes at most.
    pub budget: usize,
    /// Tokens in a page.
    pub page_len: usize,
    /// Pages that nobody holds.
    pub free: usize,
    /// Requests that wait, the one that is next at the front.
    pub waiting: VecDeque<Sequence>,
    /// Requests that hold pages, in the order in which they were let in.
    pub running: Vec<Sequence>,
    /// How often pages were taken away from somebody.
    pub preemptions: usize,
}

impl Scheduler {
    /// Nobody there.
    pub fn new(budget: usize, pages: usize, page_len: usize) -> Scheduler {
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Scheduler { budget, page_len, free: pages, waiting, running, preemptions: 0 }
    }

    /// Puts a request at the end of the queue.
    pub fn submit(&mut self, id: u32, prompt: usize, output: usize) {
        self.waiting.push_back(Sequence { id, prompt, output, produced: 0, computed: 0, held: 0 });
    }

    /// Pages for so many tokens.
    pub fn pages(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.page_len)
    }

    /// Before a step: everybody who runs, in order, gets the pages for what it knows. Where none is free, the one let in
    /// last gives all of its pages back, even if it is the one that asks: it keeps what it has produced, has nothing
    /// computed any more, and waits at the front of the queue.
    pub fn make_room(&mut self) {
        let mut at = 0;
        while at < self.running.len() {
            if self.pages(self.running[at].known()) <= self.running[at].held {
                at += 1;
            } else if self.free > 0 {
                self.free -= 1;
                self.running[at].held += 1;
            } else if let Some(mut last) = self.running.pop() {
                self.free += last.held;
                (last.held, last.computed) = (0, 0);
                self.preemptions += 1;
                self.waiting.push_front(last);
            }
        }
    }

    /// What the step computes, together at most the budget:
    ///
    /// 1. one token of each that runs and has one left, in order: those that write;
    /// 2. of each that runs and has more left, in order, as much as the budget allows: those that still read;
    /// 3. those that wait, in order, as long as the budget is not used up: the one at the front is let in if the pages for
    ///    all it knows are free, and computes as much as the budget allows. If they are not, nobody overtakes it.
    ///
    /// Whoever was let in holds its pages and runs.
    pub fn plan(&mut self) -> Vec<Work> {
        let mut left = self.budget;
        let mut work = Vec::new();
        let mut compute = |id: u32, tokens: usize| {
            let tokens = tokens.min(left);
            left -= tokens;
            if tokens > 0 {
                work.push(Work { id, tokens });
            }
            left
        };
        let missing = |sequence: &&Sequence| sequence.known() - sequence.computed;
        for sequence in self.running.iter().filter(|s| missing(s) == 1) {
            compute(sequence.id, 1);
        }
        for sequence in self.running.iter().filter(|s| missing(s) > 1) {
            compute(sequence.id, missing(&sequence));
        }
        while compute(0, 0) > 0
            && let Some(next) = self.waiting.front()
        {
            let pages = self.pages(next.known());
            if pages > self.free {
                break;
            }
            compute(next.id, next.known());
            self.free -= pages;
            self.running.extend(self.waiting.pop_front());
            if let Some(new) = self.running.last_mut() {
                new.held = pages;
            }
        }
        work
    }

    /// After a step: what was planned is computed. Whose known tokens all are has produced one more, and leaves with all
    /// of its pages if that was the last. Returns who left, in order.
    pub fn done(&mut self, work: &[Work]) -> Vec<u32> {
        for Work { id, tokens } in work {
            for sequence in self.running.iter_mut().filter(|sequence| sequence.id == *id) {
                sequence.computed += tokens;
                if sequence.computed == sequence.known() {
                    sequence.produced += 1;
                }
            }
        }
        let (left, running) = self.running.drain(..).partition(|s| s.produced == s.output);
        self.running = running;
        let left: Vec<Sequence> = left;
        self.free += left.iter().map(|sequence| sequence.held).sum::<usize>();
        left.into_iter().map(|sequence| sequence.id).collect()
    }
}
