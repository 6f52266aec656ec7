//! F21: whatever happens to a run, and whatever the disk forgets, the newest checkpoint that was acknowledged loads.

mod drill;

use drill::{Act, play};
use fornax_base::files::FileSystem;
use fornax_base::rng::rng;
use fornax_base::testing::LossyFs;
use proptest::prelude::*;

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => (0..4_u64).prop_map(Act::Save),
        2 => (1..4_usize).prop_map(Act::Prune),
        1 => Just(Act::Kill),
        2 => Just(Act::PowerFailure),
        3 => (1..60_u64).prop_map(Act::DieAfter),
        1 => Just(Act::GoBack),
    ];
    prop::collection::vec(act, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn f21_the_newest_acknowledged_checkpoint_always_loads(acts in acts(), seed in any::<u64>()) {
        let folder = tempfile::tempdir().unwrap();
        let mut random = rng(seed, 0, "power failures");
        play(LossyFs::new(folder.path()), folder.path(), &acts, &mut |n| random.below(n)).map_err(TestCaseError::fail)?;
    }
}

/// The disk forgets as it should: without a sync of the folder the file is gone, without one of the file it is empty.
#[test]
fn what_was_not_synced_may_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let disk = LossyFs::new(folder.path());
    let path = |name: &str| folder.path().join(name);
    for (name, sync_file, sync_folder) in [("a", true, false), ("b", false, true), ("c", true, true)] {
        let mut file = disk.create_new(&path(name)).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        if sync_file {
            file.sync().unwrap();
        }
        if sync_folder {
            disk.sync_folder(folder.path()).unwrap();
        }
    }
    disk.rename(&path("c"), &path("d")).unwrap();
    assert_eq!(std::fs::read(path("d")).unwrap(), b"c");
    disk.lose_power(&mut |_| 0).unwrap();
    let read = |name: &str| std::fs::read(path(name)).ok();
    assert_eq!([read("b"), read("c"), read("d")], [Some(vec![]), Some(b"c".to_vec()), None]);
    // Every file of the folder was made before its last sync.
    assert_eq!(read("a"), Some(b"a".to_vec()));
}

/// The drill can fail: on a disk whose syncs do nothing, an acknowledged checkpoint is lost.
#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let acts = [Act::Save(1), Act::Save(1), Act::PowerFailure];
    let error = play(LossyFs::lying(folder.path()), folder.path(), &acts, &mut |_| 0).unwrap_err();
    assert!(error.contains("the checkpoint of step Some(2) was promised, None is the newest"), "{error}");
}
