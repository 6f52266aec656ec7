//! Who proposes: a lookup, a small model of the same vocabulary, or the leading layers of the model itself.

use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor};
use fornax_model::{Decoder, KvCache, KvElement, Layout, Segment, token_tensor};

use super::accept::Proposed;
use super::adaptive::{Adaptive, Costs};
use super::lookup::Lookup;
use super::statistics::SpeculationStats;
use crate::generate::PREFILL_CHUNK;
use crate::sampler::Chain;

/// What makes proposals.
#[derive(Debug, Clone)]
pub enum Draft {
    /// What followed the same tokens before.
    Lookup(Lookup),
    /// A smaller model with the same vocabulary, and a cache of its own.
    Model(Box<Decoder>),
    /// So many leading layers of the model itself, its norm and its head (Elhoushi et al. 2024, LayerSkip,
    /// arXiv:2404.16710), in the model's own cache.
    EarlyExit {
        /// From 1 to one less than the model has.
        layers: usize,
    },
}

/// How to speculate.
#[derive(Debug, Clone)]
pub struct SpeculationOptions {
    /// What makes proposals.
    pub draft: Draft,
    /// Tokens of a proposal at most, from 1.
    pub most: usize,
    /// Proposes that many always, and is never switched off.
    pub fixed: bool,
    /// Draw proposals as the request samples, and judge them by the ratio of both probabilities; otherwise a model
    /// proposes its most probable tokens, fewer of which are accepted, and the text is that of plain sampling to the
    /// token.
    pub drawn: bool,
}

impl SpeculationOptions {
    /// Up to 8 tokens, adaptive, drawn.
    pub fn new(draft: Draft) -> Self {
        Self { draft, most: 8, fixed: false, drawn: true }
    }
}

/// Why a draft cannot serve a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpeculationError {
    /// Ids mean other tokens.
    #[error("the draft model has a vocabulary of {draft} tokens, the model one of {target}")]
    Vocabulary {
        /// The draft's.
        draft: usize,
        /// The model's.
        target: usize,
    },
    /// It would end before the model does.
    #[error("the draft model has a context of {draft} tokens, the model one of {target}")]
    Context {
        /// The draft's.
        draft: usize,
        /// The model's.
        target: usize,
    },
    /// It would read what the model has forgotten.
    #[error("the draft model sees further back than the {target} tokens of the model's windows")]
    Window {
        /// Tokens that the model sees at most.
        target: usize,
    },
    /// The draft runs elsewhere.
    #[error("the draft model is on {draft}, the model on {target}")]
    Device {
        /// The draft's.
        draft: String,
        /// The model's.
        target: String,
    },
    /// Not an early exit.
    #[error("an early exit after {layers} layers of {n_layers}, expected from 1 to {}", n_layers.saturating_sub(1))]
    Layers {
        /// What was asked for.
        layers: usize,
        /// What the model has.
        n_layers: usize,
    },
    /// A size that nothing can have.
    #[error("{what} is {value}, expected {expected}")]
    Size {
        /// Which.
        what: &'static str,
        /// What was given.
        value: usize,
        /// What could stand there.
        expected: &'static str,
    },
}

/// Tokens of a proposal at most: more never paid where it was measured.
const LONGEST: usize = 64;

impl SpeculationOptions {
    /// Whether they fit `target`.
    ///
    /// # Errors
    /// See [`SpeculationError`].
    pub fn check(&self, target: &Decoder) -> Result<(), SpeculationError> {
        let size = |what, value, expected| Err(SpeculationError::Size { what, value, expected });
        if !(1..=LONGEST).contains(&self.most) {
            return size("the draft length", self.most, "from 1 to 64");
        }
        match &self.draft {
            Draft::Lookup(lookup) if lookup.least == 0 => size("the least match of a lookup", 0, "at least 1"),
            Draft::Lookup(lookup) if lookup.most < lookup.least => {
                size("the longest match of a lookup", lookup.most, "at least the least one")
            }
            Draft::Lookup(_) => Ok(()),
            Draft::Model(model) => {
                let (draft, target_config) = (model.config(), target.config());
                if draft.vocab_size != target_config.vocab_size {
                    let (draft, target) = (draft.vocab_size, target_config.vocab_size);
                    return Err(SpeculationError::Vocabulary { draft, target });
                }
                if draft.context < target_config.context {
                    let (draft, target) = (draft.context, target_config.context);
                    return Err(SpeculationError::Context { draft, target });
                }
                let reach = |windows: &[Option<usize>]| windows.iter().map(|w| w.unwrap_or(usize::MAX)).max();
                let (draft, target_reach) = (reach(&draft.windows), reach(&target_config.windows));
                if draft > target_reach {
                    // Pages are given back once the model's windows have left them.
                    return Err(SpeculationError::Window { target: target_reach.unwrap_or(0) });
                }
                let (draft, target) = (plain(model), plain(target));
                if draft != target {
                    let word = |device: Device| format!("{device:?}");
                    return Err(SpeculationError::Device { draft: word(draft), target: word(target) });
                }
                Ok(())
            }
            &Draft::EarlyExit { layers } => {
                let n_layers = target.config().n_layers;
                match layers > 0 && layers < n_layers {
                    true => Ok(()),
                    false => Err(SpeculationError::Layers { layers, n_layers }),
                }
            }
        }
    }
}

