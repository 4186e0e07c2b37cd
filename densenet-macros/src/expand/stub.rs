//! What stands for a network that has no plan.

use proc_macro2::TokenStream;
use quote::quote;

use crate::parse::Written;

/// A type of the network's name, so that its uses are not reported as well.
pub fn stub(written: &Written) -> TokenStream {
    let Written {
        vis, name, runtime, ..
    } = written;
    quote! {
        /// Stands for a network whose spec has errors.
        #[derive(Clone, Debug)]
        #vis struct #name<E = f32, D = #runtime::dfdx::tensor::Cpu>(::core::marker::PhantomData<(E, D)>);

        const _: () = {
            use #runtime::dfdx::prelude as dfdx;

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
