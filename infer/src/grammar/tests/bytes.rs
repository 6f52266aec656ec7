//! Each kind of grammar on single bytes: what it describes and what it does not.

use super::*;

fn check(spec: GrammarSpec, good: &[&str], bad: &[&str]) {
    let grammar = shared_bytes_compiler().compile(&spec).unwrap();
    for text in good {
        assert!(matches(&grammar, text), "{spec:?} refuses {text:?}");
    }
    for text in bad {
        assert!(!matches(&grammar, text), "{spec:?} accepts {text:?}");
    }
}

#[test]
fn a_regular_expression_matches_the_whole_text() {
    let regex = |text: &str| GrammarSpec::Regex(text.to_owned());
    check(regex(r"\d{4}-\d\d"), &["2024-11"], &["2024-1", "x2024-11", "2024-111", ""]);
    check(regex("^ab*$"), &["a", "abb"], &["b", "aba"]);
    check(regex("a/b|c"), &["a/b", "c"], &["a", "a/c"]);
    check(regex(r"x\\"), &[r"x\"], &["x"]);
    check(regex(""), &[""], &["a"]);
    check(regex("[äöü]+🦀?"), &["ä", "öü🦀"], &["a", "🦀"]);
    check(regex("a\"b\nc"), &["a\"b\nc"], &["a"]);
    check(regex("(?i)yes"), &["yes", "YES"], &["no"]);
}

#[test]
fn a_choice_is_one_of_its_texts() {
    let choice = |texts: &[&str]| GrammarSpec::Choice(texts.iter().map(|text| (*text).to_owned()).collect());
    check(choice(&["yes", "yes please", "no"]), &["yes", "yes please", "no"], &["ye", "yes p", "", "noyes"]);
    check(choice(&["a\"\\\n\u{7f}🦀", "", "*"]), &["a\"\\\n\u{7f}🦀", "", "*"], &["a", "**"]);
    check(choice(&[""]), &[""], &["a"]);
}

#[test]
fn json_mode_is_any_object() {
    let good = ["{}", r#"{"a": [1, -2.5e3, null, true, {"b": "\u00e9\n"}]}"#, "{\n  \"a\": 1\n}"];
    check(GrammarSpec::JsonObject, &good, &["[]", "1", "{", r#"{"a"}"#, r#"{"a": 01}"#, "{'a': 1}", "{} "]);
    let spaces = format!("{{{}\"a\": 1}}", " ".repeat(41));
    check(GrammarSpec::JsonObject, &[], &[&spaces]);
}

#[test]
fn a_schema_fixes_names_types_and_order() {
    let schema = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": false,
    });
    let good = [r#"{"name": "Lily", "age": 7}"#, r#"{"name":"é","age":0}"#];
    let bad = [r#"{"age": 7, "name": "Lily"}"#, r#"{"name": "", "age": 7}"#, r#"{"name": "a"}"#];
    check(GrammarSpec::JsonSchema(schema), &good, &bad);
}

#[test]
fn lark_with_schemas_gives_each_schema_its_own_references() {
    let schema = |kind: &str| json!({"$ref": "#/$defs/x", "$defs": {"x": {"type": kind}}});
    let part = |name: &str, kind: &str| NamedSchema { name: name.to_owned(), schema: schema(kind) };
    let spec = GrammarSpec::LarkWithSchemas(
        r#"start: "<" @a "," @b ">""#.to_owned(),
        vec![part("a", "integer"), part("b", "boolean")],
    );
    check(spec, &["<1,true>"], &["<true,1>", "<1,1>"]);
}

#[test]
fn grammars_come_from_files_by_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        GrammarSpec::from_file(&path, &GrammarLimits::default())
    };
    assert_eq!(write("a.json", r#"{"type": "null"}"#), Ok(GrammarSpec::JsonSchema(json!({"type": "null"}))));
    assert_eq!(write("a.regex", "a+\n"), Ok(GrammarSpec::Regex("a+".to_owned())));
    assert_eq!(write("a.lark", "start: \"a\""), Ok(GrammarSpec::Lark("start: \"a\"".to_owned())));
    assert_eq!(write("a.gbnf", "root ::= \"a\""), Ok(GrammarSpec::Gbnf("root ::= \"a\"".to_owned())));
    let message = |found: Result<GrammarSpec, GrammarError>| found.unwrap_err().to_string();
    assert!(message(write("b.json", "{")).contains("b.json` is not JSON"));
    assert!(message(write("a.txt", "")).ends_with("expected .json, .gbnf, .lark or .regex"));
    assert!(message(write("c.lark", &" ".repeat(1 << 18))).contains("c.lark"));
    assert!(
        message(GrammarSpec::from_file(Path::new("absent.lark"), &GrammarLimits::default())).contains("absent")
    );
}
