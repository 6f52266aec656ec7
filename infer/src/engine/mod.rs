//! One engine for every way of generating: requests in, tokens out, as many at once as memory allows.
//!
//! Takes and gives token ids; knows nothing of text, HTTP or terminals, and never trusts a request. In reading order:
//! [`request`] says what can be asked, [`memory`] how much room there is, [`pages`], [`prefix`] and [`table`] who holds
//! which part of it, [`scheduler`] what each pass computes; the inner loop runs it, and [`Engine`] runs that in a
//! thread of its own.

pub mod closed;
pub(crate) mod core;
pub mod decision;
pub mod event;
pub mod memory;
pub mod pages;
pub mod prefix;
pub mod request;
pub mod scheduler;
pub mod stats;
pub mod stream;
pub mod table;
mod thread;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use fornax_model::Decoder;
use fornax_model::kv_cache::KvElement;

pub use closed::{Answer, Closed, run_closed};
pub use decision::{Decision, RequestId, Traced};
pub use event::{SequenceError, TokenEvent, Usage};
pub use memory::{KvLayout, Memory, MemoryError, MemoryPlan};
pub use request::{ModelFacts, Request, RequestError, ValidRequest};
pub use scheduler::Batching;
pub use stats::Stats;
pub use stream::TokenStream;

use self::core::Core;
use crate::speculative::{SpeculationError, SpeculationOptions, SpeculationStats, Speculator};
use scheduler::SchedulerLimits;
use thread::Command;

/// Of the engine's thread, as much as a main thread usually has: grammars of strangers recurse.
const STACK_BYTES: usize = 8 << 20;

/// How an engine works.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How keys and values lie.
    pub layout: KvLayout,
    /// What is stored of each number of them; `None` is the dtype that the decoder computes in.
    pub element: Option<KvElement>,
    /// How much memory they take.
    pub memory: Memory,
    /// Sequences that run at once.
    pub max_running: usize,
    /// Tokens of one pass of the model, at least `max_running`: prompts are read in pieces that leave room for every
    /// sequence that decodes.
    pub token_budget: usize,
    /// Requests in the queue at most.
    pub max_waiting: usize,
    /// Tokens of their prompts at most; a single request is taken whatever its size.
    pub max_waiting_tokens: usize,
    /// How sequences share passes.
    pub batching: Batching,
    /// Whether prompts that begin like an earlier one read its pages.
    pub prefix_reuse: bool,
    /// The latest decisions that [`Engine::decisions`] remembers.
    pub trace: usize,
    /// What proposes tokens, where anything does.
    pub speculation: Option<SpeculationOptions>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            layout: KvLayout::default(),
            element: None,
            memory: Memory::Auto { free: None },
            max_running: 16,
            token_budget: 512,
            max_waiting: 256,
            max_waiting_tokens: 1 << 20,
            batching: Batching::Continuous,
            prefix_reuse: true,
            trace: 1024,
            speculation: None,
        }
    }
}

impl EngineOptions {
    /// The cache that these options give a model.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn plan(&self, decoder: &Decoder) -> Result<MemoryPlan, EngineError> {
        let Self { max_running, token_budget, .. } = *self;
        if max_running == 0 || token_budget < max_running {
            return Err(EngineError::Budget { token_budget, max_running });
        }
        let element = self.element.unwrap_or(KvElement::of(decoder.compute()));
        let draft = self.speculation.as_ref().and_then(SpeculationOptions::model).map(Decoder::config);
        Ok(MemoryPlan::new(decoder.config(), draft, (self.layout, element), self.memory, max_running)?)
    }

    pub(crate) fn core(&self, decoder: Decoder) -> Result<Core, EngineError> {
        let plan = self.plan(&decoder)?;
        let Self { max_running, token_budget, batching, .. } = *self;
        let limits = SchedulerLimits { max_running, token_budget, batching, window: None };
        let speculator = |options: &SpeculationOptions| {
            Speculator::new(options.clone(), &decoder, (plan.pages, plan.page_len), plan.element)
        };
        let speculator = self.speculation.as_ref().map(speculator).transpose()?;
        Ok(Core::new(decoder, plan, limits, self.prefix_reuse).with_speculation(speculator))
    }
}

