//! Copies flat numbers into a module's running statistics and gradients.
//! [`State`](crate::weights::State) is the way out of a module.

use dfdx::prelude::*;

use crate::weights::{GradientSlot, each_tensor, each_tensor_mut};

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
    pub fn of<M: TensorCollection<f32, Cpu>>(module: &M) -> Self {
        let mut slots = Self(Vec::new());
        slots.append(module);
        slots
    }

    /// Adds the slots of another module.
    pub fn append<M: TensorCollection<f32, Cpu>>(&mut self, module: &M) {
        each_tensor(module, |visited| {
            if visited.is_trainable {
                let tensor = visited.tensor;
                self.0.push((tensor.elements(), tensor.slot()));
            }
        });
    }

    /// Adds `values` to the gradients: those of all parameters, one after another.
    pub fn add(&self, gradients: &mut Gradients<f32, Cpu>, values: &[f32]) -> Result<(), Error> {
        let mut rest = values;
        for (elements, slot) in &self.0 {
            let (own, others) = rest.split_at(*elements);
            let into = slot(gradients)?.iter_mut();
            into.zip(own).for_each(|(into, value)| *into += value);
            rest = others;
        }
        Ok(())
    }
}
