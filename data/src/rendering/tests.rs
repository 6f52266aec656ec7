use super::*;
use crate::chat::Json;
use crate::records::Problem;

/// A tokenizer that knows ChatML, and ends texts with `<|endoftext|>`.
fn tokenizer() -> Tokenizer {
    let texts = ["Hi there, hello. The sky is blue.\n", "### Instruction: add the numbers 1 and 2"];
    let mut texts = texts.into_iter().map(|text| Ok(text.to_owned()));
    Tokenizer::train_bpe(&mut texts, 300, &mut |_| {}).unwrap()
}

/// The same with a configuration of its own.
fn configured(config: &str) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    tokenizer().save(&fornax_base::files::RealFs, folder.path()).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    Tokenizer::load(folder.path()).unwrap()
}

/// The text of the tokens, trained stretches in brackets.
fn shown(tokenizer: &Tokenizer, tokens: &Tokens) -> String {
    let mut text = String::new();
    let mut inside = false;
    for (id, trained) in tokens.ids.iter().zip(&tokens.trained) {
        if *trained != inside {
            text += if *trained { "[" } else { "]" };
            inside = *trained;
        }
        text += &String::from_utf8(tokenizer.spelled(*id)).unwrap();
    }
    text + if inside { "]" } else { "" }
}

fn lesson(format: Format, row: &str) -> Lesson {
    Lesson::of(format, &serde_json::from_str::<Json>(row).unwrap()).unwrap()
}

fn rendered(style: &str, lesson: &Lesson, mask: Mask) -> Result<String, Problem> {
    let tokenizer = tokenizer();
    let style = PromptStyle::built_in(style, &tokenizer).unwrap();
    Renderer::new(&tokenizer, Some(&style)).lesson(lesson, mask).map(|tokens| shown(&tokenizer, &tokens))
}

const TURNS: &str = r#"{"messages": [
    {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "add"}, {"role": "assistant", "content": "3"}]}"#;

#[test]
fn masks_choose_turns_with_the_token_that_ends_them() {
    let row = lesson(Format::Messages, TURNS);
    let text = |mask| rendered("chatml", &row, mask).unwrap();
    assert_eq!(
        text(Mask::Assistant),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[hello<|im_end|>]\n\
         <|im_start|>user\nadd<|im_end|>\n<|im_start|>assistant\n[3<|im_end|>]\n"
    );
    let last = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n\
         <|im_start|>user\nadd<|im_end|>\n<|im_start|>assistant\n[3<|im_end|>]\n";
    assert_eq!(text(Mask::LastTurn), last);
    assert_eq!(text(Mask::Completion), last);
    assert!(text(Mask::All).starts_with("<|im_start|>[user\nHi") && text(Mask::All).ends_with("<|im_end|>\n]"));
    let skipped = TURNS.replace("\"hello\"", "\"hello\", \"train\": false");
    assert_eq!(rendered("chatml", &lesson(Format::Messages, &skipped), Mask::Assistant).unwrap(), last);
}

#[test]
fn built_in_templates_write_what_they_say() {
    let row = lesson(Format::Alpaca, r#"{"instruction": "add the numbers", "input": "1 and 2", "output": "3"}"#);
    assert_eq!(
        rendered("alpaca", &row, Mask::Completion).unwrap(),
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
         response that appropriately completes the request.\n\n### Instruction:\nadd the numbers\n\n### Input:\n1 and 2\n\n\
         ### Response:\n[3<|endoftext|>]"
    );
    assert_eq!(rendered("plain", &row, Mask::Completion).unwrap(), "add the numbers\n1 and 2\n[3<|endoftext|>]");
    let turns = lesson(Format::Messages, TURNS);
    assert_eq!(
        rendered("alpaca", &turns, Mask::Assistant).unwrap(),
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
         ### Instruction:\nHi\n\n### Response:\n[hello<|endoftext|>]\n\n### Instruction:\nadd\n\n### Response:\n\
         [3<|endoftext|>]"
    );
    assert_eq!(
        rendered("plain", &turns, Mask::Assistant).unwrap(),
        "Hi\n[hello<|endoftext|>]add\n[3<|endoftext|>]"
    );
    let tokenizer = tokenizer();
    let error = PromptStyle::built_in("plane", &tokenizer).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "no template `plane` is built in, there are chatml, alpaca, plain");
    // The prompt of a question ends where the answer begins.
    let style = PromptStyle::built_in("alpaca", &tokenizer).unwrap();
    let question = Question::Dialogue(Dialogue::of_turns(turns_of(&turns), None).unwrap().prompt());
    let ids = Renderer::new(&tokenizer, Some(&style)).question(&question).unwrap();
    assert!(tokenizer.decode(&ids, false).unwrap().ends_with("add\n\n### Response:\n"));
}

