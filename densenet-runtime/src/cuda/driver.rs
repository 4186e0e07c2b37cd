//! CUDA behind safe calls: discovery, memory, launches, graphs. All unsafe code is here.
//!
//! Safe as far as the host's memory goes. On the device an `Address` is a number, as it is to a
//! kernel: that a launch keeps within the slots that it is given is the layout's and the kernels'
//! affair, and what the emulated device watches.
//!
//! One stream computes everything in order; what runs beside it (`lanes`) is held together by
//! events. Nothing is asked of the loader that `is_culib_present` has not seen (`discover`), since
//! cudarc panics where a library is missing.

use std::ffi::CString;
use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaGraph, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError,
    LaunchConfig, PushKernelArg, sys,
};
use cudarc::nvrtc::{self, Ptx};

use super::error::CudaError;
use super::target::Target;

mod discover;
mod kernel;
mod lanes;
mod nccl;

pub(super) use kernel::{Kernel, Value};
pub(super) use lanes::{Event, Lane, Pinned};
pub(super) use nccl::{ID_BYTES, Nccl};

/// Whether a CUDA driver and NVRTC can be loaded, and the driver sees a device.
pub fn is_available() -> bool {
    Device::open(0).is_ok()
}

/// A CUDA device, the stream that everything is computed in, and those beside it.
#[derive(Clone)]
pub struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Beside it, for batches that come in.
    uploads: Arc<CudaStream>,
    /// Beside it, for averages over several devices.
    reductions: Arc<CudaStream>,
    name: String,
    /// Compute capability, major and minor.
    capability: (i32, i32),
}

impl Device {
    /// The device with this number, counted from 0.
    ///
    /// # Errors
    /// When there is no driver, no NVRTC, no such device, or it is too old.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let discover::Found {
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

    /// Allocates bytes, which hold anything.
    pub(super) fn allocate(&self, bytes: usize) -> Result<Memory, CudaError> {
        // SAFETY: `Memory` is written before it is read: the arena's buffers are filled by
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
                })
            }
            Err(error) => Err(driver_error("allocating memory", error)),
        }
    }

    /// Loads a compiled program.
    pub(super) fn load(&self, image: Vec<u8>) -> Result<Arc<CudaModule>, CudaError> {
        self.context
            .load_module(Ptx::from_binary(image))
            .map_err(|error| driver_error("loading compiled kernels", error))
    }

    /// Copies values to the device: they have arrived when this returns.
    pub(super) fn upload<T: Plain>(&self, from: &[T], into: Address) -> Result<(), CudaError> {
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: an `Address` lies in an allocation that lives as long as the executor, and
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

    /// Waits for all that was asked for; reports what went wrong on the way.
    pub(super) fn wait(&self, doing: &'static str) -> Result<(), CudaError> {
        self.stream
            .synchronize()
            .map_err(|error| driver_error(doing, error))
    }

    fn bind(&self) -> Result<(), CudaError> {
        let bound = self.context.bind_to_thread();
        bound.map_err(|error| driver_error("making the device current", error))
    }

    /// Records what `work` asks of the device, instead of doing it.
    pub(super) fn capture(
        &self,
        work: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<Graph, CudaError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let failed = |error| driver_error("capturing a step as a graph", error);
        self.stream.begin_capture(mode).map_err(failed)?;
        let done = work();
        // The capture ends whether the work could be asked for or not.
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

impl Target for Device {
    /// Values that do not fit the kernel's parameters are an error.
    fn launch(
        &self,
        kernel: &Kernel,
        (grid, threads): ([usize; 3], usize),
        values: &[Value],
    ) -> Result<(), CudaError> {
        kernel.check(values)?;
        let Some(function) = &kernel.function else {
            return Err(CudaError::Driver {
                doing: format!("launching kernel {}", kernel.name),
                message: "it was never compiled".into(),
            });
        };
        if grid.contains(&0) {
            return Ok(());
        }
        let mut launch = self.stream.launch_builder(function);
        for value in values {
            match value {
                Value::At(address) => launch.arg(&address.0),
                Value::Int(value) => launch.arg(value),
            };
        }
        let [x, y, z] = grid.map(|size| size as u32);
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (threads as u32, 1, 1),
            shared_mem_bytes: kernel.shared as u32,
        };
        // SAFETY: number and kinds of the values were checked against the kernel's parameters;
        // the addresses lie in the executor's arena, whose sizes follow from the same plan as
        // the kernel's bounds.
        let launched = unsafe { launch.launch(config) };
        launched
            .map_err(|error| driver_error(&format!("launching kernel {}", kernel.name), error))?;
        Ok(())
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<(), CudaError> {
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

/// A place in the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(u64);

impl Address {
    /// Where no memory is.
    pub fn on_paper() -> Self {
        Self(1 << 40)
    }

    /// The place so many f32 further on.
    pub fn floats(self, count: usize) -> Self {
        Self(self.0 + 4 * count as u64)
    }

    /// The place so many bytes further on.
    pub fn bytes(self, count: usize) -> Self {
        Self(self.0 + count as u64)
    }
}

/// Values without padding, of which every bit pattern is one.
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
    /// Asks for the whole sequence.
    pub fn replay(&self) -> Result<(), CudaError> {
        self.graph
            .launch()
            .map_err(|error| driver_error("launching a step's graph", error))
    }
}

/// NVRTC's version.
pub(super) fn compiler_version() -> Result<(i32, i32), CudaError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two numbers; `Device::open` has seen the library.
    unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) }
        .result()
        .map_err(|error| CudaError::Driver {
            doing: "asking for NVRTC's version".into(),
            message: error.to_string(),
        })?;
    Ok((major, minor))
}

