//! Renderings recorded from transformers.

use std::fs;

use super::*;

/// A path under the shared data, or `None` where it is not kept and need not be.
pub(super) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("FORNAX_REQUIRE_DATA").as_deref(), Ok("1"), "shared data `{name}` is absent");
    println!("shared data `{name}` is absent: passed over");
    None
}

/// A context of the goldens as a conversation, and the rest of it as options.
pub(super) fn context(path: &Path) -> (Conversation, RenderOptions) {
    let context: Json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let messages = context.get_attr("messages").unwrap();
    let messages = messages.try_iter().unwrap().map(|message| Message::from_json(message).unwrap()).collect();
    let tools = Some(context.get_attr("tools").unwrap()).filter(|tools| !tools.is_undefined());
    let mut options = RenderOptions {
        now: Some(Moment { year: 2024, month: 7, day: 26, hour: 12, minute: 0, second: 0 }),
        ..RenderOptions::default()
    };
    for key in context.try_iter().unwrap() {
        let value = context.get_item(&key).unwrap();
        match key.as_str().unwrap() {
            "messages" | "tools" => {}
            "add_generation_prompt" => options.add_generation_prompt = value.is_true(),
            name => options.variables.push((name.to_owned(), value)),
        }
    }
    (Conversation { messages, tools }, options)
}

#[test]
fn renderings_equal_those_of_transformers() {
    let Some(folder) = shared("chat-templates") else {
        return;
    };
    let tokenizer = Tokenizer::train_bpe(&mut [Ok("a b c".to_owned())].into_iter(), 260, &mut |_| {}).unwrap();
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("goldens-transformers/index.json")).unwrap()).unwrap();
    let (mut equal, mut refused, mut wrong) = (0, 0, Vec::new());
    for (name, cases) in index["results"].as_object().unwrap() {
        let source = fs::read_to_string(folder.join(format!("templates/{name}.jinja"))).unwrap();
        let template = ChatTemplate::new(&source, &tokenizer);
        for (case, expected) in cases.as_object().unwrap() {
            let (conversation, options) = context(&folder.join(format!("contexts/{case}.json")));
            let found = match &template {
                Ok(template) => template.render(&conversation, &options),
                Err(error) => Err(TemplateError::Refused(error.to_string())),
            };
            match (expected["ok"].as_bool().unwrap(), found) {
                (true, Ok(rendered)) => {
                    let path = folder.join(format!("goldens-transformers/{name}.{case}.txt"));
                    let golden = fs::read_to_string(path).unwrap();
                    if rendered.text() == golden {
                        equal += 1;
                        if !rendered.is_complete() {
                            wrong.push(format!("{name}.{case}: origins are not complete"));
                        }
                    } else {
                        let at = golden.bytes().zip(rendered.text().bytes()).take_while(|(a, b)| a == b).count();
                        let show = |text: &str| {
                            String::from_utf8_lossy(
                                &text.as_bytes()[at.saturating_sub(40).min(text.len())..(at + 60).min(text.len())],
                            )
                            .into_owned()
                        };
                        wrong.push(format!(
                            "{name}.{case}: at byte {at}\n  {:?}\n  {:?}",
                            show(&golden),
                            show(rendered.text())
                        ));
                    }
                }
                (false, Err(_)) => refused += 1,
                (true, Err(error)) => wrong.push(format!("{name}.{case}: {error}")),
                (false, Ok(_)) => wrong.push(format!("{name}.{case} must raise {}", expected["error"])),
            }
        }
    }
    assert!(wrong.is_empty(), "{equal} equal, {refused} refused, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((equal, refused), (150, 21));
}
