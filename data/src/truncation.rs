//! What becomes of rows that are longer than the context: never silently.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::rendering::Tokens;

/// What becomes of a row that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Truncate {
    /// Its end is cut off.
    End,
    /// It is left out.
    Drop,
    /// Its prompt loses tokens on the left (a beginning-of-text token stays), then its end is cut where that is not
    /// enough. The two prompts of a pair are cut alike.
    PromptLeft,
}

impl Truncate {
    /// All of them.
    pub const ALL: [Truncate; 3] = [Truncate::End, Truncate::Drop, Truncate::PromptLeft];

    /// Its name in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Truncate::End => "end",
            Truncate::Drop => "drop",
            Truncate::PromptLeft => "prompt-left",
        }
    }
}

impl FromStr for Truncate {
    type Err = String;

    fn from_str(text: &str) -> Result<Truncate, String> {
        let known = Truncate::ALL.map(Truncate::name).join(", ");
        let found = Truncate::ALL.into_iter().find(|policy| policy.name() == text);
        found.ok_or_else(|| format!("unknown policy `{text}`, known are {known}"))
    }
}

/// Rows that were too long, by what became of them. A row that lost both its prompt's beginning and its end counts in
/// both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Truncated {
    /// Rows that lost their end.
    pub end: u64,
    /// Rows whose prompt lost its beginning.
    pub prompt: u64,
    /// Rows that were left out, because the policy says so or because nothing that is trained was left.
    pub dropped: u64,
}

impl Truncated {
    /// Rows that are not as they stood in the file.
    pub fn any(&self) -> bool {
        *self != Truncated::default()
    }
}

/// Cuts rows to a number of tokens.
#[derive(Debug, Clone, Copy)]
pub struct Cutter {
    /// Most tokens of a row.
    limit: usize,
    policy: Truncate,
    bos: Option<u32>,
}

impl Cutter {
    /// Rows of at most `context` inputs: a row has one token more, which is a target alone.
    pub fn new(context: usize, policy: Truncate, bos: Option<u32>) -> Cutter {
        Cutter { limit: context.saturating_add(1), policy, bos }
    }

    /// The rows of one lesson, cut alike; none where they are left out.
    pub fn fit<const N: usize>(&self, rows: [Tokens; N], counts: &mut Truncated) -> Option<[Tokens; N]> {
        if rows.iter().all(|row| row.ids.len() <= self.limit) {
            return Some(rows);
        }
        if self.policy == Truncate::Drop {
            counts.dropped += 1;
            return None;
        }
        let mut cut = rows.clone();
        if self.policy == Truncate::PromptLeft {
            let longest = rows.iter().map(|row| row.ids.len() - row.prompt()).max().unwrap_or(0);
            // A prompt of no token would leave the opening one of the answer without a loss.
            let room = self.limit.saturating_sub(longest).max(1);
            for row in &mut cut {
                self.cut_prompt(row, room);
            }
        }
        let prompts_cut = cut != rows;
        let ends_cut = cut.iter().any(|row| row.ids.len() > self.limit);
        for row in &mut cut {
            row.ids.truncate(self.limit);
            row.trained.truncate(self.limit);
        }
        // Two answers that differ behind the cut only say nothing any more.
        let alike = N > 1 && cut.iter().all(|row| *row == cut[0]);
        if alike || !cut.iter().all(Tokens::has_target) {
            counts.dropped += 1;
            return None;
        }
        counts.end += u64::from(ends_cut);
        counts.prompt += u64::from(prompts_cut);
        Some(cut)
    }

    /// The prompt of a question with room for `room` more tokens; none where it is left out.
    pub fn fit_prompt(&self, mut ids: Vec<u32>, counts: &mut Truncated) -> Option<Vec<u32>> {
        let limit = self.limit - 1;
        if ids.len() <= limit {
            return Some(ids);
        }
        if self.policy != Truncate::PromptLeft {
            counts.dropped += 1;
            return None;
        }
        counts.prompt += 1;
        self.drop_left(&mut ids, limit);
        Some(ids)
    }

