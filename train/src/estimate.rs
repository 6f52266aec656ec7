//! What a recipe will cost and may reach, before it runs: parameters, operations, memory, time, and the loss
//! that the Chinchilla fit gives for its size and tokens (Hoffmann et al. 2022, arXiv:2203.15556).

use fornax_data::tokenizer::Tokenizer;
use fornax_model::ModelConfig;
use serde::Serialize;

use crate::error::TrainError;
use crate::plain::grouped;
use crate::recipe::{OptimizerKind, Precision, TokenizerKind, TrainRecipe};
use crate::setup;

/// Tokens per parameter at which a fixed budget of operations gives the lowest loss, in round figures.
pub const CHINCHILLA_RATIO: f64 = 20.0;

/// Bytes of one f32.
const F32: u64 = 4;
/// Rows of logits that exist at once hold this many elements; see `model/src/ops/loss.rs`.
const LOGIT_CHUNK: u64 = 4 << 20;
/// Tensors of the size of such a chunk that head and loss hold at their peak: logits, shifted, exponentials,
/// probabilities and their gradient.
const CHUNK_COPIES: u64 = 5;
/// Tensors of the size of the attention scores that the backward of a block holds at its peak.
const SCORE_COPIES: u64 = 4;
/// What the program holds without a model: code, threads, tokenizer, batches ahead.
const PROGRAM: u64 = 60 << 20;

/// Everything that is computed of a recipe without running it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// Parameters; a tied head counts once.
    pub parameters: u64,
    /// Those of the embedding table.
    pub embedding_parameters: u64,
    /// Tokens of the whole run.
    pub tokens: u64,
    /// Tokens of one step.
    pub tokens_per_step: u64,
    /// Tokens of the run for each parameter; 20 are the Chinchilla figure.
    pub tokens_per_parameter: f64,
    /// Floating-point operations of training for each token.
    pub flops_per_token: f64,
    /// The same for the run.
    pub flops: f64,
    /// Loss of the Chinchilla fit, nats per token of its own tokenizer on its own text.
    pub chinchilla_loss: f64,
    /// Loss of guessing: the logarithm of the vocabulary's size.
    pub guessing_loss: f64,
    /// Memory while training.
    pub memory: MemoryEstimate,
    /// Floating-point operations each second of a matrix product here, where it was measured.
    pub matmul_rate: Option<f64>,
    /// Seconds that the run would take at that rate. Nothing but matrix products would be done then: a bound
    /// from below.
    pub seconds_at_matmul_rate: Option<f64>,
}

/// Bytes held at the peak of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// Parameters, f32.
    pub parameters: u64,
    /// Moments of the optimizer, f32.
    pub optimizer: u64,
    /// Gradients; twice where micro-batches are added up.
    pub gradients: u64,
    /// What backward needs of a micro-batch.
    pub activations: u64,
    /// What the backward of one block holds besides: gradients of its attention scores.
    pub working: u64,
    /// Logits and loss, by chunks.
    pub head: u64,
    /// All of it, and the program itself.
    pub total: u64,
}

/// The fit `E + A / N^alpha + B / D^beta` of Hoffmann et al. 2022 (approach 3, equation 10): loss in nats per
/// token of a model with `parameters` parameters trained on `tokens` tokens.
///
/// It was made with models of 70 M to 16 B parameters on web text and books with a vocabulary of 32,000. Outside of
/// that, and on simpler text above all, it says which way the loss moves and not where it lies.
pub fn chinchilla_loss(parameters: f64, tokens: f64) -> f64 {
    1.69 + 406.4 / parameters.powf(0.34) + 410.7 / tokens.powf(0.28)
}

