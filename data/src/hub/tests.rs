use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use fornax_base::files::sha256_hex;

use super::*;
use crate::sources::Source;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does with a request for a file.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// Closes the connection in the middle of each file, so many times.
    Cuts(usize),
    /// Sends other bytes than it announces.
    Corrupts,
    /// Answers everything with this status.
    Status(u16),
    /// Sends to another address for the bytes, as the hub does for large files.
    Redirects,
    /// Names a file of the cache that lies outside of it.
    BadTag,
}

struct State {
    files: Vec<(String, Vec<u8>)>,
    mood: Mood,
    requests: Vec<String>,
    endpoint: String,
}

/// A hub on a port of this machine: `/api/datasets/...` and `/datasets/.../resolve/...` as the real one answers them.
struct Server {
    endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start(files: &[(&str, &[u8])], mood: Mood) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, mood, requests: Vec::new(), endpoint: endpoint.clone() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || while_asked(&stream.unwrap(), &shared));
            }
        });
        Server { endpoint, state }
    }

    fn set(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    fn hub(&self, cache: &Path, token: Option<&str>) -> Hub {
        let token = token.map(|secret| Token { secret: secret.to_owned(), from: "HF_TOKEN".to_owned() });
        Hub { endpoint: self.endpoint.clone(), cache: cache.to_owned(), token }
    }
}

/// Answers requests of one connection until it closes.
fn while_asked(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut range, mut bearer) = (None, String::new());
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 || header == "\r\n" {
                break;
            }
            let (name, value) = header.trim_end().split_once(": ").unwrap();
            match name.to_ascii_lowercase().as_str() {
                "range" => range = Some(value.strip_prefix("bytes=").unwrap().to_owned()),
                "authorization" => bearer = value.to_owned(),
                _ => {}
            }
        }
        let mut state = state.lock().unwrap();
        let shown_range = range.as_ref().map_or(String::new(), |range| format!(" {range}"));
        let shown_bearer = if bearer.is_empty() { String::new() } else { format!(" [{bearer}]") };
        state.requests.push(format!("{path}{shown_range}{shown_bearer}"));
        if !answer(stream, &mut state, &path, range.as_deref()) {
            return;
        }
    }
}

/// Writes an answer; false when the connection is to be closed.
fn answer(mut stream: &TcpStream, state: &mut State, path: &str, range: Option<&str>) -> bool {
    let plain = |mut stream: &TcpStream, status: u16, body: &str| {
        let length = body.len();
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}").is_ok()
    };
    if let Mood::Status(status) = state.mood {
        return plain(stream, status, "no");
    }
    if let Some(rest) = path.strip_prefix("/api/datasets/owner/name/revision/") {
        if !["main", "v1", COMMIT].contains(&rest) {
            return plain(stream, 404, "no such revision");
        }
        let files: Vec<String> =
            state.files.iter().map(|(name, _)| format!("{{\"rfilename\": {name:?}}}")).collect();
        let body =
            format!("{{\"id\": \"owner/name\", \"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", files.join(","));
        return plain(stream, 200, &body);
    }
    let prefix = format!("/datasets/owner/name/resolve/{COMMIT}/");
    let is_elsewhere = path.starts_with("/elsewhere");
    let path = path.strip_prefix("/elsewhere").unwrap_or(path);
    let file = path.strip_prefix(&prefix).and_then(|name| state.files.iter().find(|(known, _)| known == name));
    let Some((_, bytes)) = file else { return plain(stream, 404, "no such file") };
    if state.mood == Mood::Redirects && !is_elsewhere {
        return write!(
            stream,
            "HTTP/1.1 302 X\r\nContent-Length: 0\r\nLocation: {}/elsewhere{path}\r\nETag: \"other\"\r\n\
             X-Linked-ETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\n\r\n",
            state.endpoint,
            sha256_hex(bytes)
        )
        .is_ok();
    }
    let (from, to) = range.unwrap().split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(bytes.len(), |to: usize| to + 1);
    if from >= bytes.len() {
        return plain(stream, 416, "");
    }
    let mut part = bytes[from..to].to_vec();
    let tag = if state.mood == Mood::BadTag { "../../outside".to_owned() } else { sha256_hex(bytes) };
    let total = bytes.len();
    let mut sent = part.len();
    if to == total && total > 1 {
        match &mut state.mood {
            Mood::Cuts(left) if *left > 0 && part.len() > 1000 => {
                *left -= 1;
                sent = part.len() / 2;
            }
            Mood::Corrupts => part[0] ^= 1,
            _ => {}
        }
    }
    let head = format!(
        "HTTP/1.1 206 X\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{total}\r\nETag: \"{tag}\"\r\n\
         X-Repo-Commit: {COMMIT}\r\n\r\n",
        part.len(),
        to - 1
    );
    let written = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&part[..sent]));
    written.is_ok() && sent == part.len()
}

