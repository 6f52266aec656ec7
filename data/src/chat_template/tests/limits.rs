//! Templates that would take all time or memory, or that cannot work.

use std::time::{Duration, Instant};

use super::*;

/// The least processor time that `work` takes in some tries: other processes share the caches.
pub(super) fn least_time(work: impl Fn()) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let (start, clock) = (on_processor(), Instant::now());
        work();
        let took = start.and_then(|start| Some(on_processor()? - start)).unwrap_or_else(|| clock.elapsed());
        least = least.min(took);
        if least < LIMIT {
            break;
        }
    }
    least
}

/// How long this thread has run, where the system says so.
fn on_processor() -> Option<Duration> {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(statistics.split(' ').next()?.parse().ok()?))
}

/// What loading and rendering any template may take together.
pub(super) const LIMIT: Duration = Duration::from_millis(100);

#[test]
fn t2_hostile_templates_are_errors_in_time() {
    let tokenizer = with_tokens(&[]);
    let conversation = Conversation { messages: vec![Message::new("user", "hello")], tools: None };
    let long = format!("{{# {} #}}", "x".repeat(10 << 20));
    let literal = format!(
        "{{% set x %}}{{% for i in range(90000) %}}{}{{% endfor %}}{{% endset %}}{{{{ x }}}}",
        "word ".repeat(40_000)
    );
    let deep = "{% for i in range(20000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    let cases: [(&str, &str); 36] = [
        // The cases of the table.
        (
            "{% for i in range(100000) %}{% for j in range(100000) %}{% set y = 1 %}{% endfor %}{% endfor %}",
            "more than 500000",
        ),
        ("{{ 'x' * 1000000000 }}", "too much text"),
        ("{{ 'x' * 10 ** 9 }}", "too much text"),
        ("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", "recursion"),
        (&long, "at most 262144 are allowed"),
        ("{% if %}", "the tag ends too early"),
        ("{{ messages[0].content }", "does not end"),
        ("{% for m in messages %}x", "unexpected end of input"),
        ("{{ absent.name }}", "`absent` is undefined"),
        ("{{ absent() }}", "absent is unknown"),
        ("{{ messages | frobnicate }}", "filter frobnicate is unknown"),
        ("{{ messages is frobnicated }}", "test frobnicated is unknown"),
        ("{{ messages.append(1) }}", "no method named append"),
        ("{% include 'x' %}", "needs other templates"),
        ("{% import 'x' as y %}", "needs other templates"),
        ("{% extends 'x' %}", "needs other templates"),
        ("{{ raise_exception('no system prompts') }}", "no system prompts"),
        ("{{ strftime_now('%d %b %Y') }}", "which is not given"),
        // What fuel does not see.
        (
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|join(ns.x) %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|tojson %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = '{}{}'.format(ns.x, ns.x) %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set ns = namespace(x='a\\n') %}{% for i in range(60) %}{% set ns.x = (ns.x * 9)|indent(1000000) %}{% endfor %}",
            "too much text",
        ),
        ("{{ 'x'.center(1000000000000) }}", "too much text"),
        ("{% for i in range(90000) %}{% set x = range(100000)|list %}{% endfor %}", "too much text"),
        (
            "{% set x = range(100000)|list %}{% for i in range(90000) %}{% set y = x|sort %}{% endfor %}",
            "too much text",
        ),
        (
            "{% set x = 'ab' * 1000000 %}{% for i in range(90000) %}{% if x == x ~ '' %}{% endif %}{% endfor %}",
            "too much text",
        ),
        (
            "{% for i in range(90000) %}{% for j in range(9) %}{% endfor %}{{ 'a' in range(100000) }}{% endfor %}",
            "too much text",
        ),
        (&literal, "too much text"),
        ("{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}", "hold a namespace"),
        (deep, "`ns` is undefined"),
    ];
    let mut wrong = Vec::new();
    for (source, says) in cases {
        let error = || match ChatTemplate::new(source, &tokenizer) {
            Ok(template) => template.render(&conversation, &RenderOptions::default()).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        let shown = &source[..source.floor_char_boundary(100)];
        if !error().contains(says) {
            wrong.push(format!("{shown}: {}", error()));
        }
        let took = least_time(|| drop(error()));
        if took > LIMIT {
            wrong.push(format!("{shown}: {took:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn t2_nesting_is_bounded() {
    let tokenizer = with_tokens(&[]);
    let conversation = Conversation { messages: vec![Message::new("user", "hello")], tools: None };
    for source in [
        "{% set ns = namespace(x=1) %}{% for i in range(40000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(40000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(40000) %}{% set ns.x = (ns.x, 1) %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(40000) %}{% set ns.x = namespace(x=ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(40000) %}{% set ns.x = dict(x=ns.x) %}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(40000) %}{% set ns.x = [ns.x]|batch(1)|list %}{% endfor %}",
        "{% macro m(x) %}{{ m([[[[[[[[x]]]]]]]]) }}{% endmacro %}{{ m(1) }}",
    ] {
        let template = ChatTemplate::new(source, &tokenizer).unwrap();
        let error = template.render(&conversation, &RenderOptions::default()).unwrap_err().to_string();
        assert!(error.contains("nested too deeply") || error.contains("recursion"), "{source}: {error}");
    }
    let straight = "{% set x = 1 %}".to_owned() + &"{% set x = [x] %}".repeat(15_000);
    let template = ChatTemplate::new(&straight, &tokenizer).unwrap();
    assert!(template.render(&conversation, &RenderOptions::default()).unwrap_err().to_string().contains("nested"));
    for opens in ["(", "[", "-", "not ", "{'a': ", "f(", "x["] {
        let source = format!("{{{{ {} }}}}", opens.repeat(50_000));
        assert!(ChatTemplate::new(&source, &tokenizer).is_err(), "{opens}");
    }
}

#[test]
fn output_is_bounded_by_the_conversation() {
    let tokenizer = with_tokens(&[]);
    let text = "y".repeat(100_000);
    let conversation = Conversation { messages: vec![Message::new("user", &text)], tools: None };
    let render = |times: usize| {
        let source = format!("{{% for i in range({times}) %}}{{{{ messages[0].content }}}}{{% endfor %}}");
        ChatTemplate::new(&source, &tokenizer).unwrap().render(&conversation, &RenderOptions::default())
    };
    assert_eq!(render(4).unwrap().text().len(), 400_000);
    let error = render(5).unwrap_err();
    let bytes = 100_000 + "rolecontentuser".len();
    assert!(
        matches!(error, TemplateError::TooLong { limit, given } if given == bytes && limit == 4 * bytes + FLOOR)
    );
}

#[test]
fn conversations_that_cannot_be_rendered_are_named() {
    let tokenizer = with_tokens(&[]);
    let template = ChatTemplate::new("{{ messages[0].content }}", &tokenizer).unwrap();
    let render = |messages: Vec<Message>| {
        template
            .render(&Conversation { messages, tools: None }, &RenderOptions::default())
            .unwrap_err()
            .to_string()
    };
    let mut deep = Value::from("x");
    for _ in 0..200 {
        deep = Value::from(vec![deep]);
    }
    let deep = Message::from_json(Value::from_pairs([("role", Value::from("user")), ("content", deep)])).unwrap();
    assert_eq!(render(vec![Message::new("user", "x"), deep]), "message 2: nested deeper than 128");
    let many = vec![Message::new("user", "x"); MOST_MESSAGES + 1];
    assert!(render(many).contains("has 16381 messages, at most 16380 can be rendered"));
    let every: String = (0xF_0000..=0x10_FFFF).filter_map(char::from_u32).step_by(0x1000).collect();
    assert!(render(vec![Message::new("user", &every)]).contains("private use"));
    let odd = "\u{10C000}\u{10FFFD}\u{F0000}";
    let conversation = Conversation { messages: vec![Message::new("user", odd)], tools: None };
    assert_eq!(template.render(&conversation, &RenderOptions::default()).unwrap().text(), odd);
    let taken = RenderOptions { variables: vec![("messages".into(), Value::from(1))], ..RenderOptions::default() };
    let error = template.render(&conversation, &taken).unwrap_err().to_string();
    assert_eq!(error, "the variable \"messages\": templates call something else by this name");
    let unknown = RenderOptions { template: Some("rag".into()), ..RenderOptions::default() };
    let error = template.render(&conversation, &unknown).unwrap_err().to_string();
    assert_eq!(error, "there is no chat template named \"rag\"; there are default");
}
