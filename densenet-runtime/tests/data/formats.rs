//! WebP, TIFF, BMP, PNM and GIF files, against Pillow, and files of more than 8 bits a sample
//! (`scripts/golden_formats.py`); grey images and floats of them.

use std::{collections::BTreeMap, fs, sync::Arc};

use densenet_runtime::Pixels;
use densenet_runtime::data::{
    Crops, Dataset, Depth, EvaluationCrop, ImageFolder, Interpolation, Loader, MAX_PIXELS,
    Normalization, Picture, PictureError, Pictures, SampleRange, decode, decode_deep,
    decode_within, read,
};
use tempfile::TempDir;

use crate::{golden, records::Records};

/// A file, and what Pillow makes of it.
struct Case {
    name: String,
    file: Vec<u8>,
    width: u32,
    height: u32,
    /// By how much samples may differ.
    tolerance: u8,
    pixels: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let mut records = Records::open("formats.bin");
    let mut cases = Vec::new();
    while !records.is_empty() {
        cases.push(Case {
            name: records.text(),
            file: records.part(),
            width: records.number(),
            height: records.number(),
            tolerance: records.number() as u8,
            pixels: records.part(),
        });
    }
    cases
}

/// A file of more than 8 bits, and what it was made of.
struct DeepCase {
    name: String,
    file: Vec<u8>,
    channels: u32,
    most: f32,
    samples: Vec<f32>,
}

fn deep_cases() -> Vec<DeepCase> {
    let mut records = Records::open("deep.bin");
    let mut cases = Vec::new();
    while !records.is_empty() {
        let (name, file) = (records.text(), records.part());
        assert_eq!([records.number(), records.number()], [13, 9]);
        let (channels, most) = (records.number(), f32::from_bits(records.number()));
        let bytes = records.part();
        let samples = bytes.as_chunks().0.iter();
        cases.push(DeepCase {
            name,
            file,
            channels,
            most,
            samples: samples.map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        });
    }
    cases
}

/// One file of each format, and of most kinds.
fn one_of_each() -> Vec<Case> {
    let mut each = BTreeMap::new();
    for case in cases() {
        let kind: Vec<&str> = case.name.split(' ').take(2).collect();
        each.entry(kind.join(" ")).or_insert(case);
    }
    each.into_values().collect()
}

#[test]
fn a_file_of_any_format_decodes_to_pillows_pixels() {
    let mut kinds = BTreeMap::new();
    let mut mistakes = Vec::new();
    for case in cases() {
        let Case {
            name,
            file,
            tolerance,
            ..
        } = case;
        let kind = name.split(' ').next().unwrap().to_owned();
        *kinds.entry(kind).or_insert(0) += 1;
        match decode(&file) {
            Err(error) => mistakes.push(format!("{name}: {error}")),
            Ok(found) if (found.width, found.height) != (case.width, case.height) => {
                mistakes.push(format!("{name}: {} x {}", found.width, found.height));
            }
            Ok(found) => {
                let pairs = found.pixels.iter().zip(&case.pixels);
                let most = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                if most > tolerance {
                    mistakes.push(format!("{name}: differs by {most}"));
                }
            }
        }
    }
    assert!(mistakes.is_empty(), "{mistakes:#?}");
    for kind in ["bmp", "gif", "webp", "tiff", "P1", "P2", "P3", "P5", "P6"] {
        assert!(kinds[kind] > 4, "{kind}: {}", kinds[kind]);
    }
}

#[test]
fn samples_of_more_than_8_bits_are_kept_and_cut_only_where_bytes_are_asked_for() {
    for DeepCase {
        name,
        file,
        channels,
        most,
        samples,
    } in deep_cases()
    {
        let Picture::Deep(deep) = decode_deep(&file, MAX_PIXELS).unwrap() else {
            panic!("{name} has become bytes");
        };
        assert_eq!((deep.width, deep.height), (13, 9), "{name}");
        assert_eq!(deep.channels, channels as usize, "{name}");
        assert_eq!((deep.range.low, deep.range.high), (0.0, most), "{name}");
        assert!(deep.samples == samples, "{name}");
        let bytes = decode(&file).unwrap();
        if most == 65_535.0 {
            let cut = bytes.pixels.iter().step_by(3 / channels as usize);
            let upper = samples.iter().map(|sample| (sample / 256.0) as u8);
            assert!(cut.copied().eq(upper), "{name}");
        }
    }
}

