//! Pictures as a network sees them, and folders to write pictures to.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use densenet_runtime::Pixels;

/// A picture in red, green and blue, from the pixels of one image with this many channels. Images
/// without three channels show their first channel.
pub fn rgb(pixels: Pixels<'_>, channels: usize) -> Vec<u8> {
    let bytes: Vec<u8> = match pixels {
        Pixels::Nhwc { bytes, .. } => bytes.to_vec(),
        Pixels::NhwcFloats { values, .. } | Pixels::Nchw(values) => values
            .iter()
            .map(|value| (255.0 * value).round().clamp(0.0, 255.0) as u8)
            .collect(),
    };
    match channels {
        3 => bytes,
        _ => {
            let first = bytes.iter().step_by(channels.max(1));
            first.flat_map(|&grey| [grey; 3]).collect()
        }
    }
}

/// Makes a folder to write to, or uses an empty one: nothing is ever overwritten.
pub fn fresh_folder(option: &str, folder: &Path) -> Result<(), String> {
    let refused = |what: String| format!("{option} {}: {what}", folder.display());
    match fs::read_dir(folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(refused(
                "the folder is not empty; choose a new one, or empty it".into(),
            )),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let made = fs::create_dir_all(folder);
            made.map_err(|error| refused(format!("cannot make the folder: {error}")))
        }
        Err(_) if folder.is_file() => Err(refused("it is a file; choose a new folder".into())),
        Err(error) => Err(refused(format!("cannot read the folder: {error}"))),
    }
}

/// The name of a picture's own file: its unique number, and the end of its path.
pub fn file_name(number: usize, of: usize, path: &str) -> String {
    let width = of.to_string().len().max(4);
    let stem = Path::new(path).file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy();
    let plain = stem.chars().take(60).map(|letter| match letter {
        letter if letter.is_alphanumeric() || "-_.".contains(letter) => letter,
        _ => '_',
    });
    format!("{number:0width$}_{}.png", plain.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_plain_and_differ() {
        assert_eq!(file_name(1, 3, "a/b c/cat.jpg"), "0001_cat.png");
        assert_eq!(file_name(2, 12345, "d/cat.jpg"), "00002_cat.png");
        assert_eq!(
            file_name(3, 3, "../a: b\n<c>.tar.gz"),
            "0003_a__b__c_.tar.png"
        );
        assert_eq!(file_name(4, 4, ".."), "0004_.png");
    }

    #[test]
    fn pixels_of_all_kinds_become_bytes_in_colour() {
        let bytes = [1, 2, 3, 4, 5, 6];
        let (mean, std) = (&[0.5; 3][..], &[0.5; 3][..]);
        let colour = Pixels::Nhwc {
            bytes: &bytes,
            mean,
            std,
        };
        assert_eq!(rgb(colour, 3), bytes);
        let values = [0.0, 1.0, 0.5];
        let grey = Pixels::NhwcFloats {
            values: &values,
            mean,
            std,
        };
        assert_eq!(rgb(grey, 1), [0, 0, 0, 255, 255, 255, 128, 128, 128]);
    }
}
