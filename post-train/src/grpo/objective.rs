//! Rewards as something a run learns from.

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::rng::rng;
use fornax_data::batches::{Batch, Cursor};
use fornax_data::examples::{Example, Prompt};
use fornax_data::tokenizer::Tokenizer;
use fornax_infer::completions::Completion;
use fornax_infer::generate::Finish;
use fornax_infer::sampler::SamplingOptions;
use fornax_model::Decoder;
use fornax_model::ops::TokenScores;
use fornax_train::TrainError;
use fornax_train::objective::{Evaluation, LossTerm, Metric, Metrics, Objective, Ready};

use super::advantages::{deviation, mean};
use super::{GrpoError, GrpoRecipe, LossType, PolicyTokens, advantages};
use crate::logps::{hidden_at, last_hidden, targets_at};
use crate::order::draw;
use crate::pairs::padded;
use crate::reference::Reference;
use crate::rewards::{Rewards, Verdict};
use crate::rollout::{Sampling, roll_out};

/// Group relative policy optimization over prompts.
pub struct Grpo {
    parts: GrpoParts,
    /// The completions of the present step.
    window: Option<Window>,
}

/// What the objective is made of.
pub struct GrpoParts {
    /// `[grpo]`, checked.
    pub recipe: GrpoRecipe,
    /// Its rewards.
    pub rewards: Rewards,
    /// Turns completions into text.
    pub tokenizer: Arc<Tokenizer>,
    /// Prompts trained on.
    pub train: Vec<Prompt>,
    /// Prompts measured on.
    pub held_out: Vec<Prompt>,
    /// The model before training; needed where `beta` is not 0.
    pub reference: Option<Reference>,
    /// Tokens of prompt and completion together at most.
    pub context: usize,
    /// Ids that end a completion.
    pub stop_ids: Vec<u32>,
    /// Completions of one micro-batch.
    pub rows: usize,
    /// Micro-batches of one step.
    pub micro_batches: usize,
    /// Seed of the run.
    pub seed: u64,
}

/// Completions that one or several steps learn from.
struct Window {
    /// The step they were drawn in.
    step: u64,
    micro_batches: Vec<MicroBatch>,
    metrics: Metrics,
    tokens: u64,
}

/// Completions with their prompts, a row each, and the numbers of their tokens in the order of the rows.
struct MicroBatch {
    batch: Batch,
    /// Places in the batch of the targets that are learned from.
    places: Vec<usize>,
    advantages: Vec<f32>,
    weights: Vec<f32>,
    /// Log-probabilities as sampling computed them, before temperature.
    sampled: Vec<f32>,
    old: Option<Vec<f32>>,
    reference: Option<Vec<f32>>,
    /// Its share of the weight of the step.
    weight: f64,
}

/// A completion, judged.
struct Judged {
    example: Example,
    advantage: f64,
    /// Whether it is learned from.
    counts: bool,
    /// Of each token of the completion, as sampling computed them.
    log_probs: Vec<f32>,
}

impl Judged {
    /// Tokens of the completion.
    fn length(&self) -> usize {
        self.log_probs.len()
    }
}

impl Grpo {
    /// An objective whose every prompt fits and has what the rewards compare with.
    ///
    /// # Errors
    /// [`GrpoError`] for the leading row that has not.
    ///
    /// # Panics
    /// When `beta` is not 0 and there is no reference.
    pub fn new(parts: GrpoParts, decoder: &Decoder) -> Result<Self, GrpoError> {
        let GrpoParts { recipe, rewards, train, held_out, .. } = &parts;
        assert!(recipe.beta == 0.0 || parts.reference.is_some(), "beta {} wants a reference", recipe.beta);
        if train.is_empty() {
            return Err(GrpoError::NoPrompts);
        }
        if let Some(cap) = decoder.config().logit_softcap.filter(|_| recipe.temperature != 1.0) {
            return Err(GrpoError::CapAndTemperature { temperature: recipe.temperature, cap });
        }
        let context = parts.context.min(decoder.config().context);
        for prompt in train.iter().chain(held_out) {
            let tokens = prompt.ids.len();
            if tokens >= context || tokens == 0 {
                return Err(GrpoError::Prompt { row: prompt.row, tokens, context });
            }
        }
        rewards.check(train)?;
        rewards.check(held_out)?;
        Ok(Self { parts, window: None })
    }

