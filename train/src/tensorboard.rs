//! TensorBoard event files: what a run tells, in the format of `tensorboard --logdir`
//!
//! A file is a row of TFRecords (length, masked CRC-32C of the length, payload, masked CRC-32C of the payload), each
//! holding one `Event` of `tensorflow/core/util/event.proto`. The few fields used here are written by hand. A resumed
//! run writes a new file, which begins by telling TensorBoard to forget what came after the resumed step; such records
//! are cut from the older files too.

use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fornax_base::files::{self, AppendFile, FileError, FileSystem};

use crate::events::TrainEvent;

/// The folder of event files inside a run folder.
pub const FOLDER: &str = "tensorboard";

/// What TensorBoard looks for in file names, and reads in the order of.
const PREFIX: &str = "events.out.tfevents.";

/// Longer payloads are not ours: a sample of a thousand tokens has some kilobytes.
const GREATEST_PAYLOAD: u64 = 1 << 26;

/// The event file of a running training.
pub struct Tensorboard {
    file: AppendFile,
}

impl Tensorboard {
    /// Begins a new event file in `folder` for a run that stands after `done` steps, and cuts later records from those
    /// there; with `None`, for a run that begins anew, removes them.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn open(fs: Arc<dyn FileSystem>, folder: &Path, done: Option<u64>) -> Result<Self, FileError> {
        files::create_folder(&*fs, folder)?;
        let mut number = 1;
        for (path, of) in event_files(folder)? {
            number = of + 1;
            match done {
                Some(step) => drop(AppendFile::open(Arc::clone(&fs), &path, whole_until(&path, step)?)?),
                None => {
                    let removed = fs.remove_file(&path);
                    removed.map_err(|source| FileError::Io { op: "remove", path: path.clone(), source })?;
                }
            }
        }
        let mut file = AppendFile::open(fs, &folder.join(file_name(number)), 0)?;
        file.append(&header(now()))?;
        if let Some(step) = done {
            file.append(&restart(now(), step + 1))?;
        }
        Ok(Self { file })
    }

    /// Appends what a curve or a text can be made of; other events leave no record.
    ///
    /// # Errors
    /// The failed write; the file still holds whole records.
    pub fn write(&mut self, event: &TrainEvent) -> Result<(), FileError> {
        match record_of(event, now()) {
            Some(record) => self.file.append(&record),
            None => Ok(()),
        }
    }

    /// Waits until everything written has reached the disk.
    ///
    /// # Errors
    /// The operating system's refusal.
    pub fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync()
    }
}

/// Writes `events`, each with its time in Unix seconds, as the sole event file of `folder`; gives its path.
///
/// # Errors
/// When the folder cannot be made or the file not be written, or the error that reading an event met.
pub fn export<E: Into<io::Error>>(
    fs: &dyn FileSystem,
    folder: &Path,
    events: &mut dyn Iterator<Item = Result<(f64, TrainEvent), E>>,
) -> Result<PathBuf, FileError> {
    files::create_folder(fs, folder)?;
    let path = folder.join(file_name(1));
    let mut events = events.peekable();
    let start = events.peek().and_then(|event| event.as_ref().ok()).map_or(0.0, |(time, _)| *time);
    files::write_atomic(fs, &path, &mut |out| {
        out.write_all(&header(start))?;
        for event in &mut events {
            let (time, event) = event.map_err(Into::into)?;
            if let Some(record) = record_of(&event, time) {
                out.write_all(&record)?;
            }
        }
        Ok(())
    })?;
    Ok(path)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn file_name(number: u64) -> String {
    format!("{PREFIX}{number:010}.fornax")
}

/// The event files of a folder with their numbers, in the order of the numbers.
fn event_files(folder: &Path) -> Result<Vec<(PathBuf, u64)>, FileError> {
    let failed = |source| FileError::Io { op: "list", path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(".fornax")?.parse().ok());
        found.extend(number.map(|number| (path, number)));
    }
    found.sort_by_key(|(_, number)| *number);
    Ok(found)
}

