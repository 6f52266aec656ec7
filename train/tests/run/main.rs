//! Whole runs on temporary folders: resume, faults, commands, precision, continuing a model folder.

#![allow(clippy::print_stdout, reason = "the figures belong to the result of a test")]

mod commands;
mod continuing;
mod exact;
mod faults;
mod half;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use burn::tensor::Device;
use fornax_base::files::{FileSystem, RealFs};
use fornax_data::batches::Batch;
use fornax_model::Decoder;
use fornax_model::device::{DeviceName, Kind};
use fornax_train::TrainError;
use fornax_train::checkpoint::{self, Checkpoint};
use fornax_train::control::Signal;
use fornax_train::events::{TrainEvent, read_events};
use fornax_train::recipe::TrainRecipe;
use fornax_train::run::{EVENTS_FILE, Outcome, Run, Surroundings};
use fornax_train::step::{LossTerm, next_token};
use tempfile::TempDir;

/// A model of 2 thousand parameters that sees each token several times in 12 steps.
const TINY: &str = r#"
[model]
n_layers = 1
n_heads = 2
n_kv_heads = 1
width = 16
ffn_width = 32

[tokenizer]
kind = "characters"

[data]
source = "set by each test"
validation_fraction = 0.3

[train]
steps = 12
context = 8
batch = 4

[optimizer]
lr = 1e-2

[schedule]
kind = "cosine"
warmup_steps = 3

[eval]
every = 3
tokens = 64
sample_every = 4
sample_tokens = 4
prompts = ["Sue "]

[checkpoint]
every = 1
keep_last = 100
"#;

const STORIES: [&str; 5] = [
    "Sue has a red ball. Tom has a hat.",
    "Tom gave Sue the hat. Now Sue has two things.",
    "The cat sat on the mat. It saw the red ball and ran.",
    "Sue and Tom ran to the cat. The cat had the hat!",
    "One day the mat was red, and the cat was not there.",
];

/// A folder with text; runs are made inside.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("text.txt"), STORIES.join("\n<|endoftext|>\n")).unwrap();
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The tiny recipe on this text, with `sets` of the form `key=value`.
    fn recipe(&self, sets: &[&str]) -> TrainRecipe {
        let mut all = vec![format!("data.source={:?}", self.at("text.txt").display().to_string())];
        all.extend(sets.iter().map(|set| set.to_string()));
        fornax_base::recipe::load(TINY, "the tests' recipe", &all).unwrap()
    }

    fn start(&self, name: &str, recipe: &TrainRecipe) -> Result<Run, TrainError> {
        Run::start(around(), &self.at(name), recipe, &mut |_| {})
    }

    /// A run with the next-token objective from start to end.
    fn train(&self, name: &str, recipe: &TrainRecipe) -> PathBuf {
        let outcome = self.start(name, recipe).unwrap().fit(&next_token).unwrap();
        assert_eq!((outcome.step, outcome.ending), (recipe.train.steps, None));
        self.at(name)
    }
}

fn around() -> Surroundings {
    Surroundings {
        fs: Arc::new(RealFs),
        device: Device::flex(),
        device_name: DeviceName::Named(Kind::Cpu, 0),
        device_description: "the processor".into(),
        signal: Signal::default(),
        listener: None,
        tool_version: "0.0.0-test".into(),
    }
}

fn around_with(fs: Arc<dyn FileSystem>) -> (Surroundings, Receiver<TrainEvent>) {
    let (sender, receiver): (SyncSender<_>, _) = sync_channel(100_000);
    (Surroundings { fs, listener: Some(sender), ..around() }, receiver)
}

fn resume(folder: &Path, step: Option<u64>, sets: &[&str]) -> Result<Run, TrainError> {
    resume_in(around(), folder, step, sets)
}

fn resume_in(around: Surroundings, folder: &Path, step: Option<u64>, sets: &[&str]) -> Result<Run, TrainError> {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let change = |text: &str, path: &Path| -> Result<TrainRecipe, TrainError> {
        Ok(fornax_base::recipe::load(text, &path.display().to_string(), &sets)?)
    };
    Run::resume(around, folder, step, &change, &mut |_| {})
}

fn finish(mut run: Run) -> Outcome {
    run.fit(&next_token).unwrap()
}

fn events(run: &Path) -> Vec<TrainEvent> {
    read_events(&run.join(EVENTS_FILE)).unwrap()
}

/// What the user is told about the training itself: the events that must be the same whether or not the run
/// was interrupted, without how long anything took.
fn told(run: &Path) -> Vec<String> {
    let line = |event: &TrainEvent| match event {
        TrainEvent::Step { step, loss, lr, grad_norm, tokens, .. } => {
            let [loss, lr, norm] = [loss, lr, grad_norm].map(|x| x.to_bits());
            Some(format!("step {step} {loss:x} {lr:x} {norm:x} {tokens}"))
        }
        TrainEvent::Validation { step, loss, bits_per_byte: Some(bits_per_byte), tokens, .. } => {
            Some(format!("validation {step} {:x} {:x} {tokens}", loss.to_bits(), bits_per_byte.to_bits()))
        }
        TrainEvent::Sample { step, prompt, text } => Some(format!("sample {step} {prompt:?} {text:?}")),
        TrainEvent::Warning { step, message } => Some(format!("warning {step} {message}")),
        TrainEvent::LrFactor { step, factor } => Some(format!("lr factor {step} {:x}", factor.to_bits())),
        _ => None,
    };
    events(run).iter().filter_map(line).collect()
}

fn validation_losses(run: &Path) -> Vec<(u64, f64)> {
    let loss = |event: &TrainEvent| match event {
        TrainEvent::Validation { step, loss, .. } => Some((*step, *loss)),
        _ => None,
    };
    events(run).iter().filter_map(loss).collect()
}

fn saved_steps(run: &Path) -> Vec<u64> {
    checkpoint::list(run).unwrap().iter().map(|folder| folder.step).collect()
}

/// The bytes of the three files of a checkpoint.
fn checkpoint_bytes(run: &Path, step: u64) -> [Vec<u8>; 3] {
    let folder = checkpoint::folder_of(run, step);
    [checkpoint::MODEL_FILE, checkpoint::OPTIMIZER_FILE, checkpoint::STATE_FILE]
        .map(|name| std::fs::read(folder.join(name)).unwrap())
}

/// Opens a checkpoint and asserts that all its numbers are finite f32.
fn finite_checkpoint(path: &Path) -> Checkpoint {
    let checkpoint = Checkpoint::open(path).unwrap();
    for tensor in checkpoint.model_tensors().iter().chain(&checkpoint.optimizer_tensors()) {
        assert_eq!(tensor.dtype, checkpoint::Dtype::F32, "{}", tensor.name);
        let values = tensor.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        assert!(values.into_iter().all(f32::is_finite), "{}", tensor.name);
    }
    checkpoint
}

/// Next-token loss times `factor(k)` in the k-th call, counting from 1.
fn scaled(factor: impl Fn(u64) -> f32) -> impl Fn(&Decoder, &Batch) -> LossTerm {
    let calls = std::cell::Cell::new(0);
    move |decoder: &Decoder, batch: &Batch| {
        calls.set(calls.get() + 1);
        let term = next_token(decoder, batch);
        LossTerm { loss_sum: term.loss_sum * factor(calls.get()), ..term }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}
