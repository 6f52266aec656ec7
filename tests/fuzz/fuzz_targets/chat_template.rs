//! F8: any template with any messages is an error or a rendering, whose control tokens are all the template's.
#![no_main]

use std::sync::OnceLock;

use fornax_data::Tokenizer;
use fornax_data::chat::{Conversation, Message};
use fornax_data::chat_template::{ChatTemplate, RenderOptions};
use libfuzzer_sys::fuzz_target;

// The template ends at the first byte 0; each message behind it at the next.
fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let source = parts.next().unwrap_or_default();
    let roles = ["user", "assistant"].into_iter().cycle();
    let messages: Vec<Message> = roles.zip(parts).map(|(role, content)| Message::new(role, &content)).collect();
    let conversation = Conversation { messages, tools: None };
    let tokenizer = tokenizer();
    let Ok(template) = ChatTemplate::new(&source, tokenizer) else { return };
    let Ok(rendered) = template.render(&conversation, &RenderOptions::default()) else { return };
    let encoded = template.encode(&rendered, tokenizer).unwrap();
    for (id, control) in encoded.ids.iter().zip(&encoded.control) {
        assert_eq!(tokenizer.is_special(*id), *control, "{source:?}");
    }
    assert_eq!(tokenizer.decode(&encoded.ids, false).unwrap(), rendered.text());
});

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let mut text = [Ok("the cat sat on the mat".to_owned())].into_iter();
        Tokenizer::train_bpe(&mut text, 270, &mut |_| {}).unwrap()
    })
}
