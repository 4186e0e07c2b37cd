//! NCCL: averages over the devices of several processes. Like the driver, it is loaded when it is
//! needed; building does not need it. Its types are cudarc's; its functions are looked up here,
//! since cudarc does not try the name that NCCL is installed under, `libnccl.so.2`.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::CudaContext;
use cudarc::nccl::sys;
use libloading::Library;

use super::super::error::CudaError;
use super::discover::missing;
use super::lanes::Lane;
use super::{Address, CudaDevice};

/// The id of a group of devices.
pub(in super::super) const ID_BYTES: usize = 128;

const NAMES: [&str; 2] = ["libnccl.so", "libnccl.so.2"];

/// The functions that are used, with the types of `nccl.h`. Results are numbers here, since later
/// versions have more of them than cudarc's type.
struct Functions {
    get_unique_id: unsafe extern "C" fn(*mut sys::ncclUniqueId) -> c_int,
    comm_init_rank:
        unsafe extern "C" fn(*mut sys::ncclComm_t, c_int, sys::ncclUniqueId, c_int) -> c_int,
    comm_destroy: unsafe extern "C" fn(sys::ncclComm_t) -> c_int,
    comm_abort: unsafe extern "C" fn(sys::ncclComm_t) -> c_int,
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
    /// Open as long as the functions are used.
    _library: Library,
}

impl Functions {
    /// The functions of the first library that opens; it is opened once.
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
                "it comes with the package libnccl2, or with PyPI's nvidia-nccl-cu12 or -cu13, \
                    whose folder `lib` must be in LD_LIBRARY_PATH",
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
                comm_abort: *library.get("ncclCommAbort")?,
                all_reduce: *library.get("ncclAllReduce")?,
                get_error_string: *library.get("ncclGetErrorString")?,
                _library: library,
            })
        }
    }

    /// NCCL's error of a call.
    fn check(&self, doing: &str, result: c_int) -> Result<(), CudaError> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: returns a string that is never freed, or null.
        let text = unsafe { (self.get_error_string)(result) };
        let text = if text.is_null() {
            "an error without a name".into()
        } else {
            // SAFETY: as above; it ends with a zero.
            unsafe { CStr::from_ptr(text) }.to_string_lossy()
        };
        Err(CudaError::Driver {
            doing: format!("NCCL, {doing}"),
            message: format!("{text} ({result}; NCCL_DEBUG=WARN prints more)"),
        })
    }
}

/// A device's part in a group.
pub(in super::super) struct Nccl(Arc<Communicator>);

struct Communicator {
    functions: &'static Functions,
    context: Arc<CudaContext>,
    /// `None` once it was aborted.
    handle: Mutex<Option<Handle>>,
}

struct Handle(sys::ncclComm_t);

// SAFETY: a communicator may be used by any thread, but by one at a time; a lock ensures that.
unsafe impl Send for Handle {}

impl Nccl {
    /// Looks for NCCL.
    ///
    /// # Errors
    /// If it is missing; the error says where it was looked for.
    pub fn find() -> Result<(), CudaError> {
        Functions::find().map(|_| ())
    }

    /// The id of a new group; one member makes it and sends it to the others.
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
        device: &CudaDevice,
        id: [u8; ID_BYTES],
        rank: usize,
        world_size: usize,
    ) -> Result<Self, CudaError> {
        let functions = Functions::find()?;
        device.bind()?;
        let id = sys::ncclUniqueId {
            internal: id.map(|byte| byte as _),
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes a pointer, which is kept until it is destroyed; the device is current.
        functions.check("joining a group", unsafe {
            (functions.comm_init_rank)(&mut handle, world_size as c_int, id, rank as c_int)
        })?;
        Ok(Self(Arc::new(Communicator {
            functions,
            context: device.context.clone(),
            handle: Mutex::new(Some(Handle(handle))),
        })))
    }

    /// Has the lane for reductions replace f32 by their averages over the group.
    pub fn average(&self, device: &CudaDevice, at: Address, count: usize) -> Result<(), CudaError> {
        device.bind()?;
        let place = at.0 as *mut c_void;
        let stream = device.lane(Lane::Reductions).cu_stream();
        let handle = self.0.handle();
        let Some(Handle(handle)) = *handle else {
            return Err(CudaError::Driver {
                doing: "NCCL, averaging gradients".into(),
                message: "another rank was lost".into(),
            });
        };
        // SAFETY: an `Address` points into an allocation whose owner has checked the count; the lane
        // is held until the values are there, and the main lane until they are averaged.
        self.0.functions.check("averaging gradients", unsafe {
            (self.0.functions.all_reduce)(
                place.cast_const(),
                place,
                count,
                sys::ncclDataType_t::ncclFloat32,
                sys::ncclRedOp_t::ncclAvg,
                handle,
                stream.cast(),
            )
        })
    }

    /// Whether averages were aborted, since another member was lost.
    pub fn is_aborted(&self) -> bool {
        self.0.handle().is_none()
    }

    /// A function that aborts the averages in progress and all later ones. It is called when
    /// another member was lost, since the device would wait for it forever.
    pub fn abort(&self) -> impl FnOnce() + Send + 'static {
        let own = Arc::downgrade(&self.0);
        move || {
            if let Some(own) = own.upgrade() {
                own.end(own.functions.comm_abort);
            }
        }
    }
}

impl Communicator {
    fn handle(&self) -> MutexGuard<'_, Option<Handle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, how: unsafe extern "C" fn(sys::ncclComm_t) -> c_int) {
        // Without the lock: NCCL returns from here when the graphs that average are dropped, and
        // their owner may be about to average.
        let taken = self.handle().take();
        if let Some(Handle(handle)) = taken {
            let _ = self.context.bind_to_thread();
            // SAFETY: it was made by `comm_init_rank`, and whoever ends it first takes it. A
            // communicator that cannot be ended is lost.
            let _ = unsafe { how(handle) };
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.end(self.functions.comm_destroy);
    }
}