/// Why an engine cannot start, or a closed set of requests cannot go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Some sequences would never move.
    #[error(
        "a pass of {token_budget} tokens for {max_running} sequences, expected at least 1 sequence and a token for each"
    )]
    Budget {
        /// Tokens of one pass.
        token_budget: usize,
        /// Sequences that run at once.
        max_running: usize,
    },
    /// There is no room for a cache.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The draft does not serve the model.
    #[error(transparent)]
    Speculation(#[from] SpeculationError),
    /// The device failed.
    #[error("the device failed: {message}")]
    Device {
        /// The driver's words.
        message: String,
    },
    /// The system gives no thread.
    #[error("the system gives no thread: {message}")]
    Thread {
        /// Its words.
        message: String,
    },
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The queue is full: come again later.
    #[error(
        "the queue holds {requests} of {max_requests} requests and {tokens} of {max_tokens} prompt tokens, and this one \
         has {own}"
    )]
    Full {
        /// Requests that wait.
        requests: usize,
        /// Requests that may.
        max_requests: usize,
        /// Tokens of their prompts.
        tokens: usize,
        /// Tokens that may wait.
        max_tokens: usize,
        /// Tokens of this request's prompt.
        own: usize,
    },
    /// The engine takes no more requests.
    #[error("the engine is shutting down")]
    Closing,
    /// The engine is gone.
    #[error("the engine failed: {message}")]
    Dead {
        /// Its last words.
        message: String,
    },
}

/// A handle on an engine; clones are handles on the same one. When the last is dropped the engine finishes what it has
/// and ends.
#[derive(Debug, Clone)]
pub struct Engine {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
    facts: ModelFacts,
    plan: MemoryPlan,
}

/// What the engine's thread and its handles see.
#[derive(Debug)]
struct Shared {
    alive: AtomicBool,
    next: AtomicU64,
    queue: Mutex<Queue>,
    max_waiting: usize,
    max_waiting_tokens: usize,
    stats: Mutex<Stats>,
    speculation: Mutex<Option<SpeculationStats>>,
    trace: Mutex<VecDeque<Traced>>,
    max_trace: usize,
    /// Since when the pass at hand is computed.
    busy: Mutex<Option<Instant>>,
    last_words: Mutex<Option<String>>,
}

/// Requests that were submitted and have not begun.
#[derive(Debug, Default)]
struct Queue {
    requests: usize,
    tokens: usize,
    closing: bool,
}

/// A place in the queue, free again when this is dropped.
#[derive(Debug)]
struct Ticket {
    shared: Arc<Shared>,
    tokens: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.requests -= 1;
        queue.tokens -= self.tokens;
    }
}

