//! The scheduler over a cache that is simulated: what each slot holds is checked before it is read.

use std::collections::BTreeMap;

use fornax_base::rng::rng;
use proptest::prelude::*;

use super::*;

const VOCAB: u64 = 3;

impl Scheduler {
    /// Every page is held by as many as say so, and free otherwise; every sequence is in one place.
    fn audit(&self) {
        let mut holders = vec![0; self.pages.total()];
        for sequence in self.sequences.values() {
            sequence.table.holding().iter().for_each(|&page| holders[page as usize] += 1);
            assert!(sequence.running || sequence.table.holding().is_empty(), "what waits holds nothing");
            assert_eq!(self.running.contains(&sequence.order), sequence.running);
            assert_eq!(self.waiting.contains(&sequence.order), !sequence.running);
        }
        assert_eq!(self.running.len() + self.waiting.len(), self.sequences.len());
        for (page, &holders) in holders.iter().enumerate() {
            assert_eq!(self.pages.holders(page as u32), holders, "page {page}");
        }
        assert_eq!(self.pages.used(), holders.iter().filter(|&&n| n > 0).count());
        let slots: usize = self.running.iter().map(|order| self.sequences[&order.id].slots).sum();
        assert!(slots <= self.limits.max_running);
    }
}

/// What stands in a slot: a function of everything before it.
fn content(salt: u64, ids: &[u32]) -> u64 {
    ids.iter().fold(salt.wrapping_mul(977) + 1, |hash, &id| {
        (hash ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
    })
}

/// The token that the simulated model gives after `ids`, for a sample of a client.
fn next(salt: u64, sample: usize, ids: &[u32]) -> u32 {
    (content(salt ^ (sample as u64) << 32, ids) % VOCAB) as u32
}

struct Client {
    prompt: Vec<u32>,
    most: usize,
    salt: u64,
    samples: usize,
    submitted: u64,
    order: Order,
    /// Steps that its own tokens may take, rewinding included.
    work: u64,
}

/// A scheduler with its simulated cache, and what its sequences ought to be.
struct World {
    scheduler: Scheduler,
    slots: Vec<u64>,
    clients: Vec<Client>,
    /// Sequence to client and sample.
    owners: BTreeMap<SequenceId, (usize, usize)>,
    finished: Vec<(usize, usize, Vec<u32>)>,
    random: fornax_base::rng::Rng,
    drafting: bool,
}

impl World {
    fn new(limits: SchedulerLimits, pages: usize, page_len: usize, seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(limits, Pages::new(pages, page_len)),
            slots: vec![0; pages * page_len],
            clients: Vec::new(),
            owners: BTreeMap::new(),
            finished: Vec::new(),
            random: rng(seed, 0, "scheduler test"),
            drafting: false,
        }
    }

    fn submit(&mut self, prompt: Vec<u32>, most: usize, salt: u64, samples: usize, priority: i32) {
        let samples = samples.clamp(1, self.scheduler.limits.max_running);
        let most = most.max(prompt.len() + 1).min(self.scheduler.longest());
        if prompt.len() >= most {
            return;
        }
        let root = (salt != 9).then(|| BlockHash::root(None, Some(&salt.to_string())));
        let request = self.clients.len() as RequestId;
        let new = NewSequence { request, ids: prompt.clone(), priority, root, samples };
        let id = self.scheduler.submit(new);
        self.owners.insert(id, (self.clients.len(), 0));
        let order = self.scheduler.sequences[&id].order;
        let (submitted, work) = (self.scheduler.step(), (most * samples) as u64);
        self.clients.push(Client { prompt, most, salt, samples, submitted, order, work });
    }

    /// One pass: every slot that is read holds what it must, and the best sequence moves on.
    fn step(&mut self) {
        if self.drafting {
            self.propose();
        }
        let plan = self.scheduler.plan();
        assert_eq!(plan.work.is_empty(), self.scheduler.is_idle(), "a pass in which nothing moves");
        if let Some(best) = self.scheduler.running().find(|id| self.owners.contains_key(id)) {
            assert!(plan.work.iter().any(|work| work.sequence == best && work.tokens > work.drafted));
        }
        let tokens: usize = plan.work.iter().map(|work| work.tokens).sum();
        assert!(tokens <= self.scheduler.limits.token_budget);
        let page_len = self.scheduler.pages.page_len();
        for &(from, to) in &plan.copies {
            let from = from as usize * page_len;
            self.slots.copy_within(from..from + page_len, to as usize * page_len);
        }
        for work in &plan.work {
            let (ids, table) = (self.scheduler.ids(work.sequence), self.scheduler.table(work.sequence));
            assert!(work.past + work.tokens <= ids.len());
            for place in work.past..work.past + work.tokens {
                // What a static batch computes along must disturb nobody.
                let owner = self.owners.get(&work.sequence);
                self.slots[table[place / page_len] as usize * page_len + place % page_len] =
                    owner.map_or(u64::MAX, |(client, _)| content(self.clients[*client].salt, &ids[..=place]));
            }
        }
        for work in &plan.work {
            let (ids, table) = (self.scheduler.ids(work.sequence), self.scheduler.table(work.sequence));
            let Some((client, _)) = self.owners.get(&work.sequence) else { continue };
            let salt = self.clients[*client].salt;
            for place in unseen(work.past, self.scheduler.limits.window)..work.past + work.tokens {
                let slot = self.slots[table[place / page_len] as usize * page_len + place % page_len];
                assert_eq!(slot, content(salt, &ids[..=place]), "{work:?} reads slot {place}");
            }
        }
        plan.work.iter().for_each(|work| self.follow(work));
        self.scheduler.audit();
    }

    /// Right and wrong drafts for what decodes.
    fn propose(&mut self) {
        for id in self.scheduler.running().collect::<Vec<_>>() {
            let Some(&(client, sample)) = self.owners.get(&id) else { continue };
            let (mut ids, k) = (self.scheduler.ids(id).to_vec(), self.random.below(4) as usize);
            let room = self.clients[client].most - ids.len();
            let mut drafts = Vec::new();
            for _ in 0..k.min(room.saturating_sub(1)) {
                let right = next(self.clients[client].salt, sample, &ids);
                drafts.push(if self.random.below(3) == 0 { right + 1 } else { right });
                ids.extend(drafts.last());
            }
            if self.scheduler.decodes(id) {
                self.scheduler.draft(id, &drafts);
            }
        }
    }

    /// What an engine does after a pass.
    fn follow(&mut self, work: &Work) {
        let Some(&(client, sample)) = self.owners.get(&work.sequence) else { return };
        let ids = self.scheduler.ids(work.sequence).to_vec();
        let salt = self.clients[client].salt;
        let standing = ids.len() - work.drafted;
        let right = |&i: &usize| next(salt, sample, &ids[..standing + i]) == ids[standing + i];
        let accepted = (0..work.drafted).take_while(right).count();
        self.scheduler.computed(work, accepted);
        if !work.complete {
            return;
        }
        let mut sequences = vec![(work.sequence, sample)];
        if ids.len() == self.clients[client].prompt.len() && sample == 0 {
            for sample in 1..self.clients[client].samples {
                let Some(id) = self.scheduler.fork(work.sequence, sample) else { continue };
                self.owners.insert(id, (client, sample));
                sequences.push((id, sample));
            }
        }
        for (id, sample) in sequences {
            let token = next(salt, sample, &ids[..standing + accepted]);
            self.scheduler.push(id, token);
            if self.scheduler.ids(id).len() >= self.clients[client].most {
                self.finished.push((client, sample, self.scheduler.ids(id).to_vec()));
                self.scheduler.retire(id);
                self.owners.remove(&id);
            }
        }
    }

    fn leave(&mut self, id: SequenceId) {
        self.scheduler.finish(id);
        self.owners.remove(&id);
    }

    fn some_sequence(&self, n: u64) -> Option<SequenceId> {
        self.owners.keys().nth(n as usize % self.owners.len().max(1)).copied()
    }

    /// Runs to the end; each sequence is what it would be alone, and none waited longer than the work before it.
    fn drain(mut self) -> (Vec<(usize, usize, Vec<u32>)>, u64) {
        while !self.scheduler.is_idle() {
            self.step();
            for &(client, _) in self.owners.values() {
                let of = &self.clients[client];
                let waited = self.scheduler.step() - of.submitted;
                let ahead = self.clients.iter().enumerate();
                let ahead = ahead.filter(|(i, other)| *i <= client || other.order < of.order);
                let bound: u64 = ahead.map(|(_, other)| other.work).sum();
                assert!(waited <= bound, "client {client} waited {waited} steps, at most {bound} are owed");
            }
        }
        assert_eq!(self.scheduler.pages.used(), 0, "pages leaked");
        for (client, sample, ids) in &self.finished {
            let of = &self.clients[*client];
            let mut alone = of.prompt.clone();
            while alone.len() < of.most {
                alone.push(next(of.salt, *sample, &alone));
            }
            assert_eq!(ids, &alone, "client {client}, sample {sample}");
        }
        (self.finished, self.scheduler.preemptions())
    }
}