/// Length of the opening records of a file that are whole and of steps up to `step`, in bytes.
fn whole_until(path: &Path, step: u64) -> Result<u64, FileError> {
    let (file, _) = files::open_regular(path)?;
    let mut input = BufReader::new(file);
    let mut whole = 0;
    loop {
        match read_record(&mut input) {
            Ok(Some(payload)) if step_of(&payload).is_some_and(|of| of <= step) => {
                whole += payload.len() as u64 + 16;
            }
            Ok(_) => return Ok(whole),
            Err(source) => return Err(FileError::Io { op: "read", path: path.to_path_buf(), source }),
        }
    }
}

/// The next payload; `None` at the end, and where a record is torn or damaged.
fn read_record(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 12];
    if !fill(input, &mut head)? {
        return Ok(None);
    }
    let (length, sum) = head.split_at(8);
    let Ok(length_bytes) = <[u8; 8]>::try_from(length) else { return Ok(None) };
    let length_number = u64::from_le_bytes(length_bytes);
    if masked(length).to_le_bytes() != sum || length_number > GREATEST_PAYLOAD {
        return Ok(None);
    }
    let mut payload = vec![0; length_number as usize];
    let mut sum = [0; 4];
    let is_whole = fill(input, &mut payload)? && fill(input, &mut sum)?;
    Ok((is_whole && masked(&payload).to_le_bytes() == sum).then_some(payload))
}

/// Whether the buffer could be filled before the end of the input.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// `step` of an `Event` as it is written here: field 1, eight bytes long, then field 2. No field 2 is step 0.
fn step_of(payload: &[u8]) -> Option<u64> {
    let rest = payload.strip_prefix(&[0x09])?.get(8..)?;
    let Some(number) = rest.strip_prefix(&[0x10]) else { return Some(0) };
    let mut value = 0;
    for (i, byte) in number.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// TFRecord's checksum: CRC-32C, rotated and shifted so that a checksum of data that holds checksums stays strong.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn record(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(payload.len() + 16);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&masked(&length).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&masked(payload).to_le_bytes());
    bytes
}

fn header(time: f64) -> Vec<u8> {
    let mut event = Message::event(time, 0);
    event.bytes(3, b"brain.Event:2");
    record(&event.0)
}

/// `SessionLog { status: START }`: readers forget what they have of this step and later ones.
fn restart(time: f64, step: u64) -> Vec<u8> {
    let mut log = Message::default();
    log.number(1, 1);
    let mut event = Message::event(time, step);
    event.bytes(7, &log.0);
    record(&event.0)
}

fn record_of(event: &TrainEvent, time: f64) -> Option<Vec<u8>> {
    let mut summary = Message::default();
    for (name, value) in event.metrics() {
        summary.bytes(1, &scalar(name, value as f32).0);
    }
    if let TrainEvent::Sample { prompt, text, .. } = event {
        summary.bytes(1, &text_value(&format!("sample/{prompt}"), &as_is(&format!("{prompt}{text}"))).0);
    }
    if summary.0.is_empty() {
        return None;
    }
    let mut message = Message::event(time, event.step());
    message.bytes(5, &summary.0);
    Some(record(&message.0))
}

