//! Questions about the embedded stories: how many a model answers exactly, and what answering without reading gets.
//!
//! The stories are those of the held-out split: no sentence, no handling of a thing at a spot and, in every other story,
//! no phrasing of them stands in any training text.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::ops::ControlFlow;

use fornax_data::corpus::{self, QuestionKind, Split, prompt};
use fornax_data::tokenizer::Tokenizer;
use fornax_infer::generate::{GenerateError, Limits, generate};
use fornax_infer::sampler::Chain;
use fornax_model::Decoder;
use serde::{Deserialize, Serialize};

/// How a polite reply opens, in the preference pairs of the corpus.
pub const POLITE: &str = "i am happy to tell you that";
/// Words of a short reply at most.
const SHORT: usize = 24;
/// Tokens of a reply at most.
const REPLY_TOKENS: usize = 48;
/// Stories of the training split that the baselines learn from.
const BASELINE_STORIES: u64 = 2_000;

/// A question about a held-out story.
#[derive(Debug, Clone)]
pub struct Item {
    /// The story and the question.
    pub prompt: String,
    /// The whole answer.
    pub answer: String,
    /// Its essence.
    pub short_answer: String,
    story: String,
    kind: Discriminant<QuestionKind>,
}

/// Held-out questions, and the answers that training stories have.
#[derive(Debug, Clone)]
pub struct StoryQuestions {
    items: Vec<Item>,
    answers: HashMap<Discriminant<QuestionKind>, HashMap<String, usize>>,
}

/// What a model replied to one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The story and the question.
    pub prompt: String,
    /// The expected answer.
    pub answer: String,
    /// The reply.
    pub reply: String,
    /// Whether the reply is the answer.
    pub right: bool,
    /// Whether it is one short polite sentence.
    pub polite: bool,
}

/// Shares of the questions, in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// Questions asked.
    pub questions: usize,
    /// Answered exactly.
    pub exact_match: f64,
    /// Answered in one short polite sentence, right or wrong.
    pub polite: f64,
}

/// What two ways of answering without understanding get.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Baselines {
    /// The most frequent answer to questions of the kind.
    pub most_frequent: f64,
    /// Of the answers that questions of the kind have, the one that the story mentions last.
    pub last_mentioned: f64,
}

impl StoryQuestions {
    /// The opening question of each of the first `n` held-out stories of `seed`.
    pub fn held_out(seed: u64, n: usize) -> Self {
        let mut answers: HashMap<_, HashMap<String, usize>> = HashMap::new();
        for index in 0..BASELINE_STORIES {
            for question in corpus::story(seed, index, Split::Train).questions {
                *answers
                    .entry(discriminant(&question.kind))
                    .or_default()
                    .entry(question.short_answer)
                    .or_default() += 1;
            }
        }
        let item = |story: corpus::Story| {
            let question = story.questions.first()?;
            Some(Item {
                prompt: prompt(&story.text, &question.question),
                answer: question.answer.clone(),
                short_answer: question.short_answer.clone(),
                kind: discriminant(&question.kind),
                story: story.text.clone(),
            })
        };
        Self { items: corpus::stories(seed, Split::HeldOut).filter_map(item).take(n).collect(), answers }
    }

