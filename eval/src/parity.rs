//! A device held to recorded numbers: logits, loss and gradients that another implementation computed from the same
//! weights (`tests/fixtures/parity/`, recorded from transformers); [`mod@post`] holds steps of tuning to theirs,
//! [`engine`] every way of decoding to the forward without a cache.

pub mod engine;
pub mod post;
mod recorded;

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::exit::Exit;
use fornax_base::paths::PathError;
use fornax_model::adapter::AdapterError;
use fornax_model::packed::PackedError;
use fornax_model::weights::{LoadOptions, WeightsError, load};
use fornax_model::{Decoder, Layout, token_tensor};
use fornax_train::TrainError;
use serde::Serialize;

use crate::bench::dtype_word;
use recorded::RecordedFile;

/// Name of the file with recorded numbers beside a model's.
pub const EXPECTED: &str = "expected.safetensors";

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// No folder below holds recorded numbers.
    #[error("`{}` has no folder with a file `{EXPECTED}`", path.display())]
    Empty {
        /// As it was given.
        path: PathBuf,
    },
    /// It cannot be listed.
    #[error("`{}` cannot be listed", path.display())]
    List {
        /// As it was given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model or the recorded numbers cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The recorded numbers lack a tensor, or it does not fit.
    #[error("`{}` has no usable `{tensor}`: {message}", path.display())]
    Recorded {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        message: String,
    },
    /// A folder lacks a recorded step.
    #[error("`{}` does not exist, in which `{step}` is recorded", path.display())]
    NoStep {
        /// The file.
        path: PathBuf,
        /// Name of the step.
        step: String,
    },
    /// The settings of a recorded step cannot be read.
    #[error("`{}` does not hold the settings of a step: {message}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A recorded adapter cannot be read or does not fit its model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A base cannot be packed so.
    #[error(transparent)]
    Packing(#[from] PackedError),
    /// A path in recorded settings leads out of the folder.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A step could not be taken.
    #[error(transparent)]
    Step(TrainError),
    /// The device failed.
    #[error("the device failed: {message}")]
    Device {
        /// The driver's words.
        message: String,
    },
}

impl ParityError {
    /// What the program's exit code says of it.
    pub fn exit(&self) -> Exit {
        match self {
            ParityError::Device { .. } => Exit::Failed,
            ParityError::Recorded { .. } | ParityError::Settings { .. } => Exit::Damaged,
            ParityError::Step(error) => error.exit(),
            ParityError::Weights(WeightsError::Format { .. } | WeightsError::NotFinite { .. }) => Exit::Damaged,
            _ => Exit::BadInput,
        }
    }

    fn device(error: impl std::fmt::Display) -> Self {
        Self::Device { message: error.to_string() }
    }
}

/// Greatest differences that count as equal, each by the greatest recorded value of the same tensor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tolerance {
    /// Of logits.
    pub logits: f64,
    /// Of the loss and of each parameter's gradient.
    pub gradients: f64,
}

impl Tolerance {
    /// What rounding explains in a dtype, with room for another order of summation: about 1.5 times the greatest
    /// difference of any fixture on the processor, and 50 times for f32.
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::BF16 => Self { logits: 0.08, gradients: 0.3 },
            DType::F16 => Self { logits: 0.01, gradients: 0.05 },
            _ => Self { logits: 1e-4, gradients: 1e-3 },
        }
    }
}

/// One fixture on one device.
#[derive(Debug, Clone, Serialize)]
pub struct ParityReport {
    /// Name of the folder.
    pub fixture: String,
    /// The device by its name on the command line.
    pub device: String,
    /// Dtype of the matrix products.
    pub dtype: &'static str,
    /// Tokens compared.
    pub tokens: usize,
    /// Greatest difference of a logit by the greatest recorded logit.
    pub logits_error: f64,
    /// Tokens after which the likeliest next token is the recorded one.
    pub same_top: usize,
    /// Difference of the loss by the recorded loss; `None` where none is recorded.
    pub loss_error: Option<f64>,
    /// Greatest difference of a gradient by the greatest recorded gradient of its parameter.
    pub gradient_error: Option<f64>,
    /// The parameter with that difference.
    pub gradient_worst: Option<String>,
    /// What was allowed.
    pub tolerance: Tolerance,
    /// Whether every difference is within it.
    pub passed: bool,
}

