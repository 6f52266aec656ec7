//! Which tokens of which sequences the next pass of the model computes.
//!
//! Knows ids, pages and numbers; nothing of models, threads or text. Each pass takes the running sequences, those that
//! decode with one token each and then those still reading their prompts with a share of the token budget, and lets
//! waiting ones join while slots, budget and pages last (Orca, Yu et al. 2022; chunked prefill: Sarathi, Agrawal et al.
//! 2023, arXiv:2308.16369). Where pages run out, the youngest gives its own up and is computed again later.

use std::collections::{BTreeSet, HashMap};

use super::decision::{Decision, RequestId, Traced};
use super::pages::Pages;
use super::prefix::BlockHash;
use super::table::{BlockTable, unseen};

/// Steps of waiting that weigh as much as one more of priority, so that nothing waits for ever.
const AGEING: i64 = 64;
/// Priorities beyond this count as this.
const MOST_URGENT: i32 = 1000;

/// How sequences share the passes of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Batching {
    /// A sequence joins as soon as there is room and leaves when it is done.
    #[default]
    Continuous,
    /// A batch begins together, and the next one when the last of it is done. What is done before is computed along
    /// until then, as programs do that keep a batch in one tensor: here for comparison.
    Static,
}

/// What bounds a pass.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerLimits {
    /// Sequences that run at once.
    pub max_running: usize,
    /// Tokens of one pass.
    pub token_budget: usize,
    /// How sequences share passes.
    pub batching: Batching,
    /// Tokens that every layer reaches back, the one at hand included; `None` where any layer sees everything.
    pub window: Option<usize>,
}

/// Number of a sequence.
pub type SequenceId = u64;

/// What a sequence brings.
#[derive(Debug)]
pub struct NewSequence {
    /// The request it belongs to.
    pub request: RequestId,
    /// The prompt's ids, at least one.
    pub ids: Vec<u32>,
    /// Higher goes before lower.
    pub priority: i32,
    /// What its blocks hang on; `None` computes everything anew and shows nothing to others.
    pub root: Option<BlockHash>,
    /// Sequences it will become with [`Scheduler::fork`], itself included.
    pub samples: usize,
}

/// Place in the queue and in the order of preemption: the smallest is served before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    /// Step of arrival, earlier by [`AGEING`] for each point of priority. All that wait age alike, so the order of two
    /// never changes.
    rank: i64,
    /// The sequence of its request that was submitted: further samples come before later requests.
    turn: SequenceId,
    id: SequenceId,
}

#[derive(Debug)]
struct Sequence {
    request: RequestId,
    sample: usize,
    ids: Vec<u32>,
    /// The last ones of `ids`, proposed and not yet accepted.
    drafted: usize,
    /// Opening ids whose keys and values are in the cache.
    computed: usize,
    table: BlockTable,
    root: Option<BlockHash>,
    order: Order,
    running: bool,
    /// Done, and computed along because its batch is static.
    done: bool,
    /// Running places it takes: further samples that it will become count.
    slots: usize,
    waiting_since: u64,
}

/// Tokens of one sequence in a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Whose.
    pub sequence: SequenceId,
    /// Tokens before them, in the cache.
    pub past: usize,
    /// Tokens to compute, the drafted ones included.
    pub tokens: usize,
    /// How many of them, at the end, are drafts.
    pub drafted: usize,
    /// Whether they reach the last known id, so that what follows can be chosen.
    pub complete: bool,
}

/// One pass.
#[derive(Debug, Default)]
pub struct Plan {
    /// What to compute.
    pub work: Vec<Work>,
    /// Pages to copy before that, from and to, in this order.
    pub copies: Vec<(u32, u32)>,
}

/// All sequences that wait or run.
#[derive(Debug)]
pub struct Scheduler {
    limits: SchedulerLimits,
    pages: Pages,
    sequences: HashMap<SequenceId, Sequence>,
    waiting: BTreeSet<Order>,
    running: BTreeSet<Order>,
    next: SequenceId,
    step: u64,
    preemptions: u64,
    decisions: Vec<Traced>,
}

impl Scheduler {
    /// No sequences, all pages free.
    ///
    /// # Panics
    /// Panics when the budget has no token for each running sequence: some would never move.
    pub fn new(limits: SchedulerLimits, pages: Pages) -> Self {
        let SchedulerLimits { max_running, token_budget, .. } = limits;
        assert!(
            max_running > 0 && token_budget >= max_running,
            "a budget of {token_budget} tokens for {max_running} sequences"
        );
        Self {
            limits,
            pages,
            sequences: HashMap::new(),
            waiting: BTreeSet::new(),
            running: BTreeSet::new(),
            next: 0,
            step: 0,
            preemptions: 0,
            decisions: Vec::new(),
        }
    }

