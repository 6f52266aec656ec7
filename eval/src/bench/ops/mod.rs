//! Every operation of the model at the shapes of the workloads: its time beside its composed body and beside the same
//! formula in Burn's own differentiable tensors, and its distance from that formula in f64.

mod cases;
mod check;
mod clock;

use burn::tensor::{DType, Device, Tensor};
use fornax_base::rng::rng;
use fornax_model::device::DeviceName;
use fornax_model::ops::with_composed;
use serde::Serialize;

use super::{BenchError, PEER, Spread, Workload, dtype_word, threads};
use cases::{Case, Function, Functions, Work};
pub use cases::{OPS, OpName};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct OpsBench {
    /// Whose shapes.
    pub workload: Workload,
    /// One operation, or all.
    pub op: Option<OpName>,
    /// Dtype of the operands.
    pub dtype: DType,
    /// Seconds for each of the six timings of an operation.
    pub seconds: f64,
    /// Tokens of the batch that is compared with f64; as many as the timed batch has, at most.
    pub check_tokens: usize,
}

/// One operation at one shape.
#[derive(Debug, Clone, Serialize)]
pub struct OpReport {
    /// The program and its version.
    pub peer: &'static str,
    /// The operation.
    pub op: &'static str,
    /// The workload whose shape it is.
    pub workload: &'static str,
    /// The sizes, in words.
    pub shape: String,
    /// The device by its name on the command line.
    pub device: String,
    /// Threads of the processor that operations share.
    pub threads: usize,
    /// Dtype of the operands.
    pub dtype: &'static str,
    /// Seconds of the forward pass, without gradients.
    pub forward_seconds: Spread,
    /// Seconds of a forward pass that keeps what backward needs, and of backward; `None` of an operation of inference,
    /// here and below.
    pub training_seconds: Option<Spread>,
    /// The same of the composed body: no kernel of ours, but our backward. Devices without kernels run it anyway.
    pub composed_forward_seconds: Spread,
    /// The same in training.
    pub composed_training_seconds: Option<Spread>,
    /// The same formula in Burn's own differentiable tensors.
    pub burn_forward_seconds: Spread,
    /// The same in training.
    pub burn_training_seconds: Option<Spread>,
    /// How many times as fast as the composed body, forward.
    pub forward_ratio: f64,
    /// How many times as fast as the composed body, in training.
    pub training_ratio: Option<f64>,
    /// 10^9 operations per second, for those that are arithmetic.
    pub forward_gflops: Option<f64>,
    /// The same in training.
    pub training_gflops: Option<f64>,
    /// 10^9 bytes per second, each operand and result counted once, for those that are memory traffic.
    pub forward_gbps: Option<f64>,
    /// The same in training.
    pub training_gbps: Option<f64>,
    /// Tokens compared with f64.
    pub checked_tokens: usize,
    /// Greatest difference from the f64 result by the greatest value there.
    pub forward_error: f64,
    /// The same over the gradients of all operands.
    pub backward_error: Option<f64>,
}

/// Measures; each report is handed over when it is ready.
///
/// # Errors
/// [`BenchError`] when the device cannot compute in the dtype, fails, or the receiver does.
pub fn measure<E: From<BenchError>>(
    bench: &OpsBench,
    (device, name): (&Device, DeviceName),
    report: &mut dyn FnMut(OpReport) -> Result<(), E>,
) -> Result<(), E> {
    let OpsBench { workload, op, dtype, .. } = *bench;
    if !device.supports_dtype(dtype) {
        return Err(BenchError::Precision { device: name, dtype: dtype_word(dtype) }.into());
    }
    for case in cases::of(&workload).into_iter().filter(|case| op.is_none_or(|op| case.op == op)) {
        report(measure_one(bench, &case, device, name)?)?;
    }
    Ok(())
}

