//! Runs CUDA code on machines without a GPU: an emulated `libcuda`, `libnvrtc` and `libnccl`.
//!
//! The code under test is unmodified: [`Emulator::load`] compiles the libraries (`cpp/`) with the
//! host's C++ compiler and opens them, so code that then looks for `libcuda.so` by name finds ours.
//! Kernels are compiled by the host's compiler as well. A thread of a block is a fiber.
//!
//! It is strict, because its purpose is to find mistakes:
//! - memory starts as NaN, device memory and shared memory of each block alike;
//! - an access beyond an allocation, at or beyond the next multiple of 16 bytes, ends the process,
//!   with the kernel's name and thread (so allocate the buffers of a test apart); so does one
//!   beyond a shared or local array. Up to there, and before an allocation back to the start of its
//!   page, reads give NaN, and writes end the process after the launch;
//! - memory comes from a pool, as on a card: it is allocated, and freed, when its stream comes to
//!   it. A use before or after that, for example by another stream that has not waited, ends the
//!   process, under some seeds if not under all;
//! - a barrier or warp collective that not all threads reach at one line ends the process;
//! - blocks, warps and lanes run in an order drawn from a seed, and streams run late, in such an
//!   order, so that work that barriers and events do not order goes wrong.
//!
//! A captured graph has the streams that were joined to it as parallel branches, and
//! [NCCL](Emulator::load_with_nccl) averages over threads of this process.
//!
//! It cannot show memory ordering within a warp, occupancy, tensor-core rounding, speed, or
//! alignment, except where a kernel states what it expects.

use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::{env, fs, io};

use libloading::Library;

/// The sources: name, text.
const SOURCES: [(&str, &str); 7] = [
    ("driver.cpp", include_str!("../cpp/driver.cpp")),
    ("compiler.cpp", include_str!("../cpp/compiler.cpp")),
    ("nccl.cpp", include_str!("../cpp/nccl.cpp")),
    ("memory.hpp", include_str!("../cpp/memory.hpp")),
    ("tensor.hpp", include_str!("../cpp/tensor.hpp")),
    ("fibers.hpp", include_str!("../cpp/fibers.hpp")),
    ("shim.hpp", include_str!("../cpp/shim.hpp")),
];

/// Runs one test of a program at a time while the guard lives: tests share the device, and some set
/// its memory or break it.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The variable that names the project's folder to tests that run where they were not built
/// (`scripts/cuda/kit`).
const ROOT: &str = "DENSENET_ROOT";

/// The project's folder, where tests find the files that they read: the one that `DENSENET_ROOT`
/// names, or else the one that they were built in.
pub fn root() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    env::var_os(ROOT).map_or_else(built, PathBuf::from)
}

/// Cargo's folder for the files of tests, `target/tmp`: that of [`root`] if the environment names
/// one, or else from the path of the test's program. (Cargo sets its name for integration tests
/// only.)
///
/// # Panics
/// If the program has no path.
pub fn folder() -> PathBuf {
    if env::var_os(ROOT).is_some() {
        return root().join("target/tmp");
    }
    let program = env::current_exe().unwrap();
    let target = program.ancestors().nth(3);
    target.expect("target/PROFILE/deps/TEST").join("tmp")
}

/// Why there is no emulator.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// A file could not be written or read.
    #[error("{path}: {error}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no C++ compiler.
    #[error(
        "there is no C++ compiler `{0}`, and the emulated CUDA device is C++ that is compiled when a test needs it; install GCC or Clang (on Debian `apt-get install g++`, on macOS `xcode-select --install`), or name a compiler in CXX"
    )]
    NoCompiler(String),
    /// The host's C++ compiler does not run, or refuses the emulator.
    #[error("`{command}` failed: {message}; the emulator needs GCC or Clang (set CXX to choose)")]
    Compiler {
        /// The command.
        command: String,
        /// What it says.
        message: String,
    },
    /// A library cannot be opened.
    #[error("cannot open an emulated library: {0}")]
    Open(#[from] libloading::Error),
}

/// The number of different bytes of the device's memory that a launch touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The kernel, or `memset`.
    pub kernel: String,
    /// Bytes that it read.
    pub read: u64,
    /// Bytes that it wrote.
    pub written: u64,
}

