//! A save or a pruning that fails at each of its operations

use fornax_base::testing::{FailKind, FailingFs};

use super::*;

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
            let case = format!("{kind:?} at operation {k}: {:?}", counting.operations()[k as usize - 1]);
            let (found, skipped) = newest_valid(run.path()).unwrap();
            assert!(skipped.is_empty(), "{case}: a half checkpoint has a final name");
            let found = value_of(&found.expect(&case));
            assert!(found == 10.0 || (found == 5.0 && result.is_err()), "{case}: {found}");
            tidy(&RealFs, run.path()).unwrap();
            let left = names_in(&run.path().join("checkpoints"));
            assert!(left.iter().all(|name| name.len() == "step-00000010".len()), "{case}: {left:?}");
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
            let case = format!("{kind:?} at operation {k}: {:?}", operations[k as usize - 1]);
            if kind != FailKind::Abort {
                open_step(run.path(), 5).expect(&case);
            }
            tidy(&RealFs, run.path()).unwrap();
            assert_eq!(names_in(&run.path().join("checkpoints")), ["step-00000005"], "{case}");
            let found = value_of(&open_step(run.path(), 5).expect(&case));
            assert!(found == 6.0 || (found == 5.0 && result.is_err()), "{case}: {found}");
        }
    }
}

fn steps_left(run: &Path) -> Vec<u64> {
    list(run).unwrap().iter().map(|folder| folder.step).collect()
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
            assert_eq!(names_in(&run.path().join("checkpoints")), ["step-00000004", "step-00000005"]);
        }
    }
}
