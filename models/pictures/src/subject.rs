//! The subjects of the pictures.

use std::f32::consts::TAU;

use densenet_runtime::data::{Rgb, Rng};
use tiny_skia::{Path, PathBuilder, Rect};

use super::Scene;

/// A class of the drawn pictures: figures of one shape, or a texture that fills the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Rows of bricks, every second row shifted by half a brick.
    Bricks,
    /// Many thin circles.
    Bubbles,
    /// Squares of two alternating colours.
    Checkerboard,
    /// A few large filled circles.
    Circles,
    /// Soft spots.
    Clouds,
    /// Small circles in rows.
    Dots,
    /// Thin lines in two directions.
    Grid,
    /// Many five-pointed stars.
    Stars,
    /// Short thin strokes in all directions.
    Straw,
    /// Parallel bars.
    Stripes,
}

impl Subject {
    /// All of them, by name.
    pub const ALL: [Self; 10] = [
        Self::Bricks,
        Self::Bubbles,
        Self::Checkerboard,
        Self::Circles,
        Self::Clouds,
        Self::Dots,
        Self::Grid,
        Self::Stars,
        Self::Straw,
        Self::Stripes,
    ];

    /// The name of the class.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bricks => "bricks",
            Self::Bubbles => "bubbles",
            Self::Checkerboard => "checkerboard",
            Self::Circles => "circles",
            Self::Clouds => "clouds",
            Self::Dots => "dots",
            Self::Grid => "grid",
            Self::Stars => "stars",
            Self::Straw => "straw",
            Self::Stripes => "stripes",
        }
    }

    /// Draws a picture whose short side is about `size`.
    /// `None` if it is too large.
    pub(super) fn draw(self, size: u32, rng: &mut Rng) -> Option<Rgb> {
        let mut scene = Scene::new(size, rng)?;
        match self {
            Self::Bricks => bricks(&mut scene),
            Self::Bubbles => bubbles(&mut scene),
            Self::Checkerboard => checkerboard(&mut scene),
            Self::Circles => circles(&mut scene),
            Self::Clouds => clouds(&mut scene),
            Self::Dots => dots(&mut scene),
            Self::Grid => lattice(&mut scene),
            Self::Stars => stars(&mut scene),
            Self::Straw => straw(&mut scene),
            Self::Stripes => stripes(&mut scene),
        }
        Some(scene.finish())
    }
}

/// Draws up to `count` copies of a figure of radius 1 that do not overlap. `usual` is about their
/// radius, as a share of the short side.
fn scatter(scene: &mut Scene<'_>, path: Option<Path>, count: usize, usual: f32) {
    const TRIES: usize = 200;
    let Some(path) = path else {
        return;
    };
    let mut placed: Vec<[f32; 3]> = Vec::new();
    for _ in 0..TRIES {
        let radius = usual * scene.short() * scene.between(0.8, 1.2);
        let x = scene.between(0.0, scene.width);
        let y = scene.between(0.0, scene.height);
        let is_apart =
            |other: &[f32; 3]| (x - other[0]).hypot(y - other[1]) > 1.2 * (radius + other[2]);
        if placed.len() < count && placed.iter().all(is_apart) {
            placed.push([x, y, radius]);
        }
    }
    for [x, y, radius] in placed {
        let degrees = scene.between(0.0, 360.0);
        let transform = Scene::placed(x, y, degrees).pre_scale(radius, radius);
        scene.fill(path.clone(), transform);
    }
}

fn circles(scene: &mut Scene<'_>) {
    let (count, radius) = (3 + scene.rng.below(3), scene.between(0.16, 0.24));
    let circle = PathBuilder::from_circle(0.0, 0.0, 1.0);
    scatter(scene, circle, count, radius);
}

fn stars(scene: &mut Scene<'_>) {
    let radius = scene.between(0.06, 0.09);
    scatter(scene, star(), 40, radius);
}

fn straw(scene: &mut Scene<'_>) {
    let length = scene.between(0.1, 0.18) * scene.short();
    let width = length * scene.between(0.08, 0.12);
    let mut path = PathBuilder::new();
    push_rect(&mut path, [-length / 2.0, -width / 2.0, length, width]);
    let Some(path) = path.finish() else {
        return;
    };
    for _ in 0..150 {
        let x = scene.between(0.0, scene.width);
        let y = scene.between(0.0, scene.height);
        let degrees = scene.between(0.0, 180.0);
        scene.fill(path.clone(), Scene::placed(x, y, degrees));
    }
}

fn bubbles(scene: &mut Scene<'_>) {
    let usual = scene.between(0.04, 0.07) * scene.short();
    for _ in 0..60 {
        let x = scene.between(0.0, scene.width);
        let y = scene.between(0.0, scene.height);
        let radius = usual * scene.between(0.6, 1.6);
        if let Some(path) = PathBuilder::from_circle(0.0, 0.0, radius) {
            scene.stroke(&path, 0.2 * usual, Scene::placed(x, y, 0.0));
        }
    }
}

fn clouds(scene: &mut Scene<'_>) {
    for _ in 0..8 + scene.rng.below(7) {
        scene.cloud();
    }
}

fn bricks(scene: &mut Scene<'_>) {
    let height = scene.between(0.09, 0.14) * scene.short();
    let length = height * scene.between(1.9, 2.4);
    let mortar = height * scene.between(0.12, 0.2);
    let reach = scene.diagonal();
    let mut path = PathBuilder::new();
    for row in grid(reach, height) {
        let moved = if row % 2.0 == 0.0 { 0.0 } else { length / 2.0 };
        for column in grid(reach, length) {
            let (x, y) = (column * length + moved, row * height);
            push_rect(&mut path, [x, y, length - mortar, height - mortar]);
        }
    }
    cover(scene, path);
}

fn lattice(scene: &mut Scene<'_>) {
    let period = scene.between(0.1, 0.17) * scene.short();
    let width = period * scene.between(0.1, 0.2);
    let reach = scene.diagonal();
    let mut path = PathBuilder::new();
    for line in grid(reach, period) {
        push_rect(&mut path, [line * period, -reach, width, 2.0 * reach]);
        push_rect(&mut path, [-reach, line * period, 2.0 * reach, width]);
    }
    cover(scene, path);
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

/// A star with five points.
fn star() -> Option<Path> {
    let mut path = PathBuilder::new();
    for corner in 0..10_u8 {
        let distance = if corner % 2 == 0 { 1.2 } else { 0.48 };
        let angle = f32::from(corner) * TAU / 10.0;
        let (x, y) = (distance * angle.cos(), distance * angle.sin());
        match corner {
            0 => path.move_to(x, y),
            _ => path.line_to(x, y),
        }
    }
    path.close();
    path.finish()
}
