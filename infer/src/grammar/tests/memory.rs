//! G1 and G4: what compiling and keeping grammars takes of memory, in a process of its own.

#![allow(clippy::print_stderr, reason = "figures that a page keeps")]

use std::process::Command;

use super::*;

/// Kilobytes of the field of `/proc/self/status`.
fn status(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs the test of this name alone in a process of its own; there, `work`.
fn alone(name: &str, work: impl FnOnce()) {
    const INSIDE: &str = "FORNAX_GRAMMAR_MEMORY";
    if std::env::var_os(INSIDE).is_some() {
        return work();
    }
    let name = format!("grammar::tests::memory::{name}");
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args([&name, "--exact", "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    said.lines().filter(|line| line.starts_with('G')).for_each(|line| eprintln!("{line}"));
}

#[cfg(target_os = "linux")]
#[test]
fn g1_no_grammar_takes_64_mb_to_compile() {
    alone("g1_no_grammar_takes_64_mb_to_compile", || {
        let compiler = bytes_compiler();
        compiler.compile(&GrammarSpec::JsonObject).unwrap();
        let mut most = 0;
        for (name, spec) in limits::heavy() {
            // Sets the peak back to what is in use now.
            std::fs::write("/proc/self/clear_refs", "5").unwrap();
            let before = status("VmRSS:");
            let result = compiler.compile(&spec).map(|_| ());
            let taken = status("VmHWM:").saturating_sub(before);
            most = most.max(taken);
            assert!(taken < 64 << 10, "{name} took {taken} kB: {result:?}");
        }
        eprintln!("G1: {most} kB at most");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn g4_thousands_of_schemas_stay_within_the_cache() {
    alone("g4_thousands_of_schemas_stay_within_the_cache", || {
        let nightly = std::env::var("FORNAX_TEST_SCALE").is_ok_and(|scale| scale == "nightly");
        let count = if nightly { 10_000 } else { 1_500 };
        // As many bytes for each schema at either scale.
        let limit = (64 << 20) * count / 10_000;
        let compiler = bytes_compiler_within(GrammarLimits { cache_bytes: limit, ..GrammarLimits::default() });
        compiler.compile(&GrammarSpec::JsonObject).unwrap();
        let before = status("VmRSS:");
        for n in 0..count {
            let schema = json!({
                "type": "object",
                "properties": {format!("name_{n}"): {"type": "string", "maxLength": n % 30}, "n": {"const": n}},
                "required": ["n"],
            });
            compiler.compile(&GrammarSpec::JsonSchema(schema)).unwrap();
        }
        let (kept, bytes) = compiler.kept();
        let taken = status("VmRSS:").saturating_sub(before) << 10;
        assert!(bytes <= limit && kept < count, "{kept} grammars of {bytes} bytes");
        assert!(taken < limit + (8 << 20), "{kept} grammars counted as {bytes} bytes take {taken}");
        eprintln!("G4: {kept} of {count} kept, counted {bytes} bytes, resident {taken}");
    });
}
