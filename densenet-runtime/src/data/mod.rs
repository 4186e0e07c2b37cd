//! Images: their sources, their augmentation, and loaders that prefetch them.
//!
//! A [`Dataset`] serves one labelled image at a time, as bytes or floats of a fixed shape: pictures in
//! folders ([`ImageFolder`]) or listed by a table ([`TablePictures`]), others by their [paths](PictureFiles),
//! or images held in memory ([`InMemory`]), read from [IDX](idx),
//! [CIFAR](cifar) or [SVHN](svhn) files. A [`Loader`] prefetches in the background and serves
//! batches. The same seed gives the same batches, however many threads load them.

mod augment;
mod balance;
pub mod cifar;
mod crops;
mod dataset;
mod decode;
mod error;
mod folder;
pub mod geometry;
pub mod idx;
mod in_memory;
mod loader;
mod mat;
mod nearest;
mod picture_files;
mod pictures;
mod raster;
mod resize;
mod rng;
mod sheet;
mod shift;
mod split;
mod subset;
pub mod svhn;
mod table;

pub use crate::Normalization;
pub use augment::{Augmentation, Jitter, Policy, Sampling};
pub use balance::{class_weights, positive_weights};
pub use crops::{Crops, EvaluationCrop};
pub use dataset::{Dataset, Target, check_fit, check_same_classes};
pub use decode::{
    Deep, Depth, MAX_PIXELS, Picture, Rgb, SampleRange, decode, decode_deep, decode_within, read,
    read_within,
};
pub use error::{DataError, PictureError};
pub use folder::{ImageFolder, pictures_in};
pub use geometry::RandomResizedCrop;
pub use in_memory::InMemory;
pub use loader::{
    Epoch, LoadedBatch, LoadedPixels, LoadedTargets, Loader, Mix, OnBroken, SkippedImage,
};
pub use picture_files::PictureFiles;
pub use pictures::{EXTENSIONS, Pictures};
pub use resize::Interpolation;
pub use rng::Rng;
pub use shift::ShiftAndFlip;
pub use split::{Split, check_apart};
pub use subset::Subset;
pub use table::{Columns, LabelKind, Labels, Table, TablePictures};
