//! `fornax bench`: how fast this program is on this machine. Results go to stdout, talk to stderr.

mod train;

use burn::tensor::DType;
use clap::{Args, Subcommand, ValueEnum};
use fornax_base::exit::Exit;
use fornax_eval::bench::BenchError;

use super::report::{Failure, say};

/// Measure speed
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
}

impl Bench {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Measurement::Train(command) => command.run(),
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

fn failed(error: BenchError) -> Failure {
    let precision = matches!(error, BenchError::Precision { .. });
    let failure = Failure::new(error.exit(), error);
    match precision {
        true => failure.hint("`fornax doctor` lists the dtypes of each device"),
        false => failure,
    }
}

fn tell(line: &str) {
    say(&format!("{line}\n"));
}
