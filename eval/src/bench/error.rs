//! Why a measurement cannot be made.

use fornax_base::exit::Exit;
use fornax_infer::generate::GenerateError;
use fornax_infer::speculative::SpeculationError;
use fornax_model::device::DeviceName;
use fornax_train::TrainError;

/// Why a measurement cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Not a workload.
    #[error("`{name}` is not a workload; expected {known}")]
    UnknownWorkload {
        /// What was given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Not an operation.
    #[error("`{name}` is not an operation; expected {known}")]
    UnknownOp {
        /// What was given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A size that no batch can have.
    #[error("{what} is {value}, expected {expected}")]
    Size {
        /// Which size.
        what: &'static str,
        /// What was given.
        value: usize,
        /// What could stand there.
        expected: String,
    },
    /// The device does not compute in the dtype.
    #[error("`{device}` does not compute in {dtype}")]
    Precision {
        /// The device.
        device: DeviceName,
        /// The dtype's word.
        dtype: &'static str,
    },
    /// The threads cannot be set.
    #[error("{threads} threads cannot be used: {message}")]
    Threads {
        /// What was asked for.
        threads: usize,
        /// What the thread pool says.
        message: String,
    },
    /// The device failed.
    #[error("the device failed: {message}")]
    Device {
        /// The driver's words.
        message: String,
    },
    /// The text cannot be continued.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The draft does not serve the model.
    #[error(transparent)]
    Speculation(#[from] SpeculationError),
    /// A training step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl BenchError {
    /// What the program's exit code says of it.
    pub fn exit(&self) -> Exit {
        match self {
            BenchError::Device { .. } | BenchError::Generate(_) => Exit::Failed,
            BenchError::Train(error) => error.exit(),
            _ => Exit::BadInput,
        }
    }

    pub(crate) fn device(error: impl std::fmt::Display) -> Self {
        Self::Device { message: error.to_string() }
    }
}
