//! Compiled kernels, and their cache on disk.
//!
//! An entry's name is a hash of everything that its content depends on: source, options,
//! architecture, NVRTC's version, the emulator or a card.

use std::path::{Path, PathBuf};
use std::{env, fs, io::ErrorKind};

use super::super::driver::{CudaDevice, Source, compile, compiler_version};
use super::super::error::CudaError;
use crate::files;

/// Where compiled kernels are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// The user's cache folder: `$XDG_CACHE_HOME/densenet`, or `~/.cache/densenet`. If the user has
    /// neither, nothing is cached.
    #[default]
    User,
    /// This folder.
    Folder(PathBuf),
    /// No cache.
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

/// Compiles a program for a device, or takes it from the cache. A damaged entry is compiled again.
/// A cache that cannot be written is an error; without one, every start would silently spend the
/// time to compile.
pub(super) fn image(
    device: &CudaDevice,
    source: &Source,
    cache: &Cache,
) -> Result<Vec<u8>, CudaError> {
    let architecture = device.architecture();
    let options = source.options(&architecture);
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
    let key = key(&source.text, &options, compiler_version()?, device.name());
    let path = folder.join(format!("{}-{key:032x}.cubin", source.family));
    if let Some(image) = fs::read(&path).ok().and_then(whole) {
        return Ok(image);
    }
    let image = fresh()?;
    let failed = |error| CudaError::Cache {
        path: folder.clone(),
        error,
    };
    fs::create_dir_all(&folder).map_err(failed)?;
    let mut entry = image.clone();
    entry.extend(crc32fast::hash(&image).to_le_bytes());
    match files::replace(&path, &entry) {
        Ok(()) => Ok(image),
        // Another process may write the same entry.
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(image),
        Err(error) => Err(failed(error)),
    }
}

/// The name of an image, from everything that it depends on: the source, NVRTC's options (with the
/// architecture and the constants), NVRTC's version, and the card, which may be emulated.
fn key(text: &str, options: &[String], version: (i32, i32), card: &str) -> u128 {
    hash(format!("{options:?}|{version:?}|{card:?}|{text}").as_bytes())
}

/// The image of an entry, if it is intact: its checksum follows it.
fn whole(mut entry: Vec<u8>) -> Option<Vec<u8>> {
    let image = entry.len().checked_sub(4)?;
    let expected = crc32fast::hash(&entry[..image]).to_le_bytes();
    (entry[image..] == expected).then(|| {
        entry.truncate(image);
        entry
    })
}

/// FNV-1a in 128 bits.
fn hash(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, &byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_changes_with_all_that_an_image_depends_on() {
        let source = Source {
            family: "x",
            text: "text".into(),
            constants: vec![("MAPS", 32)],
        };
        let options = source.options("sm_90");
        let keys = [
            key("text", &options, (12, 8), "H100"),
            key("text ", &options, (12, 8), "H100"),
            key("text", &source.options("sm_80"), (12, 8), "H100"),
            key("text", &options[..2], (12, 8), "H100"),
            key("text", &options, (12, 9), "H100"),
            key("text", &options, (13, 8), "H100"),
            key("text", &options, (12, 8), "H200"),
        ];
        for (number, one) in keys.iter().enumerate() {
            assert!(!keys[..number].contains(one), "key {number}");
        }
        assert_eq!(
            keys[0],
            key("text", &source.options("sm_90"), (12, 8), "H100")
        );
    }

    #[test]
    fn an_entry_that_is_not_as_it_was_written_is_none() {
        let mut entry = b"image".to_vec();
        entry.extend(crc32fast::hash(b"image").to_le_bytes());
        assert_eq!(whole(entry.clone()).as_deref(), Some(&b"image"[..]));
        for length in 0..entry.len() {
            assert_eq!(whole(entry[..length].to_vec()), None);
        }
        entry[2] ^= 1;
        assert_eq!(whole(entry), None);
    }
}
