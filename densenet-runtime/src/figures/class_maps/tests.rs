use super::*;

/// torch 2's `F.interpolate(map, (5, 4), mode="bilinear", align_corners=False)` of [`MAP`].
const INTERPOLATED: [f32; 20] = [
    0.0, 0.625, 2.125, 4.0, //
    0.2, 0.45, 1.95, 4.2, //
    1.0, -0.25, 1.25, 5.0, //
    1.8, -0.95, 0.55, 5.8, //
    2.0, -1.125, 0.375, 6.0,
];
const MAP: [f32; 6] = [0.0, 1.0, 4.0, 2.0, -3.0, 6.0];

fn of<'a>(picture: &'a [u8], map: &'a [f32]) -> ClassMaps<'a> {
    ClassMaps {
        picture,
        size: [5, 4],
        map_size: [2, 3],
        maps: vec![("cat".into(), map)],
    }
}

#[test]
fn a_map_is_interpolated_as_pytorch_does_and_has_viridiss_colours() {
    let (black, range) = ([0; 60], [-3.0, 6.0]);
    let maps = of(&black, &MAP);
    assert_eq!(maps.range(), Some(range));
    let over = maps.over(0, range).unwrap();
    for (index, value) in INTERPOLATED.iter().enumerate() {
        let colour = ViridisRGB.get_color((value + 3.0) / 9.0);
        let found = &over[3 * index..][..3];
        for (found, part) in found.iter().zip([colour.0, colour.1, colour.2]) {
            let expected = 0.6 * f32::from(part);
            assert!((f32::from(*found) - expected).abs() <= 1.0, "pixel {index}");
        }
    }
    // The ends of matplotlib's viridis: (68, 1, 84) and (253, 231, 37); 0.6 of them.
    assert_eq!(over[57..], [152, 139, 22]);
    let low = maps.over(0, [100.0, 200.0]).unwrap();
    assert_eq!(low[..3], [41, 1, 50]);
}

#[test]
fn a_figure_has_a_panel_for_the_picture_and_each_map() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let picture = [200; 60];
    let mut maps = of(&picture, &MAP);
    maps.maps.push((
        "a much longer name than there is room for, I think".into(),
        &MAP,
    ));
    maps.draw(&path, "pictures/a.jpg").unwrap();
    let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    // 5x4 pixels, each 52 times: three panels, margins and the scale.
    let (width, height) = (16 + 3 * (208 + 16) + 120, 16 + 34 + (34 + 260 + 16) + 34);
    assert_eq!((info.width, info.height), (width, height));
    let at = |x: u32, y: u32| &bytes[((y * width + x) * 3) as usize..][..3];
    assert_eq!(at(20, 90), [200; 3]);
    // The lower right corner of a map is its highest value: viridis's yellow over grey.
    assert_eq!(at(16 + 208 + 16 + 207, 84 + 259), [232, 219, 102]);
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let refused = |maps: ClassMaps<'_>| maps.draw(&path, "").unwrap_err().to_string();
    let said = refused(of(&[0; 57], &MAP));
    assert!(
        said.ends_with("the data has the wrong length for a picture of 5x4 in RGB and maps of 2x3"),
        "{said}"
    );
    let said = refused(of(&[0; 60], &[f32::NAN; 6]));
    assert!(
        said.ends_with("no value of its class maps is finite"),
        "{said}"
    );
    assert!(!path.exists());
}

#[test]
fn a_picture_of_one_row_and_a_map_with_a_gap_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let row = ClassMaps {
        picture: &[200; 3 * 256],
        size: [1, 256],
        map_size: [1, 2],
        maps: vec![("cat".into(), &[0.0, 1.0])],
    };
    row.draw(folder.path().join("row.png"), "").unwrap();
    for gap in [f32::NAN, f32::INFINITY] {
        let mut map = MAP;
        map[0] = gap;
        let path = folder.path().join("gap.png");
        of(&[200; 60], &map).draw(path, "").unwrap();
    }
}
