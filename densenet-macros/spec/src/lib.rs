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
use quote::{format_ident, quote};

pub use bytes::in_words;
pub use text::{ParsedSpec, SpecError, SpecErrors};

/// The type parameters of generated code, which would hide a network of the same name.
const PARAMETERS: [&str; 7] = ["S", "T", "E", "D", "V", "E2", "D2"];

/// Compiles a spec: the parse, the check with its plan, and the expansion. Mistakes become
/// `compile_error!`s.
pub fn compile(input: TokenStream) -> TokenStream {
    let ((mut written, network), errors) = read(input);
    let errors = errors.map(|errors| errors.to_compile_error());
    let errors = errors.unwrap_or_default();
    let name = &written.name;
    if PARAMETERS.iter().any(|parameter| name == parameter) {
        let other = format_ident!("{name}Net");
        let message = format!(
            "a network cannot be named `{name}`, as a type parameter of the generated code is\n= help: name it `{other}`"
        );
        let error = syn::Error::new_spanned(name, message).to_compile_error();
        let name = std::mem::replace(&mut written.name, other);
        let (stub, vis, other) = (expand::stub(&written), &written.vis, &written.name);
        return quote!(#errors #error #stub #vis type #name = #other;);
    }
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
