//! Distillation: a small model learns the distributions of a large one (generalized knowledge distillation, Agarwal et
//! al. 2023, arXiv:2306.13649). It makes draft models for speculative decoding, too.

use burn::tensor::{DType, Tensor, TensorData};
use fornax_base::exit::Exit;
use fornax_base::rng::rng;
use fornax_data::batches::{Batch, Cursor};
use fornax_data::examples::Example;
use fornax_data::tokenizer::Tokenizer;
use fornax_infer::sampler::SamplingOptions;
use fornax_model::Decoder;
use fornax_model::packed::{PackedError, Packing};
use fornax_train::TrainError;
use fornax_train::objective::{Evaluation, LossTerm, Metric, Metrics, Objective, Ready};
use fornax_train::recipe::{RecipeCheckError, no_effect, number, within};
use fornax_train::step::Reported;
use serde::{Deserialize, Serialize};

use crate::logps::{hidden_at, last_hidden, targets_at, trained_places};
use crate::order::draw;
use crate::pairs::padded;
use crate::recipe::packing_of;
use crate::rollout::{RolloutError, Sampling, roll_out};

/// `[distill]`: whom a model learns from, and how. Names are TRL's, defaults those of its GKD where not said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillRecipe {
    /// The model to learn from: a model folder, a run folder, or a model of the hub (`hf:owner/name`). It must have the
    /// vocabulary of the model that learns.
    pub teacher: String,
    /// Pack the linear layers of the teacher to `int8`, `int4` or `nf4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<String>,
    /// Weights that share a scale in a packed teacher; default 32, 64 for `nf4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// Which divergence: 0 is KL(teacher, student), 1 is KL(student, teacher), and between them the generalized
    /// Jensen-Shannon divergence.
    #[serde(default = "default_beta")]
    pub beta: f64,
    /// Both logits are divided by it; the divergence is not multiplied by its square.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
    /// Share of the divergence in the loss; the rest is the cross-entropy of the row's own tokens (torchtune's
    /// `kd_ratio`). Default 1: the divergence alone.
    #[serde(default = "default_kd_ratio")]
    pub kd_ratio: f64,
    /// Share of the steps whose completions the student writes itself; TRL's default is 0.5, here 0: the rows' own.
    #[serde(default)]
    pub lmbda: f64,
    /// Tokens of such a completion at most; default 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
}

impl DistillRecipe {
    /// A recipe with the defaults.
    pub fn new(teacher: &str) -> Self {
        Self {
            teacher: teacher.to_owned(),
            packed: None,
            block: None,
            beta: default_beta(),
            temperature: default_temperature(),
            kd_ratio: default_kd_ratio(),
            lmbda: 0.0,
            max_new_tokens: None,
        }
    }

    /// How the teacher is packed, where it is.
    ///
    /// # Errors
    /// For an unknown word and for a block that cannot be.
    pub fn packing(&self) -> Result<Option<Packing>, PackedError> {
        packing_of(self.packed.as_deref(), self.block)
    }

    /// `max_new_tokens` or its default.
    pub fn max_new_tokens(&self) -> usize {
        self.max_new_tokens.unwrap_or(128)
    }

    /// Checks every key.
    ///
    /// # Errors
    /// The fault met, with both numbers.
    pub fn check(&self) -> Result<(), RecipeCheckError> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let words = "a number from 0 to 1";
        if self.teacher.is_empty() {
            return Err(RecipeCheckError::Missing {
                key: "distill.teacher",
                because: "someone must be learned from",
            });
        }
        no_effect(
            "distill.block",
            self.block.is_some() && self.packed.is_none(),
            "`distill.packed` is not given",
        )?;
        number("distill.beta", self.beta, words, share)?;
        number("distill.temperature", self.temperature, "a number above 0, at most 100", |x| {
            x > 0.0 && x <= 100.0
        })?;
        number("distill.kd_ratio", self.kd_ratio, "a number above 0, at most 1", |x| x > 0.0 && x <= 1.0)?;
        number("distill.lmbda", self.lmbda, words, share)?;
        no_effect(
            "distill.max_new_tokens",
            self.max_new_tokens.is_some() && self.lmbda == 0.0,
            "`distill.lmbda` is 0, so the student writes nothing",
        )?;
        within("distill.max_new_tokens", self.max_new_tokens(), 1..=1 << 24)
    }
}

fn default_beta() -> f64 {
    0.5
}

fn default_temperature() -> f64 {
    0.9
}

fn default_kd_ratio() -> f64 {
    1.0
}