#[derive(Debug, Clone)]
enum Op {
    Submit { len: usize, more: usize, salt: u64, samples: usize, priority: i32 },
    Cancel(u64),
    Truncate(u64, usize),
    Drafting(bool),
    Step(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..40usize, 1..30usize, 0..3u64, 1..4usize, -2..3i32).prop_map(|(len, more, salt, samples, priority)| {
            // Most clients share a salt, some compute everything anew.
            Op::Submit { len, more, salt: [0, 1, 9][salt as usize], samples, priority }
        }),
        1 => any::<u64>().prop_map(Op::Cancel),
        1 => (any::<u64>(), 1..60usize).prop_map(|(n, len)| Op::Truncate(n, len)),
        1 => any::<bool>().prop_map(Op::Drafting),
        6 => (1..8usize).prop_map(Op::Step),
    ]
}

fn limits() -> impl Strategy<Value = SchedulerLimits> {
    let batching = prop_oneof![3 => Just(Batching::Continuous), 1 => Just(Batching::Static)];
    let window = prop_oneof![2 => Just(None), 1 => (1..20usize).prop_map(Some)];
    (1..6usize, 0..20usize, batching, window).prop_map(|(max_running, more, batching, window)| SchedulerLimits {
        max_running,
        token_budget: max_running + more,
        batching,
        window,
    })
}

