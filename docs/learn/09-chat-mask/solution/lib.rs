//! A conversation as text, as ids, and which of the ids are trained.

/// One message.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// `system`, `user` or `assistant`.
    pub role: &'a str,
    /// What it says.
    pub content: &'a str,
}

/// What the tokenizer gives.
#[derive(Clone, Copy)]
pub struct Vocabulary<'a> {
    /// The id of the control token `<|im_start|>`.
    pub start: u32,
    /// The id of `<|im_end|>`.
    pub end: u32,
    /// The ids of ordinary text. No control token comes out of it: `<|im_end|>` in a text is ten letters like any other.
    pub encode: &'a dyn Fn(&str) -> Vec<u32>,
}

/// The conversation in ChatML. A message is `<|im_start|>`, its role, a line feed, its content, `<|im_end|>` and a line
/// feed. Where the assistant is asked for an `answer`, the head of its message follows: `<|im_start|>assistant` and a line
/// feed.
pub fn render(messages: &[Message<'_>], answer: bool) -> String {
    let mut text = String::new();
    for Message { role, content } in messages {
        text += &format!("<|im_start|>{role}\n{content}<|im_end|>\n");
    }
    if answer {
        text += "<|im_start|>assistant\n";
    }
    text
}

/// The ids of `render(messages, false)`, and for each id whether it is trained.
///
/// - A control token is one id where the *template* writes it, never where somebody's content spells it.
/// - What stands between two control tokens (`assistant`, the line feed and the content; or the line feed behind the
///   end) is encoded at once. A cut in the middle of it could cut a token. What the assistant says begins with a letter
///   here, and then the head's ids are those of the head alone.
/// - Trained is what the assistant has to write itself: its content and the `<|im_end|>` behind it.
pub fn encode(messages: &[Message<'_>], vocabulary: Vocabulary<'_>) -> (Vec<u32>, Vec<bool>) {
    let Vocabulary { start, end, encode } = vocabulary;
    let (mut ids, mut trained) = (Vec::new(), Vec::new());
    for Message { role, content } in messages {
        let head = encode(&format!("{role}\n")).len();
        let text = encode(&format!("{role}\n{content}"));
        let message = [&[start], &text[..], &[end]].concat();
        let own = *role == "assistant";
        trained.extend((0..message.len()).map(|i| own && i > head));
        ids.extend(message);

        let behind = encode("\n");
        trained.extend(behind.iter().map(|_| false));
        ids.extend(behind);
    }
    (ids, trained)
}
