//! The first layers: a convolution of the image, and for ImageNet also BN, ReLU and a 3x3 max pool.
//!
//! The convolution is a product over patches that are gathered as they are loaded. The max pool
//! normalises its input, writes straight into the first block's buffer, and stores in a byte which
//! of its nine pixels was the largest.

use std::ops::Range;

use super::{Backward, Forward};
use crate::conv::pointwise::{self, Destination, OutputColumns};
use crate::engine::{Engine, Parts, Scratch, need, need_zeros, padded, split_rows};
use crate::kernel::emit::{Runs, emit};
use crate::kernel::load::{Load, Patches};
use crate::kernel::normal::{Affine, GradientSums, Norm, Statistics, Undo, relu};
use crate::kernel::pairs;
use crate::kernel::product::{Form, Out, Panels, Rows, accumulate};
use crate::kernel::pullback::{PullBack, Tile, TileMut};
use crate::kernel::simd::{Kernel, Simd};
use densenet_plan::{Stem, StemTensors};

/// The byte of a pooled pixel if the ReLU cut off all nine values.
const NONE: u8 = u8::MAX;

/// The state of the ImageNet stem in a training step besides its maps, and memory for its BN.
pub struct StemState {
    statistics: Statistics,
    affine: Affine,
    totals: GradientSums,
    undo: Undo,
}

impl StemState {
    pub fn new(stem: &Stem) -> Self {
        Self {
            statistics: Statistics::new(stem.maps),
            affine: Affine::default(),
            totals: GradientSums::default(),
            undo: Undo::default(),
        }
    }
}

/// The stem's buffers. Only the ImageNet stem has more than the images.
pub struct StemBuffers<'a> {
    /// Batch x height x width x channels.
    pub images: &'a [f32],
    /// The convolution's maps: pixels x maps.
    pub convolved: &'a mut [f32],
    /// The max pool's choices: pooled pixels x maps.
    pub choice: &'a mut [u8],
}

fn patches<'a>(stem: &Stem, images: &'a [f32]) -> Patches<'a> {
    Patches {
        images,
        height: stem.height,
        width: stem.width,
        channels: stem.channels,
        kernel: stem.kernel(),
        stride: stem.stride(),
    }
}

/// The position of channel `k` of a patch in a weight (maps x channels x kernel x kernel).
fn place(stem: &Stem, k: usize) -> usize {
    let area = stem.kernel() * stem.kernel();
    (k % stem.channels) * area + k / stem.channels
}

/// Runs the stem.
pub fn forward(
    engine: &mut Engine,
    (stem, tensors): (&Stem, &StemTensors),
    pass: &mut Forward<'_>,
    state: &mut StemState,
    buffers: StemBuffers<'_>,
    target: Destination<'_>,
) {
    let training = pass.training();
    let (height, width) = stem.convolved_size();
    let pixels = pass.batch * height * width;
    let weight = tensors.conv.weight.of(pass.parameters);
    let channels = weight.len() / stem.maps;
    let form = engine.form;
    let panels = Panels {
        depth: form.whole(channels),
        columns: stem.maps,
        form,
    };
    engine.pack(panels, |k, m| {
        if k < channels {
            weight[m * channels + place(stem, k)]
        } else {
            0.0
        }
    });
    let load = patches(stem, buffers.images);
    match &tensors.norm {
        None => pointwise::forward(engine, &load, pixels, channels, panels, target),
        Some(norm) => {
            let convolved = Destination {
                values: buffers.convolved,
                columns: OutputColumns {
                    measure: training,
                    ..OutputColumns::all(stem.maps)
                },
            };
            pointwise::forward(engine, &load, pixels, channels, panels, convolved);
            if training {
                state.statistics.merge(0, engine.moments());
            }
            let StemState {
                statistics, affine, ..
            } = state;
            pass.prepare(affine, norm, statistics, pixels);
            max_pool(engine, stem, pass.batch, buffers, affine, target);
        }
    }
}