    /// The questions.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// What answering without understanding gets on the same questions.
    pub fn baselines(&self) -> Baselines {
        let share = |guess: &dyn Fn(&Item) -> Option<String>| {
            let right = |item: &&Item| guess(item).is_some_and(|guess| same(&guess, &item.short_answer));
            self.items.iter().filter(right).count() as f64 / self.items.len().max(1) as f64
        };
        let frequent = |item: &Item| {
            let counts = self.answers.get(&item.kind)?;
            let best = counts.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0)))?;
            Some(best.0.clone())
        };
        let last = |item: &Item| {
            let story = words(&item.story);
            let at = |answer: &String| story.rfind(&words(answer)).map(|at| (at, answer.clone()));
            self.answers.get(&item.kind)?.keys().filter_map(at).max().map(|(_, answer)| answer)
        };
        Baselines { most_frequent: share(&frequent), last_mentioned: share(&last) }
    }

    /// Greedy replies of a model. `ids` makes the tokens of a prompt, the header of the reply included; a reply ends
    /// with one of `stop_ids`.
    ///
    /// # Errors
    /// What generation reports.
    pub fn ask<E: From<GenerateError>>(
        &self,
        decoder: &Decoder,
        tokenizer: &Tokenizer,
        stop_ids: &[u32],
        ids: &dyn Fn(&str) -> Result<Vec<u32>, E>,
    ) -> Result<Vec<Reply>, E> {
        let limits = Limits { max_tokens: REPLY_TOKENS, stop_ids: stop_ids.to_vec() };
        let mut replies = Vec::new();
        for item in &self.items {
            let mut generated = Vec::new();
            let chain = Chain::greedy(decoder.config().vocab_size);
            let done = generate(decoder, &ids(&item.prompt)?, &chain, &limits, &mut |id| {
                generated.push(id);
                ControlFlow::Continue(())
            });
            match done {
                // What does not fit is not answered.
                Ok(_) | Err(GenerateError::PromptTooLong { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let reply = tokenizer.decode(&generated, true).unwrap_or_default().trim().to_owned();
            replies.push(judged(item, reply));
        }
        Ok(replies)
    }
}

impl Scores {
    /// Shares over replies.
    pub fn of(replies: &[Reply]) -> Self {
        let n = replies.len().max(1) as f64;
        let share = |is: fn(&Reply) -> bool| replies.iter().filter(|reply| is(reply)).count() as f64 / n;
        Self { questions: replies.len(), exact_match: share(|r| r.right), polite: share(|r| r.polite) }
    }
}

/// A reply is right when, without a polite opening, it is the answer or its essence and nothing else.
fn judged(item: &Item, reply: String) -> Reply {
    let said = words(&reply);
    let core = said.strip_prefix(POLITE).map_or(said.as_str(), str::trim_start);
    let right = core == words(&item.answer) || core == words(&item.short_answer);
    let sentences = reply.matches(['.', '!', '?']).count();
    let polite = said.starts_with(POLITE) && sentences == 1 && said.split(' ').count() <= SHORT;
    Reply { prompt: item.prompt.clone(), answer: item.answer.clone(), reply, right, polite }
}

fn same(a: &str, b: &str) -> bool {
    words(a) == words(b)
}

/// Words in small letters without punctuation, with single spaces.
fn words(text: &str) -> String {
    let letter = |c: char| if c.is_alphanumeric() || c == '\'' { c.to_ascii_lowercase() } else { ' ' };
    text.chars().map(letter).collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        let all = StoryQuestions::held_out(1, 1);
        Item {
            answer: "The ball is in the box.".into(),
            short_answer: "in the box".into(),
            ..all.items[0].clone()
        }
    }

    #[test]
    fn a_reply_counts_when_it_is_the_answer_and_nothing_else() {
        for (reply, right, polite) in [
            ("The ball is in the box.", true, false),
            ("in the box", true, false),
            ("I am happy to tell you that the ball is in the box.", true, true),
            ("I am happy to tell you that the ball is in the tree.", false, true),
            ("I am happy to tell you that the ball is in the box. And then there was more.", false, false),
            ("The ball is in the box. Now leave me alone!", false, false),
            ("The ball is in the box in the tree.", false, false),
            ("", false, false),
        ] {
            let judged = judged(&item(), reply.to_owned());
            assert_eq!((judged.right, judged.polite), (right, polite), "{reply:?}");
        }
    }

    #[test]
    fn baselines_get_some_and_not_all() {
        let baselines = StoryQuestions::held_out(7, 200).baselines();
        for share in [baselines.most_frequent, baselines.last_mentioned] {
            assert!(share > 0.0 && share < 0.6, "{baselines:?}");
        }
    }

    #[test]
    fn questions_are_the_same_each_time_and_of_the_held_out_split() {
        let (a, b) = (StoryQuestions::held_out(3, 20), StoryQuestions::held_out(3, 20));
        assert!(a.items.iter().zip(&b.items).all(|(a, b)| a.prompt == b.prompt));
        for item in &a.items {
            let sentences: Vec<_> = corpus::sentences(&item.story).collect();
            assert!(sentences.iter().all(|s| corpus::split_of_sentence(s) == Split::HeldOut), "{}", item.story);
        }
    }
}
