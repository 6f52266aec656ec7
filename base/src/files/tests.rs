use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs, process};

use super::*;
use crate::testing::{FailKind, FailingFs};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs `work` once counting and once for every k and kind of failure, each time in a fresh folder made by `prepare`.
/// `judge` looks at what is left and at whether the work reported an error.
fn for_each_failure(
    prepare: impl Fn(&Path),
    work: impl Fn(&FailingFs, &Path) -> Result<(), FileError>,
    judge: impl Fn(&Path, bool, &str),
) {
    let run = |fs: &FailingFs| {
        let folder = folder();
        prepare(folder.path());
        let result = work(fs, folder.path());
        (folder, result)
    };
    let counting = FailingFs::counting();
    let (_folder, result) = run(&counting);
    result.unwrap();
    assert!(counting.ops_used() >= 3, "only {} operations were counted", counting.ops_used());
    for kind in FailKind::ALL {
        for k in 1..=counting.ops_used() {
            let case = format!("{kind:?} at operation {k}");
            let (folder, result) = run(&FailingFs::new(k, kind));
            judge(folder.path(), result.is_err(), &case);
            remove_stale_temps(&RealFs, folder.path()).unwrap();
            let left = names_in(folder.path());
            assert!(left.iter().all(|name| !name.contains(".tmp-")), "{case}: {left:?}");
        }
    }
}

/// More than the buffer holds, so that a save has several writes.
fn long(letter: u8) -> Vec<u8> {
    vec![letter; 600_000]
}

#[test]
fn c2_a_file_is_old_or_new_after_every_failure() {
    for_each_failure(
        |folder| fs::write(folder.join("a"), long(b'o')).unwrap(),
        |fs, folder| {
            write_atomic(fs, &folder.join("a"), &mut |out| {
                (0..6).try_for_each(|_| out.write_all(&[b'n'; 100_000]))
            })
        },
        |folder, failed, case| {
            assert!(failed, "{case}: reported as done");
            let found = fs::read(folder.join("a")).unwrap();
            assert!(found == long(b'o') || found == long(b'n'), "{case}: {} bytes", found.len());
        },
    );
}

#[test]
fn c2_a_new_file_is_whole_or_absent_after_every_failure() {
    for_each_failure(
        |_| {},
        |fs, folder| write_atomic_bytes(fs, &folder.join("a"), &long(b'n')),
        |folder, failed, case| {
            assert!(failed, "{case}: reported as done");
            match fs::read(folder.join("a")) {
                Ok(found) => assert_eq!(found, long(b'n'), "{case}"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{case}"),
            }
        },
    );
}

fn build(fs: &FailingFs, folder: &Path) -> Result<(), FileError> {
    write_folder_atomic(fs, &folder.join("step-2"), &mut |temp| {
        fs.create_folder(&temp.join("sub")).map_err(FileError::io("create", temp))?;
        for name in ["weights", "sub/state", "manifest"] {
            write_file_synced(fs, &temp.join(name), &mut |out| out.write_all(name.as_bytes()))?;
        }
        Ok(())
    })
}

fn assert_is_whole(step: &Path, case: &str) {
    for name in ["weights", "sub/state", "manifest"] {
        assert_eq!(fs::read_to_string(step.join(name)).unwrap(), name, "{case}");
    }
}

#[test]
fn c2_a_folder_is_whole_or_absent_after_every_failure() {
    for_each_failure(
        |folder| fs::create_dir(folder.join("step-1")).unwrap(),
        build,
        |folder, failed, case| {
            assert!(failed, "{case}: reported as done");
            assert!(folder.join("step-1").is_dir(), "{case}");
            if folder.join("step-2").exists() {
                assert_is_whole(&folder.join("step-2"), case);
            }
        },
    );
}

/// A disk that loses what was not waited for cannot be had in a test, so the order itself is the test.
#[test]
fn everything_reaches_the_disk_before_its_name_does() {
    let folder = folder();
    let steps = |fs: &FailingFs| -> Vec<String> {
        let plain = |path: &Path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let name = if path == folder.path() { "." } else { name.split(".tmp-").next().unwrap() };
            name.to_owned()
        };
        fs.operations().iter().map(|(operation, path)| format!("{operation} {}", plain(path))).collect()
    };
    let fs = FailingFs::counting();
    write_atomic_bytes(&fs, &folder.path().join("a"), b"x").unwrap();
    assert_eq!(steps(&fs), ["create .a", "write .a", "sync .a", "rename .a", "sync_folder ."]);

    let fs = FailingFs::counting();
    build(&fs, folder.path()).unwrap();
    let file = |name: &str| ["create", "write", "sync"].map(|operation| format!("{operation} {name}"));
    let mut expected = vec!["create_folder step-2".to_owned(), "create_folder sub".to_owned()];
    expected.extend(["weights", "state", "manifest"].into_iter().flat_map(file));
    expected
        .extend(["sync_folder sub", "sync_folder step-2", "rename step-2", "sync_folder ."].map(str::to_owned));
    assert_eq!(steps(&fs), expected);

    let fs = FailingFs::counting();
    AppendLog::open(Arc::new(fs.clone()), &folder.path().join("log")).unwrap().append_line("x").unwrap();
    assert_eq!(steps(&fs), ["open_append log", "sync_folder .", "write log"]);
}

