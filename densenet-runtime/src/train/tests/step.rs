use std::time::Instant;

use super::*;
use crate::Arena;
use crate::train::checkpoint::Position;
use crate::train::{Decay, Milestone};
use crate::weights::State;

fn gradients(runner: &Runner) -> Vec<f32> {
    let mut values = vec![0.0; runner.executor().plan().parameter_count()];
    runner
        .executor()
        .read(Arena::Gradients, &mut values)
        .unwrap();
    values
}

/// State, momentum and position of a run.
fn everything(runner: &Runner) -> (State, Vec<f32>, Position) {
    let executor = runner.executor();
    let mut momentum = vec![0.0; executor.plan().parameter_count()];
    executor.read(Arena::Momentum, &mut momentum).unwrap();
    (runner.state().unwrap(), momentum, runner.position)
}

#[test]
fn a_batch_in_pieces_has_the_gradients_and_the_loss_of_the_whole() {
    let images = Images::new(7, 8);
    let run = |accumulation| {
        // Without dropout: its mask depends on an image's place in its piece.
        let config = Config {
            accumulation,
            label_smoothing: 0.1,
            ..config()
        };
        let executor = Box::new(Regression::new(0.0, config.piece()));
        let mut runner = Runner::new("Regression", executor, config).unwrap();
        let report = runner.step(images.first(7), Instant::now()).unwrap();
        (report, gradients(&runner))
    };
    let (whole, expected) = run(1);
    // Pieces of 3, 2 and 2.
    let (report, found) = run(3);
    assert!((report.loss - whole.loss).abs() < 1e-6);
    assert_eq!((report.top1, report.top5), (whole.top1, whole.top5));
    assert!(expected.iter().any(|&g| g.abs() > 1e-3));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn the_first_nesterov_step_moves_by_rate_times_one_plus_momentum() {
    let images = Images::new(8, 8);
    let config = Config {
        weight_decay: 0.0,
        ..config()
    };
    let mut runner = runner(config);
    runner.step(images.first(8), Instant::now()).unwrap();
    let after = runner.state().unwrap().parameters;
    for (after, gradient) in after.iter().zip(gradients(&runner)) {
        assert!((after + 0.2 * 1.9 * gradient).abs() < 1e-7);
    }
}

#[test]
fn each_step_and_each_piece_has_a_dropout_of_its_own() {
    let images = Images::new(8, 8);
    // With a learning rate of 0 only dropout can change the loss.
    let config = Config {
        schedule: Schedule::constant(0.0),
        ..config()
    };
    let losses = |seed| {
        let mut runner = runner(Config {
            seed,
            ..config.clone()
        });
        // At the start all logits are 0, whatever is dropped.
        let parameters = vec![0.3; runner.executor().plan().parameter_count()];
        let parameters: Vec<f32> = (0..)
            .zip(parameters)
            .map(|(i, p)| p * (i % 5) as f32)
            .collect();
        runner
            .executor_mut()
            .write(Arena::Parameters, &parameters)
            .unwrap();
        [(); 2].map(|()| runner.step(images.first(8), Instant::now()).unwrap().loss)
    };
    let [first, second] = losses(1);
    assert_ne!(first, second);
    assert_eq!(losses(1), [first, second]);
    assert_ne!(losses(2)[0], first);
}

#[test]
fn a_loss_that_is_not_finite_stops_with_step_and_rate_and_changes_nothing() {
    let images = Images::new(8, 8);
    for accumulation in [1, 3] {
        let mut runner = runner(Config {
            accumulation,
            ..config()
        });
        runner.step(images.first(8), Instant::now()).unwrap();
        let before = everything(&runner);
        // In the last piece, after others that move the statistics.
        let mut pixels = images.pixels[..6 * PIXELS].to_vec();
        pixels[5 * PIXELS..].fill(f32::NAN);
        let batch = Batch::of_classes(Pixels::Nchw(&pixels), &[0, 1, 2, 3, 4, 5]);
        let message = runner.step(batch, Instant::now()).unwrap_err().to_string();
        assert!(
            message.contains("at step 2 with learning rate 0.2"),
            "{message}"
        );
        assert!(everything(&runner) == before, "{accumulation} pieces");
    }
}

#[test]
fn a_batch_whose_last_piece_is_refused_changes_nothing() {
    let images = Images::new(8, 8);
    let mut runner = runner(Config {
        batch: 4,
        accumulation: 2,
        ..config()
    });
    runner.step(images.first(4), Instant::now()).unwrap();
    let before = everything(&runner);
    let pixels = images.first(4).pixels;
    let labels = [0, 1, 2, 60];
    let batch = Batch::of_classes(pixels, &labels);
    let message = runner.step(batch, Instant::now()).unwrap_err().to_string();
    assert!(message.contains("image 3"), "{message}");
    assert!(everything(&runner) == before);
}

#[test]
fn a_learning_rate_that_is_not_finite_is_refused_before_the_step() {
    let images = Images::new(8, 8);
    let schedule = Schedule {
        learning_rate: 1.0,
        warmup: 0.0,
        decay: Decay::Divide {
            at: vec![Milestone::Epoch(0.0); 2],
            by: 1e-30,
        },
    };
    let mut runner = runner(Config {
        schedule,
        ..config()
    });
    let before = runner.state().unwrap();
    let error = runner.step(images.first(8), Instant::now()).unwrap_err();
    assert!(
        error.to_string().contains("learning rate of inf"),
        "{error}"
    );
    assert_eq!(runner.state().unwrap(), before);
}

#[test]
fn a_batch_that_is_too_large_is_refused_and_counts_as_no_step() {
    let images = Images::new(9, 8);
    let mut runner = runner(config());
    let error = runner.step(images.first(9), Instant::now()).unwrap_err();
    assert!(error.to_string().contains("9 images"), "{error}");
    assert_eq!(runner.position.step, 0);
}

#[test]
fn an_executor_that_is_too_small_for_the_settings_is_refused() {
    let executor = Box::new(Regression::new(0.0, 4));
    let error = Runner::new("Regression", executor, config()).err().unwrap();
    assert!(error.to_string().contains("made for 4 images"), "{error}");
}
