//! Where the assistant speaks in templates that say nothing about it, by hand.

use super::goldens::shared;
use super::origins::tokens_of;
use super::*;

fn said(turns: &[(&str, &str)]) -> Conversation {
    let messages = turns.iter().map(|(role, content)| Message::new(role, content)).collect();
    Conversation { messages, tools: None }
}

#[test]
fn turns_of_real_templates() {
    let Some(folder) = shared("chat-templates/templates") else {
        return;
    };
    let plain = said(&[("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"), ("assistant", "See you.")]);
    let thought = said(&[
        ("user", "2 + 2?"),
        ("assistant", "<think>\nTwo and two.\n</think>\n\n4"),
        ("user", "3 + 3?"),
        ("assistant", "<think>\nThree and three.\n</think>\n\n6"),
    ]);
    for (name, conversation, expected) in [
        ("Qwen-Qwen2.5-7B-Instruct", &plain, ["Hello.<|im_end|>", "See you.<|im_end|>"]),
        ("meta-llama-Llama-3.1-8B-Instruct", &plain, ["Hello.<|eot_id|>", "See you.<|eot_id|>"]),
        ("mistralai-Mistral-Nemo-Instruct-2407", &plain, ["Hello.</s>", "See you.</s>"]),
        ("google-gemma-2-2b-it", &plain, ["Hello.<end_of_turn>", "See you.<end_of_turn>"]),
        (
            "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
            &plain,
            ["Hello.<｜end▁of▁sentence｜>", "See you.<｜end▁of▁sentence｜>"],
        ),
        (
            "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
            &thought,
            ["\n\n4<｜end▁of▁sentence｜>", "\n\n6<｜end▁of▁sentence｜>"],
        ),
        // Earlier thoughts are left out; the last is part of the answer.
        ("Qwen-Qwen3-0.6B", &thought, ["4<|im_end|>", "<think>\nThree and three.\n</think>\n\n6<|im_end|>"]),
        ("Qwen-Qwen3-0.6B", &plain, ["Hello.<|im_end|>", "<think>\n\n</think>\n\nSee you.<|im_end|>"]),
        // What the template itself thinks belongs to the header that asks for an answer.
        ("deepseek-ai-DeepSeek-V3.1", &plain, ["Hello.<｜end▁of▁sentence｜>", "See you.<｜end▁of▁sentence｜>"]),
        ("microsoft-Phi-3.5-mini-instruct", &plain, ["Hello.<|end|>", "See you.<|end|>"]),
        (
            "openai-gpt-oss-120b",
            &plain,
            ["<|channel|>final<|message|>Hello.<|end|>", "<|channel|>final<|message|>See you.<|return|>"],
        ),
    ] {
        let source = fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        let mut tokens = tokens_of(&source);
        tokens.retain(|token| token != "<think>" && token != "</think>");
        tokens.extend(["</s>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "<end_of_turn>"].map(str::to_owned));
        let tokenizer = with_tokens(&tokens.iter().map(String::as_str).collect::<Vec<_>>());
        let eos = if name.starts_with("deepseek") { "<｜end▁of▁sentence｜>" } else { "</s>" };
        let template = ChatTemplate::new(&source, &tokenizer).unwrap();
        let template = template.with_special_token("bos_token", "<s>").with_special_token("eos_token", eos);
        let options = RenderOptions { now: Some(Moment::from_unix(0)), ..RenderOptions::default() };
        let rendered = template.render(conversation, &options).unwrap();
        let spans: Vec<&str> =
            rendered.assistant_spans().iter().map(|span| &rendered.text()[span.range.clone()]).collect();
        assert_eq!(spans, expected, "{name}: {:?}", rendered.text());
        let encoded = template.encode(&rendered, &tokenizer).unwrap();
        assert!(encoded.without_end().is_empty(), "{name}");
        for (message, span) in [1, 3].iter().zip(spans) {
            let ids: Vec<u32> = encoded
                .ids
                .iter()
                .zip(&encoded.message_of_token)
                .filter(|(_, of)| **of == Some(*message))
                .map(|(id, _)| *id)
                .collect();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), span, "{name}");
        }
    }
}

#[test]
fn what_training_has_to_refuse_is_seen() {
    let tokenizer = with_tokens(&["<s>", "</s>"]);
    let source = "<s>{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    let template = ChatTemplate::new(source, &tokenizer).unwrap();
    let rendered =
        template.render(&said(&[("user", "Hi"), ("assistant", "Hello.")]), &RenderOptions::default()).unwrap();
    let encoded = template.encode(&rendered, &tokenizer).unwrap();
    assert_eq!(encoded.without_end(), [1]);
    assert!(!encoded.doubles_bos(&tokenizer));
    let doubled = ChatTemplate::new(&source.replace("<s>", "<s><s>"), &tokenizer).unwrap();
    let rendered =
        doubled.render(&said(&[("user", "Hi"), ("assistant", "Hello.")]), &RenderOptions::default()).unwrap();
    assert!(doubled.encode(&rendered, &tokenizer).unwrap().doubles_bos(&tokenizer));
    // A template that leaves the answer out.
    let silent =
        ChatTemplate::new("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", &tokenizer)
            .unwrap();
    let rendered =
        silent.render(&said(&[("user", "Hi"), ("assistant", "Hello.")]), &RenderOptions::default()).unwrap();
    assert_eq!((rendered.assistant_spans(), rendered.unplaced()), (&[][..], &[1][..]));
    // The assistant speaks before anyone asks.
    let rendered =
        template.render(&said(&[("assistant", "Hello."), ("user", "Hi")]), &RenderOptions::default()).unwrap();
    let spans: Vec<&str> =
        rendered.assistant_spans().iter().map(|span| &rendered.text()[span.range.clone()]).collect();
    assert_eq!(spans, ["Hello."]);
}
