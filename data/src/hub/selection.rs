//! What `hf:owner/name...` names, and which files of a repository that is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fornax_base::paths::join_inside;

use super::HubError;

/// What the name of a hub source begins with.
pub(super) const PREFIX: &str = "hf:";
/// The split that is read when none is named and files tell theirs.
const DEFAULT_SPLIT: &str = "train";
/// Files of JSON that tell about a dataset and hold no row of it.
const ABOUT: [&str; 4] = ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];
/// Names of splits as they occur in paths, by the hub's conventions.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// A dataset of the hub, and which of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubPath {
    /// `owner/name`.
    pub repo: String,
    /// A branch, a tag or a commit; `main` unless given.
    pub revision: String,
    /// Which files.
    pub selection: Selection,
}

/// Which files of a repository are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The files of the split `train` where paths name splits, else all readable ones.
    All,
    /// One file, or the readable files below a folder.
    Path(String),
    /// The files of a configuration (a folder of that name) and a split.
    Split {
        /// Name of the configuration.
        config: String,
        /// Name of the split; `train` where paths name splits, when absent.
        split: Option<String>,
    },
}

impl HubPath {
    /// Reads `hf:owner/name`, then perhaps `@revision` (its slashes written `%2F`), then `/path` or `?config/split`.
    ///
    /// # Errors
    /// [`HubError::Name`] for anything else.
    pub fn parse(text: &str) -> Result<HubPath, HubError> {
        let wrong = |reason: &str| HubError::Name { source_name: text.to_owned(), reason: reason.to_owned() };
        let rest = text.strip_prefix(PREFIX).ok_or_else(|| wrong("it does not begin with `hf:`"))?;
        let (owner, rest) = rest.split_once('/').ok_or_else(|| wrong("owner and name are expected"))?;
        let end = rest.find(['@', '/', '?']).unwrap_or(rest.len());
        let (name, mut rest) = rest.split_at(end);
        for word in [owner, name] {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if word.is_empty() || !word.chars().all(plain) || word.chars().all(|c| c == '.') {
                return Err(wrong("owner and name hold letters, digits, `-`, `_` and `.`"));
            }
        }
        let mut revision = "main".to_owned();
        if let Some(after) = rest.strip_prefix('@') {
            let end = after.find(['/', '?']).unwrap_or(after.len());
            revision = after[..end].replace("%2F", "/").replace("%2f", "/");
            rest = &after[end..];
            if !is_inside(&revision) {
                return Err(wrong("the revision is empty or leads elsewhere"));
            }
        }
        let selection = match (rest.strip_prefix('/'), rest.strip_prefix('?')) {
            (Some(path), _) if is_inside(path) => Selection::Path(path.trim_end_matches('/').to_owned()),
            (Some(_), _) => return Err(wrong("the path is empty or leads elsewhere")),
            (None, Some(query)) => match query.split_once('/') {
                Some((config, split)) if !config.is_empty() && !split.is_empty() => {
                    Selection::Split { config: config.to_owned(), split: Some(split.to_owned()) }
                }
                None if !query.is_empty() => Selection::Split { config: query.to_owned(), split: None },
                _ => return Err(wrong("`?config` or `?config/split` is expected")),
            },
            (None, None) => Selection::All,
        };
        Ok(HubPath { repo: format!("{owner}/{name}"), revision, selection })
    }

    /// How messages name a file of the repository, or the repository itself for no file.
    pub(super) fn shown(&self, file: &str) -> PathBuf {
        let revision = match self.revision.as_str() {
            "main" => String::new(),
            other => format!("@{}", other.replace('/', "%2F")),
        };
        let slash = if file.is_empty() { "" } else { "/" };
        PathBuf::from(format!("{PREFIX}{}{revision}{slash}{file}", self.repo))
    }

