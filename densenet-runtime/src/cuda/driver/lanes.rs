//! Copies that do not block the host: pinned memory, parallel streams, and events between them.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result, sys};

use super::super::error::CudaError;
use super::{Address, CudaDevice, Plain, driver_error};

/// A stream of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Lane {
    /// All computation.
    Main,
    /// Uploads of batches.
    Uploads,
    /// Averages of gradients over several devices.
    Reductions,
}

/// A point in a lane that others can wait for.
pub(in super::super) struct Event(CudaEvent);

/// Host memory that the device copies from and to by itself. It cannot be touched before the
/// latest copy is done.
pub(in super::super) struct Pinned {
    context: Arc<CudaContext>,
    memory: *mut u8,
    bytes: usize,
    /// The latest copy.
    copied: CudaEvent,
}

// SAFETY: the memory is owned, and plain bytes.
unsafe impl Send for Pinned {}

fn event(context: &Arc<CudaContext>) -> Result<CudaEvent, CudaError> {
    context
        .new_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING))
        .map_err(|error| driver_error("making an event", error))
}

impl Pinned {
    /// Bytes that it has.
    pub fn len(&self) -> usize {
        self.bytes
    }

    fn wait(&self) -> Result<(), CudaError> {
        self.copied
            .synchronize()
            .map_err(|error| driver_error("waiting for a copy", error))
    }

    /// The first values, once the latest copy is done.
    pub fn values<T: Plain>(&mut self, count: usize) -> Result<&mut [T], CudaError> {
        self.wait()?;
        if count * size_of::<T>() > self.bytes {
            return Err(CudaError::Driver {
                doing: "using pinned memory".into(),
                message: format!("it has {} bytes only", self.bytes),
            });
        }
        // SAFETY: the memory is owned and pages are aligned for every `Plain` type; it was filled
        // with zeros, and every bit pattern is a value; no copy is under way, and none can start
        // while the values are borrowed.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.memory.cast::<T>(), count) })
    }

    fn slice(&self, range: &Range<usize>) -> Result<*mut u8, CudaError> {
        if range.start <= range.end && range.end <= self.bytes {
            // SAFETY: the start is within the memory.
            return Ok(unsafe { self.memory.add(range.start) });
        }
        Err(CudaError::Driver {
            doing: "copying from or to pinned memory".into(),
            message: format!("it has {} bytes, not {range:?}", self.bytes),
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // A device that has failed copies nothing more; nobody is left to take the error.
        let _ = self.wait();
        let _ = self.context.bind_to_thread();
        // SAFETY: the memory came from `malloc_host`, and no copy is under way.
        let _ = unsafe { result::free_host(self.memory.cast()) };
    }
}

impl CudaDevice {
    pub(super) fn lane(&self, lane: Lane) -> &Arc<CudaStream> {
        match lane {
            Lane::Main => &self.stream,
            Lane::Uploads => &self.uploads,
            Lane::Reductions => &self.reductions,
        }
    }

    /// Pinned memory, of zeros.
    pub(in super::super) fn pinned(&self, bytes: usize) -> Result<Pinned, CudaError> {
        self.bind()?;
        let bytes = bytes.max(1);
        // SAFETY: it is written before it is read.
        let memory = unsafe { result::malloc_host(bytes, 0) }
            .map_err(|error| driver_error(&format!("pinning {bytes} bytes of memory"), error))?;
        let memory = memory.cast::<u8>();
        // SAFETY: this many bytes were allocated, and nobody else knows of them.
        unsafe { memory.write_bytes(0, bytes) };
        let copied = event(&self.context);
        let copied = copied.inspect_err(|_| {
            // SAFETY: as above.
            let _ = unsafe { result::free_host(memory.cast()) };
        })?;
        Ok(Pinned {
            context: self.context.clone(),
            memory,
            bytes,
            copied,
        })
    }

    /// An event that was not recorded yet: waiting for it returns at once.
    pub(in super::super) fn event(&self) -> Result<Event, CudaError> {
        event(&self.context).map(Event)
    }

    /// Records the event: it is over when the lane has done all its work so far.
    pub(in super::super) fn record(&self, lane: Lane, event: &Event) -> Result<(), CudaError> {
        let recorded = event.0.record(self.lane(lane));
        recorded.map_err(|error| driver_error("recording an event", error))
    }

    /// Later work of the lane waits for the event.
    pub(in super::super) fn hold(&self, lane: Lane, event: &Event) -> Result<(), CudaError> {
        let held = self.lane(lane).wait(&event.0);
        held.map_err(|error| driver_error("waiting for an event", error))
    }

    /// Later work of the lane waits for the latest copy.
    pub(in super::super) fn hold_for_copy(
        &self,
        lane: Lane,
        from: &Pinned,
    ) -> Result<(), CudaError> {
        let held = self.lane(lane).wait(&from.copied);
        held.map_err(|error| driver_error("waiting for a copy", error))
    }

    /// Has a lane copy bytes of pinned memory to the device.
    pub(in super::super) fn copy_in(
        &self,
        lane: Lane,
        from: &mut Pinned,
        range: Range<usize>,
        into: Address,
    ) -> Result<(), CudaError> {
        let memory = from.slice(&range)?;
        let stream = self.lane(lane);
        // SAFETY: the range is in pinned memory, which waits for the copy before it is touched
        // or freed; an `Address` points into an allocation whose owner has checked the length.
        unsafe {
            self.bind()?;
            let bytes = std::slice::from_raw_parts(memory, range.len());
            result::memcpy_htod_async(into.0, bytes, stream.cu_stream())
        }
        .and_then(|()| from.copied.record(stream))
        .map_err(|error| driver_error("copying to the device", error))
    }

    /// Has the main lane copy bytes of the device to a range of pinned memory.
    pub(in super::super) fn copy_out(
        &self,
        from: Address,
        into: &mut Pinned,
        range: Range<usize>,
    ) -> Result<(), CudaError> {
        let memory = into.slice(&range)?;
        // SAFETY: as in `copy_in`.
        unsafe {
            self.bind()?;
            let into = std::slice::from_raw_parts_mut(memory, range.len());
            result::memcpy_dtoh_async(into, from.0, self.stream.cu_stream())
        }
        .and_then(|()| into.copied.record(&self.stream))
        .map_err(|error| driver_error("copying from the device", error))
    }
}
