//! Single stages for dfdx's way: the executor's code on buffers that live as long as a tape.

mod shapes;

pub(crate) use densenet_cpu::engine::Engine;
pub(crate) use shapes::Part;

use crate::plan::{Block, DropoutSites, FrozenTensors, Head, Stem, StemKind, Transition};
use densenet_cpu::conv::finish::{Source, finish};
use densenet_cpu::conv::pointwise::{Destination, OutputColumns};
use densenet_cpu::kernel::normal::{Affine, GradientSums, Norms, Statistics, Undo};
use densenet_cpu::layout::{to_nchw, to_nhwc};
use densenet_cpu::stage::block::{self, BlockBuffers, BlockGradients, BlockState, Bottlenecks};
use densenet_cpu::stage::head::{self, HeadGradients};
use densenet_cpu::stage::measure::measure;
use densenet_cpu::stage::stem::{self, StemBuffers, StemState};
use densenet_cpu::stage::{Backward, Drops, Forward, Gradients, Maps, MapsGradient, transition};

/// The values that a stage keeps for its backward pass.
pub(crate) struct Record {
    batch: usize,
    drops: Drops,
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
    Transition {
        transition: Transition,
        x: Vec<f32>,
        statistics: Statistics,
    },
    Head {
        head: Head,
        x: Vec<f32>,
        statistics: Statistics,
        /// Pooled.
        features: Vec<f32>,
    },
}

/// Runs a stage with the batch's statistics, which update the running ones, or with the running
/// ones, as `norms` says. Input and output are NCHW, except for a head's logits. The caller has
/// checked that the numbers fit the stage ([`Part::images`]).
pub(crate) fn forward(
    engine: &mut Engine,
    part: Part,
    norms: Norms<'_>,
    drops: Drops,
    parameters: &[f32],
    input: &[f32],
) -> (Vec<f32>, Record) {
    let mut pass = Forward {
        batch: input.len() / part.values(),
        parameters,
        norms,
        frozen: FrozenTensors::default(),
    };
    let batch = pass.batch;
    let (output, memory) = match part {
        Part::Stem(stem) => run_stem(engine, stem, &mut pass, input),
        Part::Block(block) => run_block(engine, block, &mut pass, drops, input),
        Part::Transition(transition) => run_transition(engine, transition, &mut pass, drops, input),
        Part::Head(head) => run_head(engine, head, &mut pass, input),
    };
    let record = Record {
        batch,
        drops,
        memory,
    };
    (output, record)
}

fn run_stem(
    engine: &mut Engine,
    stem: Stem,
    pass: &mut Forward<'_>,
    input: &[f32],
) -> (Vec<f32>, Memory) {
    let images = nhwc(input, stem.channels, stem.height * stem.width);
    let (height, width) = stem.output_size();
    let mut output = vec![0.0; pass.batch * height * width * stem.maps];
    let (mut convolved, mut choice) = (Vec::new(), Vec::new());
    if stem.kind == StemKind::ImageNet {
        let (height, width) = stem.convolved_size();
        convolved = vec![0.0; pass.batch * height * width * stem.maps];
        choice = vec![0; output.len()];
    }
    let mut state = StemState::new(&stem);
    let buffers = StemBuffers {
        images: &images,
        convolved: &mut convolved,
        choice: &mut choice,
    };
    let target = Destination {
        values: &mut output,
        columns: OutputColumns::all(stem.maps),
    };
    let stage = (&stem, &stem.tensors());
    stem::forward(engine, stage, pass, &mut state, buffers, target);
    let output = to_nchw(&output, stem.maps, height * width);
    let memory = Memory::Stem {
        stem,
        images,
        convolved,
        choice,
        state,
    };
    (output, memory)
}

