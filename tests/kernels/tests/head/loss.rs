//! The losses: their values, counts and gradients.

use cuda_kernel_tests::{Gpu, Numbers, Precision, REDUCTION_THREADS, arguments, check};

use crate::{CASES, program};

/// The loss of each image, whether its label is the first, whether it is among the first five; and
/// the gradient of the logits. `targets` and `labels` are those of the images, and the mean is over
/// `divisor`.
fn cross_entropy(
    logits: &[f32],
    (targets, labels): (&[f32], &[u32]),
    weights: &[f32],
    smoothing: f64,
    [divisor, scale]: [f64; 2],
) -> (Vec<f64>, Vec<f64>) {
    let classes = weights.len();
    let (mut results, mut gradient) = (Vec::new(), Vec::new());
    let images = logits
        .chunks_exact(classes)
        .zip(targets.chunks_exact(classes));
    for ((z, targets), &label) in images.zip(labels) {
        let total = z.iter().map(|&z| f64::from(z).exp()).sum::<f64>();
        let target = |k: usize| {
            let own = smoothing / classes as f64 + (1.0 - smoothing) * f64::from(targets[k]);
            own * f64::from(weights[k])
        };
        let mass: f64 = (0..classes).map(target).sum();
        let loss = |(k, &z): (usize, &f32)| target(k) * (total.ln() - f64::from(z));
        // Ties count against the label.
        let rank = z
            .iter()
            .enumerate()
            .filter(|&(k, &other)| k != label as usize && other >= z[label as usize])
            .count();
        results.push(z.iter().enumerate().map(loss).sum::<f64>() / divisor);
        results.push(f64::from(u8::from(rank == 0)));
        results.push(f64::from(u8::from(rank < 5)));
        gradient.extend(
            z.iter()
                .enumerate()
                .map(|(k, &z)| scale / divisor * (mass * f64::from(z).exp() / total - target(k))),
        );
    }
    (results, gradient)
}

/// Halves, so that there are ties; the first stands above all.
fn halves(numbers: &mut Numbers, count: usize) -> Vec<f32> {
    let drawn = numbers.take(count);
    let mut logits: Vec<f32> = drawn.iter().map(|z| (z * 8.0).round() / 2.0).collect();
    logits[0] = 3.25;
    logits
}

/// A weight for each class, or 1 for each.
fn weights(classes: usize, weighted: bool) -> Vec<f32> {
    let weight = |class: usize| {
        if weighted {
            (class % 4) as f32 * 0.75 + 0.25
        } else {
            1.0
        }
    };
    (0..classes).map(weight).collect()
}

/// Compares results and, in training, the gradient; without a gradient, `before` stays.
fn check_loss(what: &str, found: (&[f64], &[f32]), expected: (&[f64], &[f64]), training: i32) {
    for (i, (found, expected)) in found.0.iter().zip(expected.0).enumerate() {
        assert!(
            (found - expected).abs() < 1e-9,
            "{what}, {i}: {found}, not {expected}"
        );
    }
    if training == 1 {
        check(&format!("gradient, {what}"), found.1, expected.1, 1e-6);
    } else {
        assert!(
            found.1.iter().all(|v| v.is_nan()),
            "{what}: nothing is written"
        );
    }
}

#[test]
fn loss_counts_and_gradient_towards_classes() {
    for [batch, _, _, classes] in CASES {
        for (smoothing, scale, weighted, training) in [
            (0.1, 0.5, true, 1),
            (0.0, 1.0, false, 1),
            (0.3, 1.0, true, 0),
        ] {
            let gpu = Gpu::new(2);
            let mut numbers = Numbers::new(classes as u64);
            let logits = halves(&mut numbers, batch * classes);
            let labels: Vec<u32> = (0..batch).map(|b| (b * 7 % classes) as u32).collect();
            let weights = weights(classes, weighted);
            let divisor: f32 = labels.iter().map(|&label| weights[label as usize]).sum();
            let gradient = gpu.no_floats(batch * classes);
            let results = gpu.nothing(24 * batch);
            program(&gpu, Precision::F32, [batch, 1, 1, classes]).launch(
                "cross_entropy",
                [batch, 1, 1],
                REDUCTION_THREADS,
                arguments![
                    &gpu.floats(&logits),
                    &gpu.words(&labels),
                    &gpu.no_floats(batch * classes),
                    &gpu.floats(&weights),
                    &gpu.floats(&[divisor]),
                    &gradient,
                    &results,
                    &gpu.scalars(0, [smoothing, scale], false, [0.0; 3], false),
                    0,
                    training
                ],
            );
            let smoothing = f64::from(training) * f64::from(smoothing);
            let mut targets = vec![0.0; batch * classes];
            for (row, &label) in targets.chunks_exact_mut(classes).zip(&labels) {
                row[label as usize] = 1.0;
            }
            let sizes = [divisor.into(), scale.into()];
            let (expected, slopes) =
                cross_entropy(&logits, (&targets, &labels), &weights, smoothing, sizes);
            check_loss(
                &format!("{batch} x {classes}"),
                (&results.read_doubles(), &gradient.read_floats()),
                (&expected, &slopes),
                training,
            );
        }
    }
}