fn max_pool(
    engine: &mut Engine,
    stem: &Stem,
    batch: usize,
    buffers: StemBuffers<'_>,
    affine: &Affine,
    target: Destination<'_>,
) {
    let (height, width) = stem.output_size();
    let shares = engine.shares(batch * height);
    let level = engine.level;
    let Destination { values, columns } = target;
    let convolved = &*buffers.convolved;
    let choice = &mut buffers.choice[..batch * height * width * stem.maps];
    let mut parts: Parts<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(values, width * columns.stride, &shares))
        .zip(split_rows(choice, width * stem.maps, &shares))
        .zip(&mut engine.scratch)
        .collect();
    engine
        .team
        .each(&mut parts, |_, (((rows, out), choice), scratch)| {
            level.run(MaxPool {
                stem,
                convolved,
                affine,
                rows: rows.clone(),
                target: Destination {
                    values: out,
                    columns,
                },
                choice,
                scratch,
            });
        });
}

/// One thread's share of the max pool.
struct MaxPool<'a> {
    stem: &'a Stem,
    convolved: &'a [f32],
    affine: &'a Affine,
    /// Rows of pooled pixels, counted over all images.
    rows: Range<usize>,
    target: Destination<'a>,
    choice: &'a mut [u8],
    scratch: &'a mut Scratch,
}

impl Kernel for MaxPool<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            stem,
            convolved,
            affine,
            rows,
            target,
            choice,
            scratch,
        } = self;
        let OutputColumns {
            stride,
            column,
            measure,
            ..
        } = target.columns;
        let maps = stem.maps;
        let (from_height, from_width) = stem.convolved_size();
        let (height, width) = stem.output_size();
        let (scale, shift) = (&affine.scale[..maps], &affine.shift[..maps]);
        scratch.moments.reset(maps);
        for (local, row) in rows.enumerate() {
            let (image, y) = (row / height, row % height);
            for x in 0..width {
                let p = local * width + x;
                let out = &mut target.values[p * stride + column..][..maps];
                let choice = &mut choice[p * maps..][..maps];
                out.fill(f32::NEG_INFINITY);
                for ky in 0..3 {
                    let from_y = (2 * y + ky).wrapping_sub(1);
                    for kx in 0..3 {
                        let from_x = (2 * x + kx).wrapping_sub(1);
                        if from_y >= from_height || from_x >= from_width {
                            continue;
                        }
                        let pixel = (image * from_height + from_y) * from_width + from_x;
                        let from = &convolved[pixel * maps..][..maps];
                        let place = (ky * 3 + kx) as u8;
                        for c in 0..maps {
                            let z = simd.scalar_fma(from[c], scale[c], shift[c]);
                            // A NaN is chosen, and stays.
                            let taken = z > out[c] || z.is_nan();
                            out[c] = if taken { z } else { out[c] };
                            choice[c] = if taken { place } else { choice[c] };
                        }
                    }
                }
                for (out, choice) in out.iter_mut().zip(choice) {
                    *choice = if *out > 0.0 { *choice } else { NONE };
                    *out = relu(*out);
                }
            }
            if measure {
                let at = local * width * stride + column;
                let line = Runs::rows(&target.values[at..], stride, width);
                emit(simd, line, maps, Some(&mut scratch.moments), None);
            }
        }
    }
}

