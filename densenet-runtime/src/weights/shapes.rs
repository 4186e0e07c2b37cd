//! Recognises a network by the shapes of its tensors.

use densenet_plan::{Block, Plan, Stem, StemKind, Transition};

use super::names::{Names, STEM};
use super::{TensorFile, WeightsError};

/// The plan of the network whose tensors a file has: blocks, growth rates, bottlenecks, transitions,
/// stem, channels and classes follow from their shapes.
///
/// The size of the pictures does not. It is the given height and width, or else 224 for a stem for
/// ImageNet and 32 for one for CIFAR. Dropout is 0.
///
/// ```
/// use densenet_runtime::weights::{State, TensorFile, WeightsError, plan_of};
///
/// fn read(path: &str) -> Result<State, WeightsError> {
///     let file = TensorFile::read(path)?;
///     State::from_file(&plan_of(&file, None)?, &file, Default::default())
/// }
/// ```
///
/// # Errors
/// When the tensors are not those of a DenseNet (the error names the first that does not fit), or
/// the pictures are too small for it.
pub fn plan_of(file: &TensorFile, input: Option<[usize; 2]>) -> Result<Plan, WeightsError> {
    let shapes = Shapes {
        file,
        names: Names::of(file),
    };
    shapes.plan(input).map_err(|why| {
        let path = file.path().to_path_buf();
        // If it is a network for other pictures, the size is to blame.
        match shapes.plan(Some(LARGE)) {
            Ok(_) => WeightsError::Size { path, why },
            Err(why) => WeightsError::NoNetwork { path, why },
        }
    })
}

/// Large enough for every network.
const LARGE: [usize; 2] = [1 << 12; 2];

/// Feature maps after the layers of a block.
fn grown(block: &Block) -> Result<usize, String> {
    let grown = block.growth.checked_mul(block.layers);
    let maps = grown.and_then(|grown| grown.checked_add(block.input));
    maps.ok_or_else(|| "a block has more maps than can be counted".to_string())
}

struct Shapes<'a> {
    file: &'a TensorFile,
    names: Names,
}

impl Shapes<'_> {
    /// The shape of a tensor, by its current name.
    fn find<const N: usize>(&self, name: &str) -> Option<Result<[usize; N], String>> {
        let source = self.names.sources.get(name)?;
        let shape = self.file.shape(source)?;
        let named = || format!("`{source}` has the shape {shape:?}");
        Some(shape.try_into().map_err(|_| named()))
    }

    fn shape<const N: usize>(&self, name: &str) -> Result<[usize; N], String> {
        let found = self.find(name);
        found.unwrap_or_else(|| Err(format!("`{name}` is missing")))
    }

    /// The maps of a convolution, whose kernel must be of this size.
    fn maps(&self, name: &str, channels: usize, kernel: usize) -> Result<usize, String> {
        let found = self.shape::<4>(name)?;
        match found {
            [maps, c, h, w] if [c, h, w] == [channels, kernel, kernel] => Ok(maps),
            _ => Err(format!(
                "`{name}` has the shape {found:?}, but {channels} channels and a \
                    {kernel}x{kernel} kernel are expected"
            )),
        }
    }

    fn stem(&self, input: Option<[usize; 2]>) -> Result<Stem, String> {
        let [maps, channels, kernel, _] = self.shape::<4>(STEM)?;
        let has_norm = self.names.sources.contains_key("features.norm0.weight");
        let kind = match (kernel, has_norm) {
            (7, true) => StemKind::ImageNet,
            (3, false) => StemKind::Cifar,
            _ => {
                return Err(format!(
                    "its stem is neither a 7x7 convolution with a norm nor a 3x3 convolution without, but {kernel}x{kernel}"
                ));
            }
        };
        let [height, width] = input.unwrap_or(match kind {
            StemKind::ImageNet => [224, 224],
            StemKind::Cifar => [32, 32],
        });
        Ok(Stem {
            kind,
            channels,
            height,
            width,
            maps,
        })
    }

    /// A block of layers after this many maps.
    fn block(&self, number: usize, input: usize, size: (usize, usize)) -> Result<Block, String> {
        let name = |layer: usize, tensor: &str| {
            format!("features.denseblock{number}.denselayer{layer}.{tensor}.weight")
        };
        let mut block = Block {
            input,
            layers: 0,
            growth: 0,
            bottleneck: None,
            height: size.0,
            width: size.1,
        };
        while self
            .names
            .sources
            .contains_key(&name(block.layers + 1, "norm1"))
        {
            let layer = block.layers + 1;
            let read = grown(&block)?;
            let narrow = match self.names.sources.contains_key(&name(layer, "conv2")) {
                true => Some(self.maps(&name(layer, "conv1"), read, 1)?),
                false => None,
            };
            let growth = match narrow {
                Some(maps) => self.maps(&name(layer, "conv2"), maps, 3)?,
                None => self.maps(&name(layer, "conv1"), read, 3)?,
            };
            if layer > 1 && (growth, narrow) != (block.growth, block.bottleneck) {
                return Err(format!("layers of block {number} have different widths"));
            }
            (block.growth, block.bottleneck, block.layers) = (growth, narrow, layer);
        }
        match block.layers {
            0 => Err(format!("`{}` is missing", name(1, "norm1"))),
            _ => Ok(block),
        }
    }

    fn plan(&self, input: Option<[usize; 2]>) -> Result<Plan, String> {
        let stem = self.stem(input)?;
        let (mut height, mut width) = stem.output_size();
        let mut maps = stem.maps;
        let (mut blocks, mut transitions) = (Vec::new(), Vec::new());
        for number in 1..=self.names.blocks.max(1) {
            let block = self.block(number, maps, (height, width))?;
            maps = grown(&block)?;
            blocks.push(block);
            if number < self.names.blocks {
                let name = format!("features.transition{number}.conv.weight");
                let transition = Transition {
                    input: maps,
                    output: self.maps(&name, maps, 1)?,
                    height,
                    width,
                };
                (height, width) = transition.output_size();
                maps = transition.output;
                transitions.push(transition);
            }
        }
        let [classes, features] = self.shape::<2>("classifier.weight")?;
        if features != maps {
            return Err(format!(
                "its classifier has {features} features after {maps} maps"
            ));
        }
        Plan::from_stages(stem, blocks, transitions, classes, 0.0)
            .map_err(|error| error.to_string())
    }
}
