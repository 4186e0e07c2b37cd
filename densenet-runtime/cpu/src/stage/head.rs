//! The last layers: BN, ReLU, global average pool, classifier.

use super::{Backward, Forward, Maps, MapsGradient};
use crate::conv::pointwise::Input;
use crate::engine::{Engine, Parts, need, need_zeros, padded, split_rows};
use crate::kernel::load::NormRelu;
use crate::kernel::matrix::Matrix;
use crate::kernel::normal::Sums;
use crate::kernel::product::{Contraction, Form, Out, Panels, Rows, accumulate, multiply};
use crate::kernel::pullback::{PullBack, Tile, TileMut};
use crate::kernel::simd::{Kernel, Simd};
use crate::memory::Memory;
use densenet_plan::{Head, HeadTensors};

/// How many classes' gradients of the weight are computed at a time.
const CLASSES: usize = 64;

/// What the head writes in the backward pass.
pub struct HeadGradients<'a> {
    /// The gradient of the logits: batch x classes.
    pub logits: &'a [f32],
    /// Memory for the gradient of the features: batch x channels.
    pub features: &'a mut [f32],
}

/// Runs the head: `features` is batch x channels, `logits` is batch x classes.
pub fn forward(
    engine: &mut Engine,
    (head, tensors): (&Head, &HeadTensors),
    pass: &mut Forward<'_>,
    maps: Maps<'_>,
    features: &mut [f32],
    logits: &mut [f32],
) {
    let source = maps.normalised(pass, &tensors.norm, pass.batch * head.pixels());
    pool(engine, source, head.input, head.pixels(), features);
    classify_forward(engine, tensors, pass, features, logits);
}

/// Runs the classifier alone.
pub fn classify_forward(
    engine: &mut Engine,
    tensors: &HeadTensors,
    pass: &Forward<'_>,
    features: &[f32],
    logits: &mut [f32],
) {
    let [weight, bias] = [tensors.weight, tensors.bias].map(|span| span.of(pass.parameters));
    classify(engine, features, weight, bias, logits);
}

/// Goes back through the head; `features` holds those of the forward pass.
pub fn backward(
    engine: &mut Engine,
    (head, tensors): (&Head, &HeadTensors),
    pass: &mut Backward<'_>,
    maps: Maps<'_>,
    features: &[f32],
    gradients: HeadGradients<'_>,
    into: MapsGradient<'_>,
) {
    let dfeatures = classifier_backward(engine, (head, tensors), pass, features, gradients);
    let input = maps.input(pass, &tensors.norm);
    pool_backward(engine, input, head.pixels(), dfeatures, into.g);
    pass.start(engine, &tensors.norm, into.sums);
}

/// Goes back through the classifier alone; returns the gradient of the features.
pub fn classifier_backward<'a>(
    engine: &mut Engine,
    (_, tensors): (&Head, &HeadTensors),
    pass: &mut Backward<'_>,
    features: &[f32],
    gradients: HeadGradients<'a>,
) -> &'a [f32] {
    let HeadGradients {
        logits,
        features: dfeatures,
    } = gradients;
    let weight = tensors.weight.of(pass.parameters);
    let [dweight, dbias] = pass.gradients.of_each([tensors.weight, tensors.bias]);
    let [weight_trains, bias_trains] =
        [tensors.weight, tensors.bias].map(|tensor| !pass.frozen.has(tensor));
    if bias_trains {
        for dlogits in logits.chunks_exact(dbias.len()) {
            dbias
                .iter_mut()
                .zip(dlogits)
                .for_each(|(sum, value)| *sum += value);
        }
    }
    if weight_trains {
        add_class_gradients(engine, features, logits, dweight, pass.batch);
    }
    feature_gradients(engine, weight, logits, dfeatures, pass.batch);
    dfeatures
}

/// BN, ReLU and global average pool: `features` is batch x channels.
fn pool(
    engine: &mut Engine,
    source: NormRelu<'_>,
    channels: usize,
    pixels: usize,
    features: &mut [f32],
) {
    let level = engine.level;
    engine.over_rows(features, channels, features.len() / channels, |share| {
        level.run(PoolImages {
            source,
            pixels,
            first: share.rows.start,
            features: share.values,
            row: need(&mut share.scratch.tile, channels),
        });
    });
}

/// One thread's share of [`pool`].
struct PoolImages<'a> {
    source: NormRelu<'a>,
    pixels: usize,
    first: usize,
    features: &'a mut [f32],
    row: &'a mut [f32],
}

