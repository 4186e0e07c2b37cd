//! Which programs a plan needs, with which constants, and their kernels.
//!
//! What all layers of a block share is a constant of its program: size, strides, maps. What
//! grows from layer to layer is a launch argument, so that a block needs one program for each
//! side of its convolutions, whatever its depth.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cudarc::driver::CudaModule;

use super::buffers::{Places, WeightAt};
use super::compile::{Cache, Source, image};
use super::driver::{Device, Kernel};
use super::error::CudaError;
use super::tiles::{
    maps_of_back, pointwise_back_shared, pointwise_columns, spatial_rows, spatial_shared,
    stem_elements, vector, vector_of,
};
use crate::plan::Precision;
use crate::plan::norm::{EPSILON, MOMENTUM};
use crate::plan::{Block, Dropout, Plan, Stem, StemKind, Transition};

const COMMON: &str = include_str!("kernels/common.cuh");
const PRODUCT: &str = include_str!("kernels/product.cuh");
const PULL: &str = include_str!("kernels/pull.cuh");
const POINTWISE: &str = include_str!("kernels/pointwise.cu");
const SPATIAL: &str = include_str!("kernels/spatial.cu");
const TRANSITION: &str = include_str!("kernels/transition.cu");
const STEM: &str = include_str!("kernels/stem.cu");
const POOL: &str = include_str!("kernels/pool.cu");
const HEAD: &str = include_str!("kernels/head.cu");
const NORM: &str = include_str!("kernels/norm.cu");
const STEP: &str = include_str!("kernels/step.cu");
const WEIGHTS: &str = include_str!("kernels/weights.cu");

