//! Transitions: BN, ReLU, 1x1 convolution and 2x2 average pool, forward and backward, with dropout
//! between the two and without.

use cuda_kernel_tests::{
    Buffer, Dropout, Gpu, Norm, Numbers, Precision, Program, ROWS, TILE_CHANNELS, arguments, check,
    check_stored, family, vector,
};

#[derive(Clone, Copy, Debug)]
struct Case {
    /// Batch, height, width.
    size: [usize; 3],
    input: usize,
    output: usize,
    /// Channels of the next block.
    out_stride: usize,
}

const fn case(size: [usize; 3], input: usize, output: usize, out_stride: usize) -> Case {
    Case {
        size,
        input,
        output,
        out_stride,
    }
}

/// Odd sides, whose last row or column is left out; more and fewer channels than a tile.
const CASES: [Case; 7] = [
    case([1, 2, 2], 1, 1, 1),
    case([3, 5, 7], 70, 35, 83),
    case([2, 8, 8], 24, 12, 36),
    case([9, 3, 2], 12, 65, 70),
    case([70, 2, 3], 5, 2, 5),
    case([2, 12, 11], 64, 64, 64),
    case([5, 8, 9], 136, 132, 140),
];

struct Data {
    norm: Norm,
    input: Vec<f32>,
    weight: Vec<f32>,
    dout: Vec<f32>,
}

impl Case {
    fn pixels(&self) -> usize {
        self.size.iter().product()
    }

    fn pooled(&self) -> usize {
        self.size[0] * (self.size[1] / 2) * (self.size[2] / 2)
    }

    /// Maps of a tile, and channels of one on the way back, as the executor has them.
    fn columns(&self) -> usize {
        if self.output > 64 { 128 } else { 64 }
    }

    /// Its kernels, whose products compute their operand, or read a precomputed one.
    fn program(&self, gpu: &Gpu, precision: Precision, made: bool) -> Program {
        let mut constants = vec![
            ("POOLED", usize::from(made)),
            ("HEIGHT", self.size[1]),
            ("WIDTH", self.size[2]),
            ("IN", self.input),
            ("OUT", self.output),
            ("OUT_STRIDE", self.out_stride),
            ("COLUMNS", self.columns()),
            (
                "VECTOR",
                vector(precision, &[self.input, self.output, self.out_stride]),
            ),
        ];
        constants.extend(Dropout::CONSTANTS);
        gpu.program(&family(&["stage/transition.cu"]), precision, &constants)
    }

    /// The operand that was computed before the products.
    fn pool(&self, gpu: &Gpu, program: &Program, precision: Precision, data: &Data) -> Buffer {
        let into = gpu.no_maps(precision, self.pooled() * self.input);
        let width = vector(precision, &[self.input, self.output, self.out_stride]);
        program.each(
            "transition_pool",
            self.pooled() * self.input / width,
            arguments![
                &gpu.maps(precision, &data.input),
                &gpu.floats(&data.norm.scale),
                &gpu.floats(&data.norm.shift),
                &into,
                self.pooled()
            ],
        );
        into
    }

    /// The four pixels under a pooled one.
    fn under(&self, q: usize) -> [usize; 4] {
        let [_, height, width] = self.size;
        let (tall, wide) = (height / 2, width / 2);
        let (image, y, x) = (q / (tall * wide), q / wide % tall, q % wide);
        [(0, 0), (0, 1), (1, 0), (1, 1)]
            .map(|(dy, dx)| (image * height + 2 * y + dy) * width + 2 * x + dx)
    }

    fn data(&self, precision: Precision) -> Data {
        let mut numbers = Numbers::new(self.pixels() as u64);
        Data {
            norm: Norm::random(self.input, 4),
            input: precision.round_all(&numbers.take(self.pixels() * self.input)),
            weight: numbers.take(self.output * self.input),
            dout: precision.round_all(&numbers.take(self.pooled() * self.output)),
        }
    }
}

/// Each case in both precisions, with dropout and without.
fn each(test: impl Fn(&Case, Precision, &Data, Dropout)) {
    for precision in Precision::ALL {
        for case in &CASES {
            for site in [-1, 2] {
                test(
                    case,
                    precision,
                    &case.data(precision),
                    Dropout { seed: 21, site },
                );
            }
        }
    }
}

