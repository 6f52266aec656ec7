//! Where the templates of a model are kept, and which of them counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fornax_base::files::read_limited;
use serde_json::Value;

use super::error::TemplateError;
use super::{MAX_SOURCE, given};
use crate::tokenizer::Tokenizer;

const CONFIG: &str = "tokenizer_config.json";
const FILE: &str = "chat_template.jinja";
const FOLDER: &str = "additional_chat_templates";
/// The name of a template that has none.
const DEFAULT: &str = "default";
/// `tokenizer_config.json` lists every added token; the largest known has 1.2 MB.
const MAX_CONFIG: u64 = 16 << 20;
/// A model has a handful.
const MAX_TEMPLATES: usize = 64;

/// Templates by name, with where each comes from, and the special tokens they may write.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Name, path, source.
    pub(super) templates: Vec<(String, PathBuf, String)>,
    pub(super) special: BTreeMap<String, String>,
}

impl Sources {
    pub(super) fn of_folder(folder: &Path, tokenizer: &Tokenizer) -> Result<Sources, TemplateError> {
        let config_path = folder.join(CONFIG);
        let config = parse(&config_path, if_there(&config_path, MAX_CONFIG)?.as_deref())?;
        let mut sources = Sources { special: special(&config, tokenizer), ..Sources::default() };
        // A file that is too long is read one byte too far, and refused where the others are.
        let most = MAX_SOURCE as u64 + 1;
        let path = folder.join(FILE);
        if let Some(bytes) = if_there(&path, most)? {
            sources.push(DEFAULT, path, bytes)?;
        }
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder.join(FOLDER))
            .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
            .unwrap_or_default();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
        paths.sort();
        for path in paths.into_iter().take(MAX_TEMPLATES) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = read_limited(&path, most)?;
            sources.push(&name, path, bytes)?;
        }
        sources.or_config(&config, &config_path, folder)
    }

    pub(super) fn of_tokenizer(tokenizer: &Tokenizer) -> Result<Sources, TemplateError> {
        let (config, file) = tokenizer.template_files();
        let config = parse(Path::new(CONFIG), config)?;
        let mut sources = Sources { special: special(&config, tokenizer), ..Sources::default() };
        if let Some(bytes) = file {
            sources.push(DEFAULT, PathBuf::from(FILE), bytes.to_vec())?;
        }
        sources.or_config(&config, Path::new(CONFIG), Path::new("the tokenizer"))
    }

    pub(super) fn single(source: &str, tokenizer: &Tokenizer) -> Sources {
        let (config, _) = tokenizer.template_files();
        let config = config.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
        let templates = vec![(DEFAULT.to_owned(), given(), source.to_owned())];
        Sources { templates, special: special(&config, tokenizer) }
    }

    fn push(&mut self, name: &str, path: PathBuf, bytes: Vec<u8>) -> Result<(), TemplateError> {
        let source = String::from_utf8(bytes).map_err(|error| TemplateError::Unusable {
            path: path.clone(),
            reason: format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
        })?;
        self.templates.push((name.to_owned(), path, source));
        Ok(())
    }

    /// What `tokenizer_config.json` holds, where there are no files.
    fn or_config(mut self, config: &Value, path: &Path, place: &Path) -> Result<Sources, TemplateError> {
        if self.templates.is_empty() {
            let named = |entry: &Value| {
                let text = |key: &str| entry[key].as_str().map(str::to_owned);
                Some((text("name")?, path.to_owned(), text("template")?))
            };
            match &config["chat_template"] {
                Value::String(source) => {
                    self.templates.push((DEFAULT.to_owned(), path.to_owned(), source.clone()))
                }
                Value::Array(list) => self.templates.extend(list.iter().take(MAX_TEMPLATES).filter_map(named)),
                _ => {}
            }
        }
        if self.templates.is_empty() { Err(TemplateError::Absent(place.to_owned())) } else { Ok(self) }
    }
}

fn if_there(path: &Path, most: u64) -> Result<Option<Vec<u8>>, TemplateError> {
    match read_limited(path, most) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parse(path: &Path, bytes: Option<&[u8]>) -> Result<Value, TemplateError> {
    let Some(bytes) = bytes else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(bytes)
        .map_err(|error| TemplateError::Unusable { path: path.to_owned(), reason: error.to_string() })
}

/// What transformers calls the map of special tokens: every `..._token` that is a token.
fn special(config: &Value, tokenizer: &Tokenizer) -> BTreeMap<String, String> {
    let named = |(key, value): (&String, &Value)| {
        let token = value.as_str().or_else(|| value["content"].as_str())?;
        key.ends_with("_token").then(|| (key.clone(), token.to_owned()))
    };
    let known = tokenizer.special_names().into_iter().map(|(key, token)| (key.to_owned(), token));
    known.chain(config.as_object().into_iter().flatten().filter_map(named)).collect()
}
