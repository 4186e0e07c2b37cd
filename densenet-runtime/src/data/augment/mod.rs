//! How pictures are varied in training.

mod canvas;
mod policy;
#[cfg(test)]
mod tests;

pub use canvas::Sampling;
pub use policy::Policy;

use super::{
    DataError, Interpolation, Rng,
    geometry::RandomResizedCrop,
    raster::{Sample, View},
    resize,
};
use canvas::{Affine, Canvas};

/// How a picture is augmented in training, in this order: a random crop is resized, mirrored,
/// turned upside down, rotated and translated, its colours are varied, a policy draws operations,
/// and a rectangle is erased. Each step equals torchvision's transform of the same name; the random
/// numbers depend only on seed, epoch and image.
///
/// The default is a random crop, mirrored half of the time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// The part that is shown.
    pub crop: RandomResizedCrop,
    /// How the part is resized.
    pub interpolation: Interpolation,
    /// The share of images that are mirrored from left to right.
    pub mirror: f64,
    /// The share of images that are turned upside down.
    pub flip: f64,
    /// The largest rotation in degrees, either way (`RandomRotation`).
    pub rotation: f64,
    /// The largest translation as shares of width and height, either way (`RandomAffine`).
    pub translation: [f64; 2],
    /// The smallest and the largest scale (`RandomAffine`).
    pub scale: [f64; 2],
    /// The largest shear along x in degrees, either way (`RandomAffine`).
    pub shear: f64,
    /// How images are sampled between their pixels when they are rotated or translated.
    pub sampling: Sampling,
    /// The value of pixels from outside the image, from 0 (black) to 1.
    pub fill: f32,
    /// How colours vary (`ColorJitter`).
    pub jitter: Jitter,
    /// Operations drawn at random.
    pub policy: Policy,
    /// The share of images from which a rectangle is erased (`RandomErasing`). It gets the mean of
    /// the normalisation, which a network sees as 0.
    pub erase: f64,
}

/// How much colours vary, in random order. In grey images only brightness and contrast do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Jitter {
    /// The factor is from 1 - this, or 0, to 1 + this.
    pub brightness: f64,
    /// As `brightness`.
    pub contrast: f64,
    /// As `brightness`.
    pub saturation: f64,
    /// The largest rotation of the hue, either way, as a share of the circle; 0.5 at most.
    pub hue: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            crop: RandomResizedCrop::default(),
            interpolation: Interpolation::Bilinear,
            mirror: 0.5,
            flip: 0.0,
            rotation: 0.0,
            translation: [0.0; 2],
            scale: [1.0; 2],
            shear: 0.0,
            sampling: Sampling::Bilinear,
            fill: 0.0,
            jitter: Jitter::default(),
            policy: Policy::None,
            erase: 0.0,
        }
    }
}

impl Augmentation {
    /// Checks that all settings are in their ranges.
    ///
    /// # Errors
    /// When one is not; the error names it.
    pub fn check(&self) -> Result<(), DataError> {
        let Self {
            crop,
            mirror,
            flip,
            rotation,
            translation,
            scale,
            shear,
            fill,
            jitter,
            policy,
            erase,
            ..
        } = *self;
        let within = |what: &str, value: f64, least: f64, most: f64| {
            if value >= least && value <= most {
                return Ok(());
            }
            Err(DataError::Options(format!(
                "{what} of the augmentation must be from {least} to {most}, found {value}"
            )))
        };
        let ordered = |what: &str, (low, high): (f64, f64), most: f64| {
            if low > 0.0 && low <= high && high <= most {
                return Ok(());
            }
            Err(DataError::Options(format!(
                "{what} of the augmentation must be two numbers above 0 and up to {most}, the \
                 smaller one first, found {low} and {high}"
            )))
        };
        ordered("the crop's area", crop.area, 1.0)?;
        ordered("the crop's aspect ratio", crop.aspect, 1000.0)?;
        within("the share of mirrored images", mirror, 0.0, 1.0)?;
        within("the share of flipped images", flip, 0.0, 1.0)?;
        within("the rotation", rotation, 0.0, 180.0)?;
        for share in translation {
            within("the translation", share, 0.0, 1.0)?;
        }
        ordered("the scale", (scale[0], scale[1]), 100.0)?;
        within("the shear", shear, 0.0, 89.0)?;
        within("the fill", fill.into(), 0.0, 1.0)?;
        within("the jitter's brightness", jitter.brightness, 0.0, 100.0)?;
        within("the jitter's contrast", jitter.contrast, 0.0, 100.0)?;
        within("the jitter's saturation", jitter.saturation, 0.0, 100.0)?;
        within("the jitter's hue", jitter.hue, 0.0, 0.5)?;
        within("the share of images with an erased part", erase, 0.0, 1.0)?;
        if let Policy::Rand {
            operations,
            magnitude,
        } = policy
        {
            within("the number of operations", operations as f64, 0.0, 14.0)?;
            let most = (policy::STRENGTHS - 1) as f64;
            within(
                "the magnitude of the operations",
                magnitude as f64,
                0.0,
                most,
            )?;
        }
        Ok(())
    }