impl SpeculationOptions {
    /// The draft model, where that is what proposes.
    pub fn model(&self) -> Option<&Decoder> {
        match &self.draft {
            Draft::Model(model) => Some(model),
            Draft::Lookup(_) | Draft::EarlyExit { .. } => None,
        }
    }
}

fn plain(decoder: &Decoder) -> Device {
    decoder.device().without_autodiff()
}

/// What is known of one sequence's drafts.
#[derive(Debug, Clone)]
pub struct Speculation {
    adaptive: Adaptive,
    /// Leading tokens of the sequence whose keys and values the draft model's cache holds.
    held: usize,
    /// The pages that hold them.
    pages: Vec<u32>,
    /// Proposed in this round.
    proposed: usize,
}

impl Speculation {
    /// Its pages went to others, so a draft model has to read it again.
    pub fn forget(&mut self) {
        self.held = 0;
    }
}

/// A sequence that wants proposals.
#[derive(Debug)]
pub struct Item<'a> {
    /// Prompt and answer so far; the model's cache holds all but the last.
    pub history: &'a [u32],
    /// Its pages, with room for the proposals.
    pub pages: &'a [u32],
    /// Tokens to propose at most, of [`Speculator::length`].
    pub length: usize,
    /// How the sequence samples.
    pub chain: &'a Chain,
    /// What is known of its drafts.
    pub state: &'a mut Speculation,
}

impl Item<'_> {
    /// Forgets what the draft model's cache held in pages that are the sequence's no longer: a sequence that was put back
    /// has others, and a shared page was copied for the model alone.
    fn notice_pages(&mut self, page_len: usize) {
        let state = &mut *self.state;
        // A page that every window has left behind is named no more.
        let same = |(old, new): &(&u32, &u32)| old == new || **new == u32::MAX;
        let kept = state.pages.iter().zip(self.pages).take_while(same).count();
        state.held = state.held.min(kept * page_len);
        state.pages.clear();
        state.pages.extend_from_slice(self.pages);
    }
}

/// Makes proposals for the sequences of one model, and keeps the books.
#[derive(Debug)]
pub struct Speculator {
    options: SpeculationOptions,
    /// Of a draft model.
    cache: Option<KvCache>,
    costs: Costs,
    stats: SpeculationStats,
}

impl Speculator {
    /// For the sequences of an engine, whose pages serve a draft model's cache too: page i of it belongs to the same
    /// tokens as page i of the model's. Takes the memory of the latter.
    ///
    /// # Errors
    /// What [`SpeculationOptions::check`] finds.
    pub fn new(
        options: SpeculationOptions,
        target: &Decoder,
        (pages, page_len): (usize, usize),
        element: KvElement,
    ) -> Result<Self, SpeculationError> {
        options.check(target)?;
        let cache =
            options.model().map(|model| KvCache::paged(model.config(), pages, page_len, element, &plain(model)));
        Ok(Self { options, cache, costs: Costs::default(), stats: SpeculationStats::default() })
    }

    /// A sequence about which nothing is known yet.
    pub fn begin(&self) -> Speculation {
        let adaptive = Adaptive::new(self.options.most, self.options.fixed);
        Speculation { adaptive, held: 0, pages: Vec::new(), proposed: 0 }
    }

    /// What happened so far.
    pub fn stats(&self) -> &SpeculationStats {
        &self.stats
    }