    fn cut_prompt(&self, row: &mut Tokens, room: usize) {
        let prompt = row.prompt();
        if prompt <= room {
            return;
        }
        let answer_ids = row.ids.split_off(prompt);
        let answer_trained = row.trained.split_off(prompt);
        self.drop_left(&mut row.ids, room);
        row.trained = vec![false; row.ids.len()];
        row.ids.extend(answer_ids);
        row.trained.extend(answer_trained);
    }

    /// The last `room` tokens, behind the beginning-of-text token where there was one and more than it fits.
    fn drop_left(&self, ids: &mut Vec<u32>, room: usize) {
        let opens = ids.first().copied().filter(|id| Some(*id) == self.bos && room > 1);
        let kept = room - usize::from(opens.is_some());
        ids.drain(..ids.len().saturating_sub(kept));
        if let Some(opens) = opens {
            ids.insert(0, opens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(prompt: &[u32], answer: &[u32]) -> Tokens {
        let trained = prompt.iter().map(|_| false).chain(answer.iter().map(|_| true)).collect();
        Tokens { ids: [prompt, answer].concat(), trained }
    }

    fn fit(context: usize, policy: Truncate, row: Tokens) -> (Option<Tokens>, Truncated) {
        let mut counts = Truncated::default();
        let fitted = Cutter::new(context, policy, Some(1)).fit([row], &mut counts);
        (fitted.map(|[row]| row), counts)
    }

    #[test]
    fn a_row_loses_its_end_or_the_left_of_its_prompt_and_is_counted() {
        let row = tokens(&[1, 5, 6, 7], &[8, 9]);
        assert_eq!(fit(5, Truncate::End, row.clone()), (Some(row.clone()), Truncated::default()));
        let end = Truncated { end: 1, ..Truncated::default() };
        assert_eq!(fit(4, Truncate::End, row.clone()), (Some(tokens(&[1, 5, 6, 7], &[8])), end));
        let dropped = Truncated { dropped: 1, ..Truncated::default() };
        assert_eq!(fit(3, Truncate::End, row.clone()), (None, dropped));
        assert_eq!(fit(4, Truncate::Drop, row.clone()), (None, dropped));
        let prompt = Truncated { prompt: 1, ..Truncated::default() };
        assert_eq!(fit(3, Truncate::PromptLeft, row.clone()), (Some(tokens(&[1, 7], &[8, 9])), prompt));
        assert_eq!(fit(2, Truncate::PromptLeft, row.clone()), (Some(tokens(&[7], &[8, 9])), prompt));
        let both = Truncated { prompt: 1, end: 1, dropped: 0 };
        assert_eq!(fit(1, Truncate::PromptLeft, row), (Some(tokens(&[7], &[8])), both));
    }

    #[test]
    fn the_prompts_of_a_pair_are_cut_alike() {
        let cutter = Cutter::new(5, Truncate::PromptLeft, None);
        let mut counts = Truncated::default();
        let pair = [tokens(&[2, 3, 4, 5], &[8, 9, 10]), tokens(&[2, 3, 4, 5], &[7])];
        let [chosen, rejected] = cutter.fit(pair, &mut counts).unwrap();
        assert_eq!((chosen, rejected), (tokens(&[3, 4, 5], &[8, 9, 10]), tokens(&[3, 4, 5], &[7])));
        assert_eq!(counts, Truncated { prompt: 1, end: 0, dropped: 0 });
        // What differs behind the cut alone is no pair any more.
        let pair = [tokens(&[2], &[8, 9, 10, 11, 12, 13]), tokens(&[2], &[8, 9, 10, 11, 12, 14])];
        assert_eq!(cutter.fit(pair, &mut counts), None);
        assert_eq!(counts.dropped, 1);
    }

    #[test]
    fn a_prompt_alone_keeps_its_end() {
        let mut counts = Truncated::default();
        let cutter = Cutter::new(3, Truncate::PromptLeft, Some(1));
        assert_eq!(cutter.fit_prompt(vec![1, 5, 6, 7, 8], &mut counts), Some(vec![1, 7, 8]));
        assert_eq!(cutter.fit_prompt(vec![1, 5, 6], &mut counts), Some(vec![1, 5, 6]));
        assert_eq!(Cutter::new(3, Truncate::Drop, None).fit_prompt(vec![1, 5, 6, 7], &mut counts), None);
        assert_eq!(counts, Truncated { end: 0, prompt: 1, dropped: 1 });
    }
}