/// The shape of the model that a recipe trains, where it can be told without making the tokenizer.
///
/// # Errors
/// `Ok(Err(why))` where the vocabulary is counted in text that cannot be read yet; [`TrainError`] where the recipe
/// cannot be run.
pub fn model_config(recipe: &TrainRecipe) -> Result<Result<ModelConfig, String>, TrainError> {
    let Some(shape) = recipe.model_shape()? else {
        let folder = recipe.model.init.clone().unwrap_or_default();
        return Ok(Ok(fornax_model::weights::read_config(&folder)?));
    };
    let asked = recipe.tokenizer.as_ref();
    let vocabulary = match asked.map(|asked| (asked.kind, asked.vocab_size, &asked.path)) {
        Some((TokenizerKind::Bpe, Some(size), _)) => size,
        Some((TokenizerKind::File, _, Some(path))) => match Tokenizer::load(path) {
            Ok(tokenizer) => tokenizer.vocab_size(),
            Err(error) => return Ok(Err(format!("the tokenizer cannot be read: {error}"))),
        },
        _ => match setup::sources(recipe, &mut |_| {})
            .and_then(|all| setup::new_tokenizer(recipe, &all, &mut |_| {}))
        {
            Ok(tokenizer) => tokenizer.vocab_size(),
            Err(error) => return Ok(Err(format!("the vocabulary is counted in the text: {error}"))),
        },
    };
    let config = setup::shaped(&shape, recipe.train.context, vocabulary);
    config.check()?;
    Ok(Ok(config))
}

/// Estimates a checked recipe for a model of this shape; `matmul_rate` in operations each second.
pub fn estimate(recipe: &TrainRecipe, config: &ModelConfig, matmul_rate: Option<f64>) -> Estimate {
    let train = &recipe.train;
    let tokens_per_step = (train.batch * train.context) as u64;
    let tokens = train.steps.saturating_mul(tokens_per_step);
    let parameters = config.n_parameters();
    let flops_per_token = config.training_flops_per_token(train.context);
    let flops = flops_per_token * tokens as f64;
    Estimate {
        parameters,
        embedding_parameters: (config.vocab_size * config.width) as u64,
        tokens,
        tokens_per_step,
        tokens_per_parameter: tokens as f64 / parameters as f64,
        flops_per_token,
        flops,
        chinchilla_loss: chinchilla_loss(parameters as f64, tokens as f64),
        guessing_loss: (config.vocab_size as f64).ln(),
        memory: memory(recipe, config),
        matmul_rate,
        seconds_at_matmul_rate: matmul_rate.map(|rate| flops / rate),
    }
}

/// What decides the memory of a step.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Bytes of all parameters as they are held, frozen ones included.
    pub parameter_bytes: u64,
    /// Values that learn.
    pub trained: u64,
    /// Values of the optimizer's moments.
    pub moments: u64,
    /// Rows of one forward pass with gradients.
    pub rows: usize,
    /// Tokens of a row.
    pub context: usize,
    /// Whether the gradients of several micro-batches are added up.
    pub accumulates: bool,
    /// Dtype of the products.
    pub precision: Precision,
    /// Whether blocks run again in backward.
    pub activation_checkpointing: bool,
}

fn memory(recipe: &TrainRecipe, config: &ModelConfig) -> MemoryEstimate {
    let (train, parameters) = (&recipe.train, config.n_parameters());
    let outer = (config.vocab_size * config.width) as u64 * if config.tied { 1 } else { 2 };
    let moments = match recipe.optimizer.kind {
        OptimizerKind::AdamW => 2 * parameters,
        OptimizerKind::Muon => parameters + outer,
        OptimizerKind::Lion => parameters,
    };
    let load = Load {
        parameter_bytes: parameters * F32,
        trained: parameters,
        moments,
        rows: train.micro_batch(),
        context: train.context,
        accumulates: train.batch > train.micro_batch(),
        precision: train.precision,
        activation_checkpointing: train.activation_checkpointing,
    };
    memory_of(&load, config)
}

/// Bytes at the peak of a step, counted from what each operation keeps for its backward.
pub fn memory_of(train: &Load, config: &ModelConfig) -> MemoryEstimate {
    let parameters = train.parameter_bytes;
    let gradients = train.trained * F32 * if train.accumulates { 2 } else { 1 };
    let optimizer = train.moments * F32;
    let rows = (train.rows * train.context) as u64;
    // One layer: two inputs of a norm stay f32; the rest is in the dtype of the products.
    let (c, a, k) = (config.width as u64, config.attention_width() as u64, config.kv_width() as u64);
    let (f, h, s) = (config.ffn_width as u64, config.n_heads as u64, train.context as u64);
    let products = 2 * c + 2 * a + 2 * k + 3 * f;
    let product_bytes = match train.precision {
        Precision::F32 => F32,
        Precision::Bf16 | Precision::F16 => F32 / 2,
    };
    let layer = rows * (F32 * 2 * c + product_bytes * products + F32 * h * s);
    let layers = config.n_layers as u64;
    let activations = match train.activation_checkpointing {
        true => layers * rows * c * F32 + layer,
        false => layers * layer,
    };
    let working = SCORE_COPIES * F32 * rows * h * s;
    let vocabulary = config.vocab_size as u64;
    // hidden and its gradient, and the gradient of the head while it is summed.
    let head = CHUNK_COPIES * F32 * LOGIT_CHUNK.min(rows * vocabulary) + 2 * rows * c * F32 + vocabulary * c * F32;
    let total = [PROGRAM, parameters, optimizer, gradients, activations, working, head].into_iter().sum();
    MemoryEstimate { parameters, optimizer, gradients, activations, working, head, total }
}