impl Engine {
    /// Takes the memory that `options` plan and starts a thread for `decoder`.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn start(decoder: Decoder, options: &EngineOptions) -> Result<Self, EngineError> {
        let plan = options.plan(&decoder)?;
        let core = options.core(decoder)?;
        let facts = core.facts(options.max_running);
        let shared = Arc::new(Shared {
            alive: AtomicBool::new(true),
            next: AtomicU64::new(0),
            queue: Mutex::default(),
            max_waiting: options.max_waiting,
            max_waiting_tokens: options.max_waiting_tokens,
            stats: Mutex::new(core.stats()),
            speculation: Mutex::new(core.speculation().cloned()),
            trace: Mutex::default(),
            max_trace: options.trace,
            busy: Mutex::default(),
            last_words: Mutex::default(),
        });
        let (commands, received) = crossbeam_channel::unbounded();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || thread::run(core, &received, &for_thread))
            .map_err(|error| EngineError::Thread { message: error.to_string() })?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { handle: Arc::new(Handle { shared, commands, thread, facts, plan }) })
    }

    /// Takes a request if the queue has room; what becomes of it comes through the stream, whose drop cancels it within
    /// one pass.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&self, request: ValidRequest) -> Result<TokenStream, SubmitError> {
        let Handle { shared, commands, .. } = &*self.handle;
        if !self.is_alive() {
            return Err(SubmitError::Dead { message: shared.words() });
        }
        let own = request.prompt_tokens();
        let ticket = {
            let mut queue = lock(&shared.queue);
            if queue.closing {
                return Err(SubmitError::Closing);
            }
            let Queue { requests, tokens, .. } = *queue;
            let (max_requests, max_tokens) = (shared.max_waiting, shared.max_waiting_tokens);
            let crowded = requests > 0 && tokens.saturating_add(own) > max_tokens;
            if requests >= max_requests || crowded {
                return Err(SubmitError::Full { requests, max_requests, tokens, max_tokens, own });
            }
            (queue.requests, queue.tokens) = (requests + 1, tokens + own);
            Ticket { shared: Arc::clone(shared), tokens: own }
        };
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let (events, received) = crossbeam_channel::unbounded();
        let answers = request.chains.len();
        let command = Command::Submit { id, request: Box::new(request), events, ticket };
        commands.send(command).map_err(|_| SubmitError::Dead { message: shared.words() })?;
        Ok(TokenStream::new(id, answers, received, commands.clone(), Arc::clone(shared)))
    }

    /// What requests are checked against.
    pub fn facts(&self) -> &ModelFacts {
        &self.handle.facts
    }

    /// The memory it took.
    pub fn plan(&self) -> &MemoryPlan {
        &self.handle.plan
    }

    /// How it stands after its latest pass.
    pub fn stats(&self) -> Stats {
        *lock(&self.handle.shared.stats)
    }

    /// What proposals brought so far; `None` where nothing proposes.
    pub fn speculation(&self) -> Option<SpeculationStats> {
        lock(&self.handle.shared.speculation).clone()
    }

    /// Requests in the queue, and the tokens of their prompts.
    pub fn queued(&self) -> (usize, usize) {
        let queue = lock(&self.handle.shared.queue);
        (queue.requests, queue.tokens)
    }

    /// Whether its thread runs.
    pub fn is_alive(&self) -> bool {
        self.handle.shared.alive.load(Ordering::Acquire)
    }

    /// How long the pass at hand has taken so far, `None` between passes: a device that hangs shows here.
    pub fn busy_for(&self) -> Option<Duration> {
        lock(&self.handle.shared.busy).map(|since| since.elapsed())
    }

    /// The latest decisions, the oldest in front, and forgets them.
    pub fn decisions(&self) -> Vec<Traced> {
        lock(&self.handle.shared.trace).drain(..).collect()
    }

    /// Takes no more requests, lets those that it has go on for `patience`, fails the others with
    /// [`SequenceError::Shutdown`], and waits until the thread has ended.
    pub fn shutdown(&self, patience: Duration) {
        let Handle { shared, commands, thread, .. } = &*self.handle;
        lock(&shared.queue).closing = true;
        // An engine that is gone needs no telling.
        let _ = commands.send(Command::Close { until: Instant::now().checked_add(patience) });
        let thread = lock(thread).take();
        // Its panics are reported through `last_words`.
        thread.map(JoinHandle::join);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody can submit any more; streams that are read go on to their end.
        let _ = self.commands.send(Command::Close { until: None });
    }
}

impl Shared {
    fn words(&self) -> String {
        let words = lock(&self.last_words).clone();
        words.unwrap_or_else(|| "it was shut down".to_owned())
    }
}

/// A lock whose value is whole at every moment, so that a panic of another holder does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
