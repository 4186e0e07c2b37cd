//! The last layers, as launches.

use super::*;

impl Pass<'_> {
    pub(super) fn head_forward(&self, fresh: Fresh) -> Result<(), CudaError> {
        let last = self.plan.blocks().len() - 1;
        let block = &self.plan.blocks()[last];
        let own = &self.slots.blocks[last];
        let norm = self.places.norm;
        let statistics = self.statistics(own.statistics, block.output());
        self.prepare(norm, statistics, (fresh, self.batch * block.pixels()))?;
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
            [tiles(self.batch), self.plan.classes().div_ceil(COLUMNS), 1],
            values![
                features,
                self.parameter(self.places.classifier),
                self.parameter(self.places.bias),
                self.at(self.slots.logits),
                self.batch,
            ],
        )
    }

    pub(super) fn head_backward(&self) -> Result<(), CudaError> {
        let last = self.plan.blocks().len() - 1;
        let block = &self.plan.blocks()[last];
        let own = &self.slots.blocks[last];
        let (channels, classes) = (block.output(), self.plan.classes());
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
        let sums = (across, false);
        self.gather(norm, statistics.inverse, totals, sums, Shares::NONE)
    }
}
