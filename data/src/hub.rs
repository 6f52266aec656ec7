//! Datasets of the Hugging Face hub: `hf:owner/name`, which files of a repository are meant, and their download.
//!
//! Files go into the cache folder of the hub's own tools and are used from there by all of them. A revision is resolved
//! to a commit before anything is fetched, so that all files are of one commit. An interrupted download continues where
//! it stopped; a file whose name in the hub is its SHA-256 (everything in large-file storage) is checked against it.

mod error;
mod selection;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use fornax_base::files::{FileSystem, RealFs, sha256_file};
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

pub use self::error::HubError;
pub use self::selection::{HubPath, Selection};
use crate::records;
use crate::sources::{self, TextFile};

/// Where the hub is when the environment does not say.
pub const ENDPOINT: &str = "https://huggingface.co";
/// How often a download is taken up again after its connection broke.
const ATTEMPTS: usize = 4;

/// Where files come from and where they are kept.
#[derive(Clone)]
pub struct Hub {
    /// Address of the hub.
    pub endpoint: String,
    /// Cache folder, in the layout of the hub's own tools.
    pub cache: PathBuf,
    /// What private and gated repositories ask for, and where it was found.
    pub token: Option<Token>,
}

/// An access token of the hub.
#[derive(Clone)]
pub struct Token {
    /// The token itself; never shown.
    pub secret: String,
    /// Where it was found: `HF_TOKEN`, or the path of a file.
    pub from: String,
}

impl std::fmt::Debug for Hub {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = self.token.as_ref().map(|token| &token.from);
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token from", &from)
            .finish()
    }
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubProgress {
    /// The files of a repository are chosen.
    Files {
        /// The repository.
        repo: String,
        /// Its commit.
        commit: String,
        /// Paths of the files that will be read, in order.
        files: Vec<String>,
    },
    /// A file is being downloaded; not reported for files in the cache.
    Downloading {
        /// Its path in the repository.
        file: String,
        /// Bytes that are there.
        bytes: u64,
        /// Its length in bytes.
        total: u64,
    },
}

