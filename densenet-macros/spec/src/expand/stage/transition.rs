//! A transition between two blocks.

use densenet_plan::{Plan, Transition};
use quote::{format_ident, quote};

use super::ExpandedStage;
use crate::expand::{Maps, Scope, layer, literal};

/// The transition after the block with this number, counted from 1.
pub fn transition(
    scope: &Scope,
    plan: &Plan,
    number: usize,
    transition: &Transition,
) -> ExpandedStage {
    let Transition {
        input,
        output,
        height,
        width,
    } = *transition;
    let [from, to] = [input, output].map(literal::number);
    ExpandedStage {
        name: scope.name_of(&format!("Transition{number}")),
        field: format_ident!("transition{number}"),
        title: format!("transition {number}"),
        docs: " BN, ReLU, 1x1 convolution, 2x2 average pool.".into(),
        fields: vec![
            layer::norm(scope, "Normalises the block's feature maps.", input),
            layer::conv(scope, "The 1x1 convolution.", input, output, 1),
        ],
        takes: Maps::new(input, (height, width)),
        of: "feature maps",
        gives: Maps::new(output, transition.output_size()),
        kind: format_ident!("Transition"),
        plan: literal::transition(transition),
        shapes: quote!(TransitionShapes<#from, #to>),
        dropout: plan.dropout(),
    }
}
