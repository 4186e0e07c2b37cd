//! The outcomes of the networks: a file with a line for each, the picture, and the comparison.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use densenet_models::shell::thousands;
use densenet_runtime::figures::{Efficiency, Measured};
use densenet_runtime::{say, tell};
use serde::{Deserialize, Serialize};

use super::networks::{One, kinds};

/// A network that was trained.
#[derive(Clone, Serialize, Deserialize)]
pub struct Trained {
    pub kind: String,
    /// L.
    pub depth: usize,
    /// k.
    pub growth: usize,
    pub parameters: u64,
    pub multiply_adds: u64,
    pub seed: u64,
    pub recipe: String,
    /// Misclassified test images after each epoch.
    pub curve: Vec<usize>,
    /// Test images.
    pub images: usize,
    /// Seconds from the first step to the last evaluation, beside the other jobs.
    pub seconds: f64,
    pub device: String,
}

impl Trained {
    /// Misclassified test images at the end.
    pub fn mistakes(&self) -> usize {
        self.curve.last().copied().unwrap_or(self.images)
    }

    /// The share of these, in percent.
    fn error(&self) -> f64 {
        100.0 * self.mistakes() as f64 / self.images.max(1) as f64
    }
}

/// The file of results.
pub struct Results {
    path: PathBuf,
    trained: Vec<Trained>,
}

impl Results {
    /// Reads the file, or makes one. A truncated last line is dropped, and its network is trained again.
    ///
    /// # Errors
    /// When it cannot be read or made, a line is malformed, or belongs to another recipe.
    pub fn open(path: &Path, recipe: &str) -> Result<Self, Box<dyn Error>> {
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| said(&error))?,
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut trained = Vec::new();
        for (number, line) in text[..whole].lines().enumerate() {
            let place = format!("line {}", number + 1);
            let one: Trained = serde_json::from_str(line)
                .map_err(|error| said(&format!("{place} is no result: {error}")))?;
            if one.recipe != recipe {
                return Err(said(&format!(
                    "{place} belongs to another recipe ({}, not {recipe}); name another file with \
                        --out",
                    one.recipe
                ))
                .into());
            }
            trained.push(one);
        }
        if whole < text.len() {
            let file = OpenOptions::new().write(true).open(path);
            file.and_then(|file| file.set_len(whole as u64))
                .map_err(|error| said(&error))?;
            tell!(
                "{}: the last line is truncated, and is dropped",
                path.display()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            trained,
        })
    }

    pub fn trained(&self) -> &[Trained] {
        &self.trained
    }

    /// Whether a network is among them.
    pub fn has(&self, one: &One) -> bool {
        (self.trained.iter()).any(|trained| {
            let own = (trained.kind.as_str(), trained.depth, trained.seed);
            own == (one.kind, one.plan.depth(), one.seed)
        })
    }

    /// Adds a network, and its line to the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&mut self, trained: Trained) -> Result<(), Box<dyn Error>> {
        let mut line = serde_json::to_string(&trained)?;
        line.push('\n');
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        self.trained.push(trained);
        Ok(())
    }

    /// Draws the errors, and prints them with a comparison with the paper's claim.
    ///
    /// # Errors
    /// When the picture cannot be drawn.
    pub fn conclude(&self, picture: &Path) -> Result<(), Box<dyn Error>> {
        let families: Vec<_> = kinds().map(|kind| (kind, self.of_kind(kind))).collect();
        say!("\n| network | parameters | multiply-adds | errors (%) | mean |");
        say!("|---|---:|---:|---|---:|");
        let mut figure = Efficiency::default();
        for (kind, sizes) in &families {
            for (size, errors) in sizes {
                let errors: Vec<_> = errors.iter().map(|error| format!("{error:.2}")).collect();
                say!(
                    "| {kind}, L = {} | {} | {:.1} M | {} | {:.2} |",
                    size.name,
                    thousands(size.parameters as usize),
                    size.multiply_adds as f64 / 1e6,
                    errors.join(", "),
                    size.error,
                );
            }
            let sizes = sizes.iter().map(|(size, _)| size.clone());
            figure = figure.with(*kind, sizes.collect());
        }
        say!("");
        // The first kind is BC, the last one plain.
        if let [(dense, own), .., (plain, theirs)] = &families[..] {
            let own: Vec<_> = (own
                .iter()
                .map(|(one, _)| (one.parameters as f64, one.error)))
            .collect();
            for (size, _) in theirs {
                let parameters = size.parameters;
                let here = format!(
                    "{plain}, L = {}, has {:.2}% with {} parameters",
                    size.name,
                    size.error,
                    thousands(parameters as usize),
                );
                match needed(&own, size.error) {
                    Some(needed) => say!(
                        "{here}; {dense} needs {} for that, {:.2} of them",
                        thousands(needed.round() as usize),
                        needed / parameters as f64,
                    ),
                    None => say!("{here}; no {dense} of these sizes is worse, or none is better"),
                }
            }
        }
        figure.draw(
            picture,
            "Fashion-MNIST, k = 12: test error against cost (the numbers are L)",
            "test error (%)",
        )?;
        Ok(())
    }

    /// The networks of a kind in the order of their parameters, each with the mean of its errors, and
    /// these.
    fn of_kind(&self, kind: &str) -> Vec<(Measured, Vec<f64>)> {
        let mut own: Vec<&Trained> = self.trained.iter().filter(|one| one.kind == kind).collect();
        own.sort_by_key(|one| (one.parameters, one.seed));
        let sizes = own.chunk_by(|a, b| a.parameters == b.parameters);
        let measured = sizes.map(|alike| {
            let errors: Vec<_> = alike.iter().map(|one| one.error()).collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            let measured = Measured {
                name: alike[0].depth.to_string(),
                parameters: alike[0].parameters,
                multiply_adds: alike[0].multiply_adds,
                error: mean,
            };
            (measured, errors)
        });
        measured.collect()
    }
}

/// The parameters with which a kind has this error: between the two sizes around it, in a straight
/// line over the logarithm of the parameters. `curve` has parameters and error of each size, the
/// smallest first; `None` if no size has a higher error or none a lower one.
fn needed(curve: &[(f64, f64)], error: f64) -> Option<f64> {
    let around = curve.windows(2).rfind(|pair| {
        let (before, after) = (pair[0].1, pair[1].1);
        before >= error && error >= after
    })?;
    let ((few, high), (many, low)) = (around[0], around[1]);
    let way = match high > low {
        true => (high - error) / (high - low),
        false => 0.0,
    };
    Some(few * (many / few).powf(way))
}