impl Kernel for PoolImages<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            source,
            pixels,
            first,
            features,
            row,
        } = self;
        let channels = row.len();
        let share = 1.0 / pixels as f32;
        for (image, features) in features.chunks_exact_mut(channels).enumerate() {
            features.fill(0.0);
            let start = (first + image) * pixels;
            for pixel in start..start + pixels {
                source.pixel(simd, pixel, 0..channels, row);
                features
                    .iter_mut()
                    .zip(&*row)
                    .for_each(|(sum, value)| *sum += value);
            }
            features.iter_mut().for_each(|sum| *sum *= share);
        }
    }
}

/// The classifier: `logits` (batch x classes) `= features * weight^T + bias`.
fn classify(
    engine: &mut Engine,
    features: &[f32],
    weight: &[f32],
    bias: &[f32],
    logits: &mut [f32],
) {
    let classes = bias.len();
    let channels = weight.len() / classes;
    let batch = features.len() / channels;
    let lanes = engine.level.lanes();
    // The weight's rows are the left operand without packing; the features are packed.
    let panels = Panels {
        depth: channels,
        columns: batch,
        form: Form::Plain,
    };
    engine.pack_matrix(panels, Matrix::of_columns(features, channels));
    let b = &engine.packed[..];
    let width = panels.vectors(lanes) * lanes;
    let level = engine.level;
    let shares = crate::engine::shares(classes, engine.team.threads());
    let mut parts: Parts<_> = shares.into_iter().zip(&mut engine.scratch).collect();
    engine.team.each(&mut parts, |_, (classes, scratch)| {
        let rows = &weight[classes.start * channels..classes.end * channels];
        let out = need(&mut scratch.tile, classes.len() * width);
        level.run(Classify {
            rows,
            channels,
            panels,
            b,
            out,
            width,
        });
    });
    for (range, scratch) in parts {
        for (row, class) in range.enumerate() {
            for image in 0..batch {
                logits[image * classes + class] = scratch.tile[row * width + image] + bias[class];
            }
        }
    }
}

/// One thread's share of [`classify`].
struct Classify<'a> {
    rows: &'a [f32],
    channels: usize,
    panels: Panels,
    b: &'a [f32],
    out: &'a mut [f32],
    width: usize,
}

impl Kernel for Classify<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            rows,
            channels,
            panels,
            b,
            out,
            width,
        } = self;
        let a = Rows {
            values: rows,
            stride: channels,
            count: rows.len() / channels,
        };
        let depth = Contraction { channels, first: 0 };
        multiply(
            simd,
            a,
            depth,
            panels,
            b,
            Out {
                values: out,
                stride: width,
                add: false,
            },
        );
    }
}

/// Adds to the gradient of the classifier's weight (classes x channels).
fn add_class_gradients(
    engine: &mut Engine,
    features: &[f32],
    dlogits: &[f32],
    weight_gradient: &mut [f32],
    batch: usize,
) {
    let [channels, classes] = [features.len(), dlogits.len()].map(|len| len / batch);
    // The features, padded to whole vectors in each row.
    let width = padded(channels);
    let rows = need_zeros(&mut engine.packed, batch * width);
    for (row, from) in rows
        .chunks_exact_mut(width)
        .zip(features.chunks_exact(channels))
    {
        row[..channels].copy_from_slice(from);
    }
    let level = engine.level;
    let shares = engine.shares(classes);
    let rows = &engine.packed[..batch * width];
    let mut parts: Parts<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(weight_gradient, channels, &shares))
        .zip(&mut engine.scratch)
        .collect();
    engine
        .team
        .each(&mut parts, |_, ((range, gradient), scratch)| {
            for (chunk, gradient) in gradient.chunks_mut(CLASSES * channels).enumerate() {
                let count = gradient.len() / channels;
                let first = range.start + chunk * CLASSES;
                let sums = need(&mut scratch.weight, count * width);
                let d = Rows {
                    values: &dlogits[first..],
                    stride: classes,
                    count: batch,
                };
                let a = Rows {
                    values: rows,
                    stride: width,
                    count: batch,
                };
                level.run(ClassGradient {
                    d,
                    count,
                    a,
                    channels,
                    sums: &mut *sums,
                    width,
                });
                for (into, from) in gradient.chunks_exact_mut(channels).zip(sums.chunks(width)) {
                    into.iter_mut()
                        .zip(from)
                        .for_each(|(into, from)| *into += from);
                }
            }
        });
}

