//! Convolutions of dense layers, 1x1 and 3x3: forward with statistics, the gradient of the input
//! with the sums for gamma and beta, the gradient of the weight; of 1x1 convolutions both gradients
//! are one kernel's.

use std::ops::Range;

use cuda_kernel_tests::{
    Dropout, Gpu, Norm, Numbers, Precision, Program, SHARED, TILE_CHANNELS, arguments, check,
    check_stored, family, vector,
};

/// A layer's convolution.
#[derive(Clone, Copy, Debug)]
struct Case {
    kernel: usize,
    /// Pixels of a tile.
    rows: usize,
    /// Batch, height, width.
    size: [usize; 3],
    /// Channels read, and in a row of the input.
    channels: usize,
    in_stride: usize,
    /// Maps written, where in a row, and values in a row of the output.
    maps: usize,
    column: usize,
    out_stride: usize,
}

const fn case(rows: usize, size: [usize; 3], read: [usize; 2], write: [usize; 3]) -> Case {
    Case {
        kernel: if rows == 0 { 1 } else { 3 },
        rows: if rows == 0 { 64 } else { rows },
        size,
        channels: read[0],
        in_stride: read[1],
        maps: write[0],
        column: write[1],
        out_stride: write[2],
    }
}

/// Odd sizes, one pixel, one image, images wider than a tile, channels and maps of less and more
/// than a tile, more maps than a block sums, slices of many tiles, k = 12. 1x1: [`POINTWISE`]; 3x3: pixels of a tile.
const CASES: [Case; 20] = [
    case(POINTWISE, [1, 1, 1], [1, 1], [1, 0, 1]),
    case(POINTWISE, [1, 5, 7], [24, 30], [48, 0, 48]),
    case(POINTWISE, [3, 5, 7], [70, 71], [65, 0, 65]),
    case(POINTWISE, [2, 8, 8], [64, 64], [64, 0, 64]),
    case(POINTWISE, [5, 7, 9], [17, 40], [12, 0, 12]),
    case(POINTWISE, [1, 1, 130], [129, 140], [5, 0, 5]),
    case(POINTWISE, [1, 3, 25], [20, 24], [270, 0, 270]),
    case(POINTWISE, [2, 9, 8], [136, 160], [128, 0, 128]),
    case(64, [1, 1, 1], [3, 5], [2, 1, 4]),
    case(64, [4, 1, 5], [12, 12], [12, 24, 36]),
    case(128, [3, 7, 3], [48, 48], [12, 60, 84]),
    case(64, [2, 6, 11], [20, 26], [66, 5, 73]),
    case(128, [1, 9, 8], [65, 65], [3, 0, 3]),
    case(64, [70, 1, 1], [7, 7], [33, 0, 33]),
    case(128, [1, 13, 12], [128, 128], [32, 64, 128]),
    case(64, [6, 9, 8], [40, 40], [32, 0, 32]),
    case(64, [1, 3, 70], [24, 24], [16, 8, 32]),
    case(256, [1, 17, 19], [36, 36], [40, 8, 48]),
    case(256, [1, 3, 150], [33, 40], [7, 1, 9]),
    case(128, [2, 2, 132], [8, 16], [8, 16, 24]),
];
/// No 3x3 convolution.
const POINTWISE: usize = 0;

/// Of a 3x3 convolution: maps of a tile, and channels of a tile of the weight's gradient.
const TILE_MAPS: usize = 32;
const WEIGHT_CHANNELS: usize = 32;

impl Case {
    fn pixels(&self) -> usize {
        self.size.iter().product()
    }

    fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Maps of a tile of a 1x1 convolution, and those that its way back works on at once.
    fn columns(&self) -> usize {
        if self.maps > 64 { 128 } else { 64 }
    }

    fn group(&self, precision: Precision) -> usize {
        let most = match precision {
            Precision::F32 => 64,
            Precision::Bf16 => 256,
        };
        self.maps.next_multiple_of(64).min(most)
    }

    /// Channels that a 3x3 convolution stages at once.
    fn forward_depth(&self, precision: Precision) -> usize {
        let depth = match precision {
            Precision::F32 => 16,
            Precision::Bf16 => 32,
        };
        depth * if self.rows == 64 { 2 } else { 1 }
    }

