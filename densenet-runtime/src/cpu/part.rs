//! Single stages on tensors of their own, for the dfdx way: the executor's code over buffers
//! that live as long as a tape.

mod shapes;

use super::conv::finish::finish;
use super::conv::pointwise::{Input, Target};
use super::engine::{Parts, padded, shares};
use super::kernel::dropout::Dropout;
use super::kernel::emit::{Runs, emit};
use super::kernel::load::NormRelu;
use super::kernel::normal::{Affine, GradientSums, Moments, Norm, NormWeights, Norms, Statistics};
use super::kernel::simd::{Kernel, Level, Simd};
use super::layout::{to_nchw, to_nhwc};
use super::stage::block::{self, BlockBuffers, BlockGradients, BlockState, Bottlenecks, Sites};
use super::stage::head;
use super::stage::stem::{self, StemBuffers, StemState};
use super::stage::transition;
use crate::plan::{Block, Head, NormTensors, Precision, Span, Stem, StemKind, Transition};

pub(crate) use super::engine::Engine;
pub(crate) use shapes::Part;

impl Engine {
    /// One thread on each core, and the best instructions.
    pub(crate) fn for_this_machine() -> Self {
        let threads = super::threads(0);
        Self::new(threads, Level::detect(), Precision::F32)
    }

    /// Measures the first `channels` of a buffer.
    fn measure(&mut self, x: &[f32], stride: usize, channels: usize) -> Statistics {
        let shares = shares(x.len() / stride, self.team.threads());
        let mut parts: Parts<_> = shares.into_iter().zip(&mut self.scratch).collect();
        let level = self.level;
        self.team.each(&mut parts, |_, (pixels, scratch)| {
            scratch.moments.reset(channels);
            let x = &x[pixels.start * stride..pixels.end * stride];
            level.run(Measure {
                x,
                stride,
                moments: &mut scratch.moments,
                channels,
            });
        });
        drop(parts);
        let mut statistics = Statistics::new(channels);
        statistics.merge(0, self.moments());
        statistics
    }
}

/// One thread's share of [`Engine::measure`].
struct Measure<'a> {
    x: &'a [f32],
    stride: usize,
    moments: &'a mut Moments,
    channels: usize,
}

impl Kernel for Measure<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            x,
            stride,
            moments,
            channels,
        } = self;
        for tile in x.chunks(112 * stride) {
            let rows = Runs::rows(tile, stride, tile.len() / stride);
            emit(simd, rows, channels, Some(&mut *moments), None);
        }
    }
}

/// How a stage runs forward.
pub(crate) enum Mode<'a> {
    /// With running statistics.
    Infer { running: &'a [f32] },
    /// With the batch's statistics, which move the running ones.
    Train {
        running: &'a mut [f32],
        dropout: f64,
        seed: u64,
    },
}

/// What a stage remembers for the way back.
pub(crate) struct Record {
    batch: usize,
    dropout: f64,
    seed: u64,
    memory: Memory,
}

enum Memory {
    Stem {
        stem: Stem,
        images: Vec<f32>,
        convolved: Vec<f32>,
        choice: Vec<u8>,
        state: StemState,
    },
    Block {
        block: Block,
        x: Vec<f32>,
        bottlenecks: Vec<f32>,
        state: BlockState,
    },
    /// A transition or a head.
    Consumer {
        part: Consumer,
        x: Vec<f32>,
        statistics: Statistics,
        /// A head's pooled features.
        features: Vec<f32>,
    },
}

#[derive(Clone, Copy)]
enum Consumer {
    Transition(Transition),
    Head(Head),
}

impl Consumer {
    /// The tensors of its BN.
    fn norm(self) -> NormTensors {
        match self {
            Self::Transition(transition) => transition.tensors().norm,
            Self::Head(head) => head.tensors().norm,
        }
    }

    /// Channels and pixels of the input.
    fn input(self) -> (usize, usize) {
        match self {
            Self::Transition(transition) => (transition.input, transition.pixels()),
            Self::Head(head) => (head.input, head.pixels()),
        }
    }
}

/// Runs a stage; `input` is NCHW, and so is what comes back, but for a head's logits. The numbers
/// are those of the stage ([`Part::images`]).
pub(crate) fn forward(
    engine: &mut Engine,
    part: Part,
    mode: Mode<'_>,
    parameters: &[f32],
    input: &[f32],
) -> (Vec<f32>, Record) {
    let (norms, dropout, seed) = match mode {
        Mode::Infer { running } => (Norms::Running(running), 0.0, 0),
        Mode::Train {
            running,
            dropout,
            seed,
        } => (Norms::Batch(running), dropout, seed),
    };
    let (output, batch, memory) = match part {
        Part::Stem(stem) => run_stem(engine, stem, norms, parameters, input),
        Part::Block(block) => run_block(engine, block, norms, parameters, input, dropout, seed),
        Part::Transition(transition) => {
            let part = Consumer::Transition(transition);
            run_consumer(engine, part, norms, parameters, input, dropout, seed)
        }
        Part::Head(head) => {
            let part = Consumer::Head(head);
            run_consumer(engine, part, norms, parameters, input, dropout, seed)
        }
    };
    (
        output,
        Record {
            batch,
            dropout,
            seed,
            memory,
        },
    )
}

