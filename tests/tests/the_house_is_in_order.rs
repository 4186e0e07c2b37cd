//! What is promised of the sources and packages themselves: short examples, complete packages,
//! features that cost nothing if they are off, helpers that exist once, words with one meaning, and
//! plain English.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args(arguments);
    let output = command.arg("--offline").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The packages of the workspace, as cargo sees them.
fn packages() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// Those that are for a registry.
fn published() -> Vec<Value> {
    let mut packages = packages();
    packages.retain(|package| package["publish"].is_null());
    packages
}

/// The Rust files of the repository.
fn sources() -> Vec<(PathBuf, String)> {
    files(
        &["densenet-macros", "densenet-runtime", "models", "tests"],
        &["rs"],
    )
}

/// Files of these folders with one of these extensions; those without one have `""`.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let entries = folders
        .iter()
        .flat_map(|folder| walkdir::WalkDir::new(root().join(folder)));
    let entries = entries.map(Result::unwrap);
    let paths = entries.filter(|entry| entry.file_type().is_file());
    let paths = paths.map(walkdir::DirEntry::into_path).filter(|path| {
        let own = path.extension().unwrap_or_default();
        extensions.iter().any(|extension| own == *extension)
    });
    // The fuzzers' workspace has a folder of its own for what is built.
    let paths = paths.filter(|path| path.components().all(|part| part.as_os_str() != "target"));
    paths
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// Where in the sources some code stands: it is put together here, so that it does not stand here.
fn places(code: [&str; 2]) -> Vec<PathBuf> {
    let code = code.concat();
    let found = sources().into_iter();
    let found = found.filter(|(_, text)| text.contains(&code));
    found.map(|(path, _)| path).collect()
}

#[test]
fn examples_are_short() {
    for entry in fs::read_dir(root().join("models/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|own| own != "rs") {
            continue;
        }
        // This one measures: it is a tool, with the statistics of what it timed.
        let most = if path.ends_with("bench.rs") { 310 } else { 200 };
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= most, "{}: {lines} lines", path.display());
    }
}

#[test]
fn published_crates_have_what_a_registry_shows() {
    let published = published();
    let mut names: Vec<_> = published.iter().map(name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "densenet-cpu",
            "densenet-macros",
            "densenet-plan",
            "densenet-runtime",
            "densenet-spec"
        ]
    );
    for package in &published {
        let name = name(package);
        for key in ["description", "license", "rust_version"] {
            assert!(package[key].is_string(), "{name} has no {key}");
        }
        assert_eq!(
            package["documentation"],
            format!("https://docs.rs/{name}"),
            "{name}"
        );
        // A registry takes five keywords of 20 letters at most.
        let keywords = package["keywords"].as_array().unwrap();
        assert!((1..=5).contains(&keywords.len()), "{name}: {keywords:?}");
        let is_short = |word: &Value| word.as_str().unwrap().len() <= 20;
        assert!(keywords.iter().all(is_short), "{name}: {keywords:?}");
        // Two of <https://crates.io/category_slugs>.
        let categories = package["categories"].as_array().unwrap();
        let known = ["science", "computer-vision"];
        assert_eq!(categories[..], known, "{name}");
        let folder = Path::new(package["manifest_path"].as_str().unwrap());
        let readme = folder.with_file_name("README.md");
        let title = fs::read_to_string(readme).unwrap();
        assert!(title.starts_with(&format!("# {name}\n")), "{name}");
    }
}

#[test]
fn packages_have_their_readme_and_their_licences() {
    for package in published() {
        let name = name(&package);
        let list = cargo(&["package", "--list", "--allow-dirty", "-p", name]);
        for file in ["Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            assert!(list.lines().any(|own| own == file), "{name} lacks {file}");
        }
    }
}

#[test]
fn all_that_people_need_is_on_by_default_and_what_serves_tests_is_not() {
    let packages = packages();
    let runtime = packages.iter().find(|own| name(own) == "densenet-runtime");
    let features = &runtime.unwrap()["features"];
    let default = serde_json::json!(["train", "data", "figures", "cuda", "pytorch"]);
    assert_eq!(features["default"], default);
    let readme = fs::read_to_string(root().join("densenet-runtime/README.md")).unwrap();
    for feature in features.as_object().unwrap().keys() {
        // What a step moves on paper.
        let is_for_tests = feature == "roofline" || feature == "default";
        let is_described = readme.contains(&format!("\n| `{feature}` |"));
        assert_eq!(is_described, !is_for_tests, "{feature}");
    }
    let drawn = packages.iter().find(|own| name(own) == "drawn-pictures");
    assert_eq!(drawn.unwrap()["publish"], serde_json::json!([]));
}