    /// Pixels of a tile of the gradient of a 3x3 convolution's input.
    fn pull_rows(&self) -> usize {
        if self.size[2] > 8 {
            self.rows.max(128)
        } else {
            self.rows
        }
    }

    /// Pixels of a tile of the gradient of a 3x3 convolution's weight.
    fn weight_rows(&self, precision: Precision) -> usize {
        match precision {
            Precision::F32 => 64,
            Precision::Bf16 => self.rows.min(128),
        }
    }

    fn program(&self, gpu: &Gpu, precision: Precision, dropout: bool) -> Program {
        let counts = [self.in_stride, self.channels, self.maps];
        let places = [self.column, self.out_stride];
        let mut constants = vec![("IN_STRIDE", self.in_stride), ("MAPS", self.maps)];
        let file = match self.kernel {
            1 => {
                constants.extend([
                    ("COLUMNS", self.columns()),
                    ("GROUP", self.group(precision)),
                    ("TILES", 1 + usize::from(self.maps <= 128)),
                    ("VECTOR", vector(precision, &counts)),
                    ("DEPTH_BYTES", 128),
                    ("POINTWISE_FORWARD_SHARED", SHARED),
                    ("POINTWISE_BACK_SHARED", SHARED),
                ]);
                "conv/pointwise.cu"
            }
            _ => {
                constants.extend([
                    ("HEIGHT", self.size[1]),
                    ("WIDTH", self.size[2]),
                    ("OUT_STRIDE", self.out_stride),
                    ("ROWS", self.rows),
                    ("PULL_ROWS", self.pull_rows()),
                    ("TILE_MAPS", TILE_MAPS),
                    ("ZEROS", 8),
                    ("FORWARD_DEPTH", self.forward_depth(precision)),
                    ("WEIGHT_ROWS", self.weight_rows(precision)),
                    ("WEIGHT_CHANNELS", WEIGHT_CHANNELS),
                    (
                        "VECTOR",
                        vector(precision, &[counts, [places[0], places[1], 0]].concat()),
                    ),
                    ("SPATIAL_FORWARD_SHARED", SHARED),
                    ("SPATIAL_PULL_SHARED", SHARED),
                    ("SPATIAL_WEIGHT_SHARED", SHARED),
                ]);
                "conv/spatial.cu"
            }
        };
        if dropout {
            constants.extend(Dropout::CONSTANTS);
        }
        gpu.program(&family(&[file]), precision, &constants)
    }

    /// The pixel under a tap of pixel `p`, unless it is in the padding.
    fn under(&self, p: usize, tap: usize) -> Option<usize> {
        let [_, height, width] = self.size;
        let (image, y, x) = (p / (height * width), p / width % height, p % width);
        let y = (y + tap / self.kernel).checked_sub(self.kernel / 2)?;
        let x = (x + tap % self.kernel).checked_sub(self.kernel / 2)?;
        (y < height && x < width).then_some((image * height + y) * width + x)
    }
}

/// What a convolution reads.
struct Data {
    norm: Norm,
    input: Vec<f32>,
    weight: Vec<f32>,
    dout: Vec<f32>,
}

impl Data {
    fn new(case: &Case, precision: Precision) -> Self {
        let mut numbers = Numbers::new(case.pixels() as u64 + case.channels as u64);
        Self {
            norm: Norm::random(case.channels, 3),
            input: precision.round_all(&numbers.take(case.pixels() * case.in_stride)),
            weight: numbers.take(case.maps * case.channels * case.taps()),
            dout: precision.round_all(&numbers.take(case.pixels() * case.maps)),
        }
    }

    /// An operand of a product: the input after BN and ReLU.
    fn operand(&self, case: &Case, precision: Precision, p: usize, c: usize) -> f64 {
        precision
            .round(self.norm.after(c, self.input[p * case.in_stride + c]))
            .into()
    }

    fn weight(&self, case: &Case, precision: Precision, n: usize, c: usize, tap: usize) -> f64 {
        precision
            .round(self.weight[(n * case.channels + c) * case.taps() + tap])
            .into()
    }
}

/// Each case in both precisions.
fn each(test: impl Fn(&Case, Precision, &Data)) {
    for precision in Precision::ALL {
        for case in &CASES {
            test(case, precision, &Data::new(case, precision));
        }
    }
}

