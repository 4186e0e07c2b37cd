//! Kernels compute on the emulator what they would on a card: through cudarc, unmodified.

use std::sync::Arc;

use cuda_emulator::{Emulator, Kind, alone};
use cudarc::driver::{CudaContext, CudaModule, CudaStream, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::compile_ptx;

fn emulator() -> &'static Emulator {
    Emulator::load(env!("CARGO_TARGET_TMPDIR"))
}

fn device() -> (Arc<CudaContext>, Arc<CudaStream>) {
    emulator();
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    (context, stream)
}

/// The emulated NVRTC's PTX is an image, so it is loaded as one.
fn module(context: &Arc<CudaContext>, source: &str) -> Arc<CudaModule> {
    let image = compile_ptx(source).unwrap();
    context.load_module(image).unwrap()
}

fn blocks(grid: u32, block: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (grid, 1, 1),
        block_dim: (block, 1, 1),
        shared_mem_bytes: 0,
    }
}

const REVERSE: &str = r#"
extern "C" __global__ void __launch_bounds__(64) reverse(const float *x, float *y, int n) {
    __shared__ float tile[64];
    int t = threadIdx.x, i = blockIdx.x * 64 + t;
    tile[t] = i < n ? x[i] : 0.0f;
    __syncthreads();
    if (i < n) y[i] = tile[63 - t];
}
"#;

#[test]
fn a_block_exchanges_values_through_shared_memory_under_every_order() {
    let _alone = alone();
    let (context, stream) = device();
    let kernel = module(&context, REVERSE).load_function("reverse").unwrap();
    let x: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let from = stream.clone_htod(&x).unwrap();
    for seed in 0..20 {
        emulator().seed(seed);
        let mut into = stream.alloc_zeros::<f32>(128).unwrap();
        let n = 128i32;
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&from).arg(&mut into).arg(&n);
        // SAFETY: the emulator checks every access.
        unsafe { launch.launch(blocks(2, 64)) }.unwrap();
        let y = stream.clone_dtoh(&into).unwrap();
        stream.synchronize().unwrap();
        let expected = |i: usize| x[i / 64 * 64 + 63 - i % 64];
        assert!((0..128).all(|i| y[i] == expected(i)), "seed {seed}");
    }
}

#[test]
fn a_warp_sums_by_shuffles() {
    let _alone = alone();
    let (context, stream) = device();
    let source = r#"
extern "C" __global__ void sums(float *x) {
    float v = x[threadIdx.x];
    for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(0xffffffffu, v, by);
    x[threadIdx.x] = v;
}
"#;
    let kernel = module(&context, source).load_function("sums").unwrap();
    let values: Vec<f32> = (0..96).map(|i| i as f32).collect();
    let mut x = stream.clone_htod(&values).unwrap();
    // SAFETY: the emulator checks every access.
    unsafe {
        stream
            .launch_builder(&kernel)
            .arg(&mut x)
            .launch(blocks(1, 96))
    }
    .unwrap();
    let found = stream.clone_dtoh(&x).unwrap();
    stream.synchronize().unwrap();
    for (warp, sums) in found.chunks(32).enumerate() {
        let sum: f32 = values[warp * 32..][..32].iter().sum();
        assert_eq!(sums, [sum; 32]);
    }
}

#[test]
fn memory_starts_as_nan() {
    let _alone = alone();
    let (_, stream) = device();
    // SAFETY: every bit pattern is a number.
    let memory = unsafe { stream.alloc::<f32>(9) }.unwrap();
    let values = stream.clone_dtoh(&memory).unwrap();
    stream.synchronize().unwrap();
    assert!(values.iter().all(|value| value.is_nan()));
}

