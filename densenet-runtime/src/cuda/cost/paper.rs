//! A training step on paper.

use std::cell::RefCell;

use super::Launch;
use super::traffic::{Arguments, traffic};
use crate::cuda::arena::Layout;
use crate::cuda::buffers::{Places, Slots};
use crate::cuda::driver::{Address, Kernel, Value};
use crate::cuda::error::CudaError;
use crate::cuda::network::Pass;
use crate::cuda::program::Kernels;
use crate::cuda::target::Target;
use crate::executor::check_capacity;
use crate::plan::Precision;
use crate::plan::{Plan, Recompute};

/// Launches of a training step in their order: images from bytes, forward, loss, backward,
/// gradient descent. Needs no CUDA.
///
/// # Errors
/// When the batch is empty or more than kernels can count ([`Plan::countable_batch`]); when a kernel's traffic is not known, which is a mistake in this library.
pub fn launches(
    plan: &Plan,
    batch: usize,
    precision: Precision,
    recompute: Recompute,
) -> Result<Vec<Launch>, CudaError> {
    check_capacity(plan, batch)?;
    let kernels = Kernels::on_paper(plan, precision)?;
    let mut layout = Layout::default();
    let slots = Slots::new(plan, batch, recompute, precision, &mut layout);
    let paper = Paper::default();
    let pass = Pass {
        device: &paper,
        kernels: &kernels,
        arena: &layout.on_paper(),
        slots: &slots,
        places: &Places::new(plan),
        plan,
        recompute,
        precision,
        batch,
        training: true,
    };
    pass.images_from_bytes(Address::on_paper())?;
    pass.forward()?;
    pass.loss()?;
    pass.backward()?;
    pass.descend()?;
    Ok(paper.launches.into_inner())
}

/// Writes down what it is asked for.
#[derive(Default)]
struct Paper {
    launches: RefCell<Vec<Launch>>,
}

impl Target for Paper {
    fn launch(
        &self,
        kernel: &Kernel,
        (grid, _): ([usize; 3], usize),
        values: &[Value],
    ) -> Result<(), CudaError> {
        kernel.check(values)?;
        if grid.contains(&0) {
            return Ok(());
        }
        let arguments = Arguments::new(kernel, grid, values);
        let Some(traffic) = traffic(&arguments) else {
            return Err(CudaError::Driver {
                doing: format!("counting what kernel {} moves", kernel.name),
                message: "nothing is known of it".into(),
            });
        };
        self.launches.borrow_mut().push(Launch {
            kernel: kernel.name,
            family: kernel.family,
            blocks: grid.iter().map(|&size| size as u64).product(),
            reads: traffic.reads,
            writes: traffic.writes,
            operations: traffic.operations,
            tensor_cores: traffic.operations > 0 && arguments.bf16(),
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
