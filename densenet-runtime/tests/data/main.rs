//! Data: pictures and files become the images that they should be, batches are the same however
//! they are loaded, and what is wrong with data is said.

mod cifar;
mod folder;
mod idx;
mod loader;
mod pictures;
mod svhn;
