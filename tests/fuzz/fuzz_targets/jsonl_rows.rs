//! F19: any bytes of a JSON Lines file are rows, or errors of rows with their line; reading ends.
#![no_main]

use fornax_data::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = fornax_fuzz::folder().join("rows.jsonl");
    std::fs::write(&path, bytes).unwrap();
    let n_lines = bytes.split(|byte| *byte == b'\n').count() as u64;
    for replace in [false, true] {
        let source = Source::from_path(&path, None).unwrap().replacing_invalid(replace);
        let mut last = 0;
        for row in source.rows().unwrap() {
            let line = match row {
                Ok(row) => row.number,
                Err(error) => error.place().unwrap_or_else(|| panic!("no row: {error}")).1,
            };
            assert!(line > last && line <= n_lines, "line {line} after {last} of {n_lines}");
            last = line;
        }
    }
});
