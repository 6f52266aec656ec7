use std::fs;

use fornax_base::exit::Exit;
use fornax_base::files::{FileSystem, RealFs};
use fornax_base::rng;
use fornax_base::testing::{FailKind, FailingFs};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::recipe::ScheduleKind;

const FILES: [&str; 4] = [MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, MANIFEST_FILE];

fn state(step: u64) -> State {
    State {
        step,
        total_steps: 100,
        tokens_seen: step * 64,
        optimizer_updates: 3,
        cursor: json!({"epoch": 0, "row": step, "carry": [1, 2]}),
        rng: RngPosition { seed: 7, step },
        schedule: ScheduleKind::Cosine,
        validation_loss: Some(0.1 + 0.2),
        best: Some(Best {
            step,
            loss: 1.0 / 3.0,
        }),
        recipe_hash: "ab".repeat(32),
        tool_version: "0.1.0".to_owned(),
    }
}

/// A tensor `[n]` whose values tell which save it belongs to.
fn tensor(name: &str, n: usize, value: f32) -> NamedTensor<'static> {
    let bytes: Vec<u8> = (0..n)
        .flat_map(|i| (value + i as f32).to_le_bytes())
        .collect();
    NamedTensor::f32(name, vec![n], bytes)
}

fn model(value: f32) -> Vec<NamedTensor<'static>> {
    vec![
        tensor("b", 40, value),
        tensor("a", 3, value),
        tensor("empty", 0, value),
    ]
}

fn save_value(
    fs: &dyn FileSystem,
    run: &Path,
    step: u64,
    value: f32,
) -> Result<PathBuf, CheckpointError> {
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
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn flips() -> u64 {
    match std::env::var("FORNAX_TEST_SCALE").as_deref() {
        Ok("nightly") => 1000,
        _ => 200,
    }
}

#[test]
fn what_is_saved_is_found_again() {
    let run = run_with(&[500]);
    let path = run.path().join("checkpoints/step-00000500");
    assert_eq!(
        names_in(&path),
        [MANIFEST_FILE, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE]
    );
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
        let bad = NamedTensor {
            name: "w".to_owned(),
            dtype,
            shape: vec![],
            bytes: bytes.into(),
        };
        assert!(matches!(
            refuse(&[bad]),
            CheckpointError::NotFinite { at: 0, len: 1, .. }
        ));
    }
    let short = NamedTensor::f32("w", vec![2, 3], vec![0; 20]);
    assert_eq!(
        refuse(&[short]).to_string(),
        "tensor `w` has 20 bytes, but its shape [2, 3] needs 24"
    );
    refuse(&[tensor("w", 1, 0.0), tensor("w", 1, 0.0)]);
    refuse(&[tensor("__metadata__", 1, 0.0)]);
    let wide = NamedTensor::f32("w", vec![usize::MAX, 8], vec![0; 20]);
    assert!(matches!(
        refuse(&[wide]),
        CheckpointError::BytesDiffer { .. }
    ));
    let error = save(&RealFs, run.path(), 10, &[], &[], &state(11)).unwrap_err();
    assert!(matches!(
        error,
        CheckpointError::StepDiffers {
            found: 11,
            expected: 10,
            ..
        }
    ));
    let mut lost = state(10);
    lost.validation_loss = Some(f64::INFINITY);
    assert!(save(&RealFs, run.path(), 10, &[], &[], &lost).is_err());
}

#[test]
fn the_greatest_finite_numbers_are_written() {
    let run = tempfile::tempdir().unwrap();
    let values = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, 1e-45];
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let path = save(
        &RealFs,
        run.path(),
        1,
        &[NamedTensor::f32("w", vec![5], bytes.clone())],
        &[],
        &state(1),
    );
    let checkpoint = Checkpoint::open(&path.unwrap()).unwrap();
    assert_eq!(checkpoint.model_tensors()[0].bytes, bytes);
}

