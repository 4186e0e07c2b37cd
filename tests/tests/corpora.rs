//! No bytes make a parser panic, or take memory that they only claim to need: the fuzzers' seeds,
//! what fuzzers have found, and mutations of both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use densenet_tests::memory::Counting;
use densenet_tests::mutations;
use densenet_tests::parsers::{ALL, Desk, Parser};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Feeds a parser; returns whether it read something. Bytes that it does not survive are kept.
fn feed(parser: &Parser, desk: &mut Desk, bytes: &[u8], what: &str) -> bool {
    catch_unwind(AssertUnwindSafe(|| parser.feed(desk, bytes))).unwrap_or_else(|_| {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(parser.name);
        std::fs::write(&kept, bytes).unwrap();
        panic!(
            "{} does not survive {what}, kept as {}",
            parser.name,
            kept.display()
        );
    })
}

fn survives(name: &str, mutations: usize) {
    let parser = Parser::named(name);
    let mut desk = Desk::new();
    let corpus = parser.corpus();
    let others: Vec<_> = corpus.iter().map(|(_, bytes)| bytes.clone()).collect();
    let mut read = 0;
    for (path, bytes) in &corpus {
        let path = path.display();
        read += usize::from(feed(&parser, &mut desk, bytes, &format!("{path}")));
        let mutants = mutations::of(bytes, &others, mutations / corpus.len());
        for (index, mutant) in mutants.enumerate() {
            let what = format!("mutation {index} of {path}");
            feed(&parser, &mut desk, &mutant, &what);
        }
    }
    assert!(read > 0, "no seed of {name} is valid");
}

macro_rules! parsers {
    ($($test:ident: $parser:literal, $mutations:literal;)*) => {
        const TESTED: &[&str] = &[$($parser),*];
        $(
            #[test]
            fn $test() {
                survives($parser, $mutations);
            }
        )*
    };
}

parsers! {
    no_bytes_make_a_file_of_weights_panic: "safetensors", 20_000;
    no_bytes_make_a_file_of_pytorch_panic: "torch", 20_000;
    no_bytes_make_a_checkpoint_panic: "checkpoint", 10_000;
    no_bytes_make_an_idx_file_panic: "idx", 20_000;
    no_bytes_make_a_cifar_file_panic: "cifar", 5_000;
    no_bytes_make_a_mat_file_panic: "mat", 20_000;
    no_bytes_make_metrics_panic: "metrics", 10_000;
    no_bytes_make_the_curves_of_metrics_panic: "curves", 60;
    no_bytes_make_a_picture_panic: "picture", 20_000;
    no_bytes_make_a_table_panic: "table", 10_000;
    no_bytes_make_a_spec_panic: "spec", 4_000;
}

#[test]
fn every_parser_is_tested_here_and_fuzzed() {
    for parser in ALL {
        assert!(TESTED.contains(&parser.name), "{}", parser.name);
        let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/src/bin");
        let target = targets.join(format!("{}.rs", parser.name));
        assert!(target.is_file(), "{}", target.display());
    }
}
