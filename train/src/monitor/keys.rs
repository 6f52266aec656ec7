//! Keys out of the bytes that a terminal in raw mode sends

/// A key that means something to the monitor, or may in an input line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Return.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Tab.
    Tab,
    /// Shift and Tab.
    BackTab,
    /// Ctrl-C.
    Interrupt,
    /// The arrow to the left.
    Left,
    /// The arrow to the right.
    Right,
    /// The arrow up.
    Up,
    /// The arrow down.
    Down,
    /// Home.
    Home,
    /// End.
    End,
}

/// The keys in what one read from the terminal gave. An escape sequence that is not known gives none; a lone escape
/// byte at the end is the key itself.
pub fn keys(mut bytes: &[u8]) -> Vec<Key> {
    let mut found = Vec::new();
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        match byte {
            0x1b => {
                let (key, rest) = sequence(rest);
                found.extend(key);
                bytes = rest;
            }
            b'\r' | b'\n' => found.push(Key::Enter),
            b'\t' => found.push(Key::Tab),
            0x03 => found.push(Key::Interrupt),
            0x08 | 0x7f => found.push(Key::Backspace),
            0x00..0x20 => {}
            _ => {
                // UTF-8 tells the length of a character by the leading ones of its opening byte.
                let more = (byte.leading_ones() as usize).saturating_sub(1).min(rest.len());
                let (tail, after) = rest.split_at(more);
                let character = [&[byte], tail].concat();
                if let Ok(text) = std::str::from_utf8(&character) {
                    found.extend(text.chars().map(Key::Char));
                    bytes = after;
                }
            }
        }
    }
    found
}

/// The key of an escape sequence behind its escape byte, and what follows it.
fn sequence(bytes: &[u8]) -> (Option<Key>, &[u8]) {
    let Some((&(b'[' | b'O'), rest)) = bytes.split_first() else {
        return (Some(Key::Escape), bytes);
    };
    let parameters = rest.iter().take_while(|byte| (0x20..0x40).contains(*byte)).count();
    let (parameters, rest) = rest.split_at(parameters);
    let Some((last, rest)) = rest.split_first() else { return (None, rest) };
    let key = match (last, parameters) {
        (b'A', _) => Some(Key::Up),
        (b'B', _) => Some(Key::Down),
        (b'C', _) => Some(Key::Right),
        (b'D', _) => Some(Key::Left),
        (b'H', _) | (b'~', b"1" | b"7") => Some(Key::Home),
        (b'F', _) | (b'~', b"4" | b"8") => Some(Key::End),
        (b'Z', _) => Some(Key::BackTab),
        _ => None,
    };
    (key, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_terminals_send() {
        use Key::{Char, Down, End, Enter, Escape, Home, Interrupt, Left, Up};
        assert_eq!(keys(b"q\x1b[A\x1bOD\x1b[1;5B\x03\r"), [Char('q'), Up, Left, Down, Interrupt, Enter],);
        assert_eq!(keys(b"\x1b"), [Escape]);
        assert_eq!(keys(b"\x1bq"), [Escape, Char('q')]);
        assert_eq!(keys(b"\x1b[H\x1b[4~\x1b[Z\x1b[5~x"), [Home, End, Key::BackTab, Char('x')]);
        assert_eq!(keys("é".as_bytes()), [Char('é')]);
        assert_eq!(keys(b"\xff\xc3q"), [Char('q')], "what is no text is left out");
        assert_eq!(keys(b"\x1b["), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_bytes_give_keys(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(keys(&bytes).len() <= bytes.len());
        }
    }
}