fn fetch(hub: &Hub, name: &str) -> Result<Vec<TextFile>, HubError> {
    hub.fetch(&name.parse()?, &mut |_| {})
}

fn texts(hub: &Hub, name: &str) -> Vec<String> {
    let source = Source::named(name, None, &|| Ok(hub.clone()), &mut |_| {}).unwrap();
    source.documents().unwrap().map(Result::unwrap).collect()
}

fn lines(texts: &[&str]) -> Vec<u8> {
    texts.iter().map(|text| format!("{{\"text\": {text:?}}}\n")).collect::<String>().into_bytes()
}

#[test]
fn names_are_read_and_wrong_ones_refused() {
    let read = |name: &str| name.parse::<HubPath>().unwrap();
    let all = read("hf:owner/name");
    assert_eq!((all.repo.as_str(), all.revision.as_str(), all.selection), ("owner/name", "main", Selection::All));
    let path = read("hf:owner/name@v1.0/data/train.jsonl");
    assert_eq!((path.revision.as_str(), path.selection), ("v1.0", Selection::Path("data/train.jsonl".into())));
    let split = read("hf:o/n@refs%2Fconvert%2Fparquet?plain/test");
    assert_eq!(split.revision, "refs/convert/parquet");
    assert_eq!(split.selection, Selection::Split { config: "plain".into(), split: Some("test".into()) });
    assert_eq!(read("hf:o/n?c").selection, Selection::Split { config: "c".into(), split: None });
    for wrong in [
        "hf:",
        "hf:name",
        "hf:/name",
        "hf:o/",
        "hf:o/..",
        "hf:o/n@",
        "hf:o/n/",
        "hf:o/n/../../etc",
        "hf:o/n?",
        "hf:o/n?c/",
        "hf:o/n?/s",
        "hf:o w/n",
        "hf:o/n@..%2F..",
        "x",
        "hf:o/n//etc/passwd",
        "hf:../n",
    ] {
        let error = wrong.parse::<HubPath>().unwrap_err();
        assert!(matches!(error, HubError::Name { .. }), "{wrong}: {error}");
    }
}

