//! Which features a network's layers read (paper, Fig. 5).

mod heat;

use std::path::Path;

use super::DrawError;
use crate::plan::{Block, ConvTensor, Plan};
use crate::weights::{State, WeightsError};

/// How much each layer of a network reads of each layer before it: the mean absolute weight of
/// its convolution over the feature maps of that layer (paper, section 5 and Fig. 5).
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureReuse {
    blocks: Vec<BlockReuse>,
}

/// Feature reuse in one dense block.
///
/// Sources are counted from 0, the block's input; the first layer is 1. Targets are the layers,
/// from 1 on, followed by the transition or the classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockReuse {
    layers: usize,
    /// For each target its sources, in order: one for the first layer, two for the second.
    targets: Vec<Vec<f64>>,
}

impl FeatureReuse {
    /// The feature reuse of a network with these weights. For a bottleneck layer the 1x1
    /// convolution counts, since it reads the earlier layers.
    ///
    /// # Errors
    /// If the state belongs to another network.
    pub fn of(plan: &Plan, state: &State) -> Result<Self, WeightsError> {
        state.check_lengths(plan.parameter_count(), plan.running_count())?;
        let tensors = plan.tensors();
        let blocks = plan.blocks().iter().enumerate().map(|(index, block)| {
            // The convolutions that read the block's maps, in order: its layers, then what follows
            // it.
            let layers = tensors.blocks[index]
                .iter()
                .map(|layer| match layer.narrow {
                    Some((conv, _)) => conv,
                    None => layer.conv,
                });
            let after = match tensors.transitions.get(index) {
                Some(transition) => transition.conv,
                None => ConvTensor {
                    weight: tensors.head.weight,
                    maps: plan.classes(),
                    channels: plan.features(),
                    kernel: 1,
                },
            };
            let readers = layers.chain([after]);
            BlockReuse {
                layers: block.layers,
                targets: readers
                    .map(|weight| means(&state.parameters, weight, block))
                    .collect(),
            }
        });
        Ok(Self {
            blocks: blocks.collect(),
        })
    }

    /// The blocks, first to last.
    pub fn blocks(&self) -> &[BlockReuse] {
        &self.blocks
    }

    /// Draws a heat map for each block as a PNG, like the paper's Fig. 5. Colours range from 0 to
    /// the block's largest mean.
    ///
    /// # Errors
    /// If a weight is not a finite number, or the file cannot be written.
    pub fn draw(&self, path: impl AsRef<Path>, title: &str) -> Result<(), DrawError> {
        let blocks = self.blocks.iter();
        let mut means = blocks.flat_map(|block| block.targets.iter().flatten());
        if means.any(|mean| !mean.is_finite()) {
            return Err(DrawError {
                path: path.as_ref().to_owned(),
                reason: "a weight is not a finite number; the run may have diverged".into(),
            });
        }
        heat::draw(&self.blocks, title, path.as_ref())
    }
}

impl BlockReuse {
    /// Number of layers.
    pub const fn layers(&self) -> usize {
        self.layers
    }

    /// The mean absolute weight with which `target` reads `source`; `None` where it does not.
    pub fn mean(&self, source: usize, target: usize) -> Option<f64> {
        let sources = self.targets.get(target.checked_sub(1)?)?;
        sources.get(source).copied()
    }

    /// The largest mean.
    pub fn largest(&self) -> f64 {
        let means = self.targets.iter().flatten().copied();
        means.fold(0.0, f64::max)
    }
}

/// The mean absolute weight over the maps of each source.
fn means(parameters: &[f32], weight: ConvTensor, block: &Block) -> Vec<f64> {
    let (outputs, input) = (weight.maps, weight.channels);
    let kernel = weight.kernel * weight.kernel;
    let values = weight.weight.of(parameters);
    let mut sums = vec![0.0; 1 + (input - block.input) / block.growth];
    for row in values.chunks_exact(input * kernel) {
        for (map, values) in row.chunks_exact(kernel).enumerate() {
            let source = match map.checked_sub(block.input) {
                None => 0,
                Some(map) => 1 + map / block.growth,
            };
            let absolute = values.iter().map(|&value| f64::from(value.abs()));
            sums[source] += absolute.sum::<f64>();
        }
    }
    for (source, sum) in sums.iter_mut().enumerate() {
        let maps = if source == 0 {
            block.input
        } else {
            block.growth
        };
        *sum /= (maps * outputs * kernel) as f64;
    }
    sums
}