#[test]
fn what_is_read_around_memory_within_its_page_is_nan() {
    let _alone = alone();
    let (context, stream) = device();
    // Up to a multiple of 16 bytes beyond the memory, and in front of it.
    let source = r#"
extern "C" __global__ void around(const float *x, float *y) { y[threadIdx.x] = x[(int)threadIdx.x - 1]; }
"#;
    let kernel = module(&context, source).load_function("around").unwrap();
    let x = stream.clone_htod(&[1.0f32; 2]).unwrap();
    let mut y = stream.alloc_zeros::<f32>(5).unwrap();
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&x).arg(&mut y);
    // SAFETY: the emulator has memory there.
    unsafe { launch.launch(blocks(1, 5)) }.unwrap();
    let y = stream.clone_dtoh(&y).unwrap();
    stream.synchronize().unwrap();
    let nan: Vec<bool> = y.iter().map(|value| value.is_nan()).collect();
    assert_eq!(nan, [true, false, false, true, true], "{y:?}");
}

/// The order in which `kernel`, launched with `shape`, writes its numbers, under each of some
/// seeds. It appends them to `order`, which holds up to `count`, one at a time.
fn orders(kernel: &str, shape: (u32, u32), count: usize) -> Vec<Vec<u32>> {
    let (context, stream) = device();
    let source = r#"
__device__ void append(unsigned *order, unsigned number) { order[1 + order[0]++] = number; }
extern "C" __global__ void of_blocks(unsigned *order) { append(order, blockIdx.x); }
extern "C" __global__ void of_warps(unsigned *order) {
    if (threadIdx.x % 32 == 7) append(order, threadIdx.x / 32);
}
extern "C" __global__ void of_warps_behind_a_barrier(unsigned *order) {
    __syncthreads();
    if (threadIdx.x % 32 == 7) append(order, threadIdx.x / 32);
}
extern "C" __global__ void of_lanes(unsigned *order) { append(order, threadIdx.x); }
"#;
    let kernel = module(&context, source).load_function(kernel).unwrap();
    let under = |seed| {
        emulator().seed(seed);
        let mut order = stream.alloc_zeros::<u32>(1 + count).unwrap();
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&mut order);
        // SAFETY: the emulator checks every access.
        unsafe { launch.launch(blocks(shape.0, shape.1)) }.unwrap();
        let order = stream.clone_dtoh(&order).unwrap();
        stream.synchronize().unwrap();
        order[1..].to_vec()
    };
    (0..10).map(under).collect()
}

#[test]
fn blocks_warps_and_lanes_run_in_an_order_that_a_seed_draws() {
    let _alone = alone();
    let shapes = [
        ("of_blocks", (8, 1)),
        ("of_warps", (1, 8 * 32)),
        ("of_warps_behind_a_barrier", (1, 8 * 32)),
        ("of_lanes", (1, 8)),
    ];
    for (kernel, shape) in shapes {
        let found = orders(kernel, shape, 8);
        for order in &found {
            let mut each = order.clone();
            each.sort();
            assert_eq!(each, (0..8).collect::<Vec<u32>>(), "{kernel}: each once");
        }
        let mut different = found.clone();
        different.sort();
        different.dedup();
        assert!(different.len() > 5, "{kernel}: {different:?}");
        // A seed says all of it.
        assert_eq!(orders(kernel, shape, 8), found, "{kernel}");
    }
}

#[test]
fn shared_memory_of_every_block_starts_as_nan() {
    let _alone = alone();
    let (context, stream) = device();
    let source = r#"
extern "C" __global__ void early(float *y) {
    __shared__ float tile[4];
    DYNAMIC_SHARED(bytes);
    float *more = (float *)bytes;
    int t = threadIdx.x;
    y[blockIdx.x * 8 + t] = tile[t];
    y[blockIdx.x * 8 + 4 + t] = more[t];
    tile[t] = more[t] = 1.0f;
}
"#;
    let kernel = module(&context, source).load_function("early").unwrap();
    let mut y = stream.alloc_zeros::<f32>(24).unwrap();
    let shape = LaunchConfig {
        shared_mem_bytes: 16,
        ..blocks(3, 4)
    };
    // SAFETY: the emulator checks every access.
    unsafe { stream.launch_builder(&kernel).arg(&mut y).launch(shape) }.unwrap();
    let y = stream.clone_dtoh(&y).unwrap();
    stream.synchronize().unwrap();
    assert!(y.iter().all(|value| value.is_nan()), "{y:?}");
}