#[test]
fn pictures_of_8_bits_are_bytes_for_either_question() {
    for case in one_of_each() {
        let whole = decode(&case.file).unwrap();
        let found = decode_deep(&case.file, MAX_PIXELS).unwrap();
        assert!(found == Picture::Bytes(whole), "{}", case.name);
    }
}

#[test]
fn a_file_of_any_format_that_ends_early_is_an_error_wherever_it_ends() {
    for Case { name, file, .. } in one_of_each() {
        let whole = decode(&file).unwrap();
        for end in (0..file.len()).filter(|at| at % 7 == 0 || at + 30 > file.len()) {
            match decode(&file[..end]) {
                Err(error) => assert!(!error.to_string().contains("panicked"), "{name}: {error}"),
                // All pixels may be there before the file ends.
                Ok(found) => assert!(found == whole, "{name} cut to {end} of {}", file.len()),
            }
        }
    }
}

#[test]
fn damaged_files_of_any_format_are_errors_and_never_panics() {
    // Numbers that look random (xorshift).
    let mut state = 1_u64;
    let mut below = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % most as u64) as usize
    };
    let deep = deep_cases().into_iter().map(|case| case.file);
    let files = one_of_each().into_iter().map(|case| case.file).chain(deep);
    for whole in files {
        for _ in 0..60 {
            let mut file = whole.clone();
            for _ in 0..=below(4) {
                let at = 2 + below(file.len().min(400) - 2);
                match below(3) {
                    0 => file[at] = [0, 1, 0x7f, 0x80, 0xff][below(5)],
                    1 => file[at] ^= 1 << below(8),
                    _ => file.insert(at, below(256) as u8),
                }
            }
            // A small limit: a size may have grown.
            if let Err(error) = decode_deep(&file, 1 << 20) {
                assert!(!error.to_string().contains("panicked"), "{error}");
            }
        }
    }
}

/// A file of each format with its width and height replaced.
fn claims(width: u32, height: u32) -> Vec<(&'static str, Vec<u8>)> {
    let file = |name: &str| {
        let mut cases = cases().into_iter();
        cases.find(|case| case.name == name).unwrap().file
    };
    let mut bmp = file("bmp RGB 13x9");
    bmp[18..22].copy_from_slice(&width.to_le_bytes());
    bmp[22..26].copy_from_slice(&height.to_le_bytes());
    let mut gif = file("gif of 5");
    gif[6..8].copy_from_slice(&(width as u16).to_le_bytes());
    gif[8..10].copy_from_slice(&(height as u16).to_le_bytes());
    // The frame, after a palette of eight colours.
    let at = 13
        + 24
        + gif[13 + 24..]
            .iter()
            .position(|&byte| byte == b',')
            .unwrap();
    gif[at + 5..at + 7].copy_from_slice(&(width as u16).to_le_bytes());
    gif[at + 7..at + 9].copy_from_slice(&(height as u16).to_le_bytes());
    let pnm = format!("P5 {width} {height} 255\n1234").into_bytes();
    let text = format!("P3 {width} {height} 255\n1 2 3").into_bytes();
    let mut tiff = file("tiff < plain");
    for (tag, value) in [(256_u16, width), (257, height)] {
        let entry = tag.to_le_bytes();
        let at = tiff.windows(2).position(|pair| pair == entry).unwrap();
        // A long.
        tiff[at + 2..at + 4].copy_from_slice(&4_u16.to_le_bytes());
        tiff[at + 8..at + 12].copy_from_slice(&value.to_le_bytes());
    }
    let mut webp = file("webp 90 40x30");
    let at = webp.windows(3).position(|bytes| bytes == [0x9d, 1, 0x2a]);
    let at = at.unwrap() + 3;
    webp[at..at + 2].copy_from_slice(&((width.min(16_383)) as u16).to_le_bytes());
    webp[at + 2..at + 4].copy_from_slice(&((height.min(16_383)) as u16).to_le_bytes());
    vec![
        ("bmp", bmp),
        ("gif", gif),
        ("pnm", pnm),
        ("pnm in text", text),
        ("tiff", tiff),
        ("webp", webp),
    ]
}