/// What the driver can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory of the device.
    Allocation,
    /// A copy from the host.
    CopyIn,
    /// A copy to the host.
    CopyOut,
    /// A copy from one place of the device to another.
    CopyOver,
    /// Bytes set to a value.
    Clear,
    /// A kernel, at once or as a part of a graph.
    Launch,
    /// The beginning of a capture.
    Capture,
    /// A whole graph.
    Replay,
    /// An event recorded in a stream.
    Record,
    /// A stream that must wait for an event.
    Wait,
    /// NCCL's average over ranks.
    Average,
}

/// A call that the driver was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What for.
    pub kind: Kind,
    /// The kernel that is launched; else empty.
    pub kernel: String,
    /// Bytes that are allocated, copied or cleared.
    pub bytes: u64,
    /// The blocks of a launch.
    pub blocks: u64,
    /// The number of the stream.
    pub stream: u64,
    /// The number of the host's thread.
    pub thread: u64,
    /// Whether it was captured into a graph instead of executed.
    pub captured: bool,
    /// Whether the host's side of a copy is pinned memory.
    pub pinned: bool,
}

/// The same, as driver.cpp has it.
#[repr(C)]
struct Noted {
    kind: c_int,
    kernel: *const c_char,
    bytes: u64,
    blocks: u64,
    stream: u64,
    thread: u64,
    captured: bool,
    pinned: bool,
}

impl Noted {
    /// # Safety
    /// The kernel is null or a string.
    unsafe fn read(&self) -> Call {
        // In the order of driver.cpp.
        const KINDS: [Kind; 11] = [
            Kind::Allocation,
            Kind::CopyIn,
            Kind::CopyOut,
            Kind::CopyOver,
            Kind::Clear,
            Kind::Launch,
            Kind::Capture,
            Kind::Replay,
            Kind::Record,
            Kind::Wait,
            Kind::Average,
        ];
        let kernel = if self.kernel.is_null() {
            String::new()
        } else {
            // SAFETY: the caller says so.
            let kernel = unsafe { CStr::from_ptr(self.kernel) };
            kernel.to_string_lossy().into_owned()
        };
        Call {
            kind: KINDS[self.kind as usize],
            kernel,
            bytes: self.bytes,
            blocks: self.blocks,
            stream: self.stream,
            thread: self.thread,
            captured: self.captured,
            pinned: self.pinned,
        }
    }
}

/// The emulated driver of this process: one device, named "emulated device", of capability 8.0,
/// unless it was given another.
pub struct Emulator {
    /// None on a card.
    driver: Option<Library>,
    /// Both are kept open, so that they are found by their names.
    compiler: Option<Library>,
    _nccl: Option<Library>,
}

/// The libraries of a machine besides the driver.
#[derive(Clone, Copy)]
struct Has {
    compiler: bool,
    nccl: bool,
}

