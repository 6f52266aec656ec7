//! The cases of the JSON Schema Test Suite: of every schema that compiles, valid instances are accepted and invalid ones
//! refused; the others are refused by name.

#![allow(clippy::print_stderr, reason = "figures that a page keeps")]

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

#[derive(Debug, Default, PartialEq)]
struct Counts {
    schemas: usize,
    compiled: usize,
    valid: usize,
    invalid: usize,
    narrower: usize,
    wider: usize,
}

#[test]
fn cases_of_the_json_schema_test_suite() {
    let Some(folder) = shared("json-schema-test-suite/tests") else { return };
    let compiler = shared_bytes_compiler();
    let mut counts = Counts::default();
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (draft, name) in [
        ("draft2020-12", "https://json-schema.org/draft/2020-12/schema"),
        ("draft7", "http://json-schema.org/draft-07/schema#"),
    ] {
        let mut files = Vec::new();
        find(&folder.join(draft), &mut files);
        files.sort();
        for file in files {
            let groups: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            for group in groups.as_array().unwrap() {
                let mut schema = group["schema"].clone();
                if let Some(map) = schema.as_object_mut()
                    && !map.contains_key("$schema")
                {
                    map.insert("$schema".to_owned(), Value::from(name));
                }
                counts.schemas += 1;
                let label = format!("{}: {}", file.strip_prefix(&folder).unwrap().display(), group["description"]);
                match compiler.compile(&GrammarSpec::JsonSchema(schema.clone())) {
                    Ok(grammar) => {
                        counts.compiled += 1;
                        check(&grammar, &schema, group, &label, &mut counts, &mut wrong);
                    }
                    Err(error) => *refusals.entry(reason(&error)).or_default() += 1,
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    eprintln!("suite: {counts:#?}\n{refusals:#?}");
    let compiled = Counts { schemas: 782, compiled: 428, valid: 1190, invalid: 1090, narrower: 93, wider: 6 };
    assert_eq!(counts, compiled, "docs/guide/structured-output.md has these numbers");
    assert!(refusals.keys().all(|reason| !reason.contains("failed")), "{refusals:?}");
}

/// Where the grammar is narrower than the schema: it refuses what is valid. Part of the file, and of what the case says.
const NARROWER: [(&str, &str, &str); 17] = [
    // Properties come in the order of the schema.
    ("allOf.json", "allOf", ""),
    ("const.json", "same object with different property order", ""),
    // Whole numbers are written without a fraction or an exponent.
    ("const.json", "float", ".0"),
    ("enum.json", "is valid", ".0"),
    ("type.json", "a float with zero fractional part", "1.0"),
    ("bignum.json", "bignum is an integer", "e+52"),
    ("float-overflow.json", "valid if optional overflow handling", "1e+308"),
    // Formats are enforced.
    ("draft2020-12/format.json", "only an annotation by default", ""),
    // Forms of formats that are not written.
    ("format/email.json", "a quoted string", ""),
    ("format/email.json", "an IPv6-address-literal", ""),
    ("format/hostname.json", "", "xn--"),
    ("format/ipv6.json", "mixed format", ""),
    ("format/ipv6.json", "a long valid ipv6", ""),
    ("format/time.json", "valid leap second", ":60"),
    ("format/date-time.json", "leap second, with minus offset", ":60"),
    // JavaScript counts U+FEFF as white space.
    ("ecmascript-regex.json", "zero-width whitespace matches", ""),
    // What stands beside a reference holds too.
    ("draft7/ref.json", "ref valid, maxItems ignored", ""),
];
/// Where it is wider: it accepts what is not valid.
const WIDER: [(&str, &str, &str); 2] = [
    // Content is an annotation.
    ("draft7/optional/content.json", "", ""),
    ("ecmascript-regex.json", "zero-width whitespace does not match", ""),
];

fn is_known(known: &[(&str, &str, &str)], label: &str, case: &str, text: &str) -> bool {
    known.iter().any(|(file, part, written)| {
        label.split(": ").next().is_some_and(|name| name.ends_with(file))
            && case.contains(part)
            && text.contains(written)
    })
}

fn reason(error: &GrammarError) -> String {
    match error {
        GrammarError::Unsupported { keyword, .. } => keyword.clone(),
        other => other.to_string(),
    }
}

fn check(
    grammar: &Grammar,
    schema: &Value,
    group: &Value,
    label: &str,
    counts: &mut Counts,
    wrong: &mut Vec<String>,
) {
    for test in group["tests"].as_array().unwrap() {
        let valid = test["valid"].as_bool().unwrap();
        let text = ordered(&test["data"], schema).to_string();
        let accepted = matches(grammar, &text);
        *(if valid { &mut counts.valid } else { &mut counts.invalid }) += 1;
        let case = test["description"].as_str().unwrap();
        let (count, known) = match (valid, accepted) {
            (true, false) => (&mut counts.narrower, is_known(&NARROWER, label, case, &text)),
            (false, true) => (&mut counts.wider, is_known(&WIDER, label, case, &text)),
            _ => continue,
        };
        *count += 1;
        if !known {
            wrong
                .push(format!("{}: {label}: {case}: {text} {schema}", if valid { "refused" } else { "accepted" }));
        }
    }
}

/// The instance with its properties in the order of the schema.
fn ordered(data: &Value, schema: &Value) -> Value {
    match data {
        Value::Object(map) => {
            let known = schema["properties"].as_object();
            let names: Vec<&String> = known.into_iter().flat_map(|map| map.keys()).collect();
            let place = |name: &String| names.iter().position(|known| *known == name).unwrap_or(names.len());
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(name, _)| place(name));
            let inner = |name: &String| known.and_then(|known| known.get(name)).unwrap_or(&Value::Null);
            entries.into_iter().map(|(name, value)| (name.clone(), ordered(value, inner(name)))).collect()
        }
        Value::Array(items) => items.iter().map(|item| ordered(item, &schema["items"])).collect(),
        other => other.clone(),
    }
}

fn find(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else {
            files.push(path);
        }
    }
}