#[test]
fn a_size_above_the_limit_is_refused_before_memory_is_taken() {
    for (name, file) in claims(16_000, 16_000) {
        match decode(&file).unwrap_err() {
            PictureError::TooLarge { width, height, .. } => {
                assert_eq!((width, height), (16_000, 16_000), "{name}");
            }
            // Its strips are those of a smaller picture.
            PictureError::Broken(_) if name == "tiff" => {}
            error => panic!("{name}: {error}"),
        }
    }
    for case in one_of_each() {
        let area = u64::from(case.width * case.height);
        assert!(decode_within(&case.file, area).is_ok(), "{}", case.name);
        let error = decode_within(&case.file, area - 1).unwrap_err();
        assert!(
            matches!(error, PictureError::TooLarge { .. }),
            "{}: {error}",
            case.name
        );
    }
}

#[test]
fn a_size_that_the_data_cannot_fill_is_an_error() {
    for (name, file) in claims(3_000, 3_000) {
        let error = decode(&file).map(|_| name).unwrap_err();
        assert!(matches!(error, PictureError::Broken(_)), "{name}: {error}");
    }
}

#[test]
fn a_picture_without_pixels_is_an_error() {
    for (width, height) in [(0, 9), (13, 0), (0, 0)] {
        for (name, file) in claims(width, height) {
            let error = decode(&file).map(|_| name).unwrap_err();
            assert!(!error.to_string().contains("panicked"), "{name}: {error}");
        }
    }
}

#[test]
fn what_is_no_picture_is_told_which_formats_there_are() {
    let words = decode(b"%PDF-1.4").unwrap_err().to_string();
    assert!(
        words.contains("not begin as a JPEG, PNG, WebP, TIFF"),
        "{words}"
    );
}

#[test]
fn grey_is_pillows() {
    for name in ["wide", "tall", "small"] {
        let picture = read(golden(&format!("{name}.png"))).unwrap();
        let expected = read(golden(&format!("{name}.grey.png"))).unwrap();
        assert!(
            picture.grey().iter().eq(expected.pixels.iter().step_by(3)),
            "{name}"
        );
        assert_eq!(expected.grey(), picture.grey(), "grey stays what it is");
    }
}

/// Shows a file in evaluation, at its own size.
fn shown(pictures: &Pictures, file: &[u8]) -> Vec<f32> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("picture");
    fs::write(&path, file).unwrap();
    let mut into = vec![7.0; pictures.shape().iter().product()];
    pictures.load_floats(&path, None, &mut into).unwrap();
    into
}

/// Pictures whose crop is all of a picture of 13 x 9.
fn whole(channels: usize) -> Pictures {
    let evaluation = EvaluationCrop {
        share: 1.0,
        ..Crops::Centre.into()
    };
    Pictures::shaped([channels, 9, 13])
        .unwrap()
        .evaluated(evaluation)
}

#[test]
fn floats_reach_the_network_as_shares_of_the_files_range() {
    for case in deep_cases() {
        let pictures = whole(case.channels as usize);
        let expected = case.samples.iter().map(|sample| sample / case.most);
        let found = shown(&pictures, &case.file);
        let worst = found
            .iter()
            .zip(expected)
            .map(|(found, expected)| (found - expected).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-6, "{}: {worst}", case.name);
    }
}

#[test]
fn a_range_that_is_given_goes_before_the_files_and_keeps_within_0_and_1() {
    let range = SampleRange {
        low: 1000.0,
        high: 5000.0,
    };
    let pictures = whole(1).ranged(range).unwrap();
    assert_eq!(pictures.depth(), Depth::Floats);
    let case = deep_cases().into_iter().next().unwrap();
    let found = shown(&pictures, &case.file);
    assert!(found.contains(&0.0) && found.contains(&1.0));
    for (found, sample) in found.iter().zip(&case.samples) {
        let expected = ((sample - 1000.0) / 4000.0).clamp(0.0, 1.0);
        assert!((found - expected).abs() < 1e-6, "{sample}: {found}");
    }
    for (low, high) in [
        (1.0, 1.0),
        (2.0, 1.0),
        (f32::NAN, 1.0),
        (0.0, f32::INFINITY),
    ] {
        let error = whole(1).ranged(SampleRange { low, high }).unwrap_err();
        assert!(error.to_string().contains("the lower end comes first"));
    }
}

