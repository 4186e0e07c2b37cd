//! The values of keys: what each key takes, and the range of its value.

use std::fmt::Display;

use densenet_plan::{Ratio, StemKind};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Ident, Lit, LitBool, LitInt, Token, bracketed, token};

use crate::errors::Errors;
use crate::keys::Key;

/// The largest number in a spec; dimensions fit in 31 bits.
const LARGEST: usize = i32::MAX as usize;

/// The default width of a bottleneck, as a multiple of k (paper, section 3).
const BOTTLENECK: usize = 4;

/// A value, and the tokens that it was read from.
#[derive(Clone)]
pub struct Given<T> {
    pub value: T,
    pub tokens: TokenStream,
}

/// A whole number, at least 1.
pub type Number = Given<usize>;

/// Growth rates.
pub enum Growth {
    /// One for all blocks.
    All(usize),
    /// One for each block.
    Each(Vec<usize>),
}

/// A number, as given by its decimal digits.
#[derive(Clone, Copy)]
pub struct Decimal {
    /// Exactly.
    pub ratio: Ratio,
    /// As a floating-point number.
    pub float: f64,
}

/// The bytes that a training step may take.
pub struct Budget {
    /// The number of bytes.
    pub bytes: u64,
    /// The number of bytes, as written.
    pub text: String,
    /// The batch size.
    pub batch: usize,
}

/// Reads what follows a key.
pub type Read<T> = fn(&'static Key, ParseStream, &mut Errors) -> syn::Result<Given<T>>;

/// `: [6, 12, 48, 32]`
pub fn blocks(
    key: &'static Key,
    input: ParseStream,
    errors: &mut Errors,
) -> syn::Result<Given<Vec<Number>>> {
    colon(key, input)?;
    let list = numbers(key, input, errors)?;
    if list.value.is_empty() {
        let message = "`blocks` must list at least one block";
        return Err(at(&list.tokens, message, key.usage()));
    }
    Ok(list)
}

/// `: 32` or `: [32, 32, 48, 48]`
pub fn growth(
    key: &'static Key,
    input: ParseStream,
    errors: &mut Errors,
) -> syn::Result<Given<Growth>> {
    colon(key, input)?;
    if input.peek(token::Bracket) {
        let list = numbers(key, input, errors)?;
        let rates = list.value.iter().map(|rate| rate.value).collect();
        return Ok(Given {
            value: Growth::Each(rates),
            tokens: list.tokens,
        });
    }
    let Given { value, tokens } = whole(
        key,
        input,
        "a whole number, or a list with one for each block",
    )?;
    Ok(Given {
        value: Growth::All(value),
        tokens,
    })
}

/// `: 0.5`
pub fn theta(key: &'static Key, input: ParseStream, _: &mut Errors) -> syn::Result<Given<Decimal>> {
    colon(key, input)?;
    let (sign, theta) = decimal(key, input)?;
    let ratio = theta.value.ratio;
    if sign == Sign::Minus || ratio.is_zero() || ratio.exceeds_one() {
        let message = format!(
            "compression `theta` must be in (0, 1], found {}",
            text(&theta.tokens)
        );
        let help = "theta = 0.5 keeps half of the feature maps at each transition (the paper's DenseNet-BC)";
        return Err(at(&theta.tokens, message, help));
    }
    Ok(theta)
}

/// Nothing, or `: 2`
pub fn bottleneck(key: &'static Key, input: ParseStream, _: &mut Errors) -> syn::Result<Number> {
    if !input.peek(Token![:]) && !input.peek(Token![=]) {
        return Ok(Given {
            value: BOTTLENECK,
            tokens: TokenStream::new(),
        });
    }
    colon(key, input)?;
    let what = "a whole number, or nothing";
    if input
        .fork()
        .parse::<LitBool>()
        .is_ok_and(|given| !given.value)
    {
        let message = format!("`{}` takes {what}, found `false`", key.name);
        let help = format!("for plain layers leave `{}` out", key.name);
        return Err(at(rest_of_value(input), message, help));
    }
    whole(key, input, what)
}

/// `: imagenet` or `: cifar`
pub fn stem(key: &'static Key, input: ParseStream, _: &mut Errors) -> syn::Result<Given<StemKind>> {
    colon(key, input)?;
    let kinds = "`imagenet` (7x7 convolution, stride 2, and max pool) or `cifar` (3x3 convolution)";
    let value = match input.fork().call(Ident::parse_any) {
        Ok(name) if name == "imagenet" => StemKind::ImageNet,
        Ok(name) if name == "cifar" => StemKind::Cifar,
        _ => return Err(wrong(key, input, kinds)),
    };
    Ok(Given {
        value,
        tokens: input.call(Ident::parse_any)?.into_token_stream(),
    })
}

/// `: [3, 224, 224]`
pub fn image(
    key: &'static Key,
    input: ParseStream,
    errors: &mut Errors,
) -> syn::Result<Given<[usize; 3]>> {
    colon(key, input)?;
    let list = numbers(key, input, errors)?;
    let numbers: Vec<_> = list.value.iter().map(|number| number.value).collect();
    let value = <[usize; 3]>::try_from(numbers).map_err(|numbers| {
        let message = format!(
            "`input` takes three numbers: channels, height, width; found {}",
            numbers.len()
        );
        at(&list.tokens, message, key.usage())
    })?;
    Ok(Given {
        value,
        tokens: list.tokens,
    })
}

/// `: 64`
pub fn number(key: &'static Key, input: ParseStream, _: &mut Errors) -> syn::Result<Number> {
    colon(key, input)?;
    whole(key, input, "a whole number")
}

/// `: 0.2`
pub fn dropout(
    key: &'static Key,
    input: ParseStream,
    _: &mut Errors,
) -> syn::Result<Given<Decimal>> {
    colon(key, input)?;
    let (sign, dropout) = decimal(key, input)?;
    let ratio = dropout.value.ratio;
    let minus = sign == Sign::Minus && !ratio.is_zero();
    if minus || ratio.exceeds_one() || ratio == Ratio::ONE {
        let message = format!(
            "`dropout` must be in [0, 1), found {}",
            text(&dropout.tokens)
        );
        let help =
            "dropout = 0.2 zeroes a fifth of the values (the paper's rate without augmentation)";
        return Err(at(&dropout.tokens, message, help));
    }
    Ok(dropout)
}

/// `: 24 GiB at 64`
pub fn memory(key: &'static Key, input: ParseStream, _: &mut Errors) -> syn::Result<Given<Budget>> {
    mod kw {
        syn::custom_keyword!(at);
    }
    const UNITS: [(&str, usize); 8] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
    ];
    colon(key, input)?;
    let what = "bytes and a batch size";
    let tokens = rest_of_value(input);
    // Any mistake is reported on the whole value.
    let fault = |_| wrong(key, input, what);
    let source = input.fork();
    let (sign, amount) = decimal(key, &source).map_err(fault)?;
    if sign == Sign::Minus {
        return Err(wrong(key, input, what));
    }
    let unit = source.call(Ident::parse_any).map_err(fault)?;
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| unit == name) else {
        let names: Vec<_> = UNITS.iter().map(|(name, _)| *name).collect();
        let message = format!(
            "unknown unit `{unit}` of memory; use one of {}",
            names.join(", ")
        );
        return Err(at(&unit, message, key.usage()));
    };
    source.parse::<kw::at>().map_err(fault)?;
    let batch = whole(key, &source, "a whole number of images")?;
    let bytes = amount
        .value
        .ratio
        .floor_of(*scale)
        .map(|bytes| bytes as u64);
    let bytes = bytes.ok_or_else(|| {
        at(
            &amount.tokens,
            "this is more memory than 64 bits can count",
            key.usage(),
        )
    })?;
    syn::parse::discouraged::Speculative::advance_to(input, &source);
    Ok(Given {
        value: Budget {
            bytes,
            text: format!("{} {unit}", text(&amount.tokens)),
            batch: batch.value,
        },
        tokens,
    })
}