/// The folders below `path` that hold recorded numbers, or `path` itself, sorted.
///
/// # Errors
/// [`ParityError::List`] and [`ParityError::Empty`].
pub fn fixtures(path: &Path) -> Result<Vec<PathBuf>, ParityError> {
    if path.join(EXPECTED).exists() {
        return Ok(vec![path.to_path_buf()]);
    }
    let failed = |source| ParityError::List { path: path.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let folder = entry.map_err(failed)?.path();
        if folder.join(EXPECTED).exists() {
            found.push(folder);
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(ParityError::Empty { path: path.to_path_buf() }),
        false => Ok(found),
    }
}

/// Compares one fixture: logits as `generate` computes them, weights stored in `dtype`; loss and gradients as
/// `train` does, parameters in f32 and products in `dtype`.
///
/// # Errors
/// [`ParityError`] when the fixture cannot be read or the device fails.
pub fn compare(
    folder: &Path,
    device: &Device,
    device_name: &str,
    dtype: DType,
    tolerance: Tolerance,
) -> Result<ParityReport, ParityError> {
    let recorded = Recorded::open(folder)?;
    let options = LoadOptions { dtype: Some(dtype), strict: true };
    let logits = logits(&load(folder, options, device)?.decoder, &recorded, device)?;
    let expected = recorded.file.floats("logits")?;
    let logits_error = relative(&logits, &expected);
    let width = expected.len() / recorded.tokens.len().max(1);
    let tops = logits.chunks(width.max(1)).zip(expected.chunks(width.max(1)));
    let same_top = tops.filter(|(ours, theirs)| top(ours) == top(theirs)).count();
    let training = match recorded.file.has("loss") {
        true => Some(loss_and_gradients(folder, &recorded, device, dtype)?),
        false => None,
    };
    let within = |error: f64, allowed: f64| error <= allowed;
    let passed = within(logits_error, tolerance.logits)
        && training.as_ref().is_none_or(|t| {
            within(t.loss_error, tolerance.gradients) && within(t.gradient_error, tolerance.gradients)
        });
    let name = folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.display().to_string());
    Ok(ParityReport {
        fixture: name,
        device: device_name.to_string(),
        dtype: dtype_word(dtype),
        tokens: recorded.tokens.len(),
        logits_error,
        same_top,
        loss_error: training.as_ref().map(|t| t.loss_error),
        gradient_error: training.as_ref().map(|t| t.gradient_error),
        gradient_worst: training.map(|t| t.worst),
        tolerance,
        passed,
    })
}

/// The recorded numbers of a fixture.
struct Recorded {
    file: RecordedFile,
    rows: usize,
    columns: usize,
    tokens: Vec<u32>,
}

impl Recorded {
    fn open(folder: &Path) -> Result<Self, ParityError> {
        let file = RecordedFile::open(&folder.join(EXPECTED))?;
        let (tokens, [rows, columns]) = file.ids("tokens")?;
        Ok(Self { file, rows, columns, tokens })
    }
}

fn logits(decoder: &Decoder, recorded: &Recorded, device: &Device) -> Result<Vec<f32>, ParityError> {
    let tokens = token_tensor(&recorded.tokens, recorded.rows, device);
    let hidden = decoder.forward(tokens, &Layout::contiguous(0, recorded.columns, device), None);
    decoder.logits(hidden).try_into_vec_as::<f32>().map_err(ParityError::device)
}

struct Training {
    loss_error: f64,
    gradient_error: f64,
    worst: String,
}

fn loss_and_gradients(
    folder: &Path,
    recorded: &Recorded,
    device: &Device,
    dtype: DType,
) -> Result<Training, ParityError> {
    let options = LoadOptions { dtype: Some(DType::F32), strict: true };
    let mut decoder = load(folder, options, device)?.decoder.trainable(true);
    decoder.set_compute(dtype);
    let auto = decoder.device();
    let rows = recorded.rows;
    let tokens = token_tensor(&recorded.tokens, rows, &auto);
    let targets = token_tensor(&recorded.file.ids("targets")?.0, rows, &auto);
    let mask: Vec<f32> = recorded.file.marks("mask")?.into_iter().map(f32::from).collect();
    let n: f32 = mask.iter().sum();
    let weights = Tensor::<2>::from_data(TensorData::new(mask, [rows, recorded.columns]), (&auto, DType::F32));
    let hidden = decoder.forward(tokens, &Layout::contiguous(0, recorded.columns, &auto), None);
    let loss = decoder.loss(hidden, targets, weights / n);
    let mut gradients = loss.clone().backward();
    let loss = loss.try_into_vec_as::<f32>().map_err(ParityError::device)?;
    let mut training = Training {
        loss_error: relative(&loss, &recorded.file.floats("loss")?),
        gradient_error: 0.0,
        worst: String::new(),
    };
    let mut all = Vec::new();
    decoder.visit_mut(&mut |name, parameter| {
        all.push((name.to_string(), parameter.take_gradient(&mut gradients)));
    });
    for (name, gradient) in all {
        let expected = recorded.file.floats(&format!("grad.{name}"))?;
        let error = match gradient {
            Some(gradient) => {
                relative(&gradient.try_into_vec_as::<f32>().map_err(ParityError::device)?, &expected)
            }
            None => f64::INFINITY,
        };
        if error > training.gradient_error || training.worst.is_empty() {
            (training.gradient_error, training.worst) = (error, name);
        }
    }
    Ok(training)
}

/// Greatest difference by the greatest recorded value; infinite for another length or what is no number.
fn relative(ours: &[f32], recorded: &[f32]) -> f64 {
    if ours.len() != recorded.len() || ours.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let largest = recorded.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())));
    let pairs = ours.iter().zip(recorded);
    let difference = pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    if difference == 0.0 { 0.0 } else { difference / largest }
}

fn top(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}
