//! `fornax bench train`: training steps of fixed shapes.

use std::process::Command;

use clap::Args;
use fornax_base::exit::Exit;
use fornax_data::batches::Batch;
use fornax_data::examples::{Example, Pair};
use fornax_eval::bench::Workload;
use fornax_eval::bench::train::{Mode, TrainBench, TrainReport, Until, measure};
use fornax_model::Decoder;
use fornax_post_train::dpo::DpoRecipe;
use fornax_post_train::pairs::PairBatch;
use fornax_post_train::preference::{Counts, PairLoss};
use fornax_train::step::{LossTerm, next_token};

use super::super::DeviceArgument;
use super::super::report::{Failure, print};
use super::{Precision, Threads, line, seconds, tell};

/// Tokens per second of training steps
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// What to train: nano, small, story, gpt2 or m134; several, with commas, run one after the other, each in a
    /// process of its own, because peak memory belongs to a process
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "nano,small,story")]
    workload: Vec<Workload>,
    /// What learns: the whole model; an adapter (lora); an adapter over an int4 base (qlora); an adapter, from pairs,
    /// half of the rows chosen and half rejected (dpo)
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Learns::Full)]
    mode: Learns,
    /// Rank of the adapters; alpha is twice as much
    #[arg(long, value_name = "R", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    rank: u16,
    /// Time for so many seconds, and at least three steps
    #[arg(long, value_name = "S", default_value_t = 8.0, allow_negative_numbers = true, value_parser = seconds)]
    seconds: f64,
    /// Time exactly so many steps instead
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Steps before the clock starts
    #[arg(long, value_name = "N", default_value_t = 3)]
    warmup: u64,
    #[command(flatten)]
    threads: Threads,
    /// Dtype of the matrix products
    #[arg(long, value_enum, value_name = "DTYPE", default_value_t = Precision::F32)]
    precision: Precision,
    /// Rows of the batch, instead of the workload's
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Tokens of a row, instead of the workload's
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    #[command(flatten)]
    device: DeviceArgument,
    /// Print one JSON object a line, one for each workload
    #[arg(long)]
    json: bool,
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Learns {
    Full,
    Lora,
    Qlora,
    Dpo,
}

impl Learns {
    fn mode(self) -> Mode {
        match self {
            Learns::Full => Mode::Full,
            Learns::Lora => Mode::Lora,
            Learns::Qlora => Mode::Qlora,
            Learns::Dpo => Mode::Dpo,
        }
    }
}

/// A row of which every input has a target, the last one the opening token.
fn whole(row: &[u32]) -> Example {
    let ids: Vec<u32> = row.iter().chain(row.first()).copied().collect();
    Example { trained: vec![true; ids.len()], ids, row: 0 }
}

/// DPO's sigmoid loss with every token of a row its completion; the earlier half of the rows is chosen.
fn pairs_of_rows(decoder: &Decoder, batch: &Batch) -> LossTerm {
    let loss = PairLoss::Dpo(DpoRecipe::default());
    let rows: Vec<Example> = batch.inputs.chunks(batch.columns).map(whole).collect();
    let (chosen, rejected) = rows.split_at(rows.len() / 2);
    let pair =
        |(chosen, rejected): (&Example, &Example)| Pair { chosen: chosen.clone(), rejected: rejected.clone() };
    let pairs: Vec<Pair> = chosen.iter().zip(rejected).map(pair).collect();
    let pairs = PairBatch::new(&pairs.iter().collect::<Vec<_>>());
    let reference = pairs.logps(&decoder.without_adapters());
    loss.term(decoder, &pairs, Some(reference), Counts::of(&loss, [&pairs]))
}

impl Train {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let workload = match self.workload[..] {
            [workload] => workload.with_batch(self.batch, self.context)?,
            _ => return self.each_by_itself(),
        };
        self.threads.set()?;
        let (device, name) = self.device.open()?;
        let until = self.steps.map_or(Until::Seconds(self.seconds), Until::Steps);
        let mode = self.mode.mode();
        if mode == Mode::Dpo && !workload.batch.is_multiple_of(2) {
            let message = format_args!("pairs take an even number of rows, the batch has {}", workload.batch);
            return Err(Failure::input(message).hint("give it with --batch"));
        }
        let bench = TrainBench {
            workload,
            dtype: self.precision.dtype(),
            warmup_steps: self.warmup,
            until,
            mode,
            rank: usize::from(self.rank),
            loss: if mode == Mode::Dpo { &pairs_of_rows } else { &next_token },
        };
        let report = measure(&bench, (&device, name), &mut tell)?;
        print(&if self.json { line(&report)? } else { plain(&report) })?;
        Ok(Exit::Done)
    }

    /// Runs this program once for each workload, with the same flags; the children print.
    fn each_by_itself(&self) -> Result<Exit, Failure> {
        for workload in &self.workload {
            workload.with_batch(self.batch, self.context)?;
        }
        self.device.open()?;
        let program = std::env::current_exe().map_err(|error| Failure::new(Exit::Failed, error))?;
        for workload in &self.workload {
            let mut child = Command::new(&program);
            let status = child.args(self.arguments_for(workload)).status();
            let status = status.map_err(|error| Failure::new(Exit::Failed, error))?;
            if !status.success() {
                return Err(Failure::new(
                    Exit::Failed,
                    anyhow::anyhow!("the process that measured `{}` ended with {status}", workload.name),
                ));
            }
        }
        Ok(Exit::Done)
    }

    fn arguments_for(&self, workload: &Workload) -> Vec<String> {
        let mut all = vec!["bench".to_string(), "train".to_string()];
        let mut add = |flag: &str, value: Option<String>| {
            all.extend(value.into_iter().flat_map(|value| [flag.to_string(), value]));
        };
        add("--workload", Some(workload.name.to_string()));
        add("--mode", Some(self.mode.mode().word().to_string()));
        add("--rank", Some(self.rank.to_string()));
        match self.steps {
            Some(steps) => add("--steps", Some(steps.to_string())),
            None => add("--seconds", Some(self.seconds.to_string())),
        }
        add("--warmup", Some(self.warmup.to_string()));
        add("--threads", self.threads.threads.map(|n| n.to_string()));
        add("--precision", Some(self.precision.word().to_string()));
        add("--batch", self.batch.map(|n| n.to_string()));
        add("--context", self.context.map(|n| n.to_string()));
        add("--device", Some(self.device.name().to_string()));
        all.extend(self.json.then(|| "--json".to_string()));
        all
    }
}

/// One line for people.
fn plain(report: &TrainReport) -> String {
    let rate = report.tokens_per_second_by_step;
    let mut text = format!(
        "{:<6} {:<5} {:>9.0} tokens/s (by step: median {:.0}, p10 {:.0}, p90 {:.0}; {} steps)",
        report.workload, report.mode, report.tokens_per_second, rate.median, rate.p10, rate.p90, report.steps
    );
    if let Some(mebibytes) = report.peak_rss_mb {
        text += &format!(", peak {mebibytes} MiB");
    }
    if let Some(mebibytes) = report.device_pool_mb {
        text += &format!(", device pool {mebibytes} MiB");
    }
    if let (Some(share), Some(rate)) = (report.matmul_share, report.matmul_gflops) {
        text += &format!(", {:.0} % of {rate:.0} GFLOP/s", share * 100.0);
    }
    if let Some(mfu) = report.mfu {
        text += &format!(", MFU {:.1} %", mfu * 100.0);
    }
    text + &format!(", {} {}\n", report.device, report.dtype)
}
