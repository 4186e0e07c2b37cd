//! JPEG and PNG files, against Pillow (`scripts/golden_pictures.py`), and what is refused.

use std::{fs, sync::Arc};

use densenet_runtime::data::{
    DataError, ImageFolder, Loader, MAX_PIXELS, OnBroken, PictureError, Rgb, decode, decode_within,
    read, read_within,
};
use jpeg_encoder::{ColorType, Encoder};
use tempfile::TempDir;

use crate::{golden, records::Records};

/// A file, and Pillow's result for it.
struct Case {
    name: String,
    file: Vec<u8>,
    /// Width, height and checksum of the pixels; zeros where it does not read it.
    expected: [u32; 3],
}

fn cases(name: &str) -> Vec<Case> {
    let mut records = Records::open(name);
    let mut cases = Vec::new();
    while !records.is_empty() {
        cases.push(Case {
            name: records.text(),
            file: records.part(),
            expected: [(); 3].map(|()| records.number()),
        });
    }
    cases
}

fn summed(picture: &Rgb) -> [u32; 3] {
    let sum = crc32fast::hash(&picture.pixels);
    [picture.width, picture.height, sum]
}

/// The message for a refused picture.
fn refusal(file: &[u8]) -> String {
    decode(file).unwrap_err().to_string()
}

fn is_broken(file: &[u8]) -> bool {
    matches!(decode(file), Err(PictureError::Broken(_)))
}

/// Where a JPEG's marker of this code is first.
fn marker(file: &[u8], code: u8) -> usize {
    let mut pairs = file.windows(2);
    pairs.position(|pair| pair == [0xff, code]).unwrap()
}

/// A JPEG of some texture.
fn jpeg(width: u16, height: u16) -> Vec<u8> {
    let pixels: Vec<u8> = (0..3 * usize::from(width) * usize::from(height))
        .map(|at| (at * at / 7 % 251) as u8)
        .collect();
    let mut file = Vec::new();
    Encoder::new(&mut file, 90)
        .encode(&pixels, width, height, ColorType::Rgb)
        .unwrap();
    file
}

