//! The `densenet!` macro.

use proc_macro::TokenStream;

/// Compiles a DenseNet spec into statically shaped dfdx types.
#[proc_macro]
pub fn densenet(_input: TokenStream) -> TokenStream {
    TokenStream::new()
}