/// TensorBoard reads texts as Markdown, where four spaces make a line stand as it is.
fn as_is(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// `Summary.Value` with `tag` and `simple_value`.
fn scalar(name: &str, value: f32) -> Message {
    let mut message = Message::default();
    message.bytes(1, name.as_bytes());
    message.float(2, value);
    message
}

/// `Summary.Value` with `tag`, a string tensor of one element, and the name of the text plugin.
fn text_value(name: &str, text: &str) -> Message {
    const DT_STRING: u64 = 7;
    const DATA_CLASS_TENSOR: u64 = 2;
    let mut dimension = Message::default();
    dimension.number(1, 1);
    let mut shape = Message::default();
    shape.bytes(2, &dimension.0);
    let mut tensor = Message::default();
    tensor.number(1, DT_STRING);
    tensor.bytes(2, &shape.0);
    tensor.bytes(8, text.as_bytes());
    let mut plugin = Message::default();
    plugin.bytes(1, b"text");
    let mut about = Message::default();
    about.bytes(1, &plugin.0);
    about.number(4, DATA_CLASS_TENSOR);
    let mut message = Message::default();
    message.bytes(1, name.as_bytes());
    message.bytes(8, &tensor.0);
    message.bytes(9, &about.0);
    message
}

/// A protocol buffer message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// `Event` with its time and step.
    fn event(time: f64, step: u64) -> Self {
        let mut message = Self::default();
        message.key(1, 1);
        message.0.extend_from_slice(&time.to_le_bytes());
        // A number that is 0 is not written, as in every proto3 message.
        if step > 0 {
            message.number(2, step);
        }
        message
    }

    fn number(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use fornax_base::files::RealFs;
    use serde_json::Value;

    use super::*;
    use crate::monitor::testing::{run, step};

    fn fixture(name: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tensorboard").join(name)).unwrap()
    }

    #[test]
    fn records_equal_those_of_tensorboards_own_writer() {
        let expected: Value = serde_json::from_slice(&fixture("expected.json")).unwrap();
        let times: Vec<f64> = serde_json::from_value(expected["times"].clone()).unwrap();
        let events: Vec<TrainEvent> = serde_json::from_value(expected["events"].clone()).unwrap();
        let mut bytes = header(times[0]);
        times.iter().zip(&events).for_each(|(time, event)| bytes.extend(record_of(event, *time).unwrap()));
        bytes.extend(restart(2000.25, 301));
        assert!(bytes == fixture("events.tfevents"));
        // And read back as they were cut.
        let mut input = &bytes[..];
        let mut steps = Vec::new();
        while let Some(payload) = read_record(&mut input).unwrap() {
            steps.push(step_of(&payload).unwrap());
        }
        assert_eq!(steps, [0, 1, 300, 70_000, 301]);
    }

    /// Steps of all records below `folder`, file by file.
    fn steps(folder: &Path) -> Vec<Vec<u64>> {
        let read = |(path, _): (PathBuf, u64)| {
            let bytes = fs::read(path).unwrap();
            let mut input = &bytes[..];
            let mut steps = Vec::new();
            while let Some(payload) = read_record(&mut input).unwrap() {
                steps.push(step_of(&payload).unwrap());
            }
            steps
        };
        event_files(folder).unwrap().into_iter().map(read).collect()
    }

    #[test]
    fn a_resumed_run_leaves_no_step_twice() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tensorboard");
        let open = |done| Tensorboard::open(Arc::new(RealFs), &folder, done).unwrap();
        let write = |file: &mut Tensorboard, steps: std::ops::RangeInclusive<u64>| {
            steps.for_each(|at| file.write(&step(at, 2.0)).unwrap());
        };
        write(&mut open(None), 1..=5);
        // Killed in the middle of a record.
        let first = event_files(&folder).unwrap()[0].0.clone();
        let mut torn = fs::read(&first).unwrap();
        torn.extend(&record_of(&step(6, 2.0), 0.0).unwrap()[..20]);
        fs::write(&first, torn).unwrap();
        write(&mut open(Some(3)), 4..=8);
        // The opening record of a resumed run tells from where on to forget.
        assert_eq!(steps(&folder), [vec![0, 1, 2, 3], vec![0, 4, 4, 5, 6, 7, 8]]);
        write(&mut open(Some(2)), 3..=4);
        assert_eq!(steps(&folder), [vec![0, 1, 2], vec![0], vec![0, 3, 3, 4]]);
        // Begun anew: nothing of before counts.
        write(&mut open(None), 1..=1);
        assert_eq!(steps(&folder), [vec![0, 1]]);
    }

    #[test]
    fn a_damaged_record_ends_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name(1));
        let good = [header(1.0), record_of(&step(1, 2.0), 1.0).unwrap()].concat();
        for at in good.len() - 20..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(whole_until(&path, 9).unwrap(), header(1.0).len() as u64, "byte {at}");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(whole_until(&path, 9).unwrap(), good.len() as u64);
    }

    #[test]
    fn a_log_is_exported_as_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let events = run("a", 20, 20, 0.0);
        let mut timed = events.iter().enumerate().map(|(i, event)| Ok::<_, io::Error>((i as f64, event.clone())));
        let path = export(&RealFs, folder.path(), &mut timed).unwrap();
        assert!(path.ends_with("events.out.tfevents.0000000001.fornax"));
        // 20 steps, 10 validations, 4 samples, and the opening record.
        assert_eq!(steps(folder.path())[0].len(), 35);
        let mut broken = [Err(io::Error::other("gone"))].into_iter();
        assert!(export(&RealFs, &folder.path().join("b"), &mut broken).is_err());
        assert_eq!(fs::read_dir(folder.path().join("b")).unwrap().count(), 0);
    }
}
