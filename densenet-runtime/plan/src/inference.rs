//! The outputs of a frozen network beside the logits, on every device.

use crate::Plan;

/// The outputs of a frozen network beside the logits and the pooled features, which it always
/// returns. They are chosen when the network is frozen, so that memory is planned; by default there
/// are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// The largest number of class maps of an image in a call. The network's number of classes is the limit.
    pub class_maps: usize,
    /// Whether the last feature maps are returned.
    pub last_maps: bool,
    /// Whether the output of each block is returned.
    pub block_maps: bool,
}

impl Outputs {
    /// All outputs, with the maps of this many classes.
    pub const fn all(class_maps: usize) -> Self {
        Self {
            class_maps,
            last_maps: true,
            block_maps: true,
        }
    }

    /// The most class maps of an image.
    pub fn most_class_maps(self, plan: &Plan) -> usize {
        self.class_maps.min(plan.classes())
    }

    /// Whether it keeps a second copy of the last feature maps, to return them or to compute class maps.
    pub const fn needs_last_maps(self) -> bool {
        self.last_maps || self.class_maps > 0
    }
}

/// The classes whose maps a call gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapsOf<'a> {
    /// None.
    #[default]
    Nothing,
    /// For each image, this many classes with the highest logits, the highest first; of equal
    /// logits, the lower class first, and NaN last. At most all classes.
    Top(usize),
    /// These, for every image.
    Classes(&'a [usize]),
}

impl MapsOf<'_> {
    /// The number of classes of an image, for a network with this many.
    pub fn count(self, classes: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Top(count) => count.min(classes),
            Self::Classes(wanted) => wanted.len(),
        }
    }

    /// Writes which classes of an image they are, given its logits. There is room for
    /// [`count`](Self::count) of them.
    pub fn choose(self, logits: &[f32], into: &mut [usize]) {
        match self {
            Self::Nothing => {}
            Self::Classes(wanted) => into.copy_from_slice(wanted),
            Self::Top(_) => {
                // NaN is below all numbers.
                let above = |a: f32, b: f32| a > b || (b.is_nan() && !a.is_nan());
                for place in 0..into.len() {
                    let (taken, rest) = into.split_at_mut(place);
                    let free = (0..logits.len()).filter(|class| !taken.contains(class));
                    let best = free.reduce(|best, class| {
                        if above(logits[class], logits[best]) {
                            class
                        } else {
                            best
                        }
                    });
                    rest[0] = best.unwrap_or_default();
                }
            }
        }
    }
}

/// The outputs of a frozen network for the images of a call. All maps are channels first: a map is
/// height x width, row by row. Outputs that the network was not frozen for, or that the call did
/// not request, are empty.
#[derive(Clone, Copy, Debug)]
pub struct Inference<'a> {
    /// The network's plan.
    pub plan: &'a Plan,
    /// The number of images.
    pub images: usize,
    /// Images x classes.
    pub logits: &'a [f32],
    /// The classifier's input: the mean of each of the last feature maps. Images x
    /// [`features`](Plan::features).
    pub features: &'a [f32],
    /// The classes of the class maps: images x wanted classes.
    pub mapped: &'a [usize],
    /// Images x wanted classes x height x width of the last maps ([`Plan::head`]). The map of a
    /// class is the product of the last feature maps and the classifier's row of that class. It is
    /// exact: its mean plus the bias of the class is the logit. On a CUDA device in bf16, logits are of rounded
    /// features and weights, and maps are not.
    pub class_maps: &'a [f32],
    /// After the last BN and ReLU: images x features x height x width.
    pub last_maps: &'a [f32],
    /// The output of each block, before BN, block by block: for each, images x
    /// [`output`](crate::Block::output) x height x width. See [`block`](Self::block).
    pub block_maps: &'a [f32],
}

impl<'a> Inference<'a> {
    /// How many class maps each image has.
    pub fn wanted(&self) -> usize {
        self.mapped.len() / self.images.max(1)
    }

    /// The class maps of one image, each with its class: height x width. Empty if there is no such image.
    pub fn maps_of(&self, image: usize) -> impl Iterator<Item = (usize, &'a [f32])> + use<'a> {
        let (wanted, pixels) = (self.wanted(), self.plan.head().pixels());
        let range = |each: usize| image.saturating_mul(each)..(image + 1).saturating_mul(each);
        let classes = self.mapped.get(range(wanted)).unwrap_or_default();
        let maps = self.class_maps.get(range(wanted * pixels));
        let maps = maps.unwrap_or_default().chunks_exact(pixels.max(1));
        classes.iter().copied().zip(maps)
    }

    /// The output of a block: images x [`output`](crate::Block::output) x height x width. Empty if
    /// there is no such block, or if it was not requested.
    pub fn block(&self, index: usize) -> &'a [f32] {
        let lens = self.plan.blocks().iter();
        let mut lens = lens.map(|block| self.images * block.output() * block.pixels());
        let start = lens.by_ref().take(index).sum::<usize>();
        let len = lens.next().unwrap_or_default();
        self.block_maps.get(start..start + len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::MapsOf;

    fn top(count: usize, logits: &[f32]) -> Vec<usize> {
        let of = MapsOf::Top(count);
        let mut chosen = vec![9; of.count(logits.len())];
        of.choose(logits, &mut chosen);
        chosen
    }

    #[test]
    fn the_highest_logits_come_first_the_lower_class_of_equal_ones_and_nan_last() {
        assert_eq!(top(2, &[0.0, 3.0, -1.0, 5.0]), [3, 1]);
        assert_eq!(top(3, &[1.0, 2.0, 2.0, 1.0]), [1, 2, 0]);
        assert_eq!(top(9, &[f32::NAN, -1.0, f32::NEG_INFINITY]), [1, 2, 0]);
        assert_eq!(top(2, &[f32::NAN; 2]), [0, 1]);
    }
}
