//! A run's metrics as TensorBoard reads them.
//!
//! An event file is a sequence of records (TFRecord): the length of the data as u64, a checksum of
//! these 8 bytes, the data, and a checksum of it, all little-endian. The data is a protocol-buffer
//! message `Event` (`tensorboard/compat/proto/event.proto` and `summary.proto`). A run needs a few
//! of its fields:
//!
//! ```text
//! Event        1: wall_time, double   2: step, int64   3: file_version, string
//!              5: summary, Summary    7: session_log, SessionLog
//! Summary      1: value, Value, repeated
//! Value        1: tag, string         2: simple_value, float
//! SessionLog   1: status, enum with START = 1
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Evaluation, Metric, Observer, Outline, StepReport, TrainError};

/// The prefix of event files. TensorBoard reads every file of a folder whose name contains it, in
/// the order of their names.
const PREFIX: &str = "events.out.tfevents.";
/// The form of the events, in the first of each file.
const VERSION: &str = "brain.Event:2";

/// Writes a run's metrics as event files, for `tensorboard --logdir DIR`: those of
/// [`Metrics`](super::Metrics), as scalars `train/loss`, `train/lr`, `train/images_per_s`, `val/loss`,
/// `val/top1_error` and so on, by step. Each event is written when it happens.
///
/// A resumed run, and any other that finds event files in its folder, begins a new file and has
/// TensorBoard drop the steps after the checkpoint, which are done again.
///
/// A [`RunFolder`](super::RunFolder) has a folder for them:
///
/// ```no_run
/// use densenet_runtime::train::{RunFolder, TensorBoard, Trainer};
///
/// # fn observe<N: densenet_runtime::Network>(trainer: &Trainer<N>) -> Result<(), densenet_runtime::train::TrainError> {
/// let folder = RunFolder::create("out")?;
/// let mut observers = folder.observers(trainer, "A run")?;
/// if trainer.writes() {
///     observers.push(Box::new(TensorBoard::new(folder.tensorboard())));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    file: Option<(PathBuf, File)>,
}

impl TensorBoard {
    /// Event files in a folder, which is made when the run begins.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            file: None,
        }
    }

    /// Starts a file; `step` is the first that it will have.
    fn open(&self, step: u64) -> Result<(PathBuf, File), TrainError> {
        let folder = &self.folder;
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let last = last_second(folder).map_err(failed("list", folder))?;
        let now = now().as_secs();
        // After all existing files, whatever the clock says.
        let mut second = last.map_or(now, |last| now.max(last.saturating_add(1)));
        let (path, mut file) = loop {
            let name = format!("{PREFIX}{second:010}.densenet.{}.0", std::process::id());
            let path = folder.join(name);
            let created = OpenOptions::new().append(true).create_new(true).open(&path);
            match created {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => second += 1,
                Err(error) => return Err(failed("create", &path)(error)),
            }
        };
        let wall_time = now_seconds();
        let mut records = record(&Event::new(wall_time, 0).version(VERSION));
        if last.is_some() {
            records.extend(record(&Event::new(wall_time, step).restarted()));
        }
        file.write_all(&records).map_err(failed("write", &path))?;
        Ok((path, file))
    }

    fn write(&mut self, step: u64, kind: &str, metric: &Metric) -> Result<(), TrainError> {
        let (path, mut file) = match self.file.take() {
            Some(open) => open,
            None => self.open(step)?,
        };
        let mut scalars = Vec::new();
        // This cannot fail: JSON has a form for numbers and fixed names.
        let fields = serde_json::to_value(metric).unwrap_or_default();
        collect(kind, &fields, &mut scalars);
        let event = Event::new(now_seconds(), step).scalars(&scalars);
        let written = file.write_all(&record(&event));
        let failed = failed("write", &path);
        self.file = Some((path, file));
        written.map_err(failed)
    }
}

impl Observer for TensorBoard {
    fn begin(&mut self, outline: &Outline) -> Result<(), TrainError> {
        if self.file.is_none() {
            self.file = Some(self.open(outline.step.saturating_add(1))?);
        }
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        self.write(report.step, "train", &report.into())
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        self.write(evaluation.step, "val", &evaluation.into())
    }
}