/// The colon after a key.
pub fn colon(key: &'static Key, input: ParseStream) -> syn::Result<()> {
    if input.peek(Token![=]) {
        let message = format!("expected `:` after `{}`, found `=`", key.name);
        return Err(at(input.fork().parse::<TokenTree>()?, message, key.usage()));
    }
    if input.parse::<Token![:]>().is_err() {
        let message = format!("`{}` needs a value, such as `{}`", key.name, key.example);
        return Err(syn::Error::new(input.span(), message));
    }
    Ok(())
}

/// `[1, 2, 3]`. An element that is not a number gets the placeholder 1.
fn numbers(
    key: &'static Key,
    input: ParseStream,
    errors: &mut Errors,
) -> syn::Result<Given<Vec<Number>>> {
    if !input.peek(token::Bracket) {
        return Err(wrong(key, input, "a list of whole numbers"));
    }
    let number = |input: ParseStream| whole(key, input, "whole numbers");
    list(input, errors, "numbers", number, || 1)
}

/// A list in brackets. An element that cannot be read is reported and replaced by a placeholder.
pub fn list<T>(
    input: ParseStream,
    errors: &mut Errors,
    of: &str,
    element: impl Fn(ParseStream) -> syn::Result<Given<T>>,
    stand_in: impl Fn() -> T,
) -> syn::Result<Given<Vec<Given<T>>>> {
    // A list that another macro passes on as an expression is in an invisible group.
    let tokens = input.fork().parse::<TokenTree>()?.into_token_stream();
    let content;
    bracketed!(content in input);
    let mut value = Vec::new();
    while !content.is_empty() {
        let start = content.fork();
        value.push(element(&content).unwrap_or_else(|error| {
            errors.push(error);
            let tokens = rest_of_value(&start);
            skip_to_comma(&content);
            let value = stand_in();
            Given { value, tokens }
        }));
        if !content.is_empty() && content.parse::<Token![,]>().is_err() {
            let message = format!("expected `,` between two {of}");
            errors.push(syn::Error::new(content.span(), message));
        }
    }
    Ok(Given { value, tokens })
}

