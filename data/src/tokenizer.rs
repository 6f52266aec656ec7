//! Text to token ids and back: any `tokenizer.json`, and the two kinds of tokenizer Fornax makes itself.
//!
//! The `tokenizers` library does the coding; this module adds what it leaves to its callers: the names of the special
//! tokens, limits on what is loaded, how many bytes of text each id stands for, and errors instead of silence. Truncation
//! and padding stored in a `tokenizer.json` are not applied, as transformers does not apply them unless asked.

mod characters;
mod chat;
pub mod compare;
mod gguf;
mod guard;
mod json;
mod merges;
mod settings;
mod spelling;
mod train;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fornax_base::files::{FileSystem, create_folder, read_limited, sha256_hex, write_atomic_bytes};

use self::characters::CharacterTable;
pub(crate) use self::chat::ControlTokens;
pub use self::guard::catches_panics;
pub(crate) use self::guard::guarded;
use self::settings::{SideFiles, SpecialIds};
use self::spelling::Spelling;
pub(crate) use self::train::CHAT_TEMPLATE;
pub use self::train::TrainProgress;
use crate::digest;
use crate::error::DataError;

/// Name of the file that holds a tokenizer in a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// A `tokenizer.json` longer than this is refused: twice the largest known, Gemma 3's.
pub const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// More tokens than this are refused; the largest known vocabulary has 262,144.
const MAX_TOKENS: usize = 1 << 19;
/// More merges than this are refused; the vocabulary of 262,144 tokens has 514,906.
const MAX_MERGES: usize = 1 << 19;
/// What separates documents in text files, and the end-of-document token of tokenizers trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer that is ready to use. Immutable, and safe to share between threads.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// `tokenizer.json`, byte for byte as loaded or made.
    json: Vec<u8>,
    side_files: SideFiles,
    special: SpecialIds,
    spelling: Spelling,
    /// Tokens that are found in text before all else: what is written, and whether decoding may leave it out.
    added: HashMap<u32, (String, bool)>,
    /// The same tokens as conversations look for them.
    controls: Arc<ControlTokens>,
    /// For each id, the bytes it adds to text.
    byte_lengths: Vec<u32>,
    /// For a vocabulary of bare characters, which the library would drop silently when unknown.
    characters: Option<CharacterTable>,
}

