//! Mistakes that the emulator must catch: each one ends a child process, which says what and where.

use std::process::Command;

use cuda_emulator::Emulator;
use cudarc::driver::{CudaContext, DevicePtr, LaunchConfig, PushKernelArg, result};
use cudarc::nvrtc::compile_ptx;

/// The variable that names the mistake of a child process.
const MISTAKE: &str = "EMULATOR_MISTAKE";

/// Runs `test` of this file again in a child process, which launches `body` as a kernel of two
/// warps on 64 floats; what the child says must contain all of `expected`.
fn caught(test: &str, body: &str, expected: &[&str]) {
    caught_on(64, test, body, expected);
}

/// The same, on this many floats.
fn caught_on(floats: usize, test: &str, body: &str, expected: &[&str]) {
    if std::env::var(MISTAKE).is_ok_and(|mistake| mistake == test) {
        Emulator::load(env!("CARGO_TARGET_TMPDIR"));
        let stream = CudaContext::new(0).unwrap().new_stream().unwrap();
        let source = format!("extern \"C\" __global__ void wrong(float *x) {{\n{body}\n}}");
        let module = stream.context().load_module(compile_ptx(source).unwrap());
        let kernel = module.unwrap().load_function("wrong").unwrap();
        let mut x = stream.clone_htod(&vec![1.0f32; floats]).unwrap();
        let one_block = LaunchConfig {
            grid_dim: (1, 1, 1),
            block_dim: (64, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the emulator checks every access.
        unsafe { stream.launch_builder(&kernel).arg(&mut x).launch(one_block) }.unwrap();
        stream.synchronize().unwrap();
        return;
    }
    said_in_a_child(test, expected);
}

/// Runs `test` again in a child process, which makes its mistake; its output must contain all of `expected`.
fn said_in_a_child(test: &str, expected: &[&str]) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(MISTAKE, test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(86), "{said}");
    for expected in expected {
        assert!(said.contains(expected), "`{expected}` is not in: {said}");
    }
}

#[test]
fn a_read_beyond_the_end_of_memory() {
    caught(
        "a_read_beyond_the_end_of_memory",
        "int t = threadIdx.x; float v = x[t + 1]; __syncthreads(); x[t] = v;",
        &[
            "kernel `wrong`",
            "thread (63, 0, 0)",
            "256 bytes from its start",
        ],
    );
}

#[test]
fn a_write_in_front_of_memory() {
    caught(
        "a_write_in_front_of_memory",
        "if (threadIdx.x == 5) x[-1] = 0;",
        &["wrote outside", "-4 bytes from its start"],
    );
}

#[test]
fn a_write_between_the_end_of_memory_and_its_guard() {
    caught_on(
        61,
        "a_write_between_the_end_of_memory_and_its_guard",
        "if (threadIdx.x == 63) x[63] = 0;",
        &["wrote outside", "244 bytes, 252 bytes from its start"],
    );
}

#[test]
fn a_read_behind_the_guard() {
    caught_on(
        61,
        "a_read_behind_the_guard",
        "if (threadIdx.x == 60) x[60] = x[64];",
        &["thread (60, 0, 0)", "256 bytes from its start"],
    );
}

#[test]
fn a_read_in_front_of_the_page() {
    caught(
        "a_read_in_front_of_the_page",
        "if (threadIdx.x == 5) x[0] = x[-1024];",
        &["thread (5, 0, 0)", "-4096 bytes from its start"],
    );
}

#[test]
fn an_index_beyond_a_shared_array() {
    caught(
        "an_index_beyond_a_shared_array",
        "__shared__ float tile[63]; tile[threadIdx.x] = x[threadIdx.x]; __syncthreads(); x[0] = tile[0];",
        &["thread (63, 0, 0)", "beyond an array"],
    );
}

#[test]
fn a_barrier_in_one_branch() {
    caught(
        "a_barrier_in_one_branch",
        "if (threadIdx.x < 32) __syncthreads(); x[threadIdx.x] = 0;",
        &["barrier was reached by 32 of 64 threads"],
    );
}

#[test]
fn two_barriers_taken_for_one() {
    caught(
        "two_barriers_taken_for_one",
        "if (threadIdx.x < 32) {\n__syncthreads();\n} else {\n__syncthreads();\n}",
        &["barrier was reached by 64 of 64 threads", "is at line"],
    );
}

#[test]
fn a_shuffle_that_a_lane_misses() {
    caught(
        "a_shuffle_that_a_lane_misses",
        "if (threadIdx.x != 7) x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);",
        &["warp collective", "not reached by all lanes of warp 0"],
    );
}

#[test]
fn a_missing_barrier_reads_what_was_never_written() {
    // Not fatal in itself: the NaN that comes out is what the tests of a kernel see.
    let test = "a_missing_barrier_reads_what_was_never_written";
    caught(
        test,
        "__shared__ float tile[64]; int t = threadIdx.x; tile[t] = x[t]; float v = tile[63 - t];
         if (v != 1.0f) x[1 << 20] = v;",
        &["kernel `wrong`"],
    );
}

/// Whether this is the child process that makes the mistake of `test`; it has the emulator then.
fn makes(test: &str) -> bool {
    let own = std::env::var(MISTAKE).is_ok_and(|mistake| mistake == test);
    if own {
        Emulator::load(env!("CARGO_TARGET_TMPDIR"));
    }
    own
}

const DOUBLES: &str = r#"extern "C" __global__ void doubles(float *x) { x[threadIdx.x] *= 2; }"#;

#[test]
fn memory_that_has_been_freed() {
    let test = "memory_that_has_been_freed";
    if makes(test) {
        let stream = CudaContext::new(0).unwrap().new_stream().unwrap();
        let module = stream.context().load_module(compile_ptx(DOUBLES).unwrap());
        let kernel = module.unwrap().load_function("doubles").unwrap();
        let x = stream.clone_htod(&[1.0f32; 64]).unwrap();
        let address = x.device_ptr(&stream).0;
        drop(x);
        let one_block = LaunchConfig::for_num_elems(64);
        // SAFETY: the emulator checks every access.
        unsafe {
            stream
                .launch_builder(&kernel)
                .arg(&address)
                .launch(one_block)
        }
        .unwrap();
        stream.synchronize().unwrap();
        return;
    }
    let expected = ["kernel `doubles`", "256 bytes that has been freed"];
    said_in_a_child(test, &expected);
}

#[test]
fn memory_that_one_stream_frees_while_another_uses_it() {
    let test = "memory_that_one_stream_frees_while_another_uses_it";
    if makes(test) {
        let context = CudaContext::new(0).unwrap();
        // SAFETY: no streams wait for each other by themselves: that is the mistake.
        unsafe { context.disable_event_tracking() };
        let (stream, other) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        let module = context.load_module(compile_ptx(DOUBLES).unwrap());
        let kernel = module.unwrap().load_function("doubles").unwrap();
        // Which stream is first is drawn: of twenty times, the one that frees is first sometimes.
        for _ in 0..20 {
            let x = stream.clone_htod(&[1.0f32; 64]).unwrap();
            stream.synchronize().unwrap();
            let address = x.device_ptr(&stream).0;
            let one_block = LaunchConfig::for_num_elems(64);
            // SAFETY: the emulator checks every access.
            unsafe {
                other
                    .launch_builder(&kernel)
                    .arg(&address)
                    .launch(one_block)
            }
            .unwrap();
            drop(x);
            other.synchronize().unwrap();
        }
        return;
    }
    said_in_a_child(test, &["256 bytes that has been freed"]);
}

#[test]
fn memory_that_one_stream_has_yet_to_allocate_for_another() {
    let test = "memory_that_one_stream_has_yet_to_allocate_for_another";
    if makes(test) {
        let context = CudaContext::new(0).unwrap();
        // SAFETY: as above.
        unsafe { context.disable_event_tracking() };
        let (stream, other) = (context.new_stream().unwrap(), context.new_stream().unwrap());
        for _ in 0..20 {
            // SAFETY: every bit pattern is a number.
            let x = unsafe { stream.alloc::<f32>(64) }.unwrap();
            let address = x.device_ptr(&stream).0;
            // SAFETY: the values live until the wait.
            unsafe { result::memcpy_htod_async(address, &[1.0f32; 64], other.cu_stream()) }
                .unwrap();
            other.synchronize().unwrap();
        }
        return;
    }
    said_in_a_child(test, &["256 bytes", "yet to allocate"]);
}
