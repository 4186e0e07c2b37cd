//! The loss of a network, which explains in words if logits or labels do not match its classes.

use proc_macro2::TokenStream;
use quote::{format_ident, quote_spanned};
use syn::Ident;

use super::literal;

/// The trait of the shapes of logits and labels, and `cross_entropy` of the two.
pub fn loss(ty: &Ident, classes: usize) -> TokenStream {
    let name = format_ident!("{ty}Classes");
    let docs = format!(
        " The shape of a batch of logits or labels of [`{ty}`]: one number for each of its {classes} classes."
    );
    let message = format!(
        "`{ty}` has {classes} classes: a tensor of shape `{{Self}}` does not hold its logits or labels"
    );
    let label = format!("expected the shape `(B, Const<{classes}>)`");
    let batch = "`B` is the batch size: `Const<N>`, or `usize` if it is only known at run time";
    let rows = format!(
        "a row of labels is a distribution over the {classes} classes: 1 at the image's class, or probabilities"
    );
    let classes = literal::number(classes);
    quote_spanned! {super::at(ty)=>
        #[doc = #docs]
        #[diagnostic::on_unimplemented(
            message = #message,
            label = #label,
            note = #batch,
            note = #rows
        )]
        pub trait #name: nn::Batched {}

        impl<B: dfdx::Dim> #name for (B, dfdx::Const<#classes>) {}

        impl #ty {
            /// Mean cross-entropy of logits over a batch. A row of `labels` is a distribution over
            /// the classes: 1 at the image's class, or probabilities.
            ///
            /// # Panics
            /// If batch sizes known only at run time differ, or the device is out of memory.
            pub fn cross_entropy<S, L, T>(
                logits: dfdx::Tensor<S, f32, dfdx::Cpu, T>,
                labels: dfdx::Tensor<L, f32, dfdx::Cpu>,
            ) -> dfdx::Tensor<dfdx::Rank0, f32, dfdx::Cpu, T>
            where
                S: #name,
                L: #name<Batch = S::Batch>,
                T: dfdx::Tape<f32, dfdx::Cpu>,
            {
                nn::cross_entropy(logits, labels)
            }
        }
    }
}
