//! The stem: the convolution of images, BN, ReLU and max pool, and their backward pass.

use cuda_kernel_tests::{
    COLUMNS, Gpu, Norm, Numbers, Precision, Program, ROWS, SHARED, arguments, check, check_stored,
    family, vector,
};

/// Pixels of a tile of the convolution from staged rows of the images.
const STRIP: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Case {
    /// Side and stride of the convolution: 3 and 1 without a pool, 7 and 2 with one.
    kernel: usize,
    step: usize,
    channels: usize,
    /// Batch, height, width.
    size: [usize; 3],
    maps: usize,
    /// Channels of the next block.
    stride: usize,
}

const fn case(pool: bool, channels: usize, size: [usize; 3], maps: usize, stride: usize) -> Case {
    Case {
        kernel: if pool { 7 } else { 3 },
        step: if pool { 2 } else { 1 },
        channels,
        size,
        maps,
        stride,
    }
}

const CASES: [Case; 15] = [
    case(false, 1, [1, 1, 1], 1, 1),
    case(false, 3, [2, 5, 9], 24, 60),
    case(false, 2, [1, 7, 3], 66, 70),
    case(false, 3, [3, 8, 8], 16, 16),
    case(true, 1, [1, 1, 1], 2, 3),
    case(true, 3, [2, 9, 13], 12, 20),
    case(true, 3, [1, 16, 12], 66, 70),
    case(true, 2, [3, 5, 6], 8, 8),
    case(true, 3, [2, 11, 6], 72, 96),
    case(true, 4, [1, 9, 10], 16, 32),
    case(false, 3, [2, 7, 6], 72, 96),
    // Tiles of many images, of a part of a row, and of the first and the last of three.
    case(true, 1, [70, 2, 3], 8, 8),
    case(true, 1, [1, 3, 1033], 32, 64),
    case(true, 3, [2, 40, 34], 64, 96),
    case(false, 3, [3, 17, 20], 24, 48),
];

/// The byte of a pooled pixel that no gradient goes through.
const NONE: u8 = 255;

impl Case {
    fn pooled(&self) -> bool {
        self.step == 2
    }

    fn patch(&self) -> usize {
        self.kernel * self.kernel * self.channels
    }

    /// Elements of a patch in a tile of the weight's gradient, as the executor has them.
    fn elements(&self) -> usize {
        let tiles = self.patch().div_ceil(160);
        self.patch().div_ceil(tiles).next_multiple_of(32)
    }

    /// Height and width of the convolution's output.
    fn convolved(&self) -> [usize; 2] {
        [
            self.size[1].div_ceil(self.step),
            self.size[2].div_ceil(self.step),
        ]
    }

    /// Maps of a tile where rows of the images are staged.
    fn strip_maps(&self) -> usize {
        if self.maps > 32 { 64 } else { 32 }
    }

    fn pixels(&self) -> usize {
        self.size[0] * self.convolved().iter().product::<usize>()
    }

    /// Height and width after the pool.
    fn after(&self) -> [usize; 2] {
        self.convolved().map(|side| side.div_ceil(2))
    }

    /// Its kernels; those that stage rows of the images, or those that gather patches.
    fn program(&self, gpu: &Gpu, precision: Precision, strips: bool) -> Program {
        let constants = [
            ("KERNEL", self.kernel),
            ("STEP", self.step),
            ("CHANNELS", self.channels),
            ("HEIGHT", self.size[1]),
            ("WIDTH", self.size[2]),
            ("MAPS", self.maps),
            ("ELEMENTS", self.elements()),
            ("POOL", usize::from(self.pooled())),
            ("VECTOR", vector(precision, &[self.maps, self.stride])),
            ("STRIP", if strips { STRIP } else { 0 }),
            ("STEM_FORWARD_SHARED", SHARED),
            ("STEM_WEIGHT_SHARED", SHARED),
        ];
        let convolution = if strips {
            "stage/strips.cu"
        } else {
            "stage/patches.cu"
        };
        let mut files = vec!["stage/stem.cu", convolution];
        if self.pooled() {
            files.push("stage/pool.cu");
        }
        gpu.program(&family(&files), precision, &constants)
    }

