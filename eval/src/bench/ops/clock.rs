//! Time of something short, on devices that answer at once and on those that queue.

use std::time::Instant;

use burn::tensor::{DType, Device, Tensor};

use super::{BenchError, Spread};

/// A sample lasts at least this long: several runs of something shorter count as one sample.
const SAMPLE_SECONDS: f64 = 2e-3;
/// Samples taken at the least.
const FEWEST: usize = 5;
/// Samples taken at the most.
const MOST: usize = 400;

/// Seconds of one run of `body`, over about `seconds` of runs after two that are not counted.
pub(super) fn time(
    seconds: f64,
    device: &Device,
    body: &mut dyn FnMut() -> Tensor<1>,
) -> Result<Spread, BenchError> {
    let mut runs = |n: usize| -> Result<f64, BenchError> {
        let start = Instant::now();
        for _ in 1..n {
            drop(body());
        }
        wait(body(), device)?;
        Ok(start.elapsed().as_secs_f64() / n as f64)
    };
    runs(1)?;
    let estimate = runs(1)?;
    let together = (SAMPLE_SECONDS / estimate.max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
    let (start, mut sample) = (Instant::now(), Vec::new());
    while sample.len() < FEWEST || (sample.len() < MOST && start.elapsed().as_secs_f64() < seconds) {
        sample.push(runs(together)?);
    }
    Ok(Spread::of(&sample))
}

/// Reads one element, so that a lazy device must compute it, then waits for all that was queued.
fn wait(result: Tensor<1>, device: &Device) -> Result<(), BenchError> {
    result.slice(0..1).cast(DType::F32).try_into_vec_as::<f32>().map_err(BenchError::device)?;
    device.sync().map_err(BenchError::device)
}
