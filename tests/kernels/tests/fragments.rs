//! Which lane of a warp has which element, according to CUTLASS's CuTe
//! (`MMA_Traits<SM80_16x8x16_F32BF16BF16F32_TN>`, `SM75_U32x4_LDSM_N` and `_T`). Kernels and the
//! emulator follow PTX's manual, and this compares them with an independent reading of it.

use cuda_kernel_tests::{Gpu, Numbers, Precision, Program, arguments, family};

fn program(gpu: &Gpu) -> Program {
    let own = "../../../tests/kernels/tests/fragments.cu";
    gpu.program(&family(&[own]), Precision::Bf16, &[("VECTOR", 8)])
}

/// Where value `v` of a lane is: modes of the values' shape are all 2.
fn place(lane: usize, [four, eight]: [usize; 2], v: usize, strides: &[usize]) -> usize {
    let of_values = strides.iter().enumerate();
    let values: usize = of_values.map(|(bit, stride)| (v >> bit & 1) * stride).sum();
    lane % 4 * four + lane / 4 * eight + values
}

/// Registers of two values each, for all lanes.
fn registers(count: usize, value: impl Fn(usize, usize) -> f32) -> Vec<u32> {
    let bits = |lane, v| u32::from(half::bf16::from_f32(value(lane, v)).to_bits());
    let word = |i: usize| {
        let (lane, register) = (i / count, i % count);
        bits(lane, 2 * register) | bits(lane, 2 * register + 1) << 16
    };
    (0..32 * count).map(word).collect()
}

#[test]
fn a_warps_product_lies_as_cutlass_says() {
    let gpu = Gpu::new(1);
    let mut numbers = Numbers::new(1);
    // Small whole numbers, whose sums are exact: 16 x 16 and 8 x 16, each column by column.
    let [a, b] = [256, 128].map(|count| -> Vec<f32> {
        let values = numbers.take(count).into_iter();
        values.map(|value| (value * 8.0).round()).collect()
    });
    let rows = registers(4, |lane, v| a[place(lane, [32, 1], v, &[16, 8, 128])]);
    let columns = registers(2, |lane, v| b[place(lane, [16, 1], v, &[8, 64])]);
    let sums = gpu.no_floats(128);
    program(&gpu).launch(
        "warp_product",
        [1, 1, 1],
        32,
        arguments![&gpu.words(&rows), &gpu.words(&columns), &sums],
    );
    let found = sums.read_floats();
    for lane in 0..32 {
        for v in 0..4 {
            let at = place(lane, [32, 1], v, &[16, 8]);
            let (m, n) = (at % 16, at / 16);
            let expected: f32 = (0..16).map(|k| a[m + 16 * k] * b[n + 8 * k]).sum();
            assert_eq!(found[4 * lane + v], expected, "lane {lane}, value {v}");
        }
    }
}

#[test]
fn matrices_come_as_cutlass_says() {
    let gpu = Gpu::new(1);
    let matrices = registers(4, |lane, v| (8 * lane + v) as f32);
    let [plain, transposed] = [(); 2].map(|()| gpu.no_floats(128));
    program(&gpu).launch(
        "fragments",
        [1, 1, 1],
        32,
        arguments![&gpu.words(&matrices), &plain, &transposed],
    );
    // A lane has two elements of a row of each matrix, or of a column.
    let of = |lane: usize, v: usize| (64 * (v / 2) + lane / 4 * 8 + lane % 4 * 2 + v % 2) as f32;
    let turned =
        |lane: usize, v: usize| (64 * (v / 2) + (lane % 4 * 2 + v % 2) * 8 + lane / 4) as f32;
    let words = |bytes: Vec<u8>| -> Vec<u32> {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
        bytes.chunks_exact(4).map(word).collect()
    };
    assert_eq!(words(plain.read()), registers(4, of));
    assert_eq!(words(transposed.read()), registers(4, turned));
}