#[test]
fn colour_becomes_grey_and_grey_colour_in_floats() {
    for case in deep_cases() {
        let (grey, colour) = (shown(&whole(1), &case.file), shown(&whole(3), &case.file));
        let (pixels, _) = colour.as_chunks();
        for (&[r, g, b], grey) in pixels.iter().zip(&grey) {
            let luma = 0.299 * r + 0.587 * g + 0.114 * b;
            assert!((luma - grey).abs() < 1e-6, "{}", case.name);
        }
    }
}

#[test]
fn a_sample_that_is_not_a_number_is_an_error() {
    let mut cases = deep_cases().into_iter();
    let case = cases
        .find(|case| case.name == "tiff of floats < plain")
        .unwrap();
    let mut file = case.file;
    let sample = case.samples[40].to_le_bytes();
    let at = file.windows(4).position(|bytes| bytes == sample).unwrap();
    file[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let words = decode_deep(&file, MAX_PIXELS).unwrap_err().to_string();
    assert!(words.contains("not a finite number"), "{words}");
}

#[test]
fn the_first_file_that_can_be_read_decides_whether_images_are_floats() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    for case in deep_cases() {
        fs::write(path("deep"), &case.file).unwrap();
        let pictures = whole(1).as_needed_by([path("missing"), path("deep")]);
        assert_eq!(pictures.depth(), Depth::Floats, "{}", case.name);
        for broken in [&b""[..], &case.file[..10]] {
            fs::write(path("broken"), broken).unwrap();
            let pictures = whole(1).as_needed_by([path("broken"), path("deep")]);
            assert_eq!(pictures.depth(), Depth::Floats, "{}", case.name);
        }
        let bytes = whole(1).deep(Depth::Bytes).as_needed_by([path("deep")]);
        assert_eq!(bytes.depth(), Depth::Bytes, "what is set stays");
    }
    for case in one_of_each() {
        fs::write(path("bytes"), &case.file).unwrap();
        let pictures = whole(1).as_needed_by([path("bytes"), path("deep")]);
        assert_eq!(pictures.depth(), Depth::Bytes, "{}", case.name);
    }
    assert_eq!(whole(1).as_needed_by([]).depth(), Depth::Bytes);
}