impl Tokenizer {
    /// Loads a `tokenizer.json`, or the one in a model folder, with `tokenizer_config.json` and
    /// `special_tokens_map.json` beside it where they exist. Without them the end-of-text token is looked for among
    /// the special tokens by its usual names. A `.gguf` file gives its vocabulary, which is kept as `tokenizer.json`.
    ///
    /// # Errors
    /// When a file cannot be read, is beyond 64 MiB, or is not a tokenizer this build can use exactly.
    pub fn load(path: &Path) -> Result<Tokenizer, DataError> {
        let file = if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_owned() };
        if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            return gguf::load(&file);
        }
        let json = read_limited(&file, MAX_TOKENIZER_BYTES)?;
        let side_files = SideFiles::load(file.parent().unwrap_or(Path::new("")))?;
        Tokenizer::from_parts(json, side_files, &file)
    }

    /// A tokenizer from the bytes of a `tokenizer.json` alone.
    ///
    /// # Errors
    /// When the bytes are not a tokenizer this build can use exactly.
    pub fn from_json(json: Vec<u8>) -> Result<Tokenizer, DataError> {
        Tokenizer::from_parts(json, SideFiles::default(), Path::new(TOKENIZER_FILE))
    }

    /// The single way a [`Tokenizer`] comes to be, so that a trained one equals itself loaded again.
    fn from_parts(json: Vec<u8>, side_files: SideFiles, path: &Path) -> Result<Tokenizer, DataError> {
        let unusable = |reason: String| DataError::Tokenizer { path: path.to_owned(), reason };
        guarded(|| Tokenizer::build(json, side_files)).and_then(|built| built).map_err(unusable)
    }

    fn build(json: Vec<u8>, side_files: SideFiles) -> Result<Tokenizer, String> {
        let shape = settings::Shape::read(&json)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(|error| error.to_string())?;
        // Stored by training scripts that tokenized fixed-length rows; they would cut text silently.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        let vocab = inner.get_vocab(true);
        let spelling = Spelling::of(&inner)?;
        let added = inner.get_added_tokens_decoder();
        let added = added.into_iter().map(|(id, token)| (id, (token.content, token.special))).collect();
        let byte_lengths = spelling.lengths(&added, &vocab)?;
        let characters = shape.is_characters().then(|| CharacterTable::new(&vocab)).flatten();
        let special = SpecialIds::new(&inner, &side_files);
        let controls = ControlTokens::of(&inner)?;
        Ok(Tokenizer { inner, json, side_files, special, spelling, added, controls, byte_lengths, characters })
    }

    /// Token ids of `text`. With `add_special`, what the tokenizer puts around a text (such as a beginning-of-text
    /// token) is added: `add_bos_token` and `add_eos_token` of `tokenizer_config.json` decide where they are stated,
    /// the post-processor of `tokenizer.json` elsewhere. Special tokens spelled out in `text` become their ids.
    ///
    /// # Errors
    /// [`DataError::UnknownCharacter`] for a character vocabulary; otherwise what the library reports.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, DataError> {
        let mut ids = match &self.characters {
            Some(table) => table.encode(text)?,
            None => {
                let encoded = guarded(|| self.inner.encode_fast(text, add_special));
                let encoding = encoded.and_then(|encoding| encoding.map_err(|error| error.to_string()));
                let encoding = encoding.map_err(|reason| DataError::Coding { action: "encode", reason })?;
                encoding.get_ids().to_vec()
            }
        };
        if add_special {
            self.special.correct(&mut ids);
        }
        Ok(ids)
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD, ids outside the vocabulary add nothing. With
    /// `skip_special`, special tokens add nothing either.
    ///
    /// # Errors
    /// What the library reports.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, DataError> {
        let decoded = guarded(|| self.inner.decode(ids, skip_special));
        let text = decoded.and_then(|text| text.map_err(|error| error.to_string()));
        text.map_err(|reason| DataError::Coding { action: "decode", reason })
    }

    /// Highest id + 1: the rows an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.byte_lengths.len()
    }

    /// Id of the token that opens a text.
    pub fn bos_id(&self) -> Option<u32> {
        self.special.bos
    }

    /// Id of the token that ends a document.
    pub fn eos_id(&self) -> Option<u32> {
        self.special.eos
    }

    /// Id of the token that fills rows.
    pub fn pad_id(&self) -> Option<u32> {
        self.special.pad
    }

    /// Id of the token for unknown text.
    pub fn unk_id(&self) -> Option<u32> {
        self.special.unk
    }

    /// Id of the token written exactly as `token` in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token with this id as it is written in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// UTF-8 bytes that this id adds to a text, for bits per byte; 0 for special tokens and ids without a token.
    /// A SentencePiece tokenizer's space before the text counts, although decoding strips it.
    pub fn token_bytes(&self, id: u32) -> usize {
        self.byte_lengths.get(id as usize).map_or(0, |length| *length as usize)
    }

    /// The bytes that this id stands for in a text, which need not be whole characters; a special token as it is
    /// written. Nothing for ids without a token.
    pub fn spelled(&self, id: u32) -> Vec<u8> {
        match self.added.get(&id) {
            Some((content, _)) => content.clone().into_bytes(),
            None => self.token(id).map(|token| self.spelling.bytes(&token)).unwrap_or_default(),
        }
    }

    /// Whether the text of ids is what [`Tokenizer::spelled`] gives for each, put together (a space at the beginning
    /// apart, which some decoders strip). Not so for WordPiece and other decoders that look at neighbours.
    pub fn spells_alone(&self) -> bool {
        self.spelling.is_contextless()
    }

    /// Whether this id is a special token, which decoding may leave out.
    pub fn is_special(&self, id: u32) -> bool {
        self.added.get(&id).is_some_and(|(_, special)| *special)
    }

    /// SHA-256 of `tokenizer.json` in hexadecimal.
    pub fn fingerprint(&self) -> String {
        sha256_hex(&self.json)
    }

    /// The bytes behind [`Tokenizer::fingerprint`], for shard headers.
    pub(crate) fn fingerprint_bytes(&self) -> [u8; 32] {
        digest::from_hex(&self.fingerprint()).unwrap_or_default()
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into `folder` (created when absent) as transformers'
    /// `PreTrainedTokenizerFast` reads them. Files that were loaded are written back byte for byte, with
    /// `special_tokens_map.json` and `chat_template.jinja` where they were there.
    ///
    /// # Errors
    /// The file operation that failed.
    pub fn save(&self, fs: &dyn FileSystem, folder: &Path) -> Result<(), DataError> {
        create_folder(fs, folder)?;
        write_atomic_bytes(fs, &folder.join(TOKENIZER_FILE), &self.json)?;
        for (name, bytes) in self.side_files.to_write(&self.special_names()) {
            write_atomic_bytes(fs, &folder.join(name), &bytes)?;
        }
        Ok(())
    }

    /// `tokenizer_config.json` and `chat_template.jinja` as they were loaded or made.
    pub(crate) fn template_files(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        self.side_files.template_files()
    }

    /// Names of the special tokens that have an id, by their key in `tokenizer_config.json`.
    pub(crate) fn special_names(&self) -> Vec<(&'static str, String)> {
        let SpecialIds { bos, eos, pad, unk, .. } = self.special;
        [("bos_token", bos), ("eos_token", eos), ("pad_token", pad), ("unk_token", unk)]
            .into_iter()
            .filter_map(|(key, id)| Some((key, self.token(id?)?)))
            .collect()
    }
}

impl fmt::Debug for Tokenizer {
    /// Its size and fingerprint: the vocabulary itself would fill screens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = self.fingerprint();
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("fingerprint", &fingerprint)
            .finish()
    }
}

/// Vocabulary as the library gives it: tokens with their ids.
type Vocab = HashMap<String, u32>;

/// Where a made tokenizer claims to come from in error messages.
fn made() -> PathBuf {
    PathBuf::from(TOKENIZER_FILE)
}

#[cfg(test)]
mod tests;