#[test]
fn forward_and_its_statistics() {
    each(|case, precision, data| {
        for site in [-1, 5] {
            forward(case, precision, data, Dropout { seed: 77, site });
        }
    });
}

#[test]
fn evaluation_has_the_same_maps_and_leaves_no_statistics() {
    each(|case, precision, data| {
        let none = Dropout { seed: 0, site: -1 };
        let [trained, evaluated] =
            [1, 0].map(|training| maps_and_moments(case, precision, data, none, training));
        let what = format!("{case:?} {precision:?}");
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&evaluated.0) == bits(&trained.0), "{what}");
        assert!(trained.1.iter().all(|v| !v.is_nan()), "{what}");
        assert!(evaluated.1.iter().all(|v| v.is_nan()), "{what}");
    });
}

/// What the kernel leaves: maps, and a mean and squares of each tile's for each of them.
fn maps_and_moments(
    case: &Case,
    precision: Precision,
    data: &Data,
    dropout: Dropout,
    training: i32,
) -> (Vec<f32>, Vec<f32>) {
    let gpu = Gpu::new(1);
    let program = case.program(&gpu, precision, dropout.site >= 0);
    let (pixels, maps) = (case.pixels(), case.maps);
    let tiles = pixels.div_ceil(case.rows);
    let out = gpu.no_maps(precision, pixels * case.out_stride);
    let partial = gpu.no_floats(tiles * maps * 2);
    let input = gpu.maps(precision, &data.input);
    let (scale, shift) = (gpu.floats(&data.norm.scale), gpu.floats(&data.norm.shift));
    let weight = gpu.packed(precision, &data.weight, case.channels, case.taps());
    let scalars = gpu.scalars(dropout.seed, [0.0, 1.0], false, [0.0; 3], false);
    match case.kernel {
        1 => program.tiled_in_shared(
            "pointwise_forward",
            [tiles, maps.div_ceil(case.columns()), 1],
            arguments![
                &input,
                &scale,
                &shift,
                &weight,
                &out,
                &partial,
                &scalars,
                dropout.site,
                pixels,
                case.channels,
                training
            ],
        ),
        _ => program.tiled_in_shared(
            "spatial_forward",
            [tiles, maps.div_ceil(TILE_MAPS), 1],
            arguments![
                &input,
                &scale,
                &shift,
                &weight,
                &out,
                &partial,
                &scalars,
                case.column,
                dropout.site,
                pixels,
                case.channels,
                training
            ],
        ),
    }
    (out.read_maps(precision), partial.read_floats())
}

fn forward(case: &Case, precision: Precision, data: &Data, dropout: Dropout) {
    let (stored, left) = maps_and_moments(case, precision, data, dropout, 1);
    let (pixels, maps) = (case.pixels(), case.maps);
    let tiles = pixels.div_ceil(case.rows);
    // Columns that are not its own stay as they were.
    let mut expected = vec![f64::NAN; pixels * case.out_stride];
    for p in 0..pixels {
        for n in 0..maps {
            let mut sum = 0.0;
            for tap in 0..case.taps() {
                let Some(under) = case.under(p, tap) else {
                    continue;
                };
                for c in 0..case.channels {
                    sum += data.operand(case, precision, under, c)
                        * data.weight(case, precision, n, c, tap);
                }
            }
            expected[p * case.out_stride + case.column + n] =
                sum * f64::from(dropout.factor(p * maps + n));
        }
    }
    check_stored(
        &format!("{case:?} {precision:?}"),
        precision,
        &stored,
        &expected,
    );
    // Moments are those of what was stored.
    let mut moments = vec![0.0; tiles * maps * 2];
    for tile in 0..tiles {
        for n in 0..maps {
            let rows = tile * case.rows..pixels.min((tile + 1) * case.rows);
            let count = rows.len() as f64;
            let value = |p: usize| f64::from(stored[p * case.out_stride + case.column + n]);
            let mean = rows.clone().map(value).sum::<f64>() / count;
            moments[(tile * maps + n) * 2] = mean;
            moments[(tile * maps + n) * 2 + 1] = rows.map(|p| (value(p) - mean).powi(2)).sum();
        }
    }
    check(
        &format!("moments, {case:?} {precision:?}"),
        &left,
        &moments,
        1e-5,
    );
}

