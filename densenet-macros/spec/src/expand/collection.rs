//! dfdx's access to the tensors of a struct, used by building, saving and optimisers.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Ident;

use super::Field;

/// The most fields that dfdx takes in one tuple.
const TUPLE: usize = 6;

/// `TensorCollection` and `BuildOnDevice`. The fields are visited in their order.
pub fn collection(name: &Ident, fields: &[Field]) -> TokenStream {
    let names: Vec<_> = fields.iter().map(|field| &field.name).collect();
    let visited = names.iter().map(|field| {
        let path = field.to_string();
        quote!(Self::module(#path, |s| &s.#field, |s| &mut s.#field))
    });
    let visited = nest(visited.collect());
    let built = nest(names.iter().map(|field| quote!(#field)).collect());
    quote! {
        impl<E: dfdx::Dtype, D: dfdx::Device<E>> dfdx::TensorCollection<E, D> for #name<E, D> {
            type To<E2: dfdx::Dtype, D2: dfdx::Device<E2>> = #name<E2, D2>;

            fn iter_tensors<V: dfdx::ModuleVisitor<Self, E, D>>(
                visitor: &mut V,
            ) -> ::core::result::Result<::core::option::Option<Self::To<V::E2, V::D2>>, V::Err> {
                visitor.visit_fields(#visited, |#built| #name { #(#names),* })
            }
        }

        impl<E, D, E2, D2> dfdx::BuildOnDevice<D2, E2> for #name<E, D>
        where
            E: dfdx::Dtype,
            D: dfdx::Device<E>,
            E2: dfdx::Dtype,
            D2: dfdx::Device<E2>,
        {
            type Built = #name<E2, D2>;
        }
    }
}

/// Nests items in tuples of tuples, in order, since dfdx takes no long ones.
fn nest(mut items: Vec<TokenStream>) -> TokenStream {
    while items.len() > 1 {
        items = items
            .chunks(TUPLE)
            .map(|chunk| match chunk {
                [one] => one.clone(),
                many => quote!((#(#many),*)),
            })
            .collect();
    }
    items.pop().unwrap_or_default()
}
