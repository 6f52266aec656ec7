//! Where the assistant speaks, beside the `{% generation %}` blocks of TRL's training templates.

use super::*;

#[test]
fn spans_equal_the_blocks_of_training_templates() {
    let recorded = fixture("spans.json");
    let now = Some(Moment::from_unix(0));
    let (mut compared, mut wrong) = (0, Vec::new());
    for (name, template) in recorded["templates"].as_object().unwrap() {
        let tokens: Vec<&str> =
            template["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
        let tokenizer = with_tokens(&tokens);
        let source = template["source"].as_str().unwrap();
        let template = ChatTemplate::new(source, &tokenizer).unwrap();
        let template = template.with_special_token("bos_token", "<s>").with_special_token("eos_token", "</s>");
        for (label, case) in template_cases(&recorded, name) {
            let rendered = match template.render(&conversation(case), &RenderOptions { now, ..options(case) }) {
                Ok(rendered) => rendered,
                Err(error) => {
                    wrong.push(format!("{name}: {label}: {error}"));
                    continue;
                }
            };
            let text = rendered.text();
            assert_eq!(text, case["text"].as_str().unwrap(), "{name}: {label}");
            let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let blocks = case["generation"].as_array().unwrap().iter().map(|block| {
                let offset = |at: usize| offsets[block[at].as_u64().unwrap() as usize];
                offset(0)..offset(1)
            });
            // Some blocks include the line break behind the end of the turn, which is not the model's to write.
            let blocks: Vec<&str> = blocks.map(|block| text[block].trim_end()).collect();
            let spans: Vec<&str> =
                rendered.assistant_spans().iter().map(|span| text[span.range.clone()].trim_end()).collect();
            compared += 1;
            let question = Conversation { messages: vec![Message::new("user", "?")], tools: None };
            let ask = RenderOptions { add_generation_prompt: true, now, ..RenderOptions::default() };
            let prompt = template.render_prompt(&question, &ask).map(|prompt| prompt.text().to_owned());
            // Where the header that asks for an answer opens a thought, the block begins before its end.
            let equal = |(span, block): (&&str, &&str)| {
                block.strip_suffix(*span).is_some_and(|opened| prompt.as_ref().is_ok_and(|p| p.ends_with(opened)))
            };
            if spans.len() != blocks.len() || !spans.iter().zip(&blocks).all(equal) {
                wrong.push(format!(
                    "{name}: {label}, not placed: {:?}\n  {blocks:?}\n  {spans:?}",
                    rendered.unplaced()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
}

fn template_cases<'a>(
    recorded: &'a serde_json::Value,
    name: &str,
) -> impl Iterator<Item = (&'a String, &'a serde_json::Value)> {
    recorded["templates"][name]["cases"].as_object().unwrap().iter()
}
