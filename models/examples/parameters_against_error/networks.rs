//! The networks that are compared.

use std::fmt;

use densenet_runtime::plan::Plan;
use densenet_spec::{ParsedSpec, SpecErrors};

/// The growth rate of all, as in the paper's Fig. 4.
pub const GROWTH: usize = 12;

/// A kind: its name, its words in a spec, and the layers of each block of its sizes. The smallest
/// sizes have 37,000 to 53,000 parameters. The largest are the paper's L = 40 with a million, its
/// BC with L = 100, and a C and a B with about as many parameters as that BC.
const KINDS: [(&str, &str, [usize; 4]); 4] = [
    ("DenseNet-BC", "theta: 0.5, bottleneck, ", [2, 4, 8, 16]),
    ("DenseNet-B", "bottleneck, ", [2, 4, 6, 12]),
    ("DenseNet-C", "theta: 0.5, ", [3, 5, 8, 13]),
    ("DenseNet", "", [2, 4, 6, 12]),
];

/// The kinds, in the figure's order: those that need least for an error first.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().map(|(kind, ..)| kind)
}

/// A network that is trained.
pub struct One {
    pub kind: &'static str,
    pub plan: Plan,
    pub seed: u64,
}

impl fmt::Display for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, plan, seed } = self;
        write!(f, "{kind} (L = {}, seed {seed})", plan.depth())
    }
}

/// All networks, the costly ones first, since the last ones to end leave a device idle.
pub fn networks(seeds: u64) -> Result<Vec<One>, SpecErrors> {
    let mut all = Vec::new();
    for size in (0..4).rev() {
        for (kind, words, layers) in KINDS {
            let layers = layers[size];
            let spec = format!(
                "blocks: [{layers}, {layers}, {layers}], k: {GROWTH}, {words}input: [1, 28, 28]"
            );
            let plan = ParsedSpec::parse(&spec)?.plan;
            all.extend((0..seeds).map(|seed| One {
                kind,
                plan: plan.clone(),
                seed,
            }));
        }
    }
    // One of each before the second of any.
    all.sort_by_key(|one| one.seed);
    Ok(all)
}
