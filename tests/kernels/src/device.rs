//! Programs, buffers and launches.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};
use std::{fs, process};

use cuda_emulator::Emulator;
use cudarc::driver::sys::CUfunction_attribute;
use cudarc::driver::{
    CudaContext, CudaModule, CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::{Ptx, result, sys};

use crate::{CONSTANTS, Precision, SHARED, THREADS};

/// The emulated device, for one test alone.
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    _alone: MutexGuard<'static, ()>,
}

/// Where compiled kernels are kept.
fn scratch() -> PathBuf {
    cuda_emulator::folder().join("kernels")
}

impl Gpu {
    /// Opens the device; blocks, warps and lanes run in an order drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        let alone = cuda_emulator::alone();
        let emulator = Emulator::load(scratch());
        emulator.seed(seed);
        let context = CudaContext::new(0).unwrap();
        // SAFETY: one stream alone uses the memory, in its order.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().unwrap();
        Self {
            context,
            stream,
            _alone: alone,
        }
    }

    /// Numbers of a kernel's own choice of type.
    pub fn bytes(&self, bytes: &[u8]) -> Buffer {
        let slice = self.stream.clone_htod(bytes).unwrap();
        // The copy is done when it is waited for, and `bytes` may go then.
        self.stream.synchronize().unwrap();
        Buffer {
            slice,
            stream: self.stream.clone(),
        }
    }

    /// A buffer of f32.
    pub fn floats(&self, values: &[f32]) -> Buffer {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    /// A buffer of u32.
    pub fn words(&self, values: &[u32]) -> Buffer {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(&bytes)
    }

    /// A buffer of maps or their gradients, as they are stored.
    pub fn maps(&self, precision: Precision, values: &[f32]) -> Buffer {
        match precision {
            Precision::F32 => self.floats(values),
            Precision::Bf16 => {
                let narrow = values.iter().map(|&v| half::bf16::from_f32(v));
                let bytes: Vec<u8> = narrow.flat_map(|v| v.to_le_bytes()).collect();
                self.bytes(&bytes)
            }
        }
    }

    /// A convolution's weight, maps x channels x taps, as an operand: taps x maps x channels, as
    /// maps are stored.
    pub fn packed(
        &self,
        precision: Precision,
        weight: &[f32],
        channels: usize,
        taps: usize,
    ) -> Buffer {
        let area = weight.len() / taps;
        assert_eq!(area % channels, 0, "maps have all channels");
        let place = |i: usize| weight[i % area * taps + i / area];
        self.maps(precision, &(0..weight.len()).map(place).collect::<Vec<_>>())
    }

    /// This many bytes that hold NaNs.
    pub fn nothing(&self, bytes: usize) -> Buffer {
        self.bytes(&vec![0xff; bytes])
    }

    /// This many f32, all NaNs.
    pub fn no_floats(&self, count: usize) -> Buffer {
        self.nothing(4 * count)
    }

    /// This many values of maps, all NaNs.
    pub fn no_maps(&self, precision: Precision, count: usize) -> Buffer {
        match precision {
            Precision::F32 => self.nothing(4 * count),
            Precision::Bf16 => self.nothing(2 * count),
        }
    }

    /// The numbers that change from step to step, as in `common.cuh`.
    pub fn scalars(
        &self,
        seed: u64,
        step: [f32; 2],
        accumulate: bool,
        sgd: [f32; 3],
        nesterov: bool,
    ) -> Buffer {
        self.words(&[
            seed as u32,
            (seed >> 32) as u32,
            step[0].to_bits(),
            step[1].to_bits(),
            u32::from(accumulate),
            sgd[0].to_bits(),
            sgd[1].to_bits(),
            sgd[2].to_bits(),
            u32::from(nesterov),
            // AdamW's five, the largest norm and what is added to one, the average's share, whether
            // a loss was not finite, the factor of clipped gradients, and one that aligns.
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ])
    }

    /// Compiles kernel files, in this order, with their constants, and [`CONSTANTS`] that are not
    /// among them.
    pub fn program(
        &self,
        files: &[&str],
        precision: Precision,
        constants: &[(&str, usize)],
    ) -> Program {
        let folder = cuda_emulator::root().join("densenet-runtime/src/cuda");
        let mut source = String::from("#define EPSILON 1e-5\n#define MOMENTUM 0.1\n");
        for file in files {
            let path = folder.join(file);
            let text = fs::read_to_string(&path);
            let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            source += &format!("#line 1 \"{file}\"\n{text}\n");
        }
        let given = |name: &str| constants.iter().any(|(own, _)| *own == name);
        let shared = CONSTANTS.iter().filter(|(name, _)| !given(name));
        let mut options: Vec<String> = constants
            .iter()
            .chain(shared)
            .map(|(name, value)| format!("-D{name}={value}"))
            .collect();
        options.push(format!(
            "-DBF16={}",
            usize::from(precision == Precision::Bf16)
        ));
        let (major, minor) = self.context.compute_capability().unwrap();
        options.push(format!("--gpu-architecture=sm_{major}{minor}"));
        options.push("--std=c++17".to_string());
        options.push("--device-as-default-execution-space".to_string());
        let card = self.context.name().unwrap();
        let image = image(&source, &options, &card);
        let module = self.context.load_module(image).unwrap();
        Program {
            module,
            stream: self.stream.clone(),
        }
    }
}