/// C2: whatever operation of a save fails or is the last one of its process, the old or the new checkpoint loads.
#[test]
fn c2_a_save_that_fails_anywhere_leaves_the_old_or_the_new() {
    let work = |fs: &FailingFs, run: &Path| {
        save_value(fs, run, 10, 10.0)?;
        prune(fs, run, 2, None).map(drop)
    };
    let counting = FailingFs::counting();
    work(&counting, run_with(&[1, 2, 5]).path()).unwrap();
    assert!(counting.ops_used() > 20, "{:?}", counting.operations());
    for kind in FailKind::ALL {
        for k in 1..=counting.ops_used() {
            let run = run_with(&[1, 2, 5]);
            let result = work(&FailingFs::new(k, kind), run.path());
            let case = format!(
                "{kind:?} at operation {k}: {:?}",
                counting.operations()[k as usize - 1]
            );
            let (found, skipped) = newest_valid(run.path()).unwrap();
            assert!(
                skipped.is_empty(),
                "{case}: a half checkpoint has a final name"
            );
            let found = value_of(&found.expect(&case));
            assert!(
                found == 10.0 || (found == 5.0 && result.is_err()),
                "{case}: {found}"
            );
            tidy(&RealFs, run.path()).unwrap();
            let left = names_in(&run.path().join("checkpoints"));
            assert!(
                left.iter().all(|name| name.len() == "step-00000010".len()),
                "{case}: {left:?}"
            );
            let (again, _) = newest_valid(run.path()).unwrap();
            assert_eq!(value_of(&again.expect(&case)), found, "{case}");
            save_value(&RealFs, run.path(), 15, 15.0).expect(&case);
        }
    }
}

/// C2 for a run resumed from before a checkpoint that exists: its name is taken over, and it is the only one.
#[test]
fn c2_a_replacement_that_fails_anywhere_leaves_the_old_or_the_new() {
    let counting = FailingFs::counting();
    save_value(&counting, run_with(&[5]).path(), 5, 6.0).unwrap();
    let operations = counting.operations();
    for kind in FailKind::ALL {
        for k in 1..=counting.ops_used() {
            let run = run_with(&[5]);
            let result = save_value(&FailingFs::new(k, kind), run.path(), 5, 6.0);
            let case = format!(
                "{kind:?} at operation {k}: {:?}",
                operations[k as usize - 1]
            );
            if kind != FailKind::Abort {
                open_step(run.path(), 5).expect(&case);
            }
            tidy(&RealFs, run.path()).unwrap();
            assert_eq!(
                names_in(&run.path().join("checkpoints")),
                ["step-00000005"],
                "{case}"
            );
            let found = value_of(&open_step(run.path(), 5).expect(&case));
            assert!(
                found == 6.0 || (found == 5.0 && result.is_err()),
                "{case}: {found}"
            );
        }
    }
}

/// C4: each flipped byte of each file is noticed, and the resume takes the checkpoint before.
#[test]
fn c4_every_flipped_byte_is_noticed() {
    let run = run_with(&[5, 10]);
    let path = folder_of(run.path(), 10);
    for name in FILES {
        let file = path.join(name);
        let whole = fs::read(&file).unwrap();
        for case in 0..flips() {
            let mut random = rng::rng(case, 0, name);
            let at = random.below(whole.len() as u64) as usize;
            let mut bytes = whole.clone();
            bytes[at] ^= 1 + random.below(255) as u8;
            fs::write(&file, &bytes).unwrap();
            let said = format!("{name}: byte {at} made {}", bytes[at]);
            let error = open_step(run.path(), 10).expect_err(&said);
            let is_version = matches!(error, CheckpointError::UnknownVersion { .. });
            assert!(
                error.exit() == Exit::Damaged || is_version,
                "{said}: {error}"
            );
            let (found, skipped) = newest_valid(run.path()).unwrap();
            assert_eq!(value_of(&found.unwrap()), 5.0, "{said}");
            assert_eq!(skipped.len(), 1, "{said}");
            assert_eq!(skipped[0].path, path, "{said}");
        }
        fs::write(&file, &whole).unwrap();
    }
    assert_eq!(
        value_of(&newest_valid(run.path()).unwrap().0.unwrap()),
        10.0
    );
}

/// C5: a file cut anywhere is an error with both lengths.
#[test]
fn c5_every_cut_is_an_error_with_both_lengths() {
    let run = run_with(&[5, 10]);
    let path = folder_of(run.path(), 10);
    for name in FILES {
        let file = path.join(name);
        let whole = fs::read(&file).unwrap();
        let end = whole.len();
        let header = if name.ends_with(".safetensors") {
            8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize
        } else {
            end / 3
        };
        for cut in [0, 1, 7, 8, 9, header - 1, header, end / 2, end - 1] {
            fs::write(&file, &whole[..cut]).unwrap();
            let error = Checkpoint::open(&path).unwrap_err();
            let sentence = error.to_string();
            assert!(
                sentence.contains(&format!("{cut} bytes")),
                "{name} at {cut}: {sentence}"
            );
            if name == MANIFEST_FILE {
                assert!(
                    matches!(error, CheckpointError::BadManifest { .. }),
                    "{sentence}"
                );
            } else {
                assert!(
                    matches!(error, CheckpointError::LengthDiffers { found, expected, .. }
                        if found == cut as u64 && expected == end as u64),
                    "{name} at {cut}: {sentence}"
                );
            }
            assert_eq!(value_of(&newest_valid(run.path()).unwrap().0.unwrap()), 5.0);
        }
        fs::remove_file(&file).unwrap();
        let error = Checkpoint::open(&path).unwrap_err();
        if name == MANIFEST_FILE {
            assert!(
                matches!(error, CheckpointError::NoManifest { .. }),
                "{error}"
            );
        } else {
            assert!(
                matches!(error, CheckpointError::MissingFile { .. }),
                "{error}"
            );
        }
        fs::write(&file, &whole).unwrap();
    }
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
    assert_eq!(
        mapped.model_tensors(),
        open_step(run.path(), 5).unwrap().model_tensors()
    );
}

