//! Copies the weights of one network into another, for transfer learning.
//!
//! The stages of two networks are different types, even if they have the same layers. So each part
//! names the shapes of its tensors as a type, and two parts fit if these types are the same.

use dfdx::prelude::*;

use super::{BatchNorm, BottleneckLayer, Classifier, Conv, PlainLayer};
use crate::weights::{State, WeightsError};

/// A part of a network (a layer, a stage or the whole) that can take another part's weights.
///
/// For all of a network but its classifier there is
/// [`transplant_features`](crate::Network::transplant_features).
pub trait Transplant: TensorCollection<f32, Cpu> + Sized {
    /// The shapes of its tensors, which do not depend on the size of the images.
    type Shapes;

    /// Copies parameters and running statistics from a part with the same shapes, of this network
    /// or of another. The tensors keep their identities, so that gradients and optimisers still
    /// find them.
    ///
    /// ```
    /// use densenet_runtime::dfdx::prelude::*;
    /// use densenet_runtime::{densenet, nn::Transplant};
    ///
    /// densenet! { Small { blocks: [2, 2], k: 4, classes: 10 } }
    /// densenet! { Long { blocks: [2, 5], k: 4, classes: 100 } }
    ///
    /// let dev = Cpu::default();
    /// let long = dev.build_module::<Long, f32>();
    /// let mut small = dev.build_module::<Small, f32>();
    /// small.block1.transplant(&long.block1)?;
    /// small.block2.layer1.transplant(&long.block2.layer1)?;
    /// assert_eq!(small.block1.layer2.conv.weight.array(), long.block1.layer2.conv.weight.array());
    /// # Ok::<(), densenet_runtime::weights::WeightsError>(())
    /// ```
    ///
    /// # Errors
    /// If a tensor was replaced by a broadcast or permuted view.
    fn transplant<P>(&mut self, from: &P) -> Result<(), WeightsError>
    where
        P: Transplant,
        P::Shapes: SameShapes<Self::Shapes, P, Self>,
    {
        State::of(from).store_into(self)
    }
}

/// Implemented for equal shapes; `From` and `Into` are the parts that have them.
#[diagnostic::on_unimplemented(
    message = "the parameters of `{From}` do not fit into `{Into}`: their shapes differ",
    label = "expected `{Shapes}`, found `{Self}`",
    note = "parts fit if they have layers of the same kinds and widths; parts of a network can be \
        copied one by one",
    note = "`StemShapes<CHANNELS, KERNEL, MAPS>`, `BlockShapes<LAYERS, INPUT, BOTTLENECK, K>`, `TransitionShapes<INPUT, OUTPUT>`"
)]
pub trait SameShapes<Shapes, From, Into> {}

impl<Shapes, From, Into> SameShapes<Shapes, From, Into> for Shapes {}

/// The shapes of a stem's tensors: a KERNELxKERNEL convolution from CHANNELS to MAPS, with a
/// norm after it if it is 7x7.
#[derive(Debug)]
pub struct StemShapes<const CHANNELS: usize, const KERNEL: usize, const MAPS: usize>;

/// The shapes of a dense block's tensors: LAYERS layers after INPUT maps, each adding K maps;
/// MAPS is the width of its bottlenecks, 0 for plain layers.
#[derive(Debug)]
pub struct BlockShapes<const LAYERS: usize, const INPUT: usize, const MAPS: usize, const K: usize>;

/// The shapes of a transition's tensors: from INPUT to OUTPUT maps.
#[derive(Debug)]
pub struct TransitionShapes<const INPUT: usize, const OUTPUT: usize>;

macro_rules! shaped_by_their_types {
    ($($layer:ident<$(const $size:ident),*>;)*) => {$(
        impl<$(const $size: usize),*> Transplant for $layer<$($size,)* f32, Cpu> {
            type Shapes = Self;
        }
    )*};
}

shaped_by_their_types! {
    Conv<const IN, const OUT, const K>;
    BatchNorm<const C>;
    BottleneckLayer<const IN, const MAPS, const K>;
    PlainLayer<const IN, const K>;
    Classifier<const IN, const CLASSES>;
}
