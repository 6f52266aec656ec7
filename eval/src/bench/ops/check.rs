//! An operation against its formula in f64 on the processor: values and gradients from the same operands.

use burn::tensor::{DType, Device, Tensor};
use fornax_base::rng::rng;

use super::cases::{Case, Function};
use super::{BenchError, OpsBench, random_operands};

/// Greatest differences, each by the greatest value of the f64 result.
pub(super) struct Errors {
    pub(super) forward: f64,
    /// `None` where there is no backward.
    pub(super) backward: Option<f64>,
}

/// The errors of `case` cut to the tokens that are checked, and how many those are.
pub(super) fn errors(case: &Case, bench: &OpsBench, device: &Device) -> Result<(Errors, usize), BenchError> {
    let case = case.cut(bench.check_tokens);
    let operands = random_operands(&case, bench.dtype, device);
    let host = Device::flex();
    // What the device really holds, after rounding to its dtype.
    let exact = operands.iter().map(|x| Ok(from_f64(&values(x.clone())?, &host)));
    let exact = exact.collect::<Result<Vec<_>, BenchError>>()?;
    let (run, plain) = (case.functions(bench.dtype, device).run, case.functions(DType::F64, &host).plain);
    if !case.trains() {
        let forward = relative(&values(run(&operands))?, &values(plain(&exact))?);
        return Ok((Errors { forward, backward: None }, case.tokens()));
    }
    let (ours, reference) = (outcome(&run, &operands)?, outcome(&plain, &exact)?);
    let forward = relative(&ours.0, &reference.0);
    let backward = ours.1.iter().zip(&reference.1).map(|(a, b)| relative(a, b)).fold(0.0, f64::max);
    Ok((Errors { forward, backward: Some(backward) }, case.tokens()))
}

/// The result, and the gradients of its product with a fixed cotangent.
fn outcome(f: &Function, operands: &[Tensor<1>]) -> Result<(Vec<f64>, Vec<Vec<f64>>), BenchError> {
    let tracked: Vec<Tensor<1>> = operands.iter().map(|x| x.clone().autodiff().require_grad()).collect();
    let y = f(&tracked);
    let mut random = rng(0, 0, "bench/cotangent");
    let cotangent: Vec<f64> = (0..y.dims()[0]).map(|_| f64::from(random.normal_f32())).collect();
    let cotangent = from_f64(&cotangent, &y.device().without_autodiff()).cast(y.dtype());
    let mut gradients = (y.clone() * cotangent).sum().backward();
    let gradients = tracked.iter().map(|x| match x.grad_remove(&mut gradients) {
        Some(gradient) => values(gradient),
        None => Ok(Vec::new()),
    });
    Ok((values(y)?, gradients.collect::<Result<_, _>>()?))
}

/// From f64 where the device has it, from f32 elsewhere.
fn from_f64(values: &[f64], device: &Device) -> Tensor<1> {
    match device.supports_dtype(DType::F64) {
        true => Tensor::from_data(values, (device, DType::F64)),
        false => {
            let single: Vec<f32> = values.iter().map(|&x| x as f32).collect();
            Tensor::from_data(single.as_slice(), (device, DType::F32))
        }
    }
}

fn values(x: Tensor<1>) -> Result<Vec<f64>, BenchError> {
    x.try_into_vec_as::<f64>().map_err(BenchError::device)
}

/// Not a number anywhere, or another length, is an infinite error.
fn relative(ours: &[f64], reference: &[f64]) -> f64 {
    if ours.len() != reference.len() || ours.iter().any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let largest = reference.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    let difference = ours.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    if difference == 0.0 { 0.0 } else { difference / largest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_greatest_value_and_infinite_for_what_is_no_number() {
        assert_eq!(relative(&[1.0, 2.5], &[1.0, 2.0]), 0.25);
        assert_eq!(relative(&[0.0], &[0.0]), 0.0);
        assert_eq!(relative(&[f64::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(relative(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }
}
