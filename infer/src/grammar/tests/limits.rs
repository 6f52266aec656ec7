//! G1 and G4: what strangers send is refused, or compiled within the limits.

#![allow(clippy::print_stderr, reason = "figures that a page keeps")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Compiles quickly or says why not; either is fine for a grammar that is merely heavy.
fn quick(spec: &GrammarSpec) -> Result<Grammar, GrammarError> {
    let start = Instant::now();
    let result = shared_bytes_compiler().compile(spec);
    let taken = start.elapsed();
    // A second on the build machine, several times that where the test shares its cores.
    assert!(taken < Duration::from_secs(3), "{} took {taken:?}", spec.kind());
    if let Err(error) = &result {
        let message = error.to_string();
        assert!(message.len() < 1900 && !message.contains(char::is_control), "{message:?}");
    }
    result
}

fn code(spec: &GrammarSpec) -> &'static str {
    quick(spec).map_or_else(|error| error.code(), |_| "compiled")
}

/// Grammars that are valid and cost much: whether they compile does not matter, as long as it is soon known.
pub(super) fn heavy() -> Vec<(String, GrammarSpec)> {
    let mut all: Vec<GrammarSpec> = Vec::new();
    for text in ["a{1000000}", "(a{1000}){1000}", "((a{100}){100}){100}", r"\w{5000}", "(.*a){3000}", "(a+)+b"] {
        all.push(GrammarSpec::Regex(text.to_owned()));
    }
    all.push(GrammarSpec::Regex("(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01]) ".repeat(600)));
    let words: Vec<String> = (0..6_500).map(|n| format!("w{n:05}")).collect();
    assert!(json!(words).to_string().len() >= 57 << 10);
    let wide: serde_json::Map<_, _> = (0..1_500).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    let twice: Vec<_> = (0..40).map(|n| json!({"anyOf": [{"minLength": n}, {"maxLength": 100 + n}]})).collect();
    for schema in [
        json!({"enum": words, "title": "x".repeat(8_000)}),
        json!({"type": "object", "properties": wide}),
        json!({"type": "string", "minLength": 1_000_000, "maxLength": 4_000_000_000_u64}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 100_000}),
        json!({"type": "integer", "multipleOf": 99_999_999, "minimum": 3}),
        json!({"type": "string", "allOf": twice}),
    ] {
        all.push(GrammarSpec::JsonSchema(schema));
    }
    let chain: String = (0..3_000).map(|n| format!("r{n}: r{}\n", n + 1)).collect();
    all.push(GrammarSpec::Lark(format!("start: r0\n{chain}r3000: \"a\"\n")));
    let doubling: String = (0..60).map(|n| format!("r{n} ::= r{} r{}\n", n + 1, n + 1)).collect();
    let nested: String = (0..60).map(|n| format!("r{n} ::= \"(\" r{} \")\" | r{}\n", n + 1, n + 1)).collect();
    for text in [
        format!("root ::= {}\"a\"{}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("root ::= r0\n{doubling}r60 ::= \"a\"\n"),
        format!("root ::= r0\n{nested}r60 ::= root | \"a\"\n"),
        "root ::= root root | \"a\"".to_owned(),
        "root ::= ([a-z]{2000} [0-9]{2000}){2000}".to_owned(),
    ] {
        all.push(GrammarSpec::Gbnf(text));
    }
    let name = |spec: &GrammarSpec| format!("{spec:?}").chars().take(80).collect();
    all.into_iter().map(|spec| (name(&spec), spec)).collect()
}

#[test]
fn g1_heavy_grammars_end_soon() {
    for (name, spec) in heavy() {
        let start = Instant::now();
        let result = quick(&spec).map(|_| ()).map_err(|error| error.to_string());
        eprintln!("G1: {:?} {result:?} {name}", start.elapsed());
    }
}

