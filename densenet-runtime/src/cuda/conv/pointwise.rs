//! The 1x1 convolution of a bottleneck layer.

use super::super::driver::{Address, Source, arguments, kernels};
use super::super::error::CudaError;
use super::super::kernel::left::{Left, Shares, Sums, Totals};
use super::super::kernel::norm::{BatchNorm, Statistics};
use super::super::memory::WeightAt;
use super::super::program::Sources;
use super::super::program::slices::{MULTIPROCESSORS, Slicing};
use super::super::program::tile::{PAD_BYTES, ROWS, line, pointwise_columns, tiles, vector};
#[cfg(feature = "roofline")]
use super::super::traffic::{Counter, Traffic};
use super::Input;
use crate::plan::{Block, Precision};

/// Channels of a tile in the backward pass.
const TILE_CHANNELS: usize = 64;
/// Bytes of a line of the forward pass's operands that are copied at once. With this many, a
/// thread's lines have the same channels, so it loads their scale and shift once.
const DEPTH_BYTES: usize = 128;
/// Pixels of an image whose batch has few tiles.
const FEW_PIXELS: usize = 64;
/// The most pieces of the weight in shared memory in the forward pass.
const MOST_STAGES: usize = 4;
/// Channels of a piece where blocks share the depth of a tile: a multiple of the depth in both precisions.
const PIECE: usize = 64;
/// The most blocks that share the depth of a tile.
const MOST_PARTS: usize = 8;
/// The fewest pieces that a tile must save by sharing: a piece takes 0.7 us where a tile is alone on a
/// multiprocessor (an H100, bf16), the launch that puts the sums together about 4.
const WORTH: usize = 8;
/// Bytes of shared memory with which two blocks can run on a multiprocessor.
const HALF: usize = 88 << 10;

arguments! {
    pub struct Forward {
        input: Address, scale: Address, shift: Address, weight: Address, out: Address,
        partial: Address, scalars: Address, site: i32, pixels: usize, channels: usize,
        training: bool,
    }
    pub struct Part {
        input: Address, scale: Address, shift: Address, weight: Address, sums: Address,
        pixels: usize, channels: usize, length: usize,
    }
    pub struct Joined {
        sums: Address, out: Address, partial: Address, scalars: Address, site: i32,
        pixels: usize, parts: usize, training: bool,
    }
    pub struct Back {
        dout: Address, weight: Address, input: Address,
        scale: Address, shift: Address, mean: Address, gamma: Address,
        into: Address, partial: Address, share: Address,
        map0: usize, pixels: usize, channels: usize, length: usize,
    }
}
kernels! {
    pub struct PointwiseKernels {
        pointwise_forward: Forward,
        pointwise_part: Part,
        pointwise_joined: Joined,
        pointwise_back: Back,
    }
}

/// The program of these kernels for a block.
pub fn source(of: Sources<'_>, block: &Block, maps: usize) -> Source {
    let (shared, tiles) = back_shared(maps, of.precision);
    let counts = [block.input, block.growth, maps];
    let vector = vector(of.precision, &counts);
    let stages = stages(of.precision, vector, block.pixels());
    let part_stages = most_stages(of.precision, vector);
    let constants = [
        ("IN_STRIDE", block.output()),
        ("MAPS", maps),
        ("COLUMNS", pointwise_columns(maps)),
        ("TILE_CHANNELS", TILE_CHANNELS),
        ("GROUP", maps_of_back(maps, of.precision)),
        ("TILES", tiles),
        ("VECTOR", vector),
        ("DEPTH_BYTES", DEPTH_BYTES),
        ("STAGES", stages),
        ("PART_STAGES", part_stages),
        ("POINTWISE_FORWARD_SHARED", forward_shared(maps, stages)),
        ("POINTWISE_PART_SHARED", forward_shared(maps, part_stages)),
        ("POINTWISE_BACK_SHARED", shared),
    ];
    let file = ("pointwise.cu", include_str!("pointwise.cu"));
    of.tiled("pointwise", &[file], &constants)
}

/// Pieces of the weight that the forward pass has in shared memory: one in use, the others in
/// flight. A network's last block has fewer tiles than a card has multiprocessors. A single tile
/// per multiprocessor waits for memory at each piece, so three pieces are loaded ahead; with more
/// tiles, the others compute meanwhile. Short vectors would need too many registers.
fn stages(precision: Precision, vector: usize, pixels_of_image: usize) -> usize {
    if pixels_of_image <= FEW_PIXELS {
        most_stages(precision, vector)
    } else {
        2
    }
}

