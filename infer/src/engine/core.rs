//! The engine's inner loop: one pass of the model after another over whatever sequences there are.
//!
//! It runs in the caller's thread and knows no other; `Engine` runs one in a thread of its own, `generate` and `complete`
//! in theirs. Time is read for reports alone.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Int, Tensor};
use fornax_model::adapter::AdapterId;
use fornax_model::{Decoder, KvCache, Layout, Segment, token_tensor};

use super::decision::{Decision, RequestId, Traced};
use super::event::{SequenceError, TokenEvent, Usage};
use super::memory::MemoryPlan;
use super::pages::Pages;
use super::request::{ModelFacts, ValidRequest};
use super::scheduler::{NewSequence, Plan, Scheduler, SchedulerLimits, SequenceId, Work};
use super::stats::Stats;
use crate::generate::Finish;
use crate::grammar::{Grammar, Mask};
use crate::sampler::{Chain, Sampled, log_prob_of};
use crate::speculative::{self, Choice, Item, Proposed, Speculation, SpeculationStats, Speculator};

/// Rows of logits computed at a time: bounds their memory under a large vocabulary.
const LOGIT_ROWS: usize = 64;

/// A device that failed: what the driver said.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the device failed: {message}")]
pub(crate) struct DeviceFault {
    pub(crate) message: String,
}

/// A model with its cache, and the sequences it works on.
#[derive(Debug)]
pub(crate) struct Core {
    decoder: Decoder,
    device: Device,
    cache: KvCache,
    scheduler: Scheduler,
    prefix_reuse: bool,
    requests: BTreeMap<RequestId, Open>,
    sequences: HashMap<SequenceId, Live>,
    events: Vec<(RequestId, TokenEvent)>,
    decisions: Vec<Traced>,
    stats: Stats,
    /// What proposes tokens, where anything does.
    speculator: Option<Speculator>,
}

/// A request that is not done.
#[derive(Debug)]
struct Open {
    /// Answers that are not done, those that have not begun included.
    left: usize,
    /// Further answers, which begin with the prompt's pages.
    further: Vec<Live>,
    prompt_tokens: usize,
    reused: usize,
    adapter: Option<AdapterId>,
    prompt_log_probs: Option<usize>,
    /// Prompt tokens whose log-probabilities were told, the opening one counted.
    told: usize,
    submitted: Instant,
    joined: Option<Instant>,
    prompt_read: Option<Instant>,
}

/// An answer under way.
#[derive(Debug)]
struct Live {
    request: RequestId,
    sample: usize,
    chain: Chain,
    /// What is known of its drafts; `None` where it wants none.
    speculation: Option<Speculation>,
    grammar: Option<Grammar>,
    stop_ids: Arc<[u32]>,
    prompt_tokens: usize,
    produced: usize,
    max_tokens: usize,
    context: usize,
    #[cfg(test)]
    fault: Option<super::tests::Fault>,
}

/// What a pass chose for one answer.
#[derive(Debug, Default)]
struct Chosen {
    tokens: Vec<Sampled>,
    /// Drafts among them.
    accepted: usize,
    finish: Option<Finish>,
    stop: Option<Sampled>,
}

impl Core {
    /// Takes the memory of `plan`.
    pub(crate) fn new(decoder: Decoder, plan: MemoryPlan, limits: SchedulerLimits, prefix_reuse: bool) -> Self {
        let device = decoder.device().without_autodiff();
        let MemoryPlan { pages, page_len, element, .. } = plan;
        let cache = KvCache::paged(decoder.config(), pages, page_len, element, &device);
        let limits = SchedulerLimits { window: window(&decoder), ..limits };
        Self {
            device,
            cache,
            scheduler: Scheduler::new(limits, Pages::new(pages, page_len)),
            prefix_reuse,
            requests: BTreeMap::new(),
            sequences: HashMap::new(),
            events: Vec::new(),
            decisions: Vec::new(),
            stats: Stats { pages, page_len, page_bytes: plan.page_bytes, ..Stats::default() },
            speculator: None,
            decoder,
        }
    }

    /// The same with proposals.
    pub(crate) fn with_speculation(self, speculator: Option<Speculator>) -> Self {
        Self { speculator, ..self }
    }