    /// How many tokens to propose for one of `sequences` sequences that go through the model together: 0 where it would
    /// not pay, and at most `room`, which is what is left of the answer and of the cache, less one.
    pub fn length(&mut self, state: &mut Speculation, sequences: usize, room: usize) -> usize {
        let before = state.adaptive.switched_off();
        let length = state.adaptive.length(&self.costs, sequences);
        self.stats.switched_off += state.adaptive.switched_off() - before;
        length.min(room)
    }

    /// Proposals for each of `items`. `cache` is the one of `target`; it holds afterwards what it held before.
    ///
    /// # Errors
    /// The device's words, when it fails. A draft model whose logits cannot be sampled proposes nothing.
    pub fn propose(
        &mut self,
        target: &Decoder,
        cache: &mut KvCache,
        items: &mut [Item<'_>],
    ) -> Result<Vec<Vec<Proposed>>, String> {
        let n = items.len();
        let start = Instant::now();
        let proposals = match &self.options.draft {
            Draft::Lookup(lookup) => {
                let whole = |id| Proposed { id, from: None };
                let of = |item: &Item<'_>| {
                    lookup.propose(item.history, item.length).into_iter().map(whole).collect::<Vec<_>>()
                };
                let proposals: Vec<Vec<Proposed>> = items.iter().map(of).collect();
                let longest = items.iter().map(|item| item.length).max().unwrap_or(0);
                self.costs.draft_took(longest, start.elapsed().as_secs_f64());
                proposals
            }
            Draft::Model(model) => {
                // A draft model has a cache: the constructor made it.
                let Some(own) = self.cache.as_mut() else { return Ok(vec![Vec::new(); n]) };
                items.iter_mut().for_each(|item| item.notice_pages(own.capacity()));
                let drafter = Drafter { decoder: model, layers: None, drawn: self.options.drawn };
                drafter.propose(own, items, &mut self.costs)?
            }
            &Draft::EarlyExit { layers } => {
                for item in items.iter_mut() {
                    item.state.held = item.history.len() - 1;
                }
                let drafter = Drafter { decoder: target, layers: Some(layers), drawn: self.options.drawn };
                drafter.propose(cache, items, &mut self.costs)?
            }
        };
        let drafted = proposals.iter().filter(|proposal| !proposal.is_empty()).count();
        self.stats.draft_seconds += drafted as f64 * start.elapsed().as_secs_f64();
        for (item, proposal) in items.iter_mut().zip(&proposals) {
            item.state.proposed = proposal.len();
        }
        Ok(proposals)
    }

    /// Of a sequence's proposals the first `accepted` were accepted, and `tokens` tokens came of the round; `history` is
    /// the sequence's length before it.
    pub fn judged(&mut self, state: &mut Speculation, history: usize, accepted: usize, tokens: usize) {
        if state.proposed > 0 {
            state.adaptive.judged(state.proposed, accepted);
            self.stats.judged(state.proposed, accepted, tokens);
            state.proposed = 0;
        }
        // Behind them the cache holds what was refused.
        state.held = state.held.min(history + accepted);
    }

    /// A step of the model over `computed` tokens of `sequences` sequences, `drafted` of them with proposals, took
    /// `seconds`. Steps that read prompts are not told.
    pub fn step_took(&mut self, sequences: usize, drafted: usize, computed: usize, seconds: f64) {
        self.costs.step_took(computed, seconds);
        // Seconds of a sequence, so that batches of different sizes add up.
        if drafted > 0 {
            self.stats.verify_seconds += drafted as f64 * seconds;
        } else {
            self.stats.plain_tokens += sequences as u64;
            self.stats.plain_seconds += sequences as f64 * seconds;
        }
    }
}

/// A decoder that proposes.
struct Drafter<'a> {
    decoder: &'a Decoder,
    /// Its leading layers alone.
    layers: Option<usize>,
    drawn: bool,
}

/// Tokens of a sequence behind those that the cache holds.
struct Feed<'a> {
    past: usize,
    tokens: &'a [u32],
    pages: &'a [u32],
}