/// The kernels of a file, by name.
macro_rules! family {
    ($(#[$docs:meta])* $name:ident { $($kernel:ident),* $(,)? }) => {
        $(#[$docs])*
        pub(super) struct $name {
            $(pub $kernel: Kernel,)*
        }

        impl $name {
            fn find(module: Option<&Arc<CudaModule>>, source: &Source) -> Result<Self, CudaError> {
                Ok(Self {
                    $($kernel: Kernel::find(module, stringify!($kernel), source)?,)*
                })
            }
        }
    };
}

family! {
    /// The 1x1 convolutions of a block's layers.
    Pointwise { pointwise_forward, pointwise_back }
}
family! {
    /// The 3x3 convolutions of a block's layers.
    Spatial { spatial_forward, spatial_pull, spatial_weight }
}
family! {
    /// A transition.
    TransitionKernels {
        transition_forward, transition_forward_dropped,
        transition_pull, transition_pull_dropped,
        transition_weight, transition_weight_dropped,
    }
}
family! {
    /// The stem's convolution.
    StemKernels { stem_forward, stem_weight }
}
family! {
    /// The ImageNet stem's pool.
    PoolKernels { stem_pool, stem_sums }
}
family! {
    /// The last layers and the loss.
    HeadKernels {
        head_pool, classify, cross_entropy, classify_weight, classify_features, head_pull,
    }
}
family! {
    /// Batch normalisation around the convolutions.
    NormKernels { prepare, gather, finish, undo, undo_numbers }
}
family! {
    /// What surrounds a step.
    StepKernels { images_from_nchw, images_from_bytes, start, descend }
}
family! {
    /// Weights as operands.
    WeightKernels { pack_weights }
}

/// The kernels of a block.
pub(super) struct BlockKernels {
    /// The 1x1 convolutions of bottleneck layers.
    pub pointwise: Option<Pointwise>,
    /// The 3x3 convolutions.
    pub spatial: Spatial,
}

/// All kernels of a plan.
pub(super) struct Kernels {
    pub stem: StemKernels,
    pub pool: Option<PoolKernels>,
    pub blocks: Vec<BlockKernels>,
    pub transitions: Vec<TransitionKernels>,
    pub head: HeadKernels,
    pub norm: NormKernels,
    pub step: StepKernels,
    pub weights: WeightKernels,
}

/// A file with what it includes and its constants.
fn program(
    family: &'static str,
    plan: &Plan,
    precision: Precision,
    parts: &[(&'static str, &str)],
    constants: &[(&'static str, usize)],
) -> Source {
    let mut text = String::new();
    for (name, part) in parts {
        text += &format!("#line 1 \"{name}\"\n{part}\n");
    }
    // Fractions go into the text as they are.
    let fractions = format!("#define EPSILON {EPSILON:e}\n#define MOMENTUM {MOMENTUM:e}\n");
    let mut constants = constants.to_vec();
    constants.push(("BF16", usize::from(precision == Precision::Bf16)));
    if let Some(dropout) = Dropout::new(plan.dropout()) {
        constants.push(("DROPOUT", 1));
        constants.push(("DROPOUT_THRESHOLD", dropout.threshold as usize));
        constants.push(("DROPOUT_SCALE", dropout.scale.to_bits() as usize));
    }
    Source {
        family,
        text: fractions + &text,
        constants,
    }
}

/// The programs of a plan.
struct Sources<'a> {
    plan: &'a Plan,
    precision: Precision,
}

impl Sources<'_> {
    fn tiled(
        &self,
        family: &'static str,
        files: &[(&'static str, &str)],
        constants: &[(&'static str, usize)],
    ) -> Source {
        let mut parts = vec![
            ("common.cuh", COMMON),
            ("product.cuh", PRODUCT),
            ("pull.cuh", PULL),
        ];
        parts.extend(files);
        program(family, self.plan, self.precision, &parts, constants)
    }

    fn plain(
        &self,
        family: &'static str,
        file: (&'static str, &str),
        constants: &[(&'static str, usize)],
    ) -> Source {
        let parts = [("common.cuh", COMMON), file];
        program(family, self.plan, self.precision, &parts, constants)
    }

    fn weights(&self) -> Source {
        let places = Places::new(self.plan);
        let len = |own: WeightAt| own.maps * own.channels * own.taps;
        let values = places.packed_weights().map(len).sum();
        self.plain("weights", ("weights.cu", WEIGHTS), &[("VALUES", values)])
    }

    fn stem(&self, stem: &Stem, first: &Block) -> Source {
        let constants = [
            ("KERNEL", stem.kernel()),
            ("STEP", stem.stride()),
            ("CHANNELS", stem.channels),
            ("HEIGHT", stem.height),
            ("WIDTH", stem.width),
            ("MAPS", stem.maps),
            ("ELEMENTS", stem_elements(stem.weight_len() / stem.maps)),
            ("POOL", usize::from(stem.kind == StemKind::ImageNet)),
            (
                "VECTOR",
                vector(self.precision, &[stem.maps, first.output()]),
            ),
        ];
        let files = [("stem.cu", STEM), ("pool.cu", POOL)];
        let count = if stem.kind == StemKind::ImageNet {
            2
        } else {
            1
        };
        self.tiled("stem", &files[..count], &constants)
    }

    fn pointwise(&self, block: &Block, maps: usize) -> Source {
        let group = maps_of_back(maps, self.precision);
        let (shared, tiles) = pointwise_back_shared(maps, self.precision);
        let counts = [block.input, block.growth, maps];
        let constants = [
            ("IN_STRIDE", block.output()),
            ("MAPS", maps),
            ("COLUMNS", pointwise_columns(maps)),
            ("GROUP", group),
            ("TILES", tiles),
            ("VECTOR", vector(self.precision, &counts)),
            ("POINTWISE_BACK_SHARED", shared),
        ];
        self.tiled("pointwise", &[("pointwise.cu", POINTWISE)], &constants)
    }

    fn spatial(&self, block: &Block) -> Source {
        let read = block.bottleneck.unwrap_or(block.output());
        let [forward, pull, weight] = spatial_shared(block, self.precision);
        let counts = [block.input, block.growth, read];
        let constants = [
            ("HEIGHT", block.height),
            ("WIDTH", block.width),
            ("IN_STRIDE", read),
            ("OUT_STRIDE", block.output()),
            ("MAPS", block.growth),
            ("ROWS", spatial_rows(block)),
            ("VECTOR", vector(self.precision, &counts)),
            ("SPATIAL_FORWARD_SHARED", forward),
            ("SPATIAL_PULL_SHARED", pull),
            ("SPATIAL_WEIGHT_SHARED", weight),
        ];
        self.tiled("spatial", &[("spatial.cu", SPATIAL)], &constants)
    }

    fn transition(&self, transition: &Transition, next: &Block) -> Source {
        let counts = [transition.input, transition.output, next.output()];
        let constants = [
            ("HEIGHT", transition.height),
            ("WIDTH", transition.width),
            ("IN", transition.input),
            ("OUT", transition.output),
            ("OUT_STRIDE", next.output()),
            ("COLUMNS", pointwise_columns(transition.output)),
            ("VECTOR", vector(self.precision, &counts)),
        ];
        self.tiled("transition", &[("transition.cu", TRANSITION)], &constants)
    }

    fn head(&self, last: &Block) -> Source {
        let constants = [
            ("CHANNELS", last.output()),
            ("PIXELS", last.pixels()),
            ("CLASSES", self.plan.classes()),
            ("VECTOR", vector(self.precision, &[last.output()])),
        ];
        self.tiled("head", &[("head.cu", HEAD)], &constants)
    }
}

/// A program as NVRTC is given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What its kernels are for.
    pub family: &'static str,
    /// CUDA C++.
    pub source: String,
    /// Its constants, as options: `-DNAME=VALUE`.
    pub constants: Vec<String>,
}

/// The programs that a plan needs, each once. Needs no CUDA.
///
/// # Errors
/// When a program is not among those of its plan, which is a mistake in this library.
pub fn programs(plan: &Plan, precision: Precision) -> Result<Vec<Program>, CudaError> {
    let mut programs = Vec::new();
    Kernels::of(plan, precision, |sources| {
        let library = Library::on_paper(sources);
        for (source, _) in &library.programs {
            programs.push(Program {
                family: source.family,
                source: source.text.clone(),
                constants: source.definitions().collect(),
            });
        }
        Ok(library)
    })?;
    Ok(programs)
}

/// Programs, each once; compiled and loaded, or on paper.
struct Library {
    programs: Vec<(Source, Option<Arc<CudaModule>>)>,
}

/// Each source once.
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
    fn on_paper(sources: Vec<Source>) -> Self {
        let programs = distinct(sources).into_iter().map(|source| (source, None));
        Self {
            programs: programs.collect(),
        }
    }

    /// Compiles on all cores, then loads.
    fn load(device: &Device, sources: Vec<Source>, cache: &Cache) -> Result<Self, CudaError> {
        let distinct = distinct(sources);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        // Programs take long or not: whoever is done takes the next.
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
                programs.push((source, Some(device.load(image?)?)));
            }
        }
        Ok(Self { programs })
    }

    /// The kernels of a program that is among those loaded.
    fn find<T>(
        &self,
        source: &Source,
        find: fn(Option<&Arc<CudaModule>>, &Source) -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        let loaded = self.programs.iter().find(|(loaded, _)| loaded == source);
        match loaded {
            Some((_, module)) => find(module.as_ref(), source),
            None => Err(CudaError::Driver {
                doing: format!("looking for the {} kernels", source.family),
                message: "they were not compiled".into(),
            }),
        }
    }
}

impl Kernels {
    /// Compiles and loads all that a plan needs.
    pub fn load(
        device: &Device,
        plan: &Plan,
        precision: Precision,
        cache: &Cache,
    ) -> Result<Self, CudaError> {
        Self::of(plan, precision, |sources| {
            Library::load(device, sources, cache)
        })
    }

    /// All that a plan needs, on paper: to be counted, not launched.
    pub fn on_paper(plan: &Plan, precision: Precision) -> Result<Self, CudaError> {
        Self::of(plan, precision, |sources| Ok(Library::on_paper(sources)))
    }

    fn of(
        plan: &Plan,
        precision: Precision,
        load: impl FnOnce(Vec<Source>) -> Result<Library, CudaError>,
    ) -> Result<Self, CudaError> {
        let sources = Sources { plan, precision };
        let stem = sources.stem(plan.stem(), &plan.blocks()[0]);
        let blocks: Vec<_> = plan
            .blocks()
            .iter()
            .map(|block| {
                let pointwise = block.bottleneck.map(|maps| sources.pointwise(block, maps));
                (pointwise, sources.spatial(block))
            })
            .collect();
        let next = plan.blocks().iter().skip(1);
        let transitions: Vec<_> = plan
            .transitions()
            .iter()
            .zip(next)
            .map(|(transition, next)| sources.transition(transition, next))
            .collect();
        let head = sources.head(&plan.blocks()[plan.blocks().len() - 1]);
        let of_norm = [("VECTOR", vector_of(plan, precision))];
        let norm = sources.plain("norm", ("norm.cu", NORM), &of_norm);
        let step = sources.plain("step", ("step.cu", STEP), &[]);
        let weights = sources.weights();
        let mut all = vec![stem.clone(), head.clone(), norm.clone(), step.clone()];
        all.push(weights.clone());
        all.extend(transitions.iter().cloned());
        for (pointwise, spatial) in &blocks {
            all.extend(pointwise.iter().cloned());
            all.push(spatial.clone());
        }
        let library = load(all)?;
        let find_block = |(pointwise, spatial): &(Option<Source>, Source)| {
            Ok(BlockKernels {
                pointwise: pointwise
                    .as_ref()
                    .map(|source| library.find(source, Pointwise::find))
                    .transpose()?,
                spatial: library.find(spatial, Spatial::find)?,
            })
        };
        Ok(Self {
            pool: match plan.stem().kind {
                StemKind::ImageNet => Some(library.find(&stem, PoolKernels::find)?),
                StemKind::Cifar => None,
            },
            stem: library.find(&stem, StemKernels::find)?,
            blocks: blocks
                .iter()
                .map(find_block)
                .collect::<Result<_, CudaError>>()?,
            transitions: transitions
                .iter()
                .map(|source| library.find(source, TransitionKernels::find))
                .collect::<Result<_, _>>()?,
            head: library.find(&head, HeadKernels::find)?,
            norm: library.find(&norm, NormKernels::find)?,
            step: library.find(&step, StepKernels::find)?,
            weights: library.find(&weights, WeightKernels::find)?,
        })
    }
}
