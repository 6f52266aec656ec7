//! Names given by strangers (inside index files, requests, recipes), made into paths that cannot leave a folder.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The longest accepted component of a name, in bytes.
const COMPONENT_MAX: usize = 255;
/// The longest accepted name, in bytes.
const NAME_MAX: usize = 4096;

/// Why a name was refused.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The name is empty or names the folder itself.
    #[error("the name `{name}` names nothing inside `{}`", root.display())]
    Empty {
        /// The name as given.
        name: String,
        /// The folder it was to lie in.
        root: PathBuf,
    },
    /// The name or a component of it is too long.
    #[error("a name inside `{}` has {found} bytes in one {part}, but at most {limit} are accepted", root.display())]
    TooLong {
        /// `component` or `path`.
        part: &'static str,
        /// Length in bytes.
        found: usize,
        /// The greatest accepted length in bytes.
        limit: usize,
        /// The folder it was to lie in.
        root: PathBuf,
    },
    /// The name holds a byte that means something else on some system: NUL, a backslash, a drive's colon.
    #[error("the name {name:?} holds {found}, which is not accepted inside `{}`", root.display())]
    Forbidden {
        /// The name as given.
        name: String,
        /// What it holds.
        found: &'static str,
        /// The folder it was to lie in.
        root: PathBuf,
    },
    /// The name is absolute or climbs with `..`.
    #[error("the name `{name}` leads out of `{}`", root.display())]
    Outside {
        /// The name as given.
        name: String,
        /// The folder it was to lie in.
        root: PathBuf,
    },
    /// A symbolic link on the way points out of the folder, or to nothing.
    #[error("the name `{name}` leads out of `{}` through the link `{}`", root.display(), link.display())]
    LinkOutside {
        /// The name as given.
        name: String,
        /// The link.
        link: PathBuf,
        /// The folder it was to lie in.
        root: PathBuf,
    },
    /// The folder or a component cannot be looked at.
    #[error("cannot look at `{}`", path.display())]
    Io {
        /// The path looked at.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Joins a relative name like `a/b.safetensors` to `root`, and answers only with paths inside it. The file need not
/// exist; symbolic links among the components that do exist must point to something inside `root`.
///
/// # Errors
/// A name that is empty, absolute, or longer than 4,096 bytes (255 a component); that holds `..`, NUL, a backslash or
/// a drive (`C:`); or that passes a link out of `root`. Nothing is created or opened.
pub fn join_inside(root: &Path, name: &str) -> Result<PathBuf, PathError> {
    check_bytes(root, name)?;
    let mut path = root.to_path_buf();
    let mut real_root = None;
    let mut is_named = false;
    for component in Path::new(name).components() {
        let component = match component {
            Component::Normal(component) => component,
            Component::CurDir => continue,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(PathError::Outside { name: name.to_owned(), root: root.to_path_buf() });
            }
        };
        path.push(component);
        is_named = true;
        check_link(root, &mut real_root, &path, name)?;
    }
    if is_named { Ok(path) } else { Err(PathError::Empty { name: name.to_owned(), root: root.to_path_buf() }) }
}

fn check_bytes(root: &Path, name: &str) -> Result<(), PathError> {
    let too_long = |part, found, limit| PathError::TooLong { part, found, limit, root: root.to_path_buf() };
    if name.len() > NAME_MAX {
        return Err(too_long("path", name.len(), NAME_MAX));
    }
    let forbidden = |found| PathError::Forbidden { name: name.to_owned(), found, root: root.to_path_buf() };
    if name.contains('\0') {
        return Err(forbidden("a NUL byte"));
    }
    if name.contains('\\') {
        return Err(forbidden("a backslash"));
    }
    for component in name.split('/') {
        if component.len() > COMPONENT_MAX {
            return Err(too_long("component", component.len(), COMPONENT_MAX));
        }
        if matches!(component.as_bytes(), [drive, b':', ..] if drive.is_ascii_alphabetic()) {
            return Err(forbidden("a drive"));
        }
    }
    Ok(())
}

