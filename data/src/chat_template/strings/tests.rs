use super::super::marks::marked;
use super::*;

fn parts(value: &Value) -> Vec<String> {
    value.try_iter().unwrap().map(|part| Text::read(part.as_str().unwrap()).plain().to_owned()).collect()
}

#[test]
fn methods_answer_as_python_does() {
    let run = |text: &str, method: &str, arguments: &[Value]| {
        // The same text, half of it marked.
        let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
        let text = Text::read(&format!("{}{}", &text[..middle], marked(&text[middle..], 7)));
        call(&text, method, arguments).unwrap()
    };
    let plain = |value: &Value| Text::read(value.as_str().unwrap()).plain().to_owned();
    let text = |text: &str| Value::from(text);
    for (given, method, arguments, expected) in [
        (" \u{1f}a b\u{a0}", "strip", vec![], "a b"),
        ("xxaxx", "strip", vec![text("x")], "a"),
        ("xxaxx", "lstrip", vec![text("x")], "axx"),
        ("xxaxx", "rstrip", vec![text("x")], "xxa"),
        ("aXbXc", "replace", vec![text("X"), text("--")], "a--b--c"),
        ("aXbXc", "replace", vec![text("X"), text(""), Value::from(1)], "abXc"),
        ("abc", "replace", vec![text(""), text("-")], "-a-b-c-"),
        ("straße", "upper", vec![], "STRASSE"),
        ("hELLO wORLD", "capitalize", vec![], "Hello world"),
        ("they're bill's", "title", vec![], "They'Re Bill'S"),
        ("<think>x", "removeprefix", vec![text("<think>")], "x"),
        ("x.py", "removesuffix", vec![text(".py")], "x"),
        ("-5", "zfill", vec![Value::from(4)], "-005"),
        ("ab", "center", vec![Value::from(5)], "  ab "),
        ("abc", "center", vec![Value::from(6)], " abc  "),
    ] {
        assert_eq!(plain(&run(given, method, &arguments)), expected, "{given:?}.{method}");
    }
    for (given, method, arguments, expected) in [
        ("a,b,,c", "split", vec![text(",")], vec!["a", "b", "", "c"]),
        ("a,b,,c", "split", vec![text(","), Value::from(1)], vec!["a", "b,,c"]),
        ("a,b,,c", "rsplit", vec![text(","), Value::from(1)], vec!["a,b,", "c"]),
        ("  a  b c ", "split", vec![], vec!["a", "b", "c"]),
        ("  a  b c ", "split", vec![Value::from(()), Value::from(1)], vec!["a", "b c "]),
        ("  a  b c ", "rsplit", vec![Value::from(()), Value::from(1)], vec!["  a  b", "c"]),
        ("a\r\nb\u{2028}c\n", "splitlines", vec![], vec!["a", "b", "c"]),
        ("a\r\nb", "splitlines", vec![Value::from(true)], vec!["a\r\n", "b"]),
        ("k=v=w", "partition", vec![text("=")], vec!["k", "=", "v=w"]),
        ("k=v=w", "rpartition", vec![text("=")], vec!["k=v", "=", "w"]),
        ("kv", "rpartition", vec![text("=")], vec!["", "", "kv"]),
    ] {
        assert_eq!(parts(&run(given, method, &arguments)), expected, "{given:?}.{method}");
    }
    assert_eq!(run("añb", "find", &[text("b")]), Value::from(2));
    assert_eq!(run("añb", "find", &[text("x")]), Value::from(-1));
    assert_eq!(run("abc", "startswith", &[Value::from(vec!["x", "ab"])]), Value::from(true));
    assert_eq!(run("abc", "endswith", &[text("bc")]), Value::from(true));
    assert_eq!(run("", "isdigit", &[]), Value::from(false));
    assert_eq!(plain(&run("{}-{0}-{{}}", "format", &[text("x")])), "x-x-{}");
    assert!(call(&Text::read("a"), "append", &[]).is_err());
}

#[test]
fn sources_stay_with_their_characters() {
    let text = Text::read(&format!("[{}]", marked(" Hi ", 2)));
    let stripped = strip(&text, Some(&Text::read("[] ")), true, true);
    assert_eq!((stripped.plain(), stripped.runs()), ("Hi", &[(2, 2)][..]));
    let new = Text::read("--");
    assert_eq!(replace(&text, " ", &new, None).unwrap().runs(), &[(3, 0), (5, 2), (8, 0)]);
    assert_eq!(text.map(str::to_uppercase).runs(), &[(1, 0), (5, 2), (6, 0)]);
}
