//! The stub of a network that has no plan.

use proc_macro2::TokenStream;
use quote::quote;

use super::{literal, network::class_names};
use crate::parse::Written;

/// A type of the network's name with the usual interface of a network, so that its uses are not
/// reported as well. It takes batches of any shape, and returns logits for the given classes.
pub fn stub(written: &Written) -> TokenStream {
    let Written {
        vis, name, runtime, ..
    } = written;
    let name_in_words = name.to_string();
    let names = class_names(written.class_names());
    let classes = literal::number(written.classes());
    let output = quote!(dfdx::Tensor<(S::Batch, dfdx::Const<#classes>), f32, dfdx::Cpu, T>);
    quote! {
        /// Stands for a network whose spec has errors.
        #[derive(Clone, Debug)]
        #vis struct #name<E = f32, D = #runtime::dfdx::tensor::Cpu>(::core::marker::PhantomData<(E, D)>);

        const _: () = {
            use #runtime::dfdx::prelude as dfdx;
            use #runtime::{nn, plan};

            impl #runtime::Network for #name {
                const NAME: &'static str = #name_in_words;
                #names
                const PLAN: plan::Plan = plan::Plan::of_stages(
                    plan::Stem {
                        kind: plan::StemKind::Cifar,
                        channels: 1,
                        height: 1,
                        width: 1,
                        maps: 1,
                    },
                    &[plan::Block {
                        input: 1,
                        layers: 1,
                        growth: 1,
                        bottleneck: ::core::option::Option::None,
                        height: 1,
                        width: 1,
                    }],
                    &[],
                    #classes,
                    0.0,
                );
                type Images = (
                    ::core::primitive::usize,
                    ::core::primitive::usize,
                    ::core::primitive::usize,
                    ::core::primitive::usize,
                );
                type Logits = (::core::primitive::usize, dfdx::Const<#classes>);
                type Features = ();
            }

            impl #name {
                pub const PARAMETERS: usize = 1;
                pub const MULTIPLY_ADDS: u64 = 1;
                pub const LAYERS: usize = 1;

                pub const fn training_bytes(_: usize, _: plan::Recompute) -> u64 {
                    1
                }

                pub fn cross_entropy<S, L, T>(
                    logits: dfdx::Tensor<S, f32, dfdx::Cpu, T>,
                    labels: dfdx::Tensor<L, f32, dfdx::Cpu>,
                ) -> dfdx::Tensor<dfdx::Rank0, f32, dfdx::Cpu, T>
                where
                    S: nn::Batched,
                    L: nn::Batched<Batch = S::Batch>,
                    T: dfdx::Tape<f32, dfdx::Cpu>,
                {
                    nn::cross_entropy(logits, labels)
                }
            }

            impl<S, T> dfdx::Module<dfdx::Tensor<S, f32, dfdx::Cpu, T>> for #name
            where
                S: nn::Batched,
                T: dfdx::Tape<f32, dfdx::Cpu>,
            {
                type Output = #output;
                type Error = <dfdx::Cpu as dfdx::HasErr>::Err;

                fn try_forward(
                    &self,
                    _: dfdx::Tensor<S, f32, dfdx::Cpu, T>,
                ) -> ::core::result::Result<Self::Output, Self::Error> {
                    ::core::unimplemented!()
                }
            }

            impl<S, T> dfdx::ModuleMut<dfdx::Tensor<S, f32, dfdx::Cpu, T>> for #name
            where
                S: nn::Batched,
                T: dfdx::Tape<f32, dfdx::Cpu>,
            {
                type Output = #output;
                type Error = nn::ForwardError;

                fn try_forward_mut(
                    &mut self,
                    _: dfdx::Tensor<S, f32, dfdx::Cpu, T>,
                ) -> ::core::result::Result<Self::Output, Self::Error> {
                    ::core::unimplemented!()
                }
            }

            impl<E: dfdx::Dtype, D: dfdx::Device<E>> dfdx::TensorCollection<E, D> for #name<E, D> {
                type To<E2: dfdx::Dtype, D2: dfdx::Device<E2>> = #name<E2, D2>;

                fn iter_tensors<V: dfdx::ModuleVisitor<Self, E, D>>(
                    visitor: &mut V,
                ) -> ::core::result::Result<::core::option::Option<Self::To<V::E2, V::D2>>, V::Err> {
                    visitor.visit_fields((), |()| #name(::core::marker::PhantomData))
                }
            }

            impl<E: dfdx::Dtype, D: dfdx::Device<E>> dfdx::BuildOnDevice<D, E> for #name {
                type Built = #name<E, D>;
            }
        };
    }
}