/// Why a model cannot be learned from; becomes a [`TrainError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DistillError {
    /// There is nothing to learn on.
    #[error("there are 0 rows to train on")]
    NoRows,
    /// Distributions over other tokens cannot be compared.
    #[error("the student has a vocabulary of {student} tokens, the teacher `{teacher_name}` one of {teacher}")]
    Vocabulary {
        /// As the recipe names it.
        teacher_name: String,
        /// Size of the student's.
        student: usize,
        /// Size of the teacher's.
        teacher: usize,
    },
    /// The same id means different tokens.
    #[error("token {id} is `{student}` to the student, but `{teacher}` to the teacher `{teacher_name}`")]
    Token {
        /// As the recipe names it.
        teacher_name: String,
        /// The lowest such id.
        id: u32,
        /// The student's token.
        student: String,
        /// The teacher's token.
        teacher: String,
    },
    /// Rows longer than the teacher can read.
    #[error("`train.context` ({context}) is longer than the context of the teacher `{teacher_name}` ({limit})")]
    Context {
        /// As the recipe names it.
        teacher_name: String,
        /// Tokens in a row.
        context: usize,
        /// `max_position_embeddings` of the teacher.
        limit: usize,
    },
    /// The student could not write.
    #[error("completions could not be sampled")]
    Rollout(#[from] RolloutError),
}

impl From<DistillError> for TrainError {
    fn from(error: DistillError) -> Self {
        let hint = match &error {
            DistillError::Vocabulary { .. } | DistillError::Token { .. } => Some(
                "student and teacher must come from one tokenizer: begin the student with the teacher's".into(),
            ),
            _ => None,
        };
        let exit = if matches!(error, DistillError::Rollout(_)) { Exit::Failed } else { Exit::BadInput };
        TrainError::Objective { exit, hint, inner: Box::new(error) }
    }
}

/// Distillation over rows.
pub struct Distill {
    parts: DistillParts,
    ready: Vec<Batch>,
}

/// What the objective is made of.
pub struct DistillParts {
    /// `[distill]`, checked.
    pub recipe: DistillRecipe,
    /// The model learned from, off the autodiff device.
    pub teacher: Decoder,
    /// Rows trained on.
    pub train: Vec<Example>,
    /// Rows measured on.
    pub held_out: Vec<Example>,
    /// Tokens of a row at most.
    pub context: usize,
    /// Ids that end a completion.
    pub stop_ids: Vec<u32>,
    /// Rows of one micro-batch.
    pub rows: usize,
    /// Micro-batches of one step.
    pub micro_batches: usize,
    /// Seed of the run.
    pub seed: u64,
}

impl Distill {
    /// An objective whose two models have one vocabulary; `tokenizers` are the student's and the teacher's.
    ///
    /// # Errors
    /// [`DistillError`], with both numbers.
    pub fn new(
        parts: DistillParts,
        student: &Decoder,
        tokenizers: (&Tokenizer, &Tokenizer),
    ) -> Result<Self, DistillError> {
        let teacher_name = parts.recipe.teacher.clone();
        let (mine, its) = (student.config().vocab_size, parts.teacher.config().vocab_size);
        if mine != its {
            return Err(DistillError::Vocabulary { teacher_name, student: mine, teacher: its });
        }
        let n = tokenizers.0.vocab_size().max(tokenizers.1.vocab_size());
        let name = |token: Option<String>| token.unwrap_or_else(|| "no token".into());
        let differs = (0..n as u32).find(|&id| tokenizers.0.token(id) != tokenizers.1.token(id));
        if let Some(id) = differs {
            let (student, teacher) = (name(tokenizers.0.token(id)), name(tokenizers.1.token(id)));
            return Err(DistillError::Token { teacher_name, id, student, teacher });
        }
        let limit = parts.teacher.config().context;
        if parts.context > limit {
            return Err(DistillError::Context { teacher_name, context: parts.context, limit });
        }
        if parts.train.is_empty() {
            return Err(DistillError::NoRows);
        }
        Ok(Self { parts, ready: Vec::new() })
    }

    /// The rows with completions of the student's own instead of theirs.
    fn on_policy(&self, decoder: &Decoder, step: u64, rows: &[&Example]) -> Result<Vec<Example>, DistillError> {
        let plain = decoder.clone().trainable(false);
        let prompt =
            |row: &Example| row.trained.iter().position(|&trained| trained).unwrap_or(row.ids.len()).max(1);
        let room = self.parts.context.saturating_sub(1).max(1);
        let prompts: Vec<&[u32]> = rows.iter().map(|row| &row.ids[..prompt(row).min(room)]).collect();
        let recipe = &self.parts.recipe;
        let temperature = recipe.temperature.min(2.0) as f32;
        let sampling = Sampling {
            options: SamplingOptions { temperature, ..SamplingOptions::default() },
            max_tokens: recipe.max_new_tokens(),
            context: self.parts.context,
            stop_ids: self.parts.stop_ids.clone(),
        };
        let seed = |place, _| rng(self.parts.seed, step, &format!("distill/{place}")).next_u64();
        let completions = roll_out(&plain, &prompts, 1, &sampling, &seed)?.concat();
        let mut written = Vec::with_capacity(rows.len());
        for ((prompt, completion), row) in prompts.iter().zip(completions).zip(rows) {
            written.push(Example {
                ids: [prompt, completion.ids.as_slice()].concat(),
                trained: [vec![false; prompt.len()], vec![true; completion.ids.len()]].concat(),
                row: row.row,
            });
        }
        Ok(written)
    }

