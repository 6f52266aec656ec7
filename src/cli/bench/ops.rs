//! `fornax bench ops`: every operation beside its composed body.

use clap::Args;
use fornax_base::exit::Exit;
use fornax_eval::bench::Workload;
use fornax_eval::bench::ops::{OpName, OpReport, OpsBench, measure};

use super::super::DeviceArgument;
use super::super::report::{Failure, print};
use super::{Precision, Threads, line, seconds, tell};

/// Time and error of each operation
#[derive(Debug, Args)]
pub(crate) struct Ops {
    /// One operation: linear, qlinear, lora, rms_norm, rope, swiglu, attention, cached_attention, cross_entropy, token_scores or embedding; without it, all
    #[arg(long, value_name = "NAME")]
    op: Option<OpName>,
    /// Whose shapes: nano, small, story or gpt2; several with commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "nano,small,story")]
    workload: Vec<Workload>,
    /// Rows of the batch, instead of the workload's
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Tokens of a row, instead of the workload's
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Seconds for each of the six timings of an operation
    #[arg(long, value_name = "S", default_value_t = 0.3, allow_negative_numbers = true, value_parser = seconds)]
    seconds: f64,
    /// Tokens of the batch that is compared with f64 on the processor
    #[arg(long, value_name = "N", default_value_t = 1024)]
    check_tokens: usize,
    #[command(flatten)]
    threads: Threads,
    /// Dtype of the operands
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t = Precision::F32)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object a line, one for each operation and shape
    #[arg(long)]
    json: bool,
}

impl Ops {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        self.threads.set()?;
        let (device, name) = self.device.open()?;
        if !self.json {
            print(&heading())?;
        }
        for workload in &self.workload {
            let bench = OpsBench {
                workload: workload.with_batch(self.batch, self.context)?,
                op: self.op,
                dtype: self.precision.dtype(),
                seconds: self.seconds,
                check_tokens: self.check_tokens,
            };
            tell(&format!("{}: operations on {name} in {}", workload.name, self.precision.word()));
            measure(&bench, (&device, name), &mut |report| -> Result<(), Failure> {
                print(&if self.json { line(&report)? } else { plain(&report) })
            })?;
        }
        Ok(Exit::Done)
    }
}

fn heading() -> String {
    format!(
        "{:<8} {:<16} {:<24} {:>10} {:>11} {:>9} {:>7} {:>7} {:>9} {:>9}\n",
        "workload", "operation", "shape", "forward us", "training us", "rate", "ratio", "ratio", "error", "error"
    )
}

/// Times in microseconds, the rate in training, how many times as fast as composed (forward, training), the errors
/// (forward, backward). An operation of inference has `-` for training, and the rate of its forward.
fn plain(report: &OpReport) -> String {
    let flops = report.training_gflops.or(report.forward_gflops.filter(|_| report.training_seconds.is_none()));
    let bytes = report.training_gbps.or(report.forward_gbps.filter(|_| report.training_seconds.is_none()));
    let rate = match (flops, bytes) {
        (Some(gflops), _) => format!("{gflops:.0} GF/s"),
        (None, Some(gbps)) => format!("{gbps:.1} GB/s"),
        (None, None) => String::new(),
    };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    format!(
        "{:<8} {:<16} {:<24} {:>10.0} {:>11} {:>9} {:>7.2} {:>7} {:>9.1e} {:>9}\n",
        report.workload,
        report.op,
        report.shape,
        report.forward_seconds.median * 1e6,
        or_none(report.training_seconds.map(|seconds| format!("{:.0}", seconds.median * 1e6))),
        rate,
        report.forward_ratio,
        or_none(report.training_ratio.map(|ratio| format!("{ratio:.2}"))),
        report.forward_error,
        or_none(report.backward_error.map(|error| format!("{error:.1e}")))
    )
}
