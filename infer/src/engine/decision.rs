//! What the scheduler decided, one line for each time a sequence joined, left or was put back.

/// Number of a request, in the order of submission.
pub type RequestId = u64;

/// A decision and the step in which it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Passes of the model before it.
    pub step: u64,
    /// Whose.
    pub request: RequestId,
    /// Which of the request's samples.
    pub sample: usize,
    /// What.
    pub decision: Decision,
}

/// What can be decided about a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It computes from this step on.
    Join {
        /// Steps since it was submitted or put back.
        waited: u64,
        /// Tokens whose keys and values were there already.
        reused: usize,
    },
    /// A further sample began with the pages of its request's prompt.
    Fork,
    /// Its pages were needed by an older one: it will be computed again.
    Preempt {
        /// Tokens that were computed.
        computed: usize,
    },
    /// It is done, failed or was cancelled.
    Leave,
}
