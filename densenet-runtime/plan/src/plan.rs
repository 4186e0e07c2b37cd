//! What follows from a spec: the shapes of every stage, and exact counts.

mod check;

use std::borrow::Cow;
use std::fmt;

use crate::PlanError;

/// A DenseNet in full: the shapes of its stages, first to last.
///
/// [`Spec::plan`](crate::Spec::plan) makes one, and `densenet!` does for each network. Every plan
/// is consistent: each stage takes the output of the previous one, nothing is empty, and sizes and
/// counts do not overflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    stem: Stem,
    blocks: Cow<'static, [Block]>,
    transitions: Cow<'static, [Transition]>,
    classes: usize,
    class_names: &'static [&'static str],
    dropout: f64,
}

/// The first layers of a network (paper, section 3 and Table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StemKind {
    /// 7x7 convolution with stride 2, BN, ReLU, 3x3 max pool with stride 2.
    ImageNet,
    /// 3x3 convolution with stride 1.
    Cifar,
}

impl StemKind {
    /// The default stem for a number of blocks: ImageNet's for four or more.
    pub const fn for_blocks(blocks: usize) -> Self {
        if blocks >= 4 {
            Self::ImageNet
        } else {
            Self::Cifar
        }
    }

    /// The default number of feature maps for growth rate `k` (paper, section 3): 2k for
    /// DenseNet-BC and for ImageNet, else 16.
    pub const fn default_maps(self, k: usize, bottleneck_and_compression: bool) -> usize {
        match self {
            Self::ImageNet => k.saturating_mul(2),
            Self::Cifar if bottleneck_and_compression => k.saturating_mul(2),
            Self::Cifar => 16,
        }
    }

    /// The default height and width of the input.
    pub const fn default_side(self) -> usize {
        match self {
            Self::ImageNet => 224,
            Self::Cifar => 32,
        }
    }

    /// The default number of classes.
    pub const fn default_classes(self) -> usize {
        match self {
            Self::ImageNet => 1000,
            Self::Cifar => 10,
        }
    }

    /// Each step of the stem that changes a feature map's side, with the side after it.
    pub(crate) fn steps(self, side: usize) -> Vec<(&'static str, usize)> {
        match self {
            Self::ImageNet => {
                // 7x7, stride 2, padding 3, then 3x3, stride 2, padding 1: both round up.
                let conv = side.div_ceil(2);
                vec![("stem conv", conv), ("stem pool", conv.div_ceil(2))]
            }
            Self::Cifar => Vec::new(),
        }
    }
}

/// The first layers: a convolution, and for ImageNet BN, ReLU and a max pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stem {
    /// The kind of stem.
    pub kind: StemKind,
    /// Channels of an input image.
    pub channels: usize,
    /// Height of an input image.
    pub height: usize,
    /// Width of an input image.
    pub width: usize,
    /// Feature maps that the convolution makes.
    pub maps: usize,
}

/// A dense block: each layer reads all feature maps before it and adds `growth` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Feature maps that enter the block.
    pub input: usize,
    /// Number of dense layers.
    pub layers: usize,
    /// Growth rate k.
    pub growth: usize,
    /// Feature maps of the 1x1 convolution of each layer; `None` for plain layers.
    pub bottleneck: Option<usize>,
    /// Height of the feature maps.
    pub height: usize,
    /// Width of the feature maps.
    pub width: usize,
}

/// One dense layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Feature maps that it reads: the block's input and all earlier layers' maps.
    pub input: usize,
    /// Feature maps of its 1x1 convolution; `None` for a plain layer.
    pub bottleneck: Option<usize>,
    /// Feature maps that it adds.
    pub growth: usize,
}

/// BN, ReLU, 1x1 convolution and 2x2 average pool between two blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Feature maps that enter.
    pub input: usize,
    /// Feature maps that leave.
    pub output: usize,
    /// Height of the feature maps that enter.
    pub height: usize,
    /// Width of the feature maps that enter.
    pub width: usize,
}

/// The last layers: BN, ReLU, global average pool and classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Feature maps that enter.
    pub input: usize,
    /// Height of the feature maps.
    pub height: usize,
    /// Width of the feature maps.
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
}

