//! Batch normalisation around the convolutions: moments and sums put together, BN as multiply-adds,
//! BN undone.

use cuda_kernel_tests::{
    Dropout, GATHER_THREADS, Gpu, Numbers, Passed, Precision, Program, Slices, THREADS, arguments,
    check, check_stored, vector,
};

const EPSILON: f64 = 1e-5;
/// The most columns whose sums `finish` puts together.
const FINISHED: usize = 64;

/// The kernels for counts of channels.
fn program(gpu: &Gpu, precision: Precision, counts: &[usize]) -> Program {
    let vector = vector(precision, counts);
    let mut constants = Dropout::CONSTANTS.to_vec();
    constants.extend([
        ("VECTOR", vector),
        ("SWEPT", 4),
        ("GATHER_THREADS", GATHER_THREADS),
        ("FINISHED", FINISHED),
    ]);
    let files = ["program/common.cuh", "program/gather.cuh", "kernel/norm.cu"];
    gpu.program(&files, precision, &constants)
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
    for shape in TILES {
        measure(shape, false);
    }
}

/// Others may need the batch's statistics of what a frozen BN normalises.
#[test]
fn a_frozen_norm_measures_and_keeps_its_running_statistics() {
    for shape in TILES {
        measure(shape, true);
    }
}

fn measure([tiles, rows, pixels, channels, lanes]: [usize; 5], frozen: bool) {
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
    let [scale, shift, effective] = [(); 3].map(|()| gpu.no_floats(all));
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
            &effective,
            2usize,
            channels,
            tiles,
            rows,
            pixels,
            all,
            1usize,
            usize::from(frozen),
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
    let deviation = |c: usize| match frozen {
        true => 1.0 / (f64::from(moving[all + c]) + EPSILON).sqrt(),
        false => inverses[c],
    };
    let scales = (0..all).map(|c| deviation(c) * f64::from(before[c]));
    let scales: Vec<f64> = scales.collect();
    check(&what, &scale.read_floats(), &scales, 1e-5);
    if frozen {
        let product = effective.read_floats().into_iter().zip(&inverses);
        let product: Vec<f32> = product.map(|(own, &i)| own * i as f32).collect();
        check(&what, &product, &scales, 1e-5);
        assert_eq!(running.read_floats(), moving);
        return;
    }
    // Each channel has moved once.
    let means = of(&|mean, _| mean);
    let moved = moving.iter().zip(&means);
    let moved: Vec<_> = moved
        .map(|(&m, mean)| 0.9 * f64::from(m) + 0.1 * mean)
        .collect();
    check(&what, &running.read_floats()[..all], &moved, 1e-5);
}

#[test]
fn sums_of_tiles_are_added_once() {
    for [tiles, _, _, channels, lanes] in TILES {
        gather(tiles, channels, lanes);
    }
}

#[test]
fn sums_of_no_tiles_count_as_zeros() {
    gather(0, 5, 4);
    gather(0, 70, 32);
}

fn gather(tiles: usize, channels: usize, lanes: usize) {
    for add in [false, true] {
        let gpu = Gpu::new(2);
        let passed = Passed::random(tiles, channels, add);
        let at = passed.on(&gpu);
        // A weight goes along, in its order or not.
        let slices = Slices::random(tiles.clamp(1, 64), add);
        let [share, gradient] = slices.on(&gpu);
        // The threads of a value: one, some, more than slices.
        let parts = [1, 4, 16][(tiles + usize::from(add)) % 3];
        let blocks = (slices.count * parts).div_ceil(GATHER_THREADS);
        program(&gpu, Precision::F32, &[1]).launch(
            "gather",
            [channels.div_ceil(lanes) + blocks, 1, 1],
            GATHER_THREADS,
            arguments![
                &at.partial,
                &at.gamma,
                &at.inverse,
                &at.into[0],
                &at.into[1],
                &at.into[2],
                &at.into[3],
                tiles,
                channels,
                usize::from(add),
                lanes,
                &share,
                &gradient,
                slices.slices,
                slices.count,
                slices.order[0],
                slices.order[1],
                parts
            ],
        );
        passed.check(&format!("{tiles} tiles, add {add}"), &at, channels);
        slices.check("weight", &gradient);
    }
}

