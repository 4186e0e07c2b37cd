//! What must compile and what must not, with its messages.
//!
//! The messages are those of the toolchain that `rust-version` names. After a change of a
//! message, `TRYBUILD=overwrite cargo test -p densenet-ui-tests` writes the new ones: read them.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn what_must_compile_compiles_and_what_must_not_is_refused_in_words() {
    let cases = trybuild::TestCases::new();
    cases.pass("compiles/*.rs");
    cases.compile_fail("refused/*/*.rs");
}

#[test]
fn every_message_has_a_case() {
    let stale: Vec<_> = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("refused"))
        .into_iter()
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "stderr")
        })
        .filter(|message| !message.with_extension("rs").exists())
        .collect();
    assert!(stale.is_empty(), "messages without a case: {stale:?}");
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("the entry can be read").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
