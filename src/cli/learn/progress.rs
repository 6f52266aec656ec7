//! What checks of an exercise found: which text passed, and how many different texts did not.
//!
//! Kept in the target folder, one small file for each exercise of each copy of the course: not in git, and gone with
//! `cargo clean`.

use std::path::{Path, PathBuf};

use fornax_base::exit::Exit;
use fornax_base::files::{RealFs, create_folder, read_text_limited, sha256_hex, write_atomic_bytes};
use serde::{Deserialize, Serialize};

use crate::cli::report::Failure;

/// The record of one exercise.
#[derive(Debug)]
pub(super) struct Progress {
    file: PathBuf,
    record: Record,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// SHA-256 of the text that passed.
    passed: Option<String>,
    /// SHA-256 of the last text that did not.
    failed: Option<String>,
    /// Different texts in a row that did not pass.
    failures: u8,
}

impl Progress {
    pub(super) fn of(target: &Path, course: &Path, exercise: &str) -> Self {
        let copy = sha256_hex(course.as_os_str().as_encoded_bytes());
        let file = target.join("learn").join(&copy[..16]).join(format!("{exercise}.json"));
        // A record that cannot be read is one that was never made.
        let text = read_text_limited(&file, 1 << 16).unwrap_or_default();
        Self { file, record: serde_json::from_str(&text).unwrap_or_default() }
    }

    pub(super) fn has_passed(&self, text: &str) -> bool {
        self.record.passed.as_deref() == Some(&sha256_hex(text.as_bytes()))
    }

    pub(super) fn pass(mut self, text: &str) -> Result<(), Failure> {
        self.record = Record { passed: Some(sha256_hex(text.as_bytes())), ..Record::default() };
        self.write()
    }

    /// Notes that `text` did not pass and gives the level of the hint that is due: one more for each different text.
    pub(super) fn fail(mut self, text: &str) -> Result<u8, Failure> {
        let digest = Some(sha256_hex(text.as_bytes()));
        if self.record.failed != digest {
            self.record.failed = digest;
            self.record.failures = self.record.failures.saturating_add(1);
            self.write()?;
        }
        Ok(self.record.failures.clamp(1, 3))
    }

    /// Hints begin with the first one again.
    pub(super) fn forget_failures(mut self) -> Result<(), Failure> {
        if self.record.failures == 0 {
            return Ok(());
        }
        self.record = Record { passed: self.record.passed, ..Record::default() };
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        let text = serde_json::to_string(&self.record).map_err(|error| Failure::new(Exit::Failed, error))?;
        let folder = self.file.parent().unwrap_or(Path::new(""));
        let written = create_folder(&RealFs, folder);
        written
            .and_then(|()| write_atomic_bytes(&RealFs, &self.file, text.as_bytes()))
            .map_err(|error| Failure::new(Exit::Failed, error))
    }
}