    fn sampling(&self, options: SamplingOptions) -> Sampling {
        Sampling {
            options,
            max_tokens: self.parts.recipe.max_completion_length,
            context: self.parts.context,
            stop_ids: self.parts.stop_ids.clone(),
        }
    }

    /// Completions of prompts, each with the verdict of every reward; those of a prompt follow one another.
    fn answer(
        &self,
        plain: &Decoder,
        prompts: &[&Prompt],
        samples: usize,
        options: SamplingOptions,
        seed: &dyn Fn(usize, usize) -> u64,
    ) -> Result<Vec<(Completion, Vec<Verdict>)>, TrainError> {
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let completions =
            roll_out(plain, &ids, samples, &self.sampling(options), seed).map_err(GrpoError::from)?.concat();
        let texts: Vec<String> = completions
            .iter()
            .map(|completion| Ok(self.parts.tokenizer.decode(completion.text_ids(), true)?))
            .collect::<Result<_, TrainError>>()?;
        let answers: Vec<(&Prompt, &str)> =
            texts.iter().enumerate().map(|(i, text)| (prompts[i / samples], text.as_str())).collect();
        let verdicts = self.parts.rewards.score(&answers).map_err(GrpoError::from)?;
        Ok(completions.into_iter().zip(verdicts).collect())
    }

    /// Samples, judges and cuts into micro-batches.
    fn sample(&self, decoder: &Decoder, step: u64, cursor: Cursor) -> Result<(Window, Cursor), TrainError> {
        let GrpoParts { recipe, rows, micro_batches, seed, train, .. } = &self.parts;
        let plain = decoder.clone().trainable(false);
        let group = recipe.num_generations;
        let (chosen, after) = draw(train.len(), rows * micro_batches / group, cursor, *seed);
        let prompts: Vec<&Prompt> = chosen.iter().map(|&row| &train[row]).collect();
        let draw_seed = |place, sample| rng(*seed, step, &format!("grpo/{place}/{sample}")).next_u64();
        let answers = self.answer(&plain, &prompts, group, recipe.sampler(), &draw_seed)?;
        let totals: Vec<f64> = answers.iter().map(|(_, verdicts)| self.parts.rewards.total(verdicts)).collect();
        let found = advantages(&totals, group, recipe.scale_rewards);
        let mut metrics = self.reported(&answers, &totals);
        metrics.insert("frac_reward_zero_std".into(), found.zero_std);
        let judge = |(i, advantage): (usize, f64)| {
            let completion = &answers[i].0;
            let prompt = &prompts[i / group].ids;
            let cut_off = completion.finish != Finish::Stop;
            Judged {
                example: Example {
                    ids: [prompt.as_slice(), &completion.ids].concat(),
                    trained: [vec![false; prompt.len()], vec![true; completion.ids.len()]].concat(),
                    row: prompts[i / group].row,
                },
                advantage,
                counts: !(cut_off && recipe.mask_truncated_completions),
                log_probs: completion.log_probs.clone(),
            }
        };
        let judged: Vec<Judged> = found.values.into_iter().enumerate().map(judge).collect();
        let tokens = judged.iter().map(|judged| judged.example.ids.len() as u64).sum();
        let micro_batches = self.cut(&plain, &judged)?;
        Ok((Window { step, micro_batches, metrics, tokens }, after))
    }

    fn cut(&self, plain: &Decoder, judged: &[Judged]) -> Result<Vec<MicroBatch>, TrainError> {
        let recipe = &self.parts.recipe;
        let weight = match recipe.loss_type {
            LossType::Dapo => judged.iter().map(Judged::length).sum(),
            LossType::Grpo => judged.len(),
            LossType::DrGrpo => judged.len() * recipe.max_completion_length,
        };
        let mut all: Vec<MicroBatch> =
            judged.chunks(self.parts.rows).map(|rows| MicroBatch::new(rows, recipe.loss_type)).collect();
        // Those without a token are passed over; what the step is divided by stays that of all.
        all.retain(|micro_batch| !micro_batch.places.is_empty());
        let n = all.len() as f64;
        for micro_batch in &mut all {
            micro_batch.weight = weight as f64 / n;
            if recipe.num_iterations > 1 {
                micro_batch.old = Some(self.logps(plain, micro_batch)?);
            }
            if let Some(reference) = self.parts.reference.as_ref().filter(|_| recipe.beta != 0.0) {
                micro_batch.reference = Some(self.logps(&reference.model(plain), micro_batch)?);
            }
        }
        Ok(all)
    }