    /// The loss of a batch; what is reported of the student's own predictions costs its logits once more, unless they
    /// are part of the loss.
    fn loss(&self, decoder: &Decoder, batch: &Batch, with_scores: bool) -> LossTerm {
        let recipe = &self.parts.recipe;
        let places = trained_places(batch);
        let n = places.len();
        let device = decoder.device();
        let hidden = |model: &Decoder| hidden_at(last_hidden(model, batch), &places);
        let (hidden_nc, teacher_hidden) = (hidden(decoder), hidden(&self.parts.teacher));
        let ones = Tensor::from_data(TensorData::new(vec![1.0f32; n], [n]), (&device, DType::F32));
        let teacher = (&self.parts.teacher, teacher_hidden);
        let (beta, temperature) = (recipe.beta as f32, recipe.temperature as f32);
        let divergence = decoder.divergence(hidden_nc.clone(), teacher, ones, beta, temperature);
        let metric = |name, sum: Tensor<1>| Metric { name, sum: sum.without_autodiff(), weight: n as f64 };
        let mut metrics = vec![metric("divergence", divergence.clone())];
        let mut loss = divergence * recipe.kd_ratio;
        if with_scores || recipe.kd_ratio < 1.0 {
            let scores = decoder.token_scores(hidden_nc, targets_at(batch, &places, &device));
            let nll = scores.nll_n.sum();
            metrics.push(metric("nll_loss", nll.clone()));
            metrics.push(metric("entropy", scores.entropy_n.sum()));
            metrics.push(metric("mean_token_accuracy", scores.greedy_n.sum()));
            if recipe.kd_ratio < 1.0 {
                loss = loss + nll * (1.0 - recipe.kd_ratio);
            }
        }
        LossTerm { metrics, ..LossTerm::new(loss, n as f64) }
    }
}

impl Objective for Distill {
    fn prepare(&mut self, decoder: &Decoder, step: u64, cursor: Cursor) -> Result<Ready, TrainError> {
        let DistillParts { recipe, train, rows, micro_batches, seed, .. } = &self.parts;
        let (chosen, after) = draw(train.len(), rows * micro_batches, cursor, *seed);
        let chosen: Vec<&Example> = chosen.iter().map(|&row| &train[row]).collect();
        let own = rng(*seed, step, "distill/lmbda").uniform_f64() < recipe.lmbda;
        let written = if own { self.on_policy(decoder, step, &chosen)? } else { Vec::new() };
        let examples = if own { written.iter().collect() } else { chosen };
        self.ready = examples.chunks(*rows).map(|rows| padded(rows).0).collect();
        self.ready.retain(|batch| batch.n_targets() > 0);
        let tokens = examples.iter().map(|example| example.ids.len() as u64).sum();
        let mut metrics = Metrics::new();
        if recipe.lmbda > 0.0 {
            metrics.insert("on_policy".into(), f64::from(u8::from(own)));
        }
        Ok(Ready { micro_batches: self.ready.len(), cursor: after, tokens, metrics })
    }

    fn term(&self, decoder: &Decoder, micro_batch: usize) -> Result<LossTerm, TrainError> {
        Ok(self.loss(decoder, &self.ready[micro_batch], false))
    }

    fn evaluate(&mut self, plain: &Decoder) -> Result<Option<Evaluation>, TrainError> {
        let (mut sum, mut weight, mut reported) = (0.0, 0.0, Reported::default());
        let rows: Vec<&Example> = self.parts.held_out.iter().filter(|row| row.n_trained() > 0).collect();
        for rows in rows.chunks(self.parts.rows) {
            let term = self.loss(plain, &padded(rows).0, true);
            sum += f64::from(term.loss_sum.try_into_scalar::<f32>().map_err(TrainError::device)?);
            weight += term.weight;
            reported.add(term.metrics)?;
        }
        if weight == 0.0 {
            return Ok(None);
        }
        let (loss, metrics) = (sum / weight, reported.means());
        Ok(Some(Evaluation { loss, bits_per_byte: None, weight: weight as u64, metrics }))
    }
}

#[cfg(test)]
mod tests;