#[test]
fn c2_a_failed_folder_can_be_built_again() {
    let folder = folder();
    let step = folder.path().join("step-2");
    build(&FailingFs::new(5, FailKind::Abort), folder.path()).unwrap_err();
    let leftover = format!("step-2.tmp-{}", process::id());
    assert_eq!(names_in(folder.path()), [leftover]);
    build(&FailingFs::counting(), folder.path()).unwrap();
    assert_eq!(names_in(folder.path()), ["step-2"]);
    assert_is_whole(&step, "second building");
    let error = build(&FailingFs::counting(), folder.path()).unwrap_err();
    assert!(matches!(error, FileError::Exists { .. }), "{error}");
}

#[test]
fn a_folder_is_removed_whole_or_not() {
    for_each_failure(
        |folder| build(&FailingFs::counting(), folder).unwrap(),
        |fs, folder| remove_folder_atomic(fs, &folder.join("step-2")),
        |folder, failed, case| {
            assert!(failed, "{case}: reported as done");
            if folder.join("step-2").exists() {
                assert_is_whole(&folder.join("step-2"), case);
            }
        },
    );
}

#[test]
fn a_failed_write_leaves_no_temp_behind() {
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, "old").unwrap();
    let refuse = &mut |out: &mut dyn Write| {
        out.write_all(b"half")?;
        Err(io::Error::other("the caller gave up"))
    };
    let error = write_atomic(&RealFs, &path, refuse).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot write `{}`", path.display()));
    assert_eq!(names_in(folder.path()), ["a"]);
    let error = write_atomic_bytes(&FailingFs::new(2, FailKind::DiskFull), &path, b"new").unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(names_in(folder.path()), ["a"]);
    assert_eq!(fs::read(&path).unwrap(), b"old");
}