/// The same for a tile that is alone on its multiprocessor.
fn most_stages(precision: Precision, vector: usize) -> usize {
    match precision {
        Precision::Bf16 if vector >= 4 => MOST_STAGES,
        _ => 2,
    }
}

/// How blocks share the depth of the forward pass's tiles: their number, and the channels of each.
/// They do where tiles fill at most half of a large card's multiprocessors, and the depth is long
/// enough to be worth another launch. `pixels` are those of the largest batch, so that an image's
/// maps are the same whatever is in its batch.
fn shared_depth(pixels: usize, channels: usize, maps: usize) -> (usize, usize) {
    let blocks = tiles(pixels) * maps.div_ceil(pointwise_columns(maps));
    let pieces = channels.div_ceil(PIECE);
    let own = pieces.div_ceil((MULTIPROCESSORS / blocks.max(1)).clamp(1, MOST_PARTS));
    if pieces - own < WORTH {
        (1, channels)
    } else {
        (pieces.div_ceil(own), own * PIECE)
    }
}

/// The f32 that blocks which share tiles' depth leave for each other, with `pixels` in the largest batch.
pub fn sums_of_parts(pixels: usize, channels: usize, maps: usize) -> usize {
    match shared_depth(pixels, channels, maps) {
        (1, _) => 0,
        (parts, _) => parts * pixels * maps,
    }
}

/// Bytes of shared memory of the forward pass: two pieces of the input, and those of the weight.
fn forward_shared(maps: usize, stages: usize) -> usize {
    (2 * ROWS + stages * pointwise_columns(maps)) * (DEPTH_BYTES + PAD_BYTES)
}

/// The maps of a launch of the backward pass: as many as fit shared memory on every card.
fn maps_of_back(maps: usize, precision: Precision) -> usize {
    let most = match precision {
        Precision::F32 => 64,
        Precision::Bf16 => 256,
    };
    maps.next_multiple_of(64).min(most)
}

/// Bytes of shared memory of the backward pass, and the number of tiles of its maps' gradient in
/// it: two, if two blocks can still share a multiprocessor.
fn back_shared(maps: usize, precision: Precision) -> (usize, usize) {
    let group = maps_of_back(maps, precision);
    let weight = group * line(TILE_CHANNELS, precision);
    let dout = ROWS * line(group, precision);
    let operand = ROWS * line(TILE_CHANNELS, precision);
    // Only bf16 leaves room for the input of the next tile and its gradient.
    let ahead = match precision {
        Precision::F32 => 32,
        Precision::Bf16 => 2 * operand,
    };
    let rest = operand + ahead + 8 * TILE_CHANNELS;
    let tiles = if weight + 2 * dout + rest <= HALF {
        2
    } else {
        1
    };
    (weight + tiles * dout + rest, tiles)
}

/// How the gradient of the weight is summed. A block computes all maps.
pub fn slicing(channels: usize, maps: usize) -> Slicing {
    Slicing {
        weight: maps * channels,
        blocks: channels.div_ceil(TILE_CHANNELS),
        room: 2,
        tile: ROWS,
    }
}

/// The 1x1 convolution of a layer.
pub struct Pointwise<'a> {
    pub bn: BatchNorm<'a>,
    pub kernels: &'a PointwiseKernels,
    pub input: Input,
    pub weight: WeightAt,
    pub pixels: usize,
}

