//! The meaning of the driver's errors.

use cudarc::driver::{DriverError, sys};

use super::super::error::CudaError;

pub(super) fn driver_error(doing: &str, error: DriverError) -> CudaError {
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

/// Errors after which a process can no longer use its device.
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

/// The driver's message.
fn message(error: DriverError) -> String {
    match error.error_string() {
        Ok(text) => format!("{} ({:?})", text.to_string_lossy(), error.0),
        Err(_) => format!("{:?}", error.0),
    }
}
