//! Compares with the definition, computed in f64.

use super::*;
use crate::conv::pointwise::{Destination, OutputColumns};
use crate::engine::Engine;
use crate::kernel::load::NormRelu;
use crate::kernel::normal::{Affine, Norm, NormWeights, Sums};
use crate::kernel::simd::Level;
use densenet_plan::Precision;

/// Numbers around zero that look random.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        })
        .collect()
}

struct Case {
    size: Size,
    batch: usize,
    channels: usize,
    maps: usize,
}

/// What the definition gives: the maps for outputs of ReLU and BN `a`, and, from the maps' gradient
/// `dout`, the gradients of the weight and of `a`.
struct Expected {
    out: Vec<f64>,
    weight: Vec<f64>,
    input: Vec<f64>,
}

impl Case {
    fn pixels(&self) -> usize {
        self.batch * self.size.height * self.size.width
    }

    fn expected(&self, a: &[f64], weight: &[f32], dout: &[f32]) -> Expected {
        let Self {
            size,
            channels,
            maps,
            ..
        } = *self;
        let mut expected = Expected {
            out: vec![0.0; self.pixels() * maps],
            weight: vec![0.0; weight.len()],
            input: vec![0.0; a.len()],
        };
        for p in 0..self.pixels() {
            let (image, y, x) = (
                p / (size.height * size.width),
                p / size.width % size.height,
                p % size.width,
            );
            for tap in 0..9 {
                let (row, column) = ((y + tap / 3).wrapping_sub(1), (x + tap % 3).wrapping_sub(1));
                if row >= size.height || column >= size.width {
                    continue;
                }
                let q = (image * size.height + row) * size.width + column;
                for m in 0..maps {
                    for c in 0..channels {
                        let w = (m * channels + c) * 9 + tap;
                        let d = f64::from(dout[p * maps + m]);
                        expected.out[p * maps + m] += f64::from(weight[w]) * a[q * channels + c];
                        expected.weight[w] += d * a[q * channels + c];
                        expected.input[q * channels + c] += d * f64::from(weight[w]);
                    }
                }
            }
        }
        expected
    }

    fn check(&self, level: Level, precision: Precision, threads: usize, tolerance: f64) {
        let Self {
            size,
            batch,
            channels,
            maps,
        } = *self;
        let what = format!("{level:?} {precision:?} {size:?} {channels} -> {maps}");
        let close = |name: &str, found: &[f32], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            let largest = expected.iter().fold(0.1, |most: f64, x| most.max(x.abs()));
            for (found, expected) in found.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs() / largest;
                assert!(
                    error < tolerance,
                    "{name} of {what}: {found} for {expected}"
                );
            }
        };
        let mut engine = Engine::new(threads, level, precision);
        let x = numbers(self.pixels() * channels, 1);
        let weight = numbers(maps * channels * 9, 2);
        let dout = numbers(self.pixels() * maps, 3);
        let [gamma, beta, mean, inverse] = [4, 5, 6, 7].map(|seed| numbers(channels, seed));
        let inverse: Vec<f32> = inverse.iter().map(|value| value + 1.0).collect();
        let mut affine = Affine::default();
        let weights = NormWeights {
            scale: &gamma,
            bias: &beta,
        };
        affine.set(&weights, &mean, &inverse);
        let normalised: Vec<f64> = (x.iter().enumerate())
            .map(|(i, x)| {
                let (scale, shift) = (affine.scale[i % channels], affine.shift[i % channels]);
                f64::from(x.mul_add(scale, shift))
            })
            .collect();
        let a: Vec<f64> = normalised.iter().map(|z| z.max(0.0)).collect();
        let expected = self.expected(&a, &weight, &dout);

        let stride = maps + 3;
        let mut out = vec![-1.0; self.pixels() * stride];
        pack_forward(&mut engine, &weight, maps, channels);
        let source = NormRelu {
            x: &x,
            stride: channels,
            affine: &affine,
        };
        let columns = OutputColumns {
            column: 2,
            measure: true,
            ..OutputColumns::all(stride)
        };
        let target = Destination {
            values: &mut out,
            columns,
        };
        let shape = Shape {
            size,
            channels,
            maps,
        };
        forward(&mut engine, shape, batch, source, target);
        let written: Vec<f32> = (out.chunks(stride))
            .flat_map(|row| row[2..2 + maps].to_vec())
            .collect();
        close("maps", &written, &expected.out);
        for row in out.chunks(stride) {
            assert_eq!([row[0], row[1], row[2 + maps]], [-1.0; 3], "{what}");
        }

        let masked: Vec<f64> = (expected.input.iter().zip(&normalised))
            .map(|(d, z)| if *z > 0.0 { *d } else { 0.0 })
            .collect();
        let norm = Norm {
            affine: &affine,
            gamma: &gamma,
            mean: &mean,
            inverse: &inverse,
        };
        let mut dx = vec![f32::NAN; x.len()];
        pack_backward(&mut engine, &weight, maps, channels);
        let from = (&x[..], channels);
        let sink = Sink::Store(&mut dx);
        backward(&mut engine, shape, from, norm, (&dout, true), sink);
        close("gradient of the input", &dx, &masked);
        let mut dweight = vec![1.0; weight.len()];
        add_weight(&mut engine, &mut dweight, maps, channels);
        let one_more: Vec<f64> = expected.weight.iter().map(|d| d + 1.0).collect();
        close("gradient of the weight", &dweight, &one_more);
        let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
        Sums::merge(engine.sums(), (&mut dgamma, &mut dbeta), |_, _, _| {});
        let sum = |term: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (0..channels)
                .map(|c| (c..x.len()).step_by(channels).map(term).sum())
                .collect()
        };
        close("gradient of beta", &dbeta, &sum(&|i| masked[i]));
        let xhat = |i: usize| f64::from((x[i] - mean[i % channels]) * inverse[i % channels]);
        close("gradient of gamma", &dgamma, &sum(&|i| masked[i] * xhat(i)));

        let width = channels + 5;
        let mut g = vec![1.0; self.pixels() * width];
        let sink = Sink::Add(&mut g, width);
        backward(&mut engine, shape, from, norm, (&dout, true), sink);
        let added: Vec<f64> = (masked.iter().enumerate())
            .map(|(i, d)| 1.0 + f64::from(gamma[i % channels]) * d)
            .collect();
        let found: Vec<f32> = (g.chunks(width))
            .flat_map(|row| row[..channels].to_vec())
            .collect();
        close("added gradient", &found, &added);
        for row in g.chunks(width) {
            assert_eq!(row[channels..], [1.0; 5], "{what}");
        }
    }
}

#[test]
fn forth_and_back_are_the_definition_at_every_level_and_shape() {
    let sizes = [(1, 1), (1, 5), (2, 2), (7, 7), (5, 8), (8, 3), (3, 130)];
    for (height, width) in sizes {
        for (channels, maps) in [(1, 1), (5, 12), (48, 12), (70, 33), (200, 16)] {
            let case = Case {
                size: Size { height, width },
                batch: 3,
                channels,
                maps,
            };
            if channels * maps * height * width > 70_000 {
                continue;
            }
            for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
                for threads in [1, 2, 5] {
                    case.check(level, Precision::F32, threads, 1e-5);
                }
            }
            for level in [Level::Baseline, Level::Avx2, Level::Avx512Bf16] {
                case.check(level, Precision::Bf16, 2, 3e-2);
            }
        }
    }
}
