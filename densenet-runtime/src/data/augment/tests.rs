//! Against torchvision (`scripts/golden_augmentation.py`), and what drawing at random promises.

use std::{collections::BTreeSet, io::Read};

use flate2::read::ZlibDecoder;

use super::{
    Augmentation, Jitter, Policy, Rng, Sampling, View,
    canvas::{Affine, Canvas},
    policy::Operation,
};

/// Cuts golden records up.
struct Records(Vec<u8>, usize);

impl Records {
    fn take(&mut self, length: usize) -> &[u8] {
        self.1 += length;
        &self.0[self.1 - length..self.1]
    }

    fn number(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().unwrap()) as usize
    }

    fn part(&mut self) -> Vec<u8> {
        let length = self.number();
        self.take(length).to_vec()
    }
}

fn apply(image: &mut Canvas, operation: &str, numbers: &[f64], fill: &[f32]) {
    let sampling = match operation.split(' ').nth(1) {
        Some("nearest") => Sampling::Nearest,
        _ => Sampling::Bilinear,
    };
    let first = numbers.first().map_or(0.0, |&number| number as f32);
    match operation.split(' ').next().unwrap() {
        "brightness" => image.brightness(first),
        "contrast" => image.contrast(first),
        "saturation" => image.saturation(first),
        "sharpness" => image.sharpness(first),
        "hue" => image.hue(first),
        "posterize" => image.posterize(first as u32),
        "solarize" => image.solarize(first),
        "autocontrast" => image.autocontrast(),
        "equalize" => image.equalize(),
        "rotate" => Operation::Rotate.apply(image, numbers[0], sampling, fill),
        "shear" => Operation::ShearX.apply(image, numbers[0], sampling, fill),
        "affine" => {
            let affine = Affine {
                angle: numbers[0],
                translation: [numbers[1], numbers[2]],
                scale: numbers[3],
                shear: [numbers[4], numbers[5]],
            };
            image.warp(affine, false, sampling, fill);
        }
        other => panic!("{other} is not known"),
    }
}

#[test]
fn colours_and_geometry_are_torchvisions() {
    let mut records = Vec::new();
    let golden = include_bytes!("../../../tests/data/golden/augmented.bin");
    ZlibDecoder::new(&golden[..])
        .read_to_end(&mut records)
        .unwrap();
    let mut records = Records(records, 0);
    let (mut mistakes, mut seen) = (Vec::new(), BTreeSet::new());
    while records.1 < records.0.len() {
        let operation = String::from_utf8(records.part()).unwrap();
        let size = [(); 3].map(|()| records.number());
        let (before, expected) = (records.part(), records.part());
        let floats = |bytes: &[u8]| -> Vec<f32> {
            let chunks = bytes.as_chunks().0.iter();
            chunks.map(|&bytes| f32::from_le_bytes(bytes)).collect()
        };
        let numbers: Vec<f64> = operation
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let (image, expected, tolerance) = if operation.ends_with("floats") {
            let mut image = Canvas::of(size, &floats(&before));
            apply(&mut image, &operation, &numbers, &[0.25; 3]);
            (image.values, floats(&expected), 1e-4)
        } else {
            let mut image = Canvas::of(size, &before);
            apply(&mut image, &operation, &numbers, &[64.0; 3]);
            let expected = expected.iter().map(|&byte| f32::from(byte)).collect();
            (image.values, expected, 1.0)
        };
        assert_eq!(image.len(), expected.len());
        let pairs = image.iter().zip(&expected);
        let far = pairs.filter(|(a, b)| (*a - *b).abs() > tolerance).count();
        // A rounding may choose another pixel, or another step of a histogram.
        let may_jump = ["nearest", "equalize", "posterize", "solarize"];
        let is_jumpy = may_jump.iter().any(|word| operation.contains(word));
        if far > if is_jumpy { image.len() / 100 } else { 0 } {
            let worst = image.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let worst = worst.fold(0.0, f32::max);
            mistakes.push(format!(
                "{operation} of {size:?}: {far} differ, by up to {worst}"
            ));
        }
        seen.insert(operation.split(' ').next().unwrap().to_owned());
    }
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    assert_eq!(seen.len(), 12, "{seen:?}");
}

