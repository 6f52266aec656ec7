//! Training steps of a workload: the real step, with the real optimizer, on one batch again and again; of the whole
//! model, or of a low-rank adapter over a frozen base, dense or packed.

use std::time::Instant;

use burn::tensor::{DType, Device};
use fornax_model::Decoder;
use fornax_model::adapter::{AdapterConfig, Targets};
use fornax_model::device::DeviceName;
use fornax_model::packed::{Codes, Packing};
use fornax_train::gate::GradientGate;
use fornax_train::optimizer::Optimizer;
use fornax_train::rate;
use fornax_train::recipe::{OptimizerKind, OptimizerRecipe};
use fornax_train::step::{BatchLoss, train_step};
use serde::Serialize;

use super::{BenchError, PEER, Spread, Workload, dtype_word, mebibytes, threads};

/// Steps that are timed at the least, however long they take.
const FEWEST_STEPS: u64 = 3;

/// PyTorch's defaults, which the peer's script keeps, with its learning rate. No clipping, as there; the global norm
/// is computed all the same, because the gate of the real step needs it.
fn optimizer() -> OptimizerRecipe {
    OptimizerRecipe {
        beta1: 0.9,
        beta2: Some(0.999),
        eps: Some(1e-8),
        weight_decay: 0.01,
        clip_norm: 0.0,
        ..OptimizerRecipe::new(OptimizerKind::AdamW, LR)
    }
}

/// Learning rate of the peer's script.
const LR: f64 = 3e-4;

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Until {
    /// After so many timed steps.
    Steps(u64),
    /// When so many seconds of timed steps have passed, and at least three steps.
    Seconds(f64),
}

/// What learns, and from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every parameter, from next tokens.
    Full,
    /// A low-rank adapter on every linear layer of the blocks.
    Lora,
    /// The same over a packed base.
    Qlora,
    /// An adapter, from pairs: half of the rows chosen, half rejected, the reference the model without its adapter.
    Dpo,
}

impl Mode {
    /// Its name on the command line and in reports.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Full => "full",
            Mode::Lora => "lora",
            Mode::Qlora => "qlora",
            Mode::Dpo => "dpo",
        }
    }
}

/// How a base is packed in [`Mode::Qlora`].
const PACKING: Packing = Packing::usual(Codes::Int4);

/// What to measure.
#[derive(Clone, Copy)]
pub struct TrainBench<'a> {
    /// Model and batch.
    pub workload: Workload,
    /// Dtype of the matrix products; parameters and optimizer stay in f32.
    pub dtype: DType,
    /// Steps before the clock: kernels are compiled and tuned in them.
    pub warmup_steps: u64,
    /// When to stop.
    pub until: Until,
    /// What learns.
    pub mode: Mode,
    /// Rank of the adapters; alpha is twice as much.
    pub rank: usize,
    /// The loss of a batch.
    pub loss: BatchLoss<'a>,
}

/// What was measured. Field names are the peers' where they measure the same.
#[derive(Debug, Clone, Serialize)]
pub struct TrainReport {
    /// The program and its version.
    pub peer: &'static str,
    /// The workload.
    pub workload: &'static str,
    /// The device by its name on the command line.
    pub device: String,
    /// The device as its driver calls it.
    pub device_description: String,
    /// Threads of the processor that operations share.
    pub threads: usize,
    /// Dtype of the matrix products.
    pub dtype: &'static str,
    /// What learned: full, lora, qlora or dpo.
    pub mode: &'static str,
    /// Parameters of the model.
    pub params: u64,
    /// Parameters that learned.
    pub trainable_params: u64,
    /// How the base is packed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed: Option<String>,
    /// Rows of the batch.
    pub batch: usize,
    /// Tokens of a row.
    pub context: usize,
    /// `batch * context`.
    pub tokens_per_step: usize,
    /// Untimed steps.
    pub warmup_steps: u64,
    /// How long those took.
    pub warmup_seconds: f64,
    /// Timed steps.
    pub steps: u64,
    /// How long those took.
    pub seconds: f64,
    /// Tokens of all timed steps by their time.
    pub tokens_per_second: f64,
    /// The same of each step.
    pub tokens_per_second_by_step: Spread,
    /// Loss of the last step, before its update.
    pub loss: f64,
    /// Most memory the process ever held, in MiB; `None` where the system does not tell.
    pub peak_rss_mb: Option<u64>,
    /// Memory the device's pool has reserved, in MiB; `None` on the processor.
    pub device_pool_mb: Option<u64>,
    /// Measured rate of a matrix product in this dtype, 10^9 operations per second.
    pub matmul_gflops: Option<f64>,
    /// Share of that rate which the model's own arithmetic reached.
    pub matmul_share: Option<f64>,
    /// Share of the published peak rate, for devices that have one.
    pub mfu: Option<f64>,
}

