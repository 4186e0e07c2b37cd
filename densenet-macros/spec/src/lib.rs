//! The compiler of `densenet!`: from a DenseNet spec to statically shaped dfdx types.
//!
//! [`compile`] is the whole pipeline, and what the macro calls. `parse` reads the spec key by key and
//! keeps every token; `check` looks at the spec as a whole and makes its plan; `expand` writes the
//! plan as Rust code. Parse and check report every mistake, each on its token; expand cannot fail.
//!
//! [`ParsedSpec::parse`] is its first half, for programs that know their network only at run time,
//! with the same words and messages.

mod bytes;
mod check;
mod errors;
mod expand;
mod keys;
mod parse;
#[cfg(test)]
mod tests;
mod text;
mod words;

use proc_macro2::TokenStream;
use quote::quote;

pub use bytes::in_words;
pub use text::{ParsedSpec, SpecError, SpecErrors};

/// Compiles a spec: the parse, the check with its plan, and the expansion. Mistakes become
/// `compile_error!`s.
pub fn compile(input: TokenStream) -> TokenStream {
    let ((written, network), errors) = read(input);
    let errors = errors.map(|errors| errors.to_compile_error());
    let errors = errors.unwrap_or_default();
    // A network with a plan is expanded even if there are errors, and a type with its name always
    // exists, so that its uses add no errors of their own.
    let code = match network {
        Some(network) => expand::network(&network),
        None => expand::stub(&written),
    };
    quote!(#errors #code)
}

/// The contents of a spec, the network if it has a plan, and all mistakes.
fn read(
    input: TokenStream,
) -> (
    (parse::Written, Option<check::CheckedNetwork>),
    Option<syn::Error>,
) {
    errors::gather(|errors| {
        let mut written = parse::parse(input, errors);
        let network = check::check(&mut written, errors);
        (written, network)
    })
}