#[test]
fn the_policies_operations_have_torchvisions_strengths() {
    let table = include_str!("../../../tests/data/golden/augmentations.csv");
    let mut seen = BTreeSet::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let operation = Operation::ALL
            .into_iter()
            .find(|operation| format!("{operation:?}") == fields[1])
            .unwrap();
        let wide = fields[0] == "TrivialAugmentWide";
        let strength = fields[2].parse().unwrap();
        let (magnitude, is_signed) = operation.magnitude(wide, strength, [224, 160]);
        let expected: f64 = fields[3].parse().unwrap();
        assert!((magnitude - expected).abs() < 1e-4, "{line}: {magnitude}");
        assert_eq!(u8::from(is_signed).to_string(), fields[4], "{line}");
        seen.insert((wide, fields[1]));
    }
    assert_eq!(seen.len(), 28);
}

/// A picture of some texture, of 40 x 30.
fn picture(channels: usize) -> Vec<u8> {
    (0..40 * 30 * channels)
        .map(|at| (at * at / 7 % 251) as u8)
        .collect()
}

fn varied(augmentation: &Augmentation, channels: usize, index: u64) -> Vec<u8> {
    let samples = picture(channels);
    let view = View {
        width: 40,
        height: 30,
        channels,
        samples: &samples[..],
    };
    let mut into = vec![0; 24 * 20 * channels];
    let mut rng = Rng::new(1, 2, index);
    augmentation
        .apply(view, (24, 20), &[0.5; 3][..channels], &mut rng, &mut into)
        .unwrap();
    into
}

/// Everything at once.
fn everything() -> Augmentation {
    Augmentation {
        flip: 0.3,
        rotation: 20.0,
        translation: [0.1, 0.2],
        scale: [0.8, 1.2],
        shear: 10.0,
        jitter: Jitter {
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.1,
        },
        policy: Policy::Rand {
            operations: 2,
            magnitude: 9,
        },
        erase: 0.5,
        ..Augmentation::default()
    }
}

#[test]
fn an_image_depends_on_its_numbers_alone_and_others_vary() {
    for channels in [1, 3] {
        for augmentation in [
            Augmentation::default(),
            everything(),
            Augmentation {
                policy: Policy::TrivialWide,
                ..Augmentation::default()
            },
        ] {
            augmentation.check().unwrap();
            let images: Vec<_> = (0..30)
                .map(|index| varied(&augmentation, channels, index))
                .collect();
            for (index, image) in (0..).zip(&images) {
                assert_eq!(&varied(&augmentation, channels, index), image);
            }
            let different: BTreeSet<_> = images.iter().collect();
            assert!(different.len() > 25, "{}", different.len());
        }
    }
}

#[test]
fn bytes_and_floats_are_varied_alike() {
    // Without what depends on whole bytes.
    let augmentation = Augmentation {
        rotation: 20.0,
        translation: [0.1, 0.2],
        scale: [0.8, 1.2],
        shear: 10.0,
        fill: 0.2,
        erase: 0.5,
        ..Augmentation::default()
    };
    let bytes = picture(3);
    let floats: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    for index in 0..20 {
        let expected = varied(&augmentation, 3, index);
        let view = View {
            width: 40,
            height: 30,
            channels: 3,
            samples: &floats[..],
        };
        let mut found = vec![0.0; expected.len()];
        let mut rng = Rng::new(1, 2, index);
        augmentation
            .apply(view, (24, 20), &[0.5; 3], &mut rng, &mut found)
            .unwrap();
        for (found, expected) in found.iter().zip(expected) {
            assert!((found * 255.0 - f32::from(expected)).abs() < 1.6);
        }
    }
}

