//! The grammar of `densenet!`.
//!
//! Parsing never gives up: a key that cannot be read is reported, and parsing continues after it.

use densenet_plan::StemKind;
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Attribute, Ident, Path, Token, Visibility, braced, token};

use crate::errors::Errors;
use crate::keys::value::{at_end_of_value, rest_of_value, text};
use crate::keys::{KEYS, Key, Values};

/// The default name of a network.
const NAME: &str = "DenseNet";

/// A spec as it was written.
pub struct Written {
    /// Doc comments.
    pub docs: Vec<Attribute>,
    /// The path of the runtime crate.
    pub runtime: Path,
    /// The visibility of the type.
    pub vis: Visibility,
    /// The name of the type.
    pub name: Ident,
    /// The keys that are present, readable or not.
    pub given: Vec<Ident>,
    /// The keys that an unknown one most likely means.
    pub meant: Vec<&'static str>,
    /// The keys whose values could not be read.
    pub unreadable: Vec<&'static str>,
    /// The values that could be read.
    pub values: Values,
}

impl Written {
    fn empty() -> Self {
        Self {
            docs: Vec::new(),
            runtime: syn::parse_quote!(::densenet_runtime),
            vis: syn::parse_quote!(pub),
            name: Ident::new(NAME, Span::call_site()),
            given: Vec::new(),
            meant: Vec::new(),
            unreadable: Vec::new(),
            values: Values::default(),
        }
    }

    /// A key's name in the spec, whether its value could be read or not.
    pub fn given(&self, key: &str) -> Option<&Ident> {
        self.given.iter().find(|given| *given == key)
    }

    /// The stem; by default the one that goes with the number of blocks.
    pub fn stem(&self) -> StemKind {
        let blocks = self.values.blocks.as_ref();
        let blocks = blocks.map_or(0, |blocks| blocks.value.len());
        let stem = self.values.stem.as_ref();
        stem.map_or(StemKind::for_blocks(blocks), |stem| stem.value)
    }

    /// The number of classes; by default the stem's.
    pub fn classes(&self) -> usize {
        let classes = self.values.classes.as_ref();
        classes.map_or(self.stem().default_classes(), |classes| {
            classes.value.number()
        })
    }

    /// The names of the classes, if they are given.
    pub fn class_names(&self) -> &[String] {
        let classes = self.values.classes.as_ref();
        classes.map_or(&[], |classes| classes.value.names())
    }

    /// Whether all required keys are present and every value could be read.
    pub fn is_complete(&self) -> bool {
        let mut required = KEYS.iter().filter(|key| key.required);
        self.unreadable.is_empty() && required.all(|key| self.given(key.name).is_some())
    }

    /// Whether an optional key's value is not a placeholder.
    pub fn is_readable(&self, key: &str) -> bool {
        !self.unreadable.contains(&key)
    }
}

/// Reads a spec as far as possible.
pub fn parse(tokens: TokenStream, errors: &mut Errors) -> Written {
    let mut written = Written::empty();
    let parser = |input: ParseStream| network(input, &mut written, errors);
    let result = parser.parse2(tokens);
    if let Err(error) = result {
        errors.push(error);
        // The keys were not reached, so none is known to be missing.
        written.meant.extend(KEYS.iter().map(|key| key.name));
    }
    written
}

/// `attributes pub Name { keys }`, or the keys alone.
fn network(input: ParseStream, written: &mut Written, errors: &mut Errors) -> syn::Result<()> {
    attributes(input.call(Attribute::parse_outer)?, written, errors);
    let is_named =
        input.peek(Token![pub]) || input.peek(Token![struct]) || input.peek2(token::Brace);
    if !is_named {
        keys(input, written, errors);
        return Ok(());
    }
    written.vis = input.parse()?;
    if let Some(keyword) = input.parse::<Option<Token![struct]>>()? {
        let message = "a network is named without `struct`\n= help: write `pub Name { .. }`";
        errors.at(keyword, message);
    }
    written.name = input.parse()?;
    let body;
    braced!(body in input);
    keys(&body, written, errors);
    if !input.is_empty() {
        let message =
            "a `densenet!` takes one network: write the next one in a `densenet!` of its own";
        errors.push(syn::Error::new(input.span(), message));
        input.parse::<TokenStream>()?;
    }
    Ok(())
}

