//! The frozen form of a network on a device, for inference alone.
//!
//! The work that all passes with the running statistics share is done once: weights are packed, and
//! each BN becomes a multiply-add. The rest, from the images to the logits, is recorded as one
//! graph for a full batch; for fewer images, kernels are launched one by one. Blocks' maps
//! alternate between two buffers, and there is no memory for training.

use super::driver::{CudaDevice, Graph, Lane, Pinned};
use super::error::CudaError;
use super::feed::send_pixels;
use super::kernels::{Kernels, scratch};
use super::launch::Launcher;
use super::memory::{Buffers, Layout, Offsets, Placement, Slot, Slots, Stored};
use super::pass::Pass;
use super::program::Cache;
use super::reducer::Member;
use crate::executor::{
    ExecutorError, Inference, MapsOf, Outputs, Pixels, check_capacity, check_length, check_maps,
    check_outputs, check_pixels,
};
use crate::plan::{FrozenTensors, Plan, Precision};

/// How a network is frozen on a CUDA device.
#[derive(Clone, Debug)]
pub struct FrozenOptions {
    /// The largest number of images in a call.
    pub batch: usize,
    /// In bf16, feature maps and the operands of products are bfloat16, and the tensor cores
    /// multiply. The classifier's weights are kept in f32, and all sums are f32.
    pub precision: Precision,
    /// The outputs beside logits and pooled features.
    pub outputs: Outputs,
    /// Where compiled kernels are kept.
    pub cache: Cache,
    /// How buffers are allocated.
    pub placement: Placement,
}

impl FrozenOptions {
    /// Options for a batch: f32, no maps, kernels kept in the user's cache folder.
    pub fn for_batch(batch: usize) -> Self {
        Self {
            batch,
            precision: Precision::F32,
            outputs: Outputs::default(),
            cache: Cache::User,
            placement: Placement::Together,
        }
    }

    /// The buffers of a network that is frozen with these options, and their positions.
    fn layout(&self, plan: &Plan) -> (Slots, Layout) {
        let mut layout = Layout::default();
        let stored = Stored::for_inference(plan, self.precision, self.outputs);
        let scratch = scratch(plan, self.batch);
        let slots = Slots::new(plan, self.batch, stored, scratch, &mut layout);
        (slots, layout)
    }
}

/// A trained network for inference on a CUDA device, with packed weights, recorded launches and
/// planned memory. A call allocates no device memory.
///
/// ```no_run
/// use densenet_runtime::cuda::{CudaDevice, CudaError, Frozen, FrozenOptions};
/// use densenet_runtime::weights::State;
/// use densenet_runtime::{Network, Pixels};
///
/// fn classify<N: Network>(model: &N, image: &[f32]) -> Result<Vec<f32>, CudaError> {
///     let (device, state) = (CudaDevice::open(0)?, State::of(model));
///     let options = FrozenOptions::for_batch(1);
///     let mut frozen = Frozen::new(&device, &N::PLAN, &state.parameters, &state.running, options)?;
///     Ok(frozen.infer(Pixels::Nchw(image), 1)?.to_vec())
/// }
/// ```
pub struct Frozen {
    network: DeviceNetwork,
    /// The launches for a full batch.
    graph: Option<Graph>,
    /// Pinned memory for images, their normalisation and the numbers of classes.
    pixels: Pinned,
    norm: Pinned,
    classes: Pinned,
    /// Pinned memory for the outputs: logits, features, and the maps that were asked for.
    given: Pinned,
    /// The classes of the class maps: images x wanted classes.
    mapped: Vec<usize>,
}

/// A network on its device.
struct DeviceNetwork {
    plan: Plan,
    precision: Precision,
    outputs: Outputs,
    /// The most images of a call.
    capacity: usize,
    device: CudaDevice,
    kernels: Kernels,
    offsets: Offsets,
    slots: Slots,
    buffers: Buffers,
}

impl Frozen {
    /// Freezes trained parameters and running statistics, each in the order of
    /// [`Plan::parameters`]. While this runs, the device holds them beside [`bytes`](Self::bytes).
    ///
    /// # Errors
    /// If the batch is empty or too large to be counted, the numbers are not as many as the
    /// plan's, the kernels do not compile, or there is not enough memory on the device.
    pub fn new(
        device: &CudaDevice,
        plan: &Plan,
        parameters: &[f32],
        running: &[f32],
        options: FrozenOptions,
    ) -> Result<Self, CudaError> {
        let capacity = options.batch;
        check_capacity(plan, capacity)?;
        check_outputs(plan, capacity, options.outputs)?;
        check_length("parameters", plan.parameter_count(), parameters.len())?;
        check_length("running statistics", plan.running_count(), running.len())?;
        let kernels = Kernels::load(device, plan, options.precision, &options.cache)?;
        let (slots, layout) = options.layout(plan);
        let buffers = layout.allocate(device, options.placement);
        let mut network = DeviceNetwork {
            buffers: buffers.map_err(CudaError::in_inference)?,
            plan: plan.clone(),
            precision: options.precision,
            outputs: options.outputs,
            capacity,
            device: device.clone(),
            kernels,
            offsets: Offsets::new(plan),
            slots,
        };
        let prepared = network.prepare(parameters, running);
        prepared.map_err(CudaError::in_inference)?;
        let stem = plan.stem();
        let values = capacity * stem.channels * stem.height * stem.width;
        // Without images yet: the driver loads kernels at their first launch, which no graph should have to wait for.
        network.forward(capacity)?;
        device.wait("loading kernels")?;
        let graph = device.capture(|| network.forward(capacity))?;
        let mapped = capacity * options.outputs.most_class_maps(plan);
        let given: usize = network.given().map(|(_, each)| each).sum();
        let given = capacity * given + mapped * plan.head().pixels();
        Ok(Self {
            graph: Some(graph),
            pixels: device.pinned(4 * values)?,
            norm: device.pinned(4 * 2 * stem.channels)?,
            classes: device.pinned(4 * mapped)?,
            given: device.pinned(4 * given)?,
            mapped: vec![0; mapped],
            network,
        })
    }

