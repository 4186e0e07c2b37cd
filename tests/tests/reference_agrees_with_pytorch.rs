//! The reference network of dfdx's operations agrees with PyTorch. Other tests compare it with the
//! executors; here it is compared with the golden files, so that it can be trusted.

use densenet_tests::compare::Comparison;
use densenet_tests::golden::Golden;
use densenet_tests::networks;
use densenet_tests::reference::Reference;

/// Both compute in f64 and round to f32 once, half a unit in the last place (6e-8) each.
const TOLERANCE: f64 = 2e-7;

#[test]
fn the_reference_has_pytorchs_outputs_gradients_and_statistics() {
    for (name, plan) in networks::all() {
        let golden = Golden::open(name, &plan);
        let mut reference = Reference::new(&plan, &golden.start());
        let images = golden.images();
        let mut compare = Comparison::within(TOLERANCE);

        let logits = reference.evaluate(&images);
        compare.add("evaluation logits", &logits, &golden.tensor("logits.eval"));

        let pass = reference.differentiate(&images, &golden.labels());
        compare.add("logits", &pass.logits, &golden.tensor("logits.train"));
        let losses = golden.tensor("losses");
        compare.add("loss", &[pass.loss as f32], &losses[..1]);
        compare.add_parameters("gradient of", &plan, &pass.gradients, &golden.gradients());
        let running = golden.running_after_first_pass();
        compare.add_running("step 1:", &plan, &reference.running(), &running);
        compare.assert(name);
    }
}
