//! The network as a whole.

use densenet_plan::{Block, Plan, Recompute};
use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Attribute, Ident};

use super::stage::{Stage, definition};
use super::{Field, Scope, collection, docs, input, layer, literal, loss};

/// The network's struct and impls.
pub struct Whole<'a> {
    docs: &'a [Attribute],
    plan: &'a Plan,
    stages: &'a [Stage],
    fields: Vec<Field>,
}

impl<'a> Whole<'a> {
    /// The network of these stages.
    pub fn new(scope: &Scope, docs: &'a [Attribute], plan: &'a Plan, stages: &'a [Stage]) -> Self {
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
            .map(Stage::as_field)
            .chain([norm, classifier])
            .collect();
        Self {
            docs,
            plan,
            stages,
            fields,
        }
    }

    /// The struct.
    pub fn definition(&self, scope: &Scope) -> TokenStream {
        let docs = self.docs;
        let figures = docs::network(self.plan);
        let definition = definition(scope, &figures, scope.name, &self.fields);
        quote!(#(#docs)* #definition)
    }

    /// Its impls.
    pub fn impls(&self, scope: &Scope) -> TokenStream {
        let constants = constants(scope, self.plan, self.stages);
        let collection = collection::collection(scope.name, &self.fields);
        let forward = forward(scope.name, self.plan, self.stages);
        // What the network takes is what its stem takes.
        let input = self.stages.first().map(|stem| {
            let supertrait = input::name(&stem.name).into_token_stream();
            input::input(scope.name, stem.takes, stem.of, &supertrait)
        });
        let loss = loss::loss(scope.name, self.plan.classes());
        quote!(#constants #collection #input #forward #loss)
    }
}

/// What is known before the network runs.
fn constants(scope: &Scope, plan: &Plan, stages: &[Stage]) -> TokenStream {
    let Scope { runtime, name, .. } = scope;
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
    let dropout = literal::float(plan.dropout());
    let stages = stages.iter().map(|stage| &stage.name);
    quote! {
        impl #runtime::Network for #name {
            const NAME: &'static str = #name_in_words;
            const PLAN: plan::Plan = plan::Plan::of_stages(
                #(#stem)*,
                &[#(#blocks),*],
                &[#(#transitions),*],
                #classes,
                #dropout,
            );
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

/// Stage behind stage.
fn forward(name: &Ident, plan: &Plan, stages: &[Stage]) -> TokenStream {
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
                nn::trainable::<Self>(x.shape().batch())?;
                #(let x = self.#fields.try_forward_mut(x)?;)*
                nn::train_head(&mut self.norm, &mut self.classifier, HEAD, x)
            }
        }
    }
}
