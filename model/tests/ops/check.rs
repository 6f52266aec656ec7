//! What an op is held to: its composed form, finite differences, frozen operands, bfloat16.

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::rng::rng;
use half::bf16;

/// Devices that every test runs on.
pub(crate) fn devices() -> Vec<Device> {
    [Device::flex()].into_iter().chain(software_gpu()).collect()
}

#[cfg(feature = "gpu")]
fn software_gpu() -> Option<Device> {
    Some(Device::wgpu(burn::tensor::DeviceKind::Cpu))
}

#[cfg(not(feature = "gpu"))]
fn software_gpu() -> Option<Device> {
    None
}

/// A function of flat operands; it gives them their shapes itself.
pub(crate) type Function<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

/// An op under test, with differentiable operands only: constants are captured by the functions.
pub(crate) struct Op<'a> {
    pub(crate) name: String,
    /// Elements of each operand.
    pub(crate) lengths: Vec<usize>,
    pub(crate) run: Function<'a>,
    /// The same formula in Burn's own differentiable operations.
    pub(crate) composed: Function<'a>,
}

/// How an operand enters the graph.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tracking {
    Tracked,
    /// On the autodiff device, without a wish for a gradient.
    Frozen,
    /// Not on the autodiff device at all.
    Plain,
}

struct Outcome {
    value: Vec<f32>,
    gradients: Vec<Option<Vec<f32>>>,
    dtypes: Vec<DType>,
}

/// Forward and backward against the composed form: another order of the same f32 operations.
pub(crate) const COMPOSED_TOLERANCE: f32 = 1e-5;
/// Central differences with a step of 1/64: their truncation error is about step^2 / 6 = 4e-5 times a third
/// derivative, the rounding of f32 outputs about 1e-7 * 64.
const DIFFERENCE_TOLERANCE: f64 = 1e-3;
const STEP: f32 = 1.0 / 64.0;
/// Elements of each operand that are moved; small operands are moved in every element.
const SPOTS: usize = 12;
/// bfloat16 keeps 8 bits: half an ulp is 2^-9 of a value, and a few roundings follow one another.
const BF16_TOLERANCE: f32 = 1.0 / 64.0;

/// Holds `op` to its composed form, finite differences, and the rules for frozen operands.
pub(crate) fn check(op: &Op<'_>, device: &Device) {
    let inputs = random_inputs(op);
    let plain = values((op.run)(&tensors(&inputs, DType::F32, device)));
    let cotangent = normals(&format!("{} cotangent", op.name), plain.len());
    let all = vec![Tracking::Tracked; inputs.len()];
    let ours = outcome(op.run, &inputs, &all, &cotangent, DType::F32, device);
    let composed = outcome(op.composed, &inputs, &all, &cotangent, DType::F32, device);
    assert_same(&ours.value, &plain, &format!("{}: tracked forward", op.name), device);
    let forward = relative(&plain, &composed.value);
    let (mut backward, mut differences) = (0.0f32, 0.0f64);
    for (i, (ours, composed)) in ours.gradients.iter().zip(&composed.gradients).enumerate() {
        let (ours, composed) = (ours.as_ref().unwrap(), composed.as_ref().unwrap());
        backward = backward.max(relative(ours, composed));
        differences = differences.max(difference_error(op, &inputs, i, ours, &cotangent, device));
    }
    println!(
        "{:44} forward {forward:.1e}, backward {backward:.1e}, finite differences {differences:.1e}",
        op.name
    );
    assert!(forward < COMPOSED_TOLERANCE, "{}: forward is off by {forward}", op.name);
    assert!(backward < COMPOSED_TOLERANCE, "{}: backward is off by {backward}", op.name);
    assert!(differences < DIFFERENCE_TOLERANCE, "{}: differences are off by {differences}", op.name);
    check_frozen(op, &inputs, &cotangent, &ours, device);
}

/// Each operand alone tracked gets the gradient it gets among tracked ones, and the others get none.
fn check_frozen(op: &Op<'_>, inputs: &[Vec<f32>], cotangent: &[f32], full: &Outcome, device: &Device) {
    if inputs.len() < 2 {
        return;
    }
    for others in [Tracking::Frozen, Tracking::Plain] {
        for alone in 0..inputs.len() {
            let mut tracking = vec![others; inputs.len()];
            tracking[alone] = Tracking::Tracked;
            let part = outcome(op.run, inputs, &tracking, cotangent, DType::F32, device);
            for (i, gradient) in part.gradients.iter().enumerate() {
                let line = format!("{}: operand {i}, {alone} tracked, {others:?}", op.name);
                match gradient {
                    Some(gradient) if i == alone => {
                        assert_same(gradient, full.gradients[i].as_ref().unwrap(), &line, device);
                    }
                    other => assert!(i != alone && other.is_none(), "{line}"),
                }
            }
        }
    }
}