/// Doc comments are kept; `#[densenet(crate = path)]` gives the path of the runtime.
fn attributes(attributes: Vec<Attribute>, written: &mut Written, errors: &mut Errors) {
    for attribute in attributes {
        let path = attribute.path();
        if path.is_ident("doc") {
            written.docs.push(attribute);
        } else if path.is_ident("densenet") {
            let read = attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("crate") {
                    return Err(meta.error("`#[densenet(..)]` only takes `crate = path`"));
                }
                written.runtime = meta.value()?.call(Path::parse_mod_style)?;
                Ok(())
            });
            if let Err(error) = read {
                errors.push(error);
            }
        } else {
            let message = "only doc comments and `#[densenet(crate = path)]` belong here; \
                           put other attributes on the `densenet!` itself, or on a module around it";
            errors.at(&attribute, message);
        }
    }
}

/// All keys, separated by commas.
fn keys(input: ParseStream, written: &mut Written, errors: &mut Errors) {
    while !input.is_empty() {
        let read = key(input, written, errors);
        let is_read = read.is_ok();
        if let Err(error) = read {
            errors.push(error);
            skip_value(input);
        }
        if input.is_empty() || input.parse::<Token![,]>().is_ok() {
            continue;
        }
        if is_read {
            let message = format!("expected `,` before `{}`", text(&next_value(input)));
            errors.push(syn::Error::new(input.span(), message));
        }
        // A key after a missing comma is still read; anything else is skipped.
        if !is_key(input) {
            skip_value(input);
            let _: syn::Result<Token![,]> = input.parse();
        }
    }
}

/// Whether a key comes next.
fn is_key(input: ParseStream) -> bool {
    let name = input.fork().call(Ident::parse_any);
    name.is_ok_and(|name| Key::named(&name.to_string()).is_some() || input.peek2(Token![:]))
}

/// The tokens in place of a comma.
fn next_value(input: ParseStream) -> TokenStream {
    let rest = rest_of_value(input);
    if is_key(input) || rest.is_empty() {
        input
            .fork()
            .parse::<TokenTree>()
            .map(TokenStream::from)
            .unwrap_or_default()
    } else {
        rest
    }
}

/// One key with its value. Takes at least one token.
fn key(input: ParseStream, written: &mut Written, errors: &mut Errors) -> syn::Result<()> {
    let Ok(name) = input.call(Ident::parse_any) else {
        let token: TokenTree = input.parse()?;
        let message = format!(
            "expected a key, found `{token}`\n= help: the keys are {}",
            Key::list()
        );
        return Err(syn::Error::new_spanned(token, message));
    };
    let Some(key) = Key::named(&name.to_string()) else {
        let hint = match Key::nearest(&name.to_string()) {
            Some(key) => {
                written.meant.push(key.name);
                format!("; did you mean {}?", key.title())
            }
            None => String::new(),
        };
        let message = format!(
            "unknown key `{name}`{hint}\n= help: the keys are {}",
            Key::list()
        );
        return Err(syn::Error::new_spanned(name, message));
    };
    if let Some(first) = written.given(key.name) {
        let mut error = syn::Error::new_spanned(&name, format!("`{name}` is given twice"));
        error.combine(syn::Error::new_spanned(
            first,
            format!("`{name}` is first given here"),
        ));
        return Err(error);
    }
    written.given.push(name);
    let before = errors.count();
    let read = (key.read)(key, input, &mut written.values, errors);
    if read.is_err() || errors.count() > before {
        written.unreadable.push(key.name);
    }
    read
}

fn skip_value(input: ParseStream) {
    while !at_end_of_value(input) {
        if TokenTree::parse(input).is_err() {
            return;
        }
    }
}
