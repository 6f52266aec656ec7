//! A `tokenizer.json` written by hand, because its bytes are a fingerprint: no map, whose order could change with a
//! feature of the JSON library, takes part.

use super::settings::quoted;

/// The pieces of a `tokenizer.json` with a BPE model; everything but `added` is JSON already.
pub(super) struct Json<'a> {
    pub(super) added: &'a [AddedToken],
    pub(super) normalizer: &'a str,
    pub(super) pre_tokenizer: &'a str,
    pub(super) post_processor: &'a str,
    pub(super) decoder: &'a str,
    /// The quoted token for unknown characters, or `null`.
    pub(super) unknown: &'a str,
    /// Whether characters without a token become the tokens `<0x..>` of their bytes.
    pub(super) byte_fallback: bool,
    /// Whether a piece that is a token is taken as it is, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Quoted tokens in the order of their ids.
    pub(super) tokens: &'a [String],
    /// Quoted halves of each merge in order of rank.
    pub(super) merges: &'a [[String; 2]],
}

impl Default for Json<'_> {
    /// Without a vocabulary, and with nothing that changes text.
    fn default() -> Self {
        Json {
            added: &[],
            normalizer: "null",
            pre_tokenizer: "null",
            post_processor: "null",
            decoder: "null",
            unknown: "null",
            byte_fallback: false,
            ignore_merges: false,
            tokens: &[],
            merges: &[],
        }
    }
}

/// A token that is found in text before anything else is done with it.
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    /// Whether decoding may leave it out.
    pub(super) special: bool,
    /// Whether it takes the whitespace behind it.
    pub(super) rstrip: bool,
}

impl AddedToken {
    pub(super) fn special(id: u32, content: &str) -> AddedToken {
        AddedToken { id, content: content.to_owned(), special: true, rstrip: false }
    }

    fn render(&self) -> String {
        let AddedToken { id, content, special, rstrip } = self;
        let content = quoted(content);
        format!(
            "    {{ \"id\": {id}, \"content\": {content}, \"single_word\": false, \"lstrip\": false, \"rstrip\": {rstrip}, \"normalized\": false, \"special\": {special} }}"
        )
    }
}

impl Json<'_> {
    pub(super) fn render(&self) -> String {
        let added: Vec<String> = self.added.iter().map(AddedToken::render).collect();
        let vocab: Vec<String> =
            (0..).zip(self.tokens).map(|(id, token): (u32, _)| format!("      {token}: {id}")).collect();
        let merges: Vec<String> = self.merges.iter().map(|[a, b]| format!("      [{a}, {b}]")).collect();
        format!(
            r#"{{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [{}],
  "normalizer": {},
  "pre_tokenizer": {},
  "post_processor": {},
  "decoder": {},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": {},
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": {},
    "byte_fallback": {},
    "ignore_merges": {},
    "vocab": {{
{}
    }},
    "merges": [{}]
  }}
}}
"#,
            block(&added, "  "),
            self.normalizer,
            self.pre_tokenizer,
            self.post_processor,
            self.decoder,
            self.unknown,
            self.unknown != "null",
            self.byte_fallback,
            self.ignore_merges,
            vocab.join(",\n"),
            block(&merges, "    "),
        )
    }
}

/// Lines of a JSON array between its brackets.
fn block(lines: &[String], indent: &str) -> String {
    if lines.is_empty() { String::new() } else { format!("\n{}\n{indent}", lines.join(",\n")) }
}
