//! Flat numbers back into a module's tensors and their gradients, in the order in which dfdx
//! visits them. [`State`](crate::weights::State) is the way out.

use dfdx::prelude::*;

type Error = <Cpu as HasErr>::Err;

/// Copies running statistics into a module of the same kind.
pub(crate) fn store_running<M: TensorCollection<f32, Cpu>>(module: &mut M, running: &[f32]) {
    let mut write = WriteRunning { rest: running };
    // `WriteRunning` cannot fail.
    let _ = M::iter_tensors(&mut RecursiveWalker {
        m: module,
        f: &mut write,
    });
}

struct WriteRunning<'a> {
    rest: &'a [f32],
}

impl TensorVisitor<f32, Cpu> for WriteRunning<'_> {
    type Viewer = ViewTensorMut;
    type Err = Error;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        tensor: &mut Tensor<S, f32, Cpu>,
    ) -> Result<Option<Tensor<S, f32, Cpu>>, Error> {
        if !options.do_gradient_update {
            let (values, rest) = self.rest.split_at(tensor.shape().num_elements());
            tensor.copy_from(values);
            self.rest = rest;
        }
        Ok(None)
    }
}

/// Adds numbers to the gradient of one tensor.
type Slot = Box<dyn Fn(&mut Gradients<f32, Cpu>, &[f32]) -> Result<(), Error>>;

/// Where the gradients of a module's parameters go.
pub(crate) struct Slots(Vec<(usize, Slot)>);

impl Slots {
    /// Those of a module.
    pub fn of<M: TensorCollection<f32, Cpu>>(module: &M) -> Self {
        let mut slots = Self(Vec::new());
        slots.append(module);
        slots
    }

    /// Adds another module's.
    pub fn append<M: TensorCollection<f32, Cpu>>(&mut self, module: &M) {
        // `Find` cannot fail.
        let _ = M::iter_tensors(&mut RecursiveWalker {
            m: module,
            f: &mut Find(self),
        });
    }

    /// Adds the gradients of all parameters, which lie one behind the other.
    pub fn add(&self, gradients: &mut Gradients<f32, Cpu>, values: &[f32]) -> Result<(), Error> {
        let mut rest = values;
        for (len, slot) in &self.0 {
            let (own, others) = rest.split_at(*len);
            slot(gradients, own)?;
            rest = others;
        }
        Ok(())
    }
}

struct Find<'a>(&'a mut Slots);

impl TensorVisitor<f32, Cpu> for Find<'_> {
    type Viewer = ViewTensorRef;
    type Err = Error;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        tensor: &Tensor<S, f32, Cpu>,
    ) -> Result<Option<Tensor<S, f32, Cpu>>, Error> {
        if options.do_gradient_update {
            let ghost = tensor.ghost();
            let add = move |gradients: &mut Gradients<f32, Cpu>, values: &[f32]| {
                let into = gradients.get_or_alloc_mut(&ghost)?;
                into.iter_mut()
                    .zip(values)
                    .for_each(|(into, value)| *into += value);
                Ok(())
            };
            self.0
                .0
                .push((tensor.shape().num_elements(), Box::new(add)));
        }
        Ok(None)
    }
}