    /// What requests are checked against, where `samples` sequences run at once.
    pub(crate) fn facts(&self, samples: usize) -> ModelFacts {
        ModelFacts::of(&self.decoder, self.scheduler.longest(), samples)
    }

    /// Puts a request into the queue, whose number was not used before.
    pub(crate) fn add(&mut self, request: RequestId, valid: ValidRequest) {
        let ValidRequest { prompt, chains, stop_ids, max_tokens, context, adapter, grammar, .. } = valid;
        let live = |(sample, chain)| Live {
            request,
            sample,
            chain,
            speculation: self.speculator.as_ref().filter(|_| valid.speculate).map(Speculator::begin),
            grammar: grammar.clone(),
            stop_ids: Arc::clone(&stop_ids),
            prompt_tokens: prompt.len(),
            produced: 0,
            max_tokens,
            context,
            #[cfg(test)]
            fault: valid.fault,
        };
        let mut answers: Vec<Live> = chains.into_iter().enumerate().map(live).collect();
        let open = Open {
            left: answers.len(),
            further: answers.split_off(1),
            prompt_tokens: prompt.len(),
            reused: 0,
            adapter,
            prompt_log_probs: valid.prompt_log_probs,
            told: 1,
            submitted: Instant::now(),
            joined: None,
            prompt_read: None,
        };
        let id = self.scheduler.submit(NewSequence {
            request,
            ids: prompt,
            priority: valid.priority,
            root: valid.root.filter(|_| self.prefix_reuse),
            samples: open.left,
        });
        self.requests.insert(request, open);
        self.sequences.extend(answers.into_iter().map(|live| (id, live)));
    }

    /// Forgets a request, done or not.
    pub(crate) fn cancel(&mut self, request: RequestId) {
        if self.close(request) {
            self.stats.cancelled += 1;
            self.note_decisions();
        }
    }

    /// Bytes that keys and values took.
    #[cfg(test)]
    pub(super) fn cache_bytes(&self) -> u64 {
        self.cache.taken_bytes()
    }

    /// Whether a request is not done.
    pub(crate) fn has(&self, request: RequestId) -> bool {
        self.requests.contains_key(&request)
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// What happened since the last call, in order.
    pub(crate) fn take_events(&mut self) -> impl Iterator<Item = (RequestId, TokenEvent)> + '_ {
        self.events.drain(..)
    }

