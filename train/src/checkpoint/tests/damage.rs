//! Bytes flipped, cut, forged

use fornax_base::rng;
use proptest::prelude::*;

use super::*;

fn flips() -> u64 {
    match std::env::var("FORNAX_TEST_SCALE").as_deref() {
        Ok("nightly") => 1000,
        _ => 200,
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
            assert!(error.exit() == Exit::Damaged || is_version, "{said}: {error}");
            let (found, skipped) = newest_valid(run.path()).unwrap();
            assert_eq!(value_of(&found.unwrap()), 5.0, "{said}");
            assert_eq!(skipped.len(), 1, "{said}");
            assert_eq!(skipped[0].path, path, "{said}");
        }
        fs::write(&file, &whole).unwrap();
    }
    assert_eq!(value_of(&newest_valid(run.path()).unwrap().0.unwrap()), 10.0);
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
            assert!(sentence.contains(&format!("{cut} bytes")), "{name} at {cut}: {sentence}");
            if name == MANIFEST_FILE {
                assert!(matches!(error, CheckpointError::BadManifest { .. }), "{sentence}");
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
            assert!(matches!(error, CheckpointError::NoManifest { .. }), "{error}");
        } else {
            assert!(matches!(error, CheckpointError::MissingFile { .. }), "{error}");
        }
        fs::write(&file, &whole).unwrap();
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
    assert!(error.to_string().ends_with("has format version 2, but this program reads version 1"));
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
    let one = |offsets: &str| format!(r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}}}"#);
    let huge: Vec<String> = (0..8_u64)
        .map(|i| {
            let (start, end) = (i * ((1 << 61) - 1), (i + 1) * ((1 << 61) - 1));
            format!(r#""{i}":{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#, end - start)
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
    assert_eq!(tensors::parse(Path::new("m"), &forged(&one("[0,4]"), 4)).unwrap().tensors(&[0; 100]).len(), 1);
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
    prop_oneof![known.prop_map(str::to_owned), any::<String>(), "[./a]{1,12}"]
}

fn check_paths(folder: &Path, bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(manifest) = Manifest::parse(folder, bytes) else {
        return Ok(false);
    };
    for path in manifest.paths(folder).unwrap() {
        prop_assert!(path.starts_with(folder) && path != folder, "{path:?}");
        let climbs = path.components().any(|part| matches!(part, std::path::Component::ParentDir));
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
        let files =
            names.iter().map(|&name| ManifestFile { name: name.to_owned(), bytes: 1, sha256: sha.to_owned() });
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
