//! Why a CUDA executor could not be made, or why it stopped.

use std::path::PathBuf;

use crate::executor::ExecutorError;

/// Why a request to CUDA failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A CUDA library is missing.
    #[error("no {what}: looked for {looked_for}; {remedy}")]
    Missing {
        /// The library.
        what: &'static str,
        /// The file names and folders that were tried.
        looked_for: String,
        /// How to get it.
        remedy: &'static str,
    },
    /// No such device.
    #[error(
        "no CUDA device {ordinal}: the driver sees {count}, numbered from 0 (CUDA_VISIBLE_DEVICES hides devices)"
    )]
    NoDevice {
        /// The device asked for.
        ordinal: usize,
        /// Devices that the driver sees.
        count: usize,
    },
    /// The driver is too old.
    #[error(
        "the NVIDIA driver is for CUDA {found}, but {by} need {needed} or newer; update the driver"
    )]
    OldDriver {
        /// The CUDA version that the driver is for.
        found: String,
        /// The oldest version that suffices.
        needed: String,
        /// What needs it.
        by: String,
    },
    /// The card lacks what the kernels need.
    #[error("{name} has compute capability {found}; the kernels need 8.0 (Ampere) or newer")]
    TooOld {
        /// The card.
        name: String,
        /// Its capability.
        found: String,
    },
    /// The driver reported an error.
    #[error("{doing}: {message}")]
    Driver {
        /// What was being done.
        doing: String,
        /// The driver's error.
        message: String,
    },
    /// A kernel or the device failed, and the driver refuses all later calls.
    #[error(
        "{doing}: {message}; the device is lost to this process, and so are the weights on it: start again and resume the last checkpoint"
    )]
    Lost {
        /// What was being done when it was noticed.
        doing: String,
        /// The driver's error.
        message: String,
    },
    /// There is not enough memory on the device.
    #[error("no memory for {bytes} bytes on {device} ({free} are free); {advice}")]
    OutOfMemory {
        /// Bytes requested.
        bytes: u64,
        /// Bytes free.
        free: u64,
        /// The card.
        device: String,
        /// What to do.
        advice: &'static str,
    },
    /// NVRTC refused a kernel.
    #[error("NVRTC cannot compile the {family} kernels for {architecture}:\n{log}")]
    Compile {
        /// The purpose of the kernels.
        family: &'static str,
        /// For which architecture.
        architecture: String,
        /// The compiler's log.
        log: String,
    },
    /// A kernel is launched with other values than its parameters, which is a mistake in this
    /// library.
    #[error("kernel {kernel} takes ({expected}), but is launched with ({found})")]
    Signature {
        /// The kernel.
        kernel: &'static str,
        /// Its parameters.
        expected: String,
        /// The values.
        found: String,
    },
    /// A compiled kernel could not be cached.
    #[error(
        "cannot keep compiled kernels in {path}: {error}; make room there, or set XDG_CACHE_HOME to another folder"
    )]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The executor cannot be made.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
}

impl CudaError {
    /// The same in inference, which has nothing to recompute.
    pub(super) fn in_inference(mut self) -> Self {
        if let Self::OutOfMemory { advice, .. } = &mut self {
            *advice = "use a smaller batch";
        }
        self
    }
}

impl From<CudaError> for ExecutorError {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::Executor(error) => error,
            error => Self::Device(error.into()),
        }
    }
}
