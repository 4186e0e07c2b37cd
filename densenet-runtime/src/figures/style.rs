//! The style of all figures: font, text colour, axes, legends; and how figures are written.

use std::error::Error;
use std::io;
use std::path::Path;

use plotters::chart::MeshStyle;
use plotters::coord::ranged1d::Ranged;
use plotters::coord::{CoordTranslate, Shift};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::files;

pub(crate) const FONT: &str = "DejaVu Sans";
pub(crate) const TEXT: RGBColor = RGBColor(40, 40, 40);

/// Registers the font, which comes with the program.
pub(crate) fn register() -> Result<(), &'static str> {
    register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| "the font cannot be read")
}

/// A part of a picture.
pub(crate) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
pub(crate) type Drawn = Result<(), Box<dyn Error>>;

/// A white picture under a title, with margins.
pub(crate) fn titled<'a>(
    pixels: &'a mut [u8],
    size: (u32, u32),
    title: &str,
) -> Result<Area<'a>, Box<dyn Error>> {
    register()?;
    let root = BitMapBackend::with_buffer(pixels, size).into_drawing_area();
    root.fill(&WHITE)?;
    let style = (FONT, 34).into_font().color(&TEXT);
    Ok(root.margin(20, 20, 20, 20).titled(title, style)?)
}

/// Styles a chart's grid and axes, and names the axes.
pub(crate) fn axes<'a, 'b, 'm, X: Ranged, Y: Ranged, B: DrawingBackend>(
    mesh: &'m mut MeshStyle<'a, 'b, X, Y, B>,
    x: &str,
    y: &str,
) -> &'m mut MeshStyle<'a, 'b, X, Y, B> {
    mesh.x_desc(x)
        .y_desc(y)
        .label_style((FONT, 24).into_font().color(&TEXT))
        .axis_desc_style((FONT, 26).into_font().color(&TEXT))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .axis_style(BLACK.mix(0.5))
}

/// A legend's sample of a line.
pub(crate) fn key((x, y): (i32, i32), style: ShapeStyle) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y), (x + 40, y)], style)
}

/// Draws a chart's legend.
pub(crate) fn legend<'a, B: DrawingBackend + 'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, B, C>,
    position: SeriesLabelPosition,
) -> Drawn
where
    B::ErrorType: 'static,
{
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 24).into_font().color(&TEXT))
        .legend_area_size(50)
        .margin(14)
        .draw()?;
    Ok(())
}

/// Writes a picture of red, green and blue bytes, row by row, as a PNG file, completely or not at all.
pub(crate) fn write_png(path: &Path, pixels: &[u8], (width, height): (u32, u32)) -> io::Result<()> {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    files::replace(path, &png)
}