fn run_block(
    engine: &mut Engine,
    block: Block,
    pass: &mut Forward<'_>,
    drops: Drops,
    input: &[f32],
) -> (Vec<f32>, Memory) {
    let pixels = pass.batch * block.pixels();
    let stride = block.output();
    let mut x = vec![0.0; pixels * stride];
    to_nhwc(input, block.input, block.pixels(), (&mut x, stride));
    let mut state = BlockState::new(&block);
    if pass.training() {
        let measured = measure(engine, &x, stride, block.input);
        state.maps.mean[..block.input].copy_from_slice(&measured.mean);
        state.maps.variance[..block.input].copy_from_slice(&measured.variance);
        state.maps.inverse[..block.input].copy_from_slice(&measured.inverse);
    }
    let mut bottlenecks = vec![0.0; pass.batch * block.bottleneck_maps() * block.layers];
    let mut fresh = vec![0.0; pixels * block.growth];
    let buffers = BlockBuffers {
        x: &mut x,
        stride,
        bottleneck: Bottlenecks::Kept(&mut bottlenecks),
        fresh: &mut fresh,
    };
    let stage = (&block, &block.tensors()[..]);
    let sites = drops.at(DropoutSites::alone(block.layers), pass.frozen);
    block::forward(engine, stage, pass, &mut state, buffers, sites);
    let output = to_nchw(&x, stride, block.pixels());
    let memory = Memory::Block {
        block,
        x,
        bottlenecks,
        state,
    };
    (output, memory)
}

/// A transition's or a head's input as NHWC, with a batch's statistics if they are wanted.
fn maps_of(
    engine: &mut Engine,
    pass: &Forward<'_>,
    input: &[f32],
    channels: usize,
    area: usize,
) -> (Vec<f32>, Statistics) {
    let x = nhwc(input, channels, area);
    let statistics = if pass.training() {
        measure(engine, &x, channels, channels)
    } else {
        Statistics::default()
    };
    (x, statistics)
}

fn run_transition(
    engine: &mut Engine,
    transition: Transition,
    pass: &mut Forward<'_>,
    drops: Drops,
    input: &[f32],
) -> (Vec<f32>, Memory) {
    let channels = transition.input;
    let (x, statistics) = maps_of(engine, pass, input, channels, transition.pixels());
    let (height, width) = transition.output_size();
    let mut output = vec![0.0; pass.batch * height * width * transition.output];
    let maps = Maps {
        x: &x,
        stride: channels,
        statistics: &statistics,
        affine: &mut Affine::default(),
    };
    let stage = (&transition, &transition.tensors());
    let sites = drops.at(DropoutSites::alone(0), pass.frozen);
    let target = Destination {
        values: &mut output,
        columns: OutputColumns {
            dropout: sites.transition(&stage.1.conv),
            ..OutputColumns::all(transition.output)
        },
    };
    transition::forward(engine, stage, pass, maps, target);
    let output = to_nchw(&output, transition.output, height * width);
    let memory = Memory::Transition {
        transition,
        x,
        statistics,
    };
    (output, memory)
}

fn run_head(
    engine: &mut Engine,
    head: Head,
    pass: &mut Forward<'_>,
    input: &[f32],
) -> (Vec<f32>, Memory) {
    let (x, statistics) = maps_of(engine, pass, input, head.input, head.pixels());
    let mut features = vec![0.0; pass.batch * head.input];
    let mut logits = vec![0.0; pass.batch * head.classes];
    let maps = Maps {
        x: &x,
        stride: head.input,
        statistics: &statistics,
        affine: &mut Affine::default(),
    };
    let stage = (&head, &head.tensors());
    head::forward(engine, stage, pass, maps, &mut features, &mut logits);
    let memory = Memory::Head {
        head,
        x,
        statistics,
        features,
    };
    (logits, memory)
}