#[test]
fn what_the_driver_is_asked_for_is_told() {
    use cudarc::driver::{DevicePtr, result, sys};
    let _alone = alone();
    let (context, stream) = device();
    let source = r#"extern "C" __global__ void more(float *x) { x[0] += 1.0f; }"#;
    let kernel = module(&context, source).load_function("more").unwrap();
    // SAFETY: one stream alone uses the memory, and waits before the host's is freed.
    unsafe { context.disable_event_tracking() };
    // SAFETY: as above; the emulator checks every access, and all that is copied is in memory.
    let calls = emulator().calls(|| unsafe {
        let mut x = stream.alloc::<f32>(2).unwrap();
        let pinned = result::malloc_host(8, 0).unwrap();
        let from = std::slice::from_raw_parts(pinned.cast::<u8>(), 8);
        let place = x.device_ptr(&stream).0;
        result::memcpy_htod_async(place, &[0u8; 4], stream.cu_stream()).unwrap();
        result::memcpy_htod_async(place, &from[4..], stream.cu_stream()).unwrap();
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&mut x);
        launch.launch(blocks(1, 1)).unwrap();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).unwrap();
        launch.launch(blocks(3, 1)).unwrap();
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        graph.unwrap().unwrap().launch().unwrap();
        stream.synchronize().unwrap();
        result::free_host(pinned).unwrap();
    });
    let told: Vec<_> = calls
        .iter()
        .map(|call| {
            (
                call.kind,
                call.kernel.as_str(),
                call.bytes,
                call.blocks,
                call.captured,
            )
        })
        .collect();
    let expected = [
        (Kind::Allocation, "", 8, 0, false),
        (Kind::CopyIn, "", 4, 0, false),
        (Kind::CopyIn, "", 4, 0, false),
        (Kind::Launch, "more", 0, 1, false),
        (Kind::Capture, "", 0, 0, false),
        (Kind::Launch, "more", 0, 3, true),
        (Kind::Replay, "", 0, 0, false),
    ];
    assert_eq!(told, expected);
    assert!(!calls[1].pinned && calls[2].pinned);
    assert!(calls[1..].iter().all(|call| call.stream == calls[1].stream));
    assert!(emulator().calls(|| ()).is_empty());
}

#[test]
fn a_captured_graph_replays_its_launches_and_nothing_runs_before() {
    let _alone = alone();
    let (context, stream) = device();
    let source = r#"extern "C" __global__ void twice(float *x) { x[threadIdx.x] *= 2.0f; }"#;
    let kernel = module(&context, source).load_function("twice").unwrap();
    // SAFETY: one stream alone uses the memory.
    unsafe { context.disable_event_tracking() };
    let mut x = stream.clone_htod(&[1.0f32; 4]).unwrap();
    use cudarc::driver::sys;
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    stream.begin_capture(mode).unwrap();
    // SAFETY: the emulator checks every access.
    unsafe {
        stream
            .launch_builder(&kernel)
            .arg(&mut x)
            .launch(blocks(1, 4))
    }
    .unwrap();
    assert!(stream.synchronize().is_err(), "waiting while capturing");
    let graph = stream
        .end_capture(sys::CUgraphInstantiate_flags(0))
        .unwrap()
        .unwrap();
    let before = emulator().launches();
    for _ in 0..3 {
        graph.launch().unwrap();
    }
    let values = stream.clone_dtoh(&x).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(values, [8.0; 4]);
    assert_eq!(emulator().launches() - before, 3);
}

