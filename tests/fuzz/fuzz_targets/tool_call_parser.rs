//! F15: however a text is cut, the same calls and the same text come out of it.
#![no_main]

use fornax_infer::tools::{ToolEvent, ToolFormat, ToolParser};
use libfuzzer_sys::fuzz_target;

// The opening byte chooses the form, the next where the text is cut.
fuzz_target!(|bytes: &[u8]| {
    let [form, cut, rest @ ..] = bytes else { return };
    let text = String::from_utf8_lossy(rest);
    let forms = [ToolFormat::Hermes, ToolFormat::Llama3, ToolFormat::Mistral, ToolFormat::MistralNamed];
    let format = forms[usize::from(*form) % forms.len()];
    let whole = events(format, [&*text].into_iter());
    let every = usize::from(*cut) % 7 + 1;
    let characters: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = characters.chunks(every).map(|piece| piece.iter().collect()).collect();
    assert_eq!(events(format, pieces.iter().map(String::as_str)), whole, "{text:?}");
});

fn events<'a>(format: ToolFormat, pieces: impl Iterator<Item = &'a str>) -> Vec<ToolEvent> {
    let mut parser = ToolParser::new(format, vec!["sum".to_owned(), "f".to_owned()]);
    let mut all = Vec::new();
    for piece in pieces {
        all.extend(parser.push(piece));
    }
    all.extend(parser.finish());
    let mut merged: Vec<ToolEvent> = Vec::new();
    for event in all {
        match (merged.last_mut(), &event) {
            (Some(ToolEvent::Text(before)), ToolEvent::Text(more)) => before.push_str(more),
            (Some(ToolEvent::Arguments { fragment: before, .. }), ToolEvent::Arguments { fragment, .. }) => {
                before.push_str(fragment);
            }
            _ => merged.push(event),
        }
    }
    merged
}
