//! Numbers of an engine.

/// How an engine stands, and what it did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sequences that compute.
    pub running: usize,
    /// Sequences in the queue, those put back included.
    pub waiting: usize,
    /// Pages held.
    pub pages_used: usize,
    /// Pages in all.
    pub pages: usize,
    /// Tokens of a page.
    pub page_len: usize,
    /// Bytes of a page, over all layers.
    pub page_bytes: u64,
    /// Passes of the model.
    pub steps: u64,
    /// Tokens that went through the model, those computed again included.
    pub computed_tokens: u64,
    /// Tokens of prompts that were read.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were found in pages instead of computed.
    pub reused_tokens: u64,
    /// Requests of which some tokens were.
    pub prefix_hits: u64,
    /// Tokens that were generated.
    pub generated_tokens: u64,
    /// Times that a sequence gave its pages up and was computed again.
    pub preemptions: u64,
    /// Requests that ended as they should.
    pub finished: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that failed through a fault of this program.
    pub panics: u64,
    /// Requests that nobody wanted any more.
    pub cancelled: u64,
}
