//! What a post-training recipe will do and cost, before it runs: rows as they will be trained on, length, memory, time.

use burn::tensor::Device;
use fornax_data::examples::Example;
use fornax_data::hub::{Hub, is_hub};
use fornax_data::tokenizer::Tokenizer;
use fornax_train::TrainError;
use fornax_train::estimate::{Load, MemoryEstimate, memory_of};
use fornax_train::recipe::OptimizerKind;
use fornax_train::setup::Preparing;
use serde::Serialize;

use crate::recipe::{FinetuneRecipe, ObjectiveKind};
use crate::tuning::{Base, Rows, attach};

/// Rows shown.
const SHOWN: usize = 3;
/// Bytes of one f32.
const F32: u64 = 4;

/// What is known of a recipe without running it.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// What was found in the data.
    pub facts: Vec<String>,
    /// PEFT's line on what learns.
    pub trainable: String,
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// The opening rows.
    pub rows: Vec<PreviewRow>,
    /// Memory while training.
    pub memory: MemoryEstimate,
    /// Floating-point operations of the whole run, where all rows are full.
    pub flops: f64,
}

/// A row as it will be trained on.
#[derive(Debug, Clone, Serialize)]
pub struct PreviewRow {
    /// `chosen`, `rejected`, `desirable`, `undesirable`, `prompt`, or nothing.
    pub side: &'static str,
    /// Its number in the source.
    pub row: u64,
    /// Token ids.
    pub ids: Vec<u32>,
    /// Which of them are trained.
    pub trained: Vec<bool>,
}

/// A preview, or why there is none.
pub enum Previewed {
    /// It could be made.
    Made(Box<Preview>, Box<Tokenizer>),
    /// The base is of the hub and not on this machine; nothing was fetched.
    NotFetched {
        /// As the recipe names it.
        base: String,
    },
}

/// Reads base and rows of a resolved recipe and counts; nothing is written, and nothing is fetched.
///
/// # Errors
/// What a run would be refused for.
pub fn preview(recipe: &FinetuneRecipe, device: &Device) -> Result<Previewed, TrainError> {
    let absent = |name: &str| -> Result<bool, TrainError> {
        if !is_hub(name) {
            return Ok(false);
        }
        let hub = Hub::from_env().map_err(fornax_data::DataError::from)?;
        let path = name.parse().map_err(fornax_data::DataError::from)?;
        Ok(hub.kept_model(&path).is_none())
    };
    if absent(&recipe.model.base)? || is_hub(&recipe.data.source) {
        let base = if is_hub(&recipe.model.base) { &recipe.model.base } else { &recipe.data.source };
        return Ok(Previewed::NotFetched { base: base.clone() });
    }
    let silent: &mut dyn FnMut(Preparing) = &mut |_| {};
    let mut base = Base::open(recipe, device, silent)?;
    attach(&mut base.decoder, recipe)?;
    let mut facts = Vec::new();
    let (rows, n) = opening(&mut Rows { recipe, base: &base, facts: &mut facts, progress: silent })?;
    let steps = match (recipe.train.steps, recipe.train.epochs) {
        (Some(steps), _) => steps,
        (None, epochs) => recipe.steps_of(n, epochs.unwrap_or(1.0)),
    };
    let (memory, flops) = cost(recipe, &base, steps);
    let trainable = base.decoder.trainable_line();
    let preview = Preview { facts, trainable, steps, rows, memory, flops };
    let tokenizer = Tokenizer::load(&base.folder)?;
    Ok(Previewed::Made(Box::new(preview), Box::new(tokenizer)))
}

/// The opening rows of the data, and how many rows an epoch has.
fn opening(rows: &mut Rows<'_>) -> Result<(Vec<PreviewRow>, u64), TrainError> {
    let shown = |side, example: &Example| PreviewRow {
        side,
        row: example.row,
        ids: example.ids.clone(),
        trained: example.trained.clone(),
    };
    Ok(match rows.recipe.objective {
        ObjectiveKind::Sft | ObjectiveKind::Distill => {
            let (train, _) = rows.examples()?;
            (train.iter().take(SHOWN).map(|row| shown("", row)).collect(), train.len() as u64)
        }
        ObjectiveKind::Kto => {
            let (train, _) = rows.labelled()?;
            let side = |desirable| if desirable { "desirable" } else { "undesirable" };
            let all = train.iter().take(SHOWN).map(|row| shown(side(row.desirable), &row.example));
            (all.collect(), train.len() as u64)
        }
        ObjectiveKind::Grpo => {
            let (train, _) = rows.prompts()?;
            let row = |prompt: &fornax_data::examples::Prompt| PreviewRow {
                side: "prompt",
                row: prompt.row,
                ids: prompt.ids.clone(),
                trained: vec![false; prompt.ids.len()],
            };
            (train.iter().take(SHOWN).map(row).collect(), train.len() as u64)
        }
        ObjectiveKind::Dpo | ObjectiveKind::Orpo | ObjectiveKind::Cpo | ObjectiveKind::Reward => {
            let (train, _) = rows.pairs()?;
            let both = |pair: &fornax_data::examples::Pair| {
                [shown("chosen", &pair.chosen), shown("rejected", &pair.rejected)]
            };
            (train.iter().take(SHOWN).flat_map(both).collect(), train.len() as u64)
        }
    })
}

/// Memory of a step, and operations of the run.
fn cost(recipe: &FinetuneRecipe, base: &Base, steps: u64) -> (MemoryEstimate, f64) {
    let (config, train) = (base.decoder.config(), &recipe.train);
    let (trained, _) = base.decoder.parameter_counts();
    // A pair is two rows.
    let paired = matches!(
        recipe.objective,
        ObjectiveKind::Dpo | ObjectiveKind::Orpo | ObjectiveKind::Cpo | ObjectiveKind::Reward
    );
    let sides = if paired { 2 } else { 1 };
    let moments = if recipe.optimizer.kind == OptimizerKind::Lion { 1 } else { 2 };
    let held = base.decoder.bytes() as u64;
    // Without an adapter a reference is a copy.
    let copies = if recipe.keeps_a_copy() { config.n_parameters() * F32 } else { 0 };
    let load = Load {
        parameter_bytes: held + copies,
        trained,
        moments: moments * trained,
        rows: sides * train.micro_batch(),
        context: train.context,
        accumulates: train.batch > train.micro_batch(),
        precision: train.precision,
        activation_checkpointing: train.activation_checkpointing,
    };
    // Forward and the gradient of the inputs are 2/3 of a step; the gradient of frozen weights is not computed.
    let share = if recipe.adapter.is_some() { 2.0 / 3.0 } else { 1.0 };
    let reference = if recipe.asks_a_reference() { 1.0 / 3.0 } else { 0.0 };
    let tokens = (steps * (sides * train.batch * train.context) as u64) as f64;
    (memory_of(&load, config), config.training_flops_per_token(train.context) * tokens * (share + reference))
}