/// The numbers of a metric by their tags. The event has the time and the step.
fn collect(tag: &str, value: &Value, into: &mut Vec<(String, f32)>) {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter();
            for (name, value) in fields.filter(|(name, _)| !["step", "epoch"].contains(&&***name)) {
                let name = name.strip_prefix("val_").unwrap_or(name);
                collect(&format!("{tag}/{name}"), value, into);
            }
        }
        Value::Number(number) => into.extend(
            number
                .as_f64()
                .map(|number| (tag.to_owned(), number as f32)),
        ),
        // Lists have a number for each class by its index; in JSON, NaN is null.
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                collect(&format!("{tag}/{index}"), value, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The latest second in the names of event files, which have at least ten digits.
fn last_second(folder: &Path) -> std::io::Result<Option<u64>> {
    let mut last = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(rest) = name.to_string_lossy().strip_prefix(PREFIX) {
            let second = rest.split('.').next().unwrap_or_default();
            last = last.max(Some(second.parse().unwrap_or(0)));
        }
    }
    Ok(last)
}

fn now() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Seconds since 1970.
fn now_seconds() -> f64 {
    now().as_secs_f64()
}

/// A message of protocol buffers. Fields are written in the order of their numbers.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// Numbers with seven bits per byte, lowest first; the top bit says that more follow.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A field's number and how its value is encoded.
    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn integer(mut self, field: u64, value: u64) -> Self {
        self.key(field, 0);
        self.varint(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Text, or a message.
    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }
}

/// The fields of an event that are written.
struct Event(Message);

impl Event {
    fn new(wall_time: f64, step: u64) -> Self {
        let message = Message::default().double(1, wall_time);
        // Fields of value 0 are left out.
        Self(match step {
            0 => message,
            _ => message.integer(2, step),
        })
    }

    /// The first event of a file.
    fn version(self, version: &str) -> Self {
        Self(self.0.bytes(3, version.as_bytes()))
    }

    fn scalars(self, scalars: &[(String, f32)]) -> Self {
        let mut summary = Message::default();
        for (tag, value) in scalars {
            let value = Message::default().bytes(1, tag.as_bytes()).float(2, *value);
            summary = summary.bytes(1, &value.0);
        }
        Self(self.0.bytes(5, &summary.0))
    }

    /// Earlier events of this step and later ones are dropped.
    fn restarted(self) -> Self {
        let start = Message::default().integer(1, 1);
        Self(self.0.bytes(7, &start.0))
    }
}

/// An event with its length and the checksums of both.
fn record(event: &Event) -> Vec<u8> {
    let data = &event.0.0;
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(crc32c(&length)).to_le_bytes());
    record.extend(data);
    record.extend(masked(crc32c(data)).to_le_bytes());
    record
}

/// CRC-32C (Castagnoli), bit by bit: an event has about a hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let is_odd = crc & 1 == 1;
            crc >>= 1;
            if is_odd {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}

/// TFRecord rotates and offsets its checksums, since a checksum over bytes that contain one is weak.
const fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TrainError + use<> {
    let path = path.to_path_buf();
    move |source| TrainError::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records by TensorBoard's own writer (`scripts/read_events.py golden`).
    const SCALARS: &str = "3d000000000000006049f1ec0900001040fc54d94110ac022a2f0a110a0a747261696e2f6c6f7373150000203f0a1a0a13747261696e2f6c6561726e696e675f7261746515cdcccc3d899f7eb1";
    const RESTARTED: &str = "100000000000000095fbfe180900001040fc54d94110ad023a020801cb79b93b";
    const FIRST: &str =
        "1800000000000000a37f4b220900001040fc54d9411a0d627261696e2e4576656e743a32338d2fe9";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn records_are_those_of_tensorboards_writer_to_the_byte() {
        let wall_time = 1_700_000_000.25;
        let scalars = [
            ("train/loss".to_owned(), 0.625),
            ("train/learning_rate".to_owned(), 0.1),
        ];
        let event = Event::new(wall_time, 300).scalars(&scalars);
        assert_eq!(hex(&record(&event)), SCALARS);
        let event = Event::new(wall_time, 301).restarted();
        assert_eq!(hex(&record(&event)), RESTARTED);
        let event = Event::new(wall_time, 0).version(VERSION);
        assert_eq!(hex(&record(&event)), FIRST);
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