    /// Writes an augmented image of a picture. `mean` has each channel's value for erased pixels.
    pub(super) fn apply<T: Sample>(
        &self,
        picture: View<'_, T>,
        (width, height): (u32, u32),
        mean: &[f32],
        rng: &mut Rng,
        into: &mut [T],
    ) -> Result<(), String> {
        let crop = self.crop.draw(picture.width, picture.height, rng);
        let mirrored = rng.chance(self.mirror);
        resize::crop_then_resize(picture, crop, width, height, self.interpolation, into)?;
        let channels = picture.channels;
        let (width, height) = (width as usize, height as usize);
        if mirrored {
            resize::mirror(into, width, channels);
        }
        if rng.chance(self.flip) {
            resize::turn_over(into, height);
        }
        if self.is_of_crops_alone() {
            return Ok(());
        }
        let mut image = Canvas::of([width, height, channels], into);
        let fill = vec![whole(self.fill, image.most); channels];
        self.turn(&mut image, rng, &fill);
        self.jitter.apply(&mut image, rng);
        self.policy.apply(&mut image, rng, self.sampling, &fill);
        if rng.chance(self.erase) {
            let most = image.most;
            let mean: Vec<f32> = mean.iter().map(|&mean| whole(mean, most)).collect();
            erase(&mut image, rng, &mean);
        }
        image.write(into);
        Ok(())
    }

    /// Whether no step needs all values of an image.
    fn is_of_crops_alone(&self) -> bool {
        let &Self {
            rotation,
            translation,
            scale,
            shear,
            jitter,
            policy,
            erase,
            ..
        } = self;
        let is_still = rotation == 0.0 && translation == [0.0; 2] && scale == [1.0; 2];
        is_still
            && shear == 0.0
            && jitter == Jitter::default()
            && policy == Policy::None
            && erase == 0.0
    }

    /// Turns and moves the image.
    fn turn(&self, image: &mut Canvas, rng: &mut Rng, fill: &[f32]) {
        let mut either_way = |most: f64| match most > 0.0 {
            true => rng.between(-most, most),
            false => 0.0,
        };
        let [right, down] = self.translation;
        let mut affine = Affine {
            angle: either_way(self.rotation),
            translation: [
                either_way(right * image.width as f64).round_ties_even(),
                either_way(down * image.height as f64).round_ties_even(),
            ],
            shear: [either_way(self.shear), 0.0],
            ..Affine::default()
        };
        if self.scale != [1.0; 2] {
            affine.scale = rng.between(self.scale[0], self.scale[1]);
        }
        if affine != Affine::default() {
            image.warp(affine, false, self.sampling, fill);
        }
    }
}

/// A share of white, as bytes if the image has them.
fn whole(share: f32, most: f32) -> f32 {
    let value = share.clamp(0.0, 1.0) * most;
    if most > 1.0 { value.round() } else { value }
}

impl Jitter {
    fn apply(self, image: &mut Canvas, rng: &mut Rng) {
        let Self {
            brightness,
            contrast,
            saturation,
            hue,
        } = self;
        if self == Self::default() {
            return;
        }
        let mut order = [0, 1, 2, 3];
        rng.shuffle(&mut order);
        let mut factor = |by: f64| rng.between((1.0 - by).max(0.0), 1.0 + by) as f32;
        for which in order {
            match which {
                0 if brightness > 0.0 => image.brightness(factor(brightness)),
                1 if contrast > 0.0 => image.contrast(factor(contrast)),
                2 if saturation > 0.0 => image.saturation(factor(saturation)),
                3 if hue > 0.0 => image.hue((factor(1.0) - 1.0) * hue as f32),
                _ => {}
            }
        }
    }
}

/// Erases a rectangle, if one is drawn.
fn erase(image: &mut Canvas, rng: &mut Rng, fill: &[f32]) {
    if let Some(([left, top], [width, height])) = erased([image.width, image.height], rng) {
        image.erase([left, top], [width, height], fill);
    }
}

/// The position (left, top) and size (width, height) of a rectangle to erase from an image of this
/// size (width, height): 2% to 33% of the area, 3:10 to 10:3. `None` if ten in a row do not fit.
pub(super) fn erased(
    [width, height]: [usize; 2],
    rng: &mut Rng,
) -> Option<([usize; 2], [usize; 2])> {
    const TRIES: usize = 10;
    let whole = (width * height) as f64;
    for _ in 0..TRIES {
        let area = whole * rng.between(0.02, 0.33);
        let aspect = rng.between(0.3_f64.ln(), 3.3_f64.ln()).exp();
        let high = (area * aspect).sqrt().round_ties_even() as usize;
        let wide = (area / aspect).sqrt().round_ties_even() as usize;
        if high < height && wide < width {
            let top = rng.below(height - high + 1);
            let left = rng.below(width - wide + 1);
            return Some(([left, top], [wide, high]));
        }
    }
    None
}
