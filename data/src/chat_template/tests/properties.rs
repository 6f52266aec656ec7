//! F8: any template with any messages ends in time.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::limits::{LIMIT, least_time};
use super::*;

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("messages"),
        Just("message"),
        Just("message.content"),
        Just("message['role']"),
        Just("ns.x"),
        Just("ns"),
        Just("x"),
        Just("'ab'"),
        Just("10"),
        Just("100000"),
        Just("none"),
        Just("loop.index"),
        Just("tools"),
        Just("range(100000)"),
        Just("[]"),
        Just("{}"),
        Just("''"),
        Just("-1"),
        Just("true"),
        Just("1.5"),
    ]
    .prop_map(str::to_owned);
    leaf.prop_recursive(3, 12, 3, |inner| {
        let operator = prop::sample::select(vec![
            "+", "~", "*", "==", "!=", "in", "not in", "<", "and", "or", "-", "/", "//", "%", "**", "is", "|",
            "if",
        ]);
        let filter = prop::sample::select(vec![
            "trim",
            "upper",
            "title",
            "length",
            "tojson",
            "tojson(indent=4)",
            "join",
            "join('ab')",
            "list",
            "sort",
            "first",
            "last",
            "reverse",
            "unique|list",
            "string",
            "safe",
            "e",
            "indent(100000)",
            "replace('a', 'bb')",
            "items",
            "dictsort",
            "map('upper')|list",
            "select('string')|list",
            "batch(2)|list",
            "sum",
            "max",
            "int",
            "default('x')",
            "wordcount",
            "groupby('role')|list",
            "selectattr('role', 'eq', 'user')|list",
        ]);
        let method = prop::sample::select(vec![
            "split('a')",
            "split()",
            "strip()",
            "replace('', 'xx')",
            "format('a', 'b')",
            "items()",
            "keys()|list",
            "get('a')",
            "center(100000)",
            "join(['a', 'b'])",
            "splitlines()",
            "startswith('a')",
            "zfill(99999)",
            "title()",
            "count('a')",
        ]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            (inner.clone(), filter).prop_map(|(a, filter)| format!("({a})|{filter}")),
            (inner.clone(), method).prop_map(|(a, method)| format!("({a}).{method}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}:]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            inner.prop_map(|a| format!("m({a})")),
        ]
    })
}

fn body() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        expression().prop_map(|e| format!("{{{{ {e} }}}}")),
        expression().prop_map(|e| format!("{{%- set x = {e} %}}")),
        expression().prop_map(|e| format!("{{% set ns.x = {e} -%}}")),
        Just("text <|im_end|>\n".to_owned()),
        "[{}%# a\n|'\"-]{0,6}",
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let several = prop::collection::vec(inner, 1..4).prop_map(|parts| parts.concat());
        prop_oneof![
            (expression(), several.clone())
                .prop_map(|(e, b)| format!("{{% for message in {e} %}}{b}{{% endfor %}}")),
            (expression(), several.clone())
                .prop_map(|(e, b)| format!("{{% if {e} %}}{b}{{% else %}}{b}{{% endif %}}")),
            several.clone().prop_map(|b| format!("{{% set ns.x %}}{b}{{% endset %}}")),
            several.clone().prop_map(|b| format!("{{% macro m(x) %}}{b}{{% endmacro %}}{{{{ m(1) }}}}")),
            several.clone().prop_map(|b| format!("{{% generation %}}{b}{{% endgeneration %}}")),
            several.clone().prop_map(|b| format!("{{% for i in range(100000) %}}{b}{{% endfor %}}")),
            several.prop_map(|b| format!("{{% filter upper %}}{b}{{% endfilter %}}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn f8_any_template_ends_in_time(body in body(), contents in prop::collection::vec(any::<String>(), 0..4)) {
        static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
        let tokenizer = TOKENIZER.get_or_init(|| with_tokens(&[]));
        let source = format!("{{% set ns = namespace(x='ab') %}}{{% set x = 'cd' %}}{body}");
        let messages = contents.iter().map(|content| Message::new("user", content)).collect();
        let conversation = Conversation { messages, tools: None };
        let took = least_time(|| {
            if let Ok(template) = ChatTemplate::new(&source, tokenizer)
                && let Ok(rendered) = template.render_prompt(&conversation, &RenderOptions::default())
            {
                let encoded = template.encode(&rendered, tokenizer).unwrap();
                let special = |id: &u32| tokenizer.is_special(*id);
                let controls = encoded.ids.iter().filter(|id| special(id)).count();
                assert_eq!(controls, encoded.control.iter().filter(|control| **control).count());
            }
        });
        prop_assert!(took < LIMIT, "{took:?}");
    }
}
