//! The last layers: BN, ReLU, global average pool, classifier, loss, and their backward pass.

mod loss;

use cuda_kernel_tests::{
    COLUMNS, Gpu, Norm, Numbers, Precision, Program, ROWS, THREADS, arguments, check, check_stored,
    family, vector,
};

/// Batch, pixels, channels, classes.
const CASES: [[usize; 4]; 5] = [
    [1, 1, 1, 2],
    [3, 6, 70, 5],
    [2, 49, 24, 130],
    [70, 1, 12, 10],
    [5, 35, 65, 64],
];

fn program(gpu: &Gpu, precision: Precision, [_, pixels, channels, classes]: [usize; 4]) -> Program {
    let constants = [
        ("CHANNELS", channels),
        ("PIXELS", pixels),
        ("CLASSES", classes),
        ("VECTOR", vector(precision, &[channels])),
        ("DEPTH_BYTES", 128),
    ];
    gpu.program(&family(&["stage/head.cu"]), precision, &constants)
}

fn each(test: impl Fn(Gpu, [usize; 4], Precision, Numbers)) {
    for precision in Precision::ALL {
        for case in CASES {
            test(Gpu::new(1), case, precision, Numbers::new(case[0] as u64));
        }
    }
}

#[test]
fn average_of_what_relu_returns() {
    each(|gpu, case, precision, mut numbers| {
        let [batch, pixels, channels, _] = case;
        let norm = Norm::random(channels, 2);
        let x = precision.round_all(&numbers.take(batch * pixels * channels));
        let features = gpu.no_floats(batch * channels);
        program(&gpu, precision, case).each(
            "head_pool",
            batch * channels,
            arguments![
                &gpu.maps(precision, &x),
                &gpu.floats(&norm.scale),
                &gpu.floats(&norm.shift),
                &features,
                batch
            ],
        );
        let expected: Vec<f64> = (0..batch * channels)
            .map(|i| {
                let (b, c) = (i / channels, i % channels);
                let value = |p: usize| f64::from(norm.after(c, x[(b * pixels + p) * channels + c]));
                (0..pixels).map(value).sum::<f64>() / pixels as f64
            })
            .collect();
        check(
            &format!("{case:?} {precision:?}"),
            &features.read_floats(),
            &expected,
            1e-5,
        );
    });
}

#[test]
fn maps_of_classes_are_products_with_the_classifiers_rows() {
    each(|gpu, case, precision, mut numbers| {
        let [batch, pixels, channels, classes] = case;
        let norm = Norm::random(channels, 2);
        let x = precision.round_all(&numbers.take(batch * pixels * channels));
        let weight = numbers.take(classes * channels);
        for wanted in [1, 3] {
            let chosen = (0..batch * wanted).map(|i| (i * 7 % classes) as u32);
            let chosen: Vec<_> = chosen.collect();
            let count = batch * wanted * pixels;
            let maps = gpu.no_floats(count);
            program(&gpu, precision, case).tiled(
                "class_maps",
                [count.div_ceil(THREADS / 32), 1, 1],
                arguments![
                    &gpu.maps(precision, &x),
                    &gpu.floats(&norm.scale),
                    &gpu.floats(&norm.shift),
                    &gpu.floats(&weight),
                    &gpu.words(&chosen),
                    &maps,
                    wanted,
                    batch
                ],
            );
            let value = |i: usize| -> f64 {
                let (of, p) = (i / pixels, i % pixels);
                let from = &x[(of / wanted * pixels + p) * channels..][..channels];
                let row = &weight[chosen[of] as usize * channels..][..channels];
                let products = from.iter().zip(row).enumerate();
                let product = |(c, (&x, &w)): (usize, (&f32, &f32))| {
                    f64::from(norm.after(c, x)) * f64::from(w)
                };
                products.map(product).sum()
            };
            check(
                &format!("{case:?} {precision:?}, {wanted} classes"),
                &maps.read_floats(),
                &(0..count).map(value).collect::<Vec<_>>(),
                1e-5,
            );
        }
    });
}

