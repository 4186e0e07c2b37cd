//! The map of a network: the positions of each stage's tensors.
//!
//! A network's numbers are in two arenas, one of trainable parameters and one of running
//! statistics, stage after stage, in the order in which dfdx visits the generated struct. This is
//! the only place that computes offsets: executors, files, figures and tests read them here.

use std::ops::Range;

use crate::{Block, Head, Layer, Plan, Stem, StemKind, Transition};

/// The range of a tensor's elements in its arena, last dimension innermost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
}

impl Span {
    /// The range.
    pub const fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// The elements in their arena.
    ///
    /// # Panics
    /// If the arena belongs to another network.
    pub fn of<T>(self, arena: &[T]) -> &[T] {
        &arena[self.range()]
    }

    /// The elements of several tensors, mutably.
    ///
    /// # Panics
    /// If the arena belongs to another network, or spans overlap.
    pub fn of_each<const N: usize, T>(spans: [Self; N], arena: &mut [T]) -> [&mut [T]; N] {
        match arena.get_disjoint_mut(spans.map(Self::range)) {
            Ok(elements) => elements,
            Err(error) => panic!("tensors of another network: {error}"),
        }
    }
}

/// The tensors of a BN, each with one element per channel. Scale and bias (gamma and beta) are
/// trainable; mean and variance are running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormTensors {
    /// Gamma.
    pub scale: Span,
    /// Beta, directly after gamma.
    pub bias: Span,
    /// The running mean.
    pub mean: Span,
    /// The running variance, unbiased, directly after the mean.
    pub variance: Span,
}

impl NormTensors {
    /// Number of channels that it normalises.
    pub const fn channels(&self) -> usize {
        self.scale.len
    }

    /// Scale and bias, one after the other.
    pub const fn trainable(&self) -> Range<usize> {
        self.scale.start..self.bias.start + self.bias.len
    }

    /// Mean and variance, one after the other.
    pub const fn running(&self) -> Range<usize> {
        self.mean.start..self.variance.start + self.variance.len
    }
}

/// The weight of a convolution: maps x channels x kernel x kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTensor {
    /// Its elements.
    pub weight: Span,
    /// Feature maps that it makes.
    pub maps: usize,
    /// Channels that it reads.
    pub channels: usize,
    /// Side of its kernel.
    pub kernel: usize,
}

/// The tensors of the stem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StemTensors {
    /// The convolution.
    pub conv: ConvTensor,
    /// The BN after it, for ImageNet.
    pub norm: Option<NormTensors>,
}

/// The tensors of a dense layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerTensors {
    /// The BN of all maps before the layer.
    pub norm1: NormTensors,
    /// The 1x1 convolution of a bottleneck layer, and the BN after it.
    pub narrow: Option<(ConvTensor, NormTensors)>,
    /// The 3x3 convolution.
    pub conv: ConvTensor,
}

/// The tensors of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransitionTensors {
    /// The BN of the block's maps.
    pub norm: NormTensors,
    /// The 1x1 convolution.
    pub conv: ConvTensor,
}

/// The tensors after the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadTensors {
    /// The last BN.
    pub norm: NormTensors,
    /// The classifier's weight: classes x features.
    pub weight: Span,
    /// The classifier's bias: classes.
    pub bias: Span,
}

/// All tensors of a network, stage by stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensors {
    /// The stem's.
    pub stem: StemTensors,
    /// Those of the layers of each block.
    pub blocks: Vec<Vec<LayerTensors>>,
    /// Those of each transition: one after each block but the last.
    pub transitions: Vec<TransitionTensors>,
    /// Those of the last BN and the classifier.
    pub head: HeadTensors,
}

/// Allocates tensors one after another in each arena.
#[derive(Default)]
struct Cursor {
    trainable: usize,
    running: usize,
}

impl Cursor {
    fn trainable(&mut self, len: usize) -> Span {
        let start = self.trainable;
        self.trainable += len;
        Span { start, len }
    }

    fn running(&mut self, len: usize) -> Span {
        let start = self.running;
        self.running += len;
        Span { start, len }
    }

