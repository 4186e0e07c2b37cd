//! dfdx visits a generated network's tensors in the order, and by the names, of its plan: that
//! is how a network moves in and out of an executor and of a checkpoint.

use densenet_models::{DenseNet40K12, DenseNet121, DenseNetBC100K12C100};
use densenet_runtime::Network;
use densenet_runtime::dfdx::prelude::*;
use densenet_runtime::plan::Parameter;

/// A tensor as dfdx visits it: path, dimensions, whether optimisers change it.
type Visited = (String, Vec<usize>, bool);

struct Names(Vec<Visited>);

impl TensorVisitor<f32, Cpu> for Names {
    type Viewer = ViewTensorName;
    type Err = <Cpu as HasErr>::Err;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        name: String,
    ) -> Result<Option<Tensor<S, f32, Cpu>>, Self::Err> {
        let shape = options.shape.concrete().into_iter().collect();
        self.0.push((name, shape, options.do_gradient_update));
        Ok(None)
    }
}

fn visited<N: Network>() -> Vec<Visited> {
    let mut names = Names(Vec::new());
    let mut walker = RecursiveWalker {
        m: String::new(),
        f: &mut names,
    };
    assert!(
        N::iter_tensors(&mut walker)
            .expect("no tensor is made")
            .is_none()
    );
    names.0
}

fn planned<N: Network>() -> Vec<Visited> {
    let plan = N::PLAN;
    let tensor = |p: Parameter| (p.field, p.shape, p.role.is_trainable());
    plan.parameters().into_iter().map(tensor).collect()
}

#[test]
fn tensors_are_visited_in_the_order_and_by_the_names_of_the_plan() {
    assert_eq!(visited::<DenseNet40K12>(), planned::<DenseNet40K12>());
    assert_eq!(
        visited::<DenseNetBC100K12C100>(),
        planned::<DenseNetBC100K12C100>()
    );
    assert_eq!(visited::<DenseNet121>(), planned::<DenseNet121>());
}

#[test]
fn dfdx_counts_the_papers_parameters() {
    let network = Cpu::default().build_module::<DenseNet40K12, f32>();
    assert_eq!(network.num_trainable_params(), DenseNet40K12::PARAMETERS);
}

#[test]
fn a_new_network_starts_as_the_paper_says() {
    let network = Cpu::default().build_module::<DenseNet40K12, f32>();
    let norm = &network.block1.layer1.norm;
    assert!(norm.scale.as_vec().iter().all(|&scale| scale == 1.0));
    assert!(norm.bias.as_vec().iter().all(|&bias| bias == 0.0));
    assert!(
        network
            .classifier
            .bias
            .as_vec()
            .iter()
            .all(|&bias| bias == 0.0)
    );

    // He: variance 2 / fan-in. Of 47,088 weights its estimate is within 3% but once in 10,000.
    let weights = network.block3.layer12.conv.weight.as_vec();
    let mean = |values: &mut dyn Iterator<Item = f32>| values.sum::<f32>() / weights.len() as f32;
    let average = mean(&mut weights.iter().copied());
    let variance = mean(&mut weights.iter().map(|w| (w - average).powi(2)));
    let expected = 2.0 / (436.0 * 9.0);
    assert!(average.abs() < 1e-3, "{average}");
    assert!(
        (variance / expected - 1.0).abs() < 0.03,
        "{variance} instead of {expected}"
    );
}
