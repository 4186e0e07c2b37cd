//! How images are drawn for validation.

use crate::data::{Dataset, Rng, Target, dataset::APPLIES};

/// Replaces an image's index when a split is drawn.
const SPLIT: u64 = u64::MAX - 1;
/// The number of passes over all units; moving stops long before.
const MOST_PASSES: usize = 32;

/// Whether each image has one class.
pub(super) fn is_exclusive(dataset: &dyn Dataset) -> bool {
    dataset.target(0).class().is_some()
}

fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    Rng::new(seed, 0, SPLIT).shuffle(&mut order);
    order
}

/// Draws each class's part of the share: rounded down, and then up where the most was lost, until
/// the total is the share of all images.
pub(super) fn by_class(dataset: &dyn Dataset, share: f64, seed: u64) -> Vec<bool> {
    let images = dataset.len();
    let class_of = |image: usize| dataset.target(image).class().unwrap_or_default() as usize;
    let classes = (0..images).map(class_of).max().map_or(0, |last| last + 1);
    let mut counts = vec![0_usize; classes];
    for image in 0..images {
        counts[class_of(image)] += 1;
    }
    let wanted = ((share * images as f64).round() as usize).clamp(1, images - 1);
    // The last image of a class is for training, if there are enough others.
    let spared: usize = counts.iter().map(|count| count.saturating_sub(1)).sum();
    let most = |class: usize| counts[class] - usize::from(spared >= wanted && counts[class] > 0);
    // In whole numbers: `count * wanted / images`, and the remainder.
    let parts = counts.iter().map(|count| count * wanted / images);
    let mut drawn: Vec<usize> = parts.collect();
    let mut by_remainder: Vec<usize> = (0..classes).collect();
    by_remainder.sort_by_key(|&class| std::cmp::Reverse(counts[class] * wanted % images));
    let mut missing = wanted - drawn.iter().sum::<usize>();
    while missing > 0 {
        for &class in &by_remainder {
            if missing > 0 && drawn[class] < most(class) {
                drawn[class] += 1;
                missing -= 1;
            }
        }
    }
    let mut validates = vec![false; images];
    for image in shuffled(images, seed) {
        let left = &mut drawn[class_of(image)];
        if *left > 0 {
            *left -= 1;
            validates[image] = true;
        }
    }
    validates
}

/// A unit that stays together: an image, or the images of a group.
#[derive(Clone, Default)]
struct Unit {
    images: usize,
    /// The number of images of each class that has any.
    classes: Vec<(usize, usize)>,
}

impl Unit {
    fn add(&mut self, target: Target<'_>) {
        self.images += 1;
        match target {
            Target::Class(class) => self.count(class as usize),
            Target::Independent(row) => {
                for (class, &value) in row.iter().enumerate() {
                    if value >= APPLIES {
                        self.count(class);
                    }
                }
            }
        }
    }

    fn count(&mut self, class: usize) {
        match self.classes.iter_mut().find(|(own, _)| *own == class) {
            Some((_, count)) => *count += 1,
            None => self.classes.push((class, 1)),
        }
    }
}

/// Divides units; `unit_of` gives the unit of each image.
pub(super) fn by_unit(
    dataset: &dyn Dataset,
    unit_of: &[usize],
    units: usize,
    share: f64,
    seed: u64,
) -> Vec<bool> {
    let mut all = vec![Unit::default(); units];
    for (image, &unit) in unit_of.iter().enumerate() {
        all[unit].add(dataset.target(image));
    }
    let mut division = Division::new(&all, share);
    let order = shuffled(units, seed);
    division.stratify(&order);
    division.fill();
    division.refine(&order);
    let validates = division.validates;
    unit_of.iter().map(|&unit| validates[unit]).collect()
}

/// Units on two sides.
struct Division<'a> {
    units: &'a [Unit],
    validates: Vec<bool>,
    /// Units that validate.
    validating: usize,
    /// Counts of images, and of images of each class: how many there are, and how many more should validate.
    images: Lack,
    classes: Vec<Lack>,
}

#[derive(Clone, Copy)]
struct Lack {
    all: f64,
    lacking: f64,
}

impl Lack {
    const fn new(all: usize, share: f64) -> Self {
        Self {
            all: all as f64,
            lacking: all as f64 * share,
        }
    }

    /// How much farther the set is from the share with this many more (or fewer) images: the change
    /// of the squared deficit, as a part of all.
    fn cost(&self, more: f64) -> f64 {
        let after = self.lacking - more;
        (after * after - self.lacking * self.lacking) / self.all.max(1.0)
    }
}

