use std::fs;

use fornax_base::files::RealFs;
use fornax_base::testing::{FailKind, FailingFs};

use super::*;

fn logps() -> ReferenceLogps {
    ReferenceLogps { train: vec![[-1.5, -2.25], [-30.0, -0.125], [-7.0, -8.0]], held_out: vec![] }
}

fn rows(n: usize, key: &str) -> Rows {
    Rows { n, key: key.to_owned() }
}

fn open(
    fs: &dyn FileSystem,
    run: &Path,
    key: &str,
    compute: impl FnOnce() -> Result<ReferenceLogps, ReferenceError>,
) -> Result<(ReferenceLogps, Option<String>), ReferenceError> {
    open_or_compute(fs, run, &rows(3, key), &rows(0, "held out"), compute)
}

/// The cache is whole: nothing is computed.
fn is_kept(run: &Path) -> bool {
    open(&RealFs, run, "a", || panic!("computed again")).is_ok_and(|(found, _)| found == logps())
}

#[test]
fn what_was_computed_is_found_again() {
    let run = tempfile::tempdir().unwrap();
    let (found, warning) = open(&RealFs, run.path(), "a", || Ok(logps())).unwrap();
    assert_eq!((found, warning), (logps(), None));
    assert!(is_kept(run.path()));
    let mut names: Vec<_> = fs::read_dir(run.path().join(FOLDER))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [TENSORS, ABOUT]);
}

#[test]
fn a_damaged_cache_is_computed_again() {
    let cut = |path: &Path| fs::write(path, &fs::read(path).unwrap()[..20]).unwrap();
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    };
    type Fault<'a> = (&'static str, &'static str, &'a dyn Fn(&Path));
    let faults: [Fault<'_>; 6] = [
        ("cut short", TENSORS, &cut),
        ("a bit", TENSORS, &flip),
        ("gone", TENSORS, &|path| fs::remove_file(path).unwrap()),
        ("cut short", ABOUT, &cut),
        ("gone", ABOUT, &|path| fs::remove_file(path).unwrap()),
        ("another format", ABOUT, &|path| {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.replace("\"format_version\": 1", "\"format_version\": 9")).unwrap();
        }),
    ];
    for (what, name, spoil) in faults {
        let run = tempfile::tempdir().unwrap();
        open(&RealFs, run.path(), "a", || Ok(logps())).unwrap();
        spoil(&run.path().join(FOLDER).join(name));
        let (found, warning) = open(&RealFs, run.path(), "a", || Ok(logps())).unwrap();
        let warning = warning.unwrap_or_else(|| panic!("{name} {what}: no warning"));
        assert!(warning.contains("are computed again"), "{warning}");
        assert_eq!(found, logps());
        assert!(is_kept(run.path()), "{name} {what}: not written again");
    }
}

#[test]
fn another_number_of_rows_is_damage() {
    let run = tempfile::tempdir().unwrap();
    open(&RealFs, run.path(), "a", || Ok(logps())).unwrap();
    let other = |train: Rows, held_out: Rows| {
        let compute = || Ok::<_, ReferenceError>(logps());
        open_or_compute(&RealFs, run.path(), &train, &held_out, compute).unwrap().1.unwrap()
    };
    let warning = other(rows(4, "a"), rows(0, "held out"));
    assert!(warning.contains("`train` holds 3 pairs of numbers, expected 4"), "{warning}");
    let warning = other(rows(3, "a"), rows(0, "others"));
    assert!(warning.ends_with("are computed again: other rows are held out now"), "{warning}");
}

#[test]
fn a_foreign_cache_is_refused() {
    let run = tempfile::tempdir().unwrap();
    open(&RealFs, run.path(), "a", || Ok(logps())).unwrap();
    let error = open(&RealFs, run.path(), "b", || panic!("computed again")).unwrap_err();
    assert!(error.to_string().ends_with("are of a, this run's are of b"), "{error}");
    assert_eq!(error.exit(), Exit::BadInput);
    assert!(is_kept(run.path()));
}

/// Whichever operation the program dies at, the next start finds the whole cache or none.
#[test]
fn a_crash_leaves_all_or_nothing() {
    for k in 1.. {
        let run = tempfile::tempdir().unwrap();
        let fs = FailingFs::new(k, FailKind::Abort);
        let done = open(&fs, run.path(), "a", || Ok(logps())).is_ok();
        let (found, warning) = open(&RealFs, run.path(), "a", || Ok(logps())).unwrap();
        assert_eq!((found, warning), (logps(), None), "operation {k}");
        if done {
            assert!(k > 5, "only {k} operations");
            break;
        }
    }
}

#[test]
fn the_key_is_of_model_tokens_and_mask() {
    let row = |ids: &[u32], trained: &[bool]| Example { ids: ids.to_vec(), trained: trained.to_vec(), row: 1 };
    let rows = [row(&[1, 2], &[false, true]), row(&[3], &[true])];
    let same = key("m", &rows);
    assert_eq!(same, key("m", &rows.clone()));
    let others = [
        vec![row(&[1, 3], &[false, true]), row(&[3], &[true])],
        vec![row(&[1, 2], &[true, true]), row(&[3], &[true])],
        vec![row(&[1], &[false]), row(&[2, 3], &[true, true])],
    ];
    assert!(others.iter().all(|rows| key("m", rows) != same));
    assert_ne!(key("n", &rows), same);
}
