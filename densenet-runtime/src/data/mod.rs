//! Images: where they come from, how they are varied, and how they reach the network in time.
//!
//! A [`Dataset`] serves one labelled image at a time, as bytes of a fixed shape: pictures in
//! folders ([`ImageFolder`]) or listed by a table ([`TablePictures`]), or images held in memory ([`InMemory`]), read from [IDX](idx),
//! [CIFAR](cifar) or [SVHN](svhn) files. A [`Loader`] prefetches in the background and serves
//! batches. The same seed gives the same batches, however many threads load them.

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
mod pictures;
mod resize;
mod rng;
mod shift;
pub mod svhn;
mod table;

pub use crate::Normalization;
pub use crops::Crops;
pub use dataset::{Dataset, Target, check_fit, check_same_classes};
pub use decode::{MAX_PIXELS, Rgb, decode, decode_within, read, read_within};
pub use error::{DataError, PictureError};
pub use folder::ImageFolder;
pub use geometry::RandomResizedCrop;
pub use in_memory::InMemory;
pub use loader::{Epoch, LoadedBatch, LoadedTargets, Loader, OnBroken, SkippedImage};
pub use pictures::Pictures;
pub use rng::Rng;
pub use shift::ShiftAndFlip;
pub use table::{Columns, LabelKind, Labels, Table, TablePictures};