    fn scores(&self, model: &Decoder, micro_batch: &MicroBatch) -> TokenScores {
        let batch = &micro_batch.batch;
        let mut hidden_nc = hidden_at(last_hidden(model, batch), &micro_batch.places);
        let temperature = self.parts.recipe.temperature;
        if temperature != 1.0 {
            // The logits are linear in it.
            hidden_nc = hidden_nc / temperature;
        }
        model.token_scores(hidden_nc, targets_at(batch, &micro_batch.places, &model.device()))
    }

    fn logps(&self, plain: &Decoder, micro_batch: &MicroBatch) -> Result<Vec<f32>, TrainError> {
        let logps_n = -self.scores(plain, micro_batch).nll_n;
        logps_n.without_autodiff().try_into_vec_as::<f32>().map_err(TrainError::device)
    }

    /// What is known of a step's completions before its loss.
    fn reported(&self, answers: &[(Completion, Vec<Verdict>)], totals: &[f64]) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.insert("reward".into(), mean(totals));
        metrics.insert("reward_std".into(), deviation(totals));
        for (i, reward) in self.parts.rewards.all().iter().enumerate() {
            let values: Vec<f64> = answers.iter().map(|(_, verdicts)| verdicts[i].value).collect();
            metrics.insert(format!("rewards/{}/mean", reward.name()), mean(&values));
            metrics.insert(format!("rewards/{}/std", reward.name()), deviation(&values));
            let gave_up = answers.iter().filter(|(_, verdicts)| verdicts[i].gave_up).count();
            if gave_up > 0 {
                let share = gave_up as f64 / answers.len() as f64;
                metrics.insert(format!("rewards/{}/gave_up", reward.name()), share);
            }
        }
        let length = |completion: &Completion| completion.ids.len() as f64;
        let lengths: Vec<f64> = answers.iter().map(|(completion, _)| length(completion)).collect();
        let ended = answers.iter().map(|(completion, _)| completion).filter(|c| c.finish == Finish::Stop);
        let ended: Vec<f64> = ended.map(length).collect();
        for (name, lengths) in [("length", &lengths), ("terminated_length", &ended)] {
            let least = lengths.iter().copied().reduce(f64::min).unwrap_or(0.0);
            let most = lengths.iter().copied().reduce(f64::max).unwrap_or(0.0);
            metrics.insert(format!("completions/mean_{name}"), mean(lengths));
            metrics.insert(format!("completions/min_{name}"), least);
            metrics.insert(format!("completions/max_{name}"), most);
        }
        let cut_off = 1.0 - ended.len() as f64 / lengths.len().max(1) as f64;
        metrics.insert("completions/clipped_ratio".into(), cut_off);
        metrics
    }

    /// Whether every reward that counts for a completion is whole.
    fn passes(&self, verdicts: &[Verdict]) -> bool {
        let mut wanted = self.parts.rewards.all().iter().zip(verdicts).filter(|(reward, _)| reward.weight() > 0.0);
        wanted.all(|(_, verdict)| verdict.value >= 1.0)
    }
}

impl Objective for Grpo {
    fn prepare(&mut self, decoder: &Decoder, step: u64, cursor: Cursor) -> Result<Ready, TrainError> {
        let began = step - step % self.parts.recipe.num_iterations;
        let mut after = cursor;
        let window = match self.window.take().filter(|window| window.step == began && began < step) {
            Some(window) => window,
            None => {
                let (mut window, next) = self.sample(decoder, step, cursor)?;
                window.step = began;
                after = next;
                window
            }
        };
        let Window { micro_batches, tokens, metrics, .. } = self.window.insert(window);
        Ok(Ready { micro_batches: micro_batches.len(), cursor: after, tokens: *tokens, metrics: metrics.clone() })
    }