/// On other systems other crates are built.
#[cfg(target_os = "linux")]
#[test]
fn each_feature_brings_as_many_crates_as_the_readme_says() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, table) = readme
        .split_once("| feature | what it adds | crates")
        .unwrap();
    let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let (feature, crates) = (cells[1].trim_matches('`'), cells[3]);
        let features = match feature {
            "none" => vec!["--no-default-features"],
            "all" => vec!["--all-features"],
            one => vec!["--no-default-features", "-F", one],
        };
        let tree = [
            "tree",
            "-p",
            "densenet-runtime",
            "-e",
            "normal",
            "--prefix",
            "none",
        ];
        let tree = cargo(&[&tree[..], &features].concat());
        let names = tree.lines().map(|line| line.trim_end_matches(" (*)"));
        let found = names.collect::<BTreeSet<_>>().len();
        let said: String = crates.chars().take_while(char::is_ascii_digit).collect();
        assert_eq!(said, found.to_string(), "{feature}");
        count += 1;
    }
    assert_eq!(count, 8);
}

#[test]
fn the_part_of_fashion_mnist_is_within_8_mb_and_names_its_licence() {
    let folder = root().join("tests/data/fashion-mnist");
    let entries = fs::read_dir(&folder).unwrap();
    let bytes: u64 = entries
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= 8_000_000, "{bytes} bytes");
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains("MIT"), "{readme}");
}

#[test]
fn helpers_exist_once() {
    for (code, home) in [
        (["GlobalAlloc", " for "], "tests/src/memory.rs"),
        (
            ["TensorVisitor", "<f32, Cpu> for "],
            "densenet-runtime/src/weights/tensors.rs",
        ),
        (["fn difference(found", ": &[f32]"], "tests/src/compare.rs"),
    ] {
        let found = places(code);
        assert_eq!(found, [root().join(home)], "{code:?}");
    }
}

/// Whether a file is compiled for tests or examples alone.
fn serves_tests(path: &Path) -> bool {
    let mut parts = path.strip_prefix(root()).unwrap().iter();
    parts.any(|part| part == "tests" || part == "examples" || part == "tests.rs")
}

/// The name of the type that a line defines.
fn defined(line: &str) -> Option<&str> {
    let (before, after) = ["struct ", "enum ", "trait ", "type "]
        .iter()
        .find_map(|keyword| line.split_once(keyword))?;
    let is_visibility = before.is_empty() || before.starts_with("pub") || before == "unsafe ";
    let end = after.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let name = &after[..end.unwrap_or(after.len())];
    (is_visibility && name.starts_with(char::is_uppercase)).then_some(name)
}

/// The types of our crates by name, and the files that define them. Tests and items within other
/// items, such as associated types, are left out.
fn definitions() -> BTreeMap<String, Vec<PathBuf>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for (path, text) in sources() {
        if serves_tests(&path) {
            continue;
        }
        let code = text.split("\nmod tests {").next().unwrap();
        for name in code.lines().filter_map(defined) {
            all.entry(name.to_owned()).or_default().push(path.clone());
        }
    }
    all
}

/// The names of types that users can import from `densenet-runtime` and `densenet-plan`.
fn public_names() -> BTreeSet<String> {
    let crates = ["src", "plan/src"].map(|folder| root().join("densenet-runtime").join(folder));
    let mut names = BTreeSet::new();
    for (path, text) in sources() {
        let file = path.file_name().unwrap();
        let is_module = file == "lib.rs" || file == "mod.rs";
        if !is_module || !crates.iter().any(|own| path.starts_with(own)) {
            continue;
        }
        for exported in text.split("\npub use ").skip(1) {
            let exported = exported.split(';').next().unwrap();
            let words = exported.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let is_type = |word: &&str| {
                word.starts_with(char::is_uppercase) && word.contains(char::is_lowercase)
            };
            names.extend(words.filter(is_type).map(str::to_owned));
        }
    }
    names
}

/// These words have had up to four meanings.
#[test]
fn one_word_has_one_meaning() {
    let definitions = definitions();
    for word in [
        "Place",
        "Executor",
        "Evaluation",
        "Fit",
        "Best",
        "Options",
        "Device",
        "Engine",
    ] {
        let found = definitions.get(word).map_or(0, Vec::len);
        assert!(found <= 1, "{word}: {:?}", definitions[word]);
    }
}

#[test]
fn a_type_that_users_import_has_its_name_to_itself() {
    // The same idea in two forms, and how many definitions there are.
    let excused = BTreeMap::from([
        // Which stages do not train; the network of each device, and that of either.
        ("Frozen", 4),
        ("FrozenOptions", 2),
        // A stage's shapes, and its launches on CUDA.
        ("Stem", 2),
        ("Block", 2),
        ("Transition", 2),
        ("Head", 2),
        // dfdx's layer, and its launches on CUDA.
        ("BatchNorm", 2),
        // The rule, and one site of it in one step.
        ("Dropout", 2),
        // What buffers need, and the buffers.
        ("Buffers", 2),
        // What the driver is given, and the same in a listing.
        ("Launch", 2),
        ("Argument", 2),
        ("Value", 2),
    ]);
    let definitions = definitions();
    let names = public_names();
    assert!(names.len() > 150, "{names:?}");
    for name in names {
        let Some(found) = definitions.get(&name) else {
            continue;
        };
        let allowed = excused.get(&*name).copied().unwrap_or(1);
        assert!(found.len() <= allowed, "{name}: {found:?}");
    }
}

