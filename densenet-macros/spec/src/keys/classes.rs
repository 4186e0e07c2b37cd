//! The classes of a network: their number, or their names.

use quote::ToTokens;
use syn::parse::ParseStream;
use syn::{LitStr, token};

use crate::errors::Errors;
use crate::keys::Key;
use crate::keys::value::{Given, at, colon, list, rest_of_value, text, whole};

/// How to write names, for a message.
const USAGE: &str = r#"write it as `classes: ["cat", "dog"]`"#;

/// The classes in a spec.
pub enum Classes {
    /// How many there are.
    Number(usize),
    /// Their names. A label is an index into them.
    Names(Vec<String>),
}

impl Classes {
    /// How many there are.
    pub fn number(&self) -> usize {
        match self {
            Self::Number(number) => *number,
            Self::Names(names) => names.len(),
        }
    }

    /// Their names; empty if only their number is given.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Number(_) => &[],
            Self::Names(names) => names,
        }
    }
}

/// `: 1000` or `: ["cat", "dog"]`
pub fn classes(
    key: &'static Key,
    input: ParseStream,
    errors: &mut Errors,
) -> syn::Result<Given<Classes>> {
    colon(key, input)?;
    if !input.peek(token::Bracket) {
        let what = "a whole number, or a list of names in quotes";
        let Given { value, tokens } = whole(key, input, what)?;
        let value = Classes::Number(value);
        return Ok(Given { value, tokens });
    }
    let names = list(input, errors, "names", name, String::new)?;
    if names.value.is_empty() {
        let message = "`classes` must name at least one class";
        return Err(at(&names.tokens, message, USAGE));
    }
    report_repeated(&names.value, errors);
    let value = names.value.into_iter().map(|name| name.value).collect();
    Ok(Given {
        value: Classes::Names(value),
        tokens: names.tokens,
    })
}

fn name(input: ParseStream) -> syn::Result<Given<String>> {
    let found = rest_of_value(input);
    let literal = input.parse::<LitStr>();
    let Some(name) = literal.ok().filter(|name| name.suffix().is_empty()) else {
        let message = format!("`classes` lists names in quotes, found `{}`", text(&found));
        return Err(at(found, message, USAGE));
    };
    let value = name.value();
    if value.trim().is_empty() {
        let message = "the name of a class is empty";
        return Err(at(name, message, "name it after its folder of pictures"));
    }
    let tokens = name.into_token_stream();
    Ok(Given { value, tokens })
}

/// Reports each name that an earlier class has. An empty name stands for one that could not be read.
fn report_repeated(names: &[Given<String>], errors: &mut Errors) {
    for (index, name) in names.iter().enumerate() {
        let value = &name.value;
        let first = names[..index].iter().find(|first| first.value == *value);
        if let Some(first) = first.filter(|_| !value.is_empty()) {
            errors.at(&name.tokens, format!("class {value:?} is named twice"));
            errors.at(&first.tokens, format!("{value:?} is first named here"));
        }
    }
}
