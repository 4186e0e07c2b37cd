//! A dense block, as launches.

use super::*;

impl Pass<'_> {
    /// The first dropout site of a block; two for each layer, then its transition's.
    pub(super) fn first_site(&self, index: usize) -> usize {
        self.plan.blocks[..index]
            .iter()
            .map(|block| 2 * block.layers + 1)
            .sum()
    }

    pub(super) fn block_forward(&self, index: usize) -> Result<(), CudaError> {
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
            let spatial = &self.kernels.blocks[index].spatial.convolution_forward;
            self.convolve(spatial, input, layer.conv, output, pixels, true)?;
            let measured = (tiles(pixels), ROWS, pixels);
            self.measure(statistics, column, block.growth, measured)?;
        }
        Ok(())
    }

    /// A layer's bottleneck maps.
    pub(super) fn narrow(&self, block: usize, layer: usize) -> Address {
        let slots = &self.slots.blocks[block].narrow;
        self.at(slots[layer.min(slots.len() - 1)])
    }

    /// The 1x1 convolution of a bottleneck layer.
    pub(super) fn compress(
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
        self.convolve(
            &pointwise.convolution_forward,
            input,
            weight,
            output,
            pixels,
            measure,
        )
    }

    /// Undoes the BN of some columns of a block, whose consumers are all done.
    pub(super) fn finish(
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

    /// Back through a 3x3 convolution: the gradient of its weight is added; that of its input,
    /// masked, is stored in `into`, or added to it times gamma.
    fn spatial_back(
        &self,
        kernels: &Spatial,
        (input, mean): (Input, Address),
        (weight, dout, maps): (usize, Address, usize),
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
        let count = maps * channels * 9;
        let (slices, length) = slices(pixels, count, spatial_blocks(channels, maps));
        self.tiled(
            &kernels.convolution_weight,
            [channels.div_ceil(COLUMNS), maps.div_ceil(ROWS) * 9, slices],
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

    /// Back through a layer's 1x1 convolution: the gradient of its weight is added; that of its
    /// input, masked and times gamma, is added to the block's. Returns the slices that have left
    /// sums for gamma and beta.
    fn pointwise_back(
        &self,
        kernels: &Pointwise,
        (input, mean): (Input, Address),
        (weight, dout, maps): (usize, Address, usize),
        pixels: usize,
    ) -> Result<usize, CudaError> {
        let norm = input.norm;
        let (channels, count) = (norm.channels, maps * norm.channels);
        let own = maps_of_back(maps);
        let (slices, length) = slices(pixels, count, weight_blocks(channels, maps, own));
        self.tiled(
            &kernels.convolution_back,
            [channels.div_ceil(COLUMNS), maps.div_ceil(own), slices],
            values![
                dout,
                self.parameter(weight),
                input.x,
                self.scale(norm),
                self.shift(norm),
                mean,
                self.parameter(norm.gamma),
                self.at(self.slots.gradient),
                self.partial(),
                self.shares(),
                pixels,
                channels,
                length,
            ],
        )?;
        self.add_shares(weight, slices, count)?;
        Ok(slices)
    }

    pub(super) fn block_backward(&self, index: usize) -> Result<(), CudaError> {
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
            let spatial = (layer.conv, fresh, block.growth);
            let summed = match (layer.narrow, &kernels.pointwise) {
                (Some((conv1, norm2)), Some(pointwise)) => {
                    if index < self.plan.recomputed_blocks(self.recompute) {
                        self.compress(index, number, layer, false)?;
                    }
                    let maps = norm2.channels;
                    let y = self.narrow(index, number);
                    let of_layer = self.statistics(own.narrow_statistics[number], maps);
                    let sums = self.totals(self.slots.narrow_totals, maps);
                    let dy = self.at(self.slots.narrow_gradient);
                    let input = Input { x: y, norm: norm2 };
                    let through = (input, of_layer.mean);
                    self.spatial_back(&kernels.spatial, through, spatial, (dy, false), pixels)?;
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
                    self.pointwise_back(pointwise, through, (conv1, dy, maps), pixels)?
                }
                _ => {
                    let through = (wide, statistics.mean);
                    self.spatial_back(&kernels.spatial, through, spatial, (g, true), pixels)?;
                    tiles(pixels)
                }
            };
            self.gather(layer.norm1, statistics.inverse, totals, summed, true)?;
        }
        // What is left is the gradient of the block's input, handed to the stage before it.
        self.finish(index, (0, block.input), self.at(self.slots.handover), -1)
    }
}