/// Compiles a program to a CUBIN; where it cannot be, returns the log.
pub(super) fn compile(source: &str, options: &[String]) -> Result<Vec<u8>, String> {
    let text = CString::new(source).map_err(|error| error.to_string())?;
    let say = |error: nvrtc::result::NvrtcError| error.to_string();
    let program = nvrtc::result::create_program(&text, None).map_err(say)?;
    // SAFETY: the program lives until the end of this function; buffers have the sizes that
    // NVRTC asks for, and each is filled before it is read.
    unsafe {
        let compiled = nvrtc::result::compile_program(program, options);
        let image = match compiled {
            Ok(()) => {
                let mut size = 0;
                nvrtc::sys::nvrtcGetCUBINSize(program, &mut size)
                    .result()
                    .and_then(|()| {
                        let mut image = vec![0u8; size];
                        nvrtc::sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()).result()?;
                        Ok(image)
                    })
                    .map_err(say)
            }
            Err(error) => {
                let log = nvrtc::result::get_program_log(program).unwrap_or_default();
                let log: Vec<u8> = log.into_iter().map(|c| c as u8).collect();
                let log = String::from_utf8_lossy(&log);
                Err(format!("{error}\n{}", log.trim_end_matches('\0')))
            }
        };
        // What cannot be freed is lost, and no reason to fail.
        let _ = nvrtc::result::destroy_program(program);
        image
    }
}

fn driver_error(doing: &str, error: DriverError) -> CudaError {
    let doing = doing.into();
    if is_lost(error.0) {
        let message = message(error);
        return CudaError::Lost { doing, message };
    }
    CudaError::Driver {
        doing,
        message: message(error),
    }
}

/// Errors after which a process can use its device no more, whatever it asks for.
fn is_lost(error: sys::CUresult) -> bool {
    use sys::CUresult::*;
    matches!(
        error,
        CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_ECC_UNCORRECTABLE
    )
}

/// What the driver says.
fn message(error: DriverError) -> String {
    match error.error_string() {
        Ok(text) => format!("{} ({:?})", text.to_string_lossy(), error.0),
        Err(_) => format!("{:?}", error.0),
    }
}
