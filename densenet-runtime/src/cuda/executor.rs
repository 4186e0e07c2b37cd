//! The executor: a plan, its training state on a device, and the passes over it.

use super::arena::{Arena, Layout, Placement};
use super::buffers::{DESCENT_WORDS, Places, SCALAR_WORDS, STEP_WORDS, Slots};
use super::compile::Cache;
use super::driver::{Address, Device, Graph};
use super::error::CudaError;
use super::feed::{Destination, Feed};
use super::network::Pass;
use super::program::Kernels;
use super::ranks::{Member, Ranks};
use super::target::Target;
use crate::executor::{
    Arena as Part, Batch, Executor as Contract, ExecutorError, Outcome, Pending, Pixels, Sgd, Step,
    check_capacity, check_training,
};
use crate::parallel::{Collective, Meeting};
use crate::plan::Precision;
use crate::plan::{Plan, Recompute};

/// How an [`Executor`] is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest batch.
    pub batch: usize,
    /// In bf16, maps and their gradients are stored in bfloat16, and so are the operands of
    /// products, which the tensor cores multiply. Parameters and their gradients, momentum,
    /// statistics and sums are f32 in either case.
    pub precision: Precision,
    /// What the backward pass computes again.
    pub recompute: Recompute,
    /// Where compiled kernels are kept.
    pub cache: Cache,
    /// Records a pass over a full batch once, and replays it as a CUDA graph.
    pub graphs: bool,
    /// How buffers lie in memory.
    pub placement: Placement,
}

impl Options {
    /// For a batch: f32, nothing recomputed, graphs, kernels kept in the user's cache folder.
    pub fn for_batch(batch: usize) -> Self {
        Self {
            batch,
            precision: Precision::F32,
            recompute: Recompute::Nothing,
            cache: Cache::User,
            graphs: true,
            placement: Placement::Together,
        }
    }

    /// Bytes that an executor of a plan allocates on its device, without one at hand. Compiled
    /// kernels and what the driver keeps for itself come on top. A batch of more images than an
    /// executor can be made for ([`Plan::countable_batch`]) is counted as one of so many.
    pub fn bytes(&self, plan: &Plan) -> usize {
        let countable = Self {
            batch: self.batch.min(plan.countable_batch()),
            ..self.clone()
        };
        countable.layout(plan).1.total()
    }

    fn layout(&self, plan: &Plan) -> (Slots, Layout) {
        let mut layout = Layout::default();
        let slots = Slots::new(
            plan,
            self.batch,
            self.recompute,
            self.precision,
            &mut layout,
        );
        (slots, layout)
    }
}

/// Runs a plan on a CUDA device.
pub struct Executor {
    plan: Plan,
    options: Options,
    device: Device,
    kernels: Kernels,
    places: Places,
    slots: Slots,
    /// What is done with a full batch, recorded when first done.
    recorded: [Option<Graph>; 3],
    arena: Arena,
    feed: Feed,
    /// The others that it trains with.
    ranks: Option<Ranks>,
    /// Images of the latest batch.
    latest: usize,
}

/// What is done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Evaluate,
    /// Gradients.
    Differentiate,
    /// Gradients and descent.
    Step,
}

impl Executor {
    /// Compiles the kernels and allocates everything that training with `options.batch` images
    /// needs. The parameters are zeros until they are written.
    ///
    /// # Errors
    /// When the batch is empty or too large, the kernels do not compile, or there is not enough
    /// memory.
    pub fn new(device: &Device, plan: Plan, options: Options) -> Result<Self, CudaError> {
        let batch = options.batch;
        check_capacity(&plan, batch)?;
        // Kernels count pixels, and parameters, in 31 bits.
        let parameters = plan.parameter_count();
        if parameters > i32::MAX as usize {
            let message = format!("kernels count up to 2^31 - 1 parameters, not {parameters}");
            return Err(ExecutorError::Device(message).into());
        }
        let kernels = Kernels::load(device, &plan, options.precision, &options.cache)?;
        let (slots, layout) = options.layout(&plan);
        let arena = layout.allocate(device, options.placement)?;
        let executor = Self {
            places: Places::new(&plan),
            feed: Feed::new(device, batch, plan.stem().channels)?,
            device: device.clone(),
            kernels,
            slots,
            arena,
            recorded: [const { None }; 3],
            ranks: None,
            latest: 0,
            options,
            plan,
        };
        for part in [
            Part::Parameters,
            Part::Gradients,
            Part::Momentum,
            Part::Running,
        ] {
            let (_, at, count) = executor.part(part);
            device.clear(at, 4 * count)?;
        }
        let scalars = executor.arena.at(executor.slots.scalars);
        device.clear(scalars, 4 * SCALAR_WORDS)?;
        let table = executor.places.weight_table();
        device.upload(&table, executor.arena.at(executor.slots.weight_table))?;
        device.wait("clearing the training state")?;
        Ok(executor)
    }