    fn term(&self, decoder: &Decoder, micro_batch: usize) -> Result<LossTerm, TrainError> {
        let ready = self.window.as_ref().map(|window| &window.micro_batches[micro_batch]);
        let ready = ready.expect("the loop prepares a step before it asks for its terms");
        let scores = self.scores(decoder, ready);
        let tokens = ready.tokens(&decoder.device());
        let logps_n = -scores.nll_n;
        let recipe = &self.parts.recipe;
        let policy = recipe.policy_loss(logps_n.clone(), &tokens);
        let n = ready.places.len() as f64;
        let metric = |name, sum: Tensor<1>| Metric { name, sum: sum.without_autodiff(), weight: n };
        let mut metrics = vec![
            metric("entropy", scores.entropy_n.sum()),
            metric("clip_ratio/low_mean", policy.low.clone()),
            metric("clip_ratio/high_mean", policy.high.clone()),
            metric("clip_ratio/region_mean", policy.low + policy.high),
        ];
        if recipe.temperature == 1.0 && recipe.num_iterations == 1 {
            let sampled_n = Tensor::from_data(ready.sampled.as_slice(), &decoder.device());
            let apart = (logps_n - sampled_n).abs().sum();
            metrics.push(metric("sampling/sampling_logp_difference/mean", apart));
        }
        metrics.extend(policy.kl_sum.map(|sum| metric("kl", sum)));
        Ok(LossTerm { metrics, ..LossTerm::new(policy.loss_sum, ready.weight) })
    }

    /// The greedy answer to every held-out prompt: the loss is the mean reward below zero, so that the best is least.
    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError> {
        let GrpoParts { held_out, recipe, seed, .. } = &self.parts;
        if held_out.is_empty() {
            return Ok(None);
        }
        let prompts: Vec<&Prompt> = held_out.iter().collect();
        let answers = self.answer(plain, &prompts, 1, SamplingOptions::greedy(), &|_, _| 0)?;
        let totals: Vec<f64> = answers.iter().map(|(_, verdicts)| self.parts.rewards.total(verdicts)).collect();
        let mut metrics = self.reported(&answers, &totals);
        let share = |passed: usize| passed as f64 / prompts.len() as f64;
        let passed = answers.iter().filter(|(_, verdicts)| self.passes(verdicts)).count();
        metrics.insert("pass@1".into(), share(passed));
        if recipe.eval_samples > 0 {
            let k = recipe.eval_samples;
            let draw_seed = |place, sample| rng(*seed, 0, &format!("grpo/pass/{place}/{sample}")).next_u64();
            let answers = self.answer(plain, &prompts, k, recipe.sampler(), &draw_seed)?;
            let any = |answers: &&[(Completion, Vec<Verdict>)]| answers.iter().any(|(_, v)| self.passes(v));
            metrics.insert(format!("pass@{k}/sampled"), share(answers.chunks(k).filter(any).count()));
        }
        let weight = prompts.len() as u64;
        Ok(Some(Evaluation { loss: -mean(&totals), bits_per_byte: None, weight, metrics }))
    }
}

impl MicroBatch {
    fn new(rows: &[Judged], loss_type: LossType) -> MicroBatch {
        let examples: Vec<&Example> = rows.iter().map(|row| &row.example).collect();
        let (batch, _) = padded(&examples);
        let (mut places, mut advantages) = (Vec::new(), Vec::new());
        let (mut weights, mut sampled) = (Vec::new(), Vec::new());
        for (r, row) in rows.iter().enumerate().filter(|(_, row)| row.counts) {
            let cells = r * batch.columns..(r + 1) * batch.columns;
            places.extend(cells.filter(|&place| batch.mask[place]));
            let weight = match loss_type {
                LossType::Grpo => 1.0 / row.length() as f32,
                LossType::Dapo | LossType::DrGrpo => 1.0,
            };
            advantages.resize(places.len(), row.advantage as f32);
            weights.resize(places.len(), weight);
            sampled.extend_from_slice(&row.log_probs);
        }
        MicroBatch { batch, places, advantages, weights, sampled, old: None, reference: None, weight: 0.0 }
    }

    fn tokens(&self, device: &Device) -> PolicyTokens {
        let tensor = |values: &Vec<f32>| -> Tensor<1> {
            Tensor::from_data(TensorData::new(values.clone(), [values.len()]), (device, DType::F32))
        };
        PolicyTokens {
            advantages_n: tensor(&self.advantages),
            weights_n: tensor(&self.weights),
            old_n: self.old.as_ref().map(tensor),
            reference_n: self.reference.as_ref().map(tensor),
        }
    }
}