/// Holds `op` on bfloat16 operands to the f32 result on the same values; `output` is the dtype it must give.
pub(crate) fn check_bf16(op: &Op<'_>, output: DType, device: &Device) {
    if !device.supports_dtype(DType::BF16) {
        println!("{}: bfloat16 is not supported on {device:?}", op.name);
        return;
    }
    let mut inputs = random_inputs(op);
    inputs.iter_mut().flatten().for_each(|x| *x = bf16::from_f32(*x).to_f32());
    let result = (op.run)(&tensors(&inputs, DType::BF16, device));
    assert_eq!(result.dtype(), output, "{}: dtype of the result", op.name);
    let mut cotangent = normals(&format!("{} cotangent", op.name), result.dims()[0]);
    cotangent.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
    let all = vec![Tracking::Tracked; inputs.len()];
    let exact = outcome(op.run, &inputs, &all, &cotangent, DType::F32, device);
    let half = outcome(op.run, &inputs, &all, &cotangent, DType::BF16, device);
    let forward = relative(&half.value, &exact.value);
    let pairs = half.gradients.iter().zip(&exact.gradients);
    let errors = pairs.map(|(a, b)| relative(a.as_ref().unwrap(), b.as_ref().unwrap()));
    let backward = errors.fold(0.0, f32::max);
    println!("{:44} bf16 forward {forward:.1e}, backward {backward:.1e}", op.name);
    assert!(forward < BF16_TOLERANCE, "{}: bf16 forward is off by {forward}", op.name);
    assert!(backward < BF16_TOLERANCE, "{}: bf16 backward is off by {backward}", op.name);
    assert!(half.dtypes.iter().all(|d| *d == DType::BF16), "{}: {:?}", op.name, half.dtypes);
}

/// Value and gradients of `sum(f(inputs) * cotangent)`.
fn outcome(
    f: Function<'_>,
    inputs: &[Vec<f32>],
    tracking: &[Tracking],
    cotangent: &[f32],
    dtype: DType,
    device: &Device,
) -> Outcome {
    let leaves: Vec<_> = tensors(inputs, dtype, device)
        .into_iter()
        .zip(tracking)
        .map(|(leaf, tracking)| match tracking {
            Tracking::Tracked => leaf.autodiff().require_grad(),
            Tracking::Frozen => leaf.autodiff(),
            Tracking::Plain => leaf,
        })
        .collect();
    let y = f(&leaves);
    let value = values(y.clone());
    let weights = tensor(cotangent, DType::F32, device).autodiff();
    let grads = (y.cast(DType::F32) * weights).sum().backward();
    let gradients: Vec<_> = leaves.iter().map(|leaf| leaf.grad(&grads)).collect();
    let dtypes = gradients.iter().flatten().map(|g| g.dtype()).collect();
    Outcome { value, gradients: gradients.into_iter().map(|g| g.map(values)).collect(), dtypes }
}

/// Largest error of operand `i`'s gradient against central differences, relative to the largest entry.
fn difference_error(
    op: &Op<'_>,
    inputs: &[Vec<f32>],
    i: usize,
    gradient: &[f32],
    cotangent: &[f32],
    device: &Device,
) -> f64 {
    let n = inputs[i].len();
    let mut spots: Vec<usize> = (0..n).collect();
    rng(0, i as u64, &format!("{} spots", op.name)).shuffle(&mut spots);
    let mut moved = inputs.to_vec();
    let mut loss = |spot: usize, x: f32| {
        moved[i][spot] = x;
        let y = values((op.run)(&tensors(&moved, DType::F32, device)));
        moved[i][spot] = inputs[i][spot];
        y.iter().zip(cotangent).map(|(&y, &c)| f64::from(y) * f64::from(c)).sum::<f64>()
    };
    let scale = f64::from(largest(gradient).max(1.0));
    let errors = spots.into_iter().take(SPOTS).map(|spot| {
        let (high, low) = (inputs[i][spot] + STEP, inputs[i][spot] - STEP);
        let slope = (loss(spot, high) - loss(spot, low)) / f64::from(high - low);
        (slope - f64::from(gradient[spot])).abs() / scale
    });
    errors.fold(0.0, f64::max)
}

fn random_inputs(op: &Op<'_>) -> Vec<Vec<f32>> {
    let one = |(i, &n): (usize, &usize)| normals(&format!("{} operand {i}", op.name), n);
    op.lengths.iter().enumerate().map(one).collect()
}

/// `n` normal numbers that belong to `name`.
pub(crate) fn normals(name: &str, n: usize) -> Vec<f32> {
    let mut random = rng(0, 0, name);
    (0..n).map(|_| random.normal_f32()).collect()
}

fn tensors(inputs: &[Vec<f32>], dtype: DType, device: &Device) -> Vec<Tensor<1>> {
    inputs.iter().map(|x| tensor(x, dtype, device)).collect()
}

/// Values -> x_n in `dtype`.
pub(crate) fn tensor(values: &[f32], dtype: DType, device: &Device) -> Tensor<1> {
    let data = TensorData::new(values.to_vec(), [values.len()]);
    let x: Tensor<1> = Tensor::from_data(data, (device, DType::F32));
    x.cast(dtype)
}

/// The values in f32, in order.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_to_vec::<f32>().unwrap()
}

/// Largest difference, relative to the largest entry of `b` or 1.
pub(crate) fn relative(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    // A plain maximum would pass over NaN.
    assert!(a.iter().chain(b).all(|x| x.is_finite()), "a value is not finite");
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest(b).max(1.0)
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// Requires two runs of one computation to agree: bit for bit on the processor; a GPU may choose other
/// kernels.
pub(crate) fn assert_same(a: &[f32], b: &[f32], what: &str, device: &Device) {
    let difference = relative(a, b);
    let allowed = if *device == Device::flex() { 0.0 } else { COMPOSED_TOLERANCE };
    assert!(difference <= allowed, "{what}: two runs differ by {difference}");
}

/// Requires `found` to be `expected` to a few ulps, relative to the larger of 1 and the value: WGSL allows
/// its logarithm an error of 2^-21.
#[track_caller]
pub(crate) fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{found:?} against {expected:?}");
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-6 * b.abs().max(1.0);
    assert!(found.iter().zip(expected).all(close), "{found:?} against {expected:?}");
}