#[test]
fn a_jpeg_of_any_layout_decodes_to_exactly_pillows_pixels() {
    let cases = cases("jpegs.bin");
    assert!(cases.len() > 1000);
    let different: Vec<_> = cases
        .iter()
        .filter(|case| decode(&case.file).map(|picture| summed(&picture)) != Ok(case.expected))
        .map(|case| &case.name)
        .collect();
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn a_png_decodes_to_exactly_pillows_pixels_and_is_refused_where_pillow_refuses() {
    for Case {
        name,
        file,
        expected,
    } in cases("pngs.bin")
    {
        let found = decode(&file).map_or([0; 3], |picture| summed(&picture));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_jpeg_cut_anywhere_in_its_data_is_broken_with_or_without_an_end_marker() {
    for Case { name, file, .. } in cases("jpegs.bin").iter().step_by(23) {
        let whole = decode(file).unwrap();
        let (start, end) = (marker(file, 0xda), file.len() - 2);
        let cuts = (start..end).filter(|at| at % 11 == 0 || at + 12 > end);
        for cut in cuts {
            let without = file[..cut].to_vec();
            let with = [&without, &[0xff, 0xd9][..]].concat();
            for file in [without, with] {
                // The last bits may be those that fill up a byte.
                let same = || decode(&file).as_ref() == Ok(&whole);
                assert!(is_broken(&file) || same(), "{name} cut at {cut} of {end}");
            }
        }
    }
}

#[test]
fn a_jpeg_that_lacks_a_scan_or_a_restart_interval_is_broken() {
    let (mut scans, mut intervals) = (0, 0);
    for Case { name, file, .. } in cases("jpegs.bin").iter().step_by(5) {
        let starts = file.windows(2).enumerate();
        let starts = starts.filter(|(_, pair)| *pair == [0xff, 0xda]);
        for (start, _) in starts {
            let cut = [&file[..start], &[0xff, 0xd9]].concat();
            assert!(is_broken(&cut), "{name} without the scan at {start}");
            scans += 1;
        }
        let restarts: Vec<usize> = file
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| pair[0] == 0xff && (0xd0..0xd8).contains(&pair[1]))
            .map(|(at, _)| at)
            .collect();
        // Also eight at once, which leaves the numbers of the markers as they should be.
        for several in [1, 8] {
            for pair in restarts.windows(several + 1).step_by(7) {
                let cut = [&file[..pair[0]], &file[pair[several]..]].concat();
                assert!(
                    is_broken(&cut),
                    "{name} without {several} intervals at {}",
                    pair[0]
                );
                intervals += 1;
            }
        }
    }
    assert!(scans > 300 && intervals > 100, "{scans}, {intervals}");
}

#[test]
fn what_does_not_affect_pixels_is_ignored() {
    let whole = jpeg(33, 17);
    let expected = decode(&whole).unwrap();
    let (frame, scan, end) = (marker(&whole, 0xc0), marker(&whole, 0xda), whole.len() - 2);
    let with = |at: usize, bytes: &[u8]| [&whole[..at], bytes, &whole[at..]].concat();
    for (what, file) in [
        ("no end marker", whole[..end].to_vec()),
        ("half an end marker", whole[..end + 1].to_vec()),
        ("bytes after", with(end + 2, &[7; 100])),
        ("a second picture after", [&whole[..], &whole].concat()),
        ("zeros between headers", with(frame, &[0; 5])),
        ("junk between headers", with(scan, b"junk\xff\0more")),
        ("bytes that fill up", with(frame, &[0xff; 9])),
        ("bytes before the end", with(end, b"garbage")),
        ("a restart marker at the end", with(end, &[0xff, 0xd0])),
        ("damaged EXIF", with(2, b"\xff\xe1\0\x0aExif\0\0MM")),
        ("a damaged profile", with(2, b"\xff\xe2\0\x0eICC_PROFILE\0")),
        ("an unknown segment", with(frame, &[0xff, 0x50, 0, 4, 1, 2])),
    ] {
        assert_eq!(decode(&file).as_ref(), Ok(&expected), "{what}");
    }
}

#[test]
fn a_frame_of_motion_jpeg_needs_no_huffman_tables() {
    // The encoder's tables are the standard's.
    let whole = jpeg(33, 17);
    let mut file = whole.clone();
    while let Some(at) = file.windows(2).position(|pair| pair == [0xff, 0xc4]) {
        let length = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        file.drain(at..at + 2 + length);
    }
    assert!(file.len() + 400 < whole.len());
    assert_eq!(decode(&file), decode(&whole));
}

#[test]
fn the_limit_on_pixels_is_checked_first_and_can_be_set() {
    let mut claims = jpeg(16, 16);
    let frame = marker(&claims, 0xc0);
    claims[frame + 5..frame + 9].copy_from_slice(&[0x40, 0, 0x40, 0]);
    let error = decode(&claims).unwrap_err();
    assert_eq!(
        error,
        PictureError::TooLarge {
            width: 16_384,
            height: 16_384,
            limit: MAX_PIXELS
        }
    );
    let words = error.to_string();
    assert!(words.contains("16384 x 16384 pixels"), "{words}");
    assert!(words.contains("ImageFolder::max_pixels"), "{words}");

    let mut png = fs::read(golden("small.png")).unwrap();
    png[16..24].copy_from_slice(&[0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20]);
    let sum = crc32fast::hash(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&sum);
    assert!(matches!(
        decode(&png),
        Err(PictureError::TooLarge {
            width: 20_000,
            height: 20_000,
            ..
        })
    ));

    for file in [jpeg(20, 10), fs::read(golden("small.png")).unwrap()] {
        let Rgb { width, height, .. } = decode(&file).unwrap();
        let area = u64::from(width * height);
        assert!(decode_within(&file, area).is_ok());
        assert!(matches!(
            decode_within(&file, area - 1),
            Err(PictureError::TooLarge { .. })
        ));
    }
}

#[test]
fn a_picture_whose_data_cannot_fill_its_size_is_broken() {
    // Below the limit: 169 million pixels.
    let side = 13_000_u16.to_be_bytes();
    for (name, code) in [("rgb", 0xc0), ("progressive", 0xc2), ("grey", 0xc0)] {
        let mut file = fs::read(golden(&format!("formats/{name}.jpg"))).unwrap();
        let frame = marker(&file, code);
        file[frame + 5..frame + 9].copy_from_slice(&[side, side].concat());
        let words = refusal(&file);
        assert!(
            words.contains("claims 13000 x 13000 pixels"),
            "{name}: {words}"
        );
    }
    let mut file = fs::read(golden("formats/one_bit.png")).unwrap();
    file[16..24].copy_from_slice(&[[0, 0], side, [0, 0], side].concat());
    let sum = crc32fast::hash(&file[12..29]).to_be_bytes();
    file[29..33].copy_from_slice(&sum);
    let words = refusal(&file);
    assert!(words.contains("claims 13000 x 13000 pixels"), "{words}");
}

#[test]
fn the_widest_and_the_highest_jpeg_are_read() {
    for (width, height) in [(16_385, 3), (65_535, 2), (2, 65_535)] {
        let picture = decode(&jpeg(width, height)).unwrap();
        assert_eq!(
            (picture.width, picture.height),
            (width.into(), height.into())
        );
    }
}

#[test]
fn unsupported_kinds_of_jpeg_are_named() {
    let file = jpeg(16, 16);
    let frame = marker(&file, 0xc0);
    let with = |at: usize, byte: u8| {
        let mut file = file.clone();
        file[frame + at] = byte;
        refusal(&file)
    };
    for (words, name) in [
        (with(1, 0xc9), "an arithmetic-coded JPEG"),
        (with(1, 0xca), "an arithmetic-coded JPEG"),
        (with(1, 0xc3), "a lossless JPEG"),
        (with(1, 0xcb), "a lossless JPEG"),
        (with(1, 0xc5), "a hierarchical JPEG"),
        (with(1, 0xf7), "a JPEG-LS picture"),
        (with(4, 12), "a JPEG with 12 bits a sample"),
        (with(6, 0), "a JPEG whose height follows its data"),
    ] {
        assert!(words.starts_with(name), "{words}");
        assert!(
            words.contains("save it as a baseline JPEG or as PNG"),
            "{words}"
        );
    }
    // Components of three and of two samples.
    let mut file = file.clone();
    file[frame + 11] = 0x31;
    file[frame + 14] = 0x21;
    let words = refusal(&file);
    assert!(
        words.contains("sampled at ratios that are not whole"),
        "{words}"
    );
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let mut files: Vec<Vec<u8>> = cases("jpegs.bin")
        .into_iter()
        .step_by(13)
        .chain(cases("pngs.bin"))
        .map(|case| case.file)
        .collect();
    // Numbers that look random (xorshift).
    let mut state = 1_u64;
    let mut below = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % most as u64) as usize
    };
    for file in &mut files {
        let whole = file.clone();
        for _ in 0..60 {
            file.clone_from(&whole);
            for _ in 0..=below(4) {
                let at = 2 + below(file.len() - 2);
                match below(4) {
                    0 => file[at] = [0, 1, 0x7f, 0x80, 0xff][below(5)],
                    1 => file[at] ^= 1 << below(8),
                    2 => file.insert(at, below(256) as u8),
                    _ if file.len() > 40 => drop(file.remove(at)),
                    _ => {}
                }
            }
            if let Err(error) = decode(file) {
                assert!(!error.to_string().contains("panicked"), "{error}");
            }
        }
    }
}

