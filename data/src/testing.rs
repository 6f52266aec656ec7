//! What the tests of several modules share.

#![allow(clippy::print_stdout, reason = "a test that is passed over says so")]

use std::path::{Path, PathBuf};

/// A recorded fixture.
pub(crate) fn fixture(name: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(fixtures().join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Where fixtures lie.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// Data shared with the repository; none, said or fatal, where it is absent.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("FORNAX_REQUIRE_DATA").as_deref(), Ok("1"), "{name} is absent");
    println!("{name} is absent: passed over");
    None
}
