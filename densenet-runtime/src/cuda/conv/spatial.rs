//! The 3x3 convolution of a layer.

use super::super::driver::{Address, Source, arguments, kernels};
use super::super::error::CudaError;
#[cfg(feature = "roofline")]
use super::super::kernel::left::passed;
use super::super::kernel::left::{Left, PassedAt, Shares, Sums, Totals};
use super::super::kernel::norm::{BatchNorm, Fresh, Statistics, lanes_on_the_way};
use super::super::memory::WeightAt;
use super::super::program::slices::Slicing;
use super::super::program::tile::{ROWS, depth, line, stage, vector};
use super::super::program::{GATHER, Sources};
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};
use super::Input;
use crate::plan::{Block, Precision};

/// Maps of a tile; a tile of the weight's gradient has as many.
const TILE_MAPS: usize = 32;
/// Channels of a tile of the input's gradient.
const TILE_CHANNELS: usize = 64;
/// Channels of a tile of the weight's gradient. It has all taps, so that a thread has 72 sums.
const WEIGHT_CHANNELS: usize = 32;
/// Lines of zeros that are read for pixels outside an image, each in banks of its own.
const ZEROS: usize = 8;

arguments! {
    pub struct Forward {
        input: Address, scale: Address, shift: Address, weight: Address, out: Address,
        partial: Address, scalars: Address, column: usize, site: i32, pixels: usize,
        channels: usize, training: bool,
    }
    pub struct Pull {
        dout: Address, weight: Address, input: Address,
        scale: Address, shift: Address, mean: Address, gamma: Address,
        into: Address, partial: Address, add: bool, pixels: usize, channels: usize,
    }
    pub struct Weight {
        dout: Address, input: Address, scale: Address, shift: Address, share: Address,
        pixels: usize, channels: usize, length: usize,
        partial: Address, gamma: Address, inverse: Address, dgamma: Address, dbeta: Address,
        plain: Address, normalised: Address, tiles: usize, add: bool, lanes: usize,
    }
}
kernels! {
    pub struct SpatialKernels { spatial_forward: Forward, spatial_pull: Pull, spatial_weight: Weight }
}

/// The program of these kernels for a block.
pub fn source(of: Sources<'_>, block: &Block) -> Source {
    let read = block.bottleneck.unwrap_or(block.output());
    let [forward, pull, weight] = shared(block, of.precision);
    let counts = [block.input, block.growth, read];
    let constants = [
        ("HEIGHT", block.height),
        ("WIDTH", block.width),
        ("IN_STRIDE", read),
        ("OUT_STRIDE", block.output()),
        ("MAPS", block.growth),
        ("ROWS", rows(block, of.precision)),
        (
            "FORWARD_DEPTH",
            forward_depth(rows(block, of.precision), of.precision),
        ),
        ("PULL_ROWS", pull_rows(block, of.precision)),
        ("TILE_MAPS", TILE_MAPS),
        ("TILE_CHANNELS", TILE_CHANNELS),
        ("WEIGHT_ROWS", weight_rows(block, of.precision)),
        ("WEIGHT_CHANNELS", WEIGHT_CHANNELS),
        ("ZEROS", ZEROS),
        ("VECTOR", vector(of.precision, &counts)),
        ("SPATIAL_FORWARD_SHARED", forward),
        ("SPATIAL_PULL_SHARED", pull),
        ("SPATIAL_WEIGHT_SHARED", weight),
    ];
    let file = ("spatial.cu", include_str!("spatial.cu"));
    of.tiled("spatial", &[GATHER, file], &constants)
}

/// Pixels of a tile of the weight's gradient in bfloat16, or whole fractions of it. Large tiles
/// stage fewer surrounding pixels for each of their own; small images would have too few such
/// tiles.
fn tile(block: &Block) -> usize {
    if block.pixels() > 200 { 128 } else { ROWS }
}

/// Pixels of a tile of maps. The largest tiles give each warp 32 rows by 32 columns. In f32,
/// threads would have too many sums for this, and in very wide images too many pixels would be
/// staged.
fn rows(block: &Block, precision: Precision) -> usize {
    let large = block.pixels() > 500 && block.width <= 224;
    match precision {
        Precision::Bf16 if large => 2 * tile(block),
        _ => tile(block),
    }
}

