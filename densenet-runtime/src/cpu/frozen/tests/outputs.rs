//! The outputs of a frozen network beside logits.

use super::*;
use crate::executor::{Inference, MapsOf, Outputs};

fn with(executor: &CpuExecutor, options: FrozenOptions, outputs: Outputs) -> Frozen {
    frozen_with(executor, FrozenOptions { outputs, ..options })
}

fn options(threads: usize, level: Level, precision: Precision) -> FrozenOptions {
    FrozenOptions {
        threads,
        level,
        precision,
        ..FrozenOptions::for_batch(BATCH)
    }
}

/// All options that are worth a try.
fn kinds() -> Vec<FrozenOptions> {
    let f32s = levels().flat_map(|level| [1, 3].map(|n| options(n, level, Precision::F32)));
    let halves = levels().map(|level| options(2, level, Precision::Bf16));
    f32s.chain(halves).collect()
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

#[test]
fn logits_and_features_are_the_same_bits_whatever_else_is_wanted() {
    for (name, plan) in networks() {
        let executor = trained(&plan, Level::detect());
        let pixels = images(&plan, BATCH, 9);
        for options in kinds() {
            let what = format!("{name}, {options:?}");
            let mut plain = frozen_with(&executor, options);
            let logits = plain.infer(Pixels::Nchw(&pixels), BATCH).unwrap().to_vec();
            let said = plain.infer_with(Pixels::Nchw(&pixels), BATCH, MapsOf::Nothing);
            let features = said.unwrap().features.to_vec();
            assert_eq!(features.len(), BATCH * plan.features(), "{what}");

            let mut all = with(&executor, options, Outputs::all(3));
            let said = all.infer_with(Pixels::Nchw(&pixels), BATCH, MapsOf::Top(3));
            let said = said.unwrap();
            assert_eq!(said.logits, logits, "{what}");
            assert_eq!(said.features, features, "{what}");
            let again = all.infer(Pixels::Nchw(&pixels), BATCH).unwrap();
            assert_eq!(again, logits, "{what}");
        }
    }
}

#[test]
fn the_mean_of_a_class_map_and_the_bias_are_the_logit() {
    for (name, plan) in networks() {
        let executor = trained(&plan, Level::detect());
        let mut parameters = vec![0.0; plan.parameter_count()];
        executor.read(Arena::Parameters, &mut parameters).unwrap();
        let bias = &parameters[plan.parameter_count() - plan.classes()..];
        let pixels = images(&plan, BATCH, 9);
        for options in kinds() {
            let mut frozen = with(&executor, options, Outputs::all(plan.classes()));
            let of = MapsOf::Top(plan.classes());
            let said = frozen.infer_with(Pixels::Nchw(&pixels), BATCH, of).unwrap();
            assert_eq!(said.wanted(), plan.classes());
            let (mut exact, mut logits) = (Vec::new(), Vec::new());
            for (image, row) in said.logits.chunks_exact(plan.classes()).enumerate() {
                let maps: Vec<_> = said.maps_of(image).collect();
                assert!(maps.windows(2).all(|two| row[two[0].0] >= row[two[1].0]));
                exact.extend(maps.iter().map(|&(class, map)| mean(map) + bias[class]));
                logits.extend(maps.iter().map(|&(class, _)| row[class]));
            }
            let what = format!("{name}, {options:?}");
            assert_agree(&what, &exact, &logits);
            let pixels = plan.head().pixels();
            let means: Vec<_> = said.last_maps.chunks_exact(pixels).map(mean).collect();
            assert_agree(&what, said.features, &means);
        }
    }
}

/// One image's part of the last block's output.
fn last_block<'a>(said: &Inference<'a>, image: usize) -> &'a [f32] {
    let last = said.block(said.plan.blocks().len() - 1);
    let len = last.len() / said.images;
    &last[image * len..][..len]
}

#[test]
fn groups_of_images_and_fewer_images_give_the_maps_of_images_alone() {
    let half = Ratio::new(1, 2);
    let stem = (StemKind::Cifar, 130);
    let plan = plan(&[(1, 32), (1, 8)], half, Some(1), stem, [1, 70, 64]);
    let executor = trained(&plan, Level::detect());
    let options = options(2, Level::detect(), Precision::F32);
    let frozen = |batch| {
        with(
            &executor,
            FrozenOptions { batch, ..options },
            Outputs::all(2),
        )
    };
    let (mut many, mut one) = (frozen(7), frozen(1));
    let pixels = images(&plan, 7, 9);
    for count in [7, 5] {
        let of = MapsOf::Classes(&[5, 0]);
        let some = &pixels[..count * 70 * 64];
        let all = many.infer_with(Pixels::Nchw(some), count, of).unwrap();
        assert_eq!(all.mapped, [5, 0].repeat(count));
        for (index, image) in some.chunks_exact(70 * 64).enumerate() {
            let alone = one.infer_with(Pixels::Nchw(image), 1, of).unwrap();
            let maps = |said: &Inference<'_>, index| -> Vec<f32> {
                said.maps_of(index)
                    .flat_map(|(_, map)| map)
                    .copied()
                    .collect()
            };
            assert_agree("class maps", &maps(&all, index), &maps(&alone, 0));
            let len = alone.last_maps.len();
            let last = &all.last_maps[index * len..][..len];
            assert_agree("last maps", last, alone.last_maps);
            assert_agree("block 2", last_block(&all, index), alone.block(1));
            let len = alone.block(0).len();
            let first = &all.block(0)[index * len..][..len];
            assert_agree("block 1", first, alone.block(0));
        }
        assert!(all.maps_of(count).next().is_none());
        assert!(all.block(2).is_empty());
    }
}

#[test]
fn what_was_not_asked_for_is_empty() {
    let (_, plan) = networks().remove(3);
    let executor = trained(&plan, Level::detect());
    let pixels = images(&plan, 2, 9);
    let options = options(2, Level::detect(), Precision::F32);
    let mut classes_alone = with(
        &executor,
        options,
        Outputs {
            class_maps: 1,
            ..Outputs::default()
        },
    );
    let of = MapsOf::Classes(&[6]);
    let said = classes_alone
        .infer_with(Pixels::Nchw(&pixels), 2, of)
        .unwrap();
    assert_eq!(said.class_maps.len(), 2 * plan.head().pixels());
    assert!(said.last_maps.is_empty() && said.block_maps.is_empty());
    let said = classes_alone.infer_with(Pixels::Nchw(&pixels), 2, MapsOf::Nothing);
    assert_eq!(said.unwrap().maps_of(0).count(), 0);
}

#[test]
fn maps_that_cannot_be_given_are_refused() {
    let (_, plan) = networks().remove(0);
    let executor = trained(&plan, Level::detect());
    let pixels = images(&plan, 1, 9);
    let options = options(1, Level::detect(), Precision::F32);
    let mut frozen = with(&executor, options, Outputs::all(2));
    let mut refused = |of: MapsOf<'_>| {
        let said = frozen.infer_with(Pixels::Nchw(&pixels), 1, of);
        said.map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(
        refused(MapsOf::Classes(&[1, 7])),
        "a map of class 7 was requested, but the network has 7 classes (0 to 6)"
    );
    let few = "3 class maps per image were requested, but the network was frozen for 2; freeze it \
        with more (`outputs.class_maps`), or request each class once";
    assert_eq!(refused(MapsOf::Top(3)), few);
    assert_eq!(refused(MapsOf::Classes(&[1, 1, 1])), few);
    assert!(
        frozen
            .infer_with(Pixels::Nchw(&pixels), 1, MapsOf::Top(2))
            .is_ok()
    );
}
