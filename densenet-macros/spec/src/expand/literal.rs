//! Numbers and plans as tokens.

use densenet_plan::{Block, Footprint, Stem, StemKind, Transition};
use proc_macro2::{Literal, TokenStream};
use quote::quote;

/// A number without a type suffix.
pub fn number(number: usize) -> Literal {
    Literal::usize_unsuffixed(number)
}

/// A floating-point number without a type suffix.
pub fn float(number: f64) -> Literal {
    Literal::f64_unsuffixed(number)
}

/// A stem's shapes.
pub fn stem(stem: &Stem) -> TokenStream {
    let kind = match stem.kind {
        StemKind::ImageNet => quote!(ImageNet),
        StemKind::Cifar => quote!(Cifar),
    };
    let [channels, height, width, maps] =
        [stem.channels, stem.height, stem.width, stem.maps].map(number);
    quote! {
        plan::Stem {
            kind: plan::StemKind::#kind,
            channels: #channels,
            height: #height,
            width: #width,
            maps: #maps,
        }
    }
}

/// A block's shapes.
pub fn block(block: &Block) -> TokenStream {
    let [input, layers, growth, height, width] = [
        block.input,
        block.layers,
        block.growth,
        block.height,
        block.width,
    ]
    .map(number);
    let bottleneck = match block.bottleneck.map(number) {
        Some(maps) => quote!(::core::option::Option::Some(#maps)),
        None => quote!(::core::option::Option::None),
    };
    quote! {
        plan::Block {
            input: #input,
            layers: #layers,
            growth: #growth,
            bottleneck: #bottleneck,
            height: #height,
            width: #width,
        }
    }
}

/// A transition's shapes.
pub fn transition(transition: &Transition) -> TokenStream {
    let Transition {
        input,
        output,
        height,
        width,
    } = *transition;
    let [input, output, height, width] = [input, output, height, width].map(number);
    quote! {
        plan::Transition {
            input: #input,
            output: #output,
            height: #height,
            width: #width,
        }
    }
}

/// The bytes of a training step.
pub fn footprint(footprint: Footprint) -> TokenStream {
    let fixed = Literal::u64_unsuffixed(footprint.fixed);
    let per_image = Literal::u64_unsuffixed(footprint.per_image);
    quote!(plan::Footprint { fixed: #fixed, per_image: #per_image })
}
