mod crashes;
mod damage;

use std::fs;

use fornax_base::exit::Exit;
use fornax_base::files::{FileSystem, RealFs};
use serde_json::json;

use super::*;
use crate::control::LrFactor;
use crate::recipe::ScheduleKind;

const FILES: [&str; 4] = [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, MANIFEST_FILE];

fn state(step: u64) -> State {
    State {
        step,
        total_steps: 100,
        tokens_seen: step * 64,
        optimizer_updates: 3,
        cursor: json!({"epoch": 0, "row": step, "carry": [1, 2]}),
        loss_scale: None,
        rng: RngPosition { seed: 7, step },
        schedule: ScheduleKind::Cosine,
        lr_factor: LrFactor::default(),
        validation_loss: Some(0.1 + 0.2),
        best: Some(Best { step, loss: 1.0 / 3.0 }),
        recipe_hash: "ab".repeat(32),
        tool_version: "0.1.0".to_owned(),
    }
}

/// A tensor `[n]` whose values tell which save it belongs to.
fn tensor(name: &str, n: usize, value: f32) -> NamedTensor<'static> {
    let bytes: Vec<u8> = (0..n).flat_map(|i| (value + i as f32).to_le_bytes()).collect();
    NamedTensor::f32(name, vec![n], bytes)
}

fn model(value: f32) -> Vec<NamedTensor<'static>> {
    vec![tensor("b", 40, value), tensor("a", 3, value), tensor("empty", 0, value)]
}

fn save_value(fs: &dyn FileSystem, run: &Path, step: u64, value: f32) -> Result<PathBuf, CheckpointError> {
    let optimizer = [tensor("a.mean", 3, value), tensor("a.square", 3, value)];
    save(fs, run, step, &model(value), &optimizer, &state(step))
}

/// A run folder with checkpoints of these steps, each holding its step as its value.
fn run_with(steps: &[u64]) -> tempfile::TempDir {
    let run = tempfile::tempdir().unwrap();
    for &step in steps {
        save_value(&RealFs, run.path(), step, step as f32).unwrap();
    }
    run
}

fn value_of(checkpoint: &Checkpoint) -> f32 {
    let tensors = checkpoint.model_tensors();
    let a = tensors.iter().find(|tensor| tensor.name == "a").unwrap();
    f32::from_le_bytes(a.bytes[..4].try_into().unwrap())
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_saved_is_found_again() {
    let run = run_with(&[500]);
    let path = run.path().join("checkpoints/step-00000500");
    assert_eq!(names_in(&path), [MANIFEST_FILE, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.state(), &state(500));
    let mut expected = model(500.0);
    expected.sort_by(|one, other| one.name.cmp(&other.name));
    let mut found = checkpoint.model_tensors();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(found, expected);
    assert_eq!(checkpoint.optimizer_tensors().len(), 2);
}

#[test]
fn the_same_tensors_in_any_order_give_the_same_bytes() {
    let bytes_of = |reverse: bool| {
        let run = tempfile::tempdir().unwrap();
        let half = NamedTensor {
            dtype: Dtype::BF16,
            shape: vec![2, 1],
            bytes: vec![0, 1, 2, 3].into(),
            name: "0".to_owned(),
        };
        let mut tensors = model(1.0);
        tensors.push(half);
        if reverse {
            tensors.reverse();
        }
        let path = save(&RealFs, run.path(), 1, &tensors, &[], &state(1)).unwrap();
        FILES.map(|name| fs::read(path.join(name)).unwrap())
    };
    let bytes = bytes_of(false);
    assert_eq!(bytes, bytes_of(true));
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes[0]).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap().len(), 1);
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let header = u64::from_le_bytes(bytes[0][..8].try_into().unwrap());
    assert_eq!(header % 8, 0);
}

