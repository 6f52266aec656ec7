//! Model folders written by Fornax. Each is left in the target folder's `tmp/exports` with the logits Fornax
//! computes, so that `tests/fixtures/make/check_export.py` can load it in transformers and compare.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor, TensorData};
use fornax_base::files::{RealFs, write_atomic};
use fornax_model::weights::{LoadOptions, TensorFile, load, read_config, save};
use fornax_model::{Layout, token_tensor};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|path| path.join("config.json").exists());
    all.sort();
    all
}

#[test]
fn a_written_folder_holds_the_same_model() {
    let device = Device::flex();
    for fixture in fixtures() {
        let name = fixture.file_name().unwrap();
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("exports").join(name);
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir_all(&out).unwrap();
        let original = load(&fixture, LoadOptions { dtype: None, strict: true }, &device).unwrap().decoder;
        let dtype = original.compute();
        save(&RealFs, &original, dtype, 1 << 30, &out).unwrap();

        let config = read_config(&out).unwrap();
        assert_eq!(&config, original.config(), "{}", fixture.display());
        let again = load(&out, LoadOptions { dtype: None, strict: true }, &device).unwrap().decoder;
        for ((name, shape, old), (_, _, new)) in original.parameters().into_iter().zip(again.parameters()) {
            assert_eq!(old.into_data(), new.into_data(), "{name} {shape:?}");
        }
        write_logits(&fixture, &out, &device);
    }
}

/// `logits.safetensors`: the fixture's tokens, and the logits of the written folder in f32.
fn write_logits(fixture: &Path, out: &Path, device: &Device) {
    let decoder = load(out, LoadOptions { dtype: Some(DType::F32), strict: true }, device).unwrap().decoder;
    let expected = TensorFile::open(&fixture.join("expected.safetensors")).unwrap();
    let stored = expected.get("tokens").unwrap();
    let tokens: Vec<u32> = stored.bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
    let (rows, t) = (stored.shape[0], stored.shape[1]);
    let layout = Layout::contiguous(0, t, device);
    let logits = decoder.logits(decoder.forward(token_tensor(&tokens, rows, device), &layout, None));
    let shape = logits.dims().to_vec();
    let n = shape.iter().product::<usize>();
    // Token ids fit f32 exactly; the script reads them back as integers.
    let ids: Vec<f32> = tokens.iter().map(|&id| id as f32).collect();
    let ids = Tensor::<1>::from_data(TensorData::new(ids, [tokens.len()]), (device, DType::F32));
    let tensors = [("logits".to_string(), shape, logits.reshape([n])), ("tokens".to_string(), vec![rows, t], ids)];
    write_atomic(&RealFs, &out.join("logits.safetensors"), &mut |file| {
        fornax_model::weights::write_tensors(&tensors, DType::F32, file)
    })
    .unwrap();
}
