//! Kinds of TIFF that no golden file has.

use densenet_runtime::data::decode;

/// A TIFF of 20x20 pixels in tiles of 16x16, without compression; `planar` is 2 where each colour has
/// tiles of its own, and `format` is 2 for signed samples. The fourth of four colours is associated alpha.
fn tiled(planar: u32, format: u32, colours: u32) -> Vec<u8> {
    let (tiles, bytes) = match planar {
        2 => (4 * colours, 256),
        _ => (4, 256 * colours),
    };
    // Tag, type (3 for shorts, 4 for longs), and values.
    let of_each = |value: u32| vec![value; colours as usize];
    let data = 1024;
    let mut entries: Vec<(u32, u32, Vec<u32>)> = vec![
        (256, 3, vec![20]),
        (257, 3, vec![20]),
        (258, 3, of_each(8)),
        (259, 3, vec![1]),
        (262, 3, vec![if colours >= 3 { 2 } else { 1 }]),
        (277, 3, vec![colours]),
        (284, 3, vec![planar]),
        (322, 3, vec![16]),
        (323, 3, vec![16]),
        (324, 4, (0..tiles).map(|tile| data + tile * bytes).collect()),
        (325, 4, vec![bytes; tiles as usize]),
        (339, 3, of_each(format)),
    ];
    if colours == 4 {
        entries.insert(11, (338, 3, vec![1]));
    }
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((entries.len() as u16).to_le_bytes());
    let mut beside = Vec::new();
    for (tag, kind, values) in entries {
        file.extend((tag as u16).to_le_bytes());
        file.extend((kind as u16).to_le_bytes());
        file.extend((values.len() as u32).to_le_bytes());
        let size = if kind == 3 { 2 } else { 4 };
        let mut bytes: Vec<u8> = Vec::new();
        for value in values {
            bytes.extend(&value.to_le_bytes()[..size]);
        }
        if bytes.len() > 4 {
            file.extend((512 + beside.len() as u32).to_le_bytes());
            beside.extend(bytes);
        } else {
            bytes.resize(4, 0);
            file.extend(bytes);
        }
    }
    file.resize(512, 0);
    file.extend(beside);
    file.resize(data as usize, 0);
    file.extend((0..tiles * bytes).map(|at| at as u8));
    file
}

#[test]
fn a_tiff_with_tiles_for_each_colour_is_refused_by_name_and_with_tiles_of_all_is_read() {
    // The first tile's first row.
    let picture = decode(&tiled(1, 1, 3)).unwrap();
    assert_eq!((picture.width, picture.height), (20, 20));
    assert!(picture.pixels[..48].iter().copied().eq(0..48));
    let error = decode(&tiled(2, 1, 3)).unwrap_err();
    let words =
        "a TIFF whose colours are apart (planar) and in tiles, which cannot be read; save it as";
    assert!(error.to_string().starts_with(words), "{error}");
}

#[test]
fn a_tiff_of_signed_bytes_is_refused_by_name() {
    let error = decode(&tiled(1, 2, 1)).unwrap_err();
    let words = "a TIFF of signed samples of 8 bits, which cannot be read; save it as";
    assert!(error.to_string().starts_with(words), "{error}");
}

#[test]
fn colours_that_are_multiplied_by_alpha_are_divided_by_it_as_pillow_does() {
    let mut file = tiled(1, 1, 4);
    let pixels = [
        [200, 100, 50, 255],
        [100, 50, 25, 128],
        [10, 20, 30, 0],
        [90, 60, 3, 90],
        [255, 0, 7, 200],
        [1, 2, 3, 4],
        [128, 127, 126, 129],
        [40, 80, 120, 160],
    ];
    file[1024..1024 + 32].copy_from_slice(&pixels.concat());
    // What Pillow 13 reads.
    let expected: [[u8; 3]; 8] = [
        [200, 100, 50],
        [199, 99, 49],
        [0, 0, 0],
        [255, 170, 8],
        [255, 0, 8],
        [63, 127, 191],
        [253, 251, 249],
        [63, 127, 191],
    ];
    let picture = decode(&file).unwrap();
    assert_eq!(picture.pixels[..24], expected.concat());
}