    /// Tokens that a sequence can reach when it has all pages to itself.
    pub fn longest(&self) -> usize {
        let all = self.pages.total() * self.pages.page_len();
        match self.limits.window {
            Some(_) if self.needed(all + 1) <= self.pages.total() => usize::MAX,
            _ => all,
        }
    }

    /// Puts a sequence into the queue.
    ///
    /// # Panics
    /// Panics when it has no ids, or more samples than run at once: callers check requests.
    pub fn submit(&mut self, new: NewSequence) -> SequenceId {
        let NewSequence { request, ids, priority, root, samples } = new;
        assert!(!ids.is_empty() && samples > 0 && samples <= self.limits.max_running, "{samples} samples");
        let priority = priority.clamp(-MOST_URGENT, MOST_URGENT);
        let rank = self.step as i64 - AGEING * i64::from(priority);
        let order = Order { rank, turn: self.next, id: self.next };
        let sequence = Sequence {
            request,
            sample: 0,
            ids,
            drafted: 0,
            computed: 0,
            table: BlockTable::default(),
            root,
            order,
            running: false,
            done: false,
            slots: samples,
            waiting_since: self.step,
        };
        self.next += 1;
        self.waiting.insert(order);
        self.sequences.insert(order.id, sequence);
        order.id
    }

    /// Chooses the next pass. Empty only when there are no sequences.
    pub fn plan(&mut self) -> Plan {
        let mut plan = Plan::default();
        let (mut budget, before) = (self.limits.token_budget, self.preemptions);
        let open = self.limits.batching == Batching::Continuous || self.running.is_empty();
        let (decoding, reading): (Vec<Order>, Vec<Order>) = self.running.iter().partition(|order| {
            let sequence = &self.sequences[&order.id];
            sequence.settled() - sequence.computed == 1
        });
        for order in decoding.iter().chain(&reading) {
            self.serve(*order, &mut budget, &mut plan);
        }
        // After a preemption the one put back would be the next to join, and be put back again.
        while open && self.preemptions == before && self.join_next(&mut budget, &mut plan) {}
        self.add_drafts(budget, &mut plan);
        self.step += 1;
        plan
    }

    /// Plans what a running sequence has to compute, as far as the budget goes.
    fn serve(&mut self, order: Order, budget: &mut usize, plan: &mut Plan) {
        let Some(sequence) = self.sequences.get(&order.id).filter(|sequence| sequence.running) else { return };
        let (past, known) = (sequence.computed, sequence.settled());
        let tokens = (known - past).min(*budget);
        if tokens == 0 {
            return;
        }
        if sequence.done {
            if self.reserve(order.id, past + 1, plan) {
                *budget -= 1;
                plan.work.push(Work { sequence: order.id, past, tokens: 1, drafted: 0, complete: false });
            }
            return;
        }
        while !self.reserve(order.id, past + tokens, plan) {
            let done = self.running.iter().rev().find(|order| self.sequences[&order.id].done);
            let worst = done.or(self.running.last()).copied().unwrap_or(order);
            self.preempt(worst);
            if worst == order {
                return;
            }
            // One that decodes is planned before an older one that reads.
            plan.work.retain(|work| work.sequence != worst.id);
        }
        *budget -= tokens;
        plan.work.push(Work { sequence: order.id, past, tokens, drafted: 0, complete: past + tokens == known });
    }

    /// Lets the head of the queue join, if there is room for it. Nothing passes it by: what is large would wait for
    /// ever behind what is small.
    fn join_next(&mut self, budget: &mut usize, plan: &mut Plan) -> bool {
        let Some(&order) = self.waiting.first() else { return false };
        let slots: usize = self.running.iter().map(|order| self.sequences[&order.id].slots).sum();
        let patient = self.limits.batching == Batching::Continuous && *budget == 0;
        let Some(sequence) = self.sequences.get_mut(&order.id) else { return false };
        if patient || slots + sequence.slots > self.limits.max_running {
            return false;
        }
        let (window, known) = (self.limits.window, sequence.ids.len());
        let reusable = sequence.root.map(|root| sequence.table.reusable(&self.pages, root, &sequence.ids, window));
        let (found, found_free) = reusable.as_ref().map_or((0, 0), |r| (r.taken(), r.free));
        let need = self.needed(known + 1).saturating_sub(found);
        // A page for each that runs: it will want one before long.
        let promised: usize = self.running.iter().map(|order| self.outstanding(order.id) + 1).sum();
        if !self.running.is_empty() && need + promised > self.pages.free() - found_free {
            return false;
        }
        self.waiting.remove(&order);
        self.running.insert(order);
        let Some(sequence) = self.sequences.get_mut(&order.id) else { return false };
        sequence.running = true;
        sequence.computed = reusable.map_or(0, |reusable| sequence.table.begin(&mut self.pages, &reusable));
        let decision = Decision::Join { waited: self.step - sequence.waiting_since, reused: sequence.computed };
        self.note(order.id, decision);
        self.serve(order, budget, plan);
        true
    }

