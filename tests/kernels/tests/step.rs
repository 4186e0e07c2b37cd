//! The start and the end of a step: images copied in, maps copied out, gradients cleared and
//! gathered, gradient descent.

use cuda_kernel_tests::{
    Buffer, Gpu, Norm, Numbers, Precision, Program, REDUCTION_THREADS, arguments, check,
    check_stored,
};

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
fn maps_go_out_channels_first() {
    for precision in Precision::ALL {
        for [batch, area, channels] in [[1, 1, 1], [3, 35, 70], [2, 130, 4], [2, 64, 33]] {
            let gpu = Gpu::new(1);
            let count = batch * area * channels;
            let x = precision.round_all(&Numbers::new(1).take(count));
            let norm = Norm::random(channels, 2);
            for normalised in [false, true] {
                let into = gpu.no_floats(count);
                program(&gpu, precision).tiled(
                    "maps_to_nchw",
                    [batch * area.div_ceil(32), channels.div_ceil(32), 1],
                    arguments![
                        &gpu.maps(precision, &x),
                        &gpu.floats(&norm.scale),
                        &gpu.floats(&norm.shift),
                        &into,
                        channels,
                        area,
                        usize::from(normalised)
                    ],
                );
                let value = |i: usize| {
                    let (b, c, p) = (i / (area * channels), i / area % channels, i % area);
                    let value = x[(b * area + p) * channels + c];
                    let value = if normalised {
                        norm.after(c, value)
                    } else {
                        value
                    };
                    f64::from(value)
                };
                let expected: Vec<f64> = (0..count).map(value).collect();
                let found = into.read_floats();
                check(
                    "maps",
                    &found,
                    &expected,
                    if normalised { 1e-6 } else { 0.0 },
                );
            }
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
fn floats_are_normalised() {
    for precision in Precision::ALL {
        for [batch, area, channels] in IMAGES {
            let gpu = Gpu::new(4);
            let count = batch * area * channels;
            let mut numbers = Numbers::new(4);
            let values = numbers.around(count, 0.5, 0.3);
            let mut norm = numbers.around(channels, 0.5, 0.2);
            norm.extend(numbers.around(channels, 0.3, 0.2));
            let into = gpu.no_maps(precision, count);
            program(&gpu, precision).each(
                "images_from_floats",
                count,
                arguments![
                    &gpu.floats(&values),
                    &gpu.floats(&norm),
                    &into,
                    channels,
                    batch * area
                ],
            );
            let value = |(i, &value): (usize, &f32)| {
                let c = i % channels;
                (f64::from(value) - f64::from(norm[c])) / f64::from(norm[channels + c])
            };
            let expected: Vec<f64> = values.iter().enumerate().map(value).collect();
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
        let mut scalars = vec![0; 20];
        scalars[4] = u32::from(accumulate);
        scalars[17] = f32::from(u8::from(broken)).to_bits();
        let scalars = gpu.words(&scalars);
        // Each thread has several values.
        program(&gpu, Precision::F32).launch(
            "start",
            [1, 1, 1],
            32,
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

/// The words of `Scalars` by their places.
fn scalars(gpu: &Gpu, floats: &[(usize, f32)], nesterov: bool) -> Buffer {
    let mut words = vec![0; 20];
    for &(place, value) in floats {
        words[place] = value.to_bits();
    }
    words[8] = u32::from(nesterov);
    gpu.words(&words)
}

const RATE: usize = 5;
const MOMENTUM: usize = 6;
const DECAY: usize = 7;
/// Fresh shares of both moments, corrections of both, epsilon.
const ADAMW: [usize; 5] = [9, 10, 11, 12, 13];
const CLIP: usize = 14;
const NORM_EPSILON: usize = 15;
const FRESH: usize = 16;
const BROKEN: usize = 17;
const FACTOR: usize = 18;

/// Three groups: where they begin, and their shares of learning rate and weight decay.
const GROUPS: [(u32, f32, f32); 3] = [(0, 1.0, 1.0), (100, 0.5, 0.0), (777, 2.0, 3.0)];

fn groups(gpu: &Gpu, count: usize) -> Buffer {
    let words = GROUPS[..count].iter();
    let words = words.flat_map(|&(first, rate, decay)| [first, rate.to_bits(), decay.to_bits()]);
    gpu.words(&words.collect::<Vec<_>>())
}

/// The shares of a parameter.
fn shares(groups: usize, i: usize) -> [f64; 2] {
    let of = GROUPS[..groups].iter().rev();
    let (_, rate, decay) = of.clone().find(|own| own.0 as usize <= i).unwrap();
    [f64::from(*rate), f64::from(*decay)]
}

#[test]
fn parameters_descend() {
    for (nesterov, clip, group_count) in [(false, 0.0, 1), (true, 2.0, 3), (true, 0.0, 2)] {
        for count in [1, 1000] {
            let gpu = Gpu::new(5);
            let mut numbers = Numbers::new(5);
            let [parameters, momentum, gradient] = [(); 3].map(|()| numbers.take(count));
            let (rate, keep, decay, factor) = (0.1, 0.9, 0.01, 0.25);
            let [at, moved] = [&parameters, &momentum].map(|values| gpu.floats(values));
            let values = [
                (RATE, rate),
                (MOMENTUM, keep),
                (DECAY, decay),
                (CLIP, clip),
                (FACTOR, factor),
            ];
            program(&gpu, Precision::F32).each(
                "descend",
                count,
                arguments![
                    &at,
                    &moved,
                    &gpu.floats(&gradient),
                    &scalars(&gpu, &values, nesterov),
                    &groups(&gpu, group_count),
                    group_count,
                    count
                ],
            );
            let (mut expected, mut moving) = (Vec::new(), Vec::new());
            for i in 0..count {
                let [p, m, g] = [parameters[i], momentum[i], gradient[i]].map(f64::from);
                let [rate, keep, decay] = [rate, keep, decay].map(f64::from);
                let [of_rate, of_decay] = shares(group_count, i);
                let factor = if clip > 0.0 { f64::from(factor) } else { 1.0 };
                let slope = factor * g + of_decay * decay * p;
                let m = keep * m + slope;
                moving.push(m);
                let step = if nesterov { slope + keep * m } else { m };
                expected.push(p - of_rate * rate * step);
            }
            check("parameters", &at.read_floats(), &expected, 1e-6);
            check("momentum", &moved.read_floats(), &moving, 1e-6);
        }
    }
}

#[test]
fn parameters_descend_by_adamw() {
    for (clip, group_count) in [(0.0, 1), (2.0, 3)] {
        let count = 1000;
        let gpu = Gpu::new(6);
        let mut numbers = Numbers::new(6);
        let [parameters, first, mut second, gradient] = [(); 4].map(|()| numbers.take(count));
        second.iter_mut().for_each(|value| *value = value.abs());
        let (rate, decay, factor) = (0.1, 0.3, 0.25);
        let adamw = [0.1, 0.02, 1.5, 2.5, 1e-3];
        let [at, m, v] = [&parameters, &first, &second].map(|values| gpu.floats(values));
        let mut values = vec![(RATE, rate), (DECAY, decay), (CLIP, clip), (FACTOR, factor)];
        values.extend(ADAMW.into_iter().zip(adamw));
        program(&gpu, Precision::F32).each(
            "descend_adamw",
            count,
            arguments![
                &at,
                &m,
                &v,
                &gpu.floats(&gradient),
                &scalars(&gpu, &values, false),
                &groups(&gpu, group_count),
                group_count,
                count
            ],
        );
        let mut expected = [Vec::new(), Vec::new(), Vec::new()];
        for i in 0..count {
            let [p, m, v, g] = [parameters[i], first[i], second[i], gradient[i]].map(f64::from);
            let [fresh1, fresh2, correction1, correction2, epsilon] = adamw.map(f64::from);
            let [of_rate, of_decay] = shares(group_count, i);
            let rate = of_rate * f64::from(rate);
            let g = if clip > 0.0 { f64::from(factor) * g } else { g };
            let m = m + fresh1 * (g - m);
            let v = v + fresh2 * (g * g - v);
            let step = correction1 * m / (correction2 * v.sqrt() + epsilon);
            expected[0].push(p * (1.0 - rate * of_decay * f64::from(decay)) - rate * step);
            expected[1].push(m);
            expected[2].push(v);
        }
        check("parameters", &at.read_floats(), &expected[0], 1e-6);
        check("first moments", &m.read_floats(), &expected[1], 1e-6);
        check("second moments", &v.read_floats(), &expected[2], 1e-6);
    }
}

#[test]
fn a_loss_that_was_not_finite_moves_nothing() {
    let gpu = Gpu::new(7);
    let mut numbers = Numbers::new(7);
    let values = [(); 4].map(|()| numbers.take(300));
    let at = [0, 1, 2, 3].map(|which: usize| gpu.floats(&values[which]));
    let broken = scalars(&gpu, &[(RATE, 0.1), (FRESH, 0.5), (BROKEN, 1.0)], false);
    let program = program(&gpu, Precision::F32);
    let groups = groups(&gpu, 1);
    program.each(
        "descend",
        300,
        arguments![&at[0], &at[1], &at[3], &broken, &groups, 1, 300],
    );
    program.each(
        "descend_adamw",
        300,
        arguments![&at[0], &at[1], &at[2], &at[3], &broken, &groups, 1, 300],
    );
    program.each("average", 300, arguments![&at[0], &at[3], &broken, 300]);
    for (at, values) in at.iter().zip(&values) {
        assert_eq!(&at.read_floats(), values);
    }
}

#[test]
fn gradients_are_clipped_by_the_norm_of_all() {
    // Fewer than the blocks' threads, and more.
    for (count, most) in [(77, 1e6), (77, 0.5), (100_000, 3.0)] {
        let gpu = Gpu::new(8);
        let gradient = Numbers::new(8).take(count);
        let blocks = 256;
        let [at, sums] = [gpu.floats(&gradient), gpu.nothing(8 * blocks)];
        let scalars = scalars(&gpu, &[(CLIP, most), (NORM_EPSILON, 1e-6)], false);
        let program = program(&gpu, Precision::F32);
        let grid = [blocks, 1, 1];
        let arguments = arguments![&at, &sums, count];
        program.launch("squares", grid, REDUCTION_THREADS, arguments);
        let arguments = arguments![&sums, &scalars, blocks];
        program.launch("clip", [1, 1, 1], REDUCTION_THREADS, arguments);
        let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>();
        let expected = (f64::from(most) / (norm.sqrt() + 1e-6)).min(1.0);
        let found = scalars.read_floats()[FACTOR];
        check("factor", &[found], &[expected], 1e-6);
        assert_eq!(most > 1e3, found == 1.0);
    }
}

#[test]
fn averages_move_towards_what_they_average() {
    let gpu = Gpu::new(9);
    let mut numbers = Numbers::new(9);
    let [average, values] = [(); 2].map(|()| numbers.take(500));
    let at = gpu.floats(&average);
    let share = scalars(&gpu, &[(FRESH, 0.3)], false);
    program(&gpu, Precision::F32).each(
        "average",
        499,
        arguments![&at, &gpu.floats(&values), &share, 499],
    );
    let moved = |i: usize| {
        let [a, v] = [average[i], values[i]].map(f64::from);
        if i < 499 { a + 0.3 * (v - a) } else { a }
    };
    let expected: Vec<f64> = (0..500).map(moved).collect();
    check("averages", &at.read_floats(), &expected, 1e-6);
}

#[test]
fn weights_become_operands() {
    for precision in Precision::ALL {
        let gpu = Gpu::new(6);
        // Parameter, place, channels, taps, maps, first block: with others before, between and after.
        // A block packs 45 or 512 values; the last of a weight packs fewer.
        let weights = [[3, 8, 5, 9, 13, 0], [600, 600, 12, 1, 57, 2]];
        let parameters = Numbers::new(3).take(1290);
        let mut expected = vec![f64::NAN; 1300];
        for [from, place, channels, taps, maps, _] in weights {
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
        let constants = [
            ("VALUES", 1269),
            ("WORDS", 6),
            ("WEIGHTS", weights.len()),
            ("PACKED", 512),
        ];
        gpu.program(&files, precision, &constants).tiled(
            "pack_weights",
            [4, 1, 1],
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
