//! The executor: a plan, its training state on a device, and the passes over it.

use std::ops::Range;

use super::driver::{Address, CudaDevice, Graph};
use super::error::CudaError;
use super::feed::{Destination, Feed, Wanted};
use super::kernel::step::Manner;
use super::kernels::Kernels;
use super::launch::Launcher;
use super::memory::{Buffers, Offsets, Slots};
use super::pass::Pass;
use super::program::SCALAR_WORDS;
use super::reducer::{Member, Reducer};
use super::stage::head::Loss;
use crate::executor::{
    Arena, Batch, Descent, ExecutorError, Group, LossWeights, Optimizer, Outcome, check_capacity,
    check_frozen, check_training,
};
use crate::parallel::{Collective, ProcessGroup};
use crate::plan::{FrozenTensors, Plan};

mod contract;
mod options;

pub use options::CudaOptions;

/// Runs a plan on a CUDA device.
pub struct CudaExecutor {
    plan: Plan,
    options: CudaOptions,
    device: CudaDevice,
    kernels: Kernels,
    offsets: Offsets,
    slots: Slots,
    /// The graphs of the work on a full batch, recorded when it is done for the second time: one for each kind of
    /// work and loss.
    recorded: Recorded,
    /// The kinds of work that ran launch by launch before: the driver loads a kernel at its first launch, which
    /// no graph should have to wait for.
    ran: [[bool; 3]; 4],
    /// How a recorded step descends.
    manner: Manner,
    /// The parameters that groups freeze.
    frozen: Vec<Range<usize>>,
    buffers: Buffers,
    feed: Feed,
    /// Averages with the other ranks, if there are any.
    reducer: Option<Reducer>,
    /// The number of images in the latest batch.
    latest: usize,
    /// The weights of its loss.
    loss_weights: LossWeights,
}

/// Graphs by [`Work`] and [`Loss`].
type Recorded = [[Option<Graph>; 3]; 4];

/// The work on a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Evaluate,
    /// Running statistics.
    Measure,
    /// Gradients.
    Differentiate,
    /// Gradients and descent.
    Step,
}

impl CudaExecutor {
    /// Compiles the kernels and allocates everything that training with `options.batch` images
    /// needs. The parameters are zeros until they are written.
    ///
    /// # Errors
    /// If the batch is empty or too large, the kernels do not compile, or there is not enough
    /// memory.
    pub fn new(device: &CudaDevice, plan: Plan, options: CudaOptions) -> Result<Self, CudaError> {
        let batch = options.batch;
        check_capacity(&plan, batch)?;
        check_frozen(&plan, options.frozen)?;
        let kernels = Kernels::load(device, &plan, options.precision, &options.cache)?;
        let (slots, layout) = options.layout(&plan);
        let buffers = layout.allocate(device, options.placement)?;
        let mut executor = Self {
            offsets: Offsets::new(&plan),
            feed: Feed::new(device, batch, plan.stem().channels)?,
            device: device.clone(),
            kernels,
            slots,
            buffers,
            recorded: Recorded::default(),
            ran: Default::default(),
            manner: Manner::default(),
            frozen: Vec::new(),
            reducer: None,
            latest: 0,
            loss_weights: LossWeights::default(),
            options,
            plan,
        };
        for part in [
            Arena::Parameters,
            Arena::Gradients,
            Arena::Momentum,
            Arena::Running,
            Arena::SecondMoments,
            Arena::Average,
            Arena::AverageRunning,
        ] {
            let Ok((at, range)) = executor.kept(part) else {
                continue;
            };
            device.clear(at, 4 * range.len())?;
        }
        let scalars = executor.buffers.at(executor.slots.scalars);
        device.clear(scalars, 4 * SCALAR_WORDS)?;
        let table = executor.offsets.weight_table();
        device.upload(&table, executor.buffers.at(executor.slots.weight_table))?;
        executor.upload_loss_weights()?;
        executor.write_groups(&[Group::all(executor.plan.parameter_count())])?;
        device.wait("clearing the training state")?;
        Ok(executor)
    }

    /// From now on, trains with the devices of a process group: NCCL averages the gradients. All
    /// need equal parameters; see [`parallel`](crate::parallel).
    ///
    /// # Errors
    /// If NCCL is missing or fails, or a rank was lost.
    pub fn join(&mut self, group: ProcessGroup) -> Result<(), CudaError> {
        let gradients = self.buffers.at(self.slots.gradients);
        let stages = self.offsets.stages(&self.slots.trainable[0]);
        let stages = stages.into_iter().map(|(_, own)| own);
        let first = self.slots.trainable[1].start;
        let frozen = FrozenTensors::in_ranges(&self.frozen);
        let moving = self.offsets.moving(first, frozen).into_iter();
        let moving = moving.map(|own| own.len());
        let mut counts: Vec<_> = stages.chain(moving).chain([1]).collect();
        counts.sort_unstable();
        counts.dedup();
        counts.retain(|&own| own > 0);
        self.with(Reducer::by_nccl(&self.device, group, gradients, &counts)?)
    }

