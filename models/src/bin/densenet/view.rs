//! The preprocessing of pictures, and their augmentation in training.

use std::error::Error;

use clap::{ArgAction, Args, ValueEnum};
use densenet_models::shell::normalization_for;
use densenet_runtime::data::{
    Augmentation, Crops, EvaluationCrop, Interpolation, Jitter, Mix, Pictures, Policy,
    RandomResizedCrop, SampleRange,
};
use densenet_runtime::plan::Plan;
use densenet_runtime::tell;
use densenet_runtime::weights::TensorFile;
use serde::{Deserialize, Serialize};

use crate::remembered::Remembered;

/// The preprocessing of pictures in evaluation and prediction.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct View {
    /// The crop's share of a picture's resized short side in evaluation and prediction: timm's
    /// crop_pct [default: that of the run that trained the weights, or 0.875].
    #[arg(long, value_name = "SHARE", value_parser = crop_share)]
    crop_pct: Option<f64>,
    /// The interpolation of resizing [default: that of the run that trained the weights, or bilinear].
    #[arg(
        long,
        value_enum,
        value_name = "bilinear|bicubic",
        hide_possible_values = true
    )]
    interpolation: Option<Between>,
    /// The samples that become black and white, such as 0 4095 for 12 bits in files of 16 [default:
    /// those of the run that trained the weights, or the range of each file's type].
    #[arg(long, value_names = ["LOW", "HIGH"], num_args = 2, action = ArgAction::Set, allow_negative_numbers = true)]
    range: Option<Vec<f64>>,
}

/// How pictures are resized.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Between {
    Bilinear,
    Bicubic,
}

impl Remembered for View {
    const NOTE: &'static str = "densenet.view";
}

impl View {
    /// The preprocessing for a network of this plan. Pictures are normalised as its weights' file
    /// says, if it does; a difference from the usual normalisation is reported.
    pub fn pictures(
        &self,
        plan: &Plan,
        weights: Option<&TensorFile>,
    ) -> Result<Pictures, Box<dyn Error>> {
        let stem = plan.stem();
        let mut pictures = Pictures::shaped([stem.channels, stem.height, stem.width])?;
        if let Some(weights) = weights {
            let normalization = normalization_for(weights, pictures.normalization())?;
            pictures = pictures.normalized(normalization);
        }
        let usual = EvaluationCrop::default();
        pictures = pictures.evaluated(EvaluationCrop {
            share: self.crop_pct.unwrap_or(usual.share),
            interpolation: self.interpolation(),
            ..usual
        });
        if let Some(&[low, high]) = self.range.as_deref() {
            let [low, high] = [low, high].map(|end| end as f32);
            pictures = pictures.ranged(SampleRange { low, high })?;
        }
        Ok(pictures)
    }

    /// The preprocessing of the run that trained these weights, with these crops. Options given
    /// here replace it, which is reported.
    pub fn pictures_for(
        &self,
        plan: &Plan,
        weights: &TensorFile,
        crops: Crops,
    ) -> Result<Pictures, Box<dyn Error>> {
        let pictures = self.as_in(weights)?.pictures(plan, Some(weights))?;
        let shown = pictures.evaluation();
        Ok(pictures.evaluated(EvaluationCrop { crops, ..shown }))
    }

    /// The preprocessing of a run that starts from these weights: that of the run that trained
    /// them, which is reported, unless options are given here.
    pub fn after_pretrained(&self, weights: &TensorFile) -> Result<Self, Box<dyn Error>> {
        let view = self.as_in(weights)?;
        let taken = view.besides(self);
        if !taken.is_empty() {
            let path = weights.path().display();
            tell!("pictures are preprocessed as in the run of {path}: {taken}");
        }
        Ok(view)
    }

    /// The view of the run that trained these weights. Options given here replace it, which is reported.
    fn as_in(&self, weights: &TensorFile) -> Result<Self, Box<dyn Error>> {
        let (view, differences) = self.after(weights)?;
        if !differences.is_empty() {
            let path = weights.path().display();
            let differences = differences.join(", ");
            tell!("pictures are not preprocessed as in the run of {path}: {differences}");
        }
        Ok(view)
    }

    /// The same with all defaults filled in, for programs that do not know them.
    pub fn in_full(&self) -> Self {
        let between = match self.interpolation() {
            Interpolation::Bilinear => Between::Bilinear,
            Interpolation::Bicubic => Between::Bicubic,
        };
        Self {
            crop_pct: Some(self.crop_pct.unwrap_or(EvaluationCrop::default().share)),
            interpolation: Some(between),
            range: self.range.clone(),
        }
    }

    fn interpolation(&self) -> Interpolation {
        match self.interpolation {
            None => Interpolation::default(),
            Some(Between::Bilinear) => Interpolation::Bilinear,
            Some(Between::Bicubic) => Interpolation::Bicubic,
        }
    }
}

