use serde_json::json;

use super::*;

fn pair(json: &serde_json::Value) -> Result<Preference, Problem> {
    Preference::of(Format::Preference, &serde_json::from_str::<Json>(&json.to_string()).unwrap())
}

/// Role and content of the prompt and of both answers.
fn shown(pair: &Preference) -> [Vec<String>; 3] {
    let side = |lesson: &Lesson| match lesson {
        Lesson::Dialogue(dialogue) => {
            let text =
                |turn: &Turn| format!("{}: {}", turn.message.role(), turn.message.text().unwrap_or_default());
            let all: Vec<String> = dialogue.turns.iter().map(text).collect();
            (all[..dialogue.n_prompt].to_vec(), all[dialogue.n_prompt..].to_vec())
        }
        Lesson::Completion { prompt, completion } => (vec![prompt.clone()], vec![completion.clone()]),
        Lesson::Text(text) => panic!("{text}"),
    };
    let ((prompt, chosen), (same, rejected)) = (side(&pair.chosen), side(&pair.rejected));
    assert_eq!(prompt, same);
    [prompt, chosen, rejected]
}

fn check(json: &serde_json::Value, expected: [&[&str]; 3]) {
    assert_eq!(
        shown(&pair(json).unwrap()),
        expected.map(|side| side.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()),
        "{json}"
    );
}

#[test]
fn every_form_of_a_pair_gives_a_prompt_and_two_answers() {
    let user = |text: &str| json!({"role": "user", "content": text});
    let said = |text: &str| json!({"role": "assistant", "content": text});
    check(&json!({"prompt": "a", "chosen": " b", "rejected": " c"}), [&["a"], &[" b"], &[" c"]]);
    // The examples of TRL's documentation of `extract_prompt`.
    check(
        &json!({"chosen": "The sky is blue.", "rejected": "The sky is green."}),
        [&["The sky is"], &[" blue."], &[" green."]],
    );
    check(
        &json!({
            "chosen": [user("What color is the sky?"), said("It is blue.")],
            "rejected": [user("What color is the sky?"), said("It is green.")],
        }),
        [&["user: What color is the sky?"], &["assistant: It is blue."], &["assistant: It is green."]],
    );
    check(
        &json!({"prompt": [user("a")], "chosen": [said("b")], "rejected": [said("c")]}),
        [&["user: a"], &["assistant: b"], &["assistant: c"]],
    );
    // A prompt beside whole conversations, as in UltraFeedback.
    check(
        &json!({"prompt": "a", "chosen": [user("a"), said("b")], "rejected": [user("a"), said("c")]}),
        [&["user: a"], &["assistant: b"], &["assistant: c"]],
    );
    // Several turns, and answers that go on.
    check(
        &json!({
            "chosen": [user("a"), said("b"), user("c"), said("d")],
            "rejected": [user("a"), said("b"), user("x"), said("e")],
        }),
        [&["user: a", "assistant: b"], &["user: c", "assistant: d"], &["user: x", "assistant: e"]],
    );
    // LLaMA-Factory's two forms.
    check(
        &json!({
            "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}],
            "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"},
        }),
        [&["system: s", "user: a"], &["assistant: b"], &["assistant: c"]],
    );
    check(
        &json!({"instruction": "a", "input": "b", "output": "", "chosen": "c", "rejected": "d"}),
        [&["user: a\nb"], &["assistant: c"], &["assistant: d"]],
    );
    // hh-rlhf.
    check(
        &json!({
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: 1+1?\n\nAssistant: 2",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: 1+1?\n\nAssistant: 3",
        }),
        [&["user: Hi", "assistant: Hello.", "user: 1+1?"], &["assistant: 2"], &["assistant: 3"]],
    );
    check(
        &json!({"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "rejected": " No."}),
        [&["user: Hi"], &["assistant: Hello."], &["assistant: No."]],
    );
}

#[test]
fn pairs_that_say_nothing_are_refused() {
    let text = "\n\nHuman: Hi\n\nAssistant: Hello.";
    assert_eq!(pair(&json!({"chosen": text, "rejected": text})).unwrap_err(), Problem::Same);
    let empty = pair(&json!({"chosen": "\n\nHuman: Hi\n\nAssistant:", "rejected": text})).unwrap_err();
    assert_eq!(empty, Problem::EmptyField { field: "chosen".to_owned() });
    assert_eq!(pair(&json!({"chosen": "a", "rejected": "a"})).unwrap_err(), Problem::Same);
}

#[test]
fn verdicts_come_from_labels_tags_and_pairs() {
    let judged = |json: serde_json::Value| {
        let row: Json = serde_json::from_str(&json.to_string()).unwrap();
        let (format, _) = Format::of(&row).unwrap();
        Judged::of(format, &row).unwrap().iter().map(|judged| judged.desirable).collect::<Vec<_>>()
    };
    assert_eq!(judged(json!({"prompt": "a", "completion": "b", "label": false})), [false]);
    let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    assert_eq!(judged(json!({"messages": turns, "label": true})), [true]);
    assert_eq!(judged(json!({"instruction": "a", "output": "b", "kto_tag": true})), [true]);
    assert_eq!(judged(json!({"prompt": "a", "chosen": "b", "rejected": "c"})), [true, false]);
}

#[test]
fn questions_are_what_stands_in_front_of_an_answer() {
    let roles = |json: serde_json::Value| {
        let row: Json = serde_json::from_str(&json.to_string()).unwrap();
        let (format, _) = Format::of(&row).unwrap();
        Question::of(format, &row).map(|question| match question {
            Question::Text(text) => vec![text],
            Question::Dialogue(asked) => asked.messages.iter().map(|m| m.role().to_owned()).collect(),
        })
    };
    let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    assert_eq!(roles(json!({"prompt": "1+1=", "answer": "2"})).unwrap(), ["1+1="]);
    assert_eq!(roles(json!({"messages": turns, "answer": "2"})).unwrap(), ["user"]);
    assert_eq!(roles(json!({"instruction": "a", "output": "b", "system": "s"})).unwrap(), ["system", "user"]);
    assert_eq!(roles(json!({"prompt": turns})).unwrap_err(), Problem::AnsweredPrompt);
}

#[test]
fn implicit_prompts_are_those_of_trl() {
    for case in crate::testing::fixture("rows/expected.json")["prompts"].as_array().unwrap() {
        let expected = |side: &str| match &case["expected"][side] {
            serde_json::Value::String(text) => vec![text.clone()],
            turns => {
                let text = |turn: &serde_json::Value| {
                    format!("{}: {}", turn["role"].as_str().unwrap(), turn["content"].as_str().unwrap())
                };
                turns.as_array().unwrap().iter().map(text).collect()
            }
        };
        let found = shown(&pair(&case["given"]).unwrap());
        assert_eq!(found, ["prompt", "chosen", "rejected"].map(expected), "{}", case["given"]);
    }
}
