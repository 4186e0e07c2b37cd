//! NCCL: averages over the devices of several processes. Looked for when it is asked for, as the
//! driver is; building needs none of it.

use cudarc::nccl::{result, sys};

use super::super::error::CudaError;
use super::discover::missing;
use super::lanes::Lane;
use super::{Address, Device};

/// What brings the devices of one group together.
pub(in super::super) const ID_BYTES: usize = 128;

/// A device's part in a group.
pub(in super::super) struct Nccl {
    communicator: sys::ncclComm_t,
}

// SAFETY: a communicator may be used by any thread, by one at a time; it is used through the
// executor alone, which its owner borrows mutably.
unsafe impl Send for Nccl {}

fn failed(doing: &str, error: result::NcclError) -> CudaError {
    CudaError::Driver {
        doing: format!("NCCL, {doing}"),
        message: format!("{:?}", error.0),
    }
}

/// That NCCL can be loaded.
fn find() -> Result<(), CudaError> {
    // SAFETY: opens and closes a library by name; its initialiser is NVIDIA's.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(missing(
        "NCCL, which averages over several devices",
        "nccl",
        "it comes with the package libnccl2, or with PyPI's nvidia-nccl-cu12",
    ))
}

impl Nccl {
    /// What a new group is known by; one member makes it and tells the others.
    pub fn id() -> Result<[u8; ID_BYTES], CudaError> {
        find()?;
        let id = result::get_uniqueid().map_err(|error| failed("naming a group", error))?;
        Ok(id.internal.map(|byte| byte as u8))
    }

    /// Joins a group; returns when all members have.
    pub fn join(
        device: &Device,
        id: [u8; ID_BYTES],
        rank: usize,
        size: usize,
    ) -> Result<Self, CudaError> {
        find()?;
        device.bind()?;
        let id = sys::ncclUniqueId {
            internal: id.map(|byte| byte as _),
        };
        let mut communicator = std::ptr::null_mut();
        // SAFETY: writes a pointer, which is kept until it is destroyed; the device is current.
        unsafe { result::comm_init_rank(&mut communicator, size as i32, id, rank as i32) }
            .map_err(|error| failed("joining a group", error))?;
        Ok(Self { communicator })
    }

    /// Has the lane for reductions replace f32 by their averages over the group.
    pub fn average(&self, device: &Device, at: Address, count: usize) -> Result<(), CudaError> {
        device.bind()?;
        let place = at.0 as *mut std::ffi::c_void;
        let stream = device.lane(Lane::Reductions).cu_stream();
        // SAFETY: an `Address` lies in an allocation whose owner has checked the count; the lane
        // is held until the values are there, and the main lane until they are averaged.
        unsafe {
            result::all_reduce(
                place.cast_const(),
                place,
                count,
                sys::ncclDataType_t::ncclFloat32,
                sys::ncclRedOp_t::ncclAvg,
                self.communicator,
                stream.cast(),
            )
        }
        .map(|_| ())
        .map_err(|error| failed("averaging gradients", error))
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // SAFETY: it was made by `comm_init_rank`. What cannot be destroyed is lost.
        let _ = unsafe { result::comm_destroy(self.communicator) };
    }
}