impl Record {
    /// The backward pass: adds to the gradient of the parameters, and returns the input's gradient.
    ///
    /// Gradients have the values' layout: NCHW, or a head's logits.
    pub(crate) fn backward(
        self,
        engine: &mut Engine,
        parameters: &[f32],
        gradients: &mut [f32],
        doutput: &[f32],
    ) -> Vec<f32> {
        let mut pass = Backward {
            batch: self.batch,
            parameters,
            gradients: Gradients::after(0, gradients),
            frozen: FrozenTensors::default(),
            running: &[],
            first_trained: 0,
        };
        let pass = &mut pass;
        let drops = self.drops;
        match self.memory {
            Memory::Stem {
                stem,
                images,
                mut convolved,
                mut choice,
                mut state,
            } => {
                let (height, width) = stem.output_size();
                let dout = nhwc(doutput, stem.maps, height * width);
                let mut dimages = vec![0.0; images.len()];
                let buffers = StemBuffers {
                    images: &images,
                    convolved: &mut convolved,
                    choice: &mut choice,
                };
                let stage = (&stem, &stem.tensors());
                let into = Some(&mut dimages[..]);
                stem::backward(engine, stage, pass, &mut state, buffers, &dout, into);
                to_nchw(&dimages, stem.channels, stem.height * stem.width)
            }
            Memory::Block {
                block,
                x,
                mut bottlenecks,
                mut state,
            } => {
                let pixels = pass.batch * block.pixels();
                let stride = block.output();
                let raw = nhwc(doutput, stride, block.pixels());
                let mut g = vec![0.0; raw.len()];
                let mut dy = vec![0.0; pass.batch * block.bottleneck_maps()];
                let mut fresh = vec![0.0; pixels * block.growth];
                let mut dinput = vec![0.0; pixels * block.input];
                state.gradient.reset(block.output());
                let buffers = BlockGradients {
                    x: &x,
                    stride,
                    bottlenecks: Bottlenecks::Kept(&mut bottlenecks),
                    g: &mut g,
                    raw: Some(&raw),
                    bottleneck: &mut dy,
                    fresh: &mut fresh,
                    input: &mut dinput,
                };
                let stage = (&block, &block.tensors()[..]);
                let sites = drops.at(DropoutSites::alone(block.layers), pass.frozen);
                block::backward(engine, stage, pass, &mut state, buffers, sites);
                to_nchw(&dinput, block.input, block.pixels())
            }
            Memory::Transition {
                transition,
                x,
                statistics,
            } => {
                let (height, width) = transition.output_size();
                let dout = nhwc(doutput, transition.output, height * width);
                let stage = (&transition, &transition.tensors());
                let sites = drops.at(DropoutSites::alone(0), pass.frozen);
                let dropout = sites.transition(&stage.1.conv);
                let channels = transition.input;
                let dinput = undone(engine, &x, channels, &statistics, |engine, maps, into| {
                    transition::backward(engine, stage, pass, maps, &dout, dropout, into);
                });
                to_nchw(&dinput, channels, transition.pixels())
            }
            Memory::Head {
                head,
                x,
                statistics,
                features,
            } => {
                let mut dfeatures = vec![0.0; features.len()];
                let own = HeadGradients {
                    logits: doutput,
                    features: &mut dfeatures,
                };
                let stage = (&head, &head.tensors());
                let dinput = undone(engine, &x, head.input, &statistics, |engine, maps, into| {
                    head::backward(engine, stage, pass, maps, &features, own, into);
                });
                to_nchw(&dinput, head.input, head.pixels())
            }
        }
    }
}

/// The gradient of the input of a transition or a head: `backward` computes that of the normalised
/// input, and BN is undone here.
fn undone(
    engine: &mut Engine,
    x: &[f32],
    channels: usize,
    statistics: &Statistics,
    backward: impl FnOnce(&mut Engine, Maps<'_>, MapsGradient<'_>),
) -> Vec<f32> {
    let (mut g, mut dinput) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let mut sums = GradientSums::default();
    let maps = Maps {
        x,
        stride: channels,
        statistics,
        affine: &mut Affine::default(),
    };
    let into = MapsGradient {
        g: &mut g,
        sums: &mut sums,
    };
    backward(engine, maps, into);
    let rest = Source {
        g: &g,
        x,
        stride: channels,
        columns: 0..channels,
        statistics,
        sums: &sums,
        raw: None,
        dropout: None,
    };
    finish(engine, &mut Undo::default(), rest, &mut dinput);
    dinput
}

/// From NCHW to NHWC.
fn nhwc(from: &[f32], channels: usize, area: usize) -> Vec<f32> {
    let mut into = vec![0.0; from.len()];
    to_nhwc(from, channels, area, (&mut into, channels));
    into
}
