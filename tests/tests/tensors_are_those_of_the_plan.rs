//! dfdx visits a generated network's tensors in the order, by the names and with the shapes of its
//! plan: that is how a network moves in and out of an executor, a file and a checkpoint.

use densenet_models::{DenseNet40K12, DenseNet121, DenseNetBC100K12C100};
use densenet_runtime::Network;
use densenet_runtime::weights::each_tensor;
use densenet_tests::each_network;
use dfdx::prelude::Cpu;

fn check<N: Network>() {
    let mut visited = Vec::new();
    each_tensor(&N::build(&Cpu::default()), |tensor| {
        let dimensions = tensor.tensor.dimensions();
        visited.push((tensor.field, dimensions, tensor.is_trainable));
    });
    let parameters = N::PLAN.parameters().into_iter();
    let planned = parameters.map(|p| (p.field, p.shape, p.role.is_trainable()));
    assert_eq!(visited, planned.collect::<Vec<_>>(), "{}", N::NAME);
}

each_network!(check);

#[test]
fn of_the_papers_networks() {
    check::<DenseNet40K12>();
    check::<DenseNetBC100K12C100>();
    check::<DenseNet121>();
}
