//! Convolutions of dense layers, 1x1 and 3x3: forward with statistics, the gradient of the input
//! with the sums for gamma and beta, the gradient of the weight; of 1x1 convolutions both gradients
//! are one kernel's.

mod backward;
mod forward;

use cuda_kernel_tests::{Dropout, Gpu, Norm, Numbers, Precision, Program, SHARED, family, vector};

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
/// than a tile, more maps than a block sums, slices of many tiles, small images of many channels, k = 12. 1x1: [`POINTWISE`]; 3x3: pixels of a tile.
const CASES: [Case; 22] = [
    case(POINTWISE, [1, 1, 1], [1, 1], [1, 0, 1]),
    case(POINTWISE, [1, 5, 7], [24, 30], [48, 0, 48]),
    case(POINTWISE, [3, 5, 7], [70, 71], [65, 0, 65]),
    case(POINTWISE, [2, 8, 8], [64, 64], [64, 0, 64]),
    case(POINTWISE, [5, 7, 9], [17, 40], [12, 0, 12]),
    case(POINTWISE, [1, 1, 130], [129, 140], [5, 0, 5]),
    case(POINTWISE, [1, 3, 25], [20, 24], [270, 0, 270]),
    case(POINTWISE, [2, 9, 8], [136, 160], [128, 0, 128]),
    case(POINTWISE, [2, 7, 7], [328, 336], [128, 0, 128]),
    case(POINTWISE, [1, 4, 5], [300, 300], [12, 0, 12]),
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
        let files = match self.kernel {
            1 => {
                let vector = vector(precision, &counts);
                let short = precision == Precision::F32 || vector < 4;
                let ahead = !short && self.size[1] * self.size[2] <= 64;
                constants.extend([
                    ("COLUMNS", self.columns()),
                    ("GROUP", self.group(precision)),
                    ("TILES", 1 + usize::from(self.maps <= 128)),
                    ("VECTOR", vector),
                    ("DEPTH_BYTES", 128),
                    ("STAGES", if ahead { 4 } else { 2 }),
                    ("PART_STAGES", if short { 2 } else { 4 }),
                    ("POINTWISE_FORWARD_SHARED", SHARED),
                    ("POINTWISE_PART_SHARED", SHARED),
                    ("POINTWISE_BACK_SHARED", SHARED),
                ]);
                &["conv/pointwise.cu"][..]
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
                &["program/gather.cuh", "conv/spatial.cu"]
            }
        };
        if dropout {
            constants.extend(Dropout::CONSTANTS);
        }
        gpu.program(&family(files), precision, &constants)
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
