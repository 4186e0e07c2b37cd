//! Specs that are text: read by the macro's own parser, with its messages.

use std::fmt;

use densenet_plan::Plan;
use proc_macro2::{Span, TokenStream, TokenTree};

use crate::check::CheckedNetwork;

/// Brackets within brackets. A spec has two levels; parsers of tokens call themselves for each.
const DEEPEST: usize = 32;

/// A network as its spec describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedSpec {
    /// The network's name; `DenseNet` if the spec gives none.
    pub name: String,
    /// Its shapes.
    pub plan: Plan,
    /// The names of its classes; empty if only their number is given.
    pub classes: Vec<String>,
}

impl ParsedSpec {
    /// Reads a spec in the words of `densenet!`: with a name and braces, or the keys alone.
    ///
    /// ```
    /// use densenet_spec::ParsedSpec;
    ///
    /// let spec = ParsedSpec::parse("blocks: [6, 12, 24, 16], k: 32, theta: 0.5, bottleneck, classes: 18")?;
    /// assert_eq!(spec.plan.depth(), 121);
    ///
    /// let errors = ParsedSpec::parse("blocks: [2, 2], k: 12, theta: 1.5").unwrap_err();
    /// assert_eq!(
    ///     errors.to_string(),
    ///     "compression `theta` must be in (0, 1], found 1.5
    ///   |
    /// 1 | blocks: [2, 2], k: 12, theta: 1.5
    ///   |                               ^^^
    ///   = help: theta = 0.5 keeps half of the feature maps at each transition (the paper's DenseNet-BC)"
    /// );
    /// # Ok::<(), densenet_spec::SpecErrors>(())
    /// ```
    ///
    /// # Errors
    /// When the spec has mistakes: all of them, with the words that they stand on.
    pub fn parse(text: &str) -> Result<Self, SpecErrors> {
        let tokens = tokens(text).map_err(|error| SpecErrors(vec![error]))?;
        match crate::read(tokens) {
            ((_, Some(network)), None) => Ok(Self::of(network)),
            (_, Some(errors)) => Err(SpecErrors(
                errors
                    .into_iter()
                    .map(|error| SpecError::new(text, error.span(), &error.to_string()))
                    .collect(),
            )),
            // A spec without a plan has an error that says why.
            (_, None) => {
                let message = "the spec has no plan";
                Err(SpecErrors(vec![SpecError::new(
                    text,
                    Span::call_site(),
                    message,
                )]))
            }
        }
    }

    fn of(network: CheckedNetwork) -> Self {
        Self {
            name: network.name.to_string(),
            plan: network.plan,
            classes: network.classes,
        }
    }
}

/// A text as tokens.
fn tokens(text: &str) -> Result<TokenStream, SpecError> {
    let tokens: TokenStream = text.parse().map_err(|error: proc_macro2::LexError| {
        let message = "the spec cannot be read: a bracket or a quote is not closed, or a character means nothing in Rust";
        SpecError::new(text, error.span(), message)
    })?;
    match too_deep(tokens.clone(), DEEPEST) {
        None => Ok(tokens),
        Some(span) => {
            let message = format!("more than {DEEPEST} brackets within each other");
            Err(SpecError::new(text, span, &message))
        }
    }
}

/// The first group below this many others.
fn too_deep(tokens: TokenStream, levels: usize) -> Option<Span> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Group(group) if levels == 0 => Some(group.span_open()),
        TokenTree::Group(group) => too_deep(group.stream(), levels - 1),
        _ => None,
    })
}

/// A mistake in a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// What is wrong; further lines say what to do.
    pub message: String,
    /// The line of the words that it stands on, counted from 1.
    pub line: usize,
    /// The column of the first of their characters, counted from 1.
    pub column: usize,
    /// The characters of them that are on this line, at least 1.
    pub width: usize,
    /// The line as it is written.
    pub source: String,
}