/// Pixels of a tile of the input's gradient. It has more tiles, of channels, so that smaller images
/// have large ones.
fn pull_rows(block: &Block, precision: Precision) -> usize {
    let rows = rows(block, precision);
    match precision {
        Precision::Bf16 if block.pixels() > 100 => rows.max(2 * ROWS),
        _ => rows,
    }
}

/// Pixels of a tile of the weight's gradient. In f32, fewer fit.
fn weight_rows(block: &Block, precision: Precision) -> usize {
    match precision {
        Precision::F32 => ROWS,
        Precision::Bf16 => tile(block),
    }
}

/// Channels that a tile of maps stages at once. In a small tile, eight warps divide them, by whole
/// products.
fn forward_depth(rows: usize, precision: Precision) -> usize {
    depth(precision) * if rows == ROWS { 2 } else { 1 }
}

/// Lines that are staged for a tile of `rows` pixels: its own and those around it.
fn staged(block: &Block, rows: usize) -> usize {
    rows + 2 * block.width.min(rows + 2) + 2
}

/// Bytes of the pixels that are staged for a tile of `rows`, with `elements` each, and of zeros.
fn halo(block: &Block, rows: usize, elements: usize, precision: Precision) -> usize {
    (staged(block, rows).next_multiple_of(ZEROS) + ZEROS) * line(elements, precision)
}

/// Bytes of shared memory of the kernels: forward, pull, weight.
fn shared(block: &Block, precision: Precision) -> [usize; 3] {
    let (rows, pulled) = (rows(block, precision), pull_rows(block, precision));
    let (along, across) = (forward_depth(rows, precision), depth(precision));
    let forward = halo(block, rows, along, precision) + 9 * TILE_MAPS * line(along, precision);
    let pull = halo(block, pulled, across, precision) + 9 * across * line(TILE_CHANNELS, precision);
    let of_weight = weight_rows(block, precision);
    // Whole tiles of lines; one more is loaded ahead if an image's line is not longer than a tile.
    let ahead = if block.width <= of_weight + 2 {
        of_weight
    } else {
        0
    };
    let ring = staged(block, of_weight).next_multiple_of(of_weight) + ahead;
    let weight = (ring + ZEROS) * line(WEIGHT_CHANNELS, precision)
        + 2 * of_weight * line(TILE_MAPS, precision);
    let exchanged = 9 * TILE_MAPS * WEIGHT_CHANNELS * 4;
    [
        forward.max(stage(rows, TILE_MAPS)),
        pull.max(stage(pulled, TILE_CHANNELS)),
        weight.max(exchanged),
    ]
}

/// How the gradient of the weight is summed.
pub fn slicing(block: &Block, channels: usize) -> Slicing {
    let maps = block.growth;
    Slicing {
        weight: 9 * maps * channels,
        blocks: channels.div_ceil(WEIGHT_CHANNELS) * maps.div_ceil(TILE_MAPS),
        room: 2,
        tile: tile(block),
    }
}

/// The 3x3 convolution of a layer.
pub struct Spatial<'a> {
    pub bn: BatchNorm<'a>,
    pub kernels: &'a SpatialKernels,
    pub block: &'a Block,
    pub input: Input,
    pub weight: WeightAt,
    pub pixels: usize,
}

