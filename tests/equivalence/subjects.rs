//! What the paths are compared on: devices, models, tokens.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::{Device, Int, Tensor};
use fornax_base::rng::rng;
use fornax_model::weights::{LoadOptions, load};
use fornax_model::{Decoder, KvCache, KvElement, token_tensor};

use crate::{Precision, forward};

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

/// A model folder and how many tokens to run through it.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) folder: PathBuf,
    pub(crate) t: usize,
}

/// Llama with grouped heads, tied and untied, an odd width, windows shorter than the sequence in all or in
/// some layers, biases, per-head norms, capped logits, and a trained checkpoint where it is present.
pub(crate) fn subjects() -> Vec<Subject> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = ["llama3", "llama-odd", "smollm2", "mistral", "qwen2-sliding", "qwen3"];
    let fixture = |name| Subject { name, folder: root.join("tests/fixtures/parity").join(name), t: 41 };
    let mut all: Vec<Subject> = names.into_iter().map(fixture).collect();
    all.push(Subject { name: "llama3, softcap 2", folder: capped(&all[0].folder), t: 41 });
    let trained = root.join("../shared/data/tinystories-656k-hf");
    if trained.exists() {
        all.push(Subject { name: "tinystories-656k", folder: trained, t: 97 });
    } else {
        let required = std::env::var_os("FORNAX_REQUIRE_DATA").is_some_and(|v| v == "1");
        assert!(!required, "`../shared/data/tinystories-656k-hf` is absent");
        println!("`../shared/data/tinystories-656k-hf` is absent: the trained checkpoint is passed over");
    }
    all
}

/// A copy of a model folder whose logits are capped at 2, where those of the fixture bend. Made once.
fn capped(original: &Path) -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("softcap-{}", std::process::id()));
        std::fs::create_dir_all(&copy).unwrap();
        std::fs::copy(original.join("model.safetensors"), copy.join("model.safetensors")).unwrap();
        let config = std::fs::read_to_string(original.join("config.json")).unwrap();
        let capped = config.replacen('{', "{\"final_logit_softcapping\": 2.0,", 1);
        std::fs::write(copy.join("config.json"), capped).unwrap();
        copy
    };
    MADE.get_or_init(make).clone()
}

pub(crate) fn decoder(subject: &Subject, precision: &Precision, device: &Device) -> Decoder {
    let options = LoadOptions { dtype: Some(precision.weights), strict: true };
    let mut decoder = load(&subject.folder, options, device).unwrap().decoder;
    decoder.set_compute(precision.compute);
    decoder
}

pub(crate) fn supported(precision: &Precision, device: &Device) -> bool {
    [Some(precision.weights), Some(precision.compute), precision.cache.dtype()]
        .iter()
        .flatten()
        .all(|d| device.supports_dtype(*d))
}

/// Rows of tokens of one length.
#[derive(Clone)]
pub(crate) struct Rows(pub(crate) Vec<Vec<u32>>);

impl Rows {
    pub(crate) fn random(purpose: &str, b: usize, t: usize, vocabulary: usize) -> Self {
        let mut random = rng(7, 0, purpose);
        Self((0..b).map(|_| (0..t).map(|_| random.below(vocabulary as u64) as u32).collect()).collect())
    }

    pub(crate) fn columns(&self, from: usize, to: usize) -> Self {
        Self(self.0.iter().map(|row| row[from..to].to_vec()).collect())
    }

    pub(crate) fn t(&self) -> usize {
        self.0[0].len()
    }

    pub(crate) fn tensor(&self, device: &Device) -> Tensor<2, Int> {
        token_tensor(&self.0.concat(), self.0.len(), device)
    }
}

/// Random tokens, and a row that the model continues by itself, as decoding does.
pub(crate) fn tokens(subject: &Subject, decoder: &Decoder, cache: KvElement) -> Rows {
    let v = decoder.config().vocab_size;
    let mut rows = Rows::random(subject.name, 2, subject.t, v);
    let device = decoder.device();
    let mut held = KvCache::new(decoder.config(), 1, subject.t, cache, &device);
    let mut row = vec![decoder.config().bos_id.unwrap_or(5)];
    while row.len() < subject.t {
        let next = Rows(vec![vec![row[row.len() - 1]]]);
        let logits = forward(decoder, &next, Some(&mut held));
        // Every eighth token is random, so that a small model does not run into a loop.
        row.push(if row.len() % 8 == 0 { rows.0[0][row.len()] } else { largest_two(&logits).0 as u32 });
    }
    rows.0.push(row);
    rows
}

/// Index of the largest logit and its distance to the next.
pub(crate) fn largest_two(logits: &[f32]) -> (usize, f32) {
    let (mut at, mut best, mut next) = (0, f32::MIN, f32::MIN);
    for (i, &x) in logits.iter().enumerate() {
        if x > best {
            (at, best, next) = (i, x, best);
        } else {
            next = next.max(x);
        }
    }
    (at, best - next)
}
