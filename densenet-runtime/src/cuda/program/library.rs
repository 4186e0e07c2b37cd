//! The programs of a plan, each once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::driver::{CudaDevice, Module, Source};
use super::super::error::CudaError;
use super::cache::{Cache, image};

/// Programs, each once: compiled and loaded, or on paper.
pub struct Library {
    programs: Vec<(Source, Module)>,
}

/// The sources, each once.
fn distinct(sources: Vec<Source>) -> Vec<Source> {
    let mut distinct: Vec<Source> = Vec::new();
    for source in sources {
        if !distinct.contains(&source) {
            distinct.push(source);
        }
    }
    distinct
}

impl Library {
    /// Programs that are not compiled.
    pub fn on_paper(sources: Vec<Source>) -> Self {
        let programs = distinct(sources).into_iter();
        Self {
            programs: programs
                .map(|source| (source, Module::on_paper()))
                .collect(),
        }
    }

    /// Compiles on all cores, then loads.
    pub fn load(
        device: &CudaDevice,
        sources: Vec<Source>,
        cache: &Cache,
    ) -> Result<Self, CudaError> {
        let distinct = distinct(sources);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // Programs take different times to compile: each thread takes the next one as soon as it is
        // free.
        let next = AtomicUsize::new(0);
        let images: Vec<OnceLock<_>> = distinct.iter().map(|_| OnceLock::new()).collect();
        std::thread::scope(|scope| {
            for _ in 0..threads.min(distinct.len()) {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let (Some(source), Some(place)) =
                            (distinct.get(number), images.get(number))
                        else {
                            break;
                        };
                        let _ = place.set(image(device, source, cache));
                    }
                });
            }
        });
        let mut programs = Vec::with_capacity(distinct.len());
        for (source, image) in distinct.into_iter().zip(images) {
            if let Some(image) = image.into_inner() {
                programs.push((source, device.load(image?)?));
            }
        }
        Ok(Self { programs })
    }

    /// The sources.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.programs.iter().map(|(source, _)| source)
    }

    /// The kernels of a program, which must be one of these.
    pub fn find<T>(
        &self,
        source: &Source,
        find: fn(&Module, &Source) -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        let loaded = self.programs.iter().find(|(loaded, _)| loaded == source);
        match loaded {
            Some((_, module)) => find(module, source),
            None => Err(CudaError::Driver {
                doing: format!("looking for the {} kernels", source.family),
                message: "they were not compiled".into(),
            }),
        }
    }
}
