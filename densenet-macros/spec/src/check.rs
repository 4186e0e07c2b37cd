//! Checks a spec as a whole: what is missing, what does not fit together, and the plan.

use densenet_plan::{BlockSpec, Plan, PlanError, Ratio, Recompute, Spec};
use quote::ToTokens;
use syn::{Attribute, Ident, Path, Visibility};

use crate::bytes;
use crate::errors::Errors;
use crate::keys::KEYS;
use crate::keys::value::{Budget, Given, Growth};
use crate::parse::Written;

/// A network that can be expanded.
pub struct CheckedNetwork {
    /// Doc comments.
    pub docs: Vec<Attribute>,
    /// The path of the runtime crate.
    pub runtime: Path,
    /// The visibility of its types.
    pub vis: Visibility,
    /// The name of its type.
    pub name: Ident,
    /// Its shapes.
    pub plan: Plan,
    /// The names of its classes; empty if only their number is given.
    pub classes: Vec<String>,
}

/// Makes the plan of a spec, or reports why it has none.
pub fn check(written: &mut Written, errors: &mut Errors) -> Option<CheckedNetwork> {
    missing(written, errors);
    growth_rates(written, errors);
    let plan = plan(written, errors)?;
    if !written.is_complete() {
        // Placeholders only serve to find more mistakes.
        return None;
    }
    if let Some(memory) = &written.values.memory {
        budget(&plan, memory, errors);
    }
    Some(CheckedNetwork {
        docs: written.docs.clone(),
        runtime: written.runtime.clone(),
        vis: written.vis.clone(),
        name: written.name.clone(),
        plan,
        classes: written.class_names().to_vec(),
    })
}

/// Reports required keys that are missing, unless they are misspelled, which is reported elsewhere.
fn missing(written: &Written, errors: &mut Errors) {
    for key in KEYS.iter().filter(|key| key.required) {
        if written.given(key.name).is_none() && !written.meant.contains(&key.name) {
            let (name, title, example) = (&written.name, key.title(), key.example);
            errors.at(name, format!("`{name}` needs {title}: add `{example},`"));
        }
    }
}

/// Reports a list of growth rates that is not as long as that of the blocks.
fn growth_rates(written: &mut Written, errors: &mut Errors) {
    let (Some(blocks), Some(k)) = (&written.values.blocks, &written.values.k) else {
        return;
    };
    let Growth::Each(rates) = &k.value else {
        return;
    };
    if rates.len() == blocks.value.len() {
        return;
    }
    let message = format!(
        "`k` lists {} for {}\n= help: list one for each block, or write one for all: `k: 32`",
        count(rates.len(), "growth rate"),
        count(blocks.value.len(), "block"),
    );
    errors.at(&k.tokens, message);
    written.unreadable.push("k");
    written.values.k = None;
}

/// The plan. Keys that are missing or cannot be read have their defaults.
fn plan(written: &Written, errors: &mut Errors) -> Option<Plan> {
    let values = &written.values;
    let layers: Vec<_> = values
        .blocks
        .as_ref()?
        .value
        .iter()
        .map(|layers| layers.value)
        .collect();
    let growth = match values.k.as_ref().map(|k| &k.value) {
        Some(Growth::Each(rates)) => rates.clone(),
        Some(Growth::All(rate)) => vec![*rate; layers.len()],
        // `k` is missing or unreadable.
        None => vec![1; layers.len()],
    };
    let theta = value(&values.theta).map_or(Ratio::ONE, |theta| theta.ratio);
    let bottleneck = value(&values.bottleneck);
    let stem = written.stem();
    let init = match value(&values.init) {
        Some(init) => init,
        None => stem.default_maps(
            *growth.first()?,
            bottleneck.is_some() && theta != Ratio::ONE,
        ),
    };
    let side = stem.default_side();
    let blocks = layers.into_iter().zip(growth);
    let spec = Spec {
        blocks: blocks
            .map(|(layers, growth)| BlockSpec { layers, growth })
            .collect(),
        theta,
        bottleneck,
        stem,
        init,
        input: value(&values.input).unwrap_or([3, side, side]),
        classes: written.classes(),
        dropout: value(&values.dropout).map_or(0.0, |dropout| dropout.float),
    };
    let report = |error| report(error, written, errors);
    spec.plan()
        .map_err(|found| found.into_iter().for_each(report))
        .ok()
}

fn value<T: Copy>(given: &Option<Given<T>>) -> Option<T> {
    given.as_ref().map(|given| given.value)
}

/// Reports why there is no plan, on the value that is to blame, unless a placeholder may be.
fn report(error: PlanError, written: &Written, errors: &mut Errors) {
    let values = &written.values;
    let blocks = values.blocks.as_ref();
    let (culprit, is_certain) = match &error {
        PlanError::TooSmall(_) => {
            let input = values.input.as_ref().map(|input| &input.tokens);
            let is_certain = written.is_readable("input") && written.is_readable("stem");
            (input.or(blocks.map(|blocks| &blocks.tokens)), is_certain)
        }
        PlanError::TooManyLayers { block, .. } => {
            let layers = blocks.and_then(|blocks| blocks.value.get(block - 1));
            (layers.map(|layers| &layers.tokens), true)
        }
        PlanError::NothingLeft { .. } => {
            let theta = values.theta.as_ref().map(|theta| &theta.tokens);
            (theta, written.is_complete())
        }
        PlanError::Theta { .. } => (values.theta.as_ref().map(|theta| &theta.tokens), true),
        PlanError::Dropout { .. } => {
            let dropout = values.dropout.as_ref().map(|dropout| &dropout.tokens);
            (dropout, true)
        }
        PlanError::Overflow { .. } | PlanError::Zero { .. } => (None, written.is_complete()),
    };
    if is_certain {
        let name = written.name.to_token_stream();
        errors.at(culprit.unwrap_or(&name), error);
    }
}

/// Reports a training step that exceeds the memory budget.
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
        (0, most) => format!("it fits only with recompute, up to batch {most}"),
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
