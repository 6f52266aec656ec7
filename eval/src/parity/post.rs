//! One step of tuning held to a recorded one: supervised (recorded from TRL), of LoRA, rsLoRA and DoRA adapters over a
//! dense base and of LoRA over packed ones (PEFT), and of preferences (TRL with PEFT). Loss, gradients, parameters
//! after the step, and that what is frozen stays as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use fornax_base::paths::join_inside;
use fornax_data::batches::Batch;
use fornax_data::examples::{Example, Pair};
use fornax_model::Decoder;
use fornax_model::packed::Packing;
use fornax_model::weights::peft::AdapterFolder;
use fornax_model::weights::{LoadOptions, load, load_packed};
use fornax_train::TrainError;
use fornax_train::gate::GradientGate;
use fornax_train::optimizer::Optimizer;
use fornax_train::recipe::{OptimizerKind, OptimizerRecipe};
use fornax_train::step::{LossTerm, next_token, step_over};
use serde::{Deserialize, Serialize};

use super::recorded::RecordedFile;
use super::{EXPECTED, ParityError, Tolerance, relative};
use crate::bench::dtype_word;

/// The recorded adapters that a step is taken with, by their folders below `peft/`.
const ADAPTERS: [&str; 6] = ["lora", "rslora", "dora", "qlora-int8", "qlora-int4", "qlora-nf4"];
/// What an adapter's tensors are called in its file, before the module's name.
const PEFT: &str = "base_model.model.";

/// Pairs of a recorded step, and what their loss is.
#[derive(Debug, Clone)]
pub struct Preferences {
    /// The pairs.
    pub pairs: Vec<Pair>,
    /// Weight of the distance from the reference, the model without its adapter.
    pub beta: f64,
    /// Losses that are added up, by TRL's names.
    pub losses: Vec<String>,
    /// A factor for each of them.
    pub weights: Vec<f64>,
}

/// A loss as a function of the model.
pub type ModelLoss<'a> = Box<dyn Fn(&Decoder) -> LossTerm + 'a>;

/// Makes the loss of recorded pairs, or says why it cannot.
pub type PreferenceLoss<'a> = &'a dyn Fn(Preferences) -> Result<ModelLoss<'static>, String>;

/// What counts as equal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepTolerance {
    /// Difference of the loss by the recorded loss.
    pub loss: f64,
    /// Of each parameter's gradient, the greatest difference by the greatest recorded value.
    pub gradients: f64,
    /// The same of each parameter after the step.
    pub parameters: f64,
    /// Of each parameter's change by the step, the norm of the difference by the norm of the recorded change; none at
    /// all is off by 1.
    pub changes: f64,
}

impl StepTolerance {
    /// What rounding explains in a dtype: loss and gradients as [`Tolerance::of`], in f32 nearer. The step of AdamW that
    /// opens a training has nearly the size of the learning rate whatever the gradient's, so rounding turns the sign of
    /// a change where the gradient is near 0; in half precision that is met in every step, and the limits are about 1.5
    /// times the greatest difference on the processor (of changes in f16: one turned element of twelve).
    pub fn of(dtype: DType) -> Self {
        let gradients = Tolerance::of(dtype).gradients;
        match dtype {
            DType::BF16 => Self { loss: gradients, gradients, parameters: 0.3, changes: 0.85 },
            DType::F16 => Self { loss: gradients, gradients, parameters: 0.3, changes: 0.65 },
            _ => Self { loss: 1e-4, gradients: 1e-4, parameters: 1e-4, changes: 2e-3 },
        }
    }
}

/// One recorded step on one device. A difference is infinite (`null` in JSON) where there is no number.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// Name of the step.
    pub fixture: String,
    /// The device by its name on the command line.
    pub device: String,
    /// Dtype of the matrix products.
    pub dtype: &'static str,
    /// Difference of the loss by the recorded loss.
    pub loss_error: f64,
    /// Greatest difference of a gradient by the greatest recorded gradient of its parameter.
    pub gradient_error: f64,
    /// The parameter with that difference.
    pub gradient_worst: String,
    /// Greatest difference of a parameter after the step by the greatest recorded value of it.
    pub parameter_error: f64,
    /// Greatest difference of a parameter's change, norm by norm.
    pub change_error: f64,
    /// The parameter with that difference.
    pub change_worst: String,
    /// Greatest difference of a frozen parameter after the step from the base as it is stored; it must be 0. `None`
    /// where nothing is frozen.
    pub frozen_error: Option<f64>,
    /// Why the step was refused, if it was.
    pub refused: Option<String>,
    /// What was allowed.
    pub tolerance: StepTolerance,
    /// Whether every difference is within it.
    pub passed: bool,
}

