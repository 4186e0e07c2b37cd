//! Arguments that an example cannot do anything with are refused by their names.

use std::process::{Command, Output};

/// `cargo test` builds the examples beside the tests.
fn example(name: &str, arguments: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().nth(2).unwrap();
    let example = profile.join("examples").join(name);
    let example = example.with_extension(std::env::consts::EXE_EXTENSION);
    Command::new(example).args(arguments).output().unwrap()
}

fn refusal(name: &str, arguments: &[&str]) -> String {
    let output = example(name, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{name} {arguments:?}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(
        output.stdout.is_empty(),
        "{arguments:?}: announced before it was refused"
    );
    said
}

#[test]
fn batches_that_no_kernel_can_count_are_refused() {
    for batch in ["0", "20000000", "99999999999999"] {
        for name in ["bench", "roofline"] {
            let said = refusal(name, &["--model", "densenet201", "--batch", batch]);
            let expected =
                format!("error: --batch {batch}: a step of densenet201 has 1 to 42799 images");
            assert!(said.starts_with(&expected), "{said}");
        }
    }
}

#[test]
fn a_benchmark_has_a_step_at_least() {
    let said = refusal("bench", &["--model", "densenet201", "--steps", "0"]);
    assert!(said.contains("0 is not in 1.."), "{said}");
}

#[test]
fn every_example_says_what_it_is() {
    for name in [
        "bench",
        "cifar_svhn",
        "dfdx_loop",
        "fashion_mnist",
        "feature_reuse",
        "imagenet_densenet201",
        "predict",
        "roofline",
    ] {
        let output = example(name, &["--help"]);
        assert!(output.status.success(), "{name}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("Usage: "), "{name}: {said}");
    }
}