    /// The image's value under an output pixel, a channel and a place of the kernel; 0 outside.
    fn image(&self, images: &[f32], p: usize, c: usize, place: usize) -> f64 {
        let [tall, wide] = self.convolved();
        let (image, y, x) = (p / (tall * wide), p / wide % tall, p % wide);
        let inside = |at: usize, place: usize, side: usize| {
            (at * self.step + place)
                .checked_sub(self.kernel / 2)
                .filter(|&at| at < side)
        };
        let [_, height, width] = self.size;
        match (
            inside(y, place / self.kernel, height),
            inside(x, place % self.kernel, width),
        ) {
            (Some(y), Some(x)) => {
                images[((image * height + y) * width + x) * self.channels + c].into()
            }
            _ => 0.0,
        }
    }

    fn images(&self, precision: Precision) -> Vec<f32> {
        let count = self.size.iter().product::<usize>() * self.channels;
        precision.round_all(&Numbers::new(count as u64).take(count))
    }

    /// The convolution's output, as input of the pool. It has few different values, so that there
    /// are ties; the ReLU cuts off the whole first map.
    fn maps(&self, precision: Precision) -> Vec<f32> {
        let mut numbers = Numbers::new(5);
        let value = |i: usize| match i % self.maps {
            0 => -9.0,
            _ => (numbers.draw() * 8.0).round() / 4.0,
        };
        precision.round_all(
            &(0..self.pixels() * self.maps)
                .map(value)
                .collect::<Vec<_>>(),
        )
    }

    /// For each pooled value, where its nine pixels are.
    fn window(&self, q: usize) -> Vec<(u8, usize)> {
        let ([tall, wide], [height, width]) = (self.after(), self.convolved());
        let (image, y, x) = (q / (tall * wide), q / wide % tall, q % wide);
        let mut inside = Vec::new();
        for place in 0..9 {
            let at = |middle: usize, by: usize, side: usize| {
                (2 * middle + by).checked_sub(1).filter(|&at| at < side)
            };
            if let (Some(y), Some(x)) = (at(y, place / 3, height), at(x, place % 3, width)) {
                inside.push((place as u8, (image * height + y) * width + x));
            }
        }
        inside
    }

    fn pooled_pixels(&self) -> usize {
        self.size[0] * self.after().iter().product::<usize>()
    }

    /// The pool: values, and which was taken (the first of the largest).
    fn pool(&self, norm: &Norm, maps: &[f32]) -> (Vec<f32>, Vec<u8>) {
        let (mut values, mut choices) = (Vec::new(), Vec::new());
        for q in 0..self.pooled_pixels() {
            for m in 0..self.maps {
                let mut best = (f32::NEG_INFINITY, NONE);
                for (place, p) in self.window(q) {
                    let z = norm.before(m, maps[p * self.maps + m]);
                    if z > best.0 {
                        best = (z, place);
                    }
                }
                values.push(best.0.max(0.0));
                choices.push(if best.0 > 0.0 { best.1 } else { NONE });
            }
        }
        (values, choices)
    }

    /// The gradient of the convolution's BN: each pooled value's goes where it came from.
    fn scatter(&self, dout: &[f32], choices: &[u8]) -> Vec<f64> {
        let mut gradient = vec![0.0; self.pixels() * self.maps];
        for q in 0..self.pooled_pixels() {
            for (place, p) in self.window(q) {
                for m in 0..self.maps {
                    if choices[q * self.maps + m] == place {
                        gradient[p * self.maps + m] += f64::from(dout[q * self.maps + m]);
                    }
                }
            }
        }
        gradient
    }
}

/// Moments of some maps, in rows of `stride`, for tiles of this many pixels.
fn moments(stored: &[f32], tile: usize, pixels: usize, maps: usize, stride: usize) -> Vec<f64> {
    let mut moments = Vec::new();
    for first in (0..pixels).step_by(tile) {
        let rows = first..pixels.min(first + tile);
        for m in 0..maps {
            let value = |p: usize| f64::from(stored[p * stride + m]);
            let mean = rows.clone().map(value).sum::<f64>() / rows.len() as f64;
            moments.push(mean);
            moments.push(rows.clone().map(|p| (value(p) - mean).powi(2)).sum());
        }
    }
    moments
}

fn each(test: impl Fn(&Case, Precision)) {
    for precision in Precision::ALL {
        for case in &CASES {
            test(case, precision);
        }
    }
}

