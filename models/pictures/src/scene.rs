//! Colours, ground and grain of the pictures.

use densenet_runtime::data::{Rgb, Rng};
use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Paint, Path, PathBuilder,
    Pixmap, Point, RadialGradient, Rect, Shader, SpreadMode, Stroke, Transform,
};

/// A picture that is being drawn.
pub(super) struct Scene<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) width: f32,
    pub(super) height: f32,
    palette: Palette,
    canvas: Pixmap,
}

/// Two colours that are easy to tell apart.
struct Palette {
    ground: Colour,
    figure: Colour,
}

/// Hue, saturation and value, each in [0, 1].
#[derive(Clone, Copy)]
struct Colour {
    hue: f32,
    saturation: f32,
    value: f32,
}

impl<'a> Scene<'a> {
    /// An empty ground, whose short side is about `size`; `None` if there is no memory for it.
    pub(super) fn new(size: u32, rng: &'a mut Rng) -> Option<Self> {
        let mut side = |most: f64| (f64::from(size) * rng.between(0.9, most)).round() as u32;
        let (short, long) = (side(1.0), side(1.25));
        let (width, height) = if rng.coin() {
            (long, short)
        } else {
            (short, long)
        };
        let canvas = Pixmap::new(width, height)?;
        let palette = Palette::new(rng);
        let mut scene = Self {
            rng,
            width: width as f32,
            height: height as f32,
            palette,
            canvas,
        };
        scene.lay_ground();
        Some(scene)
    }

    /// A number in a range.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        self.rng.between(f64::from(low), f64::from(high)) as f32
    }

    /// The shorter side.
    pub(super) fn short(&self) -> f32 {
        self.width.min(self.height)
    }

    /// Length of the diagonal: what is drawn this large covers the picture however it is turned.
    pub(super) fn diagonal(&self) -> f32 {
        self.width.hypot(self.height)
    }

    /// Turns by `degrees` about the point (`x`, `y`), which becomes the origin.
    pub(super) fn placed(x: f32, y: f32, degrees: f32) -> Transform {
        Transform::from_translate(x, y).pre_rotate(degrees)
    }

    /// Fills a path with the figure's colour, a little uneven.
    pub(super) fn fill(&mut self, path: Path, transform: Transform) {
        let paint = self.figure_paint();
        // A transform given to the canvas would move the paint, too.
        if let Some(path) = path.transform(transform) {
            self.canvas.fill_path(
                &path,
                &paint,
                FillRule::Winding,
                Transform::identity(),
                None,
            );
        }
    }

    /// Draws along a path with the figure's colour.
    pub(super) fn stroke(&mut self, path: &Path, width: f32, transform: Transform) {
        let stroke = Stroke {
            width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        if let Some(outline) = path.stroke(&stroke, 1.0) {
            self.fill(outline, transform);
        }
    }

    /// The picture, with grain.
    pub(super) fn finish(mut self) -> Rgb {
        let strength = self.between(2.0, 9.0);
        let rng = self.rng;
        let grain =
            |byte: u8, noise: f32| (f32::from(byte) + noise).round().clamp(0.0, 255.0) as u8;
        let mut pixels = Vec::with_capacity(3 * self.canvas.pixels().len());
        for pixel in self.canvas.pixels() {
            // The sum of two is near enough to a normal distribution.
            let noise = strength * (rng.unit() + rng.unit() - 1.0) as f32 * 1.7;
            // The ground is opaque, so the colours are not premultiplied by anything but 1.
            pixels
                .extend([pixel.red(), pixel.green(), pixel.blue()].map(|byte| grain(byte, noise)));
        }
        Rgb {
            width: self.canvas.width(),
            height: self.canvas.height(),
            pixels,
        }
    }

    /// A gradient from one tone of the ground's colour to another, and a few soft spots.
    fn lay_ground(&mut self) {
        let tone = self.palette.ground;
        let (light, dark) = (tone.lightened(0.08), tone.lightened(-0.08));
        let shader = self.gradient(light, dark);
        let whole = Rect::from_xywh(0.0, 0.0, self.width, self.height);
        if let Some(whole) = whole {
            self.canvas
                .fill_rect(whole, &paint(shader), Transform::identity(), None);
        }
        for _ in 0..2 + self.rng.below(4) {
            self.spot();
        }
    }

    /// A blurred spot of another tone of the ground.
    fn spot(&mut self) {
        let hue_shift = self.between(-0.08, 0.08);
        let lightness = self.between(-0.12, 0.12);
        let colour = self.palette.ground.turned(hue_shift).lightened(lightness);
        let radius = self.between(0.15, 0.4);
        self.blur(colour, radius);
    }

    /// A blurred spot of a tone of the figure's colour.
    pub(super) fn cloud(&mut self) {
        let lightness = self.between(-0.07, 0.07);
        let colour = self.palette.figure.lightened(lightness);
        let radius = self.between(0.12, 0.3);
        self.blur(colour, radius);
    }

    /// A blurred spot anywhere, with a radius in short sides.
    fn blur(&mut self, colour: Colour, radius: f32) {
        let x = self.between(0.0, self.width);
        let y = self.between(0.0, self.height);
        let radius = radius * self.short();
        let mut faded = colour.opaque();
        faded.set_alpha(0.0);
        let centre = Point::from_xy(x, y);
        let shader = RadialGradient::new(
            centre,
            0.0,
            centre,
            radius,
            vec![
                GradientStop::new(0.0, colour.opaque()),
                GradientStop::new(1.0, faded),
            ],
            SpreadMode::Pad,
            Transform::identity(),
        );
        if let (Some(shader), Some(path)) = (shader, PathBuilder::from_circle(x, y, radius)) {
            self.canvas.fill_path(
                &path,
                &paint(shader),
                FillRule::Winding,
                Transform::identity(),
                None,
            );
        }
    }

    fn figure_paint(&mut self) -> Paint<'static> {
        let tone = self.palette.figure;
        let (light, dark) = (tone.lightened(0.07), tone.lightened(-0.07));
        paint(self.gradient(light, dark))
    }

    /// Across the whole picture, in any direction.
    fn gradient(&mut self, from: Colour, to: Colour) -> Shader<'static> {
        let angle = self.between(0.0, std::f32::consts::TAU);
        let reach = self.diagonal() / 2.0;
        let (dx, dy) = (reach * angle.cos(), reach * angle.sin());
        let (x, y) = (self.width / 2.0, self.height / 2.0);
        LinearGradient::new(
            Point::from_xy(x - dx, y - dy),
            Point::from_xy(x + dx, y + dy),
            vec![
                GradientStop::new(0.0, from.opaque()),
                GradientStop::new(1.0, to.opaque()),
            ],
            SpreadMode::Pad,
            Transform::identity(),
        )
        .unwrap_or(Shader::SolidColor(from.opaque()))
    }
}