    /// The logits of some images, at most as many as it was made for: images x classes.
    ///
    /// # Errors
    /// If the images do not fit the plan, or the device fails.
    pub fn infer(&mut self, pixels: Pixels<'_>, images: usize) -> Result<&[f32], ExecutorError> {
        check_pixels(self.plan().stem(), pixels, images, self.capacity())?;
        Ok(self.classify(pixels, images)?)
    }

    /// The outputs for some images: logits, pooled features, and the maps that it was frozen for
    /// ([`FrozenOptions::outputs`]). The logits are those of [`infer`](Self::infer), bit for bit.
    ///
    /// # Errors
    /// If the images do not fit the plan, the network has no such class, more class maps are asked
    /// for than it was frozen for, or the device fails.
    pub fn infer_with(
        &mut self,
        pixels: Pixels<'_>,
        images: usize,
        of: MapsOf<'_>,
    ) -> Result<Inference<'_>, ExecutorError> {
        check_pixels(self.plan().stem(), pixels, images, self.capacity())?;
        check_maps(self.plan(), self.network.outputs, of)?;
        Ok(self.say(pixels, images, of)?)
    }

    fn classify(&mut self, pixels: Pixels<'_>, images: usize) -> Result<&[f32], CudaError> {
        self.run(pixels, images)?;
        let network = &self.network;
        let count = images * network.plan.classes();
        let logits = network.buffers.at(network.slots.logits);
        let into = &mut self.given;
        network.device.copy_out(logits, into, 0..4 * count)?;
        Ok(into.values(count)?)
    }

    fn say(
        &mut self,
        pixels: Pixels<'_>,
        images: usize,
        of: MapsOf<'_>,
    ) -> Result<Inference<'_>, CudaError> {
        self.run(pixels, images)?;
        let network = &self.network;
        let (plan, slots, buffers) = (&network.plan, &network.slots, &network.buffers);
        // One after another, the class maps last.
        let mut count = 0;
        for (slot, each) in network.given() {
            let range = 4 * count..4 * (count + images * each);
            let from = buffers.at(slot);
            network.device.copy_out(from, &mut self.given, range)?;
            count += images * each;
        }
        let (classes, area) = (plan.classes(), plan.head().pixels());
        let wanted = of.count(classes);
        let mapped = &mut self.mapped[..images * wanted];
        if wanted > 0 {
            let logits: &[f32] = self.given.values(images * classes)?;
            let of_images = mapped.chunks_exact_mut(wanted);
            for (logits, chosen) in logits.chunks_exact(classes).zip(of_images) {
                of.choose(logits, chosen);
            }
            let numbers = self.classes.values::<u32>(mapped.len())?;
            for (number, &class) in numbers.iter_mut().zip(&*mapped) {
                // The number of classes fits.
                *number = class as u32;
            }
            let into = buffers.at(slots.mapped);
            let range = 0..4 * mapped.len();
            (network.device).copy_in(Lane::Main, &mut self.classes, range, into)?;
            network
                .pass(&network.member(), images, true)
                .class_maps(wanted)?;
            let range = 4 * count..4 * (count + mapped.len() * area);
            let from = buffers.at(slots.class_maps);
            network.device.copy_out(from, &mut self.given, range)?;
        }
        let mut rest: &[f32] = self.given.values(count + mapped.len() * area)?;
        let mut next = |count: usize| {
            let (own, after) = rest.split_at(count);
            rest = after;
            own
        };
        let outputs = network.outputs;
        let last = usize::from(outputs.last_maps) * plan.features() * area;
        let (logits, features) = (next(images * classes), next(images * plan.features()));
        let last_maps = next(images * last);
        let blocks = count - logits.len() - features.len() - last_maps.len();
        Ok(Inference {
            plan,
            images,
            logits,
            features,
            mapped,
            last_maps,
            block_maps: next(blocks),
            class_maps: next(mapped.len() * area),
        })
    }

    /// Computes all but the class maps.
    fn run(&mut self, pixels: Pixels<'_>, images: usize) -> Result<(), CudaError> {
        let network = &self.network;
        let (device, slots, buffers) = (&network.device, &network.slots, &network.buffers);
        let [raw, _] = slots.raw.map(|slot| buffers.at(slot));
        send_pixels(device, Lane::Main, pixels, &mut self.pixels, raw)?;
        if let Some((mean, std)) = pixels.norm() {
            let count = mean.len() + std.len();
            let into = self.norm.values::<f32>(count)?;
            for (into, &value) in into.iter_mut().zip(mean.iter().chain(std)) {
                *into = value;
            }
            let norm = buffers.at(slots.pixel_norm);
            device.copy_in(Lane::Main, &mut self.norm, 0..4 * count, norm)?;
        }
        let member = network.member();
        let pass = network.pass(&member, images, true);
        pass.surroundings().images(pixels, raw)?;
        match &self.graph {
            Some(graph) if images == network.capacity => graph.replay(),
            _ => pass.forward(),
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.network.plan
    }

    /// The most images of a call.
    pub fn capacity(&self) -> usize {
        self.network.capacity
    }

    /// The device.
    pub fn device(&self) -> &CudaDevice {
        &self.network.device
    }

    /// The [bytes](Self::bytes) that a network takes when it is frozen with these options; needs
    /// no device. `None` if the batch is empty, or the number is too large.
    pub fn bytes_of(plan: &Plan, options: &FrozenOptions) -> Option<u64> {
        check_capacity(plan, options.batch).ok()?;
        check_outputs(plan, options.batch, options.outputs).ok()?;
        Some(options.layout(plan).1.total() as u64)
    }

    /// Bytes that it holds on its device: packed weights, activations and outputs. Compiled
    /// kernels and the driver's own memory come on top, and pinned memory of the host for a batch
    /// of images and its outputs, 4 bytes for each value.
    pub fn bytes(&self) -> u64 {
        self.network.buffers.bytes() as u64
    }
}

