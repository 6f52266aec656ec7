//! What a sequence has said so far, as far as the choice of the next token depends on it.

use std::collections::BTreeMap;

use super::SamplingOptions;
use super::candidates::Candidates;

/// A token of prompt or output.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    in_prompt: bool,
    /// Times in the output.
    output: u32,
}

/// Prompt and output.
#[derive(Debug, Clone)]
pub(super) struct History {
    ids: Vec<u32>,
    prompt: usize,
    /// Which tokens stand there, for the penalties; `None` where there are none.
    seen: Option<BTreeMap<u32, Seen>>,
}

impl History {
    pub(super) fn new(prompt: &[u32], counts: bool) -> History {
        let in_prompt = Seen { in_prompt: true, output: 0 };
        let seen = counts.then(|| prompt.iter().map(|id| (*id, in_prompt)).collect());
        History { ids: prompt.to_vec(), prompt: prompt.len(), seen }
    }

    /// Prompt and output.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens of the output.
    pub(super) fn output(&self) -> &[u32] {
        &self.ids[self.prompt..]
    }

    pub(super) fn push(&mut self, id: u32) {
        self.ids.push(id);
        if let Some(seen) = &mut self.seen {
            seen.entry(id).or_default().output += 1;
        }
    }

    /// Takes the last token of the output back.
    pub(super) fn pop(&mut self) {
        if self.output().is_empty() {
            return;
        }
        let last = self.ids.pop();
        if let (Some(seen), Some(last)) = (&mut self.seen, last)
            && let Some(token) = seen.get_mut(&last)
        {
            token.output -= 1;
            if token.output == 0 && !token.in_prompt {
                seen.remove(&last);
            }
        }
    }

    /// vLLM's penalties: repetition over prompt and output, then the others over the output.
    pub(super) fn penalize(&self, options: &SamplingOptions, candidates: &mut Candidates) {
        let Some(seen) = &self.seen else { return };
        let repetition = options.repetition_penalty;
        candidates.change(seen.keys().copied(), |id, logit| {
            let logit = if logit > 0.0 { logit / repetition } else { logit * repetition };
            match seen.get(&id).map_or(0, |seen| seen.output) {
                0 => logit,
                n => logit - options.frequency_penalty * n as f32 - options.presence_penalty,
            }
        });
    }
}
