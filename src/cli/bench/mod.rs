//! `fornax bench`: how fast this program is on this machine, and how near to recorded numbers. Results go to stdout,
//! talk to stderr.

mod context;
mod engine;
mod generate;
mod ops;
mod parity;
mod table;
mod train;

use burn::tensor::{DType, Device};
use clap::{Args, Subcommand, ValueEnum};
use fornax_base::exit::Exit;
use fornax_eval::bench::{BenchError, use_threads};
use fornax_model::device::DeviceName;
use serde::Serialize;

use super::report::{Failure, say};

/// Measure speed, and hold a device to recorded numbers
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// Tokens per second of training steps, and the memory they take
    Train(train::Train),
    /// Tokens per second of prompts and of their continuations
    Generate(generate::Generate),
    /// Time to the opening token, time of each further one, and memory, by the length of the prompt
    Context(context::Context),
    /// Tokens per second of the engine on requests of different lengths: batched continuously, statically, and one by one
    Engine(engine::Engine),
    /// Time of each operation beside its composed body, and its distance from f64
    Ops(ops::Ops),
    /// Hold a device to recorded logits, losses and gradients
    Parity(parity::Parity),
}

impl Bench {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Measurement::Train(command) => command.run(),
            Measurement::Generate(command) => command.run(),
            Measurement::Context(command) => command.run(),
            Measurement::Engine(command) => command.run(),
            Measurement::Ops(command) => command.run(),
            Measurement::Parity(command) => command.run(),
        }
    }
}

/// Dtype of the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    F32,
    Bf16,
    F16,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }
}

/// `--threads`, the same for every measurement.
#[derive(Debug, Args)]
struct Threads {
    /// Threads of the processor; without it, all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

impl Threads {
    fn set(&self) -> Result<(), Failure> {
        Ok(self.threads.map_or(Ok(()), |threads| use_threads(threads.into()))?)
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let precision = matches!(error, BenchError::Precision { .. });
        let failure = Failure::new(error.exit(), error);
        match precision {
            true => failure.hint("`fornax doctor` lists the dtypes of each device"),
            false => failure,
        }
    }
}

fn refuse_precision(device: &Device, name: DeviceName, precision: Precision) -> Result<(), Failure> {
    match device.supports_dtype(precision.dtype()) {
        true => Ok(()),
        false => Err(BenchError::Precision { device: name, dtype: precision.word() }.into()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds, 0 to 86400".to_string()),
    }
}

/// A report as a line of JSON.
fn line(report: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string(report).map_err(|e| Failure::new(Exit::Failed, e))? + "\n")
}

fn tell(line: &str) {
    say(&format!("{line}\n"));
}