/// Goes back through the stem. If `image_gradient` is given, it receives the gradient of the images.
///
/// `dout` is the gradient of the stem's maps (pixels x maps).
pub fn backward(
    engine: &mut Engine,
    (stem, tensors): (&Stem, &StemTensors),
    pass: &mut Backward<'_>,
    state: &mut StemState,
    buffers: StemBuffers<'_>,
    dout: &[f32],
    image_gradient: Option<&mut [f32]>,
) {
    let batch = pass.batch;
    let weight = tensors.conv.weight.of(pass.parameters);
    let channels = weight.len() / stem.maps;
    let StemBuffers {
        images,
        convolved,
        choice,
    } = buffers;
    let way = match &tensors.norm {
        None => Way::Straight { dout },
        Some(at) => {
            let StemState {
                statistics,
                affine,
                totals,
                undo,
            } = state;
            let norm = pass.norm(affine, at, statistics);
            let pool = Unpool {
                dout,
                choice,
                x: convolved,
            };
            if !pass.frozen.has_norm(at) {
                back_rows(engine, stem, batch, Task::Sum(norm, pool));
            }
            pass.start(engine, at, totals);
            let (height, width) = stem.convolved_size();
            let pixels = batch * height * width;
            undo.set(statistics, 0..stem.maps, Some(norm.gamma), totals, pixels);
            Way::Pooled(pool, undo)
        }
    };
    if !pass.frozen.has(tensors.conv.weight) {
        back_rows(
            engine,
            stem,
            batch,
            Task::Weight(patches(stem, images), way),
        );
        let share = padded(channels);
        let shares = &engine.scratch;
        let weight_gradient = pass.gradients.range(tensors.conv.weight.range());
        for (m, into) in weight_gradient.chunks_exact_mut(channels).enumerate() {
            for share in shares
                .iter()
                .map(|scratch| &scratch.weight[m * share..][..channels])
            {
                for (k, value) in share.iter().enumerate() {
                    into[place(stem, k)] += value;
                }
            }
        }
    }
    let Some(image_gradient) = image_gradient else {
        return;
    };
    let size = stem.channels * stem.height * stem.width;
    let shares = engine.shares(batch);
    let mut parts: Parts<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(image_gradient, size, &shares))
        .collect();
    let level = engine.level;
    engine.team.each(&mut parts, |_, (range, into)| {
        level.run(ImageGradient {
            stem,
            weight,
            way,
            images: range.clone(),
            into,
        });
    });
}

/// Where the gradient of the convolution's maps comes from.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// The stem returned these maps, so it is given.
    Straight { dout: &'a [f32] },
    /// It comes back through the max pool, ReLU and BN.
    Pooled(Unpool<'a>, &'a Undo),
}

/// The backward pass of the max pool.
#[derive(Clone, Copy)]
struct Unpool<'a> {
    /// The gradient of the pooled maps.
    dout: &'a [f32],
    choice: &'a [u8],
    /// The convolution's maps.
    x: &'a [f32],
}

impl Unpool<'_> {
    /// The gradient after the ReLU for one row of the convolution's maps, counted over all images.
    /// It is already masked: if the ReLU cut off all values, the pool chose none.
    #[inline(always)]
    fn row(&self, stem: &Stem, row: usize, into: &mut [f32]) {
        let maps = stem.maps;
        let (from_height, _) = stem.convolved_size();
        let (height, width) = stem.output_size();
        let (image, y) = (row / from_height, row % from_height);
        into.fill(0.0);
        // Pooled row i covers rows 2i - 1 to 2i + 1.
        for i in y / 2..=y.div_ceil(2) {
            if i >= height {
                continue;
            }
            let ky = y + 1 - 2 * i;
            for j in 0..width {
                let pixel = ((image * height + i) * width + j) * maps;
                let choice = &self.choice[pixel..][..maps];
                let dout = &self.dout[pixel..][..maps];
                for kx in 0..3 {
                    let column = (2 * j + kx).wrapping_sub(1);
                    let Some(into) = into[..].chunks_exact_mut(maps).nth(column) else {
                        continue;
                    };
                    let place = (ky * 3 + kx) as u8;
                    for ((into, choice), dout) in into.iter_mut().zip(choice).zip(dout) {
                        *into += if *choice == place { *dout } else { 0.0 };
                    }
                }
            }
        }
    }
}

impl Way<'_> {
    /// The gradient of one row of the convolution's maps, counted over all images.
    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, stem: &Stem, row: usize, into: &mut [f32]) {
        match self {
            Self::Straight { dout } => {
                into.copy_from_slice(&dout[row * into.len()..][..into.len()]);
            }
            Self::Pooled(pool, undo) => {
                pool.row(stem, row, into);
                let x = &pool.x[row * into.len()..][..into.len()];
                let pixels = into
                    .chunks_exact_mut(stem.maps)
                    .zip(x.chunks_exact(stem.maps));
                for (into, x) in pixels {
                    undo.pixel_in_place(simd, into, x);
                }
            }
        }
    }
}

/// What is done with each row of the convolution's maps in the backward pass.
#[derive(Clone, Copy)]
enum Task<'a> {
    /// The sums for gamma and beta are computed.
    Sum(Norm<'a>, Unpool<'a>),
    /// The gradient of the weight is computed, from these patches.
    Weight(Patches<'a>, Way<'a>),
}

