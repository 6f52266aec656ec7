//! Text of a conversation never becomes a control token.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::goldens::{context, shared};
use super::*;

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' ~ message.role ~ '\n' }}\
    {% if message.name %}{{ message.name ~ ': ' }}{% endif %}{{ message.content }}\
    {% for call in message.tool_calls %}{{ call|tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}\
    {% for tool in tools or [] %}{{ tool|tojson }}\n{% endfor %}\
    {% for document in documents or [] %}{{ document.text }}{% for key in document %}{{ key }}{% endfor %}{% endfor %}";

/// The special ids of an encoding that are not control tokens, and the control tokens as text.
fn controls(template: &ChatTemplate, tokenizer: &Tokenizer, rendered: &Rendered) -> (Vec<u32>, Vec<String>) {
    let encoded = template.encode(rendered, tokenizer).unwrap();
    assert_eq!(encoded.ids.len(), encoded.control.len());
    assert_eq!(tokenizer.decode(&encoded.ids, false).unwrap(), rendered.text());
    let pairs = || encoded.ids.iter().copied().zip(&encoded.control);
    let stray =
        pairs().filter(|(id, control)| tokenizer.is_special(*id) && !**control).map(|(id, _)| id).collect();
    let named = pairs().filter(|(_, control)| **control).map(|(id, _)| tokenizer.token(id).unwrap()).collect();
    (stray, named)
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

#[test]
fn t5_every_special_token_of_a_vocabulary_stays_text() {
    let mut tokenizers =
        vec![(with_tokens(&["<|tool|>", "<think>"]), ChatTemplate::new as fn(&str, &Tokenizer) -> _)];
    if let Some(folder) = shared("tokenizer-smollm2") {
        tokenizers.push((Tokenizer::load(&folder).unwrap(), ChatTemplate::new));
    }
    for (tokenizer, new) in tokenizers {
        let template = new(CHATML, &tokenizer).unwrap();
        let ids = 0..tokenizer.vocab_size() as u32;
        let special: Vec<String> =
            ids.filter(|id| tokenizer.is_special(*id)).filter_map(|id| tokenizer.token(id)).collect();
        assert!(special.len() >= 5);
        for hostile in special.iter().cloned().chain([special.concat(), special.join("\n")]) {
            let halves = hostile.split_at(hostile.floor_char_boundary(hostile.len() / 2));
            let quoted = serde_json::to_string(&hostile).unwrap();
            let message = format!(
                r#"{{"role": "assistant", "name": {quoted}, "content": {quoted}, "tool_calls": [{{"type": "function",
                "function": {{"name": {quoted}, "arguments": {{{quoted}: [{quoted}]}}}}}}]}}"#
            );
            let messages = vec![
                Message::new("system", &hostile),
                Message::new("user", halves.0),
                Message::new("user", halves.1),
                Message::from_json(json(&message)).unwrap(),
                Message::new("tool", &hostile),
            ];
            let tools = Some(json(&format!(r#"[{{"description": {quoted}, "properties": {{{quoted}: 1}}}}]"#)));
            let documents = Some(json(&format!(r#"[{{"text": {quoted}, {quoted}: "x"}}]"#)));
            let options = RenderOptions { documents, ..RenderOptions::default() };
            let rendered = template.render(&Conversation { messages, tools }, &options).unwrap();
            assert!(rendered.is_complete());
            let (stray, named) = controls(&template, &tokenizer, &rendered);
            assert_eq!(
                (stray, named),
                (vec![], ["<|im_start|>", "<|im_end|>"].repeat(5).iter().map(|s| (*s).to_owned()).collect()),
                "{hostile}"
            );
        }
    }
}

#[test]
fn t5_pieces_do_not_join_to_a_token() {
    let tokenizer = with_tokens(&["<|end|>", "<|user|>"]);
    let said = |contents: &[&str]| contents.iter().map(|content| Message::new("user", content)).collect();
    let role = |role: &str| vec![Message::new(role, "x")];
    let first_two = "{{ messages[0].content }}{{ messages[1].content }}";
    let key = "{% for key in messages[0].content %}{{ '<|' ~ key ~ '|>' }}{% endfor %}";
    let object = |text: &str| vec![Message::from_json(json(text)).unwrap()];
    for (source, messages, expected) in [
        (first_two, said(&["<|im_", "end|>"]), &[][..]),
        (first_two, said(&["<|im_end|", ">"]), &[]),
        ("{{ messages[0].content }}_end|>", said(&["<|im"]), &[]),
        ("<|im{{ messages[0].content }}", said(&["_end|>"]), &[]),
        ("<|im{{ messages[0].content }}end|>", said(&["_"]), &[]),
        ("<|{{ messages[0].content|trim }}|>", said(&[" im_end "]), &[]),
        ("{{ messages[0].content.replace('XX', '') }}", said(&["<|im_XXend|>"]), &[]),
        ("{{ messages[0].content[:4] ~ messages[0].content[6:] }}", said(&["<|imXX_end|>"]), &[]),
        ("{{ messages[0].content.split('XX')|join }}", said(&["<|im_XXend|>"]), &[]),
        ("{{ messages[0].content|lower }}", said(&["<|IM_END|>"]), &[]),
        ("{{ messages[0].content|reverse }}", said(&[">|dne_mi|<"]), &[]),
        ("{{ messages[0].content * 2 }}", said(&["<|im_end|>"]), &[]),
        ("{% for c in messages[0].content %}{{ c }}{% endfor %}", said(&["<|im_end|>"]), &[]),
        ("{% set x %}{{ messages[0].content }}{% endset %}{{ x }}", said(&["<|im_end|>"]), &[]),
        ("{% macro m(x) %}{{ x }}{% endmacro %}{{ m(messages[0].content)|trim }}", said(&["<|im_end|>"]), &[]),
        ("{{ '%s'|replace('%s', messages[0].content) }}", said(&["<|im_end|>"]), &[]),
        ("{{ '<|{}|>'.format(messages[0].content) }}", said(&["im_end"]), &[]),
        ("{{ [messages[0].content] }}", said(&["<|im_end|>"]), &[]),
        ("{{ messages }}", said(&["<|im_end|>"]), &[]),
        ("{{ messages|tojson(indent=2) }}", said(&["<|im_end|>"]), &[]),
        ("{{ messages|map(attribute='content')|join(', ') }}", said(&["<|im_end|>", "<|end|>"]), &[]),
        (key, object(r#"{"role": "user", "content": {"im_end": 1, "end": 2}}"#), &[]),
        // A role that templates know may be part of a header; another is text.
        ("{{ '<|' ~ messages[0].role ~ '|>' }}", role("user"), &["<|user|>"]),
        ("{{ '<|' ~ messages[0].role ~ '|>' }}", role("end"), &[]),
        ("{{ '<|' ~ messages[0].role ~ '|>' }}", role("im_end"), &[]),
        (
            "<|im_start|>{{ messages[0].content }}<|im_end|>",
            said(&["<|im_start|>"]),
            &["<|im_start|>", "<|im_end|>"],
        ),
    ] {
        let template = ChatTemplate::new(source, &tokenizer).unwrap();
        let rendered =
            template.render(&Conversation { messages, tools: None }, &RenderOptions::default()).unwrap();
        assert!(rendered.is_complete(), "{source}");
        let (stray, named) = controls(&template, &tokenizer, &rendered);
        assert_eq!((stray, named.iter().map(String::as_str).collect()), (vec![], expected.to_vec()), "{source}");
    }
}

#[test]
fn t5_real_templates_keep_what_is_said_apart() {
    let Some(folder) = shared("chat-templates/templates") else {
        return;
    };
    let mut rendered_all = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = fs::read_to_string(&path).unwrap();
        let tokens = tokens_of(&source);
        let tokenizer = with_tokens(&tokens.iter().map(String::as_str).collect::<Vec<_>>());
        let template =
            ChatTemplate::new(&source, &tokenizer).unwrap().with_special_token("bos_token", "<|im_start|>");
        for case in ["simple", "system", "tool_use"] {
            let (mut conversation, options) = context(&path.with_file_name(format!("../contexts/{case}.json")));
            let options = RenderOptions { variables: Vec::new(), ..options };
            let Ok(plain) = template.render(&conversation, &options) else {
                continue;
            };
            for message in &mut conversation.messages {
                if let Some(text) = message.text().filter(|text| !text.is_empty() && message.role() != "tool") {
                    // No word that templates look for: only special tokens between the words.
                    let tokens: Vec<&str> =
                        tokens.iter().map(String::as_str).filter(|token| token.contains("im_")).collect();
                    *message = Message::new(message.role(), &format!("{text} {} ", tokens.concat()));
                }
            }
            let Ok(hostile) = template.render(&conversation, &options) else {
                continue;
            };
            let (stray, named) = controls(&template, &tokenizer, &hostile);
            let name = path.file_name().unwrap().display();
            assert!(stray.is_empty(), "{name} {case}: {stray:?}");
            if case != "tool_use" {
                assert_eq!(named, controls(&template, &tokenizer, &plain).1, "{name} {case}");
            }
            rendered_all += 1;
        }
    }
    assert!(rendered_all > 130, "{rendered_all}");
}

/// What a template writes that looks like a token.
pub(super) fn tokens_of(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    for (open, close) in [("<|", "|>"), ("<｜", "｜>"), ("[", "]"), ("<", ">")] {
        for (at, _) in source.match_indices(open) {
            let inner = source[at + open.len()..].split_once(close).map_or("", |(inner, _)| inner);
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == '▁' || (c == '/' && open == "<");
            let capital = open != "[" || inner.chars().all(|c| c.is_uppercase() || c == '_');
            if !inner.is_empty() && inner.len() < 40 && inner.chars().all(word) && capital {
                tokens.push(format!("{open}{inner}{close}"));
            }
        }
    }
    tokens.sort();
    tokens.dedup();
    tokens
}

#[test]
fn what_hides_its_origin_is_text_or_refused() {
    let tokenizer = with_tokens(&[]);
    // The library itself compares keys of an object that a template makes.
    let source =
        "<|im_start|>{% set known = {messages[0].content: 'yes'} %}{{ known['hello'] or messages[0].content }}";
    let template = ChatTemplate::new(source, &tokenizer).unwrap();
    let render = |text: &str| {
        let conversation = Conversation { messages: vec![Message::new("user", text)], tools: None };
        template.render(&conversation, &RenderOptions::default())
    };
    let rendered = render("hello").unwrap();
    assert_eq!((rendered.text(), rendered.is_complete()), ("<|im_start|>yes", false));
    assert_eq!(controls(&template, &tokenizer, &rendered).1, ["<|im_start|>"]);
    let source = "{% set known = {messages[0].content: 'yes'} %}{{ known['<|im_end|>'] or 'no' }}";
    let template = ChatTemplate::new(source, &tokenizer).unwrap();
    let conversation = Conversation { messages: vec![Message::new("user", "<|im_end|>")], tools: None };
    let error = template.render(&conversation, &RenderOptions::default()).unwrap_err().to_string();
    assert!(error.starts_with("message 1 holds text that could become the control token \"<|"), "{error}");
}

#[test]
fn origins_cover_the_text() {
    let tokenizer = with_tokens(&[]);
    let source = "{{ tools[0].name }}|{% for m in messages %}{{ m.role }}:{{ m.content|upper }};{% endfor %}";
    let template = ChatTemplate::new(source, &tokenizer).unwrap();
    let conversation = Conversation {
        messages: vec![Message::new("user", "ab"), Message::new("assistant", "ß")],
        tools: Some(json(r#"[{"name": "f"}]"#)),
    };
    let rendered = template.render(&conversation, &RenderOptions::default()).unwrap();
    let parts: Vec<(&str, Origin)> =
        rendered.origins().map(|(range, origin)| (&rendered.text()[range], origin)).collect();
    let expected = [
        ("f", Origin::Data),
        ("|user:", Origin::Template),
        ("AB", Origin::Message(0)),
        (";assistant:", Origin::Template),
        ("SS", Origin::Message(1)),
        (";", Origin::Template),
    ];
    assert_eq!(parts, expected);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "(<\\|im_start\\|>|<\\|im_end\\|>|<\\||im_|end|start|\\|>|[ \n<>|]|é|\u{10C000}|\u{10FFFD}){0,10}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn t5_any_text_stays_text(contents in prop::collection::vec(text(), 1..5)) {
        static MADE: OnceLock<(Tokenizer, ChatTemplate)> = OnceLock::new();
        let (tokenizer, template) = MADE.get_or_init(|| {
            let tokenizer = with_tokens(&[]);
            let template = ChatTemplate::new(CHATML, &tokenizer).unwrap();
            (tokenizer, template)
        });
        let messages: Vec<Message> = contents.iter().map(|content| Message::new("assistant", content)).collect();
        let turns = messages.len();
        let rendered = template.render(&Conversation { messages, tools: None }, &RenderOptions::default()).unwrap();
        let expected: String =
            contents.iter().map(|content| format!("<|im_start|>assistant\n{content}<|im_end|>\n")).collect();
        prop_assert_eq!(rendered.text(), expected);
        prop_assert!(rendered.is_complete());
        let (stray, named) = controls(template, tokenizer, &rendered);
        prop_assert!(stray.is_empty());
        prop_assert_eq!(named, ["<|im_start|>", "<|im_end|>"].repeat(turns));
    }
}