/// The comments of Rust files, kernels and scripts, and the documents, paragraph by paragraph, each on
/// one line.
fn prose() -> Vec<(PathBuf, String)> {
    let mut prose = Vec::new();
    let sources = sources().into_iter().map(|source| ("//", source));
    let kernels = files(&["densenet-runtime/src/cuda"], &["cu", "cuh"]);
    let kernels = kernels.into_iter().map(|source| ("//", source));
    let scripts = files(&["scripts", ".ci"], &["py", ""]);
    let scripts = scripts.into_iter().map(|source| ("#", source));
    for (sign, (path, text)) in sources.chain(kernels).chain(scripts) {
        let lines = text.lines().map(|line| {
            let line = line.trim_start().strip_prefix(sign).unwrap_or_default();
            line.trim_start_matches(['/', '!']).trim()
        });
        let lines: Vec<_> = lines.collect();
        let paragraphs = lines.split(|line| line.is_empty());
        prose.extend(paragraphs.map(|lines| (path.clone(), lines.join(" "))));
    }
    let folders = [
        "densenet-macros",
        "densenet-runtime",
        "docs",
        "models",
        "tests",
    ];
    let below = folders
        .iter()
        .flat_map(|folder| walkdir::WalkDir::new(root().join(folder)));
    let above = walkdir::WalkDir::new(root()).max_depth(1).into_iter();
    for entry in above.chain(below) {
        let path = entry.unwrap().into_path();
        if path.extension().is_some_and(|own| own == "md") {
            let text = fs::read_to_string(&path).unwrap();
            let words = |lines: &str| lines.split_whitespace().collect::<Vec<_>>().join(" ");
            let paragraphs = text.split("\n\n").map(words);
            prose.extend(paragraphs.map(|paragraph| (path.clone(), paragraph)));
        }
    }
    prose
}

/// Rustdoc shows the rest of a heading's line as a part of the heading.
#[test]
fn headings_of_docstrings_stand_alone() {
    let headings = ["Errors", "Panics", "Safety"].map(|word| format!("# {word} "));
    let mut found = Vec::new();
    for (path, text) in sources() {
        for line in text.lines() {
            let line = line.trim_start();
            let doc = line.strip_prefix("///").or(line.strip_prefix("//!"));
            let doc = doc.unwrap_or_default().trim_start();
            if headings.iter().any(|heading| doc.starts_with(heading)) {
                found.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Phrases that a native writer of English does not use like this.
#[test]
fn comments_and_documents_are_plain_english() {
    type Excuse = fn(before: &str, after: &str) -> bool;
    let never: Excuse = |_, _| false;
    let lags: Excuse = |before, _| {
        let mut words = before.split_whitespace().rev().take(2);
        words.any(|word| word.starts_with("lag"))
    };
    let counts: Excuse = |before, _| {
        let quantifiers = ["each", "some", "any", "all", "both", "one"];
        let last = before.split_whitespace().next_back();
        last.is_some_and(|word| quantifiers.contains(&word))
    };
    let compares: Excuse = |_, after| {
        let sentence = after.split(['.', ';', ':']).next().unwrap();
        sentence.contains(" that ")
    };
    let phrases = [
        ("is none", never),
        ("what comes of", never),
        ("of which", counts),
        ("behind", lags),
        ("but for", never),
        ("otherwise than", never),
        ("to the last bit", never),
        ("so many", compares),
        ("cut short", never),
        ("as it stands", never),
        ("as they stand", never),
        ("by way of", never),
        ("for ever", never),
        ("anew", never),
        ("anybody's", never),
        ("nobody's", never),
        ("one's own", never),
    ];
    let mut found = Vec::new();
    for (path, paragraph) in prose() {
        let text = paragraph.to_lowercase();
        for (phrase, excuse) in phrases {
            for (at, _) in text.match_indices(phrase) {
                let (before, after) = (&text[..at], &text[at + phrase.len()..]);
                let is_whole = !before.ends_with(char::is_alphanumeric)
                    && !after.starts_with(char::is_alphanumeric);
                if is_whole && !excuse(before, after) {
                    found.push(format!("{}: {phrase}: {paragraph}", path.display()));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "word these otherwise:\n{}",
        found.join("\n")
    );
}

#[test]
fn no_function_is_excused_for_its_many_arguments() {
    let found = places(["too_many", "_arguments"]);
    assert!(found.is_empty(), "{found:?}");
}

/// A room is a file, or a folder.
#[test]
fn both_devices_have_the_same_rooms() {
    let rooms = ["pass", "memory", "conv", "kernel", "frozen", "stage"];
    let stages = ["stem", "block", "transition", "head"].map(|stage| format!("stage/{stage}"));
    let rooms = rooms.map(str::to_owned).into_iter().chain(stages);
    for room in rooms {
        for device in ["cpu/src", "src/cuda"] {
            let room = root().join("densenet-runtime").join(device).join(&room);
            let is_there = room.is_dir() || room.with_extension("rs").is_file();
            assert!(is_there, "{} is missing", room.display());
        }
    }
}