impl Data {
    /// The gradient of the input after BN and ReLU, of some maps: pixels x channels.
    fn gradient(&self, case: &Case, precision: Precision, maps: Range<usize>) -> Vec<f64> {
        let channels = case.channels;
        let mut gradient = vec![0.0; case.pixels() * channels];
        for p in 0..case.pixels() {
            for tap in 0..case.taps() {
                let Some(under) = case.under(p, tap) else {
                    continue;
                };
                for n in maps.clone() {
                    let d = f64::from(self.dout[p * case.maps + n]);
                    for c in 0..channels {
                        gradient[under * channels + c] +=
                            d * self.weight(case, precision, n, c, tap);
                    }
                }
            }
        }
        gradient
    }

    /// What is in `before`, with the masked gradient stored, or added times gamma; and the sums for
    /// gamma and beta of each `length` pixels.
    fn pulled(
        &self,
        case: &Case,
        precision: Precision,
        before: &[f64],
        add: bool,
        (length, maps): (usize, Range<usize>),
    ) -> (Vec<f64>, Vec<f64>) {
        let (pixels, channels) = (case.pixels(), case.channels);
        let gradient = self.gradient(case, precision, maps);
        let mut expected = before.to_vec();
        let mut sums = vec![0.0; pixels.div_ceil(length) * channels * 2];
        for p in 0..pixels {
            for c in 0..channels {
                let x = self.input[p * case.in_stride + c];
                let masked = if self.norm.before(c, x) > 0.0 {
                    gradient[p * channels + c]
                } else {
                    0.0
                };
                let at = &mut expected[p * case.in_stride + c];
                *at = if add {
                    *at + f64::from(self.norm.gamma[c]) * masked
                } else {
                    masked
                };
                let own = &mut sums[(p / length * channels + c) * 2..][..2];
                own[0] += masked * f64::from(x - self.norm.mean[c]);
                own[1] += masked;
            }
        }
        (expected, sums)
    }

    /// The shares of the weight's gradient of each `length` pixels: maps x taps x channels.
    fn shares(&self, case: &Case, precision: Precision, length: usize) -> Vec<f64> {
        let (channels, taps) = (case.channels, case.taps());
        let count = case.maps * channels * taps;
        let mut shares = vec![0.0; case.pixels().div_ceil(length) * count];
        for p in 0..case.pixels() {
            for tap in 0..taps {
                let Some(under) = case.under(p, tap) else {
                    continue;
                };
                for n in 0..case.maps {
                    let d = f64::from(self.dout[p * case.maps + n]);
                    for c in 0..channels {
                        shares[p / length * count + (n * taps + tap) * channels + c] +=
                            d * self.operand(case, precision, under, c);
                    }
                }
            }
        }
        shares
    }
}

/// Cases of a kernel's side, in both precisions.
fn each_of(kernel: usize, test: impl Fn(&Case, Precision, &Data)) {
    each(|case, precision, data| {
        if case.kernel == kernel {
            test(case, precision, data);
        }
    });
}

#[test]
fn gradient_of_the_input() {
    each_of(3, |case, precision, data| {
        for add in [false, true] {
            pull(case, precision, data, add);
        }
    });
}

fn pull(case: &Case, precision: Precision, data: &Data, add: bool) {
    let gpu = Gpu::new(2);
    let program = case.program(&gpu, precision, false);
    let (pixels, channels) = (case.pixels(), case.channels);
    let tiles = pixels.div_ceil(case.pull_rows());
    // If it adds, other channels follow its own; if it stores, none do.
    let before = precision.round_all(&Numbers::new(9).take(pixels * case.in_stride));
    let (into, before) = match add {
        true => (
            gpu.maps(precision, &before),
            before.iter().map(|&v| v.into()).collect(),
        ),
        false => {
            let len = pixels * case.in_stride;
            (gpu.no_maps(precision, len), vec![f64::NAN; len])
        }
    };
    let partial = gpu.no_floats(tiles * channels * 2);
    program.tiled_in_shared(
        "spatial_pull",
        [tiles, channels.div_ceil(TILE_CHANNELS), 1],
        arguments![
            &gpu.maps(precision, &data.dout),
            &gpu.packed(precision, &data.weight, channels, case.taps()),
            &gpu.maps(precision, &data.input),
            &gpu.floats(&data.norm.scale),
            &gpu.floats(&data.norm.shift),
            &gpu.floats(&data.norm.mean),
            &gpu.floats(&data.norm.gamma),
            &into,
            &partial,
            usize::from(add),
            pixels,
            channels
        ],
    );
    let (expected, sums) = data.pulled(
        case,
        precision,
        &before,
        add,
        (case.pull_rows(), 0..case.maps),
    );
    let what = format!("{case:?} {precision:?} add {add}");
    check_stored(&what, precision, &into.read_maps(precision), &expected);
    check(
        &format!("sums, {what}"),
        &partial.read_floats(),
        &sums,
        1e-5,
    );
}

