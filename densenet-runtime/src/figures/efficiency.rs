//! Errors of networks against their cost (paper, Figs. 3 and 4).

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::DrawError;
use super::style::{Area, Drawn, FONT, axes, key, legend, titled, write_png};
use crate::plan::Plan;

const SIZE: (u32, u32) = (1800, 900);
/// One for each family, in turn.
const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 90, 166),
    RGBColor(192, 57, 43),
    RGBColor(46, 134, 82),
    RGBColor(130, 80, 160),
];

/// A network with its cost and its error.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The label of its point.
    pub name: String,
    /// Trainable parameters.
    pub parameters: u64,
    /// Multiply-adds of convolutions and classifier for one image.
    pub multiply_adds: u64,
    /// Error in percent.
    pub error: f64,
}

impl Measured {
    /// A network with this plan and this measured error.
    pub fn of(name: impl Into<String>, plan: &Plan, error: f64) -> Self {
        Self {
            name: name.into(),
            parameters: plan.parameter_count() as u64,
            multiply_adds: plan.multiply_adds(),
            error,
        }
    }
}

/// Families of networks: a line for each, through its networks in order of cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Efficiency {
    families: Vec<(String, Vec<Measured>)>,
}

impl Efficiency {
    /// Adds a family.
    #[must_use]
    pub fn with(mut self, family: impl Into<String>, networks: Vec<Measured>) -> Self {
        self.families.push((family.into(), networks));
        self
    }

    /// Draws errors against parameters and against multiply-adds, as a PNG. `error` labels the axis
    /// of errors, such as "top-1 error (%)".
    ///
    /// # Errors
    /// If there is no network, an error is not a finite number, or the file cannot be written.
    pub fn draw(&self, path: impl AsRef<Path>, title: &str, error: &str) -> Result<(), DrawError> {
        let path = path.as_ref();
        let failed = |reason: String| DrawError {
            path: path.to_owned(),
            reason,
        };
        let mut all = self.families.iter().flat_map(|(_, networks)| networks);
        if let Some(one) = all.clone().find(|one| !one.error.is_finite()) {
            return Err(failed(format!(
                "the error of {} is {}",
                one.name, one.error
            )));
        }
        if all.next().is_none() {
            return Err(failed("there is no network to draw".into()));
        }
        let mut pixels = vec![255; (SIZE.0 * SIZE.1 * 3) as usize];
        self.picture(title, error, &mut pixels)
            .map_err(|error| failed(error.to_string()))?;
        write_png(path, &pixels, SIZE).map_err(|error| failed(error.to_string()))
    }

    fn picture(&self, title: &str, error: &str, pixels: &mut [u8]) -> Drawn {
        let root = titled(pixels, SIZE, title)?;
        let (left, right) = root.split_horizontally((SIZE.0 - 40) / 2);
        let millions = |one: &Measured| one.parameters as f64 / 1e6;
        let billions = |one: &Measured| one.multiply_adds as f64 / 1e9;
        self.panel("parameters (millions)", error, millions, &left)?;
        self.panel("multiply-adds an image (billions)", error, billions, &right)?;
        root.present()?;
        Ok(())
    }

    /// Errors against one cost.
    fn panel(
        &self,
        cost: &str,
        error: &str,
        of: impl Fn(&Measured) -> f64,
        area: &Area<'_>,
    ) -> Drawn {
        let all = || self.families.iter().flat_map(|(_, networks)| networks);
        let most = all().map(&of).fold(0.0, f64::max);
        let highest = all().map(|one| one.error).fold(f64::MIN, f64::max);
        let lowest = all().map(|one| one.error).fold(f64::MAX, f64::min);
        let room = (0.12 * (highest - lowest))
            .max(0.05 * highest.abs())
            .max(0.1);
        // Labels beside the points.
        let across = 0.0..if most > 0.0 { 1.3 * most } else { 1.0 };
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(70)
            .y_label_area_size(100)
            .build_cartesian_2d(across, (lowest - room).max(0.0)..highest + room)?;
        axes(&mut chart.configure_mesh(), cost, error)
            .x_labels(7)
            .y_labels(8)
            .draw()?;
        for (number, (family, networks)) in self.families.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            // The first family costs least, so its labels go on the other side.
            let (side, beside) = match number {
                0 => (HPos::Right, (-14, 10)),
                _ => (HPos::Left, (14, -24)),
            };
            let mut sorted: Vec<_> = networks.iter().map(|one| (of(one), one)).collect();
            sorted.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let line = sorted.iter().map(|&(x, one)| (x, one.error));
            chart
                .draw_series(LineSeries::new(line.clone(), colour.stroke_width(4)))?
                .label(family.as_str())
                .legend(move |at| key(at, colour.stroke_width(4)));
            chart.draw_series(line.map(|at| Circle::new(at, 7, colour.filled())))?;
            let style = (FONT, 22).into_font().color(&colour);
            let style = style.pos(Pos::new(side, VPos::Top));
            chart.draw_series(sorted.iter().map(|&(x, one)| {
                let name = Text::new(one.name.clone(), beside, style.clone());
                EmptyElement::at((x, one.error)) + name
            }))?;
        }
        // Costly networks have lower errors, so this corner is empty.
        legend(&mut chart, SeriesLabelPosition::UpperRight)
    }
}
