//! F14: a stream is stopped where a search in the whole text stops it.
#![no_main]

use fornax_infer::stop::StopStrings;
use libfuzzer_sys::fuzz_target;

// A line for each stop string, then an empty one, then the text; one byte for the pieces, one for what is included.
fuzz_target!(|bytes: &[u8]| {
    let [step, include, rest @ ..] = bytes else { return };
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let (stops, text) = rest.split_once("\n\n").unwrap_or(("", rest));
    let stops: Vec<&str> = stops.lines().filter(|stop| !stop.is_empty()).collect();
    let include = include % 2 == 1;
    let Ok(mut stream) = StopStrings::new(&stops, include) else { return };
    let characters: Vec<char> = text.chars().collect();
    let mut found = String::new();
    for piece in characters.chunks(usize::from(*step) % 7 + 1) {
        found += &stream.push(&piece.iter().collect::<String>()).emit;
    }
    found += &stream.finish();
    assert_eq!((found.as_str(), stream.stopped().map(|i| stops[i])), search(text, &stops, include));
});

fn search<'a>(text: &'a str, stops: &[&'a str], include: bool) -> (&'a str, Option<&'a str>) {
    for end in text.char_indices().map(|(place, c)| place + c.len_utf8()) {
        let complete = stops.iter().filter(|stop| text[..end].ends_with(**stop));
        if let Some(longest) = complete.max_by_key(|stop| stop.len()) {
            let keep = if include { end } else { end - longest.len() };
            return (&text[..keep], Some(*longest));
        }
    }
    (text, None)
}