fn back_rows(engine: &mut Engine, stem: &Stem, batch: usize, task: Task<'_>) {
    let (height, _) = stem.convolved_size();
    let (level, form) = (engine.level, engine.form);
    let mut parts: Parts<_> = engine
        .shares(batch * height)
        .into_iter()
        .zip(&mut engine.scratch)
        .collect();
    engine.team.each(&mut parts, |_, (rows, scratch)| {
        level.run(BackRows {
            form,
            stem,
            rows: rows.clone(),
            task,
            scratch,
        });
    });
}

/// One thread's share of [`back_rows`].
struct BackRows<'a> {
    form: Form,
    stem: &'a Stem,
    rows: Range<usize>,
    task: Task<'a>,
    scratch: &'a mut Scratch,
}

impl Kernel for BackRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            form,
            stem,
            rows,
            task,
            scratch,
        } = self;
        let maps = stem.maps;
        let (_, width) = stem.convolved_size();
        let channels = stem.weight_len() / maps;
        let stride = padded(channels);
        scratch.sums.reset(maps);
        if let Task::Weight(..) = task {
            need_zeros(&mut scratch.weight, maps * stride);
        }
        for row in rows {
            let d = need(&mut scratch.other, width * maps);
            match task {
                Task::Sum(norm, pool) => {
                    pool.row(stem, row, d);
                    let x = &pool.x[row * d.len()..][..d.len()];
                    // The masked gradient itself is not needed here.
                    let nowhere = need(&mut scratch.operand, maps);
                    let (sum_scale, sum_bias) = scratch.sums.tile(0..maps);
                    PullBack {
                        rows: width,
                        norm: norm.channels(0..maps),
                        factor: norm.gamma,
                        d: Tile {
                            values: d,
                            stride: maps,
                        },
                        x: Tile {
                            values: x,
                            stride: maps,
                        },
                        into: TileMut {
                            values: nowhere,
                            stride: 0,
                        },
                        add: false,
                        operand: None,
                        sum_scale,
                        sum_bias,
                    }
                    .run(simd);
                    scratch.sums.flush(0..maps, norm.inverse);
                }
                Task::Weight(patches, way) => {
                    way.row(simd, stem, row, d);
                    let operand = need_zeros(&mut scratch.operand, width * stride);
                    let pixels = row * width..(row + 1) * width;
                    patches.load(simd, pixels, 0..channels, operand, stride);
                    let rows = |values, stride| Rows {
                        values,
                        stride,
                        count: width,
                    };
                    let (d, a) = (rows(d, maps), rows(operand, stride));
                    accumulate(
                        simd,
                        form,
                        pairs::of_rows(simd, form, d, &mut scratch.pairs),
                        maps,
                        pairs::of_rows(simd, form, a, &mut scratch.gradient),
                        channels,
                        Out {
                            values: &mut scratch.weight,
                            stride,
                            add: true,
                        },
                    );
                }
            }
        }
    }
}

/// The gradient of some images, in plain loops, since training does not need it.
struct ImageGradient<'a> {
    stem: &'a Stem,
    weight: &'a [f32],
    way: Way<'a>,
    images: Range<usize>,
    into: &'a mut [f32],
}

impl Kernel for ImageGradient<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            stem,
            weight,
            way,
            images,
            into,
        } = self;
        let (height, width) = stem.convolved_size();
        let channels = stem.channels;
        let area = stem.kernel() * stem.kernel();
        let start = images.start * stem.height * stem.width;
        let mut d = vec![0.0; width * stem.maps];
        into.fill(0.0);
        for row in images.start * height..images.end * height {
            way.row(simd, stem, row, &mut d);
            for (x, d) in d.chunks_exact(stem.maps).enumerate() {
                patches(stem, &[]).under(row * width + x, |place, pixel| {
                    let Some(pixel) = pixel else { return };
                    let into = &mut into[(pixel - start) * channels..][..channels];
                    for (m, d) in d.iter().enumerate() {
                        for (c, into) in into.iter_mut().enumerate() {
                            *into += d * weight[(m * channels + c) * area + place];
                        }
                    }
                });
            }
        }
    }
}