impl Estimate {
    /// The estimate in lines for people, each with its arithmetic.
    pub fn lines(&self) -> Vec<String> {
        let steps = self.tokens / self.tokens_per_step.max(1);
        let mut lines = vec![
            format!(
                "parameters: {}, of them {} in the embedding",
                grouped(self.parameters),
                grouped(self.embedding_parameters)
            ),
            format!(
                "tokens: {} steps of {} = {}, {:.1} for each parameter (Chinchilla: {CHINCHILLA_RATIO:.0})",
                grouped(steps),
                grouped(self.tokens_per_step),
                grouped(self.tokens),
                self.tokens_per_parameter
            ),
            format!(
                "operations: {:.3e} a token (6 a weight, 12 an attended channel), {:.3e} in all",
                self.flops_per_token, self.flops
            ),
            format!(
                "loss: ln(vocabulary) = {:.2} at the start; Chinchilla fit 1.69 + 406.4 / N^0.34 + 410.7 / D^0.28 = {:.2}",
                self.guessing_loss, self.chinchilla_loss
            ),
            match self.chinchilla_loss < self.guessing_loss {
                true => "  (the fit is of web text with a vocabulary of 32,000; other text lies elsewhere)".into(),
                false => "  (above that of guessing: the fit does not reach down to so small a run)".into(),
            },
        ];
        lines.push(self.memory.line());
        lines.push(time_line(self.matmul_rate, self.seconds_at_matmul_rate));
        lines
    }
}

impl MemoryEstimate {
    /// The estimate for people, with its parts.
    pub fn line(&self) -> String {
        let MemoryEstimate { parameters, optimizer, gradients, activations, working, head, total } = *self;
        format!(
            "memory: parameters {} + moments {} + gradients {} + activations {} + attention's backward {} + head {} and \
             the program: about {}",
            bytes(parameters),
            bytes(optimizer),
            bytes(gradients),
            bytes(activations),
            bytes(working),
            bytes(head),
            bytes(total)
        )
    }
}

/// How long a run takes at the rate of a matrix product, for people.
pub fn time_line(matmul_rate: Option<f64>, seconds: Option<f64>) -> String {
    match (matmul_rate, seconds) {
        (Some(rate), Some(seconds)) => format!(
            "time: at the rate of a matrix product here, {:.1} Gflop/s, {}; a step reaches a part of that rate",
            rate / 1e9,
            duration(seconds)
        ),
        _ => "time: the rate of a matrix product could not be measured in this precision".into(),
    }
}

fn bytes(n: u64) -> String {
    match n as f64 / (1 << 20) as f64 {
        mib if mib < 1024.0 => format!("{mib:.1} MiB"),
        mib => format!("{:.2} GiB", mib / 1024.0),
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_gives_the_published_values() {
        // Chinchilla itself: 70 B parameters, 1.4 T tokens.
        assert!((chinchilla_loss(70e9, 1.4e12) - 1.9366).abs() < 1e-3, "{}", chinchilla_loss(70e9, 1.4e12));
        // Gopher: 280 B and 300 B; the paper's point is that it is worse.
        assert!(chinchilla_loss(280e9, 300e9) > chinchilla_loss(70e9, 1.4e12));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let found = [0, 999, 1000, 123_456, 1_234_567].map(grouped);
        assert_eq!(found, ["0", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn durations_and_sizes_have_fitting_units() {
        assert_eq!([59.0, 600.0, 9000.0, 864_000.0].map(duration), ["59 s", "10 min", "2.5 h", "10.0 days"]);
        assert_eq!([bytes(1 << 20), bytes(3 << 30)], ["1.0 MiB", "3.00 GiB"]);
    }
}
