//! The cases of the JSON Schema Test Suite: of every schema that compiles, valid instances are accepted and invalid ones
//! refused; the others are refused by name.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

#[derive(Debug, Default, PartialEq)]
struct Counts {
    schemas: usize,
    compiled: usize,
    valid: usize,
    invalid: usize,
    wrongly_refused: usize,
    wrongly_accepted: usize,
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
    for line in &wrong {
        eprintln!("{line}");
    }
    eprintln!("{counts:#?}\n{refusals:#?}");
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
        if valid && !accepted {
            counts.wrongly_refused += 1;
            wrong.push(format!("REFUSED {label} {} {text} {schema}", test["description"]));
        }
        if !valid && accepted {
            counts.wrongly_accepted += 1;
            wrong.push(format!("ACCEPTED {label} {} {text} {schema}", test["description"]));
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
