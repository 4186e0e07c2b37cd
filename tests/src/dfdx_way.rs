//! Gradients out of dfdx.

use std::convert::Infallible;

use dfdx::nn::tensor_collection::{
    RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorRef,
};
use dfdx::prelude::{Cpu, Gradients, Shape, Tensor};

/// The gradients of a model's trainable tensors, in the order of its parameters.
pub fn arena<M: TensorCollection<f32, Cpu>>(
    model: &M,
    gradients: &Gradients<f32, Cpu>,
) -> Vec<f32> {
    let mut collect = Collect {
        gradients,
        arena: Vec::new(),
    };
    let walked = M::iter_tensors(&mut RecursiveWalker {
        m: model,
        f: &mut collect,
    });
    match walked {
        Ok(_) => collect.arena,
        Err(never) => match never {},
    }
}

struct Collect<'a> {
    gradients: &'a Gradients<f32, Cpu>,
    arena: Vec<f32>,
}

impl TensorVisitor<f32, Cpu> for Collect<'_> {
    type Viewer = ViewTensorRef;
    type Err = Infallible;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        tensor: &Tensor<S, f32, Cpu>,
    ) -> Result<Option<Tensor<S, f32, Cpu>>, Infallible> {
        if options.do_gradient_update {
            self.arena.extend(self.gradients.get(tensor).as_vec());
        }
        Ok(None)
    }
}
