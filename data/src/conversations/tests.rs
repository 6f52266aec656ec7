use serde_json::json;

use super::*;

fn row(json: &serde_json::Value) -> Json {
    // As it is read from a file: through text, keys in their order.
    serde_json::from_str(&json.to_string()).unwrap()
}

fn parsed(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

fn dialogue(format: Format, text: &str) -> Dialogue {
    match Lesson::of(format, &parsed(text)).unwrap() {
        Lesson::Dialogue(dialogue) => dialogue,
        other => panic!("{other:?}"),
    }
}

/// Messages as JSON text, keys in their order.
fn messages(dialogue: &Dialogue) -> Vec<String> {
    let text = |turn: &Turn| serde_json::to_string(turn.message.json()).unwrap();
    dialogue.turns.iter().map(text).collect()
}

#[test]
fn sharegpt_turns_become_messages_with_tool_calls() {
    let found = dialogue(
        Format::Sharegpt,
        r#"{"conversations": [
            {"from": "human", "value": "Weather in Cairo?"},
            {"from": "function_call", "value": "{\"name\": \"weather\", \"arguments\": {\"z\": 1, \"city\": \"Cairo\"}}"},
            {"from": "observation", "value": "{\"sky\": \"clear\"}"},
            {"from": "gpt", "value": "Clear."}],
          "system": "Be brief.",
          "tools": "[{\"name\": \"weather\", \"parameters\": {}}]"}"#,
    );
    assert_eq!(
        messages(&found),
        [
            r#"{"role":"system","content":"Be brief."}"#,
            r#"{"role":"user","content":"Weather in Cairo?"}"#,
            r#"{"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"weather","arguments":{"z":1,"city":"Cairo"}}}]}"#,
            r#"{"role":"tool","content":"{\"sky\": \"clear\"}"}"#,
            r#"{"role":"assistant","content":"Clear."}"#,
        ]
    );
    assert_eq!(found.n_prompt, 2);
    let tools = serde_json::to_string(&found.tools.unwrap()).unwrap();
    assert_eq!(tools, r#"[{"type":"function","function":{"name":"weather","parameters":{}}}]"#);
}

#[test]
fn messages_keep_their_keys_and_lose_what_is_not_for_templates() {
    let found = dialogue(
        Format::Messages,
        r#"{"messages": [
            {"content": [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}], "role": "user", "name": "Zoe"},
            {"role": "assistant", "train": false, "content": null, "tool_calls": [{"id": "x", "function": {"arguments": "{\"b\": 2, \"a\": 1}", "name": "f"}}]},
            {"role": "tool", "content": "7", "tool_call_id": "x"},
            {"role": "assistant", "content": "seven", "weight": 1}]}"#,
    );
    assert_eq!(
        messages(&found),
        [
            r#"{"content":"ab","role":"user","name":"Zoe"}"#,
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"x","function":{"arguments":{"b":2,"a":1},"name":"f"}}]}"#,
            r#"{"role":"tool","content":"7","tool_call_id":"x"}"#,
            r#"{"role":"assistant","content":"seven"}"#,
        ]
    );
    let trained: Vec<Option<bool>> = found.turns.iter().map(|turn| turn.trained).collect();
    assert_eq!(trained, [None, Some(false), None, Some(true)]);
    assert_eq!((found.n_prompt, found.tools.is_none()), (1, true));
}

#[test]
fn alpaca_rows_are_joined_as_llama_factory_joins_them() {
    let found = dialogue(
        Format::Alpaca,
        r#"{"instruction": "Add.", "input": "1 and 2", "output": "3", "system": "Be exact.", "history": [["Hi", "Hello"]]}"#,
    );
    assert_eq!(
        messages(&found),
        [
            r#"{"role":"system","content":"Be exact."}"#,
            r#"{"role":"user","content":"Hi"}"#,
            r#"{"role":"assistant","content":"Hello"}"#,
            r#"{"role":"user","content":"Add.\n1 and 2"}"#,
            r#"{"role":"assistant","content":"3"}"#,
        ]
    );
    assert_eq!(found.n_prompt, 4);
    let without = dialogue(Format::Alpaca, r#"{"instruction": "Add.", "input": "", "output": "3"}"#);
    assert_eq!(messages(&without)[0], r#"{"role":"user","content":"Add."}"#);
}

#[test]
fn prompts_with_completions_are_strings_or_turns() {
    let lesson = |json: serde_json::Value| Lesson::of(Format::PromptCompletion, &row(&json)).unwrap();
    match lesson(json!({"prompt": "The sky is", "completion": " blue."})) {
        Lesson::Completion { prompt, completion } => {
            assert_eq!((prompt.as_str(), completion.as_str()), ("The sky is", " blue."));
        }
        other => panic!("{other:?}"),
    }
    let turns = json!({
        "prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}],
    });
    let half = json!({"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]});
    let system = json!({"prompt": "a", "completion": "b", "system": "s"});
    for (row, n_prompt) in [(turns, 1), (half, 1), (system, 2)] {
        match lesson(row) {
            Lesson::Dialogue(dialogue) => {
                assert_eq!((dialogue.n_prompt, dialogue.turns.len()), (n_prompt, n_prompt + 1));
                assert!(dialogue.turns[n_prompt].is_assistant());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_last_turn_begins_behind_the_last_user_message_that_is_answered() {
    let n_prompt = |roles: &[&str]| {
        let turns = roles.iter().map(|role| Turn::new(Message::new(role, "x"))).collect();
        Dialogue::of_turns(turns, None).map(|dialogue| dialogue.n_prompt)
    };
    assert_eq!(n_prompt(&["system", "user", "assistant"]), Ok(2));
    assert_eq!(n_prompt(&["user", "assistant", "user", "assistant", "tool", "assistant"]), Ok(3));
    assert_eq!(n_prompt(&["user", "assistant", "user"]), Ok(1));
    assert_eq!(n_prompt(&["system", "assistant"]), Ok(1));
    assert_eq!(n_prompt(&["user"]), Err(Problem::NoAssistant));
}