    /// Trains with the devices of the processes that have met, from now on: gradients are averaged
    /// by NCCL. Their parameters must be equal; see [`parallel`](crate::parallel).
    ///
    /// # Errors
    /// When there is no NCCL, it fails, or a rank has gone.
    pub fn join(&mut self, meeting: Meeting) -> Result<(), CudaError> {
        let (_, gradients, count) = self.part(Part::Gradients);
        let stages = self.places.stages(count).into_iter().map(|(_, own)| own);
        let mut counts: Vec<_> = stages.chain([self.plan.running_count(), 1]).collect();
        counts.sort_unstable();
        counts.dedup();
        counts.retain(|&own| own > 0);
        self.with(Ranks::by_nccl(&self.device, meeting, gradients, &counts)?)
    }

    /// Trains with others, from now on, whose gradients are averaged by way of the host: it waits
    /// for each stage.
    ///
    /// # Errors
    /// When the device fails.
    pub fn join_by_host(&mut self, collective: Box<dyn Collective>) -> Result<(), CudaError> {
        self.with(Ranks::by_host(collective))
    }

    fn with(&mut self, ranks: Ranks) -> Result<(), CudaError> {
        // What was recorded has nothing of the others.
        self.device.wait("joining other devices")?;
        self.recorded = [const { None }; 3];
        self.ranks = Some(ranks);
        Ok(())
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes of all buffers on the device.
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// What a part is called, where it is, its elements.
    fn part(&self, part: Part) -> (&'static str, Address, usize) {
        let (what, slot, count) = match part {
            Part::Parameters => (
                "parameters",
                self.slots.parameters,
                self.plan.parameter_count(),
            ),
            Part::Gradients => (
                "gradients",
                self.slots.gradients,
                self.plan.parameter_count(),
            ),
            Part::Momentum => ("momentum", self.slots.momentum, self.plan.parameter_count()),
            Part::Running => (
                "running statistics",
                self.slots.running,
                self.plan.running_count(),
            ),
        };
        (what, self.arena.at(slot), count)
    }

    /// Starts work on a batch; returns the number to ask for its outcome by. The host does not
    /// wait, unless it is two batches ahead.
    fn begin(
        &mut self,
        batch: Batch<'_>,
        work: Work,
        scalars: &[u32],
    ) -> Result<u64, ExecutorError> {
        if work != Work::Evaluate {
            check_training(&self.plan, batch.labels.len())?;
        }
        self.latest = batch.check(&self.plan, self.options.batch)?;
        let destination = Destination {
            raw: self.slots.raw.map(|slot| self.arena.at(slot)),
            labels: self.arena.at(self.slots.labels),
            scalars: self.arena.at(self.slots.scalars),
            norm: self.arena.at(self.slots.pixel_norm),
        };
        self.feed.send(
            &self.device,
            batch.pixels,
            batch.labels,
            scalars,
            &destination,
        )?;
        let raw = destination.raw[self.feed.turn()];
        match batch.pixels {
            Pixels::Nchw(_) => self.pass(&self.member(), false).images_from_nchw(raw)?,
            Pixels::Nhwc { .. } => self.pass(&self.member(), false).images_from_bytes(raw)?,
        }
        self.run(work)?;
        let results = self.arena.at(self.slots.results);
        Ok(self.feed.expect(&self.device, results, self.latest)?)
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
            ranks: self.ranks.as_ref(),
        }
    }

    fn pass<'a>(&'a self, device: &'a Member<'a>, training: bool) -> Pass<'a> {
        Pass {
            device,
            kernels: &self.kernels,
            arena: &self.arena,
            slots: &self.slots,
            places: &self.places,
            plan: &self.plan,
            recompute: self.options.recompute,
            precision: self.options.precision,
            batch: self.latest,
            training,
        }
    }

    /// Works on the images at hand; what is done with a full batch is recorded once and replayed.
    fn run(&mut self, work: Work) -> Result<(), CudaError> {
        let member = self.member();
        let training = work != Work::Evaluate;
        let pass = self.pass(&member, training);
        let launches = || {
            pass.forward()?;
            pass.loss()?;
            if training {
                pass.backward()?;
            }
            if work == Work::Step {
                pass.descend()?;
            }
            Ok(())
        };
        let recordable = self.ranks.as_ref().is_none_or(Ranks::is_recordable) || !training;
        if !self.options.graphs || !recordable || self.latest < self.options.batch {
            return launches();
        }
        if let Some(graph) = &self.recorded[work as usize] {
            return graph.replay();
        }
        let graph = self.device.capture(launches)?;
        graph.replay()?;
        self.recorded[work as usize] = Some(graph);
        Ok(())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // Graphs go before the kernels, the memory and the ranks that they name, and when they are
        // done. There is nobody to tell of a device that has failed.
        let _ = self.device.wait("ending");
        self.recorded = [const { None }; 3];
    }
}

