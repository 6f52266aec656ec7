//! Follows the reader's scheduler step by step beside one whose rules can be broken one at a time.

#[cfg_attr(feature = "solution", path = "solution/lib.rs")]
#[cfg_attr(all(feature = "start", not(feature = "solution")), path = "start/lib.rs")]
#[cfg_attr(not(any(feature = "start", feature = "solution")), path = "src/lib.rs")]
mod answer;

use std::collections::VecDeque;
use std::process::ExitCode;

use answer::{Scheduler, Work};
use fornax_learn::fornax_base::rng::rng;
use fornax_learn::{Checks, Outcome};

/// Requests (prompt, output), and the limits that they meet.
struct Workload {
    requests: Vec<(usize, usize)>,
    budget: usize,
    pages: usize,
    page_len: usize,
    /// How many come before each step; the rest waits from the beginning.
    late: bool,
}

fn main() -> ExitCode {
    let mut checks = Checks::new();
    checks.run("make_room: pages for the next token, and from whom they are taken", room);
    checks.run("done: who has produced, who leaves", done);
    checks.run("plan: requests of different length join and leave", || trace(&joining()));
    checks.run("plan: a long prompt beside those that write", || trace(&long_prompt()));
    checks.run("plan: pages run out", || trace(&scarce()));
    checks.run("64 requests to the end, beside static batching", whole);
    checks.finish()
}

fn joining() -> Workload {
    let requests = vec![(3, 2), (5, 7), (2, 4), (4, 1), (6, 3), (1, 5), (2, 2)];
    Workload { requests, budget: 12, pages: 12, page_len: 4, late: true }
}

fn long_prompt() -> Workload {
    let requests = vec![(3, 9), (4, 8), (29, 3), (2, 4), (11, 2)];
    Workload { requests, budget: 8, pages: 40, page_len: 4, late: true }
}

fn scarce() -> Workload {
    let requests = vec![(6, 9), (7, 10), (5, 6), (13, 3), (1, 8), (3, 3)];
    Workload { requests, budget: 16, pages: 8, page_len: 4, late: false }
}

/// What may be wrong with a scheduler.
#[derive(Clone, Copy, Default)]
struct Wrong {
    waits_for_all: bool,
    reads_before_it_writes: bool,
    whole_prompts: bool,
    overtakes: bool,
    takes_from_the_oldest: bool,
    to_the_back: bool,
    forgets_what_it_produced: bool,
    keeps_what_was_computed: bool,
    one_at_a_time: bool,
    room_for_the_output: bool,
    no_budget_for_the_new: bool,
}

#[derive(Clone)]
struct One {
    id: u32,
    prompt: usize,
    output: usize,
    produced: usize,
    computed: usize,
    held: usize,
}

/// The same rules, and which of them are broken.
struct Reference {
    wrong: Wrong,
    budget: usize,
    page_len: usize,
    free: usize,
    waiting: VecDeque<One>,
    running: Vec<One>,
    preemptions: usize,
}

impl Reference {
    fn new(of: &Workload, wrong: Wrong) -> Self {
        let Workload { budget, pages: free, page_len, .. } = *of;
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Self { wrong, budget, page_len, free, waiting, running, preemptions: 0 }
    }

    fn submit(&mut self, id: u32, prompt: usize, output: usize) {
        self.waiting.push_back(One { id, prompt, output, produced: 0, computed: 0, held: 0 });
    }

    fn step(&mut self) -> (Vec<Work>, Vec<u32>) {
        self.make_room();
        let mut work = Vec::new();
        let mut left = self.budget;
        let missing = |one: &One| (one.prompt + one.produced).saturating_sub(one.computed);
        let mut order: Vec<&One> = self.running.iter().collect();
        match self.wrong.reads_before_it_writes {
            true => order.sort_by_key(|one| missing(one) == 1),
            false => order.sort_by_key(|one| missing(one) > 1),
        }
        for one in order {
            let tokens = missing(one).min(left);
            left -= tokens;
            work.extend((tokens > 0).then_some(Work { id: one.id, tokens }));
        }
        let mut skipped = VecDeque::new();
        let closed = self.wrong.waits_for_all && !self.running.is_empty();
        while !closed && left > 0 {
            let Some(mut one) = self.waiting.pop_front() else { break };
            let known = one.prompt + one.produced;
            let room = if self.wrong.room_for_the_output { one.prompt + one.output } else { known };
            let pages = room.div_ceil(self.page_len);
            let too_long =
                self.wrong.whole_prompts && known > left && (left < self.budget || known > self.budget * 4);
            if pages > self.free || too_long {
                skipped.push_back(one);
                if !self.wrong.overtakes {
                    break;
                }
                continue;
            }
            let tokens = if self.wrong.no_budget_for_the_new { known } else { known.min(left) };
            left -= tokens.min(left);
            work.push(Work { id: one.id, tokens });
            self.free -= pages;
            one.held = pages;
            self.running.push(one);
            if self.wrong.one_at_a_time {
                break;
            }
        }
        while let Some(one) = skipped.pop_back() {
            self.waiting.push_front(one);
        }
        let left = self.done(&work);
        (work, left)
    }

