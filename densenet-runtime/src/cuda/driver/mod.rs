//! Safe calls of CUDA: discovery, memory, launches, graphs. All unsafe code is here.
//!
//! They are safe for the host's memory. On the device an `Address` is a number, as it is to a
//! kernel. The layout and the kernels ensure that a launch stays within its slots, and the emulated
//! device checks it.
//!
//! One stream computes everything in order; events synchronise the streams beside it (`lanes`). A
//! library is used only after `is_culib_present` has found it (`discover`), because cudarc panics
//! if it is missing.

use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaGraph, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError,
    LaunchConfig, PushKernelArg, sys,
};
use cudarc::nvrtc::Ptx;

use super::error::CudaError;

mod discover;
mod fault;
mod kernel;
mod lanes;
mod nccl;
mod nvrtc;

use fault::driver_error;
pub(super) use kernel::{Argument, Arguments, Kernel, Launch, Value, arguments, kernels};
pub(super) use lanes::{Event, Lane, Pinned};
pub(super) use nccl::{ID_BYTES, Nccl};
pub(super) use nvrtc::{Source, compile, compiler_version};

/// Whether a CUDA driver and NVRTC can be loaded, and the driver sees a device.
pub fn is_available() -> bool {
    CudaDevice::open(0).is_ok()
}

/// A CUDA device with its streams: one for all computation, and two beside it.
#[derive(Clone)]
pub struct CudaDevice {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// For uploads of batches.
    uploads: Arc<CudaStream>,
    /// For averages over several devices.
    reductions: Arc<CudaStream>,
    name: String,
    /// Compute capability, major and minor.
    capability: (i32, i32),
}

impl CudaDevice {
    /// The device with this number, counted from 0.
    ///
    /// # Errors
    /// If there is no driver, no NVRTC, no such device, or it is too old.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let discover::Discovered {
            context,
            name,
            capability,
        } = discover::device(ordinal)?;
        // SAFETY: memory is used in one stream alone, in its order, or between events (`lanes`).
        unsafe { context.disable_event_tracking() };
        let doing = |what: &'static str| move |error| driver_error(what, error);
        let stream = context.new_stream().map_err(doing("making a stream"))?;
        let uploads = context.new_stream().map_err(doing("making a stream"))?;
        let reductions = context.new_stream().map_err(doing("making a stream"))?;
        Ok(Self {
            context,
            stream,
            uploads,
            reductions,
            name,
            capability,
        })
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.context.ordinal()
    }

    /// The card's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What NVRTC calls its architecture, such as `sm_90`.
    pub fn architecture(&self) -> String {
        format!("sm_{}{}", self.capability.0, self.capability.1)
    }

    /// Allocates bytes with unspecified contents.
    pub(super) fn allocate(&self, bytes: usize) -> Result<Memory, CudaError> {
        // SAFETY: `Memory` is written before it is read: the executor's buffers are filled by
        // their first use, and the parameters when the executor is made.
        match unsafe { self.stream.alloc::<u8>(bytes) } {
            Ok(slice) => Ok(Memory { slice }),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(CudaError::OutOfMemory {
                    bytes: bytes as u64,
                    free: self
                        .context
                        .mem_get_info()
                        .map_or(0, |(free, _)| free as u64),
                    device: self.name.clone(),
                    advice: "use a smaller batch, or recompute the bottlenecks if they are kept",
                })
            }
            Err(error) => Err(driver_error("allocating memory", error)),
        }
    }

    /// Loads a compiled program.
    pub(super) fn load(&self, image: Vec<u8>) -> Result<Module, CudaError> {
        self.context
            .load_module(Ptx::from_binary(image))
            .map(|module| Module(Some(module)))
            .map_err(|error| driver_error("loading compiled kernels", error))
    }

    /// Copies values to the device: they have arrived when this returns.
    pub(super) fn upload<T: Plain>(&self, from: &[T], into: Address) -> Result<(), CudaError> {
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: an `Address` points into an allocation that lives as long as the executor, and
        // its owner has checked the length; `from` outlives the wait.
        unsafe {
            self.bind()?;
            let bytes = std::slice::from_raw_parts(from.as_ptr().cast::<u8>(), size_of_val(from));
            cudarc::driver::result::memcpy_htod_async(into.0, bytes, self.stream.cu_stream())
        }
        .map_err(|error| driver_error("copying to the device", error))?;
        self.wait("copying to the device")
    }

    /// Copies values from the device.
    pub(super) fn download<T: Plain>(
        &self,
        from: Address,
        into: &mut [T],
    ) -> Result<(), CudaError> {
        if into.is_empty() {
            return Ok(());
        }
        // SAFETY: as in `upload`; every bit pattern is a value of a `Plain` type.
        unsafe {
            self.bind()?;
            let size = size_of_val(into);
            let bytes = std::slice::from_raw_parts_mut(into.as_mut_ptr().cast::<u8>(), size);
            cudarc::driver::result::memcpy_dtoh_async(bytes, from.0, self.stream.cu_stream())
        }
        .map_err(|error| driver_error("copying from the device", error))?;
        self.wait("copying from the device")
    }

    /// Waits for all work; reports what went wrong meanwhile.
    pub(super) fn wait(&self, doing: &'static str) -> Result<(), CudaError> {
        self.stream
            .synchronize()
            .map_err(|error| driver_error(doing, error))
    }

    fn bind(&self) -> Result<(), CudaError> {
        let bound = self.context.bind_to_thread();
        bound.map_err(|error| driver_error("making the device current", error))
    }

    /// Launches a kernel; does nothing if the grid is empty.
    pub(super) fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let name = launch.kernel.name;
        let Some(function) = &launch.kernel.function else {
            return Err(CudaError::Driver {
                doing: format!("launching kernel {name}"),
                message: "it was never compiled".into(),
            });
        };
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let mut builder = self.stream.launch_builder(function);
        for value in launch.values {
            match value {
                Value::At(address) => builder.arg(&address.0),
                Value::Int(value) => builder.arg(value),
            };
        }
        let [x, y, z] = launch.grid.map(|size| size as u32);
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.threads as u32, 1, 1),
            shared_mem_bytes: launch.kernel.shared as u32,
        };
        // SAFETY: `Kernel::launch` alone makes a `Launch`, and the names, order and kinds of its
        // values were checked against the kernel's parameters when the kernel was found; the
        // addresses point into the executor's buffers, whose sizes follow from the same plan as the
        // kernel's bounds.
        let launched = unsafe { builder.launch(config) };
        launched.map_err(|error| driver_error(&format!("launching kernel {name}"), error))?;
        Ok(())
    }

    /// Fills bytes with zeros.
    pub(super) fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: as in `upload`.
        unsafe {
            self.bind()?;
            cudarc::driver::result::memset_d8_async(at.0, 0, bytes, self.stream.cu_stream())
        }
        .map_err(|error| driver_error("clearing memory", error))
    }

    /// Records the work that `work` gives the device, instead of doing it.
    pub(super) fn capture(
        &self,
        work: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Graph, CudaError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let failed = |error| driver_error("capturing a step as a graph", error);
        self.stream.begin_capture(mode).map_err(failed)?;
        let done = work();
        // The capture ends even if `work` failed.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        done?;
        match graph.map_err(failed)? {
            Some(graph) => Ok(Graph { graph }),
            None => Err(CudaError::Driver {
                doing: "capturing a step as a graph".into(),
                message: "nothing was captured".into(),
            }),
        }
    }
}

