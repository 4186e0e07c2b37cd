//! Draws a run: loss and learning rate over the steps, errors over the epochs.

use std::path::PathBuf;

use plotters::prelude::*;

use crate::figures::style::{Area, Drawn, FONT, axes, key, legend, titled, write_png};

use super::{Evaluation, Metric, Observer, Summary, TrainError, lines};

const WIDTH: u32 = 1600;
const HEIGHT: u32 = 1200;

const LOSS: RGBColor = RGBColor(31, 90, 166);
const RATE: RGBColor = RGBColor(130, 130, 130);
const TOP1: RGBColor = RGBColor(192, 57, 43);
const TOP5: RGBColor = RGBColor(230, 145, 56);

/// Draws a file of metrics as a PNG after each evaluation and at the end of a run.
///
/// Among several observers it comes after [`Metrics`](super::Metrics), which writes the file.
#[derive(Debug)]
pub struct Curves {
    metrics: PathBuf,
    picture: PathBuf,
    title: String,
    /// Whether a failure to draw was reported.
    has_warned: bool,
}

impl Curves {
    /// Draws `metrics` into `picture`, with a title.
    pub fn new(
        metrics: impl Into<PathBuf>,
        picture: impl Into<PathBuf>,
        title: impl Into<String>,
    ) -> Self {
        Self {
            metrics: metrics.into(),
            picture: picture.into(),
            title: title.into(),
            has_warned: false,
        }
    }

    /// Draws the current file.
    ///
    /// # Errors
    /// When the metrics cannot be read or the picture cannot be written.
    pub fn draw(&self) -> Result<(), TrainError> {
        let run = RunFigures::from_metrics(&lines(&self.metrics)?);
        let mut pixels = vec![255; (WIDTH * HEIGHT * 3) as usize];
        draw(&run, &self.title, &mut pixels).map_err(|e| TrainError::Curves(e.to_string()))?;
        write_png(&self.picture, &pixels, (WIDTH, HEIGHT))
            .map_err(|error| TrainError::Curves(format!("{}: {error}", self.picture.display())))
    }
}

impl Observer for Curves {
    fn evaluation(&mut self, _: &Evaluation) -> Result<(), TrainError> {
        // A failed drawing does not end the run; only a failure of the last picture is an error.
        if let Err(error) = self.draw()
            && !std::mem::replace(&mut self.has_warned, true)
        {
            crate::tell!("{error}; the run goes on");
        }
        Ok(())
    }

    fn end(&mut self, _: &Summary) -> Result<(), TrainError> {
        self.draw()
    }
}

/// What is drawn.
#[derive(Default)]
struct RunFigures {
    /// Step, loss.
    losses: Vec<(f64, f64)>,
    /// Step, learning rate.
    learning_rates: Vec<(f64, f64)>,
    /// For each evaluation: the epochs done, and its errors and scores in percent.
    top1: Vec<(f64, f64)>,
    top5: Vec<(f64, f64)>,
    decisions: Vec<(f64, f64)>,
    auroc: Vec<(f64, f64)>,
    average_precision: Vec<(f64, f64)>,
}

impl RunFigures {
    fn from_metrics(metrics: &[Metric]) -> Self {
        let mut run = Self::default();
        for metric in metrics {
            match *metric {
                Metric::Step {
                    step,
                    loss,
                    learning_rate,
                    ..
                } => {
                    if loss.is_finite() {
                        run.losses.push((step as f64, loss));
                    }
                    run.learning_rates
                        .push((step as f64, f64::from(learning_rate)));
                }
                Metric::Evaluation {
                    epoch,
                    top1_error,
                    top5_error,
                    decision_error,
                    auroc,
                    average_precision,
                    ..
                } => {
                    for (points, share) in [
                        (&mut run.top1, top1_error),
                        (&mut run.top5, top5_error),
                        (&mut run.decisions, decision_error),
                        (&mut run.auroc, auroc),
                        (&mut run.average_precision, average_precision),
                    ] {
                        points.extend(share.map(|share| (epoch, 100.0 * share)));
                    }
                }
                Metric::Rescheduled(_) => {}
            }
        }
        run
    }
}

fn draw(run: &RunFigures, title: &str, pixels: &mut [u8]) -> Drawn {
    let root = titled(pixels, (WIDTH, HEIGHT), title)?;
    let (top, bottom) = root.split_vertically((HEIGHT - 90) * 55 / 100);
    draw_loss(run, &top)?;
    draw_errors(run, &bottom)?;
    root.present()?;
    Ok(())
}

