//! Compiled kernels, and their cache on disk.
//!
//! An entry's name is a hash of everything that its content depends on: source, options,
//! architecture, NVRTC's version, the emulator or a card.

use std::path::{Path, PathBuf};
use std::{env, fs, io::Write};

use super::driver::{Device, compile, compiler_version};
use super::error::CudaError;

/// Where compiled kernels are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// In the user's cache folder: `$XDG_CACHE_HOME/densenet`, or `~/.cache/densenet`.
    #[default]
    User,
    /// In this folder.
    Folder(PathBuf),
    /// Nowhere.
    None,
}

impl Cache {
    fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::None => None,
            Self::Folder(path) => Some(path.clone()),
            Self::User => {
                let set = |name| env::var_os(name).filter(|value| !value.is_empty());
                let base = set("XDG_CACHE_HOME").map(PathBuf::from);
                let base = base.or_else(|| Some(Path::new(&set("HOME")?).join(".cache")));
                base.map(|base| base.join("densenet"))
            }
        }
    }
}

/// A program in CUDA C++: one family of kernels with its constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// What the kernels are for.
    pub family: &'static str,
    /// The text.
    pub text: String,
    /// Constants: name, value.
    pub constants: Vec<(&'static str, usize)>,
}

/// Compiles a program for a device, or takes it from the cache. A cache that cannot be used is
/// an error, since silence would cost every start the time to compile.
pub(super) fn image(device: &Device, source: &Source, cache: &Cache) -> Result<Vec<u8>, CudaError> {
    let architecture = device.architecture();
    let mut options = vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_string(),
    ];
    let constants = source.constants.iter();
    options.extend(constants.map(|(name, value)| format!("-D{name}={value}")));
    let fresh = || {
        compile(&source.text, &options).map_err(|log| CudaError::Compile {
            family: source.family,
            architecture: architecture.clone(),
            log,
        })
    };
    let Some(folder) = cache.folder() else {
        return fresh();
    };
    let version = compiler_version()?;
    let key = format!(
        "{:?}|{version:?}|{}|{}",
        options,
        device.name(),
        source.text
    );
    let path = folder.join(format!(
        "{}-{:032x}.cubin",
        source.family,
        hash(key.as_bytes())
    ));
    if let Ok(image) = fs::read(&path) {
        return Ok(image);
    }
    let image = fresh()?;
    let failed = |error| CudaError::Cache {
        path: folder.clone(),
        error,
    };
    fs::create_dir_all(&folder).map_err(failed)?;
    // An entry appears whole or not at all.
    let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
    file.write_all(&image).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(image)
}

/// FNV-1a in 128 bits.
fn hash(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, &byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}