#[test]
fn images_are_turned_upside_down_and_erased_as_often_as_asked() {
    let whole = Augmentation {
        crop: super::RandomResizedCrop {
            area: (1.0, 1.0),
            aspect: (4.0 / 3.0, 4.0 / 3.0),
        },
        mirror: 0.0,
        ..Augmentation::default()
    };
    let plain = varied(&whole, 3, 0);
    let mut flipped = plain.clone();
    super::resize::turn_over(&mut flipped, 20);
    let turned = Augmentation {
        flip: 0.25,
        ..whole
    };
    let images: Vec<_> = (0..400).map(|index| varied(&turned, 3, index)).collect();
    assert!(
        images
            .iter()
            .all(|image| *image == plain || *image == flipped)
    );
    let count = images.iter().filter(|image| **image == flipped).count();
    assert!((70..130).contains(&count), "{count}");

    let erased = Augmentation {
        erase: 0.75,
        ..whole
    };
    let count = (0..400)
        .filter(|&index| {
            let image = varied(&erased, 3, index);
            let changed = image.iter().zip(&plain).filter(|(a, b)| a != b);
            // The mean, 0.5.
            assert!(changed.clone().all(|(&byte, _)| byte == 128));
            changed.count() > 0
        })
        .count();
    assert!((270..330).contains(&count), "{count}");
}

#[test]
fn erased_rectangles_are_distributed_as_torchvisions() {
    const DRAWS: usize = 20_000;
    let golden = include_str!("../../../tests/data/golden/erased.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(golden).unwrap();
    for case in cases {
        let [width, height] = ["width", "height"].map(|side| case[side].as_u64().unwrap() as usize);
        let mut found: [Vec<f64>; 4] = Default::default();
        let mut draws = 0;
        while found[0].len() < DRAWS {
            draws += 1;
            let mut rng = Rng::new(7, 0, draws);
            let Some(([left, top], [wide, high])) = super::erased([width, height], &mut rng) else {
                continue;
            };
            let place = |at: usize, room: usize| at as f64 / room.max(1) as f64;
            let [left, top] = [place(left, width - wide), place(top, height - high)];
            for (all, value) in found.iter_mut().zip([wide as f64, high as f64, left, top]) {
                all.push(value);
            }
        }
        let none = 1.0 - DRAWS as f64 / draws as f64;
        assert!(
            (none - case["none"].as_f64().unwrap()).abs() < 0.01,
            "{none}"
        );
        // A share of a side, or of the places; and the whole pixel that widths and heights are.
        let scales = [width, height, 1, 1].map(|side| side as f64);
        for (at, (mut values, scale)) in found.into_iter().zip(scales).enumerate() {
            values.sort_by(f64::total_cmp);
            for (decile, expected) in case["quantiles"][at].as_array().unwrap().iter().enumerate() {
                let own = values[DRAWS * (2 * decile + 1) / 20];
                let expected = expected.as_f64().unwrap();
                let most = 0.02 * scale + if at < 2 { 1.0 } else { 0.0 };
                assert!(
                    (own - expected).abs() <= most,
                    "{width}x{height}, {at}: {own} for {expected}"
                );
            }
        }
    }
}

#[test]
fn a_setting_that_is_out_of_range_is_named() {
    let with = |change: fn(&mut Augmentation)| {
        let mut augmentation = Augmentation::default();
        change(&mut augmentation);
        augmentation.check().unwrap_err().to_string()
    };
    for (words, change) in [
        (
            "crop's area",
            (|a| a.crop.area = (0.0, 1.0)) as fn(&mut Augmentation),
        ),
        ("crop's area", |a| a.crop.area = (0.5, 0.4)),
        ("aspect ratio", |a| a.crop.aspect = (f64::NAN, 1.0)),
        ("mirrored", |a| a.mirror = 1.5),
        ("flipped", |a| a.flip = -0.1),
        ("rotation", |a| a.rotation = 181.0),
        ("translation", |a| a.translation = [0.0, 2.0]),
        ("scale", |a| a.scale = [0.0, 1.0]),
        ("shear", |a| a.shear = 90.0),
        ("fill", |a| a.fill = 2.0),
        ("brightness", |a| a.jitter.brightness = -1.0),
        ("hue", |a| a.jitter.hue = 0.6),
        ("erased", |a| a.erase = f64::NAN),
        ("magnitude", |a| {
            a.policy = Policy::Rand {
                operations: 2,
                magnitude: 31,
            };
        }),
    ] {
        let found = with(change);
        assert!(found.contains(words), "{words}: {found}");
    }
}
