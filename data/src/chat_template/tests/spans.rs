//! Where the assistant speaks, beside the `{% generation %}` blocks of TRL's training templates.

use super::*;

#[test]
fn spans_equal_the_blocks_of_training_templates() {
    let recorded = fixture("spans.json");
    let (mut compared, mut wrong) = (0, Vec::new());
    for (name, recorded) in recorded["templates"].as_object().unwrap() {
        let tokens = recorded["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap());
        let tokenizer = with_tokens(&tokens.collect::<Vec<_>>());
        let template = ChatTemplate::new(recorded["source"].as_str().unwrap(), &tokenizer).unwrap();
        let template = template.with_special_token("bos_token", "<s>").with_special_token("eos_token", "</s>");
        for (label, case) in recorded["cases"].as_object().unwrap() {
            compared += 1;
            // This template writes no header before a call that is not the conversation's first.
            let known: &[usize] =
                if (name.as_str(), label.as_str()) == ("deepseekv3", "tools") { &[5] } else { &[] };
            if let Err(difference) = compare(&template, case, known) {
                wrong.push(format!("{name}: {label}: {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(compared, 144);
}

/// Compares spans with recorded blocks; `unplaced` messages have none.
fn compare(template: &ChatTemplate, case: &serde_json::Value, unplaced: &[usize]) -> Result<(), String> {
    let now = Some(Moment::from_unix(0));
    let conversation = conversation(case);
    let rendered = template
        .render(&conversation, &RenderOptions { now, ..options(case) })
        .map_err(|error| error.to_string())?;
    let text = rendered.text();
    assert_eq!(text, case["text"].as_str().unwrap());
    let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let block = |block: &serde_json::Value| {
        let offset = |at: usize| offsets[block[at].as_u64().unwrap() as usize];
        text[offset(0)..offset(1)].trim_end()
    };
    // Some blocks include the line break behind the end of the turn; Phi's have one for the end of all messages.
    let mut blocks: Vec<&str> = case["generation"].as_array().unwrap().iter().map(block).collect();
    blocks.retain(|block| *block != "</s>");
    blocks.truncate(blocks.len() - unplaced.len());
    // A block may begin within the header that asks for the answer.
    let equal = |(span, block): (&AssistantSpan, &&str)| {
        let messages = conversation.messages[..span.message].to_vec();
        let asked = Conversation { messages, tools: conversation.tools.clone() };
        let ask = RenderOptions { add_generation_prompt: true, now, ..RenderOptions::default() };
        let prompt =
            template.render_prompt(&asked, &ask).map(|prompt| prompt.text().to_owned()).unwrap_or_default();
        let header = &prompt[prompt.floor_char_boundary(prompt.len().saturating_sub(60))..];
        block.strip_suffix(text[span.range.clone()].trim_end()).is_some_and(|opened| header.contains(opened))
    };
    let spans = rendered.assistant_spans();
    let same = spans.len() == blocks.len() && spans.iter().zip(&blocks).all(equal);
    if same && rendered.unplaced() == unplaced {
        return Ok(());
    }
    let spans: Vec<&str> = spans.iter().map(|span| &text[span.range.clone()]).collect();
    Err(format!("not placed: {:?}\n  {blocks:?}\n  {spans:?}", rendered.unplaced()))
}