    /// What was decided since the last call.
    pub(crate) fn take_decisions(&mut self) -> impl Iterator<Item = Traced> + '_ {
        self.decisions.drain(..)
    }

    /// What proposals brought; `None` where nothing proposes.
    pub(crate) fn speculation(&self) -> Option<&SpeculationStats> {
        self.speculator.as_ref().map(Speculator::stats)
    }

    /// How things stand.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            running: self.scheduler.n_running(),
            waiting: self.scheduler.n_waiting(),
            pages_used: self.scheduler.pages().used(),
            preemptions: self.scheduler.preemptions(),
            ..self.stats
        }
    }

    /// One pass of the model. Every answer that it carries to its last known token gets its next one.
    ///
    /// # Errors
    /// When the device fails; the cache is then not to be trusted any more.
    pub(crate) fn step(&mut self) -> Result<(), DeviceFault> {
        #[cfg(test)]
        self.sequences.values().filter_map(|live| live.fault).for_each(super::tests::Fault::strike_engine);
        self.ask_for_drafts();
        let mut plan = self.scheduler.plan();
        self.note_decisions();
        if plan.work.is_empty() {
            return Ok(());
        }
        for &(from, to) in &plan.copies {
            self.cache.copy_page(from, to);
        }
        let mut drafts = self.drafts(&mut plan)?;
        let start = Instant::now();
        let hidden_n1c = self.forward(&plan);
        let mut n = 0;
        let mut rows = Vec::with_capacity(plan.work.len());
        for work in &plan.work {
            rows.push(n);
            n += work.tokens;
        }
        self.tell_prompts(&plan, &rows, &hidden_n1c)?;
        let wanted = |(work, &row): (&Work, &usize)| {
            let end = row + work.tokens;
            if work.complete { end - work.drafted - 1..end } else { end..end }
        };
        let wanted: Vec<usize> = plan.work.iter().zip(&rows).flat_map(wanted).collect();
        let logits = self.logits(&plan, &hidden_n1c, &wanted)?;
        self.note_time(&plan, start.elapsed());
        let mut rest = logits.as_slice();
        for work in &plan.work {
            let n = if work.complete { work.drafted + 1 } else { 0 };
            let (own, others) = rest.split_at(n * self.decoder.config().vocab_size);
            rest = others;
            self.follow(work, own, &drafts.remove(&work.sequence).unwrap_or_default());
        }
        self.note_decisions();
        self.stats.steps += 1;
        self.stats.computed_tokens += plan.work.iter().map(|work| work.tokens as u64).sum::<u64>();
        Ok(())
    }

    /// Has the scheduler keep room for the drafts of what decodes.
    fn ask_for_drafts(&mut self) {
        let Some(speculator) = &mut self.speculator else { return };
        let decoding: Vec<SequenceId> =
            self.scheduler.running().filter(|&id| self.scheduler.decodes(id)).collect();
        for &id in &decoding {
            let Some(live) = self.sequences.get_mut(&id) else { continue };
            let Some(state) = &mut live.speculation else { continue };
            let known = live.prompt_tokens + live.produced;
            let room = (live.max_tokens - live.produced).min(live.context - known).saturating_sub(1);
            let length = speculator.length(state, decoding.len(), room);
            self.scheduler.draft(id, &vec![0; length]);
        }
    }

    /// Proposals for the sequences that `plan` has room for, which are entered into it.
    fn drafts(&mut self, plan: &mut Plan) -> Result<HashMap<SequenceId, Vec<Proposed>>, DeviceFault> {
        let Some(speculator) = &mut self.speculator else { return Ok(HashMap::new()) };
        let mut places: Vec<usize> = (0..plan.work.len()).filter(|&i| plan.work[i].drafted > 0).collect();
        if places.is_empty() {
            return Ok(HashMap::new());
        }
        places.retain(|&i| self.sequences.contains_key(&plan.work[i].sequence));
        let ids: Vec<SequenceId> = places.iter().map(|&i| plan.work[i].sequence).collect();
        // Taken out while their chains are read.
        let mut states = Vec::new();
        for id in &ids {
            let state = self.sequences.get_mut(id).and_then(|live| live.speculation.take());
            states.push(state.unwrap_or_else(|| speculator.begin()));
        }
        let mut items: Vec<Item<'_>> = Vec::with_capacity(ids.len());
        for ((&i, id), state) in places.iter().zip(&ids).zip(&mut states) {
            let (known, length) = (self.scheduler.ids(*id), plan.work[i].drafted);
            let history = &known[..known.len() - length];
            items.push(Item {
                history,
                pages: self.scheduler.table(*id),
                length,
                chain: &self.sequences[id].chain,
                state,
            });
        }
        let proposals = speculator.propose(&self.decoder, &mut self.cache, &mut items);
        drop(items);
        let proposals = proposals.map_err(|message| DeviceFault { message })?;
        for (id, state) in ids.iter().zip(states) {
            if let Some(live) = self.sequences.get_mut(id) {
                live.speculation = Some(state);
            }
        }
        for (&i, proposed) in places.iter().zip(&proposals) {
            let tokens: Vec<u32> = proposed.iter().map(|proposed| proposed.id).collect();
            self.scheduler.redraft(&mut plan.work[i], &tokens);
        }
        Ok(ids.into_iter().zip(proposals).collect())
    }

    /// Tells the speculator what a pass took in which everything decoded.
    fn note_time(&mut self, plan: &Plan, took: Duration) {
        let Some(speculator) = &mut self.speculator else { return };
        if plan.work.iter().any(|work| !work.complete || work.tokens != work.drafted + 1) {
            return;
        }
        let drafted = plan.work.iter().filter(|work| work.drafted > 0).count();
        let computed = plan.work.iter().map(|work| work.tokens).sum();
        speculator.step_took(plan.work.len(), drafted, computed, took.as_secs_f64());
    }

    /// hidden_n1c of all planned tokens; n rows of one token.
    fn forward(&mut self, plan: &Plan) -> Tensor<3> {
        let mut ids = Vec::new();
        let segment = |work: &Work| {
            let all = self.scheduler.ids(work.sequence);
            ids.extend_from_slice(&all[work.past..work.past + work.tokens]);
            let pages = self.scheduler.table(work.sequence).to_vec();
            Segment { past: work.past, tokens: work.tokens, pages }
        };
        let segments: Vec<Segment> = plan.work.iter().map(segment).collect();
        let n = ids.len();
        let mut layout = Layout::ragged(segments, &self.device);
        layout.adapter_per_row = self.adapters(plan, &(0..n).collect::<Vec<_>>());
        self.decoder.forward(token_tensor(&ids, n, &self.device), &layout, Some(&mut self.cache))
    }

    /// The adapter of each of `rows`; `None` where all requests use the active one.
    fn adapters(&self, plan: &Plan, rows: &[usize]) -> Option<Vec<Option<AdapterId>>> {
        let active = self.decoder.active_adapter();
        let of = |work: &Work| {
            let request = self.sequences.get(&work.sequence).and_then(|live| self.requests.get(&live.request));
            request.and_then(|open| open.adapter)
        };
        if plan.work.iter().all(|work| of(work) == active) {
            return None;
        }
        let all: Vec<Option<AdapterId>> =
            plan.work.iter().flat_map(|work| std::iter::repeat_n(of(work), work.tokens)).collect();
        Some(rows.iter().map(|&row| all[row]).collect())
    }

    /// The logits of some rows of a pass, one after the other.
    fn logits(&self, plan: &Plan, hidden_n1c: &Tensor<3>, rows: &[usize]) -> Result<Vec<f32>, DeviceFault> {
        let mut all = Vec::with_capacity(rows.len() * self.decoder.config().vocab_size);
        for rows in rows.chunks(LOGIT_ROWS) {
            let hidden = match rows.len() == hidden_n1c.dims()[0] {
                true => hidden_n1c.clone(),
                false => {
                    let places: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
                    let places = Tensor::<1, Int>::from_data(places.as_slice(), &self.device);
                    hidden_n1c.clone().select(0, places)
                }
            };
            let logits = match self.adapters(plan, rows) {
                Some(per_row) => {
                    let layout = Layout::contiguous(0, 1, &self.device).with_adapters(per_row);
                    self.decoder.logits_of_rows(hidden, &layout)
                }
                None => self.decoder.logits(hidden),
            };
            let values = logits.cast(DType::F32).try_into_vec_as::<f32>();
            all.extend(values.map_err(|error| DeviceFault { message: error.to_string() })?);
        }
        Ok(all)
    }

    /// Log-probabilities of the prompt tokens that this pass predicted.
    fn tell_prompts(&mut self, plan: &Plan, rows: &[usize], hidden_n1c: &Tensor<3>) -> Result<(), DeviceFault> {
        for (work, &row) in plan.work.iter().zip(rows) {
            let Some(live) = self.sequences.get(&work.sequence) else { continue };
            let (request, position) = (live.request, work.past);
            let Some(open) = self.requests.get(&request) else { continue };
            let Some(top) = open.prompt_log_probs.filter(|_| live.sample == 0) else { continue };
            // The row of place p predicts place p + 1; after a preemption some were told already.
            let places = position.max(open.told - 1)..(position + work.tokens).min(open.prompt_tokens - 1);
            let mut told = Vec::new();
            for piece in places.clone().collect::<Vec<_>>().chunks(LOGIT_ROWS) {
                let wanted: Vec<usize> = piece.iter().map(|place| row + place - position).collect();
                let logits = self.logits(plan, hidden_n1c, &wanted)?;
                let ids = &self.scheduler.ids(work.sequence);
                for (place, logits) in piece.iter().zip(logits.chunks_exact(self.decoder.config().vocab_size)) {
                    told.push((place + 1, log_prob_of(logits, ids[place + 1], top)));
                }
            }
            let mut fine = Vec::new();
            let mut fault = None;
            for (position, sampled) in told {
                match sampled {
                    Ok(sampled) => fine.push(sampled),
                    Err(source) => {
                        fault = Some(SequenceError::Sample { position, source });
                        break;
                    }
                }
            }
            if let Some(open) = self.requests.get_mut(&request) {
                open.told += fine.len();
            }
            if !fine.is_empty() {
                self.events.push((request, TokenEvent::PromptLogProbs(fine)));
            }
            fault.into_iter().for_each(|fault| self.fail(request, fault));
        }
        Ok(())
    }

    /// Takes what a pass computed for a sequence: `logits` has a row for each token that can be chosen now.
    fn follow(&mut self, work: &Work, logits: &[f32], drafts: &[Proposed]) {
        let Some(live) = self.sequences.get(&work.sequence) else { return };
        let request = live.request;
        if !work.complete {
            return self.scheduler.computed(work, 0);
        }
        let vocab_size = self.decoder.config().vocab_size;
        let Some(open) = self.requests.get_mut(&request) else { return };
        let further = match open.prompt_read {
            Some(_) => Vec::new(),
            None => {
                open.prompt_read = Some(Instant::now());
                self.stats.prompt_tokens += open.prompt_tokens as u64;
                std::mem::take(&mut open.further)
            }
        };
        let mut places = vec![work.sequence];
        if !further.is_empty() {
            // Before anything is chosen: they share what was computed up to here.
            self.scheduler.computed(work, 0);
        }
        for live in further {
            let Some(id) = self.scheduler.fork(work.sequence, live.sample) else { continue };
            self.sequences.insert(id, live);
            places.push(id);
        }
        for id in places {
            let Some(live) = self.sequences.get_mut(&id) else { return };
            let known = live.prompt_tokens + live.produced;
            match live.guarded(logits, vocab_size, drafts) {
                Ok(chosen) => {
                    if let (Some(speculator), Some(state)) = (&mut self.speculator, &mut live.speculation) {
                        speculator.judged(state, known, chosen.accepted, chosen.tokens.len());
                    }
                    self.take(id, work, chosen);
                }
                // It takes the other answers with it.
                Err(error) => return self.fail(request, error),
            }
        }
    }

    /// Enters what was chosen for a sequence.
    fn take(&mut self, id: SequenceId, work: &Work, chosen: Chosen) {
        let Some(live) = self.sequences.get(&id) else { return };
        let (request, sample) = (live.request, live.sample);
        let Chosen { tokens, accepted, finish, stop } = chosen;
        if id == work.sequence {
            self.scheduler.computed(work, accepted);
        }
        // Accepted drafts are known already.
        tokens.iter().skip(accepted).for_each(|token| self.scheduler.push(id, token.id));
        self.stats.generated_tokens += tokens.len() as u64;
        for Sampled { id, log_prob, top } in tokens {
            self.events.push((request, TokenEvent::Token { sample, id, log_prob, top }));
        }
        let Some(finish) = finish else { return };
        let usage = self.usage(request, live_tokens(&self.sequences, id));
        self.events.push((request, TokenEvent::Finished { sample, finish, stop, usage }));
        self.scheduler.retire(id);
        self.sequences.remove(&id);
        let left = self.requests.get_mut(&request).map(|open| {
            open.left -= 1;
            open.left
        });
        if left == Some(0) {
            self.requests.remove(&request);
            self.stats.finished += 1;
        }
    }

    /// What a request that is not done took so far.
    pub(crate) fn usage(&self, request: RequestId, generated_tokens: usize) -> Usage {
        let Some(open) = self.requests.get(&request) else { return Usage::default() };
        let now = Instant::now();
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => Duration::ZERO,
        };
        Usage {
            prompt_tokens: open.prompt_tokens,
            reused_tokens: open.reused,
            generated_tokens,
            queued: between(Some(open.submitted), open.joined),
            prefill: between(open.joined, open.prompt_read),
            decode: between(open.prompt_read, Some(now)),
        }
    }

    fn fail(&mut self, request: RequestId, error: SequenceError) {
        if self.close(request) {
            self.stats.failed += 1;
            self.stats.panics += u64::from(matches!(error, SequenceError::Panicked { .. }));
            self.events.push((request, TokenEvent::Failed(error)));
        }
    }

    /// Takes all of a request out; false where it was not there.
    fn close(&mut self, request: RequestId) -> bool {
        let of: Vec<SequenceId> =
            self.sequences.iter().filter(|(_, live)| live.request == request).map(|(id, _)| *id).collect();
        for id in of {
            self.sequences.remove(&id);
            self.scheduler.finish(id);
        }
        self.requests.remove(&request).is_some()
    }

    /// Tells of requests that joined for the first time.
    fn note_decisions(&mut self) {
        for traced in self.scheduler.take_decisions() {
            self.decisions.push(traced);
            if let Decision::Preempt { .. } = traced.decision {
                let of = |live: &&mut Live| (live.request, live.sample) == (traced.request, traced.sample);
                let speculation = self.sequences.values_mut().find(of).and_then(|live| live.speculation.as_mut());
                speculation.into_iter().for_each(Speculation::forget);
            }
            let Decision::Join { reused, .. } = traced.decision else { continue };
            let Some(open) = self.requests.get_mut(&traced.request) else { continue };
            if open.joined.is_none() {
                let now = Instant::now();
                (open.joined, open.reused) = (Some(now), reused);
                self.stats.prefix_hits += u64::from(reused > 0);
                self.stats.reused_tokens += reused as u64;
                let queued = now.saturating_duration_since(open.submitted);
                self.events.push((traced.request, TokenEvent::Started { reused_tokens: reused, queued }));
            }
        }
    }
}