/// Measures; `progress` hears a line when warm-up begins and ends.
///
/// # Errors
/// [`BenchError`] when the device cannot compute in the dtype or a step fails.
pub fn measure(
    bench: &TrainBench<'_>,
    (device, name): (&Device, DeviceName),
    progress: &mut dyn FnMut(&str),
) -> Result<TrainReport, BenchError> {
    let TrainBench { workload, dtype, warmup_steps, until, mode, .. } = *bench;
    if !device.supports_dtype(dtype) {
        return Err(BenchError::Precision { device: name, dtype: dtype_word(dtype) });
    }
    let config = workload.config(workload.context);
    let (params, flops) = (config.n_parameters(), config.training_flops_per_token(workload.context));
    progress(&format!(
        "{}: {params} parameters, {} x {} tokens a step",
        workload.name, workload.batch, workload.context
    ));
    let mut steps = Steps::new(bench, device);
    let trainable_params = steps.decoder.parameter_counts().0;
    let started = Instant::now();
    for _ in 0..warmup_steps {
        steps.take()?;
    }
    steps.wait()?;
    let warmup_seconds = started.elapsed().as_secs_f64();
    progress(&format!("{}: {warmup_steps} steps to warm up took {warmup_seconds:.2} s", workload.name));
    let (durations, seconds) = steps.timed(until)?;
    let loss = steps.loss;
    // Before anything else asks for memory.
    let peak_rss_mb = rate::peak_resident_bytes().map(mebibytes);
    let device_pool_mb = device.memory_pool_usage().map(|usage| mebibytes(usage.bytes_reserved));
    drop(steps);
    let tokens_per_step = workload.tokens_per_step();
    let tokens_per_second = (tokens_per_step * durations.len()) as f64 / seconds;
    let matmul = rate::matmul_rate(device, dtype);
    let description = fornax_model::device::describe(name, device);
    let used = flops * tokens_per_second;
    Ok(TrainReport {
        peer: PEER,
        workload: workload.name,
        device: name.to_string(),
        threads: threads(),
        dtype: dtype_word(dtype),
        mode: mode.word(),
        params,
        trainable_params,
        packed: (mode == Mode::Qlora)
            .then(|| format!("{} in blocks of {}", PACKING.codes().word(), PACKING.block())),
        batch: workload.batch,
        context: workload.context,
        tokens_per_step,
        warmup_steps,
        warmup_seconds,
        steps: durations.len() as u64,
        seconds,
        tokens_per_second,
        tokens_per_second_by_step: Spread::of(&durations).rate(tokens_per_step as f64),
        loss,
        peak_rss_mb,
        device_pool_mb,
        matmul_gflops: matmul.map(|rate| rate / 1e9),
        matmul_share: matmul.map(|rate| used / rate),
        mfu: rate::published_peak(&description, dtype).map(|peak| used / peak),
        device_description: description,
    })
}

/// A model in training on one batch.
struct Steps<'a> {
    device: &'a Device,
    decoder: Decoder,
    optimizer: Optimizer,
    gate: GradientGate,
    batches: [fornax_data::batches::Batch; 1],
    objective: BatchLoss<'a>,
    loss: f64,
}

