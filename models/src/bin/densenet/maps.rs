//! Pictures with class maps over them.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use densenet_runtime::figures::ClassMaps;
use densenet_runtime::{MapsOf, Outputs};

use crate::infer::{Said, Wanted, probabilities};
use crate::saved::Saved;
use crate::seen::{file_name, fresh_folder, rgb};

/// The options that say which class maps are drawn.
#[derive(Args)]
pub struct MapOptions {
    /// Writes each picture, as the network sees it, with class maps over it, which show what each
    /// position adds to the logit of a class: a PNG for each picture, in a new folder.
    #[arg(long, value_name = "DIR")]
    maps: Option<PathBuf>,
    /// The number of a picture's likeliest classes that get maps.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "maps", value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// The names of the classes that get maps, instead of the likeliest.
    #[arg(
        long,
        value_name = "CLASS,..",
        value_delimiter = ',',
        requires = "maps",
        conflicts_with = "top"
    )]
    maps_of: Vec<String>,
}

impl MapOptions {
    /// The maps to draw; `None` if there are none.
    pub fn drawn(&self, saved: &Saved) -> Result<Option<Drawn>, Box<dyn Error>> {
        let Some(folder) = self.maps.clone() else {
            return Ok(None);
        };
        let names = saved.class_names();
        let number = |wanted: &String| {
            let class = names.iter().position(|name| name == wanted);
            class.ok_or_else(|| {
                let shown = names.iter().take(20).map(|name| format!("{name:?}"));
                let more = if names.len() > 20 { ", .." } else { "" };
                let shown = shown.collect::<Vec<_>>().join(", ");
                format!("--maps-of: there is no class {wanted:?}; the classes are {shown}{more}")
            })
        };
        // All classes of that name, if several have it.
        let numbers = |wanted: &String| {
            let own = saved.notes.classes.iter().enumerate();
            let own = own.filter(|(_, name)| *name == wanted);
            match own.map(|(class, _)| class).collect::<Vec<_>>() {
                none if none.is_empty() => number(wanted).map(|class| vec![class]),
                own => Ok(own),
            }
        };
        let classes = self.maps_of.iter().map(numbers);
        let classes = classes.collect::<Result<Vec<_>, _>>()?.concat();
        fresh_folder("--maps", &folder)?;
        Ok(Some(Drawn {
            folder,
            top: usize::from(self.top),
            classes,
            names,
        }))
    }
}

/// Draws class maps.
pub struct Drawn {
    folder: PathBuf,
    top: usize,
    /// The requested classes, or the likeliest if there are none.
    classes: Vec<usize>,
    names: Vec<String>,
}

impl Drawn {
    /// What the network is asked for.
    pub fn wanted(&self) -> Wanted<'_> {
        let of = match self.classes.as_slice() {
            [] => MapsOf::Top(self.top),
            classes => MapsOf::Classes(classes),
        };
        Wanted {
            outputs: Outputs {
                class_maps: of.count(self.names.len()),
                ..Outputs::default()
            },
            of,
        }
    }

    /// Draws the maps of a picture, one of this many.
    pub fn draw(
        &self,
        saved: &Saved,
        said: &Said<'_>,
        path: &str,
        of: usize,
    ) -> Result<(), Box<dyn Error>> {
        let (stem, head) = (saved.plan.stem(), saved.plan.head());
        let all = probabilities(said.logits, saved.kind);
        let maps = said.maps.iter().map(|&(class, map)| {
            let words = format!("{} {:.1}%", self.names[class], 100.0 * all[class]);
            (words, map)
        });
        let figure = ClassMaps {
            picture: &rgb(said.pixels, stem.channels),
            size: [stem.height, stem.width],
            map_size: [head.height, head.width],
            maps: maps.collect(),
        };
        let file = file_name(said.index + 1, of, path);
        Ok(figure.draw(self.folder.join(file), path)?)
    }
}
