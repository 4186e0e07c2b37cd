//! A training step on paper.

use std::cell::RefCell;

use super::Launch;
use crate::cuda::conv::{pointwise, spatial};
use crate::cuda::driver::{self, Address};
use crate::cuda::error::CudaError;
use crate::cuda::executor::CudaOptions;
use crate::cuda::kernel::{norm, step, weights};
use crate::cuda::kernels::Kernels;
use crate::cuda::launch::Launcher;
use crate::cuda::memory::Offsets;
use crate::cuda::pass::Pass;
use crate::cuda::stage::{head, stem, transition};
use crate::cuda::target::Target;
use crate::cuda::traffic::{Counter, Traffic};
use crate::executor::{Targets, check_capacity};
use crate::plan::{Plan, Precision, Recompute};

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

/// The same for targets of this kind; how many there are does not matter.
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
    check_capacity(plan, batch)?;
    let kernels = Kernels::on_paper(plan, precision)?;
    let options = CudaOptions {
        precision,
        recompute,
        ..CudaOptions::for_batch(batch)
    };
    let (slots, layout) = options.layout(plan);
    let paper = Paper::default();
    let (buffers, offsets) = (layout.on_paper(), Offsets::new(plan));
    let on = Launcher {
        target: &paper,
        buffers: &buffers,
        slots: &slots,
        offsets: &offsets,
        plan,
        precision,
        batch,
        training: true,
        at_rest: false,
        ready: false,
        dropout: true,
    };
    let pass = Pass::new(on, &kernels, recompute.into());
    pass.surroundings().images_from_bytes(Address::on_paper())?;
    pass.forward()?;
    pass.loss(head::Loss::towards(targets))?;
    pass.backward()?;
    pass.surroundings().descend(step::Manner {
        groups: 1,
        ..step::Manner::default()
    })?;
    Ok(paper.launches.into_inner())
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
#[derive(Default)]
struct Paper {
    launches: RefCell<Vec<Launch>>,
}

impl Target for Paper {
    fn launch(&self, launch: &driver::Launch<'_>) -> Result<(), CudaError> {
        let grid = launch.grid();
        if grid.contains(&0) {
            return Ok(());
        }
        let (name, family) = (launch.kernel().name, launch.kernel().declared.family);
        let counter = Counter::new(launch);
        let Some(traffic) = traffic(&counter, family) else {
            return Err(CudaError::Driver {
                doing: format!("counting what kernel {name} moves"),
                message: "its traffic is not known".into(),
            });
        };
        self.launches.borrow_mut().push(Launch {
            kernel: name,
            family,
            blocks: grid.iter().map(|&size| size as u64).product(),
            reads: traffic.reads,
            writes: traffic.writes,
            operations: traffic.operations,
            tensor_cores: traffic.operations > 0 && counter.bf16(),
        });
        Ok(())
    }

    fn clear(&self, _: Address, bytes: usize) -> Result<(), CudaError> {
        self.launches.borrow_mut().push(Launch {
            kernel: "memset",
            family: "step",
            blocks: 0,
            reads: 0,
            writes: bytes as u64,
            operations: 0,
            tensor_cores: false,
        });
        Ok(())
    }
}