impl Hub {
    /// The hub as the environment says: `HF_ENDPOINT`; `HF_HUB_CACHE`, `HF_HOME` or `~/.cache/huggingface` for the
    /// cache; `HF_TOKEN` or the file `token` beside the cache.
    ///
    /// # Errors
    /// [`HubError::NoHome`] when there is no home folder and no variable names another.
    pub fn from_env() -> Result<Hub, HubError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = || match (variable("HF_HOME"), std::env::home_dir()) {
            (Some(home), _) => Ok(PathBuf::from(home)),
            (None, Some(home)) => Ok(home.join(".cache/huggingface")),
            (None, None) => Err(HubError::NoHome),
        };
        let cache = match variable("HF_HUB_CACHE") {
            Some(cache) => PathBuf::from(cache),
            None => home()?.join("hub"),
        };
        let file = Cache::new(cache.clone());
        let kept = || {
            let from = format!("`{}`", file.token_path().display());
            file.token().map(|secret| Token { secret, from })
        };
        let given = variable("HF_TOKEN").map(|secret| Token { secret, from: "HF_TOKEN".to_owned() });
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Hub { endpoint: endpoint.trim_end_matches('/').to_owned(), token: given.or_else(kept), cache })
    }

    /// The files a path of the hub stands for, in the order of their names, downloaded where the cache has none.
    ///
    /// # Errors
    /// [`HubError`]: what the hub refused, what cannot be reached, or that no file or more than one set of files is
    /// meant.
    pub fn fetch(&self, path: &HubPath, progress: &mut dyn FnMut(HubProgress)) -> Result<Vec<TextFile>, HubError> {
        self.fetch_ending(path, &sources::ENDINGS, progress)
    }

    /// [`Hub::fetch`] of the files that hold rows of post-training data.
    ///
    /// # Errors
    /// As [`Hub::fetch`].
    pub fn fetch_rows(
        &self,
        path: &HubPath,
        progress: &mut dyn FnMut(HubProgress),
    ) -> Result<Vec<TextFile>, HubError> {
        self.fetch_ending(path, &records::ENDINGS, progress)
    }

    fn fetch_ending(
        &self,
        path: &HubPath,
        endings: &'static [&'static str],
        progress: &mut dyn FnMut(HubProgress),
    ) -> Result<Vec<TextFile>, HubError> {
        let api = self.api()?;
        let asked = self.repo(path, &path.revision);
        let (commit, files) = match api.repo(asked.clone()).info() {
            Ok(info) => {
                check_word("commit", &info.sha)?;
                let names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
                (info.sha, path.choose(&names, endings)?)
            }
            Err(error) => match self.kept(path, &asked, endings) {
                Some(file) if is_unreachable(&error) => return Ok(vec![file]),
                _ => return Err(self.refused(path, error)),
            },
        };
        progress(HubProgress::Files { repo: path.repo.clone(), commit: commit.clone(), files: files.clone() });
        // So that the file can be found again without a network.
        Cache::new(self.cache.clone())
            .repo(asked)
            .create_ref(&commit)
            .map_err(|e| HubError::cache(&self.cache, e))?;
        let download = Download { hub: self, path, repo: self.repo(path, &commit), api: &api, endings };
        files.iter().map(|file| download.file(file, progress)).collect()
    }

    /// The folder of a model: what Fornax reads of it, downloaded where the cache has none. Without a network the
    /// cache alone is looked at.
    ///
    /// # Errors
    /// As [`Hub::fetch`]; [`HubError::NoFile`] where there is no `config.json` or no `.safetensors` file.
    pub fn fetch_model(&self, path: &HubPath, progress: &mut dyn FnMut(HubProgress)) -> Result<PathBuf, HubError> {
        let model = |revision: &str| Repo::with_revision(path.repo.clone(), RepoType::Model, revision.to_owned());
        let api = self.api()?;
        let asked = model(&path.revision);
        let info = match api.repo(asked.clone()).info() {
            Ok(info) => info,
            Err(error) => {
                return match self.kept_model(path) {
                    Some(folder) if is_unreachable(&error) => Ok(folder),
                    _ => Err(self.refused(path, error)),
                };
            }
        };
        check_word("commit", &info.sha)?;
        let mut files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        files.retain(|name| is_of_model(name));
        files.sort_unstable();
        let lacks = |what: &str| HubError::NoFile {
            repo: path.shown("").display().to_string(),
            asked: what.to_owned(),
            found: files.join(", "),
        };
        if !files.iter().any(|name| name.ends_with(".safetensors")) {
            return Err(lacks("*.safetensors"));
        }
        progress(HubProgress::Files { repo: path.repo.clone(), commit: info.sha.clone(), files: files.clone() });
        let cache = Cache::new(self.cache.clone());
        cache.repo(asked).create_ref(&info.sha).map_err(|e| HubError::cache(&self.cache, e))?;
        let download = Download { hub: self, path, repo: model(&info.sha), api: &api, endings: &[] };
        let mut folder = None;
        for file in &files {
            let local = download.local(file, progress)?;
            if file == "config.json" {
                folder = local.parent().map(Path::to_path_buf);
            }
        }
        folder.ok_or_else(|| lacks("config.json"))
    }

    /// The folder of a model that the cache has; nothing is fetched.
    pub fn kept_model(&self, path: &HubPath) -> Option<PathBuf> {
        let asked = Repo::with_revision(path.repo.clone(), RepoType::Model, path.revision.clone());
        let config = Cache::new(self.cache.clone()).repo(asked).get("config.json")?;
        config.parent().map(Path::to_path_buf)
    }

    fn api(&self) -> Result<Api, HubError> {
        let builder = ApiBuilder::from_cache(Cache::new(self.cache.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.as_ref().map(|token| token.secret.clone()))
            .with_progress(false);
        builder.build().map_err(|error| HubError::Client { reason: error.to_string() })
    }

    fn repo(&self, path: &HubPath, revision: &str) -> Repo {
        Repo::with_revision(path.repo.clone(), RepoType::Dataset, revision.to_owned())
    }

    /// The one file a path names, from the cache, when the hub cannot be asked.
    fn kept(&self, path: &HubPath, asked: &Repo, endings: &[&'static str]) -> Option<TextFile> {
        let Selection::Path(file) = &path.selection else { return None };
        let found = Cache::new(self.cache.clone()).repo(asked.clone()).get(file)?;
        TextFile::new(found, path.shown(file), endings)
    }

    fn refused(&self, path: &HubPath, error: ApiError) -> HubError {
        let repo = path.shown("").display().to_string();
        let (endpoint, token) = (self.endpoint.clone(), self.token.as_ref().map(|token| token.from.clone()));
        match status(&error) {
            Some(401 | 403) => HubError::Denied { repo, endpoint, token },
            Some(404) => HubError::Absent { repo, endpoint, token },
            Some(status) => HubError::Status { repo, endpoint, status },
            None if is_unreachable(&error) => HubError::Unreachable { endpoint, reason: error.to_string() },
            None => HubError::Answer { repo, endpoint, reason: error.to_string() },
        }
    }
}

/// The files of one commit on their way into the cache.
struct Download<'a> {
    hub: &'a Hub,
    path: &'a HubPath,
    repo: Repo,
    api: &'a Api,
    endings: &'static [&'static str],
}