#[test]
fn a_file_and_its_bytes_give_the_same_picture_and_errors_name_the_path() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("picture.jpg");
    let file = jpeg(20, 10);
    fs::write(&path, &file).unwrap();
    assert_eq!(read(&path).unwrap(), decode(&file).unwrap());
    let error = read_within(&path, 199).unwrap_err();
    let words = error.to_string();
    let start = format!("{} is too large: 20 x 10 pixels", path.display());
    assert!(words.starts_with(&start), "{words}");
    fs::write(&path, &file[..file.len() / 2]).unwrap();
    let words = read(&path).unwrap_err().to_string();
    let start = format!("{} is not a whole picture", path.display());
    assert!(words.starts_with(&start), "{words}");
}

#[test]
fn a_picture_above_a_folders_limit_is_skipped_or_fatal_as_asked() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("class")).unwrap();
    fs::write(dir.path().join("class/1.jpg"), jpeg(20, 10)).unwrap();
    fs::write(dir.path().join("class/2.jpg"), jpeg(20, 11)).unwrap();
    let folder = ImageFolder::open(&dir, [8, 8]).unwrap().max_pixels(200);
    let loader = Loader::evaluation(Arc::new(folder), 2).unwrap();
    let error = loader.epoch(0).next().unwrap().unwrap_err();
    assert!(matches!(
        error,
        DataError::Picture {
            reason: PictureError::TooLarge { .. },
            ..
        }
    ));
    let loader = loader.on_broken(OnBroken::Skip);
    let batches: Vec<_> = loader.epoch(0).map(|batch| batch.unwrap().size()).collect();
    assert_eq!((batches, loader.skipped().len()), (vec![1], 1));
}
