//! Batch normalisation around the convolutions: moments and sums put together, BN as multiply-adds,
//! BN undone.

use cuda_kernel_tests::{
    Buffer, Dropout, GATHER_THREADS, Gpu, Numbers, Precision, Program, arguments, check,
    check_stored, vector,
};

const EPSILON: f64 = 1e-5;

/// The kernels for counts of channels.
fn program(gpu: &Gpu, precision: Precision, counts: &[usize]) -> Program {
    let vector = vector(precision, counts);
    let mut constants = Dropout::CONSTANTS.to_vec();
    constants.extend([
        ("VECTOR", vector),
        ("SWEPT", 4),
        ("GATHER_THREADS", GATHER_THREADS),
    ]);
    gpu.program(
        &["program/common.cuh", "kernel/norm.cu"],
        precision,
        &constants,
    )
}

/// Tiles, rows of a tile, pixels, channels, channels of a block: fewer tiles than threads, more, more
/// than are loaded at once, a last tile of one row; blocks with channels that do not exist.
const TILES: [[usize; 5]; 6] = [
    [1, 64, 1, 1, 32],
    [3, 64, 150, 5, 4],
    [200, 16, 3185, 3, 4],
    [129, 64, 8193, 2, 4],
    [40, 8, 313, 21, 16],
    [1100, 2, 2199, 9, 8],
];

#[test]
fn moments_of_tiles_are_those_of_all_values() {
    for [tiles, rows, pixels, channels, lanes] in TILES {
        let gpu = Gpu::new(1);
        let mut numbers = Numbers::new(tiles as u64);
        let values: Vec<Vec<f64>> = (0..channels)
            .map(|c| {
                (0..pixels)
                    .map(|_| f64::from(numbers.draw()) + 3.0 * c as f64)
                    .collect()
            })
            .collect();
        let moments = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>())
        };
        let mut partial = Vec::new();
        for tile in 0..tiles {
            for values in &values {
                let (mean, squares) = moments(&values[tile * rows..pixels.min((tile + 1) * rows)]);
                partial.extend([mean as f32, squares as f32]);
            }
        }
        // Two channels before them and one after have their statistics already.
        let all = channels + 3;
        let before = numbers.around(all, 1.5, 1.0);
        let [mean, variance, inverse] = [(); 3].map(|()| gpu.floats(&before));
        let moving = numbers.around(2 * all, 1.5, 1.0);
        let running = gpu.floats(&moving);
        let gamma = gpu.floats(&before);
        let [scale, shift] = [(); 2].map(|()| gpu.no_floats(all));
        program(&gpu, Precision::F32, &[1]).launch(
            "prepare",
            [channels.div_ceil(lanes) + 1, 1, 1],
            GATHER_THREADS,
            arguments![
                &gpu.floats(&partial),
                &gamma,
                &gamma,
                &mean,
                &variance,
                &inverse,
                &running,
                &scale,
                &shift,
                2usize,
                channels,
                tiles,
                rows,
                pixels,
                all,
                1usize,
                lanes
            ],
        );
        let of = |number: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            let mut expected: Vec<_> = before.iter().map(|&v| f64::from(v)).collect();
            for (into, values) in expected[2..].iter_mut().zip(&values) {
                let (mean, squares) = moments(values);
                *into = number(mean, squares / pixels as f64);
            }
            expected
        };
        let what = format!("{tiles} tiles");
        let inverses = of(&|_, v| 1.0 / (v + EPSILON).sqrt());
        check(&what, &mean.read_floats(), &of(&|mean, _| mean), 1e-6);
        check(&what, &variance.read_floats(), &of(&|_, v| v), 1e-5);
        check(&what, &inverse.read_floats(), &inverses, 1e-5);
        let scales = inverses.iter().zip(&before);
        let scales: Vec<_> = scales.map(|(i, &gamma)| i * f64::from(gamma)).collect();
        check(&what, &scale.read_floats(), &scales, 1e-5);
        // Each channel has moved once.
        let means = of(&|mean, _| mean);
        let moved = moving.iter().zip(&means);
        let moved: Vec<_> = moved
            .map(|(&m, mean)| 0.9 * f64::from(m) + 0.1 * mean)
            .collect();
        check(&what, &running.read_floats()[..all], &moved, 1e-5);
    }
}

