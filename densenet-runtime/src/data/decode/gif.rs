//! The first frame of a GIF.

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::{PictureError, Rgb, broken, checked, room, within};

/// Decodes a file that begins as a GIF does.
pub(super) fn decode(file: &[u8], max_pixels: u64) -> Result<Rgb, PictureError> {
    let failed = |error: DecodingError| broken(error.to_string());
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // Its limit counts bytes; ours, checked before a frame is decoded, counts pixels.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(file).map_err(failed)?;
    let screen = (u32::from(decoder.width()), u32::from(decoder.height()));
    let frame = decoder.next_frame_info().map_err(failed)?;
    let frame = frame.ok_or_else(|| broken("it has no frame"))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (across, down) = (usize::from(frame.width), usize::from(frame.height));
    // A screen that is too small grows, as in Pillow.
    let width = screen.0.max((left + across) as u32);
    let height = screen.1.max((top + down) as u32);
    let (own, transparent) = (frame.palette.clone(), frame.transparent);
    if width == 0 || height == 0 {
        return Err(broken("it has no pixels"));
    }
    within(width, height, max_pixels)?;
    let size = decoder.buffer_size();
    if size != across * down {
        return Err(broken("its frame's size makes no sense"));
    }
    let mut samples = room(size, 0)?;
    decoder.read_into_buffer(&mut samples).map_err(failed)?;

    let palette = own.as_deref().or(decoder.global_palette());
    let mut colours: Vec<[u8; 3]> = match palette {
        Some(palette) => palette.as_chunks().0.to_vec(),
        None => (0..=255).map(|grey| [grey; 3]).collect(),
    };
    colours.resize(256, [0; 3]);
    // What the frame does not cover is transparent, or the first colour.
    let ground = colours[usize::from(transparent.unwrap_or(0))];
    let mut pixels = room(3 * width as usize * height as usize, 0)?;
    let (grounds, _) = pixels.as_chunks_mut::<3>();
    grounds.fill(ground);
    let rows = grounds.chunks_exact_mut(width as usize).skip(top);
    for (row, samples) in rows.zip(samples.chunks_exact(across.max(1))) {
        for (pixel, &sample) in row[left..].iter_mut().zip(samples) {
            *pixel = colours[usize::from(sample)];
        }
    }
    checked(width, height, pixels)
}