/// A compiled program on the device; nothing on paper, where launches are only counted.
pub(super) struct Module(Option<Arc<CudaModule>>);

impl Module {
    /// A program that is not compiled.
    pub fn on_paper() -> Self {
        Self(None)
    }
}

/// An allocation on the device.
pub(super) struct Memory {
    slice: CudaSlice<u8>,
}

impl Memory {
    /// Where it starts.
    pub fn address(&self) -> Address {
        Address(self.slice.device_ptr(self.slice.stream()).0)
    }
}

/// An address in the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(u64);

impl Address {
    /// An address without memory.
    #[cfg(feature = "roofline")]
    pub fn on_paper() -> Self {
        Self(1 << 40)
    }

    /// The number of bytes from another address to this one, if this one is not lower.
    #[cfg(feature = "roofline")]
    pub fn behind(self, start: Self) -> Option<u64> {
        self.0.checked_sub(start.0)
    }

    /// The address `count` f32 further on.
    pub fn floats(self, count: usize) -> Self {
        Self(self.0 + 4 * count as u64)
    }

    /// The address `count` bytes further on.
    pub fn bytes(self, count: usize) -> Self {
        Self(self.0 + count as u64)
    }
}

/// Values without padding, for which every bit pattern is valid.
pub(super) trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for f32 {}
impl Plain for f64 {}

/// A recorded sequence of launches.
pub(super) struct Graph {
    graph: CudaGraph,
}

// SAFETY: a graph may be used by any thread, by one at a time; it is used through the executor
// alone, which its owner borrows mutably.
unsafe impl Send for Graph {}

impl Graph {
    /// Launches the whole sequence.
    pub fn replay(&self) -> Result<(), CudaError> {
        self.graph
            .launch()
            .map_err(|error| driver_error("launching a step's graph", error))
    }
}
