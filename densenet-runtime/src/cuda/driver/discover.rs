//! Finding the driver, NVRTC and a device, each before the first call that needs it: cudarc
//! panics where a library, or a symbol of an old one, is missing.

use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, sys};
use cudarc::nvrtc;

use super::super::error::CudaError;
use super::{compiler_version, driver_error};

/// The oldest supported driver, as `cuDriverGetVersion` counts: it runs CUBINs of NVRTC 12.
const OLDEST_DRIVER: i32 = 12_000;
/// The oldest compute capability: bf16 `mma`.
const OLDEST_CAPABILITY: (i32, i32) = (8, 0);

/// A device that can run the kernels.
pub(super) struct Discovered {
    pub context: Arc<CudaContext>,
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
}

/// Finds the device with this number.
pub(super) fn device(ordinal: usize) -> Result<Discovered, CudaError> {
    let driver = driver_version()?;
    let count = count()?;
    if ordinal >= count {
        return Err(CudaError::NoDevice { ordinal, count });
    }
    find_compiler()?;
    let compiler = compiler_version()?;
    if compiler.0 > driver / 1000 {
        return Err(CudaError::OldDriver {
            found: version(driver),
            needed: format!("{}.0", compiler.0),
            by: format!("the kernels of NVRTC {}.{}", compiler.0, compiler.1),
        });
    }
    let doing = |what: &'static str| move |error| driver_error(what, error);
    let context = CudaContext::new(ordinal).map_err(doing("opening the CUDA device"))?;
    let name = context
        .name()
        .map_err(doing("asking for the device's name"))?;
    let capability = context
        .compute_capability()
        .map_err(doing("asking for the device's capability"))?;
    if capability < OLDEST_CAPABILITY {
        let found = format!("{}.{}", capability.0, capability.1);
        return Err(CudaError::TooOld { name, found });
    }
    Ok(Discovered {
        context,
        name,
        capability,
    })
}

fn driver_version() -> Result<i32, CudaError> {
    // SAFETY: opens and closes a library by name; its initialiser is NVIDIA's.
    if !unsafe { sys::is_culib_present() } {
        return Err(missing(
            "CUDA driver",
            &names(&["cuda", "nvcuda"]),
            "it comes with NVIDIA's display driver",
        ));
    }
    let mut found = 0;
    // SAFETY: writes a number; may be called before the driver is initialised.
    unsafe { sys::cuDriverGetVersion(&mut found) }
        .result()
        .map_err(|error| driver_error("asking for the driver's version", error))?;
    if found < OLDEST_DRIVER {
        return Err(CudaError::OldDriver {
            found: version(found),
            needed: version(OLDEST_DRIVER),
            by: "the kernels".into(),
        });
    }
    Ok(found)
}

fn find_compiler() -> Result<(), CudaError> {
    // SAFETY: as in `driver_version`.
    if unsafe { nvrtc::sys::is_culib_present() } {
        return Ok(());
    }
    Err(missing(
        "NVRTC, CUDA's run-time compiler",
        &names(&["nvrtc"]),
        "it comes with the CUDA toolkit 12 or 13, or with PyPI's nvidia-cuda-nvrtc-cu12 or \
            nvidia-cuda-nvrtc, whose folder `lib` must be in LD_LIBRARY_PATH",
    ))
}

/// Devices that the driver sees.
fn count() -> Result<usize, CudaError> {
    match CudaContext::device_count() {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        Err(error) => Err(driver_error("looking for CUDA devices", error)),
    }
}

fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// The names that cudarc tries.
fn names(of: &[&str]) -> Vec<String> {
    let names = of.iter().map(|own| cudarc::get_lib_name_candidates(own));
    names.flatten().collect()
}

pub(super) fn missing(what: &'static str, names: &[String], remedy: &'static str) -> CudaError {
    let path = match std::env::var("LD_LIBRARY_PATH") {
        Ok(path) if !path.is_empty() => format!("LD_LIBRARY_PATH ({path})"),
        _ => "LD_LIBRARY_PATH (not set)".into(),
    };
    // Installations have the first name, or one with a version appended.
    let first = names.first().map_or("", String::as_str);
    let usual: Vec<_> = names
        .iter()
        .filter(|name| name.starts_with(first))
        .collect();
    let mut listed = usual
        .iter()
        .map(|name| name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    let others = names.len() - usual.len();
    if others > 0 {
        listed += &format!(" and {others} other names");
    }
    CudaError::Missing {
        what,
        looked_for: format!("{listed} in {path} and the system's folders"),
        remedy,
    }
}
