//! The first layers: a convolution, and for ImageNet also BN, ReLU and a max pool.

use super::super::driver::{Address, Source, arguments, kernels};
use super::super::error::CudaError;
use super::super::kernel::left::{Shares, Sums};
use super::super::kernel::norm::{BatchNorm, Fresh, UndoNumbers};
use super::super::memory::Scratch;
use super::super::program::Sources;
use super::super::program::slices::{MULTIPROCESSORS, Slicing};
use super::super::program::tile::{COLUMNS, ROWS, SHARED, THREADS, line, tiles, vector};
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};
use crate::plan::{Plan, Precision, StemKind};

/// Pixels of a tile of the convolution if rows of the images are staged: 32 for each warp.
const STRIP: usize = THREADS;
/// Blocks for each tile of maps, if there are as many tiles. Each prepares the weight once.
const STRIP_BLOCKS: usize = 2 * MULTIPROCESSORS;

arguments! {
    pub struct Forward {
        images: Address, weight: Address, out: Address, partial: Address,
        stride: usize, pixels: usize, training: bool,
    }
    pub struct Weight {
        dout: Address, choice: Address, convolved: Address, undo: Address, images: Address,
        share: Address, pixels: usize, length: usize,
    }
    pub struct Pool {
        convolved: Address, scale: Address, shift: Address, out: Address, choice: Address,
        partial: Address, stride: usize, pooled: usize, training: bool,
    }
    pub struct PoolSums {
        dout: Address, choice: Address, convolved: Address, mean: Address, partial: Address,
        pooled: usize,
    }
}
kernels! {
    pub struct StemKernels { stem_forward: Forward, stem_weight: Weight }
}
kernels! {
    /// The pool of the ImageNet stem.
    pub struct PoolKernels { stem_pool: Pool, stem_sums: PoolSums }
}

/// The program of these kernels.
pub fn source(of: Sources<'_>) -> Source {
    let (stem, first) = (of.plan.stem(), &of.plan.blocks()[0]);
    let strip = strip(of.plan, of.precision);
    let constants = [
        ("KERNEL", stem.kernel()),
        ("STEP", stem.stride()),
        ("CHANNELS", stem.channels),
        ("HEIGHT", stem.height),
        ("WIDTH", stem.width),
        ("MAPS", stem.maps),
        ("ELEMENTS", elements(patch(of.plan))),
        ("POOL", usize::from(stem.kind == StemKind::ImageNet)),
        ("VECTOR", vector(of.precision, &[stem.maps, first.output()])),
        ("STRIP", strip.map_or(0, |_| STRIP)),
        (
            "STEM_FORWARD_SHARED",
            strip.map_or(0, |[forward, _]| forward),
        ),
        ("STEM_WEIGHT_SHARED", strip.map_or(0, |[_, weight]| weight)),
    ];
    let convolution = match strip {
        Some(_) => ("strips.cu", include_str!("strips.cu")),
        None => ("patches.cu", include_str!("patches.cu")),
    };
    let mut files = vec![("stem.cu", include_str!("stem.cu")), convolution];
    if stem.kind == StemKind::ImageNet {
        files.push(("pool.cu", include_str!("pool.cu")));
    }
    of.tiled("stem", &files, &constants)
}

/// Bytes of shared memory of the kernels that stage rows of the images, forward and for the
/// weight's gradient, if they convolve: in bf16, unless the images are so wide that their rows do
/// not fit, or have so many channels that a thread's sums do not.
fn strip(plan: &Plan, precision: Precision) -> Option<[usize; 2]> {
    let stem = plan.stem();
    let bytes = strip_bytes(plan);
    let fits = stem.kernel() * stem.channels <= 28 && bytes.iter().all(|&bytes| bytes <= SHARED);
    (precision == Precision::Bf16 && fits).then_some(bytes)
}

/// Maps of a tile of a convolution from staged rows.
fn strip_maps(maps: usize) -> usize {
    if maps > 32 { 64 } else { 32 }
}

/// Bytes of two tiles' rows with the weight and the sums of a tile, and with two tiles of the
/// gradient and the starts of patches.
fn strip_bytes(plan: &Plan) -> [usize; 2] {
    let stem = plan.stem();
    let (kernel, step, channels) = (stem.kernel(), stem.stride(), stem.channels);
    let (height, width) = stem.convolved_size();
    // A patch's rows are padded to whole groups of eight elements, and start at even ones.
    let border = kernel / 2 * channels;
    let even = (step * channels).is_multiple_of(2);
    let early = if even { border % 2 } else { 0 };
    let groups = (early + kernel * channels).div_ceil(8);
    let left = border.next_multiple_of(8);
    let read = left - border - early + (width - 1) * step * channels + 8 * groups;
    let row = read.max(left + stem.width * channels).next_multiple_of(8);
    let rows = |pixels: usize| {
        let below = (pixels - 1).div_ceil(width);
        let lines = below * step + kernel + below.div_ceil(height) * (kernel - step);
        2 * lines * row * 2
    };
    let maps = strip_maps(stem.maps);
    let weight = 2 * 16 * (kernel * groups).div_ceil(2) * maps;
    [
        rows(STRIP) + weight + 4 * (THREADS / 32 + 1) * maps,
        rows(ROWS) + 2 * ROWS * (line(maps, Precision::Bf16) + 4),
    ]
}

