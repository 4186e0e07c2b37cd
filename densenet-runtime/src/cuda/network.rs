//! The stages of a plan in a row, as launches. What is computed is the CPU executor's.

use super::arena::{Arena, Slot};
use super::buffers::{LayerAt, NormAt, Places, Slots, slices};
use super::driver::{Address, Device, Kernel, Value};
use super::error::CudaError;
use super::program::{COLUMNS, Convolution, Kernels, ROWS, THREADS};
use crate::plan::{Block, Plan, Recompute, StemKind, Transition};

/// Values of a launch, of whatever kind.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$(Value::from($value)),*] };
}

/// A pass over the network with a batch of some images.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub device: &'a Device,
    pub kernels: &'a Kernels,
    pub arena: &'a Arena,
    pub slots: &'a Slots,
    pub places: &'a Places,
    pub plan: &'a Plan,
    pub recompute: Recompute,
    pub batch: usize,
    /// With the batch's statistics, which move the running ones, and dropout.
    pub training: bool,
}

/// Statistics of some channels, the first of `stride`.
#[derive(Clone, Copy)]
struct Statistics {
    mean: Address,
    variance: Address,
    inverse: Address,
}

/// Two sums of each channel.
#[derive(Clone, Copy)]
struct Totals {
    plain: Address,
    normalised: Address,
}

/// What a convolution of a layer reads: a prefix of channels, with BN.
#[derive(Clone, Copy)]
struct Input {
    x: Address,
    norm: NormAt,
}

/// Where a convolution's maps go.
#[derive(Clone, Copy)]
struct Output {
    maps: Address,
    column: usize,
    count: usize,
    /// Dropout's site.
    site: i32,
}

fn tiles(pixels: usize) -> usize {
    pixels.div_ceil(ROWS)
}

