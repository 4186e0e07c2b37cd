//! Errors of a spec as a whole.

use std::fmt;

use crate::Ratio;

/// Why a spec has no plan.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanError {
    /// A feature map shrinks to nothing on its way through the network.
    TooSmall(TooSmall),
    /// Compression leaves no feature map after a transition.
    NothingLeft {
        /// The transition, counted from 1.
        transition: usize,
        /// The feature maps that enter it.
        maps: usize,
    },
    /// A count is too large: a dimension or the pixels of a feature map do not fit in 31 bits, the
    /// multiply-adds in 63, or the parameters or activations in 46.
    Overflow {
        /// What is too large.
        what: &'static str,
    },
    /// A block has too many layers.
    TooManyLayers {
        /// The block, counted from 1.
        block: usize,
        /// Its number of layers.
        found: usize,
        /// The largest number allowed.
        most: usize,
    },
    /// Dropout is not in [0, 1).
    Dropout {
        /// The probability.
        found: f64,
    },
    /// Compression is more than one.
    Theta {
        /// The compression.
        found: Ratio,
    },
    /// A number is zero, but must not be.
    Zero {
        /// What is zero.
        what: &'static str,
    },
}

/// An input that is too small, followed through the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// Height and width of the input.
    pub input: (usize, usize),
    /// Each step that changes the size, with the height and width after it; the last one is zero.
    pub walk: Vec<(String, usize, usize)>,
    /// The smallest height and width that work.
    pub smallest: usize,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (height, width) = self.input;
        let square = height == width;
        let side = |height: usize, width: usize| {
            if square {
                height.to_string()
            } else {
                format!("{height}x{width}")
            }
        };
        write!(
            f,
            "a {height}x{width} input is too small: {}",
            side(height, width)
        )?;
        for (step, height, width) in &self.walk {
            write!(f, " -> {} ({step})", side(*height, *width))?;
        }
        write!(f, "; use at least {0}x{0}, or fewer blocks", self.smallest)
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall(walk) => walk.fmt(f),
            Self::NothingLeft { transition, maps } => write!(
                f,
                "compression leaves none of the {maps} feature maps at transition {transition}; use a larger theta"
            ),
            Self::Overflow { what } => write!(
                f,
                "{what} of this network are too many to count; make it or its input smaller"
            ),
            Self::TooManyLayers { block, found, most } => write!(
                f,
                "block {block} has {found} layers; a block can have at most {most}"
            ),
            Self::Dropout { found } => write!(f, "dropout must be in [0, 1), found {found}"),
            Self::Theta { found } => {
                write!(f, "compression `theta` must be in (0, 1], found {found}")
            }
            Self::Zero { what } => write!(f, "{what} must be at least 1, found 0"),
        }
    }
}

impl std::error::Error for PlanError {}