/// The most values, up to 16 bytes, that divide all these counts: what a thread loads at once.
pub fn vector(precision: Precision, counts: &[usize]) -> usize {
    let most = match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 8,
    };
    let mut width = most;
    while counts.iter().any(|count| count % width != 0) {
        width /= 2;
    }
    width
}

/// A program compiled for a card, which may be an emulated one; from the cache if it is there.
fn image(source: &str, options: &[String], card: &str) -> Ptx {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two numbers.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }
        .result()
        .unwrap();
    let key = format!("{card} {major}.{minor}{options:?}{source}");
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = scratch().join(format!("{hash:016x}-{}.image", key.len()));
    if let Ok(bytes) = fs::read(&path) {
        return Ptx::from_binary(bytes);
    }
    let image = compile(source, options);
    keep(&path, &image);
    Ptx::from_binary(image)
}

/// To a CUBIN, as the executor does: a driver that is older than NVRTC may refuse its PTX.
fn compile(source: &str, options: &[String]) -> Vec<u8> {
    let text = CString::new(source).unwrap();
    let program = result::create_program(&text, None).unwrap();
    // SAFETY: the program lives until the end of this function; the buffer has the size that NVRTC
    // asks for, and is filled.
    unsafe {
        if let Err(error) = result::compile_program(program, options) {
            let log = result::get_program_log(program).unwrap_or_default();
            let log: Vec<u8> = log.into_iter().map(|c| c as u8).collect();
            let log = String::from_utf8_lossy(&log);
            panic!("{error}\n{}", log.trim_end_matches('\0'));
        }
        let mut size = 0;
        sys::nvrtcGetCUBINSize(program, &mut size).result().unwrap();
        let mut image = vec![0u8; size];
        sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast())
            .result()
            .unwrap();
        result::destroy_program(program).unwrap();
        image
    }
}

/// The file is written completely or not at all; if another test was quicker, its file is as good.
fn keep(path: &Path, bytes: &[u8]) {
    let part = path.with_extension(process::id().to_string());
    fs::create_dir_all(scratch()).unwrap();
    fs::write(&part, bytes).unwrap();
    fs::rename(&part, path).unwrap();
}

/// The files of a family whose kernels make products.
pub fn family<'a>(files: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![
        "program/common.cuh",
        "program/product.cuh",
        "program/pull.cuh",
    ];
    all.extend(files);
    all
}

