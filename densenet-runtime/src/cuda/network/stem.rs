//! The first layers, as launches.

use super::*;

impl Pass<'_> {
    pub(super) fn stem_forward(&self) -> Result<Fresh, CudaError> {
        let (plan, slots) = (self.plan, self.slots);
        let stem = plan.stem();
        let first = &slots.blocks[0];
        let block = &plan.blocks()[0];
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
        let fresh = |pixels| Fresh {
            first: 0,
            count: stem.maps,
            tiles: tiles(pixels),
            rows: ROWS,
        };
        let Some(pool) = &self.kernels.pool else {
            return Ok(fresh(pixels));
        };
        let norm = self.places.stem_norm;
        let statistics = self.statistics(slots.stem_statistics, stem.maps);
        self.prepare(norm, statistics, (fresh(pixels), pixels))?;
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
        Ok(fresh(pooled))
    }

    pub(super) fn stem_backward(&self) -> Result<(), CudaError> {
        let slots = self.slots;
        let stem = self.plan.stem();
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
            let sums = (tiles(pixels), false);
            self.gather(norm, statistics.inverse, totals, sums, Shares::NONE)?;
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
        let patch = stem.weight_len() / stem.maps;
        let slicing = Slicing::stem(patch, stem.maps);
        let (slices, length) = slicing.slices(pixels);
        self.tiled(
            &self.kernels.stem.stem_weight,
            [
                patch.div_ceil(stem_elements(patch)),
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
        self.add_shares(Shares {
            weight: self.places.stem,
            slices,
            count: slicing.weight,
        })
    }
}
