//! Maps and their statistics.

use cuda_kernel_tests::{Dropout, Gpu, Precision, arguments, check, check_stored};

use crate::{Case, Data, TILE_MAPS, each};

/// How many channels the blocks that share a product's depth have each.
type Shared = Option<usize>;

#[test]
fn forward_and_its_statistics() {
    each(|case, precision, data| {
        for site in [-1, 5] {
            forward(case, precision, data, Dropout { seed: 77, site }, None);
        }
    });
}

#[test]
fn blocks_that_share_the_depth_of_a_1x1_product_have_its_maps_and_statistics() {
    each(|case, precision, data| {
        for (length, site) in [(64, 5), (128, -1), (256, -1)] {
            if case.kernel == 1 && case.channels > length {
                let dropout = Dropout { seed: 78, site };
                forward(case, precision, data, dropout, Some(length));
            }
        }
    });
}

#[test]
fn evaluation_has_the_same_maps_and_leaves_no_statistics() {
    each(|case, precision, data| {
        let none = Dropout { seed: 0, site: -1 };
        let [trained, evaluated] =
            [1, 0].map(|training| maps_and_moments(case, precision, data, none, training, None));
        let what = format!("{case:?} {precision:?}");
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&evaluated.0) == bits(&trained.0), "{what}");
        assert!(trained.1.iter().all(|v| !v.is_nan()), "{what}");
        assert!(evaluated.1.iter().all(|v| v.is_nan()), "{what}");
    });
}

/// The kernel's results: maps, and for each map and tile a mean and a sum of squares.
fn maps_and_moments(
    case: &Case,
    precision: Precision,
    data: &Data,
    dropout: Dropout,
    training: i32,
    shared: Shared,
) -> (Vec<f32>, Vec<f32>) {
    let gpu = Gpu::new(1);
    let program = case.program(&gpu, precision, dropout.site >= 0);
    let (pixels, maps) = (case.pixels(), case.maps);
    let tiles = pixels.div_ceil(case.rows);
    let out = gpu.no_maps(precision, pixels * case.out_stride);
    let partial = gpu.no_floats(tiles * maps * 2);
    let input = gpu.maps(precision, &data.input);
    let (scale, shift) = (gpu.floats(&data.norm.scale), gpu.floats(&data.norm.shift));
    let weight = gpu.packed(precision, &data.weight, case.channels, case.taps());
    let scalars = gpu.scalars(dropout.seed, [0.0, 1.0], false, [0.0; 3], false);
    let of_maps = maps.div_ceil(case.columns());
    match (case.kernel, shared) {
        (1, Some(length)) => {
            let parts = case.channels.div_ceil(length);
            let sums = gpu.no_floats(parts * pixels * maps);
            program.tiled_in_shared(
                "pointwise_part",
                [tiles, of_maps, parts],
                arguments![
                    &input,
                    &scale,
                    &shift,
                    &weight,
                    &sums,
                    pixels,
                    case.channels,
                    length
                ],
            );
            program.tiled(
                "pointwise_joined",
                [tiles, of_maps, 1],
                arguments![
                    &sums,
                    &out,
                    &partial,
                    &scalars,
                    dropout.site,
                    pixels,
                    parts,
                    training
                ],
            );
        }
        (1, None) => program.tiled_in_shared(
            "pointwise_forward",
            [tiles, of_maps, 1],
            arguments![
                &input,
                &scale,
                &shift,
                &weight,
                &out,
                &partial,
                &scalars,
                dropout.site,
                pixels,
                case.channels,
                training
            ],
        ),
        _ => program.tiled_in_shared(
            "spatial_forward",
            [tiles, maps.div_ceil(TILE_MAPS), 1],
            arguments![
                &input,
                &scale,
                &shift,
                &weight,
                &out,
                &partial,
                &scalars,
                case.column,
                dropout.site,
                pixels,
                case.channels,
                training
            ],
        ),
    }
    (out.read_maps(precision), partial.read_floats())
}

fn forward(case: &Case, precision: Precision, data: &Data, dropout: Dropout, shared: Shared) {
    let (stored, left) = maps_and_moments(case, precision, data, dropout, 1, shared);
    let (pixels, maps) = (case.pixels(), case.maps);
    let tiles = pixels.div_ceil(case.rows);
    // Columns that are not its own stay as they were.
    let mut expected = vec![f64::NAN; pixels * case.out_stride];
    for p in 0..pixels {
        for n in 0..maps {
            let mut sum = 0.0;
            for tap in 0..case.taps() {
                let Some(under) = case.under(p, tap) else {
                    continue;
                };
                for c in 0..case.channels {
                    sum += data.operand(case, precision, under, c)
                        * data.weight(case, precision, n, c, tap);
                }
            }
            expected[p * case.out_stride + case.column + n] =
                sum * f64::from(dropout.factor(p * maps + n));
        }
    }
    check_stored(
        &format!("{case:?} {precision:?}"),
        precision,
        &stored,
        &expected,
    );
    // Moments are those of what was stored.
    let mut moments = vec![0.0; tiles * maps * 2];
    for tile in 0..tiles {
        for n in 0..maps {
            let rows = tile * case.rows..pixels.min((tile + 1) * case.rows);
            let count = rows.len() as f64;
            let value = |p: usize| f64::from(stored[p * case.out_stride + case.column + n]);
            let mean = rows.clone().map(value).sum::<f64>() / count;
            moments[(tile * maps + n) * 2] = mean;
            moments[(tile * maps + n) * 2 + 1] = rows.map(|p| (value(p) - mean).powi(2)).sum();
        }
    }
    check(
        &format!("moments, {case:?} {precision:?}"),
        &left,
        &moments,
        1e-5,
    );
}