/// The same, without dropout also where the operand of the products is made before them.
fn each_way(test: impl Fn(&Case, Precision, &Data, Dropout, bool)) {
    each(|case, precision, data, dropout| {
        test(case, precision, data, dropout, false);
        if dropout.site < 0 {
            test(case, precision, data, dropout, true);
        }
    });
}

/// Rows of a product for each pooled pixel, and the name of the kernel.
fn form(kernel: &str, dropout: Dropout) -> (usize, String) {
    match dropout.site {
        -1 => (1, kernel.into()),
        _ => (4, format!("{kernel}_dropped")),
    }
}

/// The operands of one pooled pixel and channel: one where the pool is done first, with dropout four.
fn operands(
    case: &Case,
    data: &Data,
    precision: Precision,
    group: usize,
    q: usize,
    c: usize,
) -> Vec<f64> {
    let after = case
        .under(q)
        .map(|p| data.norm.after(c, data.input[p * case.input + c]));
    match group {
        1 => vec![
            precision
                .round(0.25 * ((after[0] + after[1]) + (after[2] + after[3])))
                .into(),
        ],
        _ => after
            .iter()
            .map(|&value| precision.round(value).into())
            .collect(),
    }
}

#[test]
fn forward_and_its_statistics() {
    each_way(|case, precision, data, dropout, made| {
        let gpu = Gpu::new(1);
        let (group, kernel) = form("transition_forward", dropout);
        let (pooled, output) = (case.pooled(), case.output);
        let tiles = (pooled * group).div_ceil(ROWS);
        let out = gpu.no_maps(precision, pooled * case.out_stride);
        let partial = gpu.no_floats(tiles * output * 2);
        let program = case.program(&gpu, precision, made);
        let operand = if made {
            case.pool(&gpu, &program, precision, data)
        } else {
            gpu.maps(precision, &data.input)
        };
        program.tiled(
            &kernel,
            [tiles * output.div_ceil(case.columns()), 1, 1],
            arguments![
                &operand,
                &gpu.floats(&data.norm.scale),
                &gpu.floats(&data.norm.shift),
                &gpu.packed(precision, &data.weight, case.input, 1),
                &out,
                &partial,
                &gpu.scalars(dropout.seed, [0.0, 1.0], false, [0.0; 3], false),
                dropout.site,
                pooled,
                1
            ],
        );
        let mut expected = vec![f64::NAN; pooled * case.out_stride];
        for q in 0..pooled {
            let operands: Vec<_> = (0..case.input)
                .map(|c| operands(case, data, precision, group, q, c))
                .collect();
            for n in 0..output {
                let mut sum = 0.0;
                for (row, p) in case.under(q).into_iter().enumerate().take(group) {
                    let weights = data.weight[n * case.input..][..case.input].iter();
                    let products = weights
                        .zip(&operands)
                        .map(|(&w, of)| f64::from(precision.round(w)) * of[row]);
                    let share = if group == 4 {
                        0.25 * f64::from(dropout.factor(p * output + n))
                    } else {
                        1.0
                    };
                    sum += share * products.sum::<f64>();
                }
                expected[q * case.out_stride + n] = sum;
            }
        }
        let stored = out.read_maps(precision);
        let what = format!("{case:?} {precision:?} {dropout:?}, made before: {made}");
        check_stored(&what, precision, &stored, &expected);
        let rows = ROWS / group;
        let mut moments = vec![0.0; tiles * output * 2];
        for tile in 0..tiles {
            for n in 0..output {
                let of_tile = tile * rows..pooled.min((tile + 1) * rows);
                let value = |q: usize| f64::from(stored[q * case.out_stride + n]);
                let mean = of_tile.clone().map(value).sum::<f64>() / of_tile.len() as f64;
                moments[(tile * output + n) * 2] = mean;
                moments[(tile * output + n) * 2 + 1] =
                    of_tile.map(|q| (value(q) - mean).powi(2)).sum();
            }
        }
        check(
            &format!("moments, {what}"),
            &partial.read_floats(),
            &moments,
            1e-5,
        );
    });
}

/// The gradient of the convolution's output at a pixel under a pooled one, without the pool's 1/4.
fn behind(
    case: &Case,
    data: &Data,
    precision: Precision,
    dropout: Dropout,
    q: usize,
    p: usize,
    n: usize,
) -> f64 {
    let d = data.dout[q * case.output + n];
    precision
        .round(d * dropout.factor(p * case.output + n))
        .into()
}

