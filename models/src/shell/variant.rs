//! Variants of presets, for programs that measure or check other shapes.

use std::str::FromStr;

use clap::Args;
use densenet_runtime::plan::{BlockSpec, Plan, Ratio, Spec};

/// What is changed of a preset.
#[derive(Args, Clone, Debug, Default)]
pub struct Variant {
    /// A growth rate that replaces the preset's.
    #[arg(long, value_name = "K")]
    pub growth: Option<usize>,
    /// Numbers of layers that replace the preset's, such as 6,12,24,16.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    pub layers: Option<Vec<usize>>,
    /// A size of the images that replaces the preset's, such as 225x301.
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = size)]
    pub input: Option<(usize, usize)>,
}

impl Variant {
    /// The preset's plan with these changes.
    ///
    /// # Errors
    /// If there is no such network, with all reasons.
    pub fn of(&self, plan: Plan) -> Result<Plan, String> {
        if let (None, None, None) = (&self.growth, &self.layers, &self.input) {
            return Ok(plan);
        }
        let (first, stem) = (&plan.blocks()[0], plan.stem());
        let growth = self.growth.unwrap_or(first.growth);
        let layers = match &self.layers {
            Some(layers) => layers.clone(),
            None => plan.blocks().iter().map(|block| block.layers).collect(),
        };
        let compresses = plan.transitions().iter().any(|t| t.output < t.input);
        let (height, width) = self.input.unwrap_or((stem.height, stem.width));
        let spec = Spec {
            blocks: layers
                .into_iter()
                .map(|layers| BlockSpec { layers, growth })
                .collect(),
            // The only compression of the paper's networks.
            theta: if compresses { "0.5" } else { "1" }
                .parse()
                .map_err(|error: <Ratio as FromStr>::Err| error.to_string())?,
            bottleneck: first.bottleneck.map(|maps| maps / first.growth),
            stem: stem.kind,
            init: stem
                .kind
                .default_maps(growth, first.bottleneck.is_some() && compresses),
            input: [stem.channels, height, width],
            classes: plan.classes(),
            dropout: plan.dropout(),
        };
        spec.plan().map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            errors.join("; ")
        })
    }
}

/// A height and a width.
fn size(text: &str) -> Result<(usize, usize), String> {
    let sides = text
        .split_once('x')
        .and_then(|(height, width)| Some((height.parse().ok()?, width.parse().ok()?)));
    sides.ok_or_else(|| format!("{text:?} is not a size; write one as 224x224"))
}