#[test]
fn odd_names_work() {
    let folder = folder();
    for name in ["with space", "ü", &"x".repeat(255), &"ü".repeat(127)] {
        let path = folder.path().join(name);
        write_atomic_bytes(&RealFs, &path, b"1").unwrap();
        write_atomic_bytes(&RealFs, &path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        fs::remove_file(&path).unwrap();
        write_folder_atomic::<FileError>(&RealFs, &path, &mut |_| Ok(())).unwrap();
        assert_eq!(names_in(folder.path()), [name]);
        fs::remove_dir(&path).unwrap();
    }
    let error = write_atomic_bytes(&RealFs, Path::new("/"), b"").unwrap_err();
    assert!(matches!(error, FileError::NoName { .. }), "{error}");
}

const MODE_FOLDER: &str = "FORNAX_BASE_MODE_TEST_FOLDER";

/// The umask belongs to the whole process, so the writing happens in a second one.
#[test]
fn modes_follow_the_umask() {
    if let Some(folder) = env::var_os(MODE_FOLDER).map(PathBuf::from) {
        write_atomic_bytes(&RealFs, &folder.join("file"), b"x").unwrap();
        write_folder_atomic::<FileError>(&RealFs, &folder.join("folder"), &mut |_| Ok(())).unwrap();
        AppendLog::open(Arc::new(RealFs), &folder.join("log")).unwrap();
        return;
    }
    for (umask, file_mode, folder_mode) in [("022", 0o644, 0o755), ("077", 0o600, 0o700), ("002", 0o664, 0o775)] {
        let folder = folder();
        let script = format!("umask {umask} && exec \"$0\" --exact files::tests::modes_follow_the_umask");
        let status = Command::new("sh")
            .args(["-c", &script])
            .arg(env::current_exe().unwrap())
            .env(MODE_FOLDER, folder.path())
            .stdout(process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode("file"), mode("log"), mode("folder")),
            (file_mode, file_mode, folder_mode),
            "umask {umask}"
        );
    }
}

#[test]
fn stale_temps_are_those_of_dead_processes() {
    let folder = folder();
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let (dead, own, parent) = (dead.id(), process::id(), std::os::unix::process::parent_id());
    let stale_files = [format!(".a.tmp-{dead}-0"), format!(".a.tmp-b.tmp-{own}-12")];
    let stale_folder = format!("step-1.tmp-{dead}");
    let kept_files = [
        format!(".a.tmp-{parent}-0"),
        format!("a.tmp-{dead}-0"),
        format!(".a.tmp-{dead}"),
        format!(".a.tmp-{dead}-x"),
        format!("step-9.tmp-{dead}"),
    ];
    let kept_folders = [format!("step-2.tmp-{parent}"), "step-3.tmp-".to_owned(), "step-4.tmp-+1".to_owned()];
    stale_files.iter().chain(&kept_files).for_each(|name| fs::write(folder.path().join(name), "").unwrap());
    [&stale_folder].into_iter().chain(&kept_folders).for_each(|name| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("inside"), "").unwrap();
    });
    symlink("/", folder.path().join(format!("link.tmp-{dead}"))).unwrap();

    let removed = remove_stale_temps(&RealFs, folder.path()).unwrap();
    let mut expected: Vec<PathBuf> =
        stale_files.iter().chain([&stale_folder]).map(|name| folder.path().join(name)).collect();
    expected.sort();
    assert_eq!(removed, expected);
    assert_eq!(names_in(folder.path()).len(), kept_files.len() + kept_folders.len() + 1);
}

#[test]
fn a_log_keeps_whole_lines_only() {
    let folder = folder();
    let path = folder.path().join("log");
    let open = || AppendLog::open(Arc::new(RealFs), &path).unwrap();
    let mut log = open();
    log.append_line("one").unwrap();
    log.append_line("").unwrap();
    log.sync().unwrap();
    let error = log.append_line("two\nthree").unwrap_err();
    assert!(error.to_string().contains("at byte 3 of 9"), "{error}");
    drop(log);
    assert_eq!(fs::read(&path).unwrap(), b"one\n\n");

    fs::write(&path, "one\ntwo\nthr").unwrap();
    assert_eq!(read_log_lines(&path).unwrap(), ["one", "two"]);
    open().append_line("four").unwrap();
    assert_eq!(read_log_lines(&path).unwrap(), ["one", "two", "four"]);

    fs::write(&path, "no line break").unwrap();
    assert_eq!(read_log_lines(&path).unwrap(), [""; 0]);
    open();
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn a_torn_line_longer_than_a_piece_is_found() {
    let folder = folder();
    let path = folder.path().join("log");
    for (whole, torn) in [(10, 200_000), (65_535, 65_536), (65_536, 65_537), (0, 131_072)] {
        let kept = if whole == 0 { String::new() } else { "w".repeat(whole - 1) + "\n" };
        fs::write(&path, kept.clone() + &"t".repeat(torn)).unwrap();
        AppendLog::open(Arc::new(RealFs), &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), kept);
    }
}

