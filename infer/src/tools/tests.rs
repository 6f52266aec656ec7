use fornax_data::Tokenizer;
use fornax_data::chat_template::ChatTemplate;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::grammar::tests::shared;
use crate::grammar::{GrammarCompiler, GrammarLimits};

const CASES: u32 = 1000;

fn names() -> Vec<String> {
    ["sum", "get_weather"].map(str::to_owned).to_vec()
}

fn check(format: ToolFormat, text: &str, said: &str, calls: &[(&str, &str)]) {
    let expected: Vec<ToolCall> = calls
        .iter()
        .map(|(name, arguments)| ToolCall { name: (*name).to_owned(), arguments: (*arguments).to_owned() })
        .collect();
    let found = ToolParser::read(format, names(), text);
    assert_eq!(found, (said.to_owned(), expected), "{format:?} {text:?}");
}

#[test]
fn hermes_calls_stand_between_markers() {
    let one = "<tool_call>\n{\"name\": \"sum\", \"arguments\": {\"a\": [1, \"}\\\"\"]}}\n</tool_call>";
    check(ToolFormat::Hermes, one, "", &[("sum", r#"{"a": [1, "}\""]}"#)]);
    let two = format!("I will. \n\n{one}\n<tool_call>{{\"name\":\"get_weather\"}}</tool_call>\nDone.");
    check(ToolFormat::Hermes, &two, "I will.\nDone.", &[("sum", r#"{"a": [1, "}\""]}"#), ("get_weather", "{}")]);
    // In another order, with more keys, and with the arguments written as a text.
    let odd = r#"<tool_call>{"arguments": "{\"a\": 1}", "id": 7, "name": "sum", "x": {"name": 1}}</tool_call>"#;
    check(ToolFormat::Hermes, odd, "", &[("sum", r#"{"a": 1}"#)]);
    let first = r#"<tool_call>{"arguments": {"a": 1}, "name": "sum"}</tool_call>"#;
    check(ToolFormat::Hermes, first, "", &[("sum", r#"{"a": 1}"#)]);
    // The closing marker may be forgotten, and white space means nothing.
    let open = "<tool_call>{\"name\" : \"sum\" ,\n \"arguments\" : { } }";
    check(ToolFormat::Hermes, open, "", &[("sum", "{ }")]);
    check(ToolFormat::Hermes, &format!("{open} and {open}"), " and", &[("sum", "{ }"), ("sum", "{ }")]);
}

#[test]
fn text_that_only_looks_like_a_call_stays_text() {
    for text in [
        "a < b and <tool_cal",
        "  <tool_called>",
        "<tool_call>not json</tool_call>",
        r#"<tool_call>{"name": "unknown", "arguments": {}}</tool_call>"#,
        r#"<tool_call>{"name": "sum", "arguments": [1]}</tool_call>"#,
        r#"<tool_call>{"arguments": {}}</tool_call>"#,
        r#"<tool_call>{"name": "sum", "name": "sum"}</tool_call>"#,
        r#"<tool_call>{"name": "su"#,
        "<tool_call>",
        "<<tool_call",
        " ",
        "",
    ] {
        check(ToolFormat::Hermes, text, text, &[]);
    }
    for text in [
        r#"{"city": "Oslo"}"#,
        r#"{"name": "unknown", "parameters": {}}"#,
        "{",
        "[1]",
        "Hello {\"name\": \"sum\", \"parameters\": {}}",
        "<|python_tag|>sum.call(a=1)",
        "  \n",
        "{}",
    ] {
        check(ToolFormat::Llama3, text, text, &[]);
    }
    for text in ["[TOOL_CALLS", "[TOOL_CALLS] (", "[1, 2] [TOOL", "[TOOL_CALLS]unknown[ARGS]{\"a\": 1}", "a [b]"] {
        check(ToolFormat::Mistral, text, text, &[]);
    }
}

#[test]
fn llama_calls_are_the_whole_text() {
    let one = r#"{"name": "sum", "parameters": {"a": "1"}}"#;
    let sum = ("sum", r#"{"a": "1"}"#);
    check(ToolFormat::Llama3, one, "", &[sum]);
    check(ToolFormat::Llama3, &format!("\n<|python_tag|>{one}"), "", &[sum]);
    check(ToolFormat::Llama3, &format!("{one}; {one}\n"), "", &[sum, sum]);
    check(ToolFormat::Llama3, &format!("{one}\n{one};<|python_tag|>{one}"), "", &[sum, sum, sum]);
    check(ToolFormat::Llama3, &format!("{one} That is it."), " That is it.", &[sum]);
    let typed = r#"{"type": "function", "name": "sum", "parameters": {}}"#;
    check(ToolFormat::Llama3, typed, "", &[("sum", "{}")]);
}

#[test]
fn mistral_calls_are_a_list_or_named() {
    let list =
        r#"[TOOL_CALLS][{"name": "sum", "arguments": {"a": 1}, "id": "abcdefghi"}, {"name": "get_weather"}]"#;
    check(ToolFormat::Mistral, list, "", &[("sum", r#"{"a": 1}"#), ("get_weather", "{}")]);
    let golden = r#"[TOOL_CALLS] [{"arguments": "{\"a\": \"b\"}", "name": "sum", "id": "call_3___"}]"#;
    check(ToolFormat::Mistral, golden, "", &[("sum", r#"{"a": "b"}"#)]);
    let named = r#"Yes. [TOOL_CALLS]sum[ARGS]{"a": {"b": 1}}[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{}"#;
    let calls = [("sum", r#"{"a": {"b": 1}}"#), ("get_weather", "{}")];
    check(ToolFormat::Mistral, named, "Yes.", &calls);
    check(ToolFormat::MistralNamed, named, "Yes.", &calls);
}

#[test]
fn a_call_that_breaks_says_so_and_leaks_nothing() {
    let events = |text: &str| {
        let mut parser = ToolParser::new(ToolFormat::Hermes, names());
        let mut events = parser.push(text);
        events.extend(parser.finish());
        events
    };
    let begun = |fragment: &str| {
        vec![
            ToolEvent::Call { index: 0, name: "sum".to_owned() },
            ToolEvent::Arguments { index: 0, fragment: fragment.to_owned() },
        ]
    };
    let broken = |reason: &str| ToolEvent::Broken { index: 0, reason: reason.to_owned() };
    let cut = events(r#"<tool_call>{"name": "sum", "arguments": {"a": 1"#);
    assert_eq!(cut, [begun(r#"{"a": 1"#), vec![broken("the text ended inside the call")]].concat());
    let bad = events(r#"<tool_call>{"name": "sum", "arguments": {"a" 1}}</tool_call> So."#);
    let said = ToolEvent::Text(" So.".to_owned());
    assert_eq!(bad, [begun(r#"{"a" 1}"#), vec![broken("the arguments are not JSON"), said]].concat());
}

/// Text in which markers, objects and their fragments are frequent.
fn text() -> impl Strategy<Value = String> {
    let pieces = vec![
        "<tool_call>",
        "</tool_call>",
        "<tool_",
        "call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|python_tag|>",
        "{\"name\": \"sum\", \"arguments\": {\"a\": \"}\\\"\"}}",
        "{\"name\": \"get_weather\", \"parameters\": {}}",
        "{\"arguments\": \"{}\", \"name\": \"sum\"}",
        "{\"name\": \"sum\"",
        "sum",
        "[{",
        "}]",
        "{",
        "}",
        "\"",
        ", ",
        ";",
        " ",
        "\n",
        "é🦀",
        "\\",
    ];
    prop::collection::vec(prop::sample::select(pieces), 0..14).prop_map(|pieces| pieces.concat())
}

fn merged(parts: impl Iterator<Item = Vec<ToolEvent>>) -> Vec<ToolEvent> {
    let mut all: Vec<ToolEvent> = Vec::new();
    for event in parts.flatten() {
        match (all.last_mut(), &event) {
            (Some(ToolEvent::Text(before)), ToolEvent::Text(more)) => before.push_str(more),
            (
                Some(ToolEvent::Arguments { index: before, fragment }),
                ToolEvent::Arguments { index, fragment: more },
            ) if before == index => fragment.push_str(more),
            _ => all.push(event),
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// F15.
    #[test]
    fn f15_any_split_gives_the_same_calls(text in text(), cuts in prop::collection::vec(0_usize..200, 0..12), form in 0_usize..4) {
        use ToolFormat::{Hermes, Llama3, Mistral, MistralNamed};
        let format = [Hermes, Llama3, Mistral, MistralNamed][form];
        let mut whole = ToolParser::new(format, names());
        let whole = merged([whole.push(&text), whole.finish()].into_iter());
        let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        at.extend([0, text.len()]);
        at.retain(|at| text.is_char_boundary(*at));
        at.sort_unstable();
        let mut parser = ToolParser::new(format, names());
        let mut parts: Vec<Vec<ToolEvent>> = at.windows(2).map(|pair| parser.push(&text[pair[0]..pair[1]])).collect();
        parts.push(parser.finish());
        prop_assert_eq!(merged(parts.into_iter()), whole.clone());
        // Calls are numbered, named before their arguments, and complete ones hold an object.
        let (mut open, mut next) = (None, 0);
        for event in whole {
            match event {
                ToolEvent::Call { index, name } => {
                    prop_assert!(index == next && names().contains(&name));
                    (open, next) = (Some(String::new()), next + 1);
                }
                ToolEvent::Arguments { index, fragment } => {
                    prop_assert_eq!(index + 1, next);
                    open.as_mut().unwrap().push_str(&fragment);
                }
                ToolEvent::End { .. } => {
                    prop_assert!(serde_json::from_str::<Value>(&open.take().unwrap()).unwrap().is_object());
                }
                ToolEvent::Broken { .. } => open = None,
                ToolEvent::Text(_) => {}
            }
        }
    }
}

fn small() -> Tokenizer {
    let mut documents = std::iter::once(Ok("a b c".to_owned()));
    Tokenizer::train_bpe(&mut documents, 260, &mut |_| {}).unwrap()
}

#[test]
fn templates_tell_their_form() {
    let Some(folder) = shared("chat-templates/templates") else { return };
    let tokenizer = small();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        let template = ChatTemplate::new(&source, &tokenizer)
            .unwrap()
            .with_special_token("bos_token", "<s>")
            .with_special_token("eos_token", "</s>");
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        found.push((name, ToolFormat::of_template(&template)));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let of = |format: ToolFormat| -> Vec<&str> {
        found.iter().filter(|(_, found)| *found == Ok(format)).map(|(name, _)| name.as_str()).collect()
    };
    let hermes = [
        "Bielik-11B-v3.0-Instruct",
        "MiMo-VL",
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
        "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
        "Qwen-QwQ-32B",
        "Qwen-Qwen2.5-7B-Instruct",
        "Qwen-Qwen3-0.6B",
        "Reka-Edge",
        "ibm-granite-granite-4.0",
        "ibm-granite-granite-4.1",
    ];
    assert_eq!(of(ToolFormat::Hermes), hermes);
    let llama = [
        "meta-llama-Llama-3.1-8B-Instruct",
        "meta-llama-Llama-3.2-3B-Instruct",
        "meta-llama-Llama-3.3-70B-Instruct",
    ];
    assert_eq!(of(ToolFormat::Llama3), llama);
    assert_eq!(of(ToolFormat::Mistral), ["mistralai-Mistral-Nemo-Instruct-2407"]);
    let named = [
        "Mistral-Small-3.2-24B-Instruct-2506",
        "mistralai-Ministral-3-14B-Reasoning-2512",
        "unsloth-mistral-Devstral-Small-2507",
    ];
    assert_eq!(of(ToolFormat::MistralNamed), named);
    // Others write calls in forms of their own, which a message shows, or none.
    let other = found.iter().find(|(name, _)| name == "Qwen3-Coder").unwrap();
    assert!(other.1.as_ref().unwrap_err().to_string().contains("<function=get_probe>"));
}

/// What real templates write of a call is read back as that call.
#[test]
fn written_calls_are_read_back() {
    let Some(folder) = shared("chat-templates/goldens-transformers") else { return };
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = if path.to_string_lossy().ends_with("tool_use.txt") {
            std::fs::read_to_string(&path).unwrap()
        } else {
            continue;
        };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let (format, opening, end) = match &name[..] {
            name if name.starts_with("Qwen-Qwen2.5") => {
                (ToolFormat::Hermes, "<|im_start|>assistant\n", "<|im_end|>")
            }
            name if name.starts_with("mistralai-Mistral-Nemo") => {
                (ToolFormat::Mistral, "[/INST]", "<|endoftext|>")
            }
            name if name.starts_with("NousResearch-Hermes-3") => {
                (ToolFormat::Hermes, "<|im_start|>assistant\n", "<|im_end|>")
            }
            _ => continue,
        };
        let mut calls = Vec::new();
        for turn in text.split(opening).skip(1) {
            let turn = turn.split(end).next().unwrap();
            let (said, found) = ToolParser::read(format, Vec::new(), turn);
            assert!(found.is_empty() || said.is_empty(), "{name}: {turn}");
            calls.extend(found);
        }
        // The arguments of these goldens are texts that hold JSON.
        let call =
            |name: &str, arguments: &str| ToolCall { name: name.to_owned(), arguments: arguments.to_owned() };
        let expected = [
            call("ipython", "{\"code\": \"print('Hello, World!')\"}"),
            call("test", "{\"condition\":true}"),
            call("brave_search", "{\"query\": \"what is truth anyway am I right?\"}"),
        ];
        assert_eq!(calls, expected, "{name}");
        read += 1;
    }
    assert!(read >= 2, "{read} goldens");
}

#[test]
fn tools_are_checked_before_they_are_offered() {
    let message = |tools: Value| Tool::list(&tools).unwrap_err().to_string();
    assert_eq!(message(json!({})), "the tools are not a JSON list");
    assert_eq!(message(json!([{"name": "a"}, {}])), "tool 1 cannot be used: it has no name");
    assert!(message(json!([{"name": "a b"}])).contains("\"a b\" is not 1 to 64 letters"));
    assert!(message(json!([{"name": "a"}, {"function": {"name": "a"}}])).ends_with("its name \"a\" is taken"));
    assert!(message(json!([{"name": "a", "parameters": {"type": "array"}}])).contains("\"array\""));
    let tools = Tool::list(&json!([{"name": "a", "parameters": {"properties": {"x": {}}}}])).unwrap();
    assert_eq!(tools[0].parameters["type"], "object");
    assert!(Tool::for_template(&tools).to_string().contains("function"));
}

#[test]
fn a_forced_call_is_read_back() {
    let tools = Tool::list(&json!([
        {"type": "function", "function": {"name": "sum", "parameters": {"type": "object",
            "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}}, "required": ["a", "b"],
            "additionalProperties": false, "$defs": {"n": {"type": "integer"}}}}},
        {"name": "get_weather"},
    ]))
    .unwrap();
    let tokenizer = small();
    let compiler =
        GrammarCompiler::new(&tokenizer, tokenizer.vocab_size(), &[], GrammarLimits::default()).unwrap();
    let accepts = |format: ToolFormat, choice: &ToolChoice, parallel: bool, text: &str| {
        let spec = force(format, &tools, choice, parallel, &tokenizer).unwrap();
        let mut grammar = compiler.compile(&spec).unwrap_or_else(|error| panic!("{error} {spec:?}"));
        let ids = tokenizer.encode(text, false).unwrap();
        ids.into_iter().all(|id| grammar.accept(id).is_ok()) && grammar.may_end().unwrap()
    };
    let object = |key: &str| format!("{{\"name\": \"sum\", \"{key}\": {{\"a\": 1, \"b\": -2}}}}");
    let weather = |key: &str| format!("{{\"name\": \"get_weather\", \"{key}\": {{}}}}");
    for (format, one, two) in [
        (
            ToolFormat::Hermes,
            format!("<tool_call>\n{}\n</tool_call>", object("arguments")),
            format!("<tool_call>\n{}\n</tool_call>\n", weather("arguments")),
        ),
        (ToolFormat::Llama3, object("parameters"), format!("{}; ", weather("parameters"))),
        (
            ToolFormat::MistralNamed,
            "[TOOL_CALLS]sum[ARGS]{\"a\": 1, \"b\": -2}".to_owned(),
            "[TOOL_CALLS]get_weather[ARGS]{}".to_owned(),
        ),
        (ToolFormat::Mistral, format!("[TOOL_CALLS][{}]", object("arguments")), String::new()),
    ] {
        let named = ToolChoice::Named("sum".to_owned());
        assert!(accepts(format, &named, false, &one), "{one}");
        assert!(accepts(format, &ToolChoice::Required, true, &one), "{one}");
        assert!(!accepts(format, &ToolChoice::Named("get_weather".to_owned()), false, &one), "{one}");
        assert!(!accepts(format, &named, false, &format!("{one} ")), "{one}");
        assert!(!accepts(format, &named, false, &one.replace("-2", "\"x\"")), "{one}");
        assert_eq!(ToolParser::read(format, names(), &one).1.len(), 1, "{one}");
        if !two.is_empty() {
            let both = format!("{two}{one}");
            assert!(accepts(format, &ToolChoice::Required, true, &both), "{both}");
            assert!(!accepts(format, &ToolChoice::Required, false, &both), "{both}");
            assert_eq!(ToolParser::read(format, names(), &both).1.len(), 2, "{both}");
        }
    }
    let unknown = force(ToolFormat::Hermes, &tools, &ToolChoice::Named("x".to_owned()), false, &tokenizer);
    assert_eq!(unknown.unwrap_err().to_string(), r#"there is no tool "x", only ["sum", "get_weather"]"#);
}
