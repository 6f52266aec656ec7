//! Text to token ids and back: any `tokenizer.json`, and the two kinds of tokenizer Fornax makes itself.
//!
//! The `tokenizers` library does the coding; this module adds what it leaves to its callers: the names of the special
//! tokens, limits on what is loaded, how many bytes of text each id stands for, and errors instead of silence. Truncation
//! and padding stored in a `tokenizer.json` are not applied, as transformers does not apply them unless asked.

mod byte_lengths;
mod characters;
mod merges;
mod settings;
mod train;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use fornax_base::files::{FileSystem, create_folder, read_limited, sha256_hex, write_atomic_bytes};

use self::characters::CharacterTable;
use self::settings::{SideFiles, SpecialIds};
pub use self::train::TrainProgress;
use crate::digest;
use crate::error::DataError;

/// Name of the file that holds a tokenizer in a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// A `tokenizer.json` longer than this is refused.
pub const MAX_TOKENIZER_BYTES: u64 = 512 << 20;
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
    /// For each id, the bytes it adds to text.
    byte_lengths: Vec<u32>,
    /// For a vocabulary of bare characters, which the library would drop silently when unknown.
    characters: Option<CharacterTable>,
}

impl Tokenizer {
    /// Loads a `tokenizer.json`, or the one in a model folder, with `tokenizer_config.json` and
    /// `special_tokens_map.json` beside it where they exist. Without them the end-of-text token is looked for among
    /// the special tokens by its usual names.
    ///
    /// # Errors
    /// When a file cannot be read, is beyond 512 MiB, or is not a tokenizer this build can use exactly.
    pub fn load(path: &Path) -> Result<Tokenizer, DataError> {
        let file = if path.is_dir() { path.join(TOKENIZER_FILE) } else { path.to_owned() };
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
        let shape = settings::Shape::read(&json).map_err(unusable)?;
        let mut inner = parse(&json).map_err(unusable)?;
        // Stored by training scripts that tokenized fixed-length rows; they would cut text silently.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| unusable(error.to_string()))?;
        let vocab = inner.get_vocab(true);
        let byte_lengths = byte_lengths::of(&inner, &vocab).map_err(unusable)?;
        let characters = shape.is_characters().then(|| CharacterTable::new(&vocab)).flatten();
        let special = SpecialIds::new(&inner, &side_files);
        Ok(Tokenizer { inner, json, side_files, special, byte_lengths, characters })
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
                let encoding = self.inner.encode_fast(text, add_special);
                let encoding =
                    encoding.map_err(|error| DataError::Coding { action: "encode", reason: error.to_string() })?;
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
        let text = self.inner.decode(ids, skip_special);
        text.map_err(|error| DataError::Coding { action: "decode", reason: error.to_string() })
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

    /// Names of the special tokens that have an id, by their key in `tokenizer_config.json`.
    fn special_names(&self) -> Vec<(&'static str, String)> {
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

/// Runs the library's parser. It indexes and unwraps in places that a hostile file reaches, so a panic there is turned
/// into an error of the file.
fn parse(json: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    let parsed = std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(json));
    match parsed {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the tokenizers library failed on its contents".to_owned()),
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
