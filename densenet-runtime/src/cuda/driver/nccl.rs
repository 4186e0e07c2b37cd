//! NCCL: averages over the devices of several processes. Looked for when it is asked for, as the
//! driver is; building needs none of it. Its types are cudarc's; its functions are looked up here,
//! since cudarc does not try the name that NCCL is installed under, `libnccl.so.2`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};

use cudarc::driver::CudaContext;
use cudarc::nccl::sys;
use libloading::Library;

use super::super::error::CudaError;
use super::super::target::Target;
use super::discover::missing;
use super::lanes::Lane;
use super::{Address, Device};

/// What brings the devices of one group together.
pub(in super::super) const ID_BYTES: usize = 128;

const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// What is used of the library, with the types of `nccl.h`; results are numbers here, since later
/// versions have more of them than cudarc's type.
struct Functions {
    get_unique_id: unsafe extern "C" fn(*mut sys::ncclUniqueId) -> c_int,
    comm_init_rank:
        unsafe extern "C" fn(*mut sys::ncclComm_t, c_int, sys::ncclUniqueId, c_int) -> c_int,
    comm_destroy: unsafe extern "C" fn(sys::ncclComm_t) -> c_int,
    all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        sys::ncclDataType_t,
        sys::ncclRedOp_t,
        sys::ncclComm_t,
        sys::cudaStream_t,
    ) -> c_int,
    get_error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    /// Open as long as the functions are there.
    _library: Library,
}

impl Functions {
    /// Those of the first library that opens; opened once.
    fn find() -> Result<&'static Self, CudaError> {
        static FOUND: OnceLock<Functions> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found);
        }
        // SAFETY: opens a library by name; its initialiser is NVIDIA's.
        let opened = NAMES.map(|name| unsafe { Library::new(name) });
        let Some(library) = opened.into_iter().find_map(Result::ok) else {
            return Err(missing(
                "NCCL, which averages over several devices",
                &NAMES.map(String::from),
                "it comes with the package libnccl2, or with PyPI's nvidia-nccl-cu12",
            ));
        };
        let found = Self::of(library).map_err(|error| CudaError::Driver {
            doing: "looking up NCCL's functions".into(),
            message: error.to_string(),
        })?;
        Ok(FOUND.get_or_init(|| found))
    }

    fn of(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: the types are those of `nccl.h`, the same since NCCL 2.0; the functions are kept
        // with the library.
        unsafe {
            Ok(Self {
                get_unique_id: *library.get("ncclGetUniqueId")?,
                comm_init_rank: *library.get("ncclCommInitRank")?,
                comm_destroy: *library.get("ncclCommDestroy")?,
                all_reduce: *library.get("ncclAllReduce")?,
                get_error_string: *library.get("ncclGetErrorString")?,
                _library: library,
            })
        }
    }

    /// What NCCL says of a call.
    fn check(&self, doing: &str, result: c_int) -> Result<(), CudaError> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: returns a string that is never freed, or null.
        let text = unsafe { (self.get_error_string)(result).as_ref() };
        // SAFETY: as above; it ends with a zero.
        let text = text.map(|text| unsafe { CStr::from_ptr(text) }.to_string_lossy());
        Err(CudaError::Driver {
            doing: format!("NCCL, {doing}"),
            message: format!(
                "{} ({result}; NCCL_DEBUG=WARN has it say more)",
                text.unwrap_or_default()
            ),
        })
    }
}

/// A device's part in a group.
pub(in super::super) struct Nccl {
    functions: &'static Functions,
    context: Arc<CudaContext>,
    communicator: sys::ncclComm_t,
}

// SAFETY: a communicator may be used by any thread, by one at a time; it is used through the
// executor alone, which its owner borrows mutably.
unsafe impl Send for Nccl {}

impl Nccl {
    /// What a new group is known by; one member makes it and tells the others.
    pub fn id() -> Result<[u8; ID_BYTES], CudaError> {
        let functions = Functions::find()?;
        let mut id = sys::ncclUniqueId {
            internal: [0; ID_BYTES],
        };
        // SAFETY: writes an id.
        functions.check("naming a group", unsafe {
            (functions.get_unique_id)(&mut id)
        })?;
        Ok(id.internal.map(|byte| byte as u8))
    }

    /// Joins a group; returns when all members have.
    pub fn join(
        device: &Device,
        id: [u8; ID_BYTES],
        rank: usize,
        size: usize,
    ) -> Result<Self, CudaError> {
        let functions = Functions::find()?;
        device.bind()?;
        let id = sys::ncclUniqueId {
            internal: id.map(|byte| byte as _),
        };
        let mut communicator = std::ptr::null_mut();
        // SAFETY: writes a pointer, which is kept until it is destroyed; the device is current.
        functions.check("joining a group", unsafe {
            (functions.comm_init_rank)(&mut communicator, size as c_int, id, rank as c_int)
        })?;
        let joined = Self {
            functions,
            context: device.context.clone(),
            communicator,
        };
        // NCCL connects the devices when they first reduce, which does not belong into a graph.
        let memory = device.allocate(size_of::<f32>())?;
        let (cleared, averaged) = (device.event()?, device.event()?);
        device.clear(memory.address(), size_of::<f32>())?;
        device.record(Lane::Main, &cleared)?;
        device.hold(Lane::Reductions, &cleared)?;
        joined.average(device, memory.address(), 1)?;
        device.record(Lane::Reductions, &averaged)?;
        device.hold(Lane::Main, &averaged)?;
        device.wait("averaging with other devices for the first time")?;
        Ok(joined)
    }

    /// Has the lane for reductions replace f32 by their averages over the group.
    pub fn average(&self, device: &Device, at: Address, count: usize) -> Result<(), CudaError> {
        device.bind()?;
        let place = at.0 as *mut c_void;
        let stream = device.lane(Lane::Reductions).cu_stream();
        // SAFETY: an `Address` lies in an allocation whose owner has checked the count; the lane
        // is held until the values are there, and the main lane until they are averaged.
        self.functions.check("averaging gradients", unsafe {
            (self.functions.all_reduce)(
                place.cast_const(),
                place,
                count,
                sys::ncclDataType_t::ncclFloat32,
                sys::ncclRedOp_t::ncclAvg,
                self.communicator,
                stream.cast(),
            )
        })
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        let _ = self.context.bind_to_thread();
        // SAFETY: it was made by `comm_init_rank`. What cannot be destroyed is lost.
        let _ = unsafe { (self.functions.comm_destroy)(self.communicator) };
    }
}