impl Stem {
    /// Side of the convolution's square kernel.
    pub const fn kernel(&self) -> usize {
        match self.kind {
            StemKind::ImageNet => 7,
            StemKind::Cifar => 3,
        }
    }

    /// Stride of the convolution.
    pub const fn stride(&self) -> usize {
        match self.kind {
            StemKind::ImageNet => 2,
            StemKind::Cifar => 1,
        }
    }

    /// Zeros around the image on each side.
    pub const fn padding(&self) -> usize {
        self.kernel() / 2
    }

    /// Height and width after the convolution.
    pub const fn convolved_size(&self) -> (usize, usize) {
        (
            self.height.div_ceil(self.stride()),
            self.width.div_ceil(self.stride()),
        )
    }

    /// Height and width after the stem.
    pub const fn output_size(&self) -> (usize, usize) {
        let (height, width) = self.convolved_size();
        match self.kind {
            StemKind::ImageNet => (height.div_ceil(2), width.div_ceil(2)),
            StemKind::Cifar => (height, width),
        }
    }

    /// Number of elements in the convolution's weight.
    pub const fn weight_len(&self) -> usize {
        self.maps * self.channels * self.kernel() * self.kernel()
    }

    /// Multiply-adds of the convolution at one pixel, which is also the number of elements in its
    /// weight.
    pub(crate) const fn multiply_adds(&self) -> u128 {
        let kernel = self.kernel() as u128;
        self.maps as u128 * self.channels as u128 * kernel * kernel
    }
}

impl Block {
    /// Feature maps that leave the block: `input + layers * growth`.
    pub const fn output(&self) -> usize {
        self.input + self.layers * self.growth
    }

    /// Pixels of a feature map.
    pub const fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Values of a layer's bottleneck maps, for one image.
    pub fn bottleneck_maps(&self) -> usize {
        self.pixels() * self.bottleneck.unwrap_or(0)
    }

    /// Elements from a pixel's feature maps to the next pixel's on the CPU: whole vectors, so that no
    /// load crosses two cache lines, if that costs at most a sixteenth more memory. CUDA's
    /// executor leaves no gap.
    pub const fn stride(&self) -> usize {
        let channels = self.output();
        let whole = channels.next_multiple_of(16);
        if whole - channels <= channels / 16 {
            whole
        } else {
            channels
        }
    }

    /// The layer with this index, counted from 0.
    pub const fn layer(&self, index: usize) -> Layer {
        Layer {
            input: self.input + index * self.growth,
            bottleneck: self.bottleneck,
            growth: self.growth,
        }
    }

    /// The layers, first to last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Layer> + ExactSizeIterator + '_ {
        (0..self.layers).map(|index| self.layer(index))
    }
}

impl Layer {
    /// Multiply-adds at one pixel.
    pub(crate) const fn multiply_adds(&self) -> u128 {
        let growth = self.growth as u128;
        match self.bottleneck {
            Some(maps) => self.input as u128 * maps as u128 + 9 * maps as u128 * growth,
            None => 9 * self.input as u128 * growth,
        }
    }

    /// Trainable parameters.
    pub(crate) const fn parameters(&self) -> u128 {
        let norms = match self.bottleneck {
            Some(maps) => self.input + maps,
            None => self.input,
        };
        // One weight of a convolution is one multiply-add at a pixel.
        self.multiply_adds() + 2 * norms as u128
    }
}

impl Transition {
    /// Height and width after the average pool.
    pub const fn output_size(&self) -> (usize, usize) {
        (self.height / 2, self.width / 2)
    }

    /// Pixels of a feature map that enters.
    pub const fn pixels(&self) -> usize {
        self.height * self.width
    }
}

impl Head {
    /// Pixels of a feature map that enters.
    pub const fn pixels(&self) -> usize {
        self.height * self.width
    }
}

impl Plan {
    /// The plan of stages in code generated by `densenet!`, checked again.
    ///
    /// # Panics
    /// If the stages do not make a plan. In a constant, that is a compile error.
    #[doc(hidden)]
    pub const fn of_stages(
        stem: Stem,
        blocks: &'static [Block],
        transitions: &'static [Transition],
        classes: usize,
        dropout: f64,
    ) -> Self {
        if let Err(flaw) = check::stages(&stem, blocks, transitions, classes, dropout) {
            panic!("{}", flaw.words());
        }
        Self {
            stem,
            blocks: Cow::Borrowed(blocks),
            transitions: Cow::Borrowed(transitions),
            classes,
            class_names: &[],
            dropout,
        }
    }

