//! How fast memory is read, which is what bounds the decoding of one sequence.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{DType, Device, Tensor};
use fornax_model::Decoder;
use rayon::prelude::*;

/// Bytes that no cache holds.
const HOST_BYTES: usize = 512 << 20;
const DEVICE_BYTES: usize = 1 << 30;

/// Bytes per second that are read from the processor's memory with all threads, or from the device's: the best of five
/// passes over more than its caches hold. `None` where the device fails.
pub fn memory_rate(device: &Device, is_processor: bool) -> Option<f64> {
    let seconds = |pass: &mut dyn FnMut() -> Option<()>| {
        pass()?;
        let timed = (0..5).filter_map(|_| {
            let start = Instant::now();
            pass()?;
            Some(start.elapsed().as_secs_f64())
        });
        Some(timed.fold(f64::INFINITY, f64::min)).filter(|s| s.is_finite())
    };
    if is_processor {
        let words = vec![1u64; HOST_BYTES / 8];
        let chunk = words.len().div_ceil(4 * rayon::current_num_threads());
        let best = seconds(&mut || {
            let sums = words.par_chunks(chunk).map(|words| words.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
            black_box(sums.reduce(|| 0, u64::wrapping_add));
            Some(())
        })?;
        return Some(HOST_BYTES as f64 / best);
    }
    let values = Tensor::<1>::zeros([DEVICE_BYTES / 4], (device, DType::F32));
    // Read once and written once.
    let best = seconds(&mut || {
        let _sum = values.clone() + 1.0;
        device.sync().ok()
    })?;
    Some(2.0 * DEVICE_BYTES as f64 / best)
}

/// Bytes of weights that a pass reads: all of them, but of an embedding table that is not the head too only the rows of
/// its tokens, which are not counted.
pub fn weight_bytes(decoder: &Decoder) -> u64 {
    let config = decoder.config();
    let all = decoder.bytes() as u64;
    if config.tied {
        return all;
    }
    let table = decoder.parameters().into_iter().find(|(name, _, _)| name == fornax_model::decoder::EMBEDDING);
    all - table.map_or(0, |(_, _, x)| (x.dims()[0] * x.dtype().size()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::generate::random_model;
    use crate::bench::workload::WORKLOADS;

    #[test]
    fn memory_is_read_at_a_plausible_rate() {
        let rate = memory_rate(&Device::flex(), true).unwrap();
        assert!((1e8..1e13).contains(&rate), "{rate}");
    }

    #[test]
    fn an_embedding_that_is_not_the_head_is_not_read() {
        let device = Device::flex();
        let untied = random_model(&WORKLOADS[0], DType::F32, &device);
        assert_eq!(weight_bytes(&untied), 4 * (808_320 - 65 * 128));
        let half = random_model(&WORKLOADS[0], DType::BF16, &device);
        assert_eq!(weight_bytes(&half), 2 * (808_320 - 65 * 128));
    }
}
