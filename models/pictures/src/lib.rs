//! A small set of drawn pictures, to train on when no other data is at hand.
//!
//! Ten classes of figures and textures in random colours, places, sizes and rotations on uneven
//! ground, as JPEG files in the layout that [`ImageFolder`](densenet_runtime::data::ImageFolder)
//! reads. A network learns to tell them apart from a few hundred pictures.

mod error;
mod scene;
mod subject;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use densenet_runtime::data::{Rgb, Rng};
use jpeg_encoder::{ColorType, Encoder, EncodingError};

use self::scene::Scene;

pub use error::PicturesError;
pub use subject::Subject;

/// The pictures to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSet {
    /// The seed of all pictures.
    pub seed: u64,
    /// The approximate number of pixels of the short side; sizes vary by up to an eighth.
    pub size: u32,
    /// The number of pictures of each class for training.
    pub train: usize,
    /// The number of pictures of each class for validation; none of them is a training picture.
    pub val: usize,
}

impl Default for PictureSet {
    /// 64 pictures of each class for training and 16 for validation, of 256 pixels.
    fn default() -> Self {
        Self {
            seed: 0,
            size: 256,
            train: 64,
            val: 16,
        }
    }
}

/// The file in a folder of pictures that identifies them. A change of the drawings needs a new version.
const MARKER: &str = "pictures.txt";
/// The prefix of the folders in which pictures are drawn, and the file in them that the drawing
/// program has locked.
const WORKSHOP: &str = ".pictures-";
const LOCK: &str = "lock";
/// More time than a program needs between making its workshop and locking it.
const SETTLED: Duration = Duration::from_secs(10);
const VERSION: u32 = 3;

/// Makes `DIR/train/CLASS/*.jpg` and `DIR/val/CLASS/*.jpg`, unless they exist, and returns
/// whether it made them. The same [`PictureSet`] give the same files.
///
/// They are drawn beside the folder and moved there when they are complete: a folder that exists is
/// whole, and several programs may make it at once. The remains of programs that were killed
/// meanwhile are removed.
///
/// # Errors
/// If the folder holds anything but these pictures, or cannot be written; when there
/// would be no pictures, or too small ones.
pub fn make(dir: impl AsRef<Path>, pictures: &PictureSet) -> Result<bool, PicturesError> {
    let dir = dir.as_ref();
    pictures.check()?;
    if is_there(dir, pictures)? {
        return Ok(false);
    }
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(PicturesError::io("create", parent))?;
    remove_left_workshops(parent);
    let workshop = tempfile::Builder::new()
        .prefix(WORKSHOP)
        .tempdir_in(parent)
        .map_err(PicturesError::io("create a folder in", parent))?;
    // Held until the workshop is removed: it is in use.
    let lock = workshop.path().join(LOCK);
    let held = fs::File::create(&lock).map_err(PicturesError::io("create", &lock))?;
    // Without locks the workshops of killed programs stay, and nothing else happens.
    let _ = held.try_lock();
    // Only its owner may read the workshop itself; the files in it have the usual permissions.
    let made = workshop.path().join("pictures");
    pictures.draw(&made)?;
    let marker = made.join(MARKER);
    fs::write(&marker, pictures.description()).map_err(PicturesError::io("write", marker))?;
    match fs::rename(&made, dir) {
        Ok(()) => Ok(true),
        // Another program may have been faster.
        Err(_) if is_there(dir, pictures)? => Ok(false),
        Err(error) => Err(PicturesError::io("create", dir)(error)),
    }
}

/// Removes the workshops of programs that were killed. What cannot be removed stays.
fn remove_left_workshops(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let is_workshop = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(WORKSHOP.as_bytes());
        // A new workshop may not be locked yet.
        let is_old = |lock: &fs::File| {
            let made = lock.metadata().and_then(|lock| lock.modified());
            made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > SETTLED))
        };
        if is_workshop
            && let Ok(lock) = fs::File::open(entry.path().join(LOCK))
            && is_old(&lock)
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a folder holds these pictures. An empty folder counts as missing.
fn is_there(dir: &Path, pictures: &PictureSet) -> Result<bool, PicturesError> {
    let occupied = |found: String| PicturesError::Occupied {
        path: dir.to_owned(),
        found,
    };
    let marker = dir.join(MARKER);
    match fs::read_to_string(&marker) {
        Ok(found) if found == pictures.description() => return Ok(true),
        Ok(found) => {
            return Err(occupied(format!(
                "holds other pictures ({}) than those requested ({})",
                found.trim(),
                pictures.description().trim()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(PicturesError::io("read", marker)(error)),
    }
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(PicturesError::io("list", dir)(error)),
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(occupied(
                "holds something that was not made here".to_owned(),
            )),
            None => {
                fs::remove_dir(dir).map_err(PicturesError::io("replace", dir))?;
                Ok(false)
            }
        },
    }
}

/// One of the files.
struct File {
    subject: Subject,
    path: PathBuf,
    rng: Rng,
}

impl PictureSet {
    fn check(&self) -> Result<(), PicturesError> {
        const LEAST: u32 = 32;
        const MOST: u32 = 4096;
        if !(LEAST..=MOST).contains(&self.size) {
            return Err(PicturesError::Options(format!(
                "pictures of {} pixels were requested; {LEAST} to {MOST} can be drawn",
                self.size
            )));
        }
        if self.train == 0 || self.val == 0 {
            return Err(PicturesError::Options(
                "no pictures were requested; training and validation each need at least one of \
                    each class"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn description(&self) -> String {
        let Self {
            seed,
            size,
            train,
            val,
        } = self;
        format!("version {VERSION}, seed {seed}, size {size}, train {train}, val {val}\n")
    }

    /// Draws all pictures into a new folder.
    fn draw(&self, dir: &Path) -> Result<(), PicturesError> {
        let mut files = Vec::new();
        for (part, (set, count)) in (0..).zip([("train", self.train), ("val", self.val)]) {
            for (label, subject) in (0..).zip(Subject::ALL) {
                let class = dir.join(set).join(subject.name());
                fs::create_dir_all(&class).map_err(PicturesError::io("create", &class))?;
                for number in 0..count {
                    files.push(File {
                        subject,
                        path: class.join(format!("{number:04}.jpg")),
                        rng: Rng::new(self.seed, part, (label << 32) + number as u64),
                    });
                }
            }
        }
        let workers = thread::available_parallelism().map_or(1, Into::into);
        let share = files.len().div_ceil(workers);
        thread::scope(|scope| {
            let workers: Vec<_> = files
                .chunks_mut(share)
                .map(|files| {
                    scope.spawn(|| files.iter_mut().try_for_each(|file| file.make(self.size)))
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| match worker.join() {
                    Ok(outcome) => outcome,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })
    }
}

impl File {
    fn make(&mut self, size: u32) -> Result<(), PicturesError> {
        let picture = self.subject.draw(size, &mut self.rng);
        let written = picture
            .ok_or_else(|| io::Error::other("the picture is too large"))
            .and_then(|picture| encode(&picture).map_err(io::Error::other))
            .and_then(|jpeg| fs::write(&self.path, jpeg));
        written.map_err(PicturesError::io("write", &self.path))
    }
}

fn encode(picture: &Rgb) -> Result<Vec<u8>, EncodingError> {
    const QUALITY: u8 = 90;
    // A side has at most 1.25 times the 4096 pixels that can be requested.
    let (width, height) = (picture.width as u16, picture.height as u16);
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, QUALITY).encode(&picture.pixels, width, height, ColorType::Rgb)?;
    Ok(bytes)
}
