//! A dense block: one buffer of maps. Each layer reads the maps so far, and appends its own.

use super::super::conv::Input;
use super::super::conv::pointwise::{self, Pointwise, PointwiseKernels};
use super::super::conv::spatial::{self, Spatial, SpatialKernels};
use super::super::driver::{Address, Source};
use super::super::error::CudaError;
use super::super::kernel::left::{Left, SharesAt, Totals};
use super::super::kernel::norm::{BatchNorm, ColumnRange, Fresh, Statistics, Undo};
use super::super::memory::{LayerAt, Scratch, WeightAt};
use super::super::program::tile::THREADS;
use super::super::program::{Library, Sources};
use crate::plan::{self, DropoutSites, Plan, Recompute};

/// The kernels of a block: those of its 1x1 convolutions, if it has bottleneck layers, and those of
/// its 3x3 convolutions.
pub struct BlockKernels {
    pub pointwise: Option<PointwiseKernels>,
    pub spatial: SpatialKernels,
}

/// The programs of a block.
pub struct BlockSources {
    pub pointwise: Option<Source>,
    pub spatial: Source,
}

impl BlockSources {
    /// The programs of a block of this shape.
    pub fn new(of: Sources<'_>, shape: &plan::Block) -> Self {
        let maps = shape.bottleneck;
        Self {
            pointwise: maps.map(|maps| pointwise::source(of, shape, maps)),
            spatial: spatial::source(of, shape),
        }
    }

    /// Finds their kernels.
    pub fn find(&self, library: &Library) -> Result<BlockKernels, CudaError> {
        let pointwise = self.pointwise.as_ref();
        let pointwise = pointwise.map(|source| library.find(source, PointwiseKernels::find));
        Ok(BlockKernels {
            pointwise: pointwise.transpose()?,
            spatial: library.find(&self.spatial, SpatialKernels::find)?,
        })
    }
}

/// The memory for what these kernels leave for the next ones.
pub fn scratch(scratch: &mut Scratch, plan: &Plan, batch: usize) {
    for shape in plan.blocks().iter() {
        let pixels = batch * shape.pixels();
        scratch.sums(pixels, shape.output().max(shape.bottleneck.unwrap_or(0)));
        for layer in shape.iter() {
            let read = layer.bottleneck.unwrap_or(layer.input);
            scratch.shares(pixels, spatial::slicing(shape, read));
            if let Some(maps) = layer.bottleneck {
                scratch.shares(pixels, pointwise::slicing(layer.input, maps));
                scratch.parts(pointwise::sums_of_parts(pixels, layer.input, maps));
            }
        }
    }
}

/// A block of a network.
pub struct Block<'a> {
    pub bn: BatchNorm<'a>,
    pub kernels: &'a BlockKernels,
    pub index: usize,
}

/// A bottleneck layer's 1x1 convolution, and its maps.
struct Narrow<'a> {
    convolution: Pointwise<'a>,
    /// The input of the 3x3 convolution.
    maps: Input,
    statistics: Statistics,
    /// The site of its dropout.
    site: i32,
}

impl<'a> Block<'a> {
    /// The input's maps are fresh. Returns the last layer's maps, which are fresh too.
    pub fn forward(&self, input: Fresh) -> Result<Fresh, CudaError> {
        let (on, bn, pixels) = (self.bn.on, self.bn, self.pixels());
        let mut fresh = input;
        for (number, layer) in on.offsets.blocks[self.index].iter().enumerate() {
            let wide = self.wide(layer);
            bn.prepare(wide.norm, self.statistics(), fresh, pixels)?;
            let mut read = wide;
            if let Some(narrow) = self.narrow(number, layer) {
                narrow
                    .convolution
                    .forward(narrow.maps.x, narrow.site, on.training)?;
                read = narrow.maps;
                let fresh = Fresh::all(read.norm.channels, pixels);
                bn.prepare(read.norm, narrow.statistics, fresh, pixels)?;
            }
            let spatial = self.spatial(read, layer.conv);
            let site = self.site(number, layer);
            fresh = spatial.forward(wide.x, wide.norm.channels, site)?;
        }
        Ok(fresh)
    }

    /// From the gradient of the maps, after their BN, to that of the block's input.
    /// This gradient is left out if it is not wanted, and so are the first layers if they are frozen.
    pub fn backward(&self, recompute: Recompute, wanted: bool) -> Result<(), CudaError> {
        let (on, bn) = (self.bn.on, self.bn);
        let fresh = on.at(on.slots.fresh);
        // Of the layer after this one.
        let mut left = None;
        let recomputed = self.index < on.plan.recomputed_blocks(recompute);
        for (number, layer) in on.offsets.blocks[self.index].iter().enumerate().rev() {
            if !on.trains_before(layer.conv.end()) {
                break;
            }
            let own = self.columns(
                [layer.norm1.channels, self.shape().growth],
                fresh,
                self.site(number, layer),
            );
            bn.finish(own, left.take())?;
            if let Some(narrow) = self.narrow(number, layer) {
                if recomputed {
                    narrow
                        .convolution
                        .forward(narrow.maps.x, narrow.site, false)?;
                }
                left = Some(self.narrow_backward(&narrow, layer.conv, fresh)?);
                continue;
            }
            let wide = self.wide(layer);
            let spatial = self.spatial(wide, layer.conv);
            let into = on.at(on.slots.gradient);
            let (statistics, totals) = (self.statistics(), self.totals());
            left = Some(spatial.backward(fresh, statistics, totals, into, true)?);
        }
        if let Some(left) = left {
            bn.gather(left.sums, left.shares)?;
        }
        // The remaining columns are the gradient of the block's input, which goes to the stage
        // before.
        if !wanted {
            return Ok(());
        }
        let into = on.at(on.slots.handover);
        bn.finish(self.columns([0, self.shape().input], into, -1), None)
    }

