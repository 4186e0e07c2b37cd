//! How many images a second a loader serves: training crops at 224x224 of 500x375 JPEGs.
//!
//! ```text
//! cargo run --release -p densenet-runtime --example loader_throughput [DIR]
//! ```
//! DIR is a folder of classes; without it one is made. Prints a JSON object for each number of
//! workers.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use densenet_runtime::data::{ImageFolder, Loader, Rng};
use densenet_runtime::{console, say, tell};
use jpeg_encoder::{ColorType, Encoder};

const BATCH: usize = 32;
const BATCHES: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let made = tempfile::tempdir()?;
    let dir = match std::env::args_os().nth(1) {
        Some(dir) => PathBuf::from(dir),
        None => {
            make(made.path())?;
            made.path().to_owned()
        }
    };
    let dataset = Arc::new(ImageFolder::open(dir, [224, 224])?);
    let processors = std::thread::available_parallelism()?.get();
    for workers in [1, processors] {
        let loader = Loader::training(dataset.clone(), BATCH)?.workers(workers);
        // The first batch pays for starting.
        let mut batches = (0..).flat_map(|epoch| loader.epoch(epoch));
        batches.next().transpose()?;
        let start = Instant::now();
        for batch in batches.take(BATCHES) {
            batch?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let images_per_s = (BATCH * BATCHES) as f64 / seconds;
        say!(r#"{{"workers": {workers}, "images_per_s": {images_per_s:.0}}}"#);
        console::check()?;
    }
    Ok(())
}

/// Photographs come to about 110 KB at this size, as do these: smooth waves with grain.
fn make(dir: &Path) -> Result<(), Box<dyn Error>> {
    const WIDTH: u16 = 500;
    const HEIGHT: u16 = 375;
    let class = dir.join("class");
    fs::create_dir(&class)?;
    for number in 0..64 {
        let mut rng = Rng::new(0, 0, number);
        let frequency = rng.between(0.02, 0.2);
        let mut pixels = Vec::new();
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let wave = ((f64::from(x) * frequency).sin() + (f64::from(y) / 9.0).cos()) * 50.0;
                let grain = rng.between(-11.0, 11.0);
                pixels.extend([1.0, 0.8, -0.6].map(|c| (127.0 + c * wave + grain) as u8));
            }
        }
        let mut jpeg = Vec::new();
        Encoder::new(&mut jpeg, 90).encode(&pixels, WIDTH, HEIGHT, ColorType::Rgb)?;
        fs::write(class.join(format!("{number}.jpg")), jpeg)?;
    }
    let size: u64 = fs::read_dir(&class)?
        .map(|entry| Ok(entry?.metadata()?.len()))
        .sum::<std::io::Result<u64>>()?;
    tell!("made 64 pictures of {} KB each", size / 64 / 1000);
    Ok(())
}