#[test]
fn an_exact_step_never_falls_back() {
    let run = run_with(&[5, 10]);
    let error = open_step(run.path(), 7).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("has no checkpoint of step 7; it has 5, 10"),
        "{error}"
    );
    assert_eq!(error.exit(), Exit::BadInput);
    fs::remove_file(folder_of(run.path(), 10).join(MANIFEST_FILE)).unwrap();
    assert_eq!(open_step(run.path(), 10).unwrap_err().exit(), Exit::Damaged);
    fs::rename(folder_of(run.path(), 5), folder_of(run.path(), 6)).unwrap();
    let error = open_step(run.path(), 6).unwrap_err();
    assert!(matches!(
        error,
        CheckpointError::StepDiffers {
            found: 5,
            expected: 6,
            ..
        }
    ));
}

#[test]
fn other_names_are_no_checkpoints() {
    let run = run_with(&[5, 123_456_789]);
    let parent = run.path().join("checkpoints");
    for name in [
        "step-5",
        "step-+0000005",
        "step-00000006.tmp-1",
        "x",
        "step-",
        "step-99999999999999999999",
    ] {
        fs::create_dir(parent.join(name)).unwrap();
    }
    fs::write(parent.join("step-00000007"), "a file").unwrap();
    let steps: Vec<u64> = list(run.path())
        .unwrap()
        .iter()
        .map(|folder| folder.step)
        .collect();
    assert_eq!(steps, [5, 123_456_789]);
    let empty = tempfile::tempdir().unwrap();
    assert!(
        list(empty.path()).unwrap().is_empty() && newest_valid(empty.path()).unwrap().0.is_none()
    );
    assert!(tidy(&RealFs, empty.path()).unwrap().is_empty());
}

fn steps_left(run: &Path) -> Vec<u64> {
    list(run)
        .unwrap()
        .iter()
        .map(|folder| folder.step)
        .collect()
}

#[test]
fn pruning_keeps_the_newest_and_the_best() {
    let run = run_with(&[1, 2, 3, 4, 5]);
    let pruned = prune(&RealFs, run.path(), 3, Some(1)).unwrap();
    assert_eq!(steps_left(run.path()), [1, 3, 4, 5]);
    assert_eq!(pruned.removed, [folder_of(run.path(), 2)]);
    prune(&RealFs, run.path(), 0, None).unwrap();
    assert_eq!(steps_left(run.path()), [4, 5], "two stay whatever is asked");
}

#[test]
fn pruning_does_not_count_damaged_ones() {
    let run = run_with(&[1, 2, 3, 4, 5]);
    for step in [5, 3] {
        let file = folder_of(run.path(), step).join(MODEL_FILE);
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    let pruned = prune(&RealFs, run.path(), 2, None).unwrap();
    assert_eq!(steps_left(run.path()), [2, 3, 4, 5]);
    assert_eq!(pruned.damaged.len(), 2);
}

/// C19: a removal that fails, or in which the process dies, leaves two valid checkpoints and is a warning.
#[test]
fn c19_pruning_that_fails_anywhere_keeps_two_valid_ones() {
    let steps = [1, 2, 3, 4, 5];
    let counting = FailingFs::counting();
    prune(&counting, run_with(&steps).path(), 2, None).unwrap();
    assert_eq!(counting.ops_used(), 9, "{:?}", counting.operations());
    for kind in FailKind::ALL {
        for k in 1..=counting.ops_used() {
            let run = run_with(&steps);
            let pruned = prune(&FailingFs::new(k, kind), run.path(), 2, None).unwrap();
            assert!(!pruned.warnings.is_empty(), "{kind:?} at {k}");
            for folder in list(run.path()).unwrap() {
                Checkpoint::open(&folder.path).unwrap();
            }
            assert!(steps_left(run.path()).ends_with(&[4, 5]), "{kind:?} at {k}");
            tidy(&RealFs, run.path()).unwrap();
            prune(&RealFs, run.path(), 2, None).unwrap();
            assert_eq!(
                names_in(&run.path().join("checkpoints")),
                ["step-00000004", "step-00000005"]
            );
        }
    }
}

#[test]
fn another_version_is_named() {
    let run = run_with(&[5]);
    let path = folder_of(run.path(), 5);
    let text = fs::read_to_string(path.join(MANIFEST_FILE)).unwrap();
    let newer = text.replace("\"version\": 1", "\"version\": 2,\n  \"new_key\": true");
    fs::write(path.join(MANIFEST_FILE), newer).unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("has format version 2, but this program reads version 1")
    );
    assert_eq!(error.exit(), Exit::BadInput);
}

