//! The last layers and the losses: BN, ReLU, global average pool, classifier, cross-entropy, binary
//! cross-entropy.

use super::super::driver::{Address, Source, arguments, kernels};
use super::super::error::CudaError;
use super::super::kernel::left::Sums;
use super::super::kernel::norm::{BatchNorm, Fresh};
use super::super::program::Sources;
use super::super::program::tile::{COLUMNS, ROWS, THREADS, tiles, vector};
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};
use crate::executor::Targets;

/// Bytes of an operand's line that are copied to shared memory at once. The classifier's products
/// have few tiles and a long depth, so they wait for memory at each piece. Large pieces make fewer
/// waits.
const DEPTH_BYTES: usize = 128;

arguments! {
    pub struct Pool {
        x: Address, scale: Address, shift: Address, features: Address, batch: usize,
    }
    pub struct Classify {
        features: Address, weight: Address, bias: Address, logits: Address, batch: usize,
    }
    pub struct ClassMaps {
        x: Address, scale: Address, shift: Address, weight: Address, classes: Address, maps: Address,
        wanted: usize, batch: usize,
    }
    pub struct CrossEntropy {
        logits: Address, labels: Address, targets: Address, weights: Address, divisor: Address,
        gradient: Address, results: Address, scalars: Address, dense: bool, training: bool,
    }
    pub struct BinaryCrossEntropy {
        logits: Address, targets: Address, weights: Address, divisor: Address, gradient: Address,
        results: Address, scalars: Address, training: bool,
    }
    pub struct ClassifyWeight {
        dlogits: Address, features: Address, dweight: Address, dbias: Address, batch: usize,
    }
    pub struct ClassifyFeatures {
        dlogits: Address, weight: Address, dfeatures: Address, batch: usize,
    }
    pub struct Pull {
        dfeatures: Address, x: Address, scale: Address, shift: Address, mean: Address,
        gamma: Address, g: Address, partial: Address, batch: usize,
    }
}
kernels! {
    pub struct HeadKernels {
        head_pool: Pool,
        classify: Classify,
        class_maps: ClassMaps,
        cross_entropy: CrossEntropy,
        binary_cross_entropy: BinaryCrossEntropy,
        classify_weight: ClassifyWeight,
        classify_features: ClassifyFeatures,
        head_pull: Pull,
    }
}

/// The program of these kernels.
pub fn source(of: Sources<'_>) -> Source {
    let head = of.plan.head();
    let constants = [
        ("CHANNELS", head.input),
        ("PIXELS", head.pixels()),
        ("CLASSES", head.classes),
        ("VECTOR", vector(of.precision, &[head.input])),
        ("DEPTH_BYTES", DEPTH_BYTES),
    ];
    let file = ("head.cu", include_str!("head.cu"));
    of.tiled("head", &[file], &constants)
}

/// The loss of a batch, by its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Cross-entropy towards classes.
    Classes,
    /// Cross-entropy towards probabilities.
    Probabilities,
    /// Binary cross-entropy.
    Independent,
}

impl Loss {
    /// The loss towards such targets.
    pub fn towards(targets: Targets<'_>) -> Self {
        match targets {
            Targets::Classes(_) => Self::Classes,
            Targets::Probabilities(_) => Self::Probabilities,
            Targets::Independent(_) => Self::Independent,
        }
    }
}

/// The head of a network.
pub struct Head<'a> {
    pub bn: BatchNorm<'a>,
    pub kernels: &'a HeadKernels,
}