fn live_tokens(sequences: &HashMap<SequenceId, Live>, id: SequenceId) -> usize {
    sequences.get(&id).map_or(0, |live| live.produced)
}

/// Tokens that every layer reaches back, `None` where one sees everything.
fn window(decoder: &Decoder) -> Option<usize> {
    let windows = &decoder.config().windows;
    // A layer without a window sees everything.
    windows.iter().copied().collect::<Option<Vec<usize>>>().and_then(|windows| windows.into_iter().max())
}

impl Live {
    /// As [`Live::choose`]; a panic in it is this request's failure and nobody else's.
    fn guarded(
        &mut self,
        logits: &[f32],
        vocab_size: usize,
        drafts: &[Proposed],
    ) -> Result<Chosen, SequenceError> {
        let position = self.prompt_tokens + self.produced;
        // What the closure leaves half done is dropped with the sequence.
        catch_unwind(AssertUnwindSafe(|| self.choose(logits, vocab_size, drafts)))
            .unwrap_or_else(|panic| Err(SequenceError::Panicked { position, message: panic_text(&*panic) }))
    }

    /// The next token, and those behind it as long as drafts are accepted: row i of `logits` follows draft i - 1.
    fn choose(&mut self, logits: &[f32], vocab_size: usize, drafts: &[Proposed]) -> Result<Chosen, SequenceError> {
        let mut chosen = Chosen::default();
        if self.produced == self.max_tokens {
            chosen.finish = Some(Finish::Length);
            return Ok(chosen);
        }
        for (place, logits) in logits.chunks_exact(vocab_size).enumerate() {
            #[cfg(test)]
            self.fault.into_iter().for_each(|fault| fault.strike(self.produced));
            let position = self.prompt_tokens + self.produced;
            let misfit = |source| SequenceError::Grammar { position, source };
            let mask = self.grammar.as_mut().map(Grammar::mask).transpose().map_err(misfit)?;
            let mask = mask.as_ref().map(Mask::words);
            let choice = speculative::choose(&mut self.chain, logits, mask, drafts.get(place));
            let Choice { sampled, accepted } =
                choice.map_err(|source| SequenceError::Sample { position, source })?;
            let id = sampled.id;
            if self.chain.is_end(id) || self.stop_ids.contains(&id) {
                (chosen.finish, chosen.stop) = (Some(Finish::Stop), Some(sampled));
                break;
            }
            self.chain.accept(id);
            self.produced += 1;
            chosen.tokens.push(sampled);
            chosen.accepted += usize::from(accepted);
            if let Some(grammar) = &mut self.grammar {
                grammar.accept(id).map_err(misfit)?;
                if grammar.is_done() {
                    chosen.finish = Some(Finish::Stop);
                    break;
                }
            }
            if self.prompt_tokens + self.produced >= self.context {
                chosen.finish = Some(Finish::Context);
                break;
            }
            if self.produced == self.max_tokens {
                chosen.finish = Some(Finish::Length);
                break;
            }
            if !accepted {
                break;
            }
        }
        Ok(chosen)
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}
