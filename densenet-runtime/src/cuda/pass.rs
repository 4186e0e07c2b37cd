//! A pass over the stages of a plan, as launches. It computes the same as the CPU executor.

use super::error::CudaError;
use super::kernel::norm::{BatchNorm, Fresh};
use super::kernel::step::Surroundings;
use super::kernel::weights;
use super::kernels::Kernels;
use super::launch::Launcher;
use super::stage::block::Block;
use super::stage::head::{Head, Loss};
use super::stage::stem::Stem;
use super::stage::transition::Transition;
use crate::plan::Training;

/// A pass over the network with the current batch.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub on: Launcher<'a>,
    /// The same in frozen stages, with measured maps and without.
    frozen_on: [Launcher<'a>; 2],
    pub kernels: &'a Kernels,
    pub training: Training,
}

impl<'a> Pass<'a> {
    /// A pass; `training` says what it recomputes and which stages are frozen.
    pub fn new(on: Launcher<'a>, kernels: &'a Kernels, training: Training) -> Self {
        let frozen = |training| Launcher {
            training,
            at_rest: true,
            dropout: false,
            ..on
        };
        Self {
            frozen_on: [frozen(on.training), frozen(false)],
            on,
            kernels,
            training,
        }
    }

    /// The work that passes with the running statistics share: packs weights, and makes each BN a multiply-add.
    pub fn prepare(&self) -> Result<(), CudaError> {
        weights::pack(&self.on, &self.kernels.weights)?;
        let norms = self.on.offsets.norms();
        norms
            .into_iter()
            .try_for_each(|norm| self.bn(&self.on).prepare_at_rest(norm))
    }

    /// From the images to the logits.
    pub fn forward(&self) -> Result<(), CudaError> {
        if self.on.training {
            self.surroundings().start()?;
        }
        if !self.on.ready {
            weights::pack(&self.on, &self.kernels.weights)?;
        }
        let frozen = self.training.frozen;
        // Only a reader that trains needs statistics of a block's maps.
        let measured = |index: usize| !frozen.reader(index);
        let fresh_of = |index: usize, fresh: Fresh| match measured(index) {
            true => fresh,
            false => Fresh::NONE,
        };
        let stem = self.launcher(frozen.stem(), measured(0));
        let mut fresh = self.stem(stem).forward()?;
        for index in 0..self.on.plan.blocks().len() {
            let block = self.launcher(frozen.block(index), measured(index));
            fresh = self.block(block, index).forward(fresh_of(index, fresh))?;
            fresh = fresh_of(index, fresh);
            if let Some(&into) = self.on.slots.block_maps.get(index) {
                let into = self.on.at(into);
                self.surroundings().maps_to_nchw(index, None, into)?;
            }
            if index < self.on.plan.transitions().len() {
                let transition = self.launcher(frozen.reader(index), measured(index + 1));
                fresh = self.transition(transition, index).forward(fresh)?;
            }
        }
        let last = self.on.plan.blocks().len() - 1;
        let head = self.launcher(frozen.reader(last), false);
        self.head(head).forward(fresh)?;
        if let Some(into) = self.on.slots.last_maps {
            let (norm, into) = (Some(self.on.offsets.norm), self.on.at(into));
            self.surroundings().maps_to_nchw(last, norm, into)?;
        }
        Ok(())
    }

    /// The maps of the classes whose numbers are on the device, this many for each image, after a forward pass.
    pub fn class_maps(&self, wanted: usize) -> Result<(), CudaError> {
        self.head(&self.on).class_maps(wanted)
    }

    /// What a stage's launches share: if it is frozen, those of running statistics.
    fn launcher(&self, is_frozen: bool, measured: bool) -> &Launcher<'a> {
        match (is_frozen, measured) {
            (false, _) => &self.on,
            (true, true) => &self.frozen_on[0],
            (true, false) => &self.frozen_on[1],
        }
    }

    /// The loss of each image; when training, the gradient of the logits.
    pub fn loss(&self, loss: Loss) -> Result<(), CudaError> {
        self.head(&self.on).loss(loss)
    }

    /// From the gradient of the logits to the gradients of the parameters that train.
    pub fn backward(&self) -> Result<(), CudaError> {
        let on = &self.on;
        // If the loss of one rank is not finite, no rank descends.
        on.target.complete(on.broken(), 1)?;
        self.backward_stages()?;
        // The forward pass has updated the running statistics.
        let running = on.at(on.slots.running);
        let first = on.slots.trainable[1].start;
        for own in on.offsets.moving(first, on.frozen) {
            on.target.complete(running.floats(own.start), own.len())?;
        }
        on.target.join()
    }

    /// Ends with the first stage that has anything to train.
    fn backward_stages(&self) -> Result<(), CudaError> {
        let on = &self.on;
        let mut stages = on.offsets.stages(&on.slots.trainable[0]).into_iter();
        // The stage whose turn it is: the first of its parameters, and their number.
        let mut next = || stages.next().unwrap_or_default();
        let complete = |(from, count)| match count {
            0 => Ok(()),
            _ => on.target.complete(on.gradient_of(from), count),
        };
        let (head, own) = (self.head(on), next());
        head.classifier_backward()?;
        if !on.trains_before(on.offsets.classifier) {
            return complete(own);
        }
        head.backward()?;
        complete(own)?;
        if !on.trains_before(own.0) {
            return Ok(());
        }
        for index in (0..on.plan.blocks().len()).rev() {
            let own = next();
            let wanted = on.trains_before(own.0);
            self.block(on, index)
                .backward(self.training.recompute, wanted)?;
            complete(own)?;
            if !wanted {
                return Ok(());
            }
            let Some(before) = index.checked_sub(1) else {
                continue;
            };
            let own = next();
            self.transition(on, before).backward()?;
            complete(own)?;
            if !on.trains_before(own.0) {
                return Ok(());
            }
        }
        self.stem(on).backward()?;
        complete(next())
    }

    fn bn<'b>(&'b self, on: &'b Launcher<'a>) -> BatchNorm<'b> {
        BatchNorm {
            on,
            kernels: &self.kernels.norm,
        }
    }

    fn stem<'b>(&'b self, on: &'b Launcher<'a>) -> Stem<'b> {
        Stem {
            bn: self.bn(on),
            kernels: &self.kernels.stem,
            pool: self.kernels.pool.as_ref(),
        }
    }

    fn block<'b>(&'b self, on: &'b Launcher<'a>, index: usize) -> Block<'b> {
        Block {
            bn: self.bn(on),
            kernels: &self.kernels.blocks[index],
            index,
        }
    }

    fn transition<'b>(&'b self, on: &'b Launcher<'a>, index: usize) -> Transition<'b> {
        Transition {
            bn: self.bn(on),
            kernels: &self.kernels.transitions[index],
            index,
        }
    }

    fn head<'b>(&'b self, on: &'b Launcher<'a>) -> Head<'b> {
        Head {
            bn: self.bn(on),
            kernels: &self.kernels.head,
        }
    }

    /// The images' way in, and the step along the gradients.
    pub fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            on: &self.on,
            kernels: &self.kernels.step,
        }
    }
}
