//! Launches of kernels.
//!
//! A kernel that begins with `follow()` (`common.cuh`) may be started before the kernel before it
//! has ended: it waits there, so that what it costs to start overlaps with the end of the other.

use std::ffi::{c_uint, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use cudarc::driver::sys;

use super::super::error::CudaError;
use super::{CudaDevice, Launch, Value, driver_error};

impl CudaDevice {
    /// Launches a kernel; does nothing if the grid is empty.
    pub(in super::super) fn launch(&self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let name = launch.kernel.name;
        let doing = || format!("launching kernel {name}");
        let Some(function) = &launch.kernel.function else {
            return Err(CudaError::Driver {
                doing: doing(),
                message: "it was never compiled".into(),
            });
        };
        if launch.grid.contains(&0) {
            return Ok(());
        }
        self.bind()?;
        let mut arguments: Vec<*mut c_void> = launch.values.iter().map(pointer).collect();
        let mut attributes = [overlapping()];
        let overlaps = self.overlaps && launch.kernel.follows;
        let [x, y, z] = launch.grid.map(|size| size as c_uint);
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: launch.threads as c_uint,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.kernel.shared as c_uint,
            hStream: self.stream.cu_stream(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: c_uint::from(overlaps),
        };
        // SAFETY: `Kernel::launch` alone makes a `Launch`, and the names, order and kinds of its
        // values were checked against the kernel's parameters when the kernel was found; the
        // addresses point into the executor's buffers, whose sizes follow from the same plan as the
        // kernel's bounds. Values and attributes outlive the call, which copies them. A kernel that
        // may overlap touches nothing before it has waited (`Entry::follows`).
        let launched = unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                function.cu_function(),
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        launched
            .result()
            .map_err(|error| driver_error(&doing(), error))
    }
}

/// Where a value is. CUDA reads as many bytes as the kernel's parameter has, and writes none.
fn pointer(value: &Value) -> *mut c_void {
    match value {
        Value::At(address) => ptr::from_ref(&address.0).cast_mut().cast(),
        Value::Int(value) => ptr::from_ref(value).cast_mut().cast(),
    }
}

/// The attribute of a launch that may overlap with the end of the kernel before.
fn overlapping() -> sys::CUlaunchAttribute {
    let mut attribute = MaybeUninit::<sys::CUlaunchAttribute>::zeroed();
    // SAFETY: CUDA defines all zeros as an attribute to be ignored; the fields that are written
    // belong to one another.
    unsafe {
        let it = attribute.as_mut_ptr();
        (*it).id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        (*it).value.programmaticStreamSerializationAllowed = 1;
        attribute.assume_init()
    }
}