/// The convolution's output, with NaN where nothing is written.
fn convolution(case: &Case, precision: Precision, images: &[f32], weight: &[f32]) -> Vec<f64> {
    let mut expected = vec![f64::NAN; case.pixels() * case.stride];
    let places = case.kernel * case.kernel;
    for p in 0..case.pixels() {
        for m in 0..case.maps {
            let mut sum = 0.0;
            for c in 0..case.channels {
                for place in 0..places {
                    let w = precision.round(weight[(m * case.channels + c) * places + place]);
                    sum += f64::from(w) * case.image(images, p, c, place);
                }
            }
            expected[p * case.stride + m] = sum;
        }
    }
    expected
}

/// Runs the convolution with tiles of this many pixels, with at most one block for each tile.
fn convolve(case: &Case, precision: Precision, strips: bool, blocks: usize) {
    let gpu = Gpu::new(1);
    let images = case.images(precision);
    let weight = Numbers::new(2).take(case.maps * case.patch());
    let (pixels, maps) = (case.pixels(), case.maps);
    let (tile, across) = match strips {
        true => (STRIP, case.strip_maps()),
        false => (ROWS, COLUMNS),
    };
    let tiles = pixels.div_ceil(tile);
    let out = gpu.no_maps(precision, pixels * case.stride);
    let partial = gpu.no_floats(tiles * maps * 2);
    case.program(&gpu, precision, strips).tiled_in_shared(
        "stem_forward",
        [tiles.min(blocks), maps.div_ceil(across), 1],
        arguments![
            &gpu.maps(precision, &images),
            &gpu.floats(&weight),
            &out,
            &partial,
            case.stride,
            pixels,
            1
        ],
    );
    let stored = out.read_maps(precision);
    check_stored(
        &format!("{case:?} {precision:?}, strips: {strips}"),
        precision,
        &stored,
        &convolution(case, precision, &images, &weight),
    );
    check(
        "moments",
        &partial.read_floats(),
        &moments(&stored, tile, pixels, maps, case.stride),
        1e-5,
    );
}

#[test]
fn convolution_of_patches_and_its_statistics() {
    each(|case, precision| convolve(case, precision, false, usize::MAX));
}

/// Tests kernels that stage rows of the images.
fn each_of_strips(test: impl Fn(&Case)) {
    // The rows under this many images of one pixel do not fit.
    CASES.iter().filter(|case| case.pixels() > 1).for_each(test);
}

#[test]
fn convolution_of_strips_and_its_statistics() {
    each_of_strips(|case| convolve(case, Precision::Bf16, true, 2));
}

#[test]
fn pool_and_its_statistics() {
    each(|case, precision| {
        if !case.pooled() {
            return;
        }
        let gpu = Gpu::new(2);
        let (norm, maps) = (Norm::random(case.maps, 6), case.maps(precision));
        let pooled = case.pooled_pixels();
        let tiles = pooled.div_ceil(ROWS);
        let out = gpu.no_maps(precision, pooled * case.stride);
        let choice = gpu.nothing(pooled * case.maps);
        let partial = gpu.no_floats(tiles * case.maps * 2);
        case.program(&gpu, precision, false).tiled(
            "stem_pool",
            [tiles, case.maps.div_ceil(COLUMNS), 1],
            arguments![
                &gpu.maps(precision, &maps),
                &gpu.floats(&norm.scale),
                &gpu.floats(&norm.shift),
                &out,
                &choice,
                &partial,
                case.stride,
                pooled,
                1
            ],
        );
        let (values, choices) = case.pool(&norm, &maps);
        let mut expected = vec![f64::NAN; pooled * case.stride];
        for (i, &value) in values.iter().enumerate() {
            expected[i / case.maps * case.stride + i % case.maps] = value.into();
        }
        let stored = out.read_maps(precision);
        check_stored(
            &format!("{case:?} {precision:?}"),
            precision,
            &stored,
            &expected,
        );
        assert_eq!(choice.read(), choices, "{case:?}");
        check(
            "moments",
            &partial.read_floats(),
            &moments(&stored, ROWS, pooled, case.maps, case.stride),
            1e-5,
        );
    });
}