#[test]
fn a_stream_that_does_not_wait_for_an_event_reads_too_early() {
    let _alone = alone();
    let (context, first) = device();
    let second = context.new_stream().unwrap();
    let source = r#"
extern "C" __global__ void add(float *x) { x[0] += 1.0f; }
extern "C" __global__ void twice(const float *x, float *y) { y[0] = 2.0f * x[0]; }
"#;
    let module = module(&context, source);
    let [add, twice] = ["add", "twice"].map(|name| module.load_function(name).unwrap());
    // SAFETY: the test is about the order of the streams.
    unsafe { context.disable_event_tracking() };
    // Whether the second stream sees what the first one wrote, under each of some seeds.
    let seen = |waits: bool| -> Vec<bool> {
        let under = |seed| {
            emulator().seed(seed);
            let mut x = first.clone_htod(&[1.0f32]).unwrap();
            let mut y = second.alloc_zeros::<f32>(1).unwrap();
            context.synchronize().unwrap();
            // SAFETY: the emulator checks every access.
            unsafe { first.launch_builder(&add).arg(&mut x).launch(blocks(1, 1)) }.unwrap();
            let event = first.record_event(None).unwrap();
            if waits {
                second.wait(&event).unwrap();
            }
            let mut launch = second.launch_builder(&twice);
            launch.arg(&x).arg(&mut y);
            // SAFETY: the emulator checks every access.
            unsafe { launch.launch(blocks(1, 1)) }.unwrap();
            let y = second.clone_dtoh(&y).unwrap();
            context.synchronize().unwrap();
            y == [4.0]
        };
        (0..20).map(under).collect()
    };
    assert!(seen(true).iter().all(|&seen| seen));
    assert!(seen(false).contains(&false), "no order showed the mistake");
}

#[test]
fn the_device_has_the_memory_it_is_given() {
    let _alone = alone();
    let (_, stream) = device();
    emulator().set_memory(emulator().memory_used() + 1000);
    // SAFETY: every bit pattern is a number.
    let refused = unsafe { stream.alloc::<u8>(1001) };
    // SAFETY: every bit pattern is a number.
    let granted = unsafe { stream.alloc::<u8>(1000) };
    emulator().set_memory(1 << 30);
    assert!(refused.is_err() && granted.is_ok());
}

#[test]
fn an_injected_failure_stays_until_the_device_recovers() {
    let _alone = alone();
    let (context, stream) = device();
    let source = r#"extern "C" __global__ void one(float *x) { x[0] = 1.0f; }"#;
    let kernel = module(&context, source).load_function("one").unwrap();
    let mut x = stream.alloc_zeros::<f32>(1).unwrap();
    stream.synchronize().unwrap();
    emulator().fail_launch(1);
    // SAFETY: the emulator checks every access.
    let launched = unsafe {
        stream
            .launch_builder(&kernel)
            .arg(&mut x)
            .launch(blocks(1, 1))
    };
    let waited = stream.synchronize();
    let again = stream.synchronize();
    emulator().recover();
    assert!(launched.is_ok() && waited.is_err() && again.is_err());
    stream.synchronize().unwrap();
}

#[test]
fn source_with_mistakes_is_refused() {
    emulator();
    assert!(compile_ptx("extern \"C\" __global__ void broken(").is_err());
}

#[test]
fn source_is_compiled_where_temporary_files_are_to_be() {
    const CHILD: &str = "EMULATOR_COMPILES";
    let broken = "extern \"C\" __global__ void broken(float *x) { x = y; }";
    if std::env::var_os(CHILD).is_some() {
        emulator();
        // The compiler's message has the path of the file.
        return println!("{:?}", compile_ptx(broken).unwrap_err());
    }
    let folder = tempfile::Builder::new().prefix("of the user").tempdir();
    let folder = folder.unwrap();
    let test = "source_is_compiled_where_temporary_files_are_to_be";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("{name}/emulated-nvrtc-")), "{said}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "left behind");
}

#[test]
fn memory_comes_from_a_pool_and_goes_back_when_its_stream_comes_to_it() {
    let _alone = alone();
    let (context, stream) = device();
    assert!(context.has_async_alloc());
    let before = emulator().memory_used();
    let calls = emulator().calls(|| {
        // SAFETY: every bit pattern is a number.
        let x = unsafe { stream.alloc::<u8>(1000) }.unwrap();
        assert_eq!(emulator().memory_used(), before + 1000);
        drop(x);
    });
    assert_eq!(emulator().memory_used(), before);
    let allocated = calls.iter().find(|call| call.kind == Kind::Allocation);
    assert_eq!(allocated.map(|call| call.bytes), Some(1000));
    // Memory that is about to be freed is waited for.
    emulator().set_memory(before + 1000);
    for _ in 0..2 {
        // SAFETY: as above.
        drop(unsafe { stream.alloc::<u8>(1000) }.unwrap());
    }
    emulator().set_memory(1 << 30);
}
