//! Shows a run on the terminal.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::ProgressStyle;

use super::{Ending, Evaluation, Observer, Outline, Rescheduled, StepReport, Summary, TrainError};

/// How often a line is written without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The weight of the past in the figures shown.
const SMOOTHING: f64 = 0.9;

/// A bar with loss, accuracy, learning rate, images a second and the time left. If standard error
/// is not a terminal, it writes lines instead: the first step, one every few seconds, and the last.
pub struct ProgressBar {
    sink: Sink,
    last_step: u64,
    loss: Smooth,
    /// The share of correct images, or of correct predictions of independent targets.
    right: Smooth,
    is_of_decisions: bool,
    seconds: Smooth,
    images: Smooth,
}

enum Sink {
    Bar(indicatif::ProgressBar),
    Lines {
        to: Box<dyn Write>,
        next: Option<Instant>,
    },
}

impl ProgressBar {
    /// A bar on standard error, or lines if that is not a terminal.
    pub fn new() -> Self {
        if io::stderr().is_terminal() {
            let bar = indicatif::ProgressBar::new(0);
            // The template is fixed; a test draws it.
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style.progress_chars("━╸─"));
            }
            Self::with_sink(Sink::Bar(bar))
        } else {
            Self::lines(io::stderr())
        }
    }

    /// Lines, written to `to`.
    pub fn lines(to: impl Write + 'static) -> Self {
        Self::with_sink(Sink::Lines {
            to: Box::new(to),
            next: None,
        })
    }

    fn with_sink(sink: Sink) -> Self {
        Self {
            sink,
            last_step: 0,
            loss: Smooth::default(),
            right: Smooth::default(),
            is_of_decisions: false,
            seconds: Smooth::default(),
            images: Smooth::default(),
        }
    }

    /// A line that stays.
    fn say(&mut self, line: &str) {
        match &mut self.sink {
            Sink::Bar(bar) => bar.println(line),
            // A run does not end because its output is closed.
            Sink::Lines { to, .. } => drop(writeln!(to, "{line}")),
        }
    }

    fn figures(&self, report: &StepReport) -> String {
        let left = self.last_step.saturating_sub(report.step) as f64 * self.seconds.mean();
        format!(
            "loss {:.3} · {} {:.1}% · lr {} · {} images/s · {} left",
            self.loss.mean(),
            match self.is_of_decisions {
                true => "right decisions",
                false => "top-1 acc",
            },
            100.0 * self.right.mean(),
            shown(report.learning_rate),
            rounded(self.images.mean() / self.seconds.mean().max(1e-9)),
            duration(left),
        )
    }
}

const TEMPLATE: &str = "{prefix} {wide_bar:.cyan/dim} {pos}/{len} {msg}";