#[test]
fn loss_counts_and_gradient_towards_probabilities() {
    for [batch, _, _, classes] in CASES {
        for (smoothing, weighted) in [(0.1, true), (0.0, false)] {
            let gpu = Gpu::new(3);
            let mut numbers = Numbers::new(classes as u64);
            let logits = halves(&mut numbers, batch * classes);
            let mut targets = Vec::new();
            let mut labels = Vec::new();
            for image in 0..batch {
                // Sixteenths, so that two classes may tie: the first of them counts.
                let mut row = vec![0.0f32; classes];
                for part in 0..16 {
                    row[(part * part + image) % classes] += 1.0 / 16.0;
                }
                let best = (0..classes)
                    .rev()
                    .max_by(|&a, &b| row[a].total_cmp(&row[b]));
                labels.push(best.unwrap() as u32);
                targets.extend(row);
            }
            let weights = weights(classes, weighted);
            // The gradient is written where the targets are.
            let both = gpu.floats(&targets);
            let results = gpu.nothing(24 * batch);
            program(&gpu, Precision::F32, [batch, 1, 1, classes]).launch(
                "cross_entropy",
                [batch, 1, 1],
                REDUCTION_THREADS,
                arguments![
                    &gpu.floats(&logits),
                    &gpu.words(&[0]),
                    &both,
                    &gpu.floats(&weights),
                    &gpu.floats(&[batch as f32]),
                    &both,
                    &results,
                    &gpu.scalars(0, [smoothing, 0.5], false, [0.0; 3], false),
                    1,
                    1
                ],
            );
            let sizes = [batch as f64, 0.5];
            let (expected, slopes) = cross_entropy(
                &logits,
                (&targets, &labels),
                &weights,
                smoothing.into(),
                sizes,
            );
            check_loss(
                &format!("{batch} x {classes}"),
                (&results.read_doubles(), &both.read_floats()),
                (&expected, &slopes),
                1,
            );
        }
    }
}

/// The loss of each image, the numbers of correct predictions and of known targets, and the
/// gradient of the logits.
fn binary_cross_entropy(
    logits: &[f32],
    targets: &[f32],
    weights: &[f32],
    [divisor, scale]: [f64; 2],
) -> (Vec<f64>, Vec<f64>) {
    let classes = weights.len();
    let (mut results, mut gradient) = (Vec::new(), Vec::new());
    for (z, targets) in logits
        .chunks_exact(classes)
        .zip(targets.chunks_exact(classes))
    {
        let [mut loss, mut right, mut known] = [0.0; 3];
        for (k, (&z, &target)) in z.iter().zip(targets).enumerate() {
            if target.is_nan() {
                gradient.push(0.0);
                continue;
            }
            let (p, y, w) = (
                1.0 / (1.0 + (-f64::from(z)).exp()),
                f64::from(target),
                f64::from(weights[k]),
            );
            loss -= (w * y * p.ln() + (1.0 - y) * (1.0 - p).ln()) / divisor;
            known += 1.0;
            right += f64::from(u8::from((p >= 0.5) == (y >= 0.5)));
            gradient.push(scale / divisor * ((1.0 - y) * p - w * y * (1.0 - p)));
        }
        results.extend([loss, right, known]);
    }
    (results, gradient)
}

#[test]
fn loss_counts_and_gradient_towards_independent_targets() {
    for [batch, _, _, classes] in CASES {
        for (weighted, training) in [(true, 1), (false, 1), (true, 0)] {
            let gpu = Gpu::new(4);
            let mut numbers = Numbers::new(classes as u64);
            let logits = halves(&mut numbers, batch * classes);
            let target = |i: usize| [1.0, 0.0, f32::NAN, 0.75, 0.0][(i * i + i / 3) % 5];
            let targets: Vec<f32> = (0..batch * classes).map(target).collect();
            let known = targets.iter().filter(|target| !target.is_nan()).count();
            let weights = weights(classes, weighted);
            // In training the gradient is written where the targets are.
            let from = gpu.floats(&targets);
            let elsewhere = gpu.no_floats(batch * classes);
            let gradient = if training == 1 { &from } else { &elsewhere };
            let results = gpu.nothing(24 * batch);
            program(&gpu, Precision::F32, [batch, 1, 1, classes]).launch(
                "binary_cross_entropy",
                [batch, 1, 1],
                REDUCTION_THREADS,
                arguments![
                    &gpu.floats(&logits),
                    &from,
                    &gpu.floats(&weights),
                    &gpu.floats(&[known as f32]),
                    gradient,
                    &results,
                    &gpu.scalars(0, [0.3, 0.5], false, [0.0; 3], false),
                    training
                ],
            );
            let (expected, slopes) =
                binary_cross_entropy(&logits, &targets, &weights, [known as f64, 0.5]);
            check_loss(
                &format!("{batch} x {classes}"),
                (&results.read_doubles(), &gradient.read_floats()),
                (&expected, &slopes),
                training,
            );
        }
    }
}

