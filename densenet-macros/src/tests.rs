//! What the macro writes, shown in full for one small network of each kind.

use proc_macro2::TokenStream;

fn expand(spec: &str) -> String {
    let tokens: TokenStream = spec.parse().expect("the spec is made of tokens");
    let file = syn::parse2(crate::compile(tokens)).expect("the expansion is made of items");
    prettyplease::unparse(&file)
}

#[test]
fn a_small_network_reads_as_a_person_would_write_it() {
    insta::assert_snapshot!(expand(
        "/// A network that fits on a page.
         pub Small { blocks: [2, 1], k: 4, theta: 0.5, bottleneck, input: [3, 8, 8] }"
    ));
}
