//! Copies flat numbers into a module's running statistics and gradients.
//! [`State`](crate::weights::State) copies numbers out of a module.

use dfdx::prelude::*;

use super::ForwardError;
use crate::weights::{GradientSlot, each_tensor, each_tensor_mut, is_view};

type Error = <Cpu as HasErr>::Err;

/// Copies running statistics into a module of the same kind.
pub(crate) fn store_running<M: TensorCollection<f32, Cpu>>(
    module: &mut M,
    mut running: &[f32],
) -> Result<(), Error> {
    each_tensor_mut(module, &mut |is_trainable, tensor| {
        if is_trainable {
            return Ok(());
        }
        let (values, rest) = running.split_at(tensor.elements());
        running = rest;
        match tensor.store(values) {
            true => Ok(()),
            false => Err(Error::WrongNumElements),
        }
    })
}

/// The gradient slots of a module's parameters, each with its number of elements.
pub(crate) struct Slots(Vec<(usize, GradientSlot)>);

impl Slots {
    /// The slots of a module.
    ///
    /// # Errors
    /// If one of its tensors is a view.
    pub fn of<M: TensorCollection<f32, Cpu>>(module: &M) -> Result<Self, ForwardError> {
        let mut slots = Self(Vec::new());
        slots.append(module)?;
        Ok(slots)
    }

    /// Adds the slots of another module.
    ///
    /// # Errors
    /// If one of its tensors is a view.
    pub fn append<M: TensorCollection<f32, Cpu>>(
        &mut self,
        module: &M,
    ) -> Result<(), ForwardError> {
        let mut view = None;
        each_tensor(module, |visited| {
            let tensor = visited.tensor;
            if is_view(tensor) {
                view.get_or_insert_with(|| tensor.dimensions());
            }
            if visited.is_trainable {
                self.0.push((tensor.elements(), tensor.slot()));
            }
        });
        view.map_or(Ok(()), |shape| Err(ForwardError::View { shape }))
    }

    /// Adds `values` to the gradients: those of all parameters, one after another.
    pub fn add(&self, gradients: &mut Gradients<f32, Cpu>, values: &[f32]) -> Result<(), Error> {
        let mut rest = values;
        for (elements, slot) in &self.0 {
            let (own, others) = rest.split_at(*elements);
            let into = slot(gradients)?;
            if into.len() != own.len() {
                return Err(Error::WrongNumElements);
            }
            let pairs = into.iter_mut().zip(own);
            pairs.for_each(|(into, value)| *into += value);
            rest = others;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Classifier;
    use super::*;

    type Square = Classifier<3, 3, f32, Cpu>;

    fn views(module: &Square) -> Option<Vec<usize>> {
        match Slots::of(module) {
            Err(ForwardError::View { shape }) => Some(shape),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        }
    }

    #[test]
    fn a_tensor_that_is_a_view_has_no_slot() {
        let dev = Cpu::default();
        let own = Square {
            weight: dev.zeros(),
            bias: dev.zeros(),
        };
        assert_eq!(views(&own), None);
        let broadcast = Square {
            bias: dev.zeros::<Rank0>().broadcast(),
            ..own.clone()
        };
        assert_eq!(views(&broadcast), Some(vec![3]));
        let permuted = Square {
            weight: own.weight.permute::<_, Axes2<1, 0>>(),
            bias: own.bias,
        };
        assert_eq!(views(&permuted), Some(vec![3, 3]));
    }
}