    /// The plan of stages, if they fit together.
    ///
    /// # Errors
    /// When they do not, or a size is zero or too large.
    pub fn from_stages(
        stem: Stem,
        blocks: Vec<Block>,
        transitions: Vec<Transition>,
        classes: usize,
        dropout: f64,
    ) -> Result<Self, PlanError> {
        check::stages(&stem, &blocks, &transitions, classes, dropout)?;
        Ok(Self {
            stem,
            blocks: Cow::Owned(blocks),
            transitions: Cow::Owned(transitions),
            classes,
            class_names: &[],
            dropout,
        })
    }

    /// The same network with another dropout probability, in [0, 1).
    ///
    /// # Errors
    /// If the probability is not in [0, 1).
    pub fn with_dropout(self, dropout: f64) -> Result<Self, PlanError> {
        check::dropout(dropout)?;
        Ok(Self { dropout, ..self })
    }

    /// The same network with names for its classes: a label is an index into them.
    ///
    /// # Panics
    /// If their number is not that of the classes; a constant plan then does not compile.
    #[doc(hidden)]
    pub const fn with_class_names(mut self, names: &'static [&'static str]) -> Self {
        assert!(
            names.len() == self.classes,
            "a plan needs one name for each class"
        );
        self.class_names = names;
        self
    }

    /// The first layers.
    pub const fn stem(&self) -> &Stem {
        &self.stem
    }

    /// The dense blocks; at least one.
    pub const fn blocks(&self) -> &[Block] {
        match &self.blocks {
            Cow::Borrowed(blocks) => blocks,
            Cow::Owned(blocks) => blocks.as_slice(),
        }
    }

    /// The transitions: one after each block but the last.
    pub const fn transitions(&self) -> &[Transition] {
        match &self.transitions {
            Cow::Borrowed(transitions) => transitions,
            Cow::Owned(transitions) => transitions.as_slice(),
        }
    }

    /// The last layers.
    pub fn head(&self) -> Head {
        let (height, width) = self
            .blocks()
            .last()
            .map_or((0, 0), |block| (block.height, block.width));
        Head {
            input: self.features(),
            height,
            width,
            classes: self.classes,
        }
    }

    /// Number of classes.
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// The names of the classes; empty if only their number is known.
    pub const fn class_names(&self) -> &'static [&'static str] {
        self.class_names
    }

    /// Probability with which dropout zeroes a value, in [0, 1).
    pub const fn dropout(&self) -> f64 {
        self.dropout
    }

    /// Feature maps after the last block.
    pub fn features(&self) -> usize {
        self.blocks.last().map_or(self.stem.maps, Block::output)
    }

    /// The first stage, if any, whose BN sees only one value of each channel in an image. It cannot
    /// be trained on a single image: a variance takes two values.
    pub fn stage_of_one_pixel(&self) -> Option<String> {
        if self.stem.kind == StemKind::ImageNet && self.stem.convolved_size() == (1, 1) {
            return Some("stem".into());
        }
        let index = self.blocks.iter().position(|block| block.pixels() == 1)?;
        Some(format!("block {}", index + 1))
    }

    /// The largest batch size for which 31 bits can count the pixels of every stage, as kernels do.
    pub fn countable_batch(&self) -> usize {
        let (height, width) = self.stem.convolved_size();
        let image = self.stem.height * self.stem.width;
        let blocks = self.blocks.iter().map(Block::pixels);
        let most = blocks.chain([height * width, image]).max().unwrap_or(0);
        i32::MAX as usize / most.max(1)
    }

    /// Trainable parameters.
    pub fn parameter_count(&self) -> usize {
        self.parameters_wide() as usize
    }

    /// Multiply-adds of convolutions and classifier for one image.
    pub fn multiply_adds(&self) -> u64 {
        self.multiply_adds_wide() as u64
    }

    /// The depth L as the paper counts it: convolutions and the classifier.
    pub fn depth(&self) -> usize {
        let layers: usize = self
            .blocks
            .iter()
            .map(|block| block.layers * if block.bottleneck.is_some() { 2 } else { 1 })
            .sum();
        1 + layers + self.transitions.len() + 1
    }

    fn parameters_wide(&self) -> u128 {
        let stem_norm = match self.stem.kind {
            StemKind::ImageNet => 2 * self.stem.maps,
            StemKind::Cifar => 0,
        };
        let layers: u128 = self
            .blocks
            .iter()
            .flat_map(Block::iter)
            .map(|layer| layer.parameters())
            .sum();
        let transitions: u128 = self
            .transitions
            .iter()
            .map(|t| t.input as u128 * t.output as u128 + 2 * t.input as u128)
            .sum();
        let features = self.features() as u128;
        let classes = self.classes as u128;
        self.stem.multiply_adds()
            + stem_norm as u128
            + layers
            + transitions
            + 2 * features
            + (features + 1) * classes
    }

    fn multiply_adds_wide(&self) -> u128 {
        let (height, width) = self.stem.convolved_size();
        let stem = self.stem.multiply_adds() * height as u128 * width as u128;
        let layers: u128 = self
            .blocks
            .iter()
            .map(|block| {
                let pixel: u128 = block.iter().map(|layer| layer.multiply_adds()).sum();
                pixel * block.pixels() as u128
            })
            .sum();
        let transitions: u128 = self
            .transitions
            .iter()
            .map(|t| t.input as u128 * t.output as u128 * t.pixels() as u128)
            .sum();
        stem + layers + transitions + self.features() as u128 * self.classes as u128
    }
}

