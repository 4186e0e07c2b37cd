//! The map of a network: where the tensors of each stage lie.
//!
//! A network's numbers lie in two arenas, one of trainable parameters and one of running statistics,
//! stage after stage in the order in which dfdx visits the generated struct. This is the one place
//! that counts offsets: executors, files, figures and tests read it.

use std::ops::Range;

use crate::{Block, Head, Layer, Plan, Stem, StemKind, Transition};

/// Where a tensor's elements lie in its arena, last dimension innermost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
}

impl Span {
    /// The elements' places.
    pub const fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// The elements in their arena.
    ///
    /// # Panics
    /// If the arena is of another network.
    pub fn of<T>(self, arena: &[T]) -> &[T] {
        &arena[self.range()]
    }

    /// The elements of several tensors, to be changed.
    ///
    /// # Panics
    /// If the arena is of another network, or the spans are not of different tensors.
    pub fn of_each<const N: usize, T>(spans: [Self; N], arena: &mut [T]) -> [&mut [T]; N] {
        match arena.get_disjoint_mut(spans.map(Self::range)) {
            Ok(elements) => elements,
            Err(error) => panic!("tensors of another network: {error}"),
        }
    }
}

/// The tensors of a BN, each with an element for each channel. Scale and bias (gamma and beta) are
/// trainable, mean and variance are running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormTensors {
    /// Gamma.
    pub scale: Span,
    /// Beta; it follows gamma at once.
    pub bias: Span,
    /// The running mean.
    pub mean: Span,
    /// The running variance, unbiased; it follows the mean at once.
    pub variance: Span,
}

impl NormTensors {
    /// Channels that it normalises.
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
    /// The BN behind it, for ImageNet.
    pub norm: Option<NormTensors>,
}

/// The tensors of a dense layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerTensors {
    /// The BN of all maps before the layer.
    pub norm1: NormTensors,
    /// The 1x1 convolution of a bottleneck layer, and the BN behind it.
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

/// The tensors behind the last block.
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
    /// Of the stem.
    pub stem: StemTensors,
    /// Of the layers of each block.
    pub blocks: Vec<Vec<LayerTensors>>,
    /// Of each transition: one behind each block but the last.
    pub transitions: Vec<TransitionTensors>,
    /// Of the last BN and the classifier.
    pub head: HeadTensors,
}

/// Hands out the places of tensors, one after another in each arena.
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
    /// The stem's tensors, counted from its own first ones on.
    pub fn tensors(&self) -> StemTensors {
        Cursor::default().stem(self)
    }
}

impl Block {
    /// The tensors of the block's layers, counted from its own first ones on.
    pub fn tensors(&self) -> Vec<LayerTensors> {
        Cursor::default().block(self)
    }
}

impl Transition {
    /// The transition's tensors, counted from its own first ones on.
    pub fn tensors(&self) -> TransitionTensors {
        Cursor::default().transition(self)
    }
}

impl Head {
    /// The head's tensors, counted from their own first ones on.
    pub fn tensors(&self) -> HeadTensors {
        Cursor::default().head(self)
    }
}

impl Plan {
    /// Where all tensors lie.
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
}
