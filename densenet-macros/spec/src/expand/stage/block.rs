//! A dense block.

use densenet_plan::{Block, Plan};
use quote::{format_ident, quote};

use super::ExpandedStage;
use crate::expand::{Maps, Scope, layer, literal};

/// The block with this number, counted from 1.
pub fn block(scope: &Scope, plan: &Plan, number: usize, block: &Block) -> ExpandedStage {
    let fields = block
        .iter()
        .zip(1..)
        .map(|(layer, number)| layer::dense(scope, number, layer));
    let size = (block.height, block.width);
    let [layers, input, maps, growth] = [
        block.layers,
        block.input,
        block.bottleneck.unwrap_or(0),
        block.growth,
    ]
    .map(literal::number);
    ExpandedStage {
        name: scope.name_of(&format!("Block{number}")),
        field: format_ident!("block{number}"),
        title: format!("block {number}"),
        docs: format!(
            " Each layer reads all feature maps before it and appends {} of its own.",
            block.growth
        ),
        fields: fields.collect(),
        takes: Maps::new(block.input, size),
        of: "feature maps",
        gives: Maps::new(block.output(), size),
        kind: format_ident!("Block"),
        plan: literal::block(block),
        shapes: quote!(BlockShapes<#layers, #input, #maps, #growth>),
        dropout: plan.dropout(),
    }
}
