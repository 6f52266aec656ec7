//! One optimizer step: forward and backward of every micro-batch, gate, clip, update.
//!
//! Shapes: b rows, t tokens of a row, n elements of a parameter.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_data::batches::Batch;
use fornax_model::{Decoder, Layout, ops, token_tensor};

use crate::error::TrainError;
use crate::gate::{GradientGate, GradientNorm};
use crate::objective::Metrics;
pub use crate::objective::{LossTerm, Metric};
use crate::optimizer::Optimizer;

/// A loss as a function of the model and a micro-batch of tokens.
pub type BatchLoss<'a> = &'a dyn Fn(&Decoder, &Batch) -> LossTerm;

/// The pretraining objective: next-token cross-entropy over the targets whose mask is true.
pub fn next_token(decoder: &Decoder, batch: &Batch) -> LossTerm {
    next_token_with_z(decoder, batch, 0.0)
}

/// As [`next_token`], with `z_loss * log(Z)^2` added to the loss of each target: it holds the sum of the
/// exponentials of the logits near 1, where nothing else does (PaLM, arXiv:2204.02311).
pub fn next_token_with_z(decoder: &Decoder, batch: &Batch, z_loss: f64) -> LossTerm {
    let device = decoder.device();
    let hidden = decoder.forward(tokens(&batch.inputs, batch, &device), &layout(batch, &device), None);
    let mask: Vec<f32> = batch.mask.iter().map(|&trained| f32::from(trained)).collect();
    let weights = Tensor::from_data(TensorData::new(mask, [batch.rows, batch.columns]), (&device, DType::F32));
    let targets = tokens(&batch.targets, batch, &device);
    let (loss_sum, z) = decoder.loss_with_z(hidden, targets, weights, z_loss as f32);
    LossTerm { unreported: (z_loss != 0.0).then_some(z), ..LossTerm::new(loss_sum, batch.n_targets() as f64) }
}

/// Where the tokens of a batch stand.
pub fn layout(batch: &Batch, device: &Device) -> Layout {
    match &batch.documents {
        Some(documents) => Layout::packed(&batch.positions, documents, batch.rows, device),
        None => Layout::contiguous(0, batch.columns, device),
    }
}

/// Token ids of a batch, row by row -> (rows, columns).
pub fn tokens(ids: &[u32], batch: &Batch, device: &Device) -> Tensor<2, burn::tensor::Int> {
    token_tensor(ids, batch.rows, device)
}

/// What a step did.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Mean loss over the step's weight, before the update; without what the objective does not report.
    pub loss: f64,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Sum of the objective's weights; 0 means that nothing could be learned and nothing was changed.
    pub weight: f64,
    /// What the objective reports beside the loss.
    pub metrics: Metrics,
}

/// Gradients of the summed loss, by parameter.
type Gradients = BTreeMap<String, Tensor<1>>;

/// Takes one optimizer step over `micro_batches`. The model and optimizer are unchanged when an error is returned.
///
/// # Errors
/// As [`step_over`].
pub fn train_step(
    decoder: &mut Decoder,
    optimizer: &mut Optimizer,
    gate: &mut GradientGate,
    loss: BatchLoss<'_>,
    micro_batches: &[Batch],
    lr: f64,
    clip_norm: f64,
) -> Result<StepReport, TrainError> {
    let term = |decoder: &Decoder, i: usize| Ok(loss(decoder, &micro_batches[i]));
    step_over(decoder, optimizer, gate, &term, micro_batches.len(), lr, clip_norm)
}

