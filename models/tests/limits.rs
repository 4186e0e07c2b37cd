//! Arguments that an example cannot do anything with are refused by their names.

mod support;

use std::path::Path;

fn refusal(name: &str, arguments: &[&str]) -> String {
    let mut command = support::command(name, Path::new("."), arguments);
    support::refusal_at_once(&command.output().unwrap())
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
fn a_benchmark_needs_at_least_one_step() {
    let said = refusal("bench", &["--model", "densenet201", "--steps", "0"]);
    assert!(said.contains("0 is not in 1.."), "{said}");
}

#[test]
fn every_example_has_a_description() {
    for name in [
        "bench",
        "cifar_svhn",
        "dfdx_loop",
        "draw_pictures",
        "fashion_mnist",
        "feature_reuse",
        "imagenet_densenet201",
        "predict",
        "roofline",
    ] {
        let mut command = support::command(name, Path::new("."), &["--help"]);
        let [said, _] = support::said(command.output().unwrap());
        assert!(said.contains("Usage: "), "{name}: {said}");
    }
}

#[test]
fn inference_takes_no_options_of_training() {
    for more in [&["--recompute"][..], &["--freeze", "features"]] {
        let common = [
            "--model",
            "cifar_40_12",
            "--mode",
            "infer",
            "--batch",
            "1",
            "--steps",
            "1",
        ];
        let said = refusal("bench", &[&common[..], more].concat());
        assert!(said.contains("are for --mode train"), "{said}");
    }
}
