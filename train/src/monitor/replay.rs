//! A finished log once more, at the pace of its training or a multiple of it

use std::time::Duration;

use fornax_base::files::FileError;

use crate::events::TrainEvent;

use super::elapsed::Elapsed;
use super::tail::LogTail;

/// Read at a time; a part of a long log is in memory, not all of it.
const READING: Duration = Duration::from_millis(50);

/// A log being played.
#[derive(Debug)]
pub struct Replay {
    tail: LogTail,
    /// Read but not yet played, newest last, each with its time.
    waiting: std::collections::VecDeque<(f64, TrainEvent)>,
    elapsed: Elapsed,
    /// The time played to, in the log's seconds.
    now: f64,
    is_read: bool,
}

impl Replay {
    /// Plays the log that `tail` stands at the start of.
    pub fn new(tail: LogTail) -> Self {
        Replay { tail, waiting: Default::default(), elapsed: Elapsed::default(), now: 0.0, is_read: false }
    }

    /// Goes on by `seconds` of the log and gives the events that happened in them.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn advance(&mut self, seconds: f64) -> Result<Vec<TrainEvent>, FileError> {
        self.now += seconds.max(0.0);
        let mut due = Vec::new();
        loop {
            while self.waiting.front().is_some_and(|(time, _)| *time <= self.now) {
                due.extend(self.waiting.pop_front().map(|(_, event)| event));
            }
            if self.is_read || !self.waiting.is_empty() {
                return Ok(due);
            }
            let news = self.tail.poll(READING)?;
            self.is_read = !news.has_more;
            for event in news.events {
                self.waiting.push_back((self.elapsed.after(&event), event));
            }
        }
    }

    /// The time played to, in the log's seconds.
    pub fn now(&self) -> f64 {
        self.now
    }

    /// Whether everything was played.
    pub fn is_over(&self) -> bool {
        self.is_read && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::to_line;
    use crate::monitor::testing::{run, step};

    #[test]
    fn events_come_at_their_time_and_all_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let events = run("a", 20, 20, 0.0);
        let text: String = events.iter().map(|event| to_line(event).unwrap() + "\n").collect();
        std::fs::write(&path, text).unwrap();
        let mut replay = Replay::new(LogTail::new(&path));
        assert_eq!(replay.advance(0.0).unwrap(), events[..1], "the start costs no time");
        assert!(replay.advance(1.9).unwrap().is_empty());
        // Two seconds a step.
        assert_eq!(replay.advance(0.2).unwrap().len(), 1);
        let mut rest = replay.advance(2.0).unwrap();
        assert_eq!(rest.iter().filter(|event| matches!(event, TrainEvent::Step { .. })).count(), 1);
        while !replay.is_over() {
            rest.extend(replay.advance(3.0).unwrap());
        }
        assert_eq!(rest, events[2..]);
        assert!(replay.now() > 40.0);
        let mut empty = Replay::new(LogTail::new(&folder.path().join("absent")));
        assert!(empty.advance(1.0).unwrap().is_empty() && empty.is_over());
        let _ = step(1, 1.0);
    }
}
