//! A dataset with independent labels.

use densenet_runtime::data::{DataError, Dataset, Normalization, Rng, Target};

/// Images of one pixel, their index, with independent labels.
pub struct Several {
    rows: Vec<Vec<f32>>,
    classes: Vec<String>,
    normalization: Normalization,
}

/// Images with these labels, a row each.
pub fn several(rows: Vec<Vec<f32>>, classes: impl IntoIterator<Item = impl ToString>) -> Several {
    Several {
        classes: classes.into_iter().map(|class| class.to_string()).collect(),
        rows,
        normalization: Normalization::none(1),
    }
}

impl Dataset for Several {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn shape(&self) -> [usize; 3] {
        [1, 1, 1]
    }

    fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    fn target(&self, index: usize) -> Target<'_> {
        Target::Independent(&self.rows[index])
    }

    fn load(&self, index: usize, _: Option<&mut Rng>, into: &mut [u8]) -> Result<(), DataError> {
        into.fill(index as u8);
        Ok(())
    }
}