#[test]
fn a_folder_of_16_bits_reaches_the_loader_in_floats_in_training_and_validation() {
    let dir = TempDir::new().unwrap();
    let deep = deep_cases().into_iter().next().unwrap();
    let bytes = one_of_each().into_iter().next().unwrap().file;
    for (path, file) in [
        ("train/a/1.png", &deep.file),
        ("train/b/1.bmp", &bytes),
        // What the training set needs decides.
        ("val/a/1.bmp", &bytes),
        ("val/b/1.png", &deep.file),
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    let (train, val) = ImageFolder::train_and_val_as(&dir, whole(1)).unwrap();
    for folder in [train, val] {
        assert_eq!(folder.depth(), Depth::Floats);
        let loader = Loader::evaluation(Arc::new(folder), 2).unwrap();
        let batch = loader.epoch(0).next().unwrap().unwrap();
        let values = batch.pixels.floats().unwrap();
        assert_eq!(values.len(), 2 * 9 * 13);
        let normalization = loader.dataset().normalization();
        let pixels = batch.as_batch(normalization).pixels;
        assert!(matches!(pixels, Pixels::NhwcFloats { .. }));
        // Shares of 65,535 that no byte has.
        let expected = deep.samples.iter().map(|sample| sample / deep.most);
        let found = values.chunks(9 * 13).any(|image| {
            let pairs = image.iter().zip(expected.clone());
            pairs.fold(0.0, |most: f32, (a, b)| most.max((a - b).abs())) < 1e-6
        });
        assert!(found);
    }
    let train = ImageFolder::open_as(dir.path().join("train"), whole(1)).unwrap();
    let loader = Loader::training(Arc::new(train), 2).unwrap();
    let batch = loader.epoch(0).next().unwrap().unwrap();
    assert!(batch.pixels.floats().is_some(), "varied, too");
}

#[test]
fn pictures_have_one_channel_or_three_and_the_usual_normalisation() {
    let grey = Pictures::shaped([1, 8, 8]).unwrap();
    assert_eq!(grey.shape(), [1, 8, 8]);
    assert_eq!(grey.normalization(), &Normalization::grey());
    let colour = Pictures::shaped([3, 8, 8]).unwrap();
    assert_eq!(colour.normalization(), &Normalization::imagenet());
    let words = Pictures::shaped([4, 8, 8]).unwrap_err().to_string();
    assert!(words.contains("images of 4 were requested"), "{words}");
}

#[test]
fn a_grey_network_sees_pillows_grey_resized() {
    let dir = TempDir::new().unwrap();
    let pictures = Pictures::shaped([1, 32, 32]).unwrap();
    for name in ["wide", "tall", "small"] {
        let mut found = vec![0; 32 * 32];
        pictures
            .load(&golden(&format!("{name}.png")), None, &mut found)
            .unwrap();
        // The grey picture is shown as any other.
        let grey = read(golden(&format!("{name}.grey.png"))).unwrap();
        let expected = Crops::Centre.show(&grey, [32, 32]).unwrap();
        assert!(found.iter().eq(expected.iter().step_by(3)), "{name}");
    }
    drop(dir);
}

#[test]
fn bicubic_resizing_and_another_share_are_torchvisions() {
    let evaluation = EvaluationCrop {
        share: 0.95,
        interpolation: Interpolation::Bicubic,
        ..EvaluationCrop::default()
    };
    for name in ["wide", "tall", "small"] {
        let picture = read(golden(&format!("{name}.png"))).unwrap();
        let found = evaluation.show(&picture, [33, 33]).unwrap();
        let expected = read(golden(&format!("{name}.bicubic.png"))).unwrap();
        assert_eq!(expected.width, 33);
        let differences = found.iter().zip(&expected.pixels);
        let most = differences.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(most <= 1, "{name}: {most}");
        // And in floats.
        let pictures = Pictures::sized([33, 33]).unwrap().evaluated(evaluation);
        let mut floats = vec![0.0; 3 * 33 * 33];
        let path = golden(&format!("{name}.png"));
        pictures.load_floats(&path, None, &mut floats).unwrap();
        let differences = floats.iter().zip(&expected.pixels);
        let most = differences
            .map(|(a, &b)| (a * 255.0 - f32::from(b)).abs())
            .fold(0.0, f32::max);
        assert!(most <= 1.5, "{name}: {most}");
        assert!(floats.iter().all(|value| (0.0..=1.0).contains(value)));
    }
}

#[test]
fn a_share_that_is_none_is_refused() {
    let picture = read(golden("small.png")).unwrap();
    for share in [0.0, -1.0, 1.1, f64::NAN] {
        let evaluation = EvaluationCrop {
            share,
            ..EvaluationCrop::default()
        };
        let words = evaluation.show(&picture, [8, 8]).unwrap_err().to_string();
        assert!(words.contains("above 0 and at most 1"), "{words}");
    }
}

#[test]
fn a_range_that_is_given_is_of_the_files_samples_where_the_smallest_is_white() {
    let mut cases = deep_cases().into_iter();
    let case = cases.find(|case| case.name == "tiff 16 grey < plain");
    let case = case.expect("a case");
    // Tag 262, a short, one value: 1 (black is zero) becomes 0.
    let tag = [6, 1, 3, 0, 1, 0, 0, 0, 1, 0];
    let mut file = case.file;
    let at = file.windows(10).position(|bytes| bytes == tag);
    file[at.expect("the tag") + 8] = 0;
    let range = SampleRange {
        low: 1000.0,
        high: 5000.0,
    };
    let found = shown(&whole(1).ranged(range).unwrap(), &file);
    for (found, sample) in found.iter().zip(&case.samples) {
        let expected = 1.0 - ((sample - 1000.0) / 4000.0).clamp(0.0, 1.0);
        assert!((found - expected).abs() < 1e-6, "{sample}: {found}");
    }
    // Without a range, all of 16 bits.
    for (found, sample) in shown(&whole(1), &file).iter().zip(&case.samples) {
        assert!(
            (found - (1.0 - sample / 65_535.0)).abs() < 1e-6,
            "{sample}: {found}"
        );
    }
}
