//! Modules depend one way: of two modules in one folder, at most one uses the other, directly or
//! through others. A parent and its children may use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, ItemMod, ItemUse, UseTree};

/// A module's path in its crate.
type Module = Vec<String>;

/// The modules of a crate, and all paths that each names.
#[derive(Default)]
struct Crate {
    names: BTreeMap<Module, Vec<Module>>,
    /// What a module takes from its children and passes on, and from which child.
    passed_on: BTreeMap<Module, BTreeMap<String, String>>,
}

/// Collects the paths in a file, tests aside.
struct Names(Vec<Module>);

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn leaves(tree: &UseTree, before: &[String], found: &mut Vec<Module>) {
    let with = |name: &dyn ToString| [before, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &with(&path.ident), found),
        UseTree::Name(name) => found.push(with(&name.ident)),
        UseTree::Rename(name) => found.push(with(&name.ident)),
        UseTree::Glob(_) => found.push(before.to_vec()),
        UseTree::Group(group) => group
            .items
            .iter()
            .for_each(|tree| leaves(tree, before, found)),
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_test(&item.attrs) {
            leaves(&item.tree, &[], &mut self.0);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.push(
            path.segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect(),
        );
        visit::visit_path(self, path);
    }
}

impl Crate {
    fn read(source: &Path) -> Self {
        let mut own = Self::default();
        for entry in walkdir::WalkDir::new(source).sort_by_file_name() {
            let entry = entry.unwrap();
            let path = entry.path();
            let relative = path.strip_prefix(source).unwrap().with_extension("");
            let mut module: Module = relative
                .iter()
                .map(|part| part.to_str().unwrap().to_string())
                .collect();
            let is_of_tests = module.iter().any(|part| part == "tests" || part == "bin");
            if path.extension().is_none_or(|ending| ending != "rs") || is_of_tests {
                continue;
            }
            if module
                .last()
                .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
            {
                module.pop();
            }
            let file = syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
            let mut names = Names(Vec::new());
            names.visit_file(&file);
            own.names.insert(module, names.0);
        }
        for (module, names) in &own.names {
            for name in names {
                if let [child, .., last] = &name[..]
                    && own
                        .names
                        .contains_key(&[&module[..], std::slice::from_ref(child)].concat())
                {
                    let passed_on = own.passed_on.entry(module.clone()).or_default();
                    passed_on.insert(last.clone(), child.clone());
                }
            }
        }
        own
    }

    /// Where a path that a module names begins, counted from the crate's root.
    fn absolute(&self, module: &[String], name: &[String]) -> Option<Module> {
        let (mut base, mut rest) = match name.first()?.as_str() {
            "crate" => (Vec::new(), &name[1..]),
            "self" => (module.to_vec(), &name[1..]),
            "super" => (module.to_vec(), name),
            _ => return None,
        };
        while rest.first().is_some_and(|first| first == "super") {
            base.pop();
            rest = &rest[1..];
        }
        for part in rest {
            let passed_on = self.passed_on.get(&base).and_then(|names| names.get(part));
            let known = |child: &String| {
                let path = [&base[..], std::slice::from_ref(child)].concat();
                self.names.contains_key(&path)
            };
            match Some(part).filter(|part| known(part)).or(passed_on) {
                Some(child) => base.push(child.clone()),
                None => break,
            }
        }
        Some(base)
    }

    /// Circles among the modules of each folder.
    fn circles(&self) -> Vec<String> {
        let mut uses: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
        for (module, names) in &self.names {
            for target in names.iter().filter_map(|name| self.absolute(module, name)) {
                let common = module
                    .iter()
                    .zip(&target)
                    .take_while(|(a, b)| a == b)
                    .count();
                if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                    let folder = uses.entry(module[..common].to_vec()).or_default();
                    folder.entry(from.clone()).or_default().insert(to.clone());
                }
            }
        }
        let mut circles = Vec::new();
        for (folder, uses) in &uses {
            for start in uses.keys() {
                let mut reached = BTreeSet::new();
                let mut next: Vec<_> = uses[start].iter().collect();
                while let Some(module) = next.pop() {
                    if reached.insert(module) {
                        next.extend(uses.get(module).into_iter().flatten());
                    }
                }
                if reached.contains(start) {
                    circles.push(format!("{}::{start}", folder.join("::")));
                }
            }
        }
        circles
    }
}

fn check(source: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let circles = Crate::read(&root.join(source)).circles();
    assert!(
        circles.is_empty(),
        "these modules of {source} use others that use them: {circles:#?}; move what they share into \
         one of them, into a module of its own, or make one the other's child"
    );
}

#[test]
fn modules_of_the_plan_depend_one_way() {
    check("densenet-runtime/plan/src");
}

#[test]
fn modules_of_the_macro_depend_one_way() {
    check("densenet-macros/spec/src");
}

#[test]
fn modules_of_the_cpu_depend_one_way() {
    check("densenet-runtime/cpu/src");
}

#[test]
fn modules_of_the_runtime_depend_one_way() {
    check("densenet-runtime/src");
}

#[test]
fn a_circle_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("lib.rs", "mod a; mod b; mod c; pub use c::C;");
    write("a.rs", "use super::b::{B, D}; pub struct A;");
    write("b.rs", "use crate::C; pub struct B;");
    write("c.rs", "pub struct C;");
    assert!(Crate::read(folder.path()).circles().is_empty());
    write("c.rs", "pub fn c() -> crate::a::A { todo!() }");
    let circles = Crate::read(folder.path()).circles();
    assert_eq!(circles, ["::a", "::b", "::c"]);
}
