use super::*;

#[test]
fn operators_on_text_become_filters() {
    for (source, expected) in [
        ("a == 'b' and not c", "((a|_eq('b')) and (not c))"),
        ("a.b[-1] + c[1:] + d", "((a.b|_item((-1)))|_add((c|_slice(1, none)), d))"),
        ("a ~ b|trim ~ 'c'", "(a|_cat(b|trim, 'c'))"),
        ("x['role'] not in ['a', 'b']", "(x['role']|_not_in(['a', 'b']))"),
        ("a if b == c else d", "(a if (b|_eq(c)) else d)"),
        ("f(a, b=c * 2)", "f(a, b=(c|_mul(2)))"),
        ("a is defined and a is not none", "((a is defined) and (a is not none))"),
        ("a is in [1] or b is divisibleby 3", "((a is in([1])) or (b is divisibleby(3)))"),
        ("(a + b) | f(1)", "(a|_add(b))|f(1)"),
        ("1 < a <= 3", "((1|_lt(a)) and (a|_le(3)))"),
        ("a[::-1]", "(a|_slice(none, none, (-1)))"),
        ("{'a': b ~ c}.items()", "{'a': (b|_cat(c))}.items()"),
        ("a - b + c", "((a - b)|_add(c))"),
        ("(1, 2)", "(1, 2, )"),
        ("not not a", "(not (not a))"),
    ] {
        assert_eq!(rewrite(&format!("{{{{{source}}}}}")).unwrap(), format!("{{{{ {expected} }}}}"), "{source}");
    }
}

#[test]
fn statements_keep_their_form() {
    for (source, expected) in [
        ("for a, b in c.items() if b recursive", "for a,b in (c.items())|_iter if b recursive"),
        ("set ns.a = b + [c]", "set ns.a = ((b|_add([c])))|_store"),
        ("set x", "set x"),
        ("set a, b = c, d", "set a,b = ((c, d, ))|_store"),
        ("macro m(a, b=1 ~ 2)", "macro m(a, b=(1|_cat(2)))"),
        ("call(x) f(y)", "call(x) f(y)"),
        ("filter indent(2)|trim", "filter indent(2)|trim"),
        ("generation", "with"),
        ("endgeneration", "endwith"),
        ("with a = b, c = d", "with a = (b)|_store, c = (d)|_store"),
        ("endif", "endif"),
    ] {
        assert_eq!(rewrite(&format!("{{%- {source} -%}}")).unwrap(), format!("{{%- {expected} -%}}"), "{source}");
    }
    let error = rewrite("a\n{{ b }}\n{% include 'c' %}").unwrap_err();
    assert!(error.starts_with("line 3: `include` needs other templates"), "{error}");
    for wrong in ["{{ a b }}", "{{ a[ }}", "{{ }}", "{% for x %}", "{% what %}", "{{ a[1:2:3:4] }}", "{{ (a }}"] {
        assert!(rewrite(wrong).is_err(), "{wrong}");
    }
    assert_eq!(rewrite("{{\n a\n}}").unwrap(), "{{ a \n\n}}");
}

#[test]
fn long_text_is_counted() {
    for text in ["word ".repeat(200), "a ".repeat(500)] {
        let counted = rewrite(&text).unwrap();
        assert_eq!(counted.replace(SPEND, ""), text);
        assert_eq!(counted.matches("_spend").count(), 3);
    }
    assert!(rewrite(&" ".repeat(5000)).is_err());
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100), ")".repeat(100));
    assert!(rewrite(&deep).unwrap_err().contains("nested deeper than 24"));
}