    /// Adds drafts to what decodes, with what is left of budget and pages; the rest of them are forgotten.
    fn add_drafts(&mut self, mut budget: usize, plan: &mut Plan) {
        for i in 0..plan.work.len() {
            let Work { sequence, past, tokens, complete, .. } = plan.work[i];
            let mut drafted = self.sequences[&sequence].drafted.min(budget);
            if !complete || drafted == 0 {
                continue;
            }
            while drafted > 0 && !self.reserve(sequence, past + tokens + drafted, plan) {
                drafted -= 1;
            }
            budget -= drafted;
            (plan.work[i].tokens, plan.work[i].drafted) = (tokens + drafted, drafted);
        }
        for sequence in self.sequences.values_mut().filter(|sequence| sequence.drafted > 0) {
            let work = plan.work.iter().find(|work| work.sequence == sequence.order.id);
            let kept = work.map_or(0, |work| work.drafted);
            sequence.ids.truncate(sequence.settled() + kept);
            sequence.drafted = kept;
        }
    }

    /// Makes the slots from the computed ones to `to` writable.
    fn reserve(&mut self, id: SequenceId, to: usize, plan: &mut Plan) -> bool {
        let Some(sequence) = self.sequences.get_mut(&id) else { return false };
        sequence.table.reserve(&mut self.pages, sequence.computed, to, &mut plan.copies)
    }

    fn preempt(&mut self, order: Order) {
        let Some(sequence) = self.sequences.get_mut(&order.id) else { return };
        if sequence.done {
            return self.remove(order.id);
        }
        let computed = sequence.computed;
        sequence.table.release(&mut self.pages);
        sequence.ids.truncate(sequence.settled());
        (sequence.drafted, sequence.computed, sequence.running) = (0, 0, false);
        sequence.waiting_since = self.step;
        self.running.remove(&order);
        self.waiting.insert(order);
        self.preemptions += 1;
        self.note(order.id, Decision::Preempt { computed });
    }

    /// Pages that a running sequence will still take for what it knows.
    fn outstanding(&self, id: SequenceId) -> usize {
        let sequence = &self.sequences[&id];
        self.needed(sequence.ids.len() + 1).saturating_sub(sequence.table.held())
    }

    /// Pages that a sequence of `tokens` tokens holds at most at once.
    fn needed(&self, tokens: usize) -> usize {
        let all = self.pages.needed(tokens);
        let reach = |window: usize| self.pages.needed(window + self.limits.token_budget) + 1;
        self.limits.window.map_or(all, |window| all.min(reach(window)))
    }

    /// Notes that a pass computed `work` and that `accepted` of its drafts stand; the other drafts are forgotten.
    ///
    /// # Panics
    /// Panics when more are accepted than were drafted.
    pub fn computed(&mut self, work: &Work, accepted: usize) {
        assert!(accepted <= work.drafted, "{accepted} of {} drafts accepted", work.drafted);
        let Some(sequence) = self.sequences.get_mut(&work.sequence) else { return };
        sequence.ids.truncate(sequence.settled() + accepted);
        sequence.drafted = 0;
        sequence.computed = work.past + work.tokens - work.drafted + accepted;
        sequence.table.trim(&mut self.pages, sequence.ids.len());
        if let Some(root) = sequence.root {
            sequence.table.publish(&mut self.pages, root, &sequence.ids, sequence.computed);
        }
        sequence.table.leave(&mut self.pages, unseen(sequence.computed, self.limits.window));
    }

