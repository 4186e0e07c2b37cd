//! DenseNets that are compiled from one line: this crate trains them, saves them and predicts with
//! them.
//!
//! # A network
//!
//! [`densenet!`] turns a spec into a type. Its shapes, its parameters and the memory of a training
//! step are constants, and a mistake in the spec does not compile.
//!
//! ```
//! use densenet_runtime::prelude::*;
//!
//! densenet! {
//!     /// DenseNet-BC for photographs of cats and dogs.
//!     pub Pets {
//!         blocks: [6, 12, 24], k: 12, theta: 0.5, bottleneck,
//!         input: [3, 64, 64], classes: ["cat", "dog"],
//!     }
//! }
//!
//! assert_eq!(Pets::PARAMETERS, 612_962);
//! let pets = Cpu::seed_from_u64(1).build_module::<Pets, f32>();
//! let logits = pets.forward(Pets::images(vec![0.0; 5 * 3 * 64 * 64])?);
//! assert_eq!(logits.as_vec().len(), 5 * 2);
//! # Ok::<(), densenet_runtime::nn::ForwardError>(())
//! ```
//!
//! # Training
//!
//! The pictures are in folders: `pets/train/cat/*.jpg`, `pets/train/dog/*.jpg`, and the same in
//! `pets/val`. The run writes a checkpoint, metrics and a drawing of its curves to `out`.
//!
//! ```no_run
//! # use densenet_runtime::prelude::*;
//! # densenet! { Pets { blocks: [6, 12, 24], k: 12, theta: 0.5, bottleneck, input: [3, 64, 64], classes: ["cat", "dog"] } }
//! use std::error::Error;
//! use std::sync::Arc;
//!
//! fn train() -> Result<Pets, Box<dyn Error>> {
//!     let config = Config {
//!         epochs: 30,
//!         batch: 32,
//!         schedule: Schedule::cosine(0.05, 1.0),
//!         ..Config::imagenet()
//!     };
//!     let (train, val) = ImageFolder::train_and_val("pets", [64, 64])?;
//!     let train = Loader::training(Arc::new(train), config.batch)?.seeded(config.seed);
//!     let val = Loader::evaluation(Arc::new(val), config.batch)?;
//!
//!     let model = Cpu::seed_from_u64(config.seed).build_module::<Pets, f32>();
//!     let mut trainer = Trainer::new(model, config)?;
//!     let folder = RunFolder::create("out")?;
//!     let fit = Fit { interrupt: Interrupt::on_ctrl_c()?, ..folder.fit() };
//!     let mut observers = folder.observers(&trainer, "Cats and dogs")?;
//!     trainer.fit(&train, &val, &fit, &mut observers)?;
//!     Ok(trainer.into_model()?)
//! }
//! # train().unwrap();
//! ```
//!
//! [`Trainer::on`](train::Trainer::on) trains on a CUDA device,
//! [`Trainer::among`](train::Trainer::among) in several processes, and
//! [`Trainer::resume`](train::PlanTrainer::resume) continues from a checkpoint as if the run had never stopped.
//!
//! # Saving
//!
//! Files are safetensors under torchvision's names; so are checkpoints. PyTorch's own files are
//! read and written as well (`.pth`, `.pt`, `.bin`).
//!
//! ```
//! # use densenet_runtime::prelude::*;
//! # densenet! { Pets { blocks: [2, 2], k: 12, theta: 0.5, bottleneck, input: [3, 64, 64], classes: ["cat", "dog"] } }
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("pets.safetensors");
//! # let pets = Cpu::seed_from_u64(1).build_module::<Pets, f32>();
//! pets.save_weights(&path)?;
//! let mut pets = Cpu::default().build_module::<Pets, f32>();
//! pets.load_weights(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Predicting
//!
//! The frozen form is for inference: it is several times as fast, and a call allocates nothing.
//! [`freeze_on`](Network::freeze_on) makes it for a device of either kind.
//!
//! ```no_run
//! # use densenet_runtime::prelude::*;
//! # densenet! { Pets { blocks: [6, 12, 24], k: 12, theta: 0.5, bottleneck, input: [3, 64, 64], classes: ["cat", "dog"] } }
//! use std::error::Error;
//! use densenet_runtime::data::{self, Crops, Normalization};
//!
//! fn species(pets: &Pets, picture: &str) -> Result<&'static str, Box<dyn Error>> {
//!     let bytes = Crops::Centre.show(&data::read(picture)?, [64, 64])?;
//!     let mut frozen = pets.freeze(FrozenOptions::default())?;
//!     let logits = frozen.infer(Normalization::imagenet().pixels(&bytes), 1)?;
//!     Ok(Pets::CLASSES[usize::from(logits[1] > logits[0])])
//! }
//! ```
//!
//! # The rest
//!
//! - [`plan`]: the shapes, counts and memory of a network before it runs.
//! - [`nn`]: its layers as dfdx modules; a network trains in dfdx's own loop, too.
//! - [`train`], [`parallel`]: the trainer, its schedules and checkpoints; several processes.
//! - [`data`]: pictures in folders, MNIST, CIFAR, SVHN; augmentation; loaders.
//! - [`weights`]: files, and what is in them.
//! - [`figures`]: the figures of the DenseNet paper, drawn from your own runs.
//! - [`cpu`], `cuda`: the executors, which implement [`Executor`].

mod classes;
pub mod console;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "data")]
pub mod data;
mod device;
mod executor;
#[cfg(feature = "figures")]
pub mod figures;
mod files;
mod frozen;
pub mod nn;
mod normalization;
pub mod parallel;
pub mod prelude;
#[cfg(feature = "train")]
pub mod train;
pub mod weights;

pub use densenet_macros::densenet;
pub use densenet_plan as plan;
pub use device::{BestDevice, Device, DeviceChoice, UnknownDevice};
pub use dfdx;
pub use executor::{
    AdamW, Arena, Batch, Descent, Executor, ExecutorError, Group, Inference, LossWeights, MapsOf,
    Optimizer, Outcome, Outputs, Pending, Pixels, Sgd, Step, Targets,
};
pub use frozen::Frozen;
pub use nn::network::Network;
pub use normalization::Normalization;
