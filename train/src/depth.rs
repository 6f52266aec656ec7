//! One dial: from the number of layers a whole recipe is derived, as nanochat's `--depth` does, with its rules
//! where they hold at small scale and others, said so, where they do not.

use crate::estimate::CHINCHILLA_RATIO;
use crate::plain::grouped;
use crate::recipe::{ModelRecipe, RecipeCheckError};
use crate::setup;

/// Largest depth: 64 layers of 4,096 channels are 13 B parameters, beyond any machine this is for.
pub const GREATEST_DEPTH: usize = 64;

/// Channels for each layer (nanochat's aspect ratio).
const ASPECT: usize = 64;
/// Channels of a head. nanochat has 128, which a width of 64 does not hold; GPT-2 and llama2.c are near 64.
const HEAD: usize = 64;
/// Depth whose batch and rate are known: GPT-2 with 124 M parameters has 12 layers of 768 channels.
const REFERENCE_DEPTH: usize = 12;
/// Tokens of its step.
const REFERENCE_BATCH: f64 = 524_288.0;
/// Its learning rate (nanoGPT, llm.c). Other widths have it in inverse proportion, as Adam's best rate moves for hidden
/// matrices (Yang et al. 2022, arXiv:2203.03466); nanochat's inverse root is too low at small widths, see docs/LOG.md.
const REFERENCE_LR: f64 = 6e-4;
/// Growth of the best batch with the tokens of a run (Bergsma et al. 2025, arXiv:2505.13738).
const BATCH_POWER: f64 = 0.383;
/// Least number of steps; with fewer, AdamW's means and the schedule have no time.
const LEAST_STEPS: u64 = 500;
/// Tokens of one forward pass.
const MICRO_BATCH_TOKENS: usize = 8192;
/// Most bytes the embedded corpus is asked for.
const MOST_CORPUS_BYTES: u64 = 256_000_000;

/// A recipe and where each of its numbers comes from.
#[derive(Debug, Clone)]
pub struct Derived {
    /// The recipe, as TOML.
    pub text: String,
    /// The arithmetic, a line for each number.
    pub lines: Vec<String>,
}

/// Derives the recipe of a model with `depth` layers.
///
/// # Errors
/// [`RecipeCheckError::OutOfRange`] for a depth of 0 or above [`GREATEST_DEPTH`].
pub fn derive(depth: usize) -> Result<Derived, RecipeCheckError> {
    if !(1..=GREATEST_DEPTH).contains(&depth) {
        return Err(RecipeCheckError::OutOfRange {
            key: "--depth",
            found: depth.to_string(),
            expected: format!("a whole number from 1 to {GREATEST_DEPTH}"),
        });
    }
    let sizes = Sizes::of(depth)?;
    let Sizes { width, heads, vocabulary, context, parameters } = sizes;
    let tokens = CHINCHILLA_RATIO * parameters as f64;
    let reference = CHINCHILLA_RATIO * Sizes::of(REFERENCE_DEPTH)?.parameters as f64;
    let by_rule = nearest_power_of_two(REFERENCE_BATCH * (tokens / reference).powf(BATCH_POWER));
    let by_steps = floor_power_of_two(tokens / LEAST_STEPS as f64);
    let batch_tokens = by_rule.min(by_steps).max(context);
    let (batch, steps) = (batch_tokens / context, (tokens / batch_tokens as f64).round() as u64);
    let micro_batch = batch.min(MICRO_BATCH_TOKENS / context);
    let lr = round_to_two_digits(REFERENCE_LR * (REFERENCE_DEPTH * ASPECT) as f64 / width as f64);
    let warmup = steps / 20;
    let corpus_bytes = (tokens as u64).clamp(1_000_000, MOST_CORPUS_BYTES);
    let lines = vec![
        format!("width = {ASPECT} x depth = {width}"),
        format!("n_heads = width / {HEAD} = {heads}"),
        format!("vocab_size = 1024 x depth up to a power of two, at most 32768 = {vocabulary}"),
        format!("context = 256 to depth 4, 512 to depth 8, then 1024 = {context}"),
        format!("parameters = {}", grouped(parameters)),
        format!("tokens = {CHINCHILLA_RATIO:.0} x parameters = {}", grouped(tokens as u64)),
        format!(
            "batch = 524,288 tokens x (tokens / those of depth {REFERENCE_DEPTH})^{BATCH_POWER} = {}, for at least \
             {LEAST_STEPS} steps at most {}: {} tokens, {batch} rows",
            grouped(by_rule as u64),
            grouped(by_steps as u64),
            grouped(batch_tokens as u64)
        ),
        format!("steps = tokens / batch = {}", grouped(steps)),
        format!("micro_batch = at most {} tokens = {micro_batch} rows", grouped(MICRO_BATCH_TOKENS as u64)),
        format!("lr = {REFERENCE_LR} x 768 / width = {lr}"),
        format!("warmup_steps = steps / 20 = {warmup}; then constant, and a linear fall over 65 % to 5 %"),
        format!(
            "corpus_bytes = as many as tokens = {}: each story is read about four times",
            grouped(corpus_bytes)
        ),
    ];
    let often = (steps / 8).max(1);
    let text = format!(
        r#"description = "derived from depth {depth}"

[model]
n_layers = {depth}
n_heads = {heads}
width = {width}

[tokenizer]
kind = "bpe"
vocab_size = {vocabulary}

[data]
source = "corpus"
corpus_bytes = {corpus_bytes}
validation_fraction = 0.01

[train]
steps = {steps}
context = {context}
batch = {batch}
micro_batch = {micro_batch}

[optimizer]
lr = {lr}

[schedule]
kind = "wsd"
warmup_steps = {warmup}
decay_fraction = 0.65
final_lr_fraction = 0.05

[eval]
every = {often}
sample_every = {often}
prompts = ["One day,", "Once there was"]

[checkpoint]
every = {often}
"#
    );
    Ok(Derived { text, lines })
}