/// The number of elements of a patch.
fn patch(plan: &Plan) -> usize {
    plan.stem().weight_len() / plan.stem().maps
}

/// Elements of a patch in a tile of the weight: all, up to 160, so that the gradient is gathered
/// once. Warps take sixteen each.
fn elements(patch: usize) -> usize {
    let tiles = patch.div_ceil(160).max(1);
    patch.div_ceil(tiles).next_multiple_of(32)
}

/// Tiles of the weight's gradient, of a patch's elements and of maps.
fn weight_tiles(plan: &Plan, precision: Precision) -> [usize; 2] {
    let maps = plan.stem().maps;
    match strip(plan, precision) {
        Some(_) => [1, maps.div_ceil(strip_maps(maps))],
        None => {
            let patch = patch(plan);
            [patch.div_ceil(elements(patch)), maps.div_ceil(ROWS)]
        }
    }
}

/// How the gradient of the weight is summed.
fn slicing(plan: &Plan, precision: Precision) -> Slicing {
    Slicing {
        weight: plan.stem().weight_len(),
        blocks: weight_tiles(plan, precision).iter().product(),
        room: 2,
        tile: ROWS,
    }
}

/// The memory for what these kernels leave for the next ones.
pub fn scratch(scratch: &mut Scratch, plan: &Plan, batch: usize) {
    let (height, width) = plan.stem().convolved_size();
    let (pixels, maps) = (batch * height * width, plan.stem().maps);
    scratch.sums(pixels, maps);
    for precision in [Precision::F32, Precision::Bf16] {
        scratch.shares(pixels, slicing(plan, precision));
    }
}

/// The stem of a network.
pub struct Stem<'a> {
    pub bn: BatchNorm<'a>,
    pub kernels: &'a StemKernels,
    pub pool: Option<&'a PoolKernels>,
}

impl Stem<'_> {
    /// From the images to the first block's input.
    pub fn forward(&self) -> Result<Fresh, CudaError> {
        let (on, slots) = (self.bn.on, self.bn.on.slots);
        let stem = on.plan.stem();
        let first = &slots.blocks[0];
        let block = &on.plan.blocks()[0];
        let pixels = self.pixels();
        let (into, stride) = match stem.kind {
            StemKind::ImageNet => (slots.convolved, stem.maps),
            StemKind::Cifar => (first.maps, block.output()),
        };
        let columns = stem.maps.div_ceil(COLUMNS);
        let (rows, grid) = match strip(on.plan, on.precision) {
            Some(_) => {
                let blocks = pixels.div_ceil(STRIP).min(STRIP_BLOCKS);
                (
                    STRIP,
                    [blocks, stem.maps.div_ceil(strip_maps(stem.maps)), 1],
                )
            }
            None => (ROWS, [tiles(pixels), columns, 1]),
        };
        on.tiled(
            &self.kernels.stem_forward,
            grid,
            Forward {
                images: on.at(slots.images),
                weight: on.parameter(on.offsets.stem),
                out: on.at(into),
                partial: on.partial(),
                stride,
                pixels,
                training: on.training,
            },
        )?;
        let convolved = Fresh {
            first: 0,
            count: stem.maps,
            tiles: pixels.div_ceil(rows),
            rows,
        };
        let Some(pool) = self.pool else {
            return Ok(convolved);
        };
        let norm = on.offsets.stem_norm;
        let statistics = self.bn.statistics(slots.stem_statistics, stem.maps);
        self.bn.prepare(norm, statistics, convolved, pixels)?;
        let pooled = on.batch * block.pixels();
        on.tiled(
            &pool.stem_pool,
            [tiles(pooled), columns, 1],
            Pool {
                convolved: on.at(slots.convolved),
                scale: on.scale(norm),
                shift: on.shift(norm),
                out: on.at(first.maps),
                choice: on.at(slots.choice),
                partial: on.partial(),
                stride: block.output(),
                pooled,
                training: on.training,
            },
        )?;
        Ok(Fresh::all(stem.maps, pooled))
    }

    /// From the gradient of the first block's input to those of the parameters.
    pub fn backward(&self) -> Result<(), CudaError> {
        let (on, slots) = (self.bn.on, self.bn.on.slots);
        let pixels = self.pixels();
        if let Some(pool) = self.pool {
            self.pool_backward(pool)?;
        }
        if on.is_frozen(on.offsets.stem) {
            return Ok(());
        }
        let [elements, maps] = weight_tiles(on.plan, on.precision);
        let slicing = slicing(on.plan, on.precision);
        let (slices, length) = slicing.slices(pixels, on.multiprocessors());
        on.tiled(
            &self.kernels.stem_weight,
            [elements, maps, slices],
            Weight {
                dout: on.at(slots.handover),
                choice: on.at(slots.choice),
                convolved: on.at(slots.convolved),
                undo: on.at(slots.stem_undo),
                images: on.at(slots.images),
                share: on.shares(),
                pixels,
                length,
            },
        )?;
        let shares = Shares::in_order(on.offsets.stem, slices, slicing.weight);
        self.bn.gather(None, Some(shares))
    }

    /// The sums for gamma and beta, and the coefficients with which the backward pass of the
    /// convolution undoes BN as it reads through the pool.
    fn pool_backward(&self, pool: &PoolKernels) -> Result<(), CudaError> {
        let (on, slots) = (self.bn.on, self.bn.on.slots);
        let (norm, maps) = (on.offsets.stem_norm, on.plan.stem().maps);
        let pooled = on.batch * on.plan.blocks()[0].pixels();
        let statistics = self.bn.statistics(slots.stem_statistics, maps);
        let totals = self.bn.totals(slots.stem_totals, maps);
        if !on.is_frozen(norm.gamma) {
            on.tiled(
                &pool.stem_sums,
                [tiles(pooled), maps.div_ceil(COLUMNS), 1],
                PoolSums {
                    dout: on.at(slots.handover),
                    choice: on.at(slots.choice),
                    convolved: on.at(slots.convolved),
                    mean: statistics.mean,
                    partial: on.partial(),
                    pooled,
                },
            )?;
        }
        let sums = Sums {
            norm,
            inverse: statistics.inverse,
            totals,
            tiles: tiles(pooled),
            add: false,
        };
        self.bn.gather(sums.counted(on).needed(), None)?;
        if on.is_frozen(on.offsets.stem) {
            return Ok(());
        }
        on.each(
            &self.bn.kernels.undo_numbers,
            maps,
            UndoNumbers {
                mean: statistics.mean,
                inverse: statistics.inverse,
                gamma: on.gamma(norm),
                plain: totals.plain,
                normalised: totals.normalised,
                into: on.at(slots.stem_undo),
                maps,
                pixels: self.pixels(),
            },
        )
    }

    /// The number of pixels of the convolution's maps.
    fn pixels(&self) -> usize {
        let (height, width) = self.bn.on.plan.stem().convolved_size();
        self.bn.on.batch * height * width
    }
}