/// Bytes on the device; a page without access follows them.
pub struct Buffer {
    slice: CudaSlice<u8>,
    stream: Arc<CudaStream>,
}

impl Buffer {
    /// What it holds.
    pub fn read(&self) -> Vec<u8> {
        let bytes = self.stream.clone_dtoh(&self.slice).unwrap();
        self.stream.synchronize().unwrap();
        bytes
    }

    /// What it holds, as f32.
    pub fn read_floats(&self) -> Vec<f32> {
        let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        self.read().chunks_exact(4).map(number).collect()
    }

    /// What it holds, as f64.
    pub fn read_doubles(&self) -> Vec<f64> {
        let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap());
        self.read().chunks_exact(8).map(number).collect()
    }

    /// What it holds, as maps are stored.
    pub fn read_maps(&self, precision: Precision) -> Vec<f32> {
        match precision {
            Precision::F32 => self.read_floats(),
            Precision::Bf16 => {
                let number =
                    |bytes: &[u8]| half::bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32();
                self.read().chunks_exact(2).map(number).collect()
            }
        }
    }
}

/// A value of a launch.
#[derive(Clone, Copy)]
pub enum Argument<'a> {
    /// A pointer.
    At(&'a Buffer),
    /// An `int`.
    Int(i32),
}

impl<'a> From<&'a Buffer> for Argument<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self::At(buffer)
    }
}

impl From<usize> for Argument<'_> {
    fn from(value: usize) -> Self {
        Self::Int(value as i32)
    }
}

impl From<i32> for Argument<'_> {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

/// Arguments of whatever kind.
#[macro_export]
macro_rules! arguments {
    ($($value:expr),* $(,)?) => { &[$($crate::Argument::from($value)),*] };
}

/// A loaded program.
pub struct Program {
    module: Arc<CudaModule>,
    stream: Arc<CudaStream>,
}

impl Program {
    /// Launches a kernel, with THREADS threads a block.
    pub fn tiled(&self, kernel: &str, grid: [usize; 3], arguments: &[Argument<'_>]) {
        self.launch(kernel, grid, THREADS, arguments);
    }

    /// Launches a kernel with a thread for each of `count` things.
    pub fn each(&self, kernel: &str, count: usize, arguments: &[Argument<'_>]) {
        self.launch(kernel, [count.div_ceil(THREADS), 1, 1], THREADS, arguments);
    }

    /// The same, with as much shared memory as every card has.
    pub fn tiled_in_shared(&self, kernel: &str, grid: [usize; 3], arguments: &[Argument<'_>]) {
        self.start(kernel, (grid, THREADS, SHARED), arguments);
    }

    /// Launches a kernel, and waits for it.
    pub fn launch(
        &self,
        kernel: &str,
        grid: [usize; 3],
        threads: usize,
        arguments: &[Argument<'_>],
    ) {
        self.start(kernel, (grid, threads, 0), arguments);
    }

    fn start(
        &self,
        kernel: &str,
        (grid, threads, shared): ([usize; 3], usize, usize),
        arguments: &[Argument<'_>],
    ) {
        let function = self.module.load_function(kernel).unwrap();
        if shared > 0 {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared as i32).unwrap();
        }
        let addresses: Vec<u64> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::At(buffer) => buffer.slice.device_ptr(&self.stream).0,
                Argument::Int(_) => 0,
            })
            .collect();
        let mut launch = self.stream.launch_builder(&function);
        for (argument, address) in arguments.iter().zip(&addresses) {
            match argument {
                Argument::At(_) => launch.arg(address),
                Argument::Int(value) => launch.arg(value),
            };
        }
        let [x, y, z] = grid.map(|size| size as u32);
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (threads as u32, 1, 1),
            shared_mem_bytes: shared as u32,
        };
        // SAFETY: the emulator checks every access.
        unsafe { launch.launch(config) }.unwrap();
        self.stream.synchronize().unwrap();
    }
}
