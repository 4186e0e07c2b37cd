//! Writes a plan as Rust code. Nothing here can fail.
//!
//! First come the structs: one for the network, one for each stage. Their impls follow in a `const
//! _: () = { .. }`, whose imports cannot clash with the user's names.

mod collection;
mod docs;
mod input;
mod layer;
mod literal;
mod loss;
mod network;
mod stage;
mod stub;

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Ident, Path, Visibility};

use crate::check::CheckedNetwork;
use stage::ExpandedStage;
pub use stub::stub;

/// All types of a network.
pub fn network(network: &CheckedNetwork) -> TokenStream {
    let scope = Scope {
        runtime: &network.runtime,
        vis: &network.vis,
        name: &network.name,
    };
    let runtime = scope.runtime;
    let stages = stage::all(&scope, &network.plan);
    let whole = network::Whole::new(&scope, network, &stages);
    let structs = stages.iter().map(|stage| stage.definition(&scope));
    let whole_struct = whole.definition(&scope);
    let impls = stages.iter().map(ExpandedStage::impls);
    let whole_impls = whole.impls(&scope);
    quote! {
        #whole_struct
        #(#structs)*

        const _: () = {
            use #runtime::dfdx::prelude::{self as dfdx, HasShape as _, Module as _, ModuleMut as _};
            use #runtime::{nn, plan};

            #whole_impls
            #(#impls)*
        };
    }
}

/// The names that all generated code refers to.
struct Scope<'a> {
    /// The path of the runtime crate.
    runtime: &'a Path,
    /// The visibility of the types.
    vis: &'a Visibility,
    /// The name of the network's type, which is the prefix of the others.
    name: &'a Ident,
}

impl Scope<'_> {
    /// The name of a type that belongs to the network.
    fn name_of(&self, suffix: &str) -> Ident {
        format_ident!("{}{suffix}", self.name)
    }
}

/// The span of messages about a type: its name instead of the whole invocation.
fn at(name: &Ident) -> Span {
    Span::call_site().located_at(name.span())
}

/// A field of a generated struct.
struct Field {
    docs: String,
    name: Ident,
    /// The type, as written outside of an impl's scope.
    ty: TokenStream,
}

/// Channels, height and width of feature maps.
#[derive(Clone, Copy)]
struct Maps {
    channels: usize,
    height: usize,
    width: usize,
}

impl Maps {
    fn new(channels: usize, (height, width): (usize, usize)) -> Self {
        Self {
            channels,
            height,
            width,
        }
    }

    /// The type of a batch of them, in an impl's scope.
    fn shape(self, batch: TokenStream) -> TokenStream {
        let Self {
            channels,
            height,
            width,
        } = self;
        let [channels, height, width] = [channels, height, width].map(literal::number);
        quote!((#batch, dfdx::Const<#channels>, dfdx::Const<#height>, dfdx::Const<#width>))
    }
}

impl std::fmt::Display for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}