#[test]
fn the_files_of_a_split_are_chosen_in_order() {
    let choose = |name: &str, files: &[&str]| {
        let all: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        name.parse::<HubPath>().unwrap().choose(&all, &crate::sources::ENDINGS).map_err(|error| error.to_string())
    };
    let plain = [
        "README.md",
        "data/train-00001-of-00002.parquet",
        "data/train-00000-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
    ];
    let train = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"];
    assert_eq!(choose("hf:o/n", &plain).unwrap(), train);
    assert_eq!(choose("hf:o/n?default/train", &plain).unwrap(), train);
    assert_eq!(choose("hf:o/n?default/dev", &plain).unwrap(), ["data/validation-00000-of-00001.parquet"]);
    assert_eq!(choose("hf:o/n?data/test", &plain).unwrap(), ["data/test-00000-of-00001.parquet"]);
    assert_eq!(choose("hf:o/n/data", &plain).unwrap().len(), 4);
    assert_eq!(choose("hf:o/n", &["b.txt", "a.txt.gz", "x.bin"]).unwrap(), ["a.txt.gz", "b.txt"]);
    // Rows of post-training data: lists of JSON too, but not what is said about the dataset.
    let rows = ["dataset_infos.json", "README.md", "b.json", "a.jsonl.gz", "c.txt"].map(str::to_owned);
    let path: HubPath = "hf:o/n".parse().unwrap();
    assert_eq!(path.choose(&rows, &crate::records::ENDINGS).unwrap(), ["a.jsonl.gz", "b.json"]);
    assert_eq!(
        choose("hf:o/n", &["TinyStories-train.txt", "TinyStories-valid.txt"]).unwrap(),
        ["TinyStories-train.txt"]
    );
    let configs = ["wiki-2/train-0.parquet", "wiki-2/test-0.parquet", "wiki-103/train-0.parquet"];
    assert!(choose("hf:o/n", &configs).unwrap_err().contains("several configurations: wiki-103, wiki-2"));
    assert_eq!(choose("hf:o/n?wiki-2", &configs).unwrap(), ["wiki-2/train-0.parquet"]);
    assert_eq!(choose("hf:o/n?wiki-2/test", &configs).unwrap(), ["wiki-2/test-0.parquet"]);
    let nothing = choose("hf:o/n?wiki-2/validation", &configs).unwrap_err();
    assert!(
        nothing.contains("no readable file for `?wiki-2/validation`") && nothing.contains("wiki-103/train"),
        "{nothing}"
    );
    assert!(choose("hf:o/n", &["a.bin"]).unwrap_err().contains("no file that ends in .txt"));
    // A hub that lists files outside of the repository is not believed.
    assert!(choose("hf:o/n", &["../../up.txt", "/etc/a.txt"]).is_err());
}

#[test]
fn files_come_from_the_hub_and_then_from_the_cache() {
    let (one, two) = (lines(&["a", "b"]), lines(&["c"]));
    let zipped = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&two).unwrap();
        gzip.finish().unwrap()
    };
    let files: [(&str, &[u8]); 3] =
        [("data/train-1.jsonl.gz", &zipped), ("data/train-0.jsonl", &one), ("README.md", b"# x")];
    let server = Server::start(&files, Mood::Well);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path(), None);
    assert_eq!(texts(&hub, "hf:owner/name"), ["a", "b", "c"]);
    let resolve = format!("/datasets/owner/name/resolve/{COMMIT}/data/train-0.jsonl");
    let requests = server.requests();
    assert_eq!(requests[0], "/api/datasets/owner/name/revision/main");
    assert!(requests.contains(&format!("{resolve} 0-")), "{requests:?}");
    assert!(!requests.iter().any(|request| request.contains("README")), "{requests:?}");
    // Again: the hub is asked for the commit and for no file.
    assert_eq!(texts(&hub, "hf:owner/name@v1"), ["a", "b", "c"]);
    assert_eq!(server.requests(), ["/api/datasets/owner/name/revision/v1"]);
    // Messages and manifests name the place on the hub, not that in the cache.
    let shown = fetch(&hub, "hf:owner/name@v1").unwrap()[0].shown.clone();
    assert_eq!(shown, Path::new("hf:owner/name@v1/data/train-0.jsonl"));
    // Without a hub: a path to one file is found in the cache, a list of files is not.
    let gone = Hub { endpoint: "http://127.0.0.1:9".to_owned(), ..hub };
    assert_eq!(texts(&gone, "hf:owner/name/data/train-0.jsonl"), ["a", "b"]);
    let error = fetch(&gone, "hf:owner/name").unwrap_err();
    assert!(error.to_string().contains("the hub at http://127.0.0.1:9 cannot be reached"), "{error}");
    assert!(error.hint().is_some() && error.exit() == fornax_base::exit::Exit::Failed);
}

