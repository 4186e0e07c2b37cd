//! The executor that settings ask for.

use super::super::PartError;
use super::Config;
use crate::cpu;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::parallel::{Parallel, Ranks};
use crate::plan::{Plan, Training};
use crate::{Device, Executor, ExecutorError};

impl Config {
    /// Makes an executor for a plan with these settings, its groups of parameters among them.
    ///
    /// # Errors
    /// When there is not enough memory, or the device fails.
    pub fn executor(
        &self,
        plan: Plan,
        device: &Device,
    ) -> Result<Box<dyn Executor>, ExecutorError> {
        self.executor_among(plan, device, &Ranks::alone())
    }

    /// The same for one of several processes that train together; this forms their process group.
    pub(in crate::train) fn executor_among(
        &self,
        plan: Plan,
        device: &Device,
        ranks: &Ranks,
    ) -> Result<Box<dyn Executor>, ExecutorError> {
        let training = self.training(&plan)?;
        let groups = self.groups(&plan)?;
        let process_group = ranks.process_group()?;
        let mut executor: Box<dyn Executor> = match device {
            Device::Cpu => {
                let options = self.cpu_options(training);
                let executor = Box::new(cpu::CpuExecutor::new(plan, options)?);
                match process_group {
                    None => executor,
                    Some(group) => Box::new(Parallel::new(executor, Box::new(group))),
                }
            }
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                let options = self.cuda_options(training);
                let mut executor = cuda::CudaExecutor::new(device, plan, options)?;
                if let Some(group) = process_group {
                    executor.join(group)?;
                }
                Box::new(executor)
            }
        };
        executor.set_groups(&groups)?;
        Ok(executor)
    }

    fn cpu_options(&self, training: Training) -> cpu::CpuOptions {
        cpu::CpuOptions {
            threads: self.threads,
            recompute: training.recompute,
            precision: self.precision,
            second_moments: training.second_moments,
            average: training.average,
            frozen: training.frozen,
            ..cpu::CpuOptions::for_batch(self.piece())
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_options(&self, training: Training) -> cuda::CudaOptions {
        cuda::CudaOptions {
            recompute: training.recompute,
            precision: self.precision,
            second_moments: training.second_moments,
            average: training.average,
            frozen: training.frozen,
            ..cuda::CudaOptions::for_batch(self.piece())
        }
    }

    /// Bytes that an executor of a plan allocates on a device.
    ///
    /// # Errors
    /// If these parts cannot be frozen.
    pub fn bytes(&self, plan: &Plan, device: &Device) -> Result<u64, PartError> {
        let training = self.training(plan)?;
        Ok(match device {
            Device::Cpu => self.cpu_options(training).bytes(plan),
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => self.cuda_options(training).bytes(plan) as u64,
        })
    }

    /// What an executor of a plan keeps with these settings, for [`Plan::training_footprint`].
    ///
    /// # Errors
    /// If these parts cannot be frozen.
    pub fn training(&self, plan: &Plan) -> Result<Training, PartError> {
        Ok(Training {
            recompute: self.recompute,
            second_moments: self.adapts(),
            average: self.ema.is_some(),
            frozen: self.freeze.of(plan)?,
        })
    }
}
