//! The network as a whole.

use densenet_plan::{Block, Recompute};
use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, quote, quote_spanned};

use super::stage::{ExpandedStage, definition};
use super::{Field, Scope, collection, docs, input, layer, literal, loss};
use crate::check::CheckedNetwork;

/// The network's struct and impls.
pub struct Whole<'a> {
    network: &'a CheckedNetwork,
    stages: &'a [ExpandedStage],
    fields: Vec<Field>,
}

impl<'a> Whole<'a> {
    /// The network of these stages.
    pub fn new(scope: &Scope, network: &'a CheckedNetwork, stages: &'a [ExpandedStage]) -> Self {
        let plan = &network.plan;
        let features = plan.features();
        let norm = layer::norm(scope, "Normalises the last block's feature maps.", features);
        let classifier = layer::classifier(
            scope,
            "Pooled features to logits.",
            features,
            plan.classes(),
        );
        let fields = stages
            .iter()
            .map(ExpandedStage::as_field)
            .chain([norm, classifier])
            .collect();
        Self {
            network,
            stages,
            fields,
        }
    }

    /// The struct.
    pub fn definition(&self, scope: &Scope) -> TokenStream {
        let docs = &self.network.docs;
        let figures = docs::network(self.network);
        let definition = definition(scope, &figures, scope.name, &self.fields);
        quote!(#(#docs)* #definition)
    }

    /// Its impls.
    pub fn impls(&self, scope: &Scope) -> TokenStream {
        let constants = constants(scope, self.network, self.stages);
        let collection = collection::collection(scope.name, &self.fields);
        let forward = forward(self.network, self.stages);
        // The input of the network is that of its stem.
        let input = self.stages.first().map(|stem| {
            let supertrait = input::name(&stem.name).into_token_stream();
            input::input(scope.name, stem.takes, stem.of, &supertrait)
        });
        let loss = loss::loss(scope.name, self.network.plan.classes());
        quote!(#constants #collection #input #forward #loss)
    }
}

/// The constants of the network.
fn constants(scope: &Scope, network: &CheckedNetwork, stages: &[ExpandedStage]) -> TokenStream {
    let Scope { runtime, name, .. } = scope;
    let plan = &network.plan;
    let name_in_words = name.to_string();
    let parameters = literal::number(plan.parameter_count());
    let multiply_adds = Literal::u64_unsuffixed(plan.multiply_adds());
    let layers = literal::number(plan.depth());
    let kept = literal::footprint(plan.training_footprint(Recompute::Nothing));
    let recomputed = literal::footprint(plan.training_footprint(Recompute::Bottlenecks));
    let plan_of = |kind: &str| {
        let stages = stages.iter().filter(|stage| stage.kind == kind);
        let plans = stages.map(|stage| stage.name.to_token_stream());
        plans
            .map(|stage| quote!(<#stage>::PLAN))
            .collect::<Vec<_>>()
    };
    let (stem, blocks, transitions) = (plan_of("Stem"), plan_of("Block"), plan_of("Transition"));
    let classes = literal::number(plan.classes());
    let names = class_names(&network.classes);
    let with_names = (!names.is_empty()).then(|| quote!(.with_class_names(Self::CLASSES)));
    let dropout = literal::float(plan.dropout());
    let images = stages
        .first()
        .map(|stem| stem.takes.shape(quote!(::core::primitive::usize)));
    let stages = stages.iter().map(|stage| &stage.name);
    quote! {
        impl #runtime::Network for #name {
            const NAME: &'static str = #name_in_words;
            #names
            const PLAN: plan::Plan = plan::Plan::of_stages(
                #(#stem)*,
                &[#(#blocks),*],
                &[#(#transitions),*],
                #classes,
                #dropout,
            )#with_names;
            type Images = #images;
            type Logits = (::core::primitive::usize, dfdx::Const<#classes>);
            type Features = (#(<#stages as nn::Transplant>::Shapes,)*);
        }

        impl #name {
            /// Trainable parameters.
            pub const PARAMETERS: usize = #parameters;
            /// Multiply-adds of convolutions and classifier for one image.
            pub const MULTIPLY_ADDS: u64 = #multiply_adds;
            /// The depth L as the paper counts it: convolutions and the classifier.
            pub const LAYERS: usize = #layers;

            /// Bytes of a training step in f32: parameters, gradients, momentum, statistics,
            /// activations.
            pub const fn training_bytes(batch: usize, recompute: plan::Recompute) -> u64 {
                let footprint = match recompute {
                    plan::Recompute::Nothing => #kept,
                    plan::Recompute::Bottlenecks => #recomputed,
                };
                footprint.bytes(batch)
            }
        }
    }
}

/// `CLASSES`, if the classes have names.
pub fn class_names(names: &[String]) -> TokenStream {
    if names.is_empty() {
        return TokenStream::new();
    }
    quote! {
        const CLASSES: &'static [&'static str] = &[#(#names),*];
    }
}

/// Stage by stage.
fn forward(network: &CheckedNetwork, stages: &[ExpandedStage]) -> TokenStream {
    let CheckedNetwork { name, plan, .. } = network;
    let input = input::name(name);
    let fields: Vec<_> = stages.iter().map(|stage| &stage.field).collect();
    let (height, width) = plan
        .blocks()
        .last()
        .map_or((0, 0), |Block { height, width, .. }| (*height, *width));
    let [features, height, width, classes] =
        [plan.features(), height, width, plan.classes()].map(literal::number);
    let output = quote!(dfdx::Tensor<(S::Batch, dfdx::Const<#classes>), f32, dfdx::Cpu, T>);
    quote_spanned! {super::at(name)=>
        const HEAD: nn::Head = nn::Head {
            input: #features,
            height: #height,
            width: #width,
            classes: #classes,
        };

        /// Inference.
        impl<S: #input, T: nn::Untaped> dfdx::Module<dfdx::Tensor<S, f32, dfdx::Cpu, T>> for #name {
            type Output = #output;
            type Error = <dfdx::Cpu as dfdx::HasErr>::Err;

            fn try_forward(
                &self,
                x: dfdx::Tensor<S, f32, dfdx::Cpu, T>,
            ) -> ::core::result::Result<Self::Output, Self::Error> {
                #(let x = self.#fields.try_forward(x)?;)*
                nn::infer_head(&self.norm, &self.classifier, HEAD, x)
            }
        }

        /// Training.
        impl<S: #input, T: nn::Taped> dfdx::ModuleMut<dfdx::Tensor<S, f32, dfdx::Cpu, T>> for #name {
            type Output = #output;
            type Error = nn::ForwardError;

            fn try_forward_mut(
                &mut self,
                x: dfdx::Tensor<S, f32, dfdx::Cpu, T>,
            ) -> ::core::result::Result<Self::Output, Self::Error> {
                nn::trainable(&*self, x.shape().batch())?;
                #(let x = self.#fields.try_forward_mut(x)?;)*
                nn::train_head(&mut self.norm, &mut self.classifier, HEAD, x)
            }
        }
    }
}