impl<'a> Steps<'a> {
    fn new(bench: &TrainBench<'a>, device: &'a Device) -> Self {
        let TrainBench { workload, dtype, mode, rank, loss, .. } = *bench;
        let config = workload.config(workload.context);
        let mut decoder = match mode {
            Mode::Qlora => Decoder::init_packed(&config, 0, PACKING, device),
            _ => Decoder::init(&config, 0, device),
        };
        if mode != Mode::Full {
            let adapter = AdapterConfig::lora(rank, 2.0 * rank as f64, Targets::AllLinear);
            // A name and targets that every model has.
            let attached = decoder.attach("default", adapter, 0);
            attached.unwrap_or_else(|error| unreachable!("{error}"));
        }
        let mut decoder = decoder.trainable(true);
        decoder.set_compute(dtype);
        Self {
            objective: loss,
            device,
            decoder,
            optimizer: Optimizer::new(&optimizer()),
            gate: GradientGate::default(),
            batches: [workload.random_batch()],
            loss: 0.0,
        }
    }

    fn take(&mut self) -> Result<(), BenchError> {
        let Self { decoder, optimizer, gate, batches, objective, .. } = self;
        let report = train_step(decoder, optimizer, gate, *objective, batches, LR, 0.0)?;
        self.loss = report.loss;
        Ok(())
    }

    /// Until the device has done all it was given.
    fn wait(&self) -> Result<(), BenchError> {
        self.device.sync().map_err(BenchError::device)
    }

    /// The seconds of each step and of all together.
    fn timed(&mut self, until: Until) -> Result<(Vec<f64>, f64), BenchError> {
        let (started, mut durations) = (Instant::now(), Vec::new());
        loop {
            let step = Instant::now();
            self.take()?;
            self.wait()?;
            durations.push(step.elapsed().as_secs_f64());
            let (taken, seconds) = (durations.len() as u64, started.elapsed().as_secs_f64());
            let done = match until {
                Until::Steps(steps) => taken >= steps,
                Until::Seconds(limit) => seconds >= limit && taken >= FEWEST_STEPS,
            };
            if done {
                return Ok((durations, seconds));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fornax_model::device::Kind;

    use fornax_train::step::next_token;

    use super::*;
    use crate::bench::workload::WORKLOADS;

    #[test]
    fn a_measurement_trains_and_counts_what_it_timed() {
        let workload = WORKLOADS[0].with_batch(Some(2), Some(8)).unwrap();
        let (device, name) = (Device::flex(), DeviceName::Named(Kind::Cpu, 0));
        let measured = |steps: u64, mode| {
            let until = Until::Steps(steps);
            let bench = TrainBench {
                workload,
                dtype: DType::F32,
                warmup_steps: 1,
                until,
                mode,
                rank: 4,
                loss: &next_token,
            };
            measure(&bench, (&device, name), &mut |_| {}).unwrap()
        };
        let (few, more) = (measured(2, Mode::Full), measured(30, Mode::Full));
        assert_eq!((few.steps, few.tokens_per_step, few.params), (2, 16, 808_320));
        assert!((few.tokens_per_second * few.seconds - 32.0).abs() < 1e-6);
        // One batch again and again is learned by heart.
        assert!(more.loss < few.loss && few.loss < 5.0, "{} after {}", more.loss, few.loss);
        assert!(more.peak_rss_mb > Some(10) && more.device_pool_mb.is_none(), "{more:?}");
        assert_eq!((more.trainable_params, more.packed), (808_320, None));
        for mode in [Mode::Lora, Mode::Qlora] {
            let adapted = measured(2, mode);
            // 4 times 4 x (128 + 128) and 3 times 4 x (128 + 344), in 4 blocks.
            assert_eq!((adapted.params, adapted.trainable_params), (808_320, 39_040), "{mode:?}");
            assert_eq!(adapted.packed.is_some(), mode == Mode::Qlora);
        }
    }
}
