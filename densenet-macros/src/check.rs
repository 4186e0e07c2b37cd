//! A spec as a whole: what is missing, what does not go together, and the plan.

use densenet_plan::{BlockSpec, Plan, PlanError, Ratio, Recompute, Spec, StemKind};
use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{Attribute, Ident, Path, Visibility};

use crate::bytes;
use crate::errors::Errors;
use crate::keys::KEYS;
use crate::parse::Written;
use crate::value::{Budget, Given, Growth};

/// A network that can be written out.
pub struct Network {
    /// Doc comments.
    pub docs: Vec<Attribute>,
    /// Where the runtime is.
    pub runtime: Path,
    /// The visibility of its types.
    pub vis: Visibility,
    /// The name of its type.
    pub name: Ident,
    /// Its shapes.
    pub plan: Plan,
}

/// Makes the plan of what was written, and reports why there is none.
pub fn check(written: &Written, errors: &mut Errors) -> Option<Network> {
    missing(written, errors);
    let plan = plan(written, errors)?;
    if !written.unreadable.is_empty() {
        // Defaults stand in for these keys' values: good for finding more mistakes, no more.
        return None;
    }
    if let Some(memory) = &written.values.memory {
        budget(&plan, memory, errors);
    }
    Some(Network {
        docs: written.docs.clone(),
        runtime: written.runtime.clone(),
        vis: written.vis.clone(),
        name: written.name.clone(),
        plan,
    })
}

/// Reports required keys that are not given.
fn missing(written: &Written, errors: &mut Errors) {
    for key in KEYS.iter().filter(|key| key.required) {
        if written.given(key.name).is_none() {
            let (name, title, example) = (&written.name, key.title(), key.example);
            errors.at(name, format!("`{name}` needs {title}: add `{example},`"));
        }
    }
}

/// The plan; keys that are not given have their defaults.
fn plan(written: &Written, errors: &mut Errors) -> Option<Plan> {
    let values = &written.values;
    let blocks = values.blocks.as_ref()?;
    let growth = growth_rates(values.k.as_ref()?, blocks.value.len(), errors)?;
    let theta = values
        .theta
        .as_ref()
        .map_or(Ratio::ONE, |theta| theta.value.ratio);
    let bottleneck = values.bottleneck.as_ref().map(|multiple| multiple.value);
    let stem = values
        .stem
        .as_ref()
        .map_or_else(|| StemKind::for_blocks(growth.len()), |stem| stem.value);
    let side = stem.default_side();
    let bottleneck_and_compression = bottleneck.is_some() && theta != Ratio::ONE;
    let init = match &values.init {
        Some(init) => init.value,
        None => stem.default_maps(*growth.first()?, bottleneck_and_compression),
    };
    let layers = blocks.value.iter().map(|layers| layers.value);
    let spec = Spec {
        blocks: layers
            .zip(growth)
            .map(|(layers, growth)| BlockSpec { layers, growth })
            .collect(),
        theta,
        bottleneck,
        stem,
        init,
        input: values
            .input
            .as_ref()
            .map_or([3, side, side], |input| input.value),
        classes: values
            .classes
            .as_ref()
            .map_or_else(|| stem.default_classes(), |classes| classes.value),
        dropout: values
            .dropout
            .as_ref()
            .map_or(0.0, |dropout| dropout.value.float),
    };
    let report = |error| report(error, written, errors);
    spec.plan()
        .map_err(|found| found.into_iter().for_each(report))
        .ok()
}

/// One growth rate for each block.
fn growth_rates(k: &Given<Growth>, blocks: usize, errors: &mut Errors) -> Option<Vec<usize>> {
    match &k.value {
        Growth::All(rate) => Some(vec![*rate; blocks]),
        Growth::Each(rates) if rates.len() == blocks => Some(rates.clone()),
        Growth::Each(rates) => {
            let message = format!(
                "`k` lists {} for {}\n= help: list one for each block, or write one for all: `k: 32`",
                count(rates.len(), "growth rate"),
                count(blocks, "block"),
            );
            errors.at(&k.tokens, message);
            None
        }
    }
}

/// Reports why there is no plan, on the value that is to blame.
fn report(error: PlanError, written: &Written, errors: &mut Errors) {
    let values = &written.values;
    let whole = written.name.to_token_stream();
    let (tokens, depends_on): (TokenStream, &[&str]) = match &error {
        PlanError::TooSmall(_) => {
            let input = values.input.as_ref().map(|input| &input.tokens);
            let blocks = values.blocks.as_ref().map(|blocks| &blocks.tokens);
            (
                input.or(blocks).cloned().unwrap_or(whole),
                &["input", "stem"],
            )
        }
        PlanError::NothingLeft { .. } => {
            let theta = values.theta.as_ref().map(|theta| theta.tokens.clone());
            (
                theta.unwrap_or(whole),
                &["theta", "stem", "init", "bottleneck"],
            )
        }
        PlanError::TooManyLayers { block, .. } => {
            let blocks = values.blocks.as_ref().map(|blocks| &blocks.value);
            let layers = blocks.and_then(|blocks| blocks.get(block - 1));
            (layers.map_or(whole, |layers| layers.tokens.clone()), &[])
        }
        PlanError::Overflow { .. } | PlanError::Zero { .. } => (
            whole,
            &["theta", "stem", "init", "bottleneck", "input", "classes"],
        ),
    };
    // What a default led to is not a mistake of the spec.
    if written.is_readable(depends_on) {
        errors.at(tokens, error);
    }
}

/// Reports a training step that takes more memory than there is.
fn budget(plan: &Plan, memory: &Given<Budget>, errors: &mut Errors) {
    let Budget {
        bytes: budget,
        batch,
        text,
    } = &memory.value;
    let kept = plan.training_footprint(Recompute::Nothing);
    let recomputed = plan.training_footprint(Recompute::Bottlenecks);
    if kept.bytes(*batch) <= *budget {
        return;
    }
    let fits = match (
        kept.largest_batch(*budget),
        recomputed.largest_batch(*budget),
    ) {
        (0, 0) => format!(
            "not even a batch of 1 fits, which needs {}",
            bytes::in_words(recomputed.bytes(1))
        ),
        (0, most) => format!("it fits with recompute alone, up to batch {most}"),
        (most, more) if more > most => {
            format!("it fits up to batch {most}, or {more} with recompute")
        }
        (most, _) => format!("it fits up to batch {most}"),
    };
    let needs = bytes::in_words(kept.bytes(*batch));
    let message =
        format!("a training step at batch {batch} needs {needs}; the budget is {text}; {fits}");
    errors.at(&memory.tokens, message);
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