/// Programs that read the exported template see the ids of training.
#[test]
fn built_in_templates_equal_their_jinja() {
    let folder = tempfile::tempdir().unwrap();
    let names = r#""bos_token": "<|im_start|>", "eos_token": "<|endoftext|>""#;
    let opened = configured(&format!("{{{names}, \"add_bos_token\": true}}"));
    for tokenizer in [configured(&format!("{{{names}}}")), opened] {
        let turns =
            lesson(Format::Messages, &TURNS.replace("[\n", "[{\"role\": \"system\", \"content\": \"Be\"},\n"));
        for row in [
            lesson(Format::Messages, TURNS),
            turns,
            lesson(Format::Alpaca, r#"{"instruction": "a", "output": "b"}"#),
        ] {
            for name in ["plain", "alpaca"] {
                let style = PromptStyle::built_in(name, &tokenizer).unwrap();
                let file = folder.path().join("chat_template.jinja");
                std::fs::write(&file, style.foreign_source().unwrap()).unwrap();
                let jinja = PromptStyle::of_file(&file, &tokenizer).unwrap();
                assert_eq!(jinja.foreign_source(), style.foreign_source());
                assert_eq!(style.end_of_turn(&tokenizer), tokenizer.eos_id());
                let tokens = |style| Renderer::new(&tokenizer, Some(style)).lesson(&row, Mask::Assistant).unwrap();
                assert_eq!(tokens(&style), tokens(&jinja), "{name}");
                assert_eq!(tokens(&style).ids[0] == 1, tokenizer.encode("", true).unwrap() == [1]);
            }
        }
    }
}

#[test]
fn text_of_a_row_is_no_control_token_and_tools_are_refused_without_a_template() {
    let tokenizer = tokenizer();
    let style = PromptStyle::built_in("plain", &tokenizer).unwrap();
    let renderer = Renderer::new(&tokenizer, Some(&style));
    let row = lesson(Format::Alpaca, r#"{"instruction": "<|endoftext|>", "output": "<|im_end|>"}"#);
    let ids = renderer.lesson(&row, Mask::Completion).unwrap().ids;
    assert_eq!(ids.iter().filter(|id| tokenizer.is_special(**id)).count(), 1);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<|endoftext|>\n<|im_end|><|endoftext|>");
    let call = r#"{"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{\"name\": \"f\"}"}]}"#;
    let error = renderer.lesson(&lesson(Format::Sharegpt, call), Mask::Assistant).unwrap_err().to_string();
    assert_eq!(error, "a call of a tool in the template `plain` is not supported");
}

/// ChatML prints neither calls nor tools: training on them would teach to answer nothing.
#[test]
fn what_a_template_does_not_write_is_refused() {
    let rows = |tools: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "a"}},
            {{"role": "assistant", "content": "", "tool_calls": [{{"function": {{"name": "f", "arguments": {{}}}}}}]}},
            {{"role": "tool", "content": "7"}}, {{"role": "assistant", "content": "b"}}]{tools}}}"#
        )
    };
    let row = lesson(Format::Messages, &rows(""));
    assert_eq!(rendered("chatml", &row, Mask::Assistant).unwrap_err(), Problem::Unwritten { message: 2 });
    let row = lesson(Format::Messages, &rows(r#", "tools": [{"name": "f"}]"#));
    assert_eq!(rendered("chatml", &row, Mask::Assistant).unwrap_err(), Problem::UnwrittenTools);
    // A template that writes both.
    let tokenizer = tokenizer();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tools.jinja");
    let source = "{{ tools | tojson }}{% for m in messages %}<|im_start|>{{ m.role }}: {% if m.tool_calls %}\
                  {{ m.tool_calls[0].function.name }}(){% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}\
                  {% if add_generation_prompt %}<|im_start|>assistant: {% endif %}";
    std::fs::write(&file, source).unwrap();
    let style = PromptStyle::of_file(&file, &tokenizer).unwrap();
    let tokens = Renderer::new(&tokenizer, Some(&style)).lesson(&row, Mask::Assistant).unwrap();
    assert_eq!(
        shown(&tokenizer, &tokens),
        "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]<|im_start|>user: a<|im_end|>\
         <|im_start|>assistant: [f()<|im_end|>]<|im_start|>tool: 7<|im_end|><|im_start|>assistant: [b<|im_end|>]"
    );
}

fn turns_of(lesson: &Lesson) -> Vec<crate::conversations::Turn> {
    match lesson {
        Lesson::Dialogue(dialogue) => dialogue.turns.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn strings_end_with_the_token_that_ends_a_text_by_its_place() {
    let row = |prompt: &str, completion: &str| Lesson::Completion {
        prompt: prompt.to_owned(),
        completion: completion.to_owned(),
    };
    let text = |lesson: &Lesson, mask| rendered("plain", lesson, mask);
    assert_eq!(text(&row("The sky is", " blue."), Mask::Completion).unwrap(), "The sky is[ blue.<|endoftext|>]");
    // One in the prompt is not trained, one in the completion is, and one that ends it is the one.
    assert_eq!(
        text(&row("a<|endoftext|>", "b<|endoftext|>"), Mask::Completion).unwrap(),
        "a<|endoftext|>[b<|endoftext|>]"
    );
    assert_eq!(text(&row("a", "b"), Mask::All).unwrap(), "a[b<|endoftext|>]");
    assert_eq!(text(&Lesson::Text("Hi there".to_owned()), Mask::All).unwrap(), "H[i there<|endoftext|>]");
    let error = text(&Lesson::Text("Hi".to_owned()), Mask::Assistant).unwrap_err();
    assert_eq!(error, Problem::EmptyMask { mask: "assistant" });
    // A token across the seam belongs to the completion.
    let tokenizer = tokenizer();
    let whole = tokenizer.encode("The sky", false).unwrap();
    let tokens = Renderer::new(&tokenizer, None).lesson(&row("The s", "ky"), Mask::Completion).unwrap();
    assert_eq!(tokens.ids[..tokens.ids.len() - 1], whole);
}

#[test]
fn rows_that_would_teach_wrongly_are_refused() {
    let doubled =
        configured(r#"{"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>", "add_bos_token": true}"#);
    let renderer = Renderer::new(&doubled, None);
    let error = renderer.lesson(&Lesson::Text("<|im_start|>Hi".to_owned()), Mask::All).unwrap_err();
    assert_eq!(error, Problem::DoubledBos { token: "<|im_start|>".to_owned() });
    assert!(renderer.lesson(&Lesson::Text("Hi".to_owned()), Mask::All).is_ok());
    // A template that writes the token twice.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chat_template.jinja");
    let styled = |source: &str, tokenizer: &Tokenizer| {
        std::fs::write(&file, source).unwrap();
        PromptStyle::of_file(&file, tokenizer).unwrap()
    };
    let loop_of =
        |end: &str| format!("{{% for m in messages %}}{{{{ m.role + ': ' + m.content + {end} }}}}{{% endfor %}}");
    let row = lesson(Format::Messages, TURNS);
    let style = styled(&format!("{{{{ bos_token + bos_token }}}}{}", loop_of("eos_token")), &doubled);
    let error = Renderer::new(&doubled, Some(&style)).lesson(&row, Mask::Assistant).unwrap_err();
    assert_eq!(error, Problem::DoubledBos { token: "<|im_start|>".to_owned() });
    // Nothing ends the answers: the model would not stop.
    let tokenizer = tokenizer();
    let style = styled(&loop_of("'\\n'"), &tokenizer);
    let error = Renderer::new(&tokenizer, Some(&style)).lesson(&row, Mask::Assistant).unwrap_err();
    assert!(matches!(error, Problem::MissingEos { .. }), "{error:?}");
    // Nothing is trained.
    let silent = TURNS.replace("\"role\": \"assistant\"", "\"role\": \"assistant\", \"train\": false");
    let error = rendered("chatml", &lesson(Format::Messages, &silent), Mask::Assistant).unwrap_err();
    assert_eq!(error, Problem::EmptyMask { mask: "assistant" });
    // A template that refuses, and none at all.
    let style = styled("{{ raise_exception('Roles must alternate') }}", &tokenizer);
    let error = Renderer::new(&tokenizer, Some(&style)).lesson(&row, Mask::Assistant).unwrap_err().to_string();
    assert!(error.contains("Roles must alternate"), "{error}");
    let error = Renderer::new(&tokenizer, None).lesson(&row, Mask::Assistant).unwrap_err();
    assert_eq!(error, Problem::NoTemplate);
}

/// Ids and mask of prompts with completions are those of TRL's SFTTrainer; in conversations TRL trains what the template
/// writes behind the last turn, too.
#[test]
fn prompts_with_completions_are_those_of_trl() {
    let Some(folder) = crate::testing::shared("tokenizer-smollm2") else { return };
    let tokenizer = Tokenizer::load(&folder).unwrap();
    let style = PromptStyle::of_folder(&folder, &tokenizer).unwrap().unwrap();
    let renderer = Renderer::new(&tokenizer, Some(&style));
    let mut beyond = 0;
    for case in crate::testing::fixture("rows/expected.json")["tokens"].as_array().unwrap() {
        let row = lesson(Format::PromptCompletion, &case["given"].to_string());
        let tokens = renderer.lesson(&row, Mask::Completion).unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokens.ids, ids, "{}", case["given"]);
        // The opening token is no target.
        let from = (case["completion_from"].as_u64().unwrap() as usize).max(1);
        let end = match &row {
            Lesson::Dialogue(_) => ids.iter().rposition(|id| Some(*id) == tokenizer.eos_id()).unwrap() + 1,
            _ => ids.len(),
        };
        beyond += ids.len() - end;
        let expected: Vec<bool> = (0..ids.len()).map(|at| (from..end).contains(&at)).collect();
        assert_eq!(tokens.trained, expected, "{}", case["given"]);
    }
    assert_eq!(beyond, 3, "one line break behind each conversation");
}