fn step_words(step: Step) -> [u32; STEP_WORDS] {
    [
        step.seed as u32,
        (step.seed >> 32) as u32,
        step.label_smoothing.to_bits(),
        step.scale.to_bits(),
        u32::from(step.accumulate),
    ]
}

fn descent_words(sgd: Sgd) -> [u32; DESCENT_WORDS] {
    [
        sgd.rate.to_bits(),
        sgd.momentum.to_bits(),
        sgd.weight_decay.to_bits(),
        u32::from(sgd.nesterov),
    ]
}

fn length(what: &'static str, expected: usize, found: usize) -> Result<(), ExecutorError> {
    if found == expected {
        return Ok(());
    }
    Err(ExecutorError::Length {
        what,
        expected,
        found,
    })
}

impl Contract for Executor {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn capacity(&self) -> usize {
        self.options.batch
    }

    fn read(&self, arena: Part, into: &mut [f32]) -> Result<(), ExecutorError> {
        let (what, at, count) = self.part(arena);
        length(what, count, into.len())?;
        Ok(self.device.download(at, into)?)
    }

    fn write(&mut self, arena: Part, from: &[f32]) -> Result<(), ExecutorError> {
        let (what, at, count) = self.part(arena);
        length(what, count, from.len())?;
        Ok(self.device.upload(from, at)?)
    }

    fn differentiate(&mut self, batch: Batch<'_>, step: Step) -> Result<Outcome, ExecutorError> {
        let pending = self.start(batch, step)?;
        self.finish(pending)
    }

    fn start(&mut self, batch: Batch<'_>, step: Step) -> Result<Pending, ExecutorError> {
        let number = self.begin(batch, Work::Differentiate, &step_words(step));
        number.map(Pending::later)
    }

    fn step(&mut self, batch: Batch<'_>, step: Step, sgd: Sgd) -> Result<Pending, ExecutorError> {
        let mut words = [0; STEP_WORDS + DESCENT_WORDS];
        words[..STEP_WORDS].copy_from_slice(&step_words(step));
        words[STEP_WORDS..].copy_from_slice(&descent_words(sgd));
        self.begin(batch, Work::Step, &words).map(Pending::later)
    }

    fn finish(&mut self, pending: Pending) -> Result<Outcome, ExecutorError> {
        let Some(number) = pending.number() else {
            return pending.into_outcome();
        };
        let mut outcome = self.end(number)?;
        if let Some(ranks) = &self.ranks {
            // A loss that is not finite on one rank is so on all, and all stop.
            outcome.loss = ranks.mean(outcome.loss)?;
        }
        if !outcome.loss.is_finite() {
            // The host knows now, and gradient descent is its affair again. The running statistics
            // are those before the step; it is rare, so they go by way of the host.
            let (_, running, count) = self.part(Part::Running);
            let mut before = vec![0.0f32; count];
            let kept = self.arena.at(self.slots.running_before);
            self.device.download(kept, &mut before)?;
            self.device.upload(&before, running)?;
            let broken = self.pass(&self.member(), true).broken();
            self.device.clear(broken, 4)?;
        }
        Ok(outcome)
    }

    fn descend(&mut self, sgd: Sgd) -> Result<(), ExecutorError> {
        let words = descent_words(sgd);
        let scalars = self.arena.at(self.slots.scalars);
        self.feed
            .descent(&self.device, words, scalars.floats(STEP_WORDS))?;
        Ok(self.pass(&self.member(), true).descend()?)
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError> {
        let number = self.begin(batch, Work::Evaluate, &[])?;
        self.end(number)
    }

    fn total(&mut self, sums: &mut [f64]) -> Result<(), ExecutorError> {
        match &self.ranks {
            Some(ranks) => Ok(ranks.sum(sums)?),
            None => Ok(()),
        }
    }

    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError> {
        length(
            "the latest logits",
            self.latest * self.plan.classes(),
            into.len(),
        )?;
        Ok(self
            .device
            .download(self.arena.at(self.slots.logits), into)?)
    }
}