impl fmt::Display for Plan {
    /// The architecture as a table, like the paper's Table 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stem = &self.stem;
        let (height, width) = stem.convolved_size();
        let kernel = stem.kernel();
        let row = |f: &mut fmt::Formatter<'_>, stage: &str, size: &str, maps: usize, what: &str| {
            writeln!(f, "| {stage:<13} | {size:>9} | {maps:>5} | {what:<44} |")
        };
        writeln!(
            f,
            "| {:<13} | {:>9} | {:>5} | {:<44} |",
            "stage", "output", "maps", "layers"
        )?;
        writeln!(f, "|:{:-<13}-|-{:-<9}:|-{:-<5}:|:{:-<44}-|", "", "", "", "")?;
        let what = format!("{kernel}x{kernel} conv, stride {}", stem.stride());
        row(f, "stem", &format!("{height}x{width}"), stem.maps, &what)?;
        if stem.kind == StemKind::ImageNet {
            let (height, width) = stem.output_size();
            let size = format!("{height}x{width}");
            row(f, "", &size, stem.maps, "BN, ReLU, 3x3 max pool, stride 2")?;
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let number = index + 1;
            let layer = match block.bottleneck {
                Some(maps) => format!("1x1 conv to {maps}, 3x3 conv to {}", block.growth),
                None => format!("3x3 conv to {}", block.growth),
            };
            let size = format!("{}x{}", block.height, block.width);
            let what = format!("{} x [{layer}]", block.layers);
            row(f, &format!("block {number}"), &size, block.output(), &what)?;
            if let Some(transition) = self.transitions.get(index) {
                let (height, width) = transition.output_size();
                let stage = format!("transition {number}");
                let size = format!("{height}x{width}");
                let what = format!("1x1 conv to {}, 2x2 average pool", transition.output);
                row(f, &stage, &size, transition.output, &what)?;
            }
        }
        let what = format!("global average pool, linear to {}", self.classes);
        row(f, "classifier", "1x1", self.classes, &what)
    }
}

#[cfg(test)]
mod tests {
    use super::Block;

    #[test]
    fn a_stride_is_whole_vectors_where_that_is_cheap() {
        let of = |input| {
            let block = Block {
                input,
                layers: 16,
                growth: 12,
                bottleneck: None,
                height: 1,
                width: 1,
            };
            block.stride()
        };
        assert_eq!([24, 32, 150].map(of), [224, 224, 352]);
        assert_eq!(of(2), 194);
    }
}