/// Writes the gradient of the features (batch x channels): each thread sums over its classes, then
/// the shares are added.
fn feature_gradients(
    engine: &mut Engine,
    weight: &[f32],
    dlogits: &[f32],
    dfeatures: &mut [f32],
    batch: usize,
) {
    let [channels, classes] = [dfeatures.len(), dlogits.len()].map(|len| len / batch);
    let width = padded(channels);
    let level = engine.level;
    let panels = Panels {
        depth: CLASSES,
        columns: channels,
        form: Form::Plain,
    };
    let lanes = level.lanes();
    let mut parts: Parts<_> = engine
        .shares(classes)
        .into_iter()
        .zip(&mut engine.scratch)
        .collect();
    engine.team.each(&mut parts, |_, (range, scratch)| {
        need_zeros(&mut scratch.tile, batch * width);
        for first in range.clone().step_by(CLASSES) {
            let count = CLASSES.min(range.end - first);
            let panels = Panels {
                depth: count,
                ..panels
            };
            let b = need(&mut scratch.other, panels.len(lanes));
            panels.pack(lanes, 0..panels.lines(lanes), b, |row, c| {
                weight[(first + row) * channels + c]
            });
            let a = Rows {
                values: &dlogits[first..],
                stride: classes,
                count: batch,
            };
            let out = &mut scratch.tile[..batch * width];
            level.run(FeatureGradient {
                a,
                count,
                panels,
                b,
                out,
                width,
            });
        }
    });
    drop(parts);
    dfeatures.fill(0.0);
    for scratch in &engine.scratch {
        let shares = scratch.tile[..batch * width].chunks_exact(width);
        for (into, from) in dfeatures.chunks_exact_mut(channels).zip(shares) {
            into.iter_mut()
                .zip(from)
                .for_each(|(into, from)| *into += from);
        }
    }
}

/// The weight's gradient of some classes.
struct ClassGradient<'a> {
    d: Rows<'a>,
    count: usize,
    a: Rows<'a>,
    channels: usize,
    sums: &'a mut [f32],
    width: usize,
}

impl Kernel for ClassGradient<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            d,
            count,
            a,
            channels,
            sums,
            width,
        } = self;
        accumulate(
            simd,
            Form::Plain,
            d,
            count,
            a,
            channels,
            Out {
                values: sums,
                stride: width,
                add: false,
            },
        );
    }
}

/// The contribution of some classes to the features' gradient.
struct FeatureGradient<'a> {
    a: Rows<'a>,
    count: usize,
    panels: Panels,
    b: &'a [f32],
    out: &'a mut [f32],
    width: usize,
}

impl Kernel for FeatureGradient<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            a,
            count,
            panels,
            b,
            out,
            width,
        } = self;
        let depth = Contraction {
            channels: count,
            first: 0,
        };
        multiply(
            simd,
            a,
            depth,
            panels,
            b,
            Out {
                values: out,
                stride: width,
                add: true,
            },
        );
    }
}

/// Goes back through the pool, ReLU and the affine part of BN: sets `g` to gamma times the masked
/// gradient. The engine's scratch receives the sums.
fn pool_backward(
    engine: &mut Engine,
    input: Input<'_>,
    pixels: usize,
    dfeatures: &[f32],
    g: &mut [f32],
) {
    let batch = dfeatures.len() / input.channels;
    let level = engine.level;
    engine.over_rows(g, pixels * input.stride, batch, |share| {
        level.run(SpreadImages {
            input,
            pixels,
            first: share.rows.start,
            dfeatures,
            g: share.values,
            sums: &mut share.scratch.sums,
            factor: &mut share.scratch.other,
        });
    });
}

/// One thread's share of [`pool_backward`].
struct SpreadImages<'a> {
    input: Input<'a>,
    pixels: usize,
    first: usize,
    dfeatures: &'a [f32],
    g: &'a mut [f32],
    sums: &'a mut Sums,
    factor: &'a mut Memory<f32>,
}

impl Kernel for SpreadImages<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            input,
            pixels,
            first,
            dfeatures,
            g,
            sums,
            factor,
        } = self;
        let Input {
            x,
            stride,
            channels,
            norm,
        } = input;
        let share = 1.0 / pixels as f32;
        sums.reset(channels);
        let factor = need(factor, channels);
        factor
            .iter_mut()
            .zip(norm.gamma)
            .for_each(|(into, gamma)| *into = share * gamma);
        let images = g.chunks_exact_mut(pixels * stride).enumerate();
        for (image, g) in images {
            let (sum_scale, sum_bias) = sums.tile(0..channels);
            // Each pixel of an image has the same gradient, so its row has stride 0.
            PullBack {
                rows: pixels,
                norm: norm.channels(0..channels),
                factor: &*factor,
                d: Tile {
                    values: &dfeatures[(first + image) * channels..],
                    stride: 0,
                },
                x: Tile {
                    values: &x[(first + image) * pixels * stride..],
                    stride,
                },
                into: TileMut { values: g, stride },
                add: false,
                operand: None,
                sum_scale,
                sum_bias,
            }
            .run(simd);
            sums.flush(0..channels, norm.inverse);
        }
        sums.scale_all(f64::from(share));
    }
}
