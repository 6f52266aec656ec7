//! A model folder being put together, and what loading it answers.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use fornax_model::Decoder;
use fornax_model::weights::{LoadOptions, Loaded, TensorFile, WeightsError, load};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Generous for a debug build beside other tests; what is bounded here would take minutes or never return.
const LIMIT: Duration = Duration::from_secs(3);

pub(crate) fn parity(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity").join(name)
}

/// Every parity fixture.
pub(crate) fn fixtures() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(parity("")).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    assert_eq!(all.len(), 16);
    all
}

/// One tensor of a file being written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// The tensors of a file, in its order.
pub(crate) fn tensors_of(path: &Path) -> Vec<Stored> {
    let file = TensorFile::open(path).unwrap_or_else(|e| panic!("{e}"));
    let stored = |name: &str| {
        let tensor = file.get(name).unwrap();
        let dtype = format!("{:?}", tensor.dtype);
        Stored { name: name.into(), dtype, shape: tensor.shape.to_vec(), bytes: tensor.bytes.to_vec() }
    };
    file.names().map(stored).collect()
}

/// The tensors of all safetensors files of a model folder.
pub(crate) fn names_and_bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            let tensors = tensors_of(&path).into_iter();
            all.extend(tensors.map(|t| (t.name, t.bytes)));
        }
    }
    all
}

/// The values of a decoder by name, as it holds them.
pub(crate) fn parameters(decoder: &Decoder) -> BTreeMap<String, Vec<u8>> {
    let all = decoder.parameters().into_iter();
    all.map(|(name, _, tensor)| (name, tensor.into_data().as_bytes().to_vec())).collect()
}

/// A safetensors file with this header and so many bytes of zeros.
pub(crate) fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A safetensors file of these tensors.
pub(crate) fn file_of(tensors: &[Stored]) -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for tensor in tensors {
        let start = end;
        end += tensor.bytes.len();
        let info = serde_json::json!({
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end],
        });
        header.insert(tensor.name.clone(), info);
    }
    let mut bytes = file(&Value::Object(header).to_string(), 0);
    tensors.iter().for_each(|tensor| bytes.extend(&tensor.bytes));
    bytes
}

/// A temporary folder.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A copy of a parity fixture: its configuration and weights.
    pub(crate) fn of(fixture: &str) -> Self {
        let folder = Self::new();
        for entry in std::fs::read_dir(parity(fixture)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.starts_with("model") || name == "config.json" {
                folder.copy(&parity(fixture), &name);
            }
        }
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn copy(&self, from: &Path, name: &str) {
        std::fs::copy(from.join(name), self.path().join(name)).unwrap();
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).unwrap();
    }

    /// A pipe nobody writes to: opening it for reading the usual way never returns.
    pub(crate) fn pipe(&self, name: &str) {
        let status = Command::new("mkfifo").arg(self.path().join(name)).status();
        assert!(status.unwrap().success());
    }

    /// Changes fields of the configuration.
    pub(crate) fn configure(&self, fields: Value) {
        let path = self.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (key, value) in fields.as_object().unwrap() {
            config[key] = value.clone();
        }
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Changes the tensors of `model.safetensors`.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<Stored>)) {
        let mut tensors = tensors_of(&self.path().join(SINGLE));
        change(&mut tensors);
        self.write(SINGLE, file_of(&tensors));
    }

    pub(crate) fn load_as(&self, options: LoadOptions) -> Result<Loaded, WeightsError> {
        let start = Instant::now();
        let loaded = load(self.path(), options, &Device::flex());
        assert!(start.elapsed() < LIMIT, "took {:?}", start.elapsed());
        loaded
    }

    pub(crate) fn loads(&self) -> Decoder {
        let options = LoadOptions { dtype: None, strict: true };
        self.load_as(options).unwrap_or_else(|e| panic!("{}", whole(&e))).decoder
    }

    pub(crate) fn error(&self) -> WeightsError {
        let options = LoadOptions { dtype: None, strict: false };
        self.load_as(options).expect_err("refused")
    }

    /// The refusal with its causes, in which this folder's path is `FOLDER`.
    pub(crate) fn refused(&self) -> String {
        let message = whole(&self.error());
        message.replace(self.path().to_str().unwrap(), "FOLDER")
    }

    /// Checks that loading is refused with a message holding all of these.
    pub(crate) fn says(&self, parts: &[&str]) {
        let message = self.refused();
        for part in parts {
            assert!(message.contains(part), "{message:?} does not say {part:?}");
        }
        assert!(message.len() < 10_000, "{} bytes long", message.len());
    }
}

/// An error and its causes as one text.
pub(crate) fn whole(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