/// Takes one optimizer step over `micro_batches` micro-batches, whose losses `term` gives by number. The model and
/// optimizer are unchanged when an error is returned.
///
/// # Errors
/// [`TrainError::NotFinite`] when the loss or a gradient is not finite, [`TrainError::Gate`] from the gate, and what
/// `term` reports.
pub fn step_over(
    decoder: &mut Decoder,
    optimizer: &mut Optimizer,
    gate: &mut GradientGate,
    term: &dyn Fn(&Decoder, usize) -> Result<LossTerm, TrainError>,
    micro_batches: usize,
    lr: f64,
    clip_norm: f64,
) -> Result<StepReport, TrainError> {
    let (mut loss_sum, mut weight, mut gradients) = (0.0, 0.0, Gradients::new());
    let mut reported = Reported::default();
    for number in 0..micro_batches {
        let pass = decoder.for_one_pass();
        let term = term(&pass, number)?;
        if term.weight == 0.0 {
            continue; // every target is masked: no loss, no gradient
        }
        weight += term.weight;
        loss_sum += f64::from(scalar(term.loss_sum.clone())?);
        if let Some(part) = term.unreported {
            loss_sum -= f64::from(scalar(part)?);
        }
        reported.add(term.metrics)?;
        accumulate(pass.backward(&term.loss_sum), &mut gradients);
    }
    let metrics = reported.means();
    if weight == 0.0 {
        return Ok(StepReport { loss: 0.0, grad_norm: 0.0, weight, metrics });
    }
    let norms = norms(decoder, &gradients)?;
    let squares: f64 = norms.iter().filter_map(|norm| norm.square).sum();
    let (loss, grad_norm) = (loss_sum / weight, squares.sqrt() / weight);
    if !loss.is_finite() || !grad_norm.is_finite() {
        let parameter = norms.iter().find(|n| n.square.is_some_and(|s| !s.is_finite()));
        let parameter = parameter.map(|norm| norm.name.clone());
        return Err(TrainError::NotFinite { loss, grad_norm, lr, parameter });
    }
    gate.check(&norms)?;
    // One factor makes the mean of the sum and clips; the 1e-6 is torch.nn.utils.clip_grad_norm_'s.
    let clip = if clip_norm > 0.0 { (clip_norm / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
    optimizer.begin();
    decoder.visit_mut(&mut |name, mut parameter| {
        if let Some(gradient_n) = gradients.remove(name) {
            optimizer.update(name, &mut parameter, gradient_n, clip / weight, lr);
        }
    });
    Ok(StepReport { loss, grad_norm, weight, metrics })
}

/// Sums of what is reported, and what each is divided by.
#[derive(Debug, Default)]
pub struct Reported(BTreeMap<&'static str, (f64, f64)>);

impl Reported {
    /// Adds the numbers of a micro-batch, read back together.
    ///
    /// # Errors
    /// When the device fails.
    pub fn add(&mut self, metrics: Vec<Metric>) -> Result<(), TrainError> {
        if metrics.is_empty() {
            return Ok(());
        }
        let sums: Vec<_> = metrics.iter().map(|metric| metric.sum.clone().without_autodiff()).collect();
        let values = Tensor::cat(sums, 0).try_into_vec_as::<f32>().map_err(TrainError::device)?;
        for (metric, value) in metrics.iter().zip(values) {
            let (sum, weight) = self.0.entry(metric.name).or_default();
            *sum += f64::from(value);
            *weight += metric.weight;
        }
        Ok(())
    }

    /// Each sum by its weight; what has no weight is left out.
    pub fn means(self) -> Metrics {
        let mean =
            |(name, (sum, weight)): (&str, (f64, f64))| (weight != 0.0).then(|| (name.to_string(), sum / weight));
        self.0.into_iter().filter_map(mean).collect()
    }
}

fn accumulate(new: Gradients, sum: &mut Gradients) {
    for (name, gradient_n) in new {
        let total = match sum.remove(&name) {
            Some(earlier) => earlier + gradient_n,
            None => gradient_n,
        };
        sum.insert(name, total);
    }
}

/// The square sum of each gradient, read back together: the one wait for the device besides the loss.
fn norms(decoder: &mut Decoder, gradients: &Gradients) -> Result<Vec<GradientNorm>, TrainError> {
    let (mut norms, mut sums) = (Vec::new(), Vec::new());
    decoder.visit_mut(&mut |name, parameter| {
        let gradient = gradients.get(name);
        sums.extend(gradient.map(|g| ops::square_sum(g.clone())));
        let square = gradient.map(|_| 0.0);
        norms.push(GradientNorm { name: name.to_string(), trainable: parameter.is_trainable(), square });
    });
    if sums.is_empty() {
        return Ok(norms);
    }
    let values = Tensor::cat(sums, 0).try_into_vec_as::<f32>().map_err(TrainError::device)?;
    for (square, value) in norms.iter_mut().filter_map(|norm| norm.square.as_mut()).zip(values) {
        *square = f64::from(value);
    }
    Ok(norms)
}

fn scalar(tensor: Tensor<1>) -> Result<f32, TrainError> {
    tensor.try_into_scalar::<f32>().map_err(TrainError::device)
}