#[test]
fn a_consumers_norm_is_a_multiply_add() {
    for [training, frozen] in [[0, 0], [0, 1], [1, 0], [1, 1]] {
        for (channels, pixels) in [(1, 1), (70, 35), (600, 7)] {
            let gpu = Gpu::new(3);
            let mut numbers = Numbers::new(channels as u64);
            let [gamma, beta, mean] = [(); 3].map(|()| numbers.take(channels));
            let variance = numbers.around(channels, 1.5, 1.0);
            let inverse: Vec<f32> = variance.iter().map(|v| 1.0 / (v + 1e-5).sqrt()).collect();
            let mut before = numbers.take(channels);
            before.extend(numbers.around(channels, 1.5, 1.0));
            let running = gpu.floats(&before);
            let [scale, shift, effective] = [(); 3].map(|()| gpu.no_floats(channels));
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
                    &effective,
                    0usize,
                    0usize,
                    0usize,
                    0usize,
                    pixels,
                    channels,
                    training,
                    frozen,
                    32usize
                ],
            );
            let mut expected = [vec![], vec![], vec![], vec![]];
            let moves = [training, frozen] == [1, 0];
            for c in 0..channels {
                let (old_mean, old_variance) =
                    (f64::from(before[c]), f64::from(before[channels + c]));
                let (m, v) = match moves {
                    true => (f64::from(mean[c]), f64::from(variance[c])),
                    false => (old_mean, old_variance),
                };
                let s = f64::from(gamma[c]) / (v + EPSILON).sqrt();
                // PyTorch's rule: the running variance is of the unbiased one; of one value it has
                // none.
                let unbiased = v * pixels as f64 / (pixels.max(2) - 1) as f64;
                let moved = |old: f64, new: f64| {
                    if moves { 0.9 * old + 0.1 * new } else { old }
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
            let what = format!("{channels} channels, training {training}, frozen {frozen}");
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
            for (first, site) in [(0, -1), (stride / 2, 3)] {
                let columns = [first, stride - first];
                finish(precision, [pixels, stride, blocks], columns, site, 0);
            }
        }
    }
}

/// Tiles of the last consumer's sums, columns' first one and their number: fewer than are summed at
/// once, more, the most.
const LEFT: [[usize; 3]; 5] = [
    [1, 0, 8],
    [3, 24, 8],
    [200, 16, 24],
    [9, 64, 64],
    [300, 5, 33],
];

#[test]
fn columns_are_finished_with_what_their_last_consumer_left() {
    for precision in Precision::ALL {
        for [tiles, first, count] in LEFT {
            for pixels in [1, 300] {
                let size = [pixels, first + count, 2];
                finish(precision, size, [first, count], 3, tiles);
            }
        }
    }
}

/// Finishes columns whose last consumer may have left the sums of some tiles and the shares of a
/// weight.
fn finish(
    precision: Precision,
    [pixels, stride, blocks]: [usize; 3],
    [first, count]: [usize; 2],
    site: i32,
    tiles: usize,
) {
    let gpu = Gpu::new(4);
    let mut sums = Sums::new(stride);
    let mut passed = Passed::random(tiles.max(1), stride, true);
    passed.inverse = sums.inverse.clone();
    passed.before[2] = sums.plain.clone();
    passed.before[3] = sums.normalised.clone();
    let at = passed.on(&gpu);
    let mut slices = Slices::random(12, false);
    if tiles == 0 {
        slices.count = 0;
    }
    let [share, gradient] = slices.on(&gpu);
    let (lanes, parts) = ([4, 32][tiles % 2], [1, 4][tiles % 2]);
    let groups = if tiles > 0 { stride.div_ceil(lanes) } else { 0 };
    let others = groups + (slices.count * parts).div_ceil(THREADS);
    let mut numbers = Numbers::new(8);
    let [g, x] = [(); 2].map(|()| precision.round_all(&numbers.take(pixels * stride)));
    let into = gpu.no_maps(precision, pixels * count);
    let dropout = Dropout { seed: 5, site };
    let program = program(&gpu, precision, &[stride, first, count]);
    program.tiled(
        "finish",
        [others + blocks, 1, 1],
        arguments![
            &gpu.maps(precision, &g),
            &gpu.maps(precision, &x),
            &gpu.floats(&sums.mean),
            &at.inverse,
            &at.into[2],
            &at.into[3],
            &into,
            &gpu.scalars(5, [0.0, 1.0], false, [0.0; 3], false),
            stride,
            first,
            count,
            pixels,
            site,
            &at.partial,
            &at.gamma,
            &at.into[0],
            &at.into[1],
            tiles,
            lanes,
            &share,
            &gradient,
            slices.slices,
            slices.count,
            1usize,
            1usize,
            parts
        ],
    );
    let what = format!("{precision:?} {pixels} x {count} of {stride}, {tiles} tiles");
    if tiles > 0 {
        passed.check(&what, &at, first);
        slices.check(&what, &gradient);
        for c in first..stride {
            let [_, _, plain, normalised] = passed.expected(c);
            (sums.plain[c], sums.normalised[c]) = (plain[0] as f32, normalised[0] as f32);
        }
    }
    let expected: Vec<f64> = (0..pixels * count)
        .map(|i| {
            let (p, c) = (i / count, first + i % count);
            let at = p * stride + c;
            sums.undo(c, 1.0, g[at], x[at], pixels) * f64::from(dropout.factor(i))
        })
        .collect();
    check_stored(&what, precision, &into.read_maps(precision), &expected);
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
                // The 3x3 weight's shares go along.
                let slices = Slices::random(pixels.min(40), true);
                let [share, gradient] = slices.on(&gpu);
                let parts = [1, 8][pixels % 2];
                let others = (slices.count * parts).div_ceil(THREADS);
                let program = program(&gpu, precision, &[maps]);
                program.tiled(
                    "undo",
                    [others + blocks, 1, 1],
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
                        site,
                        &share,
                        &gradient,
                        slices.slices,
                        slices.count,
                        slices.order[0],
                        slices.order[1],
                        parts
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
                slices.check(&what, &gradient);
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
