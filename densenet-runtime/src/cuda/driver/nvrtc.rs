//! Programs in CUDA C++, and NVRTC, which compiles them.

use std::ffi::CString;

use cudarc::nvrtc;

use super::super::error::CudaError;

/// A program in CUDA C++: one family of kernels with its constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The purpose of the kernels.
    pub family: &'static str,
    /// The text.
    pub text: String,
    /// Constants: name, value.
    pub constants: Vec<(&'static str, usize)>,
}

impl Source {
    /// Its constants, as options.
    pub fn definitions(&self) -> impl Iterator<Item = String> {
        let constants = self.constants.iter();
        constants.map(|(name, value)| format!("-D{name}={value}"))
    }

    /// NVRTC's options.
    pub fn options(&self, architecture: &str) -> Vec<String> {
        let mut options = vec![
            format!("--gpu-architecture={architecture}"),
            "--std=c++17".to_string(),
            // NVRTC up to 13.0 takes a generic lambda in a kernel for a function of the host.
            "--device-as-default-execution-space".to_string(),
        ];
        options.extend(self.definitions());
        options
    }
}

/// NVRTC's version.
pub fn compiler_version() -> Result<(i32, i32), CudaError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two numbers; `CudaDevice::open` has seen the library.
    unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) }
        .result()
        .map_err(|error| CudaError::Driver {
            doing: "asking for NVRTC's version".into(),
            message: error.to_string(),
        })?;
    Ok((major, minor))
}

/// Compiles a program to a CUBIN; if that fails, returns the log.
pub fn compile(source: &str, options: &[String]) -> Result<Vec<u8>, String> {
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
        // A program that cannot be freed leaks, which is no reason to fail.
        let _ = nvrtc::result::destroy_program(program);
        image
    }
}
