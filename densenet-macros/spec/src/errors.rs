//! Collects errors, so that all are reported at once.

use std::fmt::Display;

use quote::ToTokens;

/// The errors found so far.
#[derive(Default)]
pub struct Errors {
    all: Option<syn::Error>,
    count: usize,
}

impl Errors {
    /// Adds an error on these tokens.
    pub fn at(&mut self, tokens: impl ToTokens, message: impl Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    /// Adds an error.
    pub fn push(&mut self, error: syn::Error) {
        self.count += 1;
        match &mut self.all {
            Some(all) => all.combine(error),
            None => self.all = Some(error),
        }
    }

    /// The number of errors so far.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Calls `work` with a collector, and returns the result and the errors. There is no other way to get
/// an [`Errors`], so none can be dropped with errors in it.
pub fn gather<T>(work: impl FnOnce(&mut Errors) -> T) -> (T, Option<syn::Error>) {
    let mut errors = Errors::default();
    let result = work(&mut errors);
    (result, errors.all)
}
