//! One of fourteen operations, drawn at random: `TrivialAugmentWide` and `RandAugment`.

use super::{
    super::Rng,
    canvas::{Affine, Canvas, Sampling},
};

/// Operations drawn at random, as in torchvision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// None.
    #[default]
    None,
    /// One operation of any strength (Mueller and Hutter, 2021; `TrivialAugmentWide`).
    TrivialWide,
    /// Some operations of one strength (Cubuk et al., 2019; `RandAugment`).
    Rand {
        /// How many; 2 in torchvision.
        operations: usize,
        /// How strong they are, from 0 to 30; 9 in torchvision.
        magnitude: usize,
    },
}

/// The number of strengths.
pub(super) const STRENGTHS: usize = 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Colour,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

impl Operation {
    pub(super) const ALL: [Self; 14] = [
        Self::Identity,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
        Self::Rotate,
        Self::Brightness,
        Self::Colour,
        Self::Contrast,
        Self::Sharpness,
        Self::Posterize,
        Self::Solarize,
        Self::AutoContrast,
        Self::Equalize,
    ];

    /// The magnitude of a strength, and whether its sign is drawn.
    pub(super) fn magnitude(self, wide: bool, strength: usize, size: [usize; 2]) -> (f64, bool) {
        let share = strength as f64 / (STRENGTHS - 1) as f64;
        let [width, height] = size.map(|side| side as f64);
        match self {
            Self::Identity | Self::AutoContrast | Self::Equalize => (0.0, false),
            Self::ShearX | Self::ShearY => (share * if wide { 0.99 } else { 0.3 }, true),
            Self::TranslateX | Self::TranslateY if wide => (share * 32.0, true),
            Self::TranslateX => (share * 150.0 / 331.0 * width, true),
            Self::TranslateY => (share * 150.0 / 331.0 * height, true),
            Self::Rotate => (share * if wide { 135.0 } else { 30.0 }, true),
            Self::Brightness | Self::Colour | Self::Contrast | Self::Sharpness => {
                (share * if wide { 0.99 } else { 0.9 }, true)
            }
            Self::Posterize => {
                let bits = 8.0 - share * if wide { 6.0 } else { 4.0 };
                (bits.round_ties_even(), false)
            }
            Self::Solarize => (1.0 - share, false),
        }
    }

    pub(super) fn apply(self, image: &mut Canvas, magnitude: f64, how: Sampling, fill: &[f32]) {
        let factor = 1.0 + magnitude as f32;
        let shear = |x: f64, y: f64| Affine {
            shear: [x, y].map(|tangent| tangent.atan().to_degrees()),
            ..Affine::default()
        };
        let moved = |x: f64, y: f64| Affine {
            translation: [x.trunc(), y.trunc()],
            ..Affine::default()
        };
        match self {
            Self::Identity => {}
            Self::ShearX => image.warp(shear(magnitude, 0.0), true, how, fill),
            Self::ShearY => image.warp(shear(0.0, magnitude), true, how, fill),
            Self::TranslateX => image.warp(moved(magnitude, 0.0), false, how, fill),
            Self::TranslateY => image.warp(moved(0.0, magnitude), false, how, fill),
            Self::Rotate => {
                // Anticlockwise.
                let turned = Affine {
                    angle: -magnitude,
                    ..Affine::default()
                };
                image.warp(turned, false, how, fill);
            }
            Self::Brightness => image.brightness(factor),
            Self::Colour => image.saturation(factor),
            Self::Contrast => image.contrast(factor),
            Self::Sharpness => image.sharpness(factor),
            Self::Posterize => image.posterize(magnitude as u32),
            Self::Solarize => image.solarize(magnitude as f32),
            Self::AutoContrast => image.autocontrast(),
            Self::Equalize => image.equalize(),
        }
    }
}

impl Policy {
    pub(super) fn apply(self, image: &mut Canvas, rng: &mut Rng, how: Sampling, fill: &[f32]) {
        let (operations, wide) = match self {
            Self::None => return,
            Self::TrivialWide => (1, true),
            Self::Rand { operations, .. } => (operations, false),
        };
        for _ in 0..operations {
            let operation = Operation::ALL[rng.below(Operation::ALL.len())];
            let strength = match self {
                Self::Rand { magnitude, .. } => magnitude,
                _ => rng.below(STRENGTHS),
            };
            let size = [image.width, image.height];
            let (magnitude, is_signed) = operation.magnitude(wide, strength, size);
            let magnitude = if is_signed && rng.coin() {
                -magnitude
            } else {
                magnitude
            };
            operation.apply(image, magnitude, how, fill);
        }
    }
}