#[test]
fn where_nothing_is_known_there_is_no_loss_and_no_gradient() {
    let gpu = Gpu::new(5);
    let (results, both) = (gpu.nothing(48), gpu.no_floats(6));
    program(&gpu, Precision::F32, [2, 1, 1, 3]).launch(
        "binary_cross_entropy",
        [2, 1, 1],
        REDUCTION_THREADS,
        arguments![
            &gpu.floats(&[1.0, -2.0, 0.0, 90.0, -90.0, 3.0]),
            &both,
            &gpu.floats(&[1.0; 3]),
            &gpu.floats(&[0.0]),
            &both,
            &results,
            &gpu.scalars(0, [0.0, 1.0], false, [0.0; 3], false),
            1
        ],
    );
    assert_eq!(results.read_doubles(), [0.0; 6]);
    assert_eq!(both.read_floats(), [0.0; 6]);
}

#[test]
fn logits_that_are_far_from_0_have_a_finite_loss() {
    let gpu = Gpu::new(6);
    let (results, both) = (gpu.nothing(24), gpu.floats(&[0.0, 1.0, 0.0, 1.0]));
    program(&gpu, Precision::F32, [1, 1, 1, 4]).launch(
        "binary_cross_entropy",
        [1, 1, 1],
        REDUCTION_THREADS,
        arguments![
            &gpu.floats(&[1e4, -1e4, -1e4, 1e4]),
            &both,
            &gpu.floats(&[1.0; 4]),
            &gpu.floats(&[4.0]),
            &both,
            &results,
            &gpu.scalars(0, [0.0, 1.0], false, [0.0; 3], false),
            1
        ],
    );
    assert_eq!(results.read_doubles(), [5e3, 2.0, 4.0]);
    assert_eq!(both.read_floats(), [0.25, -0.25, 0.0, 0.0]);
}

#[test]
fn what_is_not_a_number_is_never_right() {
    let gpu = Gpu::new(3);
    let results = gpu.nothing(72);
    // The class's own logit is NaN, and another's, with fewer classes than five.
    let logits = [
        [f32::NAN, f32::NAN, f32::NAN],
        [1.0, f32::NAN, 0.0],
        [2.0, f32::NAN, 0.0],
    ];
    program(&gpu, Precision::F32, [3, 1, 1, 3]).launch(
        "cross_entropy",
        [3, 1, 1],
        REDUCTION_THREADS,
        arguments![
            &gpu.floats(logits.as_flattened()),
            &gpu.words(&[1, 1, 0]),
            &gpu.no_floats(9),
            &gpu.floats(&[1.0; 3]),
            &gpu.floats(&[3.0]),
            &gpu.no_floats(9),
            &results,
            &gpu.scalars(0, [0.0, 1.0], false, [0.0; 3], false),
            0,
            0
        ],
    );
    let found = results.read_doubles();
    for image in found.chunks_exact(3) {
        assert!(image[0].is_nan(), "{found:?}");
        assert_eq!(image[1..], [0.0, 0.0], "{found:?}");
    }
}

#[test]
fn a_decision_that_is_not_a_number_is_never_right() {
    let gpu = Gpu::new(3);
    let results = gpu.nothing(48);
    // Beside NaN's own target, which is unknown in the second image: its loss is NaN all the same.
    program(&gpu, Precision::F32, [2, 1, 1, 3]).launch(
        "binary_cross_entropy",
        [2, 1, 1],
        REDUCTION_THREADS,
        arguments![
            &gpu.floats(&[f32::NAN, f32::NAN, 1.0, f32::NAN, -1.0, 1.0]),
            &gpu.floats(&[0.0, 1.0, 1.0, f32::NAN, 0.0, 1.0]),
            &gpu.floats(&[1.0; 3]),
            &gpu.floats(&[5.0]),
            &gpu.no_floats(6),
            &results,
            &gpu.scalars(0, [0.0, 1.0], false, [0.0; 3], false),
            0
        ],
    );
    let found = results.read_doubles();
    assert!(found[0].is_nan() && found[3].is_nan(), "{found:?}");
    assert_eq!(
        [found[1], found[2], found[4], found[5]],
        [1.0, 3.0, 2.0, 2.0]
    );
}