impl Emulator {
    /// The emulator of this process, or, where the environment has `CUDA_ON_CARD`, none: the code
    /// under test then finds the machine's own driver, and what tests set has no effect. Builds it
    /// into `folder` if it is not there, and opens it.
    ///
    /// Call it before anything looks for CUDA.
    ///
    /// # Panics
    /// If it cannot be built, saying why: without it there is nothing to test.
    pub fn load(folder: impl AsRef<Path>) -> &'static Self {
        let has = Has {
            compiler: true,
            nccl: false,
        };
        Self::once(folder.as_ref(), has)
    }

    /// With NCCL, too, which averages over ranks that are threads of this process.
    ///
    /// # Panics
    /// As [`load`](Self::load).
    pub fn load_with_nccl(folder: impl AsRef<Path>) -> &'static Self {
        let has = Has {
            compiler: true,
            nccl: true,
        };
        Self::once(folder.as_ref(), has)
    }

    /// The driver alone: a machine without NVRTC.
    ///
    /// # Panics
    /// As [`load`](Self::load).
    pub fn load_without_compiler(folder: impl AsRef<Path>) -> &'static Self {
        let has = Has {
            compiler: false,
            nccl: false,
        };
        Self::once(folder.as_ref(), has)
    }

    fn once(folder: &Path, has: Has) -> &'static Self {
        static EMULATOR: OnceLock<Emulator> = OnceLock::new();
        EMULATOR.get_or_init(|| {
            let opened = Self::open(folder, has);
            opened.unwrap_or_else(|error| panic!("{error}"))
        })
    }

    fn open(folder: &Path, has: Has) -> Result<Self, EmulatorError> {
        if env::var_os("CUDA_ON_CARD").is_some() {
            return Ok(Self {
                driver: None,
                compiler: None,
                _nccl: None,
            });
        }
        let folder = build(folder)?;
        // SAFETY: the libraries are ours; opening them runs nothing.
        let library = |name: &str| unsafe { Library::new(folder.join(name)) };
        Ok(Self {
            driver: Some(library("libcuda.so")?),
            compiler: has.compiler.then(|| library("libnvrtc.so")).transpose()?,
            _nccl: has.nccl.then(|| library("libnccl.so.2")).transpose()?,
        })
    }

    /// The driver sees this many devices.
    pub fn set_devices(&self, count: i32) {
        self.set("emulator_devices", count);
    }

    /// The driver says that it is for this version of CUDA: 12080 is 12.8.
    pub fn set_driver_version(&self, version: i32) {
        self.set("emulator_driver_version", version);
    }

    /// The device has this compute capability, in tenths: 75 is 7.5.
    pub fn set_capability(&self, tenths: i32) {
        self.set("emulator_capability", tenths);
    }

    /// NVRTC says that it is of this version of CUDA: 13 is 13.x.
    pub fn set_compiler_version(&self, major: i32) {
        self.compile_with("emulator_compiler_version", major);
    }

    /// Draws the order of streams, blocks, warps and lanes from this seed from now on.
    pub fn seed(&self, seed: u64) {
        self.set("emulator_seed", seed);
    }

    /// The device has this many bytes.
    pub fn set_memory(&self, bytes: usize) {
        self.set("emulator_memory", bytes);
    }

    /// The n-th launch from now on fails, and everything after it, until [`Emulator::recover`].
    pub fn fail_launch(&self, n: i64) {
        self.set("emulator_fail_launch", n);
    }

    /// The device works again after a failed launch.
    pub fn recover(&self) {
        self.get::<()>("emulator_recover");
    }

    /// Kernels that have run so far, in this process.
    pub fn launches(&self) -> i64 {
        self.get("emulator_launches")
    }

    /// Has the kernels that are compiled during `load` report each access. They are slower, and
    /// must not come from a cache of others.
    pub fn watched<T>(&self, load: impl FnOnce() -> T) -> T {
        self.compile_with("emulator_watch", 1);
        let loaded = load();
        self.compile_with("emulator_watch", 0);
        loaded
    }

    /// Tells the emulated NVRTC something.
    fn compile_with(&self, name: &str, value: i32) {
        let Some(compiler) = &self.compiler else {
            return;
        };
        // SAFETY: compiler.cpp declares these functions with this type.
        unsafe {
            let function = compiler.get::<unsafe extern "C" fn(i32)>(name);
            function.unwrap_or_else(|error| panic!("{error}"))(value);
        }
    }

    /// The bytes that the kernels of `work` touch, launch by launch, if they were compiled to be
    /// [`watched`](Self::watched). `work` waits for them.
    pub fn touched(&self, work: impl FnOnce()) -> Vec<Touched> {
        self.set("emulator_watch_memory", 1i32);
        work();
        type Get = unsafe extern "C" fn(usize, *mut u64, *mut u64) -> *const c_char;
        // SAFETY: driver.cpp declares the function with this type, and returns the name of a
        // kernel of a module that is loaded, or null.
        let one = |n: usize| unsafe {
            let get = self.driver.as_ref()?.get::<Get>("emulator_touched");
            let get = get.unwrap_or_else(|error| panic!("{error}"));
            let (mut read, mut written) = (0, 0);
            let name = get(n, &mut read, &mut written);
            let name = (!name.is_null()).then(|| CStr::from_ptr(name))?;
            Some(Touched {
                kernel: name.to_string_lossy().into_owned(),
                read,
                written,
            })
        };
        let all = (0..).map_while(one).collect();
        self.set("emulator_watch_memory", 0i32);
        all
    }

    /// The driver's calls during `work`, by all threads, in order. A replayed graph is one call.
    /// Empty on a card.
    pub fn calls(&self, work: impl FnOnce()) -> Vec<Call> {
        self.set("emulator_listen", 1i32);
        work();
        type Get = unsafe extern "C" fn(usize, *mut Noted) -> bool;
        let one = |n: usize| {
            let mut noted = Noted {
                kind: 0,
                kernel: std::ptr::null(),
                bytes: 0,
                blocks: 0,
                stream: 0,
                thread: 0,
                captured: false,
                pinned: false,
            };
            // SAFETY: driver.cpp declares the function and what it writes with these types; the
            // name of a kernel is never freed.
            unsafe {
                let get = self.driver.as_ref()?.get::<Get>("emulator_call");
                let get = get.unwrap_or_else(|error| panic!("{error}"));
                get(n, &mut noted).then(|| noted.read())
            }
        };
        let all = (0..).map_while(one).collect();
        self.set("emulator_listen", 0i32);
        all
    }

    /// Whether there is a card, and no emulator.
    pub fn is_card(&self) -> bool {
        self.driver.is_none()
    }

    /// Bytes of device memory in use.
    pub fn memory_used(&self) -> usize {
        self.get("emulator_memory_used")
    }

    /// Calls a control function of the driver library that takes a value.
    fn set<A>(&self, name: &str, value: A) {
        let Some(driver) = &self.driver else { return };
        // SAFETY: driver.cpp declares the functions that are set with the type of this value.
        unsafe {
            let function = driver.get::<unsafe extern "C" fn(A)>(name);
            function.unwrap_or_else(|error| panic!("{error}"))(value);
        }
    }

    /// Calls a control function of the driver library that returns a value.
    fn get<R: Default>(&self, name: &str) -> R {
        let Some(driver) = &self.driver else {
            return R::default();
        };
        // SAFETY: driver.cpp declares the functions that are got with this type of value.
        unsafe {
            let function = driver.get::<unsafe extern "C" fn() -> R>(name);
            function.unwrap_or_else(|error| panic!("{error}"))()
        }
    }
}