/// A recorded step.
pub struct RecordedStep {
    name: String,
    base: PathBuf,
    packing: Option<Packing>,
    adapter: Option<PathBuf>,
    optimizer: OptimizerRecipe,
    work: Work,
    file: RecordedFile,
    /// Before `loss`, `grad.NAME` and `after.NAME` in the file.
    prefix: String,
}

enum Work {
    Tokens(Batch),
    Pairs(Preferences),
}

/// What is beside every recorded step.
#[derive(Deserialize)]
struct Settings {
    base: String,
    adamw: AdamW,
    block: Option<usize>,
}

#[derive(Deserialize)]
struct AdamW {
    lr: f64,
    betas: [f64; 2],
    eps: f64,
    #[serde(alias = "weight_decay_matrices")]
    weight_decay: f64,
    /// Ours is 0.
    #[serde(default)]
    weight_decay_vectors: f64,
}

/// What is beside a step of preferences, too.
#[derive(Deserialize)]
struct PreferenceSettings {
    adapter: String,
    beta: f64,
    cases: BTreeMap<String, PreferenceCase>,
}

#[derive(Deserialize)]
struct PreferenceCase {
    loss_types: Vec<String>,
    loss_weights: Vec<f64>,
}

/// The steps recorded below `root`, which is laid out as `tests/fixtures/`: `sft/`, `peft/CASE/`, `preference/step.*`
/// and the models they name.
///
/// # Errors
/// [`ParityError::NoStep`] where one is missing, and what is wrong with its files.
pub fn steps(root: &Path) -> Result<Vec<RecordedStep>, ParityError> {
    let mut steps = Vec::new();
    for packed in [false, true] {
        let name = if packed { "sft-packed" } else { "sft" };
        let folder = root.join("sft");
        let file = open(&folder.join(EXPECTED), name)?;
        let batch = if packed { packed_rows(&file)? } else { rows(&file)? };
        steps.push(RecordedStep::new(root, name, &folder.join("expected.json"), file, Work::Tokens(batch))?);
    }
    for name in ADAPTERS {
        let folder = root.join("peft").join(name);
        let file = open(&folder.join(EXPECTED), name)?;
        let batch = targets(&file)?;
        let mut step = RecordedStep::new(root, name, &folder.join("expected.json"), file, Work::Tokens(batch))?;
        step.adapter = Some(folder);
        steps.push(step);
    }
    let (tensors, settings) = (root.join("preference/step.safetensors"), root.join("preference/step.json"));
    let recorded: PreferenceSettings = read(&settings)?;
    for (name, case) in recorded.cases {
        let (name, prefix) = (format!("dpo-{name}"), format!("{name}."));
        let file = open(&tensors, &name)?;
        let work = Preferences {
            pairs: pairs(&file)?,
            beta: recorded.beta,
            losses: case.loss_types,
            weights: case.loss_weights,
        };
        let mut step = RecordedStep::new(root, &name, &settings, file, Work::Pairs(work))?;
        step.adapter = Some(join_inside(root, &recorded.adapter)?);
        step.prefix = prefix;
        steps.push(step);
    }
    Ok(steps)
}