impl SpecError {
    fn new(text: &str, span: Span, message: &str) -> Self {
        let (start, end) = (span.start(), span.end());
        // A token that is not of the text, or nothing at its end: the mistake is of the whole spec.
        let is_whole = start == end;
        let line = if is_whole { 1 } else { start.line.max(1) };
        let source = text.lines().nth(line - 1).unwrap_or_default().to_string();
        let length = source.chars().count();
        let (from, to) = match is_whole {
            true => (0, length),
            false if end.line == start.line => (start.column, end.column),
            false => (start.column, length),
        };
        Self {
            message: message.to_string(),
            line,
            column: from + 1,
            width: to.saturating_sub(from).max(1),
            source,
        }
    }
}

impl fmt::Display for SpecError {
    /// As the compiler prints it, without `error:` before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.message.lines();
        let number = self.line.to_string();
        let gap = " ".repeat(number.len());
        writeln!(f, "{}", lines.next().unwrap_or_default())?;
        writeln!(f, "{gap} |")?;
        // A tab would move the caret.
        writeln!(f, "{number} | {}", self.source.replace('\t', " "))?;
        let (before, carets) = (" ".repeat(self.column - 1), "^".repeat(self.width));
        write!(f, "{gap} | {before}{carets}")?;
        for line in lines {
            write!(f, "\n{gap} {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecError {}

/// All mistakes in a spec, in the order in which they were found. They are printed as the compiler
/// prints them; the first has no `error:` before it, since programs write that themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecErrors(pub Vec<SpecError>);

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let before = if index == 0 { "" } else { "\nerror: " };
            write!(f, "{before}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<SpecError> {
        ParsedSpec::parse(text).unwrap_err().0
    }

    #[test]
    fn a_text_gives_the_plan_that_the_macro_writes() {
        let words = "blocks: [2, 1], k: 4, theta: 0.5, bottleneck, input: [1, 8, 8]";
        let spec = ParsedSpec::parse(words).unwrap();
        assert_eq!(spec.name, "DenseNet");
        assert!(spec.classes.is_empty());
        let named = format!("/// Pets.\npub Pets {{ {words}, classes: [\"cat\", \"dog\"] }}");
        let named = ParsedSpec::parse(&named).unwrap();
        assert_eq!((named.name.as_str(), named.plan.classes()), ("Pets", 2));
        assert_eq!(named.classes, ["cat", "dog"]);
        assert_eq!(named.plan.blocks(), spec.plan.blocks());
        // What the macro writes has the same figures.
        let code = crate::compile(words.parse().unwrap()).to_string();
        let count = spec.plan.parameter_count();
        assert!(code.contains(&format!("PARAMETERS : usize = {count}")));
    }

    #[test]
    fn each_mistake_stands_on_its_words() {
        let text = "Pets {\n    blocks: [2, 0],\n    größe: 3, k: 4, theta: 1.5,\n}";
        let found = errors(text);
        let places: Vec<_> = found
            .iter()
            .map(|error| (error.line, error.column, error.width))
            .collect();
        assert_eq!(places, [(2, 17, 1), (3, 5, 5), (3, 28, 3)]);
        let shown = ParsedSpec::parse(text).unwrap_err().to_string();
        let start = "`blocks` (layers of each block) must be at least 1, found 0\n  |\n2 |     blocks: [2, 0],\n  |                 ^\nerror: unknown key `größe`";
        assert!(shown.starts_with(start), "{shown}");
    }

    #[test]
    fn a_mistake_of_the_whole_spec_stands_on_all_of_it() {
        let shown = ParsedSpec::parse("blocks: [2, 2]").unwrap_err().to_string();
        assert_eq!(
            shown,
            "`DenseNet` needs `k` (growth rate): add `k: 32,`\n  |\n1 | blocks: [2, 2]\n  | ^^^^^^^^^^^^^^"
        );
        assert_eq!(errors("").len(), 2);
    }

    #[test]
    fn what_are_no_tokens_is_refused_where_it_ends() {
        for text in ["blocks: [2, 2", "classes: [\"cat]", "k: 3]", "k: \\"] {
            let found = errors(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].message.starts_with("the spec cannot be read"));
        }
    }

    #[test]
    fn brackets_may_not_be_nested_deeper_than_a_parser_can_follow() {
        let deep = format!("blocks: {}{}", "[".repeat(100_000), "]".repeat(100_000));
        let found = errors(&deep);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message, "more than 32 brackets within each other");
        assert_eq!(found[0].column, 9 + DEEPEST);
    }
}