#[test]
fn g1_bad_regular_expressions() {
    let regex = |text: &str| GrammarSpec::Regex(text.to_owned());
    for bad in ["foo**(", "(", "a)", "[b", r"(a)\1", r"a\", "(?=a)b", "a{3,2}", r"\p{Nonsense}", "(?<name"] {
        assert_eq!(code(&regex(bad)), "grammar_invalid", "{bad}");
    }
    // Derivatives do not backtrack: what hangs other engines is a small automaton here.
    assert_eq!(code(&regex("(a+)+b")), "compiled");
    assert_eq!(code(&regex("(a|aa)+$")), "compiled");
    let date = "(19|20)[0-9][0-9]-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])".repeat(5);
    assert!(date.len() >= 240);
    assert_eq!(code(&regex(&date)), "compiled");
    let deep = format!("{}a{}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(code(&regex(&deep)), "grammar_invalid");
    assert_eq!(code(&regex(&"a".repeat(1 << 20))), "grammar_too_large");
}

#[test]
fn g1_bad_schemas() {
    let schema = |value: serde_json::Value| GrammarSpec::JsonSchema(value);
    for bad in [json!(1), json!({"type": "nonsense"}), json!({"properties": 3}), json!({"type": 5}), json!(false)]
    {
        assert_eq!(code(&schema(bad.clone())), "grammar_invalid", "{bad}");
    }
    let mut deep = json!({"type": "string"});
    for _ in 0..1_000 {
        deep = json!({"type": "object", "properties": {"a": deep}, "required": ["a"]});
    }
    assert_eq!(code(&schema(deep.clone())), "grammar_too_large");
    drop_slowly(deep);
    for endless in [
        json!({"$ref": "#"}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"allOf": [{"$ref": "#"}]}),
    ] {
        assert_ne!(code(&schema(endless.clone())), "compiled", "{endless}");
    }
}

/// Dropping a deep value recurses as deep; the test's stack is enough, a server's readers allow no such value.
fn drop_slowly(mut value: serde_json::Value) {
    while let Some(inner) = value.pointer_mut("/properties/a").map(serde_json::Value::take) {
        value = inner;
    }
}

#[test]
fn g1_bad_grammars() {
    let lark = |text: &str| GrammarSpec::Lark(text.to_owned());
    for bad in ["", "start", "start: x", "begin: \"a\"", "start: \"a", "start: /(/"] {
        assert_eq!(code(&lark(bad)), "grammar_invalid", "{bad}");
    }
    assert_eq!(code(&lark(&format!("start: {}", "(".repeat(20_000)))), "grammar_too_large");
}

#[test]
fn messages_stay_short_and_plain() {
    let long = "é\u{1}\n".repeat(20_000);
    let named = json!({"type": "object", "properties": {&long: {"not": 1}}});
    let specs = [
        GrammarSpec::JsonSchema(named),
        GrammarSpec::JsonSchema(json!({"format": long})),
        GrammarSpec::JsonSchema(json!({"type": long})),
        GrammarSpec::JsonSchema(json!({"$ref": long})),
        GrammarSpec::Regex(format!("({long}")),
        GrammarSpec::Gbnf(format!("root ::= {}", "a".repeat(50_000))),
        GrammarSpec::Gbnf(format!("root ::= \"a\" {long}")),
        GrammarSpec::Lark(format!("start: {long}")),
    ];
    for spec in specs {
        assert_ne!(code(&spec), "compiled");
    }
}

#[test]
fn unsupported_keywords_are_refused_by_name_and_place() {
    let refused = |schema: serde_json::Value| quick(&GrammarSpec::JsonSchema(schema)).unwrap_err().to_string();
    let nested = json!({"type": "object", "properties": {"a/b": {"type": "array", "uniqueItems": true}}});
    assert_eq!(
        refused(nested),
        r##"the JSON schema uses "uniqueItems" at #/properties/a~1b, which is not supported"##
    );
    let behind = json!({"$ref": "#/$defs/x", "$defs": {"x": {"anyOf": [true, {"not": {"type": "null"}}]}}});
    assert!(refused(behind).contains(r##""not" at #/$defs/x/anyOf/1"##));
    assert!(refused(json!({"format": "iri"})).contains("\"format: iri\" at #,"));
    assert!(refused(json!({"x-guidance": {"lenient": true}})).contains("x-guidance"));
    let either = json!({"oneOf": [{"type": "object"}, {"type": "object", "required": ["a"]}]});
    assert!(refused(either).contains("oneOf"));
    // What says nothing is not refused, and a value is not a schema.
    let plain = json!({"type": "array", "uniqueItems": false, "title": "x", "x-mine": 1, "default": {"not": 1}});
    assert!(quick(&GrammarSpec::JsonSchema(plain)).is_ok());
    assert!(quick(&GrammarSpec::JsonSchema(json!({"const": {"not": 1}}))).is_ok());
}

#[test]
fn compiled_grammars_are_kept_while_there_is_room() {
    let limits = GrammarLimits { cache_bytes: 1 << 20, ..GrammarLimits::default() };
    let compiler = bytes_compiler_within(limits);
    let spec = |n: usize| GrammarSpec::JsonSchema(json!({"const": format!("word {n}")}));
    for n in 0..100 {
        compiler.compile(&spec(n)).unwrap();
        // The one used all the time stays.
        compiler.compile(&spec(0)).unwrap();
        let (count, bytes) = compiler.kept();
        assert!(bytes <= 1 << 20 && (1..=n + 1).contains(&count), "{count} {bytes}");
    }
    let (count, _) = compiler.kept();
    assert!((3..100).contains(&count), "{count}");
    let start = Instant::now();
    let mut again = compiler.compile(&spec(0)).unwrap();
    assert!(start.elapsed() < Duration::from_millis(500));
    assert!(again.mask().unwrap().allows(u32::from(b'"')));
}

/// A grammar of some kind with a few characters changed.
fn damaged() -> impl Strategy<Value = GrammarSpec> {
    let sources = vec![
        (0, r"(foo|ba[rz]{2,3})*\d+\.x?"),
        (
            1,
            r#"{"type": "object", "properties": {"a": {"type": ["string", "null"], "minLength": 2}}, "required": ["a"]}"#,
        ),
        (
            1,
            r##"{"$defs": {"n": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/n"}]}}, "items": {"$ref": "#/$defs/n"}}"##,
        ),
        (2, "root ::= \"a\" [b-d]* (root | \"x\"){1,3} # end\n"),
        (3, "start: A b*\nA: /a+/\nb: \"x\" | start\n%ignore / /\n"),
    ];
    let changes =
        prop::collection::vec((any::<prop::sample::Index>(), "[(){}|*+?a-z0-9\"\\[\\]:,\n\\\\]{0,2}"), 0..4);
    (prop::sample::select(sources), changes).prop_map(|((kind, source), changes)| {
        let mut characters: Vec<String> = source.chars().map(String::from).collect();
        for (at, with) in changes {
            *at.get_mut(&mut characters) = with;
        }
        let text = characters.concat();
        match kind {
            0 => GrammarSpec::Regex(text),
            1 => serde_json::from_str(&text).map_or(GrammarSpec::Choice(vec![text]), GrammarSpec::JsonSchema),
            2 => GrammarSpec::Gbnf(text),
            _ => GrammarSpec::Lark(text),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn f9_any_grammar_compiles_or_errs(spec in damaged(), picks in prop::collection::vec(any::<prop::sample::Index>(), 12)) {
        if let Ok(mut grammar) = quick(&spec) {
            for pick in picks {
                // Stuck or too heavy later is an error, and stays one.
                let Ok(mask) = grammar.mask() else {
                    prop_assert!(grammar.mask().is_err() && grammar.accept(0).is_err());
                    break;
                };
                let allowed: Vec<u32> = mask.ids().collect();
                grammar.accept(*pick.get(&allowed)).unwrap();
                if grammar.is_done() {
                    break;
                }
            }
        }
    }
}

#[test]
fn g2_a_sequence_beyond_its_work_fails_alone() {
    let options: Vec<String> = (0..400).map(|n| format!("r{n}")).collect();
    let rules: String = (0..400).map(|n| format!("r{n}: \"a\" r{n} \"b\" | \"c{n}\"\n")).collect();
    let text = format!("start: \"x\" ({}) | \"y\"\n{rules}", options.join(" | "));
    let compiler = bytes_compiler_within(GrammarLimits { row_items: 200, ..GrammarLimits::default() });
    let mut heavy = compiler.compile(&GrammarSpec::Lark(text)).unwrap();
    let mut other = heavy.clone();
    let error = heavy.accept(u32::from(b'x')).and_then(|()| heavy.mask().map(|_| ())).unwrap_err();
    assert_eq!(error.code(), "grammar_too_complex", "{error}");
    assert_eq!(heavy.mask().map(|_| ()), Err(error));
    other.accept(u32::from(b'y')).unwrap();
    assert!(other.is_done());
}
