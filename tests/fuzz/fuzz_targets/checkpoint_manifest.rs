//! F17: any bytes are an error, or a manifest whose paths all lie inside its folder.
#![no_main]

use std::path::Component;

use fornax_train::checkpoint::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = fornax_fuzz::folder();
    let link = folder.join("link");
    if !link.is_symlink() {
        std::os::unix::fs::symlink("/etc", &link).unwrap();
    }
    let Ok(manifest) = Manifest::parse(folder, bytes) else { return };
    for path in manifest.paths(folder).unwrap() {
        assert!(path.starts_with(folder) && path != folder, "{path:?}");
        assert!(!path.components().any(|part| part == Component::ParentDir), "{path:?}");
        assert!(!path.starts_with(&link), "{path:?}");
    }
});