/// The elements that a launch moves.
#[cfg(feature = "roofline")]
pub fn traffic(of: &Counter<'_>) -> Option<Traffic> {
    let (maps, step) = (of.constant("MAPS"), of.constant("STEP"));
    let (height, width) = (of.constant("HEIGHT"), of.constant("WIDTH"));
    let patch = of.constant("KERNEL").pow(2) * of.constant("CHANNELS");
    let convolved_size = (height.div_ceil(step), width.div_ceil(step));
    let area = convolved_size.0 * convolved_size.1;
    let pooled_area = convolved_size.0.div_ceil(2) * convolved_size.1.div_ceil(2);
    let images = of.count("pooled") / pooled_area + of.count("pixels") / area;
    let pixels = images * area;
    let image_values = images * height * width * of.constant("CHANNELS");
    let (convolved, pooled) = (pixels * maps, images * pooled_area * maps);
    let tiles = match of.constant("STRIP") {
        0 => of.grid()[0],
        strip => pixels.div_ceil(strip),
    };
    let moments = u64::from(of.training()) * 2 * maps * tiles;
    Some(match of.kernel() {
        "stem_forward" => of
            .moves(
                &[("images", image_values), ("weight", maps * patch)],
                &[("out", convolved), ("partial", moments)],
            )
            .product(pixels, maps, patch),
        "stem_pool" => of.moves(
            &[("convolved", convolved), ("scale", maps), ("shift", maps)],
            &[
                ("out", pooled),
                ("choice", pooled),
                ("partial", of.moments(maps)),
            ],
        ),
        "stem_sums" => of.moves(
            &[
                ("dout", pooled),
                ("choice", pooled),
                ("convolved", convolved),
                ("mean", maps),
            ],
            &[("partial", of.partial(maps))],
        ),
        "stem_weight" => {
            let share = ("share", of.grid()[2] * maps * patch);
            let gradient: &[(&str, u64)] = if of.constant("POOL") == 1 {
                &[
                    ("dout", pooled),
                    ("choice", pooled),
                    ("convolved", convolved),
                    ("undo", 4 * maps),
                    ("images", image_values),
                ]
            } else {
                &[("dout", convolved), ("images", image_values)]
            };
            of.moves(gradient, &[share]).product(pixels, maps, patch)
        }
        _ => return None,
    })
}