    fn make_room(&mut self) {
        let mut at = 0;
        while at < self.running.len() {
            let one = &mut self.running[at];
            if (one.prompt + one.produced).div_ceil(self.page_len) <= one.held {
                at += 1;
            } else if self.free > 0 {
                self.free -= 1;
                one.held += 1;
            } else {
                let victim = if self.wrong.takes_from_the_oldest { 0 } else { self.running.len() - 1 };
                let mut victim = self.running.remove(victim);
                self.free += std::mem::take(&mut victim.held);
                self.preemptions += 1;
                if !self.wrong.keeps_what_was_computed {
                    victim.computed = 0;
                }
                if self.wrong.forgets_what_it_produced {
                    (victim.produced, victim.computed) = (0, 0);
                }
                match self.wrong.to_the_back {
                    true => self.waiting.push_back(victim),
                    false => self.waiting.push_front(victim),
                }
                at = if self.wrong.takes_from_the_oldest { 0 } else { at };
            }
        }
    }

    fn done(&mut self, work: &[Work]) -> Vec<u32> {
        for Work { id, tokens } in work {
            for one in self.running.iter_mut().filter(|one| one.id == *id) {
                one.computed += tokens;
                one.produced += usize::from(one.computed == one.prompt + one.produced);
            }
        }
        let (left, running): (Vec<One>, Vec<One>) =
            self.running.drain(..).partition(|one| one.produced >= one.output);
        self.running = running;
        self.free += left.iter().map(|one| one.held).sum::<usize>();
        left.iter().map(|one| one.id).collect()
    }
}

/// What was computed and who left, step by step.
type Trace = Vec<(Vec<Work>, Vec<u32>)>;

/// Steps until nobody is left, or more than anything sound takes.
const STEPS: usize = 400;

fn reference(of: &Workload, wrong: Wrong) -> (Trace, usize) {
    let mut scheduler = Reference::new(of, wrong);
    let mut trace = Trace::new();
    let mut coming = (0..).zip(&of.requests);
    while trace.len() < STEPS {
        for (id, (prompt, output)) in coming.by_ref().take(if of.late { 1 } else { STEPS }) {
            scheduler.submit(id, *prompt, *output);
        }
        if scheduler.waiting.is_empty() && scheduler.running.is_empty() && coming.len_left() == 0 {
            break;
        }
        trace.push(scheduler.step());
    }
    (trace, scheduler.preemptions)
}

/// How many an iterator has left.
trait Left {
    fn len_left(&self) -> usize;
}

impl<I: Iterator + Clone> Left for I {
    fn len_left(&self) -> usize {
        self.clone().take(STEPS).count()
    }
}

fn answered(of: &Workload) -> (Trace, Scheduler) {
    let mut scheduler = Scheduler::new(of.budget, of.pages, of.page_len);
    let mut trace = Trace::new();
    let mut coming = (0..).zip(&of.requests);
    while trace.len() < STEPS {
        for (id, (prompt, output)) in coming.by_ref().take(if of.late { 1 } else { STEPS }) {
            scheduler.submit(id, *prompt, *output);
        }
        if scheduler.waiting.is_empty() && scheduler.running.is_empty() && coming.len_left() == 0 {
            break;
        }
        scheduler.make_room();
        let work = scheduler.plan();
        let left = scheduler.done(&work);
        trace.push((work, left));
    }
    (trace, scheduler)
}