#[test]
fn what_is_not_finite_or_not_whole_is_never_written() {
    let run = run_with(&[5]);
    let refuse = |tensors: &[NamedTensor<'_>]| {
        let error = save(&RealFs, run.path(), 10, tensors, &[], &state(10)).unwrap_err();
        assert_eq!(names_in(&run.path().join("checkpoints")), ["step-00000005"]);
        error
    };
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 4095, 4096, 9999] {
            let mut tensor = tensor("w", 10_000, 0.5);
            tensor.bytes.to_mut()[4 * at..][..4].copy_from_slice(&bad.to_le_bytes());
            let error = refuse(&[tensor]);
            assert_eq!(
                error.to_string(),
                format!("tensor `w` holds a number that is not finite at element {at} of 10000")
            );
            assert_eq!(error.exit(), Exit::NotFinite);
        }
    }
    for (dtype, bytes) in [
        (Dtype::BF16, 0x7f80_u16.to_le_bytes().to_vec()),
        (Dtype::F16, 0xfc00_u16.to_le_bytes().to_vec()),
        (Dtype::F64, f64::NAN.to_le_bytes().to_vec()),
    ] {
        let bad = NamedTensor { name: "w".to_owned(), dtype, shape: vec![], bytes: bytes.into() };
        assert!(matches!(refuse(&[bad]), CheckpointError::NotFinite { at: 0, len: 1, .. }));
    }
    let short = NamedTensor::f32("w", vec![2, 3], vec![0; 20]);
    assert_eq!(refuse(&[short]).to_string(), "tensor `w` has 20 bytes, but its shape [2, 3] needs 24");
    refuse(&[tensor("w", 1, 0.0), tensor("w", 1, 0.0)]);
    refuse(&[tensor("__metadata__", 1, 0.0)]);
    let wide = NamedTensor::f32("w", vec![usize::MAX, 8], vec![0; 20]);
    assert!(matches!(refuse(&[wide]), CheckpointError::BytesDiffer { .. }));
    let error = save(&RealFs, run.path(), 10, &[], &[], &state(11)).unwrap_err();
    assert!(matches!(error, CheckpointError::StepDiffers { found: 11, expected: 10, .. }));
    let mut lost = state(10);
    lost.validation_loss = Some(f64::INFINITY);
    assert!(save(&RealFs, run.path(), 10, &[], &[], &lost).is_err());
}

#[test]
fn the_greatest_finite_numbers_are_written() {
    let run = tempfile::tempdir().unwrap();
    let values = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, 1e-45];
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let path = save(&RealFs, run.path(), 1, &[NamedTensor::f32("w", vec![5], bytes.clone())], &[], &state(1));
    let checkpoint = Checkpoint::open(&path.unwrap()).unwrap();
    assert_eq!(checkpoint.model_tensors()[0].bytes, bytes);
}

/// C9: tensors that lie in the mapped file are saved onto that same file.
#[test]
fn c9_saving_onto_the_mapped_checkpoint_keeps_it() {
    let run = run_with(&[5]);
    let before = FILES.map(|name| fs::read(folder_of(run.path(), 5).join(name)).unwrap());
    let mapped = open_step(run.path(), 5).unwrap();
    let (model, optimizer) = (mapped.model_tensors(), mapped.optimizer_tensors());
    let path = save(&RealFs, run.path(), 5, &model, &optimizer, mapped.state()).unwrap();
    assert_eq!(FILES.map(|name| fs::read(path.join(name)).unwrap()), before);
    assert_eq!(mapped.model_tensors(), open_step(run.path(), 5).unwrap().model_tensors());
}

#[test]
fn an_exact_step_never_falls_back() {
    let run = run_with(&[5, 10]);
    let error = open_step(run.path(), 7).unwrap_err();
    assert!(error.to_string().ends_with("has no checkpoint of step 7; it has 5, 10"), "{error}");
    assert_eq!(error.exit(), Exit::BadInput);
    fs::remove_file(folder_of(run.path(), 10).join(MANIFEST_FILE)).unwrap();
    assert_eq!(open_step(run.path(), 10).unwrap_err().exit(), Exit::Damaged);
    fs::rename(folder_of(run.path(), 5), folder_of(run.path(), 6)).unwrap();
    let error = open_step(run.path(), 6).unwrap_err();
    assert!(matches!(error, CheckpointError::StepDiffers { found: 5, expected: 6, .. }));
}

#[test]
fn other_names_are_no_checkpoints() {
    let run = run_with(&[5, 123_456_789]);
    let parent = run.path().join("checkpoints");
    for name in ["step-5", "step-+0000005", "step-00000006.tmp-1", "x", "step-", "step-99999999999999999999"] {
        fs::create_dir(parent.join(name)).unwrap();
    }
    fs::write(parent.join("step-00000007"), "a file").unwrap();
    let steps: Vec<u64> = list(run.path()).unwrap().iter().map(|folder| folder.step).collect();
    assert_eq!(steps, [5, 123_456_789]);
    let empty = tempfile::tempdir().unwrap();
    assert!(list(empty.path()).unwrap().is_empty() && newest_valid(empty.path()).unwrap().0.is_none());
    assert!(tidy(&RealFs, empty.path()).unwrap().is_empty());
}