impl DeviceNetwork {
    /// Packs the weights, and makes each BN a multiply-add. Meanwhile all parameters are on the
    /// device, which then keeps those that kernels read directly.
    fn prepare(&mut self, parameters: &[f32], running: &[f32]) -> Result<(), CudaError> {
        let table = self.offsets.weight_table();
        let slots = [
            self.slots.parameters,
            self.slots.running,
            self.slots.weight_table,
        ];
        let [own, ..] = slots.map(|slot| self.buffers.at(slot));
        let mut memory = Vec::new();
        for (slot, count) in slots
            .into_iter()
            .zip([parameters.len(), running.len(), table.len()])
        {
            let all = self.device.allocate(4 * count.max(1))?;
            self.buffers.place(slot, all.address());
            memory.push(all);
        }
        let [at, statistics, words] = slots.map(|slot| self.buffers.at(slot));
        self.device.upload(parameters, at)?;
        self.device.upload(running, statistics)?;
        self.device.upload(&table, words)?;
        self.pass(&self.member(), 1, false).prepare()?;
        self.device.wait("packing weights")?;

        slots
            .into_iter()
            .for_each(|slot| self.buffers.place(slot, own));
        let mut into = own;
        for range in self.offsets.read_alone(&self.plan) {
            let alone = &parameters[range];
            self.device.upload(alone, into)?;
            into = into.floats(alone.len());
        }
        self.offsets = self.offsets.clone().of_read_alone(&self.plan);
        Ok(())
    }

    /// From images that are on the device to their logits.
    fn forward(&self, images: usize) -> Result<(), CudaError> {
        self.pass(&self.member(), images, true).forward()
    }

    /// The outputs of a pass and their values per image: logits, features, then the last maps and
    /// those of each block, if they are wanted.
    fn given(&self) -> impl Iterator<Item = (Slot, usize)> {
        let (plan, slots) = (&self.plan, &self.slots);
        let features = plan.features();
        let last = slots.last_maps.iter();
        let last = last.map(move |&slot| (slot, features * plan.head().pixels()));
        let blocks = slots.block_maps.iter().zip(plan.blocks().iter());
        let blocks = blocks.map(|(&slot, block)| (slot, block.output() * block.pixels()));
        let always = [(slots.logits, plan.classes()), (slots.features, features)];
        always.into_iter().chain(last).chain(blocks)
    }

    fn member(&self) -> Member<'_> {
        Member {
            device: &self.device,
            reducer: None,
        }
    }

    /// A pass with the running statistics; `ready` if the network is prepared.
    fn pass<'a>(&'a self, member: &'a Member<'a>, images: usize, ready: bool) -> Pass<'a> {
        let on = Launcher {
            target: member,
            buffers: &self.buffers,
            slots: &self.slots,
            offsets: &self.offsets,
            plan: &self.plan,
            precision: self.precision,
            batch: images,
            capacity: self.capacity,
            training: false,
            at_rest: true,
            ready,
            dropout: false,
            beside: false,
            frozen: FrozenTensors::default(),
        };
        let stored = Stored::for_inference(&self.plan, self.precision, self.outputs);
        Pass::new(on, &self.kernels, stored.training)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // The graph is dropped when it is done, and before the memory that it uses. Nobody is left
        // to take an error of the device.
        let _ = self.network.device.wait("ending");
        self.graph = None;
    }
}
