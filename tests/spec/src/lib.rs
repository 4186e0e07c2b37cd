//! The compiler of `densenet!`, fed with text.
//!
//! A macro crate exports nothing but macros, and its tests see none of what it is made of. So its
//! sources are modules here, too.

#[path = "../../../densenet-macros/src/bytes.rs"]
mod bytes;
#[path = "../../../densenet-macros/src/check.rs"]
mod check;
#[path = "../../../densenet-macros/src/errors.rs"]
mod errors;
#[path = "../../../densenet-macros/src/expand/mod.rs"]
mod expand;
#[path = "../../../densenet-macros/src/keys/mod.rs"]
mod keys;
#[path = "../../../densenet-macros/src/parse.rs"]
mod parse;

use proc_macro2::TokenStream;
use quote::quote;

/// A network that compiles is written out: of one with more layers than this, the type alone.
const LAYERS: usize = 60;

/// Compiles a spec as the macro does; returns what it writes, errors included.
pub fn compile(spec: TokenStream) -> TokenStream {
    let ((written, network), errors) = errors::gather(|errors| {
        let mut written = parse::parse(spec, errors);
        let network = check::check(&mut written, errors);
        (written, network)
    });
    let layers = |network: &check::Network| -> usize {
        network.plan.blocks().iter().map(|block| block.layers).sum()
    };
    let code = match network {
        Some(network) if layers(&network) <= LAYERS => expand::network(&network),
        _ => expand::stub(&written),
    };
    quote!(#errors #code)
}