/// What follows from the depth alone.
struct Sizes {
    width: usize,
    heads: usize,
    vocabulary: usize,
    context: usize,
    parameters: u64,
}

impl Sizes {
    fn of(depth: usize) -> Result<Self, RecipeCheckError> {
        let width = ASPECT * depth;
        let heads = width / HEAD;
        let vocabulary = (1024 * depth.next_power_of_two()).min(32_768);
        let context = match depth {
            0..=4 => 256,
            5..=8 => 512,
            _ => 1024,
        };
        let model = ModelRecipe {
            n_layers: Some(depth),
            n_heads: Some(heads),
            width: Some(width),
            ..ModelRecipe::default()
        };
        let shape = model.shape()?;
        let parameters = shape.map_or(0, |shape| setup::shaped(&shape, context, vocabulary).n_parameters());
        Ok(Self { width, heads, vocabulary, context, parameters })
    }
}

fn nearest_power_of_two(x: f64) -> usize {
    1 << x.max(1.0).log2().round() as u32
}

fn floor_power_of_two(x: f64) -> usize {
    1 << x.max(1.0).log2().floor() as u32
}

fn round_to_two_digits(x: f64) -> f64 {
    let unit = 10f64.powf(x.log10().floor() - 1.0);
    // Through text, so that the recipe says 0.0015 and not 0.0015000000000000002.
    format!("{:.1e}", (x / unit).round() * unit).parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::{estimate, model_config};
    use crate::recipe::TrainRecipe;

    fn recipe(depth: usize) -> TrainRecipe {
        let recipe: TrainRecipe = fornax_base::recipe::load(&derive(depth).unwrap().text, "depth", &[]).unwrap();
        recipe.check().unwrap();
        recipe
    }

    #[test]
    fn every_depth_gives_a_recipe_that_passes_its_check() {
        for depth in 1..=GREATEST_DEPTH {
            let recipe = recipe(depth);
            let config = model_config(&recipe).unwrap().unwrap();
            let estimate = estimate(&recipe, &config, None);
            assert!(recipe.train.steps >= LEAST_STEPS, "{depth}: {} steps", recipe.train.steps);
            // Steps are whole, so the ratio is near its aim and not at it.
            let ratio = estimate.tokens_per_parameter / CHINCHILLA_RATIO;
            assert!((ratio - 1.0).abs() < 2e-3, "{depth}: {ratio}");
        }
        assert!(derive(0).is_err() && derive(GREATEST_DEPTH + 1).is_err());
    }

    #[test]
    fn depth_12_has_the_shape_batch_and_rate_of_gpt_2() {
        let recipe = recipe(12);
        let (model, train) = (&recipe.model, &recipe.train);
        assert_eq!((model.n_layers, model.n_heads, model.width), (Some(12), Some(12), Some(768)));
        assert_eq!((train.context, train.batch * train.context), (1024, 524_288));
        assert_eq!(recipe.optimizer.lr, 6e-4);
    }

    #[test]
    fn deeper_is_wider_slower_and_longer() {
        let all: Vec<TrainRecipe> = (1..=12).map(recipe).collect();
        for pair in all.windows(2) {
            assert!(pair[0].model.width < pair[1].model.width);
            assert!(pair[0].optimizer.lr > pair[1].optimizer.lr);
            let tokens = |r: &TrainRecipe| r.train.steps * (r.train.batch * r.train.context) as u64;
            assert!(tokens(&pair[0]) < tokens(&pair[1]));
        }
    }
}