fn draw_loss(run: &RunFigures, area: &Area<'_>) -> Drawn {
    let steps = 0.0..run.losses.last().map_or(1.0, |&(step, _)| step.max(1.0));
    let smooth = smoothed(&run.losses);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(70)
        .y_label_area_size(110)
        .right_y_label_area_size(120)
        .build_cartesian_2d(steps.clone(), 0.0..top_of(&run.losses, &smooth))?
        // Room above the learning rate for the legend.
        .set_secondary_coord(
            steps,
            0.0..1.3 * top_of(&run.learning_rates, &run.learning_rates),
        );
    axes(&mut chart.configure_mesh(), "step", "training loss")
        .x_labels(9)
        .y_labels(7)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| short(*loss))
        .draw()?;
    chart
        .configure_secondary_axes()
        .y_desc("learning rate")
        .label_style((FONT, 24).into_font().color(&RATE))
        .axis_desc_style((FONT, 26).into_font().color(&RATE))
        .axis_style(BLACK.mix(0.5))
        .y_labels(6)
        .y_label_formatter(&|rate| short(*rate))
        .draw()?;
    // The learning rate is drawn first, so that the losses cover it.
    let rate = RATE.mix(0.7).stroke_width(2);
    chart
        .draw_secondary_series(LineSeries::new(thinned(&run.learning_rates), rate))?
        .label("learning rate")
        .legend(move |at| key(at, rate));
    let light = LOSS.mix(0.3).stroke_width(2);
    chart
        .draw_series(LineSeries::new(thinned(&run.losses), light))?
        .label("loss of a batch")
        .legend(move |at| key(at, light));
    let strong = LOSS.stroke_width(4);
    chart
        .draw_series(LineSeries::new(thinned(&smooth), strong))?
        .label("its moving mean")
        .legend(move |at| key(at, strong));
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

/// A line of the lower chart: its name, its points and its colour.
type Line<'a> = (&'static str, &'a [(f64, f64)], RGBColor);

/// What the lower chart shows, and the name of its axis: errors of classes, or scores of independent
/// targets.
fn lower(run: &RunFigures) -> (&'static str, Vec<Line<'_>>) {
    if run.top1.is_empty() && !run.decisions.is_empty() {
        let shown = vec![
            ("AUROC", &run.auroc[..], LOSS),
            ("average precision", &run.average_precision, TOP5),
            ("wrong decisions", &run.decisions, TOP1),
        ];
        return ("validation (%)", shown);
    }
    let shown = vec![("top-1", &run.top1[..], TOP1), ("top-5", &run.top5, TOP5)];
    ("validation error (%)", shown)
}

fn draw_errors(run: &RunFigures, area: &Area<'_>) -> Drawn {
    let (what, shown) = lower(run);
    let all = || shown.iter().map(|(_, points, _)| *points);
    let ends = all().filter_map(|points| points.last());
    let epochs = 0.0..ends.map(|&(epoch, _)| epoch).fold(1.0, f64::max);
    let tops = all().map(|points| top_of(points, points));
    let most = tops.fold(0.0, f64::max).clamp(1.0, 100.0);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        // As wide as the chart above, which has a second axis.
        .margin_right(10 + 120)
        .x_label_area_size(70)
        .y_label_area_size(110)
        .build_cartesian_2d(epochs, 0.0..most)?;
    axes(&mut chart.configure_mesh(), "epoch", what)
        .x_labels(9)
        .y_labels(6)
        .x_label_formatter(&|epoch| short(*epoch))
        .y_label_formatter(&|error| short(*error))
        .draw()?;
    for &(name, points, colour) in &shown {
        let name = match points.last() {
            Some((_, error)) => format!("{name}: {error:.1}%"),
            None => name.to_string(),
        };
        let line = colour.stroke_width(4);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), line))?
            .label(name)
            .legend(move |at| key(at, line));
        // Points that would touch are left out.
        if points.len() <= 60 {
            let point = |&at| Circle::new(at, 6, colour.filled());
            chart.draw_series(points.iter().map(point))?;
        }
    }
    // Errors begin high, so that corner is empty.
    legend(&mut chart, SeriesLabelPosition::LowerLeft)
}

/// The top of an axis: above all of `smooth`, and above all values except a few outliers.
fn top_of(values: &[(f64, f64)], smooth: &[(f64, f64)]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().map(|&(_, value)| value).collect();
    sorted.sort_by(f64::total_cmp);
    let most = sorted.get(sorted.len().saturating_sub(1) * 99 / 100);
    let most = smooth
        .iter()
        .map(|&(_, value)| value)
        .fold(most.copied().unwrap_or(0.0), f64::max);
    if most > 0.0 { 1.08 * most } else { 1.0 }
}

/// The mean of the points around each, over about a thirtieth of the run.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 60).max(1);
    let mut sums = vec![0.0];
    let mut sum = 0.0;
    for &(_, value) in points {
        sum += value;
        sums.push(sum);
    }
    points
        .iter()
        .enumerate()
        .map(|(index, &(step, _))| {
            // The same number of points on both sides, or the ends would lean inwards.
            let reach = reach.min(index).min(points.len() - 1 - index);
            let (from, to) = (index - reach, index + reach + 1);
            (step, (sums[to] - sums[from]) / (to - from) as f64)
        })
        .collect()
}

/// At most about one point per pixel: the lowest and the highest of each stretch.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(WIDTH as usize).max(1);
    if stretch == 1 {
        return points.to_vec();
    }
    let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    points
        .chunks(stretch)
        .flat_map(|chunk| {
            let low = chunk.iter().min_by(by_value).copied();
            let high = chunk.iter().max_by(by_value).copied();
            let mut pair = [low, high];
            pair.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            pair.into_iter().flatten()
        })
        .collect()
}

/// A label's number, without a tail of zeros.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" {
        "0".into()
    } else {
        text.into()
    }
}