#[test]
fn classifier_and_its_gradients() {
    each(|gpu, case, precision, mut numbers| {
        let [batch, _, channels, classes] = case;
        let program = program(&gpu, precision, case);
        let [features, weight] = [batch, classes].map(|rows| numbers.take(rows * channels));
        let (bias, dlogits) = (numbers.take(classes), numbers.take(batch * classes));
        let before = numbers.take(classes * (channels + 1));
        let logits = gpu.no_floats(batch * classes);
        let dfeatures = gpu.no_floats(batch * channels);
        let dweight = gpu.floats(&before[..classes * channels]);
        let dbias = gpu.floats(&before[classes * channels..]);
        program.tiled(
            "classify",
            [batch.div_ceil(ROWS), classes.div_ceil(COLUMNS), 1],
            arguments![
                &gpu.floats(&features),
                &gpu.floats(&weight),
                &gpu.floats(&bias),
                &logits,
                batch
            ],
        );
        program.tiled(
            "classify_weight",
            [channels.div_ceil(COLUMNS), classes.div_ceil(ROWS), 1],
            arguments![
                &gpu.floats(&dlogits),
                &gpu.floats(&features),
                &dweight,
                &dbias,
                batch
            ],
        );
        program.tiled(
            "classify_features",
            [batch.div_ceil(ROWS), channels.div_ceil(COLUMNS), 1],
            arguments![
                &gpu.floats(&dlogits),
                &gpu.floats(&weight),
                &dfeatures,
                batch
            ],
        );
        let mut of = [
            bias.iter()
                .map(|&v| f64::from(v))
                .cycle()
                .take(batch * classes)
                .collect::<Vec<_>>(),
            before.iter().map(|&v| f64::from(v)).collect(),
            vec![0.0; batch * channels],
        ];
        for b in 0..batch {
            for k in 0..classes {
                let d = dlogits[b * classes + k];
                of[1][classes * channels + k] += f64::from(d);
                let d = f64::from(precision.round(d));
                for c in 0..channels {
                    let w = f64::from(precision.round(weight[k * channels + c]));
                    let x = f64::from(precision.round(features[b * channels + c]));
                    of[0][b * classes + k] += w * x;
                    of[1][k * channels + c] += d * x;
                    of[2][b * channels + c] += d * w;
                }
            }
        }
        let what = format!("{case:?} {precision:?}");
        check(
            &format!("logits, {what}"),
            &logits.read_floats(),
            &of[0],
            1e-5,
        );
        let (of_weight, of_bias) = of[1].split_at(classes * channels);
        check(
            &format!("weight, {what}"),
            &dweight.read_floats(),
            of_weight,
            1e-5,
        );
        check(
            &format!("bias, {what}"),
            &dbias.read_floats(),
            of_bias,
            1e-5,
        );
        check(
            &format!("features, {what}"),
            &dfeatures.read_floats(),
            &of[2],
            1e-5,
        );
    });
}

#[test]
fn gradient_of_the_last_block() {
    each(|gpu, case, precision, mut numbers| {
        let [batch, area, channels, _] = case;
        let pixels = batch * area;
        let norm = Norm::random(channels, 2);
        let x = precision.round_all(&numbers.take(pixels * channels));
        let d = numbers.take(batch * channels);
        let g = gpu.no_maps(precision, pixels * channels);
        let tiles = pixels.div_ceil(ROWS);
        let partial = gpu.no_floats(tiles * channels * 2);
        program(&gpu, precision, case).tiled(
            "head_pull",
            [tiles, channels.div_ceil(COLUMNS), 1],
            arguments![
                &gpu.floats(&d),
                &gpu.maps(precision, &x),
                &gpu.floats(&norm.scale),
                &gpu.floats(&norm.shift),
                &gpu.floats(&norm.mean),
                &gpu.floats(&norm.gamma),
                &g,
                &partial,
                batch
            ],
        );
        let (mut expected, mut sums) = (Vec::new(), vec![0.0; tiles * channels * 2]);
        for p in 0..pixels {
            for c in 0..channels {
                let value = x[p * channels + c];
                let open = norm.before(c, value) > 0.0;
                let masked = if open {
                    f64::from(d[p / area * channels + c]) / area as f64
                } else {
                    0.0
                };
                expected.push(f64::from(norm.gamma[c]) * masked);
                let of_tile = &mut sums[(p / ROWS * channels + c) * 2..][..2];
                of_tile[0] += masked * f64::from(value - norm.mean[c]);
                of_tile[1] += masked;
            }
        }
        let what = format!("{case:?} {precision:?}");
        check_stored(&what, precision, &g.read_maps(precision), &expected);
        check(
            &format!("sums, {what}"),
            &partial.read_floats(),
            &sums,
            1e-5,
        );
    });
}