/// How pictures are augmented and mixed in training, as by torchvision's transforms.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[command(next_help_heading = "Augmentation")]
#[serde(default)]
pub struct Variation {
    /// The smallest and largest share of a picture's area in a crop [default: 0.08 1].
    #[arg(long, value_names = ["LOW", "HIGH"], num_args = 2, action = ArgAction::Set)]
    crop_area: Option<Vec<f64>>,
    /// The smallest and largest ratio of width to height of a crop [default: 0.75 1.3333].
    #[arg(long, value_names = ["LOW", "HIGH"], num_args = 2, action = ArgAction::Set)]
    crop_aspect: Option<Vec<f64>>,
    /// The share of pictures that are mirrored from left to right [default: 0.5].
    #[arg(long, value_name = "SHARE")]
    mirror: Option<f64>,
    /// The share of pictures that are turned upside down.
    #[arg(long, value_name = "SHARE")]
    flip: Option<f64>,
    /// The largest rotation in degrees, either way.
    #[arg(long, value_name = "DEGREES")]
    rotate: Option<f64>,
    /// The largest translation as shares of width and height, either way.
    #[arg(long, value_name = "SHARE")]
    translate: Option<f64>,
    /// The smallest and the largest scale.
    #[arg(long, value_names = ["LOW", "HIGH"], num_args = 2, action = ArgAction::Set)]
    zoom: Option<Vec<f64>>,
    /// The largest shear in degrees, either way.
    #[arg(long, value_name = "DEGREES")]
    shear: Option<f64>,
    /// The value of pixels from outside the picture, from 0 (black) to 1 (white) [default: 0].
    #[arg(long, value_name = "GREY")]
    fill: Option<f64>,
    /// How much brightness varies: 0.4 for factors from 0.6 to 1.4.
    #[arg(long, value_name = "BY")]
    brightness: Option<f64>,
    /// By how much contrast varies.
    #[arg(long, value_name = "BY")]
    contrast: Option<f64>,
    /// By how much saturation varies.
    #[arg(long, value_name = "BY")]
    saturation: Option<f64>,
    /// The largest rotation of the hue, as a share of the circle, up to 0.5.
    #[arg(long, value_name = "BY")]
    hue: Option<f64>,
    /// Operations drawn at random: trivial (TrivialAugmentWide), rand (RandAugment, two of strength
    /// 9) or rand=3,12 (three of strength 12).
    #[arg(long, value_name = "POLICY", value_parser = policy_word)]
    auto_augment: Option<String>,
    /// The share of pictures from which a rectangle is erased.
    #[arg(long, value_name = "SHARE")]
    erase: Option<f64>,
    /// Alpha of mixup, which blends pictures of a batch and their labels, such as 0.2.
    #[arg(long, value_name = "ALPHA", value_parser = alpha)]
    mixup: Option<f64>,
    /// Alpha of cutmix, which pastes a part of another picture, such as 1; with --mixup, each is
    /// used half of the time.
    #[arg(long, value_name = "ALPHA", value_parser = alpha)]
    cutmix: Option<f64>,
    /// Which pictures an epoch shows: each of them, or, balanced, as many that are drawn so that all
    /// classes are equally likely, those of rare ones again and again [default: each].
    #[arg(
        long,
        value_enum,
        value_name = "each|balanced",
        hide_possible_values = true
    )]
    sampling: Option<Draws>,
}

/// Which pictures an epoch shows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Draws {
    Each,
    Balanced,
}

impl Remembered for Variation {
    const NOTE: &'static str = "densenet.variation";
}

impl Variation {
    /// The augmentation of pictures with this preprocessing.
    pub fn augmentation(&self, view: &View) -> Augmentation {
        let usual = Augmentation::default();
        let pair = |given: &Option<Vec<f64>>, usual: (f64, f64)| match given.as_deref() {
            Some(&[low, high]) => (low, high),
            _ => usual,
        };
        let zoom = pair(&self.zoom, (usual.scale[0], usual.scale[1]));
        Augmentation {
            crop: RandomResizedCrop {
                area: pair(&self.crop_area, usual.crop.area),
                aspect: pair(&self.crop_aspect, usual.crop.aspect),
            },
            interpolation: view.interpolation(),
            mirror: self.mirror.unwrap_or(usual.mirror),
            flip: self.flip.unwrap_or(usual.flip),
            rotation: self.rotate.unwrap_or(usual.rotation),
            translation: self.translate.map_or(usual.translation, |share| [share; 2]),
            scale: [zoom.0, zoom.1],
            shear: self.shear.unwrap_or(usual.shear),
            fill: self.fill.map_or(usual.fill, |grey| grey as f32),
            jitter: Jitter {
                brightness: self.brightness.unwrap_or(usual.jitter.brightness),
                contrast: self.contrast.unwrap_or(usual.jitter.contrast),
                saturation: self.saturation.unwrap_or(usual.jitter.saturation),
                hue: self.hue.unwrap_or(usual.jitter.hue),
            },
            policy: self
                .auto_augment
                .as_deref()
                .and_then(policy)
                .unwrap_or_default(),
            erase: self.erase.unwrap_or(usual.erase),
            ..usual
        }
    }

    /// How the pictures of a batch are mixed.
    pub fn mix(&self) -> Mix {
        Mix {
            mixup: self.mixup.unwrap_or(0.0),
            cutmix: self.cutmix.unwrap_or(0.0),
        }
    }

    /// Whether pictures are drawn so that classes are equally likely.
    pub fn is_balanced(&self) -> bool {
        self.sampling == Some(Draws::Balanced)
    }
}

fn policy(word: &str) -> Option<Policy> {
    let rand = |operations, magnitude| Policy::Rand {
        operations,
        magnitude,
    };
    match word {
        "none" => Some(Policy::None),
        "trivial" => Some(Policy::TrivialWide),
        "rand" => Some(rand(2, 9)),
        _ => {
            let (operations, magnitude) = word.strip_prefix("rand=")?.split_once(',')?;
            Some(rand(operations.parse().ok()?, magnitude.parse().ok()?))
        }
    }
}

fn policy_word(word: &str) -> Result<String, String> {
    match policy(word) {
        Some(_) => Ok(word.to_string()),
        None => Err(
            "it must be none, trivial, rand, or rand=3,12 (operations and \
                strength)"
                .to_string(),
        ),
    }
}

fn crop_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("it must be a share above 0 and at most 1, such as 0.875".to_string()),
    }
}

fn alpha(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(alpha) if (0.0..=100.0).contains(&alpha) => Ok(alpha),
        _ => Err("it must be a number from 0 (none) to 100".to_string()),
    }
}