impl Download<'_> {
    /// Where the file lies in the cache.
    fn local(&self, file: &str, progress: &mut dyn FnMut(HubProgress)) -> Result<PathBuf, HubError> {
        let cached = Cache::new(self.hub.cache.clone()).repo(self.repo.clone());
        match cached.get(file) {
            Some(found) => Ok(found),
            None => self.download(file, &cached, progress),
        }
    }

    fn file(&self, file: &str, progress: &mut dyn FnMut(HubProgress)) -> Result<TextFile, HubError> {
        let shown = self.path.shown(file);
        let local = self.local(file, progress)?;
        TextFile::new(local, shown, self.endings).ok_or_else(|| HubError::NoFile {
            repo: self.path.shown("").display().to_string(),
            asked: file.to_owned(),
            found: "a file of another kind".to_owned(),
        })
    }

    fn download(
        &self,
        file: &str,
        cached: &CacheRepo,
        progress: &mut dyn FnMut(HubProgress),
    ) -> Result<PathBuf, HubError> {
        let repo = self.api.repo(self.repo.clone());
        let refused = |error| self.hub.refused(self.path, error);
        let about = self.api.metadata(&repo.url(file)).map_err(refused)?;
        // Both become names in the cache folder.
        // A weak tag (RFC 9110, section 8.8.3) is a word behind `W/`.
        let etag = about.etag().strip_prefix("W/").unwrap_or(about.etag());
        check_word("etag", etag)?;
        check_word("commit", about.commit_hash())?;
        let blob = cached.blob_path(about.etag());
        let part = blob.with_extension("part");
        let mut attempt = 1;
        loop {
            remove_useless_part(&part, about.size() as u64).map_err(|e| HubError::cache(&self.hub.cache, e))?;
            let report = Report { file: file.to_owned(), bytes: 0, total: 0, tell: progress };
            let before = std::fs::metadata(&part).map_or(0, |about| about.len());
            match repo.download_with_progress(file, report) {
                Ok(found) => return self.verified(file, found, &blob, etag, about.size() as u64),
                Err(error) => {
                    let got_further = std::fs::metadata(&part).is_ok_and(|about| about.len() > before);
                    attempt = if got_further { 1 } else { attempt + 1 };
                    if attempt > ATTEMPTS || !is_unreachable(&error) {
                        return Err(match is_unreachable(&error) {
                            true => self.interrupted(file, &part, about.size() as u64, &error),
                            false => refused(error),
                        });
                    }
                    if !got_further {
                        std::thread::sleep(std::time::Duration::from_millis(100 << attempt));
                    }
                }
            }
        }
    }

    fn interrupted(&self, file: &str, part: &Path, total: u64, error: &ApiError) -> HubError {
        let bytes = std::fs::metadata(part).map_or(0, |about| about.len());
        let file = self.path.shown(file).display().to_string();
        HubError::Interrupted { file, bytes, total, reason: error.to_string() }
    }

    /// The downloaded file, or what is wrong with it; a wrong one is not left in the cache.
    fn verified(
        &self,
        file: &str,
        found: PathBuf,
        blob: &Path,
        etag: &str,
        size: u64,
    ) -> Result<PathBuf, HubError> {
        let cache = |error| HubError::cache(&self.hub.cache, error);
        let (bytes, sha256) =
            sha256_file(&found).map_err(|e| HubError::cache(&self.hub.cache, std::io::Error::other(e)))?;
        let is_sha256 = etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        if bytes == size && (!is_sha256 || sha256 == etag) {
            return Ok(found);
        }
        RealFs.remove_file(&found).map_err(cache)?;
        RealFs.remove_file(blob).map_err(cache)?;
        let file = self.path.shown(file).display().to_string();
        Err(match bytes == size {
            true => HubError::Corrupt { file, what: "sha-256", found: sha256, expected: etag.to_owned() },
            false => {
                HubError::Corrupt { file, what: "length", found: bytes.to_string(), expected: size.to_string() }
            }
        })
    }
}