    /// From now on, trains with other ranks through the host, which averages the gradients of each
    /// stage and waits for them.
    ///
    /// # Errors
    /// If the device fails.
    pub fn join_by_host(&mut self, collective: Box<dyn Collective>) -> Result<(), CudaError> {
        self.with(Reducer::by_host(collective))
    }

    fn with(&mut self, reducer: Reducer) -> Result<(), CudaError> {
        // The recorded graphs do not average.
        self.device.wait("joining other devices")?;
        self.recorded = Recorded::default();
        self.reducer = Some(reducer);
        Ok(())
    }

    /// The device.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    fn upload_loss_weights(&self) -> Result<(), CudaError> {
        let classes = 0..self.plan.classes();
        let own = classes
            .clone()
            .map(|class| self.loss_weights.of_class(class));
        let positive = classes.map(|class| self.loss_weights.of_positive(class));
        let both: Vec<f32> = own.chain(positive).collect();
        let into = self.buffers.at(self.slots.loss_weights);
        self.device.upload(&both, into)
    }

    /// Bytes of all buffers on the device.
    pub fn bytes(&self) -> usize {
        self.buffers.bytes()
    }

    /// The address of an arena, and the elements that it has.
    fn arena(&self, arena: Arena) -> (Address, Range<usize>) {
        let slots = &self.slots;
        let [trainable, _] = slots.trainable.clone();
        let (parameters, running) = (self.plan.parameter_count(), self.plan.running_count());
        let (slot, range) = match arena {
            Arena::Parameters => (slots.parameters, 0..parameters),
            Arena::Gradients => (slots.gradients, trainable),
            Arena::Momentum => (slots.momentum, trainable),
            Arena::Running => (slots.running, 0..running),
            Arena::SecondMoments => (slots.second_moments, trainable),
            Arena::Average => (slots.average, 0..parameters),
            Arena::AverageRunning => (slots.average_running, 0..running),
        };
        (self.buffers.at(slot), range)
    }

    /// The same of an arena that the executor keeps.
    fn kept(&self, arena: Arena) -> Result<(Address, Range<usize>), ExecutorError> {
        arena.check_kept(self.options.training())?;
        Ok(self.arena(arena))
    }

    /// Checks that the executor keeps what a descent needs. Steps that are recorded descend in one
    /// manner; another one is recorded again.
    fn prepare(&mut self, descent: Descent) -> Result<(), ExecutorError> {
        let adamw = matches!(descent.optimizer, Optimizer::AdamW(_));
        if adamw {
            self.kept(Arena::SecondMoments)?;
        }
        if descent.ema.is_some() {
            self.kept(Arena::Average)?;
        }
        let manner = Manner {
            adamw,
            clips: descent.clip.is_some(),
            averages: descent.ema.is_some(),
            ..self.manner
        };
        Ok(self.descend_by(manner)?)
    }

    fn descend_by(&mut self, manner: Manner) -> Result<(), CudaError> {
        let recorded = &mut self.recorded[Work::Step as usize];
        if manner != self.manner && recorded.iter().any(Option::is_some) {
            self.device.wait("changing how steps descend")?;
            *recorded = Default::default();
        }
        self.manner = manner;
        Ok(())
    }

    /// Sets the groups of parameters: what is frozen, and the shares of the others.
    fn write_groups(&mut self, groups: &[Group]) -> Result<(), CudaError> {
        self.freeze(Group::frozen(groups))?;
        // Of the parameters that train.
        let groups = Group::after(groups, self.slots.trainable[0].start);
        let words: Vec<u32> = groups
            .iter()
            .flat_map(|group| {
                let first = u32::try_from(group.range.start).unwrap_or(u32::MAX);
                [first, group.rate.to_bits(), group.decay.to_bits()]
            })
            .collect();
        self.device
            .upload(&words, self.buffers.at(self.slots.groups))?;
        self.descend_by(Manner {
            groups: groups.len(),
            ..self.manner
        })
    }

    /// Freezes parameters from now on, and no others.
    fn freeze(&mut self, parameters: Vec<Range<usize>>) -> Result<(), CudaError> {
        if parameters == self.frozen {
            return Ok(());
        }
        // Other launches are recorded, after a pass that meets new kernels and new sizes of averages.
        self.device.wait("freezing parameters")?;
        self.recorded = Recorded::default();
        self.ran = Default::default();
        let (gradients, own) = self.arena(Arena::Gradients);
        for range in &parameters {
            let range = range.start.max(own.start)..range.end.max(own.start);
            let at = gradients.floats(range.start - own.start);
            self.device.clear(at, 4 * range.len())?;
        }
        self.frozen = parameters;
        Ok(())
    }

    /// Starts work on a batch, and returns the number that identifies its outcome. The host does
    /// not wait, unless two batches are pending.
    fn begin(
        &mut self,
        batch: Batch<'_>,
        work: Work,
        scalars: &[u32],
    ) -> Result<u64, ExecutorError> {
        if work != Work::Evaluate {
            let frozen = FrozenTensors::in_ranges(&self.frozen);
            let [_, statistics] = &self.slots.trainable;
            let images = batch.images(&self.plan);
            check_training(&self.plan, images, frozen, statistics.start)?;
        }
        self.latest = batch.check(&self.plan, self.options.batch)?;
        let destination = Destination {
            raw: self.slots.raw.map(|slot| self.buffers.at(slot)),
            divisor: self.buffers.at(self.slots.loss_divisor),
            labels: self.buffers.at(self.slots.labels),
            targets: self.buffers.at(self.slots.logit_gradient),
            scalars: self.buffers.at(self.slots.scalars),
            norm: self.buffers.at(self.slots.pixel_norm),
        };
        let wanted = Wanted {
            targets: batch.targets,
            weight: batch
                .targets
                .weight(&self.loss_weights, self.plan.classes()),
        };
        self.feed
            .send(&self.device, batch.pixels, wanted, scalars, &destination)?;
        let raw = destination.raw[self.feed.turn()];
        let member = self.member();
        let pass = self.pass(&member, false);
        pass.surroundings().images(batch.pixels, raw)?;
        self.run(work, Loss::towards(batch.targets))?;
        let results = self.buffers.at(self.slots.results);
        Ok(self
            .feed
            .expect(&self.device, results, self.latest, wanted)?)
    }

    /// Waits for a pass.
    fn end(&mut self, number: u64) -> Result<Outcome, ExecutorError> {
        let outcome = self.feed.outcome(number)?;
        outcome.ok_or_else(|| {
            ExecutorError::Device(
                "this executor has no outcome of that batch: another one started it, it was asked for before, or too many were not"
                    .into(),
            )
        })
    }

    fn member(&self) -> Member<'_> {
        Member {
            device: &self.device,
            reducer: self.reducer.as_ref(),
        }
    }

    fn pass<'a>(&'a self, member: &'a Member<'a>, training: bool) -> Pass<'a> {
        let on = Launcher {
            target: member,
            buffers: &self.buffers,
            slots: &self.slots,
            offsets: &self.offsets,
            plan: &self.plan,
            precision: self.options.precision,
            batch: self.latest,
            capacity: self.options.batch,
            training,
            at_rest: false,
            ready: false,
            dropout: training,
            beside: self.reducer.as_ref().is_some_and(Reducer::is_recordable),
            frozen: FrozenTensors::in_ranges(&self.frozen),
        };
        Pass::new(on, &self.kernels, self.options.training())
    }

    /// Works on the current images. The work on a full batch is recorded when it is done for the second time, and
    /// replayed from then on.
    fn run(&mut self, work: Work, loss: Loss) -> Result<(), CudaError> {
        let is_first = !std::mem::replace(&mut self.ran[work as usize][loss as usize], true);
        let member = self.member();
        let training = work != Work::Evaluate;
        let mut pass = self.pass(&member, training);
        pass.on.dropout &= work != Work::Measure;
        let launches = || {
            pass.forward()?;
            if work == Work::Measure {
                // As in an evaluation: a loss that is not finite stops no step.
                let mut measured = pass;
                measured.on.training = false;
                return measured.loss(loss);
            }
            pass.loss(loss)?;
            if training {
                pass.backward()?;
            }
            if work == Work::Step {
                pass.surroundings().descend(self.manner)?;
            }
            Ok(())
        };
        let recordable = self.reducer.as_ref().is_none_or(Reducer::is_recordable) || !training;
        let is_full = self.latest == self.options.batch;
        if is_first || !self.options.graphs || !recordable || !is_full {
            return launches();
        }
        if let Some(graph) = &self.recorded[work as usize][loss as usize] {
            return graph.replay();
        }
        let graph = self.device.capture(launches)?;
        graph.replay()?;
        self.recorded[work as usize][loss as usize] = Some(graph);
        Ok(())
    }
}

impl Drop for CudaExecutor {
    fn drop(&mut self) {
        // Graphs are dropped when they are done, and before the kernels, the memory and the ranks
        // that they use. Nobody is left to take an error of the device.
        let _ = self.device.wait("ending");
        self.recorded = Recorded::default();
    }
}