    /// The next id of a sequence.
    pub fn push(&mut self, id: SequenceId, token: u32) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.ids.push(token);
        }
    }

    /// Ids that may follow, to be computed along in the next pass where there is room.
    pub fn draft(&mut self, id: SequenceId, tokens: &[u32]) {
        if let Some(sequence) = self.sequences.get_mut(&id).filter(|sequence| sequence.drafted == 0) {
            sequence.ids.extend_from_slice(tokens);
            sequence.drafted = tokens.len();
        }
    }

    /// The ids that stood in for drafts while the pass was planned become `tokens`, as far as there are so many of them;
    /// with fewer `tokens` the pass computes fewer.
    pub fn redraft(&mut self, work: &mut Work, tokens: &[u32]) {
        let Some(sequence) = self.sequences.get_mut(&work.sequence) else { return };
        let tokens = &tokens[..tokens.len().min(work.drafted)];
        sequence.ids.truncate(sequence.settled());
        sequence.ids.extend_from_slice(tokens);
        sequence.drafted = tokens.len();
        work.tokens -= work.drafted - tokens.len();
        work.drafted = tokens.len();
    }

    /// Forgets the ids of a sequence behind the opening `len`, at least one; others may follow in their place.
    pub fn truncate(&mut self, id: SequenceId, len: usize) {
        let page_len = self.pages.page_len();
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        sequence.ids.truncate(len.max(1));
        sequence.drafted = 0;
        let len = sequence.ids.len();
        sequence.table.rename_behind(len, page_len);
        sequence.computed = sequence.computed.min(len - 1);
        if !sequence.table.holds(unseen(sequence.computed, self.limits.window), page_len) {
            // What the next token would see was given back.
            sequence.table.release(&mut self.pages);
            sequence.computed = 0;
        }
        sequence.table.trim(&mut self.pages, sequence.computed);
    }

    /// A further sample of the request, which shares everything computed so far. `None` where the sequence is gone
    /// or was not submitted for so many.
    pub fn fork(&mut self, leader: SequenceId, sample: usize) -> Option<SequenceId> {
        let of = self.sequences.get_mut(&leader).filter(|of| of.running && of.slots > 1)?;
        of.slots -= 1;
        let order = Order { id: self.next, ..of.order };
        let sequence = Sequence {
            sample,
            ids: of.ids.clone(),
            table: of.table.fork(&mut self.pages),
            order,
            slots: 1,
            drafted: 0,
            ..*of
        };
        self.next += 1;
        self.running.insert(order);
        self.sequences.insert(order.id, sequence);
        self.note(order.id, Decision::Fork);
        Some(order.id)
    }

    /// A sequence has all its tokens: it leaves, or in a static batch goes on without effect until the last one has.
    pub fn retire(&mut self, id: SequenceId) {
        if self.limits.batching == Batching::Continuous {
            return self.finish(id);
        }
        self.note(id, Decision::Leave);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.done = true;
            // From now on it computes the slot behind its text, which nothing reads.
            sequence.computed = sequence.ids.len();
            sequence.ids.push(0);
        }
        self.end_static_batch();
    }

    /// Takes a sequence out, finished or not, and gives its pages back.
    pub fn finish(&mut self, id: SequenceId) {
        self.note(id, Decision::Leave);
        self.remove(id);
        self.end_static_batch();
    }

    /// Takes out what was computed along, once nothing else runs.
    fn end_static_batch(&mut self) {
        if self.running.iter().all(|order| self.sequences[&order.id].done) {
            let done: Vec<SequenceId> = self.running().collect();
            done.into_iter().for_each(|id| self.remove(id));
        }
    }

    fn remove(&mut self, id: SequenceId) {
        if let Some(mut sequence) = self.sequences.remove(&id) {
            sequence.table.release(&mut self.pages);
            self.waiting.remove(&sequence.order);
            self.running.remove(&sequence.order);
        }
    }

    fn note(&mut self, id: SequenceId, decision: Decision) {
        if let Some(sequence) = self.sequences.get(&id) {
            let (request, sample) = (sequence.request, sequence.sample);
            self.decisions.push(Traced { step: self.step, request, sample, decision });
        }
    }

    /// The ids known of a sequence, drafts included; empty where it is gone.
    pub fn ids(&self, id: SequenceId) -> &[u32] {
        self.sequences.get(&id).map_or(&[], |sequence| &sequence.ids)
    }

    /// The pages of a sequence, in the order of its tokens.
    pub fn table(&self, id: SequenceId) -> &[u32] {
        self.sequences.get(&id).map_or(&[], |sequence| sequence.table.pages())
    }

    /// Running sequences, the one served before the others in front.
    pub fn running(&self) -> impl Iterator<Item = SequenceId> + '_ {
        self.running.iter().map(|order| order.id)
    }

    /// Whether a sequence has nothing to compute but its last id, so that drafts make sense.
    pub fn decodes(&self, id: SequenceId) -> bool {
        self.sequences.get(&id).is_some_and(|s| s.running && !s.done && s.settled() - s.computed == 1)
    }

    /// How many run.
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    /// How many wait.
    pub fn n_waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The pages.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Passes planned.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Times that a sequence was put back.
    pub fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// What was decided since the last call.
    pub fn take_decisions(&mut self) -> impl Iterator<Item = Traced> + '_ {
        self.decisions.drain(..)
    }
}

impl Sequence {
    /// Ids that stand, drafts not among them.
    fn settled(&self) -> usize {
        self.ids.len() - self.drafted
    }
}

#[cfg(test)]
mod tests;