/// Whether a file of a repository belongs to a model as Fornax reads it.
fn is_of_model(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
    ];
    NAMES.contains(&name) || (name.ends_with(".safetensors") && !name.contains('/'))
}

/// Removes a part that is already as long as the file (the process died before giving it its name): the hub answers a
/// request for what comes after the end with an error.
fn remove_useless_part(part: &Path, size: u64) -> std::io::Result<()> {
    match std::fs::metadata(part) {
        Ok(about) if about.len() >= size => RealFs.remove_file(part),
        _ => Ok(()),
    }
}

/// Tells how far a file is.
struct Report<'a> {
    file: String,
    bytes: u64,
    total: u64,
    tell: &'a mut dyn FnMut(HubProgress),
}

impl Progress for Report<'_> {
    fn init(&mut self, size: usize, _: &str) {
        self.total = size as u64;
        self.bytes = 0;
    }

    fn update(&mut self, size: usize) {
        self.bytes += size as u64;
        (self.tell)(HubProgress::Downloading { file: self.file.clone(), bytes: self.bytes, total: self.total });
    }

    fn finish(&mut self) {}
}

/// Refuses what a hub sends as part of a path unless it is one plain word.
fn check_word(what: &'static str, word: &str) -> Result<(), HubError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match !word.is_empty() && word.len() <= 128 && word.bytes().all(plain) {
        true => Ok(()),
        false => Err(HubError::Word { what, found: word.to_owned() }),
    }
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Whether the connection failed, as opposed to an answer that says no.
fn is_unreachable(error: &ApiError) -> bool {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Protocol, Timeout};
    match error {
        ApiError::RequestError(error) => {
            matches!(**error, Io(_) | HostNotFound | ConnectionFailed | Timeout(_) | Protocol(_))
                || matches!(**error, ureq::Error::StatusCode(500..=599))
        }
        ApiError::IoError(error) => !matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull
                | std::io::ErrorKind::QuotaExceeded
                | std::io::ErrorKind::PermissionDenied
        ),
        _ => false,
    }
}

/// Whether a source is named on the hub.
pub fn is_hub(source: &str) -> bool {
    source.starts_with(selection::PREFIX)
}

impl FromStr for HubPath {
    type Err = HubError;

    fn from_str(text: &str) -> Result<HubPath, HubError> {
        HubPath::parse(text)
    }
}

#[cfg(test)]
mod tests;
