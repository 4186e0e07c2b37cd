//! The one walk over a model's tensors, in the order in which dfdx visits them.

use std::convert::Infallible;
use std::ptr;

use dfdx::nn::tensor_collection::{
    RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut, ViewTensorName,
    ViewTensorRef,
};
use dfdx::prelude::{Cpu, Gradients, HasErr, HasShape, RandomU64, Shape, Tensor};

/// A tensor of a model, whatever its shape.
pub trait AnyTensor {
    /// Its dimensions.
    fn dimensions(&self) -> Vec<usize>;

    /// The number of its elements.
    fn elements(&self) -> usize;

    /// Its values, the last dimension fastest.
    fn values(&self) -> Vec<f32>;

    /// For each dimension, the elements from one index to the next in memory; 0 if it has one index.
    /// The tensor is not empty.
    fn strides(&self) -> Vec<usize>;

    /// A number that its device draws.
    fn draw(&self) -> u64;

    /// Finds or makes the memory of its gradient, which is as long as the memory of the tensor and
    /// has its order. The slot outlives the tensor.
    fn slot(&self) -> GradientSlot;
}

/// Finds or makes the memory of one tensor's gradient.
pub type GradientSlot =
    Box<dyn Fn(&mut Gradients<f32, Cpu>) -> Result<&mut [f32], <Cpu as HasErr>::Err>>;

/// Whether a tensor is a broadcast or permuted view: its elements share memory, or are out of order.
pub(crate) fn is_view(tensor: &dyn AnyTensor) -> bool {
    if tensor.elements() == 0 {
        return false;
    }
    let mut expected = 1;
    let dimensions = tensor.dimensions().into_iter().zip(tensor.strides());
    dimensions.rev().any(|(size, stride)| {
        let differs = size > 1 && stride != expected;
        expected *= size;
        differs
    })
}

impl<S: Shape> AnyTensor for Tensor<S, f32, Cpu> {
    fn dimensions(&self) -> Vec<usize> {
        self.shape().concrete().into_iter().collect()
    }

    fn elements(&self) -> usize {
        self.shape().num_elements()
    }

    fn values(&self) -> Vec<f32> {
        self.as_vec()
    }

    fn strides(&self) -> Vec<usize> {
        // dfdx keeps strides to itself; the addresses of elements show them.
        let address = |index: S::Concrete| ptr::from_ref(&self[index]).addr();
        let sizes = self.dimensions();
        let of_axis = |axis| {
            let mut index = S::Concrete::default();
            let first = address(index);
            index[axis] = 1;
            (address(index) - first) / size_of::<f32>()
        };
        let axes = sizes.iter().enumerate();
        axes.map(|(axis, &size)| if size > 1 { of_axis(axis) } else { 0 })
            .collect()
    }

    fn draw(&self) -> u64 {
        self.device().random_u64()
    }

    fn slot(&self) -> GradientSlot {
        let ghost = self.ghost();
        Box::new(move |gradients| Ok(gradients.get_or_alloc_mut(&ghost)?))
    }
}

/// A tensor as it is visited.
pub struct Visited<'a> {
    /// The path of its field, as [`Parameter::field`](crate::plan::Parameter::field).
    pub field: String,
    /// Whether optimisers change it: if not, it is a running statistic.
    pub is_trainable: bool,
    /// The tensor.
    pub tensor: &'a dyn AnyTensor,
}

/// Visits each tensor of a model: a network, or a part of one. A network's tensors come in the
/// order of [`Plan::parameters`](crate::plan::Plan::parameters).
pub fn each_tensor<M: TensorCollection<f32, Cpu>>(model: &M, mut visit: impl FnMut(Visited<'_>)) {
    let mut read = Read(&mut visit);
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker {
        m: (model, String::new()),
        f: &mut read,
    });
}

struct Read<'a>(&'a mut dyn FnMut(Visited<'_>));

impl TensorVisitor<f32, Cpu> for Read<'_> {
    type Viewer = (ViewTensorRef, ViewTensorName);
    type Err = Infallible;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        (tensor, field): (&Tensor<S, f32, Cpu>, String),
    ) -> Result<Option<Tensor<S, f32, Cpu>>, Infallible> {
        (self.0)(Visited {
            field,
            is_trainable: options.do_gradient_update,
            tensor,
        });
        Ok(None)
    }
}

/// A tensor that can be written.
pub(crate) trait AnyTensorMut: AnyTensor {
    /// Copies values into a tensor that has memory of its own, in order. If the tensor is a view, or
    /// has another number of elements, it is unchanged, and this returns false.
    fn store(&mut self, values: &[f32]) -> bool;
}

impl<S: Shape> AnyTensorMut for Tensor<S, f32, Cpu> {
    fn store(&mut self, values: &[f32]) -> bool {
        let fits = values.len() == self.elements() && !is_view(self);
        if fits {
            self.copy_from(values);
        }
        fits
    }
}

/// A function that changes each tensor of a model; its first argument says whether the tensor is trainable.
type Change<'a, E> = dyn FnMut(bool, &mut dyn AnyTensorMut) -> Result<(), E> + 'a;

/// Visits each tensor of a model to change it, in the order of [`each_tensor`].
pub(crate) fn each_tensor_mut<M: TensorCollection<f32, Cpu>, E>(
    model: &mut M,
    change: &mut Change<'_, E>,
) -> Result<(), E> {
    let mut write = Write(change);
    M::iter_tensors(&mut RecursiveWalker {
        m: model,
        f: &mut write,
    })?;
    Ok(())
}

struct Write<'a, 'b, E>(&'a mut Change<'b, E>);

impl<E> TensorVisitor<f32, Cpu> for Write<'_, '_, E> {
    type Viewer = ViewTensorMut;
    type Err = E;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        tensor: &mut Tensor<S, f32, Cpu>,
    ) -> Result<Option<Tensor<S, f32, Cpu>>, E> {
        (self.0)(options.do_gradient_update, tensor)?;
        Ok(None)
    }
}
