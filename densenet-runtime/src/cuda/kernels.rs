//! All programs and kernels of a plan.

use super::driver::{CudaDevice, Source};
use super::error::CudaError;
use super::kernel::norm::{self, NormKernels};
use super::kernel::step::{self, StepKernels};
use super::kernel::weights::{self, WeightKernels};
use super::memory::Scratch;
use super::program::{Cache, Library, Sources};
use super::stage::block::{self, BlockKernels, BlockSources};
use super::stage::head::{self, HeadKernels};
use super::stage::stem::{self, PoolKernels, StemKernels};
use super::stage::transition::{self, TransitionKernels};
use crate::executor::ExecutorError;
use crate::plan::{Plan, Precision, StemKind};

/// All kernels of a plan.
pub(super) struct Kernels {
    pub stem: StemKernels,
    pub pool: Option<PoolKernels>,
    pub blocks: Vec<BlockKernels>,
    pub transitions: Vec<TransitionKernels>,
    pub head: HeadKernels,
    pub norm: NormKernels,
    pub step: StepKernels,
    pub weights: WeightKernels,
}

/// A program as it is passed to NVRTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The purpose of its kernels.
    pub family: &'static str,
    /// CUDA C++.
    pub source: String,
    /// Its constants, as options: `-DNAME=VALUE`.
    pub constants: Vec<String>,
}

/// The programs that a plan needs, each once. Needs no CUDA.
///
/// # Errors
/// If a kernel is launched with other values than its program declares, which is a mistake in
/// this library.
pub fn programs(plan: &Plan, precision: Precision) -> Result<Vec<Program>, CudaError> {
    let mut programs = Vec::new();
    Kernels::of(plan, precision, |sources| {
        let library = Library::on_paper(sources);
        programs.extend(library.sources().map(|source| Program {
            family: source.family,
            source: source.text.clone(),
            constants: source.definitions().collect(),
        }));
        Ok(library)
    })?;
    Ok(programs)
}

/// The scratch memory in which the kernels of a plan leave results for each other, for a batch
/// size.
pub(super) fn scratch(plan: &Plan, batch: usize) -> Scratch {
    let mut scratch = Scratch::default();
    stem::scratch(&mut scratch, plan, batch);
    block::scratch(&mut scratch, plan, batch);
    transition::scratch(&mut scratch, plan, batch);
    scratch
}

impl Kernels {
    /// Compiles and loads all programs that a plan needs; refuses one with more parameters than
    /// kernels can count.
    pub fn load(
        device: &CudaDevice,
        plan: &Plan,
        precision: Precision,
        cache: &Cache,
    ) -> Result<Self, CudaError> {
        // Kernels count pixels and parameters in 31 bits.
        let parameters = plan.parameter_count();
        if parameters > i32::MAX as usize {
            let message = format!("kernels count up to 2^31 - 1 parameters, not {parameters}");
            return Err(ExecutorError::Device(message.into()).into());
        }
        Self::of(plan, precision, |sources| {
            Library::load(device, sources, cache)
        })
    }

    /// All kernels that a plan needs, on paper: to be counted, not launched.
    #[cfg(feature = "roofline")]
    pub fn on_paper(plan: &Plan, precision: Precision) -> Result<Self, CudaError> {
        Self::of(plan, precision, |sources| Ok(Library::on_paper(sources)))
    }

    fn of(
        plan: &Plan,
        precision: Precision,
        load: impl FnOnce(Vec<Source>) -> Result<Library, CudaError>,
    ) -> Result<Self, CudaError> {
        let of = Sources { plan, precision };
        let (stem, head) = (stem::source(of), head::source(of));
        let (norm, step, weights) = (norm::source(of), step::source(of), weights::source(of));
        let transitions = 0..plan.transitions().len();
        let transitions = transitions.map(|index| transition::source(of, index));
        let transitions: Vec<_> = transitions.collect();
        let blocks = plan.blocks().iter();
        let blocks: Vec<_> = blocks.map(|shape| BlockSources::new(of, shape)).collect();

        let mut all = vec![&stem, &head, &norm, &step, &weights];
        all.extend(&transitions);
        for block in &blocks {
            all.extend(&block.pointwise);
            all.push(&block.spatial);
        }
        let library = load(all.into_iter().cloned().collect())?;
        let transitions = transitions.iter();
        let transitions = transitions.map(|source| library.find(source, TransitionKernels::find));
        let blocks = blocks.iter().map(|block| block.find(&library));
        Ok(Self {
            pool: match plan.stem().kind {
                StemKind::ImageNet => Some(library.find(&stem, PoolKernels::find)?),
                StemKind::Cifar => None,
            },
            stem: library.find(&stem, StemKernels::find)?,
            blocks: blocks.collect::<Result<_, _>>()?,
            transitions: transitions.collect::<Result<_, _>>()?,
            head: library.find(&head, HeadKernels::find)?,
            norm: library.find(&norm, NormKernels::find)?,
            step: library.find(&step, StepKernels::find)?,
            weights: library.find(&weights, WeightKernels::find)?,
        })
    }
}
