//! The device that computes: the CPU, or a CUDA device.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "cuda")]
use crate::cuda;
use crate::executor::ExecutorError;
use crate::parallel::Ranks;
use crate::tell;

/// The device that computes.
#[derive(Clone)]
#[non_exhaustive]
pub enum Device {
    /// The processor.
    Cpu,
    /// A CUDA device.
    #[cfg(feature = "cuda")]
    Cuda(cuda::CudaDevice),
}

impl Device {
    /// The CUDA device with this number, counted from 0.
    ///
    /// # Errors
    /// If the driver, NVRTC or the device is missing or too old. The error says what was looked
    /// for and where.
    pub fn cuda(ordinal: usize) -> Result<Self, ExecutorError> {
        #[cfg(feature = "cuda")]
        return Ok(Self::Cuda(cuda::CudaDevice::open(ordinal)?));
        #[cfg(not(feature = "cuda"))]
        return Err(ExecutorError::Device(
            format!("no CUDA device {ordinal}: this program was built without densenet-runtime's `cuda` feature")
                .into(),
        ));
    }

    /// The first CUDA device, or else the CPU; [`BestDevice::reason`] then says why.
    pub fn best() -> BestDevice {
        match Self::cuda(0) {
            Ok(device) => BestDevice {
                device,
                reason: None,
            },
            Err(error) => BestDevice {
                device: Self::Cpu,
                reason: Some(error),
            },
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("CPU"),
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => write!(
                f,
                "{} (cuda:{}, {})",
                device.name(),
                device.ordinal(),
                device.architecture()
            ),
        }
    }
}

/// The best device available. It is displayed as the device and, if that is the CPU, the reason.
pub struct BestDevice {
    /// The device.
    pub device: Device,
    /// Why it is the CPU, if it is.
    pub reason: Option<ExecutorError>,
}

impl fmt::Display for BestDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.device.fmt(f)?;
        match &self.reason {
            None => Ok(()),
            Some(reason) => write!(f, ", since there is no CUDA device to use: {reason}"),
        }
    }
}

/// A device as named on a command line: `cpu`, `cuda`, `cuda:N` or `best`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// The CUDA device with this number; `cuda` is `cuda:0`.
    Cuda(usize),
    /// The first CUDA device, or else the CPU.
    Best,
}

impl DeviceChoice {
    /// The device of a process that trains with others. The first process on a machine gets the
    /// named device, the second the next one, and so on (by `LOCAL_RANK`).
    ///
    /// # Errors
    /// As [`open`](Self::open); and for `best` if there are several, which might be a different
    /// kind of device for each process.
    pub fn open_for(self, ranks: &Ranks) -> Result<Device, ExecutorError> {
        match self {
            Self::Cuda(first) => Device::cuda(first + ranks.local_rank),
            Self::Best if !ranks.is_alone() => Err(ExecutorError::Device(
                "processes that train together need devices of one kind: ask for `cuda` or `cpu` instead of `best`"
                    .into(),
            )),
            choice => choice.open(),
        }
    }

    /// Opens the device. A fallback to the CPU is reported on standard error.
    ///
    /// # Errors
    /// If the CUDA device cannot be used; see [`Device::cuda`].
    pub fn open(self) -> Result<Device, ExecutorError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => Device::cuda(ordinal),
            Self::Best => {
                let best = Device::best();
                if best.reason.is_some() {
                    tell!("device: {best}");
                }
                Ok(best.device)
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
            Self::Best => f.write_str("best"),
        }
    }
}

/// The name of a device could not be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown device `{0}`; use `cpu`, `cuda` (the first CUDA device), `cuda:N` or `best`")]
pub struct UnknownDevice(String);

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        let unknown = || UnknownDevice(text.to_owned());
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "best" => Ok(Self::Best),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                number.parse().map(Self::Cuda).map_err(|_| unknown())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_they_are_read() {
        for (text, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:7", DeviceChoice::Cuda(7)),
            ("best", DeviceChoice::Best),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda:0".parse(), Ok(DeviceChoice::Cuda(0)));
    }

    #[test]
    fn a_device_that_is_none_is_refused_with_those_that_are() {
        for text in ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", ""] {
            let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
            assert!(error.contains("`cuda:N`"), "{error}");
        }
    }
}