impl Drafter<'_> {
    /// One token after the other for all sequences together.
    fn propose(
        &self,
        cache: &mut KvCache,
        items: &mut [Item<'_>],
        costs: &mut Costs,
    ) -> Result<Vec<Vec<Proposed>>, String> {
        let mut proposals = vec![Vec::new(); items.len()];
        let mut chains: Vec<Option<Chain>> =
            items.iter().map(|item| (item.length > 0).then(|| item.chain.clone())).collect();
        self.catch_up(cache, items)?;
        for round in 0.. {
            let start = Instant::now();
            let active: Vec<usize> =
                (0..items.len()).filter(|&i| items[i].length > round && proposals[i].len() == round).collect();
            if active.is_empty() {
                break;
            }
            let lasts: Vec<Vec<u32>> = active.iter().map(|&i| behind(&items[i], &proposals[i])).collect();
            let feeds: Vec<Feed<'_>> = active
                .iter()
                .zip(&lasts)
                .map(|(&i, tokens)| Feed { past: items[i].state.held, tokens, pages: items[i].pages })
                .collect();
            let rows = self.feed(cache, &feeds)?;
            for ((&i, tokens), logits) in active.iter().zip(&lasts).zip(&rows) {
                items[i].state.held += tokens.len();
                proposals[i].extend(chains[i].as_mut().and_then(|chain| self.next(chain, logits)));
            }
            costs.draft_took(1, start.elapsed().as_secs_f64());
        }
        Ok(proposals)
    }

    /// Reads what the cache lacks of each history, but for its end, which is read for the sake of its logits.
    fn catch_up(&self, cache: &mut KvCache, items: &mut [Item<'_>]) -> Result<(), String> {
        for item in items.iter_mut().filter(|item| item.length > 0) {
            // After a round in which everything was accepted two tokens are new: no reason for a pass of its own.
            while item.state.held + 2 < item.history.len() {
                let past = item.state.held;
                let to = (past + PREFILL_CHUNK).min(item.history.len() - 1);
                self.feed(cache, &[Feed { past, tokens: &item.history[past..to], pages: item.pages }])?;
                item.state.held = to;
            }
        }
        Ok(())
    }

    /// The logits after the last token of each of `feeds`.
    fn feed(&self, cache: &mut KvCache, feeds: &[Feed<'_>]) -> Result<Vec<Vec<f32>>, String> {
        let device = plain(self.decoder);
        let ids: Vec<u32> = feeds.iter().flat_map(|feed| feed.tokens).copied().collect();
        let (tokens, layout) = if cache.is_paged() {
            let segment = |f: &Feed<'_>| Segment { past: f.past, tokens: f.tokens.len(), pages: f.pages.to_vec() };
            let layout = Layout::ragged(feeds.iter().map(segment).collect(), &device);
            (token_tensor(&ids, ids.len(), &device), layout)
        } else {
            // One sequence, whose tail was refused.
            let past = feeds[0].past;
            cache.truncate(past);
            (token_tensor(&ids, 1, &device), Layout::contiguous(past, ids.len(), &device))
        };
        let hidden = match self.layers {
            Some(layers) => self.decoder.forward_leading(layers, tokens, &layout, cache),
            None => self.decoder.forward(tokens, &layout, Some(cache)),
        };
        let config = self.decoder.config();
        let ends = feeds.iter().scan(0, |end, feed| {
            *end += feed.tokens.len() as i32;
            Some(*end - 1)
        });
        let ends: Vec<i32> = ends.collect();
        let last = hidden.select(0, Tensor::<1, Int>::from_data(ends.as_slice(), &device));
        let logits = self.decoder.logits(last).cast(DType::F32);
        let values = logits.try_into_vec_as::<f32>().map_err(|error| error.to_string())?;
        Ok(values.chunks_exact(config.vocab_size).map(<[f32]>::to_vec).collect())
    }

    /// The next proposal; `None` where the logits cannot be sampled.
    fn next(&self, chain: &mut Chain, logits: &[f32]) -> Option<Proposed> {
        let proposed = if self.drawn {
            let from = chain.distribution(logits, None).ok()?;
            let id = from.draw(chain.uniform(DRAFT));
            // Certain is certain: then nothing was drawn.
            let from = (from.probability(id) < 1.0).then_some(from);
            Proposed { id, from }
        } else {
            Proposed { id: chain.sample(logits, None).ok()?.id, from: None }
        };
        chain.accept(proposed.id);
        Some(proposed)
    }
}

const DRAFT: &str = "speculative/draft";

/// What a drafter has not read yet: the end of the history, or the last proposal.
fn behind(item: &Item<'_>, proposals: &[Proposed]) -> Vec<u32> {
    match proposals.last() {
        Some(last) => vec![last.id],
        None => item.history[item.state.held..].to_vec(),
    }
}
