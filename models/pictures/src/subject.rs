//! The subjects of the pictures.

use std::f32::consts::TAU;

use densenet_runtime::data::{Rgb, Rng};
use tiny_skia::{Path, PathBuilder, Rect, Transform};

use super::Scene;

/// A class of the drawn pictures: one shape, or a texture that fills the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Squares of two alternating colours.
    Checkerboard,
    /// A filled circle.
    Circle,
    /// A cross of two equal bars.
    Cross,
    /// Small circles in rows.
    Dots,
    /// A circle's outline.
    Ring,
    /// A line that winds outwards.
    Spiral,
    /// A filled square.
    Square,
    /// A filled star with five points.
    Star,
    /// Parallel bars.
    Stripes,
    /// A filled triangle with equal sides.
    Triangle,
}

impl Subject {
    /// All of them, by name.
    pub const ALL: [Self; 10] = [
        Self::Checkerboard,
        Self::Circle,
        Self::Cross,
        Self::Dots,
        Self::Ring,
        Self::Spiral,
        Self::Square,
        Self::Star,
        Self::Stripes,
        Self::Triangle,
    ];

    /// The name of the class.
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkerboard => "checkerboard",
            Self::Circle => "circle",
            Self::Cross => "cross",
            Self::Dots => "dots",
            Self::Ring => "ring",
            Self::Spiral => "spiral",
            Self::Square => "square",
            Self::Star => "star",
            Self::Stripes => "stripes",
            Self::Triangle => "triangle",
        }
    }

    /// Draws a picture whose short side is about `size`.
    /// `None` if it is too large.
    pub(super) fn draw(self, size: u32, rng: &mut Rng) -> Option<Rgb> {
        let mut scene = Scene::new(size, rng)?;
        match self {
            Self::Checkerboard => checkerboard(&mut scene),
            Self::Dots => dots(&mut scene),
            Self::Spiral => spiral(&mut scene),
            Self::Stripes => stripes(&mut scene),
            Self::Ring => ring(&mut scene),
            Self::Circle => shape(&mut scene, PathBuilder::from_circle(0.0, 0.0, 1.0)),
            Self::Cross => shape(&mut scene, cross()),
            // As large as the circle in area.
            Self::Square => shape(&mut scene, polygon(&[1.25; 4])),
            Self::Star => shape(&mut scene, polygon(&[[1.3, 0.52]; 5].concat())),
            Self::Triangle => shape(&mut scene, polygon(&[1.35; 3])),
        }
        Some(scene.finish())
    }
}

/// Puts a shape of radius 1 somewhere near the middle.
fn shape(scene: &mut Scene<'_>, path: Option<Path>) {
    let (transform, _) = place(scene);
    if let Some(path) = path {
        scene.fill(path, transform);
    }
}

/// A position for something of radius 1, and its radius in pixels.
fn place(scene: &mut Scene<'_>) -> (Transform, f32) {
    let radius = scene.between(0.22, 0.34) * scene.short();
    let x = scene.between(0.38, 0.62) * scene.width;
    let y = scene.between(0.38, 0.62) * scene.height;
    let degrees = scene.between(0.0, 360.0);
    (
        Scene::placed(x, y, degrees).pre_scale(radius, radius),
        radius,
    )
}

fn ring(scene: &mut Scene<'_>) {
    let (transform, radius) = place(scene);
    let width = scene.between(0.22, 0.36);
    if let Some(path) = PathBuilder::from_circle(0.0, 0.0, 1.05) {
        scene.stroke(&path, width, transform, radius);
    }
}

fn spiral(scene: &mut Scene<'_>) {
    let (transform, radius) = place(scene);
    let turns = scene.between(2.6, 3.6);
    let hand = if scene.rng.coin() { 1.0 } else { -1.0 };
    let mut path = PathBuilder::new();
    path.move_to(0.0, 0.0);
    let steps = (turns * 48.0) as u32;
    for step in 1..=steps {
        let along = step as f32 / steps as f32;
        let angle = hand * along * turns * TAU;
        let out = 1.3 * along;
        path.line_to(out * angle.cos(), out * angle.sin());
    }
    let width = (0.13_f32).max(2.0 / radius);
    if let Some(path) = path.finish() {
        scene.stroke(&path, width, transform, radius);
    }
}

fn stripes(scene: &mut Scene<'_>) {
    let period = scene.between(0.08, 0.15) * scene.short();
    let width = period * scene.between(0.4, 0.6);
    let reach = scene.diagonal();
    let mut path = PathBuilder::new();
    for column in grid(reach, period) {
        push_rect(&mut path, [column * period, -reach, width, 2.0 * reach]);
    }
    cover(scene, path);
}

fn checkerboard(scene: &mut Scene<'_>) {
    let side = scene.between(0.08, 0.15) * scene.short();
    let reach = scene.diagonal();
    let mut path = PathBuilder::new();
    for row in grid(reach, side) {
        for column in grid(reach, side).filter(|column| (row + column) % 2.0 == 0.0) {
            push_rect(&mut path, [column * side, row * side, side, side]);
        }
    }
    cover(scene, path);
}

fn dots(scene: &mut Scene<'_>) {
    let period = scene.between(0.1, 0.17) * scene.short();
    let radius = period * scene.between(0.24, 0.34);
    let reach = scene.diagonal();
    let mut path = PathBuilder::new();
    for row in grid(reach, period) {
        for column in grid(reach, period) {
            path.push_circle(column * period, row * period, radius);
        }
    }
    cover(scene, path);
}

/// The whole numbers whose multiples of `period` reach from -`reach` to `reach`.
fn grid(reach: f32, period: f32) -> impl Iterator<Item = f32> {
    let count = (reach / period).ceil() as i32;
    (-count..=count).map(|number| number as f32)
}

fn push_rect(path: &mut PathBuilder, [x, y, width, height]: [f32; 4]) {
    if let Some(rect) = Rect::from_xywh(x, y, width, height) {
        path.push_rect(rect);
    }
}

/// Fills a texture that is larger than the picture, turned and shifted at random.
fn cover(scene: &mut Scene<'_>, path: PathBuilder) {
    let x = scene.between(0.4, 0.6) * scene.width;
    let y = scene.between(0.4, 0.6) * scene.height;
    let degrees = scene.between(0.0, 360.0);
    if let Some(path) = path.finish() {
        scene.fill(path, Scene::placed(x, y, degrees));
    }
}

/// Two bars, a third as wide as they are long.
fn cross() -> Option<Path> {
    let (long, wide) = (1.25, 0.4);
    let corners = [
        (-wide, -long),
        (wide, -long),
        (wide, -wide),
        (long, -wide),
        (long, wide),
        (wide, wide),
        (wide, long),
        (-wide, long),
        (-wide, wide),
        (-long, wide),
        (-long, -wide),
        (-wide, -wide),
    ];
    closed(corners.into_iter())
}

/// Corners at these distances from the middle, at equal angles.
fn polygon(distances: &[f32]) -> Option<Path> {
    let step = TAU / distances.len() as f32;
    closed((0_u16..).zip(distances).map(|(corner, distance)| {
        let angle = f32::from(corner) * step;
        (distance * angle.cos(), distance * angle.sin())
    }))
}

fn closed(corners: impl Iterator<Item = (f32, f32)>) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (x, y) in corners {
        if path.is_empty() {
            path.move_to(x, y);
        } else {
            path.line_to(x, y);
        }
    }
    path.close();
    path.finish()
}