#[test]
fn large_files_come_from_elsewhere() {
    let file = lines(&["far", "away"]);
    let server = Server::start(&[("a.jsonl", &file)], Mood::Redirects);
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(texts(&server.hub(cache.path(), None), "hf:owner/name"), ["far", "away"]);
    assert!(server.requests().iter().any(|request| request.starts_with("/elsewhere/")));
    assert!(cache.path().join("datasets--owner--name/blobs").join(sha256_hex(&file)).exists());
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let text = "x".repeat(300_000);
    let file = lines(&[&text]);
    let server = Server::start(&[("a.jsonl", &file)], Mood::Cuts(100));
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path(), None);
    // Half of what is left comes with each connection, until little is left.
    let mut seen = Vec::new();
    let done = hub.fetch(&"hf:owner/name".parse().unwrap(), &mut |progress| {
        if let HubProgress::Downloading { bytes, total, .. } = progress {
            seen.push((bytes, total));
        }
    });
    assert!(done.is_ok(), "{done:?}");
    let starts: Vec<usize> = server
        .requests()
        .iter()
        .filter_map(|request| request.split(' ').nth(1)?.strip_suffix('-')?.parse().ok())
        .collect();
    assert!(starts.len() > 5 && starts.windows(2).all(|two| two[0] < two[1]), "each goes on: {starts:?}");
    assert_eq!(seen.last().unwrap(), &(file.len() as u64, file.len() as u64));
    assert_eq!(texts(&hub, "hf:owner/name"), [text]);
}

#[test]
fn a_part_of_a_dead_process_is_used_and_a_whole_one_is_not_in_the_way() {
    let file = lines(&["one", "two", "three"]);
    for kept in [10, file.len(), file.len() + 5] {
        let server = Server::start(&[("a.jsonl", &file)], Mood::Well);
        let cache = tempfile::tempdir().unwrap();
        let blobs = cache.path().join("datasets--owner--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let mut part = file.clone();
        part.resize(kept, b'?');
        fs::write(blobs.join(format!("{}.part", sha256_hex(&file))), part).unwrap();
        assert_eq!(texts(&server.hub(cache.path(), None), "hf:owner/name"), ["one", "two", "three"]);
        let from = if kept == 10 { "10-" } else { "0-" };
        assert!(server.requests().iter().any(|request| request.ends_with(from)), "{kept}");
    }
}

#[test]
fn wrong_bytes_are_found_by_their_sum_and_not_kept() {
    let file = lines(&["a"]);
    let server = Server::start(&[("a.jsonl", &file)], Mood::Corrupts);
    let cache = tempfile::tempdir().unwrap();
    let hub = server.hub(cache.path(), None);
    let error = fetch(&hub, "hf:owner/name").unwrap_err();
    assert!(error.to_string().contains("has sha-256") && error.to_string().contains("it was removed"), "{error}");
    assert_eq!(error.exit(), fornax_base::exit::Exit::Damaged);
    server.set(Mood::Well);
    assert_eq!(texts(&hub, "hf:owner/name"), ["a"]);
}

#[test]
fn refusals_say_which_token_was_used() {
    let server = Server::start(&[("a.jsonl", b"")], Mood::Status(401));
    let cache = tempfile::tempdir().unwrap();
    for (status, token, says) in [
        (401, None, "does not give `hf:owner/name` to a request without a token"),
        (403, Some("secret"), "does not give `hf:owner/name` to the token of HF_TOKEN"),
        (404, None, "has no dataset `hf:owner/name`, or hides it from a request without a token"),
        (418, None, "answered 418 for `hf:owner/name`"),
    ] {
        server.set(Mood::Status(status));
        let error = fetch(&server.hub(cache.path(), token), "hf:owner/name").unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(server.requests()[0].contains("[Bearer secret]"), token.is_some());
    }
    server.set(Mood::Well);
    let error = fetch(&server.hub(cache.path(), None), "hf:owner/name@v9").unwrap_err();
    assert!(error.to_string().contains("has no dataset `hf:owner/name@v9`"), "{error}");
    assert!(!format!("{:?}", server.hub(cache.path(), Some("secret"))).contains("secret"));
}

#[test]
fn a_hub_cannot_write_outside_of_the_cache() {
    let server = Server::start(&[("a.jsonl", &lines(&["a"]))], Mood::BadTag);
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&server.hub(&folder.path().join("cache"), None), "hf:owner/name").unwrap_err();
    assert!(matches!(error, HubError::Word { what: "etag", .. }), "{error}");
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["cache"]);
}