impl Pass<'_> {
    fn at(&self, slot: Slot) -> Address {
        self.arena.at(slot)
    }

    fn parameter(&self, offset: usize) -> Address {
        self.at(self.slots.parameters).floats(offset)
    }

    fn gradient_of(&self, offset: usize) -> Address {
        self.at(self.slots.gradients).floats(offset)
    }

    fn scale(&self, norm: NormAt) -> Address {
        self.at(self.slots.affine).floats(norm.affine)
    }

    fn shift(&self, norm: NormAt) -> Address {
        self.scale(norm).floats(norm.channels)
    }

    fn partial(&self) -> Address {
        self.at(self.slots.partial)
    }

    fn shares(&self) -> Address {
        self.at(self.slots.shares)
    }

    fn scalars(&self) -> Address {
        self.at(self.slots.scalars)
    }

    fn training(&self) -> usize {
        usize::from(self.training)
    }

    fn statistics(&self, slot: Slot, channels: usize) -> Statistics {
        let mean = self.at(slot);
        Statistics {
            mean,
            variance: mean.floats(channels),
            inverse: mean.floats(2 * channels),
        }
    }

    fn totals(&self, slot: Slot, channels: usize) -> Totals {
        let plain = self.at(slot);
        Totals {
            plain,
            normalised: plain.floats(channels),
        }
    }

    /// A dropout site's number; none while evaluating or without dropout.
    fn site(&self, site: usize) -> i32 {
        if self.training && self.plan.dropout > 0.0 {
            i32::try_from(site).unwrap_or(i32::MAX)
        } else {
            -1
        }
    }

    fn tiled(&self, kernel: &Kernel, grid: [usize; 3], values: &[Value]) -> Result<(), CudaError> {
        self.device.launch(kernel, (grid, THREADS), values)
    }

    /// A thread for each of `count` things.
    fn each(&self, kernel: &Kernel, count: usize, values: &[Value]) -> Result<(), CudaError> {
        let grid = [count.div_ceil(THREADS), 1, 1];
        self.device.launch(kernel, (grid, THREADS), values)
    }

    /// A block of 128 threads for each of `count` things.
    fn blocks(&self, kernel: &Kernel, count: usize, values: &[Value]) -> Result<(), CudaError> {
        self.device.launch(kernel, ([count, 1, 1], 128), values)
    }

    /// Statistics of channels from the tiles' moments that their producer left.
    fn measure(
        &self,
        into: Statistics,
        first: usize,
        channels: usize,
        (tiles, rows, pixels): (usize, usize, usize),
    ) -> Result<(), CudaError> {
        if !self.training {
            return Ok(());
        }
        self.blocks(
            &self.kernels.norm.merge_moments,
            channels,
            values![
                self.partial(),
                into.mean.floats(first),
                into.variance.floats(first),
                into.inverse.floats(first),
                tiles,
                rows,
                pixels,
                channels,
            ],
        )
    }

    /// BN of a consumer as a multiply-add.
    fn prepare(&self, norm: NormAt, from: Statistics, pixels: usize) -> Result<(), CudaError> {
        self.each(
            &self.kernels.norm.prepare,
            norm.channels,
            values![
                self.parameter(norm.gamma),
                self.parameter(norm.beta()),
                from.mean,
                from.variance,
                from.inverse,
                self.at(self.slots.running).floats(norm.running),
                self.scale(norm),
                self.shift(norm),
                norm.channels,
                pixels,
                self.training(),
            ],
        )
    }

    /// Gradients of gamma and beta from the tiles' sums, and what undoing BN needs.
    fn gather(
        &self,
        norm: NormAt,
        inverse: Address,
        totals: Totals,
        tiles: usize,
        add: bool,
    ) -> Result<(), CudaError> {
        self.blocks(
            &self.kernels.norm.merge_sums,
            norm.channels,
            values![
                self.partial(),
                self.parameter(norm.gamma),
                inverse,
                self.gradient_of(norm.gamma),
                self.gradient_of(norm.beta()),
                totals.plain,
                totals.normalised,
                tiles,
                norm.channels,
                usize::from(add),
            ],
        )
    }

    /// Adds the slices' shares to a weight's gradient.
    fn add_shares(&self, weight: usize, slices: usize, count: usize) -> Result<(), CudaError> {
        self.each(
            &self.kernels.step.add_shares,
            count,
            values![self.shares(), self.gradient_of(weight), slices, count],
        )
    }

    fn convolve(
        &self,
        kernels: &Convolution,
        input: Input,
        weight: usize,
        output: Output,
        pixels: usize,
        measure: bool,
    ) -> Result<(), CudaError> {
        self.tiled(
            &kernels.convolution_forward,
            [tiles(pixels), output.count.div_ceil(COLUMNS), 1],
            values![
                input.x,
                self.scale(input.norm),
                self.shift(input.norm),
                self.parameter(weight),
                output.maps,
                self.partial(),
                self.scalars(),
                output.column,
                output.site,
                pixels,
                input.norm.channels,
                usize::from(measure && self.training),
            ],
        )
    }

    /// From the images to the logits.
    pub fn forward(&self) -> Result<(), CudaError> {
        self.stem_forward()?;
        for index in 0..self.plan.blocks.len() {
            self.block_forward(index)?;
            if let Some(transition) = self.plan.transitions.get(index) {
                self.transition_forward(index, transition)?;
            }
        }
        self.head_forward()
    }

    /// The loss of each image; when training, the gradient of the logits.
    pub fn loss(&self) -> Result<(), CudaError> {
        self.blocks(
            &self.kernels.head.cross_entropy,
            self.batch,
            values![
                self.at(self.slots.logits),
                self.at(self.slots.labels),
                self.at(self.slots.logit_gradient),
                self.at(self.slots.results),
                self.scalars(),
                self.batch,
                self.training(),
            ],
        )
    }

    /// From the gradient of the logits to the gradients of the parameters.
    pub fn backward(&self) -> Result<(), CudaError> {
        let count = self.plan.parameter_count();
        self.each(
            &self.kernels.step.start,
            count,
            values![self.at(self.slots.gradients), self.scalars(), count],
        )?;
        self.head_backward()?;
        for index in (0..self.plan.blocks.len()).rev() {
            self.block_backward(index)?;
            if let Some(before) = index.checked_sub(1) {
                self.transition_backward(before, &self.plan.transitions[before])?;
            }
        }
        self.stem_backward()
    }

    fn stem_forward(&self) -> Result<(), CudaError> {
        let (plan, slots) = (self.plan, self.slots);
        let stem = &plan.stem;
        let first = &slots.blocks[0];
        let block = &plan.blocks[0];
        let (height, width) = stem.convolved_size();
        let pixels = self.batch * height * width;
        let (into, stride) = match stem.kind {
            StemKind::ImageNet => (slots.convolved, stem.maps),
            StemKind::Cifar => (first.maps, block.output()),
        };
        self.tiled(
            &self.kernels.stem.stem_forward,
            [tiles(pixels), stem.maps.div_ceil(COLUMNS), 1],
            values![
                self.at(slots.images),
                self.parameter(self.places.stem),
                self.at(into),
                self.partial(),
                stride,
                pixels,
                self.training(),
            ],
        )?;
        let of_block = self.statistics(first.statistics, block.output());
        let Some(pool) = &self.kernels.pool else {
            return self.measure(of_block, 0, stem.maps, (tiles(pixels), ROWS, pixels));
        };
        let norm = self.places.stem_norm;
        let statistics = self.statistics(slots.stem_statistics, stem.maps);
        self.measure(statistics, 0, stem.maps, (tiles(pixels), ROWS, pixels))?;
        self.prepare(norm, statistics, pixels)?;
        let pooled = self.batch * block.pixels();
        self.tiled(
            &pool.stem_pool,
            [tiles(pooled), stem.maps.div_ceil(COLUMNS), 1],
            values![
                self.at(slots.convolved),
                self.scale(norm),
                self.shift(norm),
                self.at(first.maps),
                self.at(slots.choice),
                self.partial(),
                block.output(),
                pooled,
                self.training(),
            ],
        )?;
        self.measure(of_block, 0, stem.maps, (tiles(pooled), ROWS, pooled))
    }

    fn stem_backward(&self) -> Result<(), CudaError> {
        let slots = self.slots;
        let stem = &self.plan.stem;
        let (height, width) = stem.convolved_size();
        let pixels = self.batch * height * width;
        if let Some(pool) = &self.kernels.pool {
            let norm = self.places.stem_norm;
            let statistics = self.statistics(slots.stem_statistics, stem.maps);
            let totals = self.totals(slots.stem_totals, stem.maps);
            self.tiled(
                &pool.stem_sums,
                [tiles(pixels), stem.maps.div_ceil(COLUMNS), 1],
                values![
                    self.at(slots.handover),
                    self.at(slots.choice),
                    self.at(slots.convolved),
                    self.scale(norm),
                    self.shift(norm),
                    statistics.mean,
                    self.partial(),
                    pixels,
                ],
            )?;
            self.gather(norm, statistics.inverse, totals, tiles(pixels), false)?;
            self.each(
                &self.kernels.norm.undo_numbers,
                stem.maps,
                values![
                    statistics.mean,
                    statistics.inverse,
                    self.parameter(norm.gamma),
                    totals.plain,
                    totals.normalised,
                    self.at(slots.stem_undo),
                    stem.maps,
                    pixels,
                ],
            )?;
        }
        let count = stem.weight_len();
        let (slices, length) = slices(pixels, count);
        self.tiled(
            &self.kernels.stem.stem_weight,
            [
                (count / stem.maps).div_ceil(COLUMNS),
                stem.maps.div_ceil(ROWS),
                slices,
            ],
            values![
                self.at(slots.handover),
                self.at(slots.choice),
                self.at(slots.convolved),
                self.at(slots.stem_undo),
                self.at(slots.images),
                self.shares(),
                pixels,
                length,
            ],
        )?;
        self.add_shares(self.places.stem, slices, count)
    }

    /// The first dropout site of a block; two for each layer, then its transition's.
    fn first_site(&self, index: usize) -> usize {
        self.plan.blocks[..index]
            .iter()
            .map(|block| 2 * block.layers + 1)
            .sum()
    }

    fn block_forward(&self, index: usize) -> Result<(), CudaError> {
        let block = &self.plan.blocks[index];
        let own = &self.slots.blocks[index];
        let pixels = self.batch * block.pixels();
        let statistics = self.statistics(own.statistics, block.output());
        for (number, layer) in self.places.blocks[index].iter().enumerate() {
            self.prepare(layer.norm1, statistics, pixels)?;
            let mut input = Input {
                x: self.at(own.maps),
                norm: layer.norm1,
            };
            if let Some((_, norm2)) = layer.narrow {
                self.compress(index, number, layer, true)?;
                let maps = norm2.channels;
                let of_layer = self.statistics(own.narrow_statistics[number], maps);
                self.measure(of_layer, 0, maps, (tiles(pixels), ROWS, pixels))?;
                self.prepare(norm2, of_layer, pixels)?;
                input = Input {
                    x: self.narrow(index, number),
                    norm: norm2,
                };
            }
            let column = layer.norm1.channels;
            let output = Output {
                maps: self.at(own.maps),
                column,
                count: block.growth,
                site: self.site(self.first_site(index) + 2 * number + 1),
            };
            let spatial = &self.kernels.blocks[index].spatial;
            self.convolve(spatial, input, layer.conv, output, pixels, true)?;
            let measured = (tiles(pixels), ROWS, pixels);
            self.measure(statistics, column, block.growth, measured)?;
        }
        Ok(())
    }

    /// A layer's bottleneck maps.
    fn narrow(&self, block: usize, layer: usize) -> Address {
        let slots = &self.slots.blocks[block].narrow;
        self.at(slots[layer.min(slots.len() - 1)])
    }

    /// The 1x1 convolution of a bottleneck layer.
    fn compress(
        &self,
        index: usize,
        number: usize,
        layer: &LayerAt,
        measure: bool,
    ) -> Result<(), CudaError> {
        let (Some((weight, norm2)), Some(pointwise)) =
            (layer.narrow, &self.kernels.blocks[index].pointwise)
        else {
            return Ok(());
        };
        let input = Input {
            x: self.at(self.slots.blocks[index].maps),
            norm: layer.norm1,
        };
        let output = Output {
            maps: self.narrow(index, number),
            column: 0,
            count: norm2.channels,
            site: self.site(self.first_site(index) + 2 * number),
        };
        let pixels = self.batch * self.plan.blocks[index].pixels();
        self.convolve(pointwise, input, weight, output, pixels, measure)
    }

    /// Undoes the BN of some columns of a block, whose consumers are all done.
    fn finish(
        &self,
        index: usize,
        (first, count): (usize, usize),
        into: Address,
        site: i32,
    ) -> Result<(), CudaError> {
        let block = &self.plan.blocks[index];
        let own = &self.slots.blocks[index];
        let pixels = self.batch * block.pixels();
        let statistics = self.statistics(own.statistics, block.output());
        let totals = self.totals(own.totals, block.output());
        self.each(
            &self.kernels.norm.finish,
            pixels * count,
            values![
                self.at(self.slots.gradient),
                self.at(own.maps),
                statistics.mean,
                statistics.inverse,
                totals.plain,
                totals.normalised,
                into,
                self.scalars(),
                block.output(),
                first,
                count,
                pixels,
                site,
            ],
        )
    }

    /// Back through a convolution: the gradient of its weight is added; that of its input, masked,
    /// is stored in `into`, or added to it times gamma.
    fn pull(
        &self,
        kernels: &Convolution,
        (input, mean): (Input, Address),
        (weight, dout, maps, taps): (usize, Address, usize, usize),
        (into, add): (Address, bool),
        pixels: usize,
    ) -> Result<(), CudaError> {
        let norm = input.norm;
        let channels = norm.channels;
        let (scale, shift) = (self.scale(norm), self.shift(norm));
        self.tiled(
            &kernels.convolution_pull,
            [tiles(pixels), channels.div_ceil(COLUMNS), 1],
            values![
                dout,
                self.parameter(weight),
                input.x,
                scale,
                shift,
                mean,
                self.parameter(norm.gamma),
                into,
                self.partial(),
                usize::from(add),
                pixels,
                channels,
            ],
        )?;
        let count = maps * channels * taps;
        let (slices, length) = slices(pixels, count);
        self.tiled(
            &kernels.convolution_weight,
            [
                channels.div_ceil(COLUMNS),
                maps.div_ceil(ROWS) * taps,
                slices,
            ],
            values![
                dout,
                input.x,
                scale,
                shift,
                self.shares(),
                pixels,
                channels,
                length
            ],
        )?;
        self.add_shares(weight, slices, count)
    }

    fn block_backward(&self, index: usize) -> Result<(), CudaError> {
        let block: &Block = &self.plan.blocks[index];
        let own = &self.slots.blocks[index];
        let kernels = &self.kernels.blocks[index];
        let pixels = self.batch * block.pixels();
        let statistics = self.statistics(own.statistics, block.output());
        let totals = self.totals(own.totals, block.output());
        let fresh = self.at(self.slots.fresh);
        let g = self.at(self.slots.gradient);
        for (number, layer) in self.places.blocks[index].iter().enumerate().rev() {
            let first = self.first_site(index) + 2 * number;
            let columns = (layer.norm1.channels, block.growth);
            self.finish(index, columns, fresh, self.site(first + 1))?;
            let wide = Input {
                x: self.at(own.maps),
                norm: layer.norm1,
            };
            let spatial = (layer.conv, fresh, block.growth, 9);
            match (layer.narrow, &kernels.pointwise) {
                (Some((conv1, norm2)), Some(pointwise)) => {
                    if self.recompute == Recompute::Bottlenecks {
                        self.compress(index, number, layer, false)?;
                    }
                    let maps = norm2.channels;
                    let y = self.narrow(index, number);
                    let of_layer = self.statistics(own.narrow_statistics[number], maps);
                    let sums = self.totals(self.slots.narrow_totals, maps);
                    let dy = self.at(self.slots.narrow_gradient);
                    let input = Input { x: y, norm: norm2 };
                    let through = (input, of_layer.mean);
                    self.pull(&kernels.spatial, through, spatial, (dy, false), pixels)?;
                    self.gather(norm2, of_layer.inverse, sums, tiles(pixels), false)?;
                    self.each(
                        &self.kernels.norm.undo,
                        pixels * maps,
                        values![
                            dy,
                            y,
                            of_layer.mean,
                            of_layer.inverse,
                            self.parameter(norm2.gamma),
                            sums.plain,
                            sums.normalised,
                            self.scalars(),
                            maps,
                            pixels,
                            self.site(first),
                        ],
                    )?;
                    let through = (wide, statistics.mean);
                    self.pull(pointwise, through, (conv1, dy, maps, 1), (g, true), pixels)?;
                }
                _ => {
                    let through = (wide, statistics.mean);
                    self.pull(&kernels.spatial, through, spatial, (g, true), pixels)?;
                }
            }
            self.gather(layer.norm1, statistics.inverse, totals, tiles(pixels), true)?;
        }
        // What is left is the gradient of the block's input, handed to the stage before it.
        self.finish(index, (0, block.input), self.at(self.slots.handover), -1)
    }

    /// Rows of a transition's products for each pooled pixel.
    fn group(&self) -> usize {
        if self.training && self.plan.dropout > 0.0 {
            4
        } else {
            1
        }
    }

    fn transition_forward(&self, index: usize, transition: &Transition) -> Result<(), CudaError> {
        let own = &self.slots.blocks[index];
        let (norm, weight) = self.places.transitions[index];
        let block = &self.plan.blocks[index];
        let next = &self.plan.blocks[index + 1];
        let pooled = self.batch * next.pixels();
        let statistics = self.statistics(own.statistics, block.output());
        self.prepare(norm, statistics, self.batch * block.pixels())?;
        let kernels = &self.kernels.transitions[index];
        let group = self.group();
        let kernel = match group {
            4 => &kernels.transition_forward_dropped,
            _ => &kernels.transition_forward,
        };
        let into = &self.slots.blocks[index + 1];
        let site = self.site(self.first_site(index) + 2 * block.layers);
        let across = tiles(pooled * group);
        self.tiled(
            kernel,
            [across, transition.output.div_ceil(COLUMNS), 1],
            values![
                self.at(own.maps),
                self.scale(norm),
                self.shift(norm),
                self.parameter(weight),
                self.at(into.maps),
                self.partial(),
                self.scalars(),
                site,
                pooled,
                self.training(),
            ],
        )?;
        let statistics = self.statistics(into.statistics, next.output());
        self.measure(
            statistics,
            0,
            transition.output,
            (across, ROWS / group, pooled),
        )
    }

    fn transition_backward(&self, index: usize, transition: &Transition) -> Result<(), CudaError> {
        let own = &self.slots.blocks[index];
        let (norm, weight) = self.places.transitions[index];
        let block = &self.plan.blocks[index];
        let pixels = self.batch * block.pixels();
        let pooled = self.batch * self.plan.blocks[index + 1].pixels();
        let g = self.at(self.slots.gradient);
        if !transition.height.is_multiple_of(2) || !transition.width.is_multiple_of(2) {
            // What the pool leaves out has no gradient.
            self.device.clear(g, 4 * pixels * block.output())?;
        }
        let kernels = &self.kernels.transitions[index];
        let group = self.group();
        let (pull, of_weight) = match group {
            4 => (
                &kernels.transition_pull_dropped,
                &kernels.transition_weight_dropped,
            ),
            _ => (&kernels.transition_pull, &kernels.transition_weight),
        };
        let site = self.site(self.first_site(index) + 2 * block.layers);
        let statistics = self.statistics(own.statistics, block.output());
        let dout = self.at(self.slots.handover);
        let (x, scale, shift) = (self.at(own.maps), self.scale(norm), self.shift(norm));
        let across = tiles(pooled * group);
        self.tiled(
            pull,
            [across, transition.input.div_ceil(COLUMNS), 1],
            values![
                dout,
                self.parameter(weight),
                x,
                scale,
                shift,
                statistics.mean,
                self.parameter(norm.gamma),
                g,
                self.partial(),
                self.scalars(),
                site,
                pooled,
            ],
        )?;
        let totals = self.totals(own.totals, block.output());
        self.gather(norm, statistics.inverse, totals, across, false)?;
        let count = transition.input * transition.output;
        let (slices, length) = slices(pooled * group, count);
        self.tiled(
            of_weight,
            [
                transition.input.div_ceil(COLUMNS),
                transition.output.div_ceil(ROWS),
                slices,
            ],
            values![
                dout,
                x,
                scale,
                shift,
                self.shares(),
                self.scalars(),
                site,
                pooled,
                length,
            ],
        )?;
        self.add_shares(weight, slices, count)
    }

    fn head_forward(&self) -> Result<(), CudaError> {
        let last = self.plan.blocks.len() - 1;
        let block = &self.plan.blocks[last];
        let own = &self.slots.blocks[last];
        let norm = self.places.norm;
        let statistics = self.statistics(own.statistics, block.output());
        self.prepare(norm, statistics, self.batch * block.pixels())?;
        let features = self.at(self.slots.features);
        self.each(
            &self.kernels.head.head_pool,
            self.batch * block.output(),
            values![
                self.at(own.maps),
                self.scale(norm),
                self.shift(norm),
                features,
                self.batch
            ],
        )?;
        self.tiled(
            &self.kernels.head.classify,
            [tiles(self.batch), self.plan.classes.div_ceil(COLUMNS), 1],
            values![
                features,
                self.parameter(self.places.classifier),
                self.parameter(self.places.bias),
                self.at(self.slots.logits),
                self.batch,
            ],
        )
    }

    fn head_backward(&self) -> Result<(), CudaError> {
        let last = self.plan.blocks.len() - 1;
        let block = &self.plan.blocks[last];
        let own = &self.slots.blocks[last];
        let (channels, classes) = (block.output(), self.plan.classes);
        let dlogits = self.at(self.slots.logit_gradient);
        let dfeatures = self.at(self.slots.feature_gradient);
        let kernels = &self.kernels.head;
        self.tiled(
            &kernels.classify_weight,
            [channels.div_ceil(COLUMNS), classes.div_ceil(ROWS), 1],
            values![
                dlogits,
                self.at(self.slots.features),
                self.gradient_of(self.places.classifier),
                self.gradient_of(self.places.bias),
                self.batch,
            ],
        )?;
        self.tiled(
            &kernels.classify_features,
            [tiles(self.batch), channels.div_ceil(COLUMNS), 1],
            values![
                dlogits,
                self.parameter(self.places.classifier),
                dfeatures,
                self.batch
            ],
        )?;
        let norm = self.places.norm;
        let statistics = self.statistics(own.statistics, channels);
        let across = tiles(self.batch * block.pixels());
        self.tiled(
            &kernels.head_pull,
            [across, channels.div_ceil(COLUMNS), 1],
            values![
                dfeatures,
                self.at(own.maps),
                self.scale(norm),
                self.shift(norm),
                statistics.mean,
                self.parameter(norm.gamma),
                self.at(self.slots.gradient),
                self.partial(),
                self.batch,
            ],
        )?;
        let totals = self.totals(own.totals, channels);
        self.gather(norm, statistics.inverse, totals, across, false)
    }
}