#[test]
fn sums_on_the_way_back_through_the_pool() {
    each(|case, precision| {
        if !case.pooled() {
            return;
        }
        let gpu = Gpu::new(3);
        let (norm, maps) = (Norm::random(case.maps, 6), case.maps(precision));
        let (_, choices) = case.pool(&norm, &maps);
        let dout = precision.round_all(&Numbers::new(7).take(choices.len()));
        let pooled = case.pooled_pixels();
        let tiles = pooled.div_ceil(ROWS);
        let partial = gpu.no_floats(tiles * case.maps * 2);
        case.program(&gpu, precision, false).tiled(
            "stem_sums",
            [tiles, case.maps.div_ceil(COLUMNS), 1],
            arguments![
                &gpu.maps(precision, &dout),
                &gpu.bytes(&choices),
                &gpu.maps(precision, &maps),
                &gpu.floats(&norm.mean),
                &partial,
                pooled
            ],
        );
        let mut sums = vec![0.0; tiles * case.maps * 2];
        for (i, g) in dout.iter().map(|&g| f64::from(g)).enumerate() {
            let (q, m) = (i / case.maps, i % case.maps);
            let chosen = case.window(q).into_iter().find(|own| own.0 == choices[i]);
            if let Some((_, p)) = chosen {
                let of_tile = &mut sums[(q / ROWS * case.maps + m) * 2..][..2];
                of_tile[0] += g * f64::from(maps[p * case.maps + m] - norm.mean[m]);
                of_tile[1] += g;
            }
        }
        check(
            &format!("{case:?} {precision:?}"),
            &partial.read_floats(),
            &sums,
            1e-5,
        );
    });
}

/// Sums the weight's gradient over slices of a tile's multiples.
fn weight(case: &Case, precision: Precision, strips: bool) {
    for length in [case.pixels().next_multiple_of(ROWS), ROWS] {
        let gpu = Gpu::new(4);
        let (norm, maps) = (Norm::random(case.maps, 6), case.maps(precision));
        let images = case.images(precision);
        let mut numbers = Numbers::new(8);
        let undo = numbers.take(4 * case.maps);
        let (choices, rows) = match case.pooled() {
            true => (case.pool(&norm, &maps).1, case.pooled_pixels()),
            false => (vec![0; 4], case.pixels()),
        };
        let dout = precision.round_all(&numbers.take(rows * case.maps));
        let (pixels, count) = (case.pixels(), case.maps * case.patch());
        let slices = pixels.div_ceil(length);
        let share = gpu.no_floats(slices * count);
        let [elements, tiles] = match strips {
            true => [1, case.maps.div_ceil(case.strip_maps())],
            false => [
                case.patch().div_ceil(case.elements()),
                case.maps.div_ceil(ROWS),
            ],
        };
        case.program(&gpu, precision, strips).tiled_in_shared(
            "stem_weight",
            [elements, tiles, slices],
            arguments![
                &gpu.maps(precision, &dout),
                &gpu.bytes(&choices),
                &gpu.maps(precision, &maps),
                &gpu.floats(&undo),
                &gpu.maps(precision, &images),
                &share,
                pixels,
                length
            ],
        );
        // After the pool, BN is undone as the gradient is loaded.
        let gradient: Vec<f64> = match case.pooled() {
            false => dout.iter().map(|&d| d.into()).collect(),
            true => {
                let undone = case
                    .scatter(&dout, &choices)
                    .into_iter()
                    .enumerate()
                    .map(|(i, g)| {
                        let m = i % case.maps;
                        let [scale, slope, shift, mean] =
                            [0, 1, 2, 3].map(|n| undo[n * case.maps + m]);
                        let rest = (maps[i] - mean).mul_add(slope, shift);
                        precision.round((g as f32).mul_add(scale, rest)).into()
                    });
                undone.collect()
            }
        };
        let mut expected = vec![0.0; slices * count];
        let places = case.kernel * case.kernel;
        for p in 0..pixels {
            for m in 0..case.maps {
                for c in 0..case.channels {
                    for place in 0..places {
                        expected[p / length * count + (m * case.channels + c) * places + place] +=
                            gradient[p * case.maps + m] * case.image(&images, p, c, place);
                    }
                }
            }
        }
        let what = format!("{case:?} {precision:?}, strips: {strips}, slices of {length}");
        // A gathered gradient is summed in f32 before it is rounded, so its last bit may
        // differ.
        let tolerance = if precision == Precision::Bf16 && case.pooled() {
            2e-3
        } else {
            1e-5
        };
        check(&what, &share.read_floats(), &expected, tolerance);
    }
}

#[test]
fn gradient_of_the_weight_from_patches() {
    each(|case, precision| weight(case, precision, false));
}

#[test]
fn gradient_of_the_weight_from_strips() {
    each_of_strips(|case| weight(case, Precision::Bf16, true));
}
