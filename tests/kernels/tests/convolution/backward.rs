//! Gradients of the input and of the weight, and the sums for gamma and beta.

use std::ops::Range;

use cuda_kernel_tests::{
    Gpu, Numbers, Passed, Precision, TILE_CHANNELS, arguments, check, check_stored,
};

use crate::{Case, Data, TILE_MAPS, WEIGHT_CHANNELS, each};

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

    /// The values of `before`, with the masked gradient stored, or added times gamma; and the sums
    /// for gamma and beta of each `length` pixels.
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
    // What the gradient of the input has left goes along, with few channels for each block.
    let (tiles, add) = (pixels.min(70), slices > 1);
    let passed = Passed::random(tiles, channels, add);
    let at = passed.on(&gpu);
    let blocks = channels.div_ceil(WEIGHT_CHANNELS) * case.maps.div_ceil(TILE_MAPS) * slices;
    let lanes = channels.div_ceil(blocks).next_power_of_two();
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
            length,
            &at.partial,
            &at.gamma,
            &at.inverse,
            &at.into[0],
            &at.into[1],
            &at.into[2],
            &at.into[3],
            tiles,
            usize::from(add),
            lanes
        ],
    );
    let expected = data.shares(case, precision, length);
    let what = format!("{case:?} {precision:?} slices of {length}");
    passed.check(&what, &at, channels);
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
    // Groups of maps one after another, each adding to the results of the previous ones.
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