#[test]
fn gradient_of_the_input() {
    each(|case, precision, data, dropout| {
        let gpu = Gpu::new(2);
        let (group, kernel) = form("transition_pull", dropout);
        let (pooled, input) = (case.pooled(), case.input);
        let tiles = (pooled * group).div_ceil(ROWS);
        let into = gpu.no_maps(precision, case.pixels() * input);
        let partial = gpu.no_floats(tiles * input * 2);
        case.program(&gpu, precision, false).tiled(
            &kernel,
            [tiles * input.div_ceil(case.columns()), 1, 1],
            arguments![
                &gpu.maps(precision, &data.dout),
                &gpu.packed(precision, &data.weight, case.input, 1),
                &gpu.maps(precision, &data.input),
                &gpu.floats(&data.norm.scale),
                &gpu.floats(&data.norm.shift),
                &gpu.floats(&data.norm.mean),
                &gpu.floats(&data.norm.gamma),
                &into,
                &partial,
                &gpu.scalars(dropout.seed, [0.0, 1.0], false, [0.0; 3], false),
                dropout.site,
                pooled
            ],
        );
        // Pixels that an odd side leaves out of the pool do not change.
        let mut expected = vec![f64::NAN; case.pixels() * input];
        let mut sums = vec![0.0; tiles * input * 2];
        for q in 0..pooled {
            for (corner, p) in case.under(q).into_iter().enumerate() {
                for c in 0..input {
                    let x = data.input[p * input + c];
                    let mut masked = 0.0;
                    if data.norm.before(c, x) > 0.0 {
                        for n in 0..case.output {
                            let w = f64::from(precision.round(data.weight[n * input + c]));
                            masked += 0.25 * behind(case, data, precision, dropout, q, p, n) * w;
                        }
                    }
                    expected[p * input + c] = f64::from(data.norm.gamma[c]) * masked;
                    let row = if group == 4 { 4 * q + corner } else { q };
                    let of_tile = &mut sums[(row / ROWS * input + c) * 2..][..2];
                    of_tile[0] += masked * f64::from(x - data.norm.mean[c]);
                    of_tile[1] += masked;
                }
            }
        }
        let what = format!("{case:?} {precision:?} {dropout:?}");
        check_stored(&what, precision, &into.read_maps(precision), &expected);
        check(
            &format!("sums, {what}"),
            &partial.read_floats(),
            &sums,
            1e-5,
        );
    });
}

#[test]
fn gradient_of_the_weight() {
    each_way(|case, precision, data, dropout, made| {
        let (group, kernel) = form("transition_weight", dropout);
        let (rows, count) = (case.pooled() * group, case.input * case.output);
        for length in [rows.next_multiple_of(16), 32] {
            let gpu = Gpu::new(3);
            let slices = rows.div_ceil(length);
            let share = gpu.no_floats(slices * count);
            let program = case.program(&gpu, precision, made);
            let operand = if made {
                case.pool(&gpu, &program, precision, data)
            } else {
                gpu.maps(precision, &data.input)
            };
            program.tiled(
                &kernel,
                [
                    case.output.div_ceil(case.columns()),
                    case.input.div_ceil(TILE_CHANNELS),
                    slices,
                ],
                arguments![
                    &gpu.maps(precision, &data.dout),
                    &operand,
                    &gpu.floats(&data.norm.scale),
                    &gpu.floats(&data.norm.shift),
                    &share,
                    &gpu.scalars(dropout.seed, [0.0, 1.0], false, [0.0; 3], false),
                    dropout.site,
                    case.pooled(),
                    length
                ],
            );
            let mut expected = vec![0.0; slices * count];
            for row in 0..rows {
                let (q, corner) = (row / group, row % group);
                let p = case.under(q)[corner];
                for c in 0..case.input {
                    // With dropout the pool's 1/4 is rounded into the operand.
                    let operand = match group {
                        1 => operands(case, data, precision, 1, q, c)[0],
                        _ => precision
                            .round(0.25 * data.norm.after(c, data.input[p * case.input + c]))
                            .into(),
                    };
                    for n in 0..case.output {
                        expected[row / length * count + n * case.input + c] +=
                            operand * behind(case, data, precision, dropout, q, p, n);
                    }
                }
            }
            let what = format!(
                "{case:?} {precision:?} {dropout:?}, made before: {made}, slices of {length}"
            );
            check(&what, &share.read_floats(), &expected, 1e-5);
        }
    });
}