/// A whole number from 1 to [`LARGEST`].
pub fn whole(key: &'static Key, input: ParseStream, what: &str) -> syn::Result<Number> {
    let negative = input.peek(Token![-]) && input.peek2(LitInt);
    if !input.peek(LitInt) && !negative {
        return Err(wrong(key, input, what));
    }
    let fork = input.fork();
    if negative {
        fork.parse::<Token![-]>()?;
    }
    let literal: LitInt = fork.parse()?;
    if !literal.suffix().is_empty() {
        return Err(wrong(key, input, what));
    }
    let mut tokens = TokenStream::new();
    if negative {
        input.parse::<Token![-]>()?.to_tokens(&mut tokens);
    }
    input.parse::<LitInt>()?.to_tokens(&mut tokens);
    let problem = match literal.base10_parse() {
        Ok(value @ 1..=LARGEST) if !negative => return Ok(Given { value, tokens }),
        Ok(1..) | Err(_) if !negative => format!("can be at most {LARGEST}"),
        _ => "must be at least 1".to_owned(),
    };
    let message = format!("{} {problem}, found {}", key.title(), text(&tokens));
    Err(syn::Error::new_spanned(tokens, message))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

/// A number in decimal digits; its sign is returned separately.
fn decimal(key: &'static Key, input: ParseStream) -> syn::Result<(Sign, Given<Decimal>)> {
    let what = "a number in decimal digits";
    let start = input.fork();
    let minus: Option<Token![-]> = start.parse()?;
    let (digits, suffix) = match start.parse::<Lit>() {
        Ok(Lit::Float(float)) => (float.base10_digits().to_owned(), float.suffix().to_owned()),
        Ok(Lit::Int(int)) => (int.base10_digits().to_owned(), int.suffix().to_owned()),
        _ => return Err(wrong(key, input, what)),
    };
    if !suffix.is_empty() || start.peek(Token![/]) {
        return Err(wrong(key, input, what));
    }
    let mut tokens = TokenStream::new();
    input.parse::<Option<Token![-]>>()?.to_tokens(&mut tokens);
    input.parse::<Lit>()?.to_tokens(&mut tokens);
    let (Ok(ratio), Ok(float)) = (digits.parse(), digits.parse()) else {
        let message = format!(
            "{} can have at most 18 digits, found {}",
            key.title(),
            text(&tokens)
        );
        return Err(syn::Error::new_spanned(tokens, message));
    };
    let sign = if minus.is_some() {
        Sign::Minus
    } else {
        Sign::Plus
    };
    let value = Decimal { ratio, float };
    Ok((sign, Given { value, tokens }))
}

/// The error for a value of the wrong kind.
fn wrong(key: &'static Key, input: ParseStream, what: &str) -> syn::Error {
    let found = rest_of_value(input);
    if found.is_empty() {
        let message = format!("`{}` takes {what}, such as `{}`", key.name, key.example);
        return syn::Error::new(input.span(), message);
    }
    let message = format!("`{}` takes {what}, found `{}`", key.name, text(&found));
    at(&found, message, key.usage())
}

/// An error with a line of help below its message.
pub fn at(tokens: impl ToTokens, message: impl Display, help: impl Display) -> syn::Error {
    syn::Error::new_spanned(tokens, format!("{message}\n= help: {help}"))
}

/// Tokens, spaced as a person would write them.
pub fn text(tokens: &TokenStream) -> String {
    tokens.to_string().replace("- ", "-")
}

/// The tokens up to the end of the value, without consuming them.
pub fn rest_of_value(input: ParseStream) -> TokenStream {
    let ahead = input.fork();
    let mut tokens = TokenStream::new();
    while !at_end_of_value(&ahead) {
        match ahead.parse::<TokenTree>() {
            Ok(token) => tokens.extend([token]),
            Err(_) => break,
        }
    }
    tokens
}

/// Whether a value ends here: at a comma, at the next key, or at the end.
pub fn at_end_of_value(input: ParseStream) -> bool {
    let next_key =
        input.peek(Ident::peek_any) && input.peek2(Token![:]) && !input.peek2(Token![::]);
    input.is_empty() || input.peek(Token![,]) || next_key
}

fn skip_to_comma(input: ParseStream) {
    while !input.is_empty() && !input.peek(Token![,]) {
        if TokenTree::parse(input).is_err() {
            return;
        }
    }
}
