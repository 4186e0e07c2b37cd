//! Plots of shares against shares, as SVG.

use std::fmt::Write as _;

use super::html::escape;

/// The side of the square that shares are drawn in, in units of the plot; the margins are for
/// numbers and names.
const SIDE: f64 = 360.0;
const LEFT: f64 = 48.0;
const TOP: f64 = 10.0;
const WIDTH: f64 = LEFT + SIDE + 12.0;
const HEIGHT: f64 = TOP + SIDE + 46.0;

/// A square plot of shares.
pub struct Plot {
    svg: String,
}

impl Plot {
    /// Axes from 0 to 1, with their names; `about` says what is shown to who does not see it.
    pub fn new(about: &str, x: &str, y: &str) -> Self {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">\
             <title>{}</title>\n",
            escape(about)
        );
        for quarter in 0..=4 {
            let share = f64::from(quarter) / 4.0;
            let (across, down) = at([share, share]);
            let (bottom, right) = (TOP + SIDE, LEFT + SIDE);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{across} {TOP}V{bottom}M{LEFT} {down}H{right}\"/>\
                 <text x=\"{across}\" y=\"{}\" text-anchor=\"middle\">{share}</text>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{share}</text>",
                bottom + 16.0,
                LEFT - 6.0,
                down + 4.0,
            );
        }
        let (middle, bottom) = (LEFT + SIDE / 2.0, TOP + SIDE + 38.0);
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">{x}</text>\
             <text class=\"axis\" transform=\"translate(13 {}) rotate(-90)\" text-anchor=\"middle\">{y}</text>",
            TOP + SIDE / 2.0,
        );
        Self { svg }
    }

    /// The diagonal, to compare with.
    pub fn diagonal(&mut self) {
        let (bottom, right) = (TOP + SIDE, LEFT + SIDE);
        let _ = writeln!(
            self.svg,
            "<path class=\"diagonal\" d=\"M{LEFT} {bottom}L{right} {TOP}\"/>"
        );
    }

    /// A line through points, straight or in steps that are flat before each point.
    pub fn line(&mut self, kind: &str, name: &str, points: &[[f64; 2]], steps: bool) {
        let mut path = String::new();
        let mut before = String::new();
        for point in thinned(points) {
            let (x, y) = at(point);
            let place = format!("{x:.1} {y:.1}");
            if place == before {
                continue;
            }
            let _ = match (path.is_empty(), steps) {
                (true, _) => write!(path, "M{place}"),
                (false, false) => write!(path, "L{place}"),
                // The precision of a step is that of its end.
                (false, true) => write!(path, "V{y:.1}H{x:.1}"),
            };
            before = place;
        }
        let _ = writeln!(
            self.svg,
            "<path class=\"line {kind}\" d=\"{path}\"><title>{}</title></path>",
            escape(name)
        );
    }

    /// A bar from the bottom, between two shares.
    pub fn bar(&mut self, from: f64, to: f64, height: f64, words: &str) {
        let ((left, top), (right, bottom)) = (at([from, height]), at([to, 0.0]));
        let _ = writeln!(
            self.svg,
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
            left + 1.0,
            right - left - 2.0,
            bottom - top,
            escape(words)
        );
    }

    /// A point.
    pub fn point(&mut self, point: [f64; 2], words: &str) {
        let (x, y) = at(point);
        let _ = writeln!(
            self.svg,
            "<circle class=\"point\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{}</title></circle>",
            escape(words)
        );
    }

    /// The whole plot.
    pub fn finish(self) -> String {
        self.svg + "</svg>\n"
    }
}

/// Where a pair of shares is.
fn at([x, y]: [f64; 2]) -> (f64, f64) {
    (LEFT + SIDE * x, TOP + SIDE * (1.0 - y))
}

/// Of points with rising x, no more than four in each unit of the plot: the first, the lowest, the
/// highest and the last. So a line has a bounded length and looks the same.
fn thinned(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let column = |point: &[f64; 2]| (point[0] * SIDE) as i64;
    let mut kept = Vec::new();
    for own in points.chunk_by(|one, other| column(one) == column(other)) {
        let by = |one: &usize, other: &usize| own[*one][1].total_cmp(&own[*other][1]);
        let lowest = (0..own.len()).min_by(by);
        let highest = (0..own.len()).max_by(by);
        let mut places: Vec<_> = [Some(0), lowest, highest, own.len().checked_sub(1)]
            .into_iter()
            .flatten()
            .collect();
        places.sort_unstable();
        places.dedup();
        kept.extend(places.into_iter().map(|place| own[place]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_many_points_is_short_and_keeps_its_ends_and_extremes() {
        let points: Vec<_> = (0..=100_000)
            .map(|index| {
                let x = f64::from(index) / 1e5;
                [x, if index == 50_001 { 0.0 } else { x }]
            })
            .collect();
        let thin = thinned(&points);
        assert!(thin.len() <= 4 * 361, "{}", thin.len());
        assert_eq!(thin.first(), points.first());
        assert_eq!(thin.last(), points.last());
        assert!(thin.contains(&points[50_001]));
        let few = &points[..2];
        assert_eq!(thinned(few), few);
    }
}