    /// The backward pass of a bottleneck layer, from the gradient of its new maps. Returns what the
    /// launch after it puts together.
    fn narrow_backward(
        &self,
        narrow: &Narrow<'_>,
        weight: WeightAt,
        dout: Address,
    ) -> Result<Left, CudaError> {
        let (on, bn, pixels) = (self.bn.on, self.bn, self.pixels());
        let (statistics, norm) = (narrow.statistics, narrow.maps.norm);
        let maps = norm.channels;
        let dy = on.at(on.slots.narrow_gradient);
        let totals = bn.totals(on.slots.narrow_totals, maps);
        let spatial = self.spatial(narrow.maps, weight);
        let left = spatial.backward(dout, statistics, totals, dy, false)?;
        // Undoing needs the totals.
        bn.gather(left.sums, None)?;
        let shares = SharesAt::of(on, left.shares);
        on.sweep(
            &bn.kernels.undo,
            shares.blocks(THREADS),
            [pixels, maps],
            Undo {
                dy,
                y: narrow.maps.x,
                mean: statistics.mean,
                inverse: statistics.inverse,
                gamma: on.gamma(norm),
                plain: totals.plain,
                normalised: totals.normalised,
                scalars: on.scalars(),
                maps,
                pixels,
                site: narrow.site,
                share: on.shares(),
                gradient: shares.gradient,
                slices: shares.slices,
                values: shares.count,
                taps: shares.taps,
                across: shares.channels,
                parts: shares.parts,
            },
        )?;
        let into = on.at(on.slots.gradient);
        narrow
            .convolution
            .backward(dy, into, self.statistics(), self.totals())
    }

    /// Columns of the block, `count` from `first` on, whose gradient goes to `into`.
    fn columns(&self, [first, count]: [usize; 2], into: Address, site: i32) -> ColumnRange {
        ColumnRange {
            first,
            count,
            x: self.maps(),
            pixels: self.pixels(),
            stride: self.shape().output(),
            statistics: self.statistics(),
            totals: self.totals(),
            into,
            site,
        }
    }

    fn shape(&self) -> &'a plan::Block {
        &self.bn.on.plan.blocks()[self.index]
    }

    fn pixels(&self) -> usize {
        self.bn.on.batch * self.shape().pixels()
    }

    /// All maps of the block.
    fn maps(&self) -> Address {
        self.bn.on.at(self.bn.on.slots.blocks[self.index].maps)
    }

    /// The statistics of these maps.
    fn statistics(&self) -> Statistics {
        let slot = self.bn.on.slots.blocks[self.index].statistics;
        self.bn.statistics(slot, self.shape().output())
    }

    /// The sums that their consumers wrote in the backward pass.
    fn totals(&self) -> Totals {
        let slot = self.bn.on.slots.blocks[self.index].totals;
        self.bn.totals(slot, self.shape().output())
    }

    /// The site of the dropout after a layer's 3x3 convolution.
    fn site(&self, number: usize, layer: &LayerAt) -> i32 {
        self.bn.on.site(self.sites().maps(number), layer.conv)
    }

    fn sites(&self) -> DropoutSites {
        self.bn.on.plan.dropout_sites(self.index)
    }

    /// The input of a layer.
    fn wide(&self, layer: &LayerAt) -> Input {
        Input {
            x: self.maps(),
            norm: layer.norm1,
        }
    }

    /// The first half of a bottleneck layer.
    fn narrow(&self, number: usize, layer: &LayerAt) -> Option<Narrow<'a>> {
        let ((weight, norm), kernels) = layer.narrow.zip(self.kernels.pointwise.as_ref())?;
        let own = &self.bn.on.slots.blocks[self.index];
        // If they are recomputed, all layers share one buffer.
        let slot = own.narrow[number.min(own.narrow.len() - 1)];
        let statistics = own.narrow_statistics[number];
        Some(Narrow {
            convolution: Pointwise {
                bn: self.bn,
                kernels,
                input: self.wide(layer),
                weight,
                pixels: self.pixels(),
            },
            maps: Input {
                x: self.bn.on.at(slot),
                norm,
            },
            statistics: self.bn.statistics(statistics, norm.channels),
            site: self.bn.on.site(self.sites().bottleneck(number), weight),
        })
    }

    fn spatial(&self, input: Input, weight: WeightAt) -> Spatial<'a> {
        Spatial {
            bn: self.bn,
            kernels: &self.kernels.spatial,
            block: self.shape(),
            input,
            weight,
            pixels: self.pixels(),
        }
    }
}