impl<'a> Division<'a> {
    /// All units train.
    fn new(units: &'a [Unit], share: f64) -> Self {
        let of_classes = || units.iter().flat_map(|unit| &unit.classes);
        let classes = of_classes().map(|(class, _)| class + 1).max();
        let mut counts = vec![0; classes.unwrap_or(0)];
        for (class, count) in of_classes() {
            counts[*class] += count;
        }
        let images = units.iter().map(|unit| unit.images).sum();
        let lack = |&count: &usize| Lack::new(count, share);
        Self {
            units,
            validates: vec![false; units.len()],
            validating: 0,
            images: Lack::new(images, share),
            classes: counts.iter().map(lack).collect(),
        }
    }

    /// Moves a unit to the other side.
    fn flip(&mut self, unit: usize) {
        let Unit { images, classes } = &self.units[unit];
        let validates = &mut self.validates[unit];
        let sign = if *validates { 1.0 } else { -1.0 };
        *validates = !*validates;
        self.validating = match *validates {
            true => self.validating + 1,
            false => self.validating - 1,
        };
        self.images.lacking += sign * *images as f64;
        for &(class, count) in classes {
            self.classes[class].lacking += sign * count as f64;
        }
    }

    /// Divides the classes one after another, the rarest of those that are left first, each unit to
    /// the side that lacks more of the class; then the units without any.
    fn stratify(&mut self, order: &[usize]) {
        let units = self.units;
        let mut of_class = vec![Vec::new(); self.classes.len()];
        for &unit in order {
            for &(class, _) in &units[unit].classes {
                of_class[class].push(unit);
            }
        }
        // The images that are left to divide, in total and of each class.
        let mut left_images = self.images.all;
        let mut left: Vec<f64> = self.classes.iter().map(|class| class.all).collect();
        let mut is_placed = vec![false; units.len()];
        let mut place = |division: &mut Self, unit: usize, left: &mut [f64], own: Option<usize>| {
            if std::mem::replace(&mut is_placed[unit], true) {
                return;
            }
            // Training lacks the rest that validation does not.
            let ahead = |lack: &Lack, left: f64| 2.0 * lack.lacking - left;
            let by_images = ahead(&division.images, left_images);
            let by_class = own.map_or(0.0, |class| ahead(&division.classes[class], left[class]));
            if by_class > 0.0 || (by_class == 0.0 && by_images > 0.0) {
                division.flip(unit);
            }
            left_images -= units[unit].images as f64;
            for &(class, count) in &units[unit].classes {
                left[class] -= count as f64;
            }
        };
        loop {
            let classes = left.iter().enumerate().filter(|(_, left)| **left > 0.0);
            let rarest = classes.min_by(|(_, a), (_, b)| a.total_cmp(b));
            let Some((class, _)) = rarest else { break };
            for &unit in &of_class[class] {
                place(self, unit, &mut left, Some(class));
            }
        }
        for &unit in order {
            place(self, unit, &mut left, None);
        }
    }

    /// How much farther the split is from the share when a unit has changed sides. The number of
    /// images weighs as much as all classes.
    fn cost(&self, unit: usize) -> f64 {
        let Unit { images, classes } = &self.units[unit];
        let sign = if self.validates[unit] { -1.0 } else { 1.0 };
        let weight = self.classes.len().max(1) as f64;
        let of_classes = classes.iter();
        let of_classes =
            of_classes.map(|&(class, count)| self.classes[class].cost(sign * count as f64));
        weight * self.images.cost(sign * *images as f64) + of_classes.sum::<f64>()
    }

    /// Ensures that neither side is empty.
    fn fill(&mut self) {
        if (1..self.units.len()).contains(&self.validating) {
            return;
        }
        let cheapest = (0..self.units.len()).min_by(|&a, &b| self.cost(a).total_cmp(&self.cost(b)));
        if let Some(unit) = cheapest {
            self.flip(unit);
        }
    }

    /// Moves units as long as that brings the split nearer to the share.
    fn refine(&mut self, order: &[usize]) {
        for _ in 0..MOST_PASSES {
            let mut is_moved = false;
            for &unit in order {
                let is_last = match self.validates[unit] {
                    true => self.validating == 1,
                    false => self.validating + 1 == self.units.len(),
                };
                // More than what rounding makes.
                if !is_last && self.cost(unit) < -1e-9 {
                    self.flip(unit);
                    is_moved = true;
                }
            }
            if !is_moved {
                break;
            }
        }
    }
}