fn run_stem(
    engine: &mut Engine,
    stem: Stem,
    norms: Norms<'_>,
    parameters: &[f32],
    input: &[f32],
) -> (Vec<f32>, usize, Memory) {
    let area = stem.height * stem.width;
    let batch = input.len() / (stem.channels * area);
    let mut images = vec![0.0; input.len()];
    to_nhwc(input, stem.channels, area, (&mut images, stem.channels));
    let (height, width) = stem.output_size();
    let mut output = vec![0.0; batch * height * width * stem.maps];
    let (mut convolved, mut choice) = (Vec::new(), Vec::new());
    if stem.kind == StemKind::ImageNet {
        let (height, width) = stem.convolved_size();
        convolved = vec![0.0; batch * height * width * stem.maps];
        choice = vec![0; output.len()];
    }
    let mut state = StemState::new(&stem);
    let buffers = StemBuffers {
        convolved: &mut convolved,
        choice: &mut choice,
    };
    let target = Target {
        values: &mut output,
        stride: stem.maps,
        column: 0,
    };
    let stage = (&stem, &stem.tensors());
    stem::forward(
        engine, stage, batch, &images, parameters, norms, &mut state, buffers, target,
    );
    let output = to_nchw(&output, stem.maps, height * width);
    (
        output,
        batch,
        Memory::Stem {
            stem,
            images,
            convolved,
            choice,
            state,
        },
    )
}

fn run_block(
    engine: &mut Engine,
    block: Block,
    norms: Norms<'_>,
    parameters: &[f32],
    input: &[f32],
    dropout: f64,
    seed: u64,
) -> (Vec<f32>, usize, Memory) {
    let batch = input.len() / (block.input * block.pixels());
    let pixels = batch * block.pixels();
    let mut x = vec![0.0; pixels * block.output()];
    to_nhwc(input, block.input, block.pixels(), (&mut x, block.output()));
    let mut state = BlockState::new(&block);
    if let Norms::Batch(_) = norms {
        let measured = engine.measure(&x, block.output(), block.input);
        state.maps.mean[..block.input].copy_from_slice(&measured.mean);
        state.maps.variance[..block.input].copy_from_slice(&measured.variance);
        state.maps.inverse[..block.input].copy_from_slice(&measured.inverse);
    }
    let maps = block.bottleneck.unwrap_or(0);
    let mut bottlenecks = vec![0.0; block.layers * pixels * maps];
    let mut fresh = vec![0.0; pixels * block.growth];
    let buffers = BlockBuffers {
        x: &mut x,
        stride: block.output(),
        bottleneck: Bottlenecks::Kept(&mut bottlenecks),
        fresh: &mut fresh,
    };
    let sites = Sites {
        probability: dropout,
        seed,
        sites: block.dropout_sites(),
    };
    let stage = (&block, &block.tensors()[..]);
    block::forward(
        engine, stage, batch, parameters, norms, &mut state, buffers, sites,
    );
    let output = to_nchw(&x, block.output(), block.pixels());
    (
        output,
        batch,
        Memory::Block {
            block,
            x,
            bottlenecks,
            state,
        },
    )
}

fn run_consumer(
    engine: &mut Engine,
    part: Consumer,
    mut norms: Norms<'_>,
    parameters: &[f32],
    input: &[f32],
    dropout: f64,
    seed: u64,
) -> (Vec<f32>, usize, Memory) {
    let (channels, area) = part.input();
    let batch = input.len() / (channels * area);
    let mut x = vec![0.0; input.len()];
    to_nhwc(input, channels, area, (&mut x, channels));
    let statistics = match norms {
        Norms::Batch(_) => engine.measure(&x, channels, channels),
        Norms::Running(_) => Statistics::default(),
    };
    let norm = part.norm();
    let mut affine = Affine::default();
    affine.prepare(parameters, &norm, &statistics, &mut norms, batch * area);
    let source = NormRelu {
        x: &x,
        stride: channels,
        affine: &affine,
    };
    let mut features = Vec::new();
    let output = match part {
        Consumer::Transition(transition) => {
            let (height, width) = transition.output_size();
            let mut output = vec![0.0; batch * height * width * transition.output];
            let target = Target {
                values: &mut output,
                stride: transition.output,
                column: 0,
            };
            let dropout = Dropout::new(dropout, seed, 0);
            let weight = transition.tensors().conv.weight;
            transition::forward(
                engine,
                &transition,
                batch,
                weight.of(parameters),
                source,
                target,
                dropout,
                false,
            );
            to_nchw(&output, transition.output, height * width)
        }
        Consumer::Head(head) => {
            features = vec![0.0; batch * channels];
            head::pool(engine, source, channels, area, &mut features);
            let own = head.tensors();
            let [weight, bias] = [own.weight, own.bias].map(|span| span.of(parameters));
            let mut logits = vec![0.0; batch * head.classes];
            head::classify(engine, &features, weight, bias, &mut logits);
            logits
        }
    };
    (
        output,
        batch,
        Memory::Consumer {
            part,
            x,
            statistics,
            features,
        },
    )
}