/// Words for a mistake, and how it is made.
type Known = (&'static str, fn(&mut Wrong));

const KNOWN: [Known; 11] = [
    ("nobody joins before all have left: this is static batching", |w| w.waits_for_all = true),
    ("prompts are read before those that write get their token: a long prompt holds everybody up", |w| {
        w.reads_before_it_writes = true;
    }),
    ("a prompt waits until it fits into the budget as a whole", |w| w.whole_prompts = true),
    ("a request overtakes one that does not fit: a large one may wait forever", |w| w.overtakes = true),
    ("the pages are taken from the one that has run longest; it loses the most work", |w| {
        w.takes_from_the_oldest = true;
    }),
    ("whose pages were taken waits behind those that came later", |w| w.to_the_back = true),
    ("whose pages were taken forgets what it has produced: its reader sees the text begin again", |w| {
        w.forgets_what_it_produced = true;
    }),
    ("whose pages were taken still counts as computed: it reads pages that are somebody else's", |w| {
        w.keeps_what_was_computed = true;
    }),
    ("one request joins a step, and the budget is not used up", |w| w.one_at_a_time = true),
    ("the pages for the whole output are taken on admission: fewer run together, and most of it lies idle", |w| {
        w.room_for_the_output = true;
    }),
    ("who is new computes beyond the budget", |w| w.no_budget_for_the_new = true),
];

fn broken(set: fn(&mut Wrong)) -> Wrong {
    let mut wrong = Wrong::default();
    set(&mut wrong);
    wrong
}

fn shown((work, left): &(Vec<Work>, Vec<u32>)) -> String {
    let work: Vec<String> = work.iter().map(|work| format!("{}:{}", work.id, work.tokens)).collect();
    format!("[{}] and {left:?} leave", work.join(" "))
}

fn trace(of: &Workload) -> Outcome {
    // Each broken rule shows in one of the workloads at least.
    for (words, set) in KNOWN {
        let seen = [joining(), long_prompt(), scarce()]
            .iter()
            .any(|of| reference(of, broken(set)).0 != reference(of, Wrong::default()).0);
        assert!(seen, "this check cannot see that {words}");
    }
    let (expected, preemptions) = reference(of, Wrong::default());
    let (found, _) = answered(of);
    if found == expected {
        let tokens: usize = expected.iter().flat_map(|(work, _)| work).map(|work| work.tokens).sum();
        let steps = expected.len();
        return Ok(format!("{steps} steps, {tokens} tokens computed, {preemptions} times pages were taken away"));
    }
    let at = (0..).find(|&at| found.get(at) != expected.get(at)).unwrap_or(0);
    let [have, want] = [&found, &expected].map(|trace| trace.get(at).map_or("nothing".into(), shown));
    let differ = format!("step {at} computes {have}; {want} is right");
    let known = KNOWN.iter().find(|(_, set)| reference(of, broken(*set)).0 == found);
    Err(known.map_or(differ.clone(), |(words, _)| format!("{words} ({differ})")))
}

fn room() -> Outcome {
    let mut scheduler = Scheduler::new(16, 6, 4);
    for (id, prompt) in [(0, 8), (1, 3), (2, 7)] {
        scheduler.submit(id, prompt, 9);
    }
    scheduler.make_room();
    let work = scheduler.plan();
    if scheduler.free != 1 {
        return Err(format!(
            "prompts of 8, 3 and 7 tokens in pages of 4: {} of 6 are free, 1 is right (16 of 18 tokens fit into the budget)",
            scheduler.free
        ));
    }
    scheduler.done(&work);
    // 0 knows 9 tokens and takes the last page; 1 has room.
    scheduler.make_room();
    let held: Vec<usize> = scheduler.running.iter().map(|s| s.held).collect();
    if (held.as_slice(), scheduler.free) != (&[3, 1, 2], 0) {
        return Err(format!("after a step they hold {held:?} pages, [3, 1, 2] is right, and none is free"));
    }
    // 1 knows 5 in a while and 2 knows 9: nothing is free, the last one gives.
    for _ in 0..2 {
        let work = scheduler.plan();
        scheduler.done(&work);
        scheduler.make_room();
    }
    let running: Vec<(u32, usize)> = scheduler.running.iter().map(|s| (s.id, s.held)).collect();
    let waiting: Vec<(u32, usize, usize)> = scheduler.waiting.iter().map(|s| (s.id, s.held, s.computed)).collect();
    if running.len() == 3 {
        return Err(format!("nobody's pages were taken: {running:?} run with {} pages free", scheduler.free));
    }
    if waiting.first().is_some_and(|(id, ..)| *id != 2) {
        return Err(format!("the pages of {} were taken; the one let in last gives them", waiting[0].0));
    }
    match (&running[..], &waiting[..], scheduler.free, scheduler.preemptions) {
        ([(0, 3), (1, 2)], [(2, 0, 0)], 1, 1) => Ok("one page for who writes on, two from who came last".into()),
        (_, _, _, counted) => Err(format!(
            "{running:?} run with so many pages, {waiting:?} wait with pages and computed tokens, {} pages are free, {counted} \
             times were counted; [(0, 3), (1, 2)], [(2, 0, 0)], 1 and 1 are right",
            scheduler.free
        )),
    }
}

fn done() -> Outcome {
    let mut scheduler = Scheduler::new(100, 20, 4);
    for (id, prompt, output) in [(0, 6, 1), (1, 9, 2), (2, 30, 5)] {
        scheduler.submit(id, prompt, output);
    }
    scheduler.budget = 40;
    let work = scheduler.plan();
    if work.iter().map(|work| work.tokens).sum::<usize>() != 40 {
        return Err(format!("45 tokens wait, the budget is 40, and {work:?} is computed"));
    }
    let left = scheduler.done(&work);
    let state: Vec<[usize; 3]> =
        scheduler.running.iter().map(|s| [s.id as usize, s.produced, s.computed]).collect();
    if state.iter().any(|&[id, produced, _]| id == 2 && produced > 0) {
        return Err("a prompt that is not all read has produced a token".into());
    }
    if left.is_empty() {
        return Err("who was to produce one token has read its prompt, and does not leave: the last prompt token's step produces".into());
    }
    if left != [0] || state != [[1, 1, 9], [2, 0, 25]] {
        return Err(format!(
            "{left:?} left, and (id, produced, computed) of the others are {state:?}; [0] and [[1, 1, 9], [2, 0, 25]] is right"
        ));
    }
    match scheduler.free {
        9 => Ok("one left with its pages, one wrote, one still reads".into()),
        7 => Err("who leaves does not give its pages back".into()),
        free => Err(format!("{free} pages are free, 9 is right")),
    }
}

fn mixed() -> Workload {
    let mut random = rng(20_261_121, 0, "scheduler");
    let mut between = |from: usize, to: usize| from + (random.uniform_f64() * (to - from) as f64) as usize;
    let requests =
        (0..64).map(|i| (between(4, 60), if i % 4 == 0 { between(40, 80) } else { between(4, 16) })).collect();
    Workload { requests, budget: 64, pages: 160, page_len: 8, late: false }
}

/// Steps of static batching: as many as fit with all of their output are read, and all wait for the longest output.
fn static_steps(of: &Workload) -> usize {
    let pages = |&(prompt, output): &(usize, usize)| (prompt + output).div_ceil(of.page_len);
    let (mut steps, mut rest) = (0, &of.requests[..]);
    while !rest.is_empty() {
        let mut free = of.pages;
        let fits = |request: &&(usize, usize)| {
            let fits = pages(request) <= free;
            free = free.saturating_sub(pages(request));
            fits
        };
        let (batch, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        let prompts: usize = batch.iter().map(|(prompt, _)| prompt).sum();
        let longest = batch.iter().map(|(_, output)| output).max().copied().unwrap_or(1);
        // The last step over the prompts produces a token.
        steps += prompts.div_ceil(of.budget) + longest - 1;
        rest = later;
    }
    steps
}

fn whole() -> Outcome {
    let of = mixed();
    let (found, scheduler) = answered(&of);
    let mut left: Vec<u32> = found.iter().flat_map(|(_, left)| left.clone()).collect();
    left.sort_unstable();
    if !left.iter().copied().eq(0..64) {
        return Err(format!("{} of 64 requests have left after {} steps", left.len(), found.len()));
    }
    if scheduler.free != of.pages {
        return Err(format!("all have left, and {} of {} pages are free", scheduler.free, of.pages));
    }
    let most = found.iter().map(|(work, _)| work.iter().map(|w| w.tokens).sum::<usize>()).max().unwrap_or(0);
    if most > of.budget {
        return Err(format!("a step computes {most} tokens, the budget is {}", of.budget));
    }
    let of_static = static_steps(&of);
    let (steps, preemptions) = (found.len(), scheduler.preemptions);
    Ok(format!("{steps} steps, {of_static} with static batching; {preemptions} times pages were taken away"))
}