/// A header in front of `data` bytes, as a stranger could write it.
fn forged(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

#[test]
fn forged_tensor_files_are_refused() {
    let one = |offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}}}"#)
    };
    let huge: Vec<String> = (0..8_u64)
        .map(|i| {
            let (start, end) = (i * ((1 << 61) - 1), (i + 1) * ((1 << 61) - 1));
            format!(
                r#""{i}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#,
                end - start
            )
        })
        .collect();
    let mut files = vec![
        forged(&one("[0,8]"), 8),
        forged(&one("[4,0]"), 4),
        forged(&one("[4,8]"), 8),
        forged(&one("[0,4]"), 5),
        forged(&one("[0,18446744073709551615]"), 4),
        forged(&format!("{{{}}}", huge.join(",")), 4),
        forged("", 0),
        Vec::new(),
        vec![0; 7],
    ];
    for header in [1, 2_u64.pow(31), 2_u64.pow(63), u64::MAX, u64::MAX - 8] {
        files.push(header.to_le_bytes().to_vec());
    }
    for file in files {
        let error = tensors::parse(Path::new("m.safetensors"), &file).unwrap_err();
        assert!(matches!(error, CheckpointError::BadTensors { .. }));
    }
    assert_eq!(
        tensors::parse(Path::new("m"), &forged(&one("[0,4]"), 4))
            .unwrap()
            .tensors(&[0; 100])
            .len(),
        1
    );
}

fn names() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "model.safetensors",
        "../x",
        "/etc/passwd",
        "C:\\x",
        "a/../../x",
        "",
        ".",
        "..",
        "a/b",
        "a\0b",
        "\\\\host\\share",
        "./a",
        "a//b",
        "link/x",
        "~/x",
        "…/x",
    ]);
    prop_oneof![
        known.prop_map(str::to_owned),
        any::<String>(),
        "[./a]{1,12}"
    ]
}

fn check_paths(folder: &Path, bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(manifest) = Manifest::parse(folder, bytes) else {
        return Ok(false);
    };
    for path in manifest.paths(folder).unwrap() {
        prop_assert!(path.starts_with(folder) && path != folder, "{path:?}");
        let climbs = path
            .components()
            .any(|part| matches!(part, std::path::Component::ParentDir));
        prop_assert!(!climbs, "{path:?}");
        let link = folder.join("link");
        prop_assert!(!path.starts_with(link), "{path:?}");
    }
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// F17: an error, or a manifest whose paths all lie inside.
    #[test]
    fn f17_a_manifest_is_an_error_or_stays_inside(
        files in prop::collection::vec((names(), any::<u64>(), "[0-9a-f]{64}"), 0..6),
        noise in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("link")).unwrap();
        let files = files.into_iter().map(|(name, bytes, sha256)| ManifestFile { name, bytes, sha256 });
        let mut bytes = Manifest::new(files.collect()).to_bytes().unwrap();
        check_paths(folder.path(), &bytes)?;
        check_paths(folder.path(), &noise)?;
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check_paths(folder.path(), &bytes)?;
    }
}

#[test]
fn f17_a_good_manifest_is_accepted_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let parse = |names: &[&str], sha: &str| {
        let files = names.iter().map(|&name| ManifestFile {
            name: name.to_owned(),
            bytes: 1,
            sha256: sha.to_owned(),
        });
        let bytes = Manifest::new(files.collect()).to_bytes().unwrap();
        check_paths(folder.path(), &bytes).unwrap()
    };
    let good = "0f".repeat(32);
    assert!(parse(&["a", "b/c"], &good));
    assert!(!parse(&["a", "a"], &good));
    assert!(!parse(&["../a"], &good));
    assert!(!parse(&["a"], &good.to_uppercase()));
    assert!(!parse(&["a"], "0f"));
}