fn paint(shader: Shader<'static>) -> Paint<'static> {
    Paint {
        shader,
        anti_alias: true,
        ..Paint::default()
    }
}

impl Palette {
    /// A pale or dark ground, and a strong colour that stands out from it.
    fn new(rng: &mut Rng) -> Self {
        let mut between = |low: f64, high: f64| rng.between(low, high) as f32;
        let hue = between(0.0, 1.0);
        let figure_hue = hue + between(0.25, 0.75);
        let (saturation, strong) = (between(0.08, 0.3), between(0.65, 0.95));
        let (pale, dark) = (between(0.75, 0.92), between(0.14, 0.3));
        let (deep, bright) = (between(0.35, 0.6), between(0.88, 1.0));
        let (ground, figure) = if rng.coin() {
            (pale, deep)
        } else {
            (dark, bright)
        };
        Self {
            ground: Colour {
                hue,
                saturation,
                value: ground,
            },
            figure: Colour {
                hue: figure_hue,
                saturation: strong,
                value: figure,
            },
        }
    }
}

impl Colour {
    fn lightened(self, by: f32) -> Self {
        Self {
            value: (self.value + by).clamp(0.0, 1.0),
            ..self
        }
    }

    fn turned(self, by: f32) -> Self {
        Self {
            hue: self.hue + by,
            ..self
        }
    }

    fn opaque(self) -> Color {
        let component = |offset: f32| {
            let k = (offset + self.hue.rem_euclid(1.0) * 6.0).rem_euclid(6.0);
            let fall = k.min(4.0 - k).clamp(0.0, 1.0);
            (self.value * (1.0 - self.saturation * fall)).clamp(0.0, 1.0)
        };
        Color::from_rgba(component(5.0), component(3.0), component(1.0), 1.0)
            .unwrap_or(Color::BLACK)
    }
}