/// One slice, and slices that end in the middle of a tile and of the pixels.
fn lengths(case: &Case) -> [usize; 2] {
    [case.pixels().next_multiple_of(16), 48]
}

#[test]
fn gradient_of_the_weight() {
    each_of(3, |case, precision, data| {
        for length in lengths(case) {
            weight(case, precision, data, length);
        }
    });
}

fn weight(case: &Case, precision: Precision, data: &Data, length: usize) {
    let gpu = Gpu::new(3);
    let program = case.program(&gpu, precision, false);
    let (pixels, channels, taps) = (case.pixels(), case.channels, case.taps());
    let slices = pixels.div_ceil(length);
    let share = gpu.no_floats(slices * case.maps * channels * taps);
    program.tiled_in_shared(
        "spatial_weight",
        [
            channels.div_ceil(WEIGHT_CHANNELS),
            case.maps.div_ceil(TILE_MAPS),
            slices,
        ],
        arguments![
            &gpu.maps(precision, &data.dout),
            &gpu.maps(precision, &data.input),
            &gpu.floats(&data.norm.scale),
            &gpu.floats(&data.norm.shift),
            &share,
            pixels,
            channels,
            length
        ],
    );
    let expected = data.shares(case, precision, length);
    let what = format!("{case:?} {precision:?} slices of {length}");
    check(&what, &share.read_floats(), &expected, 1e-5);
}

#[test]
fn both_gradients_of_a_1x1_convolution() {
    each_of(1, |case, precision, data| {
        for length in lengths(case) {
            back(case, precision, data, length);
        }
    });
}

fn back(case: &Case, precision: Precision, data: &Data, length: usize) {
    let gpu = Gpu::new(4);
    let program = case.program(&gpu, precision, false);
    let (pixels, channels) = (case.pixels(), case.channels);
    let slices = pixels.div_ceil(length);
    let before = precision.round_all(&Numbers::new(9).take(pixels * case.in_stride));
    let into = gpu.maps(precision, &before);
    let partial = gpu.no_floats(slices * channels * 2);
    let share = gpu.no_floats(slices * case.maps * channels);
    let dout = gpu.maps(precision, &data.dout);
    let weight = gpu.packed(precision, &data.weight, channels, 1);
    let input = gpu.maps(precision, &data.input);
    let norm = [
        &data.norm.scale,
        &data.norm.shift,
        &data.norm.mean,
        &data.norm.gamma,
    ];
    let [scale, shift, mean, gamma] = norm.map(|values| gpu.floats(values));
    // A group of maps after the other, each adding to what those before have left.
    let group = case.group(precision);
    for map in (0..case.maps).step_by(group) {
        let before: Vec<f64> = into
            .read_maps(precision)
            .iter()
            .map(|&v| v.into())
            .collect();
        program.tiled_in_shared(
            "pointwise_back",
            [channels.div_ceil(TILE_CHANNELS), slices, 1],
            arguments![
                &dout, &weight, &input, &scale, &shift, &mean, &gamma, &into, &partial, &share,
                map, pixels, channels, length
            ],
        );
        let maps = map..case.maps.min(map + group);
        let (expected, sums) = data.pulled(case, precision, &before, true, (length, maps));
        let what = format!("{case:?} {precision:?} from map {map} on, slices of {length}");
        check_stored(&what, precision, &into.read_maps(precision), &expected);
        let what_sums = format!("sums, {what}");
        check(&what_sums, &partial.read_floats(), &sums, 1e-5);
    }
    let expected = data.shares(case, precision, length);
    check(
        &format!("weight, {case:?} {precision:?} slices of {length}"),
        &share.read_floats(),
        &expected,
        1e-5,
    );
}
