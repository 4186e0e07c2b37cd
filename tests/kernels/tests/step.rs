//! What surrounds a step: the images' way in, gradients started and gathered, gradient descent.

use cuda_kernel_tests::{Gpu, Numbers, Precision, Program, arguments, check, check_stored};

fn program(gpu: &Gpu, precision: Precision) -> Program {
    gpu.program(&["program/common.cuh", "kernel/step.cu"], precision, &[])
}

/// Batch, height x width, channels.
const IMAGES: [[usize; 3]; 4] = [[1, 1, 1], [3, 35, 3], [2, 130, 4], [5, 64, 1]];

#[test]
fn images_come_in_as_channels_of_pixels() {
    for precision in Precision::ALL {
        for [batch, area, channels] in IMAGES {
            let gpu = Gpu::new(1);
            let count = batch * area * channels;
            let values = Numbers::new(1).take(count);
            let into = gpu.no_maps(precision, count);
            program(&gpu, precision).each(
                "images_from_nchw",
                count,
                arguments![&gpu.floats(&values), &into, channels, area, batch],
            );
            let expected: Vec<f64> = (0..count)
                .map(|i| {
                    let (b, p, c) = (i / (area * channels), i / channels % area, i % channels);
                    precision
                        .round(values[(b * channels + c) * area + p])
                        .into()
                })
                .collect();
            check("images", &into.read_maps(precision), &expected, 0.0);
        }
    }
}

#[test]
fn bytes_are_normalised() {
    for precision in Precision::ALL {
        for [batch, area, channels] in IMAGES {
            let gpu = Gpu::new(2);
            let count = batch * area * channels;
            let bytes: Vec<u8> = (0..count).map(|i| (i * 89 % 256) as u8).collect();
            let mut numbers = Numbers::new(2);
            let mut norm = numbers.around(channels, 0.5, 0.2);
            norm.extend(numbers.around(channels, 0.3, 0.2));
            let into = gpu.no_maps(precision, count);
            program(&gpu, precision).each(
                "images_from_bytes",
                count,
                arguments![
                    &gpu.bytes(&bytes),
                    &gpu.floats(&norm),
                    &into,
                    channels,
                    batch * area
                ],
            );
            let value = |(i, &byte): (usize, &u8)| {
                let c = i % channels;
                (f64::from(byte) / 255.0 - f64::from(norm[c])) / f64::from(norm[channels + c])
            };
            let expected: Vec<f64> = bytes.iter().enumerate().map(value).collect();
            check_stored("pixels", precision, &into.read_maps(precision), &expected);
        }
    }
}

#[test]
fn a_step_starts_with_zeros_and_keeps_the_statistics_unless_it_accumulates() {
    for (accumulate, broken) in [(false, false), (true, false), (false, true)] {
        let gpu = Gpu::new(3);
        let mut numbers = Numbers::new(3);
        let [gradients, running, kept] = [(); 3].map(|()| numbers.take(300));
        let [gradient, now, before] =
            [&gradients, &running, &kept].map(|values| gpu.floats(values));
        let mut scalars = vec![0; 10];
        scalars[4] = u32::from(accumulate);
        scalars[9] = f32::from(u8::from(broken)).to_bits();
        let scalars = gpu.words(&scalars);
        program(&gpu, Precision::F32).each(
            "start",
            299,
            arguments![&gradient, &now, &before, &scalars, 299, 200],
        );
        let started = |old: &[f32], new: &[f32], is_new: bool, count: usize| {
            let first = if is_new { new } else { old };
            [&first[..count], &old[count..]].concat()
        };
        let expected = started(&gradients, &[0.0; 300], !accumulate, 299);
        assert_eq!(gradient.read_floats(), expected, "accumulate {accumulate}");
        let expected = started(&kept, &running, !accumulate && !broken, 200);
        assert_eq!(before.read_floats(), expected, "broken {broken}");
        assert_eq!(now.read_floats(), running);
    }
}

#[test]
fn parameters_descend() {
    for nesterov in [false, true] {
        for count in [1, 1000] {
            let gpu = Gpu::new(5);
            let mut numbers = Numbers::new(5);
            let [parameters, momentum, gradient] = [(); 3].map(|()| numbers.take(count));
            let (rate, keep, decay) = (0.1, 0.9, 0.01);
            let [at, moved] = [&parameters, &momentum].map(|values| gpu.floats(values));
            program(&gpu, Precision::F32).each(
                "descend",
                count,
                arguments![
                    &at,
                    &moved,
                    &gpu.floats(&gradient),
                    &gpu.scalars(0, [0.0, 1.0], false, [rate, keep, decay], nesterov),
                    count
                ],
            );
            let (mut expected, mut moving) = (Vec::new(), Vec::new());
            for i in 0..count {
                let [p, m, g] = [parameters[i], momentum[i], gradient[i]].map(f64::from);
                let [rate, keep, decay] = [rate, keep, decay].map(f64::from);
                let slope = g + decay * p;
                let m = keep * m + slope;
                moving.push(m);
                expected.push(p - rate * if nesterov { slope + keep * m } else { m });
            }
            check("parameters", &at.read_floats(), &expected, 1e-6);
            check("momentum", &moved.read_floats(), &moving, 1e-6);
        }
    }
}

#[test]
fn weights_become_operands() {
    for precision in Precision::ALL {
        let gpu = Gpu::new(6);
        // Parameter, place, channels, taps, maps: with others before, between and after.
        let weights = [[3, 8, 5, 9, 2], [100, 104, 12, 1, 7]];
        let parameters = Numbers::new(3).take(190);
        let mut expected = vec![f64::NAN; 200];
        for [from, place, channels, taps, maps] in weights {
            for n in 0..maps {
                for c in 0..channels {
                    for tap in 0..taps {
                        let value = parameters[from + (n * channels + c) * taps + tap];
                        expected[place + (tap * maps + n) * channels + c] =
                            precision.round(value).into();
                    }
                }
            }
        }
        let table: Vec<u32> = weights.iter().flatten().map(|&word| word as u32).collect();
        let packed = gpu.no_maps(precision, expected.len());
        let files = ["program/common.cuh", "kernel/weights.cu"];
        let constants = [("VALUES", 174), ("WORDS", 5)];
        gpu.program(&files, precision, &constants).tiled(
            "pack_weights",
            [2, weights.len(), 1],
            arguments![&gpu.floats(&parameters), &gpu.words(&table), &packed],
        );
        check(
            &format!("{precision:?}"),
            &packed.read_maps(precision),
            &expected,
            0.0,
        );
    }
}