/// Compiles the libraries into a folder named by their content, unless they are there: a process
/// that is started with it in LD_LIBRARY_PATH has an emulated device.
///
/// # Errors
/// If there is no C++ compiler, which the emulated NVRTC needs, too; when they cannot be
/// compiled, or written.
pub fn build(folder: &Path) -> Result<PathBuf, EmulatorError> {
    build_with(&env::var("CXX").unwrap_or_else(|_| "c++".into()), folder)
}

fn build_with(compiler: &str, folder: &Path) -> Result<PathBuf, EmulatorError> {
    match Command::new(compiler).arg("--version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(EmulatorError::NoCompiler(compiler.into()));
        }
        // Compiling reports everything else that is wrong with it.
        _ => {}
    }
    let file = |path: &Path| {
        let path = path.to_path_buf();
        move |error| EmulatorError::File { path, error }
    };
    let done = folder.join(format!("emulated-cuda-{:016x}", key()));
    if done.exists() {
        return Ok(done);
    }
    fs::create_dir_all(folder).map_err(file(folder))?;
    let place = tempfile::tempdir_in(folder).map_err(file(folder))?;
    for (name, text) in SOURCES {
        let path = place.path().join(name);
        fs::write(&path, text).map_err(file(&path))?;
    }
    let compile =
        |source, library, more: &[&str]| compile(compiler, place.path(), source, library, more);
    compile("driver.cpp", "libcuda.so", &[])?;
    compile("compiler.cpp", "libnvrtc.so", &[])?;
    compile("nccl.cpp", "libnccl.so.2", &["-L.", "-l:libcuda.so"])?;
    // If another test was quicker, its libraries are as good.
    match fs::rename(place.path(), &done) {
        Err(_) if done.exists() => {}
        renamed => renamed.map_err(file(&done))?,
    }
    Ok(done)
}

fn compile(
    compiler: &str,
    place: &Path,
    source: &str,
    library: &str,
    more: &[&str],
) -> Result<(), EmulatorError> {
    let mut command = Command::new(compiler);
    command
        .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Werror"])
        .args(["-march=native", "-ffp-contract=off"])
        .arg(format!("-Wl,-soname,{library}"))
        .arg(format!("-DEMULATOR_KEY={}", key() as u32 >> 2 << 1))
        .args(["-o", library, source, "-ldl"])
        .args(more)
        .current_dir(place);
    let failed = |message: String| EmulatorError::Compiler {
        command: format!("{command:?}"),
        message,
    };
    let output = Command::new(command.get_program())
        .args(command.get_args())
        .current_dir(place)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// A hash of the sources (FNV-1a).
fn key() -> u64 {
    let bytes = SOURCES.iter().flat_map(|(_, text)| text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_compiler_it_says_what_to_install() {
        let folder = tempfile::tempdir().unwrap();
        // Also where the libraries have been compiled before.
        fs::create_dir(folder.path().join(format!("emulated-cuda-{:016x}", key()))).unwrap();
        let error = build_with("no-such-compiler", folder.path()).unwrap_err();
        let error = error.to_string();
        for expected in [
            "no C++ compiler `no-such-compiler`",
            "apt-get install g++",
            "CXX",
        ] {
            assert!(error.contains(expected), "{error}");
        }
    }
}
