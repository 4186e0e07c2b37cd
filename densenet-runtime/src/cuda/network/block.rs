//! A dense block, as launches.

use super::*;

impl Pass<'_> {
    /// The input's maps are fresh; so are the last layer's, then.
    pub(super) fn block_forward(&self, index: usize, input: Fresh) -> Result<Fresh, CudaError> {
        let block = &self.plan.blocks()[index];
        let own = &self.slots.blocks[index];
        let pixels = self.batch * block.pixels();
        let statistics = self.statistics(own.statistics, block.output());
        let mut fresh = input;
        for (number, layer) in self.places.blocks[index].iter().enumerate() {
            self.prepare(layer.norm1, statistics, (fresh, pixels))?;
            let mut input = Input {
                x: self.at(own.maps),
                norm: layer.norm1,
            };
            if let Some((_, norm2)) = layer.narrow {
                self.compress(index, number, layer, true)?;
                let maps = norm2.channels;
                let of_layer = self.statistics(own.narrow_statistics[number], maps);
                let narrow = Fresh {
                    first: 0,
                    count: maps,
                    tiles: tiles(pixels),
                    rows: ROWS,
                };
                self.prepare(norm2, of_layer, (narrow, pixels))?;
                input = Input {
                    x: self.narrow(index, number),
                    norm: norm2,
                };
            }
            let (column, maps) = (layer.norm1.channels, block.growth);
            let rows = spatial_rows(block);
            let across = pixels.div_ceil(rows);
            self.tiled(
                &self.kernels.blocks[index].spatial.spatial_forward,
                [across, maps.div_ceil(SPATIAL_MAPS), 1],
                values![
                    input.x,
                    self.scale(input.norm),
                    self.shift(input.norm),
                    self.packed(layer.conv),
                    self.at(own.maps),
                    self.partial(),
                    self.scalars(),
                    column,
                    self.site(self.plan.dropout_sites(index).maps(number)),
                    pixels,
                    input.norm.channels,
                    self.training(),
                ],
            )?;
            fresh = Fresh {
                first: column,
                count: maps,
                tiles: across,
                rows,
            };
        }
        Ok(fresh)
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
        let (norm1, maps) = (layer.norm1, norm2.channels);
        let pixels = self.batch * self.plan.blocks()[index].pixels();
        self.tiled(
            &pointwise.pointwise_forward,
            [tiles(pixels), maps.div_ceil(pointwise_columns(maps)), 1],
            values![
                self.at(self.slots.blocks[index].maps),
                self.scale(norm1),
                self.shift(norm1),
                self.packed(weight),
                self.narrow(index, number),
                self.partial(),
                self.scalars(),
                self.site(self.plan.dropout_sites(index).bottleneck(number)),
                pixels,
                norm1.channels,
                usize::from(measure && self.training),
            ],
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
        let block = &self.plan.blocks()[index];
        let own = &self.slots.blocks[index];
        let pixels = self.batch * block.pixels();
        let statistics = self.statistics(own.statistics, block.output());
        let totals = self.totals(own.totals, block.output());
        self.vectors(
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

    /// Back through a 3x3 convolution: the gradient of its input, masked, is stored in `into`, or
    /// added to it times gamma. Tiles' sums and the shares of its weight's gradient are left.
    fn spatial_back(
        &self,
        index: usize,
        (input, mean): (Input, Address),
        (weight, dout): (WeightAt, Address),
        (into, add): (Address, bool),
    ) -> Result<Shares, CudaError> {
        let kernels = &self.kernels.blocks[index].spatial;
        let block = &self.plan.blocks()[index];
        let pixels = self.batch * block.pixels();
        let norm = input.norm;
        let (channels, maps) = (norm.channels, weight.maps);
        let (scale, shift) = (self.scale(norm), self.shift(norm));
        let across = channels.div_ceil(BACK_CHANNELS);
        self.tiled(
            &kernels.spatial_pull,
            [pixels.div_ceil(spatial_rows(block)), across, 1],
            values![
                dout,
                self.packed(weight),
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
        let slicing = Slicing::spatial(block, channels);
        let (slices, length) = slicing.slices(pixels);
        self.tiled(
            &kernels.spatial_weight,
            [across, maps.div_ceil(SPATIAL_MAPS) * TAP_ROWS, slices],
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
        Ok(Shares {
            weight: weight.parameter,
            slices,
            count: slicing.weight,
        })
    }

    /// Back through a layer's 1x1 convolution: the gradient of its weight is added; that of its
    /// input, masked and times gamma, is added to the block's; and so are the sums for gamma and
    /// beta. In groups of maps, one after the other.
    fn pointwise_back(
        &self,
        kernels: &Pointwise,
        index: usize,
        norm: NormAt,
        (weight, dout): (WeightAt, Address),
    ) -> Result<(), CudaError> {
        let (block, own) = (&self.plan.blocks()[index], &self.slots.blocks[index]);
        let pixels = self.batch * block.pixels();
        let statistics = self.statistics(own.statistics, block.output());
        let totals = self.totals(own.totals, block.output());
        let (channels, maps) = (norm.channels, weight.maps);
        let slicing = Slicing::pointwise(channels, maps);
        let (slices, length) = slicing.slices(pixels);
        let group = maps_of_back(maps, self.precision);
        for map in (0..maps).step_by(group) {
            self.tiled(
                &kernels.pointwise_back,
                [slicing.blocks, slices, 1],
                values![
                    dout,
                    self.packed(weight),
                    self.at(own.maps),
                    self.scale(norm),
                    self.shift(norm),
                    statistics.mean,
                    self.parameter(norm.gamma),
                    self.at(self.slots.gradient),
                    self.partial(),
                    self.shares(),
                    map,
                    pixels,
                    channels,
                    length,
                ],
            )?;
            let shares = Shares {
                weight: weight.parameter,
                slices,
                count: slicing.weight,
            };
            // The shares are whole behind the last group.
            let shares = if map + group < maps {
                Shares::NONE
            } else {
                shares
            };
            self.gather(norm, statistics.inverse, totals, (slices, true), shares)?;
        }
        Ok(())
    }

    pub(super) fn block_backward(&self, index: usize) -> Result<(), CudaError> {
        let block: &Block = &self.plan.blocks()[index];
        let own = &self.slots.blocks[index];
        let kernels = &self.kernels.blocks[index];
        let pixels = self.batch * block.pixels();
        let statistics = self.statistics(own.statistics, block.output());
        let totals = self.totals(own.totals, block.output());
        let fresh = self.at(self.slots.fresh);
        let g = self.at(self.slots.gradient);
        let across = pixels.div_ceil(spatial_rows(block));
        for (number, layer) in self.places.blocks[index].iter().enumerate().rev() {
            let sites = self.plan.dropout_sites(index);
            let columns = (layer.norm1.channels, block.growth);
            self.finish(index, columns, fresh, self.site(sites.maps(number)))?;
            let wide = Input {
                x: self.at(own.maps),
                norm: layer.norm1,
            };
            let spatial = (layer.conv, fresh);
            match (layer.narrow, &kernels.pointwise) {
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
                    let input = (input, of_layer.mean);
                    let shares = self.spatial_back(index, input, spatial, (dy, false))?;
                    self.gather(norm2, of_layer.inverse, sums, (across, false), shares)?;
                    self.vectors(
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
                            self.site(sites.bottleneck(number)),
                        ],
                    )?;
                    self.pointwise_back(pointwise, index, layer.norm1, (conv1, dy))?;
                }
                _ => {
                    let through = (wide, statistics.mean);
                    let shares = self.spatial_back(index, through, spatial, (g, true))?;
                    let (inverse, sums) = (statistics.inverse, (across, true));
                    self.gather(layer.norm1, inverse, totals, sums, shares)?;
                }
            }
        }
        // What is left is the gradient of the block's input, handed to the stage before it.
        self.finish(index, (0, block.input), self.at(self.slots.handover), -1)
    }
}