fn cases() -> u32 {
    match std::env::var("FORNAX_TEST_SCALE").as_deref() {
        Ok("nightly") => 50_000,
        _ => 1_000,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    /// Row F20: whatever is asked in whatever order, no page leaks or is freed twice, nothing reads what is not its
    /// own, nothing starves, and every sequence becomes what it would be alone.
    #[test]
    fn f20_any_sequence_of_operations(
        limits in limits(),
        pages in 4..24usize,
        page_len in 1..6usize,
        seed in any::<u64>(),
        ops in proptest::collection::vec(op(), 1..40),
    ) {
        let mut world = World::new(limits, pages, page_len, seed);
        for op in ops {
            match op {
                Op::Submit { len, more, salt, samples, priority } => {
                    let prompt = (0..len).map(|i| (i as u64 % (VOCAB - 1)) as u32).collect();
                    world.submit(prompt, len + more, salt, samples, priority);
                }
                Op::Cancel(n) => world.some_sequence(n).into_iter().for_each(|id| world.leave(id)),
                Op::Truncate(n, len) => {
                    let Some(id) = world.some_sequence(n) else { continue };
                    let (client, _) = world.owners[&id];
                    // Behind the prompt, as an engine would: its samples hang on it.
                    let len = len.max(world.clients[client].prompt.len() + 1);
                    if len < world.scheduler.ids(id).len() {
                        world.scheduler.truncate(id, len);
                        world.clients[client].work += world.clients[client].most as u64;
                    }
                }
                Op::Drafting(on) => world.drafting = on,
                Op::Step(n) => (0..n).for_each(|_| world.step()),
            }
            world.scheduler.audit();
        }
        world.drain();
    }
}

fn limits_of(max_running: usize, token_budget: usize) -> SchedulerLimits {
    SchedulerLimits { max_running, token_budget, batching: Batching::Continuous, window: None }
}

#[test]
fn prompts_are_read_in_chunks_beside_what_decodes() {
    let mut world = World::new(limits_of(2, 8), 64, 4, 0);
    world.submit(vec![0; 3], 30, 0, 1, 0);
    world.step();
    world.submit((0..21).map(|i| i % 2).collect(), 30, 1, 1, 0);
    let mut chunks = Vec::new();
    for _ in 0..4 {
        let plan = world.scheduler.plan();
        assert_eq!((plan.work[0].past, plan.work[0].tokens), (3 + chunks.len(), 1), "decoding goes on");
        if let Some(work) = plan.work.get(1) {
            chunks.push((work.past, work.tokens, work.complete));
        }
        plan.work.iter().for_each(|work| world.follow(work));
    }
    assert_eq!(chunks, [(0, 7, false), (7, 7, false), (14, 7, true), (21, 1, true)]);
}

#[test]
fn a_static_batch_is_full_until_its_last_sequence_is_done() {
    let limits = SchedulerLimits { batching: Batching::Static, ..limits_of(2, 64) };
    let mut world = World::new(limits, 64, 4, 0);
    for more in [2, 9, 2] {
        world.submit(vec![0; 4], 4 + more, 0, 1, 0);
    }
    let mut running = Vec::new();
    while !world.scheduler.is_idle() {
        world.step();
        running.push(world.scheduler.n_running());
    }
    assert_eq!(running, [2, 2, 2, 2, 2, 2, 2, 2, 0, 1, 0]);
}

#[test]
fn a_prompt_seen_before_is_read_from_its_pages() {
    let mut world = World::new(limits_of(4, 64), 64, 4, 0);
    let prompt: Vec<u32> = (0..14).map(|i| i % 2).collect();
    let mut reused = Vec::new();
    for salt in [0, 0, 1, 9, 9] {
        world.submit(prompt.clone(), 16, salt, 1, 0);
        while !world.scheduler.is_idle() {
            world.step();
        }
        reused.extend(world.scheduler.take_decisions().filter_map(|traced| match traced.decision {
            Decision::Join { reused, .. } => Some(reused),
            _ => None,
        }));
    }
    // Three whole blocks; another salt finds nothing, and who bypasses it never does.
    assert_eq!(reused, [0, 12, 0, 0, 0]);
}

#[test]
fn samples_share_the_prompt_and_copy_the_page_they_write() {
    let mut world = World::new(limits_of(4, 64), 64, 4, 0);
    world.submit(vec![0, 1, 0, 1, 0, 1], 9, 0, 3, 0);
    world.step();
    assert_eq!((world.scheduler.n_running(), world.scheduler.pages.used()), (3, 2));
    world.step();
    // The half page twice more, and one holder writes in place.
    assert_eq!(world.scheduler.pages.used(), 4);
    let (finished, _) = world.drain();
    assert_eq!(finished.len(), 3);
}

#[test]
fn the_youngest_is_put_back_and_ends_as_it_would_have() {
    let mut world = World::new(limits_of(4, 64), 10, 4, 0);
    for salt in 0..4 {
        world.submit(vec![0; 4], 30, salt, 1, 0);
    }
    let (finished, preemptions) = world.drain();
    assert!(preemptions > 0);
    // Those that came before the others end before them.
    assert_eq!(finished.iter().map(|(client, ..)| *client).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn priorities_pass_and_waiting_makes_up_for_them() {
    let mut world = World::new(limits_of(1, 64), 64, 4, 0);
    for (salt, priority) in [(0, 0), (1, 0), (2, 1), (3, -1)] {
        world.submit(vec![0; 4], 6, salt, 1, priority);
    }
    let mut urgent = 0;
    // One that is more urgent by 1 comes every step; what is there waits for 64 steps and no longer.
    for _ in 0..200 {
        world.submit(vec![0; 4], 6, 4, 1, 1);
        world.step();
        urgent = urgent.max(world.scheduler.n_waiting());
    }
    let order: Vec<usize> = world.finished.iter().map(|(client, ..)| *client).collect();
    assert_eq!(order[0], 2, "the most urgent of those there goes before the others: {order:?}");
    assert!(order.iter().position(|&client| client == 0).is_some(), "{order:?}");
    assert!(urgent > 50);
    world.drain();
}

#[test]
fn a_window_gives_pages_back() {
    let limits = SchedulerLimits { window: Some(8), ..limits_of(1, 4) };
    let mut world = World::new(limits, 5, 4, 0);
    assert_eq!(world.scheduler.longest(), usize::MAX);
    world.submit((0..50).map(|i| i % 2).collect(), 90, 0, 1, 0);
    let mut most = 0;
    while !world.scheduler.is_idle() {
        world.step();
        most = most.max(world.scheduler.pages.used());
    }
    assert!(most <= 4, "{most} pages");
    assert_eq!(world.finished.len(), 1);
}

#[test]
#[should_panic(expected = "a budget of 3 tokens for 4 sequences")]
fn a_budget_has_a_token_for_each() {
    Scheduler::new(limits_of(4, 3), Pages::new(4, 4));
}