    /// The files of a repository that are read, sorted by path: those with one of `endings`.
    pub(super) fn choose(&self, all: &[String], endings: &[&str]) -> Result<Vec<String>, HubError> {
        let mut readable: Vec<&str> =
            all.iter().map(String::as_str).filter(|name| is_readable(name, endings)).collect();
        readable.sort_unstable();
        let files: Vec<&str> = match &self.selection {
            Selection::Path(path) => {
                let below = |name: &&str| name == path || name.strip_prefix(path.as_str()).is_some_and(is_below);
                readable.iter().copied().filter(below).collect()
            }
            Selection::All => {
                let files = of_split(readable.clone(), None);
                self.refuse_several(&files)?;
                files
            }
            Selection::Split { config, split } => {
                let configs: Vec<&str> = match config.as_str() {
                    "default" => readable.clone(),
                    _ => readable.iter().copied().filter(|name| folders(name).any(|f| f == config)).collect(),
                };
                of_split(configs, split.as_deref())
            }
        };
        match files.is_empty() {
            true => Err(self.nothing(&readable, endings)),
            false => Ok(files.into_iter().map(str::to_owned).collect()),
        }
    }

    /// Two folders at the top are two sets of data: reading both would mix what its makers keep apart.
    fn refuse_several(&self, files: &[&str]) -> Result<(), HubError> {
        let tops: BTreeSet<&str> = files.iter().map(|name| folders(name).next().unwrap_or("")).collect();
        if tops.len() <= 1 {
            return Ok(());
        }
        let names: Vec<&str> =
            tops.into_iter().map(|top| if top.is_empty() { "(no folder)" } else { top }).collect();
        Err(HubError::Ambiguous { repo: self.shown("").display().to_string(), found: shortened(&names) })
    }

    fn nothing(&self, readable: &[&str], endings: &[&str]) -> HubError {
        let asked = match &self.selection {
            Selection::All => "its text".to_owned(),
            Selection::Path(path) => path.clone(),
            Selection::Split { config, split } => format!("?{config}/{}", split.as_deref().unwrap_or("")),
        };
        let found = match readable.is_empty() {
            true => format!("no file that ends in {}", endings.join(", ")),
            false => shortened(readable),
        };
        HubError::NoFile { repo: self.shown("").display().to_string(), asked, found }
    }
}

fn shortened(names: &[&str]) -> String {
    let more = names.len().saturating_sub(8);
    let listed = names[..names.len().min(8)].join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}

fn is_inside(path: &str) -> bool {
    join_inside(Path::new("."), path).is_ok()
}

fn is_readable(name: &str, endings: &[&str]) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    is_inside(name) && !ABOUT.contains(&file) && endings.iter().any(|ending| name.ends_with(ending))
}

fn is_below(rest: &str) -> bool {
    rest.starts_with('/')
}

fn folders(name: &str) -> impl Iterator<Item = &str> {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    folder.split('/').filter(|part| !part.is_empty())
}

/// The files whose path names the split; without a split asked for, those of [`DEFAULT_SPLIT`] when any path names one.
fn of_split<'a>(files: Vec<&'a str>, split: Option<&str>) -> Vec<&'a str> {
    let wanted = match split {
        Some(split) => split,
        None if files.iter().any(|name| split_of(name).is_some()) => DEFAULT_SPLIT,
        None => return files,
    };
    let known = SPLITS.iter().find(|(_, names)| names.contains(&wanted)).map(|(name, _)| *name);
    files
        .into_iter()
        .filter(|name| match known {
            Some(known) => split_of(name) == Some(known),
            None => name.split(['/', '.', '-', ' ']).any(|part| part == wanted),
        })
        .collect()
}

/// The split a path names, if any: a word of its last folder or of its file name, the file's own name before others.
fn split_of(name: &str) -> Option<&'static str> {
    let of_part = |part: &str| {
        let words = part.split(|c: char| !c.is_ascii_alphabetic());
        let mut found = None;
        for word in words {
            let word = word.to_ascii_lowercase();
            found =
                found.or(SPLITS.iter().find(|(_, names)| names.contains(&word.as_str())).map(|(name, _)| *name));
        }
        found
    };
    name.rsplit('/').find_map(of_part)
}