fn open(path: &Path, step: &str) -> Result<RecordedFile, ParityError> {
    match path.exists() {
        true => RecordedFile::open(path),
        false => Err(ParityError::NoStep { path: path.to_path_buf(), step: step.to_string() }),
    }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, ParityError> {
    let failed = |message: String| ParityError::Settings { path: path.to_path_buf(), message };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
}

/// Rows padded on the right; a token is predicted from those before it.
fn rows(file: &RecordedFile) -> Result<Batch, ParityError> {
    shifted(file, "")
}

/// The same rows, several in one, each with positions of its own.
fn packed_rows(file: &RecordedFile) -> Result<Batch, ParityError> {
    let mut batch = shifted(file, "packed.")?;
    let (positions, [rows, columns]) = file.ids("packed.position")?;
    let (documents, other) = file.integers("packed.document")?;
    if other != [rows, columns] || [rows, columns - 1] != [batch.rows, batch.columns] {
        return Err(file.unusable("packed.document", "as many rows and columns as of ids are expected"));
    }
    batch.positions = positions.chunks(columns).flat_map(|row| row[..columns - 1].to_vec()).collect();
    let numbered = |row: &[i64]| {
        let mut number = 0;
        let changes = row.iter().zip(&row[1..]).map(move |(one, next)| {
            let before = number;
            number += u32::from(one != next);
            before
        });
        changes.collect::<Vec<u32>>()
    };
    batch.documents = Some(documents.chunks(columns).flat_map(numbered).collect());
    Ok(batch)
}

fn shifted(file: &RecordedFile, prefix: &str) -> Result<Batch, ParityError> {
    let (ids, [rows, columns]) = file.ids(&format!("{prefix}ids"))?;
    let trained = file.marks(&format!("{prefix}trained"))?;
    if trained.len() != ids.len() || columns < 2 {
        return Err(file.unusable(&format!("{prefix}trained"), "a mark for each of two ids or more is expected"));
    }
    let cut = |row: &[u32], from: usize| row[from..columns - 1 + from].to_vec();
    Ok(Batch {
        rows,
        columns: columns - 1,
        inputs: ids.chunks(columns).flat_map(|row| cut(row, 0)).collect(),
        targets: ids.chunks(columns).flat_map(|row| cut(row, 1)).collect(),
        mask: trained.chunks(columns).flat_map(|row| row[1..].to_vec()).collect(),
        positions: (0..rows).flat_map(|_| 0..columns as u32 - 1).collect(),
        documents: None,
    })
}

/// Tokens with a target for each.
fn targets(file: &RecordedFile) -> Result<Batch, ParityError> {
    let (inputs, [rows, columns]) = file.ids("tokens")?;
    let (targets, mask) = (file.ids("targets")?.0, file.marks("mask")?);
    if [targets.len(), mask.len()] != [inputs.len(); 2] {
        return Err(file.unusable("targets", "as many as tokens are expected, and as many marks"));
    }
    let positions = (0..rows).flat_map(|_| 0..columns as u32).collect();
    Ok(Batch { rows, columns, inputs, targets, mask, positions, documents: None })
}

/// The chosen rows, then as many rejected ones, padded on the right.
fn pairs(file: &RecordedFile) -> Result<Vec<Pair>, ParityError> {
    let (ids, [rows, columns]) = file.ids("ids")?;
    let (there, completion) = (file.marks("attention_mask")?, file.marks("completion_mask")?);
    if [there.len(), completion.len()] != [ids.len(); 2] || rows % 2 != 0 || columns == 0 {
        return Err(file.unusable("ids", "pairs of rows are expected, with two marks for each id"));
    }
    let row = |at: usize| {
        let places = at * columns..(at + 1) * columns;
        let length = there[places.clone()].iter().filter(|there| **there).count();
        let (ids, trained) = (&ids[places.clone()][..length], &completion[places][..length]);
        Example { ids: ids.to_vec(), trained: trained.to_vec(), row: at as u64 + 1 }
    };
    Ok((0..rows / 2).map(|at| Pair { chosen: row(at), rejected: row(at + rows / 2) }).collect())
}

impl RecordedStep {
    fn new(root: &Path, name: &str, json: &Path, file: RecordedFile, work: Work) -> Result<Self, ParityError> {
        let settings: Settings = read(json)?;
        let packing = match (name.strip_prefix("qlora-"), settings.block) {
            (Some(codes), Some(block)) => Some(Packing::new(codes.parse()?, block)?),
            (Some(_), None) => {
                return Err(ParityError::Settings {
                    path: json.to_path_buf(),
                    message: "`block` is absent".into(),
                });
            }
            (None, _) => None,
        };
        let AdamW { lr, betas, eps, weight_decay, weight_decay_vectors } = settings.adamw;
        if weight_decay_vectors != 0.0 {
            let message = format!("vectors are decayed by {weight_decay_vectors}, expected 0");
            return Err(ParityError::Settings { path: json.to_path_buf(), message });
        }
        let optimizer = OptimizerRecipe {
            beta1: betas[0],
            beta2: Some(betas[1]),
            eps: Some(eps),
            weight_decay,
            clip_norm: 0.0,
            ..OptimizerRecipe::new(OptimizerKind::AdamW, lr)
        };
        let base = join_inside(root, &settings.base)?;
        let (name, prefix) = (name.to_string(), String::new());
        Ok(Self { name, base, packing, adapter: None, optimizer, work, file, prefix })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the step with products in `dtype`, parameters and optimizer in f32, and compares. `preference` makes the
    /// loss of pairs.
    ///
    /// # Errors
    /// [`ParityError`] when files cannot be read or the device fails. A step that is refused because its numbers are
    /// not finite or a gradient is missing is a report that has not passed.
    pub fn compare(
        &self,
        (device, device_name): (&Device, &str),
        dtype: DType,
        tolerance: StepTolerance,
        preference: PreferenceLoss<'_>,
    ) -> Result<StepReport, ParityError> {
        let mut decoder = self.decoder(device)?.trainable(true);
        decoder.set_compute(dtype);
        let loss: ModelLoss<'_> = match &self.work {
            Work::Tokens(batch) => Box::new(|decoder: &Decoder| next_token(decoder, batch)),
            Work::Pairs(pairs) => preference(pairs.clone())
                .map_err(|message| self.file.unusable(&format!("{}loss", self.prefix), &message))?,
        };
        let start = values(decoder.trainable_parameters())?;
        let (mut optimizer, mut gate) = (Optimizer::new(&self.optimizer), GradientGate::default());
        let term = |decoder: &Decoder, _: usize| Ok(loss(decoder));
        let lr = self.optimizer.lr;
        let mut report = StepReport {
            fixture: self.name.clone(),
            device: device_name.to_string(),
            dtype: dtype_word(dtype),
            loss_error: f64::INFINITY,
            gradient_error: f64::INFINITY,
            gradient_worst: String::new(),
            parameter_error: f64::INFINITY,
            change_error: f64::INFINITY,
            change_worst: String::new(),
            frozen_error: None,
            refused: None,
            tolerance,
            passed: false,
        };
        match step_over(&mut decoder, &mut optimizer, &mut gate, &term, 1, lr, 0.0) {
            Ok(step) => {
                let recorded = self.file.floats(&format!("{}loss", self.prefix))?;
                report.loss_error = relative(&[step.loss as f32], &recorded);
            }
            Err(error @ (TrainError::NotFinite { .. } | TrainError::Gate(_))) => {
                report.refused = Some(error.to_string());
                return Ok(report);
            }
            Err(error) => return Err(ParityError::Step(error)),
        }
        self.compare_gradients(&optimizer, &start, &mut report)?;
        self.compare_parameters(&decoder, &start, &mut report)?;
        if self.adapter.is_some() {
            report.frozen_error = Some(self.frozen_error(&decoder)?);
        }
        report.passed = report.loss_error <= tolerance.loss
            && report.gradient_error <= tolerance.gradients
            && report.parameter_error <= tolerance.parameters
            && report.change_error <= tolerance.changes
            && report.frozen_error.is_none_or(|error| error == 0.0);
        Ok(report)
    }

    fn decoder(&self, device: &Device) -> Result<Decoder, ParityError> {
        let options = LoadOptions { dtype: Some(DType::F32), strict: true };
        let mut decoder = match self.packing {
            Some(packing) => load_packed(&self.base, options, packing, device)?.decoder,
            None => load(&self.base, options, device)?.decoder,
        };
        if let Some(adapter) = &self.adapter {
            AdapterFolder::open(adapter)?.attach(&mut decoder, "default")?;
        }
        Ok(decoder)
    }

    /// The recorded `grad` or `after` of a parameter.
    fn recorded(&self, what: &str, parameter: &str) -> Result<Vec<f32>, ParityError> {
        let peft = if self.adapter.is_some() { PEFT } else { "" };
        self.file.floats(&format!("{}{what}.{peft}{parameter}", self.prefix))
    }

    /// Parameters with a recorded gradient.
    fn n_recorded(&self) -> usize {
        let prefix = format!("{}grad.", self.prefix);
        self.file.names().filter(|name| name.starts_with(&prefix)).count()
    }

    /// The opening step leaves `(1 - beta1) * gradient` in the optimizer's mean of gradients.
    fn compare_gradients(
        &self,
        optimizer: &Optimizer,
        start: &Named,
        report: &mut StepReport,
    ) -> Result<(), ParityError> {
        let share = 1.0 - self.optimizer.beta1;
        let mut gradients = Named::new();
        for (name, _, mean) in optimizer.tensors() {
            if let Some(name) = name.strip_suffix(".exp_avg") {
                let mean = mean.try_into_vec_as::<f32>().map_err(ParityError::device)?;
                let gradient = mean.into_iter().map(|m| (f64::from(m) / share) as f32).collect();
                gradients.insert(name.to_string(), gradient);
            }
        }
        let mut worst = Worst::default();
        for name in start.keys() {
            let recorded = self.recorded("grad", name)?;
            let error = gradients.get(name).map_or(f64::INFINITY, |gradient| relative(gradient, &recorded));
            worst.meets(error, name);
        }
        if self.n_recorded() != start.len() {
            worst.meets(f64::INFINITY, "a recorded parameter that is not trained here");
        }
        (report.gradient_error, report.gradient_worst) = (worst.error, worst.name);
        Ok(())
    }

    fn compare_parameters(
        &self,
        decoder: &Decoder,
        start: &Named,
        report: &mut StepReport,
    ) -> Result<(), ParityError> {
        let (mut value, mut change) = (Worst::default(), Worst::default());
        for (name, after) in values(decoder.trainable_parameters())? {
            let recorded = self.recorded("after", &name)?;
            value.meets(relative(&after, &recorded), &name);
            // Lengths are equal where this is finite.
            let moved = norm_of_difference(&recorded, &start[&name]);
            change.meets(norm_of_difference(&after, &recorded) / moved, &name);
        }
        report.parameter_error = value.error;
        (report.change_error, report.change_worst) = (change.error, change.name);
        Ok(())
    }

    /// Every parameter of the base, packed ones as the numbers they stand for, beside the base as it is stored.
    fn frozen_error(&self, decoder: &Decoder) -> Result<f64, ParityError> {
        let options = LoadOptions { dtype: Some(DType::F32), strict: true };
        let stored = values(load(&self.base, options, &Device::flex())?.decoder.parameters())?;
        let held = values(decoder.without_adapters().in_dtype(DType::F32).parameters())?;
        if !held.keys().eq(stored.keys()) {
            return Ok(f64::INFINITY);
        }
        Ok(held.values().zip(stored.values()).map(|(held, stored)| relative(held, stored)).fold(0.0, f64::max))
    }
}

/// Values of parameters by name.
type Named = BTreeMap<String, Vec<f32>>;

fn values(parameters: Vec<(String, Vec<usize>, Tensor<1>)>) -> Result<Named, ParityError> {
    let read = |(name, _, tensor): (String, Vec<usize>, Tensor<1>)| {
        Ok((name, tensor.try_into_vec_as::<f32>().map_err(ParityError::device)?))
    };
    parameters.into_iter().map(read).collect()
}

fn norm_of_difference(one: &[f32], other: &[f32]) -> f64 {
    if one.len() != other.len() {
        return f64::INFINITY;
    }
    one.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

/// The greatest of the errors met, and whose it is.
#[derive(Default)]
struct Worst {
    error: f64,
    name: String,
}

impl Worst {
    fn meets(&mut self, error: f64, name: &str) {
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error > self.error || self.name.is_empty() {
            (self.error, self.name) = (error, name.to_string());
        }
    }
}
