//! Heat maps, one for each block, side by side.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::colors::colormaps::ViridisRGB;

use super::super::style::{Area, Drawn, FONT, TEXT, register, write_png};
use super::{BlockReuse, DrawError};

/// Blocks in a row.
const COLUMNS: usize = 2;
/// Size of a block's panel: heat map, labels and colour bar.
const PANEL: (u32, u32) = (920, 800);
const TITLE: u32 = 70;
/// Width of the strip on the right of a panel that holds the colour bar.
const BAR: u32 = 170;

/// Draws the blocks as a PNG.
pub(super) fn draw(blocks: &[BlockReuse], title: &str, path: &Path) -> Result<(), DrawError> {
    let failed = |reason: String| DrawError {
        path: path.to_owned(),
        reason,
    };
    let columns = blocks.len().clamp(1, COLUMNS);
    let rows = blocks.len().div_ceil(columns).max(1);
    let width = columns as u32 * PANEL.0;
    let height = rows as u32 * PANEL.1 + TITLE;
    let mut pixels = vec![255; (width * height * 3) as usize];
    picture(blocks, title, (rows, columns), &mut pixels, (width, height))
        .map_err(|error| failed(error.to_string()))?;
    write_png(path, &pixels, (width, height)).map_err(|error| failed(error.to_string()))
}

fn picture(
    blocks: &[BlockReuse],
    title: &str,
    grid: (usize, usize),
    pixels: &mut [u8],
    size: (u32, u32),
) -> Drawn {
    register()?;
    let root = BitMapBackend::with_buffer(pixels, size).into_drawing_area();
    root.fill(&WHITE)?;
    let (top, panels) = root.split_vertically(TITLE);
    let style = (FONT, 34).into_font().color(&TEXT);
    top.margin(16, 0, 0, 0).titled(title, style)?;
    let last = blocks.len();
    for ((block, number), area) in blocks.iter().zip(1..).zip(panels.split_evenly(grid)) {
        let after = if number == last {
            "classifier"
        } else {
            "transition"
        };
        panel(block, number, after, &area)?;
    }
    root.present()?;
    Ok(())
}

/// The heat map of one block.
fn panel(block: &BlockReuse, number: usize, after: &str, area: &Area<'_>) -> Drawn {
    let largest = block.largest();
    let colour = |mean: f64| ViridisRGB.get_color(if largest > 0.0 { mean / largest } else { 0.0 });
    let (map, bar) = area.split_horizontally(PANEL.0 - BAR);
    let targets = block.layers() + 1;
    // A cell is centred on its number; sources increase downwards, as in the paper.
    let across = 0.5..targets as f64 + 0.5;
    let down = targets as f64 - 0.5..-0.5;
    let mut chart = ChartBuilder::on(&map)
        .margin(20)
        .caption(
            format!("Dense block {number}"),
            (FONT, 28).into_font().color(&TEXT),
        )
        .x_label_area_size(70)
        .y_label_area_size(80)
        .build_cartesian_2d(across, down)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc(format!("target layer (the last column: the {after})"))
        .y_desc("source layer (0: the block's input)")
        .label_style((FONT, 20).into_font().color(&TEXT))
        .axis_desc_style((FONT, 24).into_font().color(&TEXT))
        .axis_style(BLACK.mix(0.5))
        .x_labels(targets.min(12))
        .y_labels(targets.min(12))
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .draw()?;
    for target in 1..=targets {
        for source in 0..target {
            let Some(mean) = block.mean(source, target) else {
                continue;
            };
            let corner = (target as f64 - 0.5, source as f64 - 0.5);
            let opposite = (target as f64 + 0.5, source as f64 + 0.5);
            let cell = Rectangle::new([corner, opposite], colour(mean).filled());
            chart.draw_series([cell])?;
        }
    }
    // The paper frames the column of what follows the block.
    let corner = (targets as f64 - 0.5, -0.5);
    let opposite = (targets as f64 + 0.5, targets as f64 - 0.5);
    chart.draw_series([Rectangle::new([corner, opposite], BLACK.stroke_width(3))])?;
    scale(largest, &bar)
}

/// The colour bar, from 0 to the largest mean.
fn scale(largest: f64, area: &Area<'_>) -> Drawn {
    let most = if largest > 0.0 { largest } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .margin_top(70)
        .margin_bottom(90)
        .margin_right(105)
        .right_y_label_area_size(0)
        .build_cartesian_2d(0.0..1.0, 0.0..most)?;
    let steps = 128;
    let at = |step: i32| most * f64::from(step) / f64::from(steps);
    chart.draw_series((0..steps).map(|step| {
        let colour = ViridisRGB.get_color(f64::from(step) / f64::from(steps - 1));
        Rectangle::new([(0.0, at(step)), (1.0, at(step + 1))], colour.filled())
    }))?;
    let style = (FONT, 20).into_font().color(&TEXT);
    for quarter in 0..=4 {
        let value = most * f64::from(quarter) / 4.0;
        let (x, y) = chart.backend_coord(&(1.0, value));
        let (left, top) = area.get_base_pixel();
        let at = (x - left + 10, y - top - 10);
        area.draw_text(&format!("{value:.4}"), &style, at)?;
    }
    Ok(())
}

/// A label for each whole number.
fn whole(value: &f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        String::new()
    }
}
