//! A training step on paper.

use std::cell::RefCell;
use std::slice;

use super::{Argument, Launch, Listed, Listing, Value};
use crate::cuda::conv::{pointwise, spatial};
use crate::cuda::driver::{self, Address};
use crate::cuda::error::CudaError;
use crate::cuda::executor::CudaOptions;
use crate::cuda::kernel::{norm, step, weights};
use crate::cuda::kernels::Kernels;
use crate::cuda::launch::Launcher;
use crate::cuda::memory::{Buffers, Offsets};
use crate::cuda::pass::Pass;
use crate::cuda::stage::{head, stem, transition};
use crate::cuda::target::LaunchTarget;
use crate::cuda::traffic::{Counter, Traffic};
use crate::executor::{Group, Targets, check_capacity};
use crate::plan::{FrozenTensors, Outputs, Plan, Precision, Recompute};

/// The launches of a training step in order: images from bytes, forward, loss, backward, gradient
/// descent. It needs no CUDA.
///
/// # Errors
/// If the batch is empty or larger than kernels can count ([`Plan::countable_batch`]); if a
/// kernel's traffic is not known, which is a bug in this library.
pub fn launches(
    plan: &Plan,
    batch: usize,
    precision: Precision,
    recompute: Recompute,
) -> Result<Vec<Launch>, CudaError> {
    launches_towards(Targets::Classes(&[]), plan, batch, precision, recompute)
}

/// The same for targets of this kind; their number does not matter.
///
/// # Errors
/// As [`launches`].
pub fn launches_towards(
    targets: Targets<'_>,
    plan: &Plan,
    batch: usize,
    precision: Precision,
    recompute: Recompute,
) -> Result<Vec<Launch>, CudaError> {
    let groups = [Group::all(plan.parameter_count())];
    let listed = step(targets, &groups, plan, batch, precision, recompute)?.launches;
    Ok(listed.into_iter().map(|one| one.cost).collect())
}

/// The same of an executor with these groups of parameters, some of which may be frozen
/// ([`Executor::set_groups`](crate::Executor::set_groups)). Their shares do not matter.
///
/// # Errors
/// As [`launches`], and if the groups do not fit the parameters or freeze a tensor or a BN in part.
pub fn launches_with_groups(
    groups: &[Group],
    plan: &Plan,
    batch: usize,
    precision: Precision,
    recompute: Recompute,
) -> Result<Vec<Launch>, CudaError> {
    Group::check(groups, plan)?;
    let targets = Targets::Classes(&[]);
    let listed = step(targets, groups, plan, batch, precision, recompute)?.launches;
    Ok(listed.into_iter().map(|one| one.cost).collect())
}

/// The launches of [`launches`] with everything that the driver is given.
///
/// # Errors
/// As [`launches`].
pub fn listing(
    plan: &Plan,
    batch: usize,
    precision: Precision,
    recompute: Recompute,
) -> Result<Listing, CudaError> {
    let groups = [Group::all(plan.parameter_count())];
    let targets = Targets::Classes(&[]);
    step(targets, &groups, plan, batch, precision, recompute)
}

/// Every kind of launch that an executor of a plan can be asked for: images of all kinds, a pass
/// that trains with each loss, one where most is frozen, both descents, clipping and averages, a
/// pass that evaluates, and what the frozen form gives beside logits and features.
///
/// # Errors
/// As [`launches`].
pub fn everything(plan: &Plan, batch: usize, precision: Precision) -> Result<Listing, CudaError> {
    let options = CudaOptions {
        precision,
        second_moments: true,
        average: true,
        ..CudaOptions::for_batch(batch)
    };
    on_paper(plan, &options, Outputs::all(2), |pass| {
        let raw = pass.on.at(pass.on.slots.raw[0]);
        pass.surroundings().images_from_nchw(raw)?;
        pass.surroundings().images_from_bytes(raw)?;
        pass.surroundings().images_from_floats(raw)?;
        pass.forward()?;
        for loss in [
            head::Loss::Classes,
            head::Loss::Probabilities,
            head::Loss::Independent,
        ] {
            pass.loss(loss)?;
        }
        pass.backward()?;
        // All but the stem's convolution and the classifier's bias.
        let [stem, classifier] = pass.on.offsets.read_alone(plan);
        let frozen = stem.end..classifier.end - plan.classes();
        let resting = Launcher {
            frozen: FrozenTensors::in_ranges(slice::from_ref(&frozen)),
            ..pass.on
        };
        let resting = Pass::new(resting, pass.kernels, pass.training);
        resting.forward()?;
        resting.backward()?;
        for adamw in [false, true] {
            pass.surroundings().descend(step::Manner {
                adamw,
                clips: adamw,
                averages: adamw,
                groups: 1,
            })?;
        }
        let evaluating = Launcher {
            training: false,
            dropout: false,
            ..pass.on
        };
        let pass = Pass::new(evaluating, pass.kernels, pass.training);
        pass.forward()?;
        pass.class_maps(plan.classes().min(2))?;
        pass.loss(head::Loss::Classes)
    })
}