#[test]
fn sums_of_tiles_are_added_once() {
    for [tiles, _, _, channels, lanes] in TILES {
        for add in [0, 1] {
            let gpu = Gpu::new(2);
            let mut numbers = Numbers::new(tiles as u64);
            let partial = numbers.take(tiles * channels * 2);
            let [gamma, inverse] = [(); 2].map(|()| numbers.around(channels, 1.5, 1.0));
            let before: Vec<Vec<f32>> = (0..4).map(|_| numbers.take(channels)).collect();
            let into: Vec<Buffer> = before.iter().map(|values| gpu.floats(values)).collect();
            // A weight of some values goes along: 4 maps, 9 taps, 7 channels, in its order or not.
            let (slices, count) = (tiles.min(64), 252);
            let (taps, across) = if add == 1 { (9, 7) } else { (1, 1) };
            // The threads of a value: one, some, more than slices.
            let parts = [1, 4, 16][(tiles + usize::from(add == 1)) % 3];
            let (share, weight) = (numbers.take(slices * count), numbers.take(count));
            let gradient = gpu.floats(&weight);
            program(&gpu, Precision::F32, &[1]).launch(
                "gather",
                [
                    channels.div_ceil(lanes) + (count * parts).div_ceil(GATHER_THREADS),
                    1,
                    1,
                ],
                GATHER_THREADS,
                arguments![
                    &gpu.floats(&partial),
                    &gpu.floats(&gamma),
                    &gpu.floats(&inverse),
                    &into[0],
                    &into[1],
                    &into[2],
                    &into[3],
                    tiles,
                    channels,
                    add,
                    lanes,
                    &gpu.floats(&share),
                    &gradient,
                    slices,
                    count,
                    taps,
                    across,
                    parts
                ],
            );
            let sum = |i: usize| -> f64 {
                // Where value i of the weight, maps x channels x taps, is in a share.
                let (map, channel, tap) = (i / taps / across, i / taps % across, i % taps);
                let at = (map * taps + tap) * across + channel;
                let shares = (0..slices).map(|slice| f64::from(share[slice * count + at]));
                f64::from(weight[i]) + shares.sum::<f64>()
            };
            let expected: Vec<_> = (0..count).map(sum).collect();
            check("weight", &gradient.read_floats(), &expected, 1e-5);
            for c in 0..channels {
                let sum = |which: usize| -> f64 {
                    (0..tiles)
                        .map(|tile| f64::from(partial[(tile * channels + c) * 2 + which]))
                        .sum()
                };
                let (dgamma, dbeta) = (sum(0) * f64::from(inverse[c]), sum(1));
                let g = f64::from(gamma[c]);
                let kept = f64::from(add);
                for (i, (more, keep)) in [
                    (dgamma, 1.0),
                    (dbeta, 1.0),
                    (g * dbeta, kept),
                    (g * dgamma, kept),
                ]
                .into_iter()
                .enumerate()
                {
                    let expected = keep * f64::from(before[i][c]) + more;
                    let found = into[i].read_floats()[c];
                    let off = (f64::from(found) - expected).abs();
                    assert!(
                        off < 1e-5 * (1.0 + more.abs()),
                        "{tiles} tiles, add {add}, sum {i}: {found}, not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_consumers_norm_is_a_multiply_add() {
    for training in [0, 1] {
        for (channels, pixels) in [(1, 1), (70, 35), (600, 7)] {
            let gpu = Gpu::new(3);
            let mut numbers = Numbers::new(channels as u64);
            let [gamma, beta, mean] = [(); 3].map(|()| numbers.take(channels));
            let variance = numbers.around(channels, 1.5, 1.0);
            let inverse: Vec<f32> = variance.iter().map(|v| 1.0 / (v + 1e-5).sqrt()).collect();
            let mut before = numbers.take(channels);
            before.extend(numbers.around(channels, 1.5, 1.0));
            let running = gpu.floats(&before);
            let [scale, shift] = [(); 2].map(|()| gpu.no_floats(channels));
            program(&gpu, Precision::F32, &[1]).launch(
                "prepare",
                [channels.div_ceil(GATHER_THREADS), 1, 1],
                GATHER_THREADS,
                arguments![
                    &gpu.nothing(4),
                    &gpu.floats(&gamma),
                    &gpu.floats(&beta),
                    &gpu.floats(&mean),
                    &gpu.floats(&variance),
                    &gpu.floats(&inverse),
                    &running,
                    &scale,
                    &shift,
                    0usize,
                    0usize,
                    0usize,
                    0usize,
                    pixels,
                    channels,
                    training,
                    32usize
                ],
            );
            let mut expected = [vec![], vec![], vec![], vec![]];
            for c in 0..channels {
                let (old_mean, old_variance) =
                    (f64::from(before[c]), f64::from(before[channels + c]));
                let (m, v) = match training {
                    1 => (f64::from(mean[c]), f64::from(variance[c])),
                    _ => (old_mean, old_variance),
                };
                let s = f64::from(gamma[c]) / (v + EPSILON).sqrt();
                // PyTorch's rule: the running variance is of the unbiased one; of one value it has
                // none.
                let unbiased = v * pixels as f64 / (pixels.max(2) - 1) as f64;
                let moved = |old: f64, new: f64| {
                    if training == 1 {
                        0.9 * old + 0.1 * new
                    } else {
                        old
                    }
                };
                let values = [
                    s,
                    f64::from(beta[c]) - m * s,
                    moved(old_mean, m),
                    moved(old_variance, unbiased),
                ];
                for (into, value) in expected.iter_mut().zip(values) {
                    into.push(value);
                }
            }
            let what = format!("{channels} channels, training {training}");
            let found = running.read_floats();
            for (found, expected) in [
                &scale.read_floats(),
                &shift.read_floats(),
                &found[..channels],
                &found[channels..],
            ]
            .into_iter()
            .zip(&expected)
            {
                check(&what, found, expected, 1e-5);
            }
        }
    }
}

/// Statistics and sums of some channels.
struct Sums {
    mean: Vec<f32>,
    inverse: Vec<f32>,
    gamma: Vec<f32>,
    plain: Vec<f32>,
    normalised: Vec<f32>,
}

impl Sums {
    fn new(channels: usize) -> Self {
        let mut numbers = Numbers::new(channels as u64);
        Self {
            mean: numbers.take(channels),
            inverse: numbers.around(channels, 1.5, 1.0),
            gamma: numbers.around(channels, -0.5, 1.0),
            plain: numbers.around(channels, 5.0, 5.0),
            normalised: numbers.around(channels, -5.0, 9.0),
        }
    }

    /// dx = inverse * (gamma g - mean(gamma g) - xhat * mean(gamma g * xhat)), where the sums have
    /// gamma in them.
    fn undo(&self, c: usize, gamma: f64, g: f32, x: f32, pixels: usize) -> f64 {
        let inverse = f64::from(self.inverse[c]);
        let xhat = f64::from(x - self.mean[c]) * inverse;
        let means = f64::from(self.plain[c]) + xhat * f64::from(self.normalised[c]);
        inverse * (gamma * f64::from(g) - means / pixels as f64)
    }
}

/// Pixels, channels, blocks: each thread has one vector, several, or several loads; some threads are
/// left over.
const UNDONE: [[usize; 3]; 6] = [
    [1, 1, 1],
    [35, 12, 3],
    [105, 70, 2],
    [1500, 3, 1],
    [41, 64, 1],
    [70, 300, 2],
];

#[test]
fn columns_of_a_block_are_finished() {
    for precision in Precision::ALL {
        for [pixels, stride, blocks] in UNDONE {
            for (first, count, site) in [(0, stride, -1), (stride / 2, stride - stride / 2, 3)] {
                let gpu = Gpu::new(4);
                let sums = Sums::new(stride);
                let mut numbers = Numbers::new(8);
                let [g, x] = [(); 2].map(|()| precision.round_all(&numbers.take(pixels * stride)));
                let into = gpu.no_maps(precision, pixels * count);
                let dropout = Dropout { seed: 5, site };
                let program = program(&gpu, precision, &[stride, first, count]);
                program.tiled(
                    "finish",
                    [blocks, 1, 1],
                    arguments![
                        &gpu.maps(precision, &g),
                        &gpu.maps(precision, &x),
                        &gpu.floats(&sums.mean),
                        &gpu.floats(&sums.inverse),
                        &gpu.floats(&sums.plain),
                        &gpu.floats(&sums.normalised),
                        &into,
                        &gpu.scalars(5, [0.0, 1.0], false, [0.0; 3], false),
                        stride,
                        first,
                        count,
                        pixels,
                        site
                    ],
                );
                let expected: Vec<f64> = (0..pixels * count)
                    .map(|i| {
                        let (p, c) = (i / count, first + i % count);
                        let at = p * stride + c;
                        sums.undo(c, 1.0, g[at], x[at], pixels) * f64::from(dropout.factor(i))
                    })
                    .collect();
                let what = format!("{precision:?} {pixels} x {count} of {stride}");
                check_stored(&what, precision, &into.read_maps(precision), &expected);
            }
        }
    }
}

#[test]
fn bottleneck_maps_are_undone_in_place() {
    for precision in Precision::ALL {
        for [pixels, maps, blocks] in UNDONE {
            for site in [-1, 3] {
                let gpu = Gpu::new(5);
                let sums = Sums::new(maps);
                let mut numbers = Numbers::new(8);
                let [g, y] = [(); 2].map(|()| precision.round_all(&numbers.take(pixels * maps)));
                let dy = gpu.maps(precision, &g);
                let dropout = Dropout { seed: 6, site };
                let program = program(&gpu, precision, &[maps]);
                program.tiled(
                    "undo",
                    [blocks, 1, 1],
                    arguments![
                        &dy,
                        &gpu.maps(precision, &y),
                        &gpu.floats(&sums.mean),
                        &gpu.floats(&sums.inverse),
                        &gpu.floats(&sums.gamma),
                        &gpu.floats(&sums.plain),
                        &gpu.floats(&sums.normalised),
                        &gpu.scalars(6, [0.0, 1.0], false, [0.0; 3], false),
                        maps,
                        pixels,
                        site
                    ],
                );
                let expected: Vec<f64> = (0..pixels * maps)
                    .map(|i| {
                        let c = i % maps;
                        let undone = sums.undo(c, sums.gamma[c].into(), g[i], y[i], pixels);
                        undone * f64::from(dropout.factor(i))
                    })
                    .collect();
                let what = format!("{precision:?} {pixels} x {maps}");
                check_stored(&what, precision, &dy.read_maps(precision), &expected);
            }
        }
    }
}

#[test]
fn what_undoing_multiplies_and_adds() {
    for [pixels, maps] in [[40, 1], [7, 300]] {
        let gpu = Gpu::new(6);
        let sums = Sums::new(maps);
        let into = gpu.no_floats(4 * maps);
        program(&gpu, Precision::F32, &[1]).each(
            "undo_numbers",
            maps,
            arguments![
                &gpu.floats(&sums.mean),
                &gpu.floats(&sums.inverse),
                &gpu.floats(&sums.gamma),
                &gpu.floats(&sums.plain),
                &gpu.floats(&sums.normalised),
                &into,
                maps,
                pixels
            ],
        );
        let numbers = into.read_floats();
        let (g, x) = (0.7, -1.3);
        let found: Vec<f32> = (0..maps)
            .map(|c| {
                let [scale, slope, shift, mean] = [0, 1, 2, 3].map(|i| numbers[i * maps + c]);
                scale * g + slope * (x - mean) + shift
            })
            .collect();
        let expected: Vec<f64> = (0..maps)
            .map(|c| sums.undo(c, sums.gamma[c].into(), g, x, pixels))
            .collect();
        check("numbers", &found, &expected, 1e-5);
    }
}
