//! Stop strings: texts at which an answer ends, found wherever the pieces of a stream are cut.
//!
//! What may be the beginning of a stop string is held back until it is decided. The answer ends at the stop string
//! that is complete earliest in the text; of several complete at the same place the longest counts. Cost is one step
//! for each byte and stop string.

/// Stop strings of one request at most.
pub const MAX_STOP_STRINGS: usize = 64;
/// Bytes of a stop string at most.
pub const MAX_STOP_BYTES: usize = 4096;

/// Why stop strings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// It would end every answer before its beginning.
    #[error("stop string {place} is empty, expected at least 1 character")]
    Empty {
        /// Which one, counted from 0.
        place: usize,
    },
    /// There are too many.
    #[error("{found} stop strings were given, expected at most {MAX_STOP_STRINGS}")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// One is too long.
    #[error("stop string {place} has {bytes} bytes, expected at most {MAX_STOP_BYTES}")]
    TooLong {
        /// Which one, counted from 0.
        place: usize,
        /// Its length.
        bytes: usize,
    },
}

/// What follows from a piece of text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// Text that is decided now; empty when nothing is.
    pub emit: String,
    /// The stop string that ended the text, by its place in the list.
    pub stopped: Option<usize>,
}

/// Looks for stop strings in a text that comes in pieces.
///
/// # Example
/// ```
/// use fornax_infer::stop::StopStrings;
///
/// let mut stop = StopStrings::new(&["\nUser:"], false).unwrap();
/// assert_eq!(stop.push("Hello.\nUs").emit, "Hello.");
/// assert_eq!(stop.push("e it.\nUser: no").emit, "\nUse it.");
/// assert_eq!(stop.push("more"), stop.push("and more"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<Stop>,
    include: bool,
    /// The end of the text, as long as it is the beginning of a stop string.
    held: String,
    stopped: Option<usize>,
}

/// One stop string, with the automaton of Knuth, Morris and Pratt.
#[derive(Debug, Clone)]
struct Stop {
    text: Vec<u8>,
    /// For each length of a match the length of the longest shorter one that ends at the same place.
    shorter: Vec<usize>,
    /// How much of it the end of the text is.
    matched: usize,
}

impl Stop {
    fn new(text: &str) -> Stop {
        let text = text.as_bytes().to_vec();
        let mut shorter = vec![0; text.len() + 1];
        let mut matched = 0;
        for place in 1..text.len() {
            while matched > 0 && text[place] != text[matched] {
                matched = shorter[matched];
            }
            matched += usize::from(text[place] == text[matched]);
            shorter[place + 1] = matched;
        }
        Stop { text, shorter, matched: 0 }
    }

    /// Takes a byte; whether the string is complete with it.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.text[self.matched] != byte {
            self.matched = self.shorter[self.matched];
        }
        self.matched += usize::from(self.text[self.matched] == byte);
        self.matched == self.text.len()
    }
}

impl StopStrings {
    /// Looks for any of `strings`. With `include`, the one that is found is part of the text.
    ///
    /// # Errors
    /// See [`StopError`].
    pub fn new(strings: &[impl AsRef<str>], include: bool) -> Result<StopStrings, StopError> {
        if strings.len() > MAX_STOP_STRINGS {
            return Err(StopError::TooMany { found: strings.len() });
        }
        let mut stops = Vec::with_capacity(strings.len());
        for (place, string) in strings.iter().enumerate() {
            match string.as_ref().len() {
                0 => return Err(StopError::Empty { place }),
                bytes if bytes > MAX_STOP_BYTES => return Err(StopError::TooLong { place, bytes }),
                _ => stops.push(Stop::new(string.as_ref())),
            }
        }
        Ok(StopStrings { stops, include, held: String::new(), stopped: None })
    }

    /// Which stop string ended the text, by its place in the list.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// Takes the next piece. Behind a stop string there is no more text.
    pub fn push(&mut self, piece: &str) -> Held {
        if self.stopped.is_some() {
            return Held { emit: String::new(), stopped: self.stopped };
        }
        let before = self.held.len();
        self.held.push_str(piece);
        for (place, byte) in piece.bytes().enumerate() {
            let mut found: Option<usize> = None;
            for index in 0..self.stops.len() {
                let longer = |best: usize| self.stops[index].text.len() > self.stops[best].text.len();
                let counts = found.is_none_or(longer);
                if self.stops[index].advance(byte) && counts {
                    found = Some(index);
                }
            }
            if let Some(index) = found {
                return self.stop_at(before + place + 1, index);
            }
        }
        // A match of bytes begins where a character does: no other byte of UTF-8 equals a leading one.
        let undecided = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let decided = self.held.len() - undecided;
        Held { emit: self.held.drain(..decided).collect(), stopped: None }
    }

    fn stop_at(&mut self, end: usize, index: usize) -> Held {
        self.stopped = Some(index);
        let keep = if self.include { end } else { end - self.stops[index].text.len() };
        let mut emit = std::mem::take(&mut self.held);
        emit.truncate(keep);
        Held { emit, stopped: self.stopped }
    }

    /// Takes a piece in which nothing is looked for, and whose end is no beginning of a stop string.
    pub fn pass(&mut self, piece: &str) -> Held {
        if self.stopped.is_some() {
            return Held { emit: String::new(), stopped: self.stopped };
        }
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        Held { emit: std::mem::take(&mut self.held) + piece, stopped: None }
    }

    /// What was held back, when the text ends without a stop string.
    pub fn finish(&mut self) -> String {
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests;