    fn norm(&mut self, channels: usize) -> NormTensors {
        NormTensors {
            scale: self.trainable(channels),
            bias: self.trainable(channels),
            mean: self.running(channels),
            variance: self.running(channels),
        }
    }

    fn conv(&mut self, maps: usize, channels: usize, kernel: usize) -> ConvTensor {
        ConvTensor {
            weight: self.trainable(maps * channels * kernel * kernel),
            maps,
            channels,
            kernel,
        }
    }

    fn stem(&mut self, stem: &Stem) -> StemTensors {
        StemTensors {
            conv: self.conv(stem.maps, stem.channels, stem.kernel()),
            norm: match stem.kind {
                StemKind::ImageNet => Some(self.norm(stem.maps)),
                StemKind::Cifar => None,
            },
        }
    }

    fn layer(&mut self, layer: Layer) -> LayerTensors {
        let norm1 = self.norm(layer.input);
        let narrow = layer
            .bottleneck
            .map(|maps| (self.conv(maps, layer.input, 1), self.norm(maps)));
        let read = layer.bottleneck.unwrap_or(layer.input);
        LayerTensors {
            norm1,
            narrow,
            conv: self.conv(layer.growth, read, 3),
        }
    }

    fn block(&mut self, block: &Block) -> Vec<LayerTensors> {
        block.iter().map(|layer| self.layer(layer)).collect()
    }

    fn transition(&mut self, transition: &Transition) -> TransitionTensors {
        TransitionTensors {
            norm: self.norm(transition.input),
            conv: self.conv(transition.output, transition.input, 1),
        }
    }

    fn head(&mut self, head: &Head) -> HeadTensors {
        let Head {
            input: features,
            classes,
            ..
        } = *head;
        HeadTensors {
            norm: self.norm(features),
            weight: self.trainable(classes * features),
            bias: self.trainable(classes),
        }
    }
}

impl Stem {
    /// The stem's tensors, with offsets from its own first tensors.
    pub fn tensors(&self) -> StemTensors {
        Cursor::default().stem(self)
    }
}

impl Block {
    /// The tensors of the block's layers, with offsets from its own first tensors.
    pub fn tensors(&self) -> Vec<LayerTensors> {
        Cursor::default().block(self)
    }
}

impl Transition {
    /// The transition's tensors, with offsets from its own first tensors.
    pub fn tensors(&self) -> TransitionTensors {
        Cursor::default().transition(self)
    }
}

impl Head {
    /// The head's tensors, with offsets from its own first tensors.
    pub fn tensors(&self) -> HeadTensors {
        Cursor::default().head(self)
    }
}

impl Plan {
    /// The map of all tensors.
    pub fn tensors(&self) -> Tensors {
        let mut cursor = Cursor::default();
        let stem = cursor.stem(self.stem());
        let (mut blocks, mut transitions) = (Vec::new(), Vec::new());
        for (index, block) in self.blocks().iter().enumerate() {
            blocks.push(cursor.block(block));
            if let Some(transition) = self.transitions().get(index) {
                transitions.push(cursor.transition(transition));
            }
        }
        Tensors {
            stem,
            blocks,
            transitions,
            head: cursor.head(&self.head()),
        }
    }

    /// Each BN, in the order of its tensors, with the pixels of an image that it normalises over.
    pub fn norms(&self) -> Vec<(NormTensors, usize)> {
        let tensors = self.tensors();
        let (height, width) = self.stem().convolved_size();
        let stem = tensors.stem.norm.map(|norm| (norm, height * width));
        let mut norms: Vec<_> = stem.into_iter().collect();
        for (index, block) in self.blocks().iter().enumerate() {
            for layer in &tensors.blocks[index] {
                let narrow = layer.narrow.map(|(_, norm)| norm);
                let own = [Some(layer.norm1), narrow].into_iter().flatten();
                norms.extend(own.map(|norm| (norm, block.pixels())));
            }
            let after = tensors.transitions.get(index);
            let norm = after.map_or(tensors.head.norm, |transition| transition.norm);
            norms.push((norm, block.pixels()));
        }
        norms
    }
}
