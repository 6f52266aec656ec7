//! What the fuzz targets share: a folder that lasts as long as the process.

use std::path::Path;
use std::sync::OnceLock;

use tempfile::TempDir;

/// A folder of this process. Targets that need a file write it here, over the one of the input before.
///
/// # Panics
/// When no temporary folder can be made.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder")).path()
}

/// Lets code that catches a panic of a library go on. libFuzzer's own hook ends the process where a panic begins; one
/// that nobody catches still ends it.
pub fn allow_caught_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}
