//! Schedules against PyTorch's and the paper's.

use super::*;

fn at(epoch: u32, step: u64, epochs: u32) -> Progress {
    Progress {
        epoch,
        epochs,
        step,
        steps: 7,
        plateaus: 0,
    }
}

#[test]
fn cifar_falls_to_a_tenth_at_half_and_at_three_quarters() {
    let schedule = Schedule::halves(0.1);
    assert_eq!(schedule.learning_rate(at(0, 0, 300)), 0.1);
    assert_eq!(schedule.learning_rate(at(149, 6, 300)), 0.1);
    assert_eq!(schedule.learning_rate(at(150, 0, 300)), 0.1 / 10.0);
    assert_eq!(schedule.learning_rate(at(224, 6, 300)), 0.1 / 10.0);
    assert_eq!(schedule.learning_rate(at(225, 0, 300)), 0.1 / 100.0);
}

#[test]
fn svhn_falls_at_epochs_20_and_30_of_40() {
    let schedule = Schedule::halves(0.1);
    assert_eq!(schedule.learning_rate(at(19, 6, 40)), 0.1);
    assert_eq!(schedule.learning_rate(at(20, 0, 40)), 0.1 / 10.0);
    assert_eq!(schedule.learning_rate(at(30, 0, 40)), 0.1 / 100.0);
}

#[test]
fn imagenet_falls_at_epochs_30_and_60_however_long_the_run() {
    let schedule = Schedule::thirties(0.1);
    for epochs in [90, 100] {
        assert_eq!(schedule.learning_rate(at(29, 6, epochs)), 0.1);
        assert_eq!(schedule.learning_rate(at(30, 0, epochs)), 0.1 / 10.0);
        assert_eq!(schedule.learning_rate(at(59, 6, epochs)), 0.1 / 10.0);
        assert_eq!(schedule.learning_rate(at(60, 0, epochs)), 0.1 / 100.0);
    }
    assert!(!schedule.depends_on_length());
    assert!(Schedule::halves(0.1).depends_on_length());
}

#[test]
fn an_odd_run_falls_in_the_middle_of_an_epoch() {
    let schedule = Schedule::halves(1.0);
    // Half of 3 epochs of 7 steps is 10.5 steps.
    assert_eq!(schedule.learning_rate(at(1, 3, 3)), 1.0);
    assert_eq!(schedule.learning_rate(at(1, 4, 3)), 0.1);
}

#[test]
fn a_warm_up_rises_in_a_straight_line_to_the_full_rate() {
    let schedule = Schedule {
        warmup: 2.0,
        ..Schedule::constant(14.0)
    };
    let rates: Vec<f32> = (0..16)
        .map(|step| schedule.learning_rate(at(step / 7, u64::from(step % 7), 5)))
        .collect();
    for (step, &rate) in rates.iter().enumerate() {
        let expected = (step as f32 + 1.0).min(14.0);
        assert!((rate - expected).abs() < 1e-5, "step {step}: {rate}");
    }
}

#[test]
fn a_cosine_is_half_way_down_in_the_middle_and_ends_at_its_floor() {
    let schedule = Schedule::cosine(0.2, 0.0);
    assert_eq!(schedule.learning_rate(at(0, 0, 10)), 0.2);
    assert!((schedule.learning_rate(at(5, 0, 10)) - 0.1).abs() < 1e-7);
    assert!(schedule.learning_rate(at(10, 0, 10)).abs() < 1e-7);
}

#[test]
fn a_schedule_survives_being_written_down() {
    for schedule in [
        Schedule::halves(0.1),
        Schedule::thirties(0.05),
        Schedule::cosine(0.3, 1.5),
        Schedule::one_cycle(0.3, 1.5),
        cycling_momentum(Schedule::one_cycle(0.3, 1.5)),
        Schedule::plateau(0.3, 2),
    ] {
        let text = serde_json::to_string(&schedule).unwrap();
        // Older versions read and write this name.
        assert!(text.starts_with(r#"{"rate":"#), "{text}");
        let back: Schedule = serde_json::from_str(&text).unwrap();
        assert_eq!(back, schedule);
    }
}

fn cycling_momentum(mut schedule: Schedule) -> Schedule {
    if let Decay::OneCycle { momentum, .. } = &mut schedule.decay {
        *momentum = Some(CYCLED_MOMENTUM);
    }
    schedule
}

#[test]
fn a_momentum_that_makes_no_sense_is_refused() {
    for values in [[0.9, 0.8], [-0.1, 0.9], [0.8, 1.0], [f64::NAN, 0.9]] {
        let mut schedule = Schedule::one_cycle(0.1, 1.0);
        if let Decay::OneCycle { momentum, .. } = &mut schedule.decay {
            *momentum = Some(values);
        }
        assert!(schedule.problem().unwrap().contains("momentum"));
    }
}

/// What PyTorch's schedulers give, by `scripts/golden_schedules.py`.
#[derive(Deserialize)]
struct Golden {
    name: String,
    schedule: Schedule,
    epochs: u32,
    steps: u64,
    /// The results of evaluations, lower is better; for plateaus alone.
    #[serde(default)]
    values: Vec<f64>,
    rates: Vec<f64>,
    /// SGD's momentum or AdamW's first beta in each step, if it is cycled.
    #[serde(default)]
    momenta: Vec<f64>,
}

#[test]
fn learning_rates_and_momenta_equal_those_of_pytorch_step_by_step() {
    let golden = include_str!("../tests/golden/schedules.json");
    let golden: Vec<Golden> = serde_json::from_str(golden).unwrap();
    assert_eq!(golden.len(), 14);
    let cycled = golden.iter().filter(|case| !case.momenta.is_empty());
    assert_eq!(cycled.count(), 2);
    for case in golden {
        assert_eq!(case.schedule.problem(), None, "{}", case.name);
        assert_eq!(case.rates.len() as u64, u64::from(case.epochs) * case.steps);
        let mut state = PlateauState::default();
        let mut progress = at(0, 0, case.epochs);
        progress.steps = case.steps;
        for (index, rate) in case.rates.iter().enumerate() {
            progress.plateaus = state.plateaus;
            let found = f64::from(case.schedule.learning_rate(progress));
            let name = &case.name;
            assert!(
                (found - rate).abs() <= 1e-6 * rate.abs() + 1e-9,
                "{name}, step {index}: {found}, PyTorch has {rate}"
            );
            let momentum = case.momenta.get(index);
            let found = case.schedule.momentum(progress);
            assert_eq!(found.is_some(), momentum.is_some(), "{name}");
            if let (Some(found), Some(momentum)) = (found, momentum) {
                assert!(
                    (found - momentum).abs() <= 1e-12,
                    "{name}, step {index}: {found}, PyTorch has {momentum}"
                );
            }
            progress.step += 1;
            if progress.step < case.steps {
                continue;
            }
            if let Some(&value) = case.values.get(progress.epoch as usize) {
                let is_lower = |value, best, share| value < best * (1.0 - share);
                let schedule = &case.schedule;
                schedule.evaluated(progress, value, is_lower, &mut state);
            }
            (progress.epoch, progress.step) = (progress.epoch + 1, 0);
        }
    }
}
