//! The input of a stage or network, as a trait whose absence rustc explains in words.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::Ident;

use super::Maps;

/// The trait's name.
pub fn name(ty: &Ident) -> Ident {
    format_ident!("{ty}Input")
}

/// The trait of the shapes that `ty` takes, with its only impl. `what` names the items of a batch:
/// images or feature maps. `is_also` is the supertrait.
pub fn input(ty: &Ident, takes: Maps, what: &str, is_also: &TokenStream) -> TokenStream {
    let name = name(ty);
    let shape = takes.shape(quote!(B));
    let docs = format!(" The shape of a batch of {takes} {what}, which [`{ty}`] takes.");
    let message =
        format!("`{ty}` takes a batch of {takes} {what}, not a tensor of shape `{{Self}}`");
    let Maps {
        channels,
        height,
        width,
    } = takes;
    let label =
        format!("expected the shape `(B, Const<{channels}>, Const<{height}>, Const<{width}>)`");
    let note = "`B` is the batch size: `Const<N>`, or `usize` if it is only known at run time";
    quote_spanned! {super::at(ty)=>
        #[doc = #docs]
        #[diagnostic::on_unimplemented(message = #message, label = #label, note = #note)]
        pub trait #name: #is_also {}

        impl<B: dfdx::Dim> #name for #shape {}
    }
}