impl Default for ProgressBar {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for ProgressBar {
    fn begin(&mut self, outline: &Outline) -> Result<(), TrainError> {
        self.last_step = outline.last_step;
        if let Sink::Bar(bar) = &self.sink {
            bar.set_length(outline.last_step);
            bar.set_position(outline.step);
            bar.set_prefix("starting");
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Ok(())
    }

    fn rescheduled(&mut self, change: &Rescheduled) -> Result<(), TrainError> {
        let Rescheduled {
            step,
            epochs,
            schedule,
            epochs_before,
            schedule_before,
        } = change;
        self.say(&format!(
            "step {step} · from here on {epochs} epochs with {schedule}; before, {epochs_before} epochs with {schedule_before}"
        ));
        Ok(())
    }

    fn notice(&mut self, text: &str) -> Result<(), TrainError> {
        self.say(text);
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> Result<(), TrainError> {
        let images = report.images as f64;
        self.loss.add(report.loss);
        let (right, of) = match report.known {
            0 => (report.top1, report.images),
            known => (report.right, known),
        };
        self.is_of_decisions = report.known > 0;
        self.right.add(right as f64 / of.max(1) as f64);
        self.seconds.add(report.seconds);
        self.images.add(images);
        let figures = self.figures(report);
        let last = report.step == self.last_step;
        match &mut self.sink {
            Sink::Bar(bar) => {
                bar.set_prefix(format!("epoch {}", report.epoch));
                bar.set_message(figures);
                bar.set_position(report.step);
            }
            Sink::Lines { to, next } => {
                let now = Instant::now();
                if last || next.is_none_or(|next| now >= next) {
                    *next = Some(now + LINE_EVERY);
                    let (epoch, step) = (report.epoch, report.step);
                    // As above.
                    let _ = writeln!(
                        to,
                        "epoch {epoch} · step {step}/{} · {figures}",
                        self.last_step
                    );
                }
            }
        }
        Ok(())
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), TrainError> {
        let score = evaluation.score();
        let best = score.zip(evaluation.best);
        let best = best.is_some_and(|(score, best)| evaluation.by.is_better(score, best.score));
        let line = format!(
            "epoch {} · step {} · validation: {}, loss {:.3} ({} images in {}){}",
            (evaluation.epoch * 100.0).round() / 100.0,
            evaluation.step,
            scores(evaluation),
            evaluation.loss,
            evaluation.images,
            duration(evaluation.seconds),
            if best { " · best so far" } else { "" },
        );
        self.say(&line);
        Ok(())
    }

    fn checkpoint(&mut self, path: &Path, step: u64) -> Result<(), TrainError> {
        if let Sink::Lines { .. } = self.sink {
            self.say(&format!("step {step} · checkpoint {}", path.display()));
        }
        Ok(())
    }

    fn end(&mut self, summary: &Summary) -> Result<(), TrainError> {
        if let Sink::Bar(bar) = &self.sink {
            match summary.ending {
                Ending::Interrupted | Ending::Stalled => bar.abandon(),
                Ending::Finished | Ending::StepsDone => bar.finish(),
            }
        }
        Ok(())
    }
}

/// The scores of an evaluation that are shown.
fn scores(evaluation: &Evaluation) -> String {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let means = evaluation.means.unwrap_or_default();
    let mut shown = Vec::new();
    if !evaluation.independent {
        shown.push(format!("top-1 error {}", percent(evaluation.top1_error())));
        // Among five classes or fewer, no image can be wrong.
        if evaluation.classes > 5 {
            shown.push(format!("top-5 error {}", percent(evaluation.top5_error())));
        }
    }
    if let Some(auroc) = means.auroc {
        shown.push(format!("AUROC {auroc:.3}"));
    }
    if let Some(precision) = means.average_precision {
        shown.push(format!("average precision {precision:.3}"));
    }
    if let Some(error) = evaluation.decision_error() {
        let known = evaluation.known;
        shown.push(format!("wrong decisions {} of {known}", percent(error)));
    }
    if shown.is_empty() {
        shown.push("no target is known".into());
    }
    shown.join(", ")
}

/// An exponential moving average, with the bias of its start at 0 corrected.
#[derive(Clone, Copy, Debug, Default)]
struct Smooth {
    sum: f64,
    weight: f64,
}

impl Smooth {
    fn add(&mut self, value: f64) {
        self.sum = SMOOTHING * self.sum + value;
        self.weight = SMOOTHING * self.weight + 1.0;
    }

    fn mean(self) -> f64 {
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            0.0
        }
    }
}

/// Three significant digits, without a tail of zeros.
fn shown(learning_rate: f32) -> String {
    if learning_rate != 0.0 && learning_rate.abs() < 1e-3 {
        return format!("{learning_rate:.1e}");
    }
    let text = format!("{learning_rate:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn rounded(value: f64) -> String {
    let digits = usize::from(value < 100.0);
    format!("{value:.digits$}")
}

/// `8 s`, `2 min 05 s`, `3 h 20 min`, `2 d 4 h`.
fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {:02} s", seconds % 60),
        3600..86400 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::train::BestBy;

    #[derive(Clone, Default)]
    struct Page(Rc<RefCell<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn report(step: u64) -> StepReport {
        StepReport {
            step,
            epoch: 1,
            loss: 2.5,
            learning_rate: 0.05,
            images: 8,
            top1: 2,
            top5: 4,
            right: 0,
            known: 0,
            seconds: 2.0,
        }
    }

    #[test]
    fn the_bars_template_is_one() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }

    #[test]
    fn lines_show_the_first_and_the_last_step_and_the_validation() {
        let page = Page::default();
        let mut lines = ProgressBar::lines(page.clone());
        lines
            .begin(&Outline {
                step: 0,
                epoch_steps: 40,
                last_step: 40,
                evaluation_due: false,
            })
            .unwrap();
        for step in 1..=40 {
            lines.step(&report(step)).unwrap();
        }
        let evaluation = Evaluation {
            step: 40,
            epoch: 1.0,
            images: 200,
            classes: 6,
            loss: 1.25,
            top1: 150,
            top5: 190,
            right: 0,
            known: 0,
            independent: false,
            means: None,
            by: BestBy::Top1Error,
            best: None,
            seconds: 3.0,
        };
        lines.evaluation(&evaluation).unwrap();
        let few = Evaluation {
            classes: 5,
            ..evaluation
        };
        lines.evaluation(&few).unwrap();
        let text = String::from_utf8(page.0.borrow().clone()).unwrap();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "epoch 1 · step 1/40 · loss 2.500 · top-1 acc 25.0% · lr 0.05 · 4.0 images/s · 1 min 18 s left",
                "epoch 1 · step 40/40 · loss 2.500 · top-1 acc 25.0% · lr 0.05 · 4.0 images/s · 0.0 s left",
                "epoch 1 · step 40 · validation: top-1 error 25.0%, top-5 error 5.0%, loss 1.250 (200 images in 3.0 s)",
                "epoch 1 · step 40 · validation: top-1 error 25.0%, loss 1.250 (200 images in 3.0 s)",
            ]
        );
    }

    #[test]
    fn times_and_rates_read_as_a_person_would_write_them() {
        let times = [3.0, 75.4, 12_000.0, 190_000.0].map(duration);
        assert_eq!(times, ["3.0 s", "1 min 15 s", "3 h 20 min", "2 d 4 h"]);
        assert_eq!(
            [0.1, 0.05, 0.0005, 1.0].map(shown),
            ["0.1", "0.05", "5.0e-4", "1"]
        );
    }
}