fn step(
    targets: Targets<'_>,
    groups: &[Group],
    plan: &Plan,
    batch: usize,
    precision: Precision,
    recompute: Recompute,
) -> Result<Listing, CudaError> {
    let options = CudaOptions {
        precision,
        recompute,
        ..CudaOptions::for_batch(batch)
    };
    let frozen = Group::frozen(groups);
    on_paper(plan, &options, Outputs::default(), |pass| {
        let on = Launcher {
            frozen: FrozenTensors::in_ranges(&frozen),
            ..pass.on
        };
        let pass = Pass::new(on, pass.kernels, pass.training);
        let raw = pass.on.at(pass.on.slots.raw[0]);
        pass.surroundings().images_from_bytes(raw)?;
        pass.forward()?;
        pass.loss(head::Loss::towards(targets))?;
        pass.backward()?;
        pass.surroundings().descend(step::Manner {
            groups: groups.len(),
            ..step::Manner::default()
        })
    })
}

/// What `work` launches with a full batch, which trains.
fn on_paper(
    plan: &Plan,
    options: &CudaOptions,
    outputs: Outputs,
    work: impl FnOnce(&Pass<'_>) -> Result<(), CudaError>,
) -> Result<Listing, CudaError> {
    let (batch, precision) = (options.batch, options.precision);
    check_capacity(plan, batch)?;
    let kernels = Kernels::on_paper(plan, precision)?;
    let (slots, layout) = options.layout_with(plan, outputs);
    let (buffers, offsets) = (layout.on_paper(), Offsets::new(plan));
    let paper = Paper {
        buffers: &buffers,
        launches: RefCell::default(),
    };
    let on = Launcher {
        target: &paper,
        buffers: &buffers,
        slots: &slots,
        offsets: &offsets,
        plan,
        precision,
        batch,
        capacity: batch,
        training: true,
        at_rest: false,
        ready: false,
        dropout: true,
        beside: false,
        frozen: FrozenTensors::default(),
    };
    work(&Pass::new(on, &kernels, options.training()))?;
    Ok(Listing {
        buffers: layout.sizes().to_vec(),
        weight_table: offsets.weight_table(),
        launches: paper.launches.into_inner(),
    })
}

/// The elements that a launch moves and its operations; `None` if the kernel is not known.
fn traffic(of: &Counter<'_>, family: &str) -> Option<Traffic> {
    match family {
        "stem" => stem::traffic(of),
        "pointwise" => pointwise::traffic(of),
        "spatial" => spatial::traffic(of),
        "transition" => transition::traffic(of),
        "head" => head::traffic(of),
        "norm" => norm::traffic(of),
        "weights" => weights::traffic(of),
        "step" => step::traffic(of),
        _ => None,
    }
}

/// Records the launches that it is asked for.
struct Paper<'a> {
    buffers: &'a Buffers,
    launches: RefCell<Vec<Listed>>,
}

impl Paper<'_> {
    /// A value of a launch, by the buffer that it points into.
    fn value(&self, value: driver::Value) -> Value {
        match value {
            driver::Value::Int(value) => Value::Int(value),
            driver::Value::At(address) => {
                let (buffer, offset) = self.buffers.place_of(address).unwrap_or_default();
                Value::At { buffer, offset }
            }
        }
    }
}

impl LaunchTarget for Paper<'_> {
    fn launch(&self, launch: &driver::Launch<'_>) -> Result<(), CudaError> {
        let grid = launch.grid();
        if grid.contains(&0) {
            return Ok(());
        }
        let declared = &launch.kernel().declared;
        let (name, family) = (launch.kernel().name, declared.family);
        let counter = Counter::new(launch);
        let Some(traffic) = traffic(&counter, family) else {
            return Err(CudaError::Driver {
                doing: format!("counting what kernel {name} moves"),
                message: "its traffic is not known".into(),
            });
        };
        let cost = Launch {
            kernel: name,
            family,
            blocks: grid.iter().map(|&size| size as u64).product(),
            reads: traffic.reads,
            writes: traffic.writes,
            operations: traffic.operations,
            tensor_cores: traffic.operations > 0 && counter.bf16(),
        };
        let constants = declared.constants.iter();
        let arguments = declared.parameters.iter().zip(launch.values());
        self.launches.borrow_mut().push(Listed {
            cost,
            constants: constants
                .map(|(name, value)| format!("-D{name}={value}"))
                .collect(),
            grid,
            threads: launch.threads(),
            shared: launch.shared(),
            arguments: arguments
                .map(|(parameter, &value)| Argument {
                    name: parameter.name.clone(),
                    of: parameter.of.clone(),
                    value: self.value(value),
                })
                .collect(),
        });
        Ok(())
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError> {
        let cost = Launch {
            kernel: "memset",
            family: "step",
            blocks: 0,
            reads: 0,
            writes: bytes as u64,
            operations: 0,
            tensor_cores: false,
        };
        self.launches.borrow_mut().push(Listed {
            cost,
            constants: Vec::new(),
            grid: [0; 3],
            threads: 0,
            shared: 0,
            arguments: vec![Argument {
                name: "into".into(),
                of: "unsigned char".into(),
                value: self.value(driver::Value::At(at)),
            }],
        });
        Ok(())
    }
}
