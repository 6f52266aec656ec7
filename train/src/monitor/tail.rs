//! `events.jsonl` followed while it grows, is cut back by a resume, or goes away

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fornax_base::files::{FileError, open_regular};

use crate::events::TrainEvent;

const PIECE: usize = 1 << 20;

/// A longer line is no event.
const LONGEST_LINE: usize = 1 << 24;

/// What a look at the log found.
#[derive(Debug, Default)]
pub struct News {
    /// The log is another than before: what was read of it no longer counts.
    pub begins_anew: bool,
    /// New events in order.
    pub events: Vec<TrainEvent>,
    /// New whole lines that are no events of this version.
    pub unreadable: usize,
    /// More is there to be read at once.
    pub has_more: bool,
    /// There is no such file, or no longer.
    pub is_absent: bool,
}

/// The reading end of a log that another process writes. Whole lines only: a torn last line waits for its end.
#[derive(Debug)]
pub struct LogTail {
    path: PathBuf,
    /// Kept open, so that no later file can have the same number.
    file: Option<File>,
    /// End of the last whole line that was read, in bytes.
    offset: u64,
    /// Inside a line too long to be an event.
    skipping: bool,
}

impl LogTail {
    /// Will read `path` from its start; the file may come later.
    pub fn new(path: &Path) -> Self {
        LogTail { path: path.to_path_buf(), file: None, offset: 0, skipping: false }
    }

    /// The log.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what is new, for about `time` at most; [`News::has_more`] tells when that was too short.
    ///
    /// # Errors
    /// When the log is there but cannot be read.
    pub fn poll(&mut self, time: Duration) -> Result<News, FileError> {
        let failed = |source| FileError::Io { op: "read", path: self.path.clone(), source };
        let mut news = News::default();
        let about = match fs::metadata(&self.path) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                news.is_absent = true;
                return Ok(news);
            }
            Err(error) => return Err(failed(error)),
        };
        let is_same = match &self.file {
            None => false,
            Some(file) => {
                let open = file.metadata().map_err(failed)?;
                (open.dev(), open.ino()) == (about.dev(), about.ino()) && about.len() >= self.offset
            }
        };
        if !is_same {
            news.begins_anew = self.file.is_some();
            let (file, _) = open_regular(&self.path)?;
            (self.file, self.offset, self.skipping) = (Some(file), 0, false);
        }
        let Some(file) = &mut self.file else { return Ok(news) };
        let until = Instant::now() + time;
        let mut buffer = Vec::new();
        file.seek(SeekFrom::Start(self.offset)).map_err(failed)?;
        loop {
            let before = buffer.len();
            let read = file.take(PIECE as u64).read_to_end(&mut buffer).map_err(failed)?;
            // Only the new part can hold a line break.
            let whole = buffer[before..].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| before + at + 1);
            for line in buffer[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match serde_json::from_slice(line) {
                    Ok(event) if !self.skipping => news.events.push(event),
                    _ => news.unreadable += 1,
                }
                self.skipping = false;
            }
            self.offset += whole as u64;
            buffer.drain(..whole);
            if buffer.len() > LONGEST_LINE {
                // Its end will be counted as the one unreadable line.
                self.offset += buffer.len() as u64;
                self.skipping = true;
                buffer.clear();
            }
            if read < PIECE {
                return Ok(news);
            }
            if Instant::now() >= until {
                news.has_more = true;
                return Ok(news);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use fornax_base::files::RealFs;

    use super::*;
    use crate::events::{cut_to_step, to_line};
    use crate::monitor::testing::step;

    const TIME: Duration = Duration::from_secs(60);

    fn append(path: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn line(at: u64) -> String {
        to_line(&step(at, 2.0)).unwrap() + "\n"
    }

    fn steps(news: &News) -> Vec<u64> {
        news.events.iter().map(TrainEvent::step).collect()
    }

    #[test]
    fn a_growing_log_gives_whole_lines_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut tail = LogTail::new(&path);
        assert!(tail.poll(TIME).unwrap().is_absent);
        let (start, end) = (&line(2)[..30], &line(2)[30..]);
        append(&path, &(line(1) + start));
        let news = tail.poll(TIME).unwrap();
        assert_eq!((steps(&news), news.begins_anew, news.unreadable), (vec![1], false, 0), "a torn line waits");
        assert!(steps(&tail.poll(TIME).unwrap()).is_empty());
        append(&path, &(end.to_owned() + &line(3)));
        assert_eq!(steps(&tail.poll(TIME).unwrap()), [2, 3]);
        append(&path, "no event\n{\"event\":\"of the future\",\"step\":4}\n\n\u{0}\n");
        append(&path, &line(4));
        let news = tail.poll(TIME).unwrap();
        assert_eq!((steps(&news), news.unreadable), (vec![4], 3), "what is no event is counted and passed over");
        // Fields of a later version do no harm.
        append(&path, "{\"event\":\"paused\",\"step\":5,\"paused\":true,\"by\":\"somebody\"}\n");
        assert_eq!(steps(&tail.poll(TIME).unwrap()), [5]);
    }

    #[test]
    fn a_log_that_is_cut_back_or_replaced_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        (1..=5).for_each(|at| append(&path, &line(at)));
        let mut tail = LogTail::new(&path);
        assert_eq!(steps(&tail.poll(TIME).unwrap()), [1, 2, 3, 4, 5]);
        // A resume: cut by an atomic rewrite, and longer than before when it is looked at again.
        cut_to_step(&RealFs, &path, 3).unwrap();
        (4..=9).for_each(|at| append(&path, &line(at)));
        let news = tail.poll(TIME).unwrap();
        assert_eq!((steps(&news), news.begins_anew), ((1..=9).collect(), true));
        cut_to_step(&RealFs, &path, 3).unwrap();
        let news = tail.poll(TIME).unwrap();
        assert_eq!((steps(&news), news.begins_anew), (vec![1, 2, 3], true));
        // Cut in place.
        File::options().write(true).open(&path).unwrap().set_len(line(1).len() as u64).unwrap();
        let news = tail.poll(TIME).unwrap();
        assert_eq!((steps(&news), news.begins_anew), (vec![1], true));
        fs::remove_file(&path).unwrap();
        let news = tail.poll(TIME).unwrap();
        assert!(news.is_absent && !news.begins_anew && news.events.is_empty());
        append(&path, &line(7));
        let news = tail.poll(TIME).unwrap();
        assert_eq!((steps(&news), news.begins_anew), (vec![7], true));
    }

    #[test]
    fn a_long_log_is_read_in_parts_and_a_line_without_end_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let many: String = (1..=20_000).map(line).collect();
        append(&path, &many);
        let mut tail = LogTail::new(&path);
        let (mut seen, mut parts) = (Vec::new(), 0);
        loop {
            let news = tail.poll(Duration::ZERO).unwrap();
            seen.extend(steps(&news));
            parts += 1;
            if !news.has_more {
                break;
            }
        }
        assert!(parts > 3, "{parts}");
        assert_eq!(seen, (1..=20_000).collect::<Vec<_>>());
        append(&path, &"x".repeat(LONGEST_LINE + PIECE));
        assert!(tail.poll(TIME).unwrap().events.is_empty());
        append(&path, &("xx\n".to_owned() + &line(20_001)));
        let news = tail.poll(TIME).unwrap();
        assert_eq!((steps(&news), news.unreadable), (vec![20_001], 1));
    }

    #[test]
    fn what_is_no_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = LogTail::new(folder.path()).poll(TIME).unwrap_err();
        assert!(error.to_string().contains("is a folder"), "{error}");
    }
}
