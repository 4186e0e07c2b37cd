//! Moves a typed model's tensors to and from arenas.

use std::convert::Infallible;

use dfdx::nn::tensor_collection::{
    RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut, ViewTensorRef,
};
use dfdx::prelude::{Cpu, Gradients, HasShape, Shape, Tensor};

use super::{State, WeightsError};

impl State {
    /// The state of a model: a network, or a part of one.
    pub fn of<M: TensorCollection<f32, Cpu>>(model: &M) -> Self {
        let mut state = Self::default();
        state.append(model);
        state
    }

    /// Adds the state of another part behind what there is.
    pub(crate) fn append<M: TensorCollection<f32, Cpu>>(&mut self, model: &M) {
        let walked = M::iter_tensors(&mut RecursiveWalker {
            m: model,
            f: &mut Collect(self),
        });
        match walked {
            Ok(_) => {}
            Err(never) => match never {},
        }
    }

    /// Copies the state into a model of the same shapes. The tensors keep their identities, so
    /// that gradients and optimisers go on knowing them.
    ///
    /// # Errors
    /// When the sizes differ (nothing has changed then), or a tensor of the model is a view.
    pub fn store_into<M: TensorCollection<f32, Cpu>>(
        &self,
        model: &mut M,
    ) -> Result<(), WeightsError> {
        let present = Self::of(model);
        self.check_lengths(present.parameters.len(), present.running.len())?;
        let mut store = Store {
            parameters: &self.parameters,
            running: &self.running,
        };
        M::iter_tensors(&mut RecursiveWalker {
            m: model,
            f: &mut store,
        })?;
        Ok(())
    }
}

/// Appends each tensor to its arena.
struct Collect<'a>(&'a mut State);

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
        let arena = if options.do_gradient_update {
            &mut self.0.parameters
        } else {
            &mut self.0.running
        };
        arena.extend(tensor.as_vec());
        Ok(None)
    }
}

/// What is left of each arena for the tensors to come.
struct Store<'a> {
    parameters: &'a [f32],
    running: &'a [f32],
}

impl TensorVisitor<f32, Cpu> for Store<'_> {
    type Viewer = ViewTensorMut;
    type Err = WeightsError;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        tensor: &mut Tensor<S, f32, Cpu>,
    ) -> Result<Option<Tensor<S, f32, Cpu>>, WeightsError> {
        let shape = *tensor.shape();
        let (what, arena) = if options.do_gradient_update {
            ("parameters", &mut self.parameters)
        } else {
            ("running statistics", &mut self.running)
        };
        let expected = shape.num_elements();
        match arena.split_at_checked(expected) {
            Some((values, rest)) => {
                *arena = rest;
                copy(values, tensor)?;
                Ok(None)
            }
            None => Err(WeightsError::Length {
                what,
                expected,
                found: arena.len(),
            }),
        }
    }
}

/// Copies values into a tensor that has memory of its own.
fn copy<S: Shape>(values: &[f32], tensor: &mut Tensor<S, f32, Cpu>) -> Result<(), WeightsError> {
    let shape = *tensor.shape();
    let view = || WeightsError::View {
        shape: shape.concrete().into_iter().collect(),
    };
    // dfdx keeps strides to itself, and `copy_from` writes memory in order, whatever they are.
    // A gradient is as long as the memory: shorter than the tensor where it is broadcast.
    let mut gradients = Gradients::leaky();
    match gradients.get_or_alloc_mut(tensor) {
        Ok(memory) if memory.len() == values.len() => tensor.copy_from(values),
        _ => return Err(view()),
    }
    // Where it is permuted the values now read in another order.
    let stored = tensor.as_vec();
    let same = stored
        .iter()
        .map(|v| v.to_bits())
        .eq(values.iter().map(|v| v.to_bits()));
    if same { Ok(()) } else { Err(view()) }
}
