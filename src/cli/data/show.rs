//! Tokens as people read them: whitespace visible, boundaries coloured or in brackets.

use std::io::IsTerminal;

/// Backgrounds that alternate from token to token; both carry white text well.
const BACKGROUNDS: [&str; 2] = ["48;5;24", "48;5;54"];

/// Bytes of a token with visible whitespace; bytes that are no text, and characters that steer a terminal, as `<0x1B>`.
pub(crate) fn visible(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                ' ' => shown.push('·'),
                '\n' => shown.push('⏎'),
                '\t' => shown.push('→'),
                c if c.is_control() => shown += &hex(c.to_string().as_bytes()),
                c => shown.push(c),
            }
        }
        shown += &hex(chunk.invalid());
    }
    shown
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("<0x{byte:02X}>")).collect()
}

/// How tokens are set apart on this stdout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    colours: bool,
}

impl Style {
    /// Colours on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn of_stdout() -> Style {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Style { colours: std::io::stdout().is_terminal() && !refused }
    }

    /// The `n`-th token. One that is not trained is dim, or in round brackets. A line break within ends the line.
    pub(crate) fn token(self, n: usize, bytes: &[u8], id: Option<u32>, trained: bool) -> String {
        let mut text = visible(bytes);
        text += &id.map(|id| format!(":{id}")).unwrap_or_default();
        let end = if bytes.contains(&b'\n') { "\n" } else { "" };
        match (self.colours, trained) {
            (true, true) => format!("\x1b[97;{}m{text}\x1b[0m{end}", BACKGROUNDS[n % 2]),
            (true, false) => format!("\x1b[2;4m{text}\x1b[0m{end}"),
            (false, true) => format!("[{text}]{end}"),
            (false, false) => format!("({text}){end}"),
        }
    }

    /// The `n`-th token of a row of post-training data: green where it is trained, else dim; neighbours in two greens.
    /// Without colours as [`Style::token`].
    pub(crate) fn row_token(self, n: usize, bytes: &[u8], id: Option<u32>, trained: bool) -> String {
        if !self.colours {
            return self.token(n, bytes, id, trained);
        }
        let text = visible(bytes) + &id.map(|id| format!(":{id}")).unwrap_or_default();
        let end = if bytes.contains(&b'\n') { "\n" } else { "" };
        let code = if trained { ["32", "92"][n % 2] } else { "2" };
        format!("\x1b[{code}m{text}\x1b[0m{end}")
    }

    /// Tokens end to end, all trained.
    pub(crate) fn tokens<'a>(self, tokens: impl Iterator<Item = (&'a [u8], Option<u32>)>) -> String {
        tokens.enumerate().map(|(n, (bytes, id))| self.token(n, bytes, id, true)).collect()
    }

    /// A line between parts.
    pub(crate) fn heading(self, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[1m-- {text} --\x1b[0m\n"),
            false => format!("-- {text} --\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        assert_eq!(visible("a b\n\té".as_bytes()), "a·b⏎→é");
        assert_eq!(visible(b"\xF0\x9F\x1b[2Jx"), "<0xF0><0x9F><0x1B>[2Jx");
        assert_eq!(visible("\u{9b}".as_bytes()), "<0xC2><0x9B>");
    }

    #[test]
    fn boundaries_are_brackets_without_colours_and_backgrounds_with_them() {
        let plain = Style { colours: false };
        let words: [(&[u8], Option<u32>); 2] = [(b"a", None), (b" b\n", Some(7))];
        assert_eq!(plain.tokens(words.into_iter()), "[a][·b⏎:7]\n");
        assert_eq!(plain.token(0, b"a", None, false), "(a)");
        let coloured = Style { colours: true };
        let text = coloured.tokens([(&b"a"[..], None), (b"b", None)].into_iter());
        assert_eq!(text, "\x1b[97;48;5;24ma\x1b[0m\x1b[97;48;5;54mb\x1b[0m");
        assert_eq!(coloured.row_token(0, b"a", None, true), "\x1b[32ma\x1b[0m");
        assert_eq!(coloured.row_token(1, b"a", None, true), "\x1b[92ma\x1b[0m");
        assert_eq!(coloured.row_token(1, b"a", Some(5), false), "\x1b[2ma:5\x1b[0m");
        assert_eq!(plain.row_token(1, b"a", None, false), "(a)");
    }
}