impl Head<'_> {
    /// From the last block's maps to the logits.
    pub fn forward(&self, fresh: Fresh) -> Result<(), CudaError> {
        let (on, slots) = (self.bn.on, self.bn.on.slots);
        let head = on.plan.head();
        let own = &slots.blocks[slots.blocks.len() - 1];
        let (norm, batch) = (on.offsets.norm, on.batch);
        let statistics = self.bn.statistics(own.statistics, head.input);
        let pixels = batch * head.pixels();
        self.bn.prepare(norm, statistics, fresh, pixels)?;
        let features = on.at(slots.features);
        on.each(
            &self.kernels.head_pool,
            batch * head.input,
            Pool {
                x: on.at(own.maps),
                scale: on.scale(norm),
                shift: on.shift(norm),
                features,
                batch,
            },
        )?;
        on.tiled(
            &self.kernels.classify,
            [tiles(batch), head.classes.div_ceil(COLUMNS), 1],
            Classify {
                features,
                weight: on.parameter(on.offsets.classifier),
                bias: on.parameter(on.offsets.bias),
                logits: on.at(slots.logits),
                batch,
            },
        )
    }

    /// The maps of the classes whose numbers are on the device, `wanted` for each image.
    pub fn class_maps(&self, wanted: usize) -> Result<(), CudaError> {
        let (on, slots) = (self.bn.on, self.bn.on.slots);
        let (norm, batch) = (on.offsets.norm, on.batch);
        let values = batch * wanted * on.plan.head().pixels();
        on.tiled(
            &self.kernels.class_maps,
            [values.div_ceil(THREADS / 32), 1, 1],
            ClassMaps {
                x: on.at(slots.blocks[slots.blocks.len() - 1].maps),
                scale: on.scale(norm),
                shift: on.shift(norm),
                weight: on.parameter(on.offsets.classifier),
                classes: on.at(slots.mapped),
                maps: on.at(slots.class_maps),
                wanted,
                batch,
            },
        )
    }

    /// Computes the loss of each image and, if training, the gradient of the logits.
    pub fn loss(&self, loss: Loss) -> Result<(), CudaError> {
        let (on, slots) = (self.bn.on, self.bn.on.slots);
        let weights = on.at(slots.loss_weights);
        let (logits, divisor) = (on.at(slots.logits), on.at(slots.loss_divisor));
        let (results, scalars) = (on.at(slots.results), on.scalars());
        // The gradient takes the place of the targets.
        let gradient = on.at(slots.logit_gradient);
        let targets = gradient;
        match loss {
            Loss::Classes | Loss::Probabilities => on.reductions(
                &self.kernels.cross_entropy,
                on.batch,
                CrossEntropy {
                    logits,
                    labels: on.at(slots.labels),
                    targets,
                    weights,
                    divisor,
                    gradient,
                    results,
                    scalars,
                    dense: loss == Loss::Probabilities,
                    training: on.training,
                },
            ),
            Loss::Independent => on.reductions(
                &self.kernels.binary_cross_entropy,
                on.batch,
                BinaryCrossEntropy {
                    logits,
                    targets,
                    weights: weights.floats(on.plan.classes()),
                    divisor,
                    gradient,
                    results,
                    scalars,
                    training: on.training,
                },
            ),
        }
    }

    /// From the gradient of the logits to that of the last block's maps, and those of BN.
    pub fn backward(&self) -> Result<(), CudaError> {
        let (on, slots) = (self.bn.on, self.bn.on.slots);
        let head = on.plan.head();
        let (channels, batch) = (head.input, on.batch);
        let own = &slots.blocks[slots.blocks.len() - 1];
        let dlogits = on.at(slots.logit_gradient);
        let dfeatures = on.at(slots.feature_gradient);
        on.tiled(
            &self.kernels.classify_features,
            [tiles(batch), channels.div_ceil(COLUMNS), 1],
            ClassifyFeatures {
                dlogits,
                weight: on.parameter(on.offsets.classifier),
                dfeatures,
                batch,
            },
        )?;
        let norm = on.offsets.norm;
        let statistics = self.bn.statistics(own.statistics, channels);
        let across = tiles(batch * head.pixels());
        on.tiled(
            &self.kernels.head_pull,
            [across, channels.div_ceil(COLUMNS), 1],
            Pull {
                dfeatures,
                x: on.at(own.maps),
                scale: on.scale(norm),
                shift: on.shift(norm),
                mean: statistics.mean,
                gamma: on.gamma(norm),
                g: on.at(slots.gradient),
                partial: on.partial(),
                batch,
            },
        )?;
        let sums = Sums {
            norm,
            inverse: statistics.inverse,
            totals: self.bn.totals(own.totals, channels),
            tiles: across,
            add: false,
        };
        self.bn.gather(sums.counted(on).needed(), None)
    }

    /// The gradients of the classifier. One launch computes those of its weight and its bias; if
    /// only one of them is frozen, its gradient becomes zero again.
    pub fn classifier_backward(&self) -> Result<(), CudaError> {
        let (on, slots) = (self.bn.on, self.bn.on.slots);
        let head = on.plan.head();
        let (channels, classes) = (head.input, head.classes);
        let both = [
            (on.offsets.classifier, classes * channels),
            (on.offsets.bias, classes),
        ];
        let frozen = both.iter().filter(|(start, _)| on.is_frozen(*start));
        if frozen.clone().count() == both.len() {
            return Ok(());
        }
        on.tiled(
            &self.kernels.classify_weight,
            [channels.div_ceil(COLUMNS), classes.div_ceil(ROWS), 1],
            ClassifyWeight {
                dlogits: on.at(slots.logit_gradient),
                features: on.at(slots.features),
                dweight: on.gradient_of(on.offsets.classifier),
                dbias: on.gradient_of(on.offsets.bias),
                batch: on.batch,
            },
        )?;
        for &(start, count) in frozen {
            on.target.clear(on.gradient_of(start), 4 * count)?;
        }
        Ok(())
    }
}

