//! A transition, as launches.

use super::*;

impl Pass<'_> {
    /// Rows of a transition's products for each pooled pixel.
    pub(super) fn group(&self) -> usize {
        if self.training && self.plan.dropout() > 0.0 {
            4
        } else {
            1
        }
    }

    pub(super) fn transition_forward(
        &self,
        index: usize,
        transition: &Transition,
        fresh: Fresh,
    ) -> Result<Fresh, CudaError> {
        let own = &self.slots.blocks[index];
        let (norm, weight) = self.places.transitions[index];
        let block = &self.plan.blocks()[index];
        let next = &self.plan.blocks()[index + 1];
        let pooled = self.batch * next.pixels();
        let statistics = self.statistics(own.statistics, block.output());
        self.prepare(norm, statistics, (fresh, self.batch * block.pixels()))?;
        let kernels = &self.kernels.transitions[index];
        let group = self.group();
        let kernel = match group {
            4 => &kernels.transition_forward_dropped,
            _ => &kernels.transition_forward,
        };
        let into = &self.slots.blocks[index + 1];
        let site = self.site(self.plan.dropout_sites(index).transition());
        let across = tiles(pooled * group);
        let columns = pointwise_columns(transition.output);
        self.tiled(
            kernel,
            [across * transition.output.div_ceil(columns), 1, 1],
            values![
                self.at(own.maps),
                self.scale(norm),
                self.shift(norm),
                self.packed(weight),
                self.at(into.maps),
                self.partial(),
                self.scalars(),
                site,
                pooled,
                self.training(),
            ],
        )?;
        Ok(Fresh {
            first: 0,
            count: transition.output,
            tiles: across,
            rows: ROWS / group,
        })
    }

    pub(super) fn transition_backward(
        &self,
        index: usize,
        transition: &Transition,
    ) -> Result<(), CudaError> {
        let own = &self.slots.blocks[index];
        let (norm, weight) = self.places.transitions[index];
        let block = &self.plan.blocks()[index];
        let pixels = self.batch * block.pixels();
        let pooled = self.batch * self.plan.blocks()[index + 1].pixels();
        let g = self.at(self.slots.gradient);
        if !transition.height.is_multiple_of(2) || !transition.width.is_multiple_of(2) {
            // What the pool leaves out has no gradient.
            let values = pixels * block.output();
            self.device.clear(g, self.precision.bytes() * values)?;
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
        let site = self.site(self.plan.dropout_sites(index).transition());
        let statistics = self.statistics(own.statistics, block.output());
        let dout = self.at(self.slots.handover);
        let (x, scale, shift) = (self.at(own.maps), self.scale(norm), self.shift(norm));
        let across = tiles(pooled * group);
        let columns = pointwise_columns(transition.output);
        self.tiled(
            pull,
            [across * transition.input.div_ceil(columns), 1, 1],
            values![
                dout,
                self.packed(weight),
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
        let slicing = Slicing::transition(transition.input, transition.output);
        let (slices, length) = slicing.slices(pooled * group);
        self.tiled(
            of_weight,
            [
                transition.output.div_ceil(columns),
                transition.input.div_ceil(TRANSITION_CHANNELS),
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
        let totals = self.totals(own.totals, block.output());
        let shares = Shares {
            weight: weight.parameter,
            slices,
            count: slicing.weight,
        };
        self.gather(norm, statistics.inverse, totals, (across, false), shares)
    }
}
