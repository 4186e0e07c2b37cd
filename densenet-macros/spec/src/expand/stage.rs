//! What stem, blocks and transitions have in common: a struct of layers that turns feature maps
//! into feature maps.

mod block;
mod stem;
mod transition;

use densenet_plan::Plan;
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::Ident;

use super::{Field, Maps, Scope, collection, input, literal};

/// A stage of a network.
pub struct ExpandedStage {
    /// Its type.
    pub name: Ident,
    /// Its field in the network.
    pub field: Ident,
    /// Its name in words: "block 1".
    pub title: String,
    /// What it does, in a sentence or two.
    pub docs: String,
    /// Its layers.
    pub fields: Vec<Field>,
    /// Its input.
    pub takes: Maps,
    /// The items of its input: images or feature maps.
    pub of: &'static str,
    /// Its output.
    pub gives: Maps,
    /// `Stem`, `Block` or `Transition`: the type of its plan and the variant of `nn::Stage`.
    pub kind: Ident,
    /// Its plan.
    pub plan: TokenStream,
    /// The shapes of its tensors, as a type of the runtime's `nn`.
    pub shapes: TokenStream,
    /// Probability of dropout after its convolutions.
    pub dropout: f64,
}

/// The stages of a network, first to last.
pub fn all(scope: &Scope, plan: &Plan) -> Vec<ExpandedStage> {
    let mut stages = vec![stem::stem(scope, plan)];
    for (index, block) in plan.blocks().iter().enumerate() {
        stages.push(block::block(scope, plan, index + 1, block));
        if let Some(transition) = plan.transitions().get(index) {
            stages.push(transition::transition(scope, plan, index + 1, transition));
        }
    }
    stages
}

impl ExpandedStage {
    /// The stage as a field of its network.
    pub fn as_field(&self) -> Field {
        let name = &self.name;
        Field {
            docs: format!(
                "{}: {} to {}.",
                capital(&self.title),
                self.takes,
                self.gives
            ),
            name: self.field.clone(),
            ty: quote!(#name<E, D>),
        }
    }

    /// The struct.
    pub fn definition(&self, scope: &Scope) -> TokenStream {
        let (title, network) = (capital(&self.title), scope.name);
        let Self {
            takes, gives, docs, ..
        } = self;
        let title = format!(" {title} of [`{network}`]: {takes} to {gives}.");
        let docs = [title, String::new(), docs.clone()];
        definition(scope, &docs, &self.name, &self.fields)
    }

    /// Its impls.
    pub fn impls(&self) -> TokenStream {
        let constants = self.constants();
        let collection = collection::collection(&self.name, &self.fields);
        let input = input::input(&self.name, self.takes, self.of, &quote!(nn::Batched));
        let forward = self.forward();
        quote!(#constants #collection #input #forward)
    }

    fn constants(&self) -> TokenStream {
        let Self {
            name,
            kind,
            plan,
            shapes,
            ..
        } = self;
        quote! {
            impl #name {
                /// Its shapes.
                pub const PLAN: plan::#kind = #plan;
            }

            impl nn::Transplant for #name {
                type Shapes = nn::#shapes;
            }
        }
    }

    fn forward(&self) -> TokenStream {
        let Self { name, kind, .. } = self;
        let input = input::name(name);
        let output = self.gives.shape(quote!(S::Batch));
        let dropout = literal::float(self.dropout);
        quote_spanned! {super::at(name)=>
            /// Inference.
            impl<S: #input, T: nn::Untaped> dfdx::Module<dfdx::Tensor<S, f32, dfdx::Cpu, T>> for #name {
                type Output = dfdx::Tensor<#output, f32, dfdx::Cpu, T>;
                type Error = <dfdx::Cpu as dfdx::HasErr>::Err;

                fn try_forward(
                    &self,
                    x: dfdx::Tensor<S, f32, dfdx::Cpu, T>,
                ) -> ::core::result::Result<Self::Output, Self::Error> {
                    let output = (x.shape().batch(), dfdx::Const, dfdx::Const, dfdx::Const);
                    nn::infer(self, nn::Stage::#kind(Self::PLAN), x, output)
                }
            }

            /// Training.
            impl<S: #input, T: nn::Taped> dfdx::ModuleMut<dfdx::Tensor<S, f32, dfdx::Cpu, T>> for #name {
                type Output = dfdx::Tensor<#output, f32, dfdx::Cpu, T>;
                type Error = nn::ForwardError;

                fn try_forward_mut(
                    &mut self,
                    x: dfdx::Tensor<S, f32, dfdx::Cpu, T>,
                ) -> ::core::result::Result<Self::Output, Self::Error> {
                    let output = (x.shape().batch(), dfdx::Const, dfdx::Const, dfdx::Const);
                    nn::train(self, nn::Stage::#kind(Self::PLAN), #dropout, x, output)
                }
            }
        }
    }
}

/// A struct of documented public fields, by default on f32 and the CPU.
pub fn definition(scope: &Scope, docs: &[String], name: &Ident, fields: &[Field]) -> TokenStream {
    let Scope { runtime, vis, .. } = scope;
    let fields = fields.iter().map(|Field { docs, name, ty }| {
        let docs = format!(" {docs}");
        quote! {
            #[doc = #docs]
            pub #name: #ty,
        }
    });
    quote! {
        #(#[doc = #docs])*
        #[derive(Clone, Debug)]
        #vis struct #name<
            E: #runtime::dfdx::shapes::Dtype = f32,
            D: #runtime::dfdx::tensor::Storage<E> = #runtime::dfdx::tensor::Cpu,
        > {
            #(#fields)*
        }
    }
}

fn capital(title: &str) -> String {
    let mut letters = title.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}
