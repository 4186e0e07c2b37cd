//! The first layers.

use densenet_plan::{Plan, StemKind};
use quote::{format_ident, quote};

use super::ExpandedStage;
use crate::expand::{Maps, Scope, layer, literal};

/// The stem of a network.
pub fn stem(scope: &Scope, plan: &Plan) -> ExpandedStage {
    let stem = plan.stem();
    let (docs, conv) = match stem.kind {
        StemKind::ImageNet => (
            " 7x7 convolution with stride 2, BN, ReLU, 3x3 max pool with stride 2.",
            "The 7x7 convolution, stride 2, padding 3.",
        ),
        StemKind::Cifar => (" A 3x3 convolution.", "The 3x3 convolution, padding 1."),
    };
    let mut fields = vec![layer::conv(
        scope,
        conv,
        stem.channels,
        stem.maps,
        stem.kernel(),
    )];
    if stem.kind == StemKind::ImageNet {
        fields.push(layer::norm(
            scope,
            "Normalises the convolution's output.",
            stem.maps,
        ));
    }
    let [channels, kernel, maps] = [stem.channels, stem.kernel(), stem.maps].map(literal::number);
    ExpandedStage {
        name: scope.name_of("Stem"),
        field: format_ident!("stem"),
        title: "stem".into(),
        docs: docs.into(),
        fields,
        takes: Maps::new(stem.channels, (stem.height, stem.width)),
        of: "images",
        gives: Maps::new(stem.maps, stem.output_size()),
        kind: format_ident!("Stem"),
        plan: literal::stem(stem),
        shapes: quote!(StemShapes<#channels, #kernel, #maps>),
        // Dropout follows every convolution but the first (paper, section 4.2).
        dropout: 0.0,
    }
}
