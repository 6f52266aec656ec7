//! Why a recipe cannot be run, in one sentence with both numbers

use fornax_base::recipe::RecipeError;

/// A recipe that cannot be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RecipeCheckError {
    /// A number outside its range.
    #[error("`{key}` is {found}, but {expected} is expected")]
    OutOfRange {
        /// The dotted key.
        key: &'static str,
        /// The value found.
        found: String,
        /// The values expected, in words.
        expected: String,
    },
    /// Two numbers of which one must divide the other.
    #[error("`{key}` ({found}) is not a multiple of `{by_key}` ({by})")]
    NotMultiple {
        /// The dotted key.
        key: &'static str,
        /// Its value.
        found: usize,
        /// The key that should divide it.
        by_key: &'static str,
        /// Its value.
        by: usize,
    },
    /// A number of steps that does not fit the run.
    #[error("`{key}` ({found}) is longer than the run (`train.steps`: {steps} steps)")]
    LongerThanRun {
        /// The dotted key.
        key: &'static str,
        /// Its value in steps.
        found: u64,
        /// Steps of the run.
        steps: u64,
    },
    /// Warm-up and decay overlap.
    #[error(
        "`schedule.warmup_steps` ({warmup}) and the decay ({decay} steps) together are longer than the run \
         (`train.steps`: {steps} steps)"
    )]
    DecayOverlaps {
        /// Steps of warm-up.
        warmup: u64,
        /// Steps of decay.
        decay: u64,
        /// Steps of the run.
        steps: u64,
    },
    /// A number that must not be smaller than another.
    #[error("`{key}` ({found}) is smaller than `{than_key}` ({than})")]
    SmallerThan {
        /// The dotted key.
        key: &'static str,
        /// Its value.
        found: u64,
        /// The other key.
        than_key: &'static str,
        /// Its value.
        than: u64,
    },
    /// A key that another one makes necessary.
    #[error("`{key}` is missing, but needed because {because}")]
    Missing {
        /// The dotted key.
        key: &'static str,
        /// Why it is needed.
        because: &'static str,
    },
    /// A key that would be without effect.
    #[error("`{key}` is given, but has no effect because {because}")]
    NoEffect {
        /// The dotted key.
        key: &'static str,
        /// Why.
        because: &'static str,
    },
    /// Two keys that exclude each other.
    #[error("`{one}` and `{other}` are both given, but {because}")]
    Both {
        /// One key.
        one: &'static str,
        /// The other key.
        other: &'static str,
        /// Why one of them must go.
        because: &'static str,
    },
    /// A limit of `[data.clean]` that cannot be met.
    #[error("`data.clean`: {0}")]
    Clean(String),
    /// The recipe cannot be stored in the run folder.
    #[error(transparent)]
    NotToml(#[from] RecipeError),
}