impl Spatial<'_> {
    /// The number of tiles of the input's gradient.
    fn tiles(&self) -> usize {
        let rows = pull_rows(self.block, self.bn.on.precision);
        self.pixels.div_ceil(rows)
    }

    /// Computes the maps, and writes them to the columns of `out` from `column` on.
    pub fn forward(&self, out: Address, column: usize, site: i32) -> Result<Fresh, CudaError> {
        let (on, norm, maps) = (self.bn.on, self.input.norm, self.weight.maps);
        let rows = rows(self.block, on.precision);
        let tiles = self.pixels.div_ceil(rows);
        on.tiled(
            &self.kernels.spatial_forward,
            [tiles, maps.div_ceil(TILE_MAPS), 1],
            Forward {
                input: self.input.x,
                scale: on.scale(norm),
                shift: on.shift(norm),
                weight: on.packed(self.weight),
                out,
                partial: on.partial(),
                scalars: on.scalars(),
                column,
                site,
                pixels: self.pixels,
                channels: norm.channels,
                training: on.training,
            },
        )?;
        Ok(Fresh {
            first: column,
            count: maps,
            tiles,
            rows,
        })
    }

    /// From the gradient of the maps to that of the input. Masked, it is stored in `into`; if the
    /// input has had other consumers, it is added to `into`, times gamma. Completes the pass through
    /// the input's BN, and leaves the shares of the weight's gradient. If the weight is frozen, it
    /// has none, and the sums of the input's BN are left.
    pub fn backward(
        &self,
        dout: Address,
        statistics: Statistics,
        totals: Totals,
        into: Address,
        add: bool,
    ) -> Result<Left, CudaError> {
        let (on, norm, pixels) = (self.bn.on, self.input.norm, self.pixels);
        let (channels, maps) = (norm.channels, self.weight.maps);
        let (scale, shift) = (on.scale(norm), on.shift(norm));
        on.tiled(
            &self.kernels.spatial_pull,
            [self.tiles(), channels.div_ceil(TILE_CHANNELS), 1],
            Pull {
                dout,
                weight: on.packed(self.weight),
                input: self.input.x,
                scale,
                shift,
                mean: statistics.mean,
                gamma: on.gamma(norm),
                into,
                partial: on.partial(),
                add,
                pixels,
                channels,
            },
        )?;
        let sums = Sums {
            norm,
            inverse: statistics.inverse,
            totals,
            tiles: self.tiles(),
            add,
        };
        let sums = sums.counted(on);
        if on.is_frozen(self.weight.parameter) {
            return Ok(Left {
                sums: sums.needed(),
                shares: None,
            });
        }
        let passed = PassedAt::of(on, Some(sums));
        let slicing = slicing(self.block, channels);
        let (slices, length) = slicing.slices(pixels, on.multiprocessors());
        on.tiled(
            &self.kernels.spatial_weight,
            [
                channels.div_ceil(WEIGHT_CHANNELS),
                maps.div_ceil(TILE_MAPS),
                slices,
            ],
            Weight {
                dout,
                input: self.input.x,
                scale,
                shift,
                share: on.shares(),
                pixels,
                channels,
                length,
                partial: on.partial(),
                gamma: passed.gamma,
                inverse: passed.inverse,
                dgamma: passed.dgamma,
                dbeta: passed.dbeta,
                plain: totals.plain,
                normalised: totals.normalised,
                tiles: passed.tiles,
                add,
                lanes: lanes_on_the_way(passed.tiles, channels, slicing.blocks * slices),
            },
        )?;
        let shares = Shares {
            weight: self.weight.parameter,
            slices,
            count: slicing.weight,
            taps: 9,
            channels,
        };
        Ok(Left {
            sums: None,
            shares: Some(shares),
        })
    }
}

/// The elements that a launch moves.
#[cfg(feature = "roofline")]
pub fn traffic(of: &Counter<'_>) -> Option<Traffic> {
    let (pixels, channels) = (of.count("pixels"), of.count("channels"));
    let maps = of.constant("MAPS");
    let weight = 9 * maps * channels;
    let (input, output) = (pixels * channels, pixels * maps);
    let moved = match of.kernel() {
        "spatial_forward" => of.moves(
            &[
                ("input", input),
                ("scale", channels),
                ("shift", channels),
                ("weight", weight),
                ("scalars", of.seed()),
            ],
            &[("out", output), ("partial", of.moments(maps))],
        ),
        "spatial_pull" => {
            let added = of.count("add");
            of.moves(
                &[
                    ("dout", output),
                    ("weight", weight),
                    ("input", input),
                    ("scale", channels),
                    ("shift", channels),
                    ("mean", channels),
                    ("gamma", added * channels),
                    ("into", added * input),
                ],
                &[("into", input), ("partial", of.partial(channels))],
            )
        }
        "spatial_weight" => of
            .moves(
                &[
                    ("dout", output),
                    ("input", input),
                    ("scale", channels),
                    ("shift", channels),
                ],
                &[("share", of.grid()[2] * weight)],
            )
            .and(passed(of)),
        _ => return None,
    };
    Some(moved.product(pixels, maps, 9 * channels))
}

#[cfg(test)]
mod tests {
    use super::super::super::program::tile::SHARED;
    use super::*;

    #[test]
    fn shared_memory_is_within_what_every_card_has() {
        // The largest number of maps and of pixels.
        let wide = Block {
            input: 96,
            growth: 48,
            layers: 2,
            bottleneck: Some(384),
            height: 256,
            width: 256,
        };
        for precision in [Precision::F32, Precision::Bf16] {
            for bytes in shared(&wide, precision) {
                assert!(bytes <= SHARED, "{precision:?}: {bytes} bytes");
            }
        }
    }
}