fn check_link(root: &Path, real_root: &mut Option<PathBuf>, path: &Path, name: &str) -> Result<(), PathError> {
    let io_error = |source| PathError::Io { path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_symlink() => {}
        Ok(_) => return Ok(()),
        // Below something absent, or below a plain file, there are no links.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(io_error(error)),
    }
    let real_root = match real_root {
        Some(known) => known,
        None => real_root.insert(root.canonicalize().map_err(io_error)?),
    };
    // A link to nothing is refused too: writing through it would create its target, wherever that is.
    match path.canonicalize() {
        Ok(target) if target.starts_with(real_root) => Ok(()),
        _ => {
            let (name, link, root) = (name.to_owned(), path.to_path_buf(), root.to_path_buf());
            Err(PathError::LinkOutside { name, link, root })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::{PathError, join_inside};

    fn refused(name: &str) -> String {
        join_inside(Path::new("folder"), name).unwrap_err().to_string()
    }

    #[test]
    fn accepts_names_inside() {
        let root = Path::new("folder");
        for name in ["a.safetensors", "a/b.safetensors", "a..b", "...", "model-00001-of-00002.safetensors", "é/ü"]
        {
            assert_eq!(join_inside(root, name).unwrap(), root.join(name));
        }
        assert_eq!(join_inside(root, "./a//b/").unwrap(), root.join("a/b"));
        assert!(join_inside(root, &"x".repeat(255)).is_ok());
    }

    #[test]
    fn refuses_names_that_lead_out() {
        for name in ["../x", "a/../../x", "a/..", "..", "/etc/passwd", "//etc/passwd"] {
            assert!(refused(name).contains("leads out of `folder`"), "{name}");
        }
        for name in ["", ".", "./."] {
            assert!(refused(name).contains("names nothing"), "{name:?}");
        }
        for name in ["C:\\x", "..\\x", "a\\b", "a\0b", "C:x", "c:/x", "a/C:/x"] {
            assert!(refused(name).contains("which is not accepted"), "{name:?}");
        }
        assert!(refused(&"x".repeat(256)).contains("256 bytes in one component, but at most 255"));
        assert!(refused(&"x/".repeat(2049)).contains("4098 bytes in one path, but at most 4096"));
    }

    #[test]
    fn looks_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("real")).unwrap();
        symlink("real", root.join("inner")).unwrap();
        symlink("..", root.join("outer")).unwrap();
        symlink("/etc/passwd", root.join("passwd")).unwrap();
        symlink("../absent", root.join("dangling")).unwrap();
        assert_eq!(join_inside(&root, "inner/a").unwrap(), root.join("inner/a"));
        for name in ["outer/root/real", "outer", "passwd", "dangling", "inner/../outer"] {
            assert!(join_inside(&root, name).is_err(), "{name}");
        }
        let error = join_inside(&root, "outer/x").unwrap_err();
        assert!(matches!(error, PathError::LinkOutside { .. }), "{error}");
    }

    /// A root that is itself reached through a link is still a root.
    #[test]
    fn a_linked_root_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("real/sub")).unwrap();
        symlink("real", folder.path().join("root")).unwrap();
        symlink("sub", folder.path().join("real/link")).unwrap();
        assert!(join_inside(&folder.path().join("root"), "link/a").is_ok());
    }

    /// The proof of F3: whatever the name, the answer and everything on the way to it lies inside the folder.
    fn check_stays_inside(root: &Path, name: &str) {
        let Ok(path) = join_inside(root, name) else {
            return;
        };
        let rest = path.strip_prefix(root).unwrap();
        assert!(rest.components().next().is_some());
        assert!(rest.components().all(|component| matches!(component, Component::Normal(_))), "{name:?}");
        let existing = path.ancestors().find(|path| path.exists()).unwrap();
        assert!(existing.canonicalize().unwrap().starts_with(root.canonicalize().unwrap()), "{name:?}");
    }

    const PIECES: &[&str] = &[
        "..", ".", "", "/", "a", "real", "inner", "outer", "passwd", "dangling", "C:", "\\", "\0", "~", "é", "etc",
    ];

    fn name() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => prop::sample::select(PIECES).prop_map(str::to_owned),
            1 => ".{0,8}",
        ];
        let joined = prop::collection::vec(piece, 0..8);
        (joined, prop::sample::select(&["/", "", "//"][..])).prop_map(|(pieces, with)| pieces.join(with))
    }

    #[test]
    fn every_answer_lies_inside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("real/a")).unwrap();
        for (to, from) in
            [("real", "inner"), ("..", "outer"), ("/etc/passwd", "passwd"), ("../absent", "dangling")]
        {
            symlink(to, root.join(from)).unwrap();
        }
        proptest!(ProptestConfig::with_cases(1000), |(name in name())| check_stays_inside(&root, &name));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing may be created");
    }
}
