//! The message of an error contains that of its cause, so a program that prints only the message
//! says everything; `source` is for programs that match causes.

use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Field, Fields, ItemEnum, ItemMod, ItemStruct};
use walkdir::WalkDir;

/// Errors whose messages leave their causes out, and how many errors have causes.
#[derive(Default)]
struct Errors {
    silent: Vec<String>,
    count: usize,
}

impl Errors {
    /// Looks at an error, or at one of its variants. `attributes` give its message.
    fn look(&mut self, name: String, attributes: &[Attribute], fields: &Fields) {
        let is_named = |attribute: &&Attribute, name| attribute.path().is_ident(name);
        let Some(message) = attributes.iter().find(|own| is_named(own, "error")) else {
            return;
        };
        let is_cause = |(_, field): &(usize, &Field)| {
            let own = |name| field.attrs.iter().any(|own| is_named(&own, name));
            own("source") || own("from") || field.ident.as_ref().is_some_and(|own| own == "source")
        };
        let Some((index, cause)) = fields.iter().enumerate().find(is_cause) else {
            return;
        };
        self.count += 1;
        let list = message.meta.require_list().expect("#[error(..)]");
        let text = list.tokens.to_string();
        let field = cause
            .ident
            .as_ref()
            .map_or(index.to_string(), ToString::to_string);
        if text != "transparent" && !text.contains(&format!("{{{field}}}")) {
            self.silent.push(name);
        }
    }
}

impl<'ast> Visit<'ast> for Errors {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.ident != "tests" {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        for variant in &item.variants {
            let name = format!("{}::{}", item.ident, variant.ident);
            self.look(name, &variant.attrs, &variant.fields);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.look(item.ident.to_string(), &item.attrs, &item.fields);
    }
}

#[test]
fn messages_contain_the_messages_of_their_causes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut errors = Errors::default();
    for folder in ["densenet-macros", "densenet-runtime", "models"] {
        let files = WalkDir::new(root.join(folder))
            .into_iter()
            .map(Result::unwrap);
        let files = files.filter(|file| file.path().extension().is_some_and(|own| own == "rs"));
        for file in files.filter(|file| {
            file.path()
                .components()
                .any(|part| part.as_os_str() == "src")
        }) {
            let text = fs::read_to_string(file.path()).unwrap();
            errors.visit_file(&syn::parse_file(&text).unwrap());
        }
    }
    assert!(errors.count > 10, "{} errors with causes", errors.count);
    assert!(errors.silent.is_empty(), "{:#?}", errors.silent);
}