fn measure_one(bench: &OpsBench, case: &Case, device: &Device, name: DeviceName) -> Result<OpReport, BenchError> {
    let (errors, checked_tokens) = check::errors(case, bench, device)?;
    let operands = random_operands(case, bench.dtype, device);
    let Functions { run, plain } = case.functions(bench.dtype, device);
    let forward = |f: &Function| clock::time(bench.seconds, device, &mut || f(&operands));
    let training = |f: &Function| {
        let mut pass = || forward_and_backward(f, &operands);
        case.trains().then(|| clock::time(bench.seconds, device, &mut pass)).transpose()
    };
    let (forward_seconds, training_seconds) = (forward(&run)?, training(&run)?);
    let (composed_forward_seconds, composed_training_seconds) =
        with_composed(|| Ok::<_, BenchError>((forward(&run)?, training(&run)?)))?;
    let (burn_forward_seconds, burn_training_seconds) = (forward(&plain)?, training(&plain)?);
    let work = case.work(bench.dtype);
    let rate = |of: fn(&Work) -> Option<f64>, seconds: Option<Spread>| Some(of(&work)? / seconds?.median / 1e9);
    Ok(OpReport {
        peer: PEER,
        op: case.op.word(),
        workload: bench.workload.name,
        shape: case.shape(),
        device: name.to_string(),
        threads: threads(),
        dtype: dtype_word(bench.dtype),
        forward_seconds,
        training_seconds,
        composed_forward_seconds,
        composed_training_seconds,
        burn_forward_seconds,
        burn_training_seconds,
        forward_ratio: composed_forward_seconds.median / forward_seconds.median,
        training_ratio: composed_training_seconds.zip(training_seconds).map(|(c, t)| c.median / t.median),
        forward_gflops: rate(|work| work.forward_flops, Some(forward_seconds)),
        training_gflops: rate(|work| work.training_flops, training_seconds),
        forward_gbps: rate(|work| work.forward_bytes, Some(forward_seconds)),
        training_gbps: rate(|work| work.training_bytes, training_seconds),
        checked_tokens,
        forward_error: errors.forward,
        backward_error: errors.backward,
    })
}

/// Runs forward with every operand tracked, and backward from ones; gives the gradient of the last operand.
fn forward_and_backward(f: &Function, operands: &[Tensor<1>]) -> Tensor<1> {
    let tracked: Vec<Tensor<1>> = operands.iter().map(|x| x.clone().autodiff().require_grad()).collect();
    let mut gradients = f(&tracked).backward();
    let all = tracked.iter().filter_map(|x| x.grad_remove(&mut gradients));
    all.last().unwrap_or_else(|| operands[0].clone())
}

/// Normally distributed operands, the same for every device, in `dtype`.
fn random_operands(case: &Case, dtype: DType, device: &Device) -> Vec<Tensor<1>> {
    let lengths = case.lengths();
    let operand = |(i, n): (usize, usize)| {
        let mut random = rng(0, i as u64, "bench/operand");
        let deviation = case.deviation(i);
        let values: Vec<f32> = (0..n).map(|_| random.normal_f32() * deviation).collect();
        Tensor::<1>::from_data(values.as_slice(), (device, DType::F32)).cast(dtype)
    };
    lengths.into_iter().enumerate().map(operand).collect()
}

#[cfg(test)]
mod tests {
    use fornax_model::device::Kind;

    use super::*;
    use crate::bench::workload::WORKLOADS;

    #[test]
    fn every_operation_is_near_its_formula_in_f64() {
        let workload = WORKLOADS[0].with_batch(Some(3), Some(17)).unwrap();
        let bench = OpsBench { workload, op: None, dtype: DType::F32, seconds: 0.0, check_tokens: 34 };
        let (device, name) = (Device::flex(), DeviceName::Named(Kind::Cpu, 0));
        let mut seen = Vec::new();
        measure(&bench, (&device, name), &mut |report| -> Result<(), BenchError> {
            assert_eq!(report.checked_tokens, 34);
            assert!(report.forward_error < 1e-5 && report.backward_error.is_none_or(|e| e < 1e-5), "{report:?}");
            assert_eq!(report.backward_error.is_some(), report.op != "cached_attention");
            assert!(report.op == "embedding" || report.forward_error > 0.0, "f32 is not f64: {report:?}");
            assert!(report.forward_gflops.is_some() != report.forward_gbps.is_some());
            seen.push(report.op);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen.len(), OPS.len() + 2, "{seen:?}");
        assert!(OPS.iter().all(|op| seen.contains(&op.word())));
    }
}