impl Pointwise<'_> {
    /// Computes the maps. If `measured` is set, leaves their moments.
    pub fn forward(&self, out: Address, site: i32, measured: bool) -> Result<(), CudaError> {
        let (on, norm, maps) = (self.bn.on, self.input.norm, self.weight.maps);
        let grid = [tiles(self.pixels), maps.div_ceil(pointwise_columns(maps))];
        let most = self.pixels / on.batch * on.capacity;
        let (parts, length) = shared_depth(most, norm.channels, maps);
        if parts > 1 {
            on.tiled(
                &self.kernels.pointwise_part,
                [grid[0], grid[1], parts],
                Part {
                    input: self.input.x,
                    scale: on.scale(norm),
                    shift: on.shift(norm),
                    weight: on.packed(self.weight),
                    sums: on.shares(),
                    pixels: self.pixels,
                    channels: norm.channels,
                    length,
                },
            )?;
            return on.tiled(
                &self.kernels.pointwise_joined,
                [grid[0], grid[1], 1],
                Joined {
                    sums: on.shares(),
                    out,
                    partial: on.partial(),
                    scalars: on.scalars(),
                    site,
                    pixels: self.pixels,
                    parts,
                    training: measured,
                },
            );
        }
        on.tiled(
            &self.kernels.pointwise_forward,
            [grid[0], grid[1], 1],
            Forward {
                input: self.input.x,
                scale: on.scale(norm),
                shift: on.shift(norm),
                weight: on.packed(self.weight),
                out,
                partial: on.partial(),
                scalars: on.scalars(),
                site,
                pixels: self.pixels,
                channels: norm.channels,
                training: measured,
            },
        )
    }

    /// From the gradient of the maps: adds the gradient of the
    /// input, masked and times gamma, to `into`; and leaves the sums for gamma and beta, and the shares of
    /// the weight's gradient. Groups of maps are launched one after another.
    pub fn backward(
        &self,
        dout: Address,
        into: Address,
        statistics: Statistics,
        totals: Totals,
    ) -> Result<Left, CudaError> {
        let (on, norm) = (self.bn.on, self.input.norm);
        let (channels, maps) = (norm.channels, self.weight.maps);
        let slicing = slicing(channels, maps);
        let (slices, length) = slicing.slices(self.pixels, on.multiprocessors());
        let sums = Sums {
            norm,
            inverse: statistics.inverse,
            totals,
            tiles: slices,
            add: true,
        };
        let sums = sums.counted(on).needed();
        let group = maps_of_back(maps, on.precision);
        for map0 in (0..maps).step_by(group) {
            on.tiled(
                &self.kernels.pointwise_back,
                [slicing.blocks, slices, 1],
                Back {
                    dout,
                    weight: on.packed(self.weight),
                    input: self.input.x,
                    scale: on.scale(norm),
                    shift: on.shift(norm),
                    mean: statistics.mean,
                    gamma: on.gamma(norm),
                    into,
                    partial: on.partial(),
                    share: on.shares(),
                    map0,
                    pixels: self.pixels,
                    channels,
                    length,
                },
            )?;
            // The next group leaves its sums in the same place.
            if map0 + group < maps {
                self.bn.gather(sums, None)?;
            }
        }
        // The launch has computed them in any case.
        let trains = !on.is_frozen(self.weight.parameter);
        let shares = Shares::in_order(self.weight.parameter, slices, slicing.weight);
        Ok(Left {
            sums,
            shares: trains.then_some(shares),
        })
    }
}

/// The elements that a launch moves.
#[cfg(feature = "roofline")]
pub fn traffic(of: &Counter<'_>) -> Option<Traffic> {
    let (pixels, channels) = (of.count("pixels"), of.count("channels"));
    let maps = of.constant("MAPS");
    let input = pixels * channels;
    Some(match of.kernel() {
        "pointwise_forward" => of
            .moves(
                &[
                    ("input", input),
                    ("scale", channels),
                    ("shift", channels),
                    ("weight", maps * channels),
                    ("scalars", of.seed()),
                ],
                &[("out", pixels * maps), ("partial", of.moments(maps))],
            )
            .product(pixels, maps, channels),
        "pointwise_part" => of
            .moves(
                &[
                    ("input", input),
                    ("scale", channels),
                    ("shift", channels),
                    ("weight", maps * channels),
                ],
                &[("sums", of.grid()[2] * pixels * maps)],
            )
            .product(pixels, maps, channels),
        "pointwise_joined" => of.moves(
            &[
                ("sums", of.count("parts") * pixels * maps),
                ("scalars", of.seed()),
            ],
            &[("out", pixels * maps), ("partial", of.moments(maps))],
        ),
        "pointwise_back" => {
            // For one group of maps.
            let slices = of.grid()[1];
            let group = of.constant("GROUP").min(maps - of.count("map0"));
            let weight = group * channels;
            of.moves(
                &[
                    ("dout", pixels * group),
                    ("weight", weight),
                    ("input", input),
                    ("scale", channels),
                    ("shift", channels),
                    ("mean", channels),
                    ("gamma", channels),
                    ("into", input),
                ],
                &[
                    ("into", input),
                    ("partial", 2 * channels * slices),
                    ("share", slices * weight),
                ],
            )
            // Two products: for the input's gradient and the weight's.
            .product(pixels, 2 * group, channels)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::program::tile::SHARED;
    use super::*;

    #[test]
    fn shared_memory_is_within_what_every_card_has() {
        for precision in [Precision::F32, Precision::Bf16] {
            let (bytes, _) = back_shared(384, precision);
            let bytes = bytes.max(forward_shared(384, MOST_STAGES));
            assert!(bytes <= SHARED, "{precision:?}: {bytes} bytes");
        }
    }
}
