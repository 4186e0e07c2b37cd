//! The executor: a plan, its training state on a device, and the passes over it.

use super::arena::{Arena, Layout, Placement};
use super::buffers::{Places, Slots};
use super::compile::Cache;
use super::driver::{Address, Device, Graph, Value};
use super::error::CudaError;
use super::network::Pass;
use super::program::{Kernels, THREADS};
use crate::cpu::Precision;
use crate::executor::{
    Arena as Part, Batch, Executor as Contract, ExecutorError, Outcome, Pixels, Sgd, Step,
};
use crate::plan::{Plan, Recompute, Storage};

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
    /// kernels and what the driver keeps for itself come on top.
    pub fn bytes(&self, plan: &Plan) -> usize {
        self.layout(plan).1.total()
    }

    fn storage(&self) -> Storage {
        match self.precision {
            Precision::F32 => Storage::F32,
            Precision::Bf16 => Storage::Bf16,
        }
    }

    fn layout(&self, plan: &Plan) -> (Slots, Layout) {
        let mut layout = Layout::default();
        let storage = self.storage();
        let slots = Slots::new(plan, self.batch, self.recompute, storage, &mut layout);
        (slots, layout)
    }
}

/// Words of the kernels' `Scalars`: those of a step, then those of the descent.
const STEP_WORDS: usize = 5;

/// Runs a plan on a CUDA device.
pub struct Executor {
    plan: Plan,
    options: Options,
    device: Device,
    kernels: Kernels,
    places: Places,
    slots: Slots,
    /// Passes over a full batch, recorded when first run; they go before the arena they name.
    training: Option<Graph>,
    evaluation: Option<Graph>,
    arena: Arena,
    /// Images of the latest batch.
    latest: usize,
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
        let (height, width) = plan.stem.convolved_size();
        let blocks = plan.blocks.iter().map(|block| block.pixels());
        let most = blocks.chain([height * width]).max().unwrap_or(0);
        // Kernels count pixels, and parameters, in 31 bits.
        let limit = i32::MAX as usize;
        let capacity = limit / most.max(1);
        if batch == 0 || batch > capacity || plan.parameter_count() > limit {
            return Err(ExecutorError::BatchSize {
                found: batch,
                capacity,
            }
            .into());
        }
        let kernels = Kernels::load(device, &plan, options.precision, &options.cache)?;
        let (slots, layout) = options.layout(&plan);
        let arena = layout.allocate(device, options.placement)?;
        let executor = Self {
            places: Places::new(&plan),
            device: device.clone(),
            kernels,
            slots,
            arena,
            training: None,
            evaluation: None,
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
        device.wait("clearing the training state")?;
        Ok(executor)
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

    /// Checks a batch and brings it to the device, as NHWC.
    fn accept(&mut self, batch: Batch<'_>) -> Result<(), ExecutorError> {
        let images = batch.check(&self.plan, self.options.batch)?;
        let stem = &self.plan.stem;
        let (channels, area) = (stem.channels, stem.height * stem.width);
        let raw = self.arena.at(self.slots.raw);
        let into = self.arena.at(self.slots.images);
        let step = &self.kernels.step;
        let count = images * area * channels;
        let grid = ([count.div_ceil(THREADS), 1, 1], THREADS);
        match batch.pixels {
            Pixels::Nchw(values) => {
                self.device.upload(values, raw)?;
                let values = [
                    Value::from(raw),
                    into.into(),
                    channels.into(),
                    area.into(),
                    images.into(),
                ];
                self.device.launch(&step.images_from_nchw, grid, &values)?;
            }
            Pixels::Nhwc {
                bytes,
                mean,
                deviation,
            } => {
                let norm = self.arena.at(self.slots.pixel_norm);
                self.device.upload(bytes, raw)?;
                self.device.upload(mean, norm)?;
                self.device.upload(deviation, norm.floats(channels))?;
                let values = [
                    Value::from(raw),
                    norm.into(),
                    into.into(),
                    channels.into(),
                    (images * area).into(),
                ];
                self.device.launch(&step.images_from_bytes, grid, &values)?;
            }
        }
        self.device
            .upload(batch.labels, self.arena.at(self.slots.labels))?;
        self.latest = images;
        Ok(())
    }

    fn pass(&self, training: bool) -> Pass<'_> {
        Pass {
            device: &self.device,
            kernels: &self.kernels,
            arena: &self.arena,
            slots: &self.slots,
            places: &self.places,
            plan: &self.plan,
            recompute: self.options.recompute,
            storage: self.options.storage(),
            batch: self.latest,
            training,
        }
    }

    /// Runs a pass over the images at hand: a full batch's is recorded once and replayed.
    fn run(&mut self, training: bool) -> Result<(), CudaError> {
        let pass = self.pass(training);
        let work = || {
            pass.forward()?;
            pass.loss()?;
            if training { pass.backward() } else { Ok(()) }
        };
        if !self.options.graphs || self.latest < self.options.batch {
            return work();
        }
        let recorded = if training {
            &self.training
        } else {
            &self.evaluation
        };
        if let Some(graph) = recorded {
            return graph.replay();
        }
        let graph = self.device.capture(work)?;
        graph.replay()?;
        *(if training {
            &mut self.training
        } else {
            &mut self.evaluation
        }) = Some(graph);
        Ok(())
    }

    /// Sums of what the loss left for each image.
    fn outcome(&self) -> Result<Outcome, CudaError> {
        let mut results = vec![0.0f64; 3 * self.latest];
        self.device
            .download(self.arena.at(self.slots.results), &mut results)?;
        let mut outcome = Outcome::default();
        for image in results.chunks_exact(3) {
            outcome.loss += image[0];
            outcome.top1 += usize::from(image[1] > 0.0);
            outcome.top5 += usize::from(image[2] > 0.0);
        }
        Ok(outcome)
    }
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
        self.accept(batch)?;
        let words: [u32; STEP_WORDS] = [
            step.seed as u32,
            (step.seed >> 32) as u32,
            step.label_smoothing.to_bits(),
            step.scale.to_bits(),
            u32::from(step.accumulate),
        ];
        self.device
            .upload(&words, self.arena.at(self.slots.scalars))?;
        self.run(true)?;
        Ok(self.outcome()?)
    }

    fn descend(&mut self, sgd: Sgd) -> Result<(), ExecutorError> {
        let words = [
            sgd.rate.to_bits(),
            sgd.momentum.to_bits(),
            sgd.weight_decay.to_bits(),
            u32::from(sgd.nesterov),
        ];
        let scalars = self.arena.at(self.slots.scalars);
        self.device.upload(&words, scalars.floats(STEP_WORDS))?;
        let count = self.plan.parameter_count();
        let values = [
            Value::from(self.part(Part::Parameters).1),
            self.part(Part::Momentum).1.into(),
            self.part(Part::Gradients).1.into(),
            scalars.into(),
            count.into(),
        ];
        let grid = ([count.div_ceil(THREADS), 1, 1], THREADS);
        self.device
            .launch(&self.kernels.step.descend, grid, &values)?;
        Ok(())
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Outcome, ExecutorError> {
        self.accept(batch)?;
        self.run(false)?;
        Ok(self.outcome()?)
    }

    fn logits(&self, into: &mut [f32]) -> Result<(), ExecutorError> {
        length(
            "the latest logits",
            self.latest * self.plan.classes,
            into.len(),
        )?;
        Ok(self
            .device
            .download(self.arena.at(self.slots.logits), into)?)
    }
}