/// A full disk in the middle of a line must not glue its half to the next line.
#[test]
fn a_log_goes_on_after_every_failure() {
    let lines = ["alpha", "beta", "gamma"];
    for kind in FailKind::ALL {
        for k in 1..=7 {
            let folder = folder();
            let path = folder.path().join("log");
            let fs = FailingFs::new(k, kind);
            let mut written = Vec::new();
            if let Ok(mut log) = AppendLog::open(Arc::new(fs.clone()), &path) {
                written.extend(lines.into_iter().filter(|line| log.append_line(line).is_ok()));
                assert_eq!(read_log_lines(&path).unwrap(), written, "{kind:?} at operation {k}");
                fs.heal();
                log.append_line("later").unwrap();
                written.push("later");
            }
            drop(AppendLog::open(Arc::new(RealFs), &path).unwrap());
            assert_eq!(read_log_lines(&path).unwrap(), written, "{kind:?} at operation {k}");
        }
    }
}

#[test]
fn c2_a_cut_log_is_old_or_new_after_every_failure() {
    for_each_failure(
        |folder| fs::write(folder.join("log"), "1\n2\n3\n4").unwrap(),
        |fs, folder| cut_log(fs, &folder.join("log"), &mut |line| line != "2"),
        |folder, failed, case| {
            assert!(failed, "{case}: reported as done");
            let lines = read_log_lines(&folder.join("log")).unwrap();
            assert!(lines == ["1", "2", "3"] || lines == ["1", "3"], "{case}: {lines:?}");
        },
    );
}

#[test]
fn reading_is_bounded_and_refuses_what_is_no_file() {
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, b"12345").unwrap();
    assert_eq!(read_limited(&path, 5).unwrap(), b"12345");
    let error = read_limited(&path, 4).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`{}` is 5 bytes long, but at most 4 bytes are accepted here", path.display())
    );
    let sparse = folder.path().join("sparse");
    fs::File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(read_limited(&sparse, 1 << 20), Err(FileError::TooLarge { found: 0x100_0000_0000, .. })));
    // A file of /proc has length 0 and content all the same.
    assert!(matches!(read_limited(Path::new("/proc/self/status"), 10), Err(FileError::TooLarge { .. })));

    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, kind) in
        [(pipe.as_path(), "a pipe"), (folder.path(), "a folder"), (Path::new("/dev/zero"), "a device")]
    {
        let error = read_limited(path, 10).unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` is {kind}, but a regular file is expected", path.display()));
        assert!(sha256_file(path).is_err());
    }
    assert!(read_limited(&folder.path().join("absent"), 1).unwrap_err().is_not_found());
}

#[test]
fn text_must_be_utf8() {
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, "grün").unwrap();
    assert_eq!(read_text_limited(&path, 100).unwrap(), "grün");
    fs::write(&path, b"ab\xff").unwrap();
    let error = read_text_limited(&path, 100).unwrap_err();
    assert!(error.to_string().contains("2 of its 3 bytes"), "{error}");
}

/// FIPS 180-4 test vectors.
#[test]
fn sha256_is_the_standard_one() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    assert_eq!(sha256_hex(b"abc"), abc);
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, vec![b'a'; 1_000_000]).unwrap();
    assert_eq!(sha256_file(&path).unwrap(), (1_000_000, million.to_owned()));
    fs::write(&path, b"abc").unwrap();
    assert_eq!(sha256_file(&path).unwrap(), (3, abc.to_owned()));
}
