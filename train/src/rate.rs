//! How much of the hardware a step uses: the share of a measured matmul rate, and the model FLOPs
//! utilization on devices whose peak is published.

use std::time::Instant;

use burn::tensor::{DType, Device, Int, Tensor};

/// Sides of the measured square matrices: from one that fills a processor to one that fills a large GPU.
const SIDES: [usize; 4] = [1024, 2048, 4096, 8192];
/// A product that takes this long is large enough: its rate is the hardware's, not that of starting it.
const LONG_ENOUGH: f64 = 3e-3;

/// Floating-point operations per second of a square matrix product in `dtype` on `device`: the best of three
/// after a warm-up, in which kernels are compiled, of matrices large enough for the device.
///
/// Returns `None` when the device cannot multiply in this dtype.
pub fn matmul_rate(device: &Device, dtype: DType) -> Option<f64> {
    if !device.supports_dtype(dtype) {
        return None;
    }
    let mut rate = None;
    for side in SIDES {
        let seconds = matmul_seconds(side, device, dtype)?;
        rate = Some(2.0 * (side as f64).powi(3) / seconds);
        if seconds >= LONG_ENOUGH {
            break;
        }
    }
    rate
}

fn matmul_seconds(side: usize, device: &Device, dtype: DType) -> Option<f64> {
    // No constant: equal values cost a GPU less power, and so let it run faster than data does.
    let counted = Tensor::<1, Int>::arange(0..(side * side) as i64, device).float();
    let a = counted.sin().reshape([side, side]).cast(dtype);
    let multiply = || {
        let start = Instant::now();
        let product = a.clone().matmul(a.clone());
        product.slice([0..1, 0..1]).cast(DType::F32).try_into_scalar::<f32>().ok()?;
        Some(start.elapsed().as_secs_f64())
    };
    multiply()?;
    let best = (0..3).filter_map(|_| multiply()).fold(f64::INFINITY, f64::min);
    best.is_finite().then_some(best)
}

/// Published dense peak rates, operations per second: (part of the device's name, f32 rate, 16-bit rate).
/// NVIDIA's data sheets of 2020 to 2024; a device not listed has no utilization rather than a guessed one.
const PEAKS: &[(&str, f64, f64)] = &[
    ("H200", 67e12, 989e12),
    ("H100 PCIe", 51e12, 756e12),
    ("H100", 67e12, 989e12),
    ("A100", 19.5e12, 312e12),
    ("L40S", 91.6e12, 362e12),
    ("L4", 30.3e12, 121e12),
    ("RTX 4090", 82.6e12, 165e12),
    ("RTX 3090", 35.6e12, 71e12),
];

/// The published peak of a device by its driver's name.
pub fn published_peak(description: &str, dtype: DType) -> Option<f64> {
    let (_, single, half) = PEAKS.iter().find(|(part, _, _)| description.contains(part))?;
    Some(if dtype == DType::F32 { *single } else { *half })
}

/// Bytes of memory this process holds on the host, where the system tells.
pub fn resident_bytes() -> Option<u64> {
    process_memory("VmRSS:")
}

/// The most bytes of memory this process ever held on the host, where the system tells.
pub fn peak_resident_bytes() -> Option<u64> {
    process_memory("VmHWM:")
}

fn process_memory(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_multiplies_at_a_plausible_rate() {
        let rate = matmul_rate(&Device::flex(), DType::F32).unwrap();
        assert!((1e8..1e14).contains(&rate), "{rate}");
    }

    #[test]
    fn peaks_are_found_by_name_and_never_guessed() {
        assert_eq!(published_peak("NVIDIA H200", DType::BF16), Some(989e12));
        assert_eq!(published_peak("NVIDIA H100 PCIe", DType::BF16), Some(756e12));
        assert_eq!(published_peak("llvmpipe", DType::F32), None);
    }
}
