//! The fields that hold layers.

use densenet_plan::Layer;
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

use super::{Field, Scope, literal::number};

/// A dense layer.
pub fn dense(scope: &Scope, number_in_block: usize, layer: Layer) -> Field {
    let runtime = scope.runtime;
    let [input, growth] = [layer.input, layer.growth].map(number);
    let (docs, ty) = match layer.bottleneck {
        Some(maps) => {
            let docs = format!(
                "{input} maps; BN, ReLU, 1x1 convolution to {maps}, BN, ReLU, 3x3 convolution to {growth}.",
            );
            let maps = number(maps);
            (
                docs,
                quote!(#runtime::nn::BottleneckLayer<#input, #maps, #growth, E, D>),
            )
        }
        None => (
            format!("{input} maps; BN, ReLU, 3x3 convolution to {growth}."),
            quote!(#runtime::nn::PlainLayer<#input, #growth, E, D>),
        ),
    };
    let name = format_ident!("layer{number_in_block}");
    Field { docs, name, ty }
}

/// A convolution without bias.
pub fn conv(scope: &Scope, docs: &str, input: usize, output: usize, kernel: usize) -> Field {
    let [input, output, kernel] = [input, output, kernel].map(number);
    layer(
        scope,
        "conv",
        docs,
        quote!(Conv<#input, #output, #kernel, E, D>),
    )
}

/// A batch normalisation.
pub fn norm(scope: &Scope, docs: &str, maps: usize) -> Field {
    let maps = number(maps);
    layer(scope, "norm", docs, quote!(BatchNorm<#maps, E, D>))
}

/// The linear layer at the end.
pub fn classifier(scope: &Scope, docs: &str, features: usize, classes: usize) -> Field {
    let [features, classes] = [features, classes].map(number);
    layer(
        scope,
        "classifier",
        docs,
        quote!(Classifier<#features, #classes, E, D>),
    )
}

fn layer(scope: &Scope, name: &str, docs: &str, ty: TokenStream) -> Field {
    let runtime = scope.runtime;
    Field {
        docs: docs.to_owned(),
        name: format_ident!("{name}"),
        ty: quote!(#runtime::nn::#ty),
    }
}