/// What a loss writes: the gradient in training, and three results of each image.
#[cfg(feature = "roofline")]
fn loss_writes(of: &Counter<'_>, classes: u64) -> [(&'static str, u64); 2] {
    let images = of.grid()[0];
    let trained = u64::from(of.training());
    [
        ("gradient", trained * images * classes),
        ("results", 3 * images),
    ]
}

/// The elements that a launch moves.
#[cfg(feature = "roofline")]
pub fn traffic(of: &Counter<'_>) -> Option<Traffic> {
    let (channels, classes) = (of.constant("CHANNELS"), of.constant("CLASSES"));
    let batch = of.count("batch");
    let (weight, features, logits) = (channels * classes, batch * channels, batch * classes);
    let maps = features * of.constant("PIXELS");
    Some(match of.kernel() {
        "head_pool" => of.moves(
            &[("x", maps), ("scale", channels), ("shift", channels)],
            &[("features", features)],
        ),
        "classify" => of
            .moves(
                &[
                    ("features", features),
                    ("weight", weight),
                    ("bias", classes),
                ],
                &[("logits", logits)],
            )
            .product(batch, classes, channels),
        "class_maps" => {
            let classes = batch * of.count("wanted");
            let values = classes * of.constant("PIXELS");
            of.moves(
                &[
                    ("x", maps),
                    ("scale", channels),
                    ("shift", channels),
                    ("weight", classes * channels),
                    ("classes", classes),
                ],
                &[("maps", values)],
            )
        }
        "cross_entropy" => {
            let images = of.grid()[0];
            let dense = of.count("dense");
            of.moves(
                &[
                    ("logits", images * classes),
                    ("labels", (1 - dense) * images),
                    ("targets", dense * images * classes),
                    ("weights", classes),
                    ("divisor", 1),
                    // The scalars: label smoothing and scale.
                    ("scalars", 8 * u64::from(of.training())),
                ],
                &loss_writes(of, classes),
            )
        }
        "binary_cross_entropy" => {
            let logits = of.grid()[0] * classes;
            of.moves(
                &[
                    ("logits", logits),
                    ("targets", logits),
                    ("weights", classes),
                    ("divisor", 1),
                    // Scale.
                    ("scalars", 4 * u64::from(of.training())),
                ],
                &loss_writes(of, classes),
            )
        }
        "classify_weight" => of
            .moves(
                &[
                    ("dlogits", logits),
                    ("features", features),
                    ("dweight", weight),
                    ("dbias", classes),
                ],
                &[("dweight", weight), ("dbias", classes)],
            )
            .product(classes, channels, batch),
        "classify_features" => of
            .moves(
                &[("dlogits", logits), ("weight", weight)],
                &[("dfeatures", features)],
            )
            .product(batch, channels, classes),
        "head_pull" => of.moves(
            &[
                ("dfeatures", features),
                ("x", maps),
                ("scale", channels),
                ("shift", channels),
                ("mean", channels),
                ("gamma", channels),
            ],
            &[("g", maps), ("partial", of.partial(channels))],
        ),
        _ => return None,
    })
}