impl Record {
    /// Goes back: adds to the gradient of the parameters, and returns the input's gradient.
    ///
    /// Gradients are as the values were: NCHW, or a head's logits.
    pub(crate) fn backward(
        self,
        engine: &mut Engine,
        parameters: &[f32],
        gradient: &mut [f32],
        doutput: &[f32],
    ) -> Vec<f32> {
        let Self {
            batch,
            dropout,
            seed,
            memory,
        } = self;
        match memory {
            Memory::Stem {
                stem,
                images,
                mut convolved,
                mut choice,
                state,
            } => {
                let (height, width) = stem.output_size();
                let mut dout = vec![0.0; doutput.len()];
                to_nhwc(doutput, stem.maps, height * width, (&mut dout, stem.maps));
                let mut dimages = vec![0.0; images.len()];
                let buffers = StemBuffers {
                    convolved: &mut convolved,
                    choice: &mut choice,
                };
                stem::backward(
                    engine,
                    (&stem, &stem.tensors()),
                    batch,
                    &images,
                    parameters,
                    gradient,
                    &state,
                    buffers,
                    &dout,
                    Some(&mut dimages),
                );
                to_nchw(&dimages, stem.channels, stem.height * stem.width)
            }
            Memory::Block {
                block,
                x,
                mut bottlenecks,
                mut state,
            } => {
                let pixels = batch * block.pixels();
                let stride = block.output();
                let mut raw = vec![0.0; doutput.len()];
                to_nhwc(doutput, stride, block.pixels(), (&mut raw, stride));
                let mut g = vec![0.0; raw.len()];
                let mut dy = vec![0.0; pixels * block.bottleneck.unwrap_or(0)];
                let mut fresh = vec![0.0; pixels * block.growth];
                state.gradient.reset(block.output());
                let buffers = BlockGradients {
                    g: &mut g,
                    stride,
                    bottleneck: &mut dy,
                    fresh: &mut fresh,
                    raw: Some(&raw),
                };
                let sites = Sites {
                    probability: dropout,
                    seed,
                    sites: block.dropout_sites(),
                };
                let kept = Bottlenecks::Kept(&mut bottlenecks);
                let stage = (&block, &block.tensors()[..]);
                block::backward(
                    engine, stage, batch, parameters, gradient, &mut state, &x, kept, buffers,
                    sites,
                );
                let mut dinput = vec![0.0; pixels * block.input];
                let maps = (&state.maps, &state.gradient);
                let source = (&g[..], &x[..], stride);
                let columns = 0..block.input;
                finish(engine, source, columns, maps, Some(&raw), &mut dinput, None);
                to_nchw(&dinput, block.input, block.pixels())
            }
            Memory::Consumer {
                part,
                x,
                statistics,
                features,
            } => {
                let (channels, area) = part.input();
                let tensors = part.norm();
                let norm = NormWeights::of(parameters, &tensors);
                let mut affine = Affine::default();
                affine.set(&norm, &statistics.mean, &statistics.inverse);
                let input = Input {
                    x: &x,
                    stride: channels,
                    channels,
                    norm: Norm {
                        affine: &affine,
                        gamma: norm.scale,
                        mean: &statistics.mean,
                        inverse: &statistics.inverse,
                    },
                };
                let mut g = vec![0.0; x.len()];
                match part {
                    Consumer::Transition(transition) => {
                        let (height, width) = transition.output_size();
                        let mut dout = vec![0.0; doutput.len()];
                        let maps = transition.output;
                        to_nhwc(doutput, maps, height * width, (&mut dout, maps));
                        let dropout = Dropout::new(dropout, seed, 0);
                        let weight = transition.tensors().conv.weight;
                        transition::backward(
                            engine,
                            &transition,
                            batch,
                            weight.of(parameters),
                            input,
                            &dout,
                            &mut g,
                            dropout,
                        );
                        let into = &mut gradient[weight.range()];
                        engine.add_weight(into, channels, padded(channels));
                    }
                    Consumer::Head(head) => {
                        let own = head.tensors();
                        let [weight, bias] = Span::of_each([own.weight, own.bias], gradient);
                        let mut dfeatures = vec![0.0; features.len()];
                        head::classify_backward(
                            engine,
                            &features,
                            own.weight.of(parameters),
                            doutput,
                            (weight, bias),
                            &mut dfeatures,
                        );
                        head::pool_backward(engine, input, area, &dfeatures, &mut g);
                    }
                }
                let mut totals = GradientSums::new(channels);
                let into = gradient[tensors.trainable()].split_at_mut(channels);
                totals.start(engine.sums(), norm.scale, into);
                let source = (&g[..], &x[..], channels);
                let mut dinput = vec![0.0; x.len()];
                let maps = (&statistics, &totals);
                finish(engine, source, 0..channels, maps, None, &mut dinput, None);
                to_nchw(&dinput, channels, area)
            }
        }
    }
}
