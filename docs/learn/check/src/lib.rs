//! What the check programs share: random numbers, tensors of plain slices, and a comparison that knows the usual
//! mistakes.
//!
//! A check program runs its comparisons one by one and prints the outcome as one JSON object in the last line of its
//! output, which `fornax learn check` reads. What the reader's code prints goes before it.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::rng::rng;
use serde::Serialize;

pub use {burn, fornax_base, fornax_data, fornax_infer, fornax_model, fornax_post_train, fornax_train};

/// `Ok` tells what was compared, `Err` what is wrong.
pub type Outcome = Result<String, String>;

/// The comparisons of one exercise, in order.
#[derive(Debug, Default, Serialize)]
pub struct Checks {
    /// Marks the line, for its reader.
    fornax_learn: u32,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    /// `passed`, `failed` or `unwritten`.
    outcome: &'static str,
    message: String,
}

impl Checks {
    /// No comparison yet.
    pub fn new() -> Self {
        Self { fornax_learn: 1, checks: Vec::new() }
    }

    /// Runs one comparison. A panic in it is a finding, and `todo!()` means that the hole is not filled.
    pub fn run(&mut self, name: &'static str, compare: impl FnOnce() -> Outcome) {
        let place = Arc::new(Mutex::new(String::new()));
        let told = Arc::clone(&place);
        std::panic::set_hook(Box::new(move |panic| {
            let at = panic.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
            *told.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = at;
        }));
        let ran = catch_unwind(AssertUnwindSafe(compare));
        drop(std::panic::take_hook());
        let (outcome, message) = match ran {
            Ok(Ok(message)) => ("passed", message),
            Ok(Err(message)) => ("failed", message),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                let at = place.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                match text.starts_with("not yet implemented") {
                    true => ("unwritten", format!("the `todo!()`{at} stands in its way")),
                    false => ("failed", format!("a panic{at}: {text}")),
                }
            }
        };
        self.checks.push(Check { name, outcome, message });
    }

    /// Prints the outcome. Success means that the comparisons ran, not that all passed.
    pub fn finish(&self) -> ExitCode {
        match serde_json::to_string(self) {
            Ok(line) => {
                println!("\n{line}");
                ExitCode::SUCCESS
            }
            Err(_) => ExitCode::FAILURE,
        }
    }
}

/// A mistake one knows by its numbers: what to say, and what comes out.
pub type Mistake<'a> = (&'a str, Vec<f32>);

/// Compares `found` with Fornax's `expected`, element by element: `|found - expected| <= tolerance * (1 + |expected|)`.
/// Where they differ, says so with the worst place, and names the mistake that would give the found numbers.
///
/// # Panics
/// When a mistake gives the right numbers: the inputs of the check then cannot tell it.
pub fn compare(found: &[f32], expected: &[f32], tolerance: f32, mistakes: &[Mistake<'_>]) -> Outcome {
    for (words, values) in mistakes {
        assert!(worst(values, expected, tolerance).is_err(), "this check cannot see that {words}");
    }
    match worst(found, expected, tolerance) {
        Ok(error) => Ok(format!("{} numbers, greatest difference {error:.1e}", expected.len())),
        Err(difference) => {
            let known = mistakes.iter().find(|(_, values)| worst(found, values, tolerance).is_ok());
            let all_nan = !found.is_empty() && found.iter().all(|value| value.is_nan());
            Err(match known {
                Some((words, _)) => format!("{words} ({difference})"),
                None if all_nan => format!("every number is NaN ({difference})"),
                None => difference,
            })
        }
    }
}

/// The greatest difference, or the sentence about the worst one.
fn worst(found: &[f32], expected: &[f32], tolerance: f32) -> Result<f32, String> {
    if found.len() != expected.len() {
        return Err(format!("{} numbers came, {} are expected", found.len(), expected.len()));
    }
    let mut greatest = 0.0f32;
    let mut at = None;
    let mut excess = 1.0f32;
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let difference = (f - e).abs();
        let share = if difference == 0.0 { 0.0 } else { difference / (tolerance * (1.0 + e.abs())) };
        // A NaN is worse than any number.
        if share.is_nan() || share > excess {
            (at, excess) = (Some(i), if share.is_nan() { f32::INFINITY } else { share });
        }
        greatest = greatest.max(difference);
    }
    match at {
        None => Ok(greatest),
        Some(i) => Err(format!("element {i} is {}, Fornax has {}", found[i], expected[i])),
    }
}

/// `n` normal numbers, the same at every run.
pub fn normals(purpose: &str, n: usize) -> Vec<f32> {
    let mut random = rng(20_261_121, 0, purpose);
    (0..n).map(|_| random.normal_f32()).collect()
}

/// The processor, where everything here is computed.
pub fn device() -> Device {
    Device::flex()
}

/// A tensor of these values in f32.
pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (&device(), DType::F32))
}

/// The values of a tensor, row by row.
///
/// # Panics
/// When it does not hold f32, which every tensor here does.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().expect("a tensor of f32")
}
